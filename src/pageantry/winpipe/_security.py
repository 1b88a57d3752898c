"""Who is who on Windows: security identifiers, the owner of a pipe, the user behind a process, descriptors."""

from __future__ import annotations

import ctypes
import sys
from ctypes import POINTER, byref, c_void_p, wintypes

assert sys.platform == "win32", "Windows only: callers ask first"

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

BOOL, DWORD, HANDLE, LPWSTR = wintypes.BOOL, wintypes.DWORD, wintypes.HANDLE, wintypes.LPWSTR

_kernel32 = ctypes.WinDLL("kernel32", use_last_error=True)
_advapi32 = ctypes.WinDLL("advapi32", use_last_error=True)


def _prototype(dll: ctypes.WinDLL, name: str, result: Any, *arguments: Any) -> Any:
    function = getattr(dll, name)
    function.restype, function.argtypes = result, arguments
    return function


_CloseHandle = _prototype(_kernel32, "CloseHandle", BOOL, HANDLE)
_LocalFree = _prototype(_kernel32, "LocalFree", c_void_p, c_void_p)
_GetCurrentProcess = _prototype(_kernel32, "GetCurrentProcess", HANDLE)
_GetCurrentThread = _prototype(_kernel32, "GetCurrentThread", HANDLE)
_OpenProcess = _prototype(_kernel32, "OpenProcess", HANDLE, DWORD, BOOL, DWORD)
_ImageName = _prototype(_kernel32, "QueryFullProcessImageNameW", BOOL, HANDLE, DWORD, LPWSTR, POINTER(DWORD))
_OpenProcessToken = _prototype(_advapi32, "OpenProcessToken", BOOL, HANDLE, DWORD, POINTER(HANDLE))
_OpenThreadToken = _prototype(_advapi32, "OpenThreadToken", BOOL, HANDLE, DWORD, BOOL, POINTER(HANDLE))
_TokenInformation = _prototype(
    _advapi32, "GetTokenInformation", BOOL, HANDLE, ctypes.c_int, c_void_p, DWORD, POINTER(DWORD)
)
_SecurityInfo = _prototype(
    _advapi32, "GetSecurityInfo", DWORD, HANDLE, ctypes.c_int, DWORD, POINTER(c_void_p), *(c_void_p,) * 3,
    POINTER(c_void_p),
)  # fmt: skip
_SidToString = _prototype(_advapi32, "ConvertSidToStringSidW", BOOL, c_void_p, POINTER(c_void_p))
_StringToSid = _prototype(_advapi32, "ConvertStringSidToSidW", BOOL, wintypes.LPCWSTR, POINTER(c_void_p))
_StringToDescriptor = _prototype(
    _advapi32, "ConvertStringSecurityDescriptorToSecurityDescriptorW", BOOL, wintypes.LPCWSTR, DWORD,
    POINTER(c_void_p), c_void_p,
)  # fmt: skip
_LookupAccountSid = _prototype(
    _advapi32, "LookupAccountSidW", BOOL, LPWSTR, c_void_p, LPWSTR, POINTER(DWORD), LPWSTR, POINTER(DWORD),
    POINTER(DWORD),
)  # fmt: skip
_Impersonate = _prototype(_advapi32, "ImpersonateNamedPipeClient", BOOL, HANDLE)
_RevertToSelf = _prototype(_advapi32, "RevertToSelf", BOOL)

_TOKEN_QUERY, _TOKEN_USER, _OWNER_INFORMATION, _SE_KERNEL_OBJECT = 8, 1, 1, 6
_QUERY_LIMITED_INFORMATION = 0x1000
_LONGEST_PATH = 32768


def _failure() -> OSError:
    return ctypes.WinError(ctypes.get_last_error())


def _text(sid: int | None) -> str:
    """The SID at this address as people write it."""
    text = c_void_p()
    if not _SidToString(sid, byref(text)):
        raise _failure()
    try:
        return ctypes.wstring_at(text.value or 0)
    finally:
        _LocalFree(text)


