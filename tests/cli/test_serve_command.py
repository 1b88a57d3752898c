"""The command `serve -- COMMAND`: an agent for another program, as long as that runs."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

if sys.platform == "win32":
    pytest.skip("sockets and signals of UNIX; test_serve_on_windows.py has pipes", allow_module_level=True)

from . import terminals
from .serving import PASSPHRASE, PROGRAM, Environ, call, failed, lists, openssh, serving, wait_for

_LOOK = 'printf "%s\\n%s\\n" "$SSH_AUTH_SOCK" "$SSH_AGENT_PID"; read line; exit 7'


@contextlib.contextmanager
def beside(environ: Environ, *words: str | Path) -> Iterator[tuple[subprocess.Popen[str], str, int]]:
    """A command with an agent, which ends with a line: the process, and the agent's place and process."""
    command = [*PROGRAM, "serve", *map(str, words), "--", "sh", "-c", _LOOK]
    with subprocess.Popen(
        command, env=environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout
        place, pid = (process.stdout.readline().strip() for _ in range(2))
        try:
            yield process, place, int(pid)
        finally:
            process.kill()


def ended(pid: int, place: str) -> bool:
    done = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True)
    return (not done.stdout.strip() or done.stdout.startswith("Z")) and not os.path.lexists(place)


@pytest.mark.parametrize("words", [[], ["--listen", "~/mine"], ["-q", "--json"]])
def test_a_command_has_an_agent_as_long_as_it_runs(environ: Environ, home: Path, words: list[str]) -> None:
    openssh(home / "key", 1)
    with beside(environ, *words, home / "key") as (process, place, pid):
        assert (place == str(home / "mine")) is ("--listen" in words)
        assert lists(place) == [str(home / "key")]
        assert process.communicate("\n", timeout=30) == ("", "")
        assert process.returncode == 7
        wait_for(lambda: ended(pid, place), "the agent is left")


def test_a_command_has_its_agent_while_another_one_serves(environ: Environ, home: Path) -> None:
    with serving(environ) as agent, beside(environ) as (_, place, pid):
        assert place != agent.place
        assert (lists(agent.place), lists(place)) == ([], [])
        agent.end()
        assert lists(place) == []
        assert not ended(pid, place)


def test_the_agent_ends_with_its_command_however_that_ends(environ: Environ) -> None:
    with beside(environ) as (process, place, pid):
        process.kill()
        process.wait(30)
        wait_for(lambda: ended(pid, place), "the agent is left")


