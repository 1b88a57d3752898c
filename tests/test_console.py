"""Windows' console: what is typed into a real one, and that nobody is waited for where there is none."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

if sys.platform != "win32":
    pytest.skip("Windows' console", allow_module_level=True)

import _winapi
import msvcrt

from pageantry import console

# Asks in the console, has the keys of sys.argv[2] pressed meanwhile, and writes what came of it to sys.argv[1].
PROGRAM = """
import ctypes, json, sys, threading, time
from pageantry import prompts

kernel = ctypes.WinDLL("kernel32")
kernel.CreateFileW.restype = ctypes.c_void_p
keyboard = ctypes.c_void_p(kernel.CreateFileW("CONIN$", 0xC0000000, 3, None, 3, 0, None))

class Key(ctypes.Structure):
    _fields_ = (("type", ctypes.c_uint16), ("down", ctypes.c_int32), ("count", ctypes.c_uint16),
        ("codes", ctypes.c_uint16 * 2), ("unit", ctypes.c_uint16), ("state", ctypes.c_uint32))

def mode():
    found = ctypes.c_uint32()
    assert kernel.GetConsoleMode(keyboard, ctypes.byref(found))
    return found.value

def press():
    while mode() == before:
        time.sleep(0.01)
    for unit in json.loads(sys.argv[2]):
        key = Key(type=1, down=1, count=1, unit=unit, state=8 * (unit == 3))
        assert kernel.WriteConsoleInputW(keyboard, ctypes.byref(key), 1, ctypes.byref(ctypes.c_uint32()))

before = mode()
threading.Thread(target=press, daemon=True).start()
try:
    came = prompts.secret("Say: ")
except BaseException as error:
    came = type(error).__name__, str(error)
with open(sys.argv[1], "w") as file:
    json.dump({"came": came, "restored": mode() == before, "typed": prompts.typed()}, file)
"""

Ask = Callable[..., Any]


@pytest.fixture
def ask(at_terminal: Callable[..., tuple[int, str]], tmp_path: Path) -> Ask:
    """What comes of a question in a console when these bytes are typed, or these UTF-16 units pressed."""

    def ask(typed: bytes = b"", units: tuple[int, ...] = ()) -> Any:
        answers = {"Say: ": typed} if typed else {}
        status, shown = at_terminal(tmp_path / "came", json.dumps(units), typed=answers, program=PROGRAM)
        assert status == 0, shown
        assert re.sub(r"\x1b\[[0-9;]*m", "", shown).strip() == "Say:"
        result = json.loads((tmp_path / "came").read_text())
        assert result["restored"]
        assert result["typed"]
        return result["came"]

    return ask


@pytest.mark.parametrize(
    ("typed", "line"),
    [
        ("geheim\r", "geheim"),
        ("\r", ""),
        (" ä ß \u4e2d \U0001f600 \r", " ä ß \u4e2d \U0001f600 "),
        ("x" * 5000 + "\r", "x" * 5000),
        ("ab\x7fc\r", "ac"),
        ("\x7fa\U0001f600\x7f\x7f\x7fb\r", "b"),
        ("wrong\x15right\r", "right"),
        ("a\x1a\r", "a\x1a"),
    ],
)
def test_a_line_is_read_unseen(ask: Ask, typed: str, line: str) -> None:
    assert ask(typed.encode()) == line


def test_control_z_at_the_beginning_is_the_end(ask: Ask) -> None:
    assert ask(b"\x1a\r") == ["EOFError", ""]


def test_control_c_interrupts_and_the_console_is_as_before(ask: Ask) -> None:
    assert ask(units=(ord("a"), 3)) == ["KeyboardInterrupt", ""]


def test_half_a_character_is_refused_and_not_shown(ask: Ask) -> None:
    came = ask(units=(ord("s"), 0xD83D, ord("t"), 13))
    assert came == ["Error", "what was typed has half a character in it"]
    assert ask(units=(0xD83D, 0xDE00, 13)) == "\U0001f600"


NOBODY = """
from pageantry.errors import NobodyToAsk
from pageantry.prompts import secret, typed
assert not typed() or {cygwin}
try:
    secret("Say: ")
