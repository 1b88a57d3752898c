"""Agents behind a program: its standard input takes the requests, its standard output gives the replies.

The way to agents in WSL 2, in containers and on other computers; `pageantry relay` is a program for the other end. Each
connection starts the program, directly and not through a shell, and sees it to its end. Its standard error is ours.
"""

from __future__ import annotations

import os
import sys

from ..errors import AddressError, BadReply, Disconnected, Unreachable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from subprocess import Popen
    from typing import Final, Protocol

    class _End(Protocol):
        """Our end of a stream to or from the program: what a `Connection` is made of."""

        def sendall(self, data: bytes, /) -> None: ...
        def recv(self, size: int, /) -> bytes: ...
        def settimeout(self, seconds: float | None, /) -> None: ...
        def gettimeout(self) -> float | None: ...
        def shutdown(self, how: int, /) -> None: ...
        def close(self) -> None: ...


#: Seconds that a program has to end when its input has ended; and once more when it was asked to.
GRACE: Final = 1.0
#: Seconds to wait for how a program ended, when its output has.
_LAST_WORDS: Final = 0.5
#: How much is shown of what a program prints that should not.
_SHOWN: Final = 60


class Program:
    """A program that was started, as a connection to the agent behind it."""

    def __init__(self, name: str, process: Popen[bytes], to: _End, from_: _End) -> None:
        self._name = name
        self._process = process
        self._to = to
        self._from = from_
        self._heard = False

    def sendall(self, data: bytes) -> None:
        """Send all of `data`. Raises TimeoutError; when the program has ended, `recv` tells how."""
        try:
            self._to.sendall(data)
        except (BrokenPipeError, ConnectionResetError):
            pass

    def recv(self, size: int) -> bytes:
        """Up to `size` bytes; none when the program has closed its output, and yet goes on.

        Raises TimeoutError, `Disconnected` when it has ended, `BadReply` when what it says first cannot be a reply.
        """
        try:
            data = self._from.recv(size)
        except ConnectionResetError:
            data = b""
        if not data:
            self._tell_end()
        elif not self._heard:
            self._heard = True
            if data[0]:  # of a length of at most 256 KiB, this byte is 0
                raise BadReply(
                    f"{self._name} printed {_first_line(data)}, which is no reply of an agent",
                    "nothing may print there but the agent: look into what the program starts, such as .bashrc",
                )
        return data

    def _tell_end(self) -> None:
        from subprocess import TimeoutExpired

        try:
            status = self._process.wait(_LAST_WORDS)
        except TimeoutExpired:
            return
        how = f"was ended by signal {-status}" if status < 0 else f"ended with exit status {status}"
        raise Disconnected(f"{self._name} {how}", "it may have said why; run its command in a shell to see")

    def settimeout(self, seconds: float | None) -> None:
        """How long one operation may take."""
        self._to.settimeout(seconds)
        self._from.settimeout(seconds)

    def gettimeout(self) -> float | None:
        """What was set last."""
        return self._to.gettimeout()

    def shutdown(self, how: int) -> None:
        """With 2, wake whoever sends or receives."""
        self._to.shutdown(how)
        if self._from is not self._to:
            self._from.shutdown(how)

    def close(self) -> None:
        """End the program's input, and see the program to its end: by itself, or else as it is told to, or else killed.

        It takes `GRACE` seconds twice at most.
        """
        from subprocess import TimeoutExpired

        self._to.close()
        self._from.close()
        try:
            for tell in (None, self._process.terminate):
                if tell:
                    tell()
                try:
                    self._process.wait(GRACE)
                    return
                except TimeoutExpired:
                    pass
        finally:  # an interrupt ends it at once
            if self._process.returncode is None:
                self._process.kill()
                self._process.wait()


def connect(command: str, timeout: float) -> Program:
    """A connection to the agent behind `command`, which is started for it. Raises `AddressError`, `Unreachable`.

    `timeout` is for the first operations; to start a program takes no time that could be limited.
    """
    name = split(command)[0]
    try:
        program = _start(name, command)
    except FileNotFoundError:
        raise Unreachable(f"there is no program {name}", "install it, or correct the address") from None
    except OSError as error:
        raise Unreachable(f"{name} cannot be run: {error.strerror or error}", "correct the address") from None
    program.settimeout(timeout)
    return program


def _first_line(data: bytes) -> str:
    """What a program printed, for a person."""
    line = data.lstrip().split(b"\n")[0].decode("utf-8", "replace").strip()
    return repr(line if len(line) <= _SHOWN else line[:_SHOWN] + "…")


if sys.platform == "win32":

    def split(command: str) -> list[str]:
        """The name of the program, alone: Windows leaves it to that to split the rest. Raises `AddressError`."""
        start = command.strip()
        name = start[1:].partition('"')[0] if start.startswith('"') else start.partition(" ")[0]
        if not name or "\0" in command:
            raise AddressError(f"stdio:{command[:40]} has no command in it", "use stdio:COMMAND")
        return [name]

    def _start(name: str, command: str) -> Program:
        """Start it between two pipes. Those that have no name know no deadlines at either end."""
        from subprocess import Popen

        from .. import winpipe
        from .programs import executable

        program = executable(name)
        descriptors: list[int] = []
        ends: list[winpipe.Pipe] = []
        try:
            with winpipe.listen(f"pageantry-{os.urandom(16).hex()}") as listener:
                for flags in (os.O_RDONLY, os.O_WRONLY):
                    descriptors.append(os.open(listener.path, flags | os.O_BINARY | os.O_NOINHERIT))
                    ends.append(listener.accept())
                process = Popen(command, executable=program, stdin=descriptors[0], stdout=descriptors[1])
        except BaseException:
            for end in ends:
                end.close()
            raise
        finally:
            for descriptor in descriptors:
                os.close(descriptor)
        return Program(name, process, *ends)

else:

    def split(command: str) -> list[str]:
        """The program and its arguments, quoted as in a shell. Raises `AddressError`."""
        import shlex

        try:
            arguments = shlex.split(command)
        except ValueError:
            raise AddressError(f"stdio:{command[:40]} has a quotation that does not end", "end it") from None
        if not arguments or not arguments[0] or "\0" in command:
            raise AddressError(f"stdio:{command[:40]} has no command in it", "use stdio:COMMAND")
        return arguments

    def _start(name: str, command: str) -> Program:
        """Start it at the other end of a socket, which is its standard input and output."""
        import socket
        from subprocess import Popen

        ours, theirs = socket.socketpair()
        try:
            with theirs:
                process = Popen(split(command), stdin=theirs.fileno(), stdout=theirs.fileno())
        except BaseException:
            ours.close()
            raise
        return Program(name, process, ours, ours)
