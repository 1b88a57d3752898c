"""The one thread that waits for all clients: who costs a thread, who none, and that it never ends before its server."""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

import pageantry
from pageantry import framing, server, sessions
from pageantry.exposure import Exposure
from pageantry.keyring import Keyring
from pageantry.keys import signatures
from pageantry.messages import (
    Failure,
    IdentitiesAnswer,
    Message,
    RequestIdentities,
    SignRequest,
    SignResponse,
    decode,
    frame,
)

from ..exposure.upstream import ONE, Upstream, connected, hung_up, received, wait_for
from ..hosts import ed25519_key, rsa_key
from .people import asked, reply
from .requests import KEY

if sys.platform != "linux":
    pytest.skip("elsewhere each connection has a thread", allow_module_level=True)

import fcntl
import termios

LIST = frame(RequestIdentities().payload())
LISTED = IdentitiesAnswer(((KEY.public.blob, b"me"),))
SLOW = rsa_key(4096)


def sign(data: bytes = b"data", key: pageantry.PrivateKey = KEY) -> bytes:
    return frame(SignRequest(key.public.blob, data, 4).payload())


def signed(message: Message, data: bytes = b"data", key: pageantry.PrivateKey = KEY) -> bool:
    assert isinstance(message, SignResponse)
    signatures.verify(key.public, message.signature, data)
    return True


def threads() -> int:
    return len(os.listdir("/proc/self/task"))


def unread(connection: socket.socket) -> int:
    """How many bytes the other end has not read yet, with what the system needs to keep them."""
    return int.from_bytes(fcntl.ioctl(connection, termios.TIOCOUTQ, bytes(4)), sys.byteorder)


@contextlib.contextmanager
def client(address: str) -> Iterator[socket.socket]:
    with connected(address) as connection:
        assert isinstance(connection, socket.socket)
        yield connection


@pytest.fixture
def keyring() -> Iterator[Keyring]:
    """One without a log, in which each signature would be told."""
    with Keyring() as keyring:
        keyring.add(KEY, "me")
        yield keyring


@pytest.fixture
def exposure(keyring: Keyring, said: list[str]) -> Iterator[Exposure]:
    exposure = pageantry.exposed(keyring, say=said.append)
    with exposure:
        yield exposure


@pytest.fixture
def address(exposure: Exposure) -> str:
    return exposure.address


def lane_of(exposure: Exposure) -> Any:
    assert exposure._server
    return exposure._server._lane


def served(exposure: Exposure) -> list[sessions.Served]:
    """In the order in which they came."""
    assert exposure._server
    return list(exposure._server._served)


def any_has_thread(exposure: Exposure) -> bool:
    return any(one.has_thread for one in served(exposure))


# Who costs a thread


def test_hundreds_of_connections_that_wait_or_ask_for_little_take_no_threads(address: str, keyring: Keyring) -> None:
    before = threads()
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(client(address)) for _ in range(300)]
        wait_for(lambda: len(keyring._common.views) == 300, "they are not served")
        assert threads() <= before
        for one in clients:
            one.sendall(LIST)
            assert reply(one) == LISTED
            one.sendall(sign())
            assert signed(reply(one))
        assert threads() <= before
    wait_for(lambda: not keyring._common.views, "some are still served")


def test_a_slow_request_has_a_thread_which_is_given_back(
    address: str, exposure: Exposure, keyring: Keyring, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "_STAY", 1.0)
    keyring.add(SLOW)
    before = threads()
    with client(address) as one:
        for _ in range(2):
            one.sendall(sign(key=SLOW))
            wait_for(lambda: any_has_thread(exposure), "it has no thread")
            assert signed(reply(one), key=SLOW)
            one.sendall(sign())  # which the thread answers, as long as it is there
            assert signed(reply(one))
            wait_for(lambda: not any_has_thread(exposure) and threads() <= before, "it keeps its thread")
            one.sendall(sign())
            assert signed(reply(one))
            assert threads() <= before


# What comes in, and what goes out


@pytest.mark.parametrize("size", [1, 3, 4, 5, 4095, 4096, 4097, 1_000_000])
def test_requests_are_answered_in_order_in_whatever_pieces_they_come(address: str, size: int) -> None:
    datas = [b"data", bytes(5000), b"x", bytes(4096 - len(sign(b""))), bytes(4097 - len(sign(b"")))]
    stream = b"".join(LIST + sign(data) for data in datas) + frame(b"\xff") + LIST
    with client(address) as one:

        def send() -> None:
            for at in range(0, len(stream), size):
                one.sendall(stream[at : at + size])
                if at < 200 or size > 1000:
                    wait_for(lambda: not unread(one), "nobody reads it")

        sender = threading.Thread(target=send)
        sender.start()
        for data in datas:
            assert reply(one) == LISTED
            assert signed(reply(one), data)
        assert reply(one) == Failure()
        assert reply(one) == LISTED
        sender.join()


