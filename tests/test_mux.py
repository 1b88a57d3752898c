"""Several agents as one: joined, routed, bound, and no worse for those among them that fail."""

from __future__ import annotations

import contextlib
import itertools
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pageantry import (
    Agent,
    Identity,
    PrivateKey,
    PublicKey,
    SignFlags,
    joining,
    mux,
    sessions,
    threads,
    upstreams,
    winpipe,
)
from pageantry.constraints import RestrictDestination
from pageantry.endpoints import Endpoint
from pageantry.errors import Disconnected, Error, Refused, Unreachable, Unsupported
from pageantry.extensions import (
    ADD_ENCRYPTED,
    ADD_PPK,
    HAS_FILE,
    LIST_EXTENDED,
    REENCRYPT,
    REENCRYPT_ALL,
    ExtendedKey,
    ExtendedList,
)
from pageantry.forwarding import MAX_BINDS
from pageantry.framing import Frames
from pageantry.keyring import Keyring
from pageantry.keys import signatures
from pageantry.messages import (
    MAX_MESSAGE,
    AddIdentity,
    Extension,
    ExtensionResponse,
    Failure,
    IdentitiesAnswer,
    Lock,
    Message,
    Query,
    RemoveAllIdentities,
    RemoveIdentity,
    RequestIdentities,
    SessionBind,
    SignRequest,
    SignResponse,
    Success,
    Unlock,
    decode,
    frame,
)
from pageantry.wire import Writer

from .exposure.upstream import KEY, wait_for
from .hosts import binding, ed25519_key, hop, userauth
from .test_sessions import Memory

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pageantry.client import Connection
    from pageantry.sessions import Session

#: What an agent makes of one request (type byte and contents): its reply, the bytes it sends behind one another, or
#: None to hang up.
Script = Callable[[bytes], bytes | Iterable[bytes] | None]

#: What stands for a connection that has come in: nobody looks at it.
NOBODY = cast("Connection", object())
FAILURE, SUCCESS = Failure().payload(), Success().payload()
LIST = RequestIdentities().payload()


if sys.platform == "win32":

    def pair() -> tuple[Connection, Connection]:
        """Two ends of a connection."""
        with winpipe.listen(f"pageantry-{os.urandom(16).hex()}") as listener:
            return winpipe.connect(listener.path), listener.accept()

else:

    def pair() -> tuple[Connection, Connection]:
        """Two ends of a connection."""
        return socket.socketpair()


class Fake:
    """An agent at the other end of connections, each with a script of its own; it notes what each was asked for."""

    def __init__(self, name: str, open_script: Callable[[], Script]) -> None:
        self.address = f"fake:{name}"
        self.heard: list[list[bytes]] = []
        self.open = 0
        self.there = True
        self._open_script = open_script
        self._gate = threading.Lock()
        self._serving: list[Connection] = []

    def connect(self, timeout: float) -> Connection:
        assert 0 < timeout <= 5
        if not self.there:
            raise Unreachable(f"there is nobody at {self.address}")
        ours, theirs = pair()
        heard: list[bytes] = []
        with self._gate:
            self.heard.append(heard)
            self.open += 1
            self._serving.append(theirs)
        threading.Thread(target=self._serve, args=(theirs, heard, self._open_script()), daemon=True).start()
        return ours

    def end(self) -> None:
        """Hang up on all, and be there no more."""
        self.there = False
        for connection in self._serving:
            with contextlib.suppress(OSError):
                connection.shutdown(2)
        wait_for(lambda: self.open == 0, "it still serves")

    def asked(self, kind: int | str) -> int:
        """How often it was asked for messages of that type, or an extension of that name."""
        start = bytes((kind,)) if isinstance(kind, int) else Extension(kind).payload()
        return sum(request.startswith(start) for heard in list(self.heard) for request in list(heard))

    def _serve(self, connection: Connection, heard: list[bytes], script: Script) -> None:
        with contextlib.closing(connection), contextlib.suppress(OSError):
            frames = Frames(connection)
            while request := frames.next(60):
                heard.append(request[4:])
                reply = script(request[4:])
                if reply is None:
                    break
                for piece in [frame(reply)] if isinstance(reply, bytes) else reply:
                    connection.sendall(piece)
        with self._gate:
            self.open -= 1


def fake(name: str, script: Script) -> Fake:
    return Fake(name, lambda: script)


def served(name: str, agent: Agent, script: Script = lambda _: b"") -> Fake:
    """An agent that does as it should, but for what `script` makes of a request, unless that is empty."""
    open_session = sessions.to(agent)

    def open_script() -> Script:
        session = open_session(NOBODY)
        return lambda request: reply if (reply := script(request)) != b"" else session.answer(frame(request))[4:]

    return Fake(name, open_script)


class Plain(Memory):
    """One that knows no extensions."""

    def extension(self, name: str, data: bytes = b"") -> bytes:
        raise Unsupported("no")


def memory(*keys: PrivateKey) -> Plain:
    agent = Plain()
    for number, key in enumerate(keys):
        agent.add(key, f"key {number}")
    return agent


def keyring(*keys: PrivateKey) -> Keyring:
    ring = Keyring()
    for key in keys:
        ring.add(key, "me")
    return ring


def asked(session: Session, message: Message | bytes) -> bytes:
    request = message if isinstance(message, bytes) else message.payload()
    return session.answer(frame(request))[4:]


def listed(session: Session) -> list[tuple[bytes, bytes]]:
    answer = decode(asked(session, LIST))
    assert isinstance(answer, IdentitiesAnswer), answer
    return list(answer.identities)


def blobs(session: Session) -> list[bytes]:
    return [blob for blob, _ in listed(session)]


def signs(session: Session, key: PrivateKey, data: bytes = b"data") -> bool:
    answer = decode(asked(session, SignRequest(key.public.blob, data)))
    if isinstance(answer, Failure):
        return False
    assert isinstance(answer, SignResponse)
    signatures.verify(key.public, answer.signature, data)
    return True


def bind(contents: bytes) -> bytes:
    return Extension(SessionBind.name, contents).payload()


