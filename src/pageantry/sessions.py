"""What answers the requests of one connection, frame by frame, a frame being a message behind its length.

There are two kinds of sessions: `Passage` hands frames on, as they are, over a connection of its own to another agent;
`Answers` has an agent of this process do what is asked for. Neither cares what the connections are: sockets, pipes,
standard input and output.
"""

from __future__ import annotations

import threading

from . import requests
from .agent import Shared, SignFlags
from .client import Client
from .errors import AgentError, BadReply, Disconnected, Error, Unsupported, WireError
from .extensions import PUTTY
from .framing import Frames
from .keys.public import PublicKey
from .messages import (
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
    Unknown,
    Unlock,
    decode,
    frame,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Final, Protocol, TypeAlias

    from .agent import Agent
    from .client import Connection
    from .endpoints import Endpoint
    from .messages import Message

    class Session(Protocol):
        """What answers the requests of one connection."""

        def answer(self, request: bytes, /) -> bytes:
            """The reply, both whole frames. Raises `AgentError` when there is none: the client is hung up on."""

        def at_once(self, request: bytes, /) -> bytes | None:
            """The same if it takes no time: nothing to wait for, and little to compute. None for all else."""

        def shutdown(self) -> None:
            """Have an `answer` that another thread waits for end soon, with `AgentError`."""

        def close(self) -> None:
            """Let go of what the session holds open."""

    #: What opens the session for a connection that has come in.
    Opener: TypeAlias = Callable[[Connection], Session]

#: Seconds for the reply of an agent that frames are handed on to: a person may have to be found, and asked.
REPLY_TIMEOUT: Final = 120.0

_LIST: Final = frame(RequestIdentities().payload())
_REMOVE_ALL_SSH1: Final = 9
_KNOWN_FLAGS: Final = int(SignFlags.RSA_SHA2_256 | SignFlags.RSA_SHA2_512)


def to(agent: Agent) -> Opener:
    """What opens sessions with `agent`: with a client of one, each has a connection of its own to that."""
    if isinstance(agent, Client):
        return lambda _: Passage(agent._connect, agent.address, agent._timeout)
    if isinstance(agent, Shared):
        return lambda connection: View(agent.open(getattr(connection, "peer", None), lambda: _has_left(connection)))
    turn = threading.Lock()
    return lambda _: Answers(agent, turn)


def at(endpoint: Endpoint) -> Opener:
    """As `to`, with the agent there, to which nothing is connected before it is needed."""
    if endpoint.kind == "keys":
        return to(endpoint.open())
    return lambda _: Passage(endpoint.connect, endpoint.address)


def _has_left(connection: Connection) -> bool:
    """Whether the client has closed its end, where that can be seen without reading."""
    gone: Callable[[], bool] | None = getattr(connection, "gone", None)
    return gone is not None and gone()


class Served:
    """A connection that is being served."""

    def __init__(self, connection: Connection, session: Session) -> None:
        self.frames = Frames(connection)
        self.session = session
        self.pid: int | None = getattr(getattr(connection, "peer", None), "pid", None)
        #: the rest of a reply, of which its other end has not taken more
        self.owed = b""
        #: whether a thread is there for it alone
        self.has_thread = False
        #: set when nothing of it is left
        self.ended = threading.Event()

    def at_once(self, request: bytes) -> bytes | None:
        """See `Session`; None where it fails, too: whoever answers in full says why."""
        try:
            return self.session.at_once(request)
        except Exception:  # noqa: BLE001 - see above
            return None

    def hang_up(self) -> None:
        """Have whoever waits for it end it."""
        try:
            self.frames.connection.shutdown(2)
        except OSError:
            pass  # the other end was faster


class Passage:
    """A session with the agent that `connect` leads to: frames go there and back as they are, known or not.

    Its connection is opened when it is first needed, and never again: what was bound to the first one would be lost.
    """

    def __init__(self, connect: Callable[[], Connection], address: str, timeout: float | None = None) -> None:
        self._connect = connect
        self._address = address
        self._timeout = timeout or REPLY_TIMEOUT
        self._frames: Frames | None = None
        self._ended = False

    def answer(self, request: bytes) -> bytes:
        """See `Session`. Raises `Unreachable`, `Disconnected`, `DeadlineExceeded`, `BadReply`."""
        if self._frames is None:
            self._frames = Frames(self._connect())
        if self._ended:  # while it was connecting
            raise Disconnected(f"the connection to agent {self._address} was closed")
        try:
            self._frames.send(request)
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

    def at_once(self, request: bytes) -> bytes | None:
        """None: another agent takes its time."""

    def shutdown(self) -> None:
        """See `Session`."""
        self._ended = True
        if self._frames:
            try:
                self._frames.connection.shutdown(2)
            except OSError:
                pass  # it has been closed meanwhile, or by the other end

    def close(self) -> None:
        """See `Session`."""
        if self._frames:
            self._frames.connection.close()


class Answers:
    """A session with an agent of this process. `turn` is taken for each request, as such an agent has no threads."""

    def __init__(self, agent: Agent, turn: threading.Lock) -> None:
        self._agent = agent
        self._turn = turn

    def answer(self, request: bytes) -> bytes:
        """See `Session`."""
        with self._turn:
            return frame(answer(self._agent, request[4:]))

    def at_once(self, request: bytes) -> bytes | None:
        """None: it may be another one's turn."""

    def shutdown(self) -> None:
        """Nothing: it cannot be interrupted."""

    def close(self) -> None:
        """Nothing: the agent is its owner's."""


class View:
    """A session with a view of an agent that many share."""

    def __init__(self, agent: Shared) -> None:
        self._agent = agent

    def answer(self, request: bytes) -> bytes:
        """See `Session`."""
        return self.at_once(request) or frame(answer(self._agent, request[4:]))

    def at_once(self, request: bytes) -> bytes | None:
        """See `Session`: what every login begins with, a list and a signature, as a rule."""
        if request == _LIST:
            return self._agent.listing_at_once()
        if request[4] != SignRequest.number:
            return None
        try:
            asked = decode(request[4:])
            if not isinstance(asked, SignRequest) or asked.flags & ~_KNOWN_FLAGS:
                return None
            signature = self._agent.sign_at_once(asked.key, asked.data, asked.flags)
            return signature and frame(SignResponse(signature).payload())
        except Error:
            return None

    def shutdown(self) -> None:
        """Nothing: whatever waits for a person looks whether its client is still there."""

    def close(self) -> None:
        """See `Session`."""
        self._agent.close()


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
    if request.name.endswith(PUTTY):
        return Success(contents)
    return ExtensionResponse(request.name, contents) if contents else Success()


def _unknown(agent: Agent, request: Unknown) -> Message:
    """SSH-1's keys are as good as removed, which Pageant's client wants to hear, and OpenSSH's agent says."""
    return Success() if request.type == _REMOVE_ALL_SSH1 else Failure()


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
    Unknown: _unknown,
}
