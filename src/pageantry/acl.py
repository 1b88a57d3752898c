"""Who may change a file, on Windows: access lists for the user alone, and a look at those that are there.

What lies in a profile is private by inheritance. What PAGEANTRY_HOME names, or an export goes to, need not be: on most
disks every user may change whatever nobody has taken care of.
"""

from __future__ import annotations

import ctypes
import msvcrt
import os
import sys
from contextlib import contextmanager
from ctypes import POINTER, byref, c_void_p, wintypes

from . import winpipe

assert sys.platform == "win32", "Windows only: callers ask first"

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any, Final

BOOL, DWORD, HANDLE, LPCWSTR = wintypes.BOOL, wintypes.DWORD, wintypes.HANDLE, wintypes.LPCWSTR


class _SecurityAttributes(ctypes.Structure):
    """SECURITY_ATTRIBUTES."""

    _fields_ = (("nLength", DWORD), ("lpSecurityDescriptor", c_void_p), ("bInheritHandle", BOOL))


class _AccessList(ctypes.Structure):
    """ACL."""

    _fields_ = (
        ("AclRevision", wintypes.BYTE),
        ("Sbz1", wintypes.BYTE),
        ("AclSize", wintypes.WORD),
        ("AceCount", wintypes.WORD),
        ("Sbz2", wintypes.WORD),
    )


class _Entry(ctypes.Structure):
    """ACCESS_ALLOWED_ACE, at whose end the SID begins."""

    _fields_ = (
        ("AceType", ctypes.c_ubyte),
        ("AceFlags", ctypes.c_ubyte),
        ("AceSize", wintypes.WORD),
        ("Mask", DWORD),
        ("SidStart", DWORD),
    )


_kernel32 = ctypes.WinDLL("kernel32", use_last_error=True)
_advapi32 = ctypes.WinDLL("advapi32", use_last_error=True)


def _prototype(dll: ctypes.WinDLL, name: str, result: Any, *arguments: Any) -> Any:
    function = getattr(dll, name)
    function.restype, function.argtypes = result, arguments
    return function


_CreateDirectory = _prototype(_kernel32, "CreateDirectoryW", BOOL, LPCWSTR, POINTER(_SecurityAttributes))
_CreateFile = _prototype(
    _kernel32, "CreateFileW", HANDLE, LPCWSTR, DWORD, DWORD, POINTER(_SecurityAttributes), DWORD, DWORD, HANDLE
)
_CloseHandle = _prototype(_kernel32, "CloseHandle", BOOL, HANDLE)
_LocalFree = _prototype(_kernel32, "LocalFree", c_void_p, c_void_p)
_NamedSecurityInfo = _prototype(
    _advapi32, "GetNamedSecurityInfoW", DWORD, LPCWSTR, ctypes.c_int, DWORD, POINTER(c_void_p), c_void_p,
    POINTER(c_void_p), c_void_p, POINTER(c_void_p),
)  # fmt: skip
_SetSecurity = _prototype(_advapi32, "SetKernelObjectSecurity", BOOL, HANDLE, DWORD, c_void_p)
_GetAce = _prototype(_advapi32, "GetAce", BOOL, c_void_p, DWORD, POINTER(POINTER(_Entry)))
_SidToString = _prototype(_advapi32, "ConvertSidToStringSidW", BOOL, c_void_p, POINTER(c_void_p))
_StringToDescriptor = _prototype(
    _advapi32, "ConvertStringSecurityDescriptorToSecurityDescriptorW", BOOL, LPCWSTR, DWORD, POINTER(c_void_p),
    c_void_p,
)  # fmt: skip

_SE_FILE_OBJECT, _OWNER, _DACL = 1, 1, 4
_GENERIC_WRITE, _CREATE_NEW, _INVALID = 0x40000000, 1, c_void_p(-1).value
#: FILE_GENERIC_WRITE without the right to change what is there, and FILE_READ_ATTRIBUTES.
_APPEND, _SHARE_ALL, _OPEN_ALWAYS, _OPEN_REPARSE_POINT = 0x120194, 7, 4, 0x200000
#: READ_CONTROL, WRITE_DAC and WRITE_OWNER.
_WRITE_RIGHTS, _OPEN_EXISTING, _PROTECTED_DACL = 0xE0000, 3, 0x80000000
_ALLOWED, _ALLOWED_CALLBACK, _INHERIT_ONLY = 0, 9, 8
_EVERYONE = "S-1-1-0"

#: To write, to append (in a folder: to make files and folders), to delete it or what is in it, to give oneself these
#: rights; and the two generic rights that stand for them.
_CHANGES: Final = 0x2 | 0x4 | 0x40 | 0x10000 | 0x40000 | 0x80000 | 0x10000000 | 0x40000000

#: Who can do everything on this computer anyway, and those whom an access list means when it says "the owner".
_ALMIGHTY: Final = (
    winpipe.SYSTEM,
    winpipe.ADMINISTRATORS,
    "S-1-5-80-956008885-3418522649-1831038044-1853292631-2271478464",  # TrustedInstaller
    "S-1-3-0",
    "S-1-3-4",
)


