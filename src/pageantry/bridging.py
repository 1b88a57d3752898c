"""A bridge: agents at endpoints, offered to those who come in, and never to itself.

bridge = Bridge([parse("pageant"), parse("openssh")])
Server(listeners, bridge.watched(several(bridge.openers())))
bridge.check()                                  # raises Loop

A bridge that leads to itself, over however many others, would hand a request on for ever. So each has a random name,
and asks who is behind an agent before it uses it for the first time: bridges hand that question on (`extensions`,
`bridge@pageantry`), agents do not know it.
"""

from __future__ import annotations

import os
import threading

from .client import Client
from .errors import AgentError, Error, Refused, Unsupported, WireError
from .extensions import BRIDGE, BridgeAnswer, BridgeQuestion
from .messages import Extension, ExtensionFailure, ExtensionResponse, frame
from .sessions import Passage

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Final

    from .client import Connection
    from .endpoints import Endpoint
    from .sessions import Opener, Session

#: Bridges that may stand behind each other. Nobody needs more, and each costs its time.
MAX_BRIDGES: Final = 8
#: Seconds for the question of one of them; those before it have the more.
_TIMEOUT: Final = 0.5

_QUESTION: Final = Extension(BRIDGE).payload()


class Loop(AgentError):
    """A bridge that leads to itself."""

    hint = "give the bridge another agent, or end one of the bridges on the way"


class Bridge:
    """The agents at `endpoints`, as a bridge has them. Threads may share it."""

    def __init__(self, endpoints: Sequence[Endpoint]) -> None:
        self._endpoints = endpoints
        self._name = os.urandom(16)
        self._asked: set[tuple[str, int | None]] = set()  # the processes at the endpoints that led to no loop
        self._gate = threading.Lock()

    def openers(self) -> list[Opener]:
        """What opens the sessions with each agent, in their order; each with a connection of its own, when needed."""
        return [self._opener(endpoint) for endpoint in self._endpoints]

    def watched(self, open_session: Opener) -> Opener:
        """The same sessions, which tell other bridges that they are one."""
        return lambda connection: _Watched(open_session(connection), self)

    def check(self) -> None:
        """See whether it leads to itself. Raises `Loop`; an agent that is not there now is seen to when it is used."""
        for endpoint in self._endpoints:
            try:
                self._connect(endpoint).close()
            except Loop:
                raise
            except (Error, OSError):
                pass

    def answer(self, contents: bytes) -> bytes:
        """The reply to a question of another bridge, a whole frame."""
        try:
            before = BridgeQuestion.decode(contents).bridges
            if self._name in before or len(before) >= MAX_BRIDGES:
                raise Loop("it leads back to this bridge")
            for endpoint in self._endpoints if before else ():  # it is no bridge who asks, but somebody who looks
                try:
                    self._ask(endpoint, before)
                except (Loop, WireError):
                    raise
                except (Error, OSError):
                    pass  # it is not there, which is no loop
            answer = BridgeAnswer(tuple(endpoint.address for endpoint in self._endpoints))
        except (Loop, WireError):
            return frame(ExtensionFailure().payload())
        return frame(ExtensionResponse(BRIDGE, answer.encode()).payload())

    def _opener(self, endpoint: Endpoint) -> Opener:
        return lambda _: Passage(lambda: self._connect(endpoint), endpoint.address)

    def _connect(self, endpoint: Endpoint) -> Connection:
        """A connection to the agent, once it is known not to lead here. Raises `Unreachable`, `Loop`."""
        connection = endpoint.connect()
        try:
            which = endpoint.address, getattr(getattr(connection, "peer", None), "pid", None)
            if which not in self._asked:
                if which[1] == os.getpid():
                    raise Loop(f"{endpoint.address} is this bridge itself")
                self._ask(endpoint, ())
                with self._gate:
                    self._asked.add(which)
        except BaseException:
            connection.close()
            raise
        return connection

    def _ask(self, endpoint: Endpoint, before: tuple[bytes, ...]) -> None:
        """Ask who is behind an agent, over a connection of its own, as some hang up on what they do not know.

        Raises `Loop`, `Unreachable`.
        """
        question = BridgeQuestion((*before, self._name))
        timeout = _TIMEOUT * (MAX_BRIDGES - len(before))
        with Client(endpoint.connect, endpoint.address, timeout) as client:
            try:
                client.extension(BRIDGE, question.encode())
            except Unsupported:
                pass  # it is an agent
            except Refused:
                raise Loop(f"the bridge at {endpoint.address} leads back here, or over too many others") from None


class _Watched:
    """See `Bridge.watched`."""

    def __init__(self, session: Session, bridge: Bridge) -> None:
        self._session = session
        self._bridge = bridge
        self.at_once = session.at_once
        self.shutdown = session.shutdown
        self.close = session.close

    def answer(self, request: bytes) -> bytes:
        if request.startswith(_QUESTION, 4):
            return self._bridge.answer(request[4 + len(_QUESTION) :])
        return self._session.answer(request)
