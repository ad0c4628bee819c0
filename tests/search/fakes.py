"""Workers that tests send into other processes."""

import os
import signal
import threading
import time
from pathlib import Path

import numpy as np

THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")


class AwkwardError(Exception):
    """Cannot be pickled, nor built from its message."""

    def __init__(self, first, second):
        super().__init__(f"{first} and {second}")
        self.hook = lambda: None


class Commands:
    """Each payload is (name of a method, arguments...)."""

    def __init__(self, arrays, settings):
        self.arrays = arrays
        self.settings = settings
        self.calls = 0

    def __call__(self, payload):
        name, *args = payload
        return getattr(self, name)(*args)

    def dot(self, seed):
        weights = np.random.default_rng(seed).standard_normal(len(self.arrays["x"]))
        # Not `weights @ x`: BLAS splits the sum over its threads, of which this process may have more than a worker.
        return float((weights * self.arrays["x"]).sum()) * self.settings["scale"]

    def fetch(self):
        return {name: (array.copy(), array.dtype.str, array.flags.f_contiguous) for name, array in self.arrays.items()}

    def write(self, name):
        self.arrays[name][...] = 0

    def count(self):
        self.calls += 1
        return os.getpid(), self.calls

    def nap(self, seconds):
        time.sleep(seconds)
        return seconds

    def fail(self, kind):
        raise {
            "value": ValueError("class 7 is missing"),
            "key": KeyError("x"),
            "empty": RuntimeError(),
            "lines": RuntimeError("first line\n  second line"),
            "awkward": AwkwardError("one", "two"),
            "timeout": TimeoutError("no answer"),
        }[kind]

    def unpicklable(self):
        return threading.Lock()

    def die(self):
        os._exit(1)

    def die_once(self, flag):
        if not Path(flag).exists():
            Path(flag).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return "survived"

    def threads(self):
        import torch

        return {name: os.environ.get(name) for name in THREAD_VARIABLES}, torch.get_num_threads()


def make_commands(arrays, settings):
    return Commands(arrays, settings)


def make_with_torch(arrays, settings):
    import torch  # noqa: F401  (the host caps the threads of a torch that the factory has loaded)

    return Commands(arrays, settings)


def broken_factory(arrays, settings):
    raise ValueError(f"no such encoder: {settings['encoder']}")


def deadly_factory(arrays, settings):
    os._exit(1)
