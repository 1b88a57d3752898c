"""What docs/bridging.md and docs/serving.md say to do on Windows, done as it is written there, with real programs."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

if sys.platform != "win32":
    pytest.skip("tests/cli/test_bridging_page.py has those for UNIX", allow_module_level=True)

import pageantry
from pageantry.constraints import Confirm
from pageantry.endpoints import named_pipe
from pageantry.endpoints.pageant import pipe_name

from ..cli.bridging_page import lines
from ..hosts import ed25519_key
from .test_bridge_on_windows import run
from .test_pageant_served import Agent, desktop, running
from .test_served_socket_files import HERE, LIST, comments, output
from .test_socket_files import libassuan
from .test_windows_agents import KEYS, expected, home, openssh, pageant, untaken

__all__ = ["desktop", "home", "openssh", "pageant"]  # fixtures

pytestmark = pytest.mark.interop


@contextlib.contextmanager
def started(title: str, home: Path) -> Iterator[Agent]:
    """What PowerShell starts by the line of that section."""
    (line,) = lines(title, "powershell")
    with started_by(line, home) as bridge:
        yield bridge


@contextlib.contextmanager
def started_by(line: str, home: Path) -> Iterator[Agent]:
    """The same by that line, which has to be `pageantry` with what listens until it is ended."""
    text = re.sub(r"\$env:(\w+)", lambda match: os.environ[match[1]], line.replace("$HOME", str(home)))
    command, *words = (word.strip('"') for word in re.findall(r'"[^"]*"|[^ ]+', text))
    assert command == "pageantry"
    with running(*words) as bridge:
        yield bridge


def test_serve_is_pageant_in_the_ways_that_are_shown(home: Path) -> None:
    untaken(pipe_name())
    shutil.copy(KEYS[0], home / ".ssh" / "id_ed25519")
    with_key, for_openssh, never_asking = lines("On Windows", "powershell", "serving.md")
    with started_by(with_key, home):
        for way in ("pageant-pipe", "pageant-window"):
            with pageantry.connect(way) as agent:
                assert [one.key for one in agent.identities()] == expected()[0][:1]
    with started_by(for_openssh, home):
        assert (home / ".ssh" / "pageantry.conf").read_text() == f'IdentityAgent "//./pipe/{pipe_name()}"\n'
    with started_by(never_asking, home), pageantry.connect("pageant-pipe") as agent:
        agent.add(ed25519_key(1), "asked for", [Confirm()])
        agent.add(ed25519_key(2), "not")
        assert len(agent.identities()) == 2
        with pageantry.connect("pageant-window") as hasty:
            assert [one.comment for one in hasty.identities()] == ["not"]


def test_pageant_is_at_openssh_s_pipe(pageant: object, home: Path) -> None:
    untaken(named_pipe.OPENSSH)
    with started("Pageant at OpenSSH's pipe", home), pageantry.connect("openssh") as agent:
        assert {one.key for one in agent.identities()} == set(expected()[0])


def test_pageant_is_at_a_pipe_that_openssh_s_configuration_leads_to(pageant: object, home: Path) -> None:
    (home / ".ssh" / "config").write_text("Include pageantry.conf\n")
    with started("Pageant at a pipe that only OpenSSH looks at", home):
        assert (home / ".ssh" / "pageantry.conf").read_text() == 'IdentityAgent "//./pipe/my-pageant"\n'
        with pageantry.connect() as agent:
            assert agent.address == "pipe:my-pageant"
            assert len(agent.identities()) == len(KEYS)


def test_openssh_s_agent_is_pageant(openssh: object, home: Path) -> None:
    untaken(pipe_name())
    with started("OpenSSH's agent as Pageant", home):
        for way in ("pageant-pipe", "pageant-window"):
            with pageantry.connect(way) as agent:
                assert len(agent.identities()) == len(KEYS)


def test_gnupg_s_agent_is_a_socket_of_cygwin_s(home: Path) -> None:
    (home / "gnupg").mkdir()
    theirs, ours = home / "gnupg" / "S.gpg-agent.ssh", home / ".ssh" / "cygwin.sock"
    with libassuan(theirs, 3), started("GnuPG's agent as a Cygwin socket", home) as bridge:
        assert ours.read_bytes().startswith(b"!<socket >")
        process, *replies = output(sys.executable, str(HERE / "cygwin_client.py"), str(ours), LIST.hex(), LIST.hex())
        assert int(process) == bridge.process.pid
        assert [len(comments(reply)) for reply in replies] == [3, 3]


def test_several_are_one(pageant: object, openssh: object, home: Path) -> None:
    with started("Several agents as one", home), pageantry.connect("pipe:all") as agent:
        assert len(agent.identities()) == len(KEYS)  # which both have
        assert "a bridge to openssh and pageant" in run("agents", "--agent", "pipe:all").stdout
