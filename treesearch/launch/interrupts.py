"""Ctrl-C: what is under way is finished and written down, then the search ends; a second one ends it at once."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from treesearch.interrupts import outside_kernels
from treesearch.search.durable import DurableExecutor

SIGNALS = (signal.SIGINT, signal.SIGTERM)  # the latter is what schedulers of clusters send


@contextmanager
def finish_what_is_under_way(executor: DurableExecutor, say: Callable[[str], None]) -> Iterator[None]:
    """Let the first signal stop the executor where it has tasks under way; else, and later, it is a KeyboardInterrupt.

    Args:
        executor: Stopped.
        say: Told what happens.
    """
    if threading.current_thread() is not threading.main_thread():  # there signals cannot be handled
        yield
        return
    stopping = False

    def handle(number: int, frame: FrameType | None) -> None:
        nonlocal stopping
        if stopping:
            raise KeyboardInterrupt
        stopping = True
        executor.stop()  # also where an interrupt is raised: a destructor would lose it
        if not executor.busy:
            raise KeyboardInterrupt
        say("stopping: evaluations that are under way are finished; once more to end at once")

    before = {number: signal.signal(number, outside_kernels(handle)) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
