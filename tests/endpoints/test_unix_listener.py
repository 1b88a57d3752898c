"""A socket at a path that somebody named: where it may lie, who gets it, and what is left of it."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

if sys.platform == "win32":
    pytest.skip("UNIX sockets", allow_module_level=True)

from pageantry import hardening
from pageantry.endpoints import callers, directories, unix, unix_listener
from pageantry.errors import Error
from pageantry.keyring.questions import who

NOBODY = 65534
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files to another user")


@pytest.fixture
def directory() -> Iterator[Path]:
    """Short enough for a socket's path."""
    made = Path(tempfile.mkdtemp(prefix="pgt", dir="/tmp"))
    yield made
    shutil.rmtree(made)


@pytest.fixture
def openly() -> Iterator[None]:
    """A umask that takes nothing away."""
    before = os.umask(0)
    yield
    assert os.umask(before) == 0, "somebody has left another one"


def refused(path: Path | str) -> Error:
    with pytest.raises(Error) as caught:
        unix_listener.listen(str(path)).close()
    assert caught.value.hint
    assert "\n" not in str(caught.value) + caught.value.hint
    return caught.value


def left_alone(path: Path) -> str:
    """Why nobody can listen where something is, which must still be there afterwards."""
    before = os.lstat(path)
    error = refused(path)
    assert os.lstat(path).st_ino == before.st_ino
    return str(error)


def stale(path: Path) -> Path:
    with socket.socket(socket.AF_UNIX) as ended:
        ended.bind(str(path))
        ended.listen()
    return path


def connected(path: Path) -> socket.socket:
    client = socket.socket(socket.AF_UNIX)
    client.settimeout(20)
    client.connect(str(path))
    return client


# Linux has a way of its own, and must be able to go by that of the others.
@pytest.mark.parametrize("platform", [sys.platform, "freebsd"])
def test_the_socket_is_never_open_to_others(
    directory: Path, openly: None, monkeypatch: pytest.MonkeyPatch, platform: str
) -> None:
    modes: list[int] = []

    class Watched(socket.socket):
        def bind(self, address: Any) -> None:
            super().bind(address)
            modes.append(stat.S_IMODE(os.stat(str(address)).st_mode))

    monkeypatch.setattr(unix_listener, "sys", SimpleNamespace(platform=platform))
    monkeypatch.setattr(socket, "socket", Watched)
    with closing(unix_listener.listen(str(directory / "agent"))):
        assert modes == [0o600]
        assert stat.S_IMODE((directory / "agent").stat().st_mode) == 0o600


def test_clients_come_in_and_are_known(directory: Path) -> None:
    with ExitStack() as stack:
        listener = stack.enter_context(closing(unix_listener.listen(str(directory / "agent"))))
        client = stack.enter_context(connected(directory / "agent"))
        connection = stack.enter_context(listener.accept())
        assert isinstance(connection.peer, callers.Caller)
        assert (connection.peer.uid, connection.peer.pid) == (os.geteuid(), os.getpid())
        assert connection.gettimeout() is None
        assert not connection.get_inheritable()
        client.sendall(b"hello")
        assert connection.recv(10) == b"hello"
    assert os.listdir(directory) == []


@pytest.mark.skipif(not shutil.which("ssh-add"), reason="ssh-add is not installed")
@pytest.mark.interop
def test_ssh_add_comes_in_and_is_known_by_name(directory: Path) -> None:
    environ = {**os.environ, "SSH_AUTH_SOCK": str(directory / "agent")}
    with ExitStack() as stack:
        listener = stack.enter_context(closing(unix_listener.listen(str(directory / "agent"))))
        program = stack.enter_context(
            subprocess.Popen(["ssh-add", "-l"], env=environ, stdout=subprocess.PIPE, text=True)
        )
        connection = stack.enter_context(listener.accept())
        connection.settimeout(20)
        name = who(connection.peer)
        requests = stack.enter_context(connection.makefile("rb"))
        while requests.read(int.from_bytes(requests.read(4), "big")) != b"\x0b":
            connection.sendall(b"\0\0\0\x01\x05")
        connection.sendall(b"\0\0\0\x05\x0c\0\0\0\0")
        assert "no identities" in program.communicate(timeout=20)[0]
    assert name == (f"ssh-add (process {program.pid})" if sys.platform == "linux" else f"process {program.pid}")


