import pytest
import torch
from threadpoolctl import threadpool_info

from treesearch.evaluation.threads import one_thread


def blas_threads() -> list[int]:
    return [library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"]


@pytest.mark.parametrize("fails", [False, True])
def test_one_thread_inside_and_as_before_outside(fails: bool) -> None:
    torch.set_num_threads(2)  # the fixture of this package restores it
    before = blas_threads()
    try:
        with one_thread():
            assert torch.get_num_threads() == 1
            assert set(blas_threads()) <= {1}
            if fails:
                raise KeyError("inside")
    except KeyError:
        assert fails
    assert torch.get_num_threads() == 2
    assert blas_threads() == before
    torch.set_num_threads(1)
