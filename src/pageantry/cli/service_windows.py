"""Services of Windows': values of the registry's key Run, whose commands start with each session of this user."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
import winreg
from ctypes import POINTER, byref, c_int, c_void_p, wintypes
from time import monotonic, sleep

from ..errors import Error
from .common import say
from .service_options import NAMES, State, checked, installed, log_of, places_of, running

assert sys.platform == "win32", "Windows only: callers ask first"

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any, Final

    from .service_options import Wanted

#: The most characters of a command that Windows starts: see "Run and RunOnce Registry Keys" in its documentation.
MAX_COMMAND: Final = 260

#: Seconds until an agent that was started says that it listens, and between two looks whether it does.
_START: Final = 30.0
_LOOK: Final = 0.1

_RUN: Final = r"Software\Microsoft\Windows\CurrentVersion\Run"
#: Where the Task Manager keeps which of them it has switched off: those whose first byte is odd. Not documented.
_APPROVED: Final = r"Software\Microsoft\Windows\CurrentVersion\Explorer\StartupApproved\Run"

_shell32 = ctypes.WinDLL("shell32", use_last_error=True)
_kernel32 = ctypes.WinDLL("kernel32", use_last_error=True)
_CommandLineToArgv = _shell32.CommandLineToArgvW
_CommandLineToArgv.restype = POINTER(wintypes.LPWSTR)
_CommandLineToArgv.argtypes = (wintypes.LPCWSTR, POINTER(c_int))
_LocalFree = _kernel32.LocalFree
_LocalFree.restype, _LocalFree.argtypes = c_void_p, (c_void_p,)


def install(name: str, wanted: Wanted, *, now: bool) -> None:
    """Have the command start with the session. Raises `Error`."""
    _registered(name)  # or else it is not to be replaced
    if wanted.command == "serve" and not wanted.options:
        wanted = checked("serve", ("--listen", "pageant"))
    log, more = log_of(wanted, wanted.given["log"] or _usual_log(name))
    command = _command(wanted, more)
    _register(name, command)
    say(f"starts with each session of yours: {command}")
    undo = f"to undo it: pageantry service remove {name}"
    if switched_off := _switched_off(name):
        say(switched_off)
    if not now:
        say(f"with --now it starts at once, too; {undo}")
    elif found := list(running(_places(name, wanted))):
        say(f"it runs already at {places_of(found)}; {undo}")
    else:
        say(f"{_start(command, log)}; {undo}")


def remove(name: str) -> tuple[bool, list[str]]:
    """Have it not start any more; whether it did, and what is to be told of what still runs. Raises `Error`."""
    command = _registered(name)
    if command is not None:
        _unregister(name)
    found = running(_places(name, _wanted(command)))
    left = [f"one still runs at {address}; to end it: taskkill /F /PID {process}" for address, process in found]
    return command is not None, left


def status(name: str) -> State:
    """How it is. Raises `Error` where it is somebody else's."""
    from .logfile import tail

    command = _registered(name)
    wanted = _wanted(command)
    log = wanted.given["log"] if wanted else None
    log = log or _usual_log(name)
    off = _switched_off(name) if command is not None else ""
    return State(name, command, off, list(running(_places(name, wanted))), [], log, tail(log))


def names() -> list[str]:
    """What ours are called. Raises `Error`."""
    _check_system()
    found = []
    try:
        with winreg.OpenKey(winreg.HKEY_CURRENT_USER, _RUN) as key:
            for index in range(winreg.QueryInfoKey(key)[1]):
                name, value, _ = winreg.EnumValue(key, index)
                if name.lower() == NAMES["serve"] or _is_ours(str(value)):
                    found.append(name)
    except FileNotFoundError:
        pass
    except OSError as error:
        raise _refused(error) from None
    return sorted(found)


def _wanted(command: str | None) -> Wanted | None:
    return installed(_words(command)) if command and command.strip() else None


def _places(name: str, wanted: Wanted | None) -> tuple[str, ...]:
    """Where it listens; Pageant's place where it does not say, and for what has the usual name but is not ours."""
    if wanted is None and name.lower() != NAMES["serve"]:
        return ()
    return (wanted.places if wanted else ()) or ("pageant",)


def _command(wanted: Wanted, more: Sequence[str] = ()) -> str:
    """The command line, by the Python that runs now, without a window if it can.

    Raises `Error` for one that is too long.
    """
    folder, name = os.path.split(sys.executable)
    windowless = os.path.join(folder, name.lower().replace("python", "pythonw", 1))
    python = windowless if os.path.lexists(windowless) else sys.executable
    command = subprocess.list2cmdline(wanted.words(*more, python=python))
    size = len(command.encode("utf-16-le", "surrogatepass")) // 2
    if size > MAX_COMMAND:
        raise Error(
            f"Windows starts commands of {MAX_COMMAND} characters at most, and this has {size}: {command}",
            "use shorter paths (for the log: --log FILE), or fewer options",
        )
    return command


