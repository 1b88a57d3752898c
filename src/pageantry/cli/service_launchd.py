"""Services of launchd's: property lists of this user's agents, which launchd starts with the session.

By launchd.plist(5) and launchctl(1). It was never run: what is tested is what is written, and which words launchctl
would get.
"""

from __future__ import annotations

import os
import plistlib
import shlex
import sys

from ..endpoints import directories
from ..errors import Error
from .common import say
from .service_options import State, ask, checked, installed, log_of, put, running

assert sys.platform != "win32", "UNIX only: callers ask first"

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .service_options import Wanted


def install(name: str, wanted: Wanted, *, now: bool) -> None:
    """Write the property list, and have launchd start what it says. Raises `Error`."""
    _check_system()
    _read(name)  # or else it is not to be replaced
    if wanted.command == "serve" and not wanted.places:  # each time another one, which no program could know
        usual = os.path.expanduser(f"~/.ssh/{name}.sock")
        directories.make_private(os.path.dirname(usual))
        wanted = checked("serve", ("--listen", usual, *wanted.options))
    log, more = log_of(wanted, wanted.given["log"] or _usual_log(name))
    put(_path(name), plistlib.dumps(_properties(name, wanted.words(*more), log), sort_keys=False))
    say(f"starts with each session of yours: {shlex.join(wanted.words(*more))}")
    undo = f"to undo it: pageantry service remove {name}"
    start = ("bootstrap", _domain(), _path(name))
    if _is_loaded(name):
        again = f"launchctl bootout {_domain()}/{name}; {shlex.join(['launchctl', *start])}"
        say(f"it runs already; to have it as it is now: {again}; {undo}")
    elif now:
        _must(*start)
        say(f"started, to listen at {' and '.join(wanted.places)}; its log is {log}; {undo}")
    else:
        say(f"to start it now: {shlex.join(['launchctl', *start])}; {undo}")


def remove(name: str) -> tuple[bool, list[str]]:
    """End it, and remove its property list; whether there was one, and nothing. Raises `Error` where it is not ours."""
    _check_system()
    if _read(name) is None:
        return False, []
    if _is_loaded(name):
        _must("bootout", f"{_domain()}/{name}")
    try:
        os.unlink(_path(name))
    except FileNotFoundError:
        pass  # somebody else was faster
    except OSError as error:
        raise Error(f"{_path(name)} cannot be removed: {error.strerror}", "see to it that you may") from None
    return True, []


def status(name: str) -> State:
    """How it is. Raises `Error` where it is not ours."""
    from .logfile import tail

    _check_system()
    found = _read(name)
    if found is None:
        return State(name, None, "", [], [], None, [])
    words = found["ProgramArguments"]
    wanted = installed(words)
    assert wanted
    log = wanted.given["log"] or _usual_log(name)
    off = (
        "" if _is_loaded(name) else f"but it is not loaded: launchctl bootstrap {_domain()} {shlex.quote(_path(name))}"
    )
    return State(name, shlex.join(words), off, list(running(wanted.places)), [], log, tail(log))


def names() -> list[str]:
    """What ours are called."""
    _check_system()
    try:
        files = os.listdir(_folder())
    except FileNotFoundError:
        return []
    found = [file.removesuffix(".plist") for file in files if file.endswith(".plist")]
    return [name for name in sorted(found) if _properties_of(name) is not None]


def _properties(name: str, words: list[str], log: str) -> dict[str, Any]:
    """What launchd is told: to run the command, and again, after its own pause, when it has failed."""
    properties: dict[str, Any] = {
        "Label": name,
        "ProgramArguments": words,
        "RunAtLoad": True,
        "KeepAlive": {"SuccessfulExit": False},
        "StandardErrorPath": f"{log}.err",  # not the log itself, which is begun anew under the same name
        "Umask": 0o077,
    }
    asks = {name: os.environ[name] for name in ("SSH_ASKPASS", "SSH_ASKPASS_REQUIRE") if os.environ.get(name)}
    return properties | ({"EnvironmentVariables": asks} if asks else {})


def _folder() -> str:
    return os.path.expanduser("~/Library/LaunchAgents")


def _path(name: str) -> str:
    return os.path.join(_folder(), f"{name}.plist")


def _usual_log(name: str) -> str:
    """Where the log is unless told otherwise; the folder is there then."""
    folder = os.path.expanduser("~/Library/Logs/pageantry")
    try:
        os.makedirs(folder, 0o700, exist_ok=True)
    except OSError as error:
        raise Error(f"cannot make the folder {folder}: {error.strerror}", "name another log: --log FILE") from None
    return os.path.join(folder, f"{name}.log")


def _properties_of(name: str) -> dict[str, Any] | None:
    """What the property list says, if it is ours."""
    from xml.parsers.expat import ExpatError

    try:
        if os.path.islink(_path(name)):
            return None
        with open(_path(name), "rb") as file:
            found = plistlib.load(file)
        words = found["ProgramArguments"]
        is_ours = found["Label"] == name and all(isinstance(word, str) for word in words) and installed(words)
    except (OSError, ExpatError, ValueError, KeyError, TypeError, AttributeError, OverflowError):
        return None
    return found if is_ours else None


def _read(name: str) -> dict[str, Any] | None:
    """The property list; None if there is none. Raises `Error` where it is not ours."""
    if not os.path.lexists(_path(name)):
        return None
    found = _properties_of(name)
    if found is None:
        raise Error(f"{_path(name)} is not ours, and is left as it is", "use another name, or move it away")
    return found


# launchd itself


def _check_system() -> None:
    from shutil import which

    if not which("launchctl"):
        raise Error("there is no launchd here", "docs/service.md shows what to start with a session in another way")


def _domain() -> str:
    return f"gui/{os.getuid()}"


def _is_loaded(name: str) -> bool:
    return ask("launchctl", "print", f"{_domain()}/{name}").returncode == 0


def _must(*words: str) -> None:
    done = ask("launchctl", *words)
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"status {done.returncode}"]
        raise Error(f"launchctl {' '.join(words)}: {lines[0]}", "see whether you are logged in at this Mac's screen")