except NobodyToAsk as error:
    print(error, "|", error.hint)
"""


def nobody(flags: int, stdin: int, cygwin: bool = False) -> str:
    command = [sys.executable, "-c", NOBODY.replace("{cygwin}", str(cygwin))]
    done = subprocess.run(command, creationflags=flags, stdin=stdin, capture_output=True, timeout=60, check=True)
    return done.stdout.decode().strip()


@pytest.mark.parametrize("flags", [subprocess.DETACHED_PROCESS, subprocess.CREATE_NO_WINDOW])
def test_without_a_console_or_a_window_nobody_is_waited_for(flags: int) -> None:
    assert nobody(flags, subprocess.DEVNULL) == (
        "Say: there is no console to ask at | run it where it can ask, or give the answer in a pipe"
    )


HIDDEN = """
import ctypes, msvcrt, os
from pageantry.errors import NobodyToAsk
from pageantry.prompts import typed
open_ = ctypes.WinDLL("kernel32").CreateFileW
open_.restype = ctypes.c_void_p
os.dup2(msvcrt.open_osfhandle(open_("CONIN$", 0xC0000000, 3, None, 3, 0, None), os.O_RDWR), 0)
try:
    typed()
except NobodyToAsk as error:
    print(error)
"""


def test_nothing_is_read_from_a_console_that_nobody_sees() -> None:
    command, flags = [sys.executable, "-c", HIDDEN], subprocess.CREATE_NO_WINDOW
    done = subprocess.run(command, creationflags=flags, stdin=subprocess.DEVNULL, capture_output=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"nobody sees it" in done.stdout


@contextlib.contextmanager
def pipe(name: str) -> Iterator[int]:
    """The descriptor of a pipe's end, inheritable."""
    path = rf"\\.\pipe\{name}"
    server = _winapi.CreateNamedPipe(path, 1 | 0x40000000, 0, 1, 4096, 4096, 0, 0)
    client = _winapi.CreateFile(path, 0x40000000, 0, 0, _winapi.OPEN_EXISTING, 0, 0)
    descriptor = msvcrt.open_osfhandle(server, os.O_RDONLY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
        _winapi.CloseHandle(client)


def test_git_bashs_own_terminal_is_told_what_to_do() -> None:
    with pipe("msys-1888ae32e00d56aa-pty7-from-master") as terminal:
        said = nobody(0, terminal, cygwin=True)
    assert said.startswith("Say: what is typed in this terminal cannot be hidden")
    assert "winpty" in said


@pytest.mark.parametrize(
    ("name", "terminal"),
    [
        ("msys-1888ae32e00d56aa-pty0-from-master", True),
        ("cygwin-1888ae32e00d56aa-pty12-to-master", True),
        ("msys-1888ae32e00d56aa-1234-pipe-nt-0x1", False),
        ("pageant.me", False),
    ],
)
def test_a_terminal_of_cygwins_is_known_by_its_name(name: str, terminal: bool) -> None:
    with pipe(name) as descriptor:
        assert console.is_cygwin_terminal(msvcrt.get_osfhandle(descriptor)) == terminal
        assert console.is_terminal(descriptor) == terminal


def test_files_pipes_and_the_null_device_are_no_terminals(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    ends = os.pipe()
    others = [os.open(path, os.O_RDONLY) for path in (tmp_path / "file", os.devnull)]
    assert os.isatty(others[1])  # which is why somebody has to look twice
    for descriptor in (*ends, *others):
        assert not console.is_terminal(descriptor)
        os.close(descriptor)
    with pytest.raises(OSError, match="Bad file descriptor"):
        console.is_terminal(others[0])
