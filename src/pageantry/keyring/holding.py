"""What an agent's memory holds: keys with their limits, found by their blobs, gone when their time is over.

One `Holding` serves all connections of an agent; nothing in it knows of them. It never asks, waits or signs.
"""

from __future__ import annotations

import threading

from ..errors import Error, Refused
from ..messages import MAX_MESSAGE, frame
from ..wire import Writer
from .deferred import Deferred, now

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from typing import Final, Protocol, TypeAlias

    from ..constraints import RestrictDestination
    from ..extensions import AddEncrypted
    from ..keys.public import PublicKey
    from ..keys.signatures import Signer
    from ..messages import AddIdentityConstrained
    from .hardware import SecurityKey

    #: What signs with a key, or will.
    Private: TypeAlias = Signer | Deferred | SecurityKey

    class Remembering(Protocol):
        """What keys outlive the agent in (see `remembered`). None but `close` waits for anything."""

        def sealed(self, entry: AddIdentityConstrained | AddEncrypted, /) -> bytes:
            """What brings the key back, of no use to others. Raises `Error`."""

        def changed(self, kept: Callable[[], dict[bytes, bytes]], /) -> None:
            """Remember what `kept` gives, from some time later on."""

        def clear(self) -> None:
            """Forget also what could not be brought back."""

        def close(self) -> None:
            """Have it all written."""


#: The most keys at a time: OpenSSH's clients take no longer list for one (MAX_AGENT_IDENTITIES is 2048).
MAX_KEYS: Final = 2048

#: Bytes of key files and destinations that all keys may take together; as objects these are some ten times as large.
MAX_BURDEN: Final = 8 * 1024 * 1024
#: Characters of a name or comment that a person is shown.
_MAX_TEXT: Final = 200
_NEVER: Final = float("inf")
#: Seconds that the keeper sleeps at most while something is due: its sleep does not see that the machine slept.
_DOZE: Final = 60.0


def line(text: str) -> str:
    """`text` from anybody, cut, and without what could begin a line of its own, move a cursor or hide something."""
    text = text[:_MAX_TEXT]
    return text if text.isprintable() else "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)


class Held:
    """A key, and what it is limited to. Only `signatures_left` changes: a key that is added anew is another one."""

    __slots__ = (
        "burden",
        "comment",
        "confirm",
        "destinations",
        "expires",
        "fingerprint",
        "kept",
        "listed",
        "private",
        "public",
        "signatures_left",
    )

    public: PublicKey
    comment: str
    private: Private
    #: by `now`; infinity where it has no such limit
    expires: float
    confirm: bool
    #: None where it has no such limit
    signatures_left: int | None
    destinations: RestrictDestination | None
    #: the key's, as people are shown it
    fingerprint: str
    #: bytes of what it takes beside the key itself: its file, and its destinations
    burden: int
    #: the key and its comment as a list of keys has them
    listed: bytes
    #: what brings it back in the next agent, sealed; empty where nothing is to
    kept: bytes

    def __init__(
        self,
        public: PublicKey,
        comment: str,
        private: Private,
        *,
        lifetime: int | None = None,
        confirm: bool = False,
        signatures: int | None = None,
        destinations: RestrictDestination | None = None,
        digest: str = "sha256",
    ) -> None:
        self.public = public
        self.comment = comment
        self.private = private
        self.expires = now() + lifetime if lifetime else _NEVER
        self.confirm = confirm
        self.signatures_left = signatures
        self.destinations = destinations
        self.fingerprint = public.fingerprint(digest)
        file = private.data if isinstance(private, Deferred) else b""
        self.burden = len(file) + (len(destinations.encode()) if destinations else 0)
        self.listed = bytes(Writer().string(public.blob).text(comment))
        self.kept = b""

    @property
    def label(self) -> str:
        """What to call it by, in a line: its comment and fingerprint."""
        return f"{line(self.comment)} ({self.fingerprint})" if self.comment else self.fingerprint

    @property
    def asks(self) -> bool:
        """Whether a person has to do something before it signs: agree, give a passphrase, or touch a security key."""
        return self.confirm or self.public.hardware or not self.clear

    @property
    def free(self) -> bool:
        """Whether it may sign whatever, without a question and any number of times."""
        return not (self.confirm or self.destinations) and self.signatures_left is None

    @property
    def limited(self) -> bool:
        """Whether there is anything that it may not do."""
        return not self.free or self.expires < _NEVER

    @property
    def clear(self) -> bool:
        """Whether it can be used without asking for a passphrase."""
        return not isinstance(self.private, Deferred) or self.private.clear


def listing(keys: Collection[Held]) -> bytes:
    """The frame of an IDENTITIES_ANSWER with these keys."""
    return frame(b"\x0c" + len(keys).to_bytes(4, "big") + b"".join([held.listed for held in keys]))


