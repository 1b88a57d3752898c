"""Connections as the asyncio client needs them: over sockets, which its loop reads and writes, and over anything else.

Each takes a frame there and a frame back. After any error, and after being cancelled, it is of no use any more.
"""

from __future__ import annotations

import asyncio
import socket
import sys
from time import monotonic

from . import client, requests
from .errors import AgentError, BadReply
from .winpipe._worker import Worker

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Final, Protocol

    class Stream(Protocol):
        """What the asyncio client needs of a connection."""

        #: whether it is known that it cannot be used any more
        lost: bool

        async def exchange(self, request: bytes, deadline: float, timeout: float, /) -> tuple[bytes, bool]:
            """See `client.exchange`. `deadline` is a time of the loop's."""

        def close(self) -> asyncio.Future[None]:
            """Close it, and end an `exchange` that is under way; the future, not to be cancelled, is for the end."""


#: Bytes that a socket's stream has room for, as long as no reply is longer.
_BUFFER: Final = 16 * 1024


async def over(connection: client.Connection, address: str) -> Stream:
    """A stream over this connection, which is closed where that fails."""
    if not isinstance(connection, socket.socket):
        return Blocking(connection, address)
    loop = asyncio.get_running_loop()
    try:
        if sys.platform != "win32" and connection.family == socket.AF_UNIX:
            return (await loop.create_unix_connection(lambda: Socket(address), sock=connection))[1]
        return (await loop.create_connection(lambda: Socket(address), sock=connection))[1]
    except BaseException:
        connection.close()
        raise


class Socket(asyncio.BufferedProtocol):
    """A stream over a socket, moved by the loop itself."""

    def __init__(self, address: str) -> None:
        self.lost = False
        self._address = address
        self._loop = asyncio.get_running_loop()
        self._closed = self._loop.create_future()
        self._reply: asyncio.Future[tuple[bytes, bool]] = self._loop.create_future()
        self._reply.cancel()  # as nobody waits for one yet
        self._buffer = memoryview(bytearray(_BUFFER))
        self._filled = 0  # how much of that is part of a reply that is not whole yet
        self._deadline = self._timeout = 0.0
        self._timer: asyncio.TimerHandle | None = None

    async def exchange(self, request: bytes, deadline: float, timeout: float) -> tuple[bytes, bool]:
        """See `Stream`."""
        self._reply = self._loop.create_future()
        self._deadline, self._timeout = deadline, timeout
        if self._timer is None or self._timer.when() > deadline:
            self._watch()
        self._transport.write(request)
        return await self._reply

    def close(self) -> asyncio.Future[None]:
        """See `Stream`."""
        self.lost = True
        self._transport.abort()
        return self._closed

    def _watch(self) -> None:
        """Look at the deadline when it comes. One timer serves many requests, as to set and cancel one costs."""
        if self._timer:
            self._timer.cancel()
        self._timer = self._loop.call_at(self._deadline, self._look)

    def _look(self) -> None:
        self._timer = None
        if self._loop.time() >= self._deadline:
            self._fail(requests.late(self._address, self._timeout))
        elif not self._reply.done():  # it is that of a later request than the timer was set for
            self._watch()

    def _fail(self, error: AgentError) -> None:
        """Raise this where the reply is waited for, if anybody does."""
        if not self._reply.done():
            self._reply.set_exception(error)

    def connection_made(self, transport: Any) -> None:
        """Of asyncio's: the way out is there."""
        self._transport = transport

    def get_buffer(self, size: int) -> memoryview:
        """Of asyncio's: where to put what comes."""
        return self._buffer[self._filled :]

    def buffer_updated(self, count: int) -> None:
        """Of asyncio's: something came."""
        if self._reply.done():
            self.close()  # nobody has asked: it would be taken for the next reply
            return
        self._filled += count
        try:
            more = requests.missing(self._buffer[: self._filled], self._address)
        except BadReply as error:
            self._fail(error)
            return
        end = self._filled + more
        if more <= 0:
            self._filled = 0
            self._reply.set_result((bytes(self._buffer[4:end]), more == 0))
        elif end > len(self._buffer):
            whole = memoryview(bytearray(end))
            whole[: self._filled] = self._buffer[: self._filled]
            self._buffer = whole

    def connection_lost(self, error: Exception | None) -> None:
        """Of asyncio's: it is closed, by whichever side."""
        self.lost = True
        if self._timer:
            self._timer.cancel()
        reason = error if isinstance(error, OSError) else None
        self._fail(requests.hung_up(self._address, reason, midway=self._filled > 0))
        self._closed.set_result(None)


class Blocking:
    """A stream over any other connection, in a thread."""

    def __init__(self, connection: client.Connection, address: str) -> None:
        self.lost = False
        self._connection = connection
        self._address = address
        self._worker = Worker("pageantry")

    async def exchange(self, request: bytes, deadline: float, timeout: float) -> tuple[bytes, bool]:
        """See `Stream`."""
        until = monotonic() + deadline - asyncio.get_running_loop().time()
        return await self._worker.start(
            lambda: client.exchange(self._connection, request, until, timeout, self._address)
        )

    def close(self) -> asyncio.Future[None]:
        """See `Stream`."""
        self.lost = True
        try:
            self._connection.shutdown(2)  # wakes the thread
        except OSError:
            pass  # there is nothing to be woken from
        closed = self._worker.start(self._close)
        self._worker.end()
        return closed

    def _close(self) -> None:
        try:
            self._connection.close()
        except OSError:
            pass  # it is closed all the same
