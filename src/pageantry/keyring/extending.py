"""What the keyring does for each extension that is about its keys: PuTTY's, and ours (see `extensions`)."""

from __future__ import annotations

from .. import extensions
from ..errors import Refused
from ..extensions import (
    AddEncrypted,
    ConnectionState,
    ExtendedKey,
    ExtendedList,
    HopState,
    KeyState,
    Report,
)
from ..keys.public import PublicKey
from ..messages import Query, SessionBind
from ..wire import Reader, Writer
from .deferred import Deferred, now

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Final, Protocol

    from ..agent import Peer
    from ..constraints import Constraint
    from ..forwarding import Path
    from .holding import Held

    class Keys(Protocol):
        """What this needs of a keyring, as a connection sees it."""

        def add_encrypted(
            self, file: bytes, comment: str, certificate: PublicKey | None, constraints: Iterable[Constraint], /
        ) -> None:
            """Hold the key of a file."""

        def held(self, key: PublicKey, /) -> Held:
            """That key."""

        def visible(self) -> list[Held]:
            """All keys."""

        def connections(self) -> list[tuple[Peer | None, Path]]:
            """All connections."""


#: How the files begin that can be held encrypted. PEM is none of them: it hides the public key, too; and a hostile one,
#: which has to be opened to see that, can keep OpenSSL busy for minutes.
_FORMATS: Final = (b"PuTTY-User-Key-File-", b"-----BEGIN OPENSSH PRIVATE KEY-----")


def _query(_: Keys, data: bytes) -> bytes:
    Reader(data).end()
    return Query(NAMES).encode()


def _add_ppk(keys: Keys, data: bytes) -> bytes:
    reader = Reader(data)
    file = reader.string()
    reader.end()
    keys.add_encrypted(_possible(file), "", None, ())
    return b""


def _add_encrypted(keys: Keys, data: bytes) -> bytes:
    request = AddEncrypted.decode(data)
    certificate = PublicKey(request.certificate) if request.certificate else None
    keys.add_encrypted(_possible(request.file), request.comment, certificate, request.constraints)
    return b""


def _possible(file: bytes) -> bytes:
    if not file.startswith(_FORMATS):
        raise Refused("only files of OpenSSH's and PuTTY's own formats can be held encrypted")
    return file


def _reencrypt(keys: Keys, data: bytes) -> bytes:
    reader = Reader(data)
    blob = reader.string()
    reader.end()
    held = keys.held(PublicKey(blob))
    if not isinstance(held.private, Deferred):
        raise Refused("the key did not come encrypted")
    held.private.forget()
    return b""


def _reencrypt_all(keys: Keys, data: bytes) -> bytes:
    Reader(data).end()
    held = keys.visible()
    encrypted = [one for one in held if isinstance(one.private, Deferred)]
    for one in encrypted:
        assert isinstance(one.private, Deferred)
        one.private.forget()
    if held and not encrypted:
        raise Refused("no key came encrypted")
    return bytes(Writer().uint32(len(held) - len(encrypted)))


def _list_extended(keys: Keys, data: bytes) -> bytes:
    Reader(data).end()
    return ExtendedList(tuple(map(_extended, keys.visible()))).encode()


def _extended(held: Held) -> ExtendedKey:
    flags = extensions.HAS_FILE if isinstance(held.private, Deferred) else 0
    flags |= 0 if held.clear else extensions.NOT_CLEAR
    return ExtendedKey(held.public.blob, held.comment.encode("utf-8", "surrogateescape"), flags)


def _report(keys: Keys, data: bytes) -> bytes:
    Reader(data).end()
    connections = tuple(map(_connection_state, keys.connections()))
    return Report(tuple(map(_key_state, keys.visible())), connections).encode()


def _key_state(held: Held) -> KeyState:
    left = 0 if held.expires == float("inf") else max(1, round(held.expires - now()))
    destinations = held.destinations.encode() if held.destinations else b""
    encrypted = isinstance(held.private, Deferred)
    blob = held.public.blob
    return KeyState(blob, left, held.signatures_left or 0, held.confirm, encrypted, held.clear, destinations)


def _connection_state(connection: tuple[Peer | None, Path]) -> ConnectionState:
    peer, path = connection
    hops = tuple(HopState(bind.host_key.blob, bind.forwarding) for bind in path.binds)
    return ConnectionState((peer.pid or 0) if peer else 0, peer.program if peer else "", path.attempted, hops)


#: What is done for each extension, by its name.
EXTENSIONS: Final[dict[str, Callable[[Keys, bytes], bytes]]] = {
    extensions.QUERY: _query,
    extensions.ADD_PPK: _add_ppk,
    extensions.REENCRYPT: _reencrypt,
    extensions.REENCRYPT_ALL: _reencrypt_all,
    extensions.LIST_EXTENDED: _list_extended,
    extensions.ADD_ENCRYPTED: _add_encrypted,
    extensions.REPORT: _report,
}
#: All names; PuTTY's agents name `query` first, and so do we.
NAMES: Final = (*EXTENSIONS, SessionBind.name)
