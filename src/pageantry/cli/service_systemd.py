"""Services of systemd's: a unit of this user's, and one for its sockets, so that these stay while it starts anew.

See systemd.service(5), systemd.socket(5), systemd.syntax(7).
"""

from __future__ import annotations

import os
import re
import shlex
import stat
import sys
from time import monotonic, sleep

from ..errors import Error
from . import service_units as units
from .common import say
from .service_options import State, ask, installed, put

assert sys.platform != "win32", "UNIX only: callers ask first"

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

    from .service_options import Wanted

#: Where units lie that a distribution or an administrator has put there: see systemd.unit(5).
_OTHERS: Final = (
    "/etc/systemd/user",
    "/run/systemd/user",
    "/usr/local/lib/systemd/user",
    "/usr/local/share/systemd/user",
    "/usr/lib/systemd/user",
    "/usr/share/systemd/user",
)

#: Seconds until a service listens that was started, and between two looks at it.
_START: Final = 30.0
_LOOK: Final = 0.1

#: Lines of the journal that are shown.
_LINES: Final = 10

#: What cannot stand in a line of a unit: systemd reads lines, and takes spaces and backslashes at their ends away.
_NO_LINE: Final = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]|\s\Z|\\\Z")


def install(name: str, wanted: Wanted, *, now: bool) -> None:
    """Write the units, and have systemd start them with the session. Raises `Error`."""
    _check_system()
    for unit in _units(name):
        _check_free(unit)
    paths = _paths(name, wanted)
    sockets = [] if wanted.given["openssh_config"] or any(map(_NO_LINE.search, paths)) else paths
    answers, active = _answers(), _is_active(name)
    if not active:
        for path in paths:
            _check_place(path)
    texts = {f"{name}.service": units.service(name, wanted, activated=bool(sockets))}
    if sockets:
        texts[f"{name}.socket"] = units.socket(sockets, wanted, _runtime())
    changed = any(_read(unit) != text for unit, text in texts.items())
    for unit, text in texts.items():
        put(_path(unit), text.encode())
    if sockets:  # it may have started by itself before, or have had none
        _unlink(*_links(f"{name}.service"))
    else:
        _remove_unit(f"{name}.socket", answers=answers)  # with which ends what was started by it
        active = active and _is_active(name)
    first = f"{name}.socket" if sockets else f"{name}.service"
    where = f", when somebody comes to {' or '.join(sockets)}" if sockets else ""
    say(f"starts with each session of yours{where}: {shlex.join(wanted.words())}")
    undo = f"to undo it: pageantry service remove {name}"
    if not answers:
        say(f"no systemd answers here that could be told; where one does: {_enabling(first, now=now)}; {undo}")
        return
    _must("daemon-reload")
    _must("enable", first)
    if active:
        again = f"; to have it as it is now: systemctl --user restart {first}" if changed else ""
        say(f"it runs already{again}; {undo}")
    elif now:
        _must("start", first)
        say(f"listening at {' and '.join(sockets) or _wait(name, paths)}; {undo}")
    else:
        say(f"to start it now: systemctl --user start {first}; {undo}")


def remove(name: str) -> tuple[bool, list[str]]:
    """End it, and remove its units; whether there were any, and what is left to do.

    Raises `Error` where they are not ours.
    """
    _check_system()
    present = [unit for unit in _units(name) if os.path.lexists(_path(unit))]
    for unit in present:
        _check_ours(unit)
    answers = _answers()
    for unit in present:
        _remove_unit(unit, answers=answers)
    if present and answers:
        _must("daemon-reload")
    left = f"no systemd answers here that could end it; where one does: systemctl --user stop {' '.join(present)}"
    return bool(present), [left] if present and not answers else []


def status(name: str) -> State:
    """How it is. Raises `Error` where its units are not ours."""
    from .logfile import tail

    _check_system()
    unit = f"{name}.service"
    if not os.path.lexists(_path(unit)):
        return State(name, None, "", [], [], None, [])
    _check_ours(unit)
    words = units.words(_read(unit))
    found = installed(words)
    paths = units.listening(_read(f"{name}.socket"), _runtime())
    answers = _answers()
    process = int(_show(unit, "MainPID") or 0) if answers else 0
    places = paths or (_paths(name, found) if found else [])
    waiting = paths if answers and _show(f"{name}.socket", "ActiveState") == "active" and not process else []
    first = f"{name}.socket" if paths else unit
    off = "" if _links(first) else f"but it is not enabled: {_enabling(first, now=True)}"
    log = found.given["log"] if found else None
    lines = tail(log) if log else _journal(unit) if answers else []
    running = [(place, process) for place in places] if process else []
    return State(name, shlex.join(words), off, running, waiting, log, lines)


def names() -> list[str]:
    """What ours are called."""
    _check_system()
    try:
        found = os.listdir(_folder())
    except FileNotFoundError:
        return []
    services = [unit.removesuffix(".service") for unit in found if unit.endswith(".service")]
    return [name for name in sorted(services) if _is_ours(f"{name}.service")]


