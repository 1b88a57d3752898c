"""Several agents as one, message by message.

open_session = several([parse("openssh"), parse("pageant")])     # an opener, such as `sessions.at` gives

Each connection that comes in has one of its own to each agent, because a session-bind belongs to a connection. Lists
are joined; a key is used where it was listed; what adds one goes to one agent, the rest to all or to the first.

An agent that fails, be it dead, slow or talking nonsense, costs the others no more than `LIST_TIMEOUT`, and is left
alone for a while then (see `upstreams`).
"""

from __future__ import annotations

from . import extensions, joining, requests
from .endpoints import Endpoint
from .errors import DeadlineExceeded, Disconnected, Error, Refused, Unreachable, Unsupported, WireError
from .forwarding import MAX_BINDS
from .messages import (
    MAX_MESSAGE,
    AddIdentity,
    AddIdentityConstrained,
    AddSmartcardKey,
    AddSmartcardKeyConstrained,
    Extension,
    ExtensionResponse,
    Failure,
    IdentitiesAnswer,
    Lock,
    Query,
    RemoveAllIdentities,
    RemoveIdentity,
    RemoveSmartcardKey,
    RequestIdentities,
    SessionBind,
    SignRequest,
    Success,
    Unlock,
    frame,
)
from .sessions import REPLY_TIMEOUT
from .threads import together
from .upstreams import LIST, LIST_TIMEOUT, NotBound, Upstream
from .wire import Reader

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Final, TypeAlias, TypeVar

    from .agent import Agent
    from .client import Connection
    from .joining import Entry
    from .sessions import Opener
    from .upstreams import Branch, Local, Reachable

    _T = TypeVar("_T")
    _Branch: TypeAlias = Branch | Local

#: Bytes of session-binds that a connection may have, as they are kept: any one, or the usual many.
_MAX_BOUND: Final = 4 + MAX_MESSAGE
#: Seconds after its deadline until a thread is waited for no more: the system may have had no memory to run it.
_GRACE: Final = 3.0

_FAILURE: Final = Failure().payload()
_SUCCESS: Final = Success().payload()
#: What goes to the agent that takes keys.
_ADDING: Final = (
    AddIdentity.number, AddIdentityConstrained.number,
    AddSmartcardKey.number, AddSmartcardKeyConstrained.number, RemoveSmartcardKey.number,
)  # fmt: skip
#: What is for all agents, or else means less than it says.
_PRESSING: Final = (RemoveAllIdentities.number, Lock.number, Unlock.number)
_ADDING_EXTENSIONS: Final = (extensions.ADD_PPK, extensions.ADD_ENCRYPTED)


def several(
    agents: Sequence[Reachable | Agent], *, add_to: int = 0, say: Callable[[str], object] | None = None
) -> Opener:
    """What opens sessions with all `agents` as one: endpoints, others that can be connected to, or agents in here.

    `add_to` is the index of the one that takes the keys and tokens that are added. `say` is told in a line each which
    agent fails, that it answers again, and what could not be done. Raises ValueError, and `KeyFileError` for the
    endpoint of key files that cannot be read.
    """
    if not 0 <= add_to < len(agents):
        raise ValueError(f"add_to is the index of one of {len(agents)} agents, not {add_to}")
    common = _Common([Upstream(_opened(agent), say or (lambda _: None)) for agent in agents], add_to)
    return lambda connection: _Several(common, connection)


def _opened(agent: Reachable | Agent) -> Reachable | Agent:
    """Key files have an address, but nobody to connect to."""
    return agent.open() if isinstance(agent, Endpoint) and agent.kind == "keys" else agent


class _Common:
    """What all sessions share."""

    def __init__(self, upstreams: list[Upstream], add_to: int) -> None:
        self.upstreams = upstreams
        self.add_to = add_to
        self._cut = False

    def fitting(self, lists: list[list[Entry]]) -> list[list[Entry]]:
        """See `joining.fitting`; that entries are left out is told when it begins."""
        fit = joining.fitting(lists)
        for upstream, before, after in zip(self.upstreams, lists, fit, strict=True):
            if len(after) < len(before) and not self._cut:
                upstream.tell(
                    f"{len(before) - len(after)} of the {len(before)} keys of agent {upstream.address} are left out: "
                    "a list has no room for more"
                )
        self._cut = fit != lists
        return fit


