"""Asking with a program of the desktop's, the way OpenSSH does: SSH_ASKPASS and what goes with it in ssh(1).

The question is the program's one argument. SSH_ASKPASS_PROMPT is `confirm` where only consent is wanted, `none` where
nothing is, and not set where a passphrase is. The answer is the first line that it prints, if it ends with status 0.
"""

from __future__ import annotations

import os
import sys
from time import monotonic, sleep

from .errors import NobodyToAsk, Refused

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from subprocess import Popen
    from typing import Final

#: The most that such a program may print, in bytes.
MAX_ANSWER: Final = 1024 * 1024
#: Seconds that it has to end when it is told to, before it is killed.
GRACE: Final = 1.0

#: Where systems have one: Debian; Arch and SUSE; Fedora; the BSDs; OpenSSH's own default.
_PLACES: Final = (
    "/usr/bin/ssh-askpass", "/usr/lib/ssh/ssh-askpass", "/usr/libexec/openssh/ssh-askpass",
    "/usr/local/bin/ssh-askpass", "/usr/libexec/ssh-askpass", "/usr/X11R6/bin/ssh-askpass",
)  # fmt: skip
_AGREE: Final = "agree, when you are asked once more"
#: Seconds between two looks whether anybody still waits, and whether it has ended.
_PAUSE: Final = 0.2


def find(environ: Mapping[str, str]) -> str | None:
    """The path of the program that this environment has for asking; None where it has none, or nothing to show it on.

    SSH_ASKPASS names it, by an absolute path or as one on PATH, whether or not it is there; else it is the system's.
    """
    require = environ.get("SSH_ASKPASS_REQUIRE", "").lower()
    display = environ.get("DISPLAY") or environ.get("WAYLAND_DISPLAY")
    if require == "never" or not (display or require == "force"):
        return None
    named = environ.get("SSH_ASKPASS")
    if not named:
        return next((path for path in _PLACES if _is_program(path)), None)
    if os.path.isabs(named):
        return named
    if os.path.dirname(named):  # seen from the current directory, which may be anybody's
        return None
    paths = (os.path.join(directory, named) for directory in environ.get("PATH", "").split(os.pathsep))
    return next((path for path in paths if os.path.isabs(path) and _is_program(path)), None)


def _is_program(path: str) -> bool:
    return os.access(path, os.X_OK) and os.path.isfile(path)


class Askpass:
    """The program at `path` as a way to ask, with this environment; see `prompts.Way`."""

    def __init__(self, path: str, environ: Mapping[str, str]) -> None:
        self._path = path
        self._environ = dict(environ)

    def confirm(self, question: str, check: Callable[[], object]) -> None:
        """Return when the person agrees: with the button for that, or "yes".

        Raises `Refused` for anything else, `NobodyToAsk` when the program does not run, what `check` raises.
        """
        if self._answer(question, "confirm", check).lower() not in (b"", b"yes"):
            raise Refused("the person did not say yes", _AGREE)

    def secret(self, question: str, check: Callable[[], object]) -> bytes:
        """What the person enters. Raises `Refused`, `NobodyToAsk` if the program does not run, what `check` raises."""
        return self._answer(question, "", check)

    def notify(self, text: str) -> Callable[[], object]:
        """Show the text until what is returned is called. Raises `NobodyToAsk`."""
        from subprocess import DEVNULL

        process = self._start(text, "none", DEVNULL)
        return lambda: _end(process)

    def _answer(self, question: str, kind: str, check: Callable[[], object]) -> bytes:
        """The first line that the program prints. Raises as `secret` does."""
        from subprocess import PIPE

        process = self._start(question, kind, PIPE)
        try:
            status, output = _listen(process, check)
        finally:
            _end(process)
            if process.stdout:
                process.stdout.close()
        if status:
            raise Refused(f"the person said no ({os.path.basename(self._path)} ended with status {status})", _AGREE)
        return output.partition(b"\n")[0].partition(b"\r")[0]

    def _start(self, text: str, kind: str, stdout: int) -> Popen[bytes]:
        """Start the program, beyond the reach of our terminal and of what is typed there. Raises `NobodyToAsk`."""
        import subprocess

        environ = {**self._environ, "SSH_ASKPASS_PROMPT": kind}
        if not kind:
            del environ["SSH_ASKPASS_PROMPT"]
        try:
            return subprocess.Popen(
                (self._path, text),
                bufsize=0,
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                env=environ,
                start_new_session=True,
                creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),
            )
        except (OSError, ValueError) as error:
            why = getattr(error, "strerror", None) or error
            raise NobodyToAsk(f"{self._path} cannot be run: {why}", "let SSH_ASKPASS name another program") from None


