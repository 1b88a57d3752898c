"""Who has connected to a port of ours on 127.0.0.1, where the system tells."""

from __future__ import annotations

import socket
import sys

from . import listeners

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Final, TypeAlias

    from ..agent import Peer

    #: An address of a computer's and a port.
    Address: TypeAlias = tuple[str, int]

#: Bytes of a row of Windows' table, MIB_TCPROW_OWNER_PID.
_ROW: Final = 24


def caller(client: Address, server: Address) -> tuple[Peer | None, bool]:
    """The process at the client's end of the connection between the two, and whether it may be one of ours.

    The first is None, or lacks what is not known, where the system does not tell: then it may. Another user's may not.
    """
    if sys.platform == "win32":
        from .. import winpipe
        from . import _owners, sockets

        try:
            pid = next(pids_of(_owners.tcp_connections(), client, server), 0)
        except OSError:
            pid = 0
        if not pid:  # it has left, or this is Wine
            return None, True
        peer, trusted = sockets.process(pid)
        assert isinstance(peer, winpipe.Peer)
        return peer, trusted or peer.sid is None
    elif sys.platform == "linux":  # noqa: RET505 - so that type checkers know what is for which system
        from . import unix

        try:
            with open("/proc/net/tcp", encoding="ascii") as file:
                uid = next(uids_of(file.read(), client, server), None)
        except OSError:
            uid = None
        return (None, True) if uid is None else (unix.Peer(uid, None), uid in unix.trusted())
    else:
        return None, True


def uids_of(table: str, client: Address, server: Address) -> Iterator[int]:
    """The user whose the client's end is, by the text of /proc/net/tcp (proc(5))."""
    ends = [(socket.inet_aton(host), port) for host, port in (client, server)]
    for line in table.splitlines()[1:]:
        _, local, remote, _, _, _, _, uid, *_ = line.split()
        if [_end(local), _end(remote)] == ends:
            yield int(uid)


def _end(text: str) -> tuple[bytes, int]:
    address, _, port = text.partition(":")
    return listeners._bytes(address), int(port, 16)


def pids_of(table: bytes, client: Address, server: Address) -> Iterator[int]:
    """The process whose the client's end is, by a table of Windows' connections (MIB_TCPTABLE_OWNER_PID)."""
    ends = [(socket.inet_aton(host), port.to_bytes(2, "big")) for host, port in (client, server)]
    for number in range(int.from_bytes(table[:4], "little")):
        row = table[4 + number * _ROW :][:_ROW]
        if [(row[4:8], row[8:10]), (row[12:16], row[16:18])] == ends:
            yield int.from_bytes(row[20:24], "little")
