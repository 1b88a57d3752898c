"""An agent at the other end of a connection, for programs that wait for their answers.

`Client` is an `Agent`: each method sends one request and reads one reply, within a deadline and a size limit, whatever
pieces the reply comes in. After anything that leaves the connection out of step (a deadline, a malformed reply, an
interrupt) the connection is dropped, and the next request opens another.
"""

from __future__ import annotations

from _thread import allocate_lock
from time import monotonic

from .agent import Agent, Identity, SignFlags
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
    from collections.abc import Callable, Iterable
    from typing import Final, Protocol, TypeVar

    from .constraints import Constraint
    from .keys.private import PrivateKey
    from .messages import Message

    _Reply = TypeVar("_Reply", bound=Message)

    class Connection(Protocol):
        """What a client needs of a stream: a part of a socket's interface, its errors included."""

        def sendall(self, data: bytes, /) -> None:
            """Send all of `data`."""

        def recv(self, size: int, /) -> bytes:
            """Up to `size` bytes; none at the end."""

        def settimeout(self, seconds: float | None, /) -> None:
            """How long one of the other two may take."""

        def gettimeout(self) -> float | None:
            """What was set last."""

        def shutdown(self, how: int, /) -> None:
            """With 2, wake whoever is in one of the first two."""

        def close(self) -> None:
            """Close for good."""


#: Seconds for a list. A forwarded agent may be slow, and a password manager may want to be unlocked first.
LIST_TIMEOUT: Final = 30.0
#: Seconds for a signature: a person may have to be found, asked, and to touch something.
SIGN_TIMEOUT: Final = 120.0
#: Seconds for everything else. OpenSSH's agent holds an answer back for up to 10 after wrong passphrases.
TIMEOUT: Final = 30.0

_LIST = frame(RequestIdentities().payload())
_CHUNK = 64 * 1024


