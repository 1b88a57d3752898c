"""Who has connected to a socket of ours, as far as that can be known."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

if sys.platform == "win32":
    pytest.skip("UNIX sockets", allow_module_level=True)

from pageantry.endpoints import callers, unix
from pageantry.keyring.questions import who

linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells here what a process runs")

# Connects to the socket that is named, sends on, and goes on as a program when it is told to.
CLIENT = """
import os, socket, sys
connection = socket.socket(socket.AF_UNIX)
connection.connect(sys.argv[1])
if sys.stdin.readline() == "become\\n":
    os.execv(sys.argv[2], ["sleep", "60"])
"""


@pytest.fixture
def directory() -> Iterator[Path]:
    made = Path(tempfile.mkdtemp(prefix="pgt", dir="/tmp"))
    yield made
    shutil.rmtree(made)


@pytest.fixture
def server(directory: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(directory / "agent"))
        listening.listen()
        listening.settimeout(20)
        yield listening


@pytest.fixture
def started() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    processes: list[subprocess.Popen[str]] = []

    def start(*command: str | Path) -> subprocess.Popen[str]:
        processes.append(subprocess.Popen(list(map(str, command)), stdin=subprocess.PIPE, text=True))
        return processes[-1]

    yield start
    for process in processes:
        process.kill()
        process.communicate()


def accepted(server: socket.socket) -> Any:
    with server.accept()[0] as connection:
        found = callers.caller(connection)
    assert found
    return found


def running(process: subprocess.Popen[str]) -> str:
    return os.path.basename(os.readlink(f"/proc/{process.pid}/exe"))


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@linux
def test_a_process_and_what_it_runs_are_known(
    server: socket.socket, started: Callable[..., subprocess.Popen[str]]
) -> None:
    process = started(sys.executable, "-c", CLIENT, server.getsockname())
    found = accepted(server)
    assert (found.uid, found.pid, found.account) == (os.geteuid(), process.pid, unix.user(os.geteuid()))
    assert found.program == os.path.realpath(sys.executable)
    assert who(found) == f"{os.path.basename(found.program)} (process {process.pid})"


@linux
def test_of_a_script_it_is_the_interpreter(
    server: socket.socket, started: Callable[..., subprocess.Popen[str]], directory: Path
) -> None:
    script = directory / "script"
    script.write_text(f"#!{os.path.realpath(sys.executable)}\n{CLIENT}")
    script.chmod(0o700)
    started(script, server.getsockname())
    assert accepted(server).program == os.path.realpath(sys.executable)


@linux
def test_the_first_look_decides(server: socket.socket, started: Callable[..., subprocess.Popen[str]]) -> None:
    process = started(sys.executable, "-c", CLIENT, server.getsockname(), shutil.which("sleep"))
    found = accepted(server)
    before = found.program
    assert process.stdin
    process.stdin.write("become\n")
    process.stdin.flush()
    wait_until(lambda: "python" not in running(process))
    assert found.program == before
    assert callers.Caller(os.geteuid(), process.pid).program != before


def test_a_process_that_has_ended_is_a_number(
    server: socket.socket, started: Callable[..., subprocess.Popen[str]]
) -> None:
    process = started(sys.executable, "-c", CLIENT, server.getsockname())
    found = accepted(server)
    process.communicate("end\n", timeout=20)
    assert found.program == ""
    assert who(found) == f"process {process.pid}"


@linux
def test_a_process_that_began_later_is_another_one(started: Callable[..., subprocess.Popen[str]]) -> None:
    found = callers.Caller(os.geteuid(), 1)
    wait_until(lambda: callers._now() > found._since + 2 / os.sysconf("SC_CLK_TCK"))
    process = started("sleep", "60")
    wait_until(lambda: "python" not in running(process))
    found.pid = process.pid
    assert found.program == ""
    assert callers.Caller(os.geteuid(), process.pid).program


@linux
def test_a_program_that_was_replaced_while_it_runs_has_its_name(
    directory: Path, started: Callable[..., subprocess.Popen[str]]
) -> None:
    program = directory / "ssh"
    shutil.copy(shutil.which("sleep") or "", program)
    process = started(program, "60")
    wait_until(lambda: running(process) == "ssh")
    program.unlink()
    assert callers.Caller(os.geteuid(), process.pid).program == str(program)


@linux
def test_a_name_cannot_pretend_to_be_more_than_one(
    directory: Path, started: Callable[..., subprocess.Popen[str]]
) -> None:
    program = directory / "ssh\n\x1b[2K\u202e"
    shutil.copy(shutil.which("sleep") or "", program)
    process = started(program, "60")
    wait_until(lambda: running(process) == program.name)
    found = callers.Caller(os.geteuid(), process.pid)
    assert who(found) == f"ssh\\n\\x1b[2K\\u202e (process {process.pid})"
    assert found.program == str(program)


def test_a_process_that_is_not_told() -> None:
    found = callers.Caller(0, None)
    assert (found.program, who(found)) == ("", "a process that is not known")
