"""A mutex of Windows' by its name, for this user alone."""

from __future__ import annotations

import ctypes
import sys
from contextlib import contextmanager
from ctypes import POINTER, byref, c_void_p, wintypes

from .. import winpipe
from ..errors import Error
from . import _copydata

assert sys.platform == "win32", "Windows only: callers ask first"

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Final

_CreateMutex = _copydata._prototype(
    "kernel32", "CreateMutexW", wintypes.HANDLE, POINTER(_copydata._SecurityAttributes), wintypes.BOOL, wintypes.LPCWSTR
)
_WaitForSingleObject = _copydata._prototype(
    "kernel32", "WaitForSingleObject", wintypes.DWORD, wintypes.HANDLE, wintypes.DWORD
)
_ReleaseMutex = _copydata._prototype("kernel32", "ReleaseMutex", wintypes.BOOL, wintypes.HANDLE)
_CloseHandle = _copydata._prototype("kernel32", "CloseHandle", wintypes.BOOL, wintypes.HANDLE)

#: Milliseconds that another one is waited for: it holds the mutex while it starts, and no longer.
_WAIT: Final = 10_000
_OURS: Final = (0, 0x80)  # WAIT_OBJECT_0; WAIT_ABANDONED: whoever had it has ended


@contextmanager
def held(name: str) -> Iterator[None]:
    """Have the mutex of that name for the length of a `with`. Raises `Error` where another process keeps it."""
    me, descriptor = winpipe.user(), c_void_p()
    if not _copydata._StringToDescriptor(f"O:{me}D:P(A;;GA;;;{me})", 1, byref(descriptor), None):
        raise ctypes.WinError(ctypes.get_last_error())
    try:
        attributes = _copydata._SecurityAttributes(ctypes.sizeof(_copydata._SecurityAttributes), descriptor, False)
        handle = _CreateMutex(byref(attributes), False, name)
        if not handle:
            raise _taken(name)
    finally:
        _copydata._LocalFree(descriptor)
    try:
        if _WaitForSingleObject(handle, _WAIT) not in _OURS:
            raise _taken(name)
        try:
            yield
        finally:
            _ReleaseMutex(handle)
    finally:
        _CloseHandle(handle)


def _taken(name: str) -> Error:
    return Error(f"another program keeps {name}, which says that a Pageant is starting", "end it, or try again")