class Client(Agent):
    """The agent that `connect` leads to.

    `connect` opens a new connection within its deadline, or raises; `address` is for messages. `timeout`, in seconds,
    bounds each request instead of `LIST_TIMEOUT`, `SIGN_TIMEOUT` and `TIMEOUT`; ValueError unless it is above 0 and
    at most a day. Threads may share a client; their requests take turns.
    """

    def __init__(self, connect: Callable[[], Connection], address: str, timeout: float | None = None) -> None:
        if timeout is not None and not 0 < timeout <= 86400:
            raise ValueError(f"a timeout is in seconds, above 0 and at most 86400, not {timeout}")
        self.address = address
        self._connect = connect
        self._connection: Connection | None = connect()
        self._bound = False  # whether a session was bound to this connection, so that no other can take its place
        self._closed = False
        self._timeout = timeout
        self._lock = allocate_lock()
        self._known: dict[bytes, PublicKey] = {}

    def request(self, payload: bytes, timeout: float | None = None) -> bytes:
        """One round trip: a message's type byte and contents there, the reply's back.

        Raises `Disconnected`, `DeadlineExceeded` after `timeout` seconds, `BadReply` for a length that cannot be.
        """
        return self._round_trip(frame(payload), timeout or self._timeout or TIMEOUT)

    def _round_trip(self, request: bytes, timeout: float) -> bytes:
        deadline = monotonic() + timeout
        if not self._lock.acquire(True, timeout):
            raise DeadlineExceeded(
                f"agent {self.address} was busy with another thread's request for {timeout:g} s", "give it more time"
            )
        try:
            connection = self._connection or self._reconnect()
            try:
                reply, in_step = exchange(connection, request, deadline, timeout, self.address)
            except BaseException:  # an interrupt too: its reply would be taken for the next one's
                self._drop()
                raise
            if self._closed or not in_step:
                self._drop()
            return reply
        finally:
            self._lock.release()

    def _reconnect(self) -> Connection:
        if self._closed:
            raise Disconnected(f"this client of {self.address} was closed", "connect again")
        if self._bound:
            raise Disconnected(
                f"the connection to {self.address} that was bound to a session is gone", "connect and bind again"
            )
        self._connection = self._connect()
        return self._connection

    def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _rest(self) -> None:
        """Close the connection until the next request, if none is under way and no session is bound to it."""
        if not self._bound and self._lock.acquire(False):
            self._drop()
            self._lock.release()

    def close(self) -> None:
        """Close the connection for good; a request that another thread has under way ends with `Disconnected`."""
        self._closed = True
        if self._lock.acquire(False):
            self._drop()
            self._lock.release()
        elif connection := self._connection:
            try:
                connection.shutdown(2)  # wakes the other thread, which drops the connection then
            except OSError:
                pass  # it was just being dropped

    def identities(self) -> list[Identity]:
        """The keys that the agent shows us; entries that are no keys are left out and counted in `unreadable`."""
        reply = self._round_trip(_LIST, self._timeout or LIST_TIMEOUT)
        if reply[0] != IdentitiesAnswer.number:
            raise self._unexpected(reply, "list its keys")
        try:
            answer = split_identities(reply[1:])
        except WireError as error:
            raise BadReply(f"agent {self.address} sent a broken list of keys: {error}") from None
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

    def sign(self, key: PublicKey, data: bytes, flags: SignFlags = SignFlags.NONE, *, verify: bool = False) -> bytes:
        """See `Agent.sign`. `BadReply` when the signature is of another algorithm or, with `verify`, does not match."""
        from .keys import signatures

        reply = self.request(
            SignRequest(key.blob, data, int(flags)).payload(),
            self._timeout or SIGN_TIMEOUT,
        )
        signature = self._expect(
            SignResponse,
            reply,
            f"sign with {key.fingerprint()}",
            "it may not have that key, be locked, limit the key's use, or a person said no",
        ).signature
        signatures.check_algorithm(key, flags, signature)
        if verify:
            signatures.verify(key, signature, data)
        return signature

    def add(self, key: PrivateKey, comment: str = "", constraints: Iterable[Constraint] = ()) -> None:
        """See `Agent.add`. An agent that says SUCCESS may still ignore a constraint: gpg-agent does."""
        limits = tuple(constraints)
        message = AddIdentityConstrained(key, comment, limits) if limits else AddIdentity(key, comment)
        hint = "many agents refuse constraints; try without" if limits else "it may not know this type of key"
        self._command(message, f"add {key.public.fingerprint()}", hint)

    def remove(self, key: PublicKey) -> None:
        """See `Agent.remove`."""
        self._command(RemoveIdentity(key.blob), f"remove {key.fingerprint()}", "it may not have that key, or be locked")

    def remove_all(self) -> None:
        """See `Agent.remove_all`."""
        self._command(RemoveAllIdentities(), "remove its keys", "it may be locked")

    def lock(self, passphrase: bytes) -> None:
        """See `Agent.lock`."""
        self._command(Lock(passphrase), "lock", "it may be locked already, or know no locks")

    def unlock(self, passphrase: bytes) -> None:
        """See `Agent.unlock`."""
        self._command(Unlock(passphrase), "unlock", "the passphrase may be wrong, or the agent not locked")

    def extension(self, name: str, data: bytes = b"") -> bytes:
        """See `Agent.extension`. `Refused` where it is known and failed; `Unsupported` also where the agent hangs up.

        It runs on a connection of its own, because some agents hang up on what they do not know and OpenSSH 10.3
        sends a SUCCESS too many after `query`; only session-bind, which is about the connection, uses this one.
        Ours is closed meanwhile, unless it is bound: gpg-agent serves OpenSSH's pipe to one client at a time.
        """
        payload = Extension(name, data).payload()
        try:
            if name == SessionBind.name:
                reply = self.request(payload)
                if reply == frame(b"\x06"):  # OpenSSH for Windows frames its SUCCESS twice
                    reply = b"\x06"
            else:
                self._rest()
                with Client(self._connect, self.address, self._timeout) as other:
                    reply = other.request(payload)
        except Disconnected:
            raise Unsupported(f"agent {self.address} hung up on the extension {name}") from None
        if reply[0] == Failure.number:
            raise Unsupported(f"agent {self.address} does not know the extension {name}")
        if reply[0] == ExtensionFailure.number:
            raise Refused(f"agent {self.address} could not do {name}")
        self._bound |= name == SessionBind.name
        if reply[0] == Success.number:
            return reply[1:]
        response = self._expect(ExtensionResponse, reply, f"do {name}")
        if response.name != name:
            raise BadReply(f"agent {self.address} answered the extension {name} under another name")
        return response.contents

    def query(self) -> list[str]:
        """See `Agent.query`. PuTTY's form of the reply has no echo of the name, but lists `query` itself first."""
        try:
            names = [name.decode("utf-8", "replace") for name in Reader(self.extension("query")).strings()]
        except (Unsupported, Refused):
            return []
        except WireError as error:
            raise BadReply(f"agent {self.address} answered query with a broken list: {error}") from None
        return [name for name in names if name != "query"]

    def _command(self, message: Message, what: str, hint: str) -> None:
        """A request whose answer is one byte."""
        reply = self.request(message.payload())
        if reply != b"\x06":
            self._expect(Success, reply, what, hint)
            raise BadReply(f"agent {self.address} put {len(reply) - 1} bytes behind SUCCESS")

    def _expect(self, kind: type[_Reply], reply: bytes, what: str, hint: str = "") -> _Reply:
        """`reply` as a message of `kind`."""
        if reply[0] != kind.number:
            raise self._unexpected(reply, what, hint)
        try:
            return kind.decode(reply[1:])
        except WireError as error:
            raise BadReply(f"agent {self.address} was asked to {what} and sent a broken reply: {error}") from None

    def _unexpected(self, reply: bytes, what: str, hint: str = "") -> Refused | BadReply:
        """What a reply of another kind than expected means."""
        if reply in (b"\x05", b"\x1c"):  # FAILURE, EXTENSION_FAILURE
            return Refused(f"agent {self.address} refused to {what}", hint)
        return BadReply(f"agent {self.address} was asked to {what} and answered with a message of type {reply[0]}")


