"""Messages through an exposed agent: each reply to its own request, and all as they are."""

from __future__ import annotations

import threading

import pytest

import pageantry
from pageantry import SignFlags
from pageantry.errors import Refused, Unsupported
from pageantry.keyfiles import KeyFiles
from pageantry.messages import MAX_MESSAGE, Extension, IdentitiesAnswer, SessionBind, decode, frame

from .upstream import (
    ED25519,
    KEY,
    LIST,
    ONE,
    connected,
    passing,
    received,
    wait_for,
)


def test_key_files_list_and_sign_for_others(offered: str) -> None:
    files = KeyFiles([str(KEY)])
    with pageantry.connect(offered) as agent:
        assert agent.identities() == files.identities()
        key = agent.identities()[0].key
        assert agent.sign(key, b"data", verify=True) == files.sign(key, b"data")
        with pytest.raises(Refused):
            agent.sign(ED25519, b"data")
        with pytest.raises(Refused):
            agent.remove_all()
        with pytest.raises(Unsupported):
            agent.extension("anything@example.org")
        assert agent.query() == []
        assert len(agent.identities()) == 1


def test_the_front_door_stays_a_function_when_its_module_is_imported() -> None:
    import pageantry.exposure

    assert pageantry.exposed is pageantry.exposure.exposed


def test_each_connection_has_its_own_to_the_agent_from_its_first_request_on(said: list[str]) -> None:
    with passing(lambda _: ONE, said) as (address, upstream):
        wait_for(
            lambda: upstream.open == 0,
            "the client's own connection would be in the way of an agent that serves one at a time",
        )
        with connected(address) as one, connected(address) as other:
            for connection, times in ((one, 2), (other, 1), (one, 1)):
                for _ in range(times):
                    connection.sendall(LIST)
                    assert received(connection, len(ONE)) == ONE
            with connected(address):
                assert [len(heard) for heard in upstream.heard] == [3, 1]
        wait_for(lambda: upstream.open == 0, "the agent's connections outlive their clients'")
    assert said == []


def test_a_session_is_bound_where_its_signatures_are_asked_for(said: list[str]) -> None:
    def script(request: bytes) -> bytes:
        return b"\0\0\0\1\6" if isinstance(decode(request), Extension) else ONE

    with passing(script, said) as (address, upstream), pageantry.connect(address) as agent:
        agent.extension(SessionBind.name, b"contents")
        agent.identities()
        with pageantry.connect(address) as other:
            other.identities()
    assert [len(heard) for heard in upstream.heard] == [2, 1]


@pytest.mark.parametrize("kind", [0, 1, 5, 99, 200, 255])
@pytest.mark.parametrize("contents", [b"", b"\0", b"\xff" * 1000])
def test_messages_that_nobody_knows_pass_as_they_are(said: list[str], kind: int, contents: bytes) -> None:
    request = frame(bytes((kind,)) + contents)
    with passing(lambda heard: frame(heard[::-1]), said) as (address, upstream), connected(address) as connection:
        connection.sendall(request)
        assert received(connection, len(request)) == frame(request[4:][::-1])
        assert upstream.heard == [[request]]


def test_one_reply_too_many_comes_to_the_next_request_as_it_would_without_us(said: list[str]) -> None:
    with passing(lambda _: ONE + b"\0\0\0\1\6", said) as (address, _), connected(address) as connection:
        for reply in (ONE, b"\0\0\0\1\6", ONE):
            connection.sendall(LIST)
            assert received(connection, len(reply)) == reply


def test_the_largest_messages_pass(said: list[str]) -> None:
    largest = frame(bytes(range(256)) * (MAX_MESSAGE // 256))
    with passing(lambda request: frame(request[::-1]), said) as (address, _), connected(address) as connection:
        for _ in range(3):
            connection.sendall(largest)
            assert received(connection, len(largest)) == frame(largest[4:][::-1])


def test_single_bytes_are_put_together(offered: str) -> None:
    with connected(offered) as connection:
        for _ in range(2):
            for byte in LIST:
                connection.sendall(bytes((byte,)))
            assert received(connection, 5)[4] == IdentitiesAnswer.number
            connection.recv(10_000)


def test_a_thousand_requests_at_once_are_answered_in_order(said: list[str]) -> None:
    with passing(lambda request: frame(request), said) as (address, _), connected(address) as connection:
        sent = b"".join(frame(b"\xc8%d" % number) for number in range(1000))
        thread = threading.Thread(target=connection.sendall, args=(sent,))
        thread.start()
        assert received(connection, len(sent)) == sent
        thread.join()


def test_fifty_clients_at_once_get_each_its_own_replies(said: list[str]) -> None:
    wrong: list[int] = []

    def converse(address: str, number: int) -> None:
        with connected(address) as connection:
            for turn in range(20):
                request = frame(b"\xc8%d %d" % (number, turn) * (number + 1))
                connection.sendall(request)
                if received(connection, len(request)) != request:
                    wrong.append(number)

    with passing(frame, said) as (address, upstream):
        threads = [threading.Thread(target=converse, args=(address, number)) for number in range(50)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert wrong == []
        assert sorted(len(heard) for heard in upstream.heard) == [20] * 50
    assert said == []


def test_fifty_clients_at_once_share_an_agent_of_this_process(offered: str) -> None:
    good: list[bool] = []

    def sign() -> None:
        with pageantry.connect(offered) as agent:
            good.append(bool(agent.sign(agent.identities()[0].key, b"data", SignFlags.NONE, verify=True)))

    threads = [threading.Thread(target=sign) for _ in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert good == [True] * 50
