"""Who has connected to a socket of ours."""

from __future__ import annotations

import os
import sys
import time

from . import unix

assert sys.platform != "win32", "UNIX only: callers ask first"

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket

#: How /proc says that the file of a program was replaced while it runs.
_DELETED = " (deleted)"


class Caller(unix.Peer):
    """The process that has connected: its user `uid`, and its `pid` where the system tells.

    What it runs is looked up when it is first asked for, and stays. It is there for people and proves nothing: any
    process may connect and then become another program, or hand its connection on.
    """

    __slots__ = ("_program", "_since")

    def __init__(self, uid: int, pid: int | None) -> None:
        super().__init__(uid, pid)
        self._since = _now()
        self._program: str | None = None

    @property
    def program(self) -> str:
        """The path of the program that it runs, for a script that of its interpreter; empty where that is not known.

        That is so, too, once the process has ended, also where another has its number by now.
        """
        if self._program is None:
            try:
                self._program = _program(self.pid, self._since) if self.pid else ""
            except OSError:  # it has ended, or is another user's
                self._program = ""
        return self._program


def caller(connection: socket.socket) -> Caller | None:
    """Who has made a connection that was just accepted; None where the system does not tell. Raises OSError."""
    found = unix.peer(connection)
    return Caller(found.uid, found.pid) if found else None


if sys.platform == "linux":

    def _now() -> float:
        return time.clock_gettime(time.CLOCK_BOOTTIME)

    def _program(pid: int, since: float) -> str:
        """What the process runs that had this number at the time `since`. Raises OSError."""
        path = os.readlink(f"/proc/{pid}/exe").removesuffix(_DELETED)
        with open(f"/proc/{pid}/stat", "rb") as file:
            ticks = int(file.read().rpartition(b")")[2].split()[19])  # since the system started, see proc(5)
        return "" if ticks / os.sysconf("SC_CLK_TCK") > since else path

elif sys.platform == "darwin":

    def _now() -> float:
        return 0.0

    def _program(pid: int, since: float) -> str:
        import ctypes

        path = ctypes.create_string_buffer(4096)  # PROC_PIDPATHINFO_MAXSIZE
        ctypes.CDLL(None).proc_pidpath(pid, path, len(path))
        return os.fsdecode(path.value)

else:

    def _now() -> float:
        return 0.0

    def _program(pid: int, since: float) -> str:
        return ""
