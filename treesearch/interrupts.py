"""Ctrl-C and compiled code: a signal that comes while a kernel runs is handled as it hands out its result.

There numba calls Python for a moment, and does not survive an exception: it gives a SystemError, or crashes.
"""

from __future__ import annotations

import _thread
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

Handler = Callable[[int, FrameType | None], object]
HANDING_OUT = "numba.core.serialize"  # the module that a kernel calls while its result becomes objects of Python
DELAY = 0.01  # seconds until a signal comes again


def outside_kernels(handle: Handler) -> Handler:
    """The handler of a signal, called once no kernel is handing out its result."""

    def handle_later(number: int, frame: FrameType | None) -> None:
        if _within_a_kernel(frame):
            _thread.start_new_thread(_raise_later, (number,))
        else:
            handle(number, frame)

    return handle_later


def _within_a_kernel(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_globals.get("__name__") == HANDING_OUT:
            return True
        frame = frame.f_back
    return False


def _raise_later(number: int) -> None:
    time.sleep(DELAY)
    main = threading.main_thread().ident
    assert main is not None, "it has been started"
    signal.pthread_kill(main, number)  # what it may be waiting for ends then, as after a first signal


@contextmanager
def plain_interrupts() -> Iterator[None]:
    """Let a Ctrl-C that numba has made a SystemError of be a KeyboardInterrupt, where somebody else handles signals."""
    try:
        yield
    except SystemError as error:
        cause: BaseException | None = error
        while isinstance(cause, SystemError):  # one for each compiled function on the way
            cause = cause.__cause__
        if isinstance(cause, KeyboardInterrupt):
            raise cause from None
        raise
