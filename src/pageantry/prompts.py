"""Asking the person: a command at its terminal, and an agent with whatever there is to ask with.

person = Person(ways(os.environ, terminal=True))
person.confirm("Allow ssh to sign?")            # or raises Refused
passphrase = person.secret("Passphrase: ")
"""

from __future__ import annotations

import sys
import threading
from contextlib import contextmanager
from time import monotonic

from .errors import DeadlineExceeded, Disconnected, Error, NobodyToAsk, Refused

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from typing import Final, Protocol, TypeVar

    _T = TypeVar("_T")

    class Way(Protocol):
        """A way to ask a person, or to show them something.

        Each method raises `NobodyToAsk` where that is not possible this way now. While one waits for an answer it calls
        `check` some five times a second; when that raises, the question is over, and nothing of it remains. What is to
        be shown is printable and can be encoded (see `printable`).
        """

        def confirm(self, question: str, check: Callable[[], object], /) -> None:
            """Return when the person agrees, and raise `Refused` when not."""

        def secret(self, question: str, check: Callable[[], object], /) -> bytes:
            """What the person types, unseen. Raises `Refused`."""

        def notify(self, text: str, /) -> Callable[[], object]:
            """Show a text, and return what ends that, to be called once."""


#: Seconds that a person has, until a request fails.
TIMEOUT: Final = 120.0
#: Questions that may wait for the one that is being asked. Each holds a thread and a client, and nobody answers more
#: than that one after the other: it is a program that asks for them.
MAX_WAITING: Final = 16
#: And questions of one process, which is not to keep others from being heard.
MAX_OF_ONE: Final = 4

#: Seconds between two looks whether anybody still waits for the answer.
_PAUSE: Final = 0.2
#: Seconds that closing waits for what is being asked to disappear.
_CLOSING: Final = 5.0


def never() -> bool:
    """Nobody leaves."""
    return False


class Person:
    """Asks a person in one of `ways`, the first that can, one question at a time; further ones wait in their order.

    Threads may share it. An answer is waited for `timeout` seconds, the time that a question waits for others included.
    """

    def __init__(self, ways: Sequence[Way], timeout: float = TIMEOUT) -> None:
        self._ways = ways
        self._timeout = timeout
        self._changed = threading.Condition()
        self._queue: list[tuple[object, object]] = []  # tickets, and for whom they are; the first is being asked
        self._notices: list[Callable[[], object]] = []
        self._closed = False

    def confirm(self, question: str, gone: Callable[[], bool] = never, asker: object = None) -> None:
        """Return when the person has agreed to `question`, which may be of several lines.

        Raises `Refused`; `DeadlineExceeded` when nobody answers in time; `NobodyToAsk` when none of the ways can be
        used, or this is closed; `Disconnected` when `gone` says that the client has left that it is asked for. `asker`
        tells the processes apart that questions are asked for, of which none has more than `MAX_OF_ONE`.
        """
        text = printable(question)
        self._ask(lambda way, check: way.confirm(text, check), gone, asker)

    def secret(self, question: str, gone: Callable[[], bool] = never, asker: object = None) -> str:
        """What the person types, unseen. Raises what `confirm` raises."""
        text = printable(question)
        typed = self._ask(lambda way, check: way.secret(text, check), gone, asker)
        try:
            return typed.decode(sys.getfilesystemencoding())
        except UnicodeDecodeError:  # which would show it
            raise Refused(
                f"what was typed is not {sys.getfilesystemencoding()}", "correct the encoding of the locale"
            ) from None

    @contextmanager
    def notify(self, text: str) -> Iterator[None]:
        """Show the person `text` for the length of a `with`, if there is a way to; also while they are asked."""
        end = self._show(printable(text))
        try:
            yield
        finally:
            with self._changed:
                mine = end in self._notices
                if mine:
                    self._notices.remove(end)
            if mine:
                end()

    def close(self) -> None:
        """End what is being asked and shown, and whatever is asked later. Nothing of it is there when this returns.

        Not for handlers of signals: it waits for those that ask.
        """
        with self._changed:
            self._closed = True
            notices, self._notices = self._notices, []
            self._changed.notify_all()
        for end in notices:
            end()
        with self._changed:
            self._changed.wait_for(lambda: not self._queue, _CLOSING)

    def _ask(self, ask: Callable[[Way, Callable[[], object]], _T], gone: Callable[[], bool], asker: object) -> _T:
        deadline = monotonic() + self._timeout

        def check() -> None:
            if self._closed:
                raise NobodyToAsk("nobody is asked any more, as the agent ends", "start it again")
            if gone():
                raise Disconnected("whoever wanted the answer has left", "have it wait for the answer")
            if monotonic() >= deadline:
                raise DeadlineExceeded(f"nobody answered within {self._timeout:g} s", "try again, and answer in time")

        with self._turn(check, asker):
            why = []
            for way in self._ways:
                check()
                try:
                    return ask(way, check)
                except NobodyToAsk as error:
                    why.append(str(error))
            check()
            raise NobodyToAsk(
                "; ".join(why) or "there is neither a program to ask with nor a terminal",
                "set DISPLAY and SSH_ASKPASS (see ssh(1)), or run the agent at a terminal",
            )

    @contextmanager
    def _turn(self, check: Callable[[], object], asker: object) -> Iterator[None]:
        """Wait until nobody else is asked. Raises what `check` raises, `Refused` if too many wait."""
        ticket = object(), asker
        with self._changed:
            if len(self._queue) > MAX_WAITING:
                raise Refused(f"{MAX_WAITING} questions wait for an answer already", "answer them first")
            if asker is not None and sum(asker == other for _, other in self._queue) >= MAX_OF_ONE:
                raise Refused(f"{MAX_OF_ONE} questions of the same process wait for an answer", "answer them first")
            self._queue.append(ticket)
        try:
            while True:
                check()
                with self._changed:
                    if self._queue[0] is ticket:
                        break
                    self._changed.wait(_PAUSE)
            yield
        finally:
            with self._changed:
                self._queue.remove(ticket)
                self._changed.notify_all()

    def _show(self, text: str) -> Callable[[], object]:
        """What ends it. Unless it is ended by `close`, or there was no way, it is among the notices."""
        for way in self._ways if not self._closed else ():
            try:
                end = way.notify(text)
            except NobodyToAsk:
                continue
            with self._changed:
                if not self._closed:
                    self._notices.append(end)
                    return end
            end()
            break
        return lambda: None


