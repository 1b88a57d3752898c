"""A guard before OpenSSH's agent, as OpenSSH's programs find it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pageantry.endpoints import parse
from pageantry.exposure import Exposure
from pageantry.guard import guarded
from pageantry.prompts import Person
from pageantry.rules import READ_ONLY, Rules, RulesFile
from pageantry.rules import parse as parse_rules
from pageantry.sessions import at

from ..agent.people import Thinker
from .conftest import program
from .logins import Sshd, running_sshd

pytestmark = pytest.mark.interop


class Guarded:
    """OpenSSH's agent with a key, and a guard before it, in whose log is `said`."""

    def __init__(self, agent: Path, home: Path) -> None:
        self.agent, self.home = str(agent), home
        self.said: list[str] = []
        for name in ("held", "other"):
            command = [program("ssh-keygen"), "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", str(home / name)]
            subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
        assert self.call(self.agent, "ssh-add", home / "held").returncode == 0

    def behind(self, rules: Callable[[], Rules], person: Person | None = None) -> Exposure:
        return Exposure(guarded(at(parse(self.agent)), rules, person, self.said.append))

    def call(self, address: str, name: str, *words: str | Path, given: str = "") -> subprocess.CompletedProcess[str]:
        environ = {key: value for key, value in os.environ.items() if not key.startswith("SSH_")}
        return subprocess.run(
            [program(name), *map(str, words)],
            env=environ | {"SSH_AUTH_SOCK": address, "SSH_ASKPASS": "false", "SSH_ASKPASS_REQUIRE": "force"},
            input=given,
            capture_output=True,
            text=True,
            timeout=60,
        )

    @property
    def held(self) -> str:
        return self.call(self.agent, "ssh-add", "-L").stdout


@pytest.fixture
def guard(fresh_agent: Path) -> Iterator[Guarded]:
    home = Path(tempfile.mkdtemp(prefix="pgt", dir="/tmp"))
    yield Guarded(fresh_agent, home)
    shutil.rmtree(home)


@pytest.fixture(scope="module")
def sshd() -> Iterator[Sshd]:
    if sys.platform == "win32":
        pytest.skip("sshd is reached over UNIX's sockets here")
    with running_sshd() as running:
        yield running


def test_read_only_lists_and_signs_and_changes_nothing(guard: Guarded) -> None:
    before = guard.held
    with guard.behind(lambda: READ_ONLY) as address:
        assert guard.call(address, "ssh-add", "-L").stdout == before
        message = guard.home / "message"
        message.write_text("a message")
        signing: list[str | Path] = ["-Y", "sign", "-n", "file", "-f", guard.home / "held.pub", message]
        assert guard.call(address, "ssh-keygen", *signing).returncode == 0
        checking: list[str | Path] = ["-Y", "check-novalidate", "-n", "file", "-s", guard.home / "message.sig"]
        assert guard.call(address, "ssh-keygen", *checking, given="a message").returncode == 0
        for words in ([guard.home / "other"], ["-D"], ["-d", guard.home / "held"], ["-t", "9", guard.home / "held"]):
            assert guard.call(address, "ssh-add", *words).returncode == 1, words
        locking = "import os, pty, sys; sys.exit(os.waitstatus_to_exitcode(pty.spawn(sys.argv[1:])))"
        for word in ("-x", "-X"):
            done = guard.call(address, sys.executable, "-c", locking, program("ssh-add"), word, given="pw\npw\n")
            assert done.returncode != 0, done.stdout
    assert guard.held == before
    assert sum(line.startswith("refused to add") for line in guard.said) == 2
    assert sum(line.startswith("refused to remove") for line in guard.said) == 2
    assert any(line.startswith(("refused to lock", "refused to unlock")) for line in guard.said)


def test_a_key_is_kept_from_a_program_and_asked_for_by_another(guard: Guarded) -> None:
    thinker = Thinker()
    thinker.answer.set()
    rules = parse_rules(
        b"default = 'deny'\n[[rule]]\nprogram = 'ssh-keygen'\nmessage = 'sign'\naction = 'ask'\n", "guard.toml"
    )
    with guard.behind(lambda: rules, Person([thinker])) as address:
        assert guard.call(address, "ssh-add", "-l").returncode == 1
        signing: list[str | Path] = ["-Y", "sign", "-n", "file", "-f", guard.home / "held.pub"]
        assert guard.call(address, "ssh-keygen", *signing, given="a message").returncode == 0
    assert thinker.questions
    assert 'in the namespace "file"' in thinker.questions[0]
    assert "held" in thinker.questions[0]


def test_a_real_login_is_known_by_its_host_and_user(
    guard: Guarded, sshd: Sshd, monkeypatch: pytest.MonkeyPatch
) -> None:
    guard.call(guard.agent, "ssh-add", sshd.home / ".ssh" / "ed25519")
    monkeypatch.setenv("HOME", str(sshd.home))
    for host, user, in_order in (
        ("example.org", sshd.user, True),
        ("*.org", "*", True),
        ("github.com", sshd.user, False),
        ("example.org", "git", False),
    ):
        text = f"default = 'deny'\n[[rule]]\nhost = '{host}'\nuser = '{user}'\naction = 'allow'\n"
        rules = parse_rules(text.encode(), "guard.toml")
        with guard.behind(lambda rules=rules: rules) as address:  # type: ignore[misc]
            done = subprocess.run(
                ["ssh", "example.org", "true"], env=sshd.environ(SSH_AUTH_SOCK=address), capture_output=True, timeout=60
            )
            assert (done.returncode == 0) is in_order, (host, user, done.stderr, guard.said)


def test_a_forwarded_agent_is_known_to_be_one(guard: Guarded, sshd: Sshd) -> None:
    guard.call(guard.agent, "ssh-add", sshd.home / ".ssh" / "ed25519")
    path = guard.home / "guard.toml"
    path.write_text("default = 'allow'\n[[rule]]\nfrom = 'forwarded'\naction = 'deny'\n")
    path.chmod(0o600)
    with guard.behind(RulesFile(str(path), guard.said.append)) as address:
        done = subprocess.run(
            ["ssh", "-A", "example.org", "ssh-add -l; ssh example.org true || echo refused"],
            env=sshd.environ(SSH_AUTH_SOCK=address),
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert "The agent has no identities." in done.stdout, done
        assert "refused" in done.stdout
