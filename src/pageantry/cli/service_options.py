"""What is to start with the session: `serve` or `bridge`, with options that it takes; and what is told of that."""

from __future__ import annotations

import os
import re
import sys
from typing import NamedTuple

import click

from ..errors import AddressError, Error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from subprocess import CompletedProcess
    from typing import Any, Final

#: The commands that can be services, and what those are called unless they are told.
NAMES: Final = {"serve": "pageantry", "bridge": "pageantry-bridge"}
#: What a service can be called: a word that every system has as the name of a file.
_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,63}")

#: Seconds that a program of the system's may take.
_PATIENCE: Final = 30.0
#: How a command begins that is ours, behind the Python that runs it. No module is taken from where it starts (-P).
_PROGRAM: Final = ("-P", "-m", "pageantry")


class Wanted(NamedTuple):
    """What a service is to run: a command, the words behind it, and what it makes of them."""

    command: str
    options: tuple[str, ...]
    given: dict[str, Any]

    def words(self, *more: str, python: str = sys.executable) -> list[str]:
        """The whole command, with `more` options."""
        return [python, *_PROGRAM, self.command, *self.options, *more]

    @property
    def places(self) -> tuple[str, ...]:
        """The addresses at which it will listen; none where it chooses itself."""
        given = self.given
        return (*given.get("listen", ()), *given.get("never_ask", ()), *given.get("to", ()))


class State(NamedTuple):
    """How a service is, in the words of docs/json.md. `off` tells a person why it does not start, though installed."""

    name: str
    command: str | None
    off: str
    running: list[tuple[str, int]]
    waiting: list[str]
    log: str | None
    lines: list[str]


def called(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
    """The name of a service, as the command line gives it."""
    if value is not None and not _NAME.fullmatch(value):
        raise click.BadParameter(f"{value!r} is no name: use up to 64 letters, digits, - and _, and no - at first")
    return value


def wanted(words: Sequence[str]) -> Wanted:
    """What `words` ask for: the options of `serve`, unless their first one says what they are. See `checked`."""
    first = words[0] if words else ""
    return checked(first, words[1:]) if first in NAMES else checked("serve", words)


def checked(command: str, options: Sequence[str]) -> Wanted:
    """What the command makes of these options. What it would refuse when it starts is refused now.

    Raises `Error`, and what click raises for wrong usage.
    """
    found = Wanted(command, tuple(options), _parsed(command, options))
    (_check_bridge if command == "bridge" else _check_serve)(found.given, options)
    _check_places(found)
    if config := found.given["openssh_config"]:
        from .openssh_config import Config

        _check_path(config)
        Config(config).check()
    return found


def installed(words: Sequence[str]) -> Wanted | None:
    """What a service runs whose command has these words; None where they are not ours."""
    start = 1 + len(_PROGRAM)
    if tuple(words[1:start]) != _PROGRAM or len(words) == start or words[start] not in NAMES:
        return None
    command, options = words[start], words[start + 1 :]
    try:
        return Wanted(command, tuple(options), _parsed(command, options, resilient=True))
    except (click.ClickException, click.exceptions.Exit):
        return None


def _parsed(command: str, options: Sequence[str], *, resilient: bool = False) -> dict[str, Any]:
    if command == "bridge":
        from .bridge import bridge as known
    else:
        from .serve import serve as known
    return known.make_context(f"pageantry {command}", list(options), resilient_parsing=resilient).params


def _check_serve(given: dict[str, Any], options: Sequence[str]) -> None:
    from ..keys.files import read

    if "--" in options:
        raise Error("an agent for a command ends with it", "leave the second -- and what follows it away")
    for path in given["files"]:
        _check_path(path)
        read(path)
    if given["remember"] and given["lifetime"]:
        raise Error("keys that all have a lifetime cannot be remembered", "leave out --remember or --lifetime")


def _check_bridge(given: dict[str, Any], options: Sequence[str]) -> None:
    from ..endpoints import PATHS, parse
    from .bridge import check

    for address in given["agents"]:
        kind = parse(address).kind
        where = address.removeprefix(f"{kind}:")
        for path in where.split(os.pathsep) if kind == "keys" else [where] if kind in PATHS else []:
            _check_path(path)
    if given["guard"]:
        _check_path(given["guard"])
    check(given)


def _check_places(found: Wanted) -> None:
    from ..endpoints import PATHS, listening

    for address in found.places:
        place = listening.check(address)
        if place and place.kind in PATHS:
            _check_path(address.removeprefix(f"{place.kind}:"))
    if found.given["log"]:
        _check_path(found.given["log"])


def _check_path(path: str) -> None:
    if not os.path.isabs(os.path.expanduser(path)):
        raise Error(f"{path} is looked for from where the session starts, not from here", "give the whole path")


def running(addresses: Sequence[str]) -> Iterator[tuple[str, int]]:
    """Those addresses at which a Python listens, and its process id."""
    from ..discovery import locate

    for address in addresses:
        try:
            found = locate(address, probe=2)
        except AddressError:
            continue
        for one in found:
            program = one.program.rpartition("\\")[2].lower() or "python"  # only Windows tells
            if one.reached and one.pid and program.startswith("python"):
                yield address, one.pid


def places_of(found: Sequence[tuple[str, int]]) -> str:
    """What `running` has found, for people."""
    return ", ".join(f"{address} (process {process})" for address, process in found)


def log_of(found: Wanted, usual: str) -> tuple[str, list[str]]:
    """Where the log of a command goes to that has nobody to tell it to, and the options that say so.

    Raises `Error` where it cannot be written.
    """
    from .logfile import LogFile

    named = found.given["log"]
    log = LogFile(named or usual)
    log.close()
    return log.path, [] if named else ["--log", usual]


def ask(program: str, *words: str) -> CompletedProcess[str]:
    """What a program of the system's says to these words. Raises `Error` where it is not there, or says nothing."""
    import subprocess

    try:
        return subprocess.run(
            [program, *words],
            check=False,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_PATIENCE,
            stdin=subprocess.DEVNULL,
        )
    except subprocess.TimeoutExpired:
        raise Error(f"{program} does not answer within {_PATIENCE:.0f} s", "see whether the system is well") from None
    except OSError as error:
        raise Error(f"{program} cannot be run: {error.strerror}", "see whether it is installed") from None


def put(path: str, content: bytes) -> None:
    """Write a file for this user alone, in place of what was there, or leave it as it was. Raises `Error`."""
    folder, name = os.path.split(path)
    new = os.path.join(folder, f".{name}-{os.urandom(8).hex()}")
    try:
        _make_folder(folder)
        with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            try:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
                os.replace(new, path)
            except BaseException:
                os.unlink(new)
                raise
    except OSError as error:
        raise Error(f"{path} cannot be written: {error.strerror or error}", "see to it that you may") from None


def _make_folder(folder: str) -> None:
    """Make it and those above it that are missing, for this user alone."""
    if not os.path.isdir(folder):
        _make_folder(os.path.dirname(folder))
        os.mkdir(folder, 0o700)
