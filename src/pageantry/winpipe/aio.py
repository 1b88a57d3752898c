"""Named pipes for asyncio, on any of its event loops: `connect` and `listen`, as in `winpipe`.

    pipe = await winpipe.aio.connect("example")
    async with pipe:
        await pipe.sendall(b"hello")
        data = await pipe.recv(4096)

    async with winpipe.aio.listen("example") as listener:
        while True:
            pipe = await listener.accept()

Each direction in use has a thread that waits for the kernel, so nothing here holds up the loop. A cancelled call has
its operation cancelled and waits for the end of that, which takes no time; what a read or an `accept` had got by then
is there for the next one. For timeouts use `asyncio.timeout`.
"""

from __future__ import annotations

import asyncio

from . import _verbs
from ._worker import Worker, in_thread

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from types import TracebackType
    from typing import Self, TypeVar

    from ._peer import Peer
    from ._server import Listener
    from ._stream import Pipe

    _T = TypeVar("_T")


async def connect(name: str, timeout: float = 5.0, trust: Iterable[str] = ()) -> AsyncPipe:
    """See `winpipe.connect`. When this is cancelled, a pipe that opens all the same is closed."""
    return AsyncPipe(
        await in_thread("winpipe", lambda: _verbs.connect(name, timeout, trust), lambda pipe: pipe.close())
    )


def listen(name: str, access: Iterable[str] = ()) -> AsyncListener:
    """See `winpipe.listen`."""
    return AsyncListener(_verbs.listen(name, access))


class AsyncPipe:
    """A `Pipe` for a task that reads and one that writes; further ones take turns."""

    def __init__(self, pipe: Pipe) -> None:
        self._pipe = pipe
        self._reading, self._writing = _Worker(), _Worker()

    @property
    def path(self) -> str:
        """The whole path of the pipe."""
        return self._pipe.path

    @property
    def peer(self) -> Peer:
        """The process at the other end."""
        return self._pipe.peer

    async def recv(self, size: int) -> bytes:
        """See `Pipe.recv`."""
        return await self._reading.do(lambda: self._pipe.recv(size), self._pipe._stop_reading, self._pipe._unread)

    async def sendall(self, data: bytes | bytearray | memoryview) -> None:
        """See `Pipe.sendall`. When this is cancelled, nobody knows how much went."""
        piece = bytes(memoryview(data))  # now, as the caller may use the buffer again
        await self._writing.do(lambda: self._pipe.sendall(piece), self._pipe._stop_writing)

    def close(self) -> None:
        """Close it. Whoever waits for it is woken with OSError (EBADF)."""
        self._pipe.close()
        self._reading.end()
        self._writing.end()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class AsyncListener:
    """A `Listener` for tasks."""

    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        self._accepting = _Worker()
        self._accepted: list[Pipe] = []  # for somebody who was cancelled

    @property
    def path(self) -> str:
        """The whole path of the pipe."""
        return self._listener.path

    async def accept(self) -> AsyncPipe:
        """See `Listener.accept`."""
        if self._accepted:
            return AsyncPipe(self._accepted.pop())
        accepting = self._accepting.do(self._listener.accept, self._listener._stop_accepting, self._keep)
        return AsyncPipe(await accepting)

    def _keep(self, pipe: Pipe) -> None:
        """Have the next `accept` return this client, if there is to be one."""
        if self._listener.closed:
            pipe.close()
        else:
            self._accepted.append(pipe)

    def close(self) -> None:
        """Give the name up. An `accept` is woken with OSError (EBADF)."""
        self._listener.close()
        self._accepting.end()
        while self._accepted:
            self._accepted.pop().close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class _Worker(Worker):
    """A thread for the operations of one direction, which take turns."""

    def __init__(self) -> None:
        super().__init__("winpipe")
        self._turn = asyncio.Lock()

    async def do(
        self, call: Callable[[], _T], stop: Callable[[bool], None], keep: Callable[[_T], object] = lambda _: None
    ) -> _T:
        """What comes of `call`, when it is its turn.

        When this is cancelled, `stop(True)` is to bring `call` to its end. What came of it all the same is for `keep`.
        """
        async with self._turn:
            future = self.start(call)
            try:
                return await asyncio.shield(future)
            except asyncio.CancelledError:
                stop(True)
                while not future.done():
                    try:
                        await asyncio.wait([future])
                    except asyncio.CancelledError:
                        pass  # once more; we are about to end anyway
                stop(False)
                if not future.exception():
                    keep(future.result())
                raise
