"""Closing a pipe: at any moment, from anywhere, and that its handle goes once, and never under somebody's feet."""

from __future__ import annotations

import errno
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING

import pytest

from pageantry.winpipe import Peer, Pipe

if TYPE_CHECKING:
    from tests.winpipe.conftest import AtEachMoment, CallWithEvent, Clock, Handle, Lane

    Fresh = Callable[[bool], tuple[Pipe, Handle]]
    Operation = Callable[[Pipe], object]
    Fate = bytes | int | OSError | None

GONE = BrokenPipeError(errno.EPIPE, "gone")

OPERATIONS: dict[str, Operation] = {
    "reading": lambda pipe: pipe.recv(10),
    "writing": lambda pipe: pipe.sendall(b"abc"),
}


def wait_for(condition: Callable[[], bool]) -> None:
    """Wait for what another thread does."""
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline, "it did not come to that"
        time.sleep(0.001)


def closed(operate: Callable[[], object]) -> None:
    with pytest.raises(OSError, match="closed") as caught:
        operate()
    assert caught.value.errno == errno.EBADF


def test_a_pipe_in_which_nothing_happens_is_closed_at_once(pipe: Pipe, handle: Handle) -> None:
    pipe.close()
    assert handle.closed
    pipe.close()


def test_nothing_can_be_done_with_a_closed_pipe(pipe: Pipe, handle: Handle) -> None:
    pipe.close()
    for call in (
        partial(pipe.recv, 1), partial(pipe.recv_into, bytearray(1)), partial(pipe.sendall, b"x"),
        partial(pipe.sendall, b""),
    ):  # fmt: skip
        closed(call)
    assert handle.reading.asked == handle.writing.asked == 0


@pytest.mark.parametrize("way", OPERATIONS)
@pytest.mark.parametrize("moment", ["start", "started", "wait", "cancel", "result", "told"])
@pytest.mark.parametrize("timeout", [None, 0, 1])
def test_a_handler_may_close_what_it_interrupts(
    pipe: Pipe, handle: Handle, way: str, moment: str, timeout: float | None
) -> None:
    def close() -> None:
        pipe.close()
        assert not handle.closed

    lane: Lane = getattr(handle, way)
    lane.at[moment] = [close]
    if moment == "cancel":
        pipe.settimeout(0.05)
    elif moment not in ("result", "told"):
        pipe.settimeout(timeout)
    else:
        lane.starts = [b"abc" if way == "reading" else 3]
        assert OPERATIONS[way](pipe) in (b"abc", None)
        assert handle.closed
        return
    closed(partial(OPERATIONS[way], pipe))
    assert handle.closed


@pytest.mark.parametrize("way", OPERATIONS)
def test_what_succeeded_as_the_pipe_was_closed_is_a_success(pipe: Pipe, handle: Handle, way: str) -> None:
    lane: Lane = getattr(handle, way)
    lane.cancels = [b"abc" if way == "reading" else 3]
    lane.at["wait"] = [pipe.close]
    assert OPERATIONS[way](pipe) in (b"abc", None)
    assert handle.closed


@pytest.mark.parametrize("way", OPERATIONS)
def test_an_operation_that_fails_as_the_pipe_is_closed_gives_the_handle_back(
    pipe: Pipe, handle: Handle, way: str
) -> None:
    lane: Lane = getattr(handle, way)
    lane.starts = [OSError(errno.EIO, "broken")]
    lane.at["start"] = [pipe.close]
    with pytest.raises(OSError, match="broken"):
        OPERATIONS[way](pipe)
    assert handle.closed


# --- other threads


@pytest.mark.parametrize("ways", [["reading"], ["writing"], ["reading", "writing"], ["reading"] * 3, ["writing"] * 3])
@pytest.mark.parametrize("timeout", [None, 30])
def test_closing_wakes_all_who_wait(slow: tuple[Pipe, Handle], ways: list[str], timeout: float | None) -> None:
    pipe, handle = slow
    pipe.settimeout(timeout)
    errors: list[int | None] = []

    def operate(way: str) -> None:
        try:
            OPERATIONS[way](pipe)
        except OSError as error:
            errors.append(error.errno)

    threads = [threading.Thread(target=operate, args=(way,)) for way in ways]
    for thread in threads:
        thread.start()
    wait_for(lambda: all(getattr(handle, way).under_way for way in ways))
    assert not handle.closed
    pipe.close()
    for thread in threads:
        thread.join(10)
    assert errors == [errno.EBADF] * len(ways)
    assert handle.closed