def _paths(name: str, wanted: Wanted) -> list[str]:
    """Where it will listen. Raises `Error` for what is no path."""
    from ..endpoints import listening

    if not wanted.places:
        return [os.path.join(_runtime(), "pageantry/agent" if wanted.given["openssh_config"] else f"{name}.socket")]
    paths = []
    for address in wanted.places:
        place = listening.check(address)
        if place is None:
            raise Error(f"{address} is a socket of launchd's, and this is systemd", "name a path")
        paths.append(os.path.abspath(place.where))
    return paths


def _runtime() -> str:
    return os.environ.get("XDG_RUNTIME_DIR") or f"/run/user/{os.getuid()}"


# Files


def _folder() -> str:
    base = os.environ.get("XDG_CONFIG_HOME", "")
    return os.path.join(base if os.path.isabs(base) else os.path.expanduser("~/.config"), "systemd", "user")


def _path(unit: str) -> str:
    return os.path.join(_folder(), unit)


def _units(name: str) -> tuple[str, ...]:
    return f"{name}.socket", f"{name}.service"


def _read(unit: str) -> str:
    try:
        with open(_path(unit), encoding="utf-8", errors="replace") as file:
            return file.read()
    except FileNotFoundError:
        return ""


def _is_ours(unit: str) -> bool:
    return not os.path.islink(_path(unit)) and _read(unit).startswith(f"{units.MARK}\n")


def _check_ours(unit: str) -> None:
    if not _is_ours(unit):
        raise Error(f"{_path(unit)} is not ours, and is left as it is", "use another name, or move it away")


def _check_free(unit: str) -> None:
    """See that no unit is replaced or hidden that somebody else has made."""
    if os.path.lexists(_path(unit)):
        _check_ours(unit)
    for folder in (*_OTHERS, os.path.expanduser("~/.local/share/systemd/user")):
        if os.path.lexists(os.path.join(folder, unit)):
            raise Error(f"{os.path.join(folder, unit)} is there already, and would be hidden", "use another name")


def _check_place(path: str) -> None:
    """See that systemd may listen there, which removes whatever is in its way."""
    from ..endpoints import directories, unix_listener

    if os.path.isdir(os.path.dirname(path)):
        directories.check(os.path.dirname(path))
    try:
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            raise Error(f"{path} is no socket, and is left as it is", "name another path, or move that away")
        found, process = unix_listener.listens(path)
    except OSError:
        return
    if found:
        raise Error(f"an agent answers at {path} already{f' (process {process})' if process else ''}", "end it first")


def _remove_unit(unit: str, *, answers: bool) -> None:
    if not _is_ours(unit):
        return
    if answers:
        _must("disable", "--now", unit)
    _unlink(*_links(unit), _path(unit))


def _links(unit: str) -> list[str]:
    """What of a unit is there that has systemd start it."""
    links = [_path(os.path.join(f"{target}.target.wants", unit)) for target in ("sockets", "default")]
    return [link for link in links if os.path.islink(link)]


def _unlink(*paths: str) -> None:
    for path in paths:
        try:
            os.unlink(path)
        except FileNotFoundError:
            pass  # systemctl was faster
        except OSError as error:
            raise Error(f"{path} cannot be removed: {error.strerror}", "see to it that you may") from None


# systemd itself


def _check_system() -> None:
    from shutil import which

    if not which("systemctl"):
        raise Error("there is no systemd here", "docs/service.md shows what to start with a session in another way")


def _answers() -> bool:
    """Whether this user has a systemd that can be told something."""
    return ask("systemctl", "--user", "show", "--property=Version").returncode == 0


def _must(*words: str) -> None:
    done = ask("systemctl", "--user", *words)
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"status {done.returncode}"]
        raise Error(f"systemctl --user {' '.join(words)}: {lines[0]}", f"see: systemctl --user status {words[-1]}")


def _show(unit: str, what: str) -> str:
    return ask("systemctl", "--user", "show", f"--property={what}", "--value", unit).stdout.strip()


def _is_active(name: str) -> bool:
    return any(_show(unit, "ActiveState") in ("active", "activating") for unit in _units(name))


def _journal(unit: str) -> list[str]:
    return ask(
        "journalctl", "--quiet", "--no-pager", f"--user-unit={unit}", f"--lines={_LINES}", "--output=short-iso"
    ).stdout.splitlines()


def _enabling(unit: str, *, now: bool) -> str:
    return f"systemctl --user daemon-reload && systemctl --user enable{' --now' if now else ''} {unit}"


def _wait(name: str, paths: list[str]) -> str:
    """Wait until a service listens that systemd has started: where. Raises `Error` where it does not."""
    from ..endpoints import unix_listener

    unit, deadline = f"{name}.service", monotonic() + _START
    while True:
        try:
            if all(unix_listener.listens(path)[0] for path in paths):
                return " and ".join(paths)
        except OSError:
            pass  # nothing is there yet
        if _show(unit, "Result") != "success" or monotonic() >= deadline:
            raise Error("it was started, but does not listen", f"see: journalctl --user -u {unit}")
        sleep(_LOOK)
