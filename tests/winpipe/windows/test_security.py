"""Who may do what with a real pipe, and who is known at its other end."""

from __future__ import annotations

import ctypes
import os
import re
import subprocess
import sys
from ctypes import POINTER, byref, c_int, c_void_p, wintypes
from typing import Any

import pytest

from pageantry import winpipe
from pageantry.winpipe import BACKLOG, Listener, Pipe, Untrusted

if sys.platform != "win32":
    pytest.skip("named pipes of this kind exist on Windows only", allow_module_level=True)

import _winapi

from pageantry.winpipe import _kernel, _security, _windows

STRANGER = "S-1-5-21-1-2-3-1001"


def function(dll: str, name: str, result: object, *arguments: object) -> Any:
    found = getattr(ctypes.WinDLL(dll), name)
    found.restype, found.argtypes = result, arguments
    return found


BOOL, DWORD, HANDLE = wintypes.BOOL, wintypes.DWORD, wintypes.HANDLE
get_security = function(
    "advapi32",
    "GetSecurityInfo",
    DWORD,
    HANDLE,
    c_int,
    DWORD,
    c_void_p,
    c_void_p,
    c_void_p,
    c_void_p,
    POINTER(c_void_p),
)
to_text = function(
    "advapi32", "ConvertSecurityDescriptorToStringSecurityDescriptorW", BOOL, c_void_p, DWORD, DWORD,
    POINTER(c_void_p), c_void_p,
)  # fmt: skip
handle_information = function("kernel32", "GetHandleInformation", BOOL, HANDLE, POINTER(DWORD))
to_sid = function("advapi32", "ConvertStringSidToSidW", BOOL, wintypes.LPCWSTR, POINTER(c_void_p))
impersonate = function("advapi32", "ImpersonateNamedPipeClient", BOOL, HANDLE)
revert = function("advapi32", "RevertToSelf", BOOL)
this_thread = function("kernel32", "GetCurrentThread", HANDLE)
thread_token = function("advapi32", "OpenThreadToken", BOOL, HANDLE, DWORD, BOOL, POINTER(HANDLE))
token_information = function(
    "advapi32", "GetTokenInformation", BOOL, HANDLE, c_int, c_void_p, DWORD, POINTER(DWORD)
)  # fmt: skip
handle_information = function("kernel32", "GetHandleInformation", BOOL, HANDLE, POINTER(DWORD))
OWNER, DACL, KERNEL_OBJECT = 1, 4, 6
TOKEN_QUERY, TOKEN_IMPERSONATION_LEVEL, IDENTIFICATION = 8, 9, 1
FILE_ALL_ACCESS = 0x1F01FF
CREATE_PIPE_INSTANCE = 4


def descriptor(pipe: Pipe) -> str:
    """Owner and access of a pipe, in Windows' own notation."""
    found, text = c_void_p(), c_void_p()
    assert get_security(handle_of(pipe), KERNEL_OBJECT, OWNER | DACL, None, None, None, None, byref(found)) == 0
    assert to_text(found, 1, OWNER | DACL, byref(text), None)
    return ctypes.wstring_at(text.value or 0)


def handle_of(pipe: Pipe) -> int:
    handle = pipe._handle
    assert isinstance(handle, _kernel.Handle)
    return handle.handle


def sid(text: str) -> str:
    """A SID in full, for which Windows may have written two letters."""
    binary = c_void_p()
    assert to_sid(text, byref(binary))
    return _security._text(binary.value)


def rights(text: str) -> int:
    return FILE_ALL_ACCESS if text in ("GA", "FA") else int(text, 16)


# --- who may


@pytest.mark.parametrize("access", [(), (winpipe.AUTHENTICATED_USERS,), (winpipe.SYSTEM, STRANGER)])
def test_a_pipe_belongs_to_its_user_and_is_for_nobody_else(name: str, access: tuple[str, ...]) -> None:
    expected = [(FILE_ALL_ACCESS, winpipe.user()), *((_kernel.CLIENT_ACCESS, other) for other in access)]
    with winpipe.listen(name, access) as listener:
        for _ in range(BACKLOG + 3):  # the first instances and later ones
            with winpipe.connect(name) as client, listener.accept() as server:
                for pipe in (client, server):
                    found = re.fullmatch(r"O:(\S+?)D:P?((?:\(A;;\w+;;;[\w-]+\))+)", descriptor(pipe))
                    assert found
                    assert sid(found[1]) == winpipe.user()
                    entries = re.findall(r";;(\w+);;;([\w-]+)\)", found[2])
                    assert [(rights(what), sid(who)) for what, who in entries] == expected


