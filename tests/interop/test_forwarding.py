"""Session-binds and destination constraints: what we decide, against what OpenSSH's agent does."""

from __future__ import annotations

import random
import re
import subprocess
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Self

import pytest

import pageantry
from pageantry import PublicKey, forwarding
from pageantry.client import Client
from pageantry.constraints import Hop, HostKey, RestrictDestination
from pageantry.errors import Refused, WireError
from pageantry.forwarding import MAX_BINDS, MAX_SESSION_ID
from pageantry.keys.files import read as read_key
from pageantry.keys.private import PrivateKey
from pageantry.keys.signatures import RSA_SHA2_512, sign
from pageantry.keys.sshsig import to_be_signed
from pageantry.messages import (
    AddIdentityConstrained,
    Extension,
    Message,
    RemoveIdentity,
    SessionBind,
    SignRequest,
    SignResponse,
    Success,
)

from ..hosts import (
    binding,
    certificate,
    certified_hop,
    ecdsa_key,
    ed25519_key,
    hop,
    rsa_key,
    security_key,
    strings,
    userauth,
)
from .conftest import program

pytestmark = pytest.mark.interop

CASES = 100  # for each seed
USERS = ("", "", "me", "m*", "*", "?e", "you", "**m?", "mee", "*e*")
AUTHORITIES = (ed25519_key(1), rsa_key(), ecdsa_key(3))
KEYS = (
    ed25519_key(100),
    rsa_key(),
    ecdsa_key(101),
    ed25519_key(102).certified(certificate(ed25519_key(102).public, AUTHORITIES[0], kind=1)),
    rsa_key().certified(certificate(rsa_key().public, AUTHORITIES[0], kind=1)),
)


class Host:
    """A key, what is shown of it, and the name that stands in limits."""

    def __init__(self, key: PrivateKey, name: str, shown: PublicKey | None = None) -> None:
        self.key, self.name, self.shown = key, name, shown or key.public

    def hop(self, user: str = "") -> Hop:
        """What the host is to be known by."""
        if self.shown.certificate is None:
            return hop(self.name, self.shown, user=user)
        return certified_hop(self.name, PublicKey(self.shown.certificate.authority), user=user)

    def wrong_hop(self, chance: random.Random) -> Hop:
        """Something that comes near it; for a certificate it may still be right."""
        entries = self.hop().keys
        return chance.choice((
            Hop("", self.name, tuple(HostKey(one.blob, not one.is_ca) for one in entries)),
            Hop("", self.name, (HostKey(self.shown.blob, chance.random() < 0.5),)),
            hop(self.name, self.key.public),
            certified_hop(self.name, chance.choice(AUTHORITIES).public),
            Hop("", chance.choice(("A", "a.exampl", "b", "a,b")), entries),
            hop(self.name, ed25519_key(7).public),
        ))  # fmt: skip


def certified(seed: int, name: str, principals: tuple[str, ...] = ("a", "a.example"), **other: object) -> Host:
    key = ed25519_key(seed)
    authority = other.pop("authority", AUTHORITIES[0])
    return Host(key, name, certificate(key.public, authority, principals, **other))  # type: ignore[arg-type]


HOSTS = (
    Host(ed25519_key(10), "ten"),
    Host(ed25519_key(11), "eleven"),
    Host(ecdsa_key(12), "twelve"),
    Host(rsa_key(), "thirteen"),
    certified(20, "a"),
    certified(21, "a.example", authority=AUTHORITIES[1]),
    certified(22, "a", authority=AUTHORITIES[2], extensions=strings("an extension", "")),
    certified(23, "a", ("b", "a", "c")),
    certified(24, "a", authority=security_key(25)),
    Host(security_key(14), "fourteen"),
)
#: Hosts whose certificates are not good enough.
DUBIOUS = (
    certified(30, "a", valid=(0, 2**30)),
    certified(31, "a", valid=(2**40, 2**41)),
    certified(32, "a", kind=1),
    certified(33, "a", critical=strings("an option", "")),
    certified(34, "a", authority=AUTHORITIES[1], flags=0),
    certified(35, "b"),
)


