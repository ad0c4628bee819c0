"""One thread: on these small tensors, waking a second one costs more than the work."""

from collections.abc import Iterator

import pytest

from treesearch.evaluation.threads import one_thread


@pytest.fixture(autouse=True, scope="package")
def _on_one_thread() -> Iterator[None]:
    with one_thread():
        yield
