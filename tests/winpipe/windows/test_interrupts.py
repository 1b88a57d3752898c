"""Ctrl-C while a real pipe is waited for, at the worst moments, and the end of a process that has pipes open."""

from __future__ import annotations

import _thread
import subprocess
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

from pageantry.winpipe import _kernel

Ends = tuple[Pipe, Pipe]


# --- while one waits


def interrupted(call: Callable[[], object]) -> None:
    """See that Ctrl-C ends this call, which has no deadline."""
    timer = threading.Timer(0.15, _thread.interrupt_main)
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        call()
    timer.join()


def test_ctrl_c_ends_each_wait(name: str, ends: Ends, listener: Listener) -> None:
    client, server = ends
    for one in (client, server, listener):
        one.settimeout(None)
    interrupted(lambda: client.recv(10))
    interrupted(lambda: client.recv_into(bytearray(10)))
    interrupted(listener.accept)
    server.sendall(b"abc")
    assert client.recv(10) == b"abc"
    with winpipe.connect(name), listener.accept():
        pass
    waiting = [winpipe.connect(name) for _ in range(BACKLOG)]
    interrupted(lambda: winpipe.connect(name, timeout=1000))
    interrupted(lambda: server.sendall(bytes(4 * _kernel.BUFFER)))
    for pipe in waiting:
        pipe.close()


def test_ctrl_c_ends_the_wait_for_a_turn(ends: Ends) -> None:
    client, server = ends
    thread = threading.Thread(target=lambda: client.recv(10))
    thread.start()
    while not client._handle.reading.pending:
        time.sleep(0.001)
    interrupted(lambda: client.recv(10))
    server.sendall(b"abc")
    thread.join(10)
    assert not thread.is_alive()


PROGRAM = """
import ctypes, sys, threading, time
from pageantry import winpipe
name, call = sys.argv[1:]
kernel32 = ctypes.WinDLL("kernel32")
kernel32.SetConsoleCtrlHandler(None, False)  # whoever started us may have had it ignored
threading.Timer(0.3, lambda: kernel32.GenerateConsoleCtrlEvent(0, 0)).start()
with winpipe.listen(name) as listener, winpipe.connect(name) as client, listener.accept() as server:
    try:
        eval(call)
    except KeyboardInterrupt:
        print("interrupted")
"""


@pytest.mark.parametrize("call", ["client.recv(1)", "listener.accept()", "server.sendall(bytes(1 << 20))"])
def test_the_consoles_own_ctrl_c_ends_a_wait(name: str, call: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, name, call],
        capture_output=True, text=True, timeout=30, creationflags=subprocess.CREATE_NEW_CONSOLE,
    )  # fmt: skip
    assert done.stdout == "interrupted\n", done.stderr


# --- at the worst moment


