"""Who is at the other end of a pipe."""

from __future__ import annotations

import errno
import sys


class Peer:
    """The process at the other end of a pipe: its `pid`, and the `sid` of a user, such as "S-1-5-18".

    Of a server, the SID is that of the pipe's owner, which was checked; of a client, that of the user it runs as. Each
    is None where the system does not tell. By now, the pid may be another process', and often a client's user was found
    by it: of clients, both are for messages and logs alone. Who may connect is what `listen` was told.
    """

    __slots__ = ("pid", "sid")

    def __init__(self, pid: int | None, sid: str | None) -> None:
        self.pid = pid
        self.sid = sid

    @property
    def account(self) -> str:
        """The user as DOMAIN\\name; the SID where it has no name that can be found; empty when that is not known."""
        if sys.platform == "win32" and self.sid:
            from ._security import account

            return account(self.sid)
        return self.sid or ""

    @property
    def program(self) -> str:
        """The path of the program that the process runs; empty where that is not known."""
        if sys.platform == "win32" and self.pid:
            from ._security import program

            return program(self.pid)
        return ""

    def __repr__(self) -> str:
        return f"<Peer pid={self.pid} sid={self.sid}>"


class Untrusted(PermissionError):
    """The pipe belongs to somebody else; nothing was sent. `peer` is its owner, and the process that serves it."""

    def __init__(self, path: str, peer: Peer) -> None:
        by = f", served by {peer.program or 'process'} ({peer.pid})" if peer.pid else ""
        super().__init__(errno.EACCES, f"it belongs to {peer.account or 'nobody known'}{by}", path)
        self.peer = peer
