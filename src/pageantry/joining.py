"""Lists of keys of several agents, joined into one that every client can read."""

from __future__ import annotations

from .errors import BadReply, Refused, WireError
from .keys.public import PublicKey
from .messages import MAX_MESSAGE, IdentitiesAnswer, split_identities
from .wire import Reader, Writer

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Final, TypeAlias

    #: A key in a list: its blob, and the bytes of the whole entry.
    Entry: TypeAlias = tuple[bytes, bytes]

#: Keys in a joined list. OpenSSH's clients refuse longer ones altogether.
MAX_KEYS: Final = 2048
#: Bytes of its entries: what a message has beside its type and their count.
ROOM: Final = MAX_MESSAGE - 5


def entries(reply: bytes, address: str) -> list[Entry]:
    """What is listed in an agent's reply (type byte and contents), as OpenSSH's clients take it.

    They refuse a whole list for an entry that is no key, or a comment with a NUL in it. Raises `Refused`, `BadReply`.
    """
    if reply[0] != IdentitiesAnswer.number:
        raise Refused(f"agent {address} did not list its keys")
    try:
        pairs = split_identities(reply[1:])
    except WireError as error:
        raise _broken(address, error) from None
    return [(blob, _entry(blob, comment)) for blob, comment in pairs if _is_key(blob)]


def extended_entries(contents: bytes, address: str) -> list[Entry]:
    """The same of the contents of an answer to `list-extended`; whatever stands behind the flags is kept."""
    reader = Reader(contents)
    try:
        triples = [(reader.string(), reader.string(), reader.string()) for _ in range(reader.uint32())]
        reader.end()
    except WireError as error:
        raise _broken(address, error) from None
    return [(blob, _entry(blob, comment) + _flags(flags)) for blob, comment, flags in triples if _is_key(blob)]


def extended(listed: Iterable[Entry]) -> list[Entry]:
    """Entries of a plain list as those of an extended one, of keys that came without encryption."""
    return [(blob, entry + _flags(bytes(4))) for blob, entry in listed]


def distinct(lists: Iterable[Iterable[Entry]]) -> list[list[Entry]]:
    """The lists without the keys that are in an earlier one, or earlier in the same."""
    seen: set[bytes] = set()
    kept: list[list[Entry]] = []
    for one in lists:
        kept.append([])
        for entry in one:
            if entry[0] not in seen:
                seen.add(entry[0])
                kept[-1].append(entry)
    return kept


def fitting(lists: Sequence[Sequence[Entry]], most: int = MAX_KEYS, room: int = ROOM) -> list[list[Entry]]:
    """Of each list as much as all may have together: `most` entries, of `room` bytes.

    Where they have more, each list may have the same part of that, and what it needs less is the others'; it loses its
    last entries.
    """
    if sum(map(len, lists)) <= most and sum(len(entry) for one in lists for _, entry in one) <= room:
        return [list(one) for one in lists]
    costs = [
        [max(len(entry) * most, room) for _, entry in one] for one in lists
    ]  # of most * room, whichever is scarcer
    part, left = 0, most * room
    for waiting, needed in zip(range(len(lists), 0, -1), sorted(map(sum, costs)), strict=True):
        part = left // waiting
        if needed > part:
            break
        left -= needed
    fit = []
    for one, cost in zip(lists, costs, strict=True):
        left, end = part, 0
        while end < len(one) and cost[end] <= left:
            left -= cost[end]
            end += 1
        fit.append(list(one[:end]))
    return fit


def joined(lists: Iterable[Iterable[Entry]]) -> bytes:
    """The count of all entries, and themselves."""
    all_ = [entry for one in lists for _, entry in one]
    return len(all_).to_bytes(4, "big") + b"".join(all_)


def _broken(address: str, error: WireError) -> BadReply:
    return BadReply(f"agent {address} sent a broken list of keys: {error}")


def _entry(blob: bytes, comment: bytes) -> bytes:
    return bytes(Writer().string(blob).string(comment.replace(b"\0", b"")))


def _flags(flags: bytes) -> bytes:
    return bytes(Writer().string(flags))


def _is_key(blob: bytes) -> bool:
    try:
        PublicKey(blob)
    except WireError:
        return False
    return True
