"""The command `bridge` on UNIX: agents at another place, its log, loops of bridges, and how it ends."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

if sys.platform == "win32":
    pytest.skip("sockets of UNIX; tests/interop/test_bridge_on_windows.py has pipes", allow_module_level=True)

import pageantry
from pageantry import sessions
from pageantry.constraints import Lifetime
from pageantry.errors import Refused
from pageantry.exposure import Exposure
from pageantry.extensions import BRIDGE
from pageantry.keyring import Keyring
from pageantry.messages import Extension, ExtensionFailure, ExtensionResponse, SessionBind, Success, frame

from ..agent.people import asked
from ..exposure.upstream import connected
from ..hosts import binding, ed25519_key
from .serving import Environ, call, failed, lists, openssh, serving, wait_for

bridging = functools.partial(serving, command="bridge")


@contextlib.contextmanager
def openssh_agent(place: Path) -> Iterator[str]:
    """The real one, where it is told to be."""
    program = shutil.which("ssh-agent")
    if not program:
        pytest.skip("ssh-agent is not installed")
    with subprocess.Popen([program, "-D", "-a", place], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as agent:
        wait_for(place.exists, "ssh-agent did not start")
        try:
            yield str(place)
        finally:
            agent.terminate()


def test_openssh_s_agent_is_at_another_place_with_all_that_it_can(environ: Environ, home: Path) -> None:
    key = ed25519_key(1)
    with openssh_agent(home / "theirs") as theirs, bridging(environ, theirs, "--to", home / "ours") as bridge:
        assert bridge.said == f"SSH_AUTH_SOCK={home / 'ours'}; export SSH_AUTH_SOCK;\n"
        with pageantry.connect(str(home / "ours")) as agent:
            agent.add(key, "me", [Lifetime(1000)])
            assert lists(theirs) == ["me"]
            assert agent.sign(key.public, b"data", verify=True)
            agent.lock(b"secret")
            assert lists(theirs) == []
            with pytest.raises(Refused):
                agent.unlock(b"wrong")
            agent.unlock(b"secret")
            assert agent.query() == []
        assert bridge.logged("sign with me (SHA256:").rstrip().endswith("ms")
        assert bridge.logged("unlock: refused")
        assert "secret" not in "".join(bridge.log)
        assert bridge.end()[0] == 0
    assert not (home / "ours").exists()


def test_the_log_for_machines_has_an_object_in_each_line(environ: Environ, home: Path) -> None:
    openssh(home / "key", 1)
    with (
        serving(environ, "--listen", home / "theirs", home / "key"),
        bridging(environ, home / "theirs", "--to", home / "ours", "--json") as bridge,
    ):
        assert json.loads(bridge.said) == {"listens": [str(home / "ours")], "pid": bridge.process.pid}
        with pageantry.connect(str(home / "ours")) as agent:
            (identity,) = agent.identities()
            agent.sign(identity.key, b"data")
        told = json.loads(bridge.logged('"sign"'))
        assert told.pop("milliseconds") > 0
        assert told.pop("program").endswith(os.path.basename(os.path.realpath(sys.executable)))
        assert told == {
            "pid": os.getpid(),
            "request": "sign",
            "key": identity.fingerprint,
            "comment": identity.comment,
            "user": None,
            "answer": "signed",
        }


def test_an_agent_that_comes_later_is_reached_then_and_one_that_goes_is_a_refusal(environ: Environ, home: Path) -> None:
    with bridging(environ, home / "theirs", "--to", home / "ours") as bridge:
        with pytest.raises(pageantry.errors.Disconnected):
            lists(home / "ours")
        assert bridge.logged("list: ", str(home / "theirs"))
        with openssh_agent(home / "theirs"):
            assert lists(home / "ours") == []


def test_a_bridge_to_itself_is_refused(environ: Environ, home: Path) -> None:
    done = call(environ, "bridge", home / "here", "--to", home / "here")
    assert "is this bridge itself" in done.stderr
    assert done.returncode == 1
    assert not (home / "here").exists()


def test_an_agent_that_fails_at_what_it_does_not_know_is_no_loop(environ: Environ, home: Path) -> None:
    """Some answer any extension with EXTENSION_FAILURE, as a bridge does that leads back."""
    keyring = Keyring()
    keyring.add(ed25519_key(1), "me")

    class Failing(sessions.View):
        def answer(self, request: bytes) -> bytes:
            return frame(ExtensionFailure().payload()) if request[4] == Extension.number else super().answer(request)

    with (
        Exposure(lambda _: Failing(keyring.open(None))) as theirs,
        bridging(environ, theirs, "--to", home / "ours") as bridge,
        bridging(environ, home / "ours", "--to", home / "further"),
    ):
        assert lists(home / "further") == ["me"]
        assert "leads" not in "".join(bridge.log)


def test_a_ring_of_bridges_is_refused_where_it_closes_and_the_others_go_on(environ: Environ, home: Path) -> None:
    one, two, three = (home / name for name in ("one", "two", "three"))
    with bridging(environ, one, "--to", two), bridging(environ, two, "--to", three):
        done = call(environ, "bridge", three, "--to", one)
        assert "leads back here" in done.stderr
        assert done.returncode == 1
        with openssh_agent(one):
            assert lists(three) == []


def test_a_ring_that_closes_while_all_run_ends_no_bridge(environ: Environ, home: Path) -> None:
    one, two = home / "one", home / "two"
    with bridging(environ, one, "--to", two) as bridge, openssh_agent(one):
        assert lists(two) == []
    with bridging(environ, one, "--to", two) as bridge:
        link = home / "link"
        with bridging(environ, link, "--to", one):
            link.symlink_to(two)
            with pytest.raises(pageantry.errors.AgentError):
                lists(two)
            assert bridge.logged("leads back here")
            link.unlink()
            with openssh_agent(link):
                assert lists(two) == []


def test_standard_streams_are_a_place(environ: Environ, home: Path) -> None:
    openssh(home / "key", 1)
    with serving(environ, "--listen", home / "theirs", home / "key"):
        command = f"stdio:{sys.executable} -m pageantry bridge {home / 'theirs'} --to stdio:"
        assert len(lists(command)) == 1
    done = call(environ, "bridge", "x/y", "--to", "stdio:", "--to", home / "other")
    assert failed(done) == "stdio: is a place for one"


def test_a_program_is_started_once_for_each_client_and_once_to_see_whether_it_leads_back(
    environ: Environ, home: Path
) -> None:
    program, starts = home / "program", home / "starts"
    with openssh_agent(home / "theirs") as theirs:
        program.write_text(f"#!/bin/sh\necho >> {starts}\nexec {sys.executable} -m pageantry relay {theirs}\n")
        program.chmod(0o700)
        with bridging(environ, f"stdio:{program}", "--to", home / "ours"):
            assert starts.read_text() == "\n"
            for number in (2, 3):
                assert lists(home / "ours") == []
                assert starts.read_text() == "\n" * number


def test_many_clients_at_once_get_their_own_replies(environ: Environ, home: Path) -> None:
    keys = [ed25519_key(number) for number in range(1, 9)]
    with openssh_agent(home / "theirs") as theirs, bridging(environ, theirs, "--to", home / "ours", "-q") as bridge:
        with pageantry.connect(theirs) as agent:
            for key in keys:
                agent.add(key)
        wrong: list[object] = []

        def ask(number: int) -> None:
            key = keys[number % len(keys)]
            try:
                with pageantry.connect(str(home / "ours")) as agent:
                    for turn in range(5):
                        agent.sign(key.public, b"%d %d" % (number, turn), verify=True)
                        assert len(agent.identities()) == len(keys)
            except BaseException as error:
                wrong.append(error)
                raise

        threads = [threading.Thread(target=ask, args=(number,)) for number in range(60)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert wrong == []
        assert bridge.end(signal.SIGINT)[0] == 0


def test_a_bridge_is_shown_as_one_with_what_is_behind_it(environ: Environ, home: Path) -> None:
    with openssh_agent(home / "theirs") as theirs, bridging(environ, theirs, "--to", home / "ours"):
        shown = call(environ, "agents", "--agent", home / "ours", "--json")
        assert [one["bridge_to"] for one in json.loads(shown.stdout)] == [[f"unix:{theirs}"]]
        assert f"a bridge to unix:{theirs}" in call(environ, "agents", "--agent", home / "ours").stdout
        shown = call(environ, "agents", "--agent", theirs, "--json")
        assert [one["bridge_to"] for one in json.loads(shown.stdout)] == [[]]
        bind = Extension(SessionBind.name, binding(ed25519_key(3), b"session", forwarding=True))
        with connected(str(home / "ours")) as far:
            assert asked(far, bind) == Success()
            assert asked(far, Extension(BRIDGE, b"")) == ExtensionResponse(BRIDGE)


def test_several_agents_are_one(environ: Environ, home: Path) -> None:
    openssh(home / "key", 3)
    with openssh_agent(home / "one") as one, openssh_agent(home / "two") as two:
        with pageantry.connect(one) as agent:
            agent.add(ed25519_key(1), "first")
        words = (one, two, f"keys:{home / 'key'}", "--add-to", two, "--to", home / "ours")
        with bridging(environ, *words), pageantry.connect(str(home / "ours")) as agent:
            agent.add(ed25519_key(2), "second")
            assert lists(two) == ["second"]
            shown = agent.identities()
            assert [identity.key for identity in shown] == [ed25519_key(number).public for number in (1, 2, 3)]
            for identity in shown:
                agent.sign(identity.key, b"data", verify=True)
            shown_by_it = call(environ, "agents", "--agent", home / "ours", "--json").stdout
            assert json.loads(shown_by_it)[0]["bridge_to"] == [f"unix:{one}", f"unix:{two}", f"keys:{home / 'key'}"]


def test_one_word_makes_it_read_only(environ: Environ, home: Path) -> None:
    with (
        openssh_agent(home / "theirs") as theirs,
        bridging(environ, theirs, "--read-only", "--to", home / "ours") as it,
    ):
        with pageantry.connect(theirs) as agent:
            agent.add(ed25519_key(1), "me")
        with pageantry.connect(str(home / "ours")) as agent:
            (identity,) = agent.identities()
            agent.sign(identity.key, b"data", verify=True)
            changes: list[Callable[[], object]] = [
                lambda: agent.add(ed25519_key(2)),
                lambda: agent.remove(identity.key),
                agent.remove_all,
                lambda: agent.lock(b"x"),
            ]
            for change in changes:
                with pytest.raises(Refused):
                    change()
        assert lists(theirs) == ["me"]
        assert it.logged("refused to remove all keys", "no rule allows it")
        assert it.logged("remove all: refused")


def test_rules_are_kept_and_read_again_when_they_change(environ: Environ, home: Path) -> None:
    rules = home / "guard.toml"
    rules.write_text('default = "allow"\n[[rule]]\nmessage = "sign"\naction = "deny"\n')
    rules.chmod(0o600)
    with openssh_agent(home / "theirs") as theirs, bridging(environ, theirs, "--guard", rules, "--to", home / "ours"):
        with pageantry.connect(theirs) as agent:
            agent.add(ed25519_key(1), "me")
        with pageantry.connect(str(home / "ours")) as agent:
            with pytest.raises(Refused):
                agent.sign(ed25519_key(1).public, b"data")
            rules.write_text('default = "allow"\n')

            def signs() -> bool:
                try:
                    return bool(agent.sign(ed25519_key(1).public, b"data"))
                except Refused:
                    return False

            wait_for(signs, "the new rules are not kept")
    rules.write_text('default = "allow"\n[[rule]]\nmesage = "sign"\naction = "deny"\n')
    done = call(environ, "bridge", theirs, "--guard", rules, "--to", home / "other")
    assert "guard.toml, line" in failed(done)


def test_words_that_contradict_each_other_are_told(environ: Environ, home: Path) -> None:
    done = call(environ, "bridge", home / "x", "--add-to", home / "y", "--to", home / "z")
    assert "which is none of the agents" in failed(done)
    done = call(environ, "bridge", home / "x", "--read-only", "--guard", home / "y", "--to", home / "z")
    assert failed(done) == "--read-only and --guard are two guards"
    done = call(environ, "bridge", home / "x", "--guard", home / "nowhere", "--to", home / "z")
    assert str(home / "nowhere") in failed(done)
    assert not (home / "z").exists()