def _token_user(token: wintypes.HANDLE) -> str:
    """The user of a token, which is closed."""
    try:
        buffer = ctypes.create_string_buffer(256)  # TOKEN_USER: the SID's address, attributes, the SID (68 at most)
        if not _TokenInformation(token, _TOKEN_USER, buffer, len(buffer), byref(DWORD())):
            raise _failure()
        return _text(c_void_p.from_buffer(buffer).value)
    finally:
        _CloseHandle(token)


def user(pid: int | None = None) -> str:
    """The user of this process, or of process `pid`: never the group that its new objects belong to, as an
    administrator's do. Raises OSError.
    """
    token = HANDLE()
    process = _GetCurrentProcess() if pid is None else _OpenProcess(_QUERY_LIMITED_INFORMATION, False, pid)
    if not process:
        raise _failure()
    try:
        if not _OpenProcessToken(process, _TOKEN_QUERY, byref(token)):
            raise _failure()
    finally:
        if pid is not None:
            _CloseHandle(process)
    return _token_user(token)


def owner(handle: int) -> str:
    """Whom the pipe belongs to; empty when it belongs to nobody."""
    sid, descriptor = c_void_p(), c_void_p()
    code = _SecurityInfo(handle, _SE_KERNEL_OBJECT, _OWNER_INFORMATION, byref(sid), None, None, None, byref(descriptor))
    if code:
        raise ctypes.WinError(code)
    try:
        return _text(sid.value) if sid.value else ""
    finally:
        _LocalFree(descriptor)


def client(handle: int, pid: int | None) -> str | None:
    """The user at the other end of our instance of a pipe: by the kernel's word, else that of process `pid`."""
    token = HANDLE()
    acting: int | None = None  # whether this thread acts as the client: an interrupt may come before we learn it
    try:
        # A client that does not limit what we may do in its name can be asked about once something was read from it.
        acting = _Impersonate(handle)
        opened = acting and _OpenThreadToken(_GetCurrentThread(), _TOKEN_QUERY, True, byref(token))
    finally:
        if acting != 0 and not _RevertToSelf():
            raise SystemError("this thread cannot stop acting as the client of a pipe")
    try:
        if not acting:
            return user(pid) if pid else None
        return _token_user(token) if opened else None
    except OSError:
        return None


def account(sid: str) -> str:
    """DOMAIN\\name of a SID, or the SID where it has none that can be found."""
    binary = c_void_p()
    if not _StringToSid(sid, byref(binary)):
        return sid
    try:
        name, domain = ctypes.create_unicode_buffer(257), ctypes.create_unicode_buffer(257)
        sizes = DWORD(257), DWORD(257)
        if not _LookupAccountSid(None, binary, name, byref(sizes[0]), domain, byref(sizes[1]), byref(DWORD())):
            return sid
        return f"{domain.value}\\{name.value}" if domain.value else name.value
    finally:
        _LocalFree(binary)


def program(pid: int) -> str:
    """The path of the program that a process runs; empty where we may not know."""
    process = _OpenProcess(_QUERY_LIMITED_INFORMATION, False, pid)
    if not process:
        return ""
    try:
        size = DWORD(_LONGEST_PATH)
        path = ctypes.create_unicode_buffer(size.value)
        return path.value if _ImageName(process, 0, path, byref(size)) else ""
    finally:
        _CloseHandle(process)


class Descriptor:
    """A security descriptor for a pipe of ours: everything for the user, nothing for others but for those who
    may connect. `address` is where it is.
    """

    def __init__(self, access: Iterable[str], client_access: int) -> None:
        me = user()
        entries = "".join(f"(A;;{client_access:#x};;;{sid})" for sid in access)
        memory = c_void_p()
        if not _StringToDescriptor(f"O:{me}D:P(A;;GA;;;{me}){entries}", 1, byref(memory), None):
            raise _failure()
        self.address = memory.value or 0

    def close(self) -> None:
        """Give its memory back."""
        address, self.address = self.address, 0
        _LocalFree(address)
