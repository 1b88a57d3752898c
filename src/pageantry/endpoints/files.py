"""Agents at the end of a path, whatever lies there: a socket, or a file that stands for one.

It is looked at before anybody is connected to, and what it is goes by what it contains, not by what it was called.
"""

from __future__ import annotations

import os
import sys

from ..errors import Unreachable

if sys.platform == "win32":
    from . import winsock as system

    _SOCKET = "winsock"
else:
    from . import unix as system

    _SOCKET = "unix"

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .socketfiles import SocketFile
    from .sockets import Connection


class Place:
    """What a path led to: the `path` of a socket, or of the `file` that stands for one.

    `kind` is unix, winsock, assuan (GnuPG's) or cygwin.
    """

    __slots__ = ("file", "kind", "path")

    def __init__(self, kind: str, path: str, file: SocketFile | None = None) -> None:
        self.kind = kind
        self.path = path
        self.file = file

    def connect(self, timeout: float) -> Connection:
        """A connection to the agent there, within `timeout` seconds. Raises `Unreachable`."""
        if self.file is None:
            return system.connect(self.path, timeout)
        from . import loopback

        return loopback.connect(self.path, self.file, timeout, gnupg=self.kind == "assuan")


def look(kind: str, path: str) -> Place:
    """What is at `path`; what GnuPG's files point to is followed once. Nobody is connected to.

    `kind` is how the address began; in doubt, it tells whose the agent behind a file is. Raises `Unreachable`.
    """
    path = shown = native(path)
    content = system.look(path)
    if content is None:
        return Place(_SOCKET, path)
    from . import socketfiles

    try:
        if target := socketfiles.redirection(content):
            path = os.path.expandvars(os.fsdecode(target))
            shown = f"{shown} points to {path}, which"
            content = system.look(path)
            if content is None:
                return Place(_SOCKET, path)
        file = socketfiles.parse(content)
    except UnicodeDecodeError:  # of the target
        raise Unreachable(f"{path} points to what can be no path here", _hint(b"")) from None
    except ValueError as error:
        raise Unreachable(f"{shown} {error}", _hint(content or b"")) from None
    gnupg = kind == "assuan" or not file.cygwin or (kind != "cygwin" and os.path.basename(path).startswith("S."))
    return Place("assuan" if gnupg else "cygwin", path, file)


def _hint(content: bytes) -> str:
    if content.startswith(b"!"):
        return "start its agent again; if that does not help, update Git for Windows, or use another agent"
    return "an agent's address is the socket, or the file, that it made for that"


def native(path: str) -> str:
    """`path` as Windows has it, where it may be one of Cygwin, MSYS2 or Git Bash; elsewhere itself."""
    if os.name != "nt" or not path.startswith("/") or path.startswith("//"):
        return path
    from . import programs

    if found := programs.output("cygpath", "-w", path):
        return found
    there = os.path.abspath(os.path.join(os.environ.get("TEMP", ""), path.removeprefix("/tmp/")))  # noqa: S108
    if path.startswith("/tmp/") and os.path.lexists(there):  # noqa: S108 - Git Bash's
        return there
    raise Unreachable(
        f"{path} is a path of Git Bash, Cygwin, MSYS2 or WSL, and no cygpath is here to tell what Windows calls it",
        "put cygpath on PATH, or give the path as Windows has it",
    )
