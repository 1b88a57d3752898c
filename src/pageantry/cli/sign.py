"""`pageantry sign`: a file, with a key from an agent."""

from __future__ import annotations

from binascii import b2a_base64

import click

from ..errors import Error
from .common import agent_option, find, json_option, print_json, say

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import BinaryIO


@click.command(short_help="Sign a file with a key from an agent.")
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

    data = file.read(MAX_MESSAGE + 1) if raw else sshsig.to_be_signed(sshsig.digest(file), namespace)
    if len(data) > MAX_MESSAGE:
        raise Error(f"{file.name} is longer than {MAX_MESSAGE} bytes, which is all that agents take", "omit --raw")
    agent, identity = find(key, address)
    with agent:
        flags = SignFlags(sshsig.sign_flags(identity.key))
        signature = agent.sign(identity.key, data, flags, verify=identity.key.known)
    text = b2a_base64(signature).decode() if raw else sshsig.armor(identity.key, namespace, signature)
    if not identity.key.known:
        say(f"the signature could not be checked: keys of type {identity.key.type} are not known here")
    if as_json:
        result = {"fingerprint": identity.fingerprint, "agent": agent.address, "signature": text.rstrip("\n")}
        print_json(result if raw else result | {"namespace": namespace})
    else:
        click.echo(text, nl=False)
