"""`pageantry keys`: the keys of one agent, or of all."""

from __future__ import annotations

import click

from ..errors import Error, Unreachable
from .common import agent_option, agents, json_option, print_json, say

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..agent import Identity


@click.command
@agent_option
@click.option("--public", "as_lines", is_flag=True, help="Print public key lines, as for authorized_keys.")
@json_option
def keys(address: str | None, as_lines: bool, as_json: bool) -> None:
    """List the keys that agents hold. Their numbers serve as names for `sign` and `remove`.

    \b
    Examples:
      pageantry keys
      pageantry keys --public >> ~/.ssh/allowed
      pageantry keys --agent keys:~/.ssh/id_ed25519
    """
    groups = list(_holdings(address))
    if not groups:
        raise Unreachable("no SSH agent answers here", "see pageantry agents; or use --agent keys:PATH")
    if as_json:
        print_json([_as_json(identity, agent) for agent, identities in groups for identity in identities])
    elif as_lines:
        for _, identities in groups:
            for identity in identities:
                click.echo(identity.key.line(identity.comment))
    else:
        from .tables import print_keys

        print_keys(groups)


def _holdings(address: str | None) -> list[tuple[str, list[Identity]]]:
    """Each agent's address and keys. An agent that fails is said and passed over, unless it was the one asked for."""
    groups = []
    for agent in agents(address, wake=False):
        with agent:
            try:
                groups.append((agent.address, agent.identities()))
            except Error as error:
                if address:
                    raise
                say(f"{error}")
                continue
            if unreadable := getattr(agent, "unreadable", 0):
                say(f"{agent.address} lists {unreadable} entries that are no keys; they are left out")
    return groups


def _as_json(identity: Identity, agent: str) -> dict[str, object]:
    key = identity.key
    return {
        "type": key.type,
        "bits": key.bits,
        "fingerprint": identity.fingerprint,
        "comment": identity.comment.encode("utf-8", "surrogateescape").decode("utf-8", "replace"),
        "public": f"{key.type} {key.base64}",
        "agent": agent,
    }
