"""`pageantry sign`: a file, with a key from an agent."""

from __future__ import annotations

from binascii import b2a_base64

import click

from ..errors import AgentError
from .common import agent_option, agents, json_option, matching, pick, print_json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import BinaryIO

    from ..agent import Agent, Identity


@click.command
@click.argument("key", metavar="KEY")
@click.argument("file", type=click.File("rb"), default="-")
@click.option("--namespace", default="file", show_default=True, help="What the signature is for: file, git, …")
@click.option("--raw", is_flag=True, help="Sign the data as they are, and print the bare signature in base64.")
@agent_option
@json_option
def sign(key: str, file: BinaryIO, namespace: str, raw: bool, address: str | None, as_json: bool) -> None:
    """Sign FILE (standard input by default) with KEY, and print the signature.

    KEY is a fingerprint, a comment, a number of `pageantry keys`, a .pub file or a public key in base64. The signature
    is one that `ssh-keygen -Y verify` takes.

    \b
    Examples:
      pageantry sign me@home report.pdf > report.pdf.sig
      ssh-keygen -Y check-novalidate -n file -s report.pdf.sig < report.pdf
      pageantry sign ~/.ssh/id_ed25519.pub --namespace git < commit
    """
    from ..agent import SignFlags
    from ..keys import sshsig
    from ..messages import MAX_MESSAGE

    # More raw data than fits into a request are refused by it.
    data = file.read(MAX_MESSAGE) if raw else sshsig.to_be_signed(sshsig.digest(file), namespace)
    agent, identity = find(key, address)
    with agent:
        flags = SignFlags(sshsig.sign_flags(identity.key))
        signature = agent.sign(identity.key, data, flags, verify=identity.key.known)
    text = b2a_base64(signature).decode() if raw else sshsig.armor(identity.key, namespace, signature)
    if as_json:
        result = {"fingerprint": identity.fingerprint, "agent": agent.address, "signature": text.rstrip("\n")}
        print_json(result if raw else result | {"namespace": namespace})
    else:
        click.echo(text, nl=False)


def find(name: str, address: str | None) -> tuple[Agent, Identity]:
    """The key called `name` and the first agent that holds it, connected; no further agent is asked then.

    A number is one in the list of the first agent, which is what `pageantry keys` shows.
    """
    seen: list[Identity] = []
    failure: AgentError | None = None
    for agent in agents(address):
        try:
            held = agent.identities()
        except AgentError as error:
            failure = failure or error
            continue
        seen += held
        if any(identity in held for identity in matching(seen, name)):
            return agent, pick(seen, name)
        agent.close()
        if name.isdecimal():
            break
    if failure and not seen:
        raise failure
    pick(seen, name)  # which says that there is no such key
    raise AssertionError