ONE, TWO, THREE, HOST, OTHER = map(ed25519_key, range(1, 6))


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def joined(said: list[str]) -> Iterator[Callable[..., Session]]:
    """Opens sessions with agents; the same ones share what is known of the agents' failures."""
    opened: dict[tuple[int, ...], sessions.Opener] = {}
    with contextlib.ExitStack() as stack:

        def join(*agents: Fake | Agent | Endpoint, add_to: int = 0) -> Session:
            which = tuple(map(id, agents))
            if which not in opened:
                opened[which] = mux.several(agents, add_to=add_to, say=said.append)
            session = opened[which](NOBODY)
            stack.callback(session.close)
            return session

        yield join


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """What takes seconds takes parts of one."""
    for module in (mux, upstreams):
        monkeypatch.setattr(module, "LIST_TIMEOUT", 0.5)
    monkeypatch.setattr(upstreams, "FIRST_PAUSE", 0.1)


# Lists and signatures

POOL = [ed25519_key(number) for number in range(100, 106)]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.lists(st.sampled_from(POOL), unique_by=lambda key: key.public.blob), min_size=1, max_size=4))
def test_the_list_is_all_lists_in_order_without_doubles_and_who_has_a_key_signs_with_it(
    held: list[list[PrivateKey]],
) -> None:
    agents = [served(str(number), memory(*keys)) for number, keys in enumerate(held)]
    session = mux.several(agents)(NOBODY)
    lister = mux.several(agents)(NOBODY)
    model: dict[bytes, bytes] = {}
    for keys in held:
        for number, key in enumerate(keys):
            model.setdefault(key.public.blob, b"key %d" % number)
    assert listed(lister) == list(model.items())
    for one in (session, lister):  # one that has not listed yet, and one that has
        for key in POOL:
            assert signs(one, key) == (key.public.blob in model)
        one.close()
    for agent, keys in zip(agents, held, strict=True):
        wait_for(lambda agent=agent: agent.open == 0, "connections are left")  # type: ignore[misc]
        mine = {key.public.blob for key in keys}
        for heard in agent.heard:
            for request in heard:
                message = decode(request)
                assert not isinstance(message, SignRequest) or message.key in mine


ENTRIES = st.lists(st.tuples(st.binary(max_size=3), st.binary(max_size=12)), max_size=12)


@settings(max_examples=300, deadline=None)
@given(st.lists(ENTRIES, max_size=5), st.integers(0, 20), st.integers(1, 120))
def test_lists_that_do_not_fit_together_lose_their_ends_and_none_its_fair_part(
    lists: list[list[tuple[bytes, bytes]]], most: int, room: int
) -> None:
    fit = joining.fitting(lists, most, room)
    size = [sum(len(entry) for _, entry in one) for one in lists]
    assert [one[: len(part)] for one, part in zip(lists, fit, strict=True)] == fit
    assert sum(map(len, fit)) <= most
    assert sum(len(entry) for one in fit for _, entry in one) <= room
    if sum(map(len, lists)) <= most and sum(size) <= room:
        assert fit == lists
    for one, part, bytes_ in zip(lists, fit, size, strict=True):
        # an entry costs whichever is scarcer, so this much is surely below its part
        if len(one) * 2 * len(lists) <= most and bytes_ * 2 * len(lists) <= room:
            assert part == one


@pytest.mark.parametrize("count", [5000, 2800])
def test_an_agent_whose_list_grows_does_not_push_the_keys_of_others_out(
    joined: Callable[..., Session], said: list[str], count: int
) -> None:
    many = [(Writer().text("ssh-x").uint32(number), b"") for number in range(count)]
    grown = IdentitiesAnswer(tuple((bytes(blob), comment) for blob, comment in many)).payload()
    large = IdentitiesAnswer(
        tuple((bytes(Writer().text("ssh-y").uint32(number)), b"x" * 2000) for number in range(120))
    ).payload()
    session = joined(fake("grown", lambda _: grown), fake("large", lambda _: large), served("small", memory(ONE, TWO)))
    names = [blob[4:9] for blob in blobs(session)]
    assert blobs(session)[-2:] == [ONE.public.blob, TWO.public.blob]
    assert len(names) <= joining.MAX_KEYS
    assert names.count(b"ssh-x") > 900
    assert names.count(b"ssh-y") > 50
    assert len(said) == 2
    assert all("are left out: a list has no room for more" in line for line in said)
    assert signs(session, TWO)


