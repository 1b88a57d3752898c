"""Agents on Windows' named pipes, each by the name of its pipe.

Before the first byte is sent, the pipe's owner is checked (`winpipe` does): Pageant's must be the user's own, as PuTTY
has it; others may also be the system's and the administrators', who can be the user anyway.
"""

from __future__ import annotations

import errno
from time import sleep

from .. import winpipe, wsl
from ..errors import Unreachable
from .pageant import PREFIX as PAGEANT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Final, TypeVar

    _T = TypeVar("_T")

#: The pipe of OpenSSH for Windows' agent. Password managers and gpg-agent serve it in its place.
OPENSSH: Final = "openssh-ssh-agent"
#: Seconds to wait for OpenSSH's pipe, before each further look: gpg-agent takes it away between two clients.
_PAUSES: Final = (0.05, 0.05, 0.05)
#: How many more connections show whether a pipe has several servers, which take them in turn.
_LOOKS: Final = 2
#: Seconds before each of them, in which a server with one instance at a time makes its next.
_BREATH: Final = 0.01


def connect(name: str, timeout: float) -> winpipe.Pipe:
    """A connection to the agent that serves the pipe called `name`, within `timeout` seconds. Raises `Unreachable`."""
    return _attempt(name, lambda: winpipe.connect(name, timeout, _trusted(name)), timeout)


def check_presence(name: str) -> None:
    """See whether there is such a pipe, which disturbs nobody; `Unreachable` if not."""

    def look() -> None:
        if not winpipe.exists(name):
            raise FileNotFoundError(name)

    _attempt(name, look)


def check_listening(name: str) -> None:
    """See whether the pipe's server waits for a client, without being one; `Unreachable` if not."""

    def look() -> None:
        if not winpipe.listening(name):
            raise TimeoutError(name)

    _attempt(name, look)


def servers(name: str, pid: int | None, timeout: float) -> list[winpipe.Peer]:
    """Process `pid` and the others that serve the pipe, as far as some connections, one after another, lead to them.

    Nothing is sent. Where one of them fails, as with a server that takes one client at a time, nothing is said.
    """
    found = {pid: winpipe.Peer(pid, None)}
    for _ in range(_LOOKS):
        sleep(_BREATH)
        try:
            pipe = winpipe.connect(name, timeout, _trusted(name))
        except OSError:
            break
        found.setdefault(pipe.peer.pid, pipe.peer)
        pipe.close()
    return list(found.values())


def _trusted(name: str) -> tuple[str, ...]:
    """Who may own the pipe besides the user."""
    return () if name.lower().startswith(PAGEANT) else (winpipe.SYSTEM, winpipe.ADMINISTRATORS)


def _attempt(name: str, act: Callable[[], _T], timeout: float = 0) -> _T:
    """What `act` returns, its errors as `Unreachable`; once more where a pipe may be away for just a moment."""
    pauses = list(_PAUSES if name.lower() == OPENSSH else ())
    while True:
        try:
            return act()
        except FileNotFoundError as error:
            if not pauses:
                raise _unreachable(name, error, timeout) from None
            sleep(pauses.pop())
        except (OSError, ValueError) as error:
            raise _unreachable(name, error, timeout) from None


def _unreachable(name: str, error: OSError | ValueError, timeout: float) -> Unreachable:
    if isinstance(error, ValueError):
        return Unreachable(f"{error}", "correct the address")
    path = winpipe.path(name)
    if isinstance(error, FileNotFoundError):
        return Unreachable(f"no agent serves {path}", _how_to_start(name))
    if isinstance(error, TimeoutError):
        waited = f" for {timeout:g} s" if timeout else ""
        return Unreachable(f"the agent that serves {path} took no client{waited}", "it is busy, or hangs: restart it")
    if isinstance(error, winpipe.Untrusted):
        owner, program = error.peer.account or "somebody unknown", error.peer.program or "process"
        return Unreachable(
            f"{path} belongs to {owner}, not to you, and is served by {program} ({error.peer.pid or 'unknown'})",
            "nothing was sent to it; it is another user's agent, or only looks like one",
        )
    if isinstance(error, PermissionError):
        return Unreachable(f"you may not connect to {path}", "it is another user's, or a program's with more rights")
    if error.errno == errno.ENOSYS:
        address = "openssh" if name.lower() == OPENSSH else f"pipe:{name}"
        return Unreachable(
            f"{path} is a named pipe, and only Windows has those", wsl.hint(address) or "use unix:PATH or keys:PATH"
        )
    return Unreachable(f"cannot connect to {path}: {error.strerror or error}", "check the address")


def _how_to_start(name: str) -> str:
    if name.lower() == OPENSSH:
        return "start it, as administrator: Set-Service ssh-agent -StartupType Manual; Start-Service ssh-agent"
    if name.lower().startswith(PAGEANT):
        return "start Pageant (0.75 or later; the name is another one in each session)"
    return "start it, or correct the address"
