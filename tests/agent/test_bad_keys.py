"""Keys that are none, keys with others' certificates, and limits that cannot be kept: nothing of them is held."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from functools import partial

import pytest

from pageantry import PrivateKey
from pageantry.extensions import REPORT, Report
from pageantry.keyring import Keyring
from pageantry.messages import (
    AddIdentity,
    Extension,
    ExtensionResponse,
    Failure,
    IdentitiesAnswer,
    Message,
    RequestIdentities,
    SignRequest,
    SignResponse,
    Success,
)
from pageantry.wire import Reader, Writer

from ..exposure.upstream import connected
from ..hosts import certificate, ed25519_key, rsa_key
from ..keyring.keys import made
from .people import asked, serves_others
from .requests import HOST, KEY, Parts, certified, constraint_parts, key_parts, number, string

P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
HUGE = 1 << 1_900_000


def mpint(value: int) -> bytes:
    return bytes(Writer().mpint(value))


def rsa_of(bits: int, e: int = 65537, *, odd: int = 1) -> Parts:
    """A key of factors that are no primes, in which everything else is as it should be."""
    numbers = random.Random(bits)
    while True:
        p, q = (numbers.getrandbits(bits // 2) | (1 << (bits // 2 - 1)) | 1 for _ in range(2))
        p += odd - 1
        try:
            fields = p * q, e, pow(e, -1, (p - 1) * (q - 1)), pow(q, -1, p), p, q
        except ValueError:
            continue
        return (string("ssh-rsa"), *map(mpint, fields))


#: What becomes of n, e, d, iqmp, p and q.
RSA: dict[str, Callable[[int, int, int, int, int, int], tuple[int, ...]]] = {
    "p times q is not n": lambda n, e, d, i, p, q: (n + 2, e, d, i, p, q),
    "p is another's": lambda n, e, d, i, p, q: (n, e, d, i, p + 2, q),
    "p and q the other way round": lambda n, e, d, i, p, q: (n, e, d, i, q, p),
    "p is q": lambda n, e, d, i, p, q: (p * p, e, pow(e, -1, p * (p - 1)), 1, p, p),
    "p is 0": lambda n, e, d, i, p, q: (n, e, d, i, 0, q),
    "p is 1": lambda n, e, d, i, p, q: (n, e, d, 1, 1, n),
    "p is n": lambda n, e, d, i, p, q: (n, e, d, 1, n, 1),
    "iqmp is wrong": lambda n, e, d, i, p, q: (n, e, d, i + 1, p, q),
    "iqmp is beyond p": lambda n, e, d, i, p, q: (n, e, d, i + p, p, q),
    "iqmp is huge": lambda n, e, d, i, p, q: (n, e, d, i + p * (HUGE >> 1_500), p, q),
    "d is wrong": lambda n, e, d, i, p, q: (n, e, d + 2, i, p, q),
    "d is 0": lambda n, e, d, i, p, q: (n, e, 0, i, p, q),
    "d is beyond n": lambda n, e, d, i, p, q: (n, e, d + (p - 1) * (q - 1) * 4, i, p, q),
    "d is huge": lambda n, e, d, i, p, q: (n, e, HUGE, i, p, q),
    "e is even": lambda n, e, d, i, p, q: (n, 65536, d, i, p, q),
    "e is 1": lambda n, e, d, i, p, q: (n, 1, 1, i, p, q),
    "e is beyond n": lambda n, e, d, i, p, q: (n, e + (p - 1) * (q - 1) * 4, d, i, p, q),
    "e is huge": lambda n, e, d, i, p, q: (n, e + (p - 1) * (q - 1) * (1 << 1_000_000), d, i, p, q),
    "n is huge": lambda n, e, d, i, p, q: (HUGE + 1, e, d, i, p, q),
    "all is huge": lambda n, e, d, i, p, q: tuple((1 << 340_000) + one for one in (n, e, d, i, p, q)),
}

#: What becomes of p, q, g, y and x.
DSA: dict[str, Callable[[int, int, int, int, int], tuple[int, ...]]] = {
    "x is 0": lambda p, q, g, y, x: (p, q, g, y, 0),
    "x is q": lambda p, q, g, y, x: (p, q, g, y, q),
    "x is beyond q": lambda p, q, g, y, x: (p, q, g, y, x + q),
    "x is huge": lambda p, q, g, y, x: (p, q, g, y, HUGE),
    "y is another's": lambda p, q, g, y, x: (p, q, g, y ^ 2, x),
    "y is beyond p": lambda p, q, g, y, x: (p, q, g, y + p, x),
    "y is 1": lambda p, q, g, y, x: (p, q, g, 1, x),
    "g is 0": lambda p, q, g, y, x: (p, q, 0, y, x),
    "g is 1": lambda p, q, g, y, x: (p, q, 1, y, x),
    "g is beyond p": lambda p, q, g, y, x: (p, q, g + p, y, x),
    "g is of another order": lambda p, q, g, y, x: (p, q, p - 1, y, x),
    "p is even": lambda p, q, g, y, x: (p - 1, q, g, y, x),
    "p is huge": lambda p, q, g, y, x: (HUGE + 1, q, g, y, x),
    "q is short": lambda p, q, g, y, x: (p, 3, g, y, 1),
    "q is long": lambda p, q, g, y, x: (p, q << 100, g, y, x),
    "q is no prime": lambda p, q, g, y, x: (p, q + 1, g, y, x),
}

#: What becomes of the point and of d.
ECDSA: dict[str, Callable[[bytes, int], tuple[bytes, int]]] = {
    "the point is off the curve": lambda point, d: (point[:-1] + bytes((point[-1] ^ 1,)), d),
    "the point is beyond the field": lambda point, d: (b"\4" + b"\xff" * 64, d),
    "the point is all zeros": lambda point, d: (b"\4" + bytes(64), d),
    "the point is at infinity": lambda point, d: (b"\0", d),
    "the point is compressed": lambda point, d: (b"\2" + point[1:33], d),
    "there is no point": lambda point, d: (b"", d),
    "d is 0": lambda point, d: (point, 0),
    "d is another's": lambda point, d: (point, d ^ 1),
    "d is the order": lambda point, d: (point, P256_ORDER),
    "d is huge": lambda point, d: (point, HUGE),
}


def ecdsa(change: Callable[[bytes, int], tuple[bytes, int]]) -> Parts:
    curve, point, d = made("ecdsa-sha2-nistp256").fields
    assert isinstance(point, bytes)
    assert isinstance(d, int)
    point, d = change(point, d)
    return string("ecdsa-sha2-nistp256"), string(bytes(curve)), string(point), mpint(d)


def edwards(kind: str, *, strange: bool = False, halves: int = 1) -> Parts:
    """A key whose public half is another's, or stands behind its seed more or less often than once."""
    point, secret = made(kind).fields
    assert isinstance(point, bytes)
    assert isinstance(secret, bytes)
    public = bytes(reversed(point)) if strange else point
    return string(kind), string(public), string(secret[: len(point)] + public * halves)


