"""`pageantry add` and `pageantry remove`: which keys an agent holds."""

from __future__ import annotations

import click

from ..errors import Refused
from .common import agent_option, json_option, open_agent, pick, print_json, read_secret, say

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..agent import Agent
    from ..constraints import Constraint
    from ..keys.private import PrivateKey

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}


def _seconds(ctx: click.Context, param: click.Parameter, value: str | None) -> int | None:
    """`90`, `15m` or `1h30m` in seconds, as ssh_config(5) writes times."""
    if value is None:
        return None
    total, digits = 0, ""
    for char in value.lower() + ("s" if value[-1:].isdigit() else ""):
        if char.isascii() and char.isdigit():
            digits += char
        elif char in _UNITS and 0 < len(digits) < 11:
            total, digits = total + int(digits) * _UNITS[char], ""
        else:
            raise click.BadParameter(f"{value!r} is no time; 90, 15m and 1h30m are")
    if not 0 < total < 2**32:
        raise click.BadParameter(f"{value!r} is not between 1 second and 136 years")
    return total


@click.command(short_help="Add private key files to an agent.")
@click.argument("files", metavar="FILE...", nargs=-1, required=True, type=click.Path())
@click.option("-t", "--lifetime", metavar="TIME", callback=_seconds, help="Forget the key after 90, 15m, 1h30m, …")
@click.option("-c", "--confirm", is_flag=True, help="Have the agent ask before each use.")
@agent_option
@json_option
def add(files: tuple[str, ...], lifetime: int | None, confirm: bool, address: str | None, as_json: bool) -> None:
    """Add private key files to an agent, each with the certificate that lies beside it as FILE-cert.pub.

    A passphrase is asked for at the terminal, or read from standard input, a line for each encrypted file.

    \b
    Examples:
      pageantry add ~/.ssh/id_ed25519
      pageantry add -c -t 8h ~/.ssh/work
    """
    from ..constraints import Confirm, Lifetime
    from ..keys.files import with_certificate

    limits: list[Constraint] = [Lifetime(lifetime)] if lifetime else []
    if confirm:
        limits.append(Confirm())
    opened = []
    for path in files:  # all of them before the first is added
        key, comment = _open(path)
        opened += [(one, comment) for one in (key, with_certificate(path, key)) if one]
    with open_agent(address) as agent:
        for key, comment in opened:
            agent.add(key, comment, limits)
            say(f"added {key.public.fingerprint()} {comment} to {agent.address}")
    if as_json:
        print_json([_as_json(agent, key, comment) for key, comment in opened])


def _open(path: str) -> tuple[PrivateKey, str]:
    """The key in `path` and its comment; for want of one, the path."""
    from ..keys.files import read

    file = read(path)
    passphrase = read_secret(f"Passphrase for {path}: ").encode() if file.encrypted else None
    key, comment = file.decrypt(passphrase)
    return key, comment or path


def _as_json(agent: Agent, key: PrivateKey, comment: str) -> dict[str, object]:
    public = key.public
    return {
        "type": public.type,
        "fingerprint": public.fingerprint(),
        "comment": comment,
        "public": f"{public.type} {public.base64}",
        "agent": agent.address,
    }


@click.command
@click.argument("keys", metavar="KEY...", nargs=-1)
@click.option("--all", "everything", is_flag=True, help="Remove every key.")
@agent_option
@json_option
def remove(keys: tuple[str, ...], everything: bool, address: str | None, as_json: bool) -> None:
    """Remove keys from an agent.

    KEY is a fingerprint, a comment, a number of `pageantry keys`, a .pub file or a public key in base64.

    \b
    Examples:
      pageantry remove me@home
      pageantry remove --all --agent unix:/run/user/1000/ssh-agent
    """
    if bool(keys) == everything:
        raise click.UsageError("Name the keys to remove, or use --all.")
    with open_agent(address) as agent:
        before = agent.identities()
        chosen = before if everything else list({pick(before, name): None for name in keys})
        try:
            if everything:
                agent.remove_all()
            for identity in () if everything else chosen:
                agent.remove(identity.key)
        finally:
            after = {identity.key for identity in agent.identities()}
            gone = [identity for identity in chosen if identity.key not in after]
            for identity in gone:
                say(f"removed {identity.fingerprint} {identity.comment}")
    if len(gone) < len(chosen):
        raise Refused(
            f"{agent.address} said yes, and still lists {len(chosen) - len(gone)} of {len(chosen)} keys",
            "this agent does not give its keys up that way (gpg-agent: gpg-connect-agent, or its sshcontrol file)",
        )
    if as_json:
        print_json([{"type": one.key.type, "fingerprint": one.fingerprint, "comment": one.comment} for one in gone])
