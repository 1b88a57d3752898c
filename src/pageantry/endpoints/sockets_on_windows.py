"""Agents on sockets, on Windows, none of which this version reaches: whose a file is, and so why not."""

from __future__ import annotations

import os
import stat

from ..errors import Unreachable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

#: IO_REPARSE_TAG_AF_UNIX
_SOCKET_TAG: Final = 0x80000023
_HINT: Final = "use openssh, pageant, pipe:NAME or keys:PATH"


def unreachable(path: str) -> Unreachable:
    """Why the agent at `path` is not reached; the file is looked at, and nobody is connected to."""
    if path.startswith("/"):
        return Unreachable(
            f"{path} is a path of Git Bash, Cygwin, MSYS2 or WSL, whose sockets this version does not reach", _HINT
        )
    try:
        status = os.lstat(path)
        if getattr(status, "st_reparse_tag", 0) == _SOCKET_TAG:
            return Unreachable(f"{path} is a socket, and this Python has none of that kind (no socket.AF_UNIX)", _HINT)
        head = b""
        if stat.S_ISREG(status.st_mode):
            with open(path, "rb") as file:
                head = file.read(128)
    except FileNotFoundError:
        return Unreachable(f"there is no {path}", "start an agent, or correct the address")
    except (OSError, ValueError) as error:
        return Unreachable(f"{path} cannot be read: {getattr(error, 'strerror', '') or error}", "correct the address")
    return Unreachable(f"{path} is {_kind(head)}", _HINT)


def _kind(head: bytes) -> str:
    """What a file is that begins with `head`."""
    port, line, rest = head.partition(b"\n")
    if head.startswith(b"!<socket >"):
        return "a socket of Cygwin, MSYS2 or Git Bash, which this version does not reach"
    if line and 0 < len(port) <= 5 and port.isdigit() and len(rest) == 16:
        return "a socket of GnuPG's, which this version does not reach"
    return "no address of an agent"
