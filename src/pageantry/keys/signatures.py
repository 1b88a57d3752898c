"""Signatures in SSH's form: a string with the algorithm's name, a string with the signature, and what sk-* keys add.

`check_algorithm` looks only at names and shapes, so a client can afford it after every signature. `verify` and
`Signer` do the mathematics, and import `cryptography` for it.

Forms: RFC 4253 (ssh-rsa, ssh-dss), RFC 8332 (rsa-sha2-*), RFC 5656 (ECDSA), RFC 8709 (Ed25519, Ed448), OpenSSH's
PROTOCOL.u2f (sk-*). A certificate signs as its plain key does.
"""

from __future__ import annotations

from ..errors import BadReply, UnsupportedKey, WireError
from ..wire import Reader, Writer

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Final, ParamSpec, TypeVar

    from cryptography.hazmat.primitives.asymmetric import rsa

    from .private import PrivateKey
    from .public import Fields, PublicKey

    _P = ParamSpec("_P")
    _T = TypeVar("_T")

#: The flags of a sign request (RFC 9987, section 5.6.1); `agent.SignFlags` has names for them. 0 is SHA-1.
RSA_SHA2_256: Final = 2
RSA_SHA2_512: Final = 4

#: The longest RSA modulus, in bits, and OpenSSL's own bound: a longer one would only keep the processor busy.
MAX_RSA_BITS: Final = 16384

#: The curve of each ECDSA type, and the hash that goes with it (RFC 5656, section 6.2.1), as `cryptography` names them.
_CURVES = {
    "ecdsa-sha2-nistp256": ("SECP256R1", "SHA256"),
    "ecdsa-sha2-nistp384": ("SECP384R1", "SHA384"),
    "ecdsa-sha2-nistp521": ("SECP521R1", "SHA512"),
    "sk-ecdsa-sha2-nistp256@openssh.com": ("SECP256R1", "SHA256"),
}
_RSA_HASHES = {"ssh-rsa": "SHA1", "rsa-sha2-256": "SHA256", "rsa-sha2-512": "SHA512"}
#: What signs within 0.1 ms.
_QUICK = ("ssh-ed25519", "ecdsa-sha2-nistp256")
_DSA_INTEGER = 20  # bytes of r and of s; RFC 4253, section 6.6 knows no other size


def algorithm(key: PublicKey, flags: int = 0) -> str | None:
    """The name that a signature by `key` under `flags` bears; None for a key of unknown type, where any will do.

    With both RSA flags set it is rsa-sha2-256, which OpenSSH, PuTTY and gpg-agent agree on and no standard says.
    """
    plain = key.plain_type
    if plain == "ssh-rsa" and flags & RSA_SHA2_256:
        return "rsa-sha2-256"
    if plain == "ssh-rsa" and flags & RSA_SHA2_512:
        return "rsa-sha2-512"
    return plain if key.known else None


def check_algorithm(key: PublicKey, flags: int, signature: bytes) -> None:
    """Raise `BadReply` unless `signature` has the form of one by `key` under `flags`. Its truth is not looked at."""
    expected = algorithm(key, flags)
    name = _parse(key, signature)[0]
    if name != expected and expected is not None:
        raise BadReply(
            f"asked for a signature of type {expected}, got one of type {name[:64]!r}",
            "this agent cannot sign that way: use another agent, or another key",
        )


def verify(key: PublicKey, signature: bytes, data: bytes) -> None:
    """Raise `BadReply` unless `signature` is one of `data` by `key`; a certificate's is one by its plain key.

    An RSA key may have signed with any of its three algorithms: `check_algorithm` tells which was wanted. Raises
    `UnsupportedKey` for a key that cannot be checked: of an unknown type, or not a key mathematically.
    """
    if not key.known:
        raise UnsupportedKey(f"signatures by keys of type {key.type} cannot be checked")
    from cryptography.exceptions import InvalidSignature

    name, blob, tail = _parse(key, signature)
    if name not in (_RSA_HASHES if key.plain_type == "ssh-rsa" else (key.plain_type,)):
        raise BadReply(f"signature of type {name[:64]!r} for a key of type {key.type}")
    if key.hardware:
        data = _security_key_data(key, tail, data)
    public = _usable(key.type, _public, key.plain_type, key.fields)
    try:
        _usable(key.type, _verify, public, name, blob, data)
    except UnsupportedKey:
        raise
    except (InvalidSignature, WireError):
        raise BadReply(f"the signature does not match the key {key.fingerprint()} and what was to be signed") from None


