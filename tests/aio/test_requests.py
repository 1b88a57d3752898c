"""What comes back from agents, whole or broken, over sockets and over what needs a thread."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import socket
import sys
import threading
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pageantry import Identity, PrivateKey, aio
from pageantry.errors import AgentError, BadReply, DeadlineExceeded, Disconnected, Refused, Unsupported
from pageantry.messages import MAX_MESSAGE, IdentitiesAnswer, SignResponse, frame
from pageantry.wire import Writer

from .peers import (
    DONE,
    ED25519,
    FAILED,
    LIST,
    SIGNATURE,
    WAYS,
    Peers,
    Script,
    Way,
    always,
    answer,
    client,
    no_threads,
    read_request,
    run,
    silent,
    until,
)


def test_every_request_is_there(way: Way) -> None:
    signed = frame(SignResponse(SIGNATURE).payload())
    named = frame(b"\x1d" + bytes(Writer().text("a@b").raw(b"contents")))
    key = PrivateKey("ssh-ed25519", (bytes(32), bytes(64)))

    async def test() -> None:
        async with client(way, answer(LIST, signed, *[DONE] * 5, b"\0\0\0\x02\x06\x07"), answer(named)) as agent:
            assert [one.comment for one in await agent.identities()] == ["me"]
            assert await agent.sign(ED25519, b"data") == SIGNATURE
            await agent.add(key)
            await agent.remove(ED25519)
            await agent.remove_all()
            await agent.lock(b"x")
            await agent.unlock(b"x")
            assert await agent.request(b"\x0b") == b"\x06\x07"
            assert await agent.extension("a@b") == b"contents"

    run(test)


def test_what_an_agent_refuses_is_raised(way: Way) -> None:
    async def test() -> None:
        async with client(way, answer(FAILED, FAILED, DONE, LIST), answer(FAILED), answer(b"")) as agent:
            with pytest.raises(Refused, match="unix:/fake"):
                await agent.identities()
            with pytest.raises(Refused):
                await agent.sign(ED25519, b"data")
            with pytest.raises(BadReply, match="type 6"):
                await agent.identities()
            with pytest.raises(BadReply, match="type 12"):
                await agent.lock(b"x")
            with pytest.raises(Unsupported):
                await agent.extension("a@b")
            with pytest.raises(Unsupported, match="hung up"):
                await agent.extension("a@b")

    run(test)


def test_entries_that_are_no_keys_are_counted(way: Way) -> None:
    reply = frame(IdentitiesAnswer(((b"", b"none"), (ED25519.blob, b"me"))).payload())

    async def test() -> None:
        async with client(way, answer(reply)) as agent:
            assert len(await agent.identities()) == 1
            assert agent.unreadable == 1

    run(test)


def test_a_signature_that_does_not_match_is_refused_on_request(way: Way) -> None:
    async def test() -> None:
        async with client(way, answer(frame(SignResponse(SIGNATURE).payload()))) as agent:
            with pytest.raises(BadReply):
                await agent.sign(ED25519, b"data", verify=True)

    run(test)


def test_query_is_asked_on_a_connection_of_its_own_and_ours_opened_again(way: Way) -> None:
    names = frame(b"\x1d" + bytes(Writer().text("query").text("session-bind@openssh.com"))) + DONE

    async def test() -> None:
        async with client(way, always, answer(names), always, answer(b""), always) as agent:
            for expected in (["session-bind@openssh.com"], []):
                await agent.identities()
                assert await agent.query() == expected
            assert len(await agent.identities()) == 1

    run(test)


# Pieces, lengths, hang-ups


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(1, len(LIST) - 1), max_size=8), st.sampled_from(WAYS))
def test_any_chunking_gives_the_same_list(cuts: list[int], way: Way) -> None:
    def script(peer: socket.socket) -> None:
        for _ in range(2):
            read_request(peer)
            for start, end in itertools.pairwise([0, *sorted(cuts), len(LIST)]):
                peer.sendall(LIST[start:end])

    async def test() -> None:
        async with client(way, script) as agent:
            assert await agent.identities() == await agent.identities() == [Identity(ED25519, "me")]

    run(test)


@pytest.mark.parametrize("size", [1, 7, 40_000, 262_144])
def test_the_longest_reply_is_read_whatever_its_pieces(way: Way, size: int) -> None:
    longest = frame(b"\x06" + os.urandom(MAX_MESSAGE - 1 if size > 1 else 20_000))

    def script(peer: socket.socket) -> None:
        for _ in range(2):
            read_request(peer)
            for start in range(0, len(longest), size):
                peer.sendall(longest[start : start + size])

    async def test() -> None:
        async with client(way, script, timeout=60) as agent:
            for _ in range(2):
                assert await agent.request(b"\x0b") == longest[4:]

    run(test)


@pytest.mark.parametrize("size", [0, MAX_MESSAGE + 1, 2**32 - 1])
def test_a_length_that_cannot_be_is_refused_and_the_next_request_has_another_connection(way: Way, size: int) -> None:
    async def test() -> None:
        async with client(way, answer(size.to_bytes(4, "big") + b"\x0c"), always) as agent:
            with pytest.raises(BadReply, match=f"{size} bytes"):
                await agent.identities()
            assert len(await agent.identities()) == 1

    run(test)


@pytest.mark.parametrize("sent", [b"", LIST[:2], LIST[:4], LIST[:20]])
def test_a_hang_up_in_the_middle_of_a_reply_is_said(way: Way, sent: bytes) -> None:
    async def test() -> None:
        async with client(way, answer(sent), always) as agent:
            with pytest.raises(Disconnected, match="in the middle" if sent else "without"):
                await agent.identities()
            assert len(await agent.identities()) == 1

    run(test)


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=200), st.sampled_from(WAYS))
def test_whatever_an_agent_sends_gives_a_list_or_an_agent_error(reply: bytes, way: Way) -> None:
    async def test() -> None:
        async with client(way, answer(reply)) as agent:
            with contextlib.suppress(AgentError):
                assert isinstance(await agent.identities(), list)

    run(test)


def test_bytes_behind_a_reply_are_not_taken_for_the_next_one(way: Way) -> None:
    async def test() -> None:
        async with client(way, answer(LIST + DONE), always) as agent:
            assert await agent.identities() == await agent.identities()

    run(test)


def test_what_comes_unasked_and_a_hang_up_between_two_requests_cost_no_request() -> None:
    go, gone = threading.Event(), threading.Event()

    def script(*extra: bytes) -> Script:
        def behave(peer: socket.socket) -> None:
            read_request(peer)
            peer.sendall(LIST)
            go.wait(5)
            go.clear()
            for data in extra:
                peer.sendall(data)
                peer.recv(1)  # until we are hung up on
            peer.close()
            gone.set()

        return behave

    async def test() -> None:
        async with client(WAYS[0], script(DONE), script(), always) as agent:
            for _ in range(2):
                await agent.identities()
                stream = agent._stream
                assert stream is not None
                go.set()
                await until(lambda stream=stream: stream.lost)  # type: ignore[misc]
            assert len(await agent.identities()) == 1
        assert gone.is_set()

    run(test)


# Deadlines


def test_an_agent_that_sends_nothing_is_given_up_at_the_deadline(way: Way) -> None:
    async def test() -> None:
        async with client(way, silent, always, timeout=0.2) as agent:
            start = time.monotonic()
            with pytest.raises(DeadlineExceeded, match=r"0\.2 s"):
                await agent.identities()
            assert 0.15 < time.monotonic() - start < 3
            assert len(await agent.identities()) == 1

    run(test)


def test_the_deadline_is_for_the_whole_reply_and_is_each_requests_own(way: Way) -> None:
    def drip(peer: socket.socket) -> None:
        answer(LIST, LIST)(peer)
        read_request(peer)
        for byte in LIST:
            peer.sendall(bytes((byte,)))
            time.sleep(0.05)

    async def test() -> None:
        async with client(way, drip, silent, timeout=None) as agent:
            await agent.request(b"\x0b", 30)
            await agent.request(b"\x0b", 0.2)
            start = time.monotonic()
            with pytest.raises(DeadlineExceeded, match=r"0\.3 s"):
                await agent.request(b"\x0b", 0.3)
            with pytest.raises(DeadlineExceeded, match=r"0\.4 s"):
                await agent.request(b"\x0b", 0.4)
            assert 0.65 < time.monotonic() - start < 5

    run(test)


def test_an_agent_that_does_not_read_is_given_up_at_the_deadline(way: Way) -> None:
    over = threading.Event()
    read = []

    def script(peer: socket.socket) -> None:
        over.wait(10)
        while data := peer.recv(65536):
            read.append(len(data))

    async def test() -> None:
        peers = Peers(way, script)
        async with aio.Client(peers.connect, "unix:/fake", 0.3) as agent:
            with pytest.raises(DeadlineExceeded):
                await agent.sign(ED25519, bytes(262_000))  # more than fits into a UNIX socket's buffer
            await until(lambda: peers.connections[0].fileno() == -1)
        over.set()
        await peers.all_gone()
        if sys.platform != "win32":  # where a socket's buffers may hold all of it
            assert sum(read) < 262_000  # nobody goes on sending

    run(test)


def test_waiting_for_others_and_connecting_count_towards_the_deadline(way: Way) -> None:
    async def test() -> None:
        async with client(way, silent, timeout=30) as agent:
            first = asyncio.ensure_future(agent.identities())
            await asyncio.sleep(0)
            with pytest.raises(DeadlineExceeded, match="busy"):
                await agent.request(b"\x0b", 0.1)
            first.cancel()
            with pytest.raises(asyncio.CancelledError):
                await first
        peers = Peers(way, always)
        peers.open.clear()
        late = aio.Client(peers.connect, "unix:/fake", 0.1)
        with pytest.raises(DeadlineExceeded):
            await late.identities()
        peers.open.set()
        await no_threads()
        await peers.all_gone()

    run(test)


@pytest.mark.parametrize("timeout", [0, -1, float("nan"), 1e12])
def test_a_timeout_that_is_none_is_refused(timeout: float) -> None:
    async def test() -> None:
        with pytest.raises(ValueError, match="timeout"):
            aio.Client(Peers(WAYS[0], always).connect, "unix:/fake", timeout)

    run(test)
