"""Windows as Pageant's, which take requests as PuTTY's own does, case by case.

A message keeps its sender until the window has answered, and a window answers one at a time. So that nobody waits while
a person is asked for somebody else, there are two windows by the same name. One that is busy calls itself something
else, as long as there is another: clients, which look for the name each time, find the free one. Where that takes more
than a moment there is one more, and so on. Those that had found the busy one before wait behind it.

Programs with less integrity than ours, as those of a user without administrator's rights where we have them, cannot
send anything (UIPI). ChangeWindowMessageFilterEx could let them, and is not to: it would give them our keys.
"""

from __future__ import annotations

import ctypes
import sys
import threading
from ctypes import POINTER, byref, c_size_t, c_ssize_t, c_void_p, wintypes

from .. import winpipe
from ..errors import Error
from ..messages import Failure, frame
from . import _copydata, _window_memory

assert sys.platform == "win32", "Windows only: callers ask first"

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Final

    from .window_listener import Answer

BOOL, DWORD, HANDLE, HWND, LPCWSTR = wintypes.BOOL, wintypes.DWORD, wintypes.HANDLE, wintypes.HWND, wintypes.LPCWSTR
UINT, WPARAM, LPARAM = wintypes.UINT, wintypes.WPARAM, wintypes.LPARAM
_prototype = _copydata._prototype
_Procedure = ctypes.WINFUNCTYPE(c_ssize_t, HWND, UINT, WPARAM, LPARAM)


class _WindowClass(ctypes.Structure):
    """WNDCLASSW."""

    _fields_ = (
        ("style", UINT),
        ("lpfnWndProc", _Procedure),
        ("extra", ctypes.c_int * 2),
        ("hInstance", HANDLE),
        ("handles", HANDLE * 3),
        ("lpszMenuName", LPCWSTR),
        ("lpszClassName", LPCWSTR),
    )


class _CopyData(ctypes.Structure):
    """COPYDATASTRUCT; its data are not text, which would end where it likes."""

    _fields_ = (("dwData", c_size_t), ("cbData", DWORD), ("lpData", c_void_p))


class _StationFlags(ctypes.Structure):
    """USEROBJECTFLAGS."""

    _fields_ = (("fInherit", BOOL), ("fReserved", BOOL), ("dwFlags", DWORD))


_GetModuleHandle = _prototype("kernel32", "GetModuleHandleW", HANDLE, LPCWSTR)
_RegisterClass = _prototype("user32", "RegisterClassW", wintypes.ATOM, POINTER(_WindowClass))
_UnregisterClass = _prototype("user32", "UnregisterClassW", BOOL, LPCWSTR, HANDLE)
_CreateWindow = _prototype(
    "user32", "CreateWindowExW", HWND, DWORD, LPCWSTR, LPCWSTR, DWORD, *(ctypes.c_int,) * 4, HWND, HANDLE, HANDLE,
    c_void_p,
)  # fmt: skip
_DestroyWindow = _prototype("user32", "DestroyWindow", BOOL, HWND)
_ReplyMessage = _prototype("user32", "ReplyMessage", BOOL, c_ssize_t)
_DefWindowProc = _prototype("user32", "DefWindowProcW", c_ssize_t, HWND, UINT, WPARAM, LPARAM)
_SetTitle = _prototype("user32", "DefWindowProcW", c_ssize_t, HWND, UINT, WPARAM, LPCWSTR)
_GetMessage = _prototype("user32", "GetMessageW", ctypes.c_int, POINTER(wintypes.MSG), HWND, UINT, UINT)
_DispatchMessage = _prototype("user32", "DispatchMessageW", c_ssize_t, POINTER(wintypes.MSG))
_PostMessage = _prototype("user32", "PostMessageW", BOOL, HWND, UINT, WPARAM, LPARAM)
_SetTimer = _prototype("user32", "SetTimer", c_size_t, HWND, c_size_t, UINT, c_void_p)
_GetStation = _prototype("user32", "GetProcessWindowStation", HANDLE)
_ObjectInformation = _prototype(
    "user32", "GetUserObjectInformationW", BOOL, HANDLE, ctypes.c_int, c_void_p, DWORD, POINTER(DWORD)
)