def _listen(process: Popen[bytes], check: Callable[[], object]) -> tuple[int, bytes]:
    """The exit status, and all that was printed until then: children may keep the output open longer."""
    assert process.stdout
    output = b""
    closed = False
    pause = 0.001
    while True:
        check()
        status = _status(process)
        piece = b"" if closed else _read(process.stdout.fileno())
        if piece:
            output += piece
            if len(output) > MAX_ANSWER:
                raise Refused(f"what was to ask printed more than {MAX_ANSWER} bytes", "let SSH_ASKPASS name another")
        elif status is not None:
            return status, output
        elif piece is not None:  # it will print no more, and has not ended yet
            closed = True
            sleep(pause)
            pause = min(2 * pause, _PAUSE)


if sys.platform == "win32":
    import ctypes
    import msvcrt
    from ctypes import POINTER, byref, c_void_p, wintypes

    _PeekNamedPipe = ctypes.WinDLL("kernel32").PeekNamedPipe
    _PeekNamedPipe.restype = wintypes.BOOL
    _PeekNamedPipe.argtypes = (wintypes.HANDLE, c_void_p, wintypes.DWORD, c_void_p, POINTER(wintypes.DWORD), c_void_p)

    def _read(output: int) -> bytes | None:
        """What there is to read, nothing at the end, or None when there is nothing for a moment."""
        size = wintypes.DWORD()
        if not _PeekNamedPipe(msvcrt.get_osfhandle(output), None, 0, None, byref(size), None):
            return b""
        if size.value:
            return os.read(output, size.value)
        sleep(_PAUSE)
        return None

    def _status(process: Popen[bytes]) -> int | None:
        return process.poll()

    def _end(process: Popen[bytes]) -> None:
        """See it to its end, if it has not ended."""
        if process.poll() is None:
            process.kill()
            process.wait()

else:
    import select
    import signal

    def _read(output: int) -> bytes | None:
        """What there is to read, nothing at the end, or None when there is nothing for a moment."""
        ready = select.poll()
        ready.register(output, select.POLLIN)
        return os.read(output, 65536) if ready.poll(_PAUSE * 1000) else None

    def _status(process: Popen[bytes]) -> int | None:
        """The exit status, if it has ended. Raises `NobodyToAsk` where the system does not tell.

        Popen says 0 then, which would be consent. It is so when whoever started us has SIGCHLD ignored.
        """
        if process.returncode is None:
            try:
                pid, status = os.waitpid(process.pid, os.WNOHANG)
            except ChildProcessError:
                process.returncode = -1  # lest it is waited for once more
                raise NobodyToAsk(
                    "how the program that asked has ended is not known", "start the agent with SIGCHLD not ignored"
                ) from None
            if pid:
                process.returncode = os.waitstatus_to_exitcode(status)
        return process.returncode

    def _end(process: Popen[bytes]) -> None:
        """See it and its children to their end, if it has not ended: they are told to, and killed after `GRACE`."""
        if process.returncode is not None:  # its number may be that of others by now
            return
        try:
            for number, ended in ((signal.SIGTERM, _is_over), (signal.SIGKILL, _status)):
                try:
                    os.killpg(process.pid, number)
                except OSError:
                    pass  # it has become another user's; on macOS, it has ended
                deadline = monotonic() + GRACE
                while ended(process) is None and monotonic() < deadline:
                    sleep(0.01)
        except (ChildProcessError, NobodyToAsk):
            process.returncode = -1  # which nobody knows

    def _is_over(process: Popen[bytes]) -> object:
        """Whether it has ended, None if not, while its number stays its own. macOS does not tell Python before 3.13."""
        if not hasattr(os, "waitid"):
            return None
        return os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
