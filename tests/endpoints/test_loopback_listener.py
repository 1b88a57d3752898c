"""Agents served on GnuPG's and Cygwin's files: who gets in, whose place is taken, and what is left of it."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing
from pathlib import Path
from typing import Any

import pytest

from pageantry import sessions
from pageantry.client import Client
from pageantry.endpoints import listeners, loopback, loopback_listener, parse, private_files, tcp_callers
from pageantry.endpoints.loopback_listener import Listener
from pageantry.endpoints.socketfiles import SocketFile
from pageantry.endpoints.socketfiles import parse as parse_file
from pageantry.errors import Error
from pageantry.keyring import Keyring
from pageantry.server import Server

from ..hosts import ed25519_key

SECRET = bytes(range(16))
PACK = struct.Struct("<3I")
LIST = b"\0\0\0\1\x0b"
NO_KEYS = b"\0\0\0\5\x0c\0\0\0\0"
KINDS = ("assuan", "cygwin")

Serve = Callable[..., Listener]


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """One that nobody else may write in, whatever the umask."""
    made = tmp_path / "private"
    made.mkdir(0o700)
    return made


def listen(kind: str, path: Path | str) -> Listener:
    made = getattr(loopback_listener, kind)(str(path))
    assert isinstance(made, Listener)
    return made


@pytest.fixture
def serve(directory: Path) -> Iterator[Serve]:
    """An agent without keys on a file of a kind."""
    with contextlib.ExitStack() as stack:

        def start(kind: str = "assuan", name: str = "agent") -> Listener:
            listener = listen(kind, directory / name)
            stack.enter_context(closing(Server([listener], sessions.to(Keyring()))))
            return listener

        yield start


def refused(kind: str, path: Path | str) -> Error:
    with pytest.raises(Error) as caught:
        listen(kind, path).close()
    assert caught.value.hint
    assert "\n" not in str(caught.value) + caught.value.hint
    return caught.value


def file_of(listener: Listener) -> SocketFile:
    return parse_file(Path(listener.path).read_bytes())


def connected(listener: Listener) -> socket.socket:
    client = socket.create_connection(("127.0.0.1", file_of(listener).port), 20)
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return client


def received(connection: socket.socket, size: int = 1000) -> bytes:
    """So many bytes, or all there are until it ends."""
    data = b""
    with contextlib.suppress(ConnectionError):
        while len(data) < size and (piece := connection.recv(size - len(data))):
            data += piece
    return data


def greeting(listener: Listener) -> bytes:
    """All that a client sends before it may ask for something."""
    return file_of(listener).secret + (PACK.pack(4242, 1001, 1002) if file_of(listener).cygwin else b"")


def reply(listener: Listener) -> bytes:
    """What comes back."""
    file = file_of(listener)
    return file.secret + PACK.pack(os.getpid(), 1001, 1002) if file.cygwin else b""


def answers(listener: Listener) -> bool:
    """Whether a client is served."""
    with connected(listener) as client:
        client.sendall(greeting(listener) + LIST)
        expected = reply(listener) + NO_KEYS
        return received(client, len(expected)) == expected


@pytest.mark.parametrize("kind", KINDS)
def test_our_own_client_lists_adds_and_signs(serve: Serve, kind: str) -> None:
    listener = serve(kind)
    for address in (f"{kind}:{listener.path}", f"unix:{listener.path}", listener.path):
        with parse(address).open(30) as agent:
            assert isinstance(agent, Client)
            if address != listener.path:
                agent.remove_all()
                for number in range(300):
                    agent.add(ed25519_key(number), f"key {number}")
            keys = agent.identities()
            assert [one.comment for one in keys] == [f"key {number}" for number in range(300)]
            assert agent.sign(keys[-1].key, b"data" * 10_000, verify=True)


@pytest.mark.parametrize("kind", KINDS)
def test_the_file_says_what_a_client_of_that_kind_expects(directory: Path, kind: str) -> None:
    with closing(listen(kind, directory / "agent")) as listener:
        assert listener.path == str(directory / "agent")
        content = (directory / "agent").read_bytes()
        assert content.startswith(b"!<socket >") == (kind == "cygwin")
        assert parse_file(content).cygwin == (kind == "cygwin")
        with closing(listen(kind, directory / "other")) as other:
            assert file_of(other).secret != file_of(listener).secret
            assert sorted(os.listdir(directory)) == ["agent", "other"]
    assert os.listdir(directory) == []


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("wrong", [bytes(16), SECRET, 16 * b"\xff", b"\0\0\0\1\x0b" * 4])
def test_who_does_not_know_the_secret_is_hung_up_on_without_a_word(serve: Serve, kind: str, wrong: bytes) -> None:
    listener = serve(kind)
    with connected(listener) as client:
        client.sendall(wrong + LIST)
        assert received(client) == b""
    assert answers(listener)


@pytest.mark.parametrize("kind", KINDS)
def test_every_bit_of_the_secret_counts(serve: Serve, kind: str) -> None:
    listener = serve(kind)
    secret = file_of(listener).secret
    for at in (0, 7, 15):
        with connected(listener) as client:
            client.sendall(secret[:at] + bytes([secret[at] ^ 1]) + secret[at + 1 :])
            assert received(client) == b""


@pytest.mark.parametrize("kind", KINDS)
def test_a_greeting_may_come_in_any_pieces(serve: Serve, kind: str) -> None:
    listener = serve(kind)
    with connected(listener) as client:
        for byte in greeting(listener) + LIST:
            client.sendall(bytes([byte]))
        expected = reply(listener) + NO_KEYS
        assert received(client, len(expected)) == expected
        client.sendall(LIST)
        assert received(client, len(NO_KEYS)) == NO_KEYS


def test_a_client_of_cygwin_s_that_waits_at_each_step_gets_its_secret_and_its_user_back(serve: Serve) -> None:
    listener = serve("cygwin")
    with connected(listener) as client:
        client.sendall(file_of(listener).secret)
        assert received(client, 16) == file_of(listener).secret
        client.sendall(PACK.pack(4242, 197609, 197121))
        assert PACK.unpack(received(client, 12)) == (os.getpid(), 197609, 197121)
        client.sendall(LIST)
        assert received(client, len(NO_KEYS)) == NO_KEYS


def test_gnupg_s_hears_nothing_before_it_asks(serve: Serve) -> None:
    listener = serve("assuan")
    with connected(listener) as client:
        client.sendall(file_of(listener).secret)
        client.settimeout(0.3)
        with pytest.raises(TimeoutError):
            client.recv(1)


@pytest.mark.parametrize(
    ("kind", "size"), [("assuan", 0), ("assuan", 8), ("assuan", 15), ("cygwin", 15), ("cygwin", 20)]
)
def test_half_a_greeting_and_silence_end_at_the_deadline(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, kind: str, size: int
) -> None:
    listener = serve(kind)
    monkeypatch.setattr(loopback_listener, "GREETING_TIMEOUT", 0.3)
    with connected(listener) as client:
        start = time.monotonic()
        client.sendall(greeting(listener)[:size])
        assert received(client) == reply(listener)[: 16 if size > 16 else 0]
        assert 0.2 < time.monotonic() - start < 5
    assert answers(listener)


def test_who_drips_its_secret_gets_no_more_time_for_it(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    listener = serve("assuan")
    monkeypatch.setattr(loopback_listener, "GREETING_TIMEOUT", 0.5)
    secret = file_of(listener).secret
    with connected(listener) as client:
        start = time.monotonic()
        client.settimeout(0.2)
        sent = 0
        with contextlib.suppress(ConnectionError):
            while sent < 15:
                client.sendall(secret[sent : sent + 1])
                sent += 1
                with contextlib.suppress(TimeoutError):
                    assert client.recv(1) == b""
                    break
        assert sent < 15
        assert time.monotonic() - start < 5


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [0, 1, 15, 16, 20])
def test_who_hangs_up_in_the_middle_disturbs_nobody(serve: Serve, kind: str, size: int) -> None:
    listener = serve(kind)
    for _ in range(3):
        with connected(listener) as client:
            client.sendall(greeting(listener)[:size])
    assert answers(listener)


@pytest.mark.parametrize("kind", KINDS)
def test_any_number_of_silent_clients_keep_nobody_from_being_served_and_take_no_threads(
    serve: Serve, kind: str
) -> None:
    listener = serve(kind)
    before = threading.active_count()
    with contextlib.ExitStack() as stack:
        silent = [stack.enter_context(connected(listener)) for _ in range(200)]
        assert all(answers(listener) for _ in range(20))
        assert threading.active_count() <= before + 20  # of those that were served
        for client in silent[:100]:  # which had to go for the others
            assert received(client) == b""
    assert answers(listener)


def test_a_client_that_has_greeted_stays_whoever_comes(serve: Serve) -> None:
    listener = serve("assuan")
    with contextlib.ExitStack() as stack:
        client = stack.enter_context(connected(listener))
        client.sendall(greeting(listener) + LIST)
        assert received(client, len(NO_KEYS)) == NO_KEYS
        for _ in range(2 * loopback_listener.MAX_NEWCOMERS):
            stack.enter_context(connected(listener))
        assert answers(listener)
        client.sendall(LIST)
        assert received(client, len(NO_KEYS)) == NO_KEYS


def test_a_client_that_has_greeted_is_accepted_with_a_plain_connection(directory: Path) -> None:
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(closing(listen("assuan", directory / "agent")))
        stack.enter_context(connected(listener))  # who says nothing
        client = stack.enter_context(connected(listener))
        client.sendall(greeting(listener) + b"question")
        connection = stack.enter_context(listener.accept())
        assert connection.gettimeout() is None
        assert not connection.get_inheritable()
        assert connection.recv(100) == b"question"
        connection.sendall(b"answer")
        assert client.recv(100) == b"answer"
        assert not connection.gone()
        connection.shutdown(2)
        assert received(client) == b""


def test_the_client_is_known_where_the_system_tells(directory: Path) -> None:
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(closing(listen("assuan", directory / "agent")))
        client = stack.enter_context(connected(listener))
        client.sendall(greeting(listener))
        connection = stack.enter_context(listener.accept())
        if sys.platform == "linux":
            assert getattr(connection.peer, "uid", None) == os.geteuid()
        elif sys.platform == "win32":
            assert connection.peer is not None
            assert connection.peer.pid == os.getpid()
            assert connection.peer.account.rpartition("\\")[2] == os.environ["USERNAME"]


def test_another_user_s_client_is_hung_up_on_whatever_it_knows(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    listener = serve("assuan")
    monkeypatch.setattr(tcp_callers, "caller", lambda client, server: (None, False))
    with connected(listener) as client:
        with contextlib.suppress(ConnectionError):
            client.sendall(greeting(listener) + LIST)
        assert received(client) == b""
    monkeypatch.undo()
    assert answers(listener)


def test_closing_wakes_who_accepts(directory: Path) -> None:
    listener = listen("assuan", directory / "agent")
    caught: list[OSError] = []

    def accept() -> None:
        try:
            listener.accept()
        except OSError as error:
            caught.append(error)

    thread = threading.Thread(target=accept)
    thread.start()
    assert not listener.closed
    listener.close()
    thread.join(20)
    assert listener.closed
    assert [error.errno for error in caught] == [errno.EBADF]
    listener.close()
    with pytest.raises(OSError, match="was closed"):
        listener.accept()


def test_closing_a_server_ends_those_who_have_not_greeted(directory: Path) -> None:
    server = Server([listener := listen("assuan", directory / "agent")], sessions.to(Keyring()))
    with connected(listener) as client:
        assert answers(listener)  # so that the other one was accepted before
        server.close()
        assert received(client) == b""


# whose place is taken


def stale(path: Path, kind: str) -> None:
    """What an agent leaves that was killed."""
    with socket.create_server(("127.0.0.1", 0)) as gone:
        number = gone.getsockname()[1]
    path.write_bytes(SocketFile(number, SECRET, kind == "cygwin").encode())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("before", KINDS)
def test_the_file_of_an_agent_that_has_ended_makes_room(directory: Path, kind: str, before: str) -> None:
    stale(directory / "agent", before)
    with closing(listen(kind, directory / "agent")) as listener:
        assert file_of(listener).secret != SECRET
        assert os.listdir(directory) == ["agent"]
    assert os.listdir(directory) == []


def echoes_another(connection: socket.socket) -> None:
    received(connection, 16)
    connection.sendall(SECRET[::-1])
    connection.recv(1)


def hangs_up(connection: socket.socket) -> None:
    received(connection, 16)


@pytest.mark.parametrize(("kind", "script"), [("assuan", hangs_up), ("cygwin", hangs_up), ("cygwin", echoes_another)])
def test_a_file_whose_port_is_another_program_s_by_now_makes_room(
    directory: Path, port: Callable[..., Any], kind: str, script: Callable[[socket.socket], None]
) -> None:
    (directory / "agent").write_bytes(SocketFile(port(script).number, SECRET, kind == "cygwin").encode())
    with closing(listen(kind, directory / "agent")) as listener:
        assert file_of(listener).secret != SECRET


def test_a_file_whose_port_is_another_user_s_by_now_makes_room_and_nothing_is_sent_there(
    directory: Path, port: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Mallory:
        pid, account, program = 666, "PC\\mallory", "C:\\evil.exe"

    heard: list[bytes] = []
    server = port(lambda connection: heard.append(connection.recv(100)))
    (directory / "agent").write_bytes(SocketFile(server.number, SECRET, cygwin=False).encode())
    monkeypatch.setattr(listeners, "listener", lambda number: (Mallory, False))
    listen("assuan", directory / "agent").close()
    server.close()
    assert heard == [b""]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("other", KINDS)
def test_an_agent_that_still_listens_keeps_its_place(serve: Serve, directory: Path, kind: str, other: str) -> None:
    listener = serve(other)
    before = (directory / "agent").read_bytes()
    error = refused(kind, directory / "agent")
    assert f"{directory / 'agent'} is another agent's, on port {file_of(listener).port}" in str(error)
    assert (directory / "agent").read_bytes() == before
    assert os.listdir(directory) == ["agent"]
    assert answers(listener)


@pytest.mark.parametrize("kind", KINDS)
def test_an_agent_that_hangs_keeps_its_place(
    directory: Path, port: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr(loopback_listener, "_PROBE", 0.3)
    server = port(lambda connection: connection.recv(1) and received(connection))
    (directory / "agent").write_bytes(SocketFile(server.number, SECRET, kind == "cygwin").encode())
    assert "another agent's" in str(refused(kind, directory / "agent"))


@pytest.mark.parametrize("error", [OSError(errno.EMFILE, "too many open files"), PermissionError(errno.EACCES, "no")])
def test_where_it_cannot_be_told_whether_an_agent_listens_its_file_stays(
    directory: Path, monkeypatch: pytest.MonkeyPatch, error: OSError
) -> None:
    def fails(*_: object) -> None:
        raise error

    stale(directory / "agent", "assuan")
    monkeypatch.setattr(loopback, "_greeted", fails)
    assert f"cannot listen at {directory / 'agent'}: {error.strerror}" in str(refused("assuan", directory / "agent"))
    assert SECRET in (directory / "agent").read_bytes()


@pytest.mark.parametrize(
    "content",
    [b"", b"a letter\n", b"%Assuan%\nsocket=/run/agent\n", b"50123\n" + bytes(15), b"!<socket >50123 s 0", b"x" * 9999],
)
def test_what_is_no_such_file_is_left_as_it_is(directory: Path, content: bytes) -> None:
    (directory / "agent").write_bytes(content)
    for kind in KINDS:
        assert "is no socket file and is left as it is" in str(refused(kind, directory / "agent"))
    assert (directory / "agent").read_bytes() == content


def test_a_directory_or_link_is_left_as_it_is(directory: Path, symlink: Callable[[Path, Path], None]) -> None:
    (directory / "agent").mkdir()
    refused("assuan", directory / "agent")
    assert (directory / "agent").is_dir()
    stale(directory / "file", "assuan")
    for target in ("file", "gone"):
        symlink(directory / target, directory / f"to {target}")
        assert "left as it is" in str(refused("assuan", directory / f"to {target}"))
        assert (directory / f"to {target}").is_symlink()
    assert SECRET in (directory / "file").read_bytes()


def test_of_two_who_begin_at_once_one_does(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Listener] = []
    real = loopback_listener._make_room

    def late(path: str) -> None:
        real(path)
        monkeypatch.setattr(loopback_listener, "_make_room", real)
        made.append(listen("assuan", path))

    monkeypatch.setattr(loopback_listener, "_make_room", late)
    assert "is another agent's, which was faster" in str(refused("cygwin", directory / "agent"))
    assert os.listdir(directory) == ["agent"]
    assert not file_of(made[0]).cygwin
    made[0].close()
    assert os.listdir(directory) == []


def test_of_two_who_find_the_same_stale_file_neither_removes_the_other_s(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Listener] = []
    real = loopback_listener._answers

    def late(file: SocketFile) -> bool:
        monkeypatch.setattr(loopback_listener, "_answers", real)
        made.append(listen("assuan", directory / "agent"))
        return False

    stale(directory / "agent", "assuan")
    monkeypatch.setattr(loopback_listener, "_answers", late)
    assert "which was faster" in str(refused("assuan", directory / "agent"))
    assert file_of(made[0]).secret != SECRET
    made[0].close()
    assert os.listdir(directory) == []


def test_what_comes_at_the_last_moment_is_put_back(directory: Path) -> None:
    path = directory / "agent"
    path.write_bytes(b"old")
    asked: list[str] = []

    def is_old(place: str) -> bool:
        asked.append(place)
        old = private_files.has(place, b"old")
        if place == str(path):
            path.write_bytes(b"new")
        return old

    private_files.remove(str(path), is_old)
    assert len(asked) == 2
    assert path.read_bytes() == b"new"
    assert os.listdir(directory) == ["agent"]


@pytest.mark.parametrize("content", [b"another's", None])
def test_what_somebody_has_put_in_its_place_meanwhile_stays(directory: Path, content: bytes | None) -> None:
    listener = listen("assuan", directory / "agent")
    (directory / "agent").unlink()
    if content is None:
        (directory / "agent").mkdir()
    else:
        (directory / "agent").write_bytes(content)
    listener.close()
    assert os.listdir(directory) == ["agent"]
    assert content is None or (directory / "agent").read_bytes() == content


def test_a_file_that_is_gone_already_is_no_matter(directory: Path) -> None:
    listener = listen("assuan", directory / "agent")
    (directory / "agent").unlink()
    listener.close()
    assert os.listdir(directory) == []


def test_a_place_that_is_none_is_said(directory: Path) -> None:
    assert "no-such" in str(refused("assuan", directory / "no-such" / "agent"))
    (directory / "file").touch()
    assert str(directory / "file") in str(refused("cygwin", directory / "file" / "agent"))
    for path in ("", "a\0b", f"{directory}{os.sep}"):
        assert "cannot be the path of a socket" in str(refused("assuan", path))


def test_a_path_from_the_current_directory_is_meant_from_anywhere(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(directory)
    with closing(listen("assuan", "agent")) as listener:
        assert listener.path == str(directory / "agent")
        monkeypatch.chdir(directory.parent)
    assert os.listdir(directory) == []


def test_what_fails_on_the_way_leaves_nothing(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(source: str, target: str) -> None:
        raise OSError(errno.ENOSPC, "no space left")

    monkeypatch.setattr(private_files, "_move", full)
    assert f"cannot listen at {directory / 'agent'}: no space left" in str(refused("assuan", directory / "agent"))
    assert os.listdir(directory) == []


def test_nothing_is_left_of_listeners_and_clients_good_or_bad(
    directory: Path, leaves_nothing: Callable[..., None]
) -> None:
    def come_and_go() -> None:
        for kind in KINDS:
            listener = listen(kind, directory / "agent")
            with closing(Server([listener], sessions.to(Keyring()))), connected(listener):
                assert answers(listener)
                with connected(listener) as bad:
                    bad.sendall(bytes(16))
                    assert received(bad) == b""
                refused(kind, directory / "agent")

    leaves_nothing(come_and_go)
    assert os.listdir(directory) == []


if sys.platform != "win32":

    def test_the_file_is_never_open_to_others_and_never_half_there(
        directory: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        seen: list[tuple[int, int]] = []
        real = private_files._move

        def move(source: str, target: str) -> None:
            seen.append((stat.S_IMODE(os.stat(source).st_mode), len(Path(source).read_bytes())))
            assert os.listdir(directory) == [os.path.basename(source)]
            real(source, target)

        monkeypatch.setattr(private_files, "_move", move)
        before = os.umask(0)
        try:
            with closing(listen("cygwin", directory / "agent")) as listener:
                assert seen == [(0o600, os.path.getsize(listener.path))]
                assert stat.S_IMODE(os.stat(listener.path).st_mode) == 0o600
        finally:
            os.umask(before)

    def test_a_directory_where_others_may_replace_it_is_none(directory: Path) -> None:
        directory.chmod(0o777)
        assert "others may write" in str(refused("assuan", directory / "agent"))
        (directory / "inner").mkdir(0o700)
        assert "others may replace it" in str(refused("assuan", directory / "inner" / "agent"))
        directory.chmod(0o700)

    @pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files to another user")
    def test_another_user_s_file_is_left_alone(directory: Path) -> None:
        stale(directory / "agent", "assuan")
        os.chown(directory / "agent", 65534, -1)
        assert "not to you" in str(refused("assuan", directory / "agent"))
        assert SECRET in (directory / "agent").read_bytes()

    def test_a_socket_or_fifo_is_left_alone(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        os.mkfifo(directory / "fifo")
        monkeypatch.chdir(directory)
        with socket.socket(socket.AF_UNIX) as other:
            other.bind("socket")
        assert "FIFO" in str(refused("assuan", directory / "fifo"))
        assert "left as it is" in str(refused("assuan", directory / "socket"))
        assert sorted(os.listdir(directory)) == ["fifo", "socket"]

    def test_a_directory_that_cannot_be_written_is_said(
        directory: Path, as_nobody: Callable[[], AbstractContextManager[None]]
    ) -> None:
        directory.chmod(0o555)
        if os.geteuid() == 0:
            directory.parent.chmod(0o755)
            for parent in directory.parents:
                if not os.stat(parent).st_mode & 0o001:
                    pytest.skip(f"others than root do not come into {parent}")
        with as_nobody():
            error = refused("assuan", directory / "agent")
        assert f"cannot listen at {directory / 'agent'}: Permission denied" in str(error)
        directory.chmod(0o700)

else:
    from pageantry import acl, winpipe

    EVERYONE = "S-1-1-0"

    def grant(path: Path, rights: str) -> None:
        """Let everybody use a directory, and what will be in it."""
        import ctypes

        advapi32 = ctypes.WinDLL("advapi32", use_last_error=True)
        descriptor = ctypes.c_void_p()
        text = f"D:P(A;OICI;{rights};;;{EVERYONE})(A;OICI;FA;;;{winpipe.user()})"
        convert = advapi32.ConvertStringSecurityDescriptorToSecurityDescriptorW
        convert.argtypes = (ctypes.c_wchar_p, ctypes.c_uint32, ctypes.POINTER(ctypes.c_void_p), ctypes.c_void_p)
        advapi32.SetFileSecurityW.argtypes = (ctypes.c_wchar_p, ctypes.c_uint32, ctypes.c_void_p)
        assert convert(text, 1, ctypes.byref(descriptor), None)
        assert advapi32.SetFileSecurityW(str(path), 4, descriptor), ctypes.FormatError(ctypes.get_last_error())

    def test_the_file_is_the_user_s_alone_and_never_half_there(
        directory: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        seen: list[tuple[list[str], int]] = []
        real = private_files._move

        def move(source: str, target: str) -> None:
            seen.append((acl.others(source), os.path.getsize(source)))
            real(source, target)

        monkeypatch.setattr(private_files, "_move", move)
        grant(directory, "FR")  # so that others could read what inherits from it
        with closing(listen("assuan", directory / "agent")) as listener:
            assert seen == [([], os.path.getsize(listener.path))]
            assert acl.others(listener.path) == []

    def test_cygwin_knows_its_sockets_by_an_attribute(directory: Path, wine: bool) -> None:
        with closing(listen("cygwin", directory / "agent")) as listener:
            attributes = os.stat(listener.path).st_file_attributes
            if wine and not attributes & stat.FILE_ATTRIBUTE_SYSTEM:
                pytest.skip("Wine keeps no such attribute on this file system")
            assert attributes & stat.FILE_ATTRIBUTE_SYSTEM
        with closing(listen("assuan", directory / "agent")) as listener:
            assert not os.stat(listener.path).st_file_attributes & stat.FILE_ATTRIBUTE_SYSTEM

    def test_a_directory_where_others_may_write_is_none(directory: Path) -> None:
        grant(directory, "FA")
        error = refused("assuan", directory / "agent")
        assert f"may write in {directory}" in str(error)
        assert "USERPROFILE" in error.hint
        assert os.listdir(directory) == []

    def test_a_file_that_somebody_has_open_for_a_moment_is_removed_afterwards(directory: Path) -> None:
        listener = listen("assuan", directory / "agent")
        file = open(listener.path, "rb")  # noqa: SIM115
        timer = threading.Timer(0.2, file.close)
        timer.start()
        listener.close()
        timer.join()
        assert os.listdir(directory) == []

    def test_nobody_can_listen_on_the_same_port(directory: Path) -> None:
        """By the kernel's word: nobody else can bind the port meanwhile, as SO_REUSEADDR would let him."""
        with closing(listen("assuan", directory / "agent")) as listener, socket.socket() as thief:
            thief.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with pytest.raises(OSError, match="WinError"):
                thief.bind(("127.0.0.1", file_of(listener).port))
