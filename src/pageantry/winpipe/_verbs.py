"""What one does with pipes: connect, listen, and look without opening any."""

from __future__ import annotations

import errno
import sys

from ._names import path

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import NoReturn

    from ._server import Listener
    from ._stream import Pipe

if sys.platform == "win32":
    from . import _windows
else:

    class _Elsewhere:
        """What stands in for Windows."""

        def __getattr__(self, name: str) -> Callable[..., NoReturn]:
            return self._fail

        def _fail(self, *_: object) -> NoReturn:
            raise OSError(errno.ENOSYS, "named pipes of this kind exist on Windows only")

    _windows = _Elsewhere()


def connect(name: str, timeout: float = 5.0, trust: Iterable[str] = ()) -> Pipe:
    r"""A connection to the pipe called `name`: NAME, \\.\pipe\NAME or //./pipe/NAME.

    The pipe must belong to the user of this process or to one of the SIDs in `trust`, such as `SYSTEM`; that is looked
    at before this returns, and its server may learn who we are, but not act in our name. A busy pipe is waited for,
    `timeout` seconds at most; one that is not there fails at once.

    Raises ValueError (see `path`), FileNotFoundError, TimeoutError, `Untrusted`, PermissionError, OSError.
    """
    return _windows.connect(path(name), timeout, trust)


def listen(name: str, access: Iterable[str] = ()) -> Listener:
    """Serve the pipe called `name` (as for `connect`), for the user of this process and nobody on other computers.

    `access` are SIDs of others who may connect, such as `AUTHENTICATED_USERS`: connect, not serve the name themselves.
    Raises ValueError, FileExistsError when somebody serves that name, OSError.
    """
    target, others = path(name), tuple(access)
    for sid in others:  # it becomes part of a longer text, in which it must not mean anything else
        if not (sid.startswith("S-1-") and sid.isascii() and sid[2:].replace("-", "").isdecimal()):
            raise ValueError(f"{sid!r} is no security identifier, such as S-1-5-11")
    return _windows.listen(target, others)


def exists(name: str) -> bool:
    """Whether there is a pipe of that name (as for `connect`), without opening it. Raises ValueError, OSError."""
    return _windows.exists(path(name))


def listening(name: str) -> bool:
    """Whether an instance of the pipe is free for a client, without opening it; False when all are busy.

    Raises ValueError, FileNotFoundError, OSError.
    """
    return _windows.listening(path(name))


def user(pid: int | None = None) -> str:
    """The SID of the user of this process, or of process `pid`; OSError where that may not be known."""
    return _windows.user() if pid is None else _windows.user(pid)
