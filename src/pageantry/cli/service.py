"""`pageantry service`: agents and bridges that start with the session."""

from __future__ import annotations

import sys

import click

from .common import emit, json_option, print_json, say
from .service_options import NAMES, called, places_of, wanted

if sys.platform == "win32":
    from . import service_windows as system
elif sys.platform == "darwin":
    from . import service_launchd as system
else:
    from . import service_systemd as system

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .service_options import State


@click.group(short_help="Have agents and bridges start with the session.")
def service() -> None:
    """Have agents and bridges start with each session of this user: by systemd on Linux, by launchd on macOS, and
    without a window on Windows.

    \b
    Examples:
      pageantry service install --now
      pageantry service install -- -t 8h ~/.ssh/id_ed25519
      pageantry service install --now -- bridge pageant --to openssh
      pageantry service status
      pageantry service remove pageantry-bridge
    """


@service.command(short_help="Have an agent or a bridge start with the session.")
@click.option("--now", is_flag=True, help="Start it at once, too.")
@click.option("--name", metavar="NAME", callback=called, help="Its name. Default: pageantry, or pageantry-bridge.")
@click.argument("words", metavar="[-- [serve|bridge] OPTIONS...]", nargs=-1, type=click.UNPROCESSED)
def install(words: tuple[str, ...], name: str | None, now: bool) -> None:
    """Have `pageantry serve OPTIONS` or `pageantry bridge OPTIONS` start with each session of this user, in place of
    what had the same NAME. It is `serve` where neither is said.

    On Linux systemd starts it when a program first comes to its socket, keeps that socket when it ends, and starts it
    again when it fails; its log is in the journal. On macOS launchd starts it, again when it fails; its log is NAME.log
    in ~/Library/Logs/pageantry. On Windows it listens as Pageant does unless OPTIONS say more; its log is agent.log, or
    NAME.log, in the folder pageantry of %LOCALAPPDATA%. --log FILE names another one.

    \b
    Examples:
      pageantry service install --now
      pageantry service install -- -t 8h ~/.ssh/id_ed25519
      pageantry service install --now -- bridge pageant --to openssh
      pageantry service install --name work -- bridge openssh --read-only --to pipe:work
    """
    asked = wanted(words)
    system.install(name or NAMES[asked.command], asked, now=now)


@service.command(short_help="Have one not start with the session any more, or all.")
@click.argument("name", required=False, callback=called)
def remove(name: str | None) -> None:
    """Have the service NAME not start with the session any more; without NAME, all of them.

    On Linux and macOS it ends, and an agent forgets its keys. On Windows one that runs goes on. Logs stay.
    """
    for one in [name] if name else system.names() or [NAMES["serve"]]:
        removed, left = system.remove(one)
        if removed:
            say(f"{one} does not start with the session any more")
        else:
            say(f"no {one} starts with the session; there is none to remove")
        for line in left:
            say(line)


@service.command(short_help="Show what starts with the session.")
@click.argument("name", required=False, callback=called)
@json_option
def status(name: str | None, as_json: bool) -> None:
    """Show whether the service NAME starts with the session, and how; whether it runs; and the end of its log.

    Without NAME, all of them.
    """
    found = [system.status(one) for one in ([name] if name else system.names() or [NAMES["serve"]])]
    if as_json:
        print_json([_as_json(state) for state in found])
        return
    for state in found:
        if len(found) > 1:
            emit(state.name, bold=True)
        _print(state)


def _as_json(state: State) -> dict[str, Any]:
    return {
        "name": state.name,
        "installed": state.command is not None,
        "command": state.command,
        "switched_off": bool(state.off),
        "running": [{"address": address, "pid": process} for address, process in state.running],
        "waiting": state.waiting,
        "log": state.log,
        "lines": state.lines,
    }


def _print(state: State) -> None:
    if state.command is None:
        emit(f"no {state.name} starts with the session")
    else:
        emit(f"starts with each session of yours: {state.command}")
    if state.off:
        emit(state.off)
    if state.running:
        emit(f"runs at {places_of(state.running)}")
    else:
        emit(f"starts when somebody comes to {' or '.join(state.waiting)}" if state.waiting else "does not run")
    if state.log or state.lines:
        emit(f"log: {state.log or 'the journal'}{'' if state.lines else ' (empty)'}")
    for line in state.lines:
        emit(f"  {line}")