#: Runs pageantry, and tells how well its memory is hidden (0: from all but root) when the second word is opened.
_WATCH = """
import ctypes, sys
from pageantry.cli import main
def look(event, arguments):
    if event == "open" and arguments[0] == sys.argv[2]:
        print("opened", ctypes.CDLL(None).prctl(3, 0, 0, 0, 0), file=sys.stderr)
sys.addaudithook(look)
main()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells who may read a process's memory")
@pytest.mark.parametrize("words", [[], ["--", "true"]])
@pytest.mark.parametrize("asks", [True, False])
def test_keys_are_read_when_nobody_can_look_any_more(
    environ: Environ, home: Path, words: list[str], asks: bool
) -> None:
    openssh(home / "key", 1)
    if asks:
        environ |= {"SSH_ASKPASS": "/bin/false", "SSH_ASKPASS_REQUIRE": "force"}
    with subprocess.Popen(
        [sys.executable, "-c", _WATCH, "serve", str(home / "key"), *words],
        env=environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout
        process.stdout.readline()
        process.terminate()
        said = process.communicate(timeout=30)[1]
    assert [line for line in said.splitlines() if line.startswith("opened")] == ["opened 0"]


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells who may read a process's memory")
def test_the_command_is_as_readable_as_any_and_may_leave_core_files(environ: Environ, home: Path) -> None:
    openssh(home / "key", 1)
    look = "import ctypes, resource; print(ctypes.CDLL(None).prctl(3, 0, 0, 0, 0), resource.getrlimit(4))"
    before = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, check=True).stdout
    done = call(environ, "serve", home / "key", "--", sys.executable, "-c", look)
    assert (done.returncode, done.stdout) == (0, before)
    assert before.startswith("1 ")


@pytest.mark.parametrize("command", ["nothing/of/the/kind", "/"])
def test_a_command_that_cannot_be_run_is_said_and_leaves_no_agent(environ: Environ, home: Path, command: str) -> None:
    assert command in failed(call(environ, "serve", "--", command))
    wait_for(lambda: not list((home / ".ssh" / "agent").iterdir()), "the agent is left")


def test_no_command_is_run_without_its_agent_or_its_keys(environ: Environ, home: Path) -> None:
    for words in (["--listen", "/nowhere/agent"], [home / "missing"]):
        failed(call(environ, "serve", *words, "--", "sh", "-c", "echo run"))


def test_what_is_behind_the_dashes_is_the_command_s_alone(environ: Environ) -> None:
    done = call(environ, "serve", "--", "sh", "-c", 'echo "$@"', "sh", "--json", "--", "-t", "--help")
    assert (done.returncode, done.stdout) == (0, "--json -- -t --help\n")


def signing(home: Path) -> list[str]:
    """Have ssh-keygen sign a file with the key, through the agent, and print its standard input."""
    (home / "data").write_text("data")
    return ["--", "sh", "-c", f"ssh-keygen -q -Y sign -f {home}/key.pub -n file {home}/data; cat"]


@pytest.fixture
def sealed(home: Path) -> Path:
    (home / "key.pub").write_text(openssh(home / "key", 1, PASSPHRASE).line())
    return home / "key"


@pytest.mark.interop
def test_a_passphrase_is_asked_for_before_the_command_has_the_terminal(
    environ: Environ, home: Path, sealed: Path
) -> None:
    command = [*PROGRAM, "serve", str(sealed), *signing(home)]
    with contextlib.closing(terminals.AtTerminal(environ, *command)) as terminal:
        terminal.shows(f"Passphrase for {sealed}: ")
        terminal.type(f"{PASSPHRASE}\n")
        wait_for((home / "data.sig").exists, lambda: f"nothing was signed: {terminal.shown}")
        terminal.type("said by the command\n\4")
        assert terminal.process.wait(30) == 0
        terminal.shows("said by the command", 2)
    assert PASSPHRASE not in terminal.shown


def test_a_wrong_passphrase_runs_nothing(environ: Environ, home: Path, sealed: Path) -> None:
    command = [*PROGRAM, "serve", str(sealed), "--", "touch", str(home / "touched")]
    with contextlib.closing(terminals.AtTerminal(environ, *command)) as terminal:
        terminal.shows("Passphrase for")
        terminal.type("falsch\n")
        assert terminal.process.wait(30) == 1
    assert not (home / "touched").exists()


@pytest.mark.interop
def test_where_a_program_can_ask_the_passphrase_is_asked_for_when_it_is_needed(
    environ: Environ, home: Path, sealed: Path
) -> None:
    askpass = home / "askpass"
    askpass.write_text(f'#!/bin/sh\necho "$1" >>{home}/asked\necho {PASSPHRASE}\n')
    askpass.chmod(0o700)
    environ |= {"SSH_ASKPASS": str(askpass), "SSH_ASKPASS_REQUIRE": "force"}
    done = call(environ, "serve", sealed, *signing(home), given="its own input")
    assert (done.returncode, done.stdout) == (0, "its own input")
    assert (home / "data.sig").exists()
    assert "wanted by ssh-keygen (process " in (home / "asked").read_text()


def test_without_anybody_to_ask_the_command_s_input_is_not_taken_for_the_passphrase(
    environ: Environ, sealed: Path
) -> None:
    command = [*PROGRAM, "serve", str(sealed), "--", "cat"]
    done = subprocess.run(
        command, env=environ, input=PASSPHRASE, capture_output=True, text=True, timeout=60, start_new_session=True
    )
    assert failed(done) == f"Passphrase for {sealed}: there is no terminal to ask at"