def ways(environ: Mapping[str, str], *, terminal: bool) -> list[Way]:
    """What a process with this environment can ask a person with, best first: a program, as it is seen from anywhere.

    Then, on Windows, its desktop, unless there is none that anybody sees, or SSH_ASKPASS_REQUIRE is `never`; elsewhere,
    with `terminal`, the terminal that it was started at. Windows' console has no place here: it can be asked
    (`secret`), but not be told to stop.
    """
    from . import askpass

    found: list[Way] = []
    if program := askpass.find(environ):
        found.append(askpass.Askpass(program, environ))
    if sys.platform == "win32":
        from . import dialogs

        if environ.get("SSH_ASKPASS_REQUIRE", "").lower() != "never" and dialogs.visible():
            found.append(dialogs.Dialogs())
    elif terminal:
        from .terminal import Terminal

        found.append(Terminal())
    return found


def printable(text: str) -> str:
    """`text` with its lines, but without what could move a cursor or hide something, or cannot be encoded here."""
    encoding = sys.getfilesystemencoding()
    shown = "".join(char if char.isprintable() or char == "\n" else ascii(char)[1:-1] for char in text)
    return shown.encode(encoding, "backslashreplace").decode(encoding)


def secret(prompt: str) -> str:
    """What the person types at `prompt`, unseen. It goes to the terminal itself, so pipes stay free for data.

    Raises `NobodyToAsk` without a terminal, `Error` for what is not in the terminal's encoding; KeyboardInterrupt and
    EOFError as they come.
    """
    prompt = printable(prompt)
    if sys.platform == "win32":
        from . import console

        return console.ask(prompt)
    else:  # noqa: RET505 - mypy wants to see which platform this is for
        import getpass

        try:
            open("/dev/tty", "rb", buffering=0).close()
        except OSError:
            raise NobodyToAsk(f"{prompt.rstrip(': ')}: there is no terminal to ask at") from None
        try:
            return getpass.getpass(prompt)
        except UnicodeError:  # which would show what was typed
            raise Error("what was typed is not in the terminal's encoding", "set the terminal to UTF-8") from None


def typed() -> bool:
    """Whether standard input is what a person types, and not data.

    Raises `NobodyToAsk` where it is neither: a console of Windows' that nobody sees.
    """
    if sys.platform == "win32":  # where NUL calls itself a terminal, and the terminals of Git Bash are pipes
        from . import console

        try:
            return console.is_terminal(sys.stdin.fileno())
        except (OSError, ValueError):  # closed, or none of the system's
            return False
    else:
        return sys.stdin.isatty()
