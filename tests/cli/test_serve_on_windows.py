"""The command `serve` on Windows: at a named pipe."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

if sys.platform != "win32":
    pytest.skip("test_serve.py has UNIX", allow_module_level=True)

from pageantry import winpipe

from .serving import PASSPHRASE, PROGRAM, call, failed, lists, openssh, wait_for

ENVIRON = dict(os.environ)


@pytest.fixture
def name() -> str:
    return f"pageantry-test-{os.getpid()}-{os.urandom(4).hex()}"


@contextlib.contextmanager
def serving(name: str, *words: str | Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """An agent at that pipe, and what it says first."""
    with subprocess.Popen(
        [*PROGRAM, "serve", "--listen", f"pipe:{name}", *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        text=True,
        creationflags=subprocess.CREATE_NEW_PROCESS_GROUP,
    ) as process:
        assert process.stdout
        try:
            yield process, process.stdout.readline()
        finally:
            process.kill()


def test_it_serves_a_pipe_and_says_so_in_powershell_s_words(name: str, tmp_path: Path) -> None:
    key = openssh(tmp_path / "key", 1)
    with serving(name, tmp_path / "key") as (process, said):
        assert said == f"$env:SSH_AUTH_SOCK = '\\\\.\\pipe\\{name}'\n"
        done = call(ENVIRON, "keys", "--agent", f"pipe:{name}", "--json")
        assert [one["fingerprint"] for one in json.loads(done.stdout)] == [key.fingerprint()]
        done = call(ENVIRON, "keys", "--agent", f"pipe:{name}", "--limits")
        assert key.fingerprint() in done.stdout
        process.terminate()
    wait_for(lambda: not winpipe.exists(name), "the pipe is left")


def test_a_name_with_quotes_stays_one_in_powershell_s_words(name: str) -> None:
    with serving(f"O'Brien\u2019s-{name}") as (_, said):
        assert said == f"$env:SSH_AUTH_SOCK = '\\\\.\\pipe\\O''Brien\u2019\u2019s-{name}'\n"


def test_openssh_is_led_to_a_pipe_wherever_else_it_listens(name: str, tmp_path: Path) -> None:
    words = "--openssh-config", tmp_path / "config", "--listen", f"pipe:{name}"
    command = [*PROGRAM, "serve", "--listen", f"assuan:{tmp_path / 'agent'}", *map(str, words)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout
        try:
            assert process.stdout.readline() == f"$env:SSH_AUTH_SOCK = '\\\\.\\pipe\\{name}'\n"
        finally:
            process.kill()
    assert (tmp_path / "config").read_text() == f'IdentityAgent "//./pipe/{name}"\n'


def test_openssh_is_not_led_to_a_window(tmp_path: Path) -> None:
    command = [*PROGRAM, "serve", "--listen", "pageant-window", "--openssh-config", str(tmp_path / "config")]
    with open(tmp_path / "errors", "wb") as errors:  # no pipe, as Wine's desktop may begin with this, and have it open
        done = subprocess.run(command, stdin=subprocess.DEVNULL, stderr=errors, timeout=60, check=False)
    assert done.returncode == 1
    assert "OpenSSH has no way through Pageant's window" in (tmp_path / "errors").read_text()
    assert not (tmp_path / "config").exists()


def test_ctrl_break_ends_it_cleanly(name: str, wine: bool) -> None:
    if wine:
        pytest.skip("Wine has no console there that Ctrl-Break could come from")
    with serving(name) as (process, _):
        assert lists(f"pipe:{name}") == []
        process.send_signal(signal.CTRL_BREAK_EVENT)
        assert process.stderr
        assert process.stderr.read().endswith("ended; all keys are forgotten\n")
        assert process.wait(30) == 0
    assert not winpipe.exists(name)


def test_a_command_has_an_agent_as_long_as_it_runs(name: str, tmp_path: Path) -> None:
    openssh(tmp_path / "key", 1)
    command = [*PROGRAM, "keys", "--json"]
    done = call(ENVIRON, "serve", "--listen", f"pipe:{name}", tmp_path / "key", "--", *command)
    assert [one["agent"] for one in json.loads(done.stdout)] == [f"pipe:{name}"]
    assert done.returncode == 0
    done = call(ENVIRON, "serve", "--listen", f"pipe:{name}", "--", sys.executable, "-c", "raise SystemExit(7)")
    assert (done.returncode, done.stdout, done.stderr) == (7, "", "")
    wait_for(lambda: not winpipe.exists(name), "the pipe is left")


READS = """
import ctypes, os
OpenProcess = ctypes.WinDLL("kernel32").OpenProcess
OpenProcess.restype = ctypes.c_void_p
print(bool(OpenProcess(0x10, False, os.getppid())))  # PROCESS_VM_READ
"""


def test_a_command_s_agent_is_closed_to_others_when_asked_for(name: str) -> None:
    words = "--listen", f"pipe:{name}", "--", sys.executable, "-c", READS
    assert call(ENVIRON, "serve", *words).stdout == "True\n", "or else this shows nothing"
    done = call(ENVIRON, "serve", "--restrict-acl", *words)
    assert (done.returncode, done.stdout, done.stderr) == (0, "False\n", "")


def test_two_do_not_serve_one_pipe(name: str, wine: bool) -> None:
    if wine:
        pytest.skip("Wine lets anybody create a pipe's first instance a second time")
    with serving(name):
        assert failed(call(ENVIRON, "serve", "--listen", f"pipe:{name}")) == f"pipe:{name} is another program's"


@pytest.mark.parametrize("address", ["launchd:x", "stdio:x", "agent", "keys:x"])
def test_other_places_are_refused_in_words(address: str) -> None:
    done = call(ENVIRON, "serve", "--listen", address)
    assert address in failed(done) or repr(address) in failed(done)
    assert done.stderr.splitlines()[1].startswith("  use pageant, openssh, pipe:NAME, ")


def test_a_command_s_agent_is_where_nobody_else_looks() -> None:
    command = [sys.executable, "-c", "import os; print(os.environ['SSH_AUTH_SOCK'])"]
    done = call(ENVIRON, "serve", "--", *command)
    assert done.stdout.startswith("\\\\.\\pipe\\pageantry-")


def test_a_passphrase_that_could_not_be_asked_for_later_is_asked_for_first(name: str, tmp_path: Path) -> None:
    openssh(tmp_path / "sealed", 1, PASSPHRASE)
    done = call(ENVIRON, "serve", "--listen", f"pipe:{name}", tmp_path / "sealed", SSH_ASKPASS_REQUIRE="never")
    assert "Passphrase for" in failed(done)
    assert not winpipe.exists(name)
