"""What is said of sockets on Windows, which are files: so these tests run everywhere."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from pageantry.endpoints.sockets_on_windows import _kind, unreachable


def test_a_path_of_git_bash_is_known_by_its_slash() -> None:
    error = unreachable("/tmp/ssh-XXXXabcd/agent.123")
    assert "Git Bash, Cygwin, MSYS2 or WSL" in str(error)
    assert "pageant" in error.hint


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"!<socket >50123 s 01234567-89ABCDEF-01234567-89ABCDEF\0", "Cygwin"),
        (b"50123\n" + bytes(16), "GnuPG"),
        (b"1\n" + 16 * b"\n", "GnuPG"),
        (b"50123\n" + bytes(17), "no address"),
        (b"501234\n" + bytes(16), "no address"),
        (b"\n" + bytes(16), "no address"),
        (b"", "no address"),
        (b"hello", "no address"),
    ],
)
def test_a_file_is_known_by_how_it_begins(content: bytes, kind: str) -> None:
    assert kind in _kind(content)


def test_what_is_there_is_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("cygwin").write_bytes(b"!<socket >50123 s 0-0-0-0\0")
    Path("directory").mkdir()
    assert "socket of Cygwin" in str(unreachable("cygwin"))
    assert "no address" in str(unreachable("directory"))
    assert "there is no gone" in str(unreachable("gone"))
    assert "cannot be read" in str(unreachable("a\0b"))


def test_a_socket_of_windows_own_is_known_by_its_tag(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "lstat", lambda path: SimpleNamespace(st_reparse_tag=0x80000023, st_mode=0))
    assert "socket.AF_UNIX" in str(unreachable("agent.sock"))
