"""Interrupts, and turns: what a pipe owes to those who are not alone with it."""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import pytest

from pageantry.winpipe import Pipe

if TYPE_CHECKING:
    from tests.winpipe.conftest import Handle

GONE = BrokenPipeError(errno.EPIPE, "gone")
FAULT = OSError(errno.EIO, "broken")


def interrupt() -> None:
    raise KeyboardInterrupt


# --- interrupts


@pytest.mark.parametrize("moment", ["started", "wait", "result", "told"])
def test_what_arrived_for_somebody_interrupted_is_there_for_the_next(pipe: Pipe, handle: Handle, moment: str) -> None:
    handle.reading.cancels = [b"abcde"]
    if moment in ("result", "told"):
        handle.reading.starts = [b"abcde"]
    handle.reading.at[moment] = [interrupt]
    with pytest.raises(KeyboardInterrupt):
        pipe.recv(10)
    buffer = bytearray(2)
    assert pipe.recv(2) == b"ab"
    assert pipe.recv_into(buffer) == 2
    assert buffer == b"cd"
    assert pipe.recv(10) == b"e"
    handle.reading.starts = [b"f"]
    assert pipe.recv(10) == b"f"


def test_what_arrived_in_the_buffer_of_somebody_interrupted_is_there_for_the_next(pipe: Pipe, handle: Handle) -> None:
    handle.reading.at["wait"] = [interrupt]
    handle.reading.cancels = [b"abc"]
    with pytest.raises(KeyboardInterrupt):
        pipe.recv_into(bytearray(10))
    assert pipe.recv(10) == b"abc"


@pytest.mark.parametrize("fate", [None, b"", GONE, FAULT])
def test_an_interrupt_is_raised_whatever_became_of_the_read(
    pipe: Pipe, handle: Handle, fate: bytes | OSError | None
) -> None:
    handle.reading.at["wait"] = [interrupt]
    handle.reading.cancels = [fate]
    with pytest.raises(KeyboardInterrupt):
        pipe.recv(10)
    handle.reading.starts = [b"abc"]
    assert pipe.recv(10) == b"abc"


@pytest.mark.parametrize("moment", ["started", "wait", "result", "told"])
@pytest.mark.parametrize("fate", [None, 3, GONE])
def test_an_interrupted_write_is_seen_to_its_end(
    pipe: Pipe, handle: Handle, moment: str, fate: int | OSError | None
) -> None:
    handle.writing.cancels = [fate]
    handle.writing.at[moment] = [interrupt]
    if moment in ("result", "told"):
        handle.writing.starts = [2]
    with pytest.raises(KeyboardInterrupt):
        pipe.sendall(b"abc")
    handle.writing.starts = [1]
    pipe.sendall(b"x")
    handle.reading.starts = [b"abc"]
    assert pipe.recv(10) == b"abc"


@pytest.mark.parametrize("moment", ["cancel", "result"])
def test_a_second_interrupt_does_not_leave_the_operation_behind(pipe: Pipe, handle: Handle, moment: str) -> None:
    handle.reading.at = {"wait": [interrupt], moment: [interrupt]}
    handle.reading.cancels = [b"abc"]
    with pytest.raises(KeyboardInterrupt):
        pipe.recv(10)
    assert not handle.reading.pending
    assert pipe.recv(10) == b"abc"


def test_what_was_kept_is_gone_when_the_pipe_is_closed(pipe: Pipe, handle: Handle) -> None:
    handle.reading.at["wait"] = [interrupt]
    handle.reading.cancels = [b"abc"]
    with pytest.raises(KeyboardInterrupt):
        pipe.recv(10)
    pipe.close()
    with pytest.raises(OSError, match="closed"):
        pipe.recv(10)


# --- turns


def test_a_second_reader_waits_for_its_turn(slow: tuple[Pipe, Handle]) -> None:
    pipe, handle = slow
    got: list[bytes] = []
    started = threading.Semaphore(0)
    handle.reading.at["started"] = [started.release, started.release]
    threads = [threading.Thread(target=lambda: got.append(pipe.recv(10))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for piece in (b"first", b"second"):
        assert started.acquire(timeout=10)
        handle.reading.end(piece)
    for thread in threads:
        thread.join(10)
    assert sorted(got) == [b"first", b"second"]


@pytest.mark.parametrize("way", ["reading", "writing"])
def test_a_deadline_holds_while_one_waits_for_a_turn(slow: tuple[Pipe, Handle], way: str) -> None:
    pipe, handle = slow
    lane = getattr(handle, way)
    operate = partial(pipe.recv, 10) if way == "reading" else partial(pipe.sendall, b"abc")
    started = threading.Event()
    lane.at["started"] = [started.set]
    thread = threading.Thread(target=operate)
    thread.start()
    assert started.wait(10)
    for timeout, error in ((0, BlockingIOError), (0.01, TimeoutError)):
        pipe.settimeout(timeout)
        with pytest.raises(error):
            operate()
        failed: list[type[OSError]] = []
        other = threading.Thread(target=partial(fail, operate, failed))  # which does not wait in slices
        other.start()
        other.join(10)
        assert failed == [error]
    lane.end(b"abc" if way == "reading" else 3)
    thread.join(10)


def fail(call: Callable[[], object], failed: list[type[OSError]]) -> None:
    try:
        call()
    except OSError as error:
        failed.append(type(error))


def test_one_direction_does_not_wait_for_the_other(slow: tuple[Pipe, Handle]) -> None:
    pipe, handle = slow
    got: list[bytes] = []
    started = threading.Event()
    handle.reading.at["started"] = [started.set]
    thread = threading.Thread(target=lambda: got.append(pipe.recv(10)))
    thread.start()
    assert started.wait(10)
    handle.writing.starts = [3]
    pipe.sendall(b"abc")
    handle.reading.end(b"abc")
    thread.join(10)
    assert got == [b"abc"]
