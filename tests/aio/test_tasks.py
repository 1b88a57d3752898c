"""Tasks that share a client of asyncio's, are cancelled at any point, and close it."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import socket
import weakref
from collections.abc import Callable, Coroutine

import pytest

from pageantry import aio
from pageantry.errors import BadReply, Disconnected
from pageantry.messages import SessionBind, SignResponse, frame
from pageantry.wire import Writer

from .peers import (
    BIND,
    DONE,
    ED25519,
    FAILED,
    LIST,
    SIGNATURE,
    WAYS,
    Peers,
    Way,
    always,
    answer,
    at_every_wait,
    client,
    no_threads,
    read_request,
    run,
    silent,
    until,
)


def test_tasks_share_a_client_without_mixing_their_replies(way: Way) -> None:
    def echo(peer: socket.socket) -> None:
        while request := read_request(peer):
            peer.sendall(frame(b"\x1d" + request[1:]))

    async def ask(agent: aio.Client, number: int) -> None:
        for round_ in range(20):
            payload = b"\x1b" + bytes(Writer().text("echo").text(f"{number} {round_}"))
            if round_ % 5 == number % 5:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(0.0001 * number):
                        await agent.request(payload)
            assert (await agent.request(payload))[1:] == payload[1:]

    async def test() -> None:
        async with client(way, echo, timeout=30) as agent, asyncio.TaskGroup() as tasks:
            for number in range(20):
                tasks.create_task(ask(agent, number))

    run(test)


async def fail(agent: aio.Client) -> None:
    with pytest.raises(BadReply):
        await agent.lock(b"x")


async def sign_badly(agent: aio.Client) -> None:
    with pytest.raises(BadReply):
        await agent.sign(ED25519, b"data", verify=True)


ACTS: dict[str, Callable[[aio.Client], Coroutine[object, object, object]]] = {
    "a list": lambda agent: agent.identities(),
    "a query": lambda agent: agent.query(),
    "a session to bind": lambda agent: agent.extension(SessionBind.name, BIND),
    "a broken reply": fail,
    "a signature to verify": sign_badly,
}


@pytest.mark.parametrize("make", ACTS.values(), ids=ACTS)
def test_a_request_can_be_cancelled_at_every_wait(
    way: Way, make: Callable[[aio.Client], Coroutine[object, object, object]]
) -> None:
    replies = {11: LIST, 13: frame(SignResponse(SIGNATURE).payload()), 22: b"\0\0\0\0", 27: DONE}

    def script(peer: socket.socket) -> None:
        while request := read_request(peer):
            peer.sendall(replies[request[0]])

    async def test() -> None:
        peers = Peers(way, script)
        agents = []

        async def fresh() -> object:
            async with aio.Client(peers.connect, "unix:/fake", 20) as agent:
                agents.append(agent)
                return await make(agent)

        async def no_connections() -> None:
            await agents[-1].close()
            await no_threads()
            await peers.all_gone()

        assert await at_every_wait(fresh, no_connections) > 2

        async with aio.Client(peers.connect, "unix:/fake", 20) as agent:

            async def works() -> None:
                agent._bound = False  # where a session was bound before that was cancelled
                assert [one.comment for one in await agent.identities()] == ["me"]

            assert await at_every_wait(lambda: make(agent), works) > 1
        await peers.all_gone()

    run(test)


def test_a_cancelled_wait_for_ones_turn_holds_up_nobody(way: Way) -> None:
    async def test() -> None:
        async with client(way, silent, always) as agent:
            first = asyncio.ensure_future(agent.identities())
            await until(lambda: agent._stream)
            others = [asyncio.ensure_future(agent.identities()) for _ in range(3)]
            await asyncio.sleep(0)
            for task in (others[0], first, others[1]):
                task.cancel()
            assert len(await others[2]) == 1
            for task in (first, *others[:2]):
                with pytest.raises(asyncio.CancelledError):
                    await task

    run(test)


def test_closing_ends_a_request_that_another_task_has_under_way(way: Way) -> None:
    async def test() -> None:
        peers = Peers(way, silent)
        async with aio.Client(peers.connect, "unix:/fake", 30) as agent:
            tasks = [asyncio.ensure_future(agent.identities()) for _ in range(2)]
            await until(lambda: agent._stream)
            await agent.close()
            assert [connection.fileno() for connection in peers.connections] == [-1]
            for task in tasks:
                with pytest.raises(Disconnected):
                    await task
            with pytest.raises(Disconnected, match="closed"):
                await agent.identities()
            await agent.close()
        await peers.all_gone()

    run(test)


def test_what_was_closed_is_not_kept_in_memory_until_its_deadline(way: Way) -> None:
    async def test() -> None:
        async with client(way, always, timeout=3600) as agent:
            await agent.identities()
            assert agent._stream is not None
            stream = weakref.ref(agent._stream)
        await no_threads()
        gc.collect()
        assert stream() is None

    run(test)


def test_a_connection_that_comes_after_the_client_was_closed_is_closed_too(way: Way) -> None:
    peers = Peers(way, always)
    peers.open.clear()

    async def test() -> None:
        agent = aio.Client(peers.connect, "unix:/fake", 5)
        asking = asyncio.ensure_future(agent.identities())
        await until(lambda: peers.callers)
        await agent.close()
        peers.open.set()
        with pytest.raises(Disconnected, match="closed"):
            await asking
        await peers.all_gone()

    run(test)


def test_session_bind_stays_on_its_connection_and_is_not_carried_to_another(way: Way) -> None:
    async def test() -> None:
        async with client(way, answer(frame(DONE), LIST, LIST, b"\0\0\0\0"), answer(FAILED)) as agent:
            assert await agent.extension(SessionBind.name, BIND) == b""
            await agent.identities()
            assert await agent.query() == []
            await agent.identities()
            with pytest.raises(BadReply):
                await agent.identities()
            with pytest.raises(Disconnected, match="bound"):
                await agent.identities()

    run(test)


def test_a_bound_connection_that_is_lost_while_idle_is_not_replaced() -> None:
    async def test() -> None:
        async with client(WAYS[0], answer(DONE), always) as agent:
            await agent.extension(SessionBind.name, BIND)
            await until(lambda: agent._stream and agent._stream.lost)
            with pytest.raises(Disconnected, match="bound"):
                await agent.identities()

    run(test)
