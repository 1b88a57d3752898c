"""Windows' sockets that are files. Elsewhere UNIX' own stand in for them, by the same calls with the same bytes."""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
import socket
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pageantry import winpipe
from pageantry.endpoints import sockets, winsock
from pageantry.errors import Unreachable

MYSELF, STRANGER = "S-1-5-21-1-2-3-1001", "S-1-5-21-1-2-3-1002"


def refused(path: Path | str, ws2: Any = None, timeout: float = 0.3) -> Unreachable:
    with pytest.raises(Unreachable) as caught:
        winsock.connect(str(path), timeout, ws2)
    assert caught.value.hint
    assert "\n" not in str(caught.value) + caught.value.hint
    return caught.value


class Failing:
    """A ws2_32 that says no."""

    def __init__(self, code: int) -> None:
        self.code = code

    def connect(self, descriptor: int, address: bytes) -> int:
        return self.code

    def peer_pid(self, descriptor: int) -> int | None:
        raise AssertionError


def test_a_path_longer_than_a_sockets_can_be_is_said() -> None:
    assert "108 bytes long" in str(refused("C:\\" + 105 * "x"))
    assert "107" in str(refused("C:\\" + 53 * "é"))


if sys.platform != "win32":
    from .libc_sockets import Libc

    linux = pytest.mark.skipif(sys.platform != "linux", reason="other systems lay an address out differently")

    @pytest.fixture
    def directory() -> Iterator[Path]:
        made = Path(tempfile.mkdtemp(prefix="pgt", dir="/tmp"))
        yield made
        shutil.rmtree(made)

    @pytest.fixture
    def listener(directory: Path) -> Iterator[socket.socket]:
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(str(directory / "agent"))
            server.listen()
            server.settimeout(10)
            yield server

    @linux
    def test_a_socket_is_connected_by_winsock_and_used_by_python(listener: socket.socket, directory: Path) -> None:
        ws2 = Libc()
        with winsock.connect(str(directory / "agent"), 5, ws2) as connection, listener.accept()[0] as agent:
            assert connection.peer is None
            connection.sendall(b"question")
            assert agent.recv(100) == b"question"
            agent.sendall(b"answer")
            assert connection.recv(100) == b"answer"
            connection.settimeout(0.05)
            with pytest.raises(TimeoutError):
                connection.recv(100)
            connection.shutdown(2)
            assert agent.recv(100) == b""
        assert ws2.addresses == [b"\x01\0" + str(directory / "agent").encode().ljust(108, b"\0")]

    def test_python_s_own_sockets_are_used_where_it_has_them(listener: socket.socket, directory: Path) -> None:
        with winsock.connect(str(directory / "agent"), 5) as connection, listener.accept()[0] as agent:
            connection.sendall(b"x")
            assert agent.recv(1) == b"x"

    @linux
    def test_nobody_there(directory: Path) -> None:
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(str(directory / "dead"))
        for ws2 in (Libc(), None):
            assert "nobody listens" in str(refused(directory / "dead", ws2))

    @linux
    @pytest.mark.parametrize(("sid", "trusted"), [(MYSELF, True), (winpipe.SYSTEM, True), (STRANGER, False)])
    def test_the_process_at_the_other_end_is_looked_at_before_anything_is_sent(
        listener: socket.socket, directory: Path, monkeypatch: pytest.MonkeyPatch, sid: str, trusted: bool
    ) -> None:
        monkeypatch.setattr(winpipe, "user", lambda pid=None: MYSELF if pid is None else sid)
        if trusted:
            with winsock.connect(str(directory / "agent"), 5, Libc(42)) as connection:
                assert connection.peer is not None
                assert (connection.peer.pid, connection.peer.account) == (42, sid)
        else:
            error = refused(directory / "agent", Libc(42))
            assert f"runs as {STRANGER}, not as you (process, 42)" in str(error)
            assert "nothing was sent" in error.hint
        with listener.accept()[0] as agent:
            assert agent.recv(1) == b""

    @linux
    def test_a_connection_that_does_not_come_about_ends_at_the_deadline(
        directory: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        class Pending(Libc):
            def connect(self, descriptor: int, address: bytes) -> int:
                return 10035

        with socket.socket(socket.AF_UNIX) as server:
            server.bind(str(directory / "busy"))
            server.listen(0)
            with socket.socket(socket.AF_UNIX) as waiting:
                waiting.connect(str(directory / "busy"))
                # A socket that is not connected yet is not writable; on Linux it says that it is, having hung up.
                asked: list[float] = []

                def select(reading: object, writing: object, failing: object, timeout: float) -> object:
                    asked.append(timeout)
                    return (), (), ()

                monkeypatch.setattr("select.select", select)
                assert "within 0.3 s" in str(refused(directory / "busy", Pending()))
                assert asked == [0.3]

    @linux
    def test_a_connection_that_comes_about_later_is_waited_for(
        listener: socket.socket, directory: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        class Later(Libc):
            def connect(self, descriptor: int, address: bytes) -> int:
                assert super().connect(descriptor, address) == 0
                return 10035

        with winsock.connect(str(directory / "agent"), 5, Later()) as connection, listener.accept()[0] as agent:
            connection.sendall(b"x")
            assert agent.recv(1) == b"x"

    @pytest.mark.parametrize(
        ("code", "what", "hint"),
        [
            (10061, "nobody listens", "ended"),
            (errno.EAFNOSUPPORT, "none of that kind", "Windows 10 1803"),
            (10050, "cannot connect to agent: Winsock's error 10050", "check"),
            (errno.EACCES, "may not connect", "another user's"),
        ],
    )
    def test_every_failure_is_told_and_the_socket_closed(
        monkeypatch: pytest.MonkeyPatch, code: int, what: str, hint: str
    ) -> None:
        made: list[Any] = []

        class Counted(sockets.Connection):
            def __init__(self, *arguments: Any) -> None:
                super().__init__(*arguments)
                made.append(self)

        monkeypatch.setattr(winsock, "Connection", Counted)
        error = refused("agent", Failing(code))
        assert what in str(error)
        assert hint in error.hint
        assert [one.fileno() for one in made] == [-1]

    def test_a_windows_without_such_sockets_says_so_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
        def none(*_: object) -> None:
            raise OSError(errno.EAFNOSUPPORT, "no such family")

        monkeypatch.setattr(winsock, "Connection", none)
        assert "none of that kind (AF_UNIX)" in str(refused("agent"))

else:
    from pageantry.endpoints import _owners

    def test_a_windows_without_such_sockets_is_diagnosed(wine: bool) -> None:
        if not wine:
            pytest.skip("this Windows has them")
        error = refused("C:\\agent")
        assert "none of that kind (AF_UNIX)" in str(error)
        assert "1803" in error.hint

    def test_an_agent_on_a_socket_is_reached(tmp_path: Path, wine: bool) -> None:
        if wine:
            pytest.skip("Wine has no such sockets")
        ws2 = ctypes.WinDLL("ws2_32", use_last_error=True)
        path = str(tmp_path / "agent")
        address = b"\x01\0" + os.fsencode(path).ljust(108, b"\0")
        with socket.socket(1, socket.SOCK_STREAM, 0) as server:
            assert ws2.bind(ctypes.c_size_t(server.fileno()), address, len(address)) == 0
            server.listen()
            assert winsock.is_socket(path)
            assert winsock.look(path) is None
            with winsock.connect(path, 5) as connection:
                assert connection.peer is not None
                assert connection.peer.pid == os.getpid()
        assert "nobody listens" in str(refused(path))

    def test_a_file_belongs_to_its_user_whether_it_is_open_or_not(tmp_path: Path) -> None:
        import msvcrt

        (tmp_path / "file").touch()
        owner = _owners.owner(str(tmp_path / "file"))
        assert owner in (winpipe.user(), winpipe.ADMINISTRATORS)
        with (tmp_path / "file").open("rb") as file:
            assert _owners.owner_of(msvcrt.get_osfhandle(file.fileno())) == owner
        with pytest.raises(FileNotFoundError):
            _owners.owner(str(tmp_path / "none"))

    def test_a_file_of_another_users_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "file").write_bytes(b"content")
        assert winsock.look(str(tmp_path / "file")) == b"content"
        monkeypatch.setattr(_owners, "owner_of", lambda handle: STRANGER)
        with pytest.raises(Unreachable, match=f"belongs to {STRANGER}, not to you"):
            winsock.look(str(tmp_path / "file"))
        monkeypatch.setattr(winsock, "is_socket", lambda path: True)
        monkeypatch.setattr(_owners, "owner", lambda path: STRANGER)
        with pytest.raises(Unreachable, match="not to you"):
            winsock.look(str(tmp_path / "file"))


def test_what_lies_there_is_looked_at(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x" * 999)
    assert winsock.look(str(tmp_path / "file")) == b"x" * 128
    assert winsock.look(str(tmp_path)) == b""
    for path, what in ((str(tmp_path / "gone"), "there is no"), ("a\0b", "cannot be read")):
        with pytest.raises(Unreachable, match=what) as caught:
            winsock.look(path)
        assert caught.value.hint
        assert not winsock.is_socket(path)


def test_a_socket_is_known_by_its_tag_and_not_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if sys.platform == "win32":
        monkeypatch.setattr("pageantry.endpoints._owners.owner", lambda path: winpipe.user())
    monkeypatch.setattr(os, "lstat", lambda path: SimpleNamespace(st_reparse_tag=0x80000023, st_mode=0))
    assert winsock.is_socket("agent")
    assert winsock.look("agent") is None
