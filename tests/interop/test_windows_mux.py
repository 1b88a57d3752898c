"""The real Pageant, a stand-in for OpenSSH for Windows' agent, and keys of this process, as one agent on a pipe."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import pytest

if sys.platform != "win32":
    pytest.skip("named pipes; test_mux.py has agents on sockets", allow_module_level=True)

import pageantry
from pageantry.endpoints import parse
from pageantry.errors import Refused
from pageantry.exposure import Exposure
from pageantry.keyring import Keyring
from pageantry.messages import SessionBind
from pageantry.mux import several

from ..hosts import binding, ed25519_key
from .test_windows_agents import KEYS, home, openssh, pageant

__all__ = ["home", "openssh", "pageant"]  # fixtures

pytestmark = pytest.mark.interop


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def all_three(
    pageant: subprocess.Popen[bytes],
    openssh: subprocess.Popen[bytes],
    said: list[str],
) -> Iterator[str]:
    """The address of all as one. The first two have the same keys."""
    ring = Keyring()
    ring.add(ed25519_key(1), "mine")
    with Exposure(several([parse("pageant-pipe"), parse("openssh"), ring], say=said.append)) as address:
        yield address


def test_each_key_is_listed_once_and_signs_for_a_session_that_is_bound(all_three: str, said: list[str]) -> None:
    host = ed25519_key(2)
    with pageantry.connect(all_three) as agent:
        agent.extension(SessionBind.name, binding(host, b"session", False))  # which OpenSSH's answers in two frames
        identities = agent.identities()
        assert len(identities) == len(KEYS) + 1
        for identity in identities:
            agent.sign(identity.key, b"data", verify=True)
        assert "list-extended@putty.projects.tartarus.org" in agent.query()
        assert len(agent.identities()) == len(identities)
        with pytest.raises(Refused):
            agent.lock(b"geheim")
        assert len(agent.identities()) == len(identities)
    assert any(line.endswith("could not be locked, so none is") for line in said)
    assert not any("left out" in line for line in said)


def test_what_pageant_held_is_used_elsewhere_when_it_ends(
    all_three: str,
    pageant: subprocess.Popen[bytes],
    said: list[str],
) -> None:
    with pageantry.connect(all_three) as agent:
        identities = agent.identities()
        agent.sign(identities[0].key, b"data", verify=True)
        pageant.kill()
        pageant.wait(20)
        after = agent.identities()
        assert {one.key for one in after} == {one.key for one in identities}
        for identity in after:
            agent.sign(identity.key, b"data", verify=True)
    assert len(said) == 1
    assert said[0].endswith("its keys are left out until it answers")


def test_keys_are_added_to_the_one_that_is_named(openssh: subprocess.Popen[bytes], said: list[str]) -> None:
    with (
        Exposure(several([Keyring(), parse("openssh")], add_to=1, say=said.append)) as address,
        pageantry.connect(address) as agent,
        pageantry.connect("openssh") as alone,
    ):
        agent.add(ed25519_key(3), "new")
        assert len(alone.identities()) == len(agent.identities()) == len(KEYS) + 1
        agent.sign(ed25519_key(3).public, b"data", verify=True)
        agent.remove_all()
        assert alone.identities() == agent.identities() == []
    assert said == []