@pytest.mark.parametrize("size", [4095, 4096, 4097, 8192])
def test_a_request_is_answered_whatever_its_size(address: str, size: int) -> None:
    data = bytes(size - len(sign(b"")))
    with client(address) as one:
        for _ in range(3):
            one.sendall(sign(data))
            assert signed(reply(one), data)


def test_a_request_that_waits_for_its_second_half_holds_nobody_up(address: str) -> None:
    with client(address) as slow, client(address) as other:
        slow.sendall(LIST[:3])
        for _ in range(3):
            assert asked(other, RequestIdentities()) == LISTED
        slow.sendall(LIST[3:])
        assert reply(slow) == LISTED


def test_one_that_takes_no_replies_misses_none_and_others_are_answered_meanwhile(
    address: str, exposure: Exposure
) -> None:
    with client(address) as lazy, client(address) as other:
        sent = 0
        while not any_has_thread(exposure):
            assert sent < 10_000, "it could always be answered"
            lazy.sendall(sign(b"%d" % sent))
            sent += 1
            wait_for(lambda: not unread(lazy) or any_has_thread(exposure), "nobody reads it")
        for _ in range(10):
            assert asked(other, RequestIdentities()) == LISTED
        for number in range(sent):
            assert signed(reply(lazy), b"%d" % number)
        lazy.sendall(LIST)
        assert reply(lazy) == LISTED


def test_a_reply_that_is_longer_than_what_can_wait_for_its_reader_comes_whole(
    address: str, exposure: Exposure, keyring: Keyring
) -> None:
    for seed in range(100, 200):
        keyring.add(ed25519_key(seed), "x" * 2500)
    listed = keyring._common.holding.listing()
    with client(address) as lazy, client(address) as other:
        lazy.sendall(LIST)
        wait_for(lambda: any(one.owed for one in served(exposure)), "it was answered at once")
        lazy.sendall(LIST + sign())
        assert signed(asked(other, sign()[4:]))
        for _ in range(2):
            assert received(lazy, len(listed)) == listed
        assert signed(reply(lazy))


