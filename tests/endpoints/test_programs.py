from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from pageantry.endpoints import programs

Install = Callable[[str], str]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Puts a program on PATH, alone."""
    monkeypatch.setenv("PATH", str(tmp_path))

    def make(script: str) -> str:
        path = tmp_path / "asked"
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
        return "asked"

    return make


needs_sh = pytest.mark.skipif(os.name == "nt", reason="the programs are made of sh")


@needs_sh
def test_the_line_that_a_program_prints_is_its_answer(install: Install) -> None:
    assert programs.output(install('echo "<$1> <$2>"; echo oops >&2'), "-w", "a b$HOME") == "<-w> <a b$HOME>"
    assert programs.output(install(r"printf 'C:\\Temp\r\n'")) == "C:\\Temp"
    assert programs.output(install("/bin/cat; echo end")) == "end"  # there is nothing to read


@needs_sh
@pytest.mark.parametrize(
    "script", ["echo x; exit 1", "true", "echo", r"printf '\377\n'", r"printf 'a\nb\n'", r"printf '\033[1m\n'"]
)
def test_what_is_no_answer_is_none(install: Install, script: str) -> None:
    assert programs.output(install(script)) is None


@needs_sh
def test_a_program_that_hangs_is_ended_at_the_deadline(install: Install) -> None:
    start = time.monotonic()
    assert programs.output(install("exec /bin/sleep 60"), timeout=0.2) is None
    assert time.monotonic() - start < 10


@needs_sh
def test_what_cannot_be_run_is_none(install: Install, tmp_path: Path) -> None:
    install("echo x")
    (tmp_path / "asked").write_bytes(b"\x7fELF, or not")
    assert programs.output("asked") is None


@needs_sh
def test_a_program_in_the_current_directory_is_never_meant(
    install: Install, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = install("echo x")
    monkeypatch.chdir(tmp_path)
    assert programs.find(name) == str(tmp_path / name)
    for path in ("", ".", f".{os.pathsep}", os.pathsep):
        monkeypatch.setenv("PATH", path)
        assert programs.find(name) is None
    monkeypatch.delenv("PATH")
    assert programs.output(name) is None


@pytest.mark.interop
@needs_sh
def test_gpgconf_tells_where_the_socket_is_and_starts_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not programs.find("gpgconf"):
        pytest.skip("gpgconf is not installed")
    home = tmp_path / "a:b %41"  # which it would write otherwise in other lists
    home.mkdir(0o700)
    monkeypatch.setenv("GNUPGHOME", str(home))
    socket = programs.output("gpgconf", "--list-dirs", "agent-ssh-socket")
    assert socket is not None
    assert os.path.basename(socket) == "S.gpg-agent.ssh"
    assert os.path.dirname(socket) == str(home) or socket.startswith("/run/user/")
    assert os.listdir(home) == []


if sys.platform == "win32":

    def test_a_program_of_windows_answers(monkeypatch: pytest.MonkeyPatch) -> None:
        system = os.path.join(os.environ["SYSTEMROOT"], "system32")
        monkeypatch.setenv("PATH", f'C:\\nowhere;"{system}"')
        assert programs.output("hostname")
        monkeypatch.chdir(system)
        monkeypatch.setenv("PATH", "")
        assert programs.output("hostname") is None
