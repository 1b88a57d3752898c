"""The log of an agent that runs: a line at a time on standard error, which nobody waits for."""

from __future__ import annotations

import os
import threading
from queue import Full, Queue
from time import strftime

from .common import printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Final

    from ..prompts import Way

#: Lines that may wait for a terminal that is stopped, or a pipe that nobody reads. What comes then is left out.
MAX_WAITING: Final = 1000


class Log:
    """Writes lines to standard error, from a thread of its own: a request is not to wait for whoever reads them.

    Each begins with the time of day, but for systemd's journal, which has its own.
    """

    def __init__(self) -> None:
        self._timed = "JOURNAL_STREAM" not in os.environ
        self._left_out = 0
        self._turn = threading.Lock()  # held while something else has the terminal
        self._waiting: Queue[str | None] = Queue(MAX_WAITING)
        self._thread = threading.Thread(target=self._write, name="pageantry log", daemon=True)
        self._thread.start()

    def say(self, line: str) -> None:
        """Write a line."""
        try:
            self._waiting.put_nowait(f"{strftime('%H:%M:%S ') if self._timed else ''}{printable(line)}\n")
        except Full:
            self._left_out += 1

    def between(self, way: Way) -> Way:
        """A way to ask during whose questions nothing is written, as they are on the same terminal."""
        return _Between(way, self._turn)

    def close(self) -> None:
        """Write what waits, unless nobody reads it."""
        try:
            self._waiting.put_nowait(None)
        except Full:
            return
        self._thread.join(1)

    def _write(self) -> None:
        while line := self._waiting.get():
            left_out, self._left_out = self._left_out, 0
            if left_out:
                line = f"({left_out} lines were left out here)\n{line}"
            data = line.encode("utf-8", "backslashreplace")
            try:
                with self._turn:
                    while data:
                        data = data[os.write(2, data) :]
            except OSError:
                return  # nobody will ever read it


class _Between:
    """See `Log.between`."""

    def __init__(self, way: Way, turn: threading.Lock) -> None:
        self._way = way
        self._turn = turn

    def confirm(self, question: str, check: Callable[[], object]) -> None:
        with self._turn:
            self._way.confirm(question, check)

    def secret(self, question: str, check: Callable[[], object]) -> bytes:
        with self._turn:
            return self._way.secret(question, check)

    def notify(self, text: str) -> Callable[[], object]:
        with self._turn:
            return self._way.notify(text)