def _start(command: str, log: str) -> str:
    """Start the agent, and wait until its log says where it listens: that. Raises `Error` where it does not."""
    from .logfile import tail

    size = os.path.getsize(log)
    try:
        process = subprocess.Popen(
            command,
            cwd=os.path.expanduser("~"),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,  # whoever reads ours would wait for the agent's end
            creationflags=subprocess.CREATE_NO_WINDOW,
        )
    except OSError as error:
        raise Error(f"it cannot be started: {error.strerror}", "install Python and pageantry again") from None
    deadline = monotonic() + _START
    while True:
        ended = process.poll() is not None
        lines = tail(log, size)
        if told := [line for line in lines if "listening at" in line]:
            process.returncode = 0  # it is not ours to wait for
            return f"started: it is {told[0][told[0].index('listening at') :]}"
        if ended:
            why = lines[-1] if lines else "without a word in its log"
            raise Error(f"it was started, and ended: {why}", f"its log is {log}")
        if monotonic() >= deadline:
            raise Error(f"it was started, but does not say that it listens, after {_START:.0f} s", f"its log is {log}")
        sleep(_LOOK)


def _query(path: str, name: str) -> Any:
    try:
        with winreg.OpenKey(winreg.HKEY_CURRENT_USER, path) as key:
            return winreg.QueryValueEx(key, name)[0]
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _refused(error) from None


def _check_system() -> None:
    """See whether what is written to the registry reaches Windows. Raises `Error`."""
    if "\\windowsapps\\" in sys.base_prefix.lower():
        raise Error(
            "Python from the Microsoft Store keeps what it writes to the registry to itself",
            "install Python from python.org, and pageantry with that",
        )


def _registered(name: str) -> str | None:
    """The command that starts with the session; None if there is none. Raises `Error` where it is somebody else's."""
    _check_system()
    value = _query(_RUN, name)
    if value is None:
        return None
    if name.lower() != NAMES["serve"] and not _is_ours(str(value)):  # that name nobody else has a use for
        raise Error(f"{name} starts with the session already, and is not ours: {value}", "use another name")
    return str(value)


def _is_ours(command: str) -> bool:
    return installed(_words(command)) is not None if command.strip() else False


def _register(name: str, command: str) -> None:
    try:
        with winreg.CreateKeyEx(winreg.HKEY_CURRENT_USER, _RUN, access=winreg.KEY_SET_VALUE) as key:
            winreg.SetValueEx(key, name, 0, winreg.REG_SZ, command)
    except OSError as error:
        raise _refused(error) from None


def _unregister(name: str) -> None:
    try:
        with winreg.OpenKey(winreg.HKEY_CURRENT_USER, _RUN, access=winreg.KEY_SET_VALUE) as key:
            winreg.DeleteValue(key, name)
    except FileNotFoundError:
        pass  # somebody else was faster
    except OSError as error:
        raise _refused(error) from None


def _refused(error: OSError) -> Error:
    return Error(f"the registry's key HKCU\\{_RUN} cannot be used: {error.strerror}", "see whether a policy forbids it")


def _switched_off(name: str) -> str:
    """What to tell a person who has switched it off in the Task Manager, and may have forgotten that."""
    value = _query(_APPROVED, name)
    off = isinstance(value, bytes) and value[:1] and value[0] & 1
    return f"but it is switched off: enable {name} in the Task Manager, under Startup apps" if off else ""


def _usual_log(name: str) -> str:
    """Where the log is unless told otherwise; the folder is there then."""
    from .. import acl

    base = os.environ.get("LOCALAPPDATA") or os.path.expanduser("~\\AppData\\Local")
    folder = os.path.join(base, "pageantry")
    try:
        acl.make_folder(folder)
    except FileExistsError:
        pass
    except OSError as error:
        raise Error(f"cannot make the folder {folder}: {error.strerror}", "name another log: --log FILE") from None
    return os.path.join(folder, "agent.log" if name == NAMES["serve"] else f"{name}.log")


def _words(command: str) -> list[str]:
    """The words of a command line, as the program that it starts will see them."""
    count = c_int()
    words = _CommandLineToArgv(command, byref(count))
    if not words:
        raise ctypes.WinError(ctypes.get_last_error())
    try:
        return [str(words[index]) for index in range(count.value)]
    finally:
        _LocalFree(words)
