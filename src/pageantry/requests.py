"""What a client asks an agent for, and what the replies mean, whichever way the bytes travel.

    request = remove(key)
    request.frame                       # what to send
    request.meaning(reply, address)     # what the reply means: a value, or an error

Clients, blocking or not, move the frames; `address` is only for messages. Nothing here does any input or output.
"""

from __future__ import annotations

from .agent import Identity
from .errors import BadReply, DeadlineExceeded, Disconnected, Refused, Unsupported, WireError
from .keys.public import PublicKey
from .messages import (
    MAX_MESSAGE,
    AddIdentity,
    AddIdentityConstrained,
    Extension,
    ExtensionFailure,
    ExtensionResponse,
    Failure,
    IdentitiesAnswer,
    Lock,
    RemoveAllIdentities,
    RemoveIdentity,
    RequestIdentities,
    SessionBind,
    SignRequest,
    SignResponse,
    Success,
    Unlock,
    frame,
    split_identities,
)
from .wire import Reader

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Final, Protocol, TypeVar

    from .agent import SignFlags
    from .constraints import Constraint
    from .keys.private import PrivateKey
    from .messages import Message

    _Reply = TypeVar("_Reply", bound=Message)
    _T_co = TypeVar("_T_co", covariant=True)

    class Request(Protocol[_T_co]):
        """One thing to ask an agent for."""

        @property
        def frame(self) -> bytes:
            """What to send."""

        @property
        def timeout(self) -> float:
            """How many seconds the agent has for it."""

        def meaning(self, reply: bytes, address: str, /) -> _T_co:
            """What a reply (type byte and contents) means. Raises `AgentError`."""


#: Seconds for a list. A forwarded agent may be slow, and a password manager may want to be unlocked first.
LIST_TIMEOUT: Final = 30.0
#: Seconds for a signature: a person may have to be found, asked, and to touch something.
SIGN_TIMEOUT: Final = 120.0
#: Seconds for everything else. OpenSSH's agent holds an answer back for up to 10 after wrong passphrases.
TIMEOUT: Final = 30.0


class Bare:
    """Ask for anything: a message's type byte and contents."""

    timeout = TIMEOUT

    def __init__(self, payload: bytes) -> None:
        self.frame = frame(payload)

    def meaning(self, reply: bytes, address: str) -> bytes:
        """The reply, as it is."""
        return reply


class Listing:
    """Ask for the list of keys, as often as one likes.

    Entries that are no keys are left out, and counted in `unreadable`.
    """

    frame = frame(RequestIdentities().payload())
    timeout = LIST_TIMEOUT

    def __init__(self) -> None:
        self.unreadable = 0
        self._known: dict[bytes, PublicKey] = {}

    def meaning(self, reply: bytes, address: str) -> list[Identity]:
        """The identities."""
        if reply[0] != IdentitiesAnswer.number:
            raise _unexpected(reply, address, "list its keys")
        try:
            answer = split_identities(reply[1:])
        except WireError as error:
            raise BadReply(f"agent {address} sent a broken list of keys: {error}") from None
        known, seen = self._known, {}
        identities = []
        for blob, comment in answer:
            try:
                key = seen[blob] = known.get(blob) or PublicKey(blob)  # a key that was parsed once need not be again
            except WireError:
                continue
            identities.append(Identity(key, comment.decode("utf-8", "surrogateescape")))
        self._known = seen
        self.unreadable = len(answer) - len(identities)
        return identities


class Signing:
    """Ask for a signature."""

    timeout = SIGN_TIMEOUT

    def __init__(self, key: PublicKey, data: bytes, flags: SignFlags) -> None:
        self.frame = frame(SignRequest(key.blob, data, int(flags)).payload())
        self._key, self._flags = key, flags

    def meaning(self, reply: bytes, address: str) -> bytes:
        """The signature, which is of the algorithm that was asked for."""
        from .keys.signatures import check_algorithm

        what = f"sign with {self._key.fingerprint()}"
        hint = "it may not have that key, be locked, limit the key's use, or a person said no"
        signature = _expect(SignResponse, reply, address, what, hint).signature
        check_algorithm(self._key, self._flags, signature)
        return signature


class Command:
    """Ask for something to be done, which an answer of one byte ends."""

    timeout = TIMEOUT

    def __init__(self, message: Message, what: str, hint: str) -> None:
        self.frame = frame(message.payload())
        self._what, self._hint = what, hint

    def meaning(self, reply: bytes, address: str) -> None:
        """That it was done."""
        if reply != b"\x06":
            _expect(Success, reply, address, self._what, self._hint)
            raise BadReply(f"agent {address} put {len(reply) - 1} bytes behind SUCCESS")


def add(key: PrivateKey, comment: str, constraints: Iterable[Constraint]) -> Command:
    """Ask the agent to hold a key."""
    limits = tuple(constraints)
    message = AddIdentityConstrained(key, comment, limits) if limits else AddIdentity(key, comment)
    hint = "many agents refuse constraints; try without" if limits else "it may not know this type of key"
    return Command(message, f"add {key.public.fingerprint()}", hint)


def remove(key: PublicKey) -> Command:
    """Ask the agent to forget a key."""
    return Command(RemoveIdentity(key.blob), f"remove {key.fingerprint()}", "it may not have that key, or be locked")


