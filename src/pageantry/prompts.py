"""Asking the person at the terminal."""

from __future__ import annotations

from .errors import Error, NobodyToAsk


def secret(prompt: str) -> str:
    """What the person types at `prompt`, unseen. It goes to the terminal itself, so pipes stay free for data.

    Raises `NobodyToAsk` without a terminal, `Error` for what is not in the terminal's encoding; KeyboardInterrupt and
    EOFError as they come.
    """
    import getpass
    import sys

    if sys.platform != "win32":
        try:
            open("/dev/tty", "rb", buffering=0).close()
        except OSError:
            raise NobodyToAsk(f"{prompt.rstrip(': ')}: there is no terminal to ask at") from None
    try:
        return getpass.getpass(prompt)
    except UnicodeError:  # which would show what was typed
        raise Error("what was typed is not in the terminal's encoding", "set the terminal to UTF-8") from None
