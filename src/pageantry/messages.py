"""The messages of RFC 9987, one frozen value each, to bytes and back.

    payload = SignRequest(key=blob, data=b"…", flags=2).payload()      # type byte and contents
    message = decode(payload)                                           # the value again
    frame(payload)                                                      # with its length, as it is sent

`decode` reads requests and replies alike. A type that is not known, the SSH-1 ones included, becomes `Unknown`.
"""

from __future__ import annotations

from .errors import WireError
from .wire import CODECS, Reader, Struct, Writer

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import ClassVar, Final, TypeAlias

    from .constraints import Constraint
    from .keys.private import PrivateKey
    from .wire import Rest, Secret, SecretRest

    Constraints: TypeAlias = tuple[Constraint, ...]

#: The longest message either side may send, in bytes, its length field not counted. RFC 9987 sets no limit; this is
#: the one of OpenSSH and PuTTY, so nothing longer gets through to, or comes from, the agents that people run, and a
#: length that lies cannot make us reserve more.
MAX_MESSAGE: Final = 256 * 1024


# A client that lists and signs needs neither private keys nor constraints, so they are imported when one comes along.


def _read_key(reader: Reader) -> PrivateKey:
    from .keys.private import PrivateKey

    return PrivateKey.read(reader)


def _read_constraints(reader: Reader) -> Constraints:
    from .constraints import read_constraints

    return read_constraints(reader)


def _write_constraints(writer: Writer, constraints: Constraints) -> None:
    from .constraints import write_constraints

    write_constraints(writer, constraints)


class Message(Struct):
    """What all messages have: a type number, and contents."""

    codecs = CODECS | {
        "PrivateKey": (_read_key, lambda writer, key: key.write(writer)),
        "Constraints": (_read_constraints, _write_constraints),
    }
    number: ClassVar[int] = 0

    def __init_subclass__(cls, number: int = 0) -> None:
        super().__init_subclass__()
        cls.number = number
        if number:
            _BY_NUMBER[number] = cls

    def payload(self) -> bytes:
        """The type byte and the contents; `WireError` where they are longer than `MAX_MESSAGE`."""
        payload = bytes(self.write(Writer().byte(self.number)))
        if len(payload) > MAX_MESSAGE:
            raise WireError(f"message of {len(payload)} bytes; agents take {MAX_MESSAGE} at most")
        return payload


_BY_NUMBER: Final[dict[int, type[Message]]] = {}


class Unknown(Message):
    """A message of a type that is not known here, carried along as it is."""

    type: int
    contents: Rest

    def payload(self) -> bytes:
        """The type byte and the contents."""
        return bytes((self.type,)) + self.contents


# Replies that any request may get (section 5.1)


class Failure(Message, number=5):
    """The agent will not, or cannot; also the answer to an unknown type or extension."""


class Success(Message, number=6):
    """Done. Pageant's extensions put their answers behind it; every other reply of this type is one byte."""

    contents: Rest = b""


# Keys (sections 5.5 and 5.6)


class RequestIdentities(Message, number=11):
    """List the keys."""


class IdentitiesAnswer(Message, number=12):
    """The list: pairs of a key's blob and its comment."""

    identities: tuple[tuple[bytes, bytes], ...]

    def write(self, writer: Writer) -> Writer:
        """Append the count and the pairs."""
        writer.uint32(len(self.identities))
        for blob, comment in self.identities:
            writer.string(blob).string(comment)
        return writer

    @classmethod
    def read(cls, reader: Reader) -> IdentitiesAnswer:
        """Take all of `reader`."""
        return cls(tuple(split_identities(reader.rest())))


