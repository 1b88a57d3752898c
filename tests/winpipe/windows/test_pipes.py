"""Real pipes: much at once, little at a time, and all of it in time."""

from __future__ import annotations

import ctypes
import random
import re
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from pageantry import winpipe
from pageantry.winpipe import BACKLOG, Listener, Pipe

if sys.platform != "win32":
    pytest.skip("named pipes of this kind exist on Windows only", allow_module_level=True)

import _winapi

from pageantry.winpipe import _kernel

BUFFER = _kernel.BUFFER
Ends = tuple[Pipe, Pipe]


def received(pipe: Pipe, size: int) -> bytes:
    """Exactly `size` bytes, or what there is until the end."""
    data = b""
    while len(data) < size and (piece := pipe.recv(size - len(data))):
        data += piece
    return data


def wait_for(condition: Callable[[], object]) -> None:
    """Wait for what another thread does."""
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, "it did not come to that"
        time.sleep(0.001)


# --- who is there


def test_who_has_left_is_seen_without_reading_once_all_was_read(either: Ends) -> None:
    one, other = either
    assert not one.gone()
    other.sendall(b"last words")
    assert not one.gone()
    other.close()
    assert one.recv(100) == b"last words"
    wait_for(one.gone)
    one.close()
    assert one.gone()


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
    assert ctypes.WinDLL("kernel32").DisconnectNamedPipe(ctypes.c_void_p(handle))
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
