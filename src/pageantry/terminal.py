"""Asking at the terminal that this process was started at (/dev/tty), wherever its standard streams lead.

What was typed before a question is shown does not answer it, and the terminal is as before after it. While another
process group has the terminal nothing is done to it: the system would stop this process, with all that it serves.
"""

from __future__ import annotations

import os
import signal
import sys
import termios
from contextlib import contextmanager
from time import sleep

from .errors import Error, NobodyToAsk, Refused

assert sys.platform != "win32", "UNIX only: callers ask first"

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Final

#: Seconds between two looks for what was typed. To wait until there is something would need select() on macOS, whose
#: poll() knows no terminals; and that fails in a process with more than 1024 files open, such as a busy agent.
_PAUSE: Final = 0.05
_FLAGS: Final = 3  # where tcgetattr() has the local flags


class Terminal:
    """The terminal of this process as a way to ask; see `prompts.Way`."""

    def confirm(self, question: str, check: Callable[[], object]) -> None:
        """Return when "y" or "yes" is typed. Raises `Refused` for anything else, `NobodyToAsk`, what `check` raises."""
        if _ask(f"{question} [y/N] ", check, echo=True).strip().lower() not in (b"y", b"yes"):
            raise Refused("the person said no", "answer y to allow it")

    def secret(self, question: str, check: Callable[[], object]) -> bytes:
        """The line that is typed, unseen. Raises `Refused` for the end of input, `NobodyToAsk`, what `check` raises."""
        return _ask(question, check, echo=False)

    def notify(self, text: str) -> Callable[[], object]:
        """Show a line, which stays there: there is nothing to do at its end. Raises `NobodyToAsk`."""
        try:
            with _opened() as terminal, _not_stopped():
                os.write(terminal, os.fsencode(f"{text}\n"))
        except OSError as error:
            raise _unusable(error) from None
        return lambda: None


def _ask(question: str, check: Callable[[], object], *, echo: bool) -> bytes:
    try:
        with _opened() as terminal, _not_stopped(), _restored(terminal):
            _prepare(terminal, echo=echo)
            termios.tcflush(terminal, termios.TCIFLUSH)
            _write(terminal, os.fsencode(question), check)
            try:
                return _line(terminal, check, echo=echo)
            except BaseException:
                _end_line(terminal)
                raise
    except Error:  # some are OSErrors, too
        raise
    except (OSError, termios.error) as error:  # it was hung up
        raise _unusable(error) from None


def _line(terminal: int, check: Callable[[], object], *, echo: bool) -> bytes:
    line = b""
    while not line.endswith(b"\n"):
        check()
        _prepare(terminal, echo=echo)  # again: the shell may have had it in between (Ctrl-Z, fg)
        try:
            piece = os.read(terminal, 4096)
        except BlockingIOError:
            sleep(_PAUSE)
            continue
        if not piece:
            raise Refused("the person ended the input", "type an answer")
        line += piece
    return line[:-1]


def _write(terminal: int, text: bytes, check: Callable[[], object]) -> None:
    while text:
        try:
            text = text[os.write(terminal, text) :]
        except BlockingIOError:  # somebody holds it (Ctrl-S)
            check()
            sleep(_PAUSE)
            termios.tcflush(terminal, termios.TCIFLUSH)  # nobody has seen all of the question yet


def _end_line(terminal: int) -> None:
    """Have the next who writes begin a line of their own, if that is possible at once."""
    try:
        if _is_ours(terminal):
            os.write(terminal, b"\n")
    except OSError:
        pass


def _prepare(terminal: int, *, echo: bool) -> None:
    """Have it give whole lines, seen or unseen. Raises `NobodyToAsk` when it is not ours any more, termios.error."""
    if not _is_ours(terminal):
        raise NobodyToAsk("another program has the terminal now", "bring this one to the foreground (fg)")
    mode = termios.tcgetattr(terminal)
    flags = mode[_FLAGS] & ~(termios.ECHO | termios.ECHONL) | termios.ICANON
    flags |= termios.ECHO if echo else termios.ECHONL
    if mode[_FLAGS] != flags:
        mode[_FLAGS] = flags
        termios.tcsetattr(terminal, termios.TCSANOW, mode)  # at once, not when all is shown: that may be never


@contextmanager
def _opened() -> Iterator[int]:
    """The terminal, as a descriptor that nobody waits at. Raises `NobodyToAsk`."""
    try:
        terminal = os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
    except OSError:
        raise NobodyToAsk("there is no terminal to ask at") from None
    try:
        if not _is_ours(terminal):
            raise NobodyToAsk("another program has the terminal now", "bring this one to the foreground (fg)")
        yield terminal
    finally:
        os.close(terminal)


def _is_ours(terminal: int) -> bool:
    """Whether this process is in the foreground there."""
    try:
        return os.tcgetpgrp(terminal) == os.getpgrp()
    except OSError:
        return False


@contextmanager
def _not_stopped() -> Iterator[None]:
    """Have what is done in this thread fail rather than stop the process, if that loses the terminal meanwhile."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTTIN, signal.SIGTTOU))
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def _restored(terminal: int) -> Iterator[None]:
    """Have it as before afterwards, and forget what is half typed, unless it is another program's by then."""
    before = termios.tcgetattr(terminal)
    try:
        yield
    finally:
        if _is_ours(terminal):
            try:
                termios.tcflush(terminal, termios.TCIFLUSH)
                termios.tcsetattr(terminal, termios.TCSANOW, before)
            except termios.error:
                pass  # it was hung up


def _unusable(error: Exception) -> NobodyToAsk:
    return NobodyToAsk(f"the terminal cannot be used: {os.strerror(error.args[0])}")
