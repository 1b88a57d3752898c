"""What is done at the same time, and the threads that do it."""

import _thread
import threading
import time
import weakref
from collections.abc import Callable
from types import MethodType
from typing import cast

import pytest

from pageantry import threads
from pageantry.threads import together


@pytest.fixture(autouse=True)
def started(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """The helpers that threads were started for; none was idle before."""
    begun: list[object] = []
    start = threads._start

    def noting(run: Callable[[], object]) -> None:
        begun.append(cast("MethodType", run).__self__)
        start(run)

    monkeypatch.setattr(threads, "_idle", [])
    monkeypatch.setattr(threads, "_start", noting)
    return begun


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def all_idle(started: list[object]) -> bool:
    return all(helper in threads._idle for helper in started)


def test_each_has_its_outcome_in_order() -> None:
    assert together(lambda number: 6 // number, (1, 2, 3), 5) == [(6,), (3,), (2,)]
    good, bad = together(lambda number: 6 // number, (2, 0), 5)
    assert good == (3,)
    assert bad is not None
    assert isinstance(bad[0], ZeroDivisionError)


def test_all_are_done_at_the_same_time() -> None:
    barrier = threading.Barrier(4, timeout=10)
    outcomes = together(lambda _: barrier.wait(), range(4), 10)
    assert sorted(outcome[0] for outcome in outcomes if outcome and isinstance(outcome[0], int)) == [0, 1, 2, 3]


def test_what_takes_too_long_is_left_alone_and_costs_nobody_its_outcome() -> None:
    free = threading.Event()
    do: list[Callable[[], object]] = [lambda: "first", lambda: free.wait(10), lambda: "third"]
    assert together(lambda act: act(), do, 0.2) == [("first",), None, ("third",)]
    assert together(lambda number: number, range(3), 5) == [(0,), (1,), (2,)]
    free.set()


def test_threads_are_used_again(started: list[object]) -> None:
    for _ in range(50):
        assert together(str, (1, 2, 3), 5) == [("1",), ("2",), ("3",)]
        wait_for(lambda: all_idle(started))
    assert 0 < len(started) <= 2


def test_threads_that_have_nothing_to_do_end(started: list[object], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "_STAY", 0.01)
    before = _thread._count()
    together(str, range(5), 5)
    assert started
    wait_for(lambda: not any(helper in threads._idle for helper in started) and _thread._count() <= before)


def test_a_thread_taken_at_its_end_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "_STAY", 0.0)
    for _ in range(500):
        assert together(str, (1, 2), 5) == [("1",), ("2",)]


def test_idle_threads_keep_nothing_alive(started: list[object]) -> None:
    class Thing:
        pass

    things = [Thing(), Thing()]
    left = [weakref.ref(thing) for thing in things]
    together(id, things, 5)
    wait_for(lambda: all_idle(started))
    things.clear()
    assert [one() for one in left] == [None, None]
