"""Running an agent, and a command beside one: what `ssh-agent`, `serve` and `exec` have in common."""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
from time import sleep

from ..errors import Error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import TracebackType
    from typing import Final, NoReturn, Self

    from ..endpoints.listening import Listener
    from ..keyring import Keyring
    from ..sessions import Opener

    Environ = dict[str, str]
    #: Gives the places where an agent listens, of which the first is what SSH_AUTH_SOCK is to name; what opens the
    #: sessions of those who come there; and the keys, if they are this process's own.
    Begin = Callable[[], tuple[Sequence[Listener], Opener, Keyring | None]]

#: Seconds between looks whether something has happened, where the system does not tell.
_LOOK: Final = 0.2
#: Seconds that one thread computes while others wait for Python; 5 ms, which is usual, would be long for a reply.
_SWITCH: Final = 0.0005

if sys.platform == "win32":
    _ENDS: Final = (signal.SIGINT, signal.SIGBREAK)
    _FORGETS: Final[tuple[int, ...]] = ()
else:
    _ENDS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    _FORGETS: Final[tuple[int, ...]] = (signal.SIGUSR1,)
#: Seconds that Windows gives a program when the user logs off, roughly.
_LOG_OFF: Final = 4.0
#: What stands among the numbers of signals for the end of what was waited for.
_OVER: Final = 0


def run(
    begin: Begin,
    say: Callable[[str], object] | None = None,
    *,
    until: Callable[[], object] | None = None,
    ready: Callable[[Sequence[Listener]], object] | None = None,
) -> int:
    """Serve the agent that `begin` gives until a signal asks for the end or `until` returns; then put everything away.

    `begin` is called, and so keys are read, when nobody can read them from this process's memory any more. SIGINT,
    SIGTERM and SIGHUP (on Windows: Ctrl-C and Ctrl-Break) ask for the end, SIGUSR1 for that of all keys. `ready` is
    called with the places as soon as clients are served, `say` told what the server has to say. Returns the number of
    the signal, or 0. For the main thread alone.
    """
    from .. import hardening
    from ..server import Server

    if sys.platform != "win32":  # whoever started us may have it ignored: then no answer of an askpass could be known
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    unprotected = hardening.protect()
    hardening.many_files()
    sys.setswitchinterval(_SWITCH)
    listeners, open_session, keyring = begin()
    try:
        for line in unprotected:
            if say:
                say(line)
        with _Wishes() as wishes:
            server = Server(listeners, open_session, say)
            try:
                if until:
                    wishes.watch(until)
                if ready:
                    ready(listeners)
                while (wish := wishes.next()) in _FORGETS:
                    if keyring:
                        keyring.forget()
                return wish
            finally:
                wishes.ignore()
                if keyring:
                    keyring.close()  # which also ends the questions that requests wait for
                server.close()
    finally:
        _close(listeners)


def end() -> None:
    """Have `run` put everything away and return, and wait for that; from another thread, as the user logs off."""
    signal.raise_signal(_ENDS[-1])
    sleep(_LOG_OFF)


class _Wishes:
    """What is wished of this process: signals by their numbers, `_OVER` for the end of what was waited for.

    They come through a socket that Python's handler itself writes to, so that none is missed, whenever it comes.
    """

    def __init__(self) -> None:
        self._near, self._far = socket.socketpair()
        self._far.setblocking(False)

    def __enter__(self) -> Self:
        signal.set_wakeup_fd(self._far.fileno(), warn_on_full_buffer=False)
        for number in (*_ENDS, *_FORGETS):
            signal.signal(number, lambda *_: None)
        return self

    def next(self) -> int:
        """The next one, which is waited for."""
        return self._near.recv(1)[0]

    def watch(self, until: Callable[[], object]) -> None:
        """Have `next` give `_OVER` when that has returned."""

        def wait() -> None:
            until()
            self._far.send(bytes([_OVER]))

        threading.Thread(target=wait, name="pageantry end", daemon=True).start()

    def ignore(self) -> None:
        """Take no more: a second one could only leave something undone."""
        for number in _ENDS:
            signal.signal(number, signal.SIG_IGN)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        signal.set_wakeup_fd(-1)
        self._near.close()
        self._far.close()


def _failure(name: str, error: OSError) -> Error:
    if isinstance(error, FileNotFoundError):
        return Error(f"there is no program {name}", "install it, or correct its name")
    return Error(f"{name} cannot be run: {error.strerror or error}", "give a program")


