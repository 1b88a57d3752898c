"""What lies at the end of a path decides which way is gone, whatever the address began with."""

from __future__ import annotations

import os
import socket
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from pageantry.endpoints import PATHS, files, parse, programs
from pageantry.endpoints.socketfiles import SocketFile
from pageantry.errors import Unreachable

NATIVE = SocketFile(50123, bytes(16), cygwin=False).encode()
CYGWIN = SocketFile(50123, bytes(16), cygwin=True).encode()


def refused(kind: str, path: Path | str) -> Unreachable:
    with pytest.raises(Unreachable) as caught:
        files.look(kind, str(path))
    assert caught.value.hint
    assert "\n" not in str(caught.value) + caught.value.hint
    return caught.value


@pytest.mark.parametrize(
    ("content", "name", "kinds"),
    [
        (NATIVE, "agent", {"unix": "assuan", "winsock": "assuan", "assuan": "assuan", "cygwin": "assuan"}),
        (CYGWIN, "agent.1", {"unix": "cygwin", "winsock": "cygwin", "assuan": "assuan", "cygwin": "cygwin"}),
        (CYGWIN, "S.gpg-agent.ssh", {"unix": "assuan", "winsock": "assuan", "assuan": "assuan", "cygwin": "cygwin"}),
    ],
)
def test_a_file_is_what_it_contains(tmp_path: Path, content: bytes, name: str, kinds: dict[str, str]) -> None:
    (tmp_path / name).write_bytes(content)
    assert {kind: files.look(kind, str(tmp_path / name)).kind for kind in PATHS} == kinds


@pytest.mark.parametrize("kind", PATHS)
@pytest.mark.parametrize(
    ("content", "what", "hint"),
    [
        (b"", "is not a socket", "an agent's address is"),
        (b"hello", "is not a socket", "an agent's address is"),
        (b"0\n" + bytes(16), "the port 0", "an agent's address is"),
        (NATIVE + b"x", "17 bytes", "an agent's address is"),
        (CYGWIN.replace(b" s ", b" "), "old msysGit", "update Git for Windows"),
        (b"%Assuan%\nsocket=\n", "is not a socket", "an agent's address is"),
    ],
)
def test_what_is_no_socket_is_refused_unconnected(
    tmp_path: Path, kind: str, content: bytes, what: str, hint: str
) -> None:
    (tmp_path / "file").write_bytes(content)
    error = refused(kind, tmp_path / "file")
    assert what in str(error)
    assert hint in error.hint


@pytest.mark.parametrize("kind", PATHS)
def test_a_redirect_is_followed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    monkeypatch.setenv("PLACE", str(tmp_path))
    (tmp_path / "S.agent").write_bytes(NATIVE)
    (tmp_path / "once").write_bytes(b"%Assuan%\nsocket=${PLACE}/S.agent\n")
    (tmp_path / "twice").write_bytes(b"%Assuan%\nsocket=${PLACE}/once\n")
    place = files.look(kind, str(tmp_path / "once"))
    assert (place.kind, os.path.basename(place.path)) == ("assuan", "S.agent")
    assert "twice points to " in str(refused(kind, tmp_path / "twice"))
    (tmp_path / "S.agent").unlink()
    assert "there is no" in str(refused(kind, tmp_path / "once"))


@pytest.mark.skipif(os.name != "nt", reason="elsewhere any bytes are a path")
def test_a_redirect_to_no_text_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"%Assuan%\nsocket=C:\\\xff\xfe\n")
    assert "points to what can be no path" in str(refused("unix", tmp_path / "file"))


def test_directories_are_none(tmp_path: Path) -> None:
    assert "directory" in str(refused("unix", tmp_path)) or "not a socket" in str(refused("unix", tmp_path))


def test_nothing_there(tmp_path: Path) -> None:
    for kind in PATHS:
        assert "there is no" in str(refused(kind, tmp_path / "gone"))


if sys.platform == "win32":
    Cygpath = Callable[[str | None], list[tuple[str, ...]]]

    @pytest.fixture
    def cygpath(monkeypatch: pytest.MonkeyPatch) -> Cygpath:
        """Answers what it is told to; what it was asked."""

        def make(answer: str | None) -> list[tuple[str, ...]]:
            asked: list[tuple[str, ...]] = []

            def output(*arguments: str) -> str | None:
                asked.append(arguments)
                return answer

            monkeypatch.setattr(programs, "output", output)
            return asked

        return make

    def test_cygpath_tells_where_a_path_of_git_bash_is(tmp_path: Path, cygpath: Cygpath) -> None:
        (tmp_path / "agent.1").write_bytes(CYGWIN)
        asked = cygpath(str(tmp_path / "agent.1"))
        assert files.look("unix", "/tmp/ssh-x/agent.1").path == str(tmp_path / "agent.1")
        assert asked == [("cygpath", "-w", "/tmp/ssh-x/agent.1")]
        asked.clear()
        files.look("unix", str(tmp_path / "agent.1"))
        assert asked == []

    def test_without_cygpath_git_bash_has_its_temporary_files_with_windows(
        tmp_path: Path, cygpath: Cygpath, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        cygpath(None)
        monkeypatch.setenv("TEMP", str(tmp_path))
        (tmp_path / "ssh-x").mkdir()
        (tmp_path / "ssh-x" / "agent.1").write_bytes(CYGWIN)
        assert files.look("unix", "/tmp/ssh-x/agent.1").path == str(tmp_path / "ssh-x" / "agent.1")
        for path in ("/tmp/ssh-x/agent.2", "/home/me/.ssh/agent/s.x"):
            error = refused("unix", path)
            assert "no cygpath" in str(error)
            assert "cygpath" in error.hint

    def test_a_computer_of_the_network_is_none_of_cygwins_paths(cygpath: Cygpath) -> None:
        asked = cygpath("C:\\agent")
        assert files.native("//server/share/agent") == "//server/share/agent"
        assert asked == []

else:

    def test_a_path_is_what_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(programs, "output", lambda *_: 1 / 0)
        assert files.native("/tmp/ssh-x/agent.1") == "/tmp/ssh-x/agent.1"

    def test_a_file_of_another_users_is_not_read(tmp_path: Path) -> None:
        if os.geteuid() != 0:
            pytest.skip("only root can give files to another user")
        (tmp_path / "agent").write_bytes(NATIVE)
        os.chown(tmp_path / "agent", 65534, 65534)
        assert "belongs to nobody, not to you" in str(refused("assuan", tmp_path / "agent"))

    def test_every_kind_of_path_takes_a_socket() -> None:
        with (
            tempfile.TemporaryDirectory(prefix="pgt", dir="/tmp") as directory,
            socket.socket(socket.AF_UNIX) as server,
        ):
            server.bind(f"{directory}/agent")
            server.listen()
            for kind in PATHS:
                assert files.look(kind, f"{directory}/agent").kind == "unix"
                parse(f"{kind}:{directory}/agent").connect(5).close()
