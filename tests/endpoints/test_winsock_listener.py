"""Agents served on Windows' sockets that are files. Elsewhere UNIX' own stand in for them, by the same calls."""

from __future__ import annotations

import errno
import os
import shutil
import socket
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest

from pageantry import sessions, winpipe
from pageantry.client import Client
from pageantry.endpoints import accepting, winsock, winsock_listener
from pageantry.errors import Error
from pageantry.keyring import Keyring
from pageantry.server import Server

from ..hosts import ed25519_key

MYSELF, STRANGER = "S-1-5-21-1-2-3-1001", "S-1-5-21-1-2-3-1002"


@pytest.fixture
def directory() -> Iterator[Path]:
    """Short enough for a socket's path."""
    made = Path(tempfile.mkdtemp(prefix="pgt", dir=None if os.name == "nt" else "/tmp")).resolve()
    yield made
    shutil.rmtree(made)


def refused(path: Path | str, ws2: Any = None) -> Error:
    with pytest.raises(Error) as caught:
        winsock_listener.listen(str(path), ws2).close()
    assert caught.value.hint
    assert "\n" not in str(caught.value) + caught.value.hint
    return caught.value


def test_a_path_longer_than_a_sockets_can_be_is_said(directory: Path) -> None:
    assert "bytes long; a socket's path can have 107" in str(refused(directory / (108 * "x")))
    assert "bytes long; a socket's path can have 107" in str(refused(directory / (50 * "é")))
    assert os.listdir(directory) == []


def test_a_windows_without_such_sockets_says_so(directory: Path, monkeypatch: pytest.MonkeyPatch, wine: bool) -> None:
    if not wine:

        def none(*_: object) -> None:
            raise OSError(errno.EAFNOSUPPORT, "no such family")

        monkeypatch.setattr(socket, "socket", none)
    error = refused(directory / "agent")
    assert "none of that kind (AF_UNIX)" in str(error)
    assert "1803" in error.hint
    assert os.listdir(directory) == []


def test_what_is_no_socket_is_left_as_it_is(directory: Path) -> None:
    (directory / "file").write_bytes(b"50123\n" + bytes(16))
    (directory / "folder").mkdir()
    for name in ("file", "folder"):
        assert "is no socket and is left as it is" in str(refused(directory / name))
    assert (directory / "file").read_bytes() == b"50123\n" + bytes(16)


def test_a_place_that_is_none_is_said(directory: Path) -> None:
    assert "none" in str(refused(directory / "none" / "agent"))
    assert "cannot be the path of a socket" in str(refused(""))


if sys.platform != "win32":
    from .libc_sockets import Libc

    linux = pytest.mark.skipif(sys.platform != "linux", reason="other systems lay an address out differently")
    #: Python's own means, and ws2_32's.
    means = pytest.mark.parametrize("make", [lambda: None, pytest.param(Libc, marks=linux)], ids=["Python's", "ws2_32"])
else:
    means = pytest.mark.parametrize("make", [lambda: None], ids=["ws2_32"])

    @pytest.fixture(autouse=True)
    def needs_sockets(request: pytest.FixtureRequest, wine: bool) -> None:
        if wine and "make" in request.fixturenames:
            pytest.skip("Wine has no such sockets")


Make = Callable[[], Any]


@means
def test_our_own_client_lists_adds_and_signs(directory: Path, make: Make) -> None:
    path = str(directory / "agent")
    listener = winsock_listener.listen(path, make())
    assert listener.path == path
    with closing(Server([listener], sessions.to(Keyring()))):
        with Client(lambda: winsock.connect(path, 5, make()), "winsock") as agent:
            for number in range(300):
                agent.add(ed25519_key(number), f"key {number}")
            keys = agent.identities()
            assert [one.comment for one in keys] == [f"key {number}" for number in range(300)]
            assert agent.sign(keys[-1].key, b"data" * 10_000, verify=True)
        with Client(lambda: winsock.connect(path, 5, make()), "winsock") as agent:
            assert len(agent.identities()) == 300
    assert os.listdir(directory) == []


@means
def test_connections_are_plain_ones(directory: Path, make: Make) -> None:
    with ExitStack() as stack:
        listener = stack.enter_context(closing(winsock_listener.listen(str(directory / "agent"), make())))
        client = stack.enter_context(winsock.connect(listener.path, 5, make()))
        connection = stack.enter_context(listener.accept())
        assert connection.gettimeout() is None
        assert not connection.get_inheritable()
        client.sendall(b"question")
        assert connection.recv(100) == b"question"
        connection.sendall(b"answer")
        assert client.recv(100) == b"answer"
        if sys.platform == "win32":
            assert connection.peer is not None
            assert connection.peer.pid == os.getpid()


