"""`pageantry relay`: an agent over standard input and output."""

from __future__ import annotations

import os
import signal
import sys
import threading
from queue import Queue

import click

from ..errors import Error, WireError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

    from ..sessions import Opener

#: Seconds that each further reply, or the next part of one, is waited for when the input has ended.
GRACE: Final = 2.0

_CHUNK: Final = 64 * 1024
#: Bytes that are written at once, so that a slow reader is told from one that does not read.
_PIECE: Final = 4096
#: Pieces of input that may lie about while the agent is busy.
_AHEAD: Final = 4


@click.command(short_help="Pass an agent on over standard input and output.")
@click.argument("address", metavar="ADDRESS")
def relay(address: str) -> None:
    """Connect standard input and output to the agent at ADDRESS.

    Programs start this to reach an agent that they cannot reach themselves: Windows' from WSL 2, that of a container or
    of another computer. It is the other half of the address stdio:COMMAND. Every message goes there and back as it is,
    over one connection, which is opened with the first; it ends with its input, or with the agent (exit status 1).

    \b
    Examples:
      pageantry keys --agent 'stdio:pageantry.exe relay pageant'
      pageantry keys --agent 'stdio:ssh example.org pageantry relay /run/agent'
      pageantry keys --agent 'stdio:docker exec -i box pageantry relay /run/agent'
    """
    from .. import sessions
    from ..endpoints import parse

    endpoint = parse(address)
    converse(sessions.at(endpoint), endpoint.address)


def converse(open_session: Opener, address: str) -> None:
    """Serve whoever is at standard input and output with such a session; `address` is the agent's, for messages."""
    from .. import server
    from ..framing import Frames
    from ..prompts import typed

    if typed():
        raise Error("standard input is a terminal", "this is for programs: --agent 'stdio:pageantry relay …'")
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # there is nothing to put in order
    connection = _Standard(open_session)
    session = connection.session
    try:
        server.converse(Frames(connection), session)
    except WireError as error:
        raise Error(f"standard input is no request to an agent: {error}", "only programs speak that protocol") from None
    except Error:
        if connection.given_up:
            raise Error(f"the input ended before agent {address} answered", "give it more time") from None
        raise
    except OSError:  # whoever was to read the replies has gone
        pass
    finally:
        connection.close()
        session.close()


class _Standard:
    """Standard input and output as a connection. It knows no deadlines: whoever has started us may end us any time.

    A thread reads ahead, so that the end of the input ends `session` even while that waits for its agent.
    """

    def __init__(self, open_session: Opener) -> None:
        if sys.platform == "win32":
            import msvcrt

            for descriptor in (0, 1):
                msvcrt.setmode(descriptor, os.O_BINARY)
        else:
            for descriptor in (0, 1):
                os.set_blocking(descriptor, True)
        #: whether the session was ended although it had a reply to give
        self.given_up = False
        self._written = 0
        self._writing = False
        self.session = open_session(self)
        self._input: Queue[bytes] = Queue(_AHEAD)
        self._done = threading.Event()
        threading.Thread(target=self._read, name="pageantry relay", daemon=True).start()

    def _read(self) -> None:
        while piece := _piece():
            self._input.put(piece)
        self._input.put(b"")
        before = -1
        while before != self._written:
            before = self._written
            if self._done.wait(GRACE):
                return
        self.given_up = True
        self.session.shutdown()
        if self._writing:  # to somebody who does not read, which nothing else ends
            self.session.close()
            os._exit(1)

    def recv(self, size: int) -> bytes:
        return self._input.get()

    def sendall(self, data: bytes) -> None:
        view = memoryview(data)
        self._writing = True
        while view:
            view = view[os.write(1, view[:_PIECE]) :]
            self._written += 1
        self._writing = False

    def settimeout(self, seconds: float | None) -> None:
        """Nothing."""

    def gettimeout(self) -> float | None:
        """None."""
        return None

    def shutdown(self, how: int) -> None:
        """Nothing."""

    def close(self) -> None:
        self._done.set()


def _piece() -> bytes:
    """What standard input has; empty at its end."""
    try:
        return os.read(0, _CHUNK)
    except OSError:  # whoever held the other end has died
        return b""
