r"""Ways to an agent, and the addresses that name them.

    unix:PATH       what is at PATH, be it a socket or a file that stands for one; a plain path means the same
    winsock:PATH    the same, said of a socket of Windows' own (AF_UNIX)
    assuan:PATH     the same, said of GnuPG's
    cygwin:PATH     the same, said of the files of Cygwin, MSYS2 and Git for Windows
    openssh         OpenSSH for Windows' agent, or whoever else serves its pipe
    pageant         Pageant, on Windows: its pipe, or else its window
    pageant-pipe    its pipe alone
    pageant-window  its window alone, which others have, too
    pipe:NAME       a named pipe of Windows'; \\.\pipe\NAME and //./pipe/NAME mean the same
    stdio:COMMAND   a program that is an agent on its standard input and output
    keys:PATH…      private key files, used in this very process; several are separated as in PATH

One module per way in. This one only turns an address into an `Endpoint`, touching nothing.
"""

from __future__ import annotations

import os
from time import monotonic

from ..errors import AddressError, Unreachable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

    from ..agent import Agent
    from ..client import Connection

#: Seconds to connect. A connection on this machine takes microseconds, unless its agent is being started for it.
CONNECT_TIMEOUT: Final = 5.0

#: Addresses that need no place behind them, that have a path there, and all that may.
PLACELESS: Final = ("openssh", "pageant", "pageant-pipe", "pageant-window")
PATHS: Final = ("unix", "winsock", "assuan", "cygwin")
_PLACED: Final = (*PATHS, "pipe", "stdio", "keys")
_USE: Final = "use unix:PATH, openssh, pageant, pipe:NAME, stdio:COMMAND, keys:PATH or a path with a slash"


class Endpoint:
    """A way to an agent: its `kind`, which is how its address begins, and `where` it is: a path, a name, a command, or
    empty.
    """

    __slots__ = ("kind", "where")

    def __init__(self, kind: str, where: str = "") -> None:
        self.kind = kind
        self.where = where

    @property
    def address(self) -> str:
        """What `parse` makes this endpoint of."""
        return f"{self.kind}:{self.where}" if self.where else self.kind

    def pipe_name(self) -> str | None:
        """The name of the pipe that this leads to; None where it leads to something else.

        Raises `Unreachable` where Windows does not tell Pageant's.
        """
        if self.kind == "openssh":
            from .named_pipe import OPENSSH

            return OPENSSH
        if self.kind in ("pageant", "pageant-pipe"):
            from . import pageant

            return pageant.pipe_name()
        return self.where if self.kind == "pipe" else None

    def connect(self, timeout: float = CONNECT_TIMEOUT) -> Connection:
        """A new connection to the agent, within `timeout` seconds.

        Raises `Unreachable` where nobody answers or the wrong one does.
        """
        if self.kind in PATHS:
            from . import files

            return files.look(self.kind, self.where).connect(timeout)
        if self.kind == "stdio":
            from . import stdio

            return stdio.connect(self.where, timeout)
        if self.kind == "pageant-window":
            from . import window

            return window.connect(timeout)
        if self.kind == "pageant":
            return _pageant(timeout)
        from . import named_pipe

        return named_pipe.connect(self.pipe_name() or self.where, timeout)

    def open(self, timeout: float | None = None, connect_timeout: float = CONNECT_TIMEOUT) -> Agent:
        """The agent behind it, connected. `timeout` bounds each request, in seconds (see `Client`).

        Raises `Unreachable` where nobody answers or the wrong one does, `KeyFileError` for unusable key files.
        """
        if self.kind == "keys":
            from ..keyfiles import KeyFiles

            return KeyFiles(self.where.split(os.pathsep))
        from ..client import Client

        return Client(lambda: self.connect(connect_timeout), self.address, timeout)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Endpoint) and self.address == other.address

    def __hash__(self) -> int:
        return hash(self.address)

    def __repr__(self) -> str:
        return f"<Endpoint {self.address}>"


def _pageant(timeout: float) -> Connection:
    """As `Endpoint.connect`, by Pageant's pipe or else by its window. The reason that is given is that of the pipe."""
    deadline = monotonic() + timeout
    try:
        return Endpoint("pageant-pipe").connect(timeout)
    except Unreachable as error:
        left = deadline - monotonic()
        if left > 0:  # or else it is busy, and would be so with its window
            try:
                return Endpoint("pageant-window").connect(left)
            except Unreachable:
                pass
        raise error from None


def parse(address: str) -> Endpoint:
    """The endpoint that `address` names; `~` and `~user` stand for home directories. Raises `AddressError`."""
    if address in PLACELESS:
        return Endpoint(address)
    kind, colon, where = address.partition(":")
    if colon and kind in PLACELESS:
        raise AddressError(f"{address}: {kind} is a whole address", f"use {kind} alone")
    bare = not (colon and kind in _PLACED)
    if bare:
        kind, where = "unix", address
    if kind == "pipe" or (kind in PATHS and (bare or os.name == "nt") and is_pipe(where)):
        return _pipe(where)
    if bare and not (address.startswith("~") or os.sep in address or (os.altsep and os.altsep in address)):
        raise AddressError(f"{address!r} is no address of an agent", _USE)
    if kind == "stdio":
        from .stdio import split

        split(where)  # or else there is no command in it
        return Endpoint(kind, where)
    parts = where.split(os.pathsep) if kind == "keys" else [where]
    if not all(parts) or "\0" in where:
        raise AddressError(f"{address!r} has no path in it", _USE)
    try:
        return Endpoint(kind, os.pathsep.join(_whole(path) for path in parts))
    except OSError:
        raise AddressError(f"{address!r} starts in a directory that is gone", "give the whole path") from None


def is_pipe(address: str) -> bool:
    r"""Whether this looks like the path of a pipe, with either slash, be it one of another computer.

    //host/pipe/name is such a one only where it is no path of a file, which it is on UNIX.
    """
    *start, host, device = (*address.replace("/", "\\").lower().split("\\", 4), "", "", "", "")[:4]
    return start == ["", ""] and device == "pipe" and (host == "." or os.name == "nt" or address.startswith("\\\\"))


def _pipe(name: str) -> Endpoint:
    """The endpoint of the pipe called `name`, of which `winpipe.path` knows the forms."""
    from .. import winpipe
    from .named_pipe import OPENSSH

    try:
        where = winpipe.path(name).rpartition("\\")[2]
    except ValueError as error:
        raise AddressError(str(error), "use pipe:NAME, where NAME is what follows \\\\.\\pipe\\") from None
    return Endpoint("openssh") if where.lower() == OPENSSH else Endpoint("pipe", where)


def _whole(path: str) -> str:
    """`path` from the root on. On Windows one that begins with a slash is Cygwin's and its kin's, and stays."""
    return path if os.name == "nt" and path.startswith("/") else os.path.abspath(os.path.expanduser(path))
