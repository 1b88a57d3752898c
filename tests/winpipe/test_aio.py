"""Pipes on event loops: both verbs, on each loop that Windows has; and that a cancelled call loses nothing."""

import asyncio
import contextlib
import gc
import os
import sys
import threading
from collections.abc import Callable, Coroutine
from typing import cast

import pytest

from pageantry import winpipe
from pageantry.winpipe import aio

if sys.platform != "win32":
    pytest.skip("named pipes of this kind exist on Windows only", allow_module_level=True)

LOOPS: list[Callable[[], asyncio.AbstractEventLoop]] = [asyncio.ProactorEventLoop, asyncio.SelectorEventLoop]


def run(test: Coroutine[object, object, None], loop: Callable[[], asyncio.AbstractEventLoop] = LOOPS[0]) -> None:
    async def ticking() -> None:
        # Under Wine a wake-up from another thread gets lost now and then: a send to the loop's own socket says that it
        # would block, and asyncio does not send again. So the loop looks around by itself.
        ticks = asyncio.ensure_future(tick())
        await asyncio.wait_for(test, 30)
        ticks.cancel()

    async def tick() -> None:
        while True:
            await asyncio.sleep(0.05)

    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(ticking())


@pytest.fixture
def name() -> str:
    return f"pageantry-test-{os.getpid()}-{os.urandom(4).hex()}"


async def connected(name: str) -> tuple[aio.AsyncPipe, aio.AsyncPipe]:
    """Both ends of a pipe."""
    async with aio.listen(name) as listener:
        accepting = asyncio.ensure_future(listener.accept())
        return await aio.connect(name), await accepting


def threads() -> int:
    return sum(thread.name == "winpipe" for thread in threading.enumerate())


@pytest.mark.parametrize("loop", LOOPS)
def test_a_hundred_clients_are_answered_on_any_loop(loop: Callable[[], asyncio.AbstractEventLoop], name: str) -> None:
    async def serve(listener: aio.AsyncListener) -> None:
        async with asyncio.TaskGroup() as group:
            for _ in range(100):
                group.create_task(echo(await listener.accept()))

    async def echo(pipe: aio.AsyncPipe) -> None:
        async with pipe:
            while data := await pipe.recv(4096):
                await pipe.sendall(data)

    async def ask(number: int) -> None:
        async with await aio.connect(name, timeout=20) as pipe:
            assert pipe.peer.pid == os.getpid()
            for round_ in range(3):
                await pipe.sendall(b"%d of %d" % (round_, number))
                assert await pipe.recv(4096) == b"%d of %d" % (round_, number)

    async def test() -> None:
        async with aio.listen(name) as listener, asyncio.TaskGroup() as group:
            group.create_task(serve(listener))
            for number in range(100):
                group.create_task(ask(number))

    run(test(), loop)


def test_the_loop_goes_on_while_a_pipe_is_waited_for(name: str) -> None:
    async def test() -> None:
        client, server = await connected(name)
        reading = asyncio.ensure_future(client.recv(10))
        for _ in range(100):
            await asyncio.sleep(0)
        assert not reading.done()
        await server.sendall(b"now")
        assert await reading == b"now"
        client.close()
        server.close()

    run(test())


def test_what_arrives_while_a_read_is_cancelled_is_there_for_the_next_one(name: str) -> None:
    async def test() -> None:
        client, server = await connected(name)
        expected, got = b"", b""
        for number in range(300):
            piece = b"%d," % number
            expected += piece
            reading = asyncio.ensure_future(client.recv(3))
            if number % 3:
                await asyncio.sleep(0)
            await server.sendall(piece)
            if number % 2:
                await asyncio.sleep(0.0005)
            reading.cancel()
            try:
                got += await reading
            except asyncio.CancelledError:
                pass
        server.close()
        while data := await client.recv(4096):
            got += data
        assert got == expected
        client.close()

    run(test())


def test_a_cancelled_read_has_ended_and_the_pipe_still_works(name: str) -> None:
    async def test() -> None:
        client, server = await connected(name)
        for _ in range(20):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.01):
                    await client.recv(1)
        await server.sendall(b"x")
        assert await client.recv(1) == b"x"
        client.close()
        server.close()

    run(test())


def test_a_write_that_nobody_reads_can_be_cancelled(name: str) -> None:
    async def test() -> None:
        client, server = await connected(name)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await client.sendall(bytes(8 << 20))
        client.close()
        server.close()

    run(test())


def test_a_cancelled_accept_leaves_the_client_for_the_next_one(name: str) -> None:
    async def test() -> None:
        async with aio.listen(name) as listener:
            for _ in range(20):
                accepting = asyncio.ensure_future(listener.accept())
                await asyncio.sleep(0)
                connecting = asyncio.ensure_future(aio.connect(name))
                await asyncio.sleep(0.001)
                accepting.cancel()
                try:
                    server = await accepting
                except asyncio.CancelledError:
                    server = await listener.accept()
                async with server, await connecting as client:
                    await client.sendall(b"hello")
                    assert await server.recv(10) == b"hello"

    run(test())


def test_closing_wakes_those_who_wait(name: str) -> None:
    async def test() -> None:
        client, server = await connected(name)
        listener = aio.listen(name + "-2")
        calls = client.recv(1), client.sendall(bytes(8 << 20)), listener.accept()
        waiting = [asyncio.ensure_future(call) for call in calls]
        await asyncio.sleep(0.05)
        client.close()
        listener.close()
        for result in await asyncio.gather(*waiting, return_exceptions=True):
            assert isinstance(result, OSError)
        with pytest.raises(OSError, match="closed"):
            await client.recv(1)
        with pytest.raises(OSError, match="closed"):
            await client.sendall(b"x")
        server.close()

    run(test())


def test_no_thread_is_left_behind(name: str) -> None:
    async def test() -> None:
        client, server = await connected(name)
        await client.sendall(b"x")
        await server.recv(1)
        client.close()
        server.close()

    run(test())
    gc.collect()
    for thread in threading.enumerate():
        if thread.name == "winpipe":
            thread.join(5)
    assert threads() == 0


def test_a_connection_that_nobody_waits_for_any_more_is_closed(name: str) -> None:
    async def test() -> None:
        with winpipe.listen(name) as listener:
            connecting = asyncio.ensure_future(aio.connect(name))
            await asyncio.sleep(0)
            connecting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await connecting
            listener.settimeout(5)
            with await asyncio.to_thread(listener.accept) as server:
                server.settimeout(5)
                assert await asyncio.to_thread(server.recv, 1) == b""

    run(test())


def test_what_fails_is_raised_where_it_is_waited_for(name: str) -> None:
    async def test() -> None:
        with pytest.raises(FileNotFoundError):
            await aio.connect(name)
        with pytest.raises(ValueError, match="slash"):
            await aio.connect("a\\b")

    run(test())


def test_a_client_that_a_closed_listener_still_got_is_hung_up_on(name: str) -> None:
    async def test() -> None:
        listener = aio.listen(name)
        accepting = asyncio.ensure_future(listener.accept())
        client = await aio.connect(name)
        accepting.cancel()
        listener.close()
        with contextlib.suppress(asyncio.CancelledError, OSError):
            (await accepting).close()
        assert await client.recv(1) == b""
        client.close()

    for _ in range(10):
        run(test())
        name += "x"


def test_a_number_is_nothing_to_send(name: str) -> None:
    async def test() -> None:
        client, server = await connected(name)
        with pytest.raises(TypeError):
            await client.sendall(cast("bytes", 5))
        client.close()
        server.close()

    run(test())