def test_clients_cannot_serve_the_name_themselves() -> None:
    assert not _kernel.CLIENT_ACCESS & CREATE_PIPE_INSTANCE


def test_a_name_that_is_taken_cannot_be_taken(name: str, listener: Listener, wine: bool) -> None:
    if wine:
        pytest.skip("Wine 8 does not enforce FILE_FLAG_FIRST_PIPE_INSTANCE: it makes another instance")
    for _ in range(3):
        with pytest.raises(FileExistsError) as caught:
            winpipe.listen(name.upper())
    assert caught.value.filename == winpipe.path(name.upper())
    listener.close()
    winpipe.listen(name).close()


def test_a_name_that_somebody_squats_is_refused(name: str, wine: bool) -> None:
    if wine:
        pytest.skip("Wine 8 does not enforce FILE_FLAG_FIRST_PIPE_INSTANCE: it makes another instance")
    squatter = _winapi.CreateNamedPipe(winpipe.path(name), _winapi.PIPE_ACCESS_DUPLEX, 0, 255, 4096, 4096, 0, 0)
    with pytest.raises(FileExistsError):
        winpipe.listen(name)
    _winapi.CloseHandle(squatter)


def test_a_name_cannot_be_taken_between_two_clients(name: str, listener: Listener, wine: bool) -> None:
    if wine:
        pytest.skip("Wine 8 does not enforce FILE_FLAG_FIRST_PIPE_INSTANCE: it makes another instance")
    for _ in range(20):
        with winpipe.connect(name), listener.accept(), pytest.raises(FileExistsError):
            winpipe.listen(name)


def test_clients_on_other_computers_are_rejected(name: str, listener: Listener, wine: bool) -> None:
    if wine:
        pytest.skip("Wine 8 opens no pipe through the name of a computer, whatever its server wants")
    read_write = _winapi.GENERIC_READ | _winapi.GENERIC_WRITE
    with pytest.raises(OSError, match=r"."):
        _winapi.CreateFile(rf"\\127.0.0.1\pipe\{name}", read_write, 0, 0, _winapi.OPEN_EXISTING, 0, 0)
    listener.settimeout(0.1)
    with pytest.raises(TimeoutError):
        listener.accept()


def test_no_child_inherits_a_handle(name: str, listener: Listener, ends: tuple[Pipe, Pipe]) -> None:
    client, server = ends
    assert isinstance(listener._kernel, _kernel.Waker)
    values = [listener._kernel._event]
    for handle in (client._handle, server._handle, *listener._instances):
        assert isinstance(handle, _kernel.Handle)
        values += [handle.handle, handle.reading._event, handle.writing._event]
    flags = DWORD(0xFF)
    for value in values:
        assert handle_information(value, byref(flags))
        assert flags.value & 1 == 0  # HANDLE_FLAG_INHERIT
    waiting = [sys.executable, "-c", "import sys; print('there', flush=True); sys.stdin.read()"]
    with subprocess.Popen(waiting, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, close_fds=False) as child:
        assert child.stdout
        assert child.stdout.readline() == "there\n"
        server.close()
        assert client.recv(1) == b""  # as it was the last handle of that end
        child.communicate()


# --- who is there


def test_each_end_knows_the_other(ends: tuple[Pipe, Pipe]) -> None:
    this = getattr(sys, "_base_executable", sys.executable)  # in a virtual environment, the one that it starts
    for pipe in ends:
        assert (pipe.peer.pid, pipe.peer.sid) == (os.getpid(), winpipe.user())
        assert pipe.peer.account.rpartition("\\")[2].lower() == os.environ["USERNAME"].lower()
        assert os.path.samefile(pipe.peer.program, this)


def test_a_client_is_known_even_before_it_has_said_anything(name: str, listener: Listener) -> None:
    program = "import sys; from pageantry import winpipe; pipe = winpipe.connect(sys.argv[1]); sys.stdin.read()"
    child = subprocess.Popen([sys.executable, "-c", program, name], stdin=subprocess.PIPE)
    with child, listener.accept() as server:
        assert (server.peer.pid, server.peer.sid) == (child.pid, winpipe.user())
        child.communicate()
        assert server.recv(1) == b""