def remove_all() -> Command:
    """Ask the agent to forget all keys."""
    return Command(RemoveAllIdentities(), "remove its keys", "it may be locked")


def lock(passphrase: bytes) -> Command:
    """Ask the agent to do nothing more."""
    return Command(Lock(passphrase), "lock", "it may be locked already, or know no locks")


def unlock(passphrase: bytes) -> Command:
    """Ask the agent to go on."""
    return Command(Unlock(passphrase), "unlock", "the passphrase may be wrong, or the agent not locked")


class Extending:
    """Ask for an extension.

    `binds` says that it is about the very connection it travels on. All others are to have a connection of their own,
    because some agents hang up on what they do not know and OpenSSH 10.3 sends a SUCCESS too many after `query`.
    """

    timeout = TIMEOUT

    def __init__(self, name: str, data: bytes) -> None:
        self.frame = frame(Extension(name, data).payload())
        self.binds = name == SessionBind.name
        #: whether the agent did it, in whatever words it said so
        self.done = False
        self._name = name

    def meaning(self, reply: bytes, address: str) -> bytes:
        """The contents of the agent's answer. `Refused` where it knows the extension and failed."""
        if self.binds and reply == frame(b"\x06"):  # OpenSSH for Windows frames its SUCCESS twice
            reply = b"\x06"
        if reply[0] == Failure.number:
            raise Unsupported(f"agent {address} does not know the extension {self._name}")
        if reply[0] == ExtensionFailure.number:
            raise Refused(f"agent {address} could not do {self._name}")
        self.done = True
        if reply[0] == Success.number:
            return reply[1:]
        response = _expect(ExtensionResponse, reply, address, f"do {self._name}")
        if response.name != self._name:
            raise BadReply(f"agent {address} answered the extension {self._name} under another name")
        return response.contents

    def hung_up(self, address: str) -> Unsupported:
        """What it means when the agent hung up instead of an answer."""
        return Unsupported(f"agent {address} hung up on the extension {self._name}")


def extension_names(contents: bytes, address: str) -> list[str]:
    """The names in an answer to `query`. PuTTY's form has no echo of the name, but lists `query` itself first."""
    try:
        names = [name.decode("utf-8", "replace") for name in Reader(contents).strings()]
    except WireError as error:
        raise BadReply(f"agent {address} answered query with a broken list: {error}") from None
    return [name for name in names if name != "query"]


def _expect(kind: type[_Reply], reply: bytes, address: str, what: str, hint: str = "") -> _Reply:
    """`reply` as a message of `kind`."""
    if reply[0] != kind.number:
        raise _unexpected(reply, address, what, hint)
    try:
        return kind.decode(reply[1:])
    except WireError as error:
        raise BadReply(f"agent {address} was asked to {what} and sent a broken reply: {error}") from None


def _unexpected(reply: bytes, address: str, what: str, hint: str = "") -> Refused | BadReply:
    """What a reply of another kind than expected means."""
    if reply in (b"\x05", b"\x1c"):  # FAILURE, EXTENSION_FAILURE
        return Refused(f"agent {address} refused to {what}", hint)
    return BadReply(f"agent {address} was asked to {what} and answered with a message of type {reply[0]}")


# A conversation, for whoever holds one


def checked(timeout: float | None) -> float | None:
    """`timeout`, the seconds that each request is given; ValueError unless it is above 0 and at most a day."""
    if timeout is not None and not 0 < timeout <= 86400:
        raise ValueError(f"a timeout is in seconds, above 0 and at most 86400, not {timeout}")
    return timeout


def missing(data: bytes | bytearray | memoryview, address: str) -> int:
    """How many bytes of the frame are still to come; fewer than 0 when there are more than belong to it.

    Raises `BadReply` for a length that cannot be.
    """
    if len(data) < 4:
        return 4 - len(data)
    size = int.from_bytes(data[:4], "big")
    if not 0 < size <= MAX_MESSAGE:
        raise BadReply(f"agent {address} announced a reply of {size} bytes; it can be 1 to {MAX_MESSAGE}")
    return 4 + size - len(data)


def hung_up(address: str, error: OSError | None = None, *, midway: bool = False) -> Disconnected:
    """What it means when the connection ends: by an error, in the middle of a reply, or without one."""
    if error is not None:
        return Disconnected(f"agent {address} hung up: {error.strerror or error}")
    return Disconnected(f"agent {address} hung up {'in the middle of a reply' if midway else 'without a reply'}")


def late(address: str, timeout: float) -> DeadlineExceeded:
    """What it means when there is no whole reply after `timeout` seconds."""
    return DeadlineExceeded(
        f"agent {address} did not answer within {timeout:g} s",
        "it may be waiting for a person; otherwise it hangs, and restarting it helps",
    )


def busy(address: str, timeout: float) -> DeadlineExceeded:
    """What it means when others' requests took all of `timeout` seconds."""
    return DeadlineExceeded(f"agent {address} was busy with another request for {timeout:g} s", "give it more time")


def check_reopening(address: str, *, closed: bool, bound: bool) -> None:
    """Raise `Disconnected` where no new connection may take the place of the one that is gone."""
    if closed:
        raise Disconnected(f"this client of {address} was closed", "connect again")
    if bound:
        raise Disconnected(f"the connection to {address} that was bound to a session is gone", "connect and bind again")
