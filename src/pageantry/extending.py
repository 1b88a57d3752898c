"""What the keyring does for each extension that is about its keys: PuTTY's, and ours (see `extensions`)."""

from __future__ import annotations

from . import extensions
from .deferred import Deferred, now
from .errors import Refused
from .extensions import (
    AddEncrypted,
    ConnectionState,
    ExtendedKey,
    ExtendedList,
    HopState,
    KeyState,
    Report,
)
from .keys.public import PublicKey
from .messages import Query, SessionBind
from .wire import Reader, Writer

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Final

    from .holding import Held
    from .keyring import Keyring


def _query(_: Keyring, data: bytes) -> bytes:
    Reader(data).end()
    return Query(NAMES).encode()


def _add_ppk(keyring: Keyring, data: bytes) -> bytes:
    reader = Reader(data)
    file = reader.string()
    reader.end()
    keyring.add_encrypted(file)
    return b""


def _add_encrypted(keyring: Keyring, data: bytes) -> bytes:
    request = AddEncrypted.decode(data)
    certificate = PublicKey(request.certificate) if request.certificate else None
    keyring.add_encrypted(request.file, request.comment, certificate, request.constraints)
    return b""


def _reencrypt(keyring: Keyring, data: bytes) -> bytes:
    reader = Reader(data)
    blob = reader.string()
    reader.end()
    held = keyring._held(PublicKey(blob))
    if not isinstance(held.private, Deferred):
        raise Refused("the key did not come encrypted")
    held.private.forget()
    return b""


def _reencrypt_all(keyring: Keyring, data: bytes) -> bytes:
    Reader(data).end()
    held = keyring._visible()
    encrypted = [one for one in held if isinstance(one.private, Deferred)]
    for one in encrypted:
        assert isinstance(one.private, Deferred)
        one.private.forget()
    if held and not encrypted:
        raise Refused("no key came encrypted")
    return bytes(Writer().uint32(len(held) - len(encrypted)))


def _list_extended(keyring: Keyring, data: bytes) -> bytes:
    Reader(data).end()
    return ExtendedList(tuple(map(_extended, keyring._visible()))).encode()


def _extended(held: Held) -> ExtendedKey:
    flags = extensions.HAS_FILE if isinstance(held.private, Deferred) else 0
    flags |= 0 if held.clear else extensions.NOT_CLEAR
    return ExtendedKey(held.public.blob, held.comment.encode("utf-8", "surrogateescape"), flags)


def _report(keyring: Keyring, data: bytes) -> bytes:
    """Of connections, only a local one is told."""
    Reader(data).end()
    views = list(keyring._common.views) if not keyring._path.attempted else [keyring]
    return Report(tuple(map(_key_state, keyring._visible())), tuple(map(_connection_state, views))).encode()


def _key_state(held: Held) -> KeyState:
    left = 0 if held.expires == float("inf") else max(1, round(held.expires - now()))
    destinations = held.destinations.encode() if held.destinations else b""
    encrypted = isinstance(held.private, Deferred)
    blob = held.public.blob
    return KeyState(blob, left, held.signatures_left or 0, held.confirm, encrypted, held.clear, destinations)


def _connection_state(view: Keyring) -> ConnectionState:
    peer, path = view._peer, view._path
    hops = tuple(HopState(bind.host_key.blob, bind.forwarding) for bind in path.binds)
    return ConnectionState((peer.pid or 0) if peer else 0, peer.program if peer else "", path.attempted, hops)


#: What is done for each extension, by its name.
EXTENSIONS: Final[dict[str, Callable[[Keyring, bytes], bytes]]] = {
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
