"""`pageantry keys`: the keys of an agent."""

from __future__ import annotations

import sys

import click

from .common import agent_option, emit, json_option, open_agent, print_json, say

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..agent import Identity
    from ..extensions import Report


@click.command
@agent_option
@click.option("--public", "as_lines", is_flag=True, help="Print public key lines, as for authorized_keys.")
@click.option("--limits", "with_limits", is_flag=True, help="Show what each key is limited to, and who is connected.")
@json_option
def keys(address: str | None, as_lines: bool, with_limits: bool, as_json: bool) -> None:
    """List the keys that an agent holds. Their numbers serve as names for `sign` and `remove`.

    `pageantry agents` shows the keys of every agent. With --limits, pageantry's own agent tells for how long and for
    what each key is good, who else is connected, and over which hosts; Pageant tells which keys are encrypted.

    \b
    Examples:
      pageantry keys
      pageantry keys --limits
      pageantry keys --public >> ~/.ssh/allowed
      pageantry keys --agent keys:~/.ssh/id_ed25519
    """
    if as_lines and with_limits:
        say("pageantry: --public and --limits exclude each other; give one of them")
        sys.exit(2)
    with open_agent(address) as agent:
        identities = agent.identities()
        if with_limits:
            from .limits import report

            told = report(agent)
    if agent.unreadable:
        say(f"{agent.address} lists {agent.unreadable} entries that are no keys; they are left out")
    if with_limits:
        _show(identities, told, agent.address, as_json)
    elif as_json:
        print_json([_as_json(identity, agent.address) for identity in identities])
    elif as_lines:
        for identity in identities:
            click.echo(identity.key.line(identity.comment))
    elif identities:
        from .tables import print_keys

        print_keys(identities)
    else:
        say(f"{agent.address} holds no keys")


def _show(identities: list[Identity], told: Report, address: str, as_json: bool) -> None:
    """The keys with their limits, and the connections."""
    from ..keys.public import PublicKey
    from . import limits
    from .tables import print_keys

    states = {state.blob: state for state in told.keys}
    if as_json:
        keys = [
            _as_json(one, address) | (limits.as_json(states[one.key.blob]) if one.key.blob in states else {})
            for one in identities
        ]
        connections = [limits.connection_as_json(one) for one in told.connections]
        print_json({"keys": keys, "connections": connections})
        return
    if not identities:
        say(f"{address} holds no keys")
    print_keys(identities, {PublicKey(blob): limits.words(state) for blob, state in states.items()})
    if told.connections:
        emit("connections", bold=True)
    for connection in told.connections:
        limits.print_connection(connection)


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
