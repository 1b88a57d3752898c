"""What a request asks for, in the words of rules and of people. Nothing here does any input or output."""

from __future__ import annotations

from ..errors import WireError
from ..extensions import ADD_ENCRYPTED, ADD_PPK, LIST_EXTENDED, QUERY
from ..keys.public import PublicKey
from ..messages import (
    AddIdentity,
    AddIdentityConstrained,
    AddSmartcardKey,
    AddSmartcardKeyConstrained,
    Extension,
    Lock,
    RemoveAllIdentities,
    RemoveIdentity,
    RemoveSmartcardKey,
    RequestIdentities,
    SessionBind,
    SignRequest,
    Unlock,
)
from ..wire import Reader, Struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

_ADDING: Final = (AddIdentity.number, AddIdentityConstrained.number)
#: Extensions that are not judged.
_HARMLESS: Final = (SessionBind.name, QUERY)


class Asked(Struct):
    """What a request asks for: what the rules call it, what it is called to people, and the key if it is about one.

    `message` is empty for what is not judged. `comment` comes with a key that is added, `data` is to be signed.
    """

    message: str
    what: str
    key: PublicKey | None = None
    comment: str = ""
    data: bytes = b""


#: What a request asks for where its type says it all.
_KINDS: Final = {
    RequestIdentities.number: Asked("list", "list the keys"),
    AddSmartcardKey.number: Asked("add", "add the keys of a token"),
    AddSmartcardKeyConstrained.number: Asked("add", "add the keys of a token"),
    RemoveSmartcardKey.number: Asked("remove", "remove the keys of a token"),
    RemoveAllIdentities.number: Asked("remove", "remove all keys"),
    Lock.number: Asked("lock", "lock the agent"),
    Unlock.number: Asked("lock", "unlock the agent"),
}


def understood(request: bytes) -> Asked:
    """What a request, a whole frame, asks for. Raises `WireError` where it is not whole."""
    kind = request[4]
    if asked := _KINDS.get(kind):
        return asked
    reader = Reader(request[5:])
    if kind == SignRequest.number:
        return Asked("sign", "sign with", PublicKey(reader.string()), "", reader.string())
    if kind in _ADDING:
        return _addition(reader)
    if kind == RemoveIdentity.number:
        return Asked("remove", "remove", PublicKey(reader.string()))
    if kind == Extension.number:
        name = reader.string().decode("ascii", "replace")
        if name in _HARMLESS:
            return Asked("", name, data=reader.rest())
        if name == LIST_EXTENDED:
            return Asked("list", name)
        if name in (ADD_PPK, ADD_ENCRYPTED):
            return Asked("add", "add an encrypted key")
        return Asked("extension", f"use the extension {name[:64]!a}")
    return Asked("other", f"send a message of type {kind}")


def _addition(reader: Reader) -> Asked:
    """What adding a key asks for, as far as it can be read: the agent may know of other kinds of keys."""
    from ..keys.private import PrivateKey

    try:
        key = PrivateKey.read(reader).public
        return Asked("add", "add", key, reader.text())
    except WireError:
        return Asked("add", "add a key of another kind")