class Signer:
    """A private key, ready to sign any number of times; threads may share it.

    That its numbers are a key, and the two halves belong together, is checked here, once. Raises `UnsupportedKey` where
    they do not, and for sk-* keys. ECDSA signatures are deterministic (RFC 6979) where the OpenSSL that `cryptography`
    comes with can do that (3.2 and later), those of all other types are always. DSA is computed in Python, in a time
    that depends on the numbers (see `rfc6979`).
    """

    __slots__ = ("_make", "_type", "public")

    #: the public half of the key, or its certificate
    public: PublicKey

    def __init__(self, key: PrivateKey) -> None:
        self.public = key.public
        self._type = key.type
        if key.public.hardware:
            raise UnsupportedKey(
                f"a {key.type} key signs only in its security key", "add it to OpenSSH's agent instead"
            )
        if not key.public.known:
            raise UnsupportedKey(f"a key of type {key.type} cannot sign here")
        self._make = _usable(key.type, _maker, key)

    def sign(self, data: bytes, flags: int = 0) -> bytes:
        """The signature of `data` in SSH's form, by the algorithm that `algorithm` names.

        Raises `UnsupportedKey` for an RSA key that is too small for the hash that `flags` asks for.
        """
        return _usable(self._type, self._make, data, flags)

    @property
    def quick(self) -> bool:
        """Whether a signature takes a tenth of a millisecond, where others take ten."""
        return self._type in _QUICK

    def check(self) -> None:
        """Raise `UnsupportedKey` unless a signature of this key is one: some false numbers show only there."""
        try:
            verify(self.public, self.sign(b"a trial"), b"a trial")
        except BadReply:
            raise UnsupportedKey(f"{self._type} key whose signatures are none") from None

    def __repr__(self) -> str:
        return f"<Signer {self.public.type} {self.public.fingerprint()}>"


def sign(key: PrivateKey, data: bytes, flags: int = 0) -> bytes:
    """What a `Signer` for `key` makes of `data`; who signs more than once makes one and keeps it. Raises as it does."""
    return Signer(key).sign(data, flags)


def _maker(key: PrivateKey) -> Callable[[bytes, int], bytes]:
    """What makes the signatures of data under flags. Raises ValueError and the like for a key that is none."""
    fields: Any = key.fields
    if key.type == "ssh-rsa":
        return _rsa_maker(key.public, _rsa_private_key(*fields))
    if key.type == "ssh-dss":
        return _dsa_maker(*fields)
    if key.type in _CURVES:
        return _ecdsa_maker(key.type, fields)
    return _edwards_maker(key.type, *fields)


def _rsa_maker(public: PublicKey, private: rsa.RSAPrivateKey) -> Callable[[bytes, int], bytes]:
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import padding

    scheme, size = padding.PKCS1v15(), (private.key_size + 7) // 8
    ways = {name: (_head(name, size), getattr(hashes, digest)()) for name, digest in _RSA_HASHES.items()}

    def make(data: bytes, flags: int) -> bytes:
        head, digest = ways[algorithm(public, flags) or ""]
        return head + private.sign(data, scheme, digest)

    return make


def _dsa_maker(p: int, q: int, g: int, y: int, x: int) -> Callable[[bytes, int], bytes]:
    from . import rfc6979

    _public("ssh-dss", (p, q, g, y))
    if not 0 < x < q or pow(g, q, p) != 1 or pow(g, x, p) != y:
        raise ValueError("the public half does not belong to the private one")
    head = _head("ssh-dss", 2 * _DSA_INTEGER)

    def make(data: bytes, flags: int) -> bytes:
        r, s = rfc6979.sign(p, q, g, x, data)
        return head + r.to_bytes(_DSA_INTEGER, "big") + s.to_bytes(_DSA_INTEGER, "big")

    return make


def _ecdsa_maker(kind: str, fields: Fields) -> Callable[[bytes, int], bytes]:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

    secret: Any = fields[2]
    public = _public(kind, fields)
    private = ec.EllipticCurvePrivateNumbers(secret, public.public_numbers()).private_key()
    digest = getattr(hashes, _CURVES[kind][1])()
    try:
        scheme = ec.ECDSA(digest, deterministic_signing=True)
    except UnsupportedAlgorithm:  # OpenSSL before 3.2
        scheme = ec.ECDSA(digest)
    head = bytes(Writer().text(kind))

    def make(data: bytes, flags: int) -> bytes:
        r, s = decode_dss_signature(private.sign(data, scheme))
        pair = bytes(Writer().mpint(r).mpint(s))
        return head + len(pair).to_bytes(4, "big") + pair

    return make


def _edwards_maker(kind: str, point: bytes, secret: bytes) -> Callable[[bytes, int], bytes]:
    from cryptography.hazmat.primitives.asymmetric import ed448, ed25519

    family: Any = ed448.Ed448PrivateKey if kind == "ssh-ed448" else ed25519.Ed25519PrivateKey
    private = family.from_private_bytes(secret[: len(point)])
    if private.public_key().public_bytes_raw() != point:
        raise ValueError("the public half does not belong to the private one")
    head = _head(kind, 2 * len(point))

    def make(data: bytes, flags: int) -> bytes:
        return head + private.sign(data)  # type: ignore[no-any-return]

    return make


def _head(name: str, size: int) -> bytes:
    """What stands before a signature of `size` bytes."""
    return bytes(Writer().text(name).uint32(size))


