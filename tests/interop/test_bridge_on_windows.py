"""`pageantry bridge` on Windows: the real Pageant and others' agents, each in the way that another program wants."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

if sys.platform != "win32":
    pytest.skip("tests/cli/test_bridge.py has bridges on UNIX", allow_module_level=True)

import pageantry
from pageantry import winpipe
from pageantry.endpoints import named_pipe
from pageantry.endpoints.pageant import pipe_name
from pageantry.errors import AgentError, Refused
from pageantry.keyfiles import KeyFiles
from pageantry.keys.files import read
from pageantry.keys.signatures import verify
from pageantry.messages import SessionBind

from ..hosts import binding, ed25519_key
from .debian_sshd import Sshd
from .test_pageant_served import PROGRAM, desktop, plink, running, sshd, wait_for
from .test_windows_agents import (
    KEYS,
    ONE,
    SIGNATURES,
    expected,
    home,
    openssh,
    pageant,
    running_pageant,
    script,
    untaken,
)

__all__ = ["desktop", "home", "openssh", "pageant", "sshd"]  # fixtures

pytestmark = pytest.mark.interop


def run(*words: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*PROGRAM, *map(str, words)], capture_output=True, text=True, timeout=60)


@pytest.fixture
def name() -> str:
    """Of a pipe that nobody has."""
    return f"pageantry-test-{os.getpid()}-{os.urandom(4).hex()}"


# The real Pageant at OpenSSH's pipe


def test_pageant_signs_at_openssh_s_pipe_as_the_key_files_do(pageant: object) -> None:
    untaken(named_pipe.OPENSSH)
    keys, files = expected()
    with running("bridge", "pageant", "--to", "openssh") as bridge, pageantry.connect("openssh") as agent:
        assert {one.key for one in agent.identities()} == set(keys)
        for number, flags in SIGNATURES:
            signed = agent.sign(keys[number], b"data", flags, verify=True)
            assert signed == files.sign(keys[number], b"data", flags)
        assert agent.sign(keys[0], bytes(200_000), verify=True)
        assert "list-extended@putty.projects.tartarus.org" in agent.query()
        wait_for(lambda: bridge.said("sign with test key ed25519", ": signed, "), f"not in {bridge.log}")


def test_keys_that_are_added_there_are_pageant_s(pageant: object) -> None:
    untaken(named_pipe.OPENSSH)
    with (
        running("bridge", "pageant-pipe", "--to", "openssh"),
        pageantry.connect("openssh") as agent,
        pageantry.connect("pageant-pipe") as alone,
    ):
        agent.add(ed25519_key(1), "new")
        assert [one.comment for one in alone.identities()].count("new") == 1
        agent.remove(ed25519_key(1).public)
        assert len(alone.identities()) == len(KEYS)


def test_paramiko_has_pageant_s_keys_at_openssh_s_pipe(pageant: object) -> None:
    agents = pytest.importorskip("paramiko.agent")
    pipes = pytest.importorskip("paramiko.win_openssh")
    untaken(named_pipe.OPENSSH)
    keys, _ = expected()
    with running("bridge", "pageant", "--to", "openssh"):
        agent = agents.AgentSSH()
        agent._connect(pipes.OpenSSHAgentConnection())  # what its Agent takes where there is no window of Pageant's
        try:
            assert {key.asbytes() for key in agent.get_keys()} == {key.blob for key in keys}
            for key in agent.get_keys():
                (public,) = (one for one in keys if one.blob == key.asbytes())
                verify(public, key.sign_ssh_data(b"data"), b"data")
        finally:
            agent._close()


def test_paramiko_finds_it_by_itself(name: str, wine: bool) -> None:
    if wine:
        pytest.skip("paramiko looks for the pipe in the list of all, which Wine does not have")
    paramiko = pytest.importorskip("paramiko")
    untaken(pipe_name())
    untaken(named_pipe.OPENSSH)
    keys, _ = expected()
    with running("bridge", f"keys:{KEYS[0]}", "--to", "openssh"), contextlib.closing(paramiko.Agent()) as agent:
        assert [key.asbytes() for key in agent.get_keys()] == [keys[0].blob]


def test_it_goes_on_when_pageant_is_started_anew(name: str) -> None:
    with running_pageant() as first, running("bridge", "pageant", "--to", f"pipe:{name}"):
        with pageantry.connect(f"pipe:{name}") as agent:
            assert len(agent.identities()) == len(KEYS)
            first.kill()
            first.wait(20)
            wait_for(lambda: not winpipe.exists(pipe_name()), "Pageant's pipe stays")
            with pytest.raises(AgentError):
                agent.identities()
        with running_pageant(), pageantry.connect(f"pipe:{name}") as agent:
            assert len(agent.identities()) == len(KEYS)


# Others in Pageant's place


def test_a_pipe_is_pageant_s_window_for_plink(sshd: Sshd, name: str) -> None:
    untaken(pipe_name())
    with (
        running("serve", "--listen", f"pipe:{name}", KEYS[0]) as agent,
        running("bridge", f"pipe:{name}", "--to", "pageant-window") as bridge,
    ):
        assert plink(sshd, "echo in") == "in"
        login = f'to log in as "{sshd.user}"'
        wait_for(
            lambda: bridge.said("plink.exe (process ", "sign with test key ed25519", login), f"not in {bridge.log}"
        )
        assert agent.said("signed with test key ed25519", login)


def test_pageant_hands_its_keys_through_it(name: str) -> None:
    program = shutil.which("pageant")
    if not program:
        pytest.skip("pageant is not installed")
    untaken(pipe_name())
    with (
        running("serve", "--listen", f"pipe:{name}"),
        running("bridge", f"pipe:{name}", "--to", "pageant-window"),
        pageantry.connect(f"pipe:{name}") as agent,
    ):
        subprocess.run([program, f"{KEYS[1]}.ppk"], check=True, timeout=60)
        wait_for(lambda: [one.key for one in agent.identities()] == [expected()[0][1]], "it does not have the key")


def test_openssh_s_agent_is_pageant_by_both_ways_in(openssh: object) -> None:
    untaken(pipe_name())
    keys, _ = expected()
    with running("bridge", "openssh", "--to", "pageant") as bridge:
        for way in ("pageant-pipe", "pageant-window"):
            with pageantry.connect(way) as agent:
                assert [one.key for one in agent.identities()] == keys
                agent.sign(keys[1], b"data", verify=True)
                agent.remove(keys[1])
                agent.add(read(KEYS[1]).decrypt()[0], "again")
        assert sum("listening at" in line for line in bridge.log) == 2


def test_it_ends_when_the_user_logs_off(name: str) -> None:
    untaken(pipe_name())
    with running("bridge", f"pipe:{name}", "--to", "pageant", "--to", f"pipe:{name}-too") as bridge:
        found = ctypes.windll.user32.FindWindowW("Pageant", "Pageant")
        assert ctypes.windll.user32.PostMessageW(found, 0x16, 1, 0)  # WM_ENDSESSION
        assert bridge.end() == 0
        assert bridge.said("ended")
    assert not winpipe.exists(pipe_name())
    assert not winpipe.exists(f"{name}-too")


def test_an_agent_that_serves_one_client_at_a_time_is_bridged_for_one_after_the_other(name: str) -> None:
    with script("one_client_pipe", name, ONE.hex()), running("bridge", f"pipe:{name}", "--to", f"pipe:{name}-too"):
        for _ in range(3):
            with pageantry.connect(f"pipe:{name}-too") as agent:
                assert len(agent.identities()) == 1


# Several, guarded, and in a ring


def test_pageant_openssh_s_agent_and_a_key_file_are_one(pageant: object, openssh: object, name: str) -> None:
    key = ed25519_key(1)
    words = "bridge", "pageant", "openssh", f"keys:{KEYS[0]}", "--add-to", "openssh", "--to", f"pipe:{name}"
    with (
        running(*words),
        pageantry.connect(f"pipe:{name}") as agent,
        pageantry.connect("openssh") as alone,
    ):
        agent.extension(SessionBind.name, binding(ed25519_key(2), b"session", False))
        agent.add(key, "new")
        assert [one.comment for one in alone.identities()].count("new") == 1
        identities = agent.identities()
        assert len(identities) == len(KEYS) + 1
        for identity in identities:
            agent.sign(identity.key, b"data", verify=True)
    (shown,) = json.loads(run("agents", "--agent", "pageant-pipe", "--json").stdout)
    assert shown["bridge_to"] == []


def test_it_is_shown_as_a_bridge(pageant: object, name: str) -> None:
    with running("bridge", "pageant", "--to", f"pipe:{name}"):
        (shown,) = json.loads(run("agents", "--agent", f"pipe:{name}", "--json").stdout)
        assert shown["bridge_to"] == ["pageant"]
        assert "a bridge to pageant" in run("agents", "--agent", f"pipe:{name}").stdout


def test_read_only_keeps_pageant_as_it_is(pageant: object, name: str) -> None:
    keys, _ = expected()
    with (
        running("bridge", "pageant", "--read-only", "--to", f"pipe:{name}"),
        pageantry.connect(f"pipe:{name}") as agent,
    ):
        changes: list[Callable[[], object]] = [
            lambda: agent.add(ed25519_key(1)),
            lambda: agent.remove(keys[0]),
            agent.remove_all,
        ]
        for change in changes:
            with pytest.raises(Refused):
                change()
        assert {one.key for one in agent.identities()} == set(keys)
        agent.sign(keys[0], b"data", verify=True)


def test_a_bridge_to_itself_is_refused(name: str) -> None:
    done = run("bridge", f"pipe:{name}", "--to", f"pipe:{name}")
    assert (done.returncode, done.stdout) == (1, "")
    assert "is this bridge itself" in done.stderr
    untaken(pipe_name())
    done = run("bridge", "pageant", "--to", "pageant")
    assert done.returncode == 1
    assert "is this bridge itself" in done.stderr


def test_a_ring_of_bridges_is_refused_where_it_closes(name: str) -> None:
    untaken(pipe_name())
    with running("bridge", f"pipe:{name}", "--to", "pageant"), running("bridge", "pageant-window", "--to", "openssh"):
        done = run("bridge", "openssh", "--to", f"pipe:{name}")
        assert done.returncode == 1
        assert "leads back here" in done.stderr
        with running("serve", "--listen", f"pipe:{name}", KEYS[0]), pageantry.connect("openssh") as agent:
            assert [one.key for one in agent.identities()] == [KeyFiles([KEYS[0]]).identities()[0].key]