def changed(kind: str, change: Callable[..., tuple[int, ...]]) -> Parts:
    return (string(kind), *map(mpint, change(*made(kind).fields)))


def announced(certificate_: bytes, key: PrivateKey, kind: str = "") -> Parts:
    """A key that comes with this for a certificate."""
    mine = certified(key)
    return (string(kind or mine.public.type), string(certificate_), *key_parts(mine)[2:])


MINE = certified(KEY).public
BAD: dict[str, Callable[[], Parts]] = {
    **{f"RSA: {name}": partial(changed, "ssh-rsa", change) for name, change in RSA.items()},
    **{f"DSA: {name}": partial(changed, "ssh-dss", change) for name, change in DSA.items()},
    **{f"ECDSA: {name}": partial(ecdsa, change) for name, change in ECDSA.items()},
    "RSA: of 6 bits": lambda: rsa_of(6, 7),
    "RSA: of 1,000 bits": lambda: rsa_of(1_000),
    "RSA: of 17,000 bits": lambda: rsa_of(17_000),
    "RSA: n is negative": lambda: (string("ssh-rsa"), string(b"\xff" * 256), *key_parts(made("ssh-rsa"))[2:]),
    "ECDSA: another curve's name": lambda: (string("ecdsa-sha2-nistp384"), *key_parts(made("ecdsa-sha2-nistp256"))[1:]),
    "Ed25519: another's public half": lambda: edwards("ssh-ed25519", strange=True),
    "Ed25519: no public half behind the seed": lambda: edwards("ssh-ed25519", halves=0),
    "Ed25519: one half too many": lambda: edwards("ssh-ed25519", halves=2),
    "Ed448: another's public half": lambda: edwards("ssh-ed448", strange=True),
    "Ed448: no public half behind the seed": lambda: edwards("ssh-ed448", halves=0),
    "of a type that nobody knows": lambda: (string("ssh-unknown"), string(b"public"), string(b"private")),
    "of no type": lambda: (string(""), *key_parts(KEY)[1:]),
    "a public key": lambda: (string("ssh-ed25519"), string(KEY.public.blob)),
    "another's certificate": lambda: announced(MINE.blob, HOST),
    "a plain key for a certificate": lambda: announced(KEY.public.blob, KEY),
    "a certificate of another type": lambda: announced(certified(made("ssh-rsa")).public.blob, KEY),
    "a certificate of another type for RSA": lambda: announced(MINE.blob, made("ssh-rsa")),
    "another RSA key's certificate": lambda: announced(certified(rsa_key(1024)).public.blob, made("ssh-rsa")),
    "another DSA key's x": lambda: (*key_parts(certified(made("ssh-dss")))[:2], mpint(12345)),
    "another ECDSA key's d": lambda: (*key_parts(certified(made("ecdsa-sha2-nistp256")))[:2], mpint(12345)),
    "a certificate that is cut": lambda: announced(MINE.blob[:-40], KEY),
    "a certificate with something behind it": lambda: announced(MINE.blob + b"\0", KEY),
    "no certificate": lambda: announced(b"", KEY),
    "nonsense for a certificate": lambda: announced(b"\xff" * 100_000, KEY),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_no_key_is_refused_and_not_held(address: str, name: str) -> None:
    request = b"\x11" + b"".join(BAD[name]()) + string("bad")
    with connected(address) as client:
        assert asked(client, request) == Failure()
        assert asked(client, RequestIdentities()) == IdentitiesAnswer(())
    serves_others(address)


#: Keys of which only costly mathematics shows that they are none; OpenSSH's agent takes them, too.
DOUBTFUL: dict[str, Callable[[], Parts]] = {
    "RSA: no primes": lambda: rsa_of(2048),
    "RSA: p is even": lambda: rsa_of(2048, odd=0),
    "ECDSA: d is beyond the order": lambda: ecdsa(lambda point, d: (point, d + P256_ORDER)),
}


@pytest.mark.parametrize("name", DOUBTFUL)
def test_what_can_hardly_be_told_from_a_key_harms_nobody(address: str, said: list[str], name: str) -> None:
    parts = DOUBTFUL[name]()
    blob = PrivateKey.read(Reader(b"".join(parts))).public.blob
    with connected(address) as client:
        added = asked(client, b"\x11" + b"".join(parts) + string("doubtful"))
        assert isinstance(added, (Success, Failure))
        for flags in (0, 2, 4):
            signed = asked(client, SignRequest(blob, b"data", flags))
            assert isinstance(signed, (SignResponse, Failure))
            if added == Failure():
                assert signed == Failure()
        assert isinstance(asked(client, RequestIdentities()), IdentitiesAnswer)
    assert all("\n" not in line for line in said)
    serves_others(address)


# Limits


def constrained(*limits: bytes) -> bytes:
    return b"\x19" + b"".join(key_parts(KEY)) + string("me") + b"".join(limits)


LIFETIME, CONFIRM, MAXSIGN, DESTINATION = constraint_parts()


@pytest.mark.parametrize(
    "limits",
    [
        (LIFETIME, LIFETIME),
        (CONFIRM, CONFIRM),
        (CONFIRM, LIFETIME, CONFIRM),
        (MAXSIGN, MAXSIGN),
        (DESTINATION, DESTINATION),
        (LIFETIME, b"\4", CONFIRM),
        (LIFETIME, b"\0", CONFIRM),
        (LIFETIME, b"\xfe" + number(5), CONFIRM),
        (LIFETIME, b"\xff" + string("any@example.org"), CONFIRM),
        (LIFETIME, b"\xff" + string("any@example.org") + string("details"), CONFIRM),
        (LIFETIME, b"\xff" + string(""), CONFIRM),
        (LIFETIME, b"\xff" + string(b"\xff\0" * 50_000), CONFIRM),
        (b"\xff" + string("sk-provider@openssh.com") + string("internal"),),
        (b"\xff" + string("sk-provider@openssh.com") + string(b"\0/\xff"),),
        (b"\xff" + string("associated-certs-v00@openssh.com") + b"\0" + string(""),),
        (b"\1" + number(0),),
        (b"\3" + number(0),),
        (b"\1\0\0\0",),
        (CONFIRM * 2_000,),
    ],
    ids=lambda limits: b"".join(limits)[:40].hex(),
)
def test_limits_that_are_not_known_or_given_twice_fail_the_whole_request(
    address: str, limits: tuple[bytes, ...]
) -> None:
    with connected(address) as client:
        assert asked(client, constrained(*limits)) == Failure()
        assert asked(client, RequestIdentities()) == IdentitiesAnswer(())
    serves_others(address)


def hop_of(user: bytes = b"", host: bytes = b"", reserved: bytes = b"", keys: bytes = b"") -> bytes:
    return string(string(user) + string(host) + string(reserved) + keys)


HERE = hop_of()
THERE_KEY = string(HOST.public.blob) + b"\0"
THERE = hop_of(host=b"gate", keys=THERE_KEY)


def pair(origin: bytes = HERE, target: bytes = THERE, behind: bytes = string("")) -> bytes:
    return string(origin + target + behind)


def malformed() -> Iterator[bytes]:
    """The contents of restrict-destination that say nothing, or something that nobody knows."""
    whole = pair()
    for end in range(1, len(whole)):
        yield string(whole[:end])
        yield string(pair() + whole[:end])
    for wrong in (
        pair(behind=b""),
        pair(behind=string("reserved")),
        pair(behind=string("") + b"\0"),
        pair(behind=string("") * 2),
        pair(origin=hop_of(user=b"me")),
        pair(origin=hop_of(host=b"here")),
        pair(origin=hop_of(keys=THERE_KEY)),
        pair(origin=hop_of(reserved=b"x")),
        pair(target=hop_of()),
        pair(target=hop_of(host=b"gate")),
        pair(target=hop_of(keys=THERE_KEY)),
        pair(target=hop_of(host=b"gate", keys=THERE_KEY, reserved=b"x")),
        pair(target=hop_of(host=b"ga\0te", keys=THERE_KEY)),
        pair(target=hop_of(user=b"b\0b", host=b"gate", keys=THERE_KEY)),
        pair(target=hop_of(host=b"gate", keys=string("nonsense") + b"\0")),
        pair(target=hop_of(host=b"gate", keys=string("") + b"\0")),
        pair(target=hop_of(host=b"gate", keys=string(string("unknown@example.org") + b"x") + b"\0")),
        pair(target=hop_of(host=b"gate", keys=THERE_KEY + string(HOST.public.blob))),
        pair(target=hop_of(host=b"gate", keys=THERE_KEY * 1_025)),
        pair() * 1_025,
        string("") * 1_025,
        b"\xff" * 200_000,
    ):
        yield string(wrong)
    yield b""
    yield number(2**32 - 1) + whole
    yield number(len(whole) + 1) + whole
    yield string(whole) + b"\xff"


def test_destinations_that_are_malformed_in_any_way_fail_the_whole_request(address: str) -> None:
    name = b"\xff" + string("restrict-destination-v00@openssh.com")
    with connected(address) as client:
        assert asked(client, constrained(name + string(pair()))) == Success()
        keys = asked(client, RequestIdentities())
        assert asked(client, b"\x13") == Success()
        for wrong in malformed():
            assert asked(client, constrained(name + wrong)) == Failure(), wrong[:200]
        assert asked(client, RequestIdentities()) == IdentitiesAnswer(()) != keys
    serves_others(address)


def test_names_of_any_bytes_but_zeros_are_taken_and_told(address: str) -> None:
    name = b"\xff" + string("restrict-destination-v00@openssh.com")
    odd = b"\xff\xed\xa0\x80\x1b[2J" * 1_000
    target = hop_of(user=odd, host=odd, keys=THERE_KEY)
    with connected(address) as client:
        assert asked(client, constrained(name + string(pair(target=target)))) == Success()
        reported = asked(client, Extension(REPORT))
        assert isinstance(reported, ExtensionResponse)
        assert odd in Report.decode(reported.contents).keys[0].destinations
        assert asked(client, SignRequest(KEY.public.blob, b"data")) == Failure()
    serves_others(address)


def test_a_lifetime_of_all_there_can_be_is_kept(address: str, keyring: Keyring) -> None:
    with connected(address) as client:
        assert asked(client, constrained(b"\1" + number(2**32 - 1))) == Success()
        assert isinstance(asked(client, SignRequest(KEY.public.blob, b"data")), SignResponse)
        reported = asked(client, Extension(REPORT))
        assert isinstance(reported, ExtensionResponse)
        assert Report.decode(reported.contents).keys[0].seconds_left > 2**32 - 1_000
        assert asked(client, constrained(b"\3" + number(2**32 - 1))) == Success()
        assert isinstance(asked(client, SignRequest(KEY.public.blob, b"data")), SignResponse)
    keeper = keyring._common.holding._keeper
    assert keeper
    assert keeper.is_alive()


@pytest.mark.parametrize("valid", [(0, 0), (2**64 - 1, 2**64 - 1), (2**64 - 1, 0), (0, 2**64 - 1)])
def test_a_certificate_of_any_time_and_for_any_names_is_held_as_it_is(address: str, valid: tuple[int, int]) -> None:
    names = ("\udcff\0", "x" * 50_000, "")
    certificate_ = certificate(KEY.public, ed25519_key(9), names, valid=valid, kind=2**32 - 1, key_id="\0\udcfe")
    key = KEY.certified(certificate_)
    with connected(address) as client:
        assert asked(client, AddIdentity(key, "\0\udcff")) == Success()
        listed: Message = asked(client, RequestIdentities())
        assert listed == IdentitiesAnswer(((certificate_.blob, b"\0\xff"),))
        assert isinstance(asked(client, SignRequest(certificate_.blob, b"data")), SignResponse)
    serves_others(address)
