"""Agents behind the window that Pageant and its kin have: the only way in to PuTTY's before 0.75, and to some still.

A request lies in shared memory, the name of which a message takes to the window; the reply takes its place there
(`_copydata`). The window's process must be the user's. There is no connection to it, and each request stands alone: so
session-bind is refused here, and not sent. An agent that said SUCCESS would have bound nothing, and would take the next
request for one of this machine's own.
"""

from __future__ import annotations

import errno
import sys
from _thread import start_new_thread
from io import BytesIO
from queue import Empty, SimpleQueue
from time import monotonic

from .. import winpipe
from ..errors import AgentError, Unreachable, WireError
from ..messages import Extension, Failure, SessionBind, frame

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType
    from typing import Final, Self

    #: Sends a request and gives the reply to a function, within so many seconds.
    _Ask = Callable[[bytes, float | None, Callable[[bytes], object]], object]
    _Requests = SimpleQueue[tuple[bytes, float | None] | None]
    _Replies = SimpleQueue[bytes | Exception]

#: The most bytes of a request, and of a reply, with their length: what the memory holds since PuTTY 0.71.
MAX_FRAME: Final = 256 * 1024
#: Seconds after which whoever waits looks for Ctrl-C, which does not interrupt waits on Windows.
_SLICE: Final = 0.1
_SESSION_BIND: Final = Extension(SessionBind.name).payload()


def connect(timeout: float) -> Window:
    """A way to the agent behind the user's window; nothing is sent yet. Raises `Unreachable` where there is none.

    `timeout` is what the other ways in need; this one does not wait.
    """
    ask, found = _found()
    return Window(ask, found)


def peer() -> winpipe.Peer:
    """The process behind the user's window. Raises `Unreachable` where there is none."""
    return _found()[1]


if sys.platform == "win32":

    def check_presence() -> None:
        """See whether there is such a window, whoever has it; `Unreachable` if not."""
        from . import _copydata

        if not _copydata.windows():
            raise _absent()

    def _found() -> tuple[_Ask, winpipe.Peer]:
        """What asks the user's window, and its process. Windows of others are passed over, even those in front."""
        from . import _copydata

        me = winpipe.user()
        strangers = []
        for window, pid in _copydata.windows():
            sid = None
            try:
                target = _copydata.Target(window, pid)  # first: from here on the number means this process
                sid = winpipe.user(pid)
            except OSError:
                pass
            if sid == me:
                return target.ask, winpipe.Peer(pid, sid)
            strangers.append(winpipe.Peer(pid, sid))
        raise _untrusted(strangers[0]) if strangers else _absent()

    def _absent() -> Unreachable:
        return Unreachable("no agent has Pageant's window on this desktop", "start Pageant, or what stands in for it")

    def _untrusted(found: winpipe.Peer) -> Unreachable:
        who = f"{found.program or 'a process'} ({found.pid})"
        if found.sid is None:
            return Unreachable(
                f"Pageant's window is that of {who}, and Windows does not say whose that is",
                "nothing was sent to it; if it runs as administrator, start it as yourself",
            )
        return Unreachable(
            f"Pageant's window is that of {who}, which {found.account} runs, not you",
            "nothing was sent to it; it is another user's agent, or only looks like one",
        )

else:

    def check_presence() -> None:
        """See whether there is such a window, whoever has it; `Unreachable` if not."""
        _found()

    def _found() -> tuple[_Ask, winpipe.Peer]:
        raise Unreachable("Pageant's window is on Windows only", "on UNIX Pageant has a socket: use unix:PATH")


