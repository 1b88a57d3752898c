"""The files of agents that are served on GnuPG's and Cygwin's: whose place is taken, and what is left of them."""

from __future__ import annotations

import errno
import os
import shutil
import socket
import stat
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing
from pathlib import Path
from typing import Any

import pytest

from pageantry import sessions
from pageantry.endpoints import listeners, loopback, loopback_listener, private_files
from pageantry.endpoints.loopback_listener import Listener
from pageantry.endpoints.socketfiles import SocketFile
from pageantry.keyring import Keyring
from pageantry.server import Server

from .loopback_clients import KINDS, answers, connected, file_of, listen, received, refused, served

SECRET = bytes(range(16))


@pytest.fixture
def directory(private_directory: Path) -> Path:
    return private_directory


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
def test_an_agent_that_still_listens_keeps_its_place(directory: Path, kind: str, other: str) -> None:
    with served(other, directory / "agent") as listener:
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

    @pytest.fixture
    def public() -> Iterator[Path]:
        """A directory that others come into."""
        made = Path(tempfile.mkdtemp(prefix="pgt", dir="/tmp"))
        made.chmod(0o755)
        yield made
        shutil.rmtree(made)

    def test_a_directory_that_cannot_be_written_is_said(
        public: Path, as_nobody: Callable[[], AbstractContextManager[None]]
    ) -> None:
        public.chmod(0o555)
        with as_nobody():
            error = refused("assuan", public / "agent")
        assert f"cannot listen at {public / 'agent'}: Permission denied" in str(error)
        public.chmod(0o755)

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

    def test_a_path_of_git_bash_s_is_said_where_nothing_tells_what_windows_calls_it(
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr("pageantry.endpoints.programs.output", lambda *_: "")
        error = refused("cygwin", "/tmp/no-such-agent")
        assert "is a path of Git Bash" in str(error)
        assert "as Windows has it" in error.hint

    def test_a_path_of_git_bash_s_is_used_as_cygpath_says(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("pageantry.endpoints.programs.output", lambda *_: str(directory / "agent"))
        with closing(listen("cygwin", "/tmp/agent")) as listener:
            assert listener.path == str(directory / "agent")

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
