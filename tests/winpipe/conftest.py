"""A kernel of the tests' own, in which each order of events can be had."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import FrameType

import pytest

from pageantry.winpipe import Peer, Pipe, _client, _server, _stream

#: What a test has happen at some moment: it may complete, close, or raise.
Event = Callable[[], object] | None
#: Makes a call and has an event happen in it; what it returns or raises is that of the call.
CallWithEvent = Callable[[Callable[[], object], Callable[[], object]], object]
#: Runs a test for each moment. How many there were.
AtEachMoment = Callable[[Callable[[CallWithEvent], None]], int]


class Clock:
    """Time that passes only when somebody waits."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


class Lane:
    """One direction of a handle. It finds fault with whoever uses it as no kernel's may be used.

    `starts` says what becomes of the operations to come: bytes are there (to read) or their number is (to write) at
    once, an error is raised; None, or when there is nothing more: it stays under way until a test calls `end`.
    `cancels` says the same of those that are cancelled: None and nothing mean that they are.
    `at` has the events for the moments "start" (before anything is done), "begun" (before its fate is known),
    "started", "wait", "cancel", "result", and "told" (when the result is known, but was not returned yet); each is
    taken once. `watch` is told of all moments.
    """

    def __init__(self, handle: Handle, clock: Clock | None) -> None:
        self.handle, self.clock = handle, clock
        self.pending = self.under_way = False
        self.starts: list[bytes | int | OSError | None] = []
        self.cancels: list[bytes | int | OSError | None] = []
        self.at: dict[str, list[Event]] = {}
        self.watch: Callable[[str], object] | None = None
        self.asked = 0
        self.taken = b""  # all that was written
        self.operation: memoryview | bytes = b""
        self._outcome: int | OSError | None = None
        self.changed = threading.Condition()

    def connect(self) -> bool:
        return self._start(b"")

    def read(self, buffer: memoryview) -> bool:
        assert len(buffer)
        if buffer.readonly:
            raise TypeError("underlying buffer is not writable")
        return self._start(buffer)

    def write(self, data: bytes) -> bool:
        assert type(data) is bytes
        assert data
        return self._start(data)

    def _start(self, operation: memoryview | bytes) -> bool:
        self._happen("start")
        self.handle.check(not self.handle.closed, "an operation was started on a closed handle")
        self.handle.check(not self.under_way, "two operations were under way at once")
        self.operation, self.pending, self.under_way = operation, True, True
        self._happen("begun")
        fate = self.starts.pop(0) if self.starts else None
        if isinstance(fate, OSError):
            self.pending = self.under_way = False
            raise fate
        if fate is not None:
            self.end(fate)
        self._happen("started")
        return not self.under_way

    def end(self, fate: bytes | int | OSError | None) -> None:
        """Have the operation end: with so many bytes, an error, or as cancelled (None)."""
        with self.changed:
            assert self.under_way, "there is no operation that could end"
            if isinstance(fate, bytes):
                assert isinstance(self.operation, memoryview), "nobody is reading"
                fate = fate[: len(self.operation)]
                self.operation[: len(fate)] = fate
                self._outcome = len(fate)
            else:
                self._outcome = fate
                if isinstance(fate, int):
                    self.taken += self.operation[:fate]
            self.operation = b""
            self.under_way = False
            self.changed.notify_all()

    def wait(self, seconds: float | None) -> bool:
        if not self._happen("wait") and self.under_way and self.clock:
            assert seconds is not None, "this would wait for ever"
            assert self.clock.now < 10000, "this would wait, in slices, for ever"
            self.clock.sleep(seconds)
        with self.changed:
            return self.changed.wait_for(lambda: not self.under_way, 0 if self.clock else seconds)

    def cancel(self) -> None:
        self._happen("cancel")
        with self.changed:
            if self.under_way:
                self.handle.check(not self.handle.closed, "an operation was cancelled on a closed handle")
                self.end(self.cancels.pop(0) if self.cancels else None)

    def result(self) -> int | None:
        self._happen("result")
        with self.changed:
            ended = self.changed.wait_for(lambda: not self.under_way, 0 if self.clock else 10)
        assert ended, "this would wait for ever"
        self.asked += 1
        self.handle.check(not self.handle.closed, "the result was asked for on a closed handle")
        self._happen("told")
        self.pending = False
        if isinstance(self._outcome, OSError):
            raise self._outcome
        return self._outcome

    def _happen(self, moment: str) -> bool:
        """Have the next event of this moment happen, if there is one."""
        if self.watch:
            self.watch(moment)
        if event := (self.at.get(moment) or [None]).pop(0):
            event()
        return bool(event)


