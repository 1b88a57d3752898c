"""Sockets that somebody else has made for an agent of ours, which starts when the first client comes.

`inherited` is systemd's protocol (sd_listen_fds(3)), `launchd` that of macOS (launch_activate_socket(3)).
"""

from __future__ import annotations

import os
import socket
import sys

from ..errors import Error
from . import unix_listener

assert sys.platform != "win32", "UNIX only: callers ask first"

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

#: The first descriptor that systemd passes (SD_LISTEN_FDS_START).
_FIRST: Final = 3
_VARIABLES: Final = ("LISTEN_PID", "LISTEN_PIDFDID", "LISTEN_FDS", "LISTEN_FDNAMES")

#: What systemd has made, and `passed` has not given away.
_waiting: Final[list[unix_listener.Listener]] = []


def inherited() -> list[unix_listener.Listener]:
    """The sockets that systemd has made for this process, which removes them itself; none where it did not start us.

    From then on the environment does not speak of them, and no program that is run gets them. Raises `Error` where one
    of them is not what an agent can listen on.
    """
    pid, _, count, _ = (os.environ.pop(name, "") for name in _VARIABLES)
    if pid != str(os.getpid()):
        return []
    if not (count.isascii() and count.isdigit()):
        raise Error(f"LISTEN_FDS is {count!r}, which is no number", "let systemd start the agent, or unset LISTEN_PID")
    return [_taken_over(descriptor, "systemd") for descriptor in range(_FIRST, _FIRST + int(count))]


def passed(path: str) -> unix_listener.Listener | None:
    """The socket at `path`, if systemd has made it for this process. Others that it has made wait for being asked for.

    Raises `Error`, as `inherited` does.
    """
    _waiting.extend(inherited())
    for listener in _waiting:
        if listener.path == os.path.abspath(path):
            _waiting.remove(listener)
            return listener
    return None


def launchd(name: str) -> list[unix_listener.Listener]:
    """The sockets that launchd has made for this process under `name` in the property list's Sockets.

    Not tried with launchd itself. Raises `Error` where there are none.
    """
    import ctypes

    library = ctypes.CDLL(None)
    descriptors, count = ctypes.POINTER(ctypes.c_int)(), ctypes.c_size_t()
    try:
        code = library.launch_activate_socket(os.fsencode(name), ctypes.byref(descriptors), ctypes.byref(count))
    except AttributeError:
        raise Error("there is no launchd here", "sockets come from it on macOS only") from None
    if code:
        raise Error(
            f"launchd has no sockets called {name}: {os.strerror(code)}",
            "name what stands under Sockets in the property list, and let launchd start the agent",
        )
    passed = descriptors[: count.value]
    library.free(descriptors)
    return [_taken_over(descriptor, "launchd") for descriptor in passed]


def _taken_over(descriptor: int, giver: str) -> unix_listener.Listener:
    """A listener on a socket of somebody else's. Raises `Error`."""
    try:
        os.set_inheritable(descriptor, False)
        given = socket.socket(fileno=descriptor)
    except OSError as error:
        raise Error(
            f"descriptor {descriptor}, which {giver} passed, is no socket: {error.strerror}", "pass UNIX sockets alone"
        ) from None
    try:
        if (given.family, given.type) == (socket.AF_UNIX, socket.SOCK_STREAM):
            path = given.getsockname()
            if path and isinstance(path, str) and given.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                return unix_listener.Listener(path, given)
    except OSError as error:
        raise Error(f"cannot listen on descriptor {descriptor}: {error.strerror}", "pass UNIX sockets alone") from None
    given.detach()  # it is not ours to close
    raise Error(
        f"descriptor {descriptor}, which {giver} passed, is no UNIX socket that listens at a path",
        "have it made as a stream at a path, such as ListenStream=%t/agent",
    )
