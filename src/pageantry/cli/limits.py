"""What an agent of ours tells beside its list of keys: their limits, and who is connected over which hosts."""

from __future__ import annotations

import os
from itertools import pairwise

from ..constraints import RestrictDestination
from ..errors import Refused, Unsupported, WireError
from ..extensions import HAS_FILE, LIST_EXTENDED, NOT_CLEAR, REPORT, ExtendedList, KeyState, Report
from ..keyring import questions
from ..keys.public import PublicKey
from .common import emit, printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

    from ..agent import Agent
    from ..constraints import Hop
    from ..extensions import ConnectionState

#: Units of time, and their seconds.
_UNITS: Final = (("d", 86400), ("h", 3600), ("min", 60), ("s", 1))


def report(agent: Agent) -> Report:
    """What `agent` tells, but for the connection that asks; of Pageant that is which keys are encrypted.

    Raises `Unsupported` for agents that tell nothing, `Refused` for one that is of a later version.
    """
    try:
        told = Report.decode(agent.extension(REPORT))
        others = [one for one in told.connections if one.attempted or one.pid != os.getpid()]
        return Report(told.keys, tuple(others))
    except Unsupported:
        pass
    except WireError as error:
        raise Refused(f"{agent.address} tells its keys' limits in a form that is not known: {error}") from None
    try:
        keys = ExtendedList.decode(agent.extension(LIST_EXTENDED)).keys
    except (Unsupported, WireError):
        raise Unsupported(
            f"{agent.address} does not tell its keys' limits",
            "pageantry's own agent does, unless it is locked: pageantry serve",
        ) from None
    states = (
        KeyState(one.blob, 0, 0, False, bool(one.flags & HAS_FILE), not one.flags & NOT_CLEAR, b"") for one in keys
    )
    return Report(tuple(states), ())


def words(state: KeyState) -> list[str]:
    """The limits of a key, a line each."""
    lines = []
    if state.confirm:
        lines.append("asks before each use")
    if state.seconds_left:
        lines.append(f"for {duration(state.seconds_left)} more")
    if state.signatures_left:
        lines.append(f"for {state.signatures_left} more signature{'s' * (state.signatures_left > 1)}")
    if state.encrypted:
        lines.append("encrypted, and open now" if state.clear else "encrypted: asks for its passphrase when it is used")
    return lines + [f"from {origin} to {target}" for origin, target in _pairs(state)]


def as_json(state: KeyState) -> dict[str, object]:
    """The same for machines."""
    return {
        "seconds_left": state.seconds_left or None,
        "signatures_left": state.signatures_left or None,
        "confirm": state.confirm,
        "encrypted": state.encrypted,
        "clear": state.clear,
        "destinations": [{"from": origin, "to": target} for origin, target in _pairs(state)],
    }


def connection_as_json(connection: ConnectionState) -> dict[str, object]:
    """A connection for machines."""
    return {
        "pid": connection.pid or None,
        "program": connection.program or None,
        "proven": not connection.attempted or bool(connection.hops),
        "hops": [
            {"host_key": PublicKey(hop.host_key).fingerprint(), "forwarding": hop.forwarding} for hop in connection.hops
        ],
    }


def print_connection(connection: ConnectionState) -> None:
    """A connection, and below it the hosts over which it has come, in their order."""
    name = printable(os.path.basename(connection.program))
    process = f"process {connection.pid}" if connection.pid else "a process that is not known"
    emit(f"  {name} ({process})" if name else f"  {process}")
    if connection.attempted and not connection.hops:
        emit("       over a host that did not prove which it is", dim=True)
    for hop in connection.hops:
        way = "over" if hop.forwarding else "to log in at"
        emit(f"       {way} {questions.host(PublicKey(hop.host_key), None)}", dim=True)


def duration(seconds: int) -> str:
    """So many seconds as people say it, in their largest unit and the next: "2 h 5 min"; the rest is left out."""
    for (unit, size), (lesser, part) in pairwise(_UNITS):
        if seconds >= size:
            more = seconds % size // part
            return f"{seconds // size} {unit}" + (f" {more} {lesser}" if more else "")
    return f"{seconds} s"


def _pairs(state: KeyState) -> list[tuple[str, str]]:
    """The destinations of a key, as ssh-add(1) writes them."""
    if not state.destinations:
        return []
    pairs = RestrictDestination.decode(state.destinations).pairs
    return [(_name(origin) or "this computer", _name(target)) for origin, target in pairs]


def _name(hop: Hop) -> str:
    return printable(f"{hop.user}@{hop.host}" if hop.user else hop.host)
