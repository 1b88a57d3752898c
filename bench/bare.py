"""Clients of Pageant that are no more than Windows' own calls, one for its pipe and one for its window.

As a program, `bare.py WAY KEY FIRST COUNT TIMES` is COUNT clients at once, each a thread with a number from FIRST on.
They come, this says so, and at a line of input each has TIMES signatures made with that public key (in hex), each over
other data. What came of it is printed in JSON: the seconds that it took, each reply by client and time, and errors.
"""

from __future__ import annotations

import ctypes
import json
import sys
import threading
import time
from ctypes import POINTER, byref, c_size_t, c_void_p, wintypes
from typing import TYPE_CHECKING

from pageantry import winpipe
from pageantry.endpoints.pageant import pipe_name
from pageantry.messages import SignRequest, frame

if TYPE_CHECKING:
    from typing import Any

assert sys.platform == "win32", "Pageant's places are on Windows"

BOOL, DWORD, HANDLE, HWND = wintypes.BOOL, wintypes.DWORD, wintypes.HANDLE, wintypes.HWND

#: Seconds for a reply, and for all clients to have come.
PATIENCE = 60.0
#: Bytes of the memory behind a message to the window, as PuTTY's programs make it.
SIZE = 262144
BUSY = 231  # ERROR_PIPE_BUSY


class CopyData(ctypes.Structure):
    """COPYDATASTRUCT."""

    _fields_ = (("dwData", c_size_t), ("cbData", DWORD), ("lpData", c_void_p))


class SecurityAttributes(ctypes.Structure):
    """SECURITY_ATTRIBUTES."""

    _fields_ = (("nLength", DWORD), ("lpSecurityDescriptor", c_void_p), ("bInheritHandle", BOOL))


kernel32 = ctypes.WinDLL("kernel32", use_last_error=True)
user32 = ctypes.WinDLL("user32", use_last_error=True)
advapi32 = ctypes.WinDLL("advapi32", use_last_error=True)
for function, result, arguments in (
    (kernel32.CreateFileW, HANDLE, (wintypes.LPCWSTR, DWORD, DWORD, c_void_p, DWORD, DWORD, HANDLE)),
    (kernel32.WaitNamedPipeW, BOOL, (wintypes.LPCWSTR, DWORD)),
    (kernel32.WriteFile, BOOL, (HANDLE, c_void_p, DWORD, POINTER(DWORD), c_void_p)),
    (kernel32.ReadFile, BOOL, (HANDLE, c_void_p, DWORD, POINTER(DWORD), c_void_p)),
    (kernel32.CreateFileMappingA, HANDLE, (HANDLE, c_void_p, DWORD, DWORD, DWORD, wintypes.LPCSTR)),
    (kernel32.MapViewOfFile, c_void_p, (HANDLE, DWORD, DWORD, DWORD, c_size_t)),
    (kernel32.UnmapViewOfFile, BOOL, (c_void_p,)),
    (kernel32.CloseHandle, BOOL, (HANDLE,)),
    (kernel32.GetCurrentThreadId, DWORD, ()),
    (user32.FindWindowA, HWND, (wintypes.LPCSTR, wintypes.LPCSTR)),
    (
        user32.SendMessageTimeoutA,
        c_size_t,
        (HWND, wintypes.UINT, wintypes.WPARAM, c_void_p, wintypes.UINT, wintypes.UINT, POINTER(c_size_t)),
    ),
    (
        advapi32.ConvertStringSecurityDescriptorToSecurityDescriptorW,
        BOOL,
        (wintypes.LPCWSTR, DWORD, POINTER(c_void_p), c_void_p),
    ),
):
    function.restype, function.argtypes = result, arguments


def checked(result: Any) -> Any:
    """What a function has returned, unless it says that it failed. Raises OSError."""
    if not result or result == c_void_p(-1).value:
        raise ctypes.WinError(ctypes.get_last_error())
    return result


