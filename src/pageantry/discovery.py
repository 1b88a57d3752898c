"""The agents of this machine: which there are, how far each answers, and which one to use."""

from __future__ import annotations

import os
import sys

from .endpoints import Endpoint, parse
from .errors import AgentError, Error, NoSuchKey, Unreachable
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

#: How many agents are probed at the same time: each takes a thread and a descriptor.
_AT_ONCE: Final = 64

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
    places = candidates() if address is None else [Candidate(parse(address), source="address")]
    return _distinct(_probed(places, probe))


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
        raise NoSuchKey(f"{address} does not hold {holding.fingerprint()}", "add the key, or name another agent")
    say = say or _warn
    reached = 0
    for agent in usable(timeout, say):
        try:
            if holding is None or _holds(agent, holding):
                return agent
            reached += 1
        except AgentError as error:
            say(f"{error}; it is passed over")
    if holding is not None and reached:
        raise NoSuchKey(
            f"none of the {reached} agents that answer holds {holding.fingerprint()}", "add the key to one (ssh-add)"
        )
    raise Unreachable("no SSH agent answers here", _NONE_HINT)


def usable(timeout: float | None = None, say: Callable[[str], object] = lambda _: None) -> Iterator[Agent]:
    """The agents that answer, in the order of `connect`, each connected; whoever takes one closes it.

    Those which should not be woken without need come last, and are given the time that a person needs to unlock them.
    """
    dead: list[str] = []
    for place in _preferred(candidates()):
        try:
            agent = place.endpoint.open(timeout)
        except Error as error:
            if place.source:
                dead.append(f"{place.source} names an agent that does not answer: {error}")
            continue
        for message in dead:
            say(f"{message}; going on with {place.endpoint.address}")
        dead.clear()
        yield agent
    for message in dead:
        say(message)


def _preferred(places: list[Candidate]) -> Iterator[Candidate]:
    """Those that were named; then, of those that may be asked, the ones that answer; then those to be woken."""
    yield from (place for place in places if place.source)
    open_to_all = [place for place in places if not place.source and place.limit == ANSWERS]
    for place, found in zip(open_to_all, _probed(open_to_all, ANSWERS), strict=True):
        if found.reached == LEVELS[ANSWERS] and found.pid != os.getpid():
            yield place
    yield from (place for place in places if not place.source and place.limit < ANSWERS)


def _holds(agent: Agent, key: PublicKey) -> bool:
    """Whether the agent has the key; one that has not, or does not say, is closed."""
    try:
        held = any(identity.key == key for identity in agent.identities())
    except BaseException:
        agent.close()
        raise
    if not held:
        agent.close()
    return held


def _probed(places: list[Candidate], level: int | None) -> list[Found]:
    """How far each goes, all of them at the same time; None stands for each one's own limit."""
    from threading import Thread

    result = [Found(place) for place in places]
    threads = []
    for found, place in zip(result, places, strict=True):
        far = place.limit if level is None else level
        if found.endpoint.kind == "keys":  # a person may be asked for a passphrase, which must not be left to a thread
            _probe(found, far)
        else:
            threads.append(Thread(target=_probe, args=(found, far), daemon=True))
    for start in range(0, len(threads), _AT_ONCE):
        for thread in threads[start : start + _AT_ONCE]:
            thread.start()
        for thread in threads[start : start + _AT_ONCE]:
            thread.join()
    return result


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
    except (OSError, ValueError) as error:
        found.error, found.hint = f"{found.endpoint.where} cannot be tried: {error}", "check the address"


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

    warnings.warn(message, stacklevel=4)  # this, `usable`, `connect`, and then who called that
