"""Files that stand for a socket: what is in them, with nothing done about it.

    native     GnuPG's on Windows: the port in ASCII, LF, 16 secret bytes (libassuan)
    Cygwin     also MSYS2's and Git for Windows': `!<socket >PORT s %08x-%08x-%08x-%08x`, the secret as four numbers
    redirect   GnuPG's anywhere: `%Assuan%`, LF, `socket=PATH`, LF

In the first two, the port is one of 127.0.0.1, and who connects sends the secret to show that he may read the file.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Final

#: No file of the first two kinds is longer than this, in bytes.
MAX_FILE: Final = 128
#: libassuan reads no more of a redirect.
MAX_REDIRECT: Final = 511

_CYGWIN: Final = b"!<socket >"
_REDIRECT: Final = b"%Assuan%\n"
_SECRET: Final = 16


class SocketFile:
    """A port of 127.0.0.1 and the secret that goes with it; `cygwin` is the form of the file."""

    __slots__ = ("cygwin", "port", "secret")

    def __init__(self, port: int, secret: bytes, cygwin: bool) -> None:
        self.port = port
        self.secret = secret
        self.cygwin = cygwin

    def encode(self) -> bytes:
        """The file's contents."""
        if not self.cygwin:
            return b"%d\n%s" % (self.port, self.secret)
        numbers = (self.secret[at : at + 4][::-1].hex() for at in range(0, _SECRET, 4))
        return f"{_CYGWIN.decode()}{self.port} s {'-'.join(numbers)}\0".encode("ascii")

    def __repr__(self) -> str:
        return f"<SocketFile port={self.port}>"


def parse(content: bytes) -> SocketFile:
    """What a file says; ValueError, with what is to be said behind its name, where it is of neither kind."""
    if content.startswith(_CYGWIN):
        return _cygwin(content[len(_CYGWIN) :])
    port, line, secret = content.partition(b"\n")
    if not line or not port.isdigit() or len(port) > 5:
        raise ValueError("is not a socket, nor a file that stands for one")
    if len(secret) != _SECRET:
        raise ValueError(f"names a port, but with a secret of {len(secret)} bytes instead of {_SECRET}")
    return SocketFile(_port(port), secret, cygwin=False)


def _cygwin(rest: bytes) -> SocketFile:
    """The form of Cygwin, behind its magic. Numbers are little-endian, as on all computers with Windows."""
    port, *words = rest.removesuffix(b"\0").split(b" ")
    if port.isdigit() and len(words) == 1 and _numbers(words[0]):
        raise ValueError("is a socket of old msysGit's, which tells its clients by events that it does not share")
    if len(words) != 2 or words[0] != b"s" or not (numbers := _numbers(words[1])):
        raise ValueError("begins as a socket file of Cygwin's, and does not go on as one")
    if not port.isdigit() or len(port) > 5:
        raise ValueError(f"names the port {port[:20].decode('ascii', 'replace')!r}, which is no number of one")
    return SocketFile(_port(port), numbers, cygwin=True)


def _numbers(text: bytes) -> bytes | None:
    """The 16 bytes of four numbers of 8 hexadecimal digits with dashes between; None where it is not that."""
    groups = text.split(b"-")
    if len(groups) != 4 or any(len(group) != 8 or group.strip(b"0123456789abcdefABCDEF") for group in groups):
        return None
    return b"".join(bytes.fromhex(group.decode())[::-1] for group in groups)


def _port(digits: bytes) -> int:
    port = int(digits)
    if not 0 < port <= 65535:
        raise ValueError(f"names the port {port}; a port is from 1 to 65535")
    return port


def redirection(content: bytes) -> bytes | None:
    """The path that a redirect names, with its ${VARIABLES}; None where it is no redirect."""
    magic, equals, path = content.partition(b"socket=")
    if magic != _REDIRECT or not equals or len(content) > MAX_REDIRECT:
        return None
    path = path.split(b"\n")[0].rstrip(b"\r")
    return path if path and b"\0" not in path else None


def beginning(read: Callable[[int], bytes]) -> bytes:
    """What `read` gives of a file, as much as tells what it is: never more than that, whatever the file is."""
    head = read(MAX_FILE)
    return head + read(MAX_REDIRECT + 1 - len(head)) if head.startswith(_REDIRECT) else head
