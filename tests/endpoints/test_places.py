"""Where an agent of ours listens when nobody says where: OpenSSH's places, and what is removed from them."""

from __future__ import annotations

import os
import re
import shutil
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

if sys.platform == "win32":
    pytest.skip("UNIX sockets", allow_module_level=True)

from pageantry.endpoints import directories, places, unix, unix_listener
from pageantry.errors import Error

NOBODY = 65534
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files to another user")

TEXT = "[A-Za-z0-9]{10}"


@pytest.fixture
def home() -> Iterator[Path]:
    """Short enough for the path of a socket."""
    made = Path(tempfile.mkdtemp(prefix="pgt", dir="/tmp"))
    yield made
    shutil.rmtree(made)


@pytest.fixture
def environ(home: Path) -> dict[str, str]:
    """A home; other temporary directories lie beside it."""
    (home / "tmp").mkdir(mode=0o700)
    return {"HOME": str(home), "TMPDIR": str(home / "tmp")}


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def fell_back(environ: dict[str, str]) -> str:
    """Why there is no path at home, and another one was taken."""
    said: list[str] = []
    path = places.new_path(environ, said.append)
    assert re.fullmatch(rf"{re.escape(environ['TMPDIR'])}/ssh-{TEXT}/agent\.{os.getpid()}", path)
    places.remove_temporary(path)
    assert len(said) == 1
    assert path in said[0]
    return said[0]


def test_it_is_where_openssh_s_would_be(environ: dict[str, str], home: Path) -> None:
    before = os.umask(0)
    try:
        path = places.new_path(environ)
    finally:
        os.umask(before)
    assert re.fullmatch(rf"{home}/\.ssh/agent/s\.{TEXT}\.agent\.{TEXT}", path)
    assert (mode(home / ".ssh"), mode(home / ".ssh" / "agent")) == (0o700, 0o700)
    other = places.new_path(environ)
    assert other != path
    assert other.rpartition(".")[0] == path.rpartition(".")[0]
    with closing(unix_listener.listen(path)), socket.socket(socket.AF_UNIX) as client:
        client.connect(path)
    assert os.listdir(home / ".ssh" / "agent") == []


def test_the_host_s_hash_is_openssh_s(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "uname", lambda: SimpleNamespace(nodename="archlinux"))
    assert places.host_hash() == "lHgXVr00zz"  # as in a path of OpenSSH 10's on a computer of that name


