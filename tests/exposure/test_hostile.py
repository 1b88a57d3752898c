"""Clients and agents that do not do as they should: who does is served on, and what goes wrong is said."""

from __future__ import annotations

import contextlib
import errno
import socket
import sys
import threading
from collections.abc import Callable

import pytest

import pageantry
from pageantry import framing, server, sessions
from pageantry.errors import Disconnected, Unreachable, Unsupported
from pageantry.exposure import Exposure
from pageantry.keyfiles import KeyFiles
from pageantry.messages import MAX_MESSAGE, IdentitiesAnswer, frame

from .upstream import (
    KEY,
    LIST,
    ONE,
    Upstream,
    connected,
    hung_up,
    hung_up_after_all,
    passing,
    received,
    wait_for,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pageantry.client import Connection


@pytest.mark.parametrize("size", [0, MAX_MESSAGE + 1, 2**31, 2**32 - 1])
def test_a_length_that_cannot_be_is_hung_up_on(said: list[str], size: int) -> None:
    with passing(lambda _: ONE, said) as (address, upstream), connected(address) as connection:
        connection.sendall(size.to_bytes(4, "big") + b"\x0b")
        assert hung_up(connection)
        assert upstream.heard == []
        with connected(address) as other:
            other.sendall(LIST)
            assert received(other, len(ONE)) == ONE
    assert said == [f"a client was hung up on: message of {size} bytes announced; it can be 1 to {MAX_MESSAGE}"]


@pytest.mark.parametrize("begun", [b"\0", b"\0\0", b"\0\0\0\x05", b"\0\0\0\x05\x0b"])
def test_half_a_message_and_silence_is_hung_up_on_and_holds_nobody_up(
    offered: str, begun: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(framing, "FRAME_TIMEOUT", 1)
    with connected(offered) as silent, connected(offered) as other:
        silent.sendall(begun)
        other.sendall(LIST)
        assert received(other, 5)[4] == IdentitiesAnswer.number
        assert hung_up(silent)


def test_a_client_that_does_not_read_is_hung_up_on(said: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(framing, "FRAME_TIMEOUT", 1)
    with passing(lambda _: frame(bytes(MAX_MESSAGE)), said) as (address, upstream), connected(address) as connection:
        connection.sendall(LIST * 100)
        wait_for(lambda: upstream.heard, "it was never served")
        wait_for(lambda: upstream.open == 0, "it is still served")
        assert hung_up_after_all(connection)


def test_a_connection_that_nobody_uses_is_closed_in_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "IDLE_TIMEOUT", 0.3)
    monkeypatch.setattr(server, "_STAY", 0.1)
    with pageantry.exposed(KeyFiles([str(KEY)])) as address:
        with connected(address) as silent:
            wait_for(lambda: hung_up_after_all(silent), "it is still open")
        with connected(address) as connection:
            connection.sendall(LIST)
            assert received(connection, 5)[4] == IdentitiesAnswer.number
            wait_for(lambda: hung_up_after_all(connection), "it is still open")


def test_an_agent_that_hangs_up_ends_the_connection_for_good(said: list[str]) -> None:
    with passing(lambda _: None, said) as (address, upstream):
        with connected(address) as connection:
            connection.sendall(LIST + LIST)
            assert hung_up(connection)
        with pageantry.connect(address) as agent:
            with pytest.raises(Unsupported):  # as it would be without us
                agent.extension("anything@example.org")
            with pytest.raises(Disconnected):
                agent.identities()
        assert {len(heard) for heard in upstream.heard} == {1}
    assert set(said) == {"a client was hung up on: agent unix:/fake hung up without a reply"}


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        (b"\0\0\0\0", "sent nonsense: message of 0 bytes"),
        (b"HTTP/1.1 400", "sent nonsense: message of 1213486160 bytes"),
        (b"\0\0", "did not answer within 0.5 s"),
        (b"", "did not answer within 0.5 s"),
    ],
)
def test_an_agent_that_talks_nonsense_or_nothing_is_said(
    said: list[str], reply: bytes, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(framing, "FRAME_TIMEOUT", 0.5)
    with passing(lambda _: reply, said, 0.5) as (address, _), connected(address) as connection:
        connection.sendall(LIST)
        assert hung_up(connection)
    (line,) = said
    assert words in line
    assert "\n" not in line


def test_an_agent_that_is_not_there_any_more_is_said(said: list[str]) -> None:
    upstream = Upstream(lambda _: ONE)
    client = upstream.client()

    def gone() -> socket.socket:
        raise Unreachable("there is no /fake", "start it")

    client._connect = gone
    with pageantry.exposed(client, say=said.append) as address, connected(address) as connection:
        connection.sendall(LIST)
        assert hung_up(connection)
    assert said == ["a client was hung up on: there is no /fake"]


def test_one_client_more_than_there_may_be_takes_the_place_of_the_idlest(
    said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "MAX_CONNECTIONS", 2)
    with passing(lambda _: ONE, said) as (address, _), contextlib.ExitStack() as stack:

        def served() -> Connection:
            connection = stack.enter_context(connected(address))
            connection.sendall(LIST)
            assert received(connection, len(ONE)) == ONE
            return connection

        idlest, other, _ = served(), served(), served()
        assert hung_up(idlest)
        other.sendall(LIST)
        assert received(other, len(ONE)) == ONE
    assert said == ["there is no room for all clients: one was hung up on for another"]


def test_where_all_are_busy_the_oldest_makes_room(said: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "MAX_CONNECTIONS", 1)
    asked, go_on = threading.Event(), threading.Event()

    def slow(_: bytes) -> bytes:
        if not asked.is_set():
            asked.set()
            go_on.wait(30)
        return ONE

    with passing(slow, said) as (address, _), connected(address) as busy:
        busy.sendall(LIST)
        assert asked.wait(10)
        with connected(address) as further:
            further.sendall(LIST)
            assert received(further, len(ONE)) == ONE
        assert hung_up(busy)
        go_on.set()
    assert said[0] == "there is no room for all clients: one was hung up on for another"


def test_a_system_that_gives_no_threads_makes_room_and_goes_on(
    said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    failures = iter([RuntimeError("can't start new thread"), MemoryError()])
    start: Callable[..., None] = server._start

    def failing(*arguments: object) -> None:
        for error in failures:
            raise error
        start(*arguments)

    with passing(lambda _: ONE, said) as (address, _):
        with connected(address) as idle:
            if sys.platform != "linux":  # where it has a thread from the beginning
                idle.sendall(LIST)
                assert received(idle, len(ONE)) == ONE
            monkeypatch.setattr(server, "_start", failing)
            for _ in range(2):
                with connected(address) as unlucky:
                    with contextlib.suppress(OSError):  # it is hung up on before it has asked
                        unlucky.sendall(LIST)
                    assert hung_up(unlucky)
            if sys.platform == "linux":
                idle.sendall(LIST)
                assert received(idle, len(ONE)) == ONE
            else:
                assert hung_up(idle)
        with connected(address) as lucky:
            lucky.sendall(LIST)
            assert received(lucky, len(ONE)) == ONE


def test_it_goes_on_when_the_system_had_nothing_to_give_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    exposure = Exposure(sessions.to(KeyFiles([str(KEY)])))
    accept = exposure._listener.accept
    failures = iter([errno.EMFILE, errno.ENOBUFS, errno.ECONNABORTED])

    def failing() -> Connection:
        for code in failures:
            raise OSError(code, "out of something")
        return accept()

    monkeypatch.setattr(exposure._listener, "accept", failing)
    with exposure as address, pageantry.connect(address) as agent:
        assert agent.identities()


def test_it_goes_on_when_nobody_hears_what_it_says() -> None:
    def say(_: str) -> None:
        raise BrokenPipeError

    with pageantry.exposed(KeyFiles([str(KEY)]), say=say) as address:
        for _ in range(2):
            with connected(address) as nonsense:
                nonsense.sendall(bytes(4))
                assert hung_up(nonsense)
