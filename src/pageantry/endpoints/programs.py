"""Other programs: where they are, and what some of them know about where agents are (cygpath, gpgconf)."""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

#: Seconds for such an answer.
TIMEOUT: Final = 2.0


def output(name: str, *arguments: str, timeout: float = TIMEOUT) -> str | None:
    """The line that a program on PATH prints; None where there is no such program, or it does not print one in time."""
    program = find(name)
    if program is None:
        return None
    import subprocess

    try:
        done = subprocess.run(
            (program, *arguments),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=timeout,
            check=True,
            creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),
        )
        line = done.stdout.decode("utf-8").rstrip("\r\n")
    except (OSError, ValueError, subprocess.SubprocessError):
        return None
    return line if line and line.isprintable() else None


def find(name: str) -> str | None:
    """The path of a program on PATH; never one of the current directory, where Windows would look first."""
    file = f"{name}.exe" if os.name == "nt" and not os.path.splitext(name)[1] else name
    for directory in os.environ.get("PATH", "").split(os.pathsep):
        path = os.path.join(directory.strip('"'), file)
        if os.path.isabs(path) and os.access(path, os.X_OK) and os.path.isfile(path):
            return path
    return None


def executable(name: str) -> str | None:
    """What Windows has to be told beside a command that begins with `name`, lest it take a program of the current
    directory, which may be anybody's, for that on PATH: its path. None for a path, which is not looked for.

    Raises FileNotFoundError.
    """
    if os.path.dirname(name):
        return None
    path = find(name)
    if path is None:
        raise FileNotFoundError(name)
    return path
