"""How far each agent of this machine answers, asked without doing harm, and all of them at the same time."""

from __future__ import annotations

import os

from .endpoints import PATHS, parse
from .errors import Error, Unreachable
from .known import ANSWERS, CONNECTS, LEVELS, LISTENING, PRESENT, Candidate

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Final

    from .agent import Identity, Peer
    from .client import Client, Connection
    from .endpoints import Endpoint

#: Seconds to connect to an agent that nobody named.
PROBE_CONNECT_TIMEOUT: Final = 0.25
#: Seconds for the list of an agent that nobody named.
PROBE_LIST_TIMEOUT: Final = 2.0
#: Seconds for that of a program that has to start for it.
PROBE_START_TIMEOUT: Final = 10.0
#: How many agents are probed at the same time: each takes a thread and a descriptor.
_AT_ONCE: Final = 64


class Found:
    """An endpoint, and how far the agent behind it answered."""

    __slots__ = (
        "agent", "also", "endpoint", "error", "hint", "identities", "leads_to", "owner", "pid", "program", "reached",
        "source", "warning",
    )  # fmt: skip

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
        #: what is odd about it although it answers; empty when nothing is
        self.warning: str = ""
        #: user and process behind the socket or pipe and the file that the process runs, where the system tells
        self.owner: str = ""
        self.pid: int | None = None
        self.program: str = ""
        #: the addresses of the agents behind it, where it is a bridge of ours
        self.leads_to: tuple[str, ...] = ()
        #: other addresses of the same agent
        self.also: list[str] = []

    @property
    def address(self) -> str:
        """What `connect` takes."""
        return self.endpoint.address

    def __repr__(self) -> str:
        return f"<Found {self.address} {self.reached}>"


def probed(places: list[Candidate], level: int | None) -> list[Found]:
    """How far each goes, all of them at the same time; None stands for each one's own limit."""
    from threading import Thread

    result = [Found(place) for place in places]
    threads = []
    for found, place in zip(result, places, strict=True):
        arguments = (found, place.limit if level is None else level, level is None)
        if found.endpoint.kind == "keys":  # a person may be asked for a passphrase, which must not be left to a thread
            _probe(*arguments)
        else:
            threads.append(Thread(target=_probe, args=arguments, daemon=True))
    for start in range(0, len(threads), _AT_ONCE):
        for thread in threads[start : start + _AT_ONCE]:
            thread.start()
        for thread in threads[start : start + _AT_ONCE]:
            thread.join()
    return result


def preferred(places: Iterable[Candidate]) -> Iterator[Candidate]:
    """Those that were named; then, of those that may be asked, the ones that answer; then those to be woken.

    One that may be asked and yet was not (see `_stand_in`) keeps its place: it may have what a person wants. The others
    are not even looked for as long as one that was named is enough; `places` has those first.
    """
    rest = []
    for place in places:
        if place.source:
            yield place
        else:
            rest.append(place)
    open_to_all = [place for place in rest if place.limit == ANSWERS]
    for place, found in zip(open_to_all, probed(open_to_all, None), strict=True):
        if found.pid != os.getpid() and found.reached in LEVELS[CONNECTS:] and not found.error:
            yield place
    yield from (place for place in rest if place.limit < ANSWERS)


def _probe(found: Found, level: int, unasked: bool) -> None:
    """Go up to `level`, and note how far it went."""
    try:
        if found.endpoint.kind == "keys":
            found.identities = found.endpoint.open().identities()
            found.reached = LEVELS[ANSWERS]
            return
        found.reached = LEVELS[_look(found.endpoint, level)]
        if level >= CONNECTS:
            connection = found.endpoint.connect(PROBE_CONNECT_TIMEOUT)
            peer: Peer | None = getattr(connection, "peer", None)
            if peer:
                found.owner, found.pid, found.program = peer.account, peer.pid, peer.program
            if stand_in := _stand_in(found, peer):
                found.agent = stand_in
                level = CONNECTS if unasked and not found.source else level
            _converse(found, connection, level)
    except Error as error:
        found.error, found.hint = str(error), error.hint
    except (OSError, ValueError) as error:
        found.error, found.hint = f"{found.endpoint.where} cannot be tried: {error}", "check the address"