def _rsa_private_key(n: int, e: int, d: int, iqmp: int, p: int, q: int) -> rsa.RSAPrivateKey:
    """`cryptography`'s own check tests p and q for being prime, which takes 60 ms with a key of 2048 bits.

    These equations hold for every real key. With a p that is not prime they cannot make a false signature: OpenSSL
    checks each one before it gives it out.
    """
    from cryptography.hazmat.primitives.asymmetric import rsa

    _check_rsa_size(n)
    if max(e, d, iqmp, p, q) > n:  # before any arithmetic, which would take long with numbers of any length
        raise ValueError("a number that is larger than the modulus")
    if min(p, q) < 3 or p * q != n or iqmp * q % p != 1 or not 0 < iqmp < p:
        raise ValueError("the primes do not belong to the modulus")
    if not 0 < d < n or (e * d - 1) % (p - 1) or (e * d - 1) % (q - 1):
        raise ValueError("the exponents do not belong to each other")
    public = rsa.RSAPublicNumbers(e, n)
    numbers = rsa.RSAPrivateNumbers(p, q, d, d % (p - 1), d % (q - 1), iqmp, public)
    return numbers.private_key(unsafe_skip_rsa_key_validation=True)


def _check_rsa_size(modulus: int) -> None:
    if modulus.bit_length() > MAX_RSA_BITS:
        raise ValueError(f"a modulus of more than {MAX_RSA_BITS} bits")


def _usable(kind: str, compute: Callable[_P, _T], *values: _P.args, **named: _P.kwargs) -> _T:
    """What `compute` returns, and an `UnsupportedKey` for what `cryptography` refuses."""
    try:
        return compute(*values, **named)
    except WireError:
        raise
    except _refusals() as error:
        raise UnsupportedKey(f"{kind} key that cannot be used: {' '.join(str(error).split())}") from None


def _refusals() -> tuple[type[Exception], ...]:
    from cryptography.exceptions import InternalError, UnsupportedAlgorithm

    return ValueError, OverflowError, UnsupportedAlgorithm, InternalError


def _parse(key: PublicKey, signature: bytes) -> tuple[str, bytes, bytes]:
    """The algorithm's name, the signature proper, and the flags and counter that a security key puts behind it."""
    reader = Reader(signature)
    try:
        name = reader.text()
        if not key.known:
            return name, reader.rest(), b""
        blob, tail = reader.string(), reader.take(5 if key.hardware else 0)
        reader.end()
    except WireError as error:
        raise BadReply(f"malformed signature: {error}") from None
    return name, blob, tail


def _security_key_data(key: PublicKey, tail: bytes, data: bytes) -> bytes:
    """What a security key signs instead of `data`."""
    from hashlib import sha256

    application = key.fields[-1]
    assert isinstance(application, bytes)
    return sha256(application).digest() + tail + sha256(data).digest()


def _public(kind: str, fields: Fields) -> Any:
    """The public key of type `kind` as an object of `cryptography`."""
    from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, rsa

    values: Any = fields
    if kind == "ssh-rsa":
        _check_rsa_size(values[1])
        return rsa.RSAPublicNumbers(*values).public_key()
    if kind == "ssh-dss":
        p, q, g, y = values
        if q.bit_length() != 8 * _DSA_INTEGER:
            raise ValueError("SSH has DSA with a q of 160 bits only")
        return dsa.DSAPublicNumbers(y, dsa.DSAParameterNumbers(p, q, g)).public_key()
    if kind in _CURVES:
        return ec.EllipticCurvePublicKey.from_encoded_point(getattr(ec, _CURVES[kind][0])(), values[1])
    family: Any = ed448.Ed448PublicKey if kind == "ssh-ed448" else ed25519.Ed25519PublicKey
    return family.from_public_bytes(values[0])


def _verify(public: Any, name: str, blob: bytes, data: bytes) -> None:
    """Raise InvalidSignature, or `WireError` where `blob` is no signature of this kind at all."""
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec, padding
    from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

    if name in _RSA_HASHES:
        blob = blob.rjust((public.key_size + 7) // 8, b"\0")  # some agents leave leading zeros out
        public.verify(blob, data, padding.PKCS1v15(), getattr(hashes, _RSA_HASHES[name])())
    elif name == "ssh-dss":
        if len(blob) != 2 * _DSA_INTEGER:
            raise WireError("DSA signature of another size than 40 bytes")
        r, s = (int.from_bytes(half, "big") for half in (blob[:_DSA_INTEGER], blob[_DSA_INTEGER:]))
        public.verify(encode_dss_signature(r, s), data, hashes.SHA1())  # noqa: S303 - ssh-dss is SHA-1
    elif name in _CURVES:
        reader = Reader(blob)
        r, s = reader.mpint(), reader.mpint()
        reader.end()
        public.verify(encode_dss_signature(r, s), data, ec.ECDSA(getattr(hashes, _CURVES[name][1])()))
    else:
        public.verify(blob, data)
