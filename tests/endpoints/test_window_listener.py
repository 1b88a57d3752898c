"""Pageant's window, served: which connection a request comes in on, whatever it is that takes the requests."""

from __future__ import annotations

import contextlib
import errno
import sys
import threading
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pageantry import sessions
from pageantry.constraints import Confirm, RestrictDestination
from pageantry.endpoints import window_listener
from pageantry.endpoints.window_listener import MAX_THREADS, Connection, Listener, listen, thread_of
from pageantry.errors import Error
from pageantry.keyring import Keyring
from pageantry.messages import Extension, IdentitiesAnswer, SessionBind, SignRequest, SignResponse, decode, frame
from pageantry.prompts import Person
from pageantry.server import Server
from pageantry.winpipe import Peer

from ..agent.people import Thinker
from ..exposure.upstream import wait_for
from ..hosts import binding, ed25519_key, hop, userauth

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pageantry.endpoints.window_listener import Answer

FAILURE = b"\0\0\0\1\x05"
SUCCESS = b"\0\0\0\1\x06"
LIST = b"\0\0\0\1\x0b"
ALICE, BOUND = ed25519_key(1), ed25519_key(2)
GATE, INNER, OTHER = (ed25519_key(number) for number in (11, 12, 13))
NOBODY = b"PageantRequest-nobody"


def named(thread: int) -> bytes:
    return b"PageantRequest%08x" % thread


class Thread:
    """A thread of a made-up process; `Threads` has them all."""

    def __init__(self, pid: int) -> None:
        self.peer = Peer(pid, "me")
        self.over = self.all_over = self.closed = False

    def ended(self) -> bool:
        return self.over or self.all_over or self.closed

    def process_ended(self) -> bool:
        return self.all_over

    def close(self) -> None:
        assert not self.closed
        self.closed = True


