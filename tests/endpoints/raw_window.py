"""A client of Pageant's window that does all that one can do wrong, in a process of its own.

Each line of its input is a request in JSON, each line of its output what came of it. A request has these, all optional:
"name" of the memory (that of PuTTY's programs for this thread), its "size", "content" in hex, "owner" as a SID, whether
its pages are only "reserved", and only for "reading"; "magic", and "told", in hex, what the window is told instead of
the name; how many "times" that is sent; and a "timeout" in seconds, in which the message is given up; "window", if it
is not the first by the name. The result has what the window "returned" and what the memory has "after" it.
"""

from __future__ import annotations

import ctypes
import json
import sys
from ctypes import POINTER, byref, c_size_t, c_void_p, wintypes
from typing import Any

assert sys.platform == "win32"

DWORD, BOOL, HANDLE, HWND = wintypes.DWORD, wintypes.BOOL, wintypes.HANDLE, wintypes.HWND


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
    (user32.FindWindowA, HWND, (wintypes.LPCSTR, wintypes.LPCSTR)),
    (
        user32.SendMessageTimeoutA,
        c_size_t,
        (HWND, wintypes.UINT, wintypes.WPARAM, c_void_p, wintypes.UINT, wintypes.UINT, POINTER(ctypes.c_ssize_t)),
    ),
    (kernel32.CreateFileMappingA, HANDLE, (HANDLE, c_void_p, DWORD, DWORD, DWORD, wintypes.LPCSTR)),
    (kernel32.MapViewOfFile, c_void_p, (HANDLE, DWORD, DWORD, DWORD, c_size_t)),
    (kernel32.UnmapViewOfFile, BOOL, (c_void_p,)),
    (kernel32.CloseHandle, BOOL, (HANDLE,)),
    (kernel32.GetCurrentThreadId, DWORD, ()),
    (
        advapi32.ConvertStringSecurityDescriptorToSecurityDescriptorW,
        BOOL,
        (wintypes.LPCWSTR, DWORD, POINTER(c_void_p), c_void_p),
    ),
):
    function.restype, function.argtypes = result, arguments


def created(name: bytes, asked: dict[str, Any]) -> int:
    """The memory."""
    attributes = None
    if asked.get("owner"):
        descriptor = c_void_p()
        assert advapi32.ConvertStringSecurityDescriptorToSecurityDescriptorW(
            f"O:{asked['owner']}", 1, byref(descriptor), None
        )
        attributes = byref(SecurityAttributes(ctypes.sizeof(SecurityAttributes), descriptor, False))
    protect = 0x02 if asked.get("reading") else 0x04
    if asked.get("reserved"):
        protect |= 0x04000000  # SEC_RESERVE
    handle = kernel32.CreateFileMappingA(-1, attributes, protect, 0, asked.get("size", 262144), name)
    if not handle:
        raise ctypes.WinError(ctypes.get_last_error())
    return int(handle)


def ask(asked: dict[str, Any]) -> dict[str, Any]:
    """What comes of a request."""
    name = asked.get("name", f"PageantRequest{kernel32.GetCurrentThreadId():08x}").encode("cp1252")
    content = bytes.fromhex(asked.get("content", ""))
    handle = created(name, asked) if asked.get("size", 1) else 0
    view = kernel32.MapViewOfFile(handle, 4 if asked.get("reading") else 2, 0, 0, 0) if handle else 0
    try:
        if view and content:
            ctypes.memmove(view, content, len(content))
        told = bytes.fromhex(asked["told"]) if "told" in asked else name + b"\0"
        buffer = ctypes.create_string_buffer(told, len(told)) if told else None
        data = CopyData(asked.get("magic", 0x804E50BA), len(told), ctypes.cast(buffer, c_void_p) if buffer else None)
        window = asked.get("window") or user32.FindWindowA(b"Pageant", b"Pageant")
        if not window:
            return {"returned": None}
        milliseconds = int(asked.get("timeout", 60) * 1000)
        for _ in range(asked.get("times", 1)):
            answer = ctypes.c_ssize_t(-1)
            sent = user32.SendMessageTimeoutA(window, 0x4A, 0, byref(data), 0, milliseconds, byref(answer))
        size = 4 + int.from_bytes(ctypes.string_at(view, 4), "big") if view and not asked.get("reserved") else 0
        after = ctypes.string_at(view, min(max(size, len(content)), asked.get("size", 262144))).hex() if size else ""
        return {"returned": answer.value if sent else None, "after": after, "window": window}
    finally:
        if view:
            kernel32.UnmapViewOfFile(view)
        if handle:
            kernel32.CloseHandle(handle)


if __name__ == "__main__":
    print("ready", flush=True)
    for line in sys.stdin:
        try:
            print(json.dumps(ask(json.loads(line))), flush=True)
        except OSError as error:
            print(json.dumps({"error": error.winerror}), flush=True)
