from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pageantry.errors import Unreachable

if sys.platform == "win32":
    pytest.skip("UNIX sockets", allow_module_level=True)

from pageantry import wsl
from pageantry.endpoints import parse, unix
from pageantry.endpoints.sockets import Connection

NOBODY = 65534
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files to another user")


@pytest.fixture
def directory() -> Iterator[Path]:
    """Short enough for a socket's path."""
    made = Path(tempfile.mkdtemp(prefix="pgt", dir="/tmp"))
    yield made
    shutil.rmtree(made)


@pytest.fixture
def listener(directory: Path) -> Iterator[Path]:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(directory / "agent"))
        server.listen()
        yield directory / "agent"


def connect(path: Path | str, timeout: float = 1) -> Connection:
    connection = parse(f"unix:{path}").connect(timeout)
    assert isinstance(connection, Connection)
    return connection


def refused(path: Path | str) -> Unreachable:
    with pytest.raises(Unreachable) as caught:
        connect(path, 0.3)
    assert caught.value.hint
    assert "\n" not in str(caught.value)
    return caught.value


def test_a_socket_is_connected_to_and_its_owner_known(listener: Path) -> None:
    with connect(listener) as connection:
        peer = connection.peer
        assert isinstance(peer, unix.Peer)
        assert (peer.uid, peer.pid) == (os.geteuid(), os.getpid())
        assert (peer.account, peer.program) == (unix.user(os.geteuid()), "")


def test_a_symbolic_link_leads_to_the_socket(listener: Path) -> None:
    link = listener.parent / "link"
    link.symlink_to(listener)
    connect(link).close()


def test_nothing_there(directory: Path) -> None:
    assert "there is no" in str(refused(directory / "missing"))


def test_a_dead_socket(listener: Path, directory: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(directory / "dead"))
    assert "nobody listens" in str(refused(directory / "dead"))


def test_a_directory(directory: Path) -> None:
    assert "is a directory" in str(refused(directory))


def test_a_device() -> None:
    assert "device" in str(refused("/dev/null"))


def test_a_fifo_hangs_nobody(directory: Path) -> None:
    os.mkfifo(directory / "fifo")
    start = time.monotonic()
    assert "FIFO" in str(refused(directory / "fifo"))
    assert time.monotonic() - start < 2


@pytest.mark.parametrize("content", [b"", b"hello", b"%Assuan%\n", b"%Assuan%\nsocket=", b"%Assuan%\nsocket=/a\0b\n"])
def test_a_regular_file(directory: Path, content: bytes) -> None:
    (directory / "file").write_bytes(content)
    assert "not a socket" in str(refused(directory / "file"))


