"""That no byte is lost or comes twice, and nothing is left under way, in whatever order things happen."""

from __future__ import annotations

import contextlib
import errno
import random
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pageantry.winpipe import Pipe

if TYPE_CHECKING:
    from tests.winpipe.conftest import Handle, Lane

    Fresh = Callable[[bool], tuple[Pipe, Handle]]

GONE, BROKEN = BrokenPipeError(errno.EPIPE, "gone"), OSError(errno.EIO, "broken")
WORDS = 600
SIZES = st.integers(0, 8)
FATES = st.one_of(SIZES, st.sampled_from([None, None, GONE, BROKEN]))
EVENTS = st.one_of(SIZES, st.sampled_from(["nothing", "close", "interrupt", "stop", GONE, BROKEN]))
CALLS = st.sampled_from(["recv", "recv", "recv_into", "sendall", "sendall", "close"])


def stream(start: int, size: int) -> bytes:
    """Bytes of which each shows where it belongs."""
    return bytes(number % 251 for number in range(start, start + size))


class World:
    """Both sides of a pipe: what its kernel does, and what comes of it."""

    def __init__(self, draw: Callable[[st.SearchStrategy[object]], object], pipe: Pipe, handle: Handle) -> None:
        self.draw, self.pipe, self.handle = draw, pipe, handle
        self.given = 0  # so many bytes were read by the kernel
        self.received = b""
        for lane in (handle.reading, handle.writing):
            lane.watch = lambda moment, lane=lane: self.happen(lane, moment)

    def happen(self, lane: Lane, moment: str) -> None:
        if moment == "begun":
            lane.starts = [self.fate(lane, self.draw(FATES))] if lane.asked < 500 else [GONE]
        elif moment == "cancel" and lane.under_way:
            lane.cancels = [self.fate(lane, self.draw(FATES))]
        elif moment == "wait" and lane.under_way:
            match self.draw(EVENTS):
                case "nothing":
                    pass
                case "close":
                    self.pipe.close()
                case "interrupt":
                    raise KeyboardInterrupt
                case "stop" if lane is self.handle.reading:
                    self.pipe._stop_reading(True)
                case "stop":
                    self.pipe._stop_writing(True)
                case fate:
                    lane.end(self.fate(lane, fate))

    def fate(self, lane: Lane, fate: object) -> bytes | int | OSError | None:
        """A number of bytes is too large for some operations, and means other things for reads and writes."""
        if not isinstance(fate, int):
            assert fate is None or isinstance(fate, OSError)
            return fate
        size = min(fate, len(lane.operation))
        if lane is self.handle.writing:
            return size
        self.given += size
        return stream(self.given - size, size)

    def do(self, call: object) -> None:
        self.pipe.settimeout(self.draw(st.sampled_from([0, 0.05, 1])))  # type: ignore[arg-type]
        size = int(str(self.draw(SIZES)))
        taken = self.handle.writing.taken
        try:
            if call == "recv":
                self.received += self.pipe.recv(size)
            elif call == "recv_into":
                buffer = bytearray(size)
                self.received += buffer[: self.pipe.recv_into(buffer)]
            elif call == "sendall":
                self.pipe.sendall(stream(len(taken), size))
                assert len(self.handle.writing.taken) == len(taken) + size
            else:
                self.pipe.close()
        except (OSError, KeyboardInterrupt):
            pass
        self.pipe._stop_reading(False)
        self.pipe._stop_writing(False)

    def end(self) -> None:
        """What was given was got, if the pipe is open; what was taken was sent; and nothing is left."""
        reading, writing = self.handle.reading, self.handle.writing
        if not self.pipe.closed:
            self.pipe.settimeout(0)
            while len(self.received) < self.given:
                self.received += self.pipe.recv(5)
            assert len(self.received) == self.given
            reading.starts = [b"end"]
            assert self.pipe.recv(5) == b"end"
        assert self.received == stream(0, len(self.received))
        assert writing.taken == stream(0, len(writing.taken))
        self.pipe.close()
        assert self.handle.closed
        assert self.handle.faults == []


@given(data=st.data())
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_happens_to_a_thread(fresh: Fresh, data: st.DataObject) -> None:
    pipe, handle = fresh(False)
    world = World(data.draw, pipe, handle)
    try:
        for call in data.draw(st.lists(CALLS, max_size=10)):
            world.do(call)
        handle.reading.watch = handle.writing.watch = None
        world.end()
    finally:
        handle.reading.watch = handle.writing.watch = None  # nothing more can be drawn when there is no more
        pipe.close()


@pytest.mark.parametrize("seed", range(4))
def test_whatever_happens_to_several_threads(fresh: Fresh, seed: int) -> None:
    """Two read and two write, with short timeouts; a fifth is the kernel; a sixth stops them all the time."""
    pipe, handle = fresh(True)
    pipe.settimeout(0.002)
    over, chance = threading.Event(), random.Random(seed)
    sent = [0, 0]
    pieces: list[bytes] = []
    reading = [threading.Thread(target=read, args=(pipe, pieces, chance)) for _ in range(2)]
    others = [threading.Thread(target=write, args=(pipe, sent, number, over)) for number in range(2)]
    others.append(threading.Thread(target=be_the_kernel, args=(handle, chance, over)))
    others.append(threading.Thread(target=stop, args=(pipe, over)))
    for thread in reading + others:
        thread.start()
    for thread in reading:
        thread.join(30)
    over.set()
    for thread in others:
        thread.join(30)
    pipe.close()
    assert b"".join(sorted(pieces)) == b"".join(number.to_bytes(4, "big") for number in range(WORDS))
    assert [handle.writing.taken.count(bytes([number]) * 10) for number in (0, 1)] == sent
    assert len(handle.writing.taken) == 10 * sum(sent)
    assert handle.closed
    assert handle.faults == []


def read(pipe: Pipe, pieces: list[bytes], chance: random.Random) -> None:
    while not pieces or pieces[-1]:
        with contextlib.suppress(TimeoutError):
            pieces.append(pipe.recv(chance.choice([4, 8, 400])))


def write(pipe: Pipe, sent: list[int], number: int, over: threading.Event) -> None:
    while not over.is_set():
        with contextlib.suppress(TimeoutError):
            pipe.sendall(bytes([number]) * 10)
            sent[number] += 1


def be_the_kernel(handle: Handle, chance: random.Random, over: threading.Event) -> None:
    given = 0
    while not over.is_set():
        lane = chance.choice([handle.reading, handle.writing])
        with lane.changed:
            if lane.under_way and lane is handle.writing:
                lane.end(10)
            elif lane.under_way:
                count = min(WORDS - given, len(lane.operation) // 4, chance.choice([1, 2, 50]))
                lane.end(b"".join((given + number).to_bytes(4, "big") for number in range(count)) or GONE)
                given += count
        over.wait(chance.choice([0, 0, 0.0002, 0.003]))


def stop(pipe: Pipe, over: threading.Event) -> None:
    while not over.wait(0.001):
        for method in (pipe._stop_reading, pipe._stop_writing):
            method(True)
            method(False)
