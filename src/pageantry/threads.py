"""The same done for several things at the same time, in threads that are kept for the next time.

replies = together(ask, agents, seconds=2)
"""

from __future__ import annotations

import sys
import threading
from _thread import allocate_lock, start_new_thread
from functools import partial
from time import monotonic

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Final, TypeVar

    _S = TypeVar("_S")
    _T = TypeVar("_T")

#: Seconds that a thread waits for more to do. To start one takes ten times as long as to have one go on.
_STAY: Final = 5.0

_idle: list[_Helper] = []


def together(do: Callable[[_S], _T], things: Sequence[_S], seconds: float) -> list[tuple[_T | Exception] | None]:
    """What `do` returns or raises for each, all at the same time; None where that takes more seconds.

    The first is this thread's. What takes longer goes on, and its outcome is lost.
    """
    outcomes: list[tuple[_T | Exception] | None] = [None] * len(things)
    ended = [allocate_lock() for _ in things]

    def run(index: int) -> None:
        try:
            outcomes[index] = (do(things[index]),)
        except Exception as error:  # noqa: BLE001 - whoever has called raises it
            outcomes[index] = (error,)
        finally:
            ended[index].release()

    deadline = monotonic() + seconds
    for index, lock in enumerate(ended):
        lock.acquire()
        if index:
            try:
                _have_done(run, index)
            except (RuntimeError, MemoryError):  # the system gives no more threads
                run(index)
    run(0)
    for lock in ended:
        lock.acquire(timeout=max(0.0, deadline - monotonic()))
    return list(outcomes)


def _have_done(run: Callable[[int], object], index: int) -> None:
    """Have another thread do it. Raises RuntimeError, MemoryError when the system gives none."""
    work = partial(run, index)
    try:
        helper = _idle.pop()
    except IndexError:
        _start(_Helper(work).run)
    else:
        helper.go_on(work)


class _Helper:
    """What a thread does: one thing after the other, until it has had nothing to do for `_STAY` seconds."""

    def __init__(self, work: Callable[[], object]) -> None:
        self._work: Callable[[], object] | None = work
        self._given = allocate_lock()
        self._given.acquire()

    def go_on(self, work: Callable[[], object]) -> None:
        """Have it do that next; whoever does so has taken it out of `_idle`."""
        self._work = work
        self._given.release()

    def run(self) -> None:
        """Be that thread."""
        while self._work:
            self._work()
            self._work = None  # so that nothing is kept alive for it
            _idle.append(self)
            if not self._given.acquire(timeout=_STAY):
                try:
                    _idle.remove(self)
                except ValueError:  # somebody has just taken it
                    self._given.acquire()


def _start(run: Callable[[], object]) -> None:
    """Have a new thread do it: as in `server`, and for the same reasons."""
    if sys.platform == "win32":
        threading.Thread(target=run, name="pageantry", daemon=True).start()
    else:
        start_new_thread(run, ())
