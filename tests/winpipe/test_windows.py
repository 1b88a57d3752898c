"""Real pipes: much at once, little at a time, in time, and closed at any time."""

from __future__ import annotations

import ctypes
import errno
import gc
import random
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from ctypes import wintypes
from functools import partial
from typing import TypeVar

import pytest

from pageantry import winpipe
from pageantry.winpipe import BACKLOG, Listener, Pipe

if sys.platform != "win32":
    pytest.skip("named pipes of this kind exist on Windows only", allow_module_level=True)

import _winapi

from pageantry.winpipe import _kernel, _security, _windows

BUFFER = _kernel.BUFFER
Ends = tuple[Pipe, Pipe]
T = TypeVar("T")


@pytest.fixture
def listener(name: str) -> Iterator[Listener]:
    with winpipe.listen(name) as listener:
        listener.settimeout(30)
        yield listener


@pytest.fixture
def ends(name: str, listener: Listener) -> Iterator[Ends]:
    """A client's pipe and its server's."""
    with winpipe.connect(name) as client, listener.accept() as server:
        client.settimeout(30)
        server.settimeout(30)
        yield client, server


@pytest.fixture(params=["client", "server"])
def either(request: pytest.FixtureRequest, ends: Ends) -> Ends:
    """The two, and the other way round."""
    return ends if request.param == "client" else ends[::-1]


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(250) as pool:
        yield pool


def received(pipe: Pipe, size: int) -> bytes:
    """Exactly `size` bytes, or what there is until the end."""
    data = b""
    while len(data) < size and (piece := pipe.recv(size - len(data))):
        data += piece
    return data


def everything(pipe: Pipe) -> bytes:
    return received(pipe, sys.maxsize)


def wait_for(condition: Callable[[], object]) -> None:
    """Wait for what another thread does."""
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, "it did not come to that"
        time.sleep(0.001)


def pending(*pipes: Pipe) -> bool:
    """Whether somebody waits at each of these."""
    return all(pipe._handle.reading.pending or pipe._handle.writing.pending for pipe in pipes)


# --- much and little


def test_a_dialogue(ends: Ends) -> None:
    client, server = ends
    for number in range(20):
        client.sendall(b"question %d" % number)
        assert server.recv(100) == b"question %d" % number
        server.sendall(b"answer")
        buffer = bytearray(100)
        assert client.recv_into(buffer) == 6
        assert buffer[:7] == b"answer\0"


def test_one_byte_at_a_time(either: Ends) -> None:
    reader, writer = either
    for byte in b"slowly":
        writer.sendall(bytes((byte,)))
    assert received(reader, 6) == b"slowly"
    writer.sendall(b"slowly")
    assert [reader.recv(1) for _ in range(6)] == [b"s", b"l", b"o", b"w", b"l", b"y"]


def test_more_than_a_pipes_buffer_holds(either: Ends, pool: ThreadPoolExecutor) -> None:
    reader, writer = either
    data = random.Random(1).randbytes(3 * BUFFER + 5)
    sending = pool.submit(writer.sendall, data)
    assert received(reader, len(data)) == data
    sending.result(30)


def test_eight_megabytes_both_ways_at_once(ends: Ends, pool: ThreadPoolExecutor) -> None:
    data = [random.Random(number).randbytes(8 << 20) for number in range(2)]
    sending = [pool.submit(pipe.sendall, one) for pipe, one in zip(ends, data, strict=True)]
    reading = [pool.submit(received, pipe, 8 << 20) for pipe in ends]
    assert [one.result(60) for one in reading] == data[::-1]
    for one in sending:
        one.result(60)


def test_a_hundred_clients_at_once_and_nothing_is_mixed_up(
    name: str, listener: Listener, pool: ThreadPoolExecutor
) -> None:
    barrier = threading.Barrier(100)

    def serve(pipe: Pipe) -> None:
        with pipe:
            pipe.settimeout(30)
            while data := pipe.recv(4096):
                pipe.sendall(data)

    def ask(number: int) -> bytes:
        barrier.wait(30)
        with winpipe.connect(name, timeout=30) as pipe:
            pipe.settimeout(30)
            answers = b""
            for round_ in range(5):
                pipe.sendall(b"%03d.%d " % (number, round_))
                answers += received(pipe, 6)
            return answers

    asking = [pool.submit(ask, number) for number in range(100)]
    serving = [pool.submit(serve, listener.accept()) for _ in range(100)]
    for number, one in enumerate(asking):
        assert one.result(60) == b"".join(b"%03d.%d " % (number, round_) for round_ in range(5))
    for each in serving:
        each.result(60)


