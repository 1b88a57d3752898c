"""Where an agent of ours listens, by the addresses that clients have for it.

    listeners = listen("pageant")           # on Windows: Pageant's pipe and its window, or neither
    listeners = listen("unix:/run/agent")

What is served is private from the first moment, and nobody's name is taken that has it already.
"""

from __future__ import annotations

import sys

from ..errors import AddressError, Error
from . import parse

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Final, Protocol

    from ..client import Connection
    from . import Endpoint

    class Listener(Protocol):
        """Where connections come in; whoever comes in has been looked at."""

        @property
        def path(self) -> str:
            """What SSH_AUTH_SOCK takes; for Pageant's window, which no path leads to, its address."""

        @property
        def closed(self) -> bool:
            """Whether no more will."""

        def accept(self) -> Connection:
            """The next one. Raises OSError."""

        def close(self) -> None:
            """Have `accept` raise, also the one that another thread waits in."""


def listen(address: str, ended: Callable[[], object] | None = None) -> list[Listener]:
    """What listens at `address`: all that belongs to it, or nothing and an error.

    Where Windows tells, which is by Pageant's window, `ended` is called when the user logs off; it may take seconds.

    On UNIX that is unix:PATH or a path, where systemd may have made the socket, or launchd:NAME for a socket of
    launchd's; on Windows pipe:NAME, openssh,
    pageant (two listeners), pageant-pipe, pageant-window, assuan:PATH, cygwin:PATH, and winsock:PATH or a path. Raises
    `AddressError` for others, `Error` where somebody else listens, OSError.
    """
    return _listen(address, check(address), ended)


def check(address: str) -> Endpoint | None:
    """What `address` names, if an agent can be served there; None for a socket of launchd's. Raises `AddressError`."""
    kind, colon, _ = address.partition(":")
    if colon and kind == "launchd" and sys.platform != "win32":
        return None
    try:
        endpoint = parse(address)
    except AddressError as error:
        raise AddressError(str(error), _USE) from None
    if endpoint.kind not in _KINDS:
        raise AddressError(f"an agent cannot be served at {address}", _USE)
    return endpoint


if sys.platform == "win32":
    from .. import winpipe
    from . import pageant
    from .named_pipe import OPENSSH

    _KINDS: Final = (
        "pipe",
        "openssh",
        "pageant",
        "pageant-pipe",
        "pageant-window",
        "assuan",
        "cygwin",
        "winsock",
        "unix",
    )
    _USE: Final = "use pageant, openssh, pipe:NAME, assuan:PATH, cygwin:PATH or winsock:PATH"

    def _listen(address: str, endpoint: Endpoint | None, ended: Callable[[], object] | None) -> list[Listener]:
        kind, where = (endpoint.kind, endpoint.where) if endpoint else ("", "")
        if kind.startswith("pageant"):
            return _pageant(ended, pipe=kind != "pageant-window", window=kind != "pageant-pipe")
        if kind in ("assuan", "cygwin"):
            from . import loopback_listener

            return [getattr(loopback_listener, kind)(where)]
        if kind in ("winsock", "unix"):
            from . import winsock_listener

            return [winsock_listener.listen(where)]
        if kind == "openssh":
            return [_pipe(OPENSSH, address, "as administrator: Stop-Service ssh-agent; or end what stands in for it")]
        return [_pipe(where, address, "choose another name, or end that program")]

    def _pageant(ended: Callable[[], object] | None, *, pipe: bool, window: bool) -> list[Listener]:
        """Both ways in, or neither: half an agent would keep another one from being whole.

        As in PuTTY, whoever starts holds a mutex while it looks whether there is one already, and listens.
        """
        from . import _mutex, window_listener

        listeners: list[Listener] = []
        with _mutex.held(pageant.mutex_name()):
            try:
                if pipe:
                    listeners.append(
                        _pipe(pageant.pipe_name(), "Pageant's pipe", "end that Pageant, or add keys to it")
                    )
                if window:
                    listeners.append(window_listener.listen(ended))
            except BaseException:
                for listener in listeners:
                    listener.close()
                raise
        return listeners

    def _pipe(name: str, what: str, use: str) -> Listener:
        try:
            if winpipe.exists(name):  # Wine would let us have it nevertheless
                raise FileExistsError
            return winpipe.listen(name)
        except FileExistsError:
            raise Error(f"{what} is another program's{_whose(name)}", use) from None
        except PermissionError:
            raise Error(f"{what} is another user's, or a program's with more rights", use) from None

    def _whose(name: str) -> str:
        """Who serves a pipe, for people."""
        try:
            with winpipe.connect(name, 0.5, (winpipe.SYSTEM, winpipe.ADMINISTRATORS)) as found:
                peer = found.peer
        except winpipe.Untrusted as error:
            peer = error.peer
        except OSError:
            return ""
        return f": {peer.program or 'process'} ({peer.pid})"

else:
    _KINDS: Final = ("unix",)
    _USE: Final = "use unix:PATH, or a path with a slash"

    def _listen(address: str, endpoint: Endpoint | None, ended: Callable[[], object] | None) -> list[Listener]:
        from . import activation, unix_listener

        if endpoint is None:
            return list(activation.launchd(address.partition(":")[2]))
        return [activation.passed(endpoint.where) or unix_listener.listen(endpoint.where)]