def _look(endpoint: Endpoint, level: int) -> int:
    """See whether something is there, and with level `LISTENING` whether it takes clients, where that can be seen from
    outside; the level that was reached. Raises `Unreachable`.
    """
    if endpoint.kind in PATHS:
        from .endpoints import files

        files.look(endpoint.kind, endpoint.where)
    elif endpoint.kind == "pageant-window":
        from .endpoints import window

        window.check_presence()
    elif endpoint.kind == "pageant":
        try:
            return _look(parse("pageant-pipe"), level)
        except Unreachable as error:
            try:
                return _look(parse("pageant-window"), level)
            except Unreachable:
                raise error from None
    elif name := endpoint.pipe_name():
        from .endpoints import named_pipe

        named_pipe.check_presence(name)
        if level == LISTENING:
            named_pipe.check_listening(name)
            return LISTENING
    return PRESENT


def _stand_in(found: Found, peer: Peer | None) -> str:
    """The name of a program that stands in for Windows' OpenSSH or for Pageant; empty for the real ones.

    It may be a password manager, and want to be unlocked: so its keys are listed on request only.
    """
    program = _file_name(peer.program).removesuffix(".exe") if peer else ""
    if found.endpoint.kind == "openssh":
        from . import winpipe

        return (program or found.agent) if isinstance(peer, winpipe.Peer) and peer.sid == winpipe.user() else ""
    return program if found.agent == "Pageant" and not program.lower().startswith("pageant") else ""


def _file_name(path: str) -> str:
    """The last part of a path of Windows'."""
    return path.rpartition("\\")[2]


def _converse(found: Found, connection: Connection, level: int) -> None:
    """What `connection`, to an agent that nobody may be behind, still tells."""
    from .client import Client

    timeout = PROBE_START_TIMEOUT if found.endpoint.kind == "stdio" else PROBE_LIST_TIMEOUT
    with Client(lambda: connection, found.address, timeout) as client:
        found.reached = LEVELS[CONNECTS]
        if level >= ANSWERS and found.pid != os.getpid():
            found.identities = client.identities()
            found.reached = LEVELS[ANSWERS]
            found.leads_to = _behind(found, client)


def _behind(found: Found, client: Client) -> tuple[str, ...]:
    """The agents behind a bridge. Programs of others are not asked on Windows, where some hang up on it."""
    if os.name == "nt" and not _file_name(found.program).lower().startswith(("python", "pageantry")):
        return ()
    from .extensions import BRIDGE, BridgeAnswer, BridgeQuestion
    from .requests import Extending

    try:  # over the same connection, which is the last word there
        return BridgeAnswer.decode(client._ask(Extending(BRIDGE, BridgeQuestion(()).encode()))).addresses
    except Error:
        return ()


def warn_of_rivals(result: list[Found]) -> list[Found]:
    """Note in `warning` where more than one process serves OpenSSH's pipe; the others belong to who made them.

    It takes a few connections more, so it is done for those who want to see what there is.
    """
    for found in result:
        if found.endpoint.kind == "openssh" and found.reached in LEVELS[CONNECTS:]:
            from .endpoints import named_pipe

            servers = named_pipe.servers(named_pipe.OPENSSH, found.pid, PROBE_CONNECT_TIMEOUT)
            if len(servers) > 1:
                who = " and ".join(f"{_file_name(one.program) or 'a program'} (process {one.pid})" for one in servers)
                found.warning = f"{who} serve this pipe, and chance decides which one answers: end all but one"
    return result


def distinct(result: list[Found]) -> list[Found]:
    """Without our own sockets, and with each agent once: the same process with the same keys is the same agent.

    (Not the same process alone: systemd listens for many. But it has no Pageant, whose pipe and window are one agent.)
    """
    kept: list[Found] = []
    for found in result:
        if found.pid == os.getpid():
            continue
        for other in kept:
            same = found.pid and (found.pid, found.identities) == (other.pid, other.identities)
            if same and (found.identities or "Pageant" == found.agent == other.agent):
                other.also.append(found.address)
                break
        else:
            kept.append(found)
    return kept
