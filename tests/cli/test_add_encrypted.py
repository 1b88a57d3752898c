"""`add --encrypted` and `reencrypt`, with agents that hold key files as they are and agents that do not."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

if sys.platform == "win32":
    pytest.skip("sockets of UNIX", allow_module_level=True)

import pageantry
from pageantry import PublicKey
from pageantry.errors import Refused
from pageantry.keyring import Keyring

from ..hosts import ed25519_key
from ..interop.conftest import openssh as stock_agent
from ..interop.conftest import pageant as real_pageant
from .serving import PASSPHRASE, Environ, Served, call, certify, failed, lists, openssh, putty, serving


@pytest.fixture
def agent(environ: Environ, home: Path) -> Iterator[Served]:
    """One of ours, where a program gives the passphrase, and counts how often it was asked for."""
    askpass = home / "askpass"
    askpass.write_text(f"#!/bin/sh\necho asked >>{home}/asked\necho {PASSPHRASE}\n")
    askpass.chmod(0o700)
    with serving(environ, SSH_ASKPASS=str(askpass), SSH_ASKPASS_REQUIRE="force") as started:
        yield started


def asked(home: Path) -> int:
    """How often a passphrase was asked for."""
    return (home / "asked").read_text().count("asked") if (home / "asked").exists() else 0


def done(environ: Environ, place: Path | str, *words: str | Path) -> str:
    """What the command says that does this, and succeeds."""
    came = call(environ, *words, SSH_AUTH_SOCK=str(place))
    assert (came.returncode, came.stdout) == (0, ""), came.stderr
    return came.stderr


def refused(environ: Environ, place: Path | str, *words: str | Path) -> str:
    return failed(call(environ, *words, SSH_AUTH_SOCK=str(place)))


def limits(environ: Environ, place: Path | str) -> list[dict[str, Any]]:
    shown = call(environ, "keys", "--limits", "--json", SSH_AUTH_SOCK=str(place)).stdout
    return list(json.loads(shown)["keys"])


def clear(environ: Environ, place: Path | str) -> dict[str, bool]:
    return {key["comment"]: key["clear"] for key in limits(environ, place)}


def sign(place: Path | str, key: PublicKey) -> None:
    with pageantry.connect(str(place)) as client:
        client.sign(key, b"data", verify=True)


# An agent of ours


@pytest.mark.parametrize("make", [openssh, putty])
def test_a_file_is_held_as_it_is_until_it_is_used(environ: Environ, home: Path, agent: Served, make: Any) -> None:
    key = make(home / "sealed", 1, PASSPHRASE)
    comment = "of PuTTY's" if make is putty else str(home / "sealed")
    said = done(environ, agent.place, "add", "--encrypted", home / "sealed")
    assert said == f"added {key.fingerprint()} {comment} to unix:{agent.place}\n"
    assert clear(environ, agent.place) == {comment: False}
    assert asked(home) == 0
    sign(agent.place, key)
    sign(agent.place, key)
    assert asked(home) == 1
    assert clear(environ, agent.place) == {comment: True}


def test_limits_and_the_certificate_beside_go_with_it(environ: Environ, home: Path, agent: Served) -> None:
    key = openssh(home / "sealed", 1, PASSPHRASE)
    certificate = certify(home / "sealed", key)
    done(environ, agent.place, "add", "--encrypted", "-c", "-t", "1h", home / "sealed")
    found = limits(environ, agent.place)
    assert [one["fingerprint"] for one in found] == [key.fingerprint(), certificate.fingerprint()]
    assert [one["public"] for one in found] == [f"{one.type} {one.base64}" for one in (key, certificate)]
    for one in found:
        assert (one["confirm"], one["encrypted"], one["clear"]) == (True, True, False)
        assert 3500 < one["seconds_left"] <= 3600


def test_machines_are_told_what_was_added(environ: Environ, home: Path, agent: Served) -> None:
    key = openssh(home / "sealed", 1, PASSPHRASE)
    came = call(environ, "add", "--encrypted", "--json", home / "sealed", SSH_AUTH_SOCK=agent.place)
    assert json.loads(came.stdout) == [
        {
            "type": "ssh-ed25519",
            "fingerprint": key.fingerprint(),
            "comment": str(home / "sealed"),
            "public": f"{key.type} {key.base64}",
            "agent": f"unix:{agent.place}",
        }
    ]


def test_what_cannot_be_held_encrypted_is_said_and_nothing_is_added(
    environ: Environ, home: Path, agent: Served
) -> None:
    openssh(home / "sealed", 1, PASSPHRASE)
    openssh(home / "plain", 2)
    said = refused(environ, agent.place, "add", "--encrypted", home / "sealed", home / "plain")
    assert said == f"{home}/plain is not encrypted"
    certify(home / "sealed", ed25519_key(3).public)
    assert f"{home}/sealed-cert.pub" in refused(environ, agent.place, "add", "--encrypted", home / "sealed")
    assert lists(agent.place) == []


def test_what_the_agent_refuses_is_said_without_the_protocol_s_words(environ: Environ, home: Path) -> None:
    putty(home / "sealed.ppk", 1, PASSPHRASE, "sealed")
    with Keyring() as nobody_to_ask, pageantry.exposed(nobody_to_ask) as place:
        said = refused(environ, place, "add", "--encrypted", home / "sealed.ppk")
    assert said == f"unix:{place} refused to hold sealed encrypted"


def test_a_locked_agent_is_said_to_be_locked_perhaps(environ: Environ, home: Path, agent: Served) -> None:
    putty(home / "sealed.ppk", 1, PASSPHRASE)
    with pageantry.connect(agent.place) as client:
        client.lock(b"sesame")
    for words in (["add", "--encrypted", home / "sealed.ppk"], ["reencrypt"]):
        came = call(environ, *words, SSH_AUTH_SOCK=agent.place)
        failed(came)
        assert "unless it is locked" in came.stderr


def test_keys_are_encrypted_again_all_or_by_name(environ: Environ, home: Path, agent: Served) -> None:
    keys = [putty(home / f"{seed}.ppk", seed, PASSPHRASE if seed < 3 else "", f"key {seed}") for seed in (1, 2, 3)]
    done(environ, agent.place, "add", "--encrypted", home / "1.ppk", home / "2.ppk")
    done(environ, agent.place, "add", home / "3.ppk")
    for key in keys:
        sign(agent.place, key)
    assert set(clear(environ, agent.place).values()) == {True}

    said = done(environ, agent.place, "reencrypt", "key 1")
    assert said == f"encrypted again: {keys[0].fingerprint()} key 1\n"
    assert clear(environ, agent.place) == {"key 1": False, "key 2": True, "key 3": True}

    said = done(environ, agent.place, "reencrypt")
    assert said == "encrypted again: all keys that came encrypted; 1 that came in the clear stays so\n"
    assert clear(environ, agent.place) == {"key 1": False, "key 2": False, "key 3": True}
    sign(agent.place, keys[0])
    assert asked(home) == 3

    assert refused(environ, agent.place, "reencrypt", "key 3") == (
        f"unix:{agent.place} could not encrypt {keys[2].fingerprint()} key 3 again"
    )
    assert refused(environ, agent.place, "reencrypt", "key 4") == "no key here is called 'key 4'"


def test_machines_are_told_what_was_encrypted_again(environ: Environ, home: Path, agent: Served) -> None:
    key = putty(home / "1.ppk", 1, PASSPHRASE, "key 1")
    done(environ, agent.place, "add", "--encrypted", home / "1.ppk")
    for words, fingerprints in ((["1"], [key.fingerprint()]), ([], None)):
        came = call(environ, "reencrypt", "--json", *words, SSH_AUTH_SOCK=agent.place)
        assert json.loads(came.stdout) == {"agent": f"unix:{agent.place}", "reencrypted": fingerprints}


def test_where_no_key_came_encrypted_none_can_be_again(environ: Environ, home: Path, agent: Served) -> None:
    assert done(environ, agent.place, "reencrypt") == "encrypted again: all keys that came encrypted\n"
    openssh(home / "plain", 1)
    done(environ, agent.place, "add", home / "plain")
    assert refused(environ, agent.place, "reencrypt") == f"unix:{agent.place} could not encrypt any of its keys again"


# Pageant


@pytest.mark.interop
def test_pageant_holds_its_own_files(environ: Environ, home: Path) -> None:
    key = putty(home / "sealed.ppk", 1, PASSPHRASE, "sealed")
    with real_pageant(home) as place:
        said = done(environ, place, "add", "--encrypted", home / "sealed.ppk")
        assert said == f"added {key.fingerprint()} sealed to unix:{place}\n"
        assert clear(environ, place) == {"sealed": False}
        assert call(environ, "add", home / "sealed.ppk", given=PASSPHRASE, SSH_AUTH_SOCK=str(place)).returncode
        with pageantry.connect(str(place)) as client:
            assert [one.key for one in client.identities()] == [key]


@pytest.mark.interop
@pytest.mark.parametrize("words", [["sealed"], ["-c", "sealed.ppk"], ["-t", "1h", "sealed.ppk"]])
def test_pageant_takes_nothing_else_encrypted(environ: Environ, home: Path, words: list[str]) -> None:
    openssh(home / "sealed", 1, PASSPHRASE)
    putty(home / "sealed.ppk", 2, PASSPHRASE)
    with real_pageant(home) as place:
        said = refused(environ, place, "add", "--encrypted", *words[:-1], home / words[-1])
        assert said == f"unix:{place} takes no such key encrypted"
        assert lists(place) == []


@pytest.mark.interop
def test_pageant_takes_no_certificate_for_an_encrypted_key(environ: Environ, home: Path) -> None:
    certify(home / "sealed.ppk", putty(home / "sealed.ppk", 3, PASSPHRASE, "sealed"))
    with real_pageant(home) as place:
        came = call(environ, "add", "--encrypted", home / "sealed.ppk", SSH_AUTH_SOCK=str(place))
        assert came.returncode == 1
        assert f"unix:{place} takes no such certificate encrypted\n" in came.stderr
        assert lists(place) == ["sealed"]


@pytest.mark.interop
def test_pageant_encrypts_its_keys_again(environ: Environ, home: Path) -> None:
    key = putty(home / "1.ppk", 1, PASSPHRASE, "both")
    putty(home / "2.ppk", 2, "", "plain")
    with real_pageant(home) as place:
        assert call(environ, "add", home / "1.ppk", given=PASSPHRASE, SSH_AUTH_SOCK=str(place)).returncode == 0
        done(environ, place, "add", "--encrypted", home / "1.ppk")
        done(environ, place, "add", home / "2.ppk")
        assert clear(environ, place) == {"both": True, "plain": True}
        sign(place, key)
        assert done(environ, place, "reencrypt", "both") == f"encrypted again: {key.fingerprint()} both\n"
        assert clear(environ, place) == {"both": False, "plain": True}
        said = done(environ, place, "reencrypt")
        assert said == "encrypted again: all keys that came encrypted; 1 that came in the clear stays so\n"
        assert "could not encrypt" in refused(environ, place, "reencrypt", "plain")


# OpenSSH's agent


@pytest.mark.interop
def test_openssh_s_agent_is_said_to_do_neither(environ: Environ, home: Path) -> None:
    openssh(home / "sealed", 1, PASSPHRASE)
    putty(home / "sealed.ppk", 2, PASSPHRASE)
    openssh(home / "plain", 3)
    with stock_agent(home) as place:
        for file in ("sealed", "sealed.ppk"):
            said = refused(environ, place, "add", "--encrypted", home / file)
            assert said == f"unix:{place} takes no such key encrypted"
        done(environ, place, "add", home / "plain")
        for words in ([], ["1"]):
            assert refused(environ, place, "reencrypt", *words) == f"unix:{place} cannot encrypt keys again"


def test_key_files_do_neither(environ: Environ, home: Path) -> None:
    openssh(home / "sealed", 1, PASSPHRASE)
    for words in (["add", "--encrypted", home / "sealed"], ["reencrypt"]):
        said = failed(call(environ, *words, "--agent", f"keys:{home}/sealed"))
        assert said.startswith(f"keys:{home}/sealed ")


def test_nobody_is_asked_by_an_agent_that_cannot_ask(environ: Environ, home: Path) -> None:
    key = openssh(home / "sealed", 1, PASSPHRASE)
    with serving(environ) as agent:
        done(environ, agent.place, "add", "--encrypted", home / "sealed")
        with pytest.raises(Refused):
            sign(agent.place, key)
        agent.logged("refused to sign with", "there is no terminal to ask at")