#: Windows that are free for clients, and windows at all. Once all of them are busy, clients wait behind the last one.
_FREE: Final = 2
MAX_WINDOWS: Final = 32
#: Milliseconds that a window stays which is not needed any more, for clients that have found it just before.
_LINGER: Final = 2000
#: Seconds for a thread to make its window, or to end.
_PATIENCE: Final = 5.0
#: Bytes of the longest name that is looked at; Windows has none so long.
_MAX_NAME: Final = 1024
#: What a window is called, and one that is not to be found.
_PAGEANT: Final = _copydata._PAGEANT
_AWAY: Final = "Pageant (busy)"
_FAILURE: Final = frame(Failure().payload())
_NO_DESKTOP: Final = "run it as a program of your own on your desktop; services and remote shells have none"

_WM_NULL, _WM_DESTROY, _WM_SETTEXT, _WM_CLOSE, _WM_QUERYENDSESSION = 0x00, 0x02, 0x0C, 0x10, 0x11
_WM_ENDSESSION, _WM_COPYDATA, _WM_NCDESTROY, _WM_TIMER = 0x16, 0x4A, 0x82, 0x113
#: Messages that would end a window or rename it, whoever they come from.
_NOT_OURS: Final = (_WM_DESTROY, _WM_NCDESTROY, _WM_SETTEXT, _WM_CLOSE)
_UOI_FLAGS, _WSF_VISIBLE = 1, 1


class Windows:
    """The window by that name, and more of them when there is more to do. `answer` gives the replies.

    `ended` is called when the user logs off. Raises `Error` where there can be none, or another program has it.
    """

    def __init__(self, answer: Answer, ended: Callable[[], object] | None = None) -> None:
        self._answer = answer
        self._ended = ended
        self._owners = _window_memory.owners()
        self._gate = threading.RLock()  # as nobody knows what comes in while Windows does something for us
        self._windows: list[_Window] = []  # the oldest first
        self._closed = False
        _check_desktop()
        _check_free()
        _register()
        try:
            self._windows.append(_Window(self))
            self._provide()
            _check_free(*(window.handle for window in self._windows))  # two may have begun at the same time
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Destroy all windows, and wait until their threads have ended, but for one that calls this itself."""
        with self._gate:
            self._closed = True
            ending = list(self._windows)
        for window in ending:
            window.ending = True
            window.wake()
        for window in ending:
            if window.thread is not threading.current_thread():
                window.thread.join(_PATIENCE)
        if not ending:
            _unregister()

    def forget(self, window: _Window) -> None:
        """A window is no more."""
        with self._gate:
            if window in self._windows:
                self._windows.remove(window)
            if self._closed and not self._windows:
                _unregister()

    def end_session(self) -> None:
        """The user logs off, which each window is told."""
        with self._gate:
            ended, self._ended = self._ended, None
        if ended:
            ended()

    def take(self, window: _Window, name: bytes) -> int:
        """What the window returns to a request in the memory of that name. Raises OSError for 0."""
        memory = _window_memory.Memory(name, self._owners)
        try:
            request = memory.request()
            if request is None:
                memory.put(_FAILURE)
            else:
                memory.put(self._answer(name, request, memory.left, lambda long: self._hold(window, long)))
                if not window.busy:
                    _ReplyMessage(1)  # so that the client need not wait until we have let go of the memory
        finally:
            memory.close()
            if window.busy:
                self._release(window)
        return 1

    def _hold(self, window: _Window, long: bool) -> None:
        """A window is busy; and if it is so for `long`, others are to be free, as many as there can be."""
        with self._gate:
            window.busy = True
            if long:
                self._provide()
            if self._free():
                window.rename(_AWAY)

    def _release(self, window: _Window) -> None:
        """It is not busy any more. Of those that are free the oldest stay, which old clients know."""
        with self._gate:
            window.busy = False
            for spare in self._free()[_FREE:]:
                spare.leaving = True
                spare.wake()
            if not window.leaving:
                window.rename(_PAGEANT)

    def _free(self) -> list[_Window]:
        return [one for one in self._windows if not (one.busy or one.leaving or one.ending)]

    def _provide(self) -> None:
        """Have enough windows be free, if there can be more."""
        try:
            while not self._closed and len(self._free()) < _FREE and len(self._windows) < MAX_WINDOWS:
                self._windows.append(_Window(self))
        except (Error, RuntimeError, MemoryError):
            pass  # so clients wait


class _Window:
    """A window in a thread of its own, which belongs to `home`. Raises `Error` where there can be none."""

    def __init__(self, home: Windows) -> None:
        self.handle = 0
        self.busy = self.leaving = self.ending = False
        self._home = home
        self._title = _PAGEANT
        self._made = threading.Event()
        self.thread = threading.Thread(target=self._run, name="pageantry window", daemon=True)
        self.thread.start()
        if not self._made.wait(_PATIENCE) or not self.handle:
            self.ending = True
            raise Error("Windows gives this program no window", _NO_DESKTOP)

    def wake(self) -> None:
        """Have the thread look what it is to do."""
        _PostMessage(self.handle, _WM_NULL, 0, 0)

    def rename(self, title: str) -> None:
        """Give it another title; in its own thread."""
        if title != self._title:
            self._title = title
            _SetTitle(self.handle, _WM_SETTEXT, 0, title)

    def _run(self) -> None:
        self.handle = _CreateWindow(0, _PAGEANT, _PAGEANT, *(0,) * 5, None, None, _GetModuleHandle(None), None) or 0
        if self.handle:
            _all[self.handle] = self
        self._made.set()
        if self.handle:
            self._pump()
            del _all[self.handle]
            _DestroyWindow(self.handle)
        self._home.forget(self)

    def _pump(self) -> None:
        """Have messages come in, until the window is to end. What others say to that end, as WM_QUIT, counts for
        nothing.
        """
        message, timer = wintypes.MSG(), 0
        while not self.ending:
            if self.leaving and not timer:
                self.rename(_AWAY)
                timer = _SetTimer(self.handle, 1, _LINGER, None)
            if _GetMessage(byref(message), None, 0, 0) < 0:
                return
            if message.message != _WM_TIMER:  # which may be another program's, with an address to call
                _DispatchMessage(byref(message))
            elif self.leaving:
                return

    def receive(self, message: int, wparam: int, lparam: int) -> int:
        """The window's procedure. Raises anything, for 0."""
        if message == _WM_COPYDATA:
            name = _name(lparam)
            return self._home.take(self, name) if name else 0
        if message == _WM_QUERYENDSESSION:
            return 1
        if message == _WM_ENDSESSION and wparam:
            self._home.end_session()
        if message in (_WM_ENDSESSION, *_NOT_OURS):
            return 0
        return int(_DefWindowProc(self.handle, message, wparam, lparam))