def test_a_thousand_clients_at_once_each_come_in(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    limit = Path("/proc/sys/net/core/somaxconn")
    if not limit.exists() or int(limit.read_text()) < 1000:
        pytest.skip("this system lets fewer wait")
    if hardening.many_files(2500) < 2500:
        pytest.skip("this process may not have as many files open")

    def read(*_: object) -> str:
        raise AssertionError("accepting is to cost no look into /proc")

    monkeypatch.setattr(callers, "_program", read)
    with closing(unix_listener.listen(str(directory / "agent"))) as listener, ExitStack() as stack:
        for number in range(1000):  # of whom nobody is accepted before all are there
            client = stack.enter_context(socket.socket(socket.AF_UNIX))
            client.setblocking(False)
            client.connect(str(directory / "agent"))
            client.send(number.to_bytes(2, "big"))
        came = {stack.enter_context(listener.accept()).recv(2) for _ in range(1000)}
        assert len(came) == 1000
    assert unix_listener.BACKLOG >= 1000


def test_a_client_that_has_left_again_without_a_word_is_passed_over(directory: Path) -> None:
    with closing(unix_listener.listen(str(directory / "agent"))) as listener:
        connected(directory / "agent").close()
        with connected(directory / "agent") as client:
            client.sendall(b"!")
            with listener.accept() as first:
                assert first.recv(1) == b"!"


def test_one_that_has_left_after_a_word_is_heard(directory: Path) -> None:
    with closing(unix_listener.listen(str(directory / "agent"))) as listener:
        with connected(directory / "agent") as client:
            client.sendall(b"!")
        with listener.accept() as first:
            assert first.recv(2) == b"!"


def test_closing_wakes_who_accepts(directory: Path) -> None:
    listener = unix_listener.listen(str(directory / "agent"))
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
    assert len(caught) == 1
    listener.close()
    with pytest.raises(OSError, match="was closed"):
        listener.accept()


def test_a_path_from_the_current_directory_is_removed_from_anywhere(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(directory)
    with closing(unix_listener.listen("agent")) as listener:
        assert listener.path == str(directory / "agent")
        monkeypatch.chdir("/")
    assert os.listdir(directory) == []


def test_only_the_socket_that_is_ours_is_removed(directory: Path) -> None:
    path = directory / "agent"
    listener = unix_listener.listen(str(path))
    path.unlink()
    with closing(unix_listener.listen(str(path))), connected(path):
        listener.close()
        connected(path).close()

    listener = unix_listener.listen(str(path))
    path.unlink()
    path.write_text("precious")
    listener.close()
    assert path.read_text() == "precious"


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("", "cannot be the path"),
        ("/tmp/a\0b", "cannot be the path"),
        ("/tmp/\ud800", "cannot be the path"),
        ("/tmp/pgt-missing/", "cannot be the path"),
        ("/tmp/pgt-missing/agent", "No such file"),
        ("/etc/passwd/agent", "is no directory"),
        ("/tmp/" + "ö" * 60, f"125 bytes long; a socket's path can have {unix.MAX_PATH}"),
    ],
)
def test_a_path_that_no_socket_can_have(path: str, why: str) -> None:
    assert why in str(refused(path))


def test_the_longest_path_will_do(directory: Path) -> None:
    path = str(directory / "agent").ljust(unix.MAX_PATH, "x")
    with closing(unix_listener.listen(path)), connected(Path(path)):
        pass
    assert f"{unix.MAX_PATH + 1} bytes" in str(refused(path + "x"))


@pytest.mark.parametrize("mode", [0o777, 0o707, 0o702])
def test_where_others_may_write_nobody_listens(directory: Path, mode: int) -> None:
    directory.chmod(mode)
    assert "others may write" in str(refused(directory / "agent"))
    (directory / "deeper").mkdir(mode=0o700)
    assert "chmod go-w" in refused(directory / "deeper" / "agent").hint
    directory.chmod(mode | stat.S_ISVTX)  # as /tmp is
    with closing(unix_listener.listen(str(directory / "agent"))), connected(directory / "agent"):
        pass


