"""Threads for what blocks, and what comes of it for the tasks of an event loop."""

from __future__ import annotations

import asyncio
import errno
import threading
from queue import SimpleQueue

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, TypeVar

    _T = TypeVar("_T")


class Worker:
    """A thread for blocking calls, one after the other, started when it is first needed.

    It is not waited for when the program ends. `name` is that of the thread.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._jobs: SimpleQueue[Any] = SimpleQueue()
        self._started = self._ended = False

    def start(self, call: Callable[[], _T], discard: Callable[[_T], object] | None = None) -> asyncio.Future[_T]:
        """Have the thread do `call`; what comes of it, which is for `discard` when the loop is closed by then.

        When the future is cancelled before it is its turn, it is not done at all.
        """
        if self._ended:
            raise OSError(errno.EBADF, "it was closed")
        if not self._started:
            threading.Thread(target=_work, args=(self._jobs,), name=self._name, daemon=True).start()
            self._started = True
        loop = asyncio.get_running_loop()
        future: asyncio.Future[_T] = loop.create_future()
        self._jobs.put((call, discard, loop, future))
        return future

    def end(self) -> None:
        """Let the thread go when it has done what it was given."""
        self._ended = True
        self._jobs.put(None)

    def __del__(self) -> None:
        self._jobs.put(None)


async def in_thread(name: str, call: Callable[[], _T], discard: Callable[[_T], object] | None = None) -> _T:
    """What comes of `call`, in a thread of its own called `name`.

    When this is cancelled the call goes on, and what comes of it is for `discard`, in a thread, too.
    """
    worker = Worker(name)
    future = worker.start(call, discard)
    worker.end()
    try:
        await asyncio.wait([future])
    except asyncio.CancelledError:
        if discard:
            future.add_done_callback(lambda done: _discard(done, discard))
        raise
    return future.result()


def _work(jobs: SimpleQueue[Any]) -> None:
    """What the thread does, until it is given None."""
    while job := jobs.get():
        call, discard, loop, future = job
        result = error = None
        if future.cancelled():
            continue
        try:
            result = call()
        except BaseException as caught:  # noqa: BLE001 - it is raised where the result is waited for
            error = caught
        try:
            loop.call_soon_threadsafe(_settle, future, result, error)
        except RuntimeError:  # the loop was closed, and nobody waits any more
            if discard and error is None:
                discard(result)
        del job, call, discard, loop, future, result, error  # not to be kept alive until the next job


def _settle(future: asyncio.Future[Any], result: object, error: BaseException | None) -> None:
    if future.cancelled():
        return
    if error is None:
        future.set_result(result)
    else:
        future.set_exception(error)
        future.exception()  # so that nobody need hear of it where nobody waits for it any more


def _discard(done: asyncio.Future[_T], discard: Callable[[_T], object]) -> None:
    if not done.exception():
        threading.Thread(target=discard, args=(done.result(),), daemon=True).start()
