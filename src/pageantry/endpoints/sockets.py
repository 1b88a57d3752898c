"""Connections over sockets, which know who is at their other end."""

from __future__ import annotations

import socket

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .. import winpipe
    from ..agent import Peer


class Connection(socket.socket):
    """A connected socket, and the `peer` that was found to be trusted; None where the system tells of none."""

    peer: Peer | None = None


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
