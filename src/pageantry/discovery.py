"""The agents of this machine: which there are, how far each answers, and which one to use."""

from __future__ import annotations

import os
import sys

from .endpoints import Endpoint, parse
from .errors import Error, NoSuchKey, Unreachable
from .known import ANSWERS, CONNECTS, LEVELS, PRESENT, Candidate, candidates

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Final

    from .agent import Agent, Identity
    from .client import Connection
    from .keys.public import PublicKey

#: Seconds to connect to an agent that nobody named.
PROBE_CONNECT_TIMEOUT: Final = 0.25
#: Seconds for the list of an agent that nobody named.
PROBE_LIST_TIMEOUT: Final = 2.0

_NONE_HINT: Final = "start one (ssh-agent), or use key files without any: --agent keys:PATH"


class Found:
    """An endpoint, and how far the agent behind it answered."""

    __slots__ = ("agent", "also", "endpoint", "error", "hint", "identities", "owner", "pid", "reached", "source")

    def __init__(self, candidate: Candidate) -> None:
        self.endpoint: Endpoint = candidate.endpoint
        #: whose agent it is, as far as its place tells: "OpenSSH", "gpg-agent", …, or empty
        self.agent: str = candidate.agent
        #: who named it: "SSH_AUTH_SOCK", "IdentityAgent in FILE", or empty
        self.source: str = candidate.source
        #: "present", "listening", "connects", "answers", or None when it is not even there
        self.reached: str | None = None
        #: the keys it holds, or None when it did not say
        self.identities: list[Identity] | None = None
        #: why it was not reached further, and what to do about it; empty when nothing is wrong
        self.error: str = ""
        self.hint: str = ""
        #: user and process behind the socket, where the system tells
        self.owner: str = ""
        self.pid: int | None = None
        #: other addresses of the same agent
        self.also: list[str] = []

    @property
    def address(self) -> str:
        """What `connect` takes."""
        return self.endpoint.address

    def __repr__(self) -> str:
        return f"<Found {self.address} {self.reached}>"


def locate(address: str | None = None, *, probe: int | None = None) -> list[Found]:
    """Every agent of this machine, or the one at `address`, with how far each answered and why not further.

    `probe` is 0 (is something there?), 1 (does something listen? a UNIX socket cannot tell), 2 (does it take
    connections?) or 3 (does it list its keys?). None goes as far as does no harm: not into sockets that start
    a service, and not to lists for which a password manager may want to be unlocked. Agents are probed at the same
    time, so the slowest one sets the pace: a connection takes 0.25 s at most, a list 2 s. Never raises for an agent.
    """
    from threading import Thread

    places = [Candidate(parse(address), source="address")] if address else candidates()
    result = [Found(place) for place in places]
    threads = [
        Thread(target=_probe, args=(found, place.limit if probe is None else probe), daemon=True)
        for found, place in zip(result, places, strict=True)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return _distinct(result)


def connect(
    address: str | None = None,
    *,
    holding: PublicKey | None = None,
    timeout: float | None = None,
    say: Callable[[str], object] | None = None,
) -> Agent:
    """An agent, connected: the one at `address`; else the first that answers of IdentityAgent in the SSH configuration,
    SSH_AUTH_SOCK, and what is found. With `holding`, the first of these that has that key.

    `timeout` bounds each request, in seconds; without it each kind has its own (see `client`). An agent that was named
    but does not answer is passed over only with a word to `say` (default: `warnings.warn`).
    Raises `Unreachable`, `NoSuchKey`, `AddressError`.
    """
    if address is not None:
        agent = parse(address).open(timeout)
        if holding is None or _holds(agent, holding):
            return agent
        agent.close()
        raise NoSuchKey(f"{address} does not hold {holding.fingerprint()}", "add the key, or name another agent")
    reached = 0
    for agent in usable(timeout, say or _warn):
        reached += 1
        if holding is None or _holds(agent, holding):
            return agent
        agent.close()
    if holding is not None and reached:
        raise NoSuchKey(
            f"none of the {reached} agents that answer holds {holding.fingerprint()}", "add the key to one (ssh-add)"
        )
    raise Unreachable("no SSH agent answers here", _NONE_HINT)


def usable(timeout: float | None = None, say: Callable[[str], object] = lambda _: None) -> Iterator[Agent]:
    """The agents that answer, in the order of `connect`, each connected; whoever takes one closes it.

    Those which should not be woken without need come last.
    """
    places = candidates()
    dead: list[str] = []
    for place in sorted(places, key=lambda place: not place.source and place.limit < ANSWERS):
        try:
            if not place.source:
                _probe(found := Found(place), ANSWERS)
                if found.reached != LEVELS[ANSWERS]:
                    continue
            agent = place.endpoint.open(timeout)
        except Error as error:
            dead.append(f"{place.source} names an agent that does not answer: {error}")
            continue
        for message in dead:
            say(f"{message}; going on with {place.endpoint.address}")
        dead.clear()
        yield agent
    for message in dead:
        say(message)


def _holds(agent: Agent, key: PublicKey) -> bool:
    try:
        return any(identity.key == key for identity in agent.identities())
    except Error:
        return False


def _probe(found: Found, level: int) -> None:
    """Go up to `level`, and note how far it went."""
    try:
        if found.endpoint.kind == "keys":
            found.identities = found.endpoint.open().identities()
            found.reached = LEVELS[ANSWERS]
        elif sys.platform == "win32":
            found.endpoint.open()  # which says why not
        else:
            from .endpoints import unix

            unix.resolve(found.endpoint.where)
            found.reached = LEVELS[PRESENT]
            if level >= CONNECTS:
                connection = unix.connect(found.endpoint.where, PROBE_CONNECT_TIMEOUT)
                if peer := unix.peer(connection):
                    found.owner, found.pid = unix.user(peer.uid), peer.pid
                _converse(found, connection, level)
    except Error as error:
        found.error, found.hint = str(error), error.hint


def _converse(found: Found, connection: Connection, level: int) -> None:
    """What `connection`, to an agent that nobody may be behind, still tells."""
    from .client import Client

    with Client(lambda: connection, found.address, PROBE_LIST_TIMEOUT) as client:
        found.reached = LEVELS[CONNECTS]
        if level >= ANSWERS and found.pid != os.getpid():
            found.identities = client.identities()
            found.reached = LEVELS[ANSWERS]


def _distinct(result: list[Found]) -> list[Found]:
    """Without our own sockets, and with each agent once: the same process with the same keys is the same agent.

    (Not the same process alone: systemd listens for many.)
    """
    kept: list[Found] = []
    for found in result:
        if found.pid == os.getpid():
            continue
        for other in kept:
            if found.pid and found.identities and (found.pid, found.identities) == (other.pid, other.identities):
                other.also.append(found.address)
                break
        else:
            kept.append(found)
    return kept


def _warn(message: str) -> None:
    import warnings

    warnings.warn(message, stacklevel=3)
