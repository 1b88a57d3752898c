"""Pageant's old way in: its window, WM_COPYDATA, and a request in shared memory, all as PuTTY's own clients have it."""

from __future__ import annotations

import ctypes
import errno
import sys
from ctypes import POINTER, byref, c_void_p, wintypes
from os import urandom
from time import monotonic

from .. import winpipe
from ..errors import BadReply
from .window import MAX_FRAME

assert sys.platform == "win32", "Windows only: callers ask first"

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Final

BOOL, DWORD, HANDLE, HWND, LPCWSTR = wintypes.BOOL, wintypes.DWORD, wintypes.HANDLE, wintypes.HWND, wintypes.LPCWSTR


class _CopyData(ctypes.Structure):
    """COPYDATASTRUCT."""

    _fields_ = (("dwData", ctypes.c_size_t), ("cbData", DWORD), ("lpData", ctypes.c_char_p))


class _SecurityAttributes(ctypes.Structure):
    """SECURITY_ATTRIBUTES."""

    _fields_ = (("nLength", DWORD), ("lpSecurityDescriptor", c_void_p), ("bInheritHandle", BOOL))


def _prototype(library: str, name: str, result: Any, *arguments: Any) -> Any:
    function = getattr(ctypes.WinDLL(library, use_last_error=True), name)
    function.restype, function.argtypes = result, arguments
    return function


_GetDesktopWindow = _prototype("user32", "GetDesktopWindow", HWND)
_FindWindowEx = _prototype("user32", "FindWindowExW", HWND, HWND, HWND, LPCWSTR, LPCWSTR)
_GetWindowThreadProcessId = _prototype("user32", "GetWindowThreadProcessId", DWORD, HWND, POINTER(DWORD))
_SendMessageTimeout = _prototype(
    "user32", "SendMessageTimeoutW", ctypes.c_ssize_t, HWND, wintypes.UINT, wintypes.WPARAM, POINTER(_CopyData),
    wintypes.UINT, wintypes.UINT, POINTER(ctypes.c_ssize_t),
)  # fmt: skip
_OpenProcess = _prototype("kernel32", "OpenProcess", HANDLE, DWORD, BOOL, DWORD)
_CreateFileMapping = _prototype(
    "kernel32", "CreateFileMappingW", HANDLE, HANDLE, POINTER(_SecurityAttributes), DWORD, DWORD, DWORD, LPCWSTR
)
_MapViewOfFile = _prototype("kernel32", "MapViewOfFile", c_void_p, HANDLE, DWORD, DWORD, DWORD, ctypes.c_size_t)
_UnmapViewOfFile = _prototype("kernel32", "UnmapViewOfFile", BOOL, c_void_p)
_CloseHandle = _prototype("kernel32", "CloseHandle", BOOL, HANDLE)
_LocalFree = _prototype("kernel32", "LocalFree", c_void_p, c_void_p)
_StringToDescriptor = _prototype(
    "advapi32", "ConvertStringSecurityDescriptorToSecurityDescriptorW", BOOL, LPCWSTR, DWORD, POINTER(c_void_p),
    c_void_p,
)  # fmt: skip

#: The class of the window, and its title.
_PAGEANT: Final = "Pageant"
#: What tells PuTTY's messages from those of other programs.
_MAGIC: Final = 0x804E50BA
_MAX_REPLY: Final = MAX_FRAME - 4
#: Windows that are looked at: each belongs to a program, and people run few.
_MOST: Final = 64
#: Names for the memory that are tried: nobody can know the first one.
_NAMES: Final = 3

_MESSAGE_ONLY, _WM_COPYDATA, _BLOCK, _ERROR_ON_EXIT, _LONGEST = -3, 0x4A, 0x01, 0x20, 0x7FFFFFFF
_QUERY_LIMITED_INFORMATION, _PAGE_READWRITE, _MAP_WRITE = 0x1000, 0x04, 0x02
_ACCESS_DENIED, _INVALID_HANDLE, _ALREADY_EXISTS, _TIMEOUT = 5, 6, 183, 1460


def windows() -> list[tuple[int, int]]:
    """The windows that look like Pageant's, and the process of each: those on the desktop from the top down, then those
    for messages alone, as gpg-agent's is.
    """
    found: list[tuple[int, int]] = []
    for parent in (_GetDesktopWindow(), _MESSAGE_ONLY):
        window = None
        while len(found) < _MOST and (window := _FindWindowEx(parent, window, _PAGEANT, _PAGEANT)):
            if pid := _process(window):
                found.append((window, pid))
    return found


