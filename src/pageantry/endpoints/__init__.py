"""Ways to an agent, and the addresses that name them.

    unix:PATH   a UNIX socket, or GnuPG's file that points to one; a plain path means the same
    keys:PATH…  private key files, used in this very process; several are separated as in PATH

One module per way in. This one only turns an address into an `Endpoint`, touching nothing.
"""

from __future__ import annotations

import os
import sys

from ..errors import AddressError, Unreachable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

    from ..agent import Agent

#: Seconds to connect. A connection on this machine takes microseconds, unless its agent is being started for it.
CONNECT_TIMEOUT: Final = 5.0

_ELSEWHERE = {
    "openssh": "OpenSSH for Windows' agent",
    "pageant": "Pageant",
    "pageant-pipe": "Pageant's pipe",
    "pageant-window": "Pageant's window",
    "pipe": "named pipes",
    "cygwin": "Cygwin's sockets",
    "winsock": "Windows' sockets",
    "stdio": "agents behind a command",
}


class Endpoint:
    """A way to an agent: its `kind` ("unix", "keys") and `where` it is (for both, a path)."""

    __slots__ = ("kind", "where")

    def __init__(self, kind: str, where: str) -> None:
        self.kind = kind
        self.where = where

    @property
    def address(self) -> str:
        """What `parse` makes this endpoint of."""
        return f"{self.kind}:{self.where}"

    def open(self, timeout: float | None = None, connect_timeout: float = CONNECT_TIMEOUT) -> Agent:
        """The agent behind it, connected. `timeout` bounds each request, in seconds (see `Client`).

        Raises `Unreachable` where nobody answers or the wrong one does, `KeyFileError` for unusable key files.
        """
        if self.kind == "keys":
            from ..keyfiles import KeyFiles

            return KeyFiles(self.where.split(os.pathsep))
        if sys.platform == "win32":
            raise Unreachable(
                f"{self.address}: this Python has no UNIX sockets (no socket.AF_UNIX)",
                "agents on Windows listen elsewhere; keys:PATH works without any agent",
            )
        else:  # noqa: RET506 - so that type checkers know what is for UNIX only
            from ..client import Client
            from . import unix

            return Client(lambda: unix.connect(self.where, connect_timeout), self.address, timeout)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Endpoint) and self.address == other.address

    def __hash__(self) -> int:
        return hash(self.address)

    def __repr__(self) -> str:
        return f"<Endpoint {self.address}>"


def parse(address: str) -> Endpoint:
    """The endpoint that `address` names; `~` and `~user` stand for home directories. Raises `AddressError`."""
    kind, colon, where = address.partition(":")
    if kind in _ELSEWHERE and (colon or kind in ("openssh", "pageant", "pageant-pipe", "pageant-window")):
        raise AddressError(
            f"{address}: {_ELSEWHERE[kind]} cannot be reached by this version",
            "use unix:PATH or keys:PATH",
        )
    if kind == "assuan" and colon:  # GnuPG's file may be the socket itself, or point to it: unix does both
        kind = "unix"
    if not (colon and kind in ("unix", "keys")):
        kind, where = "unix", address
        if os.sep not in address and not address.startswith("~"):
            raise AddressError(
                f"{address!r} is no address of an agent", "use unix:PATH, keys:PATH or a path with a slash"
            )
    paths = where.split(os.pathsep) if kind == "keys" else [where]
    if not all(paths) or "\0" in where:
        raise AddressError(f"{address!r} has no path in it", "use unix:PATH, keys:PATH or a path")
    try:
        return Endpoint(kind, os.pathsep.join(os.path.abspath(os.path.expanduser(path)) for path in paths))
    except OSError:
        raise AddressError(f"{address!r} starts in a directory that is gone", "give the whole path") from None