@pytest.fixture
def local(fresh_agent: Path) -> Iterator[Client]:
    """A connection to OpenSSH's agent that is bound to nothing."""
    with pageantry.connect(str(fresh_agent)) as client:
        assert isinstance(client, Client)
        yield client


class Connection:
    """A connection to OpenSSH's agent, and what we think of it."""

    def __init__(self, address: str) -> None:
        client = pageantry.connect(address)
        assert isinstance(client, Client)
        self._client, self.path = client, forwarding.LOCAL

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *failure: object) -> None:
        self._client.close()

    def bind(self, contents: bytes) -> tuple[bool, bool]:
        """Whether OpenSSH takes a session-bind, and whether we do."""
        theirs = self._does(Extension(SessionBind.name, contents))
        try:
            self.path, ours = self.path.bind(contents), True
        except (Refused, WireError):
            self.path, ours = self.path.attempt(), False
        return theirs, ours

    def sees(self, key: PublicKey) -> bool:
        return key in [identity.key for identity in self._client.identities()]

    def signs(self, key: PublicKey, data: bytes) -> bool:
        return self._client.request(SignRequest(key.blob, data, RSA_SHA2_512).payload())[0] == SignResponse.number

    def replaces(self, key: PrivateKey, limits: RestrictDestination) -> bool:
        return self._does(AddIdentityConstrained(key, "again", (limits,)))

    def removes(self, key: PublicKey) -> bool:
        return self._does(RemoveIdentity(key.blob))

    def _does(self, message: Message) -> bool:
        return self._client.request(message.payload()) == Success().payload()


def may_use(limits: RestrictDestination, path: forwarding.Path, key: PublicKey, data: bytes) -> bool:
    try:
        forwarding.check_use(limits, path, key, data)
    except Refused:
        return False
    return True


def a_chain(chance: random.Random) -> list[tuple[Host, bytes, bool]]:
    """Hosts, sessions and whether for forwarding, most of which can follow each other."""
    chain: list[tuple[Host, bytes, bool]] = []
    length = chance.choice((0, 1, 1, 2, 2, 3, 4))
    for number in range(length):
        host = chance.choice(DUBIOUS if chance.random() < 0.1 else HOSTS)
        session_id = chance.randbytes(chance.choice((0, 20, 32, 64)))
        if chain and chance.random() < 0.2:  # a session that there was before, for the same host or another
            earlier = chance.choice(chain)
            host, session_id = chance.choice((host, earlier[0])), earlier[1]
        last = number == length - 1
        chain.append((host, session_id, chance.random() < (0.35 if last else 0.92)))
    return chain


def some_limits(chance: random.Random, chain: list[tuple[Host, bytes, bool]]) -> RestrictDestination:
    """Most of what this chain takes, and something besides."""

    def known(host: Host | None, user: str = "") -> Hop:
        if host is None:
            return Hop()
        right = host.hop(user)
        if chance.random() < 0.07:
            wrong = host.wrong_hop(chance)
            return Hop(user, wrong.host, wrong.keys)
        if chance.random() < 0.3:
            more = chance.choice(HOSTS).hop().keys
            return Hop(user, right.host, (*more, *right.keys) if chance.random() < 0.5 else (*right.keys, *more))
        return right

    hosts = [None, *(host for host, _, _ in chain)]
    pairs = [
        (known(origin), known(target, chance.choice(USERS)))
        for origin, target in pairwise(hosts)
        if chance.random() < 0.95
    ]
    if chance.random() < 0.5:
        pairs.append((known(hosts[-1]), known(chance.choice(HOSTS))))
    pairs += (
        (known(chance.choice((None, *HOSTS))), known(chance.choice(HOSTS), chance.choice(USERS)))
        for _ in range(chance.choice((0, 0, 1, 2)))
    )
    chance.shuffle(pairs)
    return RestrictDestination(tuple(pairs))


