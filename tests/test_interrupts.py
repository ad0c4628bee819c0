"""Ctrl-C while a kernel runs, which Python handles when the kernel hands out its arrays."""

import signal

import numba
import numpy as np
import pytest
from numba.core import serialize

from treesearch.interrupts import outside_kernels, plain_interrupts


class Interrupted(dict):
    """What numba looks up whenever it hands out arrays; here Ctrl-C comes at that moment, once."""

    def __getitem__(self, key):
        if not self.get("came"):
            self["came"] = True
            signal.raise_signal(signal.SIGINT)
        return super().__getitem__(key)


@numba.njit
def two_arrays(n):
    return np.zeros(n), np.ones(n)


@pytest.fixture
def interrupted_kernel(monkeypatch):
    two_arrays(1)
    monkeypatch.setattr(serialize, "_unpickled_memo", Interrupted(serialize._unpickled_memo))
    return two_arrays


@pytest.fixture
def handled():
    before = signal.signal(signal.SIGINT, outside_kernels(signal.default_int_handler))
    yield
    signal.signal(signal.SIGINT, before)


def test_an_interrupt_waits_until_a_kernel_has_handed_out_its_result(interrupted_kernel, handled):
    results = []

    def work():
        results.append(interrupted_kernel(3))
        signal.pause()  # as who waits for a result; what another thread gets would not end it

    with pytest.raises(KeyboardInterrupt):
        work()
    assert [array.tolist() for array in results[0]] == [[0, 0, 0], [1, 1, 1]]


def test_elsewhere_it_comes_at_once(handled):
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)


def test_one_that_numba_has_swallowed_is_one_all_the_same():
    """Made up: the real one may crash the process."""
    inner, outer = SystemError("inner kernel"), SystemError("outer kernel")
    inner.__cause__, outer.__cause__ = KeyboardInterrupt(), inner
    with pytest.raises(KeyboardInterrupt), plain_interrupts():
        raise outer


@pytest.mark.parametrize("error", [SystemError("of another kind"), ValueError("1"), KeyboardInterrupt(), SystemExit(3)])
def test_everything_else_stays_what_it_is(error):
    with pytest.raises(type(error)) as caught, plain_interrupts():
        raise error
    assert caught.value is error


def test_a_system_error_with_another_cause_stays_what_it_is():
    with pytest.raises(SystemError) as caught, plain_interrupts():
        raise SystemError("outer") from ValueError("inner")
    assert isinstance(caught.value.__cause__, ValueError)
