"""One of several agents that are offered as one: when it is tried, and how a connection that has come in reaches it.

`Upstream` is the agent, for all connections; `Branch` is the way of one connection to it, `Local` the same to an agent
of this process. None of them grants more than the agent would to whoever reached it directly: see `Branch`.
"""

from __future__ import annotations

import threading
from time import monotonic

from . import requests, sessions
from .agent import Agent, Shared
from .client import exchange
from .endpoints import CONNECT_TIMEOUT
from .errors import AgentError, BadReply, Disconnected, Error, Refused, Unreachable, Unsupported
from .messages import Extension, RequestIdentities, SessionBind, SignRequest, frame

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Final, Protocol, Self

    from .client import Connection
    from .sessions import Session

    class Reachable(Protocol):
        """An agent at the other end of a connection, such as an `Endpoint` that is not one of key files."""

        @property
        def address(self) -> str:
            """What to call it by."""

        def connect(self, timeout: float, /) -> Connection:
            """A new connection, within `timeout` seconds. Raises `Error`, OSError."""


#: Seconds that each agent has for its part of what all are asked for: to connect, bind sessions, and list its keys.
LIST_TIMEOUT: Final = 2.0
#: Seconds for which an agent that failed is left alone: the first time, and after failing again and again.
FIRST_PAUSE: Final = 1.0
LAST_PAUSE: Final = 30.0

#: Seconds after which it is said again that an agent does not do what is asked for.
_QUIET: Final = 60.0
#: How often an agent has to hang up on a session-bind beyond doubt until it passes for one that knows none.
_PROBES: Final = 2

LIST: Final = frame(RequestIdentities().payload())
#: What changes nothing, and can be asked for again where a connection turns out to have been dead.
_REPEATABLE: Final = (RequestIdentities.number, SignRequest.number)


class NotBound(AgentError):
    """The agent does not bind a session as it should, or not again: this connection must not use it, others may."""

    hint = "see whether it is locked; ssh binds each connection by itself, so connect once more"


class Upstream:
    """An agent, for all connections. `say` is told in a line each that it fails, and that it answers again."""

    def __init__(self, target: Reachable | Agent, say: Callable[[str], object]) -> None:
        self.address = target.address
        #: whether it has ever bound a session, so that it never passes for one that cannot
        self.binds = False
        #: taken for each request to an agent of this process that has no threads
        self.turn = threading.Lock()
        self._target = target
        self._say = say
        self._gate = threading.Lock()
        self._pause = 0.0  # 0 while all is well
        self._until = 0.0
        self._quiet_until = 0.0

    def branch(self, connection: Connection, binds: list[bytes]) -> Branch | Local:
        """The way to it of a connection that has come in, of which `binds` are the session-binds, as frames."""
        if isinstance(self._target, Agent):
            return Local(self, self._target, connection)
        return Branch(self, self._target, binds)

    def check(self) -> None:
        """Raise `Unreachable` while it is left alone."""
        left = self._until - monotonic()
        if left > 0:
            raise Unreachable(f"agent {self.address} failed, and is left alone for {left:.0f} s")

    def failed(self, error: Exception) -> None:
        """Note that it does not answer, or not as an agent should."""
        with self._gate:
            now = monotonic()
            if now < self._until:  # so that many connections that fail at the same time count once
                return
            begins = not self._pause
            self._pause = min(self._pause * 2 or FIRST_PAUSE, LAST_PAUSE)
            self._until = now + self._pause
        if begins:
            self.tell(f"{error}; its keys are left out until it answers")

    def answered(self) -> None:
        """Note that all is well."""
        if not self._pause:
            return
        with self._gate:
            again, self._pause, self._until = bool(self._pause), 0.0, 0.0
        if again:
            self.tell(f"agent {self.address} answers again")

    def complain(self, error: Exception) -> None:
        """Tell why it did not do something, once in a while. What clients ask for is no reason to leave it alone."""
        if monotonic() >= self._quiet_until:
            self._quiet_until = monotonic() + _QUIET
            self.tell(str(error))

    def tell(self, line: str) -> None:
        """Say it."""
        try:
            self._say(line)
        except (OSError, ValueError):
            pass  # nobody reads it any more