_all: dict[int, _Window] = {}


def _receive(handle: int, message: int, wparam: int, lparam: int) -> int:
    window = _all.get(handle)
    if window is None:  # which it is while it is made and destroyed
        return int(_DefWindowProc(handle, message, wparam, lparam))
    try:
        return window.receive(message, wparam, lparam)
    except BaseException:  # noqa: BLE001 - there is nobody above but Windows
        return 0


_procedure = _Procedure(_receive)  # for as long as Windows has it, which may be longer than we know


def _name(address: int) -> bytes:
    """The name in the COPYDATASTRUCT at this address; empty if there is none, or it is none for us."""
    if not address:
        return b""
    copied = _CopyData.from_address(address)
    if copied.dwData != _copydata._MAGIC or not 0 < copied.cbData <= _MAX_NAME:
        return b""
    name = ctypes.string_at(copied.lpData, copied.cbData) if copied.lpData else b""
    return name.split(b"\0")[0] if name.endswith(b"\0") else b""


def _register() -> None:
    kind = _WindowClass(lpfnWndProc=_procedure, hInstance=_GetModuleHandle(None), lpszClassName=_PAGEANT)
    if not _RegisterClass(byref(kind)):
        raise Error(f"Windows gives this program no window: {_copydata._failure().strerror}", _NO_DESKTOP)


def _unregister() -> None:
    _UnregisterClass(_PAGEANT, _GetModuleHandle(None))


def _check_desktop() -> None:
    """Raise `Error` where nobody's programs could find a window."""
    flags = _StationFlags()
    asked = _ObjectInformation(_GetStation(), _UOI_FLAGS, byref(flags), ctypes.sizeof(flags), None)
    if not asked or not flags.dwFlags & _WSF_VISIBLE:
        raise Error("there is no desktop here that Pageant's window could be on", _NO_DESKTOP)


def _check_free(*ours: int) -> None:
    """Raise `Error` where there is such a window besides ours."""
    for window, pid in _copydata.windows():
        if window not in ours:
            program = winpipe.Peer(pid, None).program or "a program that is not known"
            raise Error(f"another program has Pageant's window: {program} ({pid})", "end it first, or do without it")
