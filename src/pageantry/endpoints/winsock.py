"""Agents on Windows' own sockets that are files (AF_UNIX), and the files of Windows that may stand for one.

Python makes such sockets there and uses them, but cannot connect them (cpython#77589): until it can, ws2_32 does.
Before the first byte is sent, the owner of the file and the user behind the other end are looked at.
"""

from __future__ import annotations

import errno
import os
import socket
import stat
import sys

from ..errors import Unreachable
from . import socketfiles, sockets
from .sockets import Connection

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final, Protocol

    from ..agent import Peer

    class Winsock(Protocol):
        """What of ws2_32 is needed."""

        def connect(self, socket: int, address: bytes, /) -> int:
            """Connect a socket; 0, or the number of the error."""

        def bind(self, socket: int, address: bytes, /) -> None:
            """Bind a socket, which makes its file. Raises OSError."""

        def accept(self, socket: int, /) -> int:
            """The socket of the next client. Raises OSError."""

        def peer_pid(self, socket: int, /) -> int | None:
            """The process at the other end of a connection."""


#: What fits into Windows' sockaddr_un beside a NUL, in bytes of UTF-8.
MAX_PATH: Final = 107
AF_UNIX: Final = 1
_REPARSE_TAG: Final = 0x80000023  # IO_REPARSE_TAG_AF_UNIX
_WOULD_BLOCK: Final = 10035  # WSAEWOULDBLOCK
_REFUSED: Final = 10061  # WSAECONNREFUSED


def is_socket(path: str) -> bool:
    """Whether that is a socket of Windows', which is not opened."""
    try:
        return getattr(os.lstat(path), "st_reparse_tag", 0) == _REPARSE_TAG
    except (OSError, ValueError):
        return False


def look(path: str) -> bytes | None:
    """How the file at `path` begins; None where it is a socket. Raises `Unreachable` where it is neither, or not to be
    trusted.
    """
    try:
        if is_socket(path):
            _check_owner(path)
            return None
        if not stat.S_ISREG(os.stat(path).st_mode):
            return b""
        with open(path, "rb", buffering=0) as file:
            _check_owner(path, file.fileno())
            return socketfiles.beginning(file.read)
    except Unreachable:
        raise
    except FileNotFoundError:
        raise Unreachable(f"there is no {path}", "start an agent, or correct the address") from None
    except (OSError, ValueError) as error:
        raise Unreachable(
            f"{path} cannot be read: {getattr(error, 'strerror', '') or error}", "correct the address"
        ) from None


def connect(path: str, timeout: float, winsock: Winsock | None = None) -> Connection:
    """A connection to the agent on the socket at `path`, which `look` has seen, within `timeout` seconds.

    Raises `Unreachable`. `winsock` stands in for ws2_32.
    """
    if (size := len(os.fsencode(path))) > MAX_PATH:
        raise Unreachable(
            f"{path[:40]}… is {size} bytes long; a socket's path can have {MAX_PATH}", "give the agent a shorter path"
        )
    try:
        connection = Connection(AF_UNIX, socket.SOCK_STREAM, 0)
    except OSError as error:
        raise _unreachable(path, error, timeout) from None
    try:
        connection.settimeout(timeout)
        dial(connection, path, timeout, winsock)
        winsock = winsock or system()
        if pid := winsock.peer_pid(connection.fileno()) if winsock else None:
            connection.peer = _trusted(path, pid)
    except Unreachable:
        connection.close()
        raise
    except OSError as error:
        connection.close()
        raise _unreachable(path, error, timeout) from None
    except BaseException:
        connection.close()
        raise
    return connection


def system() -> Winsock | None:
    """What of ws2_32 is needed; None off Windows."""
    if sys.platform == "win32":
        from . import _ws2

        return _ws2
    else:  # noqa: RET505 - so that type checkers know what is for Windows only
        return None


def dial(connection: socket.socket, path: str, timeout: float, winsock: Winsock | None = None) -> None:
    """Connect, by Python's own means where it has them and nothing stands in for ws2_32. Raises OSError."""
    stand_in = winsock or (None if hasattr(socket, "AF_UNIX") else system())
    if stand_in:
        _connect(connection, path, timeout, stand_in)
    else:
        connection.connect(path)


def address(path: str) -> bytes:
    """Windows' sockaddr_un of a path, which must not be too long."""
    return AF_UNIX.to_bytes(2, sys.byteorder) + os.fsencode(path).ljust(MAX_PATH + 1, b"\0")


def _connect(connection: socket.socket, path: str, timeout: float, winsock: Winsock) -> None:
    """Connect, without Python's help. Raises OSError."""
    from select import select

    code = winsock.connect(connection.fileno(), address(path))
    if code == _WOULD_BLOCK:
        _, good, bad = select((), (connection,), (connection,), timeout)
        if not good and not bad:
            raise TimeoutError
        code = connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    if code == _REFUSED:
        raise ConnectionRefusedError
    if code:
        raise OSError(code, f"Winsock's error {code}")


def _trusted(path: str, pid: int) -> Peer:
    """The process at the other end. Raises `Unreachable` for another user's."""
    peer, trusted = sockets.process(pid)
    if not trusted:
        raise Unreachable(
            f"the agent at {path} runs as {peer.account or 'somebody unknown'}, not as you "
            f"({peer.program or 'process'}, {pid})",
            "nothing was sent to it; use an agent of your own",
        )
    return peer


def _check_owner(path: str, descriptor: int | None = None) -> None:
    """See whether the file, or the socket, may be trusted; `Unreachable` if not. Raises OSError."""
    if sys.platform == "win32":
        import msvcrt

        from .. import winpipe
        from . import _owners

        sid = _owners.owner(path) if descriptor is None else _owners.owner_of(msvcrt.get_osfhandle(descriptor))
        if not sockets.trusts(sid):
            raise Unreachable(
                f"{path} belongs to {winpipe.Peer(None, sid).account}, not to you", "use an agent of your own"
            )


def _unreachable(path: str, error: OSError, timeout: float) -> Unreachable:
    if error.errno == errno.EAFNOSUPPORT:
        return Unreachable(
            f"{path} is a socket, and this Windows has none of that kind (AF_UNIX)",
            "it takes Windows 10 1803 or later; use a pipe: openssh, pageant, pipe:NAME",
        )
    if isinstance(error, ConnectionRefusedError):
        return Unreachable(f"nobody listens at {path} any more", "its agent has ended: start it again")
    if isinstance(error, TimeoutError):
        return Unreachable(f"{path} took no connection within {timeout:g} s", "its agent hangs: restart it")
    if isinstance(error, PermissionError):
        return Unreachable(f"you may not connect to {path}", "it is another user's, or a program's with more rights")
    return Unreachable(f"cannot connect to {path}: {error.strerror or error}", "check the address")
