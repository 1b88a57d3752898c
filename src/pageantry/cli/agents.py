"""`pageantry agents`: every agent of this machine."""

from __future__ import annotations

import click

from .common import agent_option, json_option, print_json, say

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..probing import Found


@click.command
@agent_option
@click.option(
    "--probe",
    type=click.IntRange(0, 3),
    help="How far to go: 0 is it there, 1 does it listen, 2 does it take connections, 3 does it list its keys. "
    "Default: as far as no service is started and no password manager asks to be unlocked.",
)
@json_option
def agents(address: str | None = None, probe: int | None = None, as_json: bool = False) -> None:
    """Show every agent, how it is reached, and what it holds. Exit status 1 if none answers.

    \b
    Examples:
      pageantry agents
      pageantry agents --probe 3      wake those up, too, that start on demand
      pageantry agents --json
    """
    from ..discovery import locate

    found = locate(address, probe=probe)
    if as_json:
        print_json([_as_json(one) for one in found])
    else:
        from .tables import print_agents

        print_agents(found)
    if not any(one.reached for one in found):
        if not found:
            say("no SSH agent is here")
        say("start one (ssh-agent, Pageant), or use key files without any: --agent keys:PATH")
    if all(one.error for one in found):
        raise SystemExit(1)


def _as_json(found: Found) -> dict[str, object]:
    return {
        "address": found.address,
        "kind": found.endpoint.kind,
        "agent": found.agent or None,
        "source": found.source or None,
        "reached": found.reached,
        "keys": None if found.identities is None else len(found.identities),
        "owner": found.owner or None,
        "pid": found.pid,
        "program": found.program or None,
        "bridge_to": list(found.leads_to),
        "also": found.also,
        "warning": found.warning or None,
        "error": found.error or None,
        "hint": found.hint or None,
    }
