"""`pageantry service`: an agent that starts with the session."""

from __future__ import annotations

import os
import sys
from time import monotonic, sleep

import click

from ..errors import AddressError, Error
from .common import emit, json_option, print_json, say

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Any, Final

#: What `serve` is told where nothing else is asked for.
_USUAL: Final = ("--listen", "pageant")

#: The most characters of a command that Windows starts: see "Run and RunOnce Registry Keys" in its documentation.
MAX_COMMAND: Final = 260

#: Seconds until an agent that was started says that it listens, and between two looks whether it does.
_START: Final = 30.0
_LOOK: Final = 0.1


@click.group(short_help="Have an agent start with the session (Windows).")
def service() -> None:
    """Have an agent start with each session of this user, without a window. So far on Windows alone.

    \b
    Examples:
      pageantry service install --now
      pageantry service install -- --listen pageant -t 8h C:\\Users\\me\\.ssh\\id_ed25519
      pageantry service status
      pageantry service remove
    """


@service.command(short_help="Have an agent start with the session.")
@click.option("--now", is_flag=True, help="Start it at once, too.")
@click.argument("options", metavar="[-- SERVE-OPTIONS...]", nargs=-1, type=click.UNPROCESSED)
def install(options: tuple[str, ...], now: bool) -> None:
    """Have `pageantry serve SERVE-OPTIONS` start with each session of this user, in place of what did so before.

    Without SERVE-OPTIONS it is `pageantry serve --listen pageant`. Its log is agent.log in the folder pageantry of
    %LOCALAPPDATA%, or what --log names.

    \b
    Examples:
      pageantry service install --now
      pageantry service install -- --listen pageant -t 8h C:\\Users\\me\\.ssh\\id_ed25519
    """
    from .logfile import LogFile

    _registered()  # or else this system has no such thing
    given = _checked(options or _USUAL)
    log = given["log"] or _usual_log()
    LogFile(log).close()  # or else it cannot be written
    command = _command([*(options or _USUAL), *([] if given["log"] else ["--log", log])])
    _register(command)
    say(f"starts with each session of yours: {command}")
    undo = "to undo it: pageantry service remove"
    if switched_off := _switched_off():
        say(switched_off)
    if not now:
        say(f"to start it now: pageantry service install --now; {undo}")
        return
    if running := list(_running(given)):
        say(f"an agent runs already at {_places(running)}; {undo}")
    else:
        say(f"{_start(command, log)}; {undo}")


@service.command(short_help="Have no agent start with the session any more.")
def remove() -> None:
    """Have no agent start with the session any more. One that runs goes on, and so does its log."""
    command = _registered()
    if command is None:
        say("no agent starts with the session; there is none to remove")
    else:
        _unregister()
        say("no agent starts with the session any more")
    for address, pid in _running(_given(command)):
        say(f"one still runs at {address}; to end it: taskkill /F /PID {pid}")


@service.command(short_help="Show whether an agent starts with the session.")
@json_option
def status(as_json: bool) -> None:
    """Show whether an agent starts with the session, and how; whether it runs; and the end of its log."""
    from .logfile import tail

    command = _registered()
    given = _given(command)
    log = given["log"] or _usual_log()
    running = list(_running(given))
    lines = tail(log)
    switched_off = _switched_off() if command is not None else ""
    if as_json:
        print_json(
            {
                "installed": command is not None,
                "command": command,
                "switched_off": bool(switched_off),
                "running": [{"address": address, "pid": pid} for address, pid in running],
                "log": log,
                "lines": lines,
            }
        )
        return
    emit("no agent starts with the session" if command is None else f"starts with each session of yours: {command}")
    if switched_off:
        emit(switched_off)
    emit(f"runs at {_places(running)}" if running else "does not run")
    emit(f"log: {log}" if lines else f"log: {log} (empty)")
    for line in lines:
        emit(f"  {line}")


def _places(running: Sequence[tuple[str, int]]) -> str:
    return ", ".join(f"{address} (process {pid})" for address, pid in running)


def _checked(options: Sequence[str]) -> dict[str, Any]:
    """What `serve` makes of the options. What it would refuse then is refused now.

    Raises `Error`, and what click raises for wrong usage.
    """
    from ..endpoints import PATHS, listening
    from ..keys.files import read
    from .openssh_config import Config
    from .serve import serve

    if "--" in options:
        raise Error("an agent for a command ends with it", "leave the second -- and what follows it away")
    given = serve.make_context("pageantry serve", list(options)).params
    places = {address: listening.check(address) for address in (*given["listen"], *given["never_ask"])}
    sockets = [address.removeprefix(f"{one.kind}:") for address, one in places.items() if one and one.kind in PATHS]
    for path in (*given["files"], *sockets, given["openssh_config"], given["log"]):
        if path and not os.path.isabs(os.path.expanduser(path)):
            raise Error(f"{path} is looked for from where the session starts, not from here", "give the whole path")
    for path in given["files"]:
        read(path)
    if given["openssh_config"]:
        Config(given["openssh_config"]).check()
    if given["remember"] and given["lifetime"]:
        raise Error("keys that all have a lifetime cannot be remembered", "leave out --remember or --lifetime")
    return given


