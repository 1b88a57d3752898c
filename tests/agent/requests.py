"""Every request that our agent knows, and some that it does not, in parts: the type byte, then each field."""

from __future__ import annotations

from functools import cache

from pageantry import PrivateKey
from pageantry.constraints import Confirm, Lifetime, MaxSign, RestrictDestination, write_constraints
from pageantry.extensions import (
    ADD_ENCRYPTED,
    ADD_PPK,
    LIST_EXTENDED,
    QUERY,
    REENCRYPT,
    REENCRYPT_ALL,
    REPORT,
)
from pageantry.keys import ppk
from pageantry.keys.private import CERTIFIED_LAYOUTS, PRIVATE_LAYOUTS
from pageantry.messages import SessionBind
from pageantry.wire import Reader, Writer

from ..hosts import certificate, ed25519_key, hop, userauth
from ..hosts import signature as signed
from ..keyring.keys import TYPES, made
from .people import PHRASE

Parts = tuple[bytes, ...]

KEY, HOST = ed25519_key(1), ed25519_key(2)


def string(data: bytes | str) -> bytes:
    return bytes(Writer().string(data.encode() if isinstance(data, str) else data))


def number(value: int) -> bytes:
    return value.to_bytes(4, "big")


def key_parts(key: PrivateKey) -> Parts:
    """The fields of a private key, as `PrivateKey.write` has them."""
    layout = CERTIFIED_LAYOUTS[key.type] if key.certificate else PRIVATE_LAYOUTS[key.type]
    reader = Reader(bytes(key.write(Writer())))
    parts = [string(reader.string())]
    if key.certificate:
        parts.append(string(reader.string()))
    parts += [reader.take(1) if kind == "b" else string(reader.string()) for kind in layout]
    reader.end()
    return tuple(parts)


def certified(key: PrivateKey) -> PrivateKey:
    return key.certified(certificate(key.public, ed25519_key(9), kind=1))


def constraint_parts() -> Parts:
    limits = RestrictDestination(((hop(""), hop("gate", HOST.public)),))
    parts = []
    for one in (Lifetime(3600), Confirm(), MaxSign(100), limits):
        writer = Writer()
        write_constraints(writer, (one,))
        parts.append(bytes(writer))
    return tuple(parts)


def binding_parts() -> Parts:
    signature = signed(HOST, b"session")
    return string(HOST.public.blob), string(b"session"), string(signature), b"\0"


@cache
def all_requests() -> dict[str, Parts]:
    """By name. Those for keys are for `KEY`, or one of each type."""
    blob = string(KEY.public.blob)
    file = ppk.write(ed25519_key(3), "encrypted", PHRASE, 2)
    public = string(ed25519_key(3).public.blob)
    requests = {
        "list": (b"\x0b",),
        "sign": (b"\x0d", blob, string(b"data"), number(0)),
        "sign a login": (b"\x0d", blob, string(userauth(KEY.public, b"session", "bob", HOST.public)), number(0)),
        "remove": (b"\x12", blob),
        "remove all": (b"\x13",),
        "add a token": (b"\x14", string("token"), string("1234")),
        "remove a token": (b"\x15", string("token"), string("1234")),
        "add a token within limits": (b"\x1a", string("token"), string("1234"), *constraint_parts()),
        "lock": (b"\x16", string("secret")),
        "unlock": (b"\x17", string("secret")),
        "add within limits": (b"\x19", *key_parts(KEY), string("me"), *constraint_parts()),
        "session-bind": (b"\x1b", string(SessionBind.name), *binding_parts()),
        QUERY: (b"\x1b", string(QUERY)),
        LIST_EXTENDED: (b"\x1b", string(LIST_EXTENDED)),
        REENCRYPT: (b"\x1b", string(REENCRYPT), public),
        REENCRYPT_ALL: (b"\x1b", string(REENCRYPT_ALL)),
        REPORT: (b"\x1b", string(REPORT)),
        ADD_PPK: (b"\x1b", string(ADD_PPK), string(file)),
        ADD_ENCRYPTED: (b"\x1b", string(ADD_ENCRYPTED), string(file), string("me"), string(b""), *constraint_parts()),
        "an extension that nobody knows": (b"\x1b", string("any@example.org"), b"contents"),
        "a request that nobody knows": (b"\x63", string("contents")),
    }
    for kind in (*TYPES, "sk-ssh-ed25519@openssh.com"):
        requests[f"add {kind}"] = (b"\x11", *key_parts(made(kind)), string("comment"))
        if kind != "ssh-ed448":
            requests[f"add certified {kind}"] = (b"\x11", *key_parts(certified(made(kind))), string("comment"))
    for old in (1, 3, 7, 8, 9):  # SSH-1's
        requests[f"SSH-1's {old}"] = (bytes((old,)), string("contents"))
    return requests
