"""The Windows console itself, wherever the standard streams lead: what is typed there unseen, and whether there is one.

`getpass` reads with the C library, which waits for ever for what nobody can type: where a program has no console, or
one without a window, or stands behind a terminal of Cygwin's, whose programs have an invisible one.
"""

from __future__ import annotations

import ctypes
import msvcrt
import sys
from contextlib import contextmanager
from ctypes import POINTER, byref, c_void_p, wintypes

from .errors import Error, NobodyToAsk

assert sys.platform == "win32", "Windows only: callers ask first"

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any, Final

BOOL, DWORD, HANDLE, LPCWSTR = wintypes.BOOL, wintypes.DWORD, wintypes.HANDLE, wintypes.LPCWSTR

_dll = ctypes.WinDLL("kernel32", use_last_error=True)


def _prototype(name: str, result: Any, *arguments: Any) -> Any:
    function = getattr(_dll, name)
    function.restype, function.argtypes = result, arguments
    return function


_CreateFile = _prototype("CreateFileW", HANDLE, LPCWSTR, DWORD, DWORD, c_void_p, DWORD, DWORD, HANDLE)
_CloseHandle = _prototype("CloseHandle", BOOL, HANDLE)
_GetStdHandle = _prototype("GetStdHandle", HANDLE, DWORD)
_GetFileType = _prototype("GetFileType", DWORD, HANDLE)
_FileInformation = _prototype("GetFileInformationByHandleEx", BOOL, HANDLE, ctypes.c_int, c_void_p, DWORD)
_GetConsoleWindow = _prototype("GetConsoleWindow", HANDLE)
_GetConsoleMode = _prototype("GetConsoleMode", BOOL, HANDLE, POINTER(DWORD))
_SetConsoleMode = _prototype("SetConsoleMode", BOOL, HANDLE, DWORD)
_ReadConsole = _prototype("ReadConsoleW", BOOL, HANDLE, c_void_p, DWORD, POINTER(DWORD), c_void_p)
_WriteConsole = _prototype("WriteConsoleW", BOOL, HANDLE, c_void_p, DWORD, POINTER(DWORD), c_void_p)

_INVALID = c_void_p(-1).value
_READ_WRITE, _SHARED, _OPEN_EXISTING = 0xC0000000, 3, 3
_STANDARD_STREAMS: Final = (0xFFFFFFF6, 0xFFFFFFF5, 0xFFFFFFF4)  # input, output, error
_TYPE_PIPE, _FILE_NAME_INFO = 3, 2
_PROCESSED, _BY_LINES, _ECHO, _ESCAPE_SEQUENCES = 0x1, 0x2, 0x4, 0x200


def ask(prompt: str) -> str:
    """What the person types at `prompt` in the console, unseen.

    Raises `NobodyToAsk` at once where nobody could answer, `Error` for half a character; KeyboardInterrupt for Ctrl-C
    and EOFError for Ctrl-Z at the line's beginning.
    """
    what = prompt.rstrip(": ")
    if any(is_cygwin_terminal(_GetStdHandle(number)) for number in _STANDARD_STREAMS):
        raise NobodyToAsk(
            f"{what}: what is typed in this terminal cannot be hidden, as it is no console of Windows",
            "put winpty in front of the command, use another terminal, or give the answer in a pipe",
        )
    if not _GetConsoleWindow():  # there is none, or a program was started with CREATE_NO_WINDOW
        raise NobodyToAsk(f"{what}: there is no console to ask at")
    try:
        with _opened("CONIN$") as keyboard, _opened("CONOUT$") as screen:
            with _unseen(keyboard):
                _write(screen, prompt)
                typed = _read_line(keyboard)
            _write(screen, "\r\n")
    except OSError as error:
        raise NobodyToAsk(f"{what}: the console cannot be used: {error.strerror}") from None
    if typed.startswith("\x1a"):
        raise EOFError
    try:
        return typed.encode("utf-16-le", "surrogatepass").decode("utf-16-le")
    except UnicodeDecodeError:  # which would show it
        raise Error("what was typed has half a character in it", "type it again") from None


def is_console(handle: int | None) -> bool:
    """Whether this handle is one of a console, and not, as NUL, only a device of some kind."""
    return bool(_GetConsoleMode(handle, byref(DWORD())))


def is_cygwin_terminal(handle: int | None) -> bool:
    r"""Whether it is a terminal of Cygwin, MSYS2 or Git Bash: to Windows, a pipe \msys-…-pty0-from-master."""
    if _GetFileType(handle) != _TYPE_PIPE:
        return False
    buffer = ctypes.create_string_buffer(1024)  # FILE_NAME_INFO: the size of the name in bytes, and the name
    if not _FileInformation(handle, _FILE_NAME_INFO, buffer, len(buffer)):
        return False
    size = int.from_bytes(buffer.raw[:4], "little")
    name = buffer.raw[4 : 4 + size].decode("utf-16-le", "replace")
    return name.startswith(("\\msys-", "\\cygwin-")) and "-pty" in name


def is_terminal(descriptor: int) -> bool:
    """Whether a person sits behind this file descriptor.

    Raises `NobodyToAsk` for a console without a window, to read from which would take for ever; OSError when closed.
    """
    handle = msvcrt.get_osfhandle(descriptor)
    if not is_console(handle):
        return is_cygwin_terminal(handle)
    if not _GetConsoleWindow():
        raise NobodyToAsk("there is a console, but nobody sees it, to answer what is to be asked")
    return True


@contextmanager
def _opened(name: str) -> Iterator[int]:
    handle = _CreateFile(name, _READ_WRITE, _SHARED, None, _OPEN_EXISTING, 0, None)
    if handle == _INVALID:
        raise _failure()
    try:
        yield handle
    finally:
        _CloseHandle(handle)


@contextmanager
def _unseen(keyboard: int) -> Iterator[None]:
    """For the length of a `with`, each key comes as it is, Ctrl-C among them, and is not shown.

    That way Ctrl-C comes here even where a parent had it ignored, and no list of former lines keeps what is typed.
    """
    mode = DWORD()
    if not _GetConsoleMode(keyboard, byref(mode)):
        raise _failure()
    try:
        if not _SetConsoleMode(keyboard, mode.value & ~(_PROCESSED | _BY_LINES | _ECHO | _ESCAPE_SEQUENCES)):
            raise _failure()
        yield
    finally:
        _SetConsoleMode(keyboard, mode)


def _write(screen: int, text: str) -> None:
    data = text.encode("utf-16-le", "surrogatepass")
    if not _WriteConsole(screen, data, len(data) // 2, byref(DWORD()), None):
        raise _failure()


def _read_line(keyboard: int) -> str:
    """What is typed until Enter, in UTF-16 units. Backspace, Escape and Ctrl-U take back.

    Raises KeyboardInterrupt, EOFError when the console is gone, OSError.
    """
    line: list[str] = []
    unit, count = ctypes.create_unicode_buffer(1), DWORD()
    while True:
        if not _ReadConsole(keyboard, unit, 1, byref(count), None):
            raise _failure()
        if not count.value:
            raise EOFError
        match unit[0]:
            case "\r" | "\n":
                return "".join(line)
            case "\x03":
                raise KeyboardInterrupt
            case "\b" | "\x7f":
                if line and "\udc00" <= line.pop() <= "\udfff" and line:
                    line.pop()  # both halves of the character
            case "\x1b" | "\x15":
                line.clear()
            case key:
                line.append(key)


def _failure() -> OSError:
    return ctypes.WinError(ctypes.get_last_error())
