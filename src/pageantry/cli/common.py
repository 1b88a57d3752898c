"""What several commands share: words for people, JSON for machines, keys by any of their names, secrets from a pipe."""

from __future__ import annotations

import os
import sys

import click

from ..errors import AgentError, Error, NoSuchKey, Unreachable, WireError
from ..prompts import secret, typed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import Any, Final, TypeVar

    from ..agent import Agent, Identity
    from ..keys.public import PublicKey

    _F = TypeVar("_F", bound=Callable[..., Any])

#: The longest line that is taken for a passphrase, in bytes.
MAX_SECRET: Final = 1024 * 1024


def agent_option(command: _F) -> _F:
    """The option that names the agent."""
    return click.option(
        "--agent",
        "address",
        metavar="ADDRESS",
        help="The agent to use: unix:PATH or a socket's path; openssh, pageant or pipe:NAME on Windows; stdio:COMMAND; "
        "keys:PATH (key files). "
        "Default: IdentityAgent in the SSH configuration, then SSH_AUTH_SOCK, then what is found.",
    )(command)


def json_option(command: _F) -> _F:
    """The option for machines."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON.")(command)


def as_seconds(ctx: click.Context, param: click.Parameter, value: str | None) -> int | None:
    """What an option with a time gives, if it was given: seconds, at most what a constraint holds."""
    from .times import seconds

    if value is None:
        return None
    try:
        total = seconds(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None
    if not 0 < total < 2**32:
        raise click.BadParameter(f"{value!r} is not between 1 second and 136 years")
    return total


def printable(text: str) -> str:
    """`text` without what could move a cursor or hide something: comments and paths come from anybody."""
    if text.isprintable():  # nearly always
        return text
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)


def say(text: str) -> None:
    """A line for the person, on standard error."""
    click.echo(printable(text), err=True)


def emit(text: str, more: str = "", **style: Any) -> None:
    """A line of a result on standard output, coloured on a terminal unless NO_COLOR is set; `more` is dim."""
    line = click.style(printable(text), **style) + (click.style(f"  {printable(more)}", dim=True) if more else "")
    click.echo(line, color=False if os.environ.get("NO_COLOR") else None)


def print_json(value: object) -> None:
    """`value` on standard output."""
    import json

    click.echo(json.dumps(value, indent=2))


def open_agent(address: str | None) -> Agent:
    """The agent that `--agent` names, or the first that answers."""
    from ..discovery import connect

    return connect(address, say=say)


def reachable(address: str | None) -> Iterator[Agent]:
    """The agent at `address` alone, or all that answer (see `discovery.usable`)."""
    from ..discovery import usable

    if address is not None:
        yield open_agent(address)
    else:
        yield from usable(say=say)


def read_secret(prompt: str) -> str:
    """A line from standard input where that is a pipe, else from the person at the terminal, unseen."""
    if typed():
        return secret(prompt)
    line = sys.stdin.buffer.readline(MAX_SECRET + 1)
    if len(line) > MAX_SECRET:
        raise Error(f"the line on standard input is longer than {MAX_SECRET} bytes", "a passphrase is one line")
    if not line:
        raise Error(
            f"standard input is empty; it was to answer: {prompt.rstrip(': ')}",
            "give that in a pipe, or run this at a terminal",
        )
    line = line.removesuffix(b"\n")
    if sys.platform == "win32":  # where PowerShell can put a mark before the first line
        line = line.removesuffix(b"\r").removeprefix(b"\xef\xbb\xbf")
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError:
        raise Error("the line on standard input is not UTF-8", "convert it to UTF-8 first") from None


def named_key(name: str) -> PublicKey | None:
    """The key that `name` gives in full: a .pub file, a public key line, or its base64. None for other names."""
    from ..keys.files import read_file
    from ..keys.public import PublicKey

    if name.endswith(".pub"):
        line = read_file(name).decode("utf-8", "replace")
    elif name.startswith("AAAA") or " AAAA" in name:
        line = name
    else:
        return None
    try:
        return PublicKey.from_line(line)
    except WireError as error:
        raise NoSuchKey(f"{name[:40]!r} names no key: {error}", "see pageantry keys for what there is") from None


def is_number(name: str) -> bool:
    """Whether `name` may be that of a key in a list."""
    return len(name) < 10 and name.isascii() and name.isdecimal()


def matching(identities: Sequence[Identity], name: str) -> list[Identity]:
    """Those of `identities` that `name` means: a number from 1, a fingerprint, a .pub file, base64, or a comment.

    A comment comes last, because anybody may give a key the fingerprint of another for one.
    """
    if is_number(name) and 0 < int(name) <= len(identities):
        return [identities[int(name) - 1]]
    if key := named_key(name):
        return [identity for identity in identities if identity.key == key]
    if name.startswith("MD5:"):
        return [identity for identity in identities if identity.key.fingerprint("md5") == name]
    if name.startswith("SHA256:"):
        return [identity for identity in identities if identity.fingerprint == name]
    return [identity for identity in identities if identity.comment == name]


def pick(identities: Sequence[Identity], name: str) -> Identity:
    """The one of `identities` that `name` means; `NoSuchKey` when none is meant, or more than one."""
    found = matching(identities, name)
    if not found:
        raise NoSuchKey(f"no key here is called {name[:80]!r}", "see pageantry keys for what there is")
    if len({identity.key for identity in found}) > 1:
        raise NoSuchKey(f"{len(found)} keys are called {name[:80]!r}", "use the fingerprint or the number instead")
    return found[0]


def find(name: str, address: str | None, say: Callable[[str], object] = say) -> tuple[Agent, Identity]:
    """The key called `name` and the first agent that holds it, connected; no further agent is asked then.

    A number is one in the list of the first agent, which is what `pageantry keys` shows. An agent that fails is passed
    over with a word to `say`, unless it is the only one that was meant.
    """
    seen: list[Identity] = []
    agent = None
    for agent in reachable(address):
        try:
            held = agent.identities()
            seen += held
            if any(identity in held for identity in matching(seen, name)):
                return agent, pick(seen, name)
        except AgentError as error:
            agent.close()
            if address is not None or is_number(name) or isinstance(error, NoSuchKey):
                raise
            say(f"{error}; it is passed over")
        except BaseException:
            agent.close()
            raise
        agent.close()
        if is_number(name):
            break
    if agent is None:
        raise Unreachable("no SSH agent answers here", "see pageantry agents; or use --agent keys:PATH")
    pick(seen, name)  # which says that there is no such key
    raise AssertionError
