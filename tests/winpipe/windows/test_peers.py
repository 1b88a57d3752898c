"""Real pipes with others at their other end: bare Windows, multiprocessing, asyncio, pywin32."""

from __future__ import annotations

import asyncio
import multiprocessing.connection
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from pageantry import winpipe
from pageantry.winpipe import ADMINISTRATORS, Listener, Pipe

if sys.platform != "win32":
    pytest.skip("named pipes of this kind exist on Windows only", allow_module_level=True)

import _winapi

pytestmark = pytest.mark.usefixtures("others_pipes")

READ_WRITE = _winapi.GENERIC_READ | _winapi.GENERIC_WRITE
BYTES, MESSAGES = 0, 4 | 2  # PIPE_TYPE_MESSAGE | PIPE_READMODE_MESSAGE
#: Pipes that an elevated process makes without a descriptor belong to this group.
TRUST = (ADMINISTRATORS,)


def connect(name: str) -> Pipe:
    pipe = winpipe.connect(name, 30, TRUST)
    pipe.settimeout(30)
    return pipe


def received(pipe: Pipe, size: int) -> bytes:
    data = b""
    while len(data) < size and (piece := pipe.recv(size - len(data))):
        data += piece
    return data


def echo(listener: Listener) -> None:
    with listener.accept() as pipe:
        pipe.settimeout(30)
        while data := pipe.recv(100_000):
            pipe.sendall(data)


# --- bare Windows


@pytest.mark.parametrize("mode", [BYTES, MESSAGES])
def test_a_bare_server(name: str, mode: int, pool: ThreadPoolExecutor) -> None:
    path = winpipe.path(name)
    handle = _winapi.CreateNamedPipe(path, _winapi.PIPE_ACCESS_DUPLEX, mode, 1, 4096, 4096, 0, 0)
    with connect(name) as client:
        client.sendall(b"question")
        assert _winapi.ReadFile(handle, 100) == (b"question", 0)
        _winapi.WriteFile(handle, b"long answer")
        assert [client.recv(4), client.recv(100)] == [b"long", b" answer"]
        writing = pool.submit(_winapi.WriteFile, handle, bytes(range(256)) * 400)
        assert received(client, 256 * 400) == bytes(range(256)) * 400
        assert writing.result(30) == (256 * 400, 0)
        _winapi.WriteFile(handle, b"bye")
        _winapi.CloseHandle(handle)
        assert received(client, 100) == b"bye"
        assert client.recv(1) == b""


def test_an_empty_message_is_no_end(name: str) -> None:
    handle = _winapi.CreateNamedPipe(winpipe.path(name), _winapi.PIPE_ACCESS_DUPLEX, MESSAGES, 1, 4096, 4096, 0, 0)
    with connect(name) as client:
        for data in (b"", b"", b"abc", b"", b"def"):
            _winapi.WriteFile(handle, data)
        assert received(client, 6) == b"abcdef"
        _winapi.CloseHandle(handle)
        assert client.recv(1) == b""


def test_a_pipe_that_reads_in_messages_loses_nothing_of_a_long_one(name: str) -> None:
    """Ours never do; but a read that says that there is more has bytes that count."""
    handle = _winapi.CreateNamedPipe(winpipe.path(name), _winapi.PIPE_ACCESS_DUPLEX, MESSAGES, 1, 4096, 4096, 0, 0)
    with connect(name) as client:
        ours: Any = client._handle
        _winapi.SetNamedPipeHandleState(ours.handle, _winapi.PIPE_READMODE_MESSAGE, None, None)
        _winapi.WriteFile(handle, b"abcdefgh")
        _winapi.WriteFile(handle, b"ij")
        assert [client.recv(3) for _ in range(4)] == [b"abc", b"def", b"gh", b"ij"]
        threading.Timer(0.05, _winapi.WriteFile, (handle, b"klmn")).start()
        assert [client.recv(3), client.recv(3)] == [b"klm", b"n"]
    _winapi.CloseHandle(handle)


def test_a_server_that_disconnects_its_client_has_hung_up(name: str) -> None:
    import ctypes

    handle = _winapi.CreateNamedPipe(winpipe.path(name), _winapi.PIPE_ACCESS_DUPLEX, BYTES, 1, 4096, 4096, 0, 0)
    with connect(name) as client:
        assert ctypes.WinDLL("kernel32").DisconnectNamedPipe(ctypes.c_void_p(handle))
        assert client.recv(1) == b""
        with pytest.raises(BrokenPipeError):
            client.sendall(b"x")
    _winapi.CloseHandle(handle)


def test_a_bare_client(name: str, listener: Listener, pool: ThreadPoolExecutor) -> None:
    serving = pool.submit(echo, listener)
    handle = _winapi.CreateFile(winpipe.path(name), READ_WRITE, 0, 0, _winapi.OPEN_EXISTING, 0, 0)
    _winapi.WriteFile(handle, b"hello")
    assert _winapi.ReadFile(handle, 100) == (b"hello", 0)
    _winapi.CloseHandle(handle)
    serving.result(30)


