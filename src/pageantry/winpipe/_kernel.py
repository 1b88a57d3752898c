"""Windows' pipes: the functions of kernel32 that make, open and use them, and a handle with overlapped operations."""

from __future__ import annotations

import ctypes
import sys
from ctypes import POINTER, byref, c_char, c_void_p, wintypes

from ._client import Busy

assert sys.platform == "win32", "Windows only: callers ask first"

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any, Final

BOOL, DWORD, HANDLE, LPCWSTR = wintypes.BOOL, wintypes.DWORD, wintypes.HANDLE, wintypes.LPCWSTR


class Overlapped(ctypes.Structure):
    """OVERLAPPED. A pipe has no offset."""

    _fields_ = (
        ("Internal", c_void_p),
        ("InternalHigh", c_void_p),
        ("Offset", DWORD),
        ("OffsetHigh", DWORD),
        ("hEvent", HANDLE),
    )


class SecurityAttributes(ctypes.Structure):
    """SECURITY_ATTRIBUTES."""

    _fields_ = (("nLength", DWORD), ("lpSecurityDescriptor", c_void_p), ("bInheritHandle", BOOL))


_dll = ctypes.WinDLL("kernel32", use_last_error=True)


def _prototype(name: str, result: Any, *arguments: Any) -> Any:
    function = getattr(_dll, name)
    function.restype, function.argtypes = result, arguments
    return function


_CreateFile = _prototype("CreateFileW", HANDLE, LPCWSTR, DWORD, DWORD, c_void_p, DWORD, DWORD, HANDLE)
_CreateNamedPipe = _prototype(
    "CreateNamedPipeW", HANDLE, LPCWSTR, DWORD, DWORD, DWORD, DWORD, DWORD, DWORD, POINTER(SecurityAttributes)
)
_ConnectNamedPipe = _prototype("ConnectNamedPipe", BOOL, HANDLE, POINTER(Overlapped))
_WaitNamedPipe = _prototype("WaitNamedPipeW", BOOL, LPCWSTR, DWORD)
_FindFirstFile = _prototype("FindFirstFileW", HANDLE, LPCWSTR, POINTER(wintypes.WIN32_FIND_DATAW))
_FindClose = _prototype("FindClose", BOOL, HANDLE)
_ReadFile = _prototype("ReadFile", BOOL, HANDLE, c_void_p, DWORD, c_void_p, POINTER(Overlapped))
_WriteFile = _prototype("WriteFile", BOOL, HANDLE, c_void_p, DWORD, c_void_p, POINTER(Overlapped))
_CancelIoEx = _prototype("CancelIoEx", BOOL, HANDLE, POINTER(Overlapped))
_GetOverlappedResult = _prototype("GetOverlappedResult", BOOL, HANDLE, POINTER(Overlapped), POINTER(DWORD), BOOL)
_PeekNamedPipe = _prototype("PeekNamedPipe", BOOL, HANDLE, c_void_p, DWORD, c_void_p, c_void_p, c_void_p)
_CreateEvent = _prototype("CreateEventW", HANDLE, c_void_p, BOOL, BOOL, LPCWSTR)
_SetEvent = _prototype("SetEvent", BOOL, HANDLE)
_ResetEvent = _prototype("ResetEvent", BOOL, HANDLE)
_WaitForSingleObject = _prototype("WaitForSingleObject", DWORD, HANDLE, DWORD)
_WaitForMultipleObjects = _prototype("WaitForMultipleObjects", DWORD, DWORD, POINTER(HANDLE), BOOL, DWORD)
_CloseHandle = _prototype("CloseHandle", BOOL, HANDLE)
_ServerProcessId = _prototype("GetNamedPipeServerProcessId", BOOL, HANDLE, POINTER(DWORD))
_ClientProcessId = _prototype("GetNamedPipeClientProcessId", BOOL, HANDLE, POINTER(DWORD))

_INVALID = c_void_p(-1).value
_INFINITE = 0xFFFFFFFF
_STATUS_PENDING, _STATUS_CANCELLED = 0x103, 0xC0000120

_FILE_NOT_FOUND, _ACCESS_DENIED, _BAD_DEV_TYPE, _SEM_TIMEOUT = 2, 5, 66, 121
_BROKEN_PIPE, _PIPE_BUSY, _NO_DATA, _PIPE_NOT_CONNECTED, _MORE_DATA = 109, 231, 232, 233, 234
_PIPE_CONNECTED, _HANDLES_CLOSED, _OPERATION_ABORTED, _IO_PENDING, _NOT_FOUND = 535, 676, 995, 997, 1168

