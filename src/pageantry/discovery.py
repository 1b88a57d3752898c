"""The agents of this machine: which there are, and which one to use."""

from __future__ import annotations

from .endpoints import parse
from .errors import AgentError, Error, NoSuchKey, Unreachable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Final

    from .agent import Agent
    from .keys.public import PublicKey
    from .probing import Found

_NONE_HINT: Final = "start one (ssh-agent, Pageant), or use key files without any: --agent keys:PATH"


def locate(address: str | None = None, *, probe: int | None = None) -> list[Found]:
    """Every agent of this machine, or the one at `address`, with how far each answered and why not further.

    `probe` is 0 (is something there?), 1 (does something listen? pipes tell, UNIX sockets do not), 2 (does it take
    connections?) or 3 (does it list its keys?). None goes as far as does no harm: not into sockets that start
    a service, and not to lists for which a password manager may want to be unlocked. Agents are probed at the same
    time, so the slowest one sets the pace: a connection takes 0.25 s at most, a list 2 s. Never raises for an agent.
    """
    from .known import Candidate, candidates
    from .probing import distinct, probed, warn_of_rivals

    places = list(candidates()) if address is None else [Candidate(parse(address), source="address")]
    return warn_of_rivals(distinct(probed(places, probe)))


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
    from .known import candidates
    from .probing import preferred

    dead: list[str] = []
    for place in preferred(candidates()):
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


def _warn(message: str) -> None:
    import warnings

    warnings.warn(message, stacklevel=4)  # this, `usable`, `connect`, and then who called that
