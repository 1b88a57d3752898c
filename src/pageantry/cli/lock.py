"""`pageantry lock` and `pageantry unlock`: suspend an agent for a while."""

from __future__ import annotations

import click

from ..errors import Error
from ..prompts import typed
from .common import agent_option, json_option, open_agent, print_json, read_secret, say


@click.command(short_help="Lock an agent with a passphrase.")
@agent_option
@json_option
def lock(address: str | None, as_json: bool) -> None:
    """Lock an agent: until it is unlocked with the same passphrase, it shows no keys and signs nothing.

    The passphrase is asked for at the terminal, twice, or read from standard input.

    \b
    Examples:
      pageantry lock
      pageantry lock --agent unix:/run/user/1000/ssh-agent
    """
    passphrase = read_secret("Lock with passphrase: ")
    if not passphrase:
        raise Error("an agent cannot be locked with an empty passphrase", "choose one")
    if typed() and read_secret("The same again: ") != passphrase:
        raise Error("the two passphrases differ, nothing was locked", "try again")
    with open_agent(address) as agent:
        agent.lock(passphrase.encode())
        if agent.identities():  # a locked agent shows none
            raise Error(f"{agent.address} said yes, and still shows its keys", "this agent does not know locks")
    _done(agent.address, as_json, locked=True)


@click.command
@agent_option
@json_option
def unlock(address: str | None, as_json: bool) -> None:
    """Unlock an agent. The passphrase is asked for at the terminal, or read from standard input.

    \b
    Examples:
      pageantry unlock
      pageantry unlock --agent unix:/run/user/1000/ssh-agent
    """
    passphrase = read_secret("Passphrase: ")
    with open_agent(address) as agent:
        agent.unlock(passphrase.encode())
    _done(agent.address, as_json, locked=False)


def _done(address: str, as_json: bool, *, locked: bool) -> None:
    say(f"{'locked' if locked else 'unlocked'} {address}")
    if as_json:
        print_json({"agent": address, "locked": locked})
