"""Hosts with keys and certificates, sessions bound to them, and logins there, all put together by hand."""

from __future__ import annotations

from functools import cache
from hashlib import sha256

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from pageantry.constraints import Hop, HostKey
from pageantry.keys.private import PrivateKey
from pageantry.keys.public import CERTIFIED, PublicKey
from pageantry.keys.signatures import RSA_SHA2_512, sign
from pageantry.messages import SessionBind
from pageantry.wire import Reader, Writer

FOR_EVER = 2**64 - 1
HOST_BOUND = "publickey-hostbound-v00@openssh.com"


@cache
def ed25519_key(seed: int) -> PrivateKey:
    secret = seed.to_bytes(32, "big")
    point = ed25519.Ed25519PrivateKey.from_private_bytes(secret).public_key().public_bytes_raw()
    return PrivateKey("ssh-ed25519", (point, secret + point))


@cache
def ecdsa_key(seed: int) -> PrivateKey:
    secret = (1 << 248) + seed  # OpenSSH takes no short ones
    numbers = ec.derive_private_key(secret, ec.SECP256R1()).public_key().public_numbers()
    point = b"\4" + numbers.x.to_bytes(32, "big") + numbers.y.to_bytes(32, "big")
    return PrivateKey("ecdsa-sha2-nistp256", (b"nistp256", point, secret))


@cache
def rsa_key(bits: int = 2048) -> PrivateKey:
    numbers = rsa.generate_private_key(65537, bits).private_numbers()
    n, e = numbers.public_numbers.n, numbers.public_numbers.e
    return PrivateKey("ssh-rsa", (n, e, numbers.d, numbers.iqmp, numbers.p, numbers.q))


@cache
def security_key(seed: int) -> PrivateKey:
    """An sk-* key whose handle is its secret, so that it signs without any device."""
    secret = seed.to_bytes(32, "big")
    point = ed25519.Ed25519PrivateKey.from_private_bytes(secret).public_key().public_bytes_raw()
    return PrivateKey("sk-ssh-ed25519@openssh.com", (point, b"ssh:", 1, secret, b""))


def signature(key: PrivateKey, data: bytes, flags: int = RSA_SHA2_512) -> bytes:
    if not key.public.hardware:
        return sign(key, data, flags)
    touched = b"\1\0\0\0\x2a"  # flags and a counter, by OpenSSH's PROTOCOL.u2f
    secret = ed25519.Ed25519PrivateKey.from_private_bytes(bytes(key.fields[3]))
    blob = secret.sign(sha256(b"ssh:").digest() + touched + sha256(data).digest())
    return bytes(Writer().text(key.type).string(blob).raw(touched))


def strings(*values: str) -> bytes:
    writer = Writer()
    for value in values:
        writer.text(value)
    return bytes(writer)


def certificate(
    key: PublicKey,
    authority: PrivateKey,
    principals: tuple[str, ...] = ("a",),
    *,
    kind: int = 2,
    valid: tuple[int, int] = (0, FOR_EVER),
    critical: bytes = b"",
    extensions: bytes = b"",
    key_id: str = "an id",
    flags: int = RSA_SHA2_512,
    signed_by: PrivateKey | None = None,
) -> PublicKey:
    """A certificate by OpenSSH's PROTOCOL.certkeys, for a host unless `kind` is 1."""
    reader = Reader(key.blob)
    name = {plain: certified for certified, plain in CERTIFIED.items()}[reader.text()]
    writer = Writer().text(name).string(b"nonce").raw(reader.rest()).uint64(77).uint32(kind).text(key_id)
    writer.string(strings(*principals)).uint64(valid[0]).uint64(valid[1]).string(critical).string(extensions)
    writer.string(b"").string(authority.public.blob)
    return PublicKey(bytes(Writer().raw(bytes(writer)).string(signature(signed_by or authority, bytes(writer), flags))))


def binding(
    host: PrivateKey, session_id: bytes, forwarding: bool, shown: PublicKey | None = None, flags: int = RSA_SHA2_512
) -> bytes:
    """The contents of a session-bind with a host, which may show a certificate for its key."""
    return SessionBind((shown or host.public).blob, session_id, signature(host, session_id, flags), forwarding).encode()


def userauth(
    key: PublicKey,
    session_id: bytes,
    user: str = "me",
    host_key: PublicKey | None = None,
    *,
    number: int = 50,
    service: str = "ssh-connection",
    method: str = "",
    follows: int = 1,
    algorithm: str = "",
    blob: bytes = b"",
) -> bytes:
    """What is signed to log in (RFC 4252, section 7); with `host_key` by the method that names the server."""
    writer = Writer().string(session_id).byte(number).text(user).text(service)
    writer.text(method or (HOST_BOUND if host_key else "publickey")).byte(follows)
    writer.text(algorithm or key.type).string(blob or key.blob)
    if host_key:
        writer.string(host_key.blob)
    return bytes(writer)


def hop(name: str, *keys: PublicKey, user: str = "") -> Hop:
    return Hop(user, name, tuple(HostKey(key.blob, False) for key in keys))


def certified_hop(name: str, *authorities: PublicKey, user: str = "") -> Hop:
    return Hop(user, name, tuple(HostKey(key.blob, True) for key in authorities))