def some_logins(chance: random.Random, key: PublicKey, path: forwarding.Path) -> dict[str, bytes]:
    """What could be asked to be signed, right and wrong in each way by itself."""
    binds = path.binds or (forwarding.Bind(HOSTS[0].shown, b"x" * 32, False),)
    session_id, host = binds[-1].session_id, binds[-1].host_key
    other = chance.choice(HOSTS).shown
    good = userauth(key, session_id, "me", host)
    return {
        "good": good,
        "without a host": userauth(key, session_id, "me"),
        "another user": userauth(key, session_id, chance.choice(("you", "root", "", "m", "mee", "*")), host),
        "another session": userauth(key, binds[0].session_id, "me", host),
        "a longer session": userauth(key, session_id + b"\0", "me", host),
        "no session": userauth(key, b"", "me", host),
        "another host": userauth(key, session_id, "me", other),
        "the first host": userauth(key, session_id, "me", binds[0].host_key),
        "another number": userauth(key, session_id, "me", host, number=51),
        "another service": userauth(key, session_id, "me", host, service="ssh-userauth"),
        "another method": userauth(key, session_id, "me", host, method="password"),
        "another method without a host": userauth(key, session_id, method="hostbased"),
        "a method that names no host": userauth(key, session_id, "me", host, method="publickey"),
        "a method that names one": userauth(key, session_id, method="publickey-hostbound-v00@openssh.com"),
        "no signature": userauth(key, session_id, "me", host, follows=0),
        "more than one": userauth(key, session_id, "me", host, follows=2),
        "another key": userauth(key, session_id, "me", host, blob=other.blob),
        "rsa-sha2-512": userauth(key, session_id, "me", host, algorithm="rsa-sha2-512"),
        "rsa-sha2-256-cert": userauth(key, session_id, "me", host, algorithm="rsa-sha2-256-cert-v01@openssh.com"),
        "ssh-rsa": userauth(key, session_id, "me", host, algorithm="ssh-rsa"),
        "ssh-ed25519": userauth(key, session_id, "me", host, algorithm="ssh-ed25519"),
        "an unknown algorithm": userauth(key, session_id, "me", host, algorithm="rsa"[:2]),
        "something behind it": good + b"\0",
        "a zero byte": userauth(key, session_id, "m\0e", host),
        "cut off": good[: chance.randrange(len(good))],
        "a file": to_be_signed(b"x" * 64, "file"),
        "nothing": b"",
    }


@pytest.mark.parametrize("seed", range(8))
def test_limits_are_those_of_opensshs_agent(fresh_agent: Path, local: Client, seed: int) -> None:
    chance = random.Random(seed)
    tally: Counter[str] = Counter()
    for number in range(CASES):
        chain, key = a_chain(chance), chance.choice(KEYS)
        limits = some_limits(chance, chain)
        local.add(key, "limited", [limits])
        with Connection(str(fresh_agent)) as one:
            case = (seed, number, chain, limits)
            for host, session_id, forwards in chain:
                theirs, ours = one.bind(binding(host.key, session_id, forwards, host.shown))
                tally[f"bound: {ours}"] += 1
                assert ours == theirs, case

            seen = forwarding.may_see(limits, one.path)
            tally[f"seen: {seen}"] += 1
            assert one.sees(key.public) == seen, case
            logins = some_logins(chance, key.public, one.path)
            good = may_use(limits, one.path, key.public, logins["good"])
            for what in logins if good else ("good", *chance.sample(list(logins), 4)):
                ours = may_use(limits, one.path, key.public, logins[what])
                tally[f"signed: {ours}"] += 1
                assert one.signs(key.public, logins[what]) == ours, (what, *case)
            assert one.replaces(key, limits) == seen, case
            assert one.removes(key.public) == seen, case
    assert len(tally) == 6, tally
    assert tally["signed: True"] > CASES / 2  # so that agreement says something
    assert min(tally["seen: True"], tally["seen: False"]) > CASES / 5
    assert tally["bound: False"] > CASES / 20