if sys.platform == "win32":

    def _close(listeners: Sequence[Listener]) -> None:
        for listener in listeners:
            listener.close()

    def become(command: Sequence[str], environ: Environ) -> NoReturn:
        """Run the command, and end as it does. Ctrl-C reaches it as it reaches us, and is its own business."""
        from subprocess import Popen

        from ..endpoints.programs import executable

        for number in (signal.SIGINT, signal.SIGBREAK):
            signal.signal(number, signal.SIG_IGN)
        try:
            status = Popen(command, executable=executable(command[0]), env=environ).wait()
        except OSError as error:
            raise _failure(command[0], error) from None
        sys.exit(status - 2**32 if status >= 2**31 else status)  # a C int, which is what this takes

    def beside(command: Sequence[str], begin: Begin, say: Callable[[str], object] | None = None) -> NoReturn:
        """Run the command with the agent that `begin` gives, and end as it does; `say` is as for `run`."""
        from .. import hardening
        from ..server import Server

        hardening.protect()
        listeners, open_session, keyring = begin()
        environ = {**os.environ, "SSH_AUTH_SOCK": listeners[0].path}
        environ.pop("SSH_AGENT_PID", None)  # that of another agent
        server = Server(listeners, open_session, say)
        try:
            become(command, environ)
        finally:
            if keyring:
                keyring.close()
            server.close()

else:

    def _close(listeners: Sequence[Listener]) -> None:
        from ..endpoints import places

        for listener in listeners:
            listener.close()
            places.remove_temporary(listener.path)

    def become(command: Sequence[str], environ: Environ) -> NoReturn:
        """Have this very process go on as the command: nothing stands between that and whoever started us."""
        for number in (signal.SIGPIPE, signal.SIGXFSZ):  # which Python ignores, and so would the command
            signal.signal(number, signal.SIG_DFL)
        try:
            os.execvpe(command[0], list(command), environ)  # noqa: S606 - no shell is what we want
        except OSError as error:
            raise _failure(command[0], error) from None

    def beside(command: Sequence[str], begin: Begin, say: Callable[[str], object] | None = None) -> NoReturn:
        """Go on as the command with the agent that `begin` gives, as ssh-agent(1) has it; `say` is as for `run`.

        The agent is a child of this process and ends after it. `begin` is called there: where it raises `Error`, that
        is told, and the command is not run.
        """
        ended = watch()
        child, place = in_background(begin, say, ended)
        become(command, {**os.environ, "SSH_AUTH_SOCK": place, "SSH_AGENT_PID": str(child)})

    def watch() -> Callable[[], object]:
        """What returns when this process has ended, called in a child of it."""
        process = os.getpid()
        if sys.platform == "linux":
            from select import POLLIN, poll

            try:
                end = poll()
                end.register(os.pidfd_open(process), POLLIN)
                return end.poll
            except (OSError, AttributeError):
                pass  # Linux before 5.3, a Python that was built for one, or a sandbox

        def look() -> None:
            while os.getppid() == process:
                sleep(_LOOK)

        return look

    def in_background(
        begin: Begin, say: Callable[[str], object] | None = None, until: Callable[[], object] | None = None
    ) -> tuple[int, str]:
        """Have a child of this process serve the agent that `begin` gives; its process id, and the agent's place.

        `begin` is called there, as threads would not be there otherwise. As soon as clients are served, the child is in
        nobody's way: in a session of its own and the root directory, with nothing open that belongs to whoever started
        us. If it does not come to that, it says why, and this process ends, too (status 1).
        """
        told, tell = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(told)
            _serve(begin, say, until, tell)
        os.close(tell)
        try:
            with open(told, "rb") as pipe:
                place = pipe.read()
        except BaseException:
            os.kill(child, signal.SIGTERM)
            raise
        if not place:
            os.waitpid(child, 0)
            sys.exit(1)
        return child, os.fsdecode(place)

    def _serve(
        begin: Begin, say: Callable[[str], object] | None, until: Callable[[], object] | None, tell: int
    ) -> NoReturn:
        """All that the child does."""
        from . import Failure

        def ready(listeners: Sequence[Listener]) -> None:
            _leave()
            os.write(tell, os.fsencode(listeners[0].path))
            os.close(tell)

        try:
            os.setsid()
            run(begin, say, until=until, ready=ready)
        except (Error, OSError, RuntimeError) as error:
            Failure(str(error), getattr(error, "hint", "")).show()
        finally:
            os._exit(0)

    def _leave() -> None:
        """Keep nothing open that is somebody else's: they may wait for its end."""
        os.chdir("/")
        null = os.open(os.devnull, os.O_RDWR)
        for descriptor in (0, 1, 2):
            os.dup2(null, descriptor)
        os.close(null)
        for name in os.listdir("/dev/fd"):
            try:
                if int(name) > 2 and os.get_inheritable(int(name)):  # Python makes none that is
                    os.close(int(name))
            except OSError:
                pass  # that of the list itself
