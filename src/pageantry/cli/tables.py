"""Agents and keys as people read them.

Columns are aligned and lines never cut: a terminal that is too narrow wraps them, and a pipe gets them whole. Comments,
the only text of any width, come last.
"""

from __future__ import annotations

from .common import emit, printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from ..agent import Identity
    from ..keys.public import PublicKey
    from ..probing import Found

_NAMES = {
    "ssh-rsa": "RSA",
    "ssh-dss": "DSA",
    "ssh-ed25519": "ED25519",
    "ssh-ed448": "ED448",
    "sk-ssh-ed25519@openssh.com": "ED25519-SK",
    "sk-ecdsa-sha2-nistp256@openssh.com": "ECDSA-SK",
}


def key_type(identity: Identity) -> str:
    """The type as ssh-keygen abbreviates it: RSA, ED25519-CERT; unknown types as they call themselves."""
    plain = identity.key.plain_type
    name = _NAMES.get(plain) or ("ECDSA" if plain.startswith("ecdsa-sha2-nistp") else plain)
    return f"{name}-CERT" if identity.key.certificate else name


def print_agents(found: Sequence[Found]) -> None:
    """Every agent with its keys, or why there are none to show, and what to do."""
    for index, one in enumerate(found):
        if index:
            emit("")
        source = one.source != "address" and one.source  # an address that was just typed needs no source
        details = [one.agent, source and f"from {source}", one.owner and f"run by {one.owner}", _process(one)]
        if one.leads_to:
            details.append(f"a bridge to {' and '.join(one.leads_to)}")
        details += [f"also {address}" for address in one.also]
        emit(one.address, bold=True, more=", ".join(part for part in details if part))
        if one.error:
            emit(f"  {one.error}", fg="red")
            emit(f"  {one.hint}")
        elif one.identities is None:
            emit(f"  {one.reached}; not asked for its keys, which might start or unlock it", dim=True)
            emit("  pageantry agents --probe 3 asks all the same", dim=True)
        elif not one.identities:
            emit("  no keys", dim=True)
        else:
            print_keys(one.identities)
        if one.warning:
            emit(f"  {one.warning}", fg="yellow")


def _process(found: Found) -> str:
    """The program that serves a pipe, as Windows tells it for certain; of a socket, only who made it is known."""
    if found.pid is None or found.endpoint.kind == "unix":
        return ""
    name = found.program.rpartition("\\")[2]
    return f"{name} (process {found.pid})" if name else f"process {found.pid}"


def print_keys(identities: Sequence[Identity], more: Mapping[PublicKey, Sequence[str]] | None = None) -> None:
    """The keys of one agent, numbered, and below each the lines that there are `more` of it."""
    lines = _aligned([_row(number, identity) for number, identity in enumerate(identities, 1)])
    for identity, line in zip(identities, lines, strict=True):
        emit(line)
        for detail in (more or {}).get(identity.key, ()):
            emit(f"       {detail}", dim=True)


def _row(number: int, identity: Identity) -> tuple[str, ...]:
    bits = str(identity.key.bits or "")
    return str(number), key_type(identity), bits, identity.fingerprint, printable(identity.comment)


def _aligned(rows: Sequence[tuple[str, ...]]) -> Iterator[str]:
    """The rows as lines: numbers to the right, text to the left, the last column as it is."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        number, kind, bits, fingerprint, comment = (
            cell.rjust(width) if index in (0, 2) else cell.ljust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        yield f"  {number}  {kind}  {bits}  {fingerprint}  {comment}".rstrip()
