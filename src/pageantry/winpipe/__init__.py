r"""Windows' named pipes for Python: streams both ways at once, of any name, client and server, private by default.

    with winpipe.listen("example") as listener:    # \\.\pipe\example, for this user alone
        with listener.accept() as pipe:
            pipe.sendall(pipe.recv(4096))

    with winpipe.connect("example") as pipe:       # whose owner was looked at before this returns
        pipe.sendall(b"hello")
        print(pipe.recv(4096))

`Pipe` and `Listener` are used as sockets are; `winpipe.aio` has the same two verbs for asyncio. This package imports
everywhere and works on Windows; elsewhere each verb raises OSError (ENOSYS). It needs nothing but Python itself.
"""

from __future__ import annotations

from ._names import MAX_PATH, path
from ._peer import Peer, Untrusted
from ._server import BACKLOG, Listener
from ._stream import MAX_READ, MAX_WRITE, Pipe
from ._verbs import connect, exists, listen, listening, user

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

__all__ = [
    "ADMINISTRATORS",
    "AUTHENTICATED_USERS",
    "BACKLOG",
    "MAX_PATH",
    "MAX_READ",
    "MAX_WRITE",
    "SYSTEM",
    "Listener",
    "Peer",
    "Pipe",
    "Untrusted",
    "connect",
    "exists",
    "listen",
    "listening",
    "path",
    "user",
]

#: Windows itself, as which most services run.
SYSTEM: Final = "S-1-5-18"
#: The group whose members may do anything on this computer.
ADMINISTRATORS: Final = "S-1-5-32-544"
#: Everybody who has logged in, in whatever way.
AUTHENTICATED_USERS: Final = "S-1-5-11"
