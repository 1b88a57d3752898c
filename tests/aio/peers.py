"""Peers of the asyncio client, and what its tests have in common."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import itertools
import os
import socket
import sys
import threading
import time
import types
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Generator
from typing import TYPE_CHECKING, Any

from pageantry import PublicKey, aio
from pageantry.messages import IdentitiesAnswer, SessionBind, frame
from pageantry.wire import Writer

if TYPE_CHECKING:
    from pageantry.client import Connection

ED25519 = PublicKey(b"\0\0\0\x0bssh-ed25519\0\0\0\x20" + bytes(range(32)))
SIGNATURE = bytes(Writer().text("ssh-ed25519").string(bytes(64)))
LIST = frame(IdentitiesAnswer(((ED25519.blob, b"me"),)).payload())
DONE, FAILED = frame(b"\x06"), frame(b"\x05")
BIND = SessionBind(b"k", b"id", b"s", False).encode()

#: What a peer does with one connection, in a thread of its own: it is given the socket.
Script = Callable[[socket.socket], object]
Test = Callable[[], Coroutine[object, object, None]]


class Other:
    """A connection that the loop does not know."""

    def __init__(self, of: socket.socket) -> None:
        self.sendall, self.recv, self.shutdown, self.close = of.sendall, of.recv, of.shutdown, of.close
        self.settimeout, self.gettimeout = of.settimeout, of.gettimeout


Way = Callable[[socket.socket], "Connection"]
WAYS: list[Way] = [lambda plain: plain, Other]


def read_request(peer: socket.socket) -> bytes:
    header = peer.recv(4, socket.MSG_WAITALL)
    return peer.recv(int.from_bytes(header, "big"), socket.MSG_WAITALL) if header else b""


def answer(*replies: bytes) -> Script:
    """Answers one request after the other with these bytes, then hangs up."""

    def script(peer: socket.socket) -> None:
        for reply in replies:
            if not read_request(peer):
                return
            peer.sendall(reply)

    return script


def always(peer: socket.socket) -> None:
    """Answers whatever is asked with the list."""
    while read_request(peer):
        peer.sendall(LIST)


def silent(peer: socket.socket) -> None:
    """Takes everything and says nothing."""
    while peer.recv(65536):
        pass


class Peers:
    """The first connection is served by the first script, the second by the second, and all others by the last."""

    def __init__(self, way: Way, *scripts: Script) -> None:
        self._way, self._scripts = way, list(scripts)
        self.threads: list[threading.Thread] = []
        self.connections: list[socket.socket] = []
        self.callers: set[threading.Thread] = set()
        self.open = threading.Event()  # cleared, it keeps everybody waiting who connects
        self.open.set()

    def connect(self) -> Connection:
        self.callers.add(threading.current_thread())
        assert self.open.wait(10)
        ours, theirs = socket.socketpair()
        self.connections.append(ours)
        script = self._scripts.pop(0) if len(self._scripts) > 1 else self._scripts[0]
        thread = threading.Thread(target=self._serve, args=(script, theirs))
        thread.start()
        self.threads.append(thread)
        return self._way(ours)

    @staticmethod
    def _serve(script: Script, peer: socket.socket) -> None:
        with peer, contextlib.suppress(OSError):
            script(peer)

    async def all_gone(self) -> None:
        """That every connection was closed."""
        for thread in self.threads:
            await asyncio.to_thread(thread.join, 5)
            assert not thread.is_alive()


@contextlib.asynccontextmanager
async def client(way: Way, *scripts: Script, timeout: float | None = 5) -> AsyncIterator[aio.Client]:
    peers = Peers(way, *scripts)
    async with aio.Client(peers.connect, "unix:/fake", timeout) as made:
        yield made
    await peers.all_gone()


async def until(condition: Callable[[], object]) -> None:
    """Wait until this is so."""
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.001)


def workers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "pageantry"]


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd")) if sys.platform == "linux" else 0


def run(test: Test) -> None:
    """Run it in a loop of its own; no task, thread, descriptor or error that nobody has seen may be left."""
    before = descriptors()
    unseen: list[object] = []

    async def all_of_it() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: unseen.append(context))
        await asyncio.wait_for(test(), 60)
        await no_threads()
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(all_of_it())
    gc.collect()
    assert unseen == [], unseen
    deadline = time.monotonic() + 10
    while descriptors() > before:  # until the last peer's thread has noticed, too
        assert time.monotonic() < deadline
        time.sleep(0.001)


async def no_threads() -> None:
    for thread in workers():
        await asyncio.to_thread(thread.join, 10)
    assert workers() == []


async def at_every_wait(
    make: Callable[[], Coroutine[object, object, object]], then: Callable[[], Awaitable[object]]
) -> int:
    """Cancel what `make` gives at each of its waits in turn, and then look at what is left; how many waits."""
    for late in (False, True):
        for step in itertools.count(1):
            task = asyncio.create_task(cancelled(step, late, make()))
            await asyncio.wait([task])
            await then()
            if not task.cancelled():
                task.result()
                break
    return step


async def cancelled(step: int, late: bool, what: Coroutine[object, object, object]) -> None:
    """`what`, cancelled at its so many-th wait for something: as that begins or, `late`, in the moment when it ends."""
    task = asyncio.current_task()
    assert task is not None

    @types.coroutine
    def steps() -> Generator[Any, Any, None]:
        waits, error, count = what.__await__(), None, 0
        while True:
            try:
                waited = waits.throw(error) if error else waits.send(None)
            except StopIteration:
                return
            count += 1
            if count == step and late and waited is not None:
                waited.add_done_callback(lambda _: task.cancel())
            elif count == step:
                task.cancel()
            try:
                error = yield waited
            except BaseException as caught:  # noqa: BLE001 - it is for `what` to raise
                error = caught

    await steps()
