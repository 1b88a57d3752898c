"""Who listens on a port of 127.0.0.1, where the system tells: a file may name one that is somebody else's by now."""

from __future__ import annotations

import socket
import sys

from .. import wsl

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Final

    from ..agent import Peer

_LOOPBACK: Final = socket.inet_aton("127.0.0.1")
_ANY: Final = bytes(4)
_MAPPED: Final = bytes(10) + b"\xff\xff"
#: Where the connections to 127.0.0.1 can go, in either version of the protocol.
_PLACES: Final = (_LOOPBACK, _ANY, bytes(16), _MAPPED + _LOOPBACK, _MAPPED + _ANY)

_LISTEN: Final = "0A"  # TCP_LISTEN
#: Bytes of a row of Windows' tables: MIB_TCPROW_OWNER_PID and MIB_TCP6ROW_OWNER_PID.
_ROW: Final = 24
_ROW_6: Final = 56


def listener(port: int) -> tuple[Peer, bool] | None:
    """Whoever listens on the port, and whether we trust him; None where the system does not tell.

    Of several, it is one whom we do not trust, if there is one. Raises ConnectionRefusedError where nobody listens:
    who took a connection and then did not want to be seen is nobody to talk to.
    """
    found = _found(port)
    if found is None:
        return None
    if not found:
        raise ConnectionRefusedError
    return min(found, key=lambda one: one[1])


def _found(port: int) -> list[tuple[Peer, bool]] | None:
    """All who listen on the port, and whether we trust each; None where the system does not tell."""
    if sys.platform == "win32":
        from . import _owners, sockets

        pids = list(pids_of(_owners.tcp_listeners(socket.AF_INET), port, _ROW))
        pids = pids or list(pids_of(_owners.tcp_listeners(socket.AF_INET6), port, _ROW_6))
        return [sockets.process(pid) for pid in pids] if all(pids) else None  # Wine says 0
    elif sys.platform == "linux":  # noqa: RET505 - so that type checkers know what is for which system
        from . import unix

        try:
            uids = list(_uids("/proc/net/tcp", port)) or list(_uids("/proc/net/tcp6", port))
        except OSError:
            return None
        if not uids and wsl.version():  # it may be Windows who listens
            return None
        return [(unix.Peer(uid, None), uid in unix.trusted()) for uid in uids]
    else:
        return None


def _uids(path: str, port: int) -> Iterator[int]:
    with open(path, encoding="ascii") as file:
        yield from uids_of(file.read(), port)


def uids_of(table: str, port: int) -> Iterator[int]:
    """The users who listen on the port, by the text of /proc/net/tcp or tcp6 (proc(5))."""
    for line in table.splitlines()[1:]:
        _, local, _, state, _, _, _, uid, *_ = line.split()
        address, _, number = local.partition(":")
        if state == _LISTEN and int(number, 16) == port and _bytes(address) in _PLACES:
            yield int(uid)


def _bytes(address: str) -> bytes:
    """An address as the kernel writes it: words of 4 bytes, each as the number that this computer takes it for."""
    return b"".join(int(address[at : at + 8], 16).to_bytes(4, sys.byteorder) for at in range(0, len(address), 8))


def pids_of(table: bytes, port: int, size: int) -> Iterator[int]:
    """The processes that listen on the port, by a table of Windows' listeners whose rows have `size` bytes."""
    at_address, at_port = (slice(4, 8), slice(8, 10)) if size == _ROW else (slice(0, 16), slice(20, 22))
    for number in range(int.from_bytes(table[:4], "little")):
        row = table[4 + number * size :][:size]
        if row[at_address] in _PLACES and int.from_bytes(row[at_port], "big") == port:
            yield int.from_bytes(row[-4:], "little")
