"""What is behind a message to Pageant's window: memory with a request, whose that is, and the thread that asks."""

from __future__ import annotations

import ctypes
import sys
import threading
from ctypes import POINTER, byref, c_size_t, c_void_p, wintypes

from .. import winpipe
from ..messages import MAX_MESSAGE, Failure, frame
from . import _copydata

assert sys.platform == "win32", "Windows only: callers ask first"

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Final

BOOL, DWORD, HANDLE = wintypes.BOOL, wintypes.DWORD, wintypes.HANDLE
_prototype = _copydata._prototype


class _Region(ctypes.Structure):
    """MEMORY_BASIC_INFORMATION."""

    _fields_ = (
        ("BaseAddress", c_void_p),
        ("AllocationBase", c_void_p),
        ("AllocationProtect", c_size_t),  # a DWORD, and what aligns the next one
        ("RegionSize", c_size_t),
        ("State", DWORD),
        ("Protect", DWORD),
        ("Type", DWORD),
    )


_OpenFileMapping = _prototype("kernel32", "OpenFileMappingA", HANDLE, DWORD, BOOL, wintypes.LPCSTR)
_MapViewOfFile = _prototype("kernel32", "MapViewOfFile", c_void_p, HANDLE, DWORD, DWORD, DWORD, c_size_t)
_UnmapViewOfFile = _prototype("kernel32", "UnmapViewOfFile", BOOL, c_void_p)
_VirtualQuery = _prototype("kernel32", "VirtualQuery", c_size_t, c_void_p, POINTER(_Region), c_size_t)
_CloseHandle = _prototype("kernel32", "CloseHandle", BOOL, HANDLE)
_OpenThread = _prototype("kernel32", "OpenThread", HANDLE, DWORD, BOOL, DWORD)
_GetProcessIdOfThread = _prototype("kernel32", "GetProcessIdOfThread", DWORD, HANDLE)
_OpenProcess = _prototype("kernel32", "OpenProcess", HANDLE, DWORD, BOOL, DWORD)
_GetCurrentProcess = _prototype("kernel32", "GetCurrentProcess", HANDLE)
_WaitForSingleObject = _prototype("kernel32", "WaitForSingleObject", DWORD, HANDLE, DWORD)
_OpenProcessToken = _prototype("advapi32", "OpenProcessToken", BOOL, HANDLE, DWORD, POINTER(HANDLE))
_TokenInformation = _prototype(
    "advapi32", "GetTokenInformation", BOOL, HANDLE, ctypes.c_int, c_void_p, DWORD, POINTER(DWORD)
)
_ObjectSecurity = _prototype(
    "advapi32", "GetKernelObjectSecurity", BOOL, HANDLE, DWORD, c_void_p, DWORD, POINTER(DWORD)
)
_DescriptorOwner = _prototype(
    "advapi32", "GetSecurityDescriptorOwner", BOOL, c_void_p, POINTER(c_void_p), POINTER(BOOL)
)
_GetLengthSid = _prototype("advapi32", "GetLengthSid", DWORD, c_void_p)

#: Bytes of the smallest request, a length and a type.
_LEAST: Final = 5
_FAILURE: Final = frame(Failure().payload())

_MAP_WRITE, _MAP_READ, _READ_CONTROL = 2, 4, 0x20000
_MEM_COMMIT, _PAGE_READWRITE = 0x1000, 4
_SYNCHRONIZE, _THREAD_QUERY, _PROCESS_QUERY, _TOKEN_QUERY = 0x100000, 0x800, 0x1000, 8  # the limited ones
_OWNER_INFORMATION, _TOKEN_USER, _TOKEN_OWNER = 1, 1, 4
_FILE_NOT_FOUND = 2


