"""Code for GPUs must not wait for the device: detectors that fail where it does, without and with CUDA."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

cuda = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]


class NoWaiting(TorchDispatchMode):
    """Fails on operations that read a value back, or whose result's shape depends on values."""

    FORBIDDEN = (
        "_local_scalar_dense",
        "nonzero",
        "unique",
        "masked_select",
        "is_nonzero",
        "equal",
        "repeat_interleave",
    )

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        name = func.overloadpacket.__name__
        assert not name.startswith(self.FORBIDDEN), f"{func} waits for the device"
        if name.startswith("index") and len(args) > 1 and isinstance(args[1], (list, tuple)):
            assert all(index is None or index.dtype != torch.bool for index in args[1]), f"{func} by a mask"
        return func(*args, **(kwargs or {}))


@contextmanager
def no_waiting_on_cuda() -> Iterator[None]:
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")
