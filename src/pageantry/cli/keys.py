"""`pageantry keys`: the keys of an agent."""

from __future__ import annotations

import click

from .common import agent_option, json_option, open_agent, print_json, say

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..agent import Identity


@click.command
@agent_option
@click.option("--public", "as_lines", is_flag=True, help="Print public key lines, as for authorized_keys.")
@json_option
def keys(address: str | None, as_lines: bool, as_json: bool) -> None:
    """List the keys that an agent holds. Their numbers serve as names for `sign` and `remove`.

    `pageantry agents` shows the keys of every agent.

    \b
    Examples:
      pageantry keys
      pageantry keys --public >> ~/.ssh/allowed
      pageantry keys --agent keys:~/.ssh/id_ed25519
    """
    with open_agent(address) as agent:
        identities = agent.identities()
    if agent.unreadable:
        say(f"{agent.address} lists {agent.unreadable} entries that are no keys; they are left out")
    if as_json:
        print_json([_as_json(identity, agent.address) for identity in identities])
    elif as_lines:
        for identity in identities:
            click.echo(identity.key.line(identity.comment))
    elif identities:
        from .tables import print_keys

        print_keys(identities)
    else:
        say(f"{agent.address} holds no keys")


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
