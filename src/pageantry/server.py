"""The protocol from the agent's side: connections come in, and each has a session that answers its requests.

    server = Server(listener, sessions(agent))     # threads of its own take it from here
    server.close()

A session goes from frame to frame, a frame being a message behind its length. There are two kinds: `Passage` hands
frames on, as they are, over a connection of its own to another agent; `Answers` has an agent of this process do what
is asked for. This does not care what the connections are: sockets, pipes, standard input and output.
"""

from __future__ import annotations

import threading
from time import monotonic, sleep

from . import requests
from .agent import SignFlags
from .client import Client
from .errors import AgentError, BadReply, Disconnected, Error, Unsupported, WireError
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
    SignRequest,
    SignResponse,
    Success,
    Unlock,
    decode,
    frame,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Final, Protocol

    from .agent import Agent
    from .client import Connection
    from .endpoints import Endpoint
    from .messages import Message

    class Session(Protocol):
        """What answers the requests of one connection."""

        def answer(self, request: bytes, /) -> bytes:
            """The reply, both whole frames. Raises `AgentError` when there is none: the client is hung up on."""

        def shutdown(self) -> None:
            """Have an `answer` that another thread waits for end soon, with `AgentError`."""

        def close(self) -> None:
            """Let go of what the session holds open."""

    class Listener(Protocol):
        """Where connections come in; whoever comes in has been looked at."""

        @property
        def closed(self) -> bool:
            """Whether no more will."""

        def accept(self) -> Connection:
            """The next one. Raises OSError."""

        def close(self) -> None:
            """Have `accept` raise, also the one that another thread waits in."""


#: Seconds that a client may leave its connection unused. Clients that forget theirs must not take all there can be.
IDLE_TIMEOUT: Final = 3600.0
#: Seconds from the first byte of a frame to its last, and for one to be written.
FRAME_TIMEOUT: Final = 30.0
#: Seconds for the reply of an agent that frames are handed on to: a person may have to be found, and asked.
REPLY_TIMEOUT: Final = 120.0
#: Connections at the same time; each takes a thread, and up to two descriptors. Further ones are hung up on.
MAX_CONNECTIONS: Final = 256
#: Seconds that closing waits for answers that are under way.
GRACE: Final = 5.0

#: Seconds until a listener is tried again that could not accept, for want of descriptors as a rule.
_PAUSE: Final = 0.1
_CHUNK: Final = 64 * 1024
_KNOWN_FLAGS: Final = int(SignFlags.RSA_SHA2_256 | SignFlags.RSA_SHA2_512)