# --- in time


@pytest.mark.parametrize(("timeout", "error"), [(0, BlockingIOError), (0.05, TimeoutError)])
def test_deadlines_hold(ends: Ends, listener: Listener, timeout: float, error: type[OSError]) -> None:
    client, server = ends
    for one in (client, server, listener):
        one.settimeout(timeout)
    for call in (
        lambda: client.recv(1),
        lambda: server.recv_into(bytearray(1)),
        lambda: client.sendall(bytes(4 * BUFFER)),
        lambda: server.sendall(bytes(4 * BUFFER)),
        listener.accept,
    ):
        with pytest.raises(error):
            call()


def test_what_can_be_done_at_once_is_done_without_time(ends: Ends, name: str, listener: Listener) -> None:
    client, server = ends
    for one in (client, server, listener):
        one.settimeout(0)
    client.sendall(b"abc")
    assert server.recv(10) == b"abc"
    with winpipe.connect(name, timeout=0) as another:
        wait_for(lambda: any(one.reading.wait(0) for one in listener._instances))
        listener.accept().close()
        assert another.recv(1) == b""


def test_a_pipe_that_is_not_there_fails_at_once(name: str) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        winpipe.connect(name, timeout=10_000)  # which the test would not live to see
    assert caught.value.filename == winpipe.path(name)


@pytest.mark.parametrize("timeout", [0, 0.3])
def test_a_busy_pipe_is_given_up_in_time_and_taken_when_it_is_free(
    name: str, listener: Listener, pool: ThreadPoolExecutor, timeout: float
) -> None:
    clients = [winpipe.connect(name, timeout=0) for _ in range(BACKLOG)]
    assert not winpipe.listening(name)
    with pytest.raises(TimeoutError, match="busy"):
        winpipe.connect(name, timeout=timeout)
    waiting = pool.submit(winpipe.connect, name, 30)
    servers = [listener.accept()]
    clients.append(waiting.result(30))
    servers += [listener.accept() for _ in range(BACKLOG)]
    for pipe in clients + servers:
        pipe.close()


def test_a_server_with_a_single_instance_is_waited_for(name: str, pool: ThreadPoolExecutor, others_pipes: None) -> None:
    flags = _winapi.PIPE_ACCESS_DUPLEX | _winapi.FILE_FLAG_OVERLAPPED
    handle = _winapi.CreateNamedPipe(winpipe.path(name), flags, 0, 1, 4096, 4096, 0, 0)
    trust = [winpipe.ADMINISTRATORS]
    with winpipe.connect(name, trust=trust):
        with pytest.raises(TimeoutError):
            winpipe.connect(name, 0.2, trust)
        waiting = pool.submit(winpipe.connect, name, 30, trust)
        with pytest.raises(TimeoutError):
            winpipe.connect(name, 0.1, trust)
    assert _kernel32.DisconnectNamedPipe(handle)
    connecting = _winapi.ConnectNamedPipe(handle, overlapped=True)
    with waiting.result(30):
        connecting.GetOverlappedResult(True)
    _winapi.CloseHandle(handle)


def test_no_byte_is_lost_to_timeouts(either: Ends, pool: ThreadPoolExecutor) -> None:
    reader, writer = either
    chance = random.Random(2)
    data = chance.randbytes(20_000)

    def send() -> None:
        start = 0
        while start < len(data):
            size = chance.choice([1, 7, 100])
            writer.sendall(data[start : start + size])
            start += size
            time.sleep(chance.choice([0, 0, 0.001]))

    sending = pool.submit(send)
    got, late = b"", 0
    while len(got) < len(data):
        reader.settimeout(random.choice([0, 0.0001, 0.001]))
        try:
            got += reader.recv(random.choice([1, 10, 1000]))
        except (TimeoutError, BlockingIOError):
            late += 1
    assert got == data
    assert late
    sending.result(30)


def test_no_byte_is_lost_to_those_who_stop_a_read(either: Ends, pool: ThreadPoolExecutor) -> None:
    reader, writer = either
    over = threading.Event()

    def stop() -> None:
        while not over.is_set():
            reader._stop_reading(True)
            reader._stop_reading(False)

    def send() -> None:
        for number in range(500):
            writer.sendall(b"%04d" % number)

    stopping, sending = pool.submit(stop), pool.submit(send)
    got = b""
    while len(got) < 2000:
        try:
            got += reader.recv(3)
        except TimeoutError:
            pass
    over.set()
    assert got == b"".join(b"%04d" % number for number in range(500))
    stopping.result(30)
    sending.result(30)