def test_the_main_thread_is_woken_too(slow: tuple[Pipe, Handle]) -> None:
    pipe, handle = slow

    def close() -> None:
        wait_for(lambda: handle.reading.under_way)
        pipe.close()

    closer = threading.Thread(target=close)
    closer.start()
    closed(partial(pipe.recv, 10))
    closer.join(10)


def test_whoever_comes_last_gives_the_handle_back(slow: tuple[Pipe, Handle]) -> None:
    pipe, handle = slow
    told, go = threading.Event(), threading.Event()

    def wait_to_be_told() -> None:
        told.set()
        go.wait(10)

    handle.reading.at["told"] = [wait_to_be_told]
    threads = [threading.Thread(target=partial(closed, partial(OPERATIONS[way], pipe))) for way in OPERATIONS]
    for thread in threads:
        thread.start()
    wait_for(lambda: handle.reading.under_way and handle.writing.under_way)
    pipe.close()
    threads[1].join(10)  # the writer has gone; the reader has not yet seen that its operation has ended
    assert told.wait(10)
    assert not handle.closed
    pipe.close()
    assert not handle.closed
    go.set()
    threads[0].join(10)
    assert handle.closed


def test_the_main_thread_does_not_wait_for_a_turn_that_ends_slowly(slow: tuple[Pipe, Handle]) -> None:
    pipe, handle = slow
    go = threading.Event()
    handle.reading.at["told"] = [lambda: go.wait(10)]

    def close() -> None:
        wait_for(lambda: handle.reading.under_way)
        pipe.close()

    threads = [threading.Thread(target=target) for target in (partial(closed, partial(pipe.recv, 10)), close)]
    threads[0].start()
    wait_for(lambda: handle.reading.under_way)
    threads[1].start()
    closed(partial(pipe.recv, 10))
    assert not handle.closed
    go.set()
    for thread in threads:
        thread.join(10)