@means
def test_the_socket_is_the_user_s_alone_before_anybody_can_connect(
    directory: Path, monkeypatch: pytest.MonkeyPatch, make: Make
) -> None:
    seen: list[bool] = []

    def door(bound: socket.socket) -> accepting.Door:
        with pytest.raises(Error, match="nobody listens"):
            winsock.connect(str(directory / "agent"), 5)
        seen.append(private(directory / "agent"))
        return real(bound)

    real = accepting.Door
    monkeypatch.setattr(winsock_listener, "Door", door)
    before = os.umask(0)
    try:
        winsock_listener.listen(str(directory / "agent"), make()).close()
    finally:
        os.umask(before)
    assert seen == [True]


def private(path: Path) -> bool:
    """Whether nobody else may use it."""
    if sys.platform == "win32":
        from pageantry import acl

        return acl.others(str(path)) == []
    return path.stat().st_mode & 0o777 == 0o600


@means
def test_the_socket_of_an_agent_that_has_ended_makes_room_and_that_of_a_live_one_does_not(
    directory: Path, make: Make
) -> None:
    path = directory / "agent"
    with closing(winsock_listener.listen(str(path), make())) as listener:
        before = os.lstat(path).st_ino
        assert f"{path} is another agent's" in str(refused(path, make()))
        assert os.lstat(path).st_ino == before
        listener._identity = None  # as if it were killed
    assert os.path.lexists(path)
    with closing(winsock_listener.listen(str(path), make())), winsock.connect(str(path), 5, make()):
        assert os.listdir(directory) == ["agent"]
    assert os.listdir(directory) == []


@means
def test_of_two_who_begin_at_once_one_does(directory: Path, monkeypatch: pytest.MonkeyPatch, make: Make) -> None:
    made: list[winsock_listener.Listener] = []
    real = winsock_listener._make_room

    def late(path: str, ws2: Any) -> None:
        real(path, ws2)
        monkeypatch.setattr(winsock_listener, "_make_room", real)
        made.append(winsock_listener.listen(path, ws2))

    monkeypatch.setattr(winsock_listener, "_make_room", late)
    assert "which was faster" in str(refused(directory / "agent", make()))
    with closing(made[0]), winsock.connect(made[0].path, 5, make()):
        assert os.listdir(directory) == ["agent"]
    assert os.listdir(directory) == []


@means
def test_what_somebody_has_put_in_its_place_meanwhile_stays(directory: Path, make: Make) -> None:
    path = directory / "agent"
    listener = winsock_listener.listen(str(path), make())
    path.unlink()
    path.write_bytes(b"another's")
    listener.close()
    assert path.read_bytes() == b"another's"


@means
def test_closing_wakes_who_accepts(directory: Path, make: Make) -> None:
    listener = winsock_listener.listen(str(directory / "agent"), make())
    caught: list[OSError] = []

    def accept() -> None:
        try:
            listener.accept()
        except OSError as error:
            caught.append(error)

    thread = threading.Thread(target=accept)
    thread.start()
    listener.close()
    thread.join(20)
    assert listener.closed
    assert [error.errno for error in caught] == [errno.EBADF]
    listener.close()


@means
def test_nothing_is_left_of_listeners_and_clients(
    directory: Path, leaves_nothing: Callable[..., None], make: Make
) -> None:
    def come_and_go() -> None:
        with closing(winsock_listener.listen(str(directory / "agent"), make())) as listener:
            with winsock.connect(listener.path, 5, make()):
                listener.accept().close()
            refused(directory / "agent", make())

    leaves_nothing(come_and_go)


if sys.platform != "win32":

    @linux
    def test_ws2_32_does_what_python_does_not(directory: Path) -> None:
        ws2 = Libc()
        listener = winsock_listener.listen(str(directory / "agent"), ws2)
        with closing(listener), winsock.connect(listener.path, 5, ws2), listener.accept():
            assert ws2.calls == ["bind", "connect", "accept"]

    @linux
    @pytest.mark.parametrize(("sid", "trusted"), [(MYSELF, True), (winpipe.SYSTEM, True), (STRANGER, False)])
    def test_the_client_s_user_must_be_ours(
        directory: Path, monkeypatch: pytest.MonkeyPatch, sid: str, trusted: bool
    ) -> None:
        monkeypatch.setattr(winpipe, "user", lambda pid=None: MYSELF if pid is None else sid)

        class Told(Libc):
            """Says of the first client that it is process 42."""

            def peer_pid(self, descriptor: int) -> int | None:
                first, self.pid = self.pid, None
                return first

        with ExitStack() as stack:
            listener = stack.enter_context(closing(winsock_listener.listen(str(directory / "agent"), Told(42))))
            client = stack.enter_context(winsock.connect(listener.path, 5, Libc()))
            stack.enter_context(winsock.connect(listener.path, 5, Libc()))
            connection = stack.enter_context(listener.accept())
            if trusted:
                assert connection.peer is not None
                assert (connection.peer.pid, connection.peer.account) == (42, sid)
            else:
                assert connection.peer is None  # it is the next one's
                client.settimeout(20)
                assert client.recv(1) == b""
