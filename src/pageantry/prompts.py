"""Asking the person at the terminal."""

from __future__ import annotations

import sys

from .errors import Error, NobodyToAsk


def secret(prompt: str) -> str:
    """What the person types at `prompt`, unseen. It goes to the terminal itself, so pipes stay free for data.

    Raises `NobodyToAsk` without a terminal, `Error` for what is not in the terminal's encoding; KeyboardInterrupt and
    EOFError as they come.
    """
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