def split_identities(contents: bytes) -> list[tuple[bytes, bytes]]:
    """The pairs in the contents of an IDENTITIES_ANSWER, without the cost of a `Reader`: lists are asked for often.

    Raises `WireError`. The count is believed only as far as the bytes go.
    """
    number, size = int.from_bytes, len(contents)
    count, at, pairs = number(contents[:4], "big"), 4, []
    for _ in range(count):
        start = at + 4
        middle = start + number(contents[at:start], "big")
        end = middle + 4
        at = end + number(contents[middle:end], "big")
        if at > size:
            break
        pairs.append((contents[start:middle], contents[end:at]))
    if at != size:
        raise WireError(f"list of {count} keys that breaks off or goes on: {at} of {size} bytes after {len(pairs)}")
    return pairs


class SignRequest(Message, number=13):
    """Sign `data` with the key of this blob."""

    key: bytes
    data: bytes
    flags: int = 0

    @classmethod
    def read(cls, reader: Reader) -> SignRequest:
        """Take the fields off `reader`; some clients leave the flags out, which PuTTY's agent takes for 0."""
        return cls(reader.string(), reader.string(), reader.uint32() if reader else 0)


class SignResponse(Message, number=14):
    """The signature in SSH's form: a string with the algorithm's name, then its own parts."""

    signature: bytes


# Adding and removing (sections 5.2 and 5.4)


class AddIdentity(Message, number=17):
    """Hold this key."""

    key: PrivateKey
    comment: str = ""


class AddIdentityConstrained(Message, number=25):
    """Hold this key, within limits. Without any, RFC 9987 prefers the plain form."""

    key: PrivateKey
    comment: str = ""
    constraints: Constraints = ()


class RemoveIdentity(Message, number=18):
    """Forget the key of this blob."""

    key: bytes


class RemoveAllIdentities(Message, number=19):
    """Forget every key."""


class AddSmartcardKey(Message, number=20):
    """Use the keys of this token."""

    token: str
    pin: Secret


class AddSmartcardKeyConstrained(Message, number=26):
    """Use the keys of this token, within limits."""

    token: str
    pin: Secret
    constraints: Constraints = ()


class RemoveSmartcardKey(Message, number=21):
    """Forget the keys of this token."""

    token: str
    pin: Secret


# Locking (section 5.7)


class Lock(Message, number=22):
    """Suspend the agent."""

    passphrase: Secret


class Unlock(Message, number=23):
    """End the suspension."""

    passphrase: Secret


# Extensions (section 5.8)


class Extension(Message, number=27):
    """A request of this name; what `contents` are is the extension's own business, and may be a whole key file."""

    name: str
    contents: SecretRest = b""


class ExtensionFailure(Message, number=28):
    """The extension is known, and could not do it."""


class ExtensionResponse(Message, number=29):
    """The extension's own reply, under its name."""

    name: str
    contents: Rest = b""


class Query(Struct):
    """The contents of the reply to the `query` extension (section 5.8.1): the names of what is supported."""

    names: tuple[str, ...]

    def write(self, writer: Writer) -> Writer:
        """Append the names."""
        for name in self.names:
            writer.text(name)
        return writer

    @classmethod
    def read(cls, reader: Reader) -> Query:
        """Take them off `reader`."""
        return cls(tuple(name.decode("utf-8", "surrogateescape") for name in reader.strings()))


class SessionBind(Struct):
    """The contents of OpenSSH's `session-bind@openssh.com`: this connection serves that SSH session from here on."""

    name: ClassVar[str] = "session-bind@openssh.com"
    host_key: bytes
    session_id: bytes
    signature: bytes
    forwarding: bool


def decode(payload: bytes) -> Message:
    """The message that `payload` (type byte and contents) holds, all of it.

    Raises `WireError`; `UnsupportedKey` and `UnsupportedConstraint` are the ones that a well-meant request can cause.
    """
    if not payload:
        raise WireError("empty message")
    kind = _BY_NUMBER.get(payload[0])
    if kind is None:
        return Unknown(payload[0], payload[1:])
    return kind.decode(payload[1:])


def frame(payload: bytes) -> bytes:
    """`payload` behind its length, as it travels."""
    return len(payload).to_bytes(4, "big") + payload
