"""`pageantry ssh-agent` in the place of ssh-agent(1): for ssh, ssh-add, a person's shell, and askpass."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

if sys.platform == "win32":
    pytest.skip("ssh-agent(1) is a program of UNIX", allow_module_level=True)

from .logins import Sshd, keygen, program, run, running_sshd, script, wait_for

pytestmark = pytest.mark.interop

TYPES = ("ed25519", "rsa", "ecdsa", "certified")


@pytest.fixture(scope="module")
def sshd() -> Iterator[Sshd]:
    with running_sshd() as made:
        script(made.home / "bin" / "ssh-add", f'exec {program("ssh-add")} "$@"')
        yield made
        left = [*(made.home / ".ssh" / "agent").glob("*")]
        assert left == []


@contextlib.contextmanager
def agent(sshd: Sshd, *options: str, **environ: str) -> Iterator[dict[str, str]]:
    """An agent that is in the background, as the variables that lead to it."""
    shown = run(sshd, "pageantry", "ssh-agent", "-s", *options, **environ)
    variables = dict(re.findall(r"(SSH_\w+)=([^;]+);", shown))
    pid = int(variables["SSH_AGENT_PID"])
    try:
        yield variables
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
        wait_for(lambda: not Path(variables["SSH_AUTH_SOCK"]).exists(), "the agent did not end")


def askpass(sshd: Sshd, name: str, line: str) -> dict[str, str]:
    """The variables that have a program asked which does this, after it wrote down what it was asked, and how."""
    path = sshd.home / "bin" / name
    script(path, f'printf "%s\\n%s\\n" "$SSH_ASKPASS_PROMPT" "$1" > {path}.asked; {line}')
    return {"SSH_ASKPASS": str(path), "SSH_ASKPASS_REQUIRE": "force", "DISPLAY": ":99"}


def asked(sshd: Sshd, name: str) -> str:
    return (sshd.home / "bin" / f"{name}.asked").read_text()


def test_a_shell_starts_it_uses_it_and_ends_it(sshd: Sshd) -> None:
    lines = f"""
        set -e
        eval "$(pageantry ssh-agent -s)"
        ssh-add -q {sshd.home}/.ssh/ed25519
        ssh example.org echo in
        eval "$(pageantry ssh-agent -k)"
        echo "left: $SSH_AUTH_SOCK$SSH_AGENT_PID"
    """
    started, logged_in, killed, left = run(sshd, "sh", "-c", lines).splitlines()
    pid = started.removeprefix("Agent pid ")
    assert pid.isdigit()
    assert (logged_in, killed, left) == ("in", f"Agent pid {pid} killed", "left: ")


def test_a_shell_runs_within_it(sshd: Sshd) -> None:
    lines = f"ssh-add -q {sshd.home}/.ssh/rsa && ssh example.org echo in"
    assert run(sshd, "pageantry", "ssh-agent", "sh", "-c", lines) == "in\n"


@pytest.mark.parametrize("name", TYPES)
def test_ssh_logs_in_with_every_kind_of_key(sshd: Sshd, name: str) -> None:
    with agent(sshd) as variables:
        key = str(sshd.home / ".ssh" / name)
        run(sshd, "ssh-add", "-q", key, **variables)
        run(sshd, "ssh-add", "-T", f"{key}.pub", **variables)
        assert run(sshd, "ssh", "example.org", "echo in", **variables) == "in\n"


def test_ssh_add_lists_and_removes(sshd: Sshd) -> None:
    keys = [str(sshd.home / ".ssh" / name) for name in ("ed25519", "rsa", "ecdsa")]
    with agent(sshd) as variables:
        run(sshd, "ssh-add", "-q", *keys, **variables)
        public = [Path(f"{key}.pub").read_text() for key in keys]
        assert run(sshd, "ssh-add", "-L", **variables).splitlines(keepends=True) == public
        run(sshd, "ssh-add", "-q", "-d", keys[1], **variables)
        assert run(sshd, "ssh-add", "-L", **variables).splitlines(keepends=True) == [public[0], public[2]]
        run(sshd, "ssh-add", "-q", "-D", **variables)
        empty = subprocess.run(["ssh-add", "-L"], env=sshd.environ(**variables), capture_output=True, text=True)
        assert (empty.returncode, empty.stdout) == (1, "The agent has no identities.\n")


def test_it_is_locked_and_unlocked(sshd: Sshd) -> None:
    phrase = askpass(sshd, "phrase", "echo open sesame")
    with agent(sshd) as variables:
        run(sshd, "ssh-add", "-q", str(sshd.home / ".ssh" / "ed25519"), **variables)
        run(sshd, "ssh-add", "-x", **variables, **phrase)
        locked = subprocess.run(["ssh-add", "-l"], env=sshd.environ(**variables), capture_output=True, text=True)
        assert (locked.returncode, locked.stdout) == (1, "The agent has no identities.\n")
        run(sshd, "ssh-add", "-X", **variables, **phrase)
        assert run(sshd, "ssh", "example.org", "echo in", **variables) == "in\n"


def test_it_is_forwarded(sshd: Sshd) -> None:
    with agent(sshd) as variables:
        run(sshd, "ssh-add", "-q", str(sshd.home / ".ssh" / "ed25519"), **variables)
        here = run(sshd, "ssh-add", "-l", **variables)
        assert run(sshd, "ssh", "-A", "example.org", "ssh-add -l", **variables) == here


def test_a_person_is_asked_for_consent(sshd: Sshd) -> None:
    with agent(sshd, **askpass(sshd, "yes", "exit 0")) as variables:
        run(sshd, "ssh-add", "-q", "-c", str(sshd.home / ".ssh" / "ed25519"), **variables)
        assert run(sshd, "ssh", "example.org", "echo in", **variables) == "in\n"
    how, question = asked(sshd, "yes").split("\n", 1)
    assert how == "confirm"
    assert "me@home" in question  # the key
    assert "example.org" in question


def test_without_consent_nothing_is_signed(sshd: Sshd) -> None:
    for answer in (askpass(sshd, "no", "exit 1"), {}):
        with agent(sshd, **answer) as variables:
            run(sshd, "ssh-add", "-q", "-c", str(sshd.home / ".ssh" / "ed25519"), **variables)
            environ = sshd.environ(**variables)
            refused = subprocess.run(["ssh", "example.org", "echo in"], env=environ, capture_output=True, timeout=60)
            assert (refused.returncode, refused.stdout) == (255, b"")


def test_it_ends_while_a_person_is_asked(sshd: Sshd) -> None:
    with agent(sshd, **askpass(sshd, "thinks", "echo $$ > thinking; exec sleep 600")) as variables:
        run(sshd, "ssh-add", "-q", "-c", str(sshd.home / ".ssh" / "ed25519"), **variables)
        (sshd.home / "bin" / "thinks.asked").unlink(missing_ok=True)
        with subprocess.Popen(
            ["ssh", "example.org", "echo in"],
            env=sshd.environ(**variables),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        ) as ssh:
            wait_for((sshd.home / "bin" / "thinks.asked").exists, "nobody was asked")
            os.kill(int(variables["SSH_AGENT_PID"]), signal.SIGTERM)
            assert ssh.wait(30) == 255
        running = subprocess.run(["ps", "-A", "-o", "args="], capture_output=True, text=True, check=True).stdout
        assert str(sshd.home / "bin" / "thinks") not in running


def test_keys_may_be_for_some_hosts_alone(sshd: Sshd) -> None:
    keygen("-t", "ed25519", "-N", "", "-f", str(sshd.home / "elsewhere"))
    known = sshd.home / "known"
    hosts = {"example.org": "host", "elsewhere.org": "elsewhere"}
    known.write_text("".join(f"{name} {(sshd.home / f'{key}.pub').read_text()}" for name, key in hosts.items()))
    with agent(sshd) as variables:
        key = str(sshd.home / ".ssh" / "ed25519")
        run(sshd, "ssh-add", "-q", "-H", str(known), "-h", "example.org", key, **variables)
        assert run(sshd, "ssh", "example.org", "echo in", **variables) == "in\n"
        run(sshd, "ssh-add", "-q", "-H", str(known), "-h", "elsewhere.org", key, **variables)
        environ = sshd.environ(**variables)
        refused = subprocess.run(["ssh", "example.org", "echo in"], env=environ, capture_output=True, timeout=60)
        assert (refused.returncode, refused.stdout) == (255, b"")
