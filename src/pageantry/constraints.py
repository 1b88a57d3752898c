"""Limits that travel with a key into an agent (RFC 9987, section 5.2.7; OpenSSH's PROTOCOL.agent).

Lifetime(3600)                    forget the key after an hour
Confirm()                         ask a person before every signature
RestrictDestination(((a, b),))    sign only for logging in from a to b
"""

from __future__ import annotations

from .errors import UnsupportedConstraint, WireError
from .wire import Reader, Struct, Writer

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import ClassVar, Final, TypeAlias, TypeVar

    _Entry = TypeVar("_Entry")

_EXTENSION: Final = 255
#: Constraints of one request, entries of one constraint and keys of one hop: OpenSSH's own bound.
MAX_ENTRIES: Final = 1024


class Lifetime(Struct):
    """The agent deletes the key after `seconds`, 1 to 2³² - 1 (section 5.2.7.1)."""

    code: ClassVar[int] = 1
    seconds: int


class Confirm(Struct):
    """The agent asks a person before each use of the key (section 5.2.7.2)."""

    code: ClassVar[int] = 2


class MaxSign(Struct):
    """The agent forgets the key after `signatures` (OpenSSH before 10.1, XMSS keys only)."""

    code: ClassVar[int] = 3
    signatures: int


class HostKey(Struct):
    """A host's key, or with `is_ca` the authority that certifies it, as its blob."""

    blob: bytes
    is_ca: bool


class Hop(Struct):
    """One end of a permitted connection: as `user` (a pattern; empty is any) on `host`, known by its `keys`."""

    user: str = ""
    host: str = ""
    keys: tuple[HostKey, ...] = ()

    def write(self, writer: Writer) -> Writer:
        """Append the hop, with its empty reserved string."""
        writer.text(self.user).text(self.host).string(b"")
        for key in self.keys:
            key.write(writer)
        return writer

    @classmethod
    def read(cls, reader: Reader) -> Hop:
        """A hop takes all of `reader`."""
        user, host = reader.text(), reader.text()
        _nothing(reader)
        keys = tuple(_many(reader, HostKey.read))
        return cls(user, host, keys)


class RestrictDestination(Struct):
    """The key may be used only along these (from, to) pairs of hops; an empty `from` is this machine.

    Encoding raises `WireError` when a `from` has a user, when only one of its host and keys is there, when a `to` lacks
    either, or when a name has a zero byte.
    """

    name: ClassVar[str] = "restrict-destination-v00@openssh.com"
    pairs: tuple[tuple[Hop, Hop], ...]

    def write(self, writer: Writer) -> Writer:
        """Append the pairs, all of them in one string."""
        inner = Writer()
        for origin, target in self.pairs:
            _check_pair(origin, target)
            inner.string(bytes(Writer().string(origin.encode()).string(target.encode()).string(b"")))
        return writer.string(bytes(inner))

    @classmethod
    def read(cls, reader: Reader) -> RestrictDestination:
        """Take the pairs off `reader`."""
        return cls(tuple(_many(Reader(reader.string()), _read_pair)))


class SecurityKeyProvider(Struct):
    """The library through which the agent reaches a security key; for sk-* keys only."""

    name: ClassVar[str] = "sk-provider@openssh.com"
    provider: str


class AssociatedCertificates(Struct):
    """Certificates for the keys of a token, for smartcard adds only; `certs_only` leaves the plain keys out."""

    name: ClassVar[str] = "associated-certs-v00@openssh.com"
    certs_only: bool
    certificates: tuple[bytes, ...]

    def write(self, writer: Writer) -> Writer:
        """Append the flag and the certificates, these in one string."""
        inner = Writer()
        for blob in self.certificates:
            inner.string(blob)
        return writer.boolean(self.certs_only).string(bytes(inner))

    @classmethod
    def read(cls, reader: Reader) -> AssociatedCertificates:
        """Take them off `reader`."""
        return cls(reader.boolean(), tuple(_many(Reader(reader.string()), Reader.string)))


class OtherConstraint(Struct):
    """A constraint by name and bytes, to be sent to an agent that knows it. Never read: its end cannot be found."""

    name: str
    details: bytes


Constraint: TypeAlias = (
    Lifetime | Confirm | MaxSign | RestrictDestination | SecurityKeyProvider | AssociatedCertificates | OtherConstraint
)

_BY_CODE = {kind.code: kind for kind in (Lifetime, Confirm, MaxSign)}
_BY_NAME = {kind.name: kind for kind in (RestrictDestination, SecurityKeyProvider, AssociatedCertificates)}


def write_constraints(writer: Writer, constraints: tuple[Constraint, ...]) -> None:
    """Append all of `constraints`, each with its identifier."""
    for constraint in constraints:
        if isinstance(constraint, OtherConstraint):
            writer.byte(_EXTENSION).text(constraint.name).raw(constraint.details)
        elif isinstance(constraint, (Lifetime, Confirm, MaxSign)):
            constraint.write(writer.byte(constraint.code))
        else:
            constraint.write(writer.byte(_EXTENSION).text(constraint.name))


def read_constraints(reader: Reader) -> tuple[Constraint, ...]:
    """All constraints up to the end of `reader`.

    Raises `UnsupportedConstraint` for one that is not known, upon which the whole request must fail.
    """
    return tuple(_many(reader, _read_constraint))


def _read_constraint(reader: Reader) -> Constraint:
    code = reader.byte()
    kind: type[Constraint] | None
    if code == _EXTENSION:
        name = reader.text()
        kind = _BY_NAME.get(name)
        label = name[:64]
    else:
        kind = _BY_CODE.get(code)
        label = str(code)
    if kind is None:
        raise UnsupportedConstraint(f"constraint {label!r} is not known")
    return kind.read(reader)


def _many(reader: Reader, read: Callable[[Reader], _Entry]) -> Iterator[_Entry]:
    """What `read` finds up to the end of `reader`, no more than MAX_ENTRIES."""
    count = 0
    while reader:
        if (count := count + 1) > MAX_ENTRIES:
            raise WireError(f"more than {MAX_ENTRIES} entries in one list of constraints")
        yield read(reader)


def _read_pair(reader: Reader) -> tuple[Hop, Hop]:
    inner = Reader(reader.string())
    pair = Hop.decode(inner.string()), Hop.decode(inner.string())
    _nothing(inner)
    inner.end()
    _check_pair(*pair)
    return pair


def _nothing(reader: Reader) -> None:
    """What is reserved must be empty: it may come to limit a key further, which nobody may overlook."""
    if reader.string():
        raise WireError("destination constraint with something in it that is not known")


def _check_pair(origin: Hop, target: Hop) -> None:
    if origin.user or bool(origin.host) != bool(origin.keys):
        raise WireError("destination constraint whose origin is not a host with its keys, or empty")
    if not (target.host and target.keys):
        raise WireError("destination constraint without a target host and its key")
    if "\0" in origin.host + target.user + target.host:
        raise WireError("destination constraint with a zero byte in a name")