def test_one_that_never_takes_its_reply_is_hung_up_on(
    address: str, keyring: Keyring, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(framing, "FRAME_TIMEOUT", 0.3)
    for seed in range(100, 200):
        keyring.add(ed25519_key(seed), "x" * 2500)
    with client(address) as lazy:
        lazy.sendall(LIST)
        wait_for(lambda: keyring._common.views, "it was never served")
        wait_for(lambda: not keyring._common.views, "it is still served")
        assert unread(lazy) == 0


def test_many_clients_at_once_get_each_its_own(address: str, keyring: Keyring) -> None:
    keyring.add(rsa_key())
    listed = decode(keyring._common.holding.listing()[4:])

    def visit(number: int) -> None:
        data = b"%d" % number
        with client(address) as one:
            for turn in range(20):
                match (number + turn) % 5:
                    case 0:
                        assert asked(one, RequestIdentities()) == listed
                    case 1:
                        assert asked(one, SignRequest(ed25519_key(5).public.blob, data)) == Failure()
                    case 2:
                        assert signed(asked(one, sign(data, rsa_key())[4:]), data, rsa_key())
                    case 3:
                        one.sendall(sign(data) + LIST)
                        assert signed(reply(one), data)
                        assert reply(one) == listed
                    case _:
                        assert signed(asked(one, sign(data)[4:]), data)

    with ThreadPoolExecutor(50) as pool:
        list(pool.map(visit, range(50)))
    wait_for(lambda: not keyring._common.views, "some are still served")


# Faults of ours


def test_a_fault_is_answered_with_failure_and_a_line(
    address: str, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def faulty(_: object) -> bytes:
        raise RuntimeError("SECRET")

    with client(address) as one:
        with monkeypatch.context() as patched:
            patched.setattr(Keyring, "listing_at_once", faulty)
            assert asked(one, RequestIdentities()) == Failure()
        assert asked(one, RequestIdentities()) == LISTED
    (line,) = said
    assert line.startswith("a request failed, which is a fault of this program: RuntimeError at pageantry.sessions:")


def test_a_fault_that_has_passed_is_no_matter(address: str, said: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    faults = iter([MemoryError()])
    listing = Keyring.listing_at_once

    def faulty(keyring: Keyring) -> bytes | None:
        for fault in faults:
            raise fault
        return listing(keyring)

    monkeypatch.setattr(Keyring, "listing_at_once", faulty)
    with client(address) as one:
        assert asked(one, RequestIdentities()) == LISTED
    assert said == []


class Broken:
    """What fails the first times that something of it is called, with the errors given, and is as it was after that."""

    def __init__(self, whole: object, name: str, *errors: Exception) -> None:
        self._whole, self._name, self._errors = whole, name, list(errors)

    def __getattr__(self, name: str) -> Any:
        if name == self._name and self._errors:
            return self._fail
        return getattr(self._whole, name)

    def _fail(self, *_: object) -> None:
        raise self._errors.pop(0)


@pytest.mark.parametrize("error", [OSError(28, "max_user_watches"), ValueError("closed"), MemoryError()], ids=repr)
def test_a_connection_that_cannot_wait_is_hung_up_on_and_forgotten(
    address: str, exposure: Exposure, keyring: Keyring, error: Exception
) -> None:
    lane = lane_of(exposure)
    lane._epoll = Broken(lane._epoll, "register", error)
    with client(address) as unlucky:
        assert hung_up(unlucky)
    assert lane._waiting == {}
    wait_for(lambda: not keyring._common.views, "its session was not closed")
    with client(address) as lucky:
        assert asked(lucky, RequestIdentities()) == LISTED


@pytest.mark.parametrize("error", [OSError(9, "gone"), MemoryError(), RuntimeError()], ids=repr)
@pytest.mark.parametrize("name", ["poll", "unregister"])
def test_the_lane_outlives_faults_of_its_own(address: str, exposure: Exposure, name: str, error: Exception) -> None:
    lane = lane_of(exposure)
    lane._epoll = Broken(lane._epoll, name, error, error)
    for _ in range(3):
        with client(address) as one:
            assert asked(one, RequestIdentities()) == LISTED
    assert lane._thread.is_alive()


@pytest.mark.parametrize("name", ["_work", "_end", "_answer"])
def test_the_lane_outlives_faults_of_what_it_calls(
    address: str, exposure: Exposure, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def faulty(*_: object) -> None:
        raise MemoryError

    lane = lane_of(exposure)
    with client(address) as waiting:
        with monkeypatch.context() as patched:
            patched.setattr(lane, name, faulty)
            with client(address) as unlucky:
                wait_for(lambda: len(lane._waiting) == 2, "it does not wait")
                left = served(exposure)[1]
                if name != "_end":
                    unlucky.sendall(frame(b"\xff"))
                if name == "_answer":
                    assert hung_up(unlucky)
            wait_for(lambda: len(lane._waiting) == 1, "it still waits")
        assert asked(waiting, RequestIdentities()) == LISTED
        if name != "_answer":  # nobody has let go of it
            assert exposure._server
            exposure._server._end(left)


def test_a_session_that_fails_to_close_is_told_and_others_are_served(
    address: str, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def faulty(_: object) -> None:
        raise RuntimeError("SECRET")

    with client(address) as other:
        with monkeypatch.context() as patched:
            patched.setattr(sessions.View, "close", faulty)
            with client(address) as one:
                assert asked(one, RequestIdentities()) == LISTED
            wait_for(lambda: said, "nothing is said")
        assert asked(other, RequestIdentities()) == LISTED
    assert said[0].startswith("the end of a client failed, which is a fault of this program: RuntimeError")
    assert "SECRET" not in said[0]


# Those who leave, are many, or mean harm


@pytest.mark.parametrize("half", [False, True])
def test_hanging_up_while_waiting_closes_the_session(address: str, keyring: Keyring, half: bool) -> None:
    with client(address) as one:
        assert asked(one, RequestIdentities()) == LISTED
        wait_for(lambda: len(keyring._common.views) == 1, "it is not served")
        if half:
            one.shutdown(socket.SHUT_WR)
            assert hung_up(one)
    wait_for(lambda: not keyring._common.views, "it is still served")


@pytest.mark.parametrize("requests", [LIST, LIST + LIST, LIST + LIST[:3]], ids=["one", "two", "one and a half"])
def test_one_that_closes_its_sending_half_is_answered_all_that_it_has_asked(address: str, requests: bytes) -> None:
    with client(address) as one:
        one.sendall(requests)
        one.shutdown(socket.SHUT_WR)
        for _ in range(len(requests) // len(LIST)):
            assert reply(one) == LISTED
        assert hung_up(one)


def test_urgent_bytes_keep_nobody_busy(address: str, keyring: Keyring) -> None:
    with client(address) as odd, client(address) as other:
        try:
            odd.send(b"x", socket.MSG_OOB)
        except OSError as error:
            pytest.skip(f"this Linux has no urgent data on UNIX sockets: {error.strerror}")
        assert asked(other, RequestIdentities()) == LISTED
        before = time.process_time()
        time.sleep(0.3)
        assert time.process_time() - before < 0.15
        assert asked(other, RequestIdentities()) == LISTED
    wait_for(lambda: not keyring._common.views, "some are still served")


def test_for_want_of_room_the_one_that_has_waited_for_longest_is_hung_up_on(
    address: str, keyring: Keyring, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "MAX_CONNECTIONS", 3)
    with contextlib.ExitStack() as stack:
        first, second, third = (stack.enter_context(client(address)) for _ in range(3))
        for one in (first, second, third, first):
            assert asked(one, RequestIdentities()) == LISTED
        further = stack.enter_context(client(address))
        assert hung_up(second)
        for one in (first, third, further):
            assert asked(one, RequestIdentities()) == LISTED
        wait_for(lambda: len(keyring._common.views) == 3, "its session was not closed")
    assert said == ["there is no room for all clients: one was hung up on for another"]


def test_for_want_of_threads_one_that_has_one_is_hung_up_on_and_none_that_waits(
    said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on = threading.Event()
    upstream = Upstream(lambda _: ONE if go_on.wait(30) else None)
    exposure = pageantry.exposed(upstream.client(), say=said.append)
    failures = iter([RuntimeError("can't start new thread")])
    start: Callable[..., None] = server._start

    def failing(*arguments: object) -> None:
        for error in failures:
            raise error
        start(*arguments)

    with exposure as address, client(address) as waiting, client(address) as busy:
        busy.sendall(LIST)
        wait_for(lambda: any_has_thread(exposure), "it has no thread")
        monkeypatch.setattr(server, "_start", failing)
        with client(address) as unlucky:
            unlucky.sendall(LIST)
            assert hung_up(unlucky)
        assert hung_up(busy)
        go_on.set()
        waiting.sendall(LIST)
        assert received(waiting, len(ONE)) == ONE
        wait_for(lambda: len(said) > 1, "nothing is said")
    assert said == [
        "a client was hung up on: the system gives no thread for it",
        "there is no room for all clients: one was hung up on for another",
    ]


def test_those_who_come_and_go_between_threads_and_the_lane_are_never_taken_for_each_other(
    address: str, exposure: Exposure, keyring: Keyring, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "_STAY", 0.001)
    monkeypatch.setattr(server, "MAX_CONNECTIONS", 12)  # so that some are hung up on at any moment

    def visit(number: int) -> int:
        answered = 0
        for turn in range(150):
            data = b"%d %d" % (number, turn)
            try:
                with client(address) as one:
                    for request in (sign(data), frame(b"\xff"), sign(data)):
                        one.sendall(request)
                        size = int.from_bytes(received(one, 4), "big")
                        message = received(one, size)
                        if not size or len(message) < size:
                            break  # hung up on
                        if request == frame(b"\xff"):
                            assert decode(message) == Failure()
                        else:
                            assert signed(decode(message), data)
                        answered += 1
            except (BrokenPipeError, ConnectionResetError):
                pass  # the same
        return answered

    with ThreadPoolExecutor(16) as pool:
        assert all(pool.map(visit, range(16)))
    wait_for(lambda: not keyring._common.views, "some are still served")
    assert served(exposure) == []
    assert lane_of(exposure)._waiting == {}
    with client(address) as one:
        assert asked(one, RequestIdentities()) == LISTED


def test_closing_ends_hundreds_that_wait_and_leaves_nothing(leaves_nothing: Callable[..., None]) -> None:
    def serve() -> None:
        keyring = Keyring()
        exposure = pageantry.exposed(keyring)
        with keyring, exposure as address, contextlib.ExitStack() as stack:
            clients = [stack.enter_context(client(address)) for _ in range(300)]
            wait_for(lambda: len(keyring._common.views) == 300, "they are not served")
            began = time.monotonic()
            exposure.close()
            assert time.monotonic() - began < server.GRACE
            assert all(map(hung_up, clients))
            assert not keyring._common.views

    leaves_nothing(serve, 2)


class NoSocket:
    """A connection that the lane cannot wait for."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)


def test_what_is_no_socket_is_answered_and_ends_when_it_is_idle_for_too_long(
    keyring: Keyring, monkeypatch: pytest.MonkeyPatch
) -> None:
    keyring.add(KEY, "me")
    monkeypatch.setattr(server, "_STAY", 0.05)
    monkeypatch.setattr(server, "IDLE_TIMEOUT", 0.5)
    exposure = Exposure(sessions.to(keyring))
    accept = exposure._listener.accept
    monkeypatch.setattr(exposure._listener, "accept", lambda: NoSocket(accept()))
    with exposure as address, connected(address) as client:
        for _ in range(3):
            time.sleep(0.1)  # longer than a thread would stay, if the lane could take it
            assert asked(client, RequestIdentities()) == LISTED
        wait_for(lambda: hung_up(client), "it is still served")