class Local:
    """The way to an agent of this process."""

    pressing = False

    def __init__(self, upstream: Upstream, agent: Agent, connection: Connection) -> None:
        self.upstream = upstream
        self._agent = agent
        self._view: Session | None = sessions.to(agent)(connection) if isinstance(agent, Shared) else None
        self._lost = False

    def ask(self, request: bytes, seconds: float) -> bytes:
        """See `Branch`."""
        if self._lost:
            raise NotBound(f"agent {self.upstream.address} may not have bound a session")
        if self._view:
            return self._view.answer(request)[4:]
        if not self.upstream.turn.acquire(timeout=seconds):
            raise requests.busy(self.upstream.address, seconds)
        try:
            return sessions.answer(self._agent, request[4:])
        finally:
            self.upstream.turn.release()

    def bind(self, request: bytes, seconds: float) -> bool:
        """See `Branch`."""
        return _is_bound(self.ask(request, seconds), self.upstream.address)

    def renewed(self) -> Self:
        """The same, which threads may share; but no view that a session may not have been bound to."""
        self._lost = self._view is not None
        return self

    def drop(self) -> None:
        """Nothing: there is no connection."""

    def shutdown(self) -> None:
        """Nothing: whatever waits for a person looks whether its client is still there."""

    def close(self) -> None:
        """Let go of the view of it."""
        if self._view:
            self._view.close()