class Holding:
    """The keys that are held, in the order in which they came. Every method may be called by any thread.

    `clear_after` is after how many seconds without use the clear text of an encrypted key is forgotten; `say` is told
    in a line of what happens by itself, `remember` when what is to be remembered changes.
    """

    def __init__(
        self,
        clear_after: float | None = None,
        say: Callable[[str], object] | None = None,
        remember: Remembering | None = None,
    ) -> None:
        self._clear_after = clear_after
        self._remember = remember
        self._say = say or (lambda _: None)
        self._gate = threading.Condition(threading.RLock())
        self._keys: dict[bytes, Held] = {}
        self._listing = b""  # when nothing has changed
        self._size = self._burden = 0
        self._soonest = _NEVER
        self._keeper: threading.Thread | None = None
        self._closed = False
        self._last: dict[bytes, bytes] = {}  # what was kept when it was closed

    def put(self, held: Held, entry: AddIdentityConstrained | AddEncrypted | None, *, new: bool = False) -> None:
        """Hold a key, which came in `entry` where it may be remembered. The same one gives way to it, and its place,
        unless it is to be `new`.

        Raises `Refused`, also where a list of all keys would be longer than a message, or than clients read.
        """
        if self._remember and entry and held.expires == _NEVER and held.signatures_left is None:
            try:
                held.kept = self._remember.sealed(entry)
            except Error as error:
                self._say(f"{held.label} will not be remembered: {error}")
        with self._gate:
            self._check_open()
            self._expire()
            before = self._keys.get(held.public.blob)
            if before and new:
                raise Refused("the key is held already", "remove it first")
            size = self._size + len(held.listed) - (len(before.listed) if before else 0)
            if size + 5 > MAX_MESSAGE or (not before and len(self._keys) >= MAX_KEYS):
                raise Refused(
                    f"no room for {held.label}: a list can have {MAX_KEYS} keys and {MAX_MESSAGE} bytes",
                    "remove keys that are not needed, or start a further agent",
                )
            burden = self._burden + held.burden - (before.burden if before else 0)
            if burden > MAX_BURDEN:
                raise Refused(f"no room for {held.label}: its file or its limits take too much")
            self._keys[held.public.blob] = held
            self._listing = b""
            self._size, self._burden = size, burden
            self._soonest = min(self._soonest, held.expires)
            self._changed(held, before)
            if held.expires < _NEVER:
                self.keep()

    def get(self, blob: bytes) -> Held | None:
        """The key of that blob."""
        with self._gate:
            self._expire()
            return self._keys.get(blob)

    def listing(self) -> bytes:
        """The frame of an IDENTITIES_ANSWER with all keys."""
        with self._gate:
            self._expire()
            if not self._listing:
                self._listing = listing(self._keys.values())
            return self._listing

    def all(self) -> list[Held]:
        """All keys, in their order."""
        with self._gate:
            self._expire()
            return list(self._keys.values())

    def spend(self, held: Held) -> bool:
        """Count a signature by this key, which goes with its last one; whether there is one to be made at all."""
        with self._gate:
            self._expire()
            if self._keys.get(held.public.blob) is not held:  # removed or replaced while a person was asked
                return False
            if held.signatures_left is not None:
                held.signatures_left -= 1
                if not held.signatures_left:
                    self._drop(held)
            return True

    def drop(self, held: Held) -> None:
        """Forget that key, if it is still held. Raises `Refused`."""
        with self._gate:
            self._check_open()
            if self._keys.get(held.public.blob) is held:
                self._drop(held)

    def clear(self) -> None:
        """Forget all keys. Raises `Refused`."""
        with self._gate:
            self._check_open()
            self._forget_all()
            if self._remember:
                self._remember.clear()
                self._remember.changed(self.kept)

    def forget(self) -> None:
        """Have every key that came in an encrypted file be encrypted again."""
        for held in self.all():
            if isinstance(held.private, Deferred):
                held.private.forget()

    def encrypted(self, plain: PublicKey) -> list[Held]:
        """What is held of that key encrypted, alone and with certificates."""
        return [held for held in self.all() if isinstance(held.private, Deferred) and held.private.public == plain]

    def kept(self) -> dict[bytes, bytes]:
        """What is to be remembered, by the keys' blobs; the end of the agent, which forgets them, changes nothing."""
        with self._gate:
            return self._last if self._closed else {blob: held.kept for blob, held in self._keys.items() if held.kept}

    def close(self) -> None:
        """Forget all keys, and look after none any more."""
        with self._gate:
            self._last = self.kept()  # the same when closed twice
            self._closed = True
            self._forget_all()
            self._gate.notify_all()
        if self._remember:
            self._remember.close()

    def _check_open(self) -> None:
        """Promise nobody a change that would not be remembered any more."""
        if self._closed:
            raise Refused("the agent is ending")

    def _changed(self, *keys: Held | None) -> None:
        if self._remember and any(held and held.kept for held in keys):
            self._remember.changed(self.kept)

    def _forget_all(self) -> None:
        self._keys.clear()
        self._listing = b""
        self._size = self._burden = 0
        self._soonest = _NEVER

    def _drop(self, held: Held) -> None:
        del self._keys[held.public.blob]
        self._listing = b""
        self._size -= len(held.listed)
        self._burden -= held.burden
        self._changed(held)

    def _expire(self) -> None:
        """Forget the keys whose time is over."""
        if self._soonest == _NEVER or self._soonest > now():
            return
        moment = now()
        for held in [held for held in self._keys.values() if held.expires <= moment]:
            self._drop(held)
            self._say(f"the time of {held.label} is over")
        self._soonest = min((held.expires for held in self._keys.values()), default=_NEVER)

    # Keys are to be gone from memory in time, and not only when somebody asks for one.

    def keep(self) -> None:
        """Have a thread look after what goes by itself, now that there is something."""
        with self._gate:
            if self._keeper is None:
                keeper = threading.Thread(target=self._look_after, name="pageantry keeper", daemon=True)
                keeper.start()
                self._keeper = keeper
            self._gate.notify_all()

    def _look_after(self) -> None:
        with self._gate:
            while not self._closed:
                self._expire()
                due = min(self._soonest, self._fade())
                self._gate.wait(None if due == _NEVER else min(max(due - now(), 0.01), _DOZE))

    def _fade(self) -> float:
        """Have keys be encrypted again that were not used for so long; when the next may be due."""
        due = _NEVER
        for held in self._keys.values() if self._clear_after else ():
            if isinstance(held.private, Deferred) and held.private.clear:
                end = held.private.used + (self._clear_after or 0)
                if end <= now():
                    held.private.forget()
                    self._say(f"{held.label} is encrypted again")
                else:
                    due = min(due, end)
        return due
