"""A bridge: agents at endpoints, offered to those who come in, and never to itself.

bridge = Bridge([parse("pageant"), parse("openssh")])
Server(listeners, bridge.watched(bridge.opener()))
bridge.check()                                  # raises Loop

A bridge that leads to itself, over however many others, would hand a request on for ever. So each has a random name,
and asks who is behind an agent before it uses it for the first time: bridges hand that question on (`extensions`,
`bridge@pageantry`), agents do not know it.
"""

from __future__ import annotations

import os
from time import monotonic

from . import requests, sessions
from .agent import Agent
from .client import exchange
from .endpoints import CONNECT_TIMEOUT
from .errors import AgentError, BadReply, Disconnected, Error, Refused, Unsupported, WireError
from .extensions import BRIDGE, BridgeAnswer, BridgeQuestion
from .messages import Extension, ExtensionFailure, ExtensionResponse, SessionBind, frame

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Final

    from .client import Connection
    from .endpoints import Endpoint
    from .sessions import Opener, Session

#: Bridges that may stand behind each other. Nobody needs more, and each costs its time.
MAX_BRIDGES: Final = 8
#: Seconds for the question of one of them; those before it have the more.
_TIMEOUT: Final = 0.5

_QUESTION: Final = Extension(BRIDGE).payload()
_SESSION_BIND: Final = Extension(SessionBind.name).payload()


class Loop(AgentError):
    """A bridge that leads to itself."""

    hint = "give the bridge another agent, or end one of the bridges on the way"


class Bridge:
    """The agents at `endpoints`, as a bridge has them. Threads may share it. Raises `KeyFileError`."""

    def __init__(self, endpoints: Sequence[Endpoint]) -> None:
        self.name = os.urandom(16)
        self._ways = [one.open() if one.kind == "keys" else _Way(one, self) for one in endpoints]

    def opener(self, add_to: int = 0, say: Callable[[str], object] | None = None) -> Opener:
        """What opens the sessions with the agents, each with connections of its own, when they are needed.

        `add_to` and `say` are as for `mux.several`. Raises `KeyFileError`.
        """
        if len(self._ways) > 1:
            from .mux import several

            return several(self._ways, add_to=add_to, say=say)
        (way,) = self._ways
        return sessions.to(way) if isinstance(way, Agent) else lambda _: sessions.Passage(way.connect, way.address)

    def watched(self, open_session: Opener) -> Opener:
        """The same sessions, which tell other bridges that they are one."""
        return lambda connection: _Watched(open_session(connection), self)

    def check(self) -> None:
        """See whether it leads to itself. Raises `Loop`; an agent that is not there now is seen to when it is used."""
        for way in self._ways:
            try:
                if isinstance(way, _Way):
                    way.check()
            except Loop:
                raise
            except (Error, OSError):
                pass

    def answer(self, contents: bytes, *, tell: bool) -> bytes:
        """The reply to a question of another bridge, a whole frame; who is behind this one is for those to `tell`."""
        try:
            before = BridgeQuestion.decode(contents).bridges
            if self.name in before or len(before) >= MAX_BRIDGES:
                raise Loop("it leads back to this bridge")
            for way in self._ways if before else ():  # it is no bridge who asks, but somebody who looks
                try:
                    if isinstance(way, _Way):
                        way.ask(before, _TIMEOUT * (MAX_BRIDGES - len(before)))
                except (Loop, WireError):
                    raise
                except (Error, OSError):
                    pass  # it is not there, which is no loop
            answer = BridgeAnswer(tuple(way.address for way in self._ways) if tell else ())
        except (Loop, WireError):
            return frame(ExtensionFailure().payload())
        return frame(ExtensionResponse(BRIDGE, answer.encode()).payload())


class _Way:
    """The way of a bridge to an agent, which is looked at before it is used."""

    def __init__(self, endpoint: Endpoint, bridge: Bridge) -> None:
        self.address = endpoint.address
        self._endpoint = endpoint
        self._bridge = bridge
        self._asked: set[int | None] = set()  # the processes there that led to no loop

    def connect(self, timeout: float = CONNECT_TIMEOUT) -> Connection:
        """A connection to the agent, once it is known not to lead here. Raises `Unreachable`, `Loop`."""
        return self._looked_at(timeout) or self._endpoint.connect(timeout)

    def check(self) -> None:
        """See whether it leads here. Raises as `connect` does."""
        if connection := self._looked_at(CONNECT_TIMEOUT):
            connection.close()

    def _looked_at(self, timeout: float) -> Connection | None:
        """A connection, if the process there has been asked before; it is asked now if not, and that takes one."""
        connection = self._endpoint.connect(timeout)
        pid: int | None = getattr(getattr(connection, "peer", None), "pid", None)
        if pid in self._asked:
            return connection
        if pid == os.getpid():
            connection.close()
            raise Loop(f"{self.address} is this bridge itself")
        self._ask(connection, (), timeout)
        self._asked.add(pid)
        return None

    def ask(self, before: tuple[bytes, ...], timeout: float) -> None:
        """Ask who is behind the agent. Raises `Loop`, `Unreachable`."""
        self._ask(self._endpoint.connect(timeout), before, timeout)

    def _ask(self, connection: Connection, before: tuple[bytes, ...], timeout: float) -> None:
        """The same over a connection, and close that: some agents hang up on what they do not know, and some serve one
        client at a time. Others are started for each connection, by way of another computer, so there are not many.
        """
        try:
            self._put(connection, (*before, self._bridge.name), timeout)
        except (BadReply, Disconnected, Unsupported):
            return  # it is an agent, and no bridge
        except Refused:
            try:
                self._put(connection, (), timeout)  # which no bridge refuses
            except (Refused, Unsupported):
                return  # it is an agent that says so of whatever it does not know
            raise Loop(f"the bridge at {self.address} leads back here, or over too many others") from None
        finally:
            connection.close()

    def _put(self, connection: Connection, bridges: tuple[bytes, ...], timeout: float) -> None:
        """Put the question. Raises what a client's `extension` does, and `Disconnected`."""
        request = requests.Extending(BRIDGE, BridgeQuestion(bridges).encode())
        reply, _ = exchange(connection, request.frame, monotonic() + timeout, timeout, self.address)
        request.meaning(reply, self.address)


class _Watched:
    """See `Bridge.watched`."""

    def __init__(self, session: Session, bridge: Bridge) -> None:
        self._session = session
        self._bridge = bridge
        self._bound = False  # whether that was tried, by somebody who may be on another host
        self.at_once = session.at_once
        self.shutdown = session.shutdown
        self.close = session.close

    def answer(self, request: bytes) -> bytes:
        if request.startswith(_QUESTION, 4):
            return self._bridge.answer(request[4 + len(_QUESTION) :], tell=not self._bound)
        self._bound = self._bound or request.startswith(_SESSION_BIND, 4)
        return self._session.answer(request)