def make_folder(path: str) -> None:
    """Make a folder for the user alone, and so for what will be in it. Raises OSError."""
    with _private("OICI") as security:
        if not _CreateDirectory(path, byref(security)):
            raise _failure(path)


def create(path: str, attributes: int = 0) -> int:
    """Create a file for the user alone; its descriptor, to write to. Raises OSError.

    `attributes` are such as `stat.FILE_ATTRIBUTE_SYSTEM`.
    """
    with _private("") as security:
        handle = _CreateFile(path, _GENERIC_WRITE, 0, byref(security), _CREATE_NEW, attributes, None)
        if handle == _INVALID:
            raise _failure(path)
    return msvcrt.open_osfhandle(handle, os.O_WRONLY)


def append(path: str) -> int:
    """Open a file to append to, and create it for the user alone where there is none; its descriptor. Raises OSError.

    Others may read it, write to it and rename it meanwhile. A symbolic link is opened itself.
    """
    with _private("") as security:
        handle = _CreateFile(path, _APPEND, _SHARE_ALL, byref(security), _OPEN_ALWAYS, _OPEN_REPARSE_POINT, None)
        if handle == _INVALID:
            raise _failure(path)
    return msvcrt.open_osfhandle(handle, os.O_WRONLY | os.O_APPEND)


def restrict(path: str) -> None:
    """Have the file or socket at `path`, whoever may use it by inheritance, be the user's alone. Raises OSError."""
    with _private("") as security:
        handle = _CreateFile(path, _WRITE_RIGHTS, _SHARE_ALL, None, _OPEN_EXISTING, _OPEN_REPARSE_POINT, None)
        if handle == _INVALID:
            raise _failure(path)
        try:
            if not _SetSecurity(handle, _OWNER | _DACL | _PROTECTED_DACL, security.lpSecurityDescriptor):
                raise _failure(path)
        finally:
            _CloseHandle(handle)


def others(path: str) -> list[str]:
    """The SIDs of those who may change the file or folder at `path`, but are neither the user nor almighty here.

    Its owner is one of them, if that is another, as he can give himself any right; everyone is, on a disk without
    access lists. Raises OSError.
    """
    owner, entries, descriptor = c_void_p(), c_void_p(), c_void_p()
    code = _NamedSecurityInfo(
        path, _SE_FILE_OBJECT, _OWNER | _DACL, byref(owner), None, byref(entries), None, byref(descriptor)
    )
    if code:
        raise OSError(None, ctypes.FormatError(code).strip(), path, code)
    try:
        found = [
            _text(owner.value) if owner.value else _EVERYONE,
            *(_writers(entries.value) if entries.value else [_EVERYONE]),
        ]
    finally:
        _LocalFree(descriptor)
    me = winpipe.user()
    return [sid for sid in dict.fromkeys(found) if sid not in (me, *_ALMIGHTY) and not _is_domain_admin(sid)]


def _writers(entries: int) -> Iterator[str]:
    """The SIDs that the access list at this address lets change something; what it denies them is not subtracted."""
    for index in range(_AccessList.from_address(entries).AceCount):
        entry = POINTER(_Entry)()
        if not _GetAce(entries, index, byref(entry)):
            raise _failure()
        ace = entry.contents
        if ace.AceType in (_ALLOWED, _ALLOWED_CALLBACK) and not ace.AceFlags & _INHERIT_ONLY and ace.Mask & _CHANGES:
            yield _text(ctypes.addressof(ace) + _Entry.SidStart.offset)


def _is_domain_admin(sid: str) -> bool:
    """Whether it is the group of a domain's administrators, or the one of all its domains'."""
    return sid.startswith("S-1-5-21-") and sid.rpartition("-")[2] in ("512", "519")


@contextmanager
def _private(inheritance: str) -> Iterator[_SecurityAttributes]:
    """What to make a file with, so that only the user may use it, and as everywhere administrators and Windows."""
    me = winpipe.user()
    entries = "".join(f"(A;{inheritance};FA;;;{sid})" for sid in (me, winpipe.SYSTEM, winpipe.ADMINISTRATORS))
    descriptor = c_void_p()
    if not _StringToDescriptor(f"O:{me}D:P{entries}", 1, byref(descriptor), None):
        raise _failure()
    try:
        yield _SecurityAttributes(ctypes.sizeof(_SecurityAttributes), descriptor, False)
    finally:
        _LocalFree(descriptor)


def _text(sid: int | None) -> str:
    text = c_void_p()
    if not _SidToString(sid, byref(text)):
        raise _failure()
    try:
        return ctypes.wstring_at(text.value or 0)
    finally:
        _LocalFree(text)


def _failure(path: str | None = None) -> OSError:
    code = ctypes.get_last_error()
    return OSError(None, ctypes.FormatError(code).strip(), path, code)
