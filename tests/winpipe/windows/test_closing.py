"""The end of real pipes: whoever closes them, and whenever."""

from __future__ import annotations

import errno
import random
import sys
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import TypeVar

import pytest

from pageantry import winpipe
from pageantry.winpipe import Listener, Pipe

if sys.platform != "win32":
    pytest.skip("named pipes of this kind exist on Windows only", allow_module_level=True)

import _winapi

from pageantry.winpipe import _kernel, _security

BUFFER = _kernel.BUFFER
Ends = tuple[Pipe, Pipe]
T = TypeVar("T")


def everything(pipe: Pipe) -> bytes:
    """What there is until the end."""
    data = b""
    while piece := pipe.recv(100_000):
        data += piece
    return data


def wait_for(condition: Callable[[], object]) -> None:
    """Wait for what another thread does."""
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, "it did not come to that"
        time.sleep(0.001)


def pending(*pipes: Pipe) -> bool:
    """Whether somebody waits at each of these."""
    return all(pipe._handle.reading.pending or pipe._handle.writing.pending for pipe in pipes)


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
