"""How far each agent of this machine answers, asked without doing harm, and all of them at the same time."""

from __future__ import annotations

import os
import sys

from .errors import Error
from .known import ANSWERS, CONNECTS, LEVELS, LISTENING, PRESENT, Candidate

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Final

    from .agent import Identity
    from .client import Connection
    from .endpoints import Endpoint
    from .winpipe import Peer

#: Seconds to connect to an agent that nobody named.
PROBE_CONNECT_TIMEOUT: Final = 0.25
#: Seconds for the list of an agent that nobody named.
PROBE_LIST_TIMEOUT: Final = 2.0
#: How many agents are probed at the same time: each takes a thread and a descriptor.
_AT_ONCE: Final = 64


class Found:
    """An endpoint, and how far the agent behind it answered."""

    __slots__ = (
        "agent", "also", "endpoint", "error", "hint", "identities", "owner", "pid", "program", "reached", "source",
        "warning",
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


def preferred(places: list[Candidate]) -> Iterator[Candidate]:
    """Those that were named; then, of those that may be asked, the ones that answer; then those to be woken.

    One that may be asked and yet was not (see `_probe_pipe`) keeps its place: it may have what a person wants.
    """
    yield from (place for place in places if place.source)
    open_to_all = [place for place in places if not place.source and place.limit == ANSWERS]
    for place, found in zip(open_to_all, probed(open_to_all, None), strict=True):
        if found.pid != os.getpid() and found.reached in LEVELS[CONNECTS:] and not found.error:
            yield place
    yield from (place for place in places if not place.source and place.limit < ANSWERS)


def _probe(found: Found, level: int, unasked: bool) -> None:
    """Go up to `level`, and note how far it went."""
    try:
        if found.endpoint.kind == "keys":
            found.identities = found.endpoint.open().identities()
            found.reached = LEVELS[ANSWERS]
        elif (name := found.endpoint.pipe_name()) is not None:
            _probe_pipe(found, name, level, unasked)
        elif sys.platform == "win32":
            found.endpoint.connect()  # which says why not
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


def _probe_pipe(found: Found, name: str, level: int, unasked: bool) -> None:
    """As `_probe`, for a named pipe. OpenSSH's, when a program of the user's serves it in place of Windows' service, is
    not asked for keys unasked: that is often a password manager, which would want to be unlocked.
    """
    from . import winpipe
    from .endpoints import named_pipe

    named_pipe.check_presence(name)
    found.reached = LEVELS[PRESENT]
    if level == LISTENING:
        named_pipe.check_listening(name)
        found.reached = LEVELS[LISTENING]
    if level >= CONNECTS:
        connection = named_pipe.connect(name, PROBE_CONNECT_TIMEOUT)
        peer = connection.peer
        found.owner, found.pid, found.program = peer.account, peer.pid, peer.program
        usurped = name == named_pipe.OPENSSH and peer.sid == winpipe.user()
        if usurped:
            found.agent = _program(peer).removesuffix(".exe") or found.agent
        try:
            _converse(found, connection, CONNECTS if usurped and unasked else level)
        finally:
            if name == named_pipe.OPENSSH:
                found.warning = _rivalry(named_pipe.servers(name, peer, PROBE_CONNECT_TIMEOUT))


def _rivalry(servers: list[Peer]) -> str:
    """A sentence on several processes that serve one pipe; empty for one alone."""
    if len(servers) < 2:
        return ""
    programs = " and ".join(f"{_program(peer) or 'a program'} (process {peer.pid})" for peer in servers)
    return f"{programs} serve the same pipe, and each connection gets one by chance: end all but one of them"


def _program(peer: Peer) -> str:
    """The name of the file that the process runs, without its directory."""
    return peer.program.rpartition("\\")[2]


def _converse(found: Found, connection: Connection, level: int) -> None:
    """What `connection`, to an agent that nobody may be behind, still tells."""
    from .client import Client

    with Client(lambda: connection, found.address, PROBE_LIST_TIMEOUT) as client:
        found.reached = LEVELS[CONNECTS]
        if level >= ANSWERS and found.pid != os.getpid():
            found.identities = client.identities()
            found.reached = LEVELS[ANSWERS]


def distinct(result: list[Found]) -> list[Found]:
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
