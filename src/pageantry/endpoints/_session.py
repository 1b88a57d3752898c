"""What Windows says of the user and the session: the functions that Pageant's name needs.

Where Windows has no answer or a library is missing, that is None, or the block as it was: PuTTY goes on then, too.
"""

from __future__ import annotations

import ctypes
import sys
from ctypes import POINTER, byref, create_string_buffer, wintypes

assert sys.platform == "win32", "Windows only: callers ask first"

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

_USER_PRINCIPAL = 8
_CROSS_PROCESS = 1
_ANSI = 0  # CP_ACP
_SYSTEM32 = 0x800  # LOAD_LIBRARY_SEARCH_SYSTEM32: no other directory may have a say


def _function(library: str, name: str, result: Any, *arguments: Any) -> Any:
    """A function of a library, or None where there is no such thing."""
    try:
        found = getattr(ctypes.WinDLL(library, winmode=_SYSTEM32, use_last_error=True), name)
    except (OSError, AttributeError):
        return None
    found.restype, found.argtypes = result, arguments
    return found


def principal() -> bytes | None:
    """user@domain, in the system's code page; None for accounts of this computer alone."""
    ask = _function(
        "secur32.dll", "GetUserNameExA", wintypes.BOOLEAN, ctypes.c_int, wintypes.LPSTR, POINTER(wintypes.ULONG)
    )
    return ask and _asked(lambda buffer, size: ask(_USER_PRINCIPAL, buffer, byref(size)))


def account() -> bytes | None:
    """The account's name, in the system's code page."""
    ask = _function("advapi32.dll", "GetUserNameA", wintypes.BOOL, wintypes.LPSTR, POINTER(wintypes.DWORD))
    return ask and _asked(lambda buffer, size: ask(buffer, byref(size)))


def _asked(ask: Callable[[Any, wintypes.DWORD], object]) -> bytes | None:
    """What `ask` writes into a buffer, whose size it says first."""
    size = wintypes.DWORD(0)
    ask(None, size)
    if not 0 < size.value <= 65536:
        return None
    buffer = create_string_buffer(size.value)
    return buffer.value if ask(buffer, size) else None


def scrambled(block: bytes) -> bytes:
    """`block`, a multiple of 16 bytes, encrypted with a key that all processes of this session share."""
    protect = _function(
        "crypt32.dll", "CryptProtectMemory", wintypes.BOOL, ctypes.c_void_p, wintypes.DWORD, wintypes.DWORD
    )
    buffer = create_string_buffer(block, len(block))
    if protect and protect(buffer, len(block), _CROSS_PROCESS):
        return buffer.raw
    return block


def text(data: bytes) -> str:
    """What Windows takes `data` for where it is given a name in the system's code page, however broken."""
    convert = _function(
        "kernel32.dll",
        "MultiByteToWideChar",
        ctypes.c_int,
        wintypes.UINT,
        wintypes.DWORD,
        wintypes.LPCSTR,
        ctypes.c_int,
        wintypes.LPWSTR,
        ctypes.c_int,
    )
    buffer = ctypes.create_unicode_buffer(len(data) + 1)
    return ctypes.wstring_at(buffer, convert(_ANSI, 0, data, len(data), buffer, len(data)))