def test_a_login_is_what_opensshs_agent_takes_for_one(fresh_agent: Path, local: Client) -> None:
    host, key = HOSTS[0], KEYS[0]
    limits = RestrictDestination(((Hop(), host.hop("*")),))
    local.add(key, "limited", [limits])
    good = userauth(key.public, b"x" * 32, "me", host.shown)
    with Connection(str(fresh_agent)) as one:
        assert one.bind(binding(host.key, b"x" * 32, False)) == (True, True)
        signed = []
        for data in (good, *spoilt(good)):
            ours = may_use(limits, one.path, key.public, data)
            assert one.signs(key.public, data) == ours, data
            signed += [data] if ours else []
    assert len(signed) == 1 + 8 * len("me")  # whoever it is, may log in


def test_a_session_bind_is_what_opensshs_agent_takes_for_one(fresh_agent: Path) -> None:
    good = binding(HOSTS[0].key, b"x" * 32, False)
    taken = 0
    for contents in (good, *spoilt(good)):
        with Connection(str(fresh_agent)) as one:
            theirs, ours = one.bind(contents)
            assert ours == theirs, contents
            taken += ours
    assert taken == 1 + 8  # whatever it is for


def spoilt(data: bytes) -> Iterator[bytes]:
    """`data` with each bit turned, and cut off at every byte."""
    for place, byte in enumerate(data):
        yield data[:place]
        for bit in range(8):
            yield data[:place] + bytes((byte ^ 1 << bit,)) + data[place + 1 :]


ODD_BINDS = {
    "an empty session": binding(HOSTS[0].key, b"", True),
    "a long session": binding(HOSTS[0].key, b"x" * MAX_SESSION_ID, True),
    "SHA-1": binding(rsa_key(), b"x", True, flags=0),
    "SHA-256": binding(rsa_key(), b"x", True, flags=2),
    "another session's signature": SessionBind(KEYS[0].public.blob, b"x", sign(KEYS[0], b"y"), True).encode(),
    "another key's signature": binding(KEYS[0], b"x", True, shown=ed25519_key(8).public),
    "a certificate for another key": binding(KEYS[0], b"x", True, shown=HOSTS[4].shown),
    "an unknown type of key": binding(KEYS[0], b"x", True, shown=PublicKey(strings("ssh-new", "x"))),
    **{
        what: binding(ed25519_key(40), b"x", True, shown=certificate(ed25519_key(40).public, **made))  # type: ignore[arg-type]
        for what, made in {
            "a user's certificate": {"authority": AUTHORITIES[0], "kind": 1},
            "a certificate of unknown kind": {"authority": AUTHORITIES[0], "kind": 3},
            "a certificate that the authority did not sign": {"authority": AUTHORITIES[0], "signed_by": AUTHORITIES[1]},
            "a certificate by another of its kind": {"authority": AUTHORITIES[0], "signed_by": ed25519_key(9)},
            "a certificate signed with a certificate": {"authority": KEYS[3]},
            "256 principals": {"authority": AUTHORITIES[0], "principals": ("a",) * 256},
            "257 principals": {"authority": AUTHORITIES[0], "principals": ("a",) * 257},
            "a principal with a zero byte": {"authority": AUTHORITIES[0], "principals": ("a\0b",)},
            "a name with a zero byte": {"authority": AUTHORITIES[0], "key_id": "a\0b"},
            "an option without a value": {"authority": AUTHORITIES[0], "critical": strings("an option")},
            "an extension without a value": {"authority": AUTHORITIES[0], "extensions": strings("an extension")},
            "an extension that breaks off": {"authority": AUTHORITIES[0], "extensions": b"\0\0"},
        }.items()
    },
}