def test_a_path_too_long_for_a_socket(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deep = directory / ("x" * 120)
    deep.mkdir(mode=0o700)
    monkeypatch.chdir(deep)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("agent")
    assert f"{len(str(deep)) + 6} bytes long" in str(refused(deep / "agent"))


@pytest.mark.parametrize("path", ["/a\0b", "/\udcff\ud800"])
def test_a_path_that_cannot_be_one(path: str) -> None:
    with pytest.raises(Unreachable, match="cannot be a path"):
        unix.look(path)


def test_a_queue_that_is_full_ends_at_the_deadline(directory: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(directory / "busy"))
        server.listen(0)
        start = time.monotonic()
        with contextlib.ExitStack() as stack:
            for _ in range(4):
                waiting = stack.enter_context(socket.socket(socket.AF_UNIX))
                waiting.setblocking(False)
                waiting.connect_ex(str(directory / "busy"))
            assert "took no connection within 0.3 s" in str(refused(directory / "busy"))
        assert time.monotonic() - start >= 0.3


def test_a_place_in_the_queue_is_waited_for(directory: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(directory / "busy"))
        server.listen(1)

        def accept() -> None:
            for _ in range(20):
                time.sleep(0.01)
                server.accept()[0].close()

        thread = threading.Thread(target=accept)
        thread.start()
        for _ in range(20):
            connect(directory / "busy", 5).close()
        thread.join()


def test_a_file_of_gnupgs_is_followed(listener: Path, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLACE", str(directory))
    for number, target in enumerate((str(listener), "${PLACE}/agent")):
        redirect = directory / f"redirect{number}"
        redirect.write_text(f"%Assuan%\nsocket={target}\n")
        connect(redirect).close()


def test_a_file_of_gnupgs_is_followed_once(listener: Path, directory: Path) -> None:
    (directory / "one").write_text(f"%Assuan%\nsocket={listener}\n")
    (directory / "two").write_text(f"%Assuan%\nsocket={directory}/one\n")
    assert "points to" in str(refused(directory / "two"))


def test_a_file_of_gnupgs_may_lie_deeper_than_a_socket_could(listener: Path, directory: Path) -> None:
    deep = directory / ("x" * 120)
    deep.mkdir(mode=0o700)
    (deep / "redirect").write_text(f"%Assuan%\nsocket={listener}\n")
    connect(deep / "redirect").close()


def test_a_file_of_gnupgs_may_not_be_longer_than_gnupg_reads(listener: Path, directory: Path) -> None:
    (directory / "long").write_bytes(f"%Assuan%\nsocket={listener}\n".encode().ljust(512, b"\n"))
    assert "not a socket" in str(refused(directory / "long"))


def test_a_directory_that_everybody_may_change_is_not_trusted(listener: Path, directory: Path) -> None:
    directory.chmod(0o777)
    assert "chmod go-w" in refused(listener).hint
    with tempfile.TemporaryDirectory(prefix="pgt", dir="/tmp") as elsewhere, socket.socket(socket.AF_UNIX) as server:
        server.bind(f"{elsewhere}/agent")
        server.listen()
        (directory / "link").symlink_to(f"{elsewhere}/agent")
        assert "chmod go-w" in refused(directory / "link").hint
        (directory / "redirect").write_text(f"%Assuan%\nsocket={elsewhere}/agent\n")
        assert "chmod go-w" in refused(directory / "redirect").hint
    directory.chmod(0o1777)  # as /tmp is
    connect(listener).close()


@needs_root
def test_a_directory_that_another_group_may_change_is_not_trusted(listener: Path, directory: Path) -> None:
    for group, mode, trusted in (1, 0o775, False), (1, 0o1775, True), (1, 0o755, True), (os.getgid(), 0o775, True):
        os.chown(directory, -1, group)
        directory.chmod(mode)
        if trusted:
            connect(listener).close()
        else:
            assert "chmod go-w" in refused(listener).hint


@pytest.fixture
def foreign(directory: Path) -> Iterator[Path]:
    """A socket of ours in a directory of ours, below one of another user's."""
    path = directory / "theirs" / "ours" / "agent"
    path.parent.mkdir(parents=True)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()
        os.chown(directory / "theirs", 1, 1)
        yield path


@needs_root
@pytest.mark.parametrize("mode", [0o755, 0o1777])
def test_below_another_user_s_directory_nothing_is_trusted(foreign: Path, directory: Path, mode: int) -> None:
    (directory / "theirs").chmod(mode)
    assert f"belongs to {unix.user(1)}" in str(refused(foreign))
    (directory / "link").symlink_to(directory / "theirs" / "ours")
    assert f"belongs to {unix.user(1)}" in str(refused(directory / "link" / "agent"))


@needs_root
@pytest.mark.parametrize(("mode", "trusted"), [(0o755, True), (0o1777, True), (0o777, False)])
def test_where_users_cannot_be_told_apart_their_directories_are_taken_for_root_s(
    foreign: Path, directory: Path, mode: int, trusted: bool
) -> None:
    if not shutil.which("unshare") or subprocess.run(["unshare", "-Ur", "true"], capture_output=True).returncode:
        pytest.skip("there can be no new user namespace here")
    (directory / "theirs").chmod(mode)
    code = "import sys; from pageantry.endpoints import unix; unix.look(sys.argv[1])"
    command = ["unshare", "-Ur", sys.executable, "-c", code, str(foreign)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.returncode == 0) == trusted, done.stderr
    assert trusted or "where others may replace it" in done.stderr


def test_the_modes_of_windows_drives_mean_nothing(
    listener: Path, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory.chmod(0o777)
    monkeypatch.setattr(wsl, "version", lambda: 1)
    assert "chmod go-w" in refused(listener).hint
    monkeypatch.setattr(wsl, "is_windows_drive", lambda path: path == str(directory))
    connect(listener).close()


def test_a_socket_of_windows_is_none_in_wsl_2(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(directory / "dead"))
    monkeypatch.setattr(wsl, "version", lambda: 2)
    assert "nobody listens" in str(refused(directory / "dead"))
    monkeypatch.setattr(wsl, "is_windows_drive", lambda path: True)
    error = refused(directory / "dead")
    assert "whose sockets WSL 2 does not share" in str(error)
    assert "stdio:pageantry.exe relay" in error.hint


@needs_root
def test_a_socket_of_another_users_is_left_alone(listener: Path) -> None:
    os.chown(listener, NOBODY, NOBODY)
    assert "belongs to nobody" in str(refused(listener))


@needs_root
def test_a_process_of_another_user_behind_our_own_socket_is_sent_nothing(directory: Path) -> None:
    directory.chmod(0o755)
    path = directory / "squatted"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        path.chmod(0o666)
        os.seteuid(NOBODY)
        try:
            server.listen()  # whoever does this is the peer
        finally:
            os.seteuid(0)
        assert "runs as nobody" in str(refused(path))
        server.settimeout(1)
        with server.accept()[0] as connection:
            assert connection.recv(1) == b""


@needs_root
def test_a_socket_that_may_not_be_reached_is_said(directory: Path) -> None:
    hidden = directory / "hidden"
    hidden.mkdir(0o700)
    os.seteuid(NOBODY)
    try:
        assert "may not" in str(refused(hidden / "agent"))
    finally:
        os.seteuid(0)