class _Several:
    """A session with all of them (see `sessions.Session`)."""

    def __init__(self, common: _Common, connection: Connection) -> None:
        self._common = common
        self._binds: list[bytes] = []
        self._branches: list[_Branch] = [one.branch(connection, self._binds) for one in common.upstreams]
        self._routes: dict[bytes, int] = {}  # which agent listed a key of that blob
        self._ended = False

    def answer(self, request: bytes) -> bytes:
        """See `Session`. Raises `Disconnected` when it is shut down, `Refused` for more binds than can be kept."""
        try:
            reply = self._reply(request)
        except (WireError, Unreachable):
            reply = _FAILURE
        if self._ended:
            raise Disconnected("the connections to the agents were closed")
        return frame(reply)

    def at_once(self, request: bytes) -> bytes | None:
        """None: other agents take their time."""

    def shutdown(self) -> None:
        """See `Session`."""
        self._ended = True
        for branch in self._branches:
            branch.shutdown()

    def close(self) -> None:
        """See `Session`."""
        self._ended = True
        for branch in self._branches:
            branch.close()

    def _reply(self, request: bytes) -> bytes:
        kind = request[4]
        if kind in (SignRequest.number, RemoveIdentity.number):
            return self._by_key(request, Reader(request[5:]).string())
        if kind != Extension.number:
            act = _ACTS.get(kind)
            if act is None:
                return self._of(self._common.add_to if kind in _ADDING else 0, request)
            return self._pressing(act, request) if kind in _PRESSING else act(self, request)
        asked = Extension.decode(request[5:])
        if asked.name == extensions.REENCRYPT:
            return self._by_key(request, Reader(asked.contents).string())
        act = _EXTENDING.get(asked.name)
        adds = asked.name in _ADDING_EXTENSIONS
        return act(self, request) if act else self._of(self._common.add_to if adds else 0, request)

    def _pressing(self, act: Callable[[_Several, bytes], bytes], request: bytes) -> bytes:
        """The same where agents that are left alone are asked, too: they may be back, and would be forgotten."""
        for branch in self._branches:
            branch.pressing = True
        try:
            return act(self, request)
        finally:
            for branch in self._branches:
                branch.pressing = False

    # One agent

    def _of(self, index: int, request: bytes) -> bytes:
        """The reply of one agent, as it is; FAILURE where there is none."""
        return self._asked(index, request, REPLY_TIMEOUT) or _FAILURE

    def _asked(self, index: int, request: bytes, seconds: float) -> bytes | None:
        try:
            return self._branches[index].ask(request, seconds)
        except (Error, OSError) as error:
            self._note(index, error)
            return None

    def _by_key(self, request: bytes, blob: bytes) -> bytes:
        """The reply of the agent that listed the key, or does so now."""
        index = self._routes.get(blob)
        if index is None:
            lists = self._lists(_entries)
            self._joined(lists)
            index = next((i for i, one in enumerate(lists) if any(blob == listed for listed, _ in one)), None)
        if index is None:
            return _FAILURE
        reply = self._of(index, request)
        if reply[0] == Failure.number or request[4] == RemoveIdentity.number:  # it may not have it any more
            self._routes.pop(blob, None)
        return reply

    def _note(self, index: int, error: Exception, *, grave: bool = False) -> None:
        """Tell of an error; an agent with a `grave` one is left alone for a while."""
        if self._ended or isinstance(error, Unreachable):  # which has been told already
            return
        upstream = self._branches[index].upstream
        if grave and not isinstance(error, NotBound):  # which clients can bring about, and not to the harm of others
            upstream.failed(error)
        else:
            upstream.complain(error)

    # All agents

    def _of_all(
        self, ask: Callable[[_Branch], _T], seconds: float, grave: tuple[type[Exception], ...] = ()
    ) -> list[_T | Exception]:
        """What `ask`, which takes so many seconds, returns for each agent or raises: all at the same time.

        For errors that are `grave` see `_note`.
        """
        outcomes = together(ask, self._branches, seconds + _GRACE)
        made: list[_T | Exception] = []
        for index, outcome in enumerate(outcomes):
            if outcome is None:
                self._branches[index] = self._branches[index].renewed()
            result = outcome[0] if outcome else requests.late(self._branches[index].upstream.address, seconds)
            if isinstance(result, Exception):
                if not isinstance(result, (Error, OSError)):
                    raise result
                self._note(index, result, grave=isinstance(result, grave))
            made.append(result)
        return made

    def _lists(self, read: Callable[[_Branch], list[Entry]], seconds: float = LIST_TIMEOUT) -> list[list[Entry]]:
        """What `read` reads of each agent's list, without keys that are in an earlier one; empty where it failed.

        Raises `Unreachable` where all of them did.
        """

        def listed(branch: _Branch) -> list[Entry]:
            branch.upstream.check()
            entries = read(branch)
            branch.upstream.answered()
            return entries

        outcomes = self._of_all(listed, seconds, (Error, OSError))
        if all(isinstance(outcome, Exception) for outcome in outcomes):
            raise Unreachable("no agent lists its keys")
        return joining.distinct([] if isinstance(outcome, Exception) else outcome for outcome in outcomes)

    def _joined(self, lists: list[list[Entry]]) -> bytes:
        """The joined list. The routes follow it."""
        fit = self._common.fitting(lists)
        self._routes = {blob: index for index, one in enumerate(fit) for blob, _ in one}
        return joining.joined(fit)

    def _list(self, _: bytes) -> bytes:
        return bytes((IdentitiesAnswer.number,)) + self._joined(self._lists(_entries))

    def _list_extended(self, request: bytes) -> bytes:
        """As `_list`, where agents that do not know it are asked for their plain list: all their keys are clear."""
        known = []

        def entries(branch: _Branch) -> list[Entry]:
            try:
                contents = _extending(branch, request, extensions.LIST_EXTENDED)
            except (Disconnected, Refused, Unsupported):
                return joining.extended(_entries(branch))
            known.append(branch)
            return joining.extended_entries(contents, branch.upstream.address)

        lists = self._lists(entries, 2 * LIST_TIMEOUT)
        return _SUCCESS + self._joined(lists) if known else _FAILURE

    def _bind(self, request: bytes) -> bytes:
        """SUCCESS where at least one agent binds the session.

        Those that do not know such are no worse for it, and those that are out of reach now have to bind it when they
        are back: see `upstreams.Branch`. So all binds are kept. Whoever sends more than can be kept is hung up on: the
        one that is not kept could be the one that makes all the difference.
        """
        if request not in self._binds:
            if len(self._binds) >= MAX_BINDS or sum(map(len, self._binds)) + len(request) > _MAX_BOUND:
                raise Refused("a connection cannot be bound to so many sessions, or such long ones")
            self._binds.append(request)
        outcomes = self._of_all(lambda branch: branch.bind(request, LIST_TIMEOUT), LIST_TIMEOUT, (DeadlineExceeded,))
        return _SUCCESS if True in outcomes else _FAILURE

    def _query(self, request: bytes) -> bytes:
        """What any agent says it knows and would be asked for."""

        def names(branch: _Branch) -> list[str]:
            try:
                contents = _extending(branch, request, extensions.QUERY)
            except (Disconnected, Refused, Unsupported):
                return []
            finally:
                branch.drop()  # OpenSSH 10.3 sends one more SUCCESS, which may be still to come
            return ["query", *requests.extension_names(contents, branch.upstream.address)]

        union: dict[str, None] = {}
        for index, outcome in enumerate(self._of_all(names, LIST_TIMEOUT, (DeadlineExceeded,))):
            for name in [] if isinstance(outcome, Exception) else outcome:
                taker = self._common.add_to if name in _ADDING_EXTENSIONS else 0
                if name in _EXTENDING or name == extensions.REENCRYPT or index == taker:
                    union[name] = None
        answer = ExtensionResponse(extensions.QUERY, Query(tuple(union)).encode())
        return answer.payload() if union else _FAILURE

    def _reencrypt_all(self, request: bytes) -> bytes:
        """SUCCESS, where an agent had such keys, and how many of all keys came without encryption."""

        def remaining(branch: _Branch) -> tuple[bool, int]:
            try:
                contents = _extending(branch, request, extensions.REENCRYPT_ALL)
            except (Disconnected, Refused, Unsupported):
                return False, len(_entries(branch))
            return True, Reader(contents).uint32()

        outcomes = self._of_all(remaining, 2 * LIST_TIMEOUT, (DeadlineExceeded,))
        done = [outcome for outcome in outcomes if not isinstance(outcome, Exception)]
        count = min(sum(number for _, number in done), 2**32 - 1)
        return _SUCCESS + count.to_bytes(4, "big") if any(known for known, _ in done) else _FAILURE

    def _remove_all(self, request: bytes) -> bytes:
        """SUCCESS where all agents say so that are there; one that is not has no keys that anybody sees."""
        outcomes = self._of_all(lambda branch: branch.ask(request, requests.TIMEOUT), requests.TIMEOUT)
        said = [outcome for outcome in outcomes if not isinstance(outcome, Unreachable)]
        return _SUCCESS if said and all(one == _SUCCESS for one in said) else _FAILURE

    def _lock(self, request: bytes) -> bytes:
        """SUCCESS where all agents are locked. Where one is not, be it out of reach, the others are unlocked again, as
        whoever hears FAILURE takes none for locked.
        """
        undo = frame(Unlock(Lock.decode(request[5:]).passphrase).payload())
        for index, upstream in enumerate(self._common.upstreams):
            reply = self._asked(index, request, requests.TIMEOUT)
            if reply == _SUCCESS:
                continue
            upstream.tell(f"agent {upstream.address} could not be locked, so none is")
            # One that hung up, or was late, may be locked after all.
            for before in range(index + (reply is None)):
                if self._asked(before, undo, requests.TIMEOUT) != _SUCCESS and before < index:
                    address = self._common.upstreams[before].address
                    upstream.tell(f"agent {address} could not be unlocked again: unlock it with the same passphrase")
            return _FAILURE
        return _SUCCESS

    def _unlock(self, request: bytes) -> bytes:
        """SUCCESS where all agents are unlocked, and at least one was not.

        Those that were not locked fail, too, as OpenSSH's does, and so do those that were locked with another
        passphrase. The latter list no keys, so one that lists some is unlocked. Where one lists none, nobody knows, and
        FAILURE is the answer: it leads to another attempt at most, and SUCCESS would hide why keys are missing.
        """

        def unlocked(branch: _Branch) -> bytes | None:
            try:
                reply = branch.ask(request, requests.TIMEOUT)
            except Disconnected:  # OpenSSH's for Windows does not know how to be locked
                reply = _FAILURE
            return reply if reply == _SUCCESS or not _entries(branch) else None

        outcomes = self._of_all(unlocked, requests.TIMEOUT + LIST_TIMEOUT)
        for upstream, outcome in zip(self._common.upstreams, outcomes, strict=True):
            if outcome not in (_SUCCESS, None) and _SUCCESS in outcomes:
                upstream.tell(f"agent {upstream.address} refused to be unlocked, as others were, and shows no keys")
        return _SUCCESS if _SUCCESS in outcomes and all(one in (_SUCCESS, None) for one in outcomes) else _FAILURE


#: What is done for each type of message, and for each extension, that is not for one agent alone.
_ACTS: Final[dict[int, Callable[[_Several, bytes], bytes]]] = {
    RequestIdentities.number: _Several._list,
    RemoveAllIdentities.number: _Several._remove_all,
    Lock.number: _Several._lock,
    Unlock.number: _Several._unlock,
}
_EXTENDING: Final[dict[str, Callable[[_Several, bytes], bytes]]] = {
    SessionBind.name: _Several._bind,
    extensions.QUERY: _Several._query,
    extensions.LIST_EXTENDED: _Several._list_extended,
    extensions.REENCRYPT_ALL: _Several._reencrypt_all,
}


def _entries(branch: _Branch) -> list[Entry]:
    """What an agent lists. Raises `AgentError`."""
    return joining.entries(branch.ask(LIST, LIST_TIMEOUT), branch.upstream.address)


def _extending(branch: _Branch, request: bytes, name: str) -> bytes:
    """The contents of an agent's answer to an extension, as `requests.Extending` reads them. Raises `AgentError`."""
    return requests.Extending(name, b"").meaning(branch.ask(request, LIST_TIMEOUT), branch.upstream.address)
