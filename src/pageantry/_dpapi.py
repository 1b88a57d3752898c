"""Windows' protection of data (DPAPI): sealed with what the user signs in with, open to that user's programs alone.

Nothing is ever asked, and what was changed since cannot be opened. `_ENTROPY` is no secret: it keeps programs that open
whatever they find from opening this.
"""

from __future__ import annotations

import ctypes
import sys
from ctypes import POINTER, byref, c_void_p, wintypes

assert sys.platform == "win32", "Windows only: callers ask first"

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Final

BOOL, DWORD, LPCWSTR = wintypes.BOOL, wintypes.DWORD, wintypes.LPCWSTR


class _Blob(ctypes.Structure):
    """DATA_BLOB."""

    _fields_ = (("cbData", DWORD), ("pbData", c_void_p))


def _prototype(library: str, name: str, result: Any, *arguments: Any) -> Any:
    function = getattr(ctypes.WinDLL(library, use_last_error=True), name)
    function.restype, function.argtypes = result, arguments
    return function


_CryptProtectData = _prototype(
    "crypt32", "CryptProtectData", BOOL, POINTER(_Blob), LPCWSTR, POINTER(_Blob), c_void_p, c_void_p, DWORD,
    POINTER(_Blob),
)  # fmt: skip
_CryptUnprotectData = _prototype(
    "crypt32", "CryptUnprotectData", BOOL, POINTER(_Blob), c_void_p, POINTER(_Blob), c_void_p, c_void_p, DWORD,
    POINTER(_Blob),
)  # fmt: skip
_LocalFree = _prototype("kernel32", "LocalFree", c_void_p, c_void_p)

_UI_FORBIDDEN: Final = 1
_ENTROPY: Final = b"pageantry remembers keys"


def protect(clear: bytes, /) -> bytes:
    """`clear`, sealed for this user on this computer. Raises OSError."""
    return _through(_CryptProtectData, clear)


def unprotect(data: bytes, /) -> bytes:
    """What `protect` has sealed. Raises OSError where that was changed, or by another user."""
    return _through(_CryptUnprotectData, data)


def _through(function: Any, data: bytes) -> bytes:
    result = _Blob()
    # The memory of `data` itself is read, so that nothing in clear is copied.
    if not function(byref(_blob(data)), None, byref(_blob(_ENTROPY)), None, None, _UI_FORBIDDEN, byref(result)):
        raise ctypes.WinError(ctypes.get_last_error())
    try:
        return ctypes.string_at(result.pbData or 0, result.cbData)
    finally:
        ctypes.memset(result.pbData or 0, 0, result.cbData)
        _LocalFree(result.pbData)


def _blob(data: bytes) -> _Blob:
    return _Blob(len(data), ctypes.cast(ctypes.c_char_p(data), c_void_p))