def test_a_write_that_is_said_to_be_done_is_done(either: Ends, pool: ThreadPoolExecutor) -> None:
    reader, writer = either
    said: list[bytes] = []

    def read() -> bytes:
        got = b""
        while piece := reader.recv(50_000):
            got += piece
            time.sleep(0.0005)
        return got

    reading = pool.submit(read)
    for number in range(300):
        piece = b"<%d>" % number
        writer.settimeout(random.choice([0, 0.0005, 0.002]))
        try:
            writer.sendall(piece + b"." * 20_000)
            said.append(piece)
        except (TimeoutError, BlockingIOError):
            pass
    writer.close()
    got = re.findall(rb"<\d+>", reading.result(30))
    assert [piece for piece in got if piece in said] == said
    assert 0 < len(said) < 300


# --- closed


def test_what_was_written_can_be_read_after_the_end(either: Ends) -> None:
    reader, writer = either
    writer.sendall(b"farewell" * 1000)
    writer.close()
    assert everything(reader) == b"farewell" * 1000
    assert reader.recv(1) == b""
    with pytest.raises(BrokenPipeError) as caught:
        reader.sendall(b"are you there?")
    assert caught.value.errno == errno.EPIPE


def test_a_client_that_writes_and_leaves_at_once_is_heard(name: str, listener: Listener) -> None:
    for number in range(20):
        with winpipe.connect(name) as client:
            client.sendall(b"%d" % number)
        with listener.accept() as server:
            assert everything(server) == b"%d" % number


def test_a_client_that_was_faster_than_the_server_and_left_is_heard(name: str) -> None:
    """It comes between the making of an instance and the wait for a client."""
    path = winpipe.path(name)
    descriptor = _security.Descriptor((), _kernel.CLIENT_ACCESS)
    instance = _kernel.make_instance(path, descriptor.address, True)
    client = _winapi.CreateFile(path, _winapi.GENERIC_READ | _winapi.GENERIC_WRITE, 0, 0, _winapi.OPEN_EXISTING, 0, 0)
    _winapi.WriteFile(client, b"hello")
    _winapi.CloseHandle(client)
    assert instance.reading.connect()
    assert instance.reading.wait(0)
    assert instance.reading.result() == 0
    with Pipe(instance, path, winpipe.Peer(None, None)) as server:
        assert everything(server) == b"hello"
    descriptor.close()


def test_closing_wakes_everybody(name: str, pool: ThreadPoolExecutor) -> None:
    for number in range(30):
        listener = winpipe.listen(f"{name}-{number}")
        client = winpipe.connect(f"{name}-{number}")
        server = listener.accept()
        calls: list[Future[object]] = [pool.submit(listener.accept) for _ in range(2)]
        for pipe in (client, server):
            calls += [pool.submit(pipe.recv, 1), pool.submit(pipe.recv, 1)]
            calls.append(pool.submit(pipe.sendall, bytes(4 * BUFFER)))
        if number % 3:
            wait_for(partial(pending, client, server))
        for one in random.sample([listener, client, server], 3):
            one.close()
        for call in calls:
            error = call.exception(30)
            if error is None:  # the other end was closed first
                assert call.result() in (b"", b"\0")
            else:
                assert isinstance(error, OSError)
                assert error.errno in (errno.EBADF, errno.EPIPE)
        with pytest.raises(FileNotFoundError):
            winpipe.connect(f"{name}-{number}")


def test_a_peer_that_does_not_read_does_not_hold_up_a_close(ends: Ends) -> None:
    client, server = ends
    server.settimeout(0.05)
    with pytest.raises(TimeoutError):
        server.sendall(bytes(4 * BUFFER))
    server.close()
    assert set(everything(client)) <= {0}


def test_clients_that_come_and_go_do_not_keep_others_out(
    name: str, listener: Listener, pool: ThreadPoolExecutor
) -> None:
    def storm() -> None:
        for _ in range(200):
            try:
                winpipe.connect(name, timeout=0).close()
            except TimeoutError:
                pass

    def serve() -> bytes:
        while True:
            with listener.accept() as pipe:
                pipe.settimeout(30)
                if data := pipe.recv(10):
                    pipe.sendall(data)
                    return data

    storms = [pool.submit(storm) for _ in range(3)]
    serving = pool.submit(serve)
    with winpipe.connect(name, timeout=30) as client:
        client.settimeout(30)
        client.sendall(b"me")
        assert client.recv(10) == b"me"
    assert serving.result(30) == b"me"
    listener.settimeout(0.2)
    while not all(one.done() for one in storms):
        try:
            listener.accept().close()
        except TimeoutError:
            pass


