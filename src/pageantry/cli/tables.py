"""Agents and keys as people read them. The only module that draws."""

from __future__ import annotations

import sys

from rich.console import Console
from rich.table import Table
from rich.text import Text

from .common import printable, say

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..agent import Identity
    from ..discovery import Found

_NAMES = {
    "ssh-rsa": "RSA",
    "ssh-dss": "DSA",
    "ssh-ed25519": "ED25519",
    "ssh-ed448": "ED448",
    "sk-ssh-ed25519@openssh.com": "ED25519-SK",
    "sk-ecdsa-sha2-nistp256@openssh.com": "ECDSA-SK",
}


def _console() -> Console:
    """A console that wraps to a terminal's width, and leaves lines whole in pipes."""
    return Console(highlight=False, width=None if sys.stdout.isatty() else 10_000, soft_wrap=not sys.stdout.isatty())


def key_type(identity: Identity) -> str:
    """The type as ssh-keygen abbreviates it: RSA, ED25519-CERT; unknown types as they call themselves."""
    plain = identity.key.plain_type
    name = _NAMES.get(plain) or ("ECDSA" if plain.startswith("ecdsa-sha2-nistp") else printable(plain))
    return f"{name}-CERT" if identity.key.certificate else name


def _key_table(identities: Sequence[Identity]) -> Table:
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(justify="right", style="dim")
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True, justify="right")
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for number, identity in enumerate(identities, 1):
        bits = str(identity.key.bits or "")
        table.add_row(
            Text(f"  {number}"), key_type(identity), bits, identity.fingerprint, Text(printable(identity.comment))
        )
    return table


def print_agents(found: Sequence[Found]) -> None:
    """Every agent with its keys, or why there are none to show, and what to do."""
    if not found:
        say("no SSH agent is here")
        say("  start one (ssh-agent), or use key files without any: --agent keys:PATH")
        return
    console = _console()
    for index, one in enumerate(found):
        if index:
            console.print()
        console.print(_heading(one))
        if one.error:
            console.print(Text(f"  {printable(one.error)}", style="red"))
            console.print(Text(f"  {printable(one.hint)}"))
        elif one.identities:
            console.print(_key_table(one.identities))
        elif one.identities is not None:
            console.print(Text("  no keys", style="dim"))
        else:
            ask = "not asked for its keys, which might start or unlock it; --probe 3 does"
            console.print(Text(f"  {one.reached}; {ask}", style="dim"))


def _heading(one: Found) -> Text:
    details = [one.agent, one.source and f"from {one.source}", one.owner and f"run by {one.owner}"]
    details += [f"also {address}" for address in one.also]
    text = Text(printable(one.address), style="bold", overflow="fold")
    return text.append("  " + ", ".join(printable(part) for part in details if part), style="not bold dim")


def print_keys(identities: Sequence[Identity]) -> None:
    """The keys of one agent, numbered."""
    _console().print(_key_table(identities))