def _given(command: str | None) -> dict[str, Any]:
    """The options of `serve` in a command; the usual ones for none, and for one that was not ours or is no more."""
    from .serve import serve

    try:
        words = _words(command) if command else []
        options = words[words.index("serve") + 1 :] if command else list(_USUAL)
        return serve.make_context("pageantry serve", options, resilient_parsing=True).params
    except (ValueError, click.ClickException, click.exceptions.Exit):
        return {"listen": (), "never_ask": (), "log": None}


def _command(options: Sequence[str]) -> str:
    """The command line that serves with these options, by the Python that runs now, without a window if it can.

    It takes no module from the directory where it starts (-P). Raises `Error` for one that is too long.
    """
    from subprocess import list2cmdline

    folder, name = os.path.split(sys.executable)
    windowless = os.path.join(folder, name.lower().replace("python", "pythonw", 1))
    python = windowless if os.path.lexists(windowless) else sys.executable
    command = list2cmdline([python, "-P", "-m", "pageantry", "serve", *options])
    size = len(command.encode("utf-16-le", "surrogatepass")) // 2
    if size > MAX_COMMAND:
        raise Error(
            f"Windows starts commands of {MAX_COMMAND} characters at most, and this has {size}: {command}",
            "use shorter paths (for the log: --log FILE), or fewer options",
        )
    return command


def _running(given: dict[str, Any]) -> Iterator[tuple[str, int]]:
    """The addresses of these options at which a Python listens, and its process id."""
    from ..discovery import locate

    for address in given["listen"] or (() if given["never_ask"] else ("pageant",)):
        try:
            found = locate(address, probe=2)
        except AddressError:
            continue
        for one in found:
            program = one.program.rpartition("\\")[2].lower()
            if one.reached and one.pid and program.startswith("python"):
                yield address, one.pid


def _start(command: str, log: str) -> str:
    """Start the agent, and wait until its log says where it listens: that. Raises `Error` where it does not."""
    from subprocess import DEVNULL, Popen

    from .logfile import tail

    size = os.path.getsize(log)
    try:
        process = Popen(
            command,
            cwd=os.path.expanduser("~"),
            stdin=DEVNULL,
            stdout=DEVNULL,
            stderr=DEVNULL,  # whoever reads ours would wait for the agent's end
            creationflags=_NO_WINDOW,
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


if sys.platform == "win32":
    import ctypes
    import winreg
    from ctypes import POINTER, byref, c_int, c_void_p, wintypes
    from subprocess import CREATE_NO_WINDOW as _NO_WINDOW

    _VALUE: Final = "pageantry"
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

    def _query(path: str) -> Any:
        try:
            with winreg.OpenKey(winreg.HKEY_CURRENT_USER, path) as key:
                return winreg.QueryValueEx(key, _VALUE)[0]
        except FileNotFoundError:
            return None
        except OSError as error:
            raise _refused(error) from None

    def _registered() -> str | None:
        """The command that starts with the session; None if there is none."""
        if "\\windowsapps\\" in sys.base_prefix.lower():
            raise Error(
                "Python from the Microsoft Store keeps what it writes to the registry to itself",
                "install Python from python.org, and pageantry with that",
            )
        value = _query(_RUN)
        return None if value is None else str(value)

    def _register(command: str) -> None:
        try:
            with winreg.CreateKeyEx(winreg.HKEY_CURRENT_USER, _RUN, access=winreg.KEY_SET_VALUE) as key:
                winreg.SetValueEx(key, _VALUE, 0, winreg.REG_SZ, command)
        except OSError as error:
            raise _refused(error) from None

    def _unregister() -> None:
        try:
            with winreg.OpenKey(winreg.HKEY_CURRENT_USER, _RUN, access=winreg.KEY_SET_VALUE) as key:
                winreg.DeleteValue(key, _VALUE)
        except FileNotFoundError:
            pass  # somebody else was faster
        except OSError as error:
            raise _refused(error) from None

    def _refused(error: OSError) -> Error:
        return Error(
            f"the registry's key HKCU\\{_RUN} cannot be used: {error.strerror}", "see whether a policy forbids it"
        )

    def _switched_off() -> str:
        """What to tell a person who has switched it off in the Task Manager, and may have forgotten that."""
        value = _query(_APPROVED)
        off = isinstance(value, bytes) and value[:1] and value[0] & 1
        return "but it is switched off: enable pageantry in the Task Manager, under Startup apps" if off else ""

    def _usual_log() -> str:
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
        return os.path.join(folder, "agent.log")

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

else:
    _NO_WINDOW = 0

    def _not_here(*_: object) -> Any:
        raise Error(
            "pageantry puts an agent into the session on Windows alone, so far",
            "docs/serving.md shows how systemd and launchd start one",
        )

    _registered = _register = _unregister = _switched_off = _usual_log = _words = _not_here
