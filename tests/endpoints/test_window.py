"""Agents behind a window: how requests go out and replies come back, whatever it is that answers."""

from __future__ import annotations

import _thread
import errno
import gc
import sys
import threading
import time
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pageantry import Client, winpipe
from pageantry.endpoints import window
from pageantry.endpoints.window import MAX_FRAME, Window
from pageantry.errors import BadReply, Disconnected, Unreachable, Unsupported, WireError
from pageantry.messages import IdentitiesAnswer, SessionBind, frame

ED25519 = b"\0\0\0\x0bssh-ed25519\0\0\0\x20" + bytes(range(32))
LIST = frame(IdentitiesAnswer(((ED25519, b"me"),)).payload())
REQUEST = frame(b"\x0b")
NOBODY = winpipe.Peer(None, None)
Give = Callable[[bytes], object]


def echo(request: bytes, seconds: float | None, give: Give) -> None:
    give(request)


def wait_for(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


class Slow:
    """An agent that answers when it is told to."""

    def __init__(self) -> None:
        self.asked, self.go = threading.Event(), threading.Event()
        self.seconds: list[float | None] = []

    def __call__(self, request: bytes, seconds: float | None, give: Give) -> None:
        self.seconds.append(seconds)
        self.asked.set()
        assert self.go.wait(20)
        give(request)


def workers() -> int:
    """How many threads there are that `threading` knows nothing of."""
    return _thread._count() - (threading.active_count() - 1)


@given(st.binary(min_size=1, max_size=300), st.lists(st.integers(1, 50)), st.lists(st.integers(0, 50)))
def test_requests_and_replies_survive_all_pieces(payload: bytes, sent: list[int], read: list[int]) -> None:
    whole = frame(payload)
    with Window(echo, NOBODY) as connection:
        connection.settimeout(20)
        rest = whole
        for size in sent:
            connection.sendall(rest[:size])
            rest = rest[size:]
        connection.sendall(rest)
        reply = b""
        for size in read:
            if len(reply) < len(whole):
                piece = connection.recv(size)
                assert len(piece) <= size
                assert piece or not size
                reply += piece
        while len(reply) < len(whole):
            reply += connection.recv(7)
        assert reply == whole
        connection.sendall(REQUEST)
        assert connection.recv(100) == REQUEST


def test_the_largest_request_is_taken_and_no_larger_one() -> None:
    with Window(echo, NOBODY) as connection:
        largest = frame(bytes(MAX_FRAME - 4))
        connection.sendall(largest)
        assert connection.recv(MAX_FRAME) == largest
        with pytest.raises(WireError, match=f"{MAX_FRAME + 1} bytes"):
            connection.sendall((MAX_FRAME - 3).to_bytes(4, "big"))


def test_two_requests_at_once_are_refused_and_neither_is_sent() -> None:
    asked: list[bytes] = []
    with Window(lambda request, *_: asked.append(request), NOBODY) as connection, pytest.raises(WireError, match="one"):
        connection.sendall(REQUEST + REQUEST)
    assert asked == []


def test_a_client_names_a_request_that_does_not_fit() -> None:
    with Client(lambda: Window(echo, NOBODY), "pageant-window") as agent, pytest.raises(WireError, match="262144"):
        agent.request(bytes(MAX_FRAME))


def test_the_timeout_ends_the_wait_and_bounds_the_message_and_the_reply_comes_yet() -> None:
    agent = Slow()
    with Window(agent, NOBODY) as connection:
        assert connection.gettimeout() is None
        connection.settimeout(0.05)
        connection.sendall(REQUEST)
        assert connection.gettimeout() == 0.05
        with pytest.raises(TimeoutError):
            connection.recv(100)
        assert agent.seconds == [0.05]
        agent.go.set()
        connection.settimeout(20)
        assert connection.recv(100) == REQUEST


def test_what_goes_wrong_is_raised_where_the_reply_is_waited_for() -> None:
    def ask(request: bytes, seconds: float | None, give: Give) -> None:
        raise BadReply("nonsense") if request == REQUEST else ConnectionResetError(errno.ECONNRESET, "gone")

    with Client(lambda: Window(ask, NOBODY), "pageant-window") as agent:
        with pytest.raises(BadReply, match="nonsense"):
            agent.identities()
        with pytest.raises(Disconnected, match="pageant-window hung up: gone"):
            agent.request(b"\x0d")


@pytest.mark.parametrize("act", [Window.close, lambda connection: connection.shutdown(2)])
def test_closing_wakes_who_waits_and_nothing_goes_afterwards(act: Callable[[Window], None]) -> None:
    agent = Slow()
    connection = Window(agent, NOBODY)
    connection.sendall(REQUEST)
    assert agent.asked.wait(20)
    closer = threading.Timer(0.05, act, (connection,))
    closer.start()
    with pytest.raises(OSError, match="closed") as caught:
        connection.recv(100)
    assert caught.value.errno == errno.EBADF
    closer.join()
    for use in (lambda: connection.sendall(REQUEST), lambda: connection.recv(1)):
        with pytest.raises(OSError, match="closed"):
            use()
    connection.close()
    agent.go.set()


def test_one_direction_alone_is_not_closed() -> None:
    with Window(echo, NOBODY) as connection:
        for how in (0, 1):
            with pytest.raises(OSError, match="one direction") as caught:
                connection.shutdown(how)
            assert caught.value.errno == errno.EOPNOTSUPP
        connection.sendall(REQUEST)
        assert connection.recv(100) == REQUEST


def test_who_waits_before_anything_was_sent_gets_the_reply() -> None:
    replies: list[bytes] = []
    with Window(echo, NOBODY) as connection:
        reader = threading.Thread(target=lambda: replies.append(connection.recv(100)))
        reader.start()
        connection.sendall(REQUEST)
        reader.join(20)
    assert replies == [REQUEST]


def test_threads_end_with_their_connections_even_those_that_nobody_closes() -> None:
    wait_for(lambda: workers() == 0)
    for close in (True, False):
        connection = Window(echo, NOBODY)
        assert workers() == 0
        for _ in range(2):
            connection.sendall(REQUEST)
            assert connection.recv(100) == REQUEST
            assert workers() == 1
        if close:
            connection.close()
        del connection
        gc.collect()
        wait_for(lambda: workers() == 0)


def test_an_interrupt_ends_the_wait_and_the_thread_goes_when_the_agent_has_answered() -> None:
    wait_for(lambda: workers() == 0)
    agent = Slow()
    with Client(lambda: Window(agent, NOBODY), "pageant-window", 60) as client:

        def interrupt() -> None:
            agent.asked.wait(20)
            _thread.interrupt_main()

        other = threading.Thread(target=interrupt)
        start = time.monotonic()
        other.start()
        with pytest.raises(KeyboardInterrupt):
            client.identities()
        assert time.monotonic() - start < 20
        other.join()
        agent.go.set()
        wait_for(lambda: workers() == 0)


def test_a_session_is_not_bound_to_what_is_no_connection_and_the_agent_not_asked() -> None:
    asked: list[bytes] = []
    agent = Client(lambda: Window(lambda request, *_: asked.append(request), NOBODY), "pageant-window")
    with agent, pytest.raises(Unsupported, match="session-bind"):
        agent.extension(SessionBind.name, SessionBind(b"k", b"id", b"s", False).encode())
    assert asked == []


@pytest.mark.skipif(sys.platform == "win32", reason="there are windows here")
@pytest.mark.parametrize("act", [lambda: window.connect(1), window.check_presence, window.peer])
def test_there_are_no_windows_here(act: Callable[[], object]) -> None:
    with pytest.raises(Unreachable, match="on Windows only") as caught:
        act()
    assert "unix:PATH" in caught.value.hint
