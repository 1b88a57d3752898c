"""That real pipes leave nothing behind."""

from __future__ import annotations

import ctypes
import errno
import gc
import sys
from ctypes import wintypes

import pytest

from pageantry import winpipe
from pageantry.winpipe import Listener, Pipe

if sys.platform != "win32":
    pytest.skip("named pipes of this kind exist on Windows only", allow_module_level=True)

from pageantry.winpipe import _kernel, _security, _windows

BUFFER = _kernel.BUFFER
Ends = tuple[Pipe, Pipe]
_kernel32 = ctypes.WinDLL("kernel32")
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