class Threads:
    """Threads by their numbers: of process 1 those below 100, of process 2 those below 200, and so on."""

    def __init__(self) -> None:
        self.opened: list[tuple[int, Thread]] = []

    def find(self, number: int) -> Thread:
        if number >= 100_000:
            raise PermissionError
        self.opened.append((number, Thread(1 + number // 100)))
        return self.opened[-1][1]

    def end(self, *numbers: int) -> None:
        for number, thread in self.opened:
            thread.over |= number in numbers

    def end_process(self, pid: int) -> None:
        for _, thread in self.opened:
            thread.all_over |= thread.peer.pid == pid


class NoWindows:
    """What nothing comes in by."""

    def close(self) -> None:
        pass


class Served:
    """A listener with an agent behind it that has a key, one for some destinations, and one that it asks about."""

    def __init__(self) -> None:
        self.threads = Threads()
        self.person = Thinker()
        self.keyring = Keyring(Person([self.person]))
        self.keyring.add(ALICE, "alice")
        limits = RestrictDestination(
            ((hop(""), hop("gate", GATE.public)), (hop("gate", GATE.public), hop("inner", INNER.public)))
        )
        self.keyring.add(BOUND, "bound", [limits])
        self.listener = Listener(self.threads.find, self._open)
        self.server = Server([self.listener], sessions.to(self.keyring))

    def _open(self, answer: Answer) -> NoWindows:
        self.answer = answer
        return NoWindows()

    def ask(self, name: bytes | int, request: bytes) -> bytes:
        name = named(name) if isinstance(name, int) else name
        return self.answer(name, frame(request), lambda: False, lambda _: None)

    def sees(self, name: bytes | int) -> set[bytes]:
        listed = decode(self.ask(name, b"\x0b")[4:])
        assert isinstance(listed, IdentitiesAnswer)
        return {comment for _, comment in listed.identities}

    def bind(self, name: bytes | int, contents: bytes) -> bytes:
        return self.ask(name, Extension(SessionBind.name, contents).payload())

    def signs(self, name: bytes | int, data: bytes) -> bool:
        reply = decode(self.ask(name, SignRequest(BOUND.public.blob, data).payload())[4:])
        return isinstance(reply, SignResponse)


@contextlib.contextmanager
def serving() -> Iterator[Served]:
    made = Served()
    try:
        yield made
    finally:
        made.person.answer.set()
        made.server.close()
        made.keyring.close()
    assert all(thread.closed for _, thread in made.threads.opened)


@pytest.fixture
def served() -> Iterator[Served]:
    with serving() as made:
        yield made


# names


@given(st.integers(1, 2**32 - 1))
def test_a_thread_is_found_in_the_name_that_putty_s_programs_give(thread: int) -> None:
    assert thread_of(named(thread)) == thread


@given(st.binary(max_size=12) | st.from_regex(r"[0-9a-fA-Fx_+ -]{0,12}").map(str.encode))
def test_any_other_name_has_none(rest: bytes) -> None:
    thread = thread_of(b"PageantRequest" + rest)
    assert thread is None or named(thread) == b"PageantRequest" + rest
    assert thread_of(rest) is None


@pytest.mark.parametrize(
    "name",
    ["PageantRequest", "PageantRequest00000000", "PageantRequest0000ABCD", "PageantRequest0000abcd ", "PageantRequest1",
     "PageantRequest100000000", "pageantrequest0000abcd", "PageantRequest+000abcd", "PageantRequest0x00abcd"],
)  # fmt: skip
def test_what_is_nearly_such_a_name_has_none(name: str) -> None:
    assert thread_of(name.encode()) is None


# connections


def begun(connection: Connection, request: bytes, **how: Callable[[], bool]) -> tuple[threading.Thread, list[bytes]]:
    """Ask in a thread; the reply is in the list when that has ended."""
    replies: list[bytes] = []
    left = how.get("left", lambda: False)
    thread = threading.Thread(target=lambda: replies.append(connection.ask(request, left, lambda _: None)))
    thread.start()
    return thread, replies


@given(st.binary(min_size=1, max_size=300), st.lists(st.integers(1, 50)))
def test_requests_and_replies_survive_all_pieces(payload: bytes, sizes: list[int]) -> None:
    connection, whole = Connection(), frame(payload)
    for _ in range(2):
        thread, replies = begun(connection, whole)
        request, rest = b"", whole
        for size in sizes:
            if len(request) < len(whole):
                request += connection.recv(size)
        while len(request) < len(whole):
            request += connection.recv(65536)
        for size in sizes:
            if len(rest) > size:
                connection.sendall(rest[:size])
                rest = rest[size:]
        connection.sendall(rest)
        thread.join(20)
        assert (request, replies) == (whole, [whole])


def test_who_waits_is_told_and_once_more_after_a_moment() -> None:
    connection, told = Connection(), []

    def waits(long: bool) -> None:
        told.append(long)
        if long:
            connection.sendall(connection.recv(100))

    assert connection.ask(LIST, lambda: False, waits) == LIST
    assert told == [False, True]
    thread = threading.Thread(target=lambda: connection.sendall(connection.recv(100)))
    thread.start()
    assert connection.ask(LIST, lambda: False, waits) == LIST
    thread.join()
    assert told == [False, True, False]


def test_who_is_answered_at_once_does_not_wait() -> None:
    connection = Connection()
    told: list[bool] = []
    connection.offer(lambda request: SUCCESS if request == LIST else None)
    assert connection.ask(LIST, lambda: False, told.append) == SUCCESS
    assert told == []


def test_a_request_has_a_deadline_and_nothing_comes_after_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(window_listener, "DEADLINE", 0.1)
    connection = Connection()
    assert connection.ask(LIST, lambda: False, lambda _: None) == FAILURE
    assert connection.closed
    assert connection.recv(100) == b""
    with pytest.raises(BrokenPipeError):
        connection.sendall(SUCCESS)
    assert connection.ask(LIST, lambda: False, lambda _: None) == FAILURE


def test_a_client_is_gone_when_it_has_left_or_asks_for_something_else_or_its_thread_has_ended() -> None:
    thread, left = Thread(1), threading.Event()
    connection = Connection(thread)
    assert connection.gone()
    first = begun(connection, b"\0\0\0\1a", left=left.is_set)
    assert connection.recv(100) == b"\0\0\0\1a"
    assert not connection.gone()
    left.set()
    assert connection.gone()
    left.clear()
    second, third = begun(connection, b"\0\0\0\1b"), None
    wait_for(connection.gone, "it has asked for something else")
    third = begun(connection, b"\0\0\0\1c")
    second[0].join(20)
    assert second[1] == [FAILURE]
    connection.sendall(SUCCESS)
    first[0].join(20)
    assert first[1] == [SUCCESS]
    assert connection.recv(100) == b"\0\0\0\1c"
    assert not connection.gone()
    thread.over = True
    assert connection.gone()
    connection.close()
    third[0].join(20)
    assert third[1] == [FAILURE]


def test_closing_answers_who_waits_on_either_side() -> None:
    connection, ended = Connection(), []
    server = threading.Thread(target=lambda: ended.append(connection.recv(1)))
    server.start()
    with pytest.raises(OSError, match="one direction") as caught:
        connection.shutdown(1)
    assert caught.value.errno == errno.EOPNOTSUPP
    connection.shutdown(2)
    server.join(20)
    assert ended == [b""]
    with pytest.raises(BrokenPipeError):
        connection.sendall(SUCCESS)


# clients


def test_a_thread_keeps_its_connection_and_is_known_and_others_are_not(served: Served) -> None:
    for _ in range(3):
        assert served.sees(7) == served.sees(NOBODY) == served.sees(200_000) == {b"alice", b"bound"}
    assert [number for number, _ in served.threads.opened] == [7]
    pids = sorted(one.pid or 0 for one in served.server._served)
    assert pids == [0, 1]


def test_a_session_stays_bound_for_a_thread_and_what_it_restricts(served: Served) -> None:
    assert served.bind(7, binding(GATE, b"1", True)) == SUCCESS
    assert served.bind(7, binding(INNER, b"2", False)) == SUCCESS
    assert served.signs(7, userauth(BOUND.public, b"2", "me", INNER.public))
    assert not served.signs(7, userauth(BOUND.public, b"1", "me", GATE.public))
    assert served.sees(7) == {b"alice", b"bound"}
    assert served.bind(107, binding(OTHER, b"3", True)) == SUCCESS
    assert served.sees(107) == {b"alice"}
    assert served.sees(207) == {b"alice", b"bound"}


def test_nothing_is_bound_for_nobody(served: Served) -> None:
    for name in (NOBODY, named(200_000)):
        assert served.bind(name, binding(GATE, b"1", False)) == FAILURE
        assert not served.signs(name, userauth(BOUND.public, b"1", "me", GATE.public))


def test_a_second_thread_of_a_process_binds_nothing_as_long_as_that_lives(served: Served) -> None:
    assert served.bind(1, binding(OTHER, b"1", True)) == SUCCESS
    for thread in (2, 3):
        assert served.bind(thread, binding(GATE, b"2", False)) != SUCCESS
        assert not served.signs(thread, userauth(BOUND.public, b"2", "me", GATE.public))
    served.threads.end(1)
    for thread in (1, 2, 4):  # the number may be another thread's by now
        assert served.bind(thread, binding(GATE, b"2", False)) != SUCCESS
        assert not served.signs(thread, userauth(BOUND.public, b"2", "me", GATE.public))
    served.threads.end_process(1)
    assert served.bind(4, binding(GATE, b"2", False)) == SUCCESS
    assert served.signs(4, userauth(BOUND.public, b"2", "me", GATE.public))


def test_a_second_thread_that_wants_to_bind_is_no_local_one_any_more(served: Served) -> None:
    assert served.bind(1, binding(GATE, b"1", False)) == SUCCESS
    assert served.sees(2) == {b"alice", b"bound"}
    assert served.bind(2, binding(OTHER, b"2", True)) != SUCCESS
    assert served.sees(2) == {b"alice"}
    assert served.sees(1) == served.sees(3) == {b"alice", b"bound"}


_NAMES = st.sampled_from([named(1), named(2), named(3), named(200_000), NOBODY])


@settings(max_examples=40, deadline=None)
@given(
    _NAMES, st.lists(st.tuples(st.sampled_from(["bind", "fail", "sign", "hang up", "end thread"]), _NAMES), max_size=25)
)
def test_a_host_gets_no_key_beyond_it_from_whichever_thread_its_agent_is_forwarded(
    first: bytes, acts: list[tuple[str, bytes]]
) -> None:
    with serving() as served:
        served.bind(first, binding(OTHER, b"1", True))  # what the ssh here does, for any of the threads
        for act, name in acts:
            if act == "bind":
                served.bind(name, binding(GATE, b"2", False))
            elif act == "fail":
                served.bind(name, b"nonsense")
            elif act == "sign" and thread_of(first) in (1, 2, 3):
                assert not served.signs(name, userauth(BOUND.public, b"2", "me", GATE.public))
            elif act == "hang up":
                for one in list(served.server._served):
                    one.hang_up()
            elif act == "end thread":
                served.threads.end(thread_of(name) or 0)


def test_a_binding_that_failed_is_one_too(served: Served) -> None:
    assert served.bind(1, b"nonsense") != SUCCESS
    assert served.sees(1) == {b"alice"}
    assert served.bind(2, binding(GATE, b"1", False)) != SUCCESS


def test_what_was_bound_does_not_come_back_when_its_connection_is_lost(served: Served) -> None:
    assert served.bind(1, binding(OTHER, b"1", True)) == SUCCESS
    assert served.sees(101) == {b"alice", b"bound"}
    for one in list(served.server._served):
        one.hang_up()
    wait_for(lambda: not served.server._served, "connections are left")
    assert served.ask(1, b"\x0b") == FAILURE
    assert served.bind(1, binding(GATE, b"2", False)) == FAILURE
    assert served.sees(101) == {b"alice", b"bound"}
    served.threads.end_process(1)
    assert served.sees(1) == {b"alice", b"bound"}


def test_only_so_many_threads_are_kept_and_the_one_goes_that_was_idle_for_longest(served: Served) -> None:
    for thread in range(100, 100 + MAX_THREADS):
        assert served.sees(thread)
    assert served.sees(100)
    assert served.sees(1)
    closed = [number for number, thread in served.threads.opened if thread.closed]
    assert closed == [101]
    assert len(served.listener._clients) == MAX_THREADS
    wait_for(lambda: len(served.server._served) == MAX_THREADS, "the connection of thread 101 is left")


def test_who_has_bound_something_does_not_go_and_once_there_is_no_room_nobody_new_binds(served: Served) -> None:
    for pid in range(MAX_THREADS):
        assert served.bind(pid * 100 + 1, binding(GATE, b"1", False)) == SUCCESS
    assert served.sees(9_001) == {b"alice", b"bound"}
    assert served.bind(9_001, binding(GATE, b"1", False)) == FAILURE
    assert not any(thread.closed for _, thread in served.threads.opened)
    for pid in range(1, 1 + MAX_THREADS):
        served.threads.end_process(pid)
    assert served.bind(9_001, binding(GATE, b"1", False)) != SUCCESS
    assert served.sees(9_001) == {b"alice"}
    assert len(served.listener._clients) == 1


def test_threads_that_have_ended_are_let_go_of_without_further_requests(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(window_listener, "_LOOK", 0.01)
    assert served.sees(1)
    assert served.bind(101, binding(GATE, b"1", False)) == SUCCESS
    served.sees(NOBODY)  # which has `accept` look as often as said above
    served.threads.end(1, 101)
    wait_for(lambda: not served.listener._clients, "they are kept")
    wait_for(lambda: not served.server._served, "their connections are left, or that of nobody")
    served.threads.end_process(2)
    wait_for(lambda: all(thread.closed for _, thread in served.threads.opened), "their handles are left")


def test_connections_of_nobody_are_used_again_and_few_are_kept(served: Served) -> None:
    served.keyring.add(ALICE, "asked", [Confirm()])
    sign = SignRequest(ALICE.public.blob, b"data").payload()
    threads = [threading.Thread(target=served.ask, args=(NOBODY, sign)) for _ in range(4)]
    for thread in threads:
        thread.start()
    wait_for(lambda: len(served.server._served) == 4, "they do not come in")
    for _ in range(20):
        assert served.sees(NOBODY)
    assert len(served.server._served) == 5
    served.person.answer.set()
    for thread in threads:
        thread.join(20)
    wait_for(lambda: len(served.server._served) == 4, "one more is kept")
    assert len(served.listener._open) == 4


def test_a_question_is_withdrawn_when_its_client_has_left(served: Served) -> None:
    served.keyring.add(ALICE, "asked", [Confirm()])
    left = threading.Event()
    replies: list[bytes] = []

    def ask() -> None:
        request = frame(SignRequest(ALICE.public.blob, b"data").payload())
        replies.append(served.answer(named(1), request, left.is_set, lambda _: None))

    thread = threading.Thread(target=ask)
    thread.start()
    wait_for(lambda: served.person.questions, "nobody is asked")
    left.set()
    thread.join(20)
    assert replies == [FAILURE]
    assert "left" in str(served.person.interruptions[0])
    assert served.sees(1) == {b"asked", b"bound"}


def test_closing_wakes_accept_and_answers_what_waits(served: Served) -> None:
    served.keyring.add(ALICE, "asked", [Confirm()])
    replies: list[bytes] = []
    sign = SignRequest(ALICE.public.blob, b"data").payload()
    threads = [
        threading.Thread(target=lambda name=name: replies.append(served.ask(name, sign))) for name in (1, NOBODY)
    ]
    for thread in threads:
        thread.start()
    wait_for(lambda: served.person.questions, "nobody is asked")
    served.listener.close()
    for thread in threads:
        thread.join(20)
    assert replies == [FAILURE, FAILURE]
    with pytest.raises(OSError, match="closed") as caught:
        served.listener.accept()
    assert caught.value.errno == errno.EBADF
    assert served.ask(1, b"\x0b") == FAILURE
    served.listener.close()


def test_it_has_the_address_that_clients_know_it_by(served: Served) -> None:
    assert served.listener.path == "pageant-window"


@pytest.mark.skipif(sys.platform == "win32", reason="there are windows here")
def test_there_are_no_windows_here() -> None:
    with pytest.raises(Error, match="on Windows only") as caught:
        listen()
    assert "unix:PATH" in caught.value.hint
