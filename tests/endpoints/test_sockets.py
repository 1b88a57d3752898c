"""Connections over sockets: that shutting one down wakes who waits there, and loses nothing before; who has left."""

from __future__ import annotations

import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from pageantry.endpoints.sockets import Connection


@pytest.fixture
def pair() -> Iterator[tuple[Connection, socket.socket]]:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as client:
        accepted = server.accept()[0]
        with Connection(socket.AF_INET, socket.SOCK_STREAM, 0, accepted.detach()) as connection:
            connection.settimeout(30)
            client.settimeout(30)
            yield connection, client


MUCH = bytes(30_000_000)  # more than any system buffers


@pytest.mark.parametrize("wait", [lambda one: one.recv(1), lambda one: one.sendall(MUCH)], ids=["recv", "sendall"])
def test_shutting_down_wakes_who_waits_in_another_thread(
    pair: tuple[Connection, socket.socket], wait: Callable[[Connection], object]
) -> None:
    connection, _ = pair
    ended: list[object] = []

    def waits() -> None:
        try:
            ended.append(wait(connection))
        except OSError as error:
            ended.append(error)

    thread = threading.Thread(target=waits, daemon=True)
    thread.start()
    time.sleep(0.2)  # it may wait by then; if not, it is none the better for it
    start = time.monotonic()
    connection.shutdown(2)
    thread.join(10)
    assert time.monotonic() - start < 5
    assert len(ended) == 1
    assert not isinstance(ended[0], TimeoutError)
    assert ended[0] == b"" or isinstance(ended[0], OSError)


@pytest.mark.parametrize("act", [lambda one: one.recv(1), lambda one: one.sendall(b"1")], ids=["recv", "sendall"])
def test_one_that_is_closed_just_before_it_is_waited_for_fails_as_any_does(act: Callable[[Connection], object]) -> None:
    class Closing(Connection):
        def fileno(self) -> int:
            number = super().fileno()
            self.close()
            return number

    with Closing(socket.AF_INET, socket.SOCK_STREAM) as connection:
        connection.settimeout(30)
        with pytest.raises(OSError, match=r".+"):
            act(connection)


def test_after_shutting_down_nothing_goes_and_the_other_end_sees_the_end(
    pair: tuple[Connection, socket.socket],
) -> None:
    connection, client = pair
    connection.sendall(b"last")
    connection.shutdown(2)
    with pytest.raises(OSError, match=r".+"):
        connection.sendall(b"more")
    assert client.recv(100) == b"last"
    assert client.recv(100) == b""
    try:
        connection.shutdown(2)
    except OSError:
        pass  # so most systems say that it has ended
    connection.close()


def test_one_half_can_be_shut_down_alone(pair: tuple[Connection, socket.socket]) -> None:
    connection, client = pair
    connection.shutdown(socket.SHUT_WR)
    assert client.recv(1) == b""
    client.sendall(b"answer")
    assert connection.recv(100) == b"answer"


def test_what_is_much_arrives_whole(pair: tuple[Connection, socket.socket]) -> None:
    connection, client = pair
    data = bytes(range(256)) * 20_000
    thread = threading.Thread(target=connection.sendall, args=(data,))
    thread.start()
    heard = b""
    while len(heard) < len(data):
        heard += client.recv(1 << 20)
    thread.join()
    assert heard == data


def test_timeouts_are_those_of_sockets(pair: tuple[Connection, socket.socket]) -> None:
    connection, client = pair
    connection.settimeout(0.05)
    with pytest.raises(TimeoutError):
        connection.recv(1)
    with pytest.raises(TimeoutError):
        connection.sendall(MUCH)
    connection.settimeout(0)
    with pytest.raises(BlockingIOError):
        connection.recv(1)
    connection.settimeout(None)
    threading.Timer(0.1, client.sendall, [b"x"]).start()
    assert connection.recv(1) == b"x"


@pytest.fixture
def ends() -> Iterator[tuple[Connection, socket.socket]]:
    """Both ends of what agents and their clients are connected by: on Windows TCP, elsewhere UNIX sockets."""
    one, other = socket.socketpair()
    with Connection(one.family, one.type, one.proto, one.detach()) as connection, other:
        yield connection, other


def wait_for(condition: Callable[[], bool]) -> None:
    """What the system may take a moment for."""
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline, "it did not come to that"
        time.sleep(0.01)


def test_the_other_end_is_there_until_it_is_closed(ends: tuple[Connection, socket.socket]) -> None:
    ours, theirs = ends
    assert not ours.gone()
    theirs.close()
    wait_for(ours.gone)


def test_what_was_sent_before_is_neither_the_end_nor_lost(ends: tuple[Connection, socket.socket]) -> None:
    ours, theirs = ends
    theirs.sendall(b"x" * 1000)
    assert not ours.gone()
    theirs.close()
    if sys.platform != "win32":
        assert ours.gone()
    assert len(ours.recv(2000)) == 1000
    wait_for(ours.gone)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not tell")
def test_who_sends_no_more_may_wait_for_replies(ends: tuple[Connection, socket.socket]) -> None:
    ours, theirs = ends
    theirs.shutdown(socket.SHUT_WR)
    assert not ours.gone()


def test_a_connection_that_was_closed_here_has_nobody_at_its_other_end(ends: tuple[Connection, socket.socket]) -> None:
    ends[0].close()
    assert ends[0].gone()


@pytest.mark.parametrize("timeout", [None, 0, 30])
def test_a_look_waits_for_nothing(ends: tuple[Connection, socket.socket], timeout: float | None) -> None:
    ours, _ = ends
    ours.settimeout(timeout)
    start = time.monotonic()
    assert not ours.gone()
    assert time.monotonic() - start < 10
    assert ours.gettimeout() == timeout
