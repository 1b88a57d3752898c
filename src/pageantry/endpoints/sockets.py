"""Connections over sockets, which know who is at their other end."""

from __future__ import annotations

import socket
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .. import winpipe
    from ..agent import Peer


class Connection(socket.socket):
    """A connected socket, and the `peer` that was found to be trusted; None where the system tells of none."""

    peer: Peer | None = None

    def gone(self) -> bool:
        """Whether the other end has closed it, be there something left to read or not; on Windows, once there is not.

        A client that will send no more, but waits for replies, is not gone; on Windows, which cannot tell, it is.
        """
        if sys.platform == "win32":
            return _at_end(self)
        else:  # noqa: RET505 - so that type checkers know what is for which system
            from . import callers

            return callers.gone(self)


def _at_end(connection: socket.socket) -> bool:
    """Whether nothing will come any more; without waiting."""
    from select import select

    try:
        return bool(select([connection], (), (), 0)[0]) and not connection.recv(1, socket.MSG_PEEK)
    except (OSError, ValueError):  # reset, or closed here
        return True


def process(pid: int) -> tuple[winpipe.Peer, bool]:
    """A process of Windows', and whether we trust it: its user must be ours, or one who can be him anyway."""
    from .. import winpipe

    try:
        sid = winpipe.user(pid)
    except OSError:  # so it is another user's, or a program's with more rights
        sid = None
    return winpipe.Peer(pid, sid), trusts(sid)


def trusts(sid: str | None) -> bool:
    """Whether something on Windows may belong to that user: it may be us, or one who can be us anyway."""
    from .. import winpipe

    return sid in (winpipe.SYSTEM, winpipe.ADMINISTRATORS, winpipe.user())