def exchange(
    connection: Connection, request: bytes, deadline: float, timeout: float, address: str
) -> tuple[bytes, bool]:
    """Send `request`, a whole frame, and read one reply; say whether the connection is still in step after it.

    `deadline` is a time of `time.monotonic`, `timeout` how many seconds that was at first. Raises `Disconnected`,
    `DeadlineExceeded`, `BadReply`; the connection is of no use after any of them.
    """
    try:
        _allow(connection, deadline, timeout)
        connection.sendall(request)
        _allow(connection, deadline, timeout)
        data: bytes | bytearray = connection.recv(_CHUNK)
        if not data:
            raise Disconnected(f"agent {address} hung up without a reply")
        while (missing := _missing(data, address)) > 0:
            _allow(connection, deadline, 0)
            more = connection.recv(_CHUNK)
            if not more:
                raise Disconnected(f"agent {address} hung up in the middle of a reply")
            data = bytearray(data) if isinstance(data, bytes) else data  # grows in place, however small the pieces
            data += more
    except Disconnected:
        raise
    except TimeoutError:
        raise DeadlineExceeded(
            f"agent {address} did not answer within {timeout:g} s",
            "it may be waiting for a person; otherwise it hangs, and restarting it helps",
        ) from None
    except OSError as error:
        raise Disconnected(f"agent {address} hung up: {error.strerror or error}") from None
    return bytes(data[4 : len(data) + missing]), missing == 0


def _allow(connection: Connection, deadline: float, timeout: float) -> None:
    """Give the next operation the time that is left, or `timeout` where that is much the same: setting it costs."""
    left = deadline - monotonic()
    if left <= 0:
        raise TimeoutError
    if left > timeout * 0.95 and timeout:
        left = timeout
    if connection.gettimeout() != left:
        connection.settimeout(left)


def _missing(data: bytes | bytearray, address: str) -> int:
    """How many bytes of the frame are still to come; fewer than 0 when there are more than belong to it."""
    if len(data) < 4:
        return 4 - len(data)
    size = int.from_bytes(data[:4], "big")
    if not 0 < size <= MAX_MESSAGE:
        raise BadReply(f"agent {address} announced a reply of {size} bytes; it can be 1 to {MAX_MESSAGE}")
    return 4 + size - len(data)
