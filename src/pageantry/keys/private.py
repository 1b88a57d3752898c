"""Private keys as they travel in ADD_IDENTITY and lie in OpenSSH's files: a type and its fields, no mathematics.

Layouts: RFC 9987, sections 5.2.1 to 5.2.4; OpenSSH's PROTOCOL.agent for certificates and sk-* keys.
"""

from __future__ import annotations

from ..errors import UnsupportedKey, WireError
from ..wire import Reader, Writer
from .public import CERTIFIED, PublicKey, read_fields

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

    from .public import Fields

#: The fields of each type after its name: m an mpint, s a string, b a byte.
PRIVATE_LAYOUTS: Final = {
    "ssh-ed25519": "ss",  # public, seed ‖ public
    "ssh-ed448": "ss",
    "ssh-rsa": "mmmmmm",  # n, e, d, iqmp, p, q
    "ssh-dss": "mmmmm",  # p, q, g, y, x
    "ecdsa-sha2-nistp256": "ssm",  # curve, Q, d
    "ecdsa-sha2-nistp384": "ssm",
    "ecdsa-sha2-nistp521": "ssm",
    "sk-ssh-ed25519@openssh.com": "ssbss",  # public, application, flags, handle, reserved
    "sk-ecdsa-sha2-nistp256@openssh.com": "sssbss",  # curve, Q, application, flags, handle, reserved
}
#: The same for certificates, whose blob comes first; OpenSSH leaves out what that blob says already, mostly.
CERTIFIED_LAYOUTS: Final = {
    "ssh-ed25519": "ss",
    "ssh-rsa": "mmmm",  # d, iqmp, p, q
    "ssh-dss": "m",
    "ecdsa-sha2-nistp256": "m",
    "ecdsa-sha2-nistp384": "m",
    "ecdsa-sha2-nistp521": "m",
    "sk-ssh-ed25519@openssh.com": "ssbss",
    "sk-ecdsa-sha2-nistp256@openssh.com": "sbss",  # application, flags, handle, reserved
}


class PrivateKey:
    """A private key, plain (`certificate` is None) or with its certificate.

    `fields` are always those of the plain key, in the order of `PRIVATE_LAYOUTS`. Raises `WireError` when the private
    fields do not belong to the public ones they come with, so a certificate can never be paired with another's key.
    """

    __slots__ = ("certificate", "fields", "public", "type")

    #: the plain key's type, such as "ssh-rsa"
    type: str
    fields: Fields
    #: the public half: the certificate where there is one, else the plain key
    public: PublicKey
    certificate: PublicKey | None

    def __init__(self, type: str, fields: Fields, certificate: PublicKey | None = None) -> None:  # noqa: A002
        self.type = type
        self.fields = fields
        self.certificate = certificate
        plain = _public_half(type, fields)
        if certificate is not None:
            if certificate.certificate is None:
                raise WireError(f"a key of type {certificate.type} in a certificate's place")
            if certificate.plain != plain:
                raise WireError("certificate for another key than the one it comes with")
        self.public = certificate or plain

    @classmethod
    def read(cls, reader: Reader) -> PrivateKey:
        """Take the type and the fields off `reader`.

        Raises `WireError`, and `UnsupportedKey` for a type that is not known: what follows it cannot be found then.
        """
        name = reader.text()
        plain = CERTIFIED.get(name)
        layout = CERTIFIED_LAYOUTS[plain] if plain else PRIVATE_LAYOUTS.get(name)
        if layout is None:
            raise UnsupportedKey(f"private key of unknown type {name[:64]!r}")
        if plain is None:
            return cls(name, read_fields(reader, layout))
        certificate = PublicKey(reader.string())
        if certificate.type != name:
            raise WireError("certificate of another type than announced")
        return cls(plain, _with_public(plain, certificate, read_fields(reader, layout)), certificate)

    def write(self, writer: Writer) -> Writer:
        """Append the type and the fields to `writer`, which is returned."""
        fields, layout = self.fields, PRIVATE_LAYOUTS[self.type]
        writer.text(self.public.type)
        if self.certificate is not None:
            writer.string(self.certificate.blob)
            layout = CERTIFIED_LAYOUTS[self.type]
            fields = fields[len(fields) - len(layout) :]
        put = {"s": writer.string, "m": writer.mpint, "b": writer.byte}
        for kind, value in zip(layout, fields, strict=True):
            put[kind](value)  # type: ignore[operator]
        return writer

    def certified(self, certificate: PublicKey) -> PrivateKey:
        """The same key with `certificate`; `WireError` when that is for another key."""
        return PrivateKey(self.type, self.fields, certificate)

    @property
    def plain(self) -> PrivateKey:
        """The same key without its certificate."""
        return PrivateKey(self.type, self.fields) if self.certificate else self

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PrivateKey) and (self.public, self.fields) == (other.public, other.fields)

    def __hash__(self) -> int:
        return hash(self.public)

    def __repr__(self) -> str:
        return f"<PrivateKey {self.public.type} {self.public.fingerprint()}>"


def _public_half(name: str, fields: Fields) -> PublicKey:
    writer = Writer().text(name)
    if name == "ssh-rsa":
        writer.mpint(fields[1]).mpint(fields[0])  # type: ignore[arg-type]
    elif name == "ssh-dss":
        for value in fields[:4]:
            writer.mpint(value)  # type: ignore[arg-type]
    else:
        strings = {"ssh-ed25519": 1, "ssh-ed448": 1, "sk-ecdsa-sha2-nistp256@openssh.com": 3}.get(name, 2)
        for value in fields[:strings]:
            writer.string(value)  # type: ignore[arg-type]
    public = PublicKey(bytes(writer))
    if name in ("ssh-ed25519", "ssh-ed448"):
        point, secret = fields
        if len(secret) != 2 * len(point) or secret[len(point) :] != point:  # type: ignore[arg-type,index]
            raise WireError(f"{name} private key whose two public halves differ")
    return public


def _with_public(plain: str, certificate: PublicKey, fields: Fields) -> Fields:
    """`fields` of a certificate's layout, completed to those of the plain key."""
    known = certificate.fields
    if plain == "ssh-rsa":
        return (known[1], known[0], *fields)
    return (*known[: len(PRIVATE_LAYOUTS[plain]) - len(fields)], *fields)
