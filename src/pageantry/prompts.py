"""Asking the person at the terminal."""

from __future__ import annotations

from .errors import Error


class NobodyToAsk(Error):
    """Something must be asked, and there is no terminal to ask at."""


def secret(prompt: str) -> str:
    """What the person types at `prompt`, unseen. It goes to the terminal itself, so pipes stay free for data.

    Raises `NobodyToAsk` without a terminal; KeyboardInterrupt and EOFError as they come.
    """
    import getpass
    import sys

    if sys.platform != "win32":
        try:
            open("/dev/tty", "rb", buffering=0).close()
        except OSError:
            raise NobodyToAsk(
                f"{prompt.rstrip(': ')}: there is no terminal to ask at",
                "run it where it can ask, or unlock the key first",
            ) from None
    return getpass.getpass(prompt)