def test_without_a_word_on_home_it_is_the_one_of_the_user(
    environ: dict[str, str], home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import pwd

    monkeypatch.setattr(pwd, "getpwuid", lambda uid: SimpleNamespace(pw_dir=str(home)))
    for word in ({}, {"HOME": ""}):
        assert places.new_path({**word, "TMPDIR": environ["TMPDIR"]}).startswith(f"{home}/.ssh/agent/")


@pytest.mark.parametrize("name", [".ssh", ".ssh/agent"])
def test_where_others_may_write_there_is_no_place(environ: dict[str, str], home: Path, name: str) -> None:
    (home / ".ssh" / "agent").mkdir(parents=True)
    (home / name).chmod(0o777)
    with pytest.raises(Error, match="others may write") as caught:
        places.new_path(environ)
    assert f"chmod go-w {home / name}" in caught.value.hint


def test_where_others_may_read_there_is_one(environ: dict[str, str], home: Path) -> None:
    (home / ".ssh").mkdir(mode=0o755)
    assert places.new_path(environ).startswith(f"{home}/.ssh/agent/")


@needs_root
def test_in_the_home_of_another_user_there_is_no_place(environ: dict[str, str], home: Path) -> None:
    (home / ".ssh").mkdir(mode=0o700)
    os.chown(home / ".ssh", NOBODY, NOBODY)
    with pytest.raises(Error, match="belongs to nobody"):
        places.new_path(environ)


def test_without_a_home_it_is_a_temporary_one(
    environ: dict[str, str], home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import pwd

    def unknown(_: int) -> None:
        raise KeyError

    assert "No such file" in fell_back({**environ, "HOME": str(home / "missing")})
    assert "whole path" in fell_back({**environ, "HOME": "here"})
    monkeypatch.setattr(pwd, "getpwuid", unknown)
    assert "HOME is not set" in fell_back({"TMPDIR": environ["TMPDIR"]})
    (home / "file").write_text("")
    assert "Not a directory" in fell_back({**environ, "HOME": str(home / "file")})


def test_where_nobody_may_write_it_is_a_temporary_one(
    environ: dict[str, str], home: Path, as_nobody: Callable[[], AbstractContextManager[None]]
) -> None:
    home.chmod(0o755)
    (home / "tmp").chmod(0o1777)
    with as_nobody():
        if os.geteuid() != home.stat().st_uid:
            assert "Permission denied" in fell_back(environ)
    (home / ".ssh" / "agent").mkdir(parents=True)
    if os.geteuid() == 0:
        for path in (home / ".ssh", home / ".ssh" / "agent"):
            os.chown(path, NOBODY, NOBODY)
    (home / ".ssh" / "agent").chmod(0o500)
    with as_nobody():
        assert "nothing can be written" in fell_back(environ)


def test_where_the_path_would_be_too_long_it_is_a_temporary_one(environ: dict[str, str], home: Path) -> None:
    size = len(places.new_path(environ))
    deep = home / ("x" * (unix.MAX_PATH - size - 1))
    deep.mkdir()
    assert len(places.new_path({**environ, "HOME": str(deep)})) == unix.MAX_PATH
    deeper = Path(f"{deep}x")
    deeper.mkdir()
    assert "too long" in fell_back({**environ, "HOME": str(deeper)})
    assert os.listdir(deeper) == []


def test_a_temporary_place_is_made_for_its_user_alone_and_removed(environ: dict[str, str], home: Path) -> None:
    before = os.umask(0)
    try:
        path = Path(places.temporary_path(environ))
    finally:
        os.umask(before)
    assert (path.parent.parent, path.name, mode(path.parent)) == (home / "tmp", f"agent.{os.getpid()}", 0o700)
    with closing(unix_listener.listen(str(path))):
        places.remove_temporary(str(path))
        assert path.exists()
    places.remove_temporary(str(path))
    assert os.listdir(home / "tmp") == []


def test_where_tmpdir_will_not_do_it_is_tmp(environ: dict[str, str], home: Path) -> None:
    deep = home / ("x" * 80)
    deep.mkdir()
    for tmpdir in ("", "here", str(home / "missing"), str(deep)):
        path = Path(places.temporary_path({"TMPDIR": tmpdir}))
        assert path.parent.parent == Path("/tmp")
        places.remove_temporary(str(path))
        assert not path.parent.exists()
    assert os.listdir(deep) == []


def test_where_there_is_no_temporary_place_that_is_said(
    environ: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: str, mode: int) -> None:
        raise OSError(28, "No space left on device", path)

    monkeypatch.setattr(os, "mkdir", full)
    with pytest.raises(Error, match="no place for a socket: /tmp: No space left") as caught:
        places.temporary_path(environ)
    assert caught.value.hint


@pytest.mark.parametrize("name", [".ssh/agent/s.abcdefghij.agent.abcdefghij", "ssh-agent/agent.1", "ssh-abcdefghij/x"])
def test_a_directory_that_is_not_temporary_stays(home: Path, name: str) -> None:
    (home / name).parent.mkdir(parents=True)
    places.remove_temporary(str(home / name))
    assert (home / name).parent.exists()


class Sockets:
    """Sockets in ~/.ssh/agent, two hours old."""

    def __init__(self, home: Path) -> None:
        self.directory = home / ".ssh" / "agent"
        self.directory.mkdir(parents=True)
        self.served: list[socket.socket] = []

    def add(self, name: str, *, hours: float = 2, live: bool = False) -> str:
        path = self.directory / name
        served = socket.socket(socket.AF_UNIX)
        served.bind(str(path))
        if live:
            served.listen()
            self.served.append(served)
        else:
            served.close()
        return self.aged(path, hours)

    def aged(self, path: Path, hours: float = 2) -> str:
        then = time.time() - hours * 3600
        os.utime(path, (then, then), follow_symlinks=False)
        return str(path)


@pytest.fixture
def sockets(home: Path) -> Iterator[Sockets]:
    made = Sockets(home)
    yield made
    for served in made.served:
        served.close()


@pytest.fixture
def ours() -> str:
    return f"s.{places.host_hash()}.agent."


def test_only_what_an_agent_here_has_left_is_removed(
    environ: dict[str, str], sockets: Sockets, ours: str, home: Path
) -> None:
    left = {sockets.add(f"{ours}abcdefghi0"), sockets.add(f"s.{places.host_hash()}.sshd.abcdefghi1")}
    stays = {
        sockets.add(f"{ours}live012345", live=True),
        sockets.add(f"{ours}young01234", hours=0.9),
        sockets.add("s.abcdefghij.agent.elsewhere0"),
        sockets.add(f"{ours}short"),
        sockets.add(f"s.{places.host_hash()}.abcdefghi0"),
        sockets.add("agent"),
    }
    for name in ("file012345", "link012345", "fifo012345", "directory0"):
        path = sockets.directory / f"{ours}{name}"
        if name.startswith("file"):
            path.write_text("precious")
        elif name.startswith("link"):
            path.symlink_to(sockets.add("target"))
        elif name.startswith("fifo"):
            os.mkfifo(path)
        else:
            path.mkdir()
        stays.add(sockets.aged(path))
    stays.add(str(sockets.directory / "target"))
    assert set(places.remove_stale(environ)) == left
    assert {str(path) for path in sockets.directory.iterdir()} == stays
    assert places.remove_stale(environ, any_host=True) == [str(sockets.directory / "s.abcdefghij.agent.elsewhere0")]
    assert places.remove_stale(environ, any_host=True) == []


@needs_root
def test_what_another_user_has_left_stays(environ: dict[str, str], sockets: Sockets, ours: str) -> None:
    os.chown(sockets.add(f"{ours}abcdefghij"), NOBODY, NOBODY)
    assert places.remove_stale(environ) == []
    assert len(os.listdir(sockets.directory)) == 1


@pytest.mark.skipif(not shutil.which("ssh-agent"), reason="ssh-agent is not installed")
@pytest.mark.interop
def test_openssh_s_agent_stays_while_it_runs(environ: dict[str, str], sockets: Sockets, ours: str) -> None:
    path = sockets.directory / f"{ours}abcdefghij"
    with subprocess.Popen(["ssh-agent", "-D", "-a", str(path)], stdout=subprocess.PIPE) as agent:
        assert agent.stdout
        assert agent.stdout.readline()
        sockets.aged(path)
        assert places.remove_stale(environ) == []
        agent.kill()
    assert places.remove_stale(environ) == [str(path)]


def test_where_there_is_nothing_nothing_is_removed(environ: dict[str, str], home: Path) -> None:
    assert places.remove_stale(environ) == []
    assert places.remove_stale({"HOME": "here"}) == []
    assert not (home / ".ssh").exists()


def test_nobody_looks_through_the_sockets_while_one_is_made(
    environ: dict[str, str], sockets: Sockets, ours: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(directories, "_TURN", 0.1)
    sockets.directory.chmod(0o700)
    sockets.add(f"{ours}abcdefghij")
    held = directories.lock(str(sockets.directory))
    try:
        with pytest.raises(Error, match="locked"):
            places.remove_stale(environ)
    finally:
        os.close(held)
    assert len(places.remove_stale(environ)) == 1


@given(
    st.one_of(
        st.text(), st.from_regex(rf"s\.{TEXT}(\..*)*\.{TEXT}"), st.from_regex(rf"\As\.[a-z]{{9,11}}\.a\.{TEXT}\Z")
    )
)
def test_names_are_told_apart(name: str) -> None:
    expected = re.fullmatch(rf"s\.{TEXT}\..+\.{TEXT}", name, re.DOTALL)
    assert places._is_ours(name, any_host=True) == bool(expected)
    assert not places._is_ours(name, any_host=False) or name.startswith(f"s.{places.host_hash()}.")