def test_two_may_close_at_once(slow: tuple[Pipe, Handle]) -> None:
    pipe, handle = slow
    barrier = threading.Barrier(3)

    def all_at_once(call: Callable[[], object]) -> None:
        barrier.wait(10)
        call()

    calls: list[Callable[[], object]] = [pipe.close, pipe.close, partial(closed, partial(pipe.recv, 10))]
    threads = [threading.Thread(target=all_at_once, args=(call,)) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert handle.closed


# --- at each moment


FATES: list[tuple[str, Fate, Fate, float | None, object]] = [
    # way, what becomes of the first wait, what becomes of the cancelling, the timeout, what comes of it all
    ("reading", b"abc", None, None, b"abc"),
    ("reading", None, b"abc", 1, b"abc"),
    ("reading", None, None, 1, errno.ETIMEDOUT),
    ("reading", GONE, None, None, b""),
    ("writing", 3, None, None, None),
    ("writing", None, 3, 1, None),
    ("writing", None, None, 1, errno.ETIMEDOUT),
    ("writing", GONE, None, None, errno.EPIPE),
]


def prepared(pipe: Pipe, handle: Handle, way: str, fate: Fate, cancel: Fate, timeout: float | None) -> None:
    pipe.settimeout(timeout)
    lane: Lane = getattr(handle, way)
    lane.cancels = [cancel]

    def end() -> None:
        if lane.under_way and fate is not None:
            lane.end(fate)

    lane.at["wait"] = [end]


@pytest.mark.parametrize(("way", "fate", "cancel", "timeout", "expected"), FATES)
def test_a_handler_may_close_it_at_any_moment(
    handle: Handle,
    clock: Clock,
    at_each_moment: AtEachMoment,
    way: str,
    fate: Fate,
    cancel: Fate,
    timeout: float | None,
    expected: object,
) -> None:
    made = []

    def run(call_with_event: CallWithEvent) -> None:
        fresh = type(handle)(clock)
        made.append(fresh)
        pipe = Pipe(fresh, r"\\.\pipe\x", Peer(None, None))
        prepared(pipe, fresh, way, fate, cancel, timeout)
        try:
            result = call_with_event(lambda: OPERATIONS[way](pipe), pipe.close)
        except OSError as error:
            result = error.errno
        assert result in (errno.EBADF, expected)
        pipe.close()
        assert fresh.closed

    assert at_each_moment(run) > 12
    assert [fault for one in made for fault in one.faults] == []
    handle.close()


@pytest.mark.parametrize(("way", "fate", "cancel", "timeout", "expected"), FATES)
def test_an_interrupt_at_any_moment_leaves_a_pipe_that_works(
    handle: Handle,
    clock: Clock,
    at_each_moment: AtEachMoment,
    way: str,
    fate: Fate,
    cancel: Fate,
    timeout: float | None,
    expected: object,
) -> None:
    made = []

    def interrupt() -> None:
        raise KeyboardInterrupt

    def run(call_with_event: CallWithEvent) -> None:
        fresh = type(handle)(clock)
        made.append(fresh)
        pipe = Pipe(fresh, r"\\.\pipe\x", Peer(None, None))
        prepared(pipe, fresh, way, fate, cancel, timeout)
        lane: Lane = getattr(fresh, way)
        try:
            call_with_event(lambda: OPERATIONS[way](pipe), interrupt)
        except (KeyboardInterrupt, OSError):
            pass
        lane.at, lane.cancels, lane.starts = {}, [], [b"def" if way == "reading" else 3]
        pipe.settimeout(0)
        assert OPERATIONS[way](pipe) in (b"abc", b"def", None)
        pipe.close()
        assert fresh.closed

    assert at_each_moment(run) > 12
    assert [fault for one in made for fault in one.faults] == []
    handle.close()


@pytest.mark.parametrize("way", OPERATIONS)
def test_another_thread_may_close_it_at_any_moment(fresh: Fresh, at_each_moment: AtEachMoment, way: str) -> None:
    """Nobody has a deadline, nor looks about in slices."""

    def run(call_with_event: CallWithEvent) -> None:
        pipe, handle = fresh(True)
        lane: Lane = getattr(handle, way)
        closers: list[threading.Thread] = []

        def close() -> None:
            closers.append(threading.Thread(target=pipe.close))
            closers[0].start()
            closers[0].join(0.01)  # for as long as it may have to wait for us

        def end() -> None:
            if not closers:
                lane.end(b"abc" if way == "reading" else 3)

        lane.at["wait"] = [end]
        with ThreadPoolExecutor(1) as pool:
            call = pool.submit(call_with_event, lambda: OPERATIONS[way](pipe), close)
            error = call.exception(10)
        assert error is None or (isinstance(error, OSError) and error.errno == errno.EBADF)
        for closer in closers:
            closer.join(10)
        pipe.close()
        assert handle.closed
        assert handle.faults == []

    assert at_each_moment(run) > 12


@pytest.mark.parametrize("way", OPERATIONS)
@pytest.mark.parametrize("moment", ["start", "started", "wait", "result", "told"])
def test_a_handler_is_told_that_it_cannot_do_what_it_interrupted(
    pipe: Pipe, handle: Handle, way: str, moment: str
) -> None:
    refused = []

    def again() -> None:
        with pytest.raises(RuntimeError, match="handler"):
            OPERATIONS[way](pipe)
        refused.append(moment)
        other = {"reading": "writing", "writing": "reading"}[way]
        getattr(handle, other).starts = [b"abc" if other == "reading" else 3]
        OPERATIONS[other](pipe)

    lane: Lane = getattr(handle, way)
    if moment != "wait":
        lane.starts = [b"abc" if way == "reading" else 3]
    lane.at = {moment: [again], "result": [again] if moment == "result" else []}
    lane.cancels = [b"abc" if way == "reading" else 3]
    pipe.settimeout(1)
    assert OPERATIONS[way](pipe) in (b"abc", None)
    assert refused == [moment]
    lane.starts = [b"abc" if way == "reading" else 3]
    OPERATIONS[way](pipe)