class Pipe:
    """A connection to the pipe, which is kept."""

    def __init__(self) -> None:
        path, deadline = winpipe.path(pipe_name()), time.monotonic() + PATIENCE
        while True:
            try:
                self._handle: int = checked(kernel32.CreateFileW(path, 0xC0000000, 0, None, 3, 0, None))
            except OSError as error:
                if error.winerror != BUSY or time.monotonic() > deadline:
                    raise
                kernel32.WaitNamedPipeW(path, 1000)
            else:
                break
        self._buffer = ctypes.create_string_buffer(SIZE)
        self._count = DWORD()

    def ask(self, request: bytes) -> bytes:
        """The reply to `request`, both whole frames. Raises OSError."""
        checked(kernel32.WriteFile(self._handle, request, len(request), byref(self._count), None))
        reply = self._read()
        while len(reply) < 4 or len(reply) < 4 + int.from_bytes(reply[:4], "big"):
            reply += self._read()
        return reply

    def _read(self) -> bytes:
        checked(kernel32.ReadFile(self._handle, self._buffer, SIZE, byref(self._count), None))
        return ctypes.string_at(self._buffer, self._count.value)

    def close(self) -> None:
        """Hang up."""
        kernel32.CloseHandle(self._handle)


class Window:
    """What PuTTY's programs before 0.75 do, each time anew; the memory has the name of the thread that makes this."""

    def __init__(self) -> None:
        descriptor = c_void_p()
        checked(
            advapi32.ConvertStringSecurityDescriptorToSecurityDescriptorW(
                f"O:{winpipe.user()}", 1, byref(descriptor), None
            )
        )
        self._attributes = SecurityAttributes(ctypes.sizeof(SecurityAttributes), descriptor, False)
        self._name = b"PageantRequest%08x" % kernel32.GetCurrentThreadId()
        self._told = ctypes.create_string_buffer(self._name)
        self._message = CopyData(0x804E50BA, len(self._told), ctypes.cast(self._told, c_void_p))
        self._returned = c_size_t()

    def ask(self, request: bytes) -> bytes:
        """The reply to `request`, both whole frames. Raises OSError."""
        window = checked(user32.FindWindowA(b"Pageant", b"Pageant"))
        memory = checked(kernel32.CreateFileMappingA(-1, byref(self._attributes), 4, 0, SIZE, self._name))
        try:
            view = checked(kernel32.MapViewOfFile(memory, 2, 0, 0, 0))
            try:
                ctypes.memmove(view, request, len(request))
                checked(
                    user32.SendMessageTimeoutA(
                        window, 0x4A, 0, byref(self._message), 0, int(PATIENCE * 1000), byref(self._returned)
                    )
                )
                if not self._returned.value:
                    raise OSError("the window refused")
                return ctypes.string_at(view, 4 + int.from_bytes(ctypes.string_at(view, 4), "big"))
            finally:
                kernel32.UnmapViewOfFile(view)
        finally:
            kernel32.CloseHandle(memory)

    def close(self) -> None:
        """Nothing: there is no connection."""


WAYS: dict[str, type[Pipe | Window]] = {"pipe": Pipe, "window": Window}


def data(client: int, number: int) -> bytes:
    """What a client has signed at that time."""
    return b"client %d, request %d" % (client, number)


def ask_together(way: str, key: bytes, first: int, count: int, times: int) -> None:
    """See above."""
    replies: list[tuple[int, int, str]] = []
    errors: list[str] = []
    come, go = threading.Barrier(count + 1), threading.Event()

    def ask(client: int) -> None:
        requests = [frame(SignRequest(key, data(client, number), 0).payload()) for number in range(times)]
        try:
            connection = WAYS[way]()
            come.wait(PATIENCE)
            go.wait()
            for number, request in enumerate(requests):
                replies.append((client, number, connection.ask(request).hex()))
            connection.close()
        except (OSError, threading.BrokenBarrierError) as error:
            errors.append(repr(error))
            come.abort()

    threads = [threading.Thread(target=ask, args=(first + number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    try:
        come.wait(PATIENCE)
    except threading.BrokenBarrierError:
        errors.append("not all clients came")
    print("ready", flush=True)
    sys.stdin.readline()
    began = time.perf_counter()
    go.set()
    for thread in threads:
        thread.join()
    print(json.dumps({"seconds": time.perf_counter() - began, "replies": replies, "errors": errors}), flush=True)


if __name__ == "__main__":
    ask_together(sys.argv[1], bytes.fromhex(sys.argv[2]), *map(int, sys.argv[3:]))
