"""`pageantry serve`, or another program, at a terminal, where a test can look and type while it runs."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

from .serving import PROGRAM, Environ, wait_for

# modules whose contents type checkers know on UNIX alone
pty: Any = import_module("pty")
termios: Any = import_module("termios")

#: Takes its standard input for its terminal, and becomes another program. Ctrl-C is heard, be it ignored here.
_TAKE = """
import fcntl, os, signal, sys, termios
signal.signal(signal.SIGINT, signal.SIG_DFL)
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.argv[1], sys.argv[1:])
"""


class AtTerminal:
    """A program at a terminal: what it has shown, and what is typed."""

    def __init__(self, environ: Environ, *command: str, columns: int = 300) -> None:
        self._terminal, theirs = pty.openpty()
        termios.tcsetwinsize(theirs, (50, columns))
        self.process = subprocess.Popen(
            [sys.executable, "-c", _TAKE, *command],
            env=environ,
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
        )
        os.close(theirs)
        self._shown = b""
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        with contextlib.suppress(OSError):  # Linux: the other side has closed
            while piece := os.read(self._terminal, 10_000):
                self._shown += piece

    @property
    def shown(self) -> str:
        return self._shown.decode().replace("\r\n", "\n")

    def shows(self, text: str, times: int = 1) -> None:
        """Wait until it has shown this so often."""
        wait_for(lambda: self.shown.count(text) >= times, lambda: f"{text!r} not in {self.shown!r}")

    def type(self, text: str) -> None:
        os.write(self._terminal, text.encode())

    def mode(self) -> str:
        """How the terminal is set."""
        return repr(termios.tcgetattr(self._terminal))

    def close(self) -> None:
        self.process.kill()
        self.process.wait(30)
        self._reader.join(30)
        os.close(self._terminal)


@contextlib.contextmanager
def at_terminal(environ: Environ, *words: str | Path, columns: int = 300) -> Iterator[AtTerminal]:
    """`pageantry serve` at a terminal, when it serves."""
    with contextlib.closing(AtTerminal(environ, *PROGRAM, "serve", *map(str, words), columns=columns)) as terminal:
        terminal.shows("listening at")
        yield terminal
