"""An agent at the other end of a connection, for programs that wait for their answers.

`Client` is an `Agent`: each method sends one request and reads one reply, within a deadline and a size limit, whatever
pieces the reply comes in. After anything that leaves the connection out of step (a deadline, a malformed reply, an
interrupt) the connection is dropped, and the next request opens another. What is asked and what the replies mean is
told by `requests`.
"""

from __future__ import annotations

from _thread import allocate_lock
from time import monotonic

from . import requests
from .agent import Agent, Identity, SignFlags
from .errors import Disconnected, Refused, Unsupported
from .requests import missing

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Protocol, TypeVar

    from .constraints import Constraint
    from .keys.private import PrivateKey
    from .keys.public import PublicKey
    from .requests import Request

    _T = TypeVar("_T")

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


_CHUNK = 64 * 1024


class Client(Agent):
    """The agent that `connect` leads to.

    `connect` opens a new connection within its deadline, or raises; `address` is for messages. `timeout`, in seconds,
    bounds each request instead of its own (`requests.LIST_TIMEOUT`, `SIGN_TIMEOUT`, `TIMEOUT`); ValueError unless it is
    above 0 and at most a day. Threads may share a client; their requests take turns.
    """

    def __init__(self, connect: Callable[[], Connection], address: str, timeout: float | None = None) -> None:
        self.address = address
        self._timeout = requests.checked(timeout)
        self._connect = connect
        self._connection: Connection | None = connect()
        self._bound = False  # whether a session was bound to this connection, so that no other can take its place
        self._closed = False
        self._lock = allocate_lock()
        self._listing = requests.Listing()

    def request(self, payload: bytes, timeout: float | None = None) -> bytes:
        """One round trip: a message's type byte and contents there, the reply's back.

        Raises `Disconnected`, `DeadlineExceeded` after `timeout` seconds, `BadReply` for a length that cannot be.
        """
        return self._ask(requests.Bare(payload), timeout)

    def _ask(self, request: Request[_T], timeout: float | None = None) -> _T:
        timeout = timeout or self._timeout or request.timeout
        deadline = monotonic() + timeout
        if not self._lock.acquire(True, timeout):
            raise requests.busy(self.address, timeout)
        try:
            connection = self._connection or self._reconnect()
            try:
                reply, in_step = exchange(connection, request.frame, deadline, timeout, self.address)
            except BaseException:  # an interrupt too: its reply would be taken for the next one's
                self._drop()
                raise
            if self._closed or not in_step:
                self._drop()
        finally:
            self._lock.release()
        return request.meaning(reply, self.address)

    def _reconnect(self) -> Connection:
        requests.check_reopening(self.address, closed=self._closed, bound=self._bound)
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
        identities = self._ask(self._listing)
        self.unreadable = self._listing.unreadable
        return identities

    def sign(self, key: PublicKey, data: bytes, flags: SignFlags = SignFlags.NONE, *, verify: bool = False) -> bytes:
        """See `Agent.sign`. `BadReply` when the signature is of another algorithm or, with `verify`, does not match."""
        signature = self._ask(requests.Signing(key, data, flags))
        if verify:
            from .keys import signatures

            signatures.verify(key, signature, data)
        return signature

    def add(self, key: PrivateKey, comment: str = "", constraints: Iterable[Constraint] = ()) -> None:
        """See `Agent.add`. An agent that says SUCCESS may still ignore a constraint: gpg-agent does."""
        self._ask(requests.add(key, comment, constraints))

    def remove(self, key: PublicKey) -> None:
        """See `Agent.remove`."""
        self._ask(requests.remove(key))

    def remove_all(self) -> None:
        """See `Agent.remove_all`."""
        self._ask(requests.remove_all())

    def lock(self, passphrase: bytes) -> None:
        """See `Agent.lock`."""
        self._ask(requests.lock(passphrase))

    def unlock(self, passphrase: bytes) -> None:
        """See `Agent.unlock`."""
        self._ask(requests.unlock(passphrase))

    def extension(self, name: str, data: bytes = b"") -> bytes:
        """See `Agent.extension`. `Refused` where it is known and failed; `Unsupported` also where the agent hangs up.

        All but session-bind run on a connection of their own (see `requests.Extending`). Ours is closed meanwhile,
        unless it is bound: gpg-agent serves OpenSSH's pipe to one client at a time.
        """
        request = requests.Extending(name, data)
        try:
            if request.binds:
                return self._ask(request)
            self._rest()
            with Client(self._connect, self.address, self._timeout) as other:
                return other._ask(request)
        except Disconnected:
            raise request.hung_up(self.address) from None
        finally:
            self._bound |= request.binds and request.done

    def query(self) -> list[str]:
        """See `Agent.query`."""
        try:
            contents = self.extension("query")
        except (Unsupported, Refused):
            return []
        return requests.extension_names(contents, self.address)


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
            raise requests.hung_up(address)
        while (more := missing(data, address)) > 0:
            _allow(connection, deadline, 0)
            piece = connection.recv(_CHUNK)
            if not piece:
                raise requests.hung_up(address, midway=True)
            data = bytearray(data) if isinstance(data, bytes) else data  # grows in place, however small the pieces
            data += piece
    except Disconnected:
        raise
    except TimeoutError:
        raise requests.late(address, timeout) from None
    except OSError as error:
        raise requests.hung_up(address, error) from None
    return bytes(data[4 : len(data) + more]), more == 0


def _allow(connection: Connection, deadline: float, timeout: float) -> None:
    """Give the next operation the time that is left, or `timeout` where that is much the same: setting it costs."""
    left = deadline - monotonic()
    if left <= 0:
        raise TimeoutError
    if left > timeout * 0.95 and timeout:
        left = timeout
    if connection.gettimeout() != left:
        connection.settimeout(left)