class Branch:
    """The way to an agent at the other end of a connection, which is made when needed, and again when it was lost.

    All session-binds that came in go to each connection, in their order, before anything else is asked there. Those
    that the agent refused are among them: to have tried makes a connection one that is not local. So the agent grants
    no more than to whoever reached it directly:

    - If it refuses one, it does not know the extension, and can know no keys that are limited to destinations; or it
      refuses that session, and has noted so itself. Either way it is asked on.
    - What it has bound before, it must bind again. An agent of OpenSSH's that was locked meanwhile refuses without
      noting it, and would take the connection for a local one as soon as it is unlocked.
    - OpenSSH's for Windows hangs up on what it does not know. So does an agent that ends, or has too many clients,
      which could be arranged. It passes for one that does not know session-bind, and is asked without, only if it has
      never bound a session, and hangs up on one of our own, which nobody else has a hand in, right after a list of
      keys, and again on another connection.
    """

    def __init__(
        self, upstream: Upstream, target: Reachable, binds: list[bytes], bound: set[bytes] | None = None
    ) -> None:
        self.upstream = upstream
        #: whether the agent is to be tried even while it is left alone
        self.pressing = False
        self._target = target
        self._binds = binds
        self._bound: set[bytes] = bound or set()  # those of them that the agent bound
        self._connection: Connection | None = None
        self._ended = False

    def ask(self, request: bytes, seconds: float) -> bytes:
        """The reply to `request`, a whole frame, as type byte and contents. Raises `AgentError`."""
        deadline = monotonic() + seconds
        fresh = self._connection is None
        try:
            return self._exchange(request, deadline, seconds)
        except Disconnected:
            if fresh or self._ended or request[4] not in _REPEATABLE:
                raise
        return self._exchange(request, deadline, seconds)

    def bind(self, request: bytes, seconds: float) -> bool:
        """Whether the agent binds that session, which is among the binds already. Raises `AgentError`."""
        deadline = monotonic() + seconds
        if self._connection:
            try:
                return self._bind(self._connection, request, deadline)
            except Disconnected:  # since it hangs up on such things, or has done so some time ago
                self.drop()
            except BaseException:
                self.drop()
                raise
        self._open(deadline)
        return request in self._bound

    def renewed(self) -> Branch:
        """What takes the place of this one, which a thread still waits in."""
        self.shutdown()
        return Branch(self.upstream, self._target, self._binds, set(self._bound))

    def drop(self) -> None:
        """Close the connection; what is asked next has another."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def shutdown(self) -> None:
        """Have all that is asked end with `AgentError`, what another thread waits for included."""
        self._ended = True
        if connection := self._connection:
            try:
                connection.shutdown(2)
            except OSError:
                pass  # it has been closed meanwhile, or by the other end

    def close(self) -> None:
        """Close the connection for good."""
        self._ended = True
        self.drop()

    def _exchange(self, request: bytes, deadline: float, seconds: float) -> bytes:
        connection = self._connection or self._open(deadline)
        try:
            reply, in_step = exchange(connection, request, deadline, seconds, self.upstream.address)
        except BaseException:
            self.drop()
            raise
        if not in_step:
            self.drop()
        return reply

    def _open(self, deadline: float) -> Connection:
        """A connection that is bound as it should be."""
        try:
            connection = self._connect(deadline)
            try:
                for request in self._binds:
                    if not self._bind(connection, request, deadline) and request in self._bound:
                        raise NotBound(f"agent {self.upstream.address} does not bind a session again")
            except Disconnected as error:
                self.drop()
                if self._ended or self._may_bind(deadline):
                    raise NotBound(f"agent {self.upstream.address} does not bind a session: {error}") from None
                connection = self._connect(deadline)
        except BaseException:
            self.drop()
            raise
        return connection

    def _connect(self, deadline: float) -> Connection:
        """A connection that is not bound yet, in the place of any other."""
        if not self.pressing:
            self.upstream.check()
        left = max(0.001, deadline - monotonic())
        try:
            connection = self._connection = self._target.connect(min(left, CONNECT_TIMEOUT))
        except (Error, OSError) as error:
            self.upstream.failed(error)
            raise Unreachable(str(error), getattr(error, "hint", "")) from None
        if self._ended:  # while it was connecting
            raise Disconnected(f"the connection to agent {self.upstream.address} was closed")
        return connection

    def _bind(self, connection: Connection, request: bytes, deadline: float) -> bool:
        """Whether the agent binds that session to a connection."""
        address = self.upstream.address
        reply, in_step = exchange(connection, request, deadline, LIST_TIMEOUT, address)
        try:
            bound = _is_bound(reply, address)
        except BadReply as error:
            raise NotBound(str(error)) from None
        if not in_step:
            raise NotBound(f"agent {address} replied to a session-bind more than once")
        if bound:
            self._bound.add(request)
            self.upstream.binds = True
        return bound

    def _may_bind(self, deadline: float) -> bool:
        """Whether the agent may know session-bind all the same, after hanging up on one. Raises `AgentError`."""
        address = self.upstream.address
        for _ in range(_PROBES):
            if self.upstream.binds:
                return True
            connection = self._connect(deadline)
            try:
                exchange(connection, LIST, deadline, LIST_TIMEOUT, address)
            except Disconnected:
                return True
            try:
                exchange(connection, _own_bind(), deadline, LIST_TIMEOUT, address)
            except Disconnected:
                continue
            finally:
                self.drop()
            return True
        return False


def _is_bound(reply: bytes, address: str) -> bool:
    """Whether that is the reply of an agent that has bound a session. Raises `BadReply`."""
    try:
        requests.Extending(SessionBind.name, b"").meaning(reply, address)
    except (Refused, Unsupported):
        return False
    return True


def _own_bind() -> bytes:
    """The frame of a session-bind that any agent that knows such must take: of a host, and a session, of nobody's."""
    import os

    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from .keys import signatures
    from .keys.private import PrivateKey

    secret = Ed25519PrivateKey.generate()
    point = secret.public_key().public_bytes_raw()
    host = PrivateKey("ssh-ed25519", (point, secret.private_bytes_raw() + point))
    session = os.urandom(32)
    bind = SessionBind(host.public.blob, session, signatures.sign(host, session, 0), False)
    return frame(Extension(SessionBind.name, bind.encode()).payload())