class Memory:
    """The memory of that name, which has to belong to one of `owners`. Raises OSError where it cannot be used.

    Whoever has it may change it at any time, so nothing in it is looked at twice.
    """

    def __init__(self, name: bytes, owners: set[bytes]) -> None:
        handle = _checked(_OpenFileMapping(_MAP_READ | _MAP_WRITE | _READ_CONTROL, False, name))
        try:
            if _owner(handle) not in owners:
                raise PermissionError("it is another user's")
            self._view: int = _checked(_MapViewOfFile(handle, _MAP_READ | _MAP_WRITE, 0, 0, 0))
        finally:
            _CloseHandle(handle)  # so that the name is gone when its client is, see `left`
        self._name = name
        self._size = self._usable()

    def _usable(self) -> int:
        """Bytes of the view that are there; 0 where they are no more than promised, and to read them an error."""
        region = _Region()
        found = _VirtualQuery(self._view, byref(region), ctypes.sizeof(region))
        usable = found and region.State == _MEM_COMMIT and region.Protect == _PAGE_READWRITE
        return int(region.RegionSize) if usable else 0

    def request(self) -> bytes | None:
        """The request, a whole frame; None where its length cannot be. Raises OSError for memory too small for any."""
        if self._size < _LEAST:
            raise OSError("no request fits into it")
        head = self._read(0, 4)
        size = int.from_bytes(head, "big")
        return head + self._read(4, size) if 0 < size <= min(self._size - 4, MAX_MESSAGE) else None

    def _read(self, at: int, size: int) -> bytes:
        return ctypes.string_at(self._view + at, size)

    def put(self, reply: bytes) -> None:
        """Put a reply, a whole frame, where the request was; FAILURE where it does not fit."""
        if len(reply) > self._size:
            reply = _FAILURE
        ctypes.memmove(self._view, reply, len(reply))

    def left(self) -> bool:
        """Whether its client has let go of it: it has ended, or does not wait any longer. From any thread."""
        handle = _OpenFileMapping(_MAP_READ, False, self._name)
        if handle:
            _CloseHandle(handle)
        return not handle and ctypes.get_last_error() == _FILE_NOT_FOUND

    def close(self) -> None:
        """Let go of it."""
        _UnmapViewOfFile(self._view)


class Thread:
    """A thread of this user's, by its number, and its process as `peer`. The numbers stay theirs until this is closed.

    Raises OSError where there is none, or Windows does not let us know.
    """

    def __init__(self, number: int) -> None:
        self._gate = threading.Lock()
        self._handle = self._process = 0
        try:
            self._handle = _checked(_OpenThread(_SYNCHRONIZE | _THREAD_QUERY, False, number))
            pid = _checked(_GetProcessIdOfThread(self._handle))
            self._process = _checked(_OpenProcess(_SYNCHRONIZE | _PROCESS_QUERY, False, pid))
            sid = winpipe.user(pid)
            if sid != winpipe.user():
                raise PermissionError("it is another user's")
        except BaseException:
            self.close()
            raise
        self.peer = winpipe.Peer(pid, sid)

    def ended(self) -> bool:
        """Whether it has, or this is closed."""
        with self._gate:
            return not self._handle or not _WaitForSingleObject(self._handle, 0)

    def process_ended(self) -> bool:
        """The same of its process."""
        with self._gate:
            return not self._process or not _WaitForSingleObject(self._process, 0)

    def close(self) -> None:
        """Let go of both; the second time does nothing."""
        with self._gate:
            for handle in filter(None, (self._handle, self._process)):
                _CloseHandle(handle)
            self._handle = self._process = 0


def owners() -> set[bytes]:
    """To whom the memory of this user's programs belongs: the user, or whom this process makes things for by default.

    For an administrator who acts as one, that is the administrators. They are SIDs as Windows has them in memory.
    """
    token = HANDLE()
    _checked(_OpenProcessToken(_GetCurrentProcess(), _TOKEN_QUERY, byref(token)))
    try:
        return {_of_token(token, _TOKEN_USER), _of_token(token, _TOKEN_OWNER)}
    finally:
        _CloseHandle(token)


def _of_token(token: wintypes.HANDLE, kind: int) -> bytes:
    """The SID that a token has as its user, or as its owner."""
    buffer = ctypes.create_string_buffer(256)  # the SID's address, and then the SID (68 at most)
    _checked(_TokenInformation(token, kind, buffer, len(buffer), byref(DWORD())))
    return _sid(_checked(c_void_p.from_buffer(buffer).value))


def _owner(handle: int) -> bytes:
    """To whom an object of the kernel belongs; empty where that is nobody."""
    sid, descriptor = c_void_p(), ctypes.create_string_buffer(256)  # 20 bytes, then the SID
    _checked(_ObjectSecurity(handle, _OWNER_INFORMATION, descriptor, len(descriptor), byref(DWORD())))
    _checked(_DescriptorOwner(descriptor, byref(sid), byref(BOOL())))
    return _sid(sid.value)


def _sid(address: int | None) -> bytes:
    """The SID at this address; empty where there is none."""
    return ctypes.string_at(address, _GetLengthSid(address)) if address else b""


def _checked(result: Any) -> Any:
    """What a function has returned, unless that says that it failed. Raises OSError."""
    if not result:
        raise _copydata._failure()
    return result