@needs_root
def test_a_group_of_several_may_not_write_beside_the_socket(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import grp
    import pwd

    directory.chmod(0o770)
    os.chown(directory, -1, 4711)
    assert "others may write" in str(refused(directory / "agent")), "a group that nobody knows"
    own = pwd.getpwuid(0)
    os.chown(directory, -1, own.pw_gid)
    members: list[str] = []
    monkeypatch.setattr(grp, "getgrgid", lambda gid: SimpleNamespace(gr_name=own.pw_name, gr_mem=members))
    with closing(unix_listener.listen(str(directory / "agent"))):
        pass
    members.append("somebody")
    assert "others may write" in str(refused(directory / "agent"))
    members.clear()
    monkeypatch.setattr(grp, "getgrgid", lambda gid: SimpleNamespace(gr_name="users", gr_mem=members))
    assert "chmod g-w" in refused(directory / "agent").hint.replace("go-w", "g-w")


@needs_root
def test_in_another_user_s_directory_nobody_listens(directory: Path) -> None:
    for mode in (0o755, 0o1777):
        os.chown(directory, NOBODY, NOBODY)
        directory.chmod(mode)
        assert "belongs to nobody" in str(refused(directory / "agent"))
    assert os.listdir(directory) == []


@needs_root
def test_the_directory_may_be_root_s(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory.chmod(0o1777)
    os.seteuid(NOBODY)
    try:
        with closing(unix_listener.listen(str(directory / "agent"))), connected(directory / "agent"):
            assert (directory / "agent").stat().st_uid == NOBODY
    finally:
        os.seteuid(0)


def test_where_nothing_can_be_made_nobody_listens(directory: Path, as_nobody: Callable[[], ExitStack]) -> None:
    directory.chmod(0o555)
    with as_nobody():
        assert "Permission denied" in str(refused(directory / "agent"))
    directory.chmod(0o755)


def test_what_is_no_socket_stays(directory: Path) -> None:
    (directory / "file").write_text("precious")
    (directory / "directory").mkdir()
    os.mkfifo(directory / "fifo")
    (directory / "link").symlink_to("missing")
    (directory / "dead").symlink_to(stale(directory / "socket"))
    for name in ("file", "directory", "fifo", "link", "dead"):
        assert "is no socket" in left_alone(directory / name)


@needs_root
def test_the_socket_of_another_user_stays(directory: Path) -> None:
    os.chown(stale(directory / "agent"), NOBODY, NOBODY)
    directory.chmod(0o1777)
    assert "belongs to nobody" in left_alone(directory / "agent")


def test_a_socket_of_another_kind_stays(directory: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
        other.bind(str(directory / "agent"))
        assert "cannot listen" in left_alone(directory / "agent")


def test_a_socket_where_nobody_listens_any_more_makes_room(directory: Path) -> None:
    path = stale(directory / "agent")
    with closing(unix_listener.listen(str(path))), connected(path):
        pass
    assert os.listdir(directory) == []


def test_an_agent_that_answers_stays(directory: Path) -> None:
    path = directory / "agent"
    with closing(unix_listener.listen(str(path))) as listener:
        assert f"answers at {path} already (process {os.getpid()})" in left_alone(path)
        with connected(path) as client:
            client.sendall(b"!")
            with listener.accept() as first:  # and not whoever looked, and left
                assert first.recv(1) == b"!"


def test_an_agent_whose_queue_is_full_stays(directory: Path) -> None:
    with socket.socket(socket.AF_UNIX) as busy, ExitStack() as stack:
        busy.bind(str(directory / "agent"))
        busy.listen(0)
        for _ in range(4):
            waiting = stack.enter_context(socket.socket(socket.AF_UNIX))
            waiting.setblocking(False)
            waiting.connect_ex(str(directory / "agent"))
        assert "answers" in left_alone(directory / "agent")


def test_where_a_full_queue_looks_like_nobody_it_is_tried_again(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unix_listener, "_REFUSALS", 2000)
    with socket.socket(socket.AF_UNIX) as busy:
        busy.bind(str(directory / "agent"))
        later = threading.Timer(0.1, busy.listen)
        later.start()
        assert unix_listener.listens(str(directory / "agent")) == (True, os.getpid())
        later.join()


@pytest.mark.skipif(not shutil.which("ssh-agent"), reason="ssh-agent is not installed")
@pytest.mark.interop
def test_openssh_s_agent_stays_while_it_runs_and_makes_room_when_it_was_killed(directory: Path) -> None:
    path = directory / "agent"
    command = ["ssh-agent", "-D", "-a", str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as agent:
        assert agent.stdout
        assert agent.stdout.readline()
        assert f"(process {agent.pid})" in left_alone(path)
        agent.kill()
    assert path.is_socket()
    with closing(unix_listener.listen(str(path))), connected(path):
        done = subprocess.run(command, capture_output=True, text=True, timeout=20)
        assert done.returncode != 0, "it takes nobody's place either"


@pytest.mark.skipif(not shutil.which("ssh-agent"), reason="ssh-agent is not installed")
@pytest.mark.interop
def test_of_an_agent_that_has_left_its_starter_no_process_is_told(directory: Path) -> None:
    path = directory / "agent"
    told = subprocess.run(["ssh-agent", "-a", path], capture_output=True, text=True, check=True, timeout=20).stdout
    try:
        assert left_alone(path) == f"an agent answers at {path} already"
    finally:
        os.kill(int(told.partition("SSH_AGENT_PID=")[2].partition(";")[0]), signal.SIGTERM)
        deadline = time.monotonic() + 20
        while path.exists():
            assert time.monotonic() < deadline
            time.sleep(0.01)


def begin(path: Path, together: threading.Barrier, begun: list[Any], errors: list[str]) -> None:
    together.wait(20)
    try:
        begun.append(unix_listener.listen(str(path)))
    except Error as failure:
        errors.append(str(failure))


def test_of_many_who_begin_at_once_one_does(directory: Path) -> None:
    path = directory / "agent"
    for _ in range(20):
        stale(path)
        begun: list[Any] = []
        errors: list[str] = []
        arguments = path, threading.Barrier(8), begun, errors
        threads = [threading.Thread(target=begin, args=arguments) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
        assert (len(begun), len(errors)) == (1, 7)
        assert all("answers" in error for error in errors)
        with closing(begun[0]), connected(path):
            pass
        assert not path.exists()


def test_a_directory_that_somebody_keeps_locked_is_not_waited_for_forever(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(directories, "_TURN", 0.1)
    held = directories.lock(str(directory))
    try:
        assert "keeps" in str(refused(directory / "agent"))
    finally:
        os.close(held)
    unix_listener.listen(str(directory / "agent")).close()


def test_nothing_is_left_of_it(directory: Path, leaves_nothing: Callable[..., None]) -> None:
    (directory / "file").write_text("precious")

    def use() -> None:
        with closing(unix_listener.listen(str(stale(directory / "agent")))) as listener, connected(directory / "agent"):
            with listener.accept():
                pass
            refused(directory / "agent")
        refused(directory / "file")
        refused("/tmp/" + "x" * 200)

    leaves_nothing(use)
    assert os.listdir(directory) == ["file"]


def test_when_there_are_no_more_descriptors_that_is_said(directory: Path) -> None:
    import resource  # which UNIX alone has

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with ExitStack() as stack:
        stack.callback(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))  # of which all are in use
        stack.enter_context(pytest.raises(Error, match="Too many open files"))
        unix_listener.listen(str(directory / "agent"))
    assert os.listdir(directory) == []


@needs_root
@pytest.mark.skipif(not shutil.which("ssh-add"), reason="ssh-add is not installed")
@pytest.mark.interop
def test_ssh_add_of_another_user_gets_no_answer(directory: Path) -> None:
    environ = {"SSH_AUTH_SOCK": str(directory / "agent"), "PATH": os.environ["PATH"]}
    directory.chmod(0o755)
    with closing(unix_listener.listen(str(directory / "agent"))) as listener:
        come: list[int | None] = []

        def accept() -> None:
            with listener.accept() as connection:
                come.append(connection.peer.pid if connection.peer else None)

        thread = threading.Thread(target=accept)
        thread.start()
        # its mode is enough, and where a system ignored that, who they are
        for mode in (0o600, 0o666):
            (directory / "agent").chmod(mode)
            done = subprocess.run(["ssh-add", "-l"], env=environ, user=NOBODY, capture_output=True, text=True)
            assert (done.returncode == 0, done.stdout) == (False, "")
            assert ("Permission denied" in done.stderr) == (mode == 0o600)
        with connected(directory / "agent"):
            thread.join(20)
    assert come == [os.getpid()]