class Frames:
    """Takes whole frames off `connection`, whatever pieces they come in."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._kept = bytearray()

    def next(self, patience: float) -> bytes:
        """The next frame, which begins within `patience` seconds; empty when the other end is closed.

        Raises `WireError` for a length that cannot be, TimeoutError, OSError.
        """
        deadline = None
        while (missing := self._missing()) > 0:
            if self._kept and deadline is None:
                deadline = monotonic() + FRAME_TIMEOUT
            _allow(self._connection, patience if deadline is None else deadline - monotonic())
            piece = self._connection.recv(_CHUNK)
            if not piece:
                return b""
            self._kept += piece
        end = len(self._kept) + missing
        whole = bytes(self._kept[:end])
        del self._kept[:end]
        return whole

    def _missing(self) -> int:
        """How many bytes of the frame are still to come; fewer than 0 when there are more than belong to it."""
        if len(self._kept) < 4:
            return 4 - len(self._kept)
        size = int.from_bytes(self._kept[:4], "big")
        if not 0 < size <= MAX_MESSAGE:
            raise WireError(f"message of {size} bytes announced; it can be 1 to {MAX_MESSAGE}")
        return 4 + size - len(self._kept)


def _allow(connection: Connection, seconds: float) -> None:
    """Give the next operation so much time; setting what is set already would cost more than to look."""
    if seconds <= 0:
        raise TimeoutError
    if connection.gettimeout() != seconds:
        connection.settimeout(seconds)


def converse(connection: Connection, session: Session) -> None:
    """Have `session` answer the requests that come over `connection`, one after the other, to its end.

    Raises `WireError` when the client talks nonsense, `AgentError` when `session` has no reply, OSError when the client
    is too slow or has gone.
    """
    frames = Frames(connection)
    while request := frames.next(IDLE_TIMEOUT):
        reply = session.answer(request)
        _allow(connection, FRAME_TIMEOUT)
        connection.sendall(reply)


class Passage:
    """A session with the agent that `connect` leads to: frames go there and back as they are, known or not.

    Its connection is opened when it is first needed, and never again: what was bound to the first one would be lost.
    """

    def __init__(self, connect: Callable[[], Connection], address: str, timeout: float | None = None) -> None:
        self._connect = connect
        self._address = address
        self._timeout = timeout or REPLY_TIMEOUT
        self._connection: Connection | None = None
        self._frames: Frames | None = None
        self._ended = False

    def answer(self, request: bytes) -> bytes:
        """See `Session`. Raises `Unreachable`, `Disconnected`, `DeadlineExceeded`, `BadReply`."""
        if self._connection is None:
            self._connection = self._connect()
            self._frames = Frames(self._connection)
        assert self._frames
        if self._ended:  # while it was connecting
            raise Disconnected(f"the connection to agent {self._address} was closed")
        try:
            _allow(self._connection, FRAME_TIMEOUT)
            self._connection.sendall(request)
            reply = self._frames.next(self._timeout)
        except AgentError:
            raise
        except WireError as error:
            raise BadReply(f"agent {self._address} sent nonsense: {error}") from None
        except TimeoutError:
            raise requests.late(self._address, self._timeout) from None
        except OSError as error:
            raise requests.hung_up(self._address, error) from None
        if not reply:
            raise requests.hung_up(self._address)
        return reply

    def shutdown(self) -> None:
        """See `Session`."""
        self._ended = True
        if self._connection:
            try:
                self._connection.shutdown(2)
            except OSError:
                pass  # it has been closed meanwhile, or by the other end

    def close(self) -> None:
        """See `Session`."""
        if self._connection:
            self._connection.close()


class Answers:
    """A session with an agent of this process. `turn` is taken for each request, as such an agent has no threads."""

    def __init__(self, agent: Agent, turn: threading.Lock) -> None:
        self._agent = agent
        self._turn = turn

    def answer(self, request: bytes) -> bytes:
        """See `Session`."""
        with self._turn:
            return frame(answer(self._agent, request[4:]))

    def shutdown(self) -> None:
        """Nothing: it cannot be interrupted."""

    def close(self) -> None:
        """Nothing: the agent is its owner's."""


def sessions(agent: Agent) -> Callable[[], Session]:
    """What opens a session with `agent` for a connection: with a client of an agent, one of its own with that."""
    if isinstance(agent, Client):
        return lambda: Passage(agent._connect, agent.address, agent._timeout)
    turn = threading.Lock()
    return lambda: Answers(agent, turn)


def sessions_at(endpoint: Endpoint) -> Callable[[], Session]:
    """As `sessions`, with the agent there, to which nothing is connected before it is needed."""
    if endpoint.kind == "keys":
        return sessions(endpoint.open())
    return lambda: Passage(endpoint.connect, endpoint.address)


def answer(agent: Agent, request: bytes) -> bytes:
    """What `agent` replies to `request`, both as type byte and contents: FAILURE to all that it will not or cannot."""
    try:
        message = decode(request)
        act = _ACTS.get(type(message))
        reply = Failure() if act is None else act(agent, message) or Success()
        return reply.payload()
    except Error:
        return Failure().payload()


def _list(agent: Agent, _: RequestIdentities) -> Message:
    return IdentitiesAnswer(
        tuple((one.key.blob, one.comment.encode("utf-8", "surrogateescape")) for one in agent.identities())
    )