def test_what_cannot_be_known_is_not_said() -> None:
    nobody = winpipe.Peer(None, None)
    assert (nobody.account, nobody.program, repr(nobody)) == ("", "", "<Peer pid=None sid=None>")
    unknown = winpipe.Peer(0x7FFFFFFC, STRANGER)
    assert (unknown.account, unknown.program) == (STRANGER, "")
    assert winpipe.Peer(None, "no SID").account == "no SID"
    assert winpipe.Peer(None, winpipe.SYSTEM).account


def test_a_client_wants_not_to_be_acted_as(name: str, listener: Listener, monkeypatch: pytest.MonkeyPatch) -> None:
    flags: list[int] = []
    create_file = _kernel._CreateFile

    def look(*arguments: Any) -> Any:
        flags.append(arguments[5])
        return create_file(*arguments)

    monkeypatch.setattr(_kernel, "_CreateFile", look)
    winpipe.connect(name).close()
    sqos_present, identification, impersonation = 0x100000, 0x10000, 0x20000
    assert [one & (sqos_present | identification | impersonation) for one in flags] == [sqos_present | identification]


def test_a_server_may_learn_who_its_client_is_but_not_act_as_it(ends: tuple[Pipe, Pipe], wine: bool) -> None:
    if wine:
        pytest.skip("Wine 8 lets servers act as their clients, whatever these want")
    client, server = ends
    client.sendall(b"x")
    assert server.recv(1) == b"x"
    token, level = HANDLE(), DWORD(99)
    assert impersonate(handle_of(server))
    try:
        assert thread_token(this_thread(), TOKEN_QUERY, True, byref(token))
    finally:
        revert()
    assert token_information(token, TOKEN_IMPERSONATION_LEVEL, byref(level), 4, byref(DWORD()))
    _winapi.CloseHandle(token.value or 0)
    assert level.value == IDENTIFICATION


def test_nobody_acts_as_a_client_after_accept(ends: tuple[Pipe, Pipe]) -> None:
    assert not thread_token(this_thread(), TOKEN_QUERY, True, byref(HANDLE()))


def test_a_strangers_pipe_gets_no_byte(name: str, listener: Listener, monkeypatch: pytest.MonkeyPatch) -> None:
    me = winpipe.user()
    monkeypatch.setattr(_windows, "user", lambda: STRANGER)
    with pytest.raises(Untrusted, match=re.escape(str(os.getpid()))) as caught:
        winpipe.connect(name)
    assert (caught.value.peer.pid, caught.value.peer.sid) == (os.getpid(), me)
    assert caught.value.filename == winpipe.path(name)
    assert isinstance(caught.value, PermissionError)
    with listener.accept() as server:
        server.settimeout(30)
        assert server.recv(1) == b""
    with pytest.raises(Untrusted):
        winpipe.connect(name, trust=[winpipe.SYSTEM])
    with winpipe.connect(name, trust=[winpipe.SYSTEM, me]):
        pass


@pytest.mark.parametrize("owner", ["", winpipe.SYSTEM, STRANGER])
def test_whoever_else_owns_a_pipe_is_not_trusted(
    name: str, listener: Listener, monkeypatch: pytest.MonkeyPatch, owner: str
) -> None:
    monkeypatch.setattr(_security, "owner", lambda handle: owner)
    with pytest.raises(Untrusted) as caught:
        winpipe.connect(name)
    assert caught.value.peer.sid == owner


# --- without touching


def test_a_look_takes_no_instance(name: str, listener: Listener) -> None:
    for _ in range(20):
        assert winpipe.exists(name)
        assert winpipe.exists(rf"\\.\pipe\{name}")
        assert winpipe.listening(name)
    listener.settimeout(0)
    with pytest.raises(BlockingIOError):
        listener.accept()
    clients = [winpipe.connect(name) for _ in range(BACKLOG)]
    assert not winpipe.listening(name)
    assert winpipe.exists(name)
    for client in clients:
        client.close()


def test_what_is_not_there_is_not_seen(name: str) -> None:
    assert not winpipe.exists(name)
    with pytest.raises(FileNotFoundError):
        winpipe.listening(name)


def test_a_name_is_found_among_all_others_whatever_its_case(name: str, listener: Listener, wine: bool) -> None:
    if wine:
        pytest.skip("Wine 8 has no list of pipes")
    assert name in os.listdir("\\\\.\\pipe\\")
    assert winpipe.exists(name.upper())
    assert not winpipe.exists(name[:-1])