@pytest.fixture
def after(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Has an interrupt come when the next call of that function has been made, and what it said is not known yet."""

    def interrupt(function: str) -> None:
        real = getattr(_kernel, function)

        def call(*arguments: object) -> None:
            monkeypatch.setattr(_kernel, function, real)
            real(*arguments)
            raise KeyboardInterrupt

        monkeypatch.setattr(_kernel, function, call)

    return interrupt


@pytest.mark.parametrize(
    ("function", "there"),
    [
        ("_ReadFile", True),
        ("_GetOverlappedResult", True),
        ("_ReadFile", False),
        ("_WaitForSingleObject", False),
        ("_CancelIoEx", False),
        ("_GetOverlappedResult", False),
    ],
)
def test_what_was_read_is_there_for_the_next_read(
    ends: Ends, after: Callable[[str], None], function: str, there: bool
) -> None:
    client, server = ends
    client.settimeout(0.05)
    if there:
        server.sendall(b"abc")
    after(function)
    with pytest.raises(KeyboardInterrupt):
        client.recv(10)
    if not there:
        server.sendall(b"abc")
    client.settimeout(10)
    assert client.recv(10) == b"abc"
    server.sendall(b"def")
    assert client.recv(10) == b"def"


def test_a_read_that_failed_at_once_is_not_waited_for(ends: Ends, after: Callable[[str], None]) -> None:
    client, server = ends
    server.close()
    after("_ReadFile")
    with pytest.raises(KeyboardInterrupt):
        client.recv(10)
    assert client.recv(10) == b""


def test_a_write_that_failed_at_once_is_not_waited_for(ends: Ends, after: Callable[[str], None]) -> None:
    client, server = ends
    server.close()
    after("_WriteFile")
    with pytest.raises(KeyboardInterrupt):
        client.sendall(b"abc")
    with pytest.raises(BrokenPipeError):
        client.sendall(b"abc")


def test_a_write_that_was_made_is_seen_to_its_end(ends: Ends, after: Callable[[str], None]) -> None:
    client, server = ends
    after("_WriteFile")
    with pytest.raises(KeyboardInterrupt):
        client.sendall(b"abc")
    assert server.recv(10) == b"abc"
    after("_WriteFile")
    with pytest.raises(KeyboardInterrupt):
        client.sendall(bytes(4 * _kernel.BUFFER))  # cancelled, after what?
    client.close()
    while server.recv(1 << 20):
        pass


@pytest.mark.parametrize("client_is_faster", [True, False])
def test_a_listener_whose_making_is_interrupted_is_gone(
    name: str, after: Callable[[str], None], monkeypatch: pytest.MonkeyPatch, client_is_faster: bool
) -> None:
    make = _kernel.make_instance
    client = []

    def make_and_connect(path: str, descriptor: int, first: bool) -> object:
        instance = make(path, descriptor, first)
        if client_is_faster:
            client.append(_kernel.open_client(path))
        return instance

    monkeypatch.setattr(_kernel, "make_instance", make_and_connect)
    after("_ConnectNamedPipe")
    with pytest.raises(KeyboardInterrupt):
        winpipe.listen(name)
    assert not winpipe.exists(name) or client
    for handle in client:
        handle.close()
    with pytest.raises(FileNotFoundError):
        winpipe.connect(name)


def test_an_accept_that_is_interrupted_as_it_begins_a_wait_again_finds_no_client_where_there_is_none(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ThreadPoolExecutor(1) as pool:
        listener = pool.submit(winpipe.listen, name).result(30)  # its waits end with that thread
    first = listener._instances[0].reading
    assert first.wait(30)
    connect = _kernel._ConnectNamedPipe

    def interrupt(*arguments: object) -> None:
        monkeypatch.setattr(_kernel, "_ConnectNamedPipe", connect)
        raise KeyboardInterrupt

    with listener:
        listener.settimeout(0)
        monkeypatch.setattr(_kernel, "_ConnectNamedPipe", interrupt)
        with pytest.raises(KeyboardInterrupt):
            listener.accept()
        with pytest.raises(BlockingIOError):
            listener.accept()
        listener.settimeout(30)
        with winpipe.connect(name) as client, listener.accept() as server:
            client.sendall(b"abc")
            assert server.recv(10) == b"abc"


# --- the end of the process


LEAVE = """
import threading, sys, time
from pageantry import winpipe
name = sys.argv[1]
listener = winpipe.listen(name)
client = winpipe.connect(name)
server = listener.accept()
for call in (lambda: client.recv(1), lambda: server.sendall(bytes(1 << 20)), listener.accept):
    threading.Thread(target=call, daemon=True).start()
while not server._handle.writing.pending:
    time.sleep(0.001)
print("left", flush=True)
"""


def test_a_process_may_end_with_all_of_it_under_way(name: str) -> None:
    done = subprocess.run([sys.executable, "-c", LEAVE, name], capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stdout, done.stderr) == (0, "left\n", "")


FORGET = """
import sys
from pageantry import winpipe
class Keeper: pass
keeper = Keeper()
keeper.itself = keeper  # for the collector's last round
keeper.listener = winpipe.listen(sys.argv[1])
sys.kept = keeper.client = winpipe.connect(sys.argv[1])
"""


def test_pipes_that_were_forgotten_are_no_noise_at_the_end(name: str) -> None:
    done = subprocess.run([sys.executable, "-c", FORGET, name], capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stderr) == (0, "")


def test_who_is_killed_has_hung_up(name: str, listener: Listener) -> None:
    program = "import sys, time; from pageantry import winpipe; pipe = winpipe.connect(sys.argv[1]); time.sleep(100)"
    with subprocess.Popen([sys.executable, "-c", program, name]) as process:
        listener.settimeout(30)
        with listener.accept() as server:
            server.settimeout(30)
            assert server.peer.pid == process.pid
            process.kill()
            assert server.recv(1) == b""
