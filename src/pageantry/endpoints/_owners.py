"""What Windows says of whom files belong to, and which processes listen on ports."""

from __future__ import annotations

import ctypes
import sys
from ctypes import POINTER, byref, c_void_p, wintypes

assert sys.platform == "win32", "Windows only: callers ask first"

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

BOOL, DWORD, HANDLE = wintypes.BOOL, wintypes.DWORD, wintypes.HANDLE

_kernel32 = ctypes.WinDLL("kernel32", use_last_error=True)
_advapi32 = ctypes.WinDLL("advapi32", use_last_error=True)
_iphlpapi = ctypes.WinDLL("iphlpapi", use_last_error=True)


def _prototype(dll: ctypes.WinDLL, name: str, result: Any, *arguments: Any) -> Any:
    function = getattr(dll, name)
    function.restype, function.argtypes = result, arguments
    return function


_CreateFile = _prototype(
    _kernel32, "CreateFileW", HANDLE, wintypes.LPCWSTR, DWORD, DWORD, c_void_p, DWORD, DWORD, HANDLE
)
_CloseHandle = _prototype(_kernel32, "CloseHandle", BOOL, HANDLE)
_LocalFree = _prototype(_kernel32, "LocalFree", c_void_p, c_void_p)
_SecurityInfo = _prototype(
    _advapi32, "GetSecurityInfo", DWORD, HANDLE, ctypes.c_int, DWORD, POINTER(c_void_p), *(c_void_p,) * 3,
    POINTER(c_void_p),
)  # fmt: skip
_SidToString = _prototype(_advapi32, "ConvertSidToStringSidW", BOOL, c_void_p, POINTER(c_void_p))
_ExtendedTcpTable = _prototype(
    _iphlpapi, "GetExtendedTcpTable", DWORD, c_void_p, POINTER(DWORD), BOOL, DWORD, ctypes.c_int, DWORD
)

_READ_CONTROL, _SHARE_ALL, _OPEN_EXISTING = 0x20000, 7, 3
_BACKUP_SEMANTICS, _OPEN_REPARSE_POINT = 0x02000000, 0x00200000
_SE_FILE_OBJECT, _OWNER_INFORMATION = 1, 1
_INVALID = c_void_p(-1).value
_LISTENERS, _CONNECTIONS = 3, 4  # TCP_TABLE_OWNER_PID_LISTENER, TCP_TABLE_OWNER_PID_CONNECTIONS
_AF_INET, _INSUFFICIENT_BUFFER = 2, 122


def owner(path: str) -> str:
    """The SID of the owner of the file or socket at `path`, which is not opened to be used. Raises OSError."""
    flags = _BACKUP_SEMANTICS | _OPEN_REPARSE_POINT  # a socket is such a point, and cannot be opened otherwise
    handle = _CreateFile(path, _READ_CONTROL, _SHARE_ALL, None, _OPEN_EXISTING, flags, None)
    if handle == _INVALID:
        raise OSError(None, ctypes.FormatError(code := ctypes.get_last_error()).strip(), path, code)
    try:
        return owner_of(handle)
    finally:
        _CloseHandle(handle)


def owner_of(handle: int) -> str:
    """The SID of the owner of a file that is open. Raises OSError."""
    sid, descriptor, text = c_void_p(), c_void_p(), c_void_p()
    code = _SecurityInfo(handle, _SE_FILE_OBJECT, _OWNER_INFORMATION, byref(sid), None, None, None, byref(descriptor))
    if code:
        raise ctypes.WinError(code)
    try:
        if not _SidToString(sid, byref(text)):
            raise ctypes.WinError(ctypes.get_last_error())
        return ctypes.wstring_at(text.value or 0)
    finally:
        _LocalFree(text)
        _LocalFree(descriptor)


def tcp_listeners(family: int) -> bytes:
    """The table of the ports that processes listen on (MIB_TCPTABLE_OWNER_PID, or that of IPv6). Raises OSError."""
    return _tcp_table(family, _LISTENERS)


def tcp_connections() -> bytes:
    """The table of the connections that processes have by IPv4 (MIB_TCPTABLE_OWNER_PID). Raises OSError."""
    return _tcp_table(_AF_INET, _CONNECTIONS)


def _tcp_table(family: int, what: int) -> bytes:
    size = DWORD(4096)
    for _ in range(10):  # it may grow between two calls
        table = ctypes.create_string_buffer(size.value)
        code = _ExtendedTcpTable(table, byref(size), False, family, what, 0)
        if code != _INSUFFICIENT_BUFFER:
            break
    if code:
        raise ctypes.WinError(code)
    return table.raw