def _process(window: int) -> int:
    """The process of a window; 0 when that is gone."""
    pid = DWORD()
    return pid.value if _GetWindowThreadProcessId(window, byref(pid)) else 0


class Target:
    """A window of process `pid`, and what requests to it need. Nobody else gets that number while this exists.

    Raises OSError when the process is gone, or not to be looked at.
    """

    _descriptor, _handle = c_void_p(), 0

    def __init__(self, window: int, pid: int) -> None:
        self._window = window
        self.pid = pid
        me = winpipe.user()
        # The user is named as the owner, with administrator's rights or without: what an administrator makes belongs
        # to the administrators otherwise, and Pageant refuses it.
        self._descriptor = c_void_p()
        if not _StringToDescriptor(f"O:{me}D:P(A;;GA;;;{me})", 1, byref(self._descriptor), None):
            raise _failure()
        self._attributes = _SecurityAttributes(ctypes.sizeof(_SecurityAttributes), self._descriptor, False)
        self._handle = _OpenProcess(_QUERY_LIMITED_INFORMATION, False, pid)
        if not self._handle:
            raise _failure()

    def __del__(self) -> None:
        """Give everything back, once neither a connection nor its thread has this any more."""
        _LocalFree(self._descriptor)
        if self._handle:
            _CloseHandle(self._handle)

    def ask(self, request: bytes, seconds: float | None, give: Callable[[bytes], object]) -> None:
        """Send `request`, a whole frame, and `give` the reply to it, within so many seconds; this blocks, even Ctrl-C.

        Raises TimeoutError, ConnectionResetError, OSError; `BadReply` for a length that cannot be. An agent that still
        works after that does so in its own view of the memory, which lasts as long as it wants.
        """
        handle, name = self._memory()
        try:
            view = _MapViewOfFile(handle, _MAP_WRITE, 0, 0, MAX_FRAME)
            if not view:
                raise _failure()
            try:
                ctypes.memmove(view, request, len(request))
                self._send(name, seconds)
                head = ctypes.string_at(view, 4)
                size = int.from_bytes(head, "big")
                if not 0 < size <= _MAX_REPLY:
                    raise BadReply(f"Pageant's window announced a reply of {size} bytes; it can be 1 to {_MAX_REPLY}")
                give(head + ctypes.string_at(view + 4, size))  # before the rest, which nobody need wait for
            finally:
                _UnmapViewOfFile(view)
        finally:
            _CloseHandle(handle)

    def _memory(self) -> tuple[int, bytes]:
        """New shared memory of the user's alone, and its name."""
        for _ in range(_NAMES):
            name = f"PageantRequest{urandom(16).hex()}"
            ctypes.set_last_error(0)
            handle = _CreateFileMapping(-1, byref(self._attributes), _PAGE_READWRITE, 0, MAX_FRAME, name)
            code = ctypes.get_last_error()
            if handle and code != _ALREADY_EXISTS:
                return handle, name.encode()
            if handle:
                _CloseHandle(handle)
            elif code not in (_ACCESS_DENIED, _INVALID_HANDLE):  # as for a name that means something else already
                raise _failure()
        raise FileExistsError(errno.EEXIST, "somebody takes the names of our requests before us", name)

    def _send(self, name: bytes, seconds: float | None) -> None:
        """Have the window work on what lies in the memory of that name.

        Without SMTO_ABORTIFHUNG: to Windows a window hangs that takes no messages for five seconds, as Pageant's does
        while it asks for a passphrase. The timeout holds all the same for one that does take messages meanwhile.
        """
        if _process(self._window) != self.pid:
            raise ConnectionResetError(errno.ECONNRESET, "its window is gone")
        copied = _CopyData(_MAGIC, len(name) + 1, name)
        answer = ctypes.c_ssize_t()
        wait = _LONGEST if seconds is None else min(int(seconds * 1000 + 0.999), _LONGEST)
        flags, begun = _BLOCK | _ERROR_ON_EXIT, monotonic()
        if not _SendMessageTimeout(self._window, _WM_COPYDATA, 0, byref(copied), flags, wait, byref(answer)):
            if ctypes.get_last_error() == _TIMEOUT or monotonic() - begun >= wait / 1000:
                raise TimeoutError(errno.ETIMEDOUT, "the agent did not answer in time")
            raise ConnectionResetError(errno.ECONNRESET, "its window went away, or may not be sent to")
        if answer.value <= 0:
            raise ConnectionResetError(errno.ECONNRESET, "its window took the request, and gave no answer")


def _failure() -> OSError:
    """What the last function that failed said."""
    return ctypes.WinError(ctypes.get_last_error())
