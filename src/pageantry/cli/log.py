"""The log of an agent that runs: a line at a time on standard error, which nobody waits for."""

from __future__ import annotations

import errno
import os
import signal
import sys
import threading
from contextlib import contextmanager
from queue import Full, Queue
from time import strftime

from .common import printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Final

    from ..prompts import Way

#: Lines that may wait for a terminal that is stopped, or a pipe that nobody reads. What comes then is left out.
MAX_WAITING: Final = 1000

#: Seconds between two looks whether a question is still wanted that waits for the log.
_PAUSE: Final = 0.2
#: Columns that the time of day takes, under which nothing else of a line stands.
_INDENT: Final = " " * 9


class Log:
    """Writes lines to standard error, from a thread of its own: a request is not to wait for whoever reads them.

    Each begins with the time of day, but for systemd's journal, which has its own. At a terminal, long ones are broken
    between words.
    """

    def __init__(self) -> None:
        self._timed = not _is_journal()
        self._broken = os.isatty(2)
        self._left_out = 0
        self._turn = threading.Lock()  # held while something else has the terminal
        self._waiting: Queue[str | threading.Event | None] = Queue(MAX_WAITING)
        self._thread = threading.Thread(target=self._write, name="pageantry log", daemon=True)
        self._thread.start()

    def say(self, line: str) -> None:
        """Write a line."""
        try:
            self._waiting.put_nowait(f"{strftime('%H:%M:%S ') if self._timed else ''}{printable(line)}")
        except Full:
            self._left_out += 1

    def between(self, way: Way) -> Way:
        """A way to ask during whose questions nothing is written, as they are on the same terminal."""
        return _Between(way, self._turn)

    def flush(self) -> None:
        """Wait for what was said so far to be written, unless nobody reads it."""
        done = threading.Event()
        try:
            self._waiting.put_nowait(done)
        except Full:
            return
        done.wait(1)

    def close(self) -> None:
        """Write what waits, unless nobody reads it."""
        try:
            self._waiting.put_nowait(None)
        except Full:
            return
        self._thread.join(1)

    def _write(self) -> None:
        with not_stopped():
            self._write_lines()

    def _write_lines(self) -> None:
        while line := self._waiting.get():
            if isinstance(line, threading.Event):
                line.set()
                continue
            left_out, self._left_out = self._left_out, 0
            text = f"({left_out} lines were left out here)\n" if left_out else ""
            text += f"{_broken(line) if self._broken else line}\n"
            data = text.encode("utf-8", "backslashreplace")
            try:
                with self._turn:
                    while data:
                        data = data[os.write(2, data) :]
            except OSError as error:
                if error.errno in (errno.EPIPE, errno.EBADF):
                    return  # nobody will ever read it
                self._left_out += left_out + 1  # the disk is full, or a pipe that does not wait for its reader


class _Between:
    """See `Log.between`."""

    def __init__(self, way: Way, turn: threading.Lock) -> None:
        self._way = way
        self._turn = turn

    def confirm(self, question: str, check: Callable[[], object]) -> None:
        self._wait(check)
        try:
            self._way.confirm(question, check)
        finally:
            self._turn.release()

    def secret(self, question: str, check: Callable[[], object]) -> bytes:
        self._wait(check)
        try:
            return self._way.secret(question, check)
        finally:
            self._turn.release()

    def notify(self, text: str) -> Callable[[], object]:
        return self._way.notify(text)  # a line, which may stand beside a question

    def _wait(self, check: Callable[[], object]) -> None:
        """Have the terminal, as soon as the line is written that the log is at: it may be stopped (Ctrl-S)."""
        while not self._turn.acquire(timeout=_PAUSE):
            check()


@contextmanager
def not_stopped() -> Iterator[None]:
    """Have what this thread writes reach the terminal, though another job has that, and others' output stops them there
    (`stty tostop`): with this one, all who wait for the agent would stop.

    Other threads, and so the programs that they start, have the signal as it was.
    """
    if sys.platform == "win32":
        yield
    else:
        before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTTOU,))
        try:
            yield
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _is_journal() -> bool:
    """Whether standard error leads to systemd's journal: see JOURNAL_STREAM in systemd.exec(5), which is inherited."""
    try:
        status = os.fstat(2)
    except OSError:
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"


def _broken(line: str) -> str:
    """A line in lines that a terminal has room for, unless it tells no width."""
    from textwrap import fill

    try:
        columns = os.get_terminal_size(2).columns
    except OSError:
        return line
    if columns < 2 * len(_INDENT):
        return line
    return fill(line, columns, subsequent_indent=_INDENT, break_long_words=False, break_on_hyphens=False)