def test_odd_session_binds_are_taken_as_opensshs_agent_takes_them(fresh_agent: Path) -> None:
    found = {}
    for what, contents in ODD_BINDS.items():
        with Connection(str(fresh_agent)) as one:
            found[what] = one.bind(contents)
    assert {what for what, (theirs, ours) in found.items() if theirs != ours} == set()
    assert {what for what, (_, ours) in found.items() if ours} == {
        "an empty session", "a long session", "SHA-1", "SHA-256", "a user's certificate", "256 principals",
    }  # fmt: skip


def test_a_connection_is_bound_as_often_as_opensshs_agent_allows(fresh_agent: Path) -> None:
    with Connection(str(fresh_agent)) as one:
        for number in range(MAX_BINDS):
            assert one.bind(binding(HOSTS[0].key, bytes((number,)), True)) == (True, True)
        assert one.bind(binding(HOSTS[0].key, b"\0", True)) == (True, True)
        assert one.bind(binding(HOSTS[0].key, b"one more", True)) == (False, False)


def test_a_certificate_by_ssh_keygen_is_good_where_its_principal_is(
    fresh_agent: Path, local: Client, tmp_path: Path
) -> None:
    keygen = program("ssh-keygen")
    for name in ("authority", "host"):
        subprocess.run([keygen, "-q", "-t", "ed25519", "-N", "", "-f", str(tmp_path / name)], check=True, timeout=60)
    signing = ["-s", str(tmp_path / "authority"), "-h", "-I", "id", "-n", "one.example,two.example"]
    subprocess.run([keygen, "-q", *signing, str(tmp_path / "host.pub")], check=True, timeout=60)
    authority = PublicKey.from_line((tmp_path / "authority.pub").read_text())
    shown = PublicKey.from_line((tmp_path / "host-cert.pub").read_text())
    host, _ = read_key(str(tmp_path / "host")).decrypt()
    signed = {}
    for name in ("one.example", "two.example", "three.example", "one", "TWO.example"):
        limits = RestrictDestination(((Hop(), certified_hop(name, authority)),))
        local.add(KEYS[0], "limited", [limits])
        with Connection(str(fresh_agent)) as one:
            assert one.bind(binding(host, b"x", False, shown)) == (True, True)
            data = userauth(KEYS[0].public, b"x", "me", shown)
            signed[name] = may_use(limits, one.path, KEYS[0].public, data)
            assert one.signs(KEYS[0].public, data) == signed[name]
    assert [name for name, ours in signed.items() if ours] == ["one.example", "two.example"]


def test_a_name_in_limits_may_be_a_pattern_for_principals(fresh_agent: Path, local: Client) -> None:
    told = subprocess.run([program("ssh"), "-V"], capture_output=True, text=True, check=True, timeout=60).stderr
    release = re.search(r"OpenSSH\D*(\d+)\.(\d+)", told)
    if not release or (int(release[1]), int(release[2])) >= (10, 3):
        pytest.skip("since 10.3 OpenSSH takes the principals for patterns, and names as they are")
    key, signed = ed25519_key(40), []
    for principals in (("a.example",), ("b", "c.example"), ("*",), ("a*",), ("a,b",)):
        shown = certificate(key.public, AUTHORITIES[0], principals)
        data = userauth(KEYS[0].public, b"x", "me", shown)
        for name in ("*", "*.example", "?", "a?example", "a.example", "a*e*e", "a", "*,b", "!b"):
            limits = RestrictDestination(((Hop(), certified_hop(name, AUTHORITIES[0].public)),))
            local.add(KEYS[0], "limited", [limits])
            with Connection(str(fresh_agent)) as one:
                assert one.bind(binding(key, b"x", False, shown)) == (True, True)
                ours = may_use(limits, one.path, KEYS[0].public, data)
                assert one.signs(KEYS[0].public, data) == ours, (principals, name)
                signed += [(principals[-1], name)] if ours else []
    assert ("c.example", "*.example") in signed
    assert ("*", "a.example") not in signed
