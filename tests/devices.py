"""Devices other than the host: CUDA where there is one, and a pretended one that every machine has.

The pretended device runs on the host and tells nothing of CUDA's kernels or speed. It tells whether tensors of two
devices are mixed and whether something takes the address or the NumPy array of a tensor that is elsewhere.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import types
from pathlib import Path
from typing import Any

import pytest
import torch

# ``build``, or the file that was built before. Torch wants to know of a device before the first backward of a process.
BUILT = os.environ.get("TREESEARCH_PRETEND_DEVICE")
SOURCE = Path(__file__).parent / "pretend" / "device.cpp"
DEVICES = [
    pytest.param("pretend", marks=[pytest.mark.slow, pytest.mark.pretend]),
    pytest.param("cuda", marks=pytest.mark.gpu),
]


def ready(name: str) -> torch.device:
    """The device of this name; skips the test where there is none."""
    if name == "cuda" and not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    if name == "pretend" and BUILT is None:
        pytest.skip("needs TREESEARCH_PRETEND_DEVICE=build, in a process of its own: make test-devices")
    return torch.device(name, 0)


def _register() -> None:
    """Build the device and tell torch of it, once a process."""
    library = BUILT
    if library == "build":
        compiler = shutil.which("g++")
        assert compiler is not None, "TREESEARCH_PRETEND_DEVICE=build needs g++"
        root = Path(torch.__file__).parent
        folder = tempfile.mkdtemp(prefix="treesearch-pretend-")
        library = str(Path(folder) / "pretend.so")
        includes = [f"-I{root / 'include'}", f"-I{root / 'include/torch/csrc/api/include'}"]
        libraries = [f"-L{root / 'lib'}", "-lc10", "-ltorch_cpu", "-ltorch"]
        command = [compiler, "-O0", "-std=c++20", "-fPIC", "-shared", *includes, str(SOURCE), "-o", library, *libraries]
        subprocess.run(command, check=True, capture_output=True)
    torch.ops.load_library(library)
    module: Any = types.ModuleType("torch.pretend")  # what torch asks such a module for
    module.is_available = lambda: True
    module.device_count = lambda: 1
    module.current_device = lambda: 0
    module._is_in_bad_fork = lambda: False
    module.manual_seed_all = lambda seed: None
    module.get_amp_supported_dtype = lambda: [torch.bfloat16, torch.float16]
    torch.utils.rename_privateuse1_backend("pretend")
    torch._register_device_module("pretend", module)


if BUILT is not None:
    _register()