_FLAG_OVERLAPPED, _FLAG_FIRST_INSTANCE = 0x40000000, 0x00080000
_ACCESS_DUPLEX, _REJECT_REMOTE_CLIENTS, _UNLIMITED_INSTANCES = 3, 8, 255
_OPEN_EXISTING, _SQOS_PRESENT, _IDENTIFICATION = 3, 0x00100000, 0x00010000

#: To read and to write, without the right to make further instances: what a client needs.
CLIENT_ACCESS: Final = 0x0012019B
#: Bytes that each direction of an instance holds before a writer has to wait.
BUFFER: Final = 64 * 1024


def failure(path: str = "") -> OSError:
    """What the last function that failed said."""
    code = ctypes.get_last_error()
    if code == _PIPE_BUSY:
        return Busy(None, ctypes.FormatError(code).strip(), path, code)
    if code in (_BROKEN_PIPE, _NO_DATA, _PIPE_NOT_CONNECTED):
        return BrokenPipeError(None, ctypes.FormatError(code).strip(), path or None, code)
    return OSError(None, ctypes.FormatError(code).strip(), path or None, code)


class Lane:
    """One direction of a handle: an OVERLAPPED, its event, and what the kernel may use until the operation's end."""

    def __init__(self, handle: int) -> None:
        self.pending = False
        self._told = True  # whether we know how the operation began
        self._handle = handle
        self._overlapped = Overlapped()
        self._reference = byref(self._overlapped)
        self._count = DWORD()
        self._event: int = _CreateEvent(None, True, False, None)
        if not self._event:
            raise failure()
        self._overlapped.hEvent = self._event
        self._used: object = None

    def connect(self) -> bool:
        self._begin(None)
        good = _ConnectNamedPipe(self._handle, self._reference)
        if not good and ctypes.get_last_error() in (_PIPE_CONNECTED, _NO_DATA):
            # A success that the kernel reports as an error, with nothing done on its side: a client was faster than we,
            # and may have left again, but what it wrote is there.
            self._overlapped.Internal = 0
            _SetEvent(self._event)
            return self._started(True)
        return self._started(good)

    def read(self, buffer: memoryview) -> bool:
        memory = c_char.from_buffer(buffer)
        self._begin(memory)
        return self._started(_ReadFile(self._handle, byref(memory), len(buffer), None, self._reference))

    def write(self, data: bytes) -> bool:
        self._begin(data)
        return self._started(_WriteFile(self._handle, data, len(data), None, self._reference))

    def _begin(self, used: object) -> None:
        """Keep `used` alive; and should we be interrupted before the call, it is as if the operation was cancelled."""
        self._overlapped.Internal, self._overlapped.InternalHigh = _STATUS_CANCELLED, 0
        self._used = used
        self._told = False
        self.pending = True

    def _started(self, good: int) -> bool:
        self._told = True
        if good:
            return True
        code = ctypes.get_last_error()
        if code == _IO_PENDING:
            return False
        if code == _MORE_DATA:
            return True
        self.pending, self._used = False, None
        raise failure()

    def wait(self, seconds: float | None) -> bool:
        return bool(_WaitForSingleObject(self._event, _milliseconds(seconds)) == 0)

    def cancel(self) -> None:
        if self.pending:
            _CancelIoEx(self._handle, self._reference)  # which fails when the operation has ended, and so it should

    def result(self) -> int | None:
        # When an interrupt came before we learnt what the call said, and the kernel does not know the operation (any
        # more), and that has not ended either, it had failed at once, and would be waited for in vain.
        unknown = not self._told and not _CancelIoEx(self._handle, self._reference)
        if unknown and self._overlapped.Internal == _STATUS_PENDING:
            self._overlapped.Internal = _STATUS_CANCELLED
        good = _GetOverlappedResult(self._handle, self._reference, self._count, True)
        self.pending, self._used = False, None
        if good or (code := ctypes.get_last_error()) == _MORE_DATA:
            return self._count.value
        if code == _OPERATION_ABORTED:
            return None
        raise failure()

    def close(self) -> None:
        if self._event:
            event, self._event = self._event, 0
            _CloseHandle(event)


