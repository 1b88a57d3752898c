"""The log of an agent that runs: a line at a time on standard error, which nobody waits for."""

from __future__ import annotations

import os
import threading
from queue import Full, Queue
from time import strftime

from .common import printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

#: Lines that may wait for a terminal that is stopped, or a pipe that nobody reads. What comes then is left out.
MAX_WAITING: Final = 1000


class Log:
    """Writes lines to standard error, from a thread of its own: a request is not to wait for whoever reads them.

    Each begins with the time of day, but for systemd's journal, which has its own.
    """

    def __init__(self) -> None:
        self._timed = "JOURNAL_STREAM" not in os.environ
        self._left_out = 0
        self._waiting: Queue[str | None] = Queue(MAX_WAITING)
        self._thread = threading.Thread(target=self._write, name="pageantry log", daemon=True)
        self._thread.start()

    def say(self, line: str) -> None:
        """Write a line."""
        try:
            self._waiting.put_nowait(f"{strftime('%H:%M:%S ') if self._timed else ''}{printable(line)}\n")
        except Full:
            self._left_out += 1

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
                while data:
                    data = data[os.write(2, data) :]
            except OSError:
                return  # nobody will ever read it