class Handle:
    """An open end of a pipe, which is not to be closed with anything under way."""

    def __init__(self, clock: Clock | None = None) -> None:
        self.closed = self.left = False
        self.faults: list[str] = []
        self.reading, self.writing = Lane(self, clock), Lane(self, clock)

    def check(self, good: bool, fault: str) -> None:
        if not good:
            self.faults.append(fault)
            raise AssertionError(fault)

    def gone(self) -> bool:
        self.check(not self.closed, "a closed handle was looked at")
        return self.left

    def close(self) -> None:
        for lane in (self.reading, self.writing):
            self.check(not lane.under_way, "a handle was closed with an operation under way")
            self.check(not lane.pending, "a handle was closed before its operation's result was known")
        self.closed = True


class Kernel:
    """What a listener needs. `makes` says what becomes of `make`: an error is raised, an event happens."""

    def __init__(self, clock: Clock | None = None) -> None:
        self.clock = clock
        self.closed = False
        self.faults: list[str] = []
        self.made: list[Handle] = []
        self.firsts: list[bool] = []
        self.makes: list[OSError | Event] = []
        self.at_connect: list[Event] = []
        self.at_wait: list[Event] = []
        self.at_peer: list[Event] = []
        self.waiting = threading.Event()  # somebody does
        self._woken = False
        self.changed = threading.Condition()

    def make(self, first: bool) -> Handle:
        assert not self.closed
        fate = self.makes.pop(0) if self.makes else None
        if isinstance(fate, OSError):
            raise fate
        if fate:
            fate()
        self.made.append(Handle(self.clock))
        self.firsts.append(first)
        if self.at_connect:
            self.made[-1].reading.at["started"] = [self.at_connect.pop(0)]
        return self.made[-1]

    def wait_any(self, lanes: Sequence[_stream.Lane], seconds: float | None) -> Lane | bool:
        assert not self.closed
        self.waiting.set()
        event = self.at_wait.pop(0) if self.at_wait else None
        if event:
            event()
        with self.changed:
            self.changed.wait_for(lambda: self._found(lanes) is not False, 0 if self.clock else seconds)
            found = self._found(lanes)
        if found is False and self.clock and not event:
            assert seconds is not None
            assert self.clock.now < 10000, "this would wait, in slices, for ever"
            self.clock.sleep(seconds)
        return found

    def _found(self, lanes: Sequence[_stream.Lane]) -> Lane | bool:
        if self._woken:
            return True
        return next((one.reading for one in self.made if one.reading in lanes and not one.reading.under_way), False)

    def arrive(self, number: int = -1) -> Handle:
        """Have a client connect to instance `number`, or to the first that waits for one."""
        for _ in range(1000):
            with self.changed:
                if waiting := [handle for handle in self.made if handle.reading.under_way and not handle.closed]:
                    handle = self.made[number] if number >= 0 else waiting[0]
                    handle.reading.end(0)
                    self.changed.notify_all()
                    return handle
                self.changed.wait(0.01)
        raise AssertionError("no instance waits for a client")

    def wake(self, wake: bool) -> None:
        with self.changed:
            self._woken = wake
            self.changed.notify_all()

    def peer(self, handle: _stream.Handle) -> Peer:
        if self.at_peer and (event := self.at_peer.pop(0)):
            event()
        return Peer(1, "S-1-5-18")

    def close(self) -> None:
        if not all(handle.closed or not handle.reading.pending for handle in self.made):
            self.faults.append("it was closed with somebody waiting for a client")
        self.closed = True


