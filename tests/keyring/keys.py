"""A key of each type."""

from __future__ import annotations

from functools import cache
from typing import Any

from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from pageantry.keys.private import PrivateKey

from ..hosts import ed25519_key, rsa_key

TYPES = (
    "ssh-rsa",
    "ssh-dss",
    "ecdsa-sha2-nistp256",
    "ecdsa-sha2-nistp384",
    "ecdsa-sha2-nistp521",
    "ssh-ed25519",
    "ssh-ed448",
)


@cache
def made(kind: str) -> PrivateKey:
    if kind == "ssh-rsa":
        return rsa_key()
    if kind == "ssh-ed25519":
        return ed25519_key(77)
    if kind == "ssh-ed448":
        edwards = ed448.Ed448PrivateKey.generate()
        point = edwards.public_key().public_bytes_raw()
        return PrivateKey(kind, (point, edwards.private_bytes_raw() + point))
    if kind == "ssh-dss":
        numbers = dsa.generate_private_key(1024).private_numbers()
        shared = numbers.public_numbers.parameter_numbers
        return PrivateKey(kind, (shared.p, shared.q, shared.g, numbers.public_numbers.y, numbers.x))
    if kind == "sk-ssh-ed25519@openssh.com":
        return PrivateKey(kind, (ed25519_key(77).fields[0], b"ssh:", 1, b"handle", b""))
    curve: Any = {"256": ec.SECP256R1(), "384": ec.SECP384R1(), "521": ec.SECP521R1()}[kind[-3:]]
    key = ec.generate_private_key(curve)
    point = key.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    return PrivateKey(kind, (kind[-8:].encode(), point, key.private_numbers().private_value))
