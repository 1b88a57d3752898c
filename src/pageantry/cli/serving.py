"""What `serve` and `bridge` have in common: where they listen, what they say of that, and how they ask."""

from __future__ import annotations

import json
import os
import re
import sys

import click

from ..errors import Error
from .log import not_stopped

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import ExitStack
    from typing import Final

    from ..endpoints.listening import Listener
    from ..prompts import Way
    from .log import Log

_PIPE: Final = "\\\\.\\pipe\\"


def listen(addresses: Sequence[str]) -> list[Listener]:
    """What listens at all of them, or nothing and an error."""
    from ..endpoints import listening
    from .agent_process import end

    listeners: list[Listener] = []
    try:
        for address in addresses:
            listeners += listening.listen(address, end)
    except BaseException:
        for listener in listeners:
            listener.close()
        raise
    return listeners


def announce(
    listeners: Sequence[Listener],
    log: Log | None,
    stack: ExitStack,
    openssh_config: str | None = None,
    *,
    as_json: bool,
) -> None:
    """Tell OpenSSH and the person where it listens; `stack` takes back what the former was told."""
    places = [listener.path for listener in listeners]
    paths = [place for place in places if place != "pageant-window"]  # what SSH_AUTH_SOCK can have
    path = min(paths, key=lambda place: not place.startswith(_PIPE), default="")  # OpenSSH for Windows has pipes alone
    if openssh_config:
        from .openssh_config import Config

        if not path:
            raise Error("OpenSSH has no way through Pageant's window", "listen at a pipe, too: pageant, pipe:NAME")
        config = Config(openssh_config)
        stack.callback(config.close)
        if (line := config.lead(path)) and log:
            log.say(line)
    if log:
        log.flush()
    if sys.stdout is not None:  # which it is for pythonw.exe
        with not_stopped():
            if as_json:
                click.echo(json.dumps({"listens": places, "pid": os.getpid()}))
            elif path:
                click.echo(_setting(path))
            sys.stdout.flush()
    if log:
        end = " until Ctrl-C" if sys.stderr and sys.stderr.isatty() else ""
        for place in places:
            log.say(f"listening at {place}{end}")


def ways(log: Log | None, *, terminal: bool) -> list[Way]:
    """The ways to ask a person while it runs: a program, then the terminal, on which the log waits meanwhile."""
    from .. import prompts

    found = prompts.ways(os.environ, terminal=False)
    if terminal and sys.platform != "win32":
        from ..terminal import Terminal

        found.append(log.between(Terminal()) if log else Terminal())
    return found


if sys.platform == "win32":

    def _setting(place: str) -> str:
        """As PowerShell has it, which takes five characters for the end of what is quoted, and two of them for one."""
        quoted = re.sub("['\u2018-\u201b]", lambda found: 2 * found[0], place)
        return f"$env:SSH_AUTH_SOCK = '{quoted}'"

else:

    def _setting(place: str) -> str:
        from shlex import quote

        return f"SSH_AUTH_SOCK={quote(place)}; export SSH_AUTH_SOCK;"
