"""Agents on ports of 127.0.0.1 whose number lies in a file, with a secret that shows who may read it (`socketfiles`).

GnuPG's take the 16 bytes of the secret and then the agent's protocol. Those of Cygwin, MSYS2 and Git for Windows send
the secret back, and each side tells the other its process and its user. gpg-agent's socket for SSH may lie in a file of
Cygwin's form and be of either kind: who hears nothing for a while goes on as with GnuPG's.

Before the secret is sent, the user who listens on the port is looked at: an old file may name one that is not his.
"""

from __future__ import annotations

import os
import socket
import struct
from time import monotonic

from .. import wsl
from ..errors import Unreachable
from . import listeners
from .sockets import Connection

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

    from ..agent import Peer
    from .socketfiles import SocketFile

#: Seconds in which GnuPG's would have sent the secret back if it did as Cygwin does.
ECHO_WAIT: Final = 0.25
#: Seconds in which an agent would hang up that wants another user than 0, who may do everything on Cygwin.
REFUSAL_WAIT: Final = 0.05

_SECRET: Final = 16
_CREDENTIALS = struct.Struct("<3I")  # process, user, group
_ROOT: Final = (0, 0)


class _Stranger(PermissionError):
    """It is another user who listens there."""

    def __init__(self, peer: Peer) -> None:
        self.peer = peer


class _Impostor(PermissionError):
    """Whoever listens there does not know the secret."""


def connect(path: str, file: SocketFile, timeout: float, gnupg: bool) -> Connection:
    """A connection to the agent that `file`, which lies at `path`, leads to, within `timeout` seconds.

    `gnupg`: the agent is GnuPG's, whatever the form of the file. Raises `Unreachable`.
    """
    deadline = monotonic() + timeout
    try:
        connection, theirs = _greeted(file, deadline, gnupg, _ROOT)
        if theirs and theirs != _ROOT and _is_refused(connection):
            connection.close()
            connection, _ = _greeted(file, deadline, gnupg, theirs)
        return connection
    except OSError as error:
        raise _unreachable(path, file.port, error, timeout) from None


def _greeted(
    file: SocketFile, deadline: float, gnupg: bool, ours: tuple[int, int]
) -> tuple[Connection, tuple[int, int] | None]:
    """A connection to the port, all greetings exchanged; and the user and group that the agent named, if it did.

    Raises OSError.
    """
    connection = Connection(socket.AF_INET, socket.SOCK_STREAM)
    try:
        connection.settimeout(_left(deadline))
        connection.connect(("127.0.0.1", file.port))
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if found := listeners.listener(file.port):
            connection.peer, trusted = found
            if not trusted:
                raise _Stranger(connection.peer)
        connection.sendall(file.secret)
        theirs = _exchange(connection, file.secret, deadline, gnupg, ours) if file.cygwin else None
    except BaseException:
        connection.close()
        raise
    return connection, theirs


def _exchange(
    connection: Connection, secret: bytes, deadline: float, gnupg: bool, ours: tuple[int, int]
) -> tuple[int, int] | None:
    """What follows the secret on Cygwin: the secret back, then who we are and who they are.

    None where the secret did not come back, which only GnuPG's may leave out.
    """
    from hmac import compare_digest

    if gnupg:
        connection.settimeout(max(0.001, min(ECHO_WAIT, deadline - monotonic())))
        try:
            echo = connection.recv(_SECRET)
        except TimeoutError:
            return None
        if not echo:
            raise ConnectionAbortedError
    else:
        echo = b""
    echo += _received(connection, _SECRET - len(echo), deadline)
    if not compare_digest(echo, secret):
        raise _Impostor
    connection.sendall(_CREDENTIALS.pack(os.getpid(), *ours))
    _, user, group = _CREDENTIALS.unpack(_received(connection, _CREDENTIALS.size, deadline))
    return user, group


def _received(connection: Connection, size: int, deadline: float) -> bytes:
    """Exactly so many bytes. Raises ConnectionAbortedError where there are fewer, TimeoutError."""
    data = b""
    while len(data) < size:
        connection.settimeout(_left(deadline))
        piece = connection.recv(size - len(data))
        if not piece:
            raise ConnectionAbortedError
        data += piece
    return data


def _left(deadline: float) -> float:
    """The seconds until `deadline`; TimeoutError where it is over."""
    left = deadline - monotonic()
    if left <= 0:
        raise TimeoutError
    return left


def _is_refused(connection: Connection) -> bool:
    """Whether the agent hangs up as soon as it has heard who we are."""
    connection.settimeout(REFUSAL_WAIT)
    try:
        return not connection.recv(1, socket.MSG_PEEK)
    except TimeoutError:
        return False
    except OSError:
        return True


def _unreachable(path: str, port: int, error: OSError, timeout: float) -> Unreachable:
    """What became of it, in words."""
    hint = "nothing more was sent; the file may be an old one: start its agent again, or delete it"
    if isinstance(error, _Stranger):
        peer = error.peer
        process = f" ({peer.program or 'process'}, {peer.pid})" if peer.pid else ""
        what = f"which belongs to {peer.account or 'another user'}{process}, not to you"
        hint = "nothing was sent there; the file is an old one: delete it, and start its agent again"
    elif isinstance(error, _Impostor):
        what = "where whoever listens does not know the secret that is in the file"
    elif isinstance(error, ConnectionRefusedError):
        what = "where nobody listens any more"
        hint = "its agent has ended: start it again"
        if wsl.version() == 2:
            hint = f"its agent has ended, or is on Windows: {wsl.hint('ADDRESS')}"
    elif isinstance(error, TimeoutError):
        what, hint = f"where nobody greeted us within {timeout:g} s", "its agent is busy, or hangs: restart it"
    elif isinstance(error, ConnectionError):
        what = "where the greeting was broken off"
    else:
        what, hint = f"which cannot be reached: {error.strerror or error}", "check the address"
    return Unreachable(f"{path} leads to port {port}, {what}", hint)
