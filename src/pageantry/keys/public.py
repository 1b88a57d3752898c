"""Public keys and certificates as agents name them: by their blob (RFC 9987, section 5.3).

Formats: RFC 4253 (RSA, DSA), RFC 5656 (ECDSA), RFC 8709 (Ed25519, Ed448), and OpenSSH's PROTOCOL.certkeys and
PROTOCOL.u2f for certificates and hardware (sk-*) keys. A key of any other type is carried along as it is.
"""

from __future__ import annotations

from ..errors import WireError
from ..wire import Reader, Struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Final

CERTIFICATE_SUFFIX: Final = "-cert-v01@openssh.com"

#: The public fields of each key type, after its name: m an mpint, s a string.
PUBLIC_LAYOUTS: Final = {
    "ssh-ed25519": "s",
    "ssh-rsa": "mm",
    "ecdsa-sha2-nistp256": "ss",
    "ecdsa-sha2-nistp384": "ss",
    "ecdsa-sha2-nistp521": "ss",
    "sk-ssh-ed25519@openssh.com": "ss",
    "sk-ecdsa-sha2-nistp256@openssh.com": "sss",
    "ssh-ed448": "s",
    "ssh-dss": "mmmm",
}

#: A certificate's type name differs from its key's by the suffix, which for sk-* keys takes the domain's place.
CERTIFIED: Final = {
    name.removesuffix("@openssh.com") + CERTIFICATE_SUFFIX: name for name in PUBLIC_LAYOUTS if name != "ssh-ed448"
}

_POINT_SIZES = {b"nistp256": 65, b"nistp384": 97, b"nistp521": 133}
_EDWARDS_SIZES = {"ssh-ed25519": 32, "sk-ssh-ed25519@openssh.com": 32, "ssh-ed448": 57}
_SIZES = {
    "ssh-ed25519": 256,
    "sk-ssh-ed25519@openssh.com": 256,
    "ssh-ed448": 448,
    "ecdsa-sha2-nistp256": 256,
    "sk-ecdsa-sha2-nistp256@openssh.com": 256,
    "ecdsa-sha2-nistp384": 384,
    "ecdsa-sha2-nistp521": 521,
}
_ED25519_PREFIX = b"\0\0\0\x0bssh-ed25519\0\0\0\x20"

Fields = tuple["bytes | int", ...]


def read_fields(reader: Reader, layout: str) -> Fields:
    """The values that `layout` (s, m, b: string, mpint, byte) describes, off the front of `reader`."""
    take: dict[str, Callable[[], bytes | int]] = {"s": reader.string, "m": reader.mpint, "b": reader.byte}
    return tuple(take[kind]() for kind in layout)


def _check_fields(name: str, fields: Fields) -> None:
    """Sizes that the type fixes, so that nobody later meets a key that only looks like one."""
    if size := _EDWARDS_SIZES.get(name):
        if len(fields[0]) != size:  # type: ignore[arg-type]
            raise WireError(f"{name} key of {len(fields[0])} bytes, not {size}")  # type: ignore[arg-type]
    elif "ecdsa-sha2-" in name:
        curve, point = fields[:2]
        expected = name.partition("ecdsa-sha2-")[2].partition("@")[0].encode()
        if curve != expected or len(point) != _POINT_SIZES[expected] or point[0] != 4:  # type: ignore[arg-type,index]
            raise WireError(f"{name} key with a point that is not on its curve's form")
    elif not all(fields):
        raise WireError(f"{name} key with a zero in it")


class Certificate(Struct):
    """What an OpenSSH certificate says beside its key (PROTOCOL.certkeys)."""

    serial: int
    kind: int  #: 1 for users, 2 for hosts
    key_id: str
    principals: tuple[str, ...]
    valid_after: int  #: seconds since 1970
    valid_before: int  #: seconds since 1970; 2⁶⁴ - 1 is for ever
    critical_options: bytes
    extensions: bytes
    authority: bytes  #: the blob of the key that signed it
    signature: bytes