def gone(*ends: Handle | Kernel) -> None:
    """See that all of these are closed, and nothing was done with them that must not be."""
    for end in ends:
        assert end.faults == []
        assert end.closed


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Time that passes only when somebody waits, for all of the logic."""
    clock = Clock()
    monkeypatch.setattr(_stream, "monotonic", clock)
    monkeypatch.setattr(_client, "monotonic", clock)
    monkeypatch.setattr(_client, "sleep", clock.sleep)
    return clock


@pytest.fixture
def handle(clock: Clock) -> Iterator[Handle]:
    """A handle with that clock; in the end it must be without fault and closed."""
    handle = Handle(clock)
    yield handle
    gone(handle)


@pytest.fixture
def fresh(clock: Clock) -> Callable[[bool], tuple[Pipe, Handle]]:
    """Makes a pipe and its handle, with that clock or for several threads, for tests that want many."""

    def make(threads: bool) -> tuple[Pipe, Handle]:
        handle = Handle(None if threads else clock)
        return Pipe(handle, r"\\.\pipe\x", Peer(1, "S-1-5-18")), handle

    return make


@pytest.fixture
def pipe(handle: Handle) -> Iterator[Pipe]:
    """A pipe with that handle."""
    with Pipe(handle, r"\\.\pipe\x", Peer(1, "S-1-5-18")) as pipe:
        yield pipe


@pytest.fixture
def slow() -> Iterator[tuple[Pipe, Handle]]:
    """A pipe and its handle for several threads, in real time."""
    handle = Handle()
    with Pipe(handle, r"\\.\pipe\x", Peer(1, "S-1-5-18")) as pipe:
        yield pipe, handle
    gone(handle)


@pytest.fixture
def kernel(clock: Clock) -> Iterator[Kernel]:
    """A kernel for a listener, with that clock; in the end there is nothing left of it."""
    kernel = Kernel(clock)
    yield kernel
    gone(kernel, *kernel.made)


@pytest.fixture
def slow_kernel() -> Iterator[Kernel]:
    """A kernel for several threads, in real time."""
    kernel = Kernel()
    yield kernel
    gone(kernel, *kernel.made)


@pytest.fixture
def listener(kernel: Kernel) -> Iterator[_server.Listener]:
    """A listener on that kernel."""
    with _server.Listener(kernel, r"\\.\pipe\x") as listener:
        yield listener


@pytest.fixture
def name() -> str:
    """A name that no pipe has."""
    return f"pageantry-test-{os.getpid()}-{os.urandom(4).hex()}"


@pytest.fixture
def at_each_moment() -> AtEachMoment:
    """Runs a test again and again, each time with its event one moment later, until the call is over before that.

    A signal's handler is at work wherever Python looks for signals: at the start of functions, and after calls. A
    profiler is told of each such place, so that here something can happen in every one of them.
    """
    folder = Path(_stream.__file__).parent

    def run_at_each(run: Callable[[CallWithEvent], None]) -> int:
        number, last = 0, False

        def call_with_event(call: Callable[[], object], event: Callable[[], object]) -> object:
            nonlocal last
            count, last = 0, True

            def profile(frame: FrameType, kind: str, _: object) -> None:
                nonlocal count, last
                if kind in ("call", "c_return", "c_exception") and Path(frame.f_code.co_filename).parent == folder:
                    count += 1
                    if count == number:
                        last = False
                        event()

            sys.setprofile(profile)
            try:
                return call()
            finally:
                sys.setprofile(None)

        while not last:
            number += 1
            run(call_with_event)
        return number - 1

    return run_at_each
