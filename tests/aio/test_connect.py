"""The ways to a client of asyncio's; and that nothing on them holds up the loop."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest

import pageantry
from pageantry import PublicKey, SignFlags, aio, discovery, streams
from pageantry.endpoints import Endpoint
from pageantry.errors import BadReply, Disconnected, NoSuchKey, Refused, Unreachable
from pageantry.messages import SignResponse, frame
from pageantry.wire import Writer

from .peers import ED25519, SIGNATURE, WAYS, Peers, Way, always, answer, at_every_wait, client, no_threads, run, until


@pytest.fixture
def peers(way: Way, monkeypatch: pytest.MonkeyPatch) -> Peers:
    """What every endpoint leads to."""
    made = Peers(way, always)
    monkeypatch.setattr(Endpoint, "connect", lambda *_: made.connect())
    return made


def test_connect_is_awaited_or_used_in_a_with(peers: Peers) -> None:
    async def test() -> None:
        async with aio.connect("unix:/fake", timeout=5) as agent:
            assert len(await agent.identities()) == 1
        agent = await aio.connect("unix:/fake", holding=ED25519)
        async with agent:
            assert isinstance(agent, aio.Client)
            assert len(await agent.identities()) == 1
        with pytest.raises(Disconnected, match="closed"):
            await agent.identities()
        with pytest.raises(NoSuchKey):
            await aio.connect("unix:/fake", holding=PublicKey(bytes(Writer().text("another").raw(b"key"))))
        await peers.all_gone()
        assert len(peers.threads) == 3  # the connection on which the key was looked for is used further

    run(test)


def test_connecting_can_be_cancelled_at_every_wait(peers: Peers) -> None:
    async def search() -> None:
        async with aio.connect("unix:/fake", holding=ED25519):
            pass

    async def test() -> None:
        async def nothing_is_left() -> None:
            await no_threads()
            await peers.all_gone()

        assert await at_every_wait(search, nothing_is_left) > 1

    run(test)


def test_what_connect_says_is_heard_and_its_errors_are_raised(monkeypatch: pytest.MonkeyPatch, peers: Peers) -> None:
    open_ = discovery.connect
    said: list[tuple[str, threading.Thread]] = []

    def search(*_: object, say: Callable[[str], object], **__: object) -> pageantry.Agent:
        say("a word")
        if threading.current_thread() is threading.main_thread():
            raise AssertionError("the loop is held up")
        return open_("unix:/fake")

    def fail(*_: object, say: Callable[[str], object], **__: object) -> pageantry.Agent:
        say("a word")
        raise Unreachable("nobody")

    async def test() -> None:
        monkeypatch.setattr(discovery, "connect", search)
        async with aio.connect(say=lambda message: said.append((message, threading.current_thread()))):
            assert said == [("a word", threading.main_thread())]
        with pytest.warns(UserWarning, match="a word") as caught:
            await (await aio.connect()).close()
        with pytest.warns(UserWarning, match="a word") as also_caught:
            async with aio.connect():
                pass
        assert caught[0].filename == also_caught[0].filename == __file__
        with pytest.raises(UserWarning, match="a word"):
            await aio.connect()
        monkeypatch.setattr(discovery, "connect", fail)
        with pytest.raises(Unreachable, match="nobody"):
            await aio.connect(say=said.append)  # type: ignore[arg-type]
        assert len(said) == 2
        await peers.all_gone()

    run(test)


def test_connections_are_opened_agents_located_and_signatures_checked_in_threads(
    monkeypatch: pytest.MonkeyPatch, peers: Peers
) -> None:
    from pageantry.keys import signatures

    callers = set()

    def seen(*_: object, **__: object) -> list[pageantry.Found]:
        callers.add(threading.current_thread())
        return []

    async def test() -> None:
        monkeypatch.setattr(discovery, "locate", seen)
        monkeypatch.setattr(signatures, "verify", seen)
        assert await aio.locate("unix:/fake", probe=0) == []
        async with client(WAYS[0], answer(frame(SignResponse(SIGNATURE).payload()))) as agent:
            await agent.sign(ED25519, b"data", verify=True)
        async with aio.connect("unix:/fake") as found:
            with pytest.raises(BadReply):
                await found.extension("a@b")
        assert len(callers) == 2
        assert threading.main_thread() not in callers | peers.callers

    run(test)


def test_a_connection_that_is_there_after_its_loop_is_closed(way: Way) -> None:
    peers = Peers(way, always)
    peers.open.clear()

    async def test() -> None:
        agent = aio.Client(peers.connect, "unix:/fake", 5)
        asyncio.ensure_future(agent.identities())  # noqa: RUF006 - it is cancelled by the end of the loop
        await until(lambda: peers.callers)

    asyncio.run(test())
    peers.open.set()
    run(no_threads)
    assert len(peers.connections) == 1
    run(peers.all_gone)


def test_a_connection_that_the_loop_does_not_take_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: str) -> streams.Socket:
        raise RuntimeError("no")

    async def test() -> None:
        monkeypatch.setattr(streams, "Socket", fail)
        async with client(WAYS[0], always) as agent:
            with pytest.raises(RuntimeError, match="no"):
                await agent.identities()

    run(test)


def test_any_agent_can_be_awaited() -> None:
    calls: list[str] = []

    class Recorder:
        address = "recorder:"
        unreadable = 3

        def __getattr__(self, name: str) -> Callable[..., object]:
            def call(*arguments: object, **named: object) -> object:
                assert threading.current_thread() is not threading.main_thread()
                calls.append(name)
                if name == "lock":
                    raise Refused("no")
                return [name, *arguments, *named.values()]

            return call

    async def test() -> None:
        agent: Any
        async with aio.Agent(Recorder()) as agent:  # type: ignore[arg-type]
            assert agent.address == "recorder:"
            assert await agent.identities() == ["identities"]
            assert agent.unreadable == 3
            assert await agent.sign("key", b"data", SignFlags.RSA_SHA2_256, verify=True) == [
                "sign",
                "key",
                b"data",
                2,
                True,
            ]
            with pytest.raises(Refused):
                await agent.lock(b"x")
            for name, *arguments in (
                ("add", 1),
                ("remove", 1),
                ("remove_all",),
                ("unlock", b"x"),
                ("query",),
                ("extension", "x"),
            ):
                await getattr(agent, name)(*arguments)
        with pytest.raises(Disconnected, match="closed"):
            await agent.identities()

    run(test)
    methods = {name for name in vars(pageantry.Agent) if not name.startswith("_")} - {"address", "unreadable"}
    assert set(calls) == methods


def test_a_cancelled_call_that_was_not_begun_is_not_made() -> None:
    go, made = threading.Event(), []

    class Slow:
        address = "slow:"

        def lock(self, passphrase: bytes) -> None:
            made.append(passphrase)
            go.wait(5)

        def close(self) -> None:
            pass

    async def test() -> None:
        async with aio.Agent(Slow()) as agent:  # type: ignore[arg-type]
            tasks = [asyncio.ensure_future(agent.lock(b"%d" % number)) for number in range(3)]
            await until(lambda: made)
            for task in tasks[:2]:
                task.cancel()
            await asyncio.sleep(0)
            go.set()
            await tasks[2]
            assert made == [b"0", b"2"]

    run(test)


def test_both_clients_have_the_same_interface() -> None:
    for theirs, ours in ((pageantry.Client, aio.Client), (pageantry.Agent, aio.Agent)):
        names = {name for name in dir(theirs) if not name.startswith("_")} - {"unreadable"}
        assert names - set(dir(ours)) == set()


def test_the_front_door_leads_to_it_and_loads_it_only_then() -> None:
    code = (
        "import sys, pageantry; assert 'asyncio' not in sys.modules; "
        "pageantry.aio.connect; assert 'asyncio' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