class PublicKey:
    """A public key or certificate: its `blob`, and what can be read from that.

    Raises `WireError` when a blob of a known type is not what that type says, or when it has no type at all.
    Two keys are equal when their blobs are.
    """

    __slots__ = ("__weakref__", "_fields", "blob", "certificate", "type")

    blob: bytes
    #: the algorithm's name, such as "ssh-ed25519" or "ssh-rsa-cert-v01@openssh.com"
    type: str
    #: what the certificate says, or None for a plain key
    certificate: Certificate | None

    def __init__(self, blob: bytes) -> None:
        self.blob = blob
        self.certificate = None
        if len(blob) == 51 and blob.startswith(_ED25519_PREFIX):  # by far the most common, and nothing to check
            self.type = "ssh-ed25519"
            self._fields: Fields = (blob[19:],)
            return
        reader = Reader(blob)
        name = reader.string()
        if not 0 < len(name) <= 64 or not all(0x20 < byte < 0x7F for byte in name):  # RFC 4251, section 6
            raise WireError("key without a proper type name")
        self.type = name.decode("ascii")
        plain = CERTIFIED.get(self.type)
        if plain:
            reader.string()  # the nonce
        layout = PUBLIC_LAYOUTS.get(plain or self.type)
        if layout is None:
            self._fields = (reader.rest(),)
            return
        self._fields = read_fields(reader, layout)
        _check_fields(plain or self.type, self._fields)
        if plain:
            self.certificate = _read_certificate(reader)
        reader.end()

    @classmethod
    def from_line(cls, line: str) -> PublicKey:
        """The key of an OpenSSH public key line, `TYPE BASE64 [COMMENT]`, or of bare base64.

        Raises `WireError`, also where the type before the key is another than the one in it.
        """
        from binascii import a2b_base64

        words = line.split(None, 2)
        encoded = words[1] if len(words) > 1 else line.strip()
        try:
            blob = a2b_base64(encoded.encode("ascii"), strict_mode=True)
        except ValueError:
            raise WireError("not a public key line: its key is not base64") from None
        key = cls(blob)
        if len(words) > 1 and words[0] != key.type:
            raise WireError(f"public key line says {words[0][:64]!r}, its key says {key.type}")
        return key

    @property
    def known(self) -> bool:
        """Whether the type is one whose insides are understood here."""
        return self.plain_type in PUBLIC_LAYOUTS

    @property
    def plain_type(self) -> str:
        """The type of the key itself: for a certificate, that of the key it certifies."""
        return CERTIFIED.get(self.type, self.type)

    @property
    def plain(self) -> PublicKey:
        """The key that a certificate certifies; for a plain key, itself."""
        if self.certificate is None:
            return self
        reader = Reader(self.blob)
        reader.string()
        reader.string()
        start = len(self.blob) - len(reader)
        read_fields(reader, PUBLIC_LAYOUTS[self.plain_type])
        name = self.plain_type.encode()
        return PublicKey(len(name).to_bytes(4, "big") + name + self.blob[start : len(self.blob) - len(reader)])

    @property
    def fields(self) -> Fields:
        """The public values in the order of the wire; for an unknown type, one: all that follows the type."""
        return self._fields

    @property
    def hardware(self) -> bool:
        """Whether a security key (FIDO) holds the private half, so that signatures carry a counter."""
        return self.plain_type.startswith("sk-")

    @property
    def bits(self) -> int | None:
        """The key's size as people quote it: the modulus' bits, the curve's; None for an unknown type."""
        plain = self.plain_type
        if plain in ("ssh-rsa", "ssh-dss"):
            modulus = self._fields[1 if plain == "ssh-rsa" else 0]
            return modulus.bit_length() if isinstance(modulus, int) else None
        return _SIZES.get(plain)

    def fingerprint(self, digest: str = "sha256") -> str:
        """`SHA256:…` in base64 without padding, or `MD5:…` in hex with colons, as ssh-keygen prints them.

        A certificate has the fingerprint of its plain key. ValueError for another digest than sha256 and md5.
        """
        import hashlib
        from binascii import b2a_base64

        blob = self.plain.blob
        if digest == "sha256":
            return "SHA256:" + b2a_base64(hashlib.sha256(blob).digest(), newline=False).decode().rstrip("=")
        if digest == "md5":
            return "MD5:" + hashlib.md5(blob, usedforsecurity=False).digest().hex(":")
        raise ValueError(f"fingerprints are sha256 or md5, not {digest!r}")

    def line(self, comment: str = "") -> str:
        """The OpenSSH public key line, without a newline; `comment` in one line, control characters left out."""
        printable = "".join(char for char in comment if char.isprintable())
        return f"{self.type} {self.base64} {printable}".rstrip()

    @property
    def base64(self) -> str:
        """The blob in base64, as in public key lines and in vault's settings."""
        from binascii import b2a_base64

        return b2a_base64(self.blob, newline=False).decode("ascii")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PublicKey) and self.blob == other.blob

    def __hash__(self) -> int:
        return hash(self.blob)

    def __repr__(self) -> str:
        return f"<PublicKey {self.type} {self.fingerprint()}>"

    def __reduce__(self) -> tuple[object, tuple[bytes]]:
        return PublicKey, (self.blob,)


def _read_certificate(reader: Reader) -> Certificate:
    """The rest of a certificate after its key's fields."""
    serial, kind, key_id = reader.uint64(), reader.uint32(), reader.text()
    principals = tuple(name.decode("utf-8", "surrogateescape") for name in Reader(reader.string()).strings())
    after, before, critical, extensions = reader.uint64(), reader.uint64(), reader.string(), reader.string()
    reader.string()  # reserved
    authority, signature = reader.string(), reader.string()
    return Certificate(serial, kind, key_id, principals, after, before, critical, extensions, authority, signature)