def test_those_who_were_not_accepted_are_hung_up_on(name: str) -> None:
    with winpipe.listen(name):
        client = winpipe.connect(name)
        client.settimeout(30)
    with client:
        assert client.recv(1) == b""


def test_a_listener_outlives_the_threads_that_use_it(name: str) -> None:
    """Windows cancels what a thread has begun when that ends; clients can still connect, and are not hung up on."""
    with in_a_thread(lambda: winpipe.listen(name)) as listener:
        listener.settimeout(30)
        for number in range(10):
            with winpipe.connect(name) as client, in_a_thread(listener.accept) as server:
                client.sendall(b"%d" % number)
                assert server.recv(10) == b"%d" % number


def in_a_thread(call: Callable[[], T]) -> T:
    """What the call returns in a thread that has ended."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(call).result(30)


# --- leaks


_kernel32 = ctypes.WinDLL("kernel32")
_kernel32.DisconnectNamedPipe.argtypes = (wintypes.HANDLE,)
_kernel32.GetHandleInformation.argtypes = (wintypes.HANDLE, ctypes.POINTER(wintypes.DWORD))
_kernel32.GetHandleInformation.restype = wintypes.BOOL


#: So many handles may be somebody else's, such as those of threads that the system keeps.
FEW = 10


def handles() -> int:
    """How many handles this process has. (GetProcessHandleCount says 0 under Wine.)"""
    gc.collect()
    flags = wintypes.DWORD()
    return sum(_kernel32.GetHandleInformation(value, flags) for value in range(4, 4 * 8192, 4))


def test_handles_are_counted() -> None:
    before = handles()
    lanes = [_kernel.Lane(0) for _ in range(10)]
    assert handles() == before + 10
    for lane in lanes:
        lane.close()
    assert handles() == before


def test_thousands_of_connections_leave_nothing_behind(name: str, listener: Listener) -> None:
    before = 0
    for number in range(2000):
        if number == 10:  # when all that is there once is there
            before = handles()
        client = winpipe.connect(name)
        server = listener.accept()
        if number % 10 == 0:
            client.sendall(b"x")
            assert server.recv(1) == b"x"
        for pipe in (client, server) if number % 2 else (server, client):
            pipe.close()
    assert handles() < before + FEW


def test_thousands_of_failures_leave_nothing_behind(
    name: str, ends: Ends, listener: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    client, server = ends
    for one in (client, server, listener):
        one.settimeout(0)

    def fail_in_all_ways() -> None:
        for call, error in (
            (lambda: winpipe.connect(name + "-not"), FileNotFoundError),
            (lambda: winpipe.listen(name + "-2", access=["S-1-"]), OSError),
            (lambda: client.recv(1), BlockingIOError),
            (lambda: server.sendall(bytes(4 * BUFFER)), BlockingIOError),
            (listener.accept, BlockingIOError),
        ):
            assert callable(call)
            with pytest.raises(error):
                call()
        winpipe.exists(name)
        winpipe.exists(name + "-not")
        winpipe.listening(name)
        winpipe.user()
        _ = client.peer.account, client.peer.program

    fail_in_all_ways()
    before = handles()
    for _ in range(200):
        fail_in_all_ways()
    assert handles() < before + FEW
    monkeypatch.setattr(_windows, "user", lambda: "S-1-5-18")
    for _ in range(100):
        with pytest.raises(winpipe.Untrusted):
            winpipe.connect(name)
        listener.accept().close()
    monkeypatch.setattr(_security, "owner", lambda handle: 1 / 0)
    for _ in range(100):
        with pytest.raises(ZeroDivisionError):
            winpipe.connect(name)
        listener.accept().close()
    assert handles() < before + FEW


def test_listeners_that_fail_leave_nothing_behind(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    winpipe.listen(name).close()
    before = handles()
    for _ in range(50):
        winpipe.listen(name).close()
        with winpipe.listen(name):
            winpipe.connect(name).close()
    make = _kernel.make_instance
    made: list[bool] = []

    def make_two(path: str, descriptor: int, first: bool) -> object:
        made.append(first)
        if len(made) % 3 == 0:
            raise PermissionError(errno.EACCES, "no more")
        return make(path, descriptor, first)

    monkeypatch.setattr(_kernel, "make_instance", make_two)
    for _ in range(50):
        with pytest.raises(PermissionError):
            winpipe.listen(name)
    assert handles() < before + FEW