def test_a_key_that_had_no_room_in_the_list_can_be_used_all_the_same(joined: Callable[..., Session]) -> None:
    many = memory()
    keys = [ed25519_key(1000 + number) for number in range(joining.MAX_KEYS // 2 + 5)]
    for key in keys:
        many.add(key, "")
    more = tuple((bytes(Writer().text("ssh-x").uint32(number)), b"") for number in range(3000))
    session = joined(served("many", many), fake("more", lambda _: IdentitiesAnswer(more).payload()))
    assert keys[-1].public.blob not in blobs(session)
    assert signs(session, keys[-1])
    assert signs(session, keys[0])


def test_what_would_spoil_the_list_for_openssh_is_left_out(joined: Callable[..., Session]) -> None:
    odd = IdentitiesAnswer(((b"no key", b"a"), (b"", b"b"), (ONE.public.blob, b"with\0a NUL"), (ONE.public.blob, b"c")))
    session = joined(fake("odd", lambda _: odd.payload()), served("other", memory(TWO)))
    assert listed(session) == [(ONE.public.blob, b"witha NUL"), (TWO.public.blob, b"key 0")]


def test_pieces_of_single_bytes_are_put_together(joined: Callable[..., Session]) -> None:
    inner = memory(ONE)

    def in_pieces(request: bytes) -> Sequence[bytes]:
        return [bytes((byte,)) for byte in frame(sessions.answer(inner, request))]

    session = joined(fake("pieces", in_pieces), served("whole", memory(TWO)))
    assert blobs(session) == [ONE.public.blob, TWO.public.blob]
    assert signs(session, ONE)


def test_a_key_that_came_after_the_list_is_found(joined: Callable[..., Session]) -> None:
    late = memory()
    session = joined(served("first", memory(ONE)), served("late", late))
    assert blobs(session) == [ONE.public.blob]
    late.add(TWO)
    assert signs(session, TWO)


def test_a_key_in_two_agents_is_the_first_ones_and_the_others_once_it_is_removed(
    joined: Callable[..., Session],
) -> None:
    first, second = served("first", memory(ONE)), served("second", memory(ONE))
    session = joined(first, second)
    assert signs(session, ONE)
    assert asked(session, RemoveIdentity(ONE.public.blob)) == SUCCESS
    assert (second.asked(SignRequest.number), second.asked(RemoveIdentity.number)) == (0, 0)
    assert signs(session, ONE)
    assert second.asked(SignRequest.number) == 1


def test_what_one_agent_denies_no_other_is_asked_for(joined: Callable[..., Session]) -> None:
    def denying(request: bytes) -> bytes:
        return FAILURE if request[0] == SignRequest.number else b""

    second = served("second", memory(ONE))
    session = joined(served("first", memory(ONE), denying), second)
    assert [signs(session, ONE) for _ in range(3)] == [False] * 3
    assert second.asked(SignRequest.number) == 0


@pytest.mark.parametrize("request_", [b"\x0d", b"\x0d\0\0\0\x09", b"\x12", b"\x1b", b"\x1b\xff\xff\xff\xff", b"\x16"])
def test_requests_that_break_off_fail(joined: Callable[..., Session], request_: bytes) -> None:
    session = joined(served("a", memory(ONE)), served("b", memory(TWO)))
    assert asked(session, request_) == FAILURE
    assert len(blobs(session)) == 2


# Agents that fail

NONSENSE: dict[str, bytes | Sequence[bytes] | None] = {
    "hangs up": None,
    "half a length": [b"\0\0"],
    "half a reply": [b"\0\0\0\x20\x0c\0\0"],
    "no length": [bytes(4)],
    "too long": [b"\xff\xff\xff\xff"],
    "another type": SUCCESS,
    "refuses": FAILURE,
    "breaks off": b"\x0c\0\0\0\1\0\0\0\x33",
    "goes on": b"\x0c\0\0\0\0more",
    "count lies": b"\x0c\xff\xff\xff\xff",
}


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize("how", NONSENSE)
@pytest.mark.parametrize("place", [0, 1])
def test_an_agent_that_talks_nonsense_is_left_out_and_said_once(
    joined: Callable[..., Session], said: list[str], how: str, place: int
) -> None:
    agents = [served("good", memory(ONE))]
    agents.insert(place, fake("bad", lambda _: NONSENSE[how]))
    session = joined(*agents)
    for _ in range(5):
        assert blobs(session) == [ONE.public.blob]
        assert signs(session, ONE)
    (line,) = said
    assert "fake:bad" in line
    assert line.endswith("its keys are left out until it answers")


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize("how", ["silent", "drips", "absent"])
def test_a_slow_or_dead_agent_costs_others_its_deadline_and_then_nothing(
    joined: Callable[..., Session], said: list[str], how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upstreams, "FIRST_PAUSE", 60)
    go_on = threading.Event()

    def drip() -> Iterator[bytes]:
        for byte in frame(IdentitiesAnswer(()).payload() + bytes(1000)):
            yield bytes((byte,))
            if go_on.wait(0.05):
                return

    def slow(_: bytes) -> Iterable[bytes]:
        if how == "silent":
            go_on.wait(30)
            return [b""]
        return drip()

    bad = fake("bad", slow)
    bad.there = how != "absent"
    agents = bad, served("good", memory(ONE)), fake("bad too", slow)
    session, other = joined(*agents), joined(*agents)
    began = time.monotonic()
    assert blobs(session) == [ONE.public.blob]
    assert time.monotonic() - began < 2
    before = len(bad.heard)
    for one in (session, other) * 20:
        assert blobs(one) == [ONE.public.blob]
    assert time.monotonic() - began < 4
    assert len(bad.heard) == before
    assert len(said) == 2
    go_on.set()


@pytest.mark.usefixtures("hasty")
def test_an_agent_that_comes_back_is_tried_after_pauses_and_that_is_said(
    joined: Callable[..., Session], said: list[str]
) -> None:
    mine = served("mine", memory(TWO))
    session = joined(served("good", memory(ONE)), mine)
    assert len(blobs(session)) == 2
    mine.end()
    tries: list[float] = []
    connect = mine.connect

    def counted(timeout: float) -> Connection:
        tries.append(time.monotonic())
        return connect(timeout)

    mine.connect = counted  # type: ignore[method-assign]
    ends = time.monotonic() + 1
    while time.monotonic() < ends:
        assert blobs(session) == [ONE.public.blob]
    assert 3 <= len(tries) <= 5  # at 0, 0.1, 0.3, 0.7
    mine.there = True
    wait_for(lambda: len(blobs(session)) == 2, "it is not asked again")
    assert signs(session, TWO)
    assert said == [
        "there is nobody at fake:mine; its keys are left out until it answers",
        "agent fake:mine answers again",
    ]


def test_pauses_grow_to_their_limit_and_failures_at_the_same_time_count_once(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr(upstreams, "monotonic", lambda: now)
    upstream = upstreams.Upstream(served("a", memory()), lambda _: None)
    pauses = []
    for _ in range(7):
        for _ in range(50):
            upstream.failed(Error("late"))
        start = now
        while True:
            try:
                upstream.check()
                break
            except Unreachable:
                now += 0.5
        pauses.append(now - start)
    assert pauses == [1, 2, 4, 8, 16, 30, 30]
    upstream.answered()
    upstream.failed(Error("late"))
    now += 1
    upstream.check()


def test_without_any_agent_that_answers_lists_and_signatures_fail(joined: Callable[..., Session]) -> None:
    absent, locked = served("absent", memory(ONE)), served("empty", memory())
    absent.there = False
    session = joined(absent, absent)
    assert asked(session, LIST) == FAILURE
    assert not signs(session, ONE)
    assert listed(joined(absent, locked)) == []


@pytest.mark.parametrize("half", [b"", b"\0\0", b"\0\0\0\x53\x0e\0"])
def test_an_agent_that_vanishes_in_the_middle_of_a_signature_fails_that_one_alone(
    joined: Callable[..., Session], said: list[str], half: bytes
) -> None:
    vanish = [True, True]

    def vanishing() -> Iterator[bytes]:
        yield half
        raise ConnectionError

    def script(request: bytes) -> bytes | Iterable[bytes]:
        if request[0] == SignRequest.number and vanish:
            vanish.pop()
            return vanishing()
        return b""

    mine = served("mine", memory(ONE), script)
    session = joined(mine, served("other", memory(TWO)))
    assert [signs(session, ONE), signs(session, TWO), signs(session, ONE)] == [False, True, True]
    assert said == [f"agent fake:mine hung up {'in the middle of' if half else 'without'} a reply"]


def test_a_connection_that_died_unused_is_made_again_for_what_changes_nothing(
    joined: Callable[..., Session], said: list[str]
) -> None:
    mine = served("mine", memory(ONE))
    session = joined(mine, served("other", memory(TWO)))
    for ask in (lambda: blobs(session), lambda: signs(session, ONE)):
        assert len(blobs(session)) == 2
        mine.end()
        mine.there = True
        assert ask() in (True, [ONE.public.blob, TWO.public.blob])
    assert said == []


def test_a_reply_too_many_never_becomes_the_next_ones(joined: Callable[..., Session]) -> None:
    double = [frame(IdentitiesAnswer(()).payload()) + frame(SUCCESS)]
    session = joined(fake("double", lambda _: double), served("other", memory(ONE)))
    for _ in range(3):
        assert blobs(session) == [ONE.public.blob]


def test_a_signature_that_takes_its_time_holds_up_no_other_connection(
    joined: Callable[..., Session], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mux, "LIST_TIMEOUT", 0.5)
    asking, answered = threading.Event(), threading.Event()

    def person(request: bytes) -> bytes:
        if request[0] == SignRequest.number:
            asking.set()
            answered.wait(30)
        return b""

    agents = served("person", memory(ONE), person), served("other", memory(TWO))
    waiting, other = joined(*agents), joined(*agents)
    done: list[bool] = []
    thread = threading.Thread(target=lambda: done.append(signs(waiting, ONE)))
    thread.start()
    assert asking.wait(10)
    assert len(blobs(other)) == 2
    assert signs(other, TWO)
    time.sleep(0.7)  # longer than a list may take
    answered.set()
    thread.join(10)
    assert done == [True]


# What changes agents


@pytest.mark.parametrize("add_to", [0, 1])
@pytest.mark.parametrize(
    "request_",
    [
        AddIdentity(ONE, "me").payload(),
        *(bytes((kind,)) + b"whatever it is" for kind in (17, 25, 20, 26, 21)),
        Extension(ADD_PPK, b"whatever").payload(),
        Extension(ADD_ENCRYPTED, b"whatever").payload(),
    ],
)
def test_what_adds_goes_to_one_agent_byte_for_byte(
    joined: Callable[..., Session], add_to: int, request_: bytes
) -> None:
    agents = [fake(name, lambda request: request[::-1]) for name in "ab"]
    assert asked(joined(*agents, add_to=add_to), request_) == request_[::-1]
    assert agents[add_to].heard == [[request_]]
    assert agents[1 - add_to].heard == []


@pytest.mark.parametrize("request_", [b"\x09", b"\xc8", b"\0\1\2", Extension("x@example.org", b"\xff").payload()])
def test_what_nobody_knows_goes_to_the_first_byte_for_byte(joined: Callable[..., Session], request_: bytes) -> None:
    agents = [fake(name, lambda request: request[::-1]) for name in "ab"]
    assert asked(joined(*agents, add_to=1), request_) == request_[::-1]
    assert (agents[0].heard, agents[1].heard) == ([[request_]], [])


def test_an_index_of_no_agent_is_refused() -> None:
    for add_to in (-1, 1):
        with pytest.raises(ValueError, match="add_to is the index of one of 1 agents"):
            mux.several([memory()], add_to=add_to)


def test_an_agent_that_hangs_up_on_what_clients_ask_for_stays_in_the_list(
    joined: Callable[..., Session], said: list[str]
) -> None:
    def windows(request: bytes) -> bytes | None:
        return None if request[0] == Extension.number else b""

    session = joined(served("windows", memory(ONE), windows), served("other", memory(TWO)))
    for _ in range(3):
        assert asked(session, Extension("x@example.org")) == FAILURE
        assert len(blobs(session)) == 2
    assert said == ["agent fake:windows hung up without a reply"]


def test_all_keys_are_removed_where_agents_are_there(joined: Callable[..., Session]) -> None:
    agents = [served("a", memory(ONE)), served("b", memory(TWO)), served("absent", memory(THREE))]
    agents[2].there = False
    assert asked(joined(*agents), RemoveAllIdentities()) == SUCCESS
    assert blobs(joined(*agents)) == []
    agents[2].there = True
    assert listed(joined(*agents)) == []  # as it is being left alone
    assert asked(joined(*agents), RemoveAllIdentities()) == SUCCESS
    assert agents[2].asked(RemoveAllIdentities.number) == 1
    assert agents[2].asked(RequestIdentities.number) == 0
    refusing = fake("refusing", lambda request: FAILURE)
    assert asked(joined(served("c", memory(ONE)), refusing), RemoveAllIdentities()) == FAILURE
    refusing.there = False
    assert asked(joined(refusing), RemoveAllIdentities()) == FAILURE


def test_all_are_locked_and_unlocked(joined: Callable[..., Session], said: list[str]) -> None:
    session = joined(served("a", keyring(ONE)), served("b", keyring(TWO)))
    assert asked(session, Lock(b"geheim")) == SUCCESS
    assert blobs(session) == []
    assert not signs(session, ONE)
    assert not signs(session, TWO)
    assert asked(session, Unlock(b"wrong")) == FAILURE
    assert blobs(session) == []
    assert asked(session, Unlock(b"geheim")) == SUCCESS
    assert len(blobs(session)) == 2
    assert asked(session, Unlock(b"geheim")) == FAILURE  # as a single agent says that is not locked
    assert said == []


@pytest.mark.parametrize("how", ["refuses", "hangs up", "absent", "locks and hangs up"])
def test_where_one_cannot_be_locked_none_is(joined: Callable[..., Session], said: list[str], how: str) -> None:
    inner = keyring(THREE)

    def script(request: bytes) -> bytes | None:
        if request[0] != Lock.number:
            return b""
        if how == "locks and hangs up":
            inner.lock(b"geheim")
        return FAILURE if how == "refuses" else None

    last = served("last", inner, script)
    last.there = how != "absent"
    session = joined(served("a", keyring(ONE)), served("b", keyring(TWO)), last)
    assert asked(session, Lock(b"geheim")) == FAILURE
    last.there = True
    wait_for(lambda: len(blobs(session)) == 3, "some are still locked")
    assert "agent fake:last could not be locked, so none is" in said
    assert "geheim" not in "".join(said)


def test_one_that_stays_locked_is_said(joined: Callable[..., Session], said: list[str]) -> None:
    stuck = fake("stuck", lambda request: SUCCESS if request[0] == Lock.number else FAILURE)
    assert asked(joined(stuck, fake("refusing", lambda _: FAILURE)), Lock(b"geheim")) == FAILURE
    assert said == [
        "agent fake:refusing could not be locked, so none is",
        "agent fake:stuck could not be unlocked again: unlock it with the same passphrase",
    ]


def test_one_that_was_not_locked_does_not_keep_others_from_being_unlocked(
    joined: Callable[..., Session], said: list[str]
) -> None:
    locked, opened, empty = keyring(ONE), keyring(TWO), keyring()
    hanging = served("windows", memory(THREE), lambda request: None if request[0] == Unlock.number else b"")
    locked.lock(b"geheim")
    session = joined(served("locked", locked), served("open", opened), hanging)
    assert asked(session, Unlock(b"wrong")) == FAILURE
    assert asked(session, Unlock(b"geheim")) == SUCCESS
    assert said == []
    locked.lock(b"geheim")
    session = joined(served("locked", locked), served("empty", empty))
    assert asked(session, Unlock(b"geheim")) == FAILURE
    assert blobs(session) == [ONE.public.blob]
    assert said == ["agent fake:empty refused to be unlocked, as others were, and shows no keys"]


# Sessions that are bound


def limited(key: PrivateKey, *hosts: PrivateKey) -> Keyring:
    """An agent with a key for these hosts alone."""
    ring = Keyring()
    pairs = tuple((hop(""), hop(f"host{number}", host.public)) for number, host in enumerate(hosts))
    ring.add(key, "me", (RestrictDestination(pairs),))
    return ring


def login(key: PrivateKey, session_id: bytes = b"session") -> bytes:
    return userauth(key.public, session_id, host_key=HOST.public)


HERE, ELSEWHERE = binding(HOST, b"session", False), binding(OTHER, b"elsewhere", False)
FORWARDED = binding(OTHER, b"forwarded", True)


def test_a_session_is_bound_at_the_agent_that_signs_and_for_this_connection_alone(
    joined: Callable[..., Session],
) -> None:
    agents = served("plain", memory(THREE)), served("a", limited(ONE, HOST)), served("b", limited(TWO, OTHER))
    session, other = joined(*agents), joined(*agents)
    assert asked(session, bind(HERE)) == SUCCESS
    assert asked(other, bind(ELSEWHERE)) == SUCCESS
    assert blobs(session) == [THREE.public.blob, ONE.public.blob]
    assert blobs(other) == [THREE.public.blob, TWO.public.blob]
    assert signs(session, ONE, login(ONE))
    assert not signs(session, ONE, b"data")
    assert not signs(other, ONE, login(ONE))
    assert not signs(session, TWO, login(TWO))
    assert signs(session, THREE, b"data")


@pytest.mark.usefixtures("hasty")
def test_an_agent_that_comes_later_and_a_new_connection_are_bound_in_order_before_all_else(
    joined: Callable[..., Session], said: list[str]
) -> None:
    late, early = served("late", limited(ONE, HOST)), served("early", keyring(TWO))
    late.there = False
    session = joined(early, late)
    binds = [bind(FORWARDED), bind(HERE)]
    assert [asked(session, request) for request in binds] == [SUCCESS] * 2
    late.there = True
    wait_for(lambda: blobs(session) == [TWO.public.blob] and late.heard, "it is not asked")
    assert blobs(session) == [TWO.public.blob]  # since the limited one is not for forwarding
    assert not signs(session, ONE, login(ONE))
    assert [heard[:2] for heard in late.heard] == [binds]
    for agent in (late, early):
        agent.end()
        agent.there = True
    assert blobs(session) == [TWO.public.blob]
    assert [heard[:3] for agent in (late, early) for heard in agent.heard[1:]] == [[*binds, LIST]] * 2


def test_what_the_agent_refused_is_tried_again_on_a_new_connection_as_it_makes_one_that_is_not_local(
    joined: Callable[..., Session],
) -> None:
    agent = served("a", limited(ONE, HOST))
    session = joined(agent, served("b", memory(TWO)))
    assert len(blobs(session)) == 2
    assert asked(session, bind(b"broken")) == FAILURE
    assert blobs(session) == [TWO.public.blob]
    agent.end()
    agent.there = True
    assert blobs(session) == [TWO.public.blob]


def test_an_agent_that_does_not_bind_again_what_it_has_bound_is_not_used(
    joined: Callable[..., Session], said: list[str]
) -> None:
    """OpenSSH's agent refuses while it is locked, without noting it."""
    locked: list[bool] = []

    def script(request: bytes) -> bytes:
        return FAILURE if request[0] == Extension.number and locked else b""

    agent = served("a", limited(ONE, HOST), script)
    agents = agent, served("b", memory(TWO))
    session, local = joined(*agents), joined(*agents)
    assert asked(session, bind(ELSEWHERE)) == SUCCESS
    agent.end()
    agent.there = True
    locked.append(True)
    assert blobs(session) == [TWO.public.blob]
    assert said == ["agent fake:a does not bind a session again"]
    assert len(blobs(local)) == 2  # which it is not left alone for
    locked.clear()
    assert blobs(session) == [TWO.public.blob]
    assert agent.heard[-1] == [bind(ELSEWHERE), LIST]


def test_an_agent_that_answers_the_bind_with_a_double_frame_is_bound(joined: Callable[..., Session]) -> None:
    """As OpenSSH for Windows does."""
    agent = served("windows", memory(ONE), lambda request: frame(SUCCESS) if request[0] == Extension.number else b"")
    session = joined(agent, served("other", memory(TWO)))
    assert asked(session, bind(HERE)) == SUCCESS
    assert len(blobs(session)) == 2
    assert agent.heard == [[bind(HERE), LIST]]


def test_an_agent_that_hangs_up_on_binds_is_asked_without_once_it_is_beyond_doubt(
    joined: Callable[..., Session], said: list[str]
) -> None:
    """As OpenSSH for Windows before 8.9 does."""
    agent = served("windows", memory(ONE), lambda request: None if request[0] == Extension.number else b"")
    session = joined(agent, served("other", memory(TWO)))
    assert asked(session, bind(HERE)) == FAILURE
    assert len(blobs(session)) == 2
    assert signs(session, ONE)
    assert asked(session, bind(HERE)) == FAILURE
    assert len(blobs(session)) == 2
    probes = [heard[1] for heard in agent.heard if len(heard) > 1 and heard[1][0] == Extension.number]
    assert len(probes) >= 2
    assert bind(HERE) not in probes
    assert len(set(probes)) == len(probes)
    assert said == []


@pytest.mark.parametrize("known_by", ["this connection", "another", "the probe", "nobody"])
def test_an_agent_that_knows_binds_and_hangs_up_on_one_is_not_used(
    joined: Callable[..., Session], said: list[str], known_by: str
) -> None:
    ring, tight = limited(ONE, HOST), [known_by == "nobody"]

    def script(request: bytes) -> bytes | None:
        if tight and tight[0] and request[0] == RequestIdentities.number:
            return None  # it has no room for the clients that would ask it
        return None if request == bind(b"such as an attacker sends") else b""

    agent = served("a", ring, script)
    agents = agent, served("b", memory(TWO))
    session, other = joined(*agents), joined(*agents)
    if known_by == "this connection":
        assert asked(session, bind(FORWARDED)) == SUCCESS
    if known_by == "another":
        assert asked(other, bind(FORWARDED)) == SUCCESS
    assert asked(session, bind(b"such as an attacker sends")) == FAILURE
    assert blobs(session) == [TWO.public.blob]
    assert not signs(session, ONE, login(ONE))
    assert len(said) == 1
    assert "agent fake:a does not bind a session: agent fake:a hung up" in said[0]
    tight.clear()
    assert ONE.public.blob in blobs(joined(*agents))


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize("reply", [b"\x0c\0\0\0\0", [frame(SUCCESS) + frame(SUCCESS)], [b"\0\0"]])
def test_nonsense_for_an_answer_to_a_bind_binds_nothing(
    joined: Callable[..., Session], reply: bytes | Sequence[bytes]
) -> None:
    agent = served("a", memory(ONE), lambda request: reply if request[0] == Extension.number else b"")
    session = joined(agent, served("b", memory(TWO)))
    assert asked(session, bind(HERE)) == FAILURE
    assert blobs(session) == [TWO.public.blob]


def test_whoever_sends_more_binds_than_can_be_kept_is_hung_up_on(joined: Callable[..., Session]) -> None:
    agents = fake("a", lambda _: SUCCESS), fake("b", lambda _: SUCCESS)
    session, other = joined(*agents), joined(*agents)
    for number in range(MAX_BINDS):
        for _ in range(2):
            assert asked(session, bind(bytes((number,)))) == SUCCESS
    with pytest.raises(Refused):
        asked(session, bind(b"\xff"))
    longest = bind(bytes(MAX_MESSAGE - len(bind(b""))))
    assert asked(other, longest) == SUCCESS
    with pytest.raises(Refused):
        asked(other, bind(b""))


class Capricious:
    """OpenSSH's agent with a key for one host, which is locked, ends and hangs up whenever somebody wants it to."""

    def __init__(self) -> None:
        self.locked = False
        self.hang_ups = 0
        self.agent = served("capricious", limited(ONE, HOST), self._script)

    def _script(self, request: bytes) -> bytes | None:
        if self.hang_ups:
            self.hang_ups -= 1
            return None
        if not self.locked:
            return b""
        return b"\x0c\0\0\0\0" if request[0] == RequestIdentities.number else FAILURE  # and it notes no bind

    def restart(self) -> None:
        self.agent.end()
        self.agent.there = True


DEEDS = st.sampled_from(
    [
        "list",
        "list",
        "sign",
        "broken",
        "here",
        "elsewhere",
        "query",
        "lock",
        "unlock",
        "restart",
        "hang up",
        "hang up 2",
    ]
)


@settings(max_examples=60, deadline=None)
@given(st.lists(DEEDS, max_size=12))
def test_whatever_happens_to_agents_a_connection_that_was_bound_stays_bound(deeds: list[str]) -> None:
    """The first bind is ssh's; all else may be the work of whoever has the forwarded agent, and of chance."""
    capricious = Capricious()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(upstreams, "FIRST_PAUSE", 0.0)
        session = mux.several([served("plain", memory(TWO)), capricious.agent])(NOBODY)
        assert asked(session, bind(FORWARDED)) == SUCCESS
        for deed in [*deeds, "unlock", "list", "sign"]:
            if deed == "restart":
                capricious.restart()
            elif deed.startswith("hang up"):
                capricious.hang_ups = 2 if deed.endswith("2") else 1
            elif deed in ("lock", "unlock"):
                capricious.locked = deed == "lock"
            elif deed == "query":
                asked(session, Extension("query"))
            elif deed in ("broken", "here", "elsewhere"):
                asked(session, bind({"broken": b"broken", "here": HERE, "elsewhere": ELSEWHERE}[deed]))
            elif deed == "list":
                assert set(blobs(session)) <= {TWO.public.blob}
            else:
                assert not signs(session, ONE, login(ONE))
                assert signs(session, TWO)
        session.close()
    wait_for(lambda: capricious.agent.open == 0, "connections are left")


# Extensions


def test_query_tells_what_any_agent_would_be_asked_for(joined: Callable[..., Session]) -> None:
    def putty(request: bytes) -> bytes:
        return SUCCESS + Query(("query", ADD_PPK, LIST_EXTENDED, "theirs@example.org")).encode()

    def openssh(request: bytes) -> Sequence[bytes]:  # 10.3 sends one more SUCCESS
        answer = ExtensionResponse("query", Query((SessionBind.name, ADD_PPK, "mine@example.org")).encode())
        return [frame(answer.payload()), frame(SUCCESS)]

    def names(*agents: Fake, add_to: int = 0) -> tuple[str, ...]:
        answer = decode(asked(joined(*agents, add_to=add_to), Extension("query")))
        assert isinstance(answer, ExtensionResponse)
        assert answer.name == "query"
        return Query.decode(answer.contents).names

    hanging = fake("hanging", lambda _: None)
    pair = fake("openssh", openssh), fake("putty", putty), hanging
    assert names(*pair) == ("query", SessionBind.name, ADD_PPK, "mine@example.org", LIST_EXTENDED)
    assert names(*pair[1:]) == ("query", ADD_PPK, LIST_EXTENDED, "theirs@example.org")
    assert asked(joined(hanging, fake("none", lambda _: FAILURE)), Extension("query")) == FAILURE


def test_a_reply_too_many_behind_query_is_left_behind(joined: Callable[..., Session]) -> None:
    answer = ExtensionResponse("query", Query(("query",)).encode()).payload()

    def script(request: bytes) -> bytes | Sequence[bytes]:
        return [frame(answer), frame(SUCCESS)] if request == Extension("query").payload() else b""

    session = joined(served("openssh", limited(ONE, HOST), script), served("other", memory(TWO)))
    assert asked(session, bind(ELSEWHERE)) == SUCCESS
    for _ in range(3):
        assert decode(asked(session, Extension("query"))) == ExtensionResponse("query", Query(("query",)).encode())
        assert blobs(session) == [TWO.public.blob]


def test_extended_lists_are_joined_with_plain_ones(joined: Callable[..., Session]) -> None:
    entry = bytes(Writer().string(ONE.public.blob).string(b"me").string(HAS_FILE.to_bytes(4, "big") + b"more"))

    def putty(request: bytes) -> bytes:
        if request[0] == Extension.number:
            return SUCCESS + (1).to_bytes(4, "big") + entry
        return IdentitiesAnswer(((ONE.public.blob, b"me"),)).payload()

    def windows(request: bytes) -> bytes | None:
        return None if request[0] == Extension.number else b""

    session = joined(served("plain", memory(TWO)), fake("putty", putty), served("windows", memory(THREE, ONE), windows))
    reply = asked(session, Extension(LIST_EXTENDED))
    assert reply[:1] == SUCCESS
    assert ExtendedList.decode(reply[1:]).keys == (
        ExtendedKey(TWO.public.blob, b"key 0", 0),
        ExtendedKey(ONE.public.blob, b"me", HAS_FILE),
        ExtendedKey(THREE.public.blob, b"key 0", 0),
    )
    assert entry in reply
    assert signs(session, THREE)
    assert asked(joined(served("plain", memory(TWO))), Extension(LIST_EXTENDED)) == FAILURE


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize("contents", [b"", b"\xff\xff\xff\xff", b"\0\0\0\0more", b"\0\0\0\1\0\0\0\x33"])
def test_a_broken_extended_list_is_left_out(joined: Callable[..., Session], said: list[str], contents: bytes) -> None:
    session = joined(served("good", keyring(ONE)), fake("bad", lambda _: SUCCESS + contents))
    reply = asked(session, Extension(LIST_EXTENDED))
    assert [key.blob for key in ExtendedList.decode(reply[1:]).keys] == [ONE.public.blob]
    assert "agent fake:bad sent a broken list of keys" in said[0]


def test_keys_are_encrypted_again_where_they_are(joined: Callable[..., Session]) -> None:
    def putty(request: bytes) -> bytes:
        if request == Extension(REENCRYPT_ALL).payload():
            return SUCCESS + (3).to_bytes(4, "big")
        if request == Extension(REENCRYPT, bytes(Writer().string(ONE.public.blob))).payload():
            return SUCCESS
        return IdentitiesAnswer(((ONE.public.blob, b"me"),)).payload() if request == LIST else FAILURE

    first, second = served("plain", memory(TWO, THREE)), fake("putty", putty)
    session = joined(first, second)
    assert asked(session, Extension(REENCRYPT, bytes(Writer().string(ONE.public.blob)))) == SUCCESS
    assert asked(session, Extension(REENCRYPT, bytes(Writer().string(TWO.public.blob)))) == FAILURE
    assert asked(session, Extension(REENCRYPT, b"\0")) == FAILURE
    assert second.asked(REENCRYPT) == 1
    assert asked(session, Extension(REENCRYPT_ALL)) == SUCCESS + (5).to_bytes(4, "big")
    assert asked(joined(first), Extension(REENCRYPT_ALL)) == FAILURE


# Agents of this process


def test_key_files_and_agents_of_this_process_are_among_them(joined: Callable[..., Session]) -> None:
    session = joined(Endpoint("keys", str(KEY)), memory(ONE), served("other", memory(TWO)), add_to=1)
    assert blobs(session)[1:] == [ONE.public.blob, TWO.public.blob]
    assert signs(session, ONE)
    assert asked(session, AddIdentity(THREE)) == SUCCESS
    assert signs(session, THREE)
    assert asked(session, bind(HERE)) == FAILURE
    key = PublicKey(blobs(session)[0])
    answer = decode(asked(session, SignRequest(key.blob, b"data")))
    assert isinstance(answer, SignResponse)
    signatures.verify(key, answer.signature, b"data")


def test_each_connection_has_a_view_of_its_own_of_a_keyring_of_this_process(joined: Callable[..., Session]) -> None:
    agents = limited(ONE, HOST), served("other", memory(TWO))
    session, other = joined(*agents), joined(*agents)
    assert asked(session, bind(ELSEWHERE)) == SUCCESS
    assert blobs(session) == [TWO.public.blob]
    assert len(blobs(other)) == 2


@pytest.mark.usefixtures("hasty")
def test_an_agent_of_this_process_that_waits_for_a_person_delays_no_lists_of_others(
    joined: Callable[..., Session],
) -> None:
    asking, answered = threading.Event(), threading.Event()

    class Asking(Plain):
        def sign(
            self, key: PublicKey, data: bytes, flags: SignFlags = SignFlags.NONE, *, verify: bool = False
        ) -> bytes:
            asking.set()
            answered.wait(30)
            return super().sign(key, data, flags)

    agent = Asking()
    agent.add(ONE)
    agents = agent, served("other", memory(TWO))
    session, other = joined(*agents), joined(*agents)
    done: list[bool] = []
    thread = threading.Thread(target=lambda: done.append(signs(session, ONE)))
    thread.start()
    assert asking.wait(10)
    assert blobs(other) == [TWO.public.blob]
    answered.set()
    thread.join(10)
    assert done == [True]


# Ends


def test_shutting_down_wakes_whoever_waits(joined: Callable[..., Session]) -> None:
    asking, never = threading.Event(), threading.Event()

    def script(request: bytes) -> bytes:
        if request[0] != SignRequest.number:
            return b""
        asking.set()
        never.wait(30)
        return FAILURE

    session = joined(served("a", memory(ONE), script), served("b", memory(TWO)))
    assert session.at_once(frame(LIST)) is None
    woken: list[BaseException] = []

    def wait() -> None:
        try:
            signs(session, ONE)
        except Error as error:
            woken.append(error)

    thread = threading.Thread(target=wait)
    thread.start()
    assert asking.wait(10)
    session.shutdown()
    thread.join(10)
    never.set()
    assert [type(error) for error in woken] == [Disconnected]
    with pytest.raises(Disconnected):
        asked(session, LIST)


def test_nothing_is_left_behind(leaves_nothing: Callable[..., None]) -> None:
    silent = threading.Event()

    def cycle() -> None:
        silent.clear()
        agents = [
            served("a", keyring(ONE)),
            served("b", memory(TWO), lambda request: None if request[0] == Extension.number else b""),
            fake("slow", lambda _: [b""] if silent.wait(20) else None),
        ]
        say: list[str] = []
        session = mux.several(agents, say=say.append)(NOBODY)
        for request in (bind(HERE), LIST, Extension("query").payload(), Lock(b"x").payload()):
            asked(session, request)
        session.shutdown()
        session.close()
        silent.set()
        for agent in agents:
            wait_for(lambda agent=agent: agent.open == 0, "connections are left")  # type: ignore[misc]

    with pytest.MonkeyPatch.context() as patch:
        for module in (mux, upstreams):
            patch.setattr(module, "LIST_TIMEOUT", 0.3)
        patch.setattr("pageantry.requests.TIMEOUT", 0.3)
        leaves_nothing(cycle, 3)


def test_a_system_that_gives_no_threads_has_agents_asked_one_after_the_other(
    joined: Callable[..., Session], monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threads, "_have_done", none)
    session = joined(served("a", memory(ONE)), served("b", memory(TWO)), served("c", memory(THREE)))
    assert len(blobs(session)) == 3


def test_a_thread_that_never_runs_is_waited_for_no_longer_than_its_part(
    joined: Callable[..., Session], monkeypatch: pytest.MonkeyPatch, said: list[str]
) -> None:
    start = threads._have_done
    numbers = itertools.count()
    monkeypatch.setattr(mux, "_GRACE", 0.1)
    monkeypatch.setattr(mux, "LIST_TIMEOUT", 0.1)
    monkeypatch.setattr(upstreams, "FIRST_PAUSE", 0.0)
    monkeypatch.setattr(threads, "_have_done", lambda run, index: next(numbers) and start(run, index))
    session = joined(served("a", memory(ONE)), served("b", memory(TWO)))
    assert blobs(session) == [ONE.public.blob]
    wait_for(lambda: len(blobs(session)) == 2, "it is not asked again")


def test_a_keyring_of_this_process_is_not_used_unbound_for_want_of_a_thread(
    joined: Callable[..., Session], monkeypatch: pytest.MonkeyPatch
) -> None:
    start = threads._have_done
    numbers = itertools.count()
    monkeypatch.setattr(mux, "_GRACE", 0.1)
    monkeypatch.setattr(mux, "LIST_TIMEOUT", 0.1)
    monkeypatch.setattr(upstreams, "FIRST_PAUSE", 0.0)
    monkeypatch.setattr(threads, "_have_done", lambda run, index: next(numbers) and start(run, index))
    session = joined(memory(TWO), limited(ONE, HOST))
    assert asked(session, bind(ELSEWHERE)) == FAILURE
    assert blobs(session) == [TWO.public.blob]
    assert not signs(session, ONE, login(ONE))


def test_a_fault_in_a_thread_is_raised_where_it_can_be_told(joined: Callable[..., Session]) -> None:
    class Broken(Plain):
        def identities(self) -> list[Identity]:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        asked(joined(memory(ONE), Broken()), LIST)
