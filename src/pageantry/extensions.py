"""Extensions of the protocol beyond OpenSSH's: their names, and the values that their contents are.

PuTTY's (Pageant 0.75 and later) are about keys whose files stay encrypted until they are needed. Ours add such a file
within limits, and tell what an agent's own reply has no place for: what each key is limited to, and over which hops
each connection has come; and bridges know each other by one.
"""

from __future__ import annotations

from .constraints import read_constraints, write_constraints
from .wire import CODECS, Reader, Struct, Writer

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Final, TypeAlias, TypeVar

    from .constraints import Constraint
    from .wire import Secret

    Constraints: TypeAlias = tuple[Constraint, ...]
    _S = TypeVar("_S", bound=Struct)

#: The end of PuTTY's names. Their answers stand behind a SUCCESS, where RFC 9987 has a reply of its own.
PUTTY: Final = "@putty.projects.tartarus.org"

QUERY: Final = "query"
ADD_PPK: Final = "add-ppk" + PUTTY
REENCRYPT: Final = "reencrypt" + PUTTY
REENCRYPT_ALL: Final = "reencrypt-all" + PUTTY
LIST_EXTENDED: Final = "list-extended" + PUTTY
ADD_ENCRYPTED: Final = "add-encrypted@pageantry"
REPORT: Final = "report@pageantry"
BRIDGE: Final = "bridge@pageantry"

#: Flags of `ExtendedKey`: there is an encrypted file; the key cannot be used before it is opened.
HAS_FILE: Final = 1
NOT_CLEAR: Final = 2


def _many(kind: type[_S]) -> tuple[Callable[[Reader], tuple[_S, ...]], Callable[[Writer, tuple[_S, ...]], object]]:
    """How a uint32 and so many values of one kind are read and written."""

    def read(reader: Reader) -> tuple[_S, ...]:
        return tuple(kind.read(reader) for _ in range(reader.uint32()))  # each takes bytes, which end the count

    def write(writer: Writer, values: tuple[_S, ...]) -> None:
        writer.uint32(len(values))
        for value in values:
            value.write(writer)

    return read, write


def _read_strings(reader: Reader) -> tuple[bytes, ...]:
    return tuple(reader.strings())


def _write_strings(writer: Writer, values: tuple[bytes, ...]) -> None:
    for value in values:
        writer.string(value)


def _read_texts(reader: Reader) -> tuple[str, ...]:
    return tuple(value.decode("utf-8", "replace") for value in reader.strings())


def _write_texts(writer: Writer, values: tuple[str, ...]) -> None:
    for value in values:
        writer.text(value)


class ExtendedKey(Struct):
    """A key in the answer to `list-extended`. More may stand behind its flags, for readers to pass over."""

    blob: bytes
    comment: bytes
    flags: int

    def write(self, writer: Writer) -> Writer:
        """Append it; the flags are a string of their own."""
        return writer.string(self.blob).string(self.comment).string(self.flags.to_bytes(4, "big"))

    @classmethod
    def read(cls, reader: Reader) -> ExtendedKey:
        """Take it off `reader`."""
        return cls(reader.string(), reader.string(), Reader(reader.string()).uint32())


class ExtendedList(Struct):
    """The answer to `list-extended`."""

    codecs = CODECS | {"tuple[ExtendedKey, ...]": _many(ExtendedKey)}
    keys: tuple[ExtendedKey, ...]


class AddEncrypted(Struct):
    """What `add-encrypted` asks for: hold the key of `file`, a whole key file, and open it when it is first needed.

    With `certificate`, the blob of one, it is held with that. `comment` counts where the file hides its own.
    """

    codecs = CODECS | {"Constraints": (read_constraints, write_constraints)}
    file: Secret
    comment: str
    certificate: bytes
    constraints: Constraints = ()


class BridgeQuestion(Struct):
    """What `bridge` asks: who is behind you? `bridges` are those that it has come through, by their random names; none
    where whoever asks is no bridge.
    """

    codecs = CODECS | {"tuple[bytes, ...]": (_read_strings, _write_strings)}
    bridges: tuple[bytes, ...]


class BridgeAnswer(Struct):
    """The answer to `bridge`, which agents do not know: the addresses of those that are behind it. Whoever has tried to
    bind a session, which may be another host, is not told them.

    One that finds itself among `BridgeQuestion.bridges` fails.
    """

    codecs = CODECS | {"tuple[str, ...]": (_read_texts, _write_texts)}
    addresses: tuple[str, ...]


class KeyState(Struct):
    """What a key is limited to; 0 and empty mean no limit. `destinations` is a `RestrictDestination`, encoded."""

    blob: bytes
    seconds_left: int
    signatures_left: int
    confirm: bool
    encrypted: bool  #: it is held as an encrypted file
    clear: bool  #: it can be used without asking for a passphrase
    destinations: bytes


class HopState(Struct):
    """A host that a connection was bound to, by the blob of its key, and whether it was for forwarding."""

    host_key: bytes
    forwarding: bool


class ConnectionState(Struct):
    """A connection: the process at its other end (0 and empty where that is not known), and its hops in order.

    `attempted` without a hop is a connection of somebody who failed to say where it comes from.
    """

    codecs = CODECS | {"tuple[HopState, ...]": _many(HopState)}
    pid: int
    program: str
    attempted: bool
    hops: tuple[HopState, ...]


class Report(Struct):
    """The answer to `report`: what each key is limited to, and the connections there are."""

    codecs = CODECS | {
        "tuple[KeyState, ...]": _many(KeyState),
        "tuple[ConnectionState, ...]": _many(ConnectionState),
    }
    keys: tuple[KeyState, ...]
    connections: tuple[ConnectionState, ...]