class Handle:
    """An open end of a pipe, and its two lanes."""

    def __init__(self, handle: int) -> None:
        self.handle = handle
        try:
            self.reading = Lane(handle)
            self.writing = Lane(handle)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Give everything back; the second time does nothing."""
        handle, self.handle = self.handle, 0
        if handle:
            _CloseHandle(handle)
            for lane in ("reading", "writing"):
                if hasattr(self, lane):
                    getattr(self, lane).close()

    def gone(self) -> bool:
        """Whether there is nobody at the other end any more, and nothing left to read."""
        return not _PeekNamedPipe(self.handle, None, 0, None, None, None) and isinstance(failure(), BrokenPipeError)

    def server_pid(self) -> int | None:
        """The process that made this instance."""
        pid = DWORD()
        return pid.value if _ServerProcessId(self.handle, pid) else None

    def client_pid(self) -> int | None:
        """The process that opened it."""
        pid = DWORD()
        return pid.value if _ClientProcessId(self.handle, pid) else None


def open_client(path: str) -> Handle:
    """A free instance of the pipe, opened. Its server may learn who we are, but not act as us.

    Raises FileNotFoundError, `Busy`, PermissionError, OSError.
    """
    handle = _CreateFile(
        path, CLIENT_ACCESS, 0, None, _OPEN_EXISTING, _FLAG_OVERLAPPED | _SQOS_PRESENT | _IDENTIFICATION, None
    )
    if handle == _INVALID:
        raise failure(path)
    return Handle(handle)


def wait_free(path: str, seconds: float) -> bool:
    """Whether an instance becomes free within so many seconds, which reserves nothing. Raises FileNotFoundError."""
    if _WaitNamedPipe(path, max(1, _milliseconds(seconds))):  # 0 would mean the server's own default
        return True
    code = ctypes.get_last_error()
    if code == _SEM_TIMEOUT:
        return False
    if code == _HANDLES_CLOSED:  # as Wine says where the pipe goes away meanwhile
        ctypes.set_last_error(_FILE_NOT_FOUND)
    raise failure(path)


def exists(path: str) -> bool:
    """Whether there is such a pipe, by the list of all pipes: to open one would use it up. Raises OSError."""
    found = wintypes.WIN32_FIND_DATAW()
    handle = _FindFirstFile(path, byref(found))
    if handle != _INVALID:
        _FindClose(handle)
        return True
    if ctypes.get_last_error() != _BAD_DEV_TYPE:  # as Wine says, which has no such list
        if ctypes.get_last_error() == _FILE_NOT_FOUND:
            return False
        raise failure(path)
    try:
        wait_free(path, 0)
    except FileNotFoundError:
        return False
    return True


def make_instance(path: str, descriptor: int, first: bool) -> Handle:
    """A new instance of the pipe at `path`, with the security `descriptor` at that address.

    With `first`, raises FileExistsError where there is such a pipe already.
    """
    attributes = SecurityAttributes(ctypes.sizeof(SecurityAttributes), descriptor, False)
    flags = _ACCESS_DUPLEX | _FLAG_OVERLAPPED | (_FLAG_FIRST_INSTANCE if first else 0)
    handle = _CreateNamedPipe(
        path, flags, _REJECT_REMOTE_CLIENTS, _UNLIMITED_INSTANCES, BUFFER, BUFFER, 0, byref(attributes)
    )
    if handle == _INVALID:
        if first and ctypes.get_last_error() in (_ACCESS_DENIED, _PIPE_BUSY):
            raise FileExistsError(None, "another server has this name", path, ctypes.get_last_error())
        raise failure(path)
    return Handle(handle)


class Waker:
    """Waits for operations, and can be woken from it."""

    def __init__(self) -> None:
        self._event: int = _CreateEvent(None, True, False, None)
        if not self._event:
            raise failure()

    def wait_any(self, lanes: Sequence[Any], seconds: float | None) -> Lane | bool:
        """The first of `lanes`, 63 at most, whose operation comes to its end; True when woken; False after the time."""
        events = (HANDLE * (len(lanes) + 1))(self._event, *(lane._event for lane in lanes))
        index = _WaitForMultipleObjects(len(events), events, False, _milliseconds(seconds))
        return index == 0 or (lanes[index - 1] if index <= len(lanes) else False)

    def wake(self, wake: bool) -> None:
        """Wake whoever waits, and have nobody wait until this is told False."""
        (_SetEvent if wake else _ResetEvent)(self._event)

    def close(self) -> None:
        """Give the event back."""
        event, self._event = self._event, 0
        if event:
            _CloseHandle(event)


def _milliseconds(seconds: float | None) -> int:
    return _INFINITE if seconds is None else min(int(seconds * 1000 + 0.999), _INFINITE - 1)
