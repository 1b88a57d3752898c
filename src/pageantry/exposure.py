"""Any agent as a private socket, on Windows as a named pipe, for programs that know no other way to one.

with pageantry.exposed(agent) as address:
    subprocess.run(["git", "fetch"], env={**os.environ, "SSH_AUTH_SOCK": address})
"""

from __future__ import annotations

import os
import sys

from . import sessions
from .client import Client
from .errors import Error
from .server import Server

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType
    from typing import Final

    from .agent import Agent
    from .sessions import Opener

_SOCKET: Final = "agent"


class Exposure:
    """What `exposed` returns: `address` takes connections as soon as this exists, and they are served within `with`.

    Each has a session that `open_session` gives; for `say` see `exposed`. Raises `Error`, OSError.
    """

    def __init__(self, open_session: Opener, say: Callable[[str], object] | None = None) -> None:
        self._open_session = open_session
        self._say = say
        self._listener = _listen()
        self._server: Server | None = None
        #: what SSH_AUTH_SOCK takes
        self.address = self._listener.path

    def __enter__(self) -> str:
        self._server = Server([self._listener], self._open_session, self._say)
        return self.address

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Hang up on everybody, and remove the socket and its directory. The second time does nothing."""
        try:
            if self._server:
                self._server.close()
        finally:
            self._listener.close()
            if sys.platform != "win32":
                _remove(os.path.dirname(self.address))


def exposed(agent: Agent, *, say: Callable[[str], object] | None = None) -> Exposure:
    """Offer `agent` at an address that SSH_AUTH_SOCK takes, to this user alone, for the length of a `with`.

    A client of an agent is not used itself: each connection has one of its own to that agent, with the same timeout,
    and every message goes there and back as it is, session-bind among them. Other agents are asked in turn, in another
    thread. `say` is told in a line why a program was hung up on without a reply.

    Raises `Error` where no private socket can be made, OSError.
    """
    if isinstance(agent, Client):
        agent._rest()  # some agents serve one client at a time, which may not be one that only waits
    return Exposure(sessions.to(agent), say)


if sys.platform == "win32":
    from . import winpipe

    def _listen() -> winpipe.Listener:
        """A pipe that nobody can know the name of, nor may open if he does."""
        return winpipe.listen(f"pageantry-{os.urandom(16).hex()}")

else:
    from .endpoints import unix
    from .endpoints.unix_listener import Listener

    def _listen() -> Listener:
        """A socket in a fresh directory of ours alone, where its path is short enough and nobody can replace it."""
        why = ""
        for base in (os.environ.get("XDG_RUNTIME_DIR"), os.environ.get("TMPDIR"), "/tmp"):  # noqa: S108 - see above
            directory = os.path.join(base or "", f"pageantry-{os.urandom(8).hex()}")
            path = os.path.join(directory, _SOCKET)
            if not os.path.isabs(path) or len(os.fsencode(path)) > unix.MAX_PATH:
                continue
            try:
                os.mkdir(directory, 0o700)
            except OSError as error:
                why = f": {error.filename}: {error.strerror}"
                continue
            try:
                listener = Listener(path)
            except BaseException:
                _remove(directory)
                raise
            try:
                unix.look(path)  # whether we would trust it ourselves, that is
            except BaseException as error:
                listener.close()
                _remove(directory)
                if not isinstance(error, Error):
                    raise
                why = f": {error}"
                continue
            return listener
        raise Error(f"there is no place for a private socket{why}", "set TMPDIR to a directory of yours")

    def _remove(directory: str) -> None:
        try:
            os.rmdir(directory)
        except OSError:
            pass  # somebody put something in it, or was faster