class Window:
    """What a client takes for a connection: requests in, replies out, in pieces as on a socket. `peer` is the agent.

    The message keeps whoever sends it until the agent has answered, which may have to ask a person first. So a thread
    of this connection's own sends it, from the first request until `close`, and who waits for the reply can be woken
    and interrupted. That calls no message back: it lasts until the agent answers, or until the timeout is over that was
    set when the request was sent, and so do the thread and the memory.
    """

    def __init__(self, ask: _Ask, peer: winpipe.Peer) -> None:
        self.peer = peer
        self._ask = ask
        self._timeout: float | None = None
        self._started = self._closed = False
        self._request = bytearray()  # as far as it was sent
        self._reply = BytesIO()
        # Queues, because interrupts and signals' handlers cannot leave them locked.
        self._requests: _Requests = SimpleQueue()
        self._replies: _Replies = SimpleQueue()

    def sendall(self, data: bytes) -> None:
        """Send a request, or the next part of one: it is on its way once it is whole.

        Raises `WireError` for more than one at a time, or more than the memory holds; OSError when this is closed.
        """
        self._check()
        self._request += data
        size = 4 + int.from_bytes(self._request[:4], "big")
        if len(self._request) < 4:
            return
        if size > MAX_FRAME or len(self._request) > size:
            size = max(size, len(self._request))
            raise WireError(f"request of {size} bytes; a window takes one at a time, of {MAX_FRAME} bytes at most")
        if len(self._request) == size:
            request = bytes(self._request)
            self._request.clear()
            self._begin(request)

    def _begin(self, request: bytes) -> None:
        if request.startswith(_SESSION_BIND, 4):
            self._replies.put(frame(Failure().payload()))
            return
        self._requests.put((request, self._timeout))
        if not self._started:
            self._started = True
            start_new_thread(_work, (self._ask, self._requests, self._replies))

    def recv(self, size: int) -> bytes:
        """1 to `size` bytes of the reply, waiting for it. Raises TimeoutError, OSError, `BadReply`."""
        self._check()
        while not (piece := self._reply.read(size)) and size:
            self._reply = BytesIO(self._next_reply())
        return piece

    def _next_reply(self) -> bytes:
        deadline = None if self._timeout is None else monotonic() + self._timeout
        while True:
            left = _SLICE if deadline is None else max(0.0, deadline - monotonic())
            try:
                reply = self._replies.get(timeout=min(left, _SLICE))
            except Empty:
                self._check()
                if not left:
                    raise TimeoutError(errno.ETIMEDOUT, "the agent did not answer in time") from None
                continue
            if isinstance(reply, bytes):
                return reply
            raise reply

    def settimeout(self, seconds: float | None) -> None:
        """Seconds to wait for a reply from now on, and for the agent from the next request on; None for ever."""
        self._timeout = seconds

    def gettimeout(self) -> float | None:
        """What `settimeout` was given last; None at first."""
        return self._timeout

    def shutdown(self, how: int) -> None:
        """Close, for `how` = 2 (SHUT_RDWR); OSError (EOPNOTSUPP) for one direction alone."""
        if how != 2:
            raise OSError(errno.EOPNOTSUPP, "a way through a window cannot be closed in one direction alone")
        self.close()

    def close(self) -> None:
        """Close it, from any thread and any number of times. Whoever waits for it is woken with OSError (EBADF)."""
        self._closed = True
        self._requests.put(None)
        self._replies.put(_closed())

    def _check(self) -> None:
        if self._closed:
            raise _closed()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        self._requests.put(None)  # or its thread would wait for ever


def _closed() -> OSError:
    return OSError(errno.EBADF, "the connection was closed")


def _work(ask: _Ask, requests: _Requests, replies: _Replies) -> None:
    """Answer requests until there is None. This knows no `Window`, so that one nobody closes still ends it."""
    while _answer(ask, requests, replies):
        pass


def _answer(ask: _Ask, requests: _Requests, replies: _Replies) -> bool:
    """Answer one; a function, so that what it was about is forgotten while the next one is waited for."""
    job = requests.get()
    if job:
        try:
            ask(*job, replies.put)
        except (OSError, AgentError) as error:
            replies.put(error)
    return job is not None