def _sign(agent: Agent, request: SignRequest) -> Message:
    if request.flags & ~_KNOWN_FLAGS:  # RFC 9987, section 5.6.1: whoever does not support a flag must fail
        return Failure()
    return SignResponse(agent.sign(PublicKey(request.key), request.data, SignFlags(request.flags)))


def _extend(agent: Agent, request: Extension) -> Message:
    try:
        contents = agent.extension(request.name, request.contents)
    except Unsupported:
        return Failure()
    except Error:
        return ExtensionFailure()
    return ExtensionResponse(request.name, contents) if contents else Success()


#: What an agent does for each type of message. Nothing returned means SUCCESS.
_ACTS: Final[dict[type[Message], Callable[[Agent, Any], Message | None]]] = {
    RequestIdentities: _list,
    SignRequest: _sign,
    AddIdentity: lambda agent, message: agent.add(message.key, message.comment),
    AddIdentityConstrained: lambda agent, message: agent.add(message.key, message.comment, message.constraints),
    RemoveIdentity: lambda agent, message: agent.remove(PublicKey(message.key)),
    RemoveAllIdentities: lambda agent, _: agent.remove_all(),
    Lock: lambda agent, message: agent.lock(message.passphrase),
    Unlock: lambda agent, message: agent.unlock(message.passphrase),
    Extension: _extend,
}


class Server:
    """Serves the connections that come in at `listener`, each in a thread, with a session that `open_session` gives.

    `say` is told, in a line each, why a client was hung up on that would rather have had a reply.
    """

    def __init__(
        self,
        listener: Listener,
        open_session: Callable[[], Session],
        say: Callable[[str], object] | None = None,
    ) -> None:
        self._listener = listener
        self._open_session = open_session
        self._say = say or (lambda _: None)
        self._gate = threading.Lock()
        self._served: dict[threading.Thread, tuple[Connection, Session]] = {}
        self._accepting = threading.Thread(target=self._accept, name="pageantry server", daemon=True)
        self._accepting.start()

    def close(self) -> None:
        """Take no more connections, hang up on those there are, and wait for their threads, `GRACE` seconds at most."""
        self._listener.close()
        self._accepting.join()
        with self._gate:
            served = dict(self._served)
            for connection, session in served.values():
                _hang_up(connection)
                session.shutdown()
        deadline = monotonic() + GRACE
        for thread in served:
            thread.join(max(0.0, deadline - monotonic()))

    def _accept(self) -> None:
        while not self._listener.closed:
            try:
                connection = self._listener.accept()
            except OSError:
                if not self._listener.closed:
                    sleep(_PAUSE)
                continue
            if len(self._served) >= MAX_CONNECTIONS:
                connection.close()
                self._tell(f"a client was turned away: {MAX_CONNECTIONS} are connected")
                continue
            session = self._open_session()
            thread = threading.Thread(target=self._serve, args=(connection, session), name="pageantry", daemon=True)
            with self._gate:
                self._served[thread] = connection, session
            try:
                thread.start()
            except RuntimeError:
                self._end(thread)
                self._tell("a client was turned away: the system gives no more threads")

    def _end(self, thread: threading.Thread) -> None:
        """Let go of a connection and its session."""
        with self._gate:  # so that nobody shuts down what is closed
            connection, session = self._served.pop(thread)
        connection.close()
        session.close()

    def _tell(self, line: str) -> None:
        try:
            self._say(line)
        except OSError:
            pass  # nobody reads it any more, which is no reason to serve nobody any more

    def _serve(self, connection: Connection, session: Session) -> None:
        try:
            converse(connection, session)
        except Error as error:
            if not self._listener.closed:
                self._tell(f"a client was hung up on: {error}")
        except OSError:
            pass  # it is too slow, or has gone
        finally:
            self._end(threading.current_thread())


def _hang_up(connection: Connection) -> None:
    try:
        connection.shutdown(2)
    except OSError:
        pass  # the other end was faster