def test_pythons_own_files(name: str, listener: Listener, pool: ThreadPoolExecutor) -> None:
    serving = pool.submit(echo, listener)
    with open(winpipe.path(name), "r+b", buffering=0) as file:
        file.write(b"hello")
        assert file.read(100) == b"hello"
    serving.result(30)


# --- multiprocessing


def test_multiprocessings_listener(name: str, pool: ThreadPoolExecutor) -> None:
    with multiprocessing.connection.Listener(winpipe.path(name), "AF_PIPE") as theirs:
        accepting = pool.submit(theirs.accept)
        with connect(name) as client, accepting.result(30) as server:
            client.sendall(b"a message")
            assert server.recv_bytes() == b"a message"
            sending = pool.submit(server.send_bytes, b"x" * 100_000)
            assert received(client, 100_000) == b"x" * 100_000
            sending.result(30)
            server.send_bytes(b"")
            server.send_bytes(b"end")
            assert client.recv(10) == b"end"
            server.close()
            assert client.recv(10) == b""


def test_multiprocessings_client_cannot_do_without_messages(name: str, listener: Listener) -> None:
    """It fails (and forgets to close its handle); the next client is served."""
    with pytest.raises(OSError, match=r"."):
        multiprocessing.connection.Client(winpipe.path(name), "AF_PIPE")
    listener.accept().close()
    with winpipe.connect(name) as client, listener.accept() as server:
        client.sendall(b"x")
        assert server.recv(1) == b"x"


# --- asyncio


class Echo(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        assert isinstance(self.transport, asyncio.WriteTransport)
        self.transport.write(data)
        if data.endswith(b"!"):
            self.transport.close()


def run(test: Callable[[Any], Any]) -> None:
    async def with_its_loop() -> None:
        await asyncio.wait_for(test(asyncio.get_running_loop()), 30)
        for _ in range(10):
            await asyncio.sleep(0)  # in which closed transports go

    with asyncio.Runner(loop_factory=asyncio.ProactorEventLoop) as runner:
        runner.run(with_its_loop())


def test_asyncios_server(name: str) -> None:
    def ask(number: int) -> bytes:
        with connect(name) as client:
            client.sendall(b"%d" % number * 20_000)
            assert received(client, 20_000) == b"%d" % number * 20_000
            client.sendall(b"enough!")
            return received(client, 100)

    async def test(loop: Any) -> None:
        (server,) = await loop.start_serving_pipe(Echo, winpipe.path(name))
        answers = await asyncio.gather(*(asyncio.to_thread(ask, number) for number in range(10)))
        assert answers == [b"enough!"] * 10
        server.close()

    run(test)


def test_asyncios_client(name: str, listener: Listener, pool: ThreadPoolExecutor) -> None:
    serving = pool.submit(echo, listener)

    async def test(loop: Any) -> None:
        reader = asyncio.StreamReader()
        transport, _ = await loop.create_pipe_connection(
            lambda: asyncio.StreamReaderProtocol(reader), winpipe.path(name)
        )
        transport.write(b"hello" * 20_000)
        assert await reader.readexactly(100_000) == b"hello" * 20_000
        transport.close()

    run(test)
    serving.result(30)


# --- pywin32


def test_pywin32s_client(name: str, listener: Listener, pool: ThreadPoolExecutor) -> None:
    win32file: Any = pytest.importorskip("win32file", reason="pywin32 is not installed")
    serving = pool.submit(echo, listener)
    handle = win32file.CreateFile(winpipe.path(name), READ_WRITE, 0, None, win32file.OPEN_EXISTING, 0, None)
    win32file.WriteFile(handle, b"hello")
    assert win32file.ReadFile(handle, 100) == (0, b"hello")
    handle.Close()
    serving.result(30)


@pytest.mark.parametrize("mode", [BYTES, MESSAGES])
def test_pywin32s_server(name: str, pool: ThreadPoolExecutor, mode: int) -> None:
    win32file: Any = pytest.importorskip("win32file", reason="pywin32 is not installed")
    win32pipe: Any = pytest.importorskip("win32pipe", reason="pywin32 is not installed")
    duplex = win32pipe.PIPE_ACCESS_DUPLEX
    handle = win32pipe.CreateNamedPipe(winpipe.path(name), duplex, mode, 1, 4096, 4096, 0, None)
    connecting = pool.submit(win32pipe.ConnectNamedPipe, handle)
    with connect(name) as client:
        connecting.result(30)
        client.sendall(b"hello")
        assert win32file.ReadFile(handle, 100) == (0, b"hello")
        win32file.WriteFile(handle, b"hello")
        assert client.recv(100) == b"hello"
        handle.Close()
        assert client.recv(100) == b""
