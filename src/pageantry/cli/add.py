"""`pageantry add`, `reencrypt` and `remove`: which keys an agent holds, and how."""

from __future__ import annotations

from functools import partial

import click

from ..errors import Error, Refused, Unsupported
from .common import agent_option, as_seconds, json_option, open_agent, pick, print_json, read_secret, say

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import TypeAlias

    from ..agent import Agent
    from ..constraints import Constraint
    from ..keys.private import PrivateKey
    from ..keys.public import PublicKey

    #: A key, its comment, and what hands it to an agent.
    Addition: TypeAlias = tuple[PublicKey, str, Callable[[Agent], None]]


@click.command(short_help="Add private key files to an agent.")
@click.argument("files", metavar="FILE...", nargs=-1, required=True, type=click.Path())
@click.option("-t", "--lifetime", metavar="TIME", callback=as_seconds, help="Forget the key after 90, 15m, 1h30m, …")
@click.option("-c", "--confirm", is_flag=True, help="Have the agent ask before each use.")
@click.option("--encrypted", is_flag=True, help="Hand over the files as they are; the agent asks when it needs one.")
@agent_option
@json_option
def add(
    files: tuple[str, ...],
    lifetime: int | None,
    confirm: bool,
    encrypted: bool,
    address: str | None,
    as_json: bool,
) -> None:
    """Add private key files to an agent, each with the certificate that lies beside it as FILE-cert.pub.

    A passphrase is asked for at the terminal, or read from standard input, a line for each encrypted file. With
    --encrypted it is not: pageantry's agent, and Pageant for its own kind of files, ask for it when the key is used.

    \b
    Examples:
      pageantry add ~/.ssh/id_ed25519
      pageantry add -c -t 8h ~/.ssh/work
      pageantry add --encrypted ~/.ssh/id_ed25519 key.ppk
    """
    from ..constraints import Confirm, Lifetime

    limits: list[Constraint] = [Lifetime(lifetime)] if lifetime else []
    if confirm:
        limits.append(Confirm())
    prepare = _encrypted if encrypted else _opened
    additions = [addition for path in files for addition in prepare(path, limits)]  # all before the first is added
    with open_agent(address) as agent:
        for key, comment, hand_over in additions:
            hand_over(agent)
            say(f"added {key.fingerprint()} {comment} to {agent.address}")
    if as_json:
        print_json([_as_json(agent, key, comment) for key, comment, _ in additions])


def opened(path: str, ask: Callable[[str], str]) -> list[tuple[PrivateKey, str]]:
    """The key in `path` with its comment, and the same with the certificate beside it; `ask` is for the passphrase.

    For want of a comment, it has the path. Raises `KeyFileError`, `WrongPassphrase`, what `ask` raises.
    """
    from ..keys.files import certificate_beside, read

    file = read(path)
    passphrase = ask(f"Passphrase for {path}: ").encode() if file.encrypted else None
    key, comment = file.decrypt(passphrase)
    certificate = certificate_beside(path, key.public)
    return [(one, comment or path) for one in ([key, key.certified(certificate)] if certificate else [key])]


def _opened(path: str, limits: list[Constraint]) -> Iterator[Addition]:
    for key, comment in opened(path, read_secret):
        yield key.public, comment, partial(_add, key, comment, limits)


def _add(key: PrivateKey, comment: str, limits: list[Constraint], agent: Agent) -> None:
    agent.add(key, comment, limits)


def _encrypted(path: str, limits: list[Constraint]) -> Iterator[Addition]:
    """The same without its private half."""
    from ..keys.files import certificate_beside, parse, read_file

    data = read_file(path)
    file = parse(data, path)
    if not file.encrypted:
        raise Error(f"{path} is not encrypted", "add it without --encrypted, or give it a passphrase: ssh-keygen -p")
    if file.public is None:
        raise Error(f"{path} hides even its public key", "save it in OpenSSH's format: ssh-keygen -p -f FILE")
    comment = file.comment or path
    certificate = certificate_beside(path, file.public)
    for one in [None, certificate] if certificate else [None]:
        yield one or file.public, comment, partial(_add_encrypted, data, comment, one, limits)


def _add_encrypted(
    data: bytes, comment: str, certificate: PublicKey | None, limits: list[Constraint], agent: Agent
) -> None:
    """Hand over an encrypted file, by Pageant's extension where the agent does not know ours."""
    from ..extensions import ADD_ENCRYPTED, ADD_PPK, AddEncrypted
    from ..wire import Writer

    blob = certificate.blob if certificate else b""
    requests = [(ADD_ENCRYPTED, AddEncrypted(data, comment, blob, tuple(limits)).encode())]
    if data.startswith(b"PuTTY-User-Key-File-") and not (limits or certificate):
        requests.append((ADD_PPK, bytes(Writer().string(data))))
    for name, contents in requests:
        try:
            agent.extension(name, contents)
            return
        except Unsupported:
            continue
        except Refused as error:
            hint = "its log says why; perhaps it takes the key without --encrypted"
            raise Refused(f"{agent.address} refused to hold {comment} encrypted", hint) from error
    raise Unsupported(
        f"{agent.address} takes no such {'certificate' if certificate else 'key'} encrypted",
        "pageantry's own agent does, unless it is locked (pageantry serve); or add it without --encrypted",
    )


def _as_json(agent: Agent, key: PublicKey, comment: str) -> dict[str, object]:
    return {
        "type": key.type,
        "fingerprint": key.fingerprint(),
        "comment": comment,
        "public": f"{key.type} {key.base64}",
        "agent": agent.address,
    }


@click.command(short_help="Have an agent forget the clear text of encrypted keys.")
@click.argument("keys", metavar="[KEY...]", nargs=-1)
@agent_option
@json_option
def reencrypt(keys: tuple[str, ...], address: str | None, as_json: bool) -> None:
    """Have an agent forget the clear text of keys that were added with --encrypted: all of them, or each KEY.

    It asks for their passphrases again when they are used next. Pageantry's agent and Pageant can do this.

    \b
    Examples:
      pageantry reencrypt
      pageantry reencrypt work
    """
    from ..extensions import REENCRYPT, REENCRYPT_ALL
    from ..wire import Reader, Writer

    with open_agent(address) as agent:
        chosen = [pick(agent.identities(), name) for name in keys]
        for one in chosen:
            _reencrypt(agent, REENCRYPT, bytes(Writer().string(one.key.blob)), f"{one.fingerprint} {one.comment}")
            say(f"encrypted again: {one.fingerprint} {one.comment}")
        if not keys:
            left = Reader(_reencrypt(agent, REENCRYPT_ALL, b"", "any of its keys")).uint32()
            others = f"; {left} that came in the clear stay{'s' * (left == 1)} so" if left else ""
            say(f"encrypted again: all keys that came encrypted{others}")
    if as_json:
        print_json({"agent": agent.address, "reencrypted": [one.fingerprint for one in chosen] if keys else None})


def _reencrypt(agent: Agent, name: str, data: bytes, what: str) -> bytes:
    """What the agent answers to that extension. Raises `Refused`, `Unsupported`."""
    try:
        return agent.extension(name, data)
    except Unsupported as error:
        hint = "pageantry's own agent can, unless it is locked, and so can Pageant"
        raise Unsupported(f"{agent.address} cannot encrypt keys again", hint) from error
    except Refused as error:
        hint = "it can be done with keys that were added with --encrypted"
        raise Refused(f"{agent.address} could not encrypt {what} again", hint) from error


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
