"""What docs/bridging.md says to do on UNIX, done as it is written there."""

from __future__ import annotations

import contextlib
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

if sys.platform == "win32":
    pytest.skip("interop/test_pages_on_windows.py has those for Windows", allow_module_level=True)

import pageantry
from pageantry.errors import Refused

from ..hosts import ed25519_key, userauth
from ..interop.logins import run, running_sshd, ssh_agent
from .bridging_page import DOCS, ON_BOTH, ON_UNIX, ON_WINDOWS, lines, sections
from .serving import Environ, Served, lists, openssh, serving, started
from .test_serving_page import general, shell
from .test_serving_page import run as run_in_shell

__all__ = ["shell"]  # a fixture

KEY = ed25519_key(1)


def shown(environ: Environ, line: str) -> contextlib.AbstractContextManager[Served]:
    """What a shell starts by that line, which has to be `pageantry bridge`, when it listens."""
    return started(environ, "sh", "-c", f"exec {line}")


@pytest.fixture
def theirs(shell: Environ, home: Path) -> Iterator[Environ]:
    """The environment of that shell, in which an agent has a key."""
    openssh(home / ".ssh" / "id_ed25519", 1)
    with serving(shell, "--listen", home / "theirs", home / ".ssh" / "id_ed25519") as agent:
        yield shell | {"SSH_AUTH_SOCK": agent.place}


def only_signs(place: Path) -> None:
    with pageantry.connect(str(place)) as agent:
        agent.sign(KEY.public, b"data", verify=True)
        with pytest.raises(Refused):
            agent.add(ed25519_key(2))


def test_each_recipe_is_run_or_said_not_to_be() -> None:
    page = (DOCS / "bridging.md").read_text("utf-8")
    recipes = re.findall(r"^### (.*)$", page, re.MULTILINE)
    run = {*ON_UNIX, *ON_WINDOWS, *ON_BOTH}
    assert run <= {*recipes}
    assert [one for one in recipes if one not in run and "not run in our tests" not in sections()[one]] == []


def test_the_first_line_gives_an_agent_another_place(theirs: Environ, home: Path) -> None:
    start = (DOCS / "bridging.md").read_text("utf-8").partition("\n## ")[0]
    (line,) = re.findall(r"```sh\n(.*)\n```", start)
    with shown(theirs, line) as bridge:
        assert bridge.place == str(home / ".ssh" / "bridge.sock")
        assert len(lists(bridge.place)) == 1


def test_a_container_gets_a_directory_of_its_own(theirs: Environ, home: Path) -> None:
    make, line = lines("An agent in a container", "sh")
    run_in_shell(theirs, make, home)
    with shown(theirs, line):
        assert [one.name for one in (home / ".ssh" / "box").iterdir()] == ["agent.sock"]
        only_signs(home / ".ssh" / "box" / "agent.sock")


def test_several_are_one(theirs: Environ, home: Path) -> None:
    (line,) = lines("Several agents as one", "sh")
    (home / ".gnupg").mkdir(mode=0o700)
    openssh(home / ".ssh" / "deploy", 3)
    gnupg = home / ".gnupg" / "S.gpg-agent.ssh"
    with serving(theirs, "--listen", gnupg), shown(theirs, line) as bridge:
        with pageantry.connect(bridge.place) as agent:
            agent.add(ed25519_key(2), "new")
            assert [one.key for one in agent.identities()] == [ed25519_key(number).public for number in (1, 2, 3)]
        assert lists(gnupg) == ["new"]


def test_little_is_let_through(theirs: Environ, home: Path) -> None:
    read_only, guarded = lines("Only signatures, or what rules allow", "sh")
    rules = home / ".ssh" / "guard.toml"
    rules.write_text('default = "deny"\n[[rule]]\nmessage = ["list", "sign"]\naction = "allow"\n')
    rules.chmod(0o600)
    for line, name in ((read_only, "read-only.sock"), (guarded, "guarded.sock")):
        with shown(theirs, line):
            only_signs(home / ".ssh" / name)


def test_the_log_is_as_shown(theirs: Environ, home: Path) -> None:
    block = lines("Who asks for what", "console")
    with shown(theirs, block[0].removeprefix("$ ")) as bridge:
        with pageantry.connect(str(home / "theirs")) as agent:
            agent.remove_all()
            agent.add(KEY, "me@home")
            agent.add(ed25519_key(2), "work")
        with pageantry.connect(bridge.place) as agent:
            agent.identities()
            agent.sign(KEY.public, userauth(KEY.public, b"session", "bob"))
        bridge.logged("signed")

        def said(text: str) -> list[str]:
            text = re.sub(r"[\d.]+ ms", "N ms", text.replace(str(home), "/home/me").replace(" until Ctrl-C", ""))
            text = re.sub(r"\S+ \(process \d+\)", "ssh (process 0)", text)
            return general(text, home)

        assert said(bridge.said + "".join(bridge.log)) == said("\n".join(block[1:]))


@pytest.mark.interop
def test_the_agent_of_another_computer_is_here() -> None:
    (line,) = lines("The agent of another computer", "sh")
    with (
        running_sshd() as sshd,
        ssh_agent(sshd, [str(sshd.home / ".ssh" / "ed25519")]) as mine,  # which lets ssh in
        ssh_agent(sshd, [str(sshd.home / ".ssh" / "ecdsa")]) as theirs,
        shown(sshd.environ(SSH_AUTH_SOCK=mine), line.replace("/run/user/1000/ssh-agent", theirs)) as bridge,
    ):
        listed = run(sshd, "ssh-add", "-l", SSH_AUTH_SOCK=bridge.place)
        assert listed.endswith("(ECDSA)\n")
        assert len(listed.splitlines()) == 1
