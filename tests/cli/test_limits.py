"""`pageantry keys --limits`, with agents that tell and agents that do not."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

if sys.platform == "win32":
    pytest.skip("sockets of UNIX", allow_module_level=True)

import pageantry
from pageantry.cli.limits import duration
from pageantry.constraints import Confirm, Lifetime, MaxSign, RestrictDestination
from pageantry.errors import Refused
from pageantry.extensions import ADD_ENCRYPTED, REPORT, AddEncrypted
from pageantry.keyring import Keyring
from pageantry.messages import SessionBind

from ..hosts import binding, ed25519_key, hop
from ..interop.conftest import openssh as stock_agent
from ..interop.conftest import pageant as real_pageant
from ..interop.conftest import ssh_add
from .serving import PASSPHRASE, Environ, Served, call, failed, openssh, putty, serving, wait_for

HOSTS = [ed25519_key(seed) for seed in (50, 51)]
GATE, INNER = (f"ssh-ed25519 {host.public.fingerprint()}" for host in HOSTS)
PATH = RestrictDestination(
    (
        (hop(""), hop("gate.example", HOSTS[0].public)),
        (hop("gate.example", HOSTS[0].public), hop("inner.example", HOSTS[1].public, user="bob")),
    )
)


@pytest.fixture
def agent(environ: Environ) -> Iterator[Served]:
    with serving(environ) as started:
        yield started


def shown(environ: Environ, place: Path | str, *words: str) -> str:
    done = call(environ, "keys", "--limits", *words, SSH_AUTH_SOCK=str(place))
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def told(environ: Environ, place: Path | str) -> dict[str, Any]:
    return dict(json.loads(shown(environ, place, "--json")))


def add_all(place: str, home: Path) -> None:
    """Keys with every limit, and one without."""
    with pageantry.connect(place) as client:
        client.add(ed25519_key(1), "free")
        client.add(ed25519_key(2), "tied", [Lifetime(2 * 3600 + 59), MaxSign(2), Confirm(), PATH])
        client.add(ed25519_key(3), "last", [MaxSign(1), Lifetime(100)])
        openssh(home / "key", 4, PASSPHRASE)
        contents = AddEncrypted((home / "key").read_bytes(), "sealed", b"").encode()
        client.extension(ADD_ENCRYPTED, contents)


def test_every_limit_is_shown_below_its_key(environ: Environ, agent: Served, home: Path) -> None:
    add_all(agent.place, home)
    lines = shown(environ, agent.place).splitlines()
    keys = [f"{number}  ED25519  256  {ed25519_key(number).public.fingerprint()}" for number in range(1, 5)]
    assert lines[3].strip() == "for 2 h more"
    assert lines[8].strip().startswith("for 1 min ")
    assert [line.strip() for line in lines] == [
        f"{keys[0]}  free",
        f"{keys[1]}  tied",
        "asks before each use",
        lines[3].strip(),
        "for 2 more signatures",
        "from this computer to gate.example",
        "from gate.example to bob@inner.example",
        f"{keys[2]}  last",
        lines[8].strip(),
        "for 1 more signature",
        f"{keys[3]}  sealed",
        "encrypted: asks for its passphrase when it is used",
    ]


def test_every_limit_is_told_to_machines(environ: Environ, agent: Served, home: Path) -> None:
    add_all(agent.place, home)
    found = told(environ, agent.place)
    assert found["connections"] == []
    free, tied, last, sealed = found["keys"]
    assert set(free) == {
        "type", "bits", "fingerprint", "comment", "public", "agent",
        "seconds_left", "signatures_left", "confirm", "encrypted", "clear", "destinations",
    }  # fmt: skip
    assert (free["seconds_left"], free["signatures_left"], free["destinations"]) == (None, None, [])
    assert [key["confirm"] for key in found["keys"]] == [False, True, False, False]
    assert [(key["encrypted"], key["clear"]) for key in found["keys"]] == [(False, True)] * 3 + [(True, False)]
    assert 7200 < tied["seconds_left"] <= 7259
    assert (tied["signatures_left"], last["signatures_left"], sealed["signatures_left"]) == (2, 1, None)
    assert tied["destinations"] == [
        {"from": "this computer", "to": "gate.example"},
        {"from": "gate.example", "to": "bob@inner.example"},
    ]


def test_who_is_connected_is_shown_with_the_way_it_came(environ: Environ, agent: Served, home: Path) -> None:
    (home / ".ssh").mkdir()
    (home / ".ssh" / "known_hosts").write_text(f"gate.example {HOSTS[0].public.line()}\n")
    program = os.path.basename(os.path.realpath(sys.executable))
    with (
        pageantry.connect(agent.place) as here,
        pageantry.connect(agent.place) as there,
        pageantry.connect(agent.place) as nowhere,
    ):
        here.add(ed25519_key(1), "free")
        there.extension(SessionBind.name, binding(HOSTS[0], b"one", True))
        there.extension(SessionBind.name, binding(HOSTS[1], b"two", False))
        with pytest.raises(Refused):
            nowhere.extension(SessionBind.name, b"nonsense")
        assert shown(environ, agent.place).splitlines()[1:] == [
            "connections",
            f"  {program} (process {os.getpid()})",
            f"  {program} (process {os.getpid()})",
            f"       over gate.example ({GATE})",
            f"       to log in at the host with the key {INNER}",
            f"  {program} (process {os.getpid()})",
            "       over a host that did not prove which it is",
        ]
        found = told(environ, agent.place)
    assert {(one["pid"], os.path.basename(one["program"])) for one in found["connections"]} == {(os.getpid(), program)}
    assert [one["proven"] for one in found["connections"]] == [True, True, False]
    assert [one["hops"] for one in found["connections"]] == [
        [],
        [
            {"host_key": HOSTS[0].public.fingerprint(), "forwarding": True},
            {"host_key": HOSTS[1].public.fingerprint(), "forwarding": False},
        ],
        [],
    ]


def test_an_agent_without_keys_is_said_to_have_none(environ: Environ, agent: Served) -> None:
    done = call(environ, "keys", "--limits", SSH_AUTH_SOCK=agent.place)
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr == f"unix:{agent.place} holds no keys\n"


def test_an_agent_that_is_locked_tells_nothing(environ: Environ, agent: Served) -> None:
    with pageantry.connect(agent.place) as client:
        client.lock(b"sesame")
    done = call(environ, "keys", "--limits", SSH_AUTH_SOCK=agent.place)
    assert failed(done) == f"unix:{agent.place} does not tell its keys' limits"
    assert "unless it is locked" in done.stderr


class _Later(Keyring):
    """An agent of ours that says more than is known now."""

    def open(self, *_: object) -> Keyring:
        return self

    def extension(self, name: str, data: bytes = b"") -> bytes:
        return super().extension(name, data) + b"more" * (name == REPORT)


def test_an_agent_of_a_later_version_is_said_to_be_one(environ: Environ) -> None:
    with _Later() as later, pageantry.exposed(later) as place:
        said = failed(call(environ, "keys", "--limits", SSH_AUTH_SOCK=place))
    assert "in a form that is not known" in said


def test_key_files_have_no_limits_to_tell(environ: Environ, home: Path) -> None:
    openssh(home / "key", 1)
    said = failed(call(environ, "keys", "--limits", "--agent", f"keys:{home}/key"))
    assert said == f"keys:{home}/key does not tell its keys' limits"


def test_public_keys_have_none_either(environ: Environ) -> None:
    done = call(environ, "keys", "--public", "--limits")
    assert failed(done, 2).startswith("--public and --limits exclude each other")


# Real agents, and real clients of ours


@pytest.mark.interop
def test_openssh_s_agent_is_said_to_tell_none(environ: Environ, home: Path) -> None:
    with stock_agent(home) as place:
        done = call(environ, "keys", "--limits", SSH_AUTH_SOCK=str(place))
    assert failed(done) == f"unix:{place} does not tell its keys' limits"


@pytest.mark.interop
def test_pageant_tells_which_keys_are_encrypted(environ: Environ, home: Path) -> None:
    keys = [home / f"{number}.ppk" for number in range(1, 4)]
    for seed, path in enumerate(keys, 1):
        putty(path, seed, PASSPHRASE if seed > 1 else "", path.name)
    with real_pageant(home) as place:
        for words in [keys[0], keys[2]], ["--encrypted", *keys[1:]]:  # the last one in both ways
            done = call(environ, "add", *words, given=PASSPHRASE, SSH_AUTH_SOCK=str(place))
            assert done.returncode == 0, done.stderr
        lines = [line.strip() for line in shown(environ, place).splitlines()]
        found = told(environ, place)
    below = {line.split()[-1]: more for line, more in zip(lines, [*lines[1:], ""], strict=True) if "ED25519" in line}
    assert "ED25519" in below["1.ppk"] or not below["1.ppk"]
    assert below["2.ppk"] == "encrypted: asks for its passphrase when it is used"
    assert below["3.ppk"] == "encrypted, and open now"
    states = {key["comment"]: (key["encrypted"], key["clear"]) for key in found["keys"]}
    assert states == {"1.ppk": (False, True), "2.ppk": (True, False), "3.ppk": (True, True)}
    assert {key["seconds_left"] for key in found["keys"]} == {None}
    assert found["connections"] == []


@pytest.mark.interop
def test_what_ssh_add_limits_a_key_to_is_shown(environ: Environ, agent: Served, home: Path) -> None:
    openssh(home / "key", 1)
    (home / "key").chmod(0o600)
    known = "".join(f"{name} {host.public.line()}\n" for name, host in zip(("gate", "inner"), HOSTS, strict=True))
    (home / "hosts").write_text(known)
    limits = ["-c", "-t", "3600", "-H", str(home / "hosts"), "-h", "gate", "-h", "gate>bob@inner"]
    added = ssh_add(Path(agent.place), *limits, str(home / "key"))
    assert added.returncode == 0, added.stderr
    (key,) = told(environ, agent.place)["keys"]
    assert key["confirm"]
    assert 3500 < key["seconds_left"] <= 3600
    ways = [{"from": "this computer", "to": "gate"}, {"from": "gate", "to": "bob@inner"}]
    assert key["destinations"] == ways


def test_who_has_left_is_not_shown(environ: Environ, agent: Served) -> None:
    program = "import socket, sys; client = socket.socket(socket.AF_UNIX); client.connect(sys.argv[1]); input()"
    with subprocess.Popen([sys.executable, "-c", program, agent.place], stdin=subprocess.PIPE) as client:
        wait_for(lambda: told(environ, agent.place)["connections"], "it is not connected")
        assert [one["pid"] for one in told(environ, agent.place)["connections"]] == [client.pid]
        client.kill()
    wait_for(lambda: not told(environ, agent.place)["connections"], "it is still connected")


# Times

_SIZES = {"d": 86400, "h": 3600, "min": 60, "s": 1}
_UNITS = list(_SIZES)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (59, "59 s"), (60, "1 min"), (7199, "1 h 59 min"), (7205, "2 h"), (86400 + 7200, "1 d 2 h")],
)
def test_a_time_is_said_as_people_say_it(seconds: int, text: str) -> None:
    assert duration(seconds) == text


@given(st.integers(0, 2**32 - 1))
def test_a_time_is_said_in_two_units_and_is_never_too_long(seconds: int) -> None:
    words = duration(seconds).split()
    counts, units = [int(word) for word in words[::2]], words[1::2]
    first = _UNITS.index(units[0])
    assert units in (_UNITS[first : first + 1], _UNITS[first : first + 2])
    assert all(counts) or (counts, units) == ([0], ["s"])
    least = _UNITS[min(first + 1, 3)]
    assert 0 <= seconds - sum(n * _SIZES[unit] for n, unit in zip(counts, units, strict=True)) < _SIZES[least]
    if first:
        assert seconds < _SIZES[_UNITS[first - 1]]
