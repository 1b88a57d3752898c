"""The log of an agent that runs: a line at a time on standard error or in a file, which nobody waits for."""

from __future__ import annotations

import errno
import os
import signal
import sys
import threading
from contextlib import contextmanager
from queue import SimpleQueue
from time import strftime

from ..errors import Error
from .common import printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import TracebackType
    from typing import Final, Self

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
    between words. Where there is no standard error, as for pythonw.exe, nothing is written.

    With a `path` they go to that file instead (see `logfile`), each with the date, too. `with` such a log, what a
    failure was is told there as well, as there may be nobody else to tell. Raises `Error` where it cannot be written.
    """

    def __init__(self, path: str | None = None, *, plain: bool = False) -> None:
        self.path = path
        self._file = None
        self._time = "" if plain or _is_journal() else "%H:%M:%S "
        self._broken = path is None and os.isatty(2)
        if path is not None:
            from .._version import __version__
            from .logfile import LogFile

            self._time = "%Y-%m-%d %H:%M:%S "
            self._file = LogFile(path)
            self._file.begin(f"{strftime(self._time)}pageantry {__version__} starts (process {os.getpid()})")
        self._left_out = 0
        self._turn = threading.Lock()  # held while something else has the terminal
        self._waiting: SimpleQueue[str | threading.Event | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._write, name="pageantry log", daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file and isinstance(error, Exception):
            self.say(f"failed: {_told(error)}")
        self.close()

    def say(self, line: str) -> None:
        """Write a line."""
        if not self._put_in_line(f"{strftime(self._time)}{printable(line)}"):
            self._left_out += 1

    def between(self, way: Way) -> Way:
        """A way to ask during whose questions nothing is written, as they are on the same terminal."""
        return way if self._file else _Between(way, self._turn)

    def flush(self) -> None:
        """Wait for what was said so far to be written, unless nobody reads it."""
        done = threading.Event()
        if self._put_in_line(done):
            done.wait(1)

    def close(self) -> None:
        """Write what waits, unless nobody reads it."""
        if self._put_in_line(None):
            self._thread.join(1)

    def _put_in_line(self, what: str | threading.Event | None) -> bool:
        """Have it wait for its turn, unless too much waits already. A queue with an end would cost far more."""
        if self._waiting.qsize() >= MAX_WAITING:
            return False
        self._waiting.put(what)
        return True

    def _write(self) -> None:
        try:
            with not_stopped():
                self._write_lines()
        finally:
            if self._file:
                self._file.close()

    def _write_lines(self) -> None:
        while line := self._waiting.get():
            if isinstance(line, threading.Event):
                line.set()
                continue
            left_out, self._left_out = self._left_out, 0
            text = f"{strftime(self._time)}({left_out} lines were left out here)\n" if left_out else ""
            text += f"{_broken(line) if self._broken else line}\n"
            try:
                self._put(text.encode("utf-8", "backslashreplace"))
            except (OSError, Error) as error:
                if not self._file and isinstance(error, OSError) and error.errno in (errno.EPIPE, errno.EBADF):
                    return  # nobody will ever read it
                self._left_out += left_out + 1  # the disk is full, or a pipe that does not wait for its reader

    def _put(self, data: bytes) -> None:
        if self._file:
            self._file.append(data)
        elif sys.__stderr__ is not None:  # or else 2 may be somebody else's
            with self._turn:
                while data:
                    data = data[os.write(2, data) :]


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


def _told(error: Exception) -> str:
    """What went wrong and what to do, in one line; of what is a mistake of ours where it is, and no values."""
    if isinstance(error, Error):
        return f"{error}; {error.hint}" if error.hint else str(error)
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename else ""
        return f"{where}{error.strerror or error}"
    trace = error.__traceback__
    while trace and trace.tb_next:
        trace = trace.tb_next
    where = f" in {trace.tb_frame.f_code.co_filename}, line {trace.tb_lineno}" if trace else ""
    return f"{type(error).__name__}{where}"


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
