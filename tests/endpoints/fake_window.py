"""An agent behind a window like Pageant's: `fake_window.py ACTION...`, for tests and benchmarks.

"hidden" before the actions makes the window one for messages alone, as gpg-agent's is.
Each argument says what is done with a request, the last one with all further ones, too: "answer HEX" puts HEX where the
request was, "keep N" leaves it there and returns N, "wait HEX" waits for a line first, "die" ends the program. It says
"ready", and then, but for "answer", a line of JSON for each request. It ends when its input does.
"""

from __future__ import annotations

import ctypes
import json
import os
import sys
import threading
from ctypes import POINTER, byref, c_size_t, c_void_p, wintypes

assert sys.platform == "win32"

LRESULT = ctypes.c_ssize_t
WNDPROC = ctypes.WINFUNCTYPE(LRESULT, wintypes.HWND, wintypes.UINT, wintypes.WPARAM, wintypes.LPARAM)
WM_COPYDATA, MAGIC, MAP_ALL_ACCESS = 0x4A, 0x804E50BA, 0xF001F


class WindowClass(ctypes.Structure):
    """WNDCLASSW."""

    _fields_ = (
        ("style", wintypes.UINT),
        ("lpfnWndProc", WNDPROC),
        ("extra", ctypes.c_int * 2),
        ("handles", c_void_p * 4),
        ("lpszMenuName", wintypes.LPCWSTR),
        ("lpszClassName", wintypes.LPCWSTR),
    )


class CopyData(ctypes.Structure):
    """COPYDATASTRUCT."""

    _fields_ = (("dwData", c_size_t), ("cbData", wintypes.DWORD), ("lpData", c_void_p))


class Region(ctypes.Structure):
    """MEMORY_BASIC_INFORMATION, of 64 bits."""

    _fields_ = (("before", c_size_t * 3), ("RegionSize", c_size_t), ("after", c_size_t * 2))


kernel32 = ctypes.WinDLL("kernel32", use_last_error=True)
user32 = ctypes.WinDLL("user32", use_last_error=True)
advapi32 = ctypes.WinDLL("advapi32")
for function, result, arguments in (
    (kernel32.OpenFileMappingA, wintypes.HANDLE, (wintypes.DWORD, wintypes.BOOL, wintypes.LPCSTR)),
    (kernel32.MapViewOfFile, c_void_p, (wintypes.HANDLE, *(wintypes.DWORD,) * 3, c_size_t)),
    (kernel32.UnmapViewOfFile, wintypes.BOOL, (c_void_p,)),
    (kernel32.VirtualQuery, c_size_t, (c_void_p, POINTER(Region), c_size_t)),
    (kernel32.CloseHandle, wintypes.BOOL, (wintypes.HANDLE,)),
    (kernel32.LocalFree, c_void_p, (c_void_p,)),
    (
        advapi32.GetSecurityInfo,
        wintypes.DWORD,
        (wintypes.HANDLE, ctypes.c_int, wintypes.DWORD, *(c_void_p,) * 4, POINTER(c_void_p)),
    ),
    (
        advapi32.ConvertSecurityDescriptorToStringSecurityDescriptorW,
        wintypes.BOOL,
        (c_void_p, wintypes.DWORD, wintypes.DWORD, POINTER(c_void_p), c_void_p),
    ),
    (user32.DefWindowProcW, LRESULT, (wintypes.HWND, wintypes.UINT, wintypes.WPARAM, wintypes.LPARAM)),
    (user32.RegisterClassW, wintypes.ATOM, (POINTER(WindowClass),)),
    (
        user32.CreateWindowExW,
        wintypes.HWND,
        (wintypes.DWORD, *(wintypes.LPCWSTR,) * 2, wintypes.DWORD, *(ctypes.c_int,) * 4, *(c_void_p,) * 4),
    ),
    (user32.GetMessageW, ctypes.c_int, (POINTER(wintypes.MSG), wintypes.HWND, wintypes.UINT, wintypes.UINT)),
    (user32.DispatchMessageW, LRESULT, (POINTER(wintypes.MSG),)),
):
    function.restype, function.argtypes = result, arguments

lines = threading.Semaphore(0)
hidden = sys.argv[1] == "hidden"
actions = [action.partition(" ")[::2] for action in sys.argv[1 + hidden :]]


def read() -> None:
    for _ in sys.stdin:
        lines.release()
    os._exit(0)


def security(mapping: int) -> str:
    """Owner and access list of the mapping, in Windows' own words."""
    descriptor, text = c_void_p(), c_void_p()
    if advapi32.GetSecurityInfo(mapping, 6, 5, None, None, None, None, byref(descriptor)):
        return "none"
    advapi32.ConvertSecurityDescriptorToStringSecurityDescriptorW(descriptor, 1, 5, byref(text), None)
    try:
        return ctypes.wstring_at(text.value or 0)
    finally:
        kernel32.LocalFree(text)
        kernel32.LocalFree(descriptor)


def work(name: bytes) -> int:
    """What a request in the mapping of that name comes to."""
    action, argument = actions.pop(0) if len(actions) > 1 else actions[0]
    if action == "wait":
        print(json.dumps({"waiting": True}), flush=True)
        lines.acquire()
    mapping = kernel32.OpenFileMappingA(MAP_ALL_ACCESS, False, name)
    if not mapping:
        print(json.dumps({"name": name.decode(), "gone": True}), flush=True)
        return 0
    view = kernel32.MapViewOfFile(mapping, 2, 0, 0, 0)
    region = Region()
    kernel32.VirtualQuery(view, byref(region), ctypes.sizeof(region))
    request = ctypes.string_at(view, 4 + int.from_bytes(ctypes.string_at(view, 4), "big"))
    seen = {"name": name.decode(), "size": region.RegionSize, "length": len(request), "request": request[:64].hex()}
    if action != "answer":  # which is to be quick
        print(json.dumps({**seen, "security": security(mapping)}), flush=True)
    if action == "die":
        os._exit(3)
    if action != "keep":
        ctypes.memmove(view, bytes.fromhex(argument), len(argument) // 2)
    kernel32.UnmapViewOfFile(view)
    kernel32.CloseHandle(mapping)
    return int(argument) if action == "keep" else 1


def procedure(window: int, message: int, wparam: int, lparam: int) -> int:
    if message != WM_COPYDATA:
        return int(user32.DefWindowProcW(window, message, wparam, lparam))
    data = CopyData.from_address(lparam)
    name = ctypes.string_at(data.lpData, data.cbData)
    return work(name[:-1]) if data.dwData == MAGIC and name.endswith(b"\0") else 0


def main() -> None:
    """Make the window, and answer."""
    kind = WindowClass(lpfnWndProc=WNDPROC(procedure), lpszClassName="Pageant")
    if not user32.RegisterClassW(byref(kind)):
        raise ctypes.WinError(ctypes.get_last_error())
    parent = -3 if hidden else None  # HWND_MESSAGE
    if not user32.CreateWindowExW(0, "Pageant", "Pageant", 0, 0, 0, 1, 1, parent, None, None, None):
        raise ctypes.WinError(ctypes.get_last_error())
    threading.Thread(target=read, daemon=True).start()
    print("ready", flush=True)
    message = wintypes.MSG()
    while user32.GetMessageW(byref(message), None, 0, 0) > 0:
        user32.DispatchMessageW(byref(message))


main()
