"""A window over all others that shows a text and may have a field for a secret and buttons: what `dialogs` shows.

A dialog belongs to the thread that makes it, and all of this is for that thread. Neither of the system's own dialogs
for credentials would do: CredUIPromptForWindowsCredentials has another process show it, which cannot be told to stop,
and CredUIPromptForCredentials cuts what is typed; both want a user's name. They are no safer, either: the desktop that
other programs do not see is only for credentials that go to Windows itself.
"""

from __future__ import annotations

import ctypes
import os
import struct
import sys
from ctypes import POINTER, byref, c_ssize_t, c_void_p, wintypes
from ctypes.wintypes import MSG, RECT

from .errors import NobodyToAsk

assert sys.platform == "win32", "Windows only: callers ask first"

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import TracebackType
    from typing import Any, Final, Self

BOOL, DWORD, HANDLE, HWND, LPCWSTR = wintypes.BOOL, wintypes.DWORD, wintypes.HANDLE, wintypes.HWND, wintypes.LPCWSTR
UINT, WPARAM, LPARAM = wintypes.UINT, wintypes.WPARAM, wintypes.LPARAM

_user32 = ctypes.WinDLL("user32", use_last_error=True)
_gdi32 = ctypes.WinDLL("gdi32", use_last_error=True)
_Procedure = ctypes.WINFUNCTYPE(c_ssize_t, HWND, UINT, WPARAM, LPARAM)


def _prototype(dll: ctypes.WinDLL, name: str, result: Any, *arguments: Any) -> Any:
    function = getattr(dll, name)
    function.restype, function.argtypes = result, arguments
    return function


_GetProcessWindowStation = _prototype(_user32, "GetProcessWindowStation", HANDLE)
_GetUserObjectInformation = _prototype(
    _user32, "GetUserObjectInformationW", BOOL, HANDLE, ctypes.c_int, c_void_p, DWORD, c_void_p
)
_CreateDialog = _prototype(
    _user32, "CreateDialogIndirectParamW", HWND, HANDLE, ctypes.c_char_p, HWND, _Procedure, LPARAM
)
_CreateWindow = _prototype(
    _user32, "CreateWindowExW", HWND, DWORD, LPCWSTR, LPCWSTR, DWORD, *(ctypes.c_int,) * 4, HWND, c_void_p, HANDLE,
    c_void_p,
)  # fmt: skip
_DestroyWindow = _prototype(_user32, "DestroyWindow", BOOL, HWND)
_ShowWindow = _prototype(_user32, "ShowWindow", BOOL, HWND, ctypes.c_int)
_SetWindowPos = _prototype(_user32, "SetWindowPos", BOOL, HWND, HWND, *(ctypes.c_int,) * 4, UINT)
_SetForegroundWindow = _prototype(_user32, "SetForegroundWindow", BOOL, HWND)
_FlashWindow = _prototype(_user32, "FlashWindow", BOOL, HWND, BOOL)
_AdjustWindowRect = _prototype(_user32, "AdjustWindowRectEx", BOOL, POINTER(RECT), DWORD, BOOL, DWORD)
_SystemParametersInfo = _prototype(_user32, "SystemParametersInfoW", BOOL, UINT, UINT, c_void_p, UINT)
_MapDialogRect = _prototype(_user32, "MapDialogRect", BOOL, HWND, POINTER(RECT))
_LoadIcon = _prototype(_user32, "LoadIconW", HANDLE, HANDLE, c_void_p)
_GetDC = _prototype(_user32, "GetDC", HANDLE, HWND)
_ReleaseDC = _prototype(_user32, "ReleaseDC", ctypes.c_int, HWND, HANDLE)
_SelectObject = _prototype(_gdi32, "SelectObject", HANDLE, HANDLE, HANDLE)
_DrawText = _prototype(_user32, "DrawTextW", ctypes.c_int, HANDLE, LPCWSTR, ctypes.c_int, POINTER(RECT), UINT)
_GetWindowText = _prototype(_user32, "GetWindowTextW", ctypes.c_int, HWND, wintypes.LPWSTR, ctypes.c_int)
_GetWindowTextLength = _prototype(_user32, "GetWindowTextLengthW", ctypes.c_int, HWND)
_SetWindowText = _prototype(_user32, "SetWindowTextW", BOOL, HWND, LPCWSTR)
_SendMessage = _prototype(_user32, "SendMessageW", c_ssize_t, HWND, UINT, WPARAM, LPARAM)
_PostMessage = _prototype(_user32, "PostMessageW", BOOL, HWND, UINT, WPARAM, LPARAM)
_GetMessage = _prototype(_user32, "GetMessageW", BOOL, POINTER(MSG), HWND, UINT, UINT)
_IsDialogMessage = _prototype(_user32, "IsDialogMessageW", BOOL, HWND, POINTER(MSG))
_TranslateMessage = _prototype(_user32, "TranslateMessage", BOOL, POINTER(MSG))
_DispatchMessage = _prototype(_user32, "DispatchMessageW", c_ssize_t, POINTER(MSG))
_SetTimer = _prototype(_user32, "SetTimer", c_void_p, HWND, c_void_p, UINT, c_void_p)
_EndMenu = _prototype(_user32, "EndMenu", BOOL)
_ReleaseCapture = _prototype(_user32, "ReleaseCapture", BOOL)

#: The buttons. That for consent is not 1 (IDOK), which Windows takes for chosen when Enter means no button.
OK, CANCEL, ALLOW = 1, 2, 100
_FIELD: Final = 101

#: The title.
_TITLE: Final = "pageantry"
#: Milliseconds between two looks whether anybody still waits.
_PAUSE: Final = 200
#: In dialog units, of which a character is about 4 wide and 8 high: around everything and between its parts, buttons,
#: the field's height, and lines of text at their shortest and longest, which a fingerprint has to fit into.
_MARGIN, _GAP, _BUTTON, _FIELD_HEIGHT, _SHORTEST, _LONGEST = 7, 4, (50, 14), 13, 160, 400
#: Characters of a secret, which an agent asks for again when it was wrong; Windows' own limit is 30000.
_MOST: Final = 4096

_UOI_FLAGS, _WSF_VISIBLE = 1, 1
_POPUP, _CAPTION, _SYSTEM_MENU, _FONT_IS_SET = 0x80000000, 0xC00000, 0x80000, 0x40
_CHILD, _VISIBLE, _TAB_STOP, _SCROLL_BAR = 0x40000000, 0x10000000, 0x10000, 0x200000
_TOPMOST, _NO_ACTIVATION, _SUNKEN, _DIALOG_MODAL_FRAME = 0x8, 0x08000000, 0x200, 0x1
_STATIC_TEXT, _STATIC_ICON = 0x2000 | 0x80, 0x3  # SS_EDITCONTROL, SS_NOPREFIX; SS_ICON
_SCROLLED_TEXT, _PASSWORD = 0x4 | 0x800, 0x20 | 0x80  # ES_MULTILINE, ES_READONLY; ES_PASSWORD, ES_AUTOHSCROLL
_DEFAULT_BUTTON = 1
_MEASURED: Final = 0x10 | 0x40 | 0x400 | 0x800 | 0x2000  # DT_WORDBREAK, EXPANDTABS, CALCRECT, NOPREFIX, EDITCONTROL
_WORK_AREA, _ABOVE_ALL, _NOT_ACTIVATED = 0x30, -1, 0x10
_HIDDEN, _NORMAL, _SHOWN_INACTIVE = 0, 1, 4
_CLOSE, _END_SESSION, _NEXT_CONTROL, _SET_FONT, _GET_FONT = 0x10, 0x16, 0x28, 0x30, 0x31
_KEY_DOWN, _ESCAPE = 0x100, 0x1B
_COMMAND, _TIMER, _SET_LIMIT, _SET_ICON, _SET_DEFAULT, _APP = 0x111, 0x113, 0xC5, 0x170, 0x401, 0x8000


def visible() -> bool:
    """Whether what this process shows can be seen: services, and those who log in with ssh, have no such screen.

    It is so too while the screen is locked: whoever unlocks it finds the question there.
    """
    flags = (DWORD * 3)()  # USEROBJECTFLAGS
    station = _GetProcessWindowStation()
    known = _GetUserObjectInformation(station, _UOI_FLAGS, flags, ctypes.sizeof(flags), None)
    return bool(known and flags[2] & _WSF_VISIBLE)


def end(window: int) -> None:
    """Have the dialog with this window end. For any thread, and while it exists."""
    _PostMessage(window, _APP, 0, 0)


class Dialog:
    """A dialog that shows `text`, not shown yet. `buttons` are numbers and labels, the last the one that Enter presses.

    One without buttons is there to be seen: it leaves the keyboard where it is, can be put away by the person, and ends
    when it is told to. Use it in a `with`: nothing remains. Raises `NobodyToAsk` where nobody would see it.
    """

    def __init__(
        self, text: str, buttons: Sequence[tuple[int, str]] = (), *, field: bool = False, icon: int = 0
    ) -> None:
        if not visible():
            raise NobodyToAsk("this process has no desktop that anybody sees", "run the agent where you are logged in")
        self._buttons = buttons
        self._answer: int | None = None
        self._error: BaseException | None = None
        self._check: Callable[[], object] = lambda: None
        self._field = 0
        self._procedure = _Procedure(self._on_message)  # kept, as Windows calls it
        style = _POPUP | _CAPTION | _SYSTEM_MENU
        self._style = style, _TOPMOST | _DIALOG_MODAL_FRAME | (0 if buttons else _NO_ACTIVATION)
        head = struct.pack("<IIHhhhhHH", style | _FONT_IS_SET, self._style[1], 0, 0, 0, 0, 0, 0, 0)
        template = head + f"{_TITLE}\0".encode("utf-16-le") + struct.pack("<H", 9) + "Segoe UI\0".encode("utf-16-le")
        self.window: int | None = _CreateDialog(None, template, None, self._procedure, 0)
        if not self.window:
            raise _failure()
        try:
            self._font = _SendMessage(self.window, _GET_FONT, 0, 0)
            self._lay_out(text.strip().replace("\n", "\r\n"), field=field, icon=icon)
        except BaseException:
            self.close()
            raise

    def run(self, check: Callable[[], object]) -> int:
        """Show it until a button is chosen, and return its number; `CANCEL` when it is closed, or the session ends.

        What `check` raises ends it, even while the person moves it or has a menu open.
        """
        self._check = check
        if not _SetTimer(self.window, 1, _PAUSE, None):
            raise _failure()
        if self._buttons:
            _ShowWindow(self.window, _NORMAL)
            # Windows lets only those take the keyboard who had it last or were started from there. To get around that
            # would have what is being typed elsewhere answer this.
            if not _SetForegroundWindow(self.window):
                _FlashWindow(self.window, True)
        else:
            _ShowWindow(self.window, _SHOWN_INACTIVE)
        message = MSG()
        while self._answer is None and _GetMessage(byref(message), None, 0, 0) > 0:
            if not _IsDialogMessage(self.window, byref(message)):
                _TranslateMessage(byref(message))
                _DispatchMessage(byref(message))
        if self._error:
            raise self._error
        return CANCEL if self._answer is None else self._answer

    def typed(self) -> bytes:
        """What is in the field, in the encoding of file names."""
        size = _GetWindowTextLength(self._field) + 1
        buffer = ctypes.create_unicode_buffer(size)
        try:
            _GetWindowText(self._field, buffer, size)
            return os.fsencode(buffer.value)
        finally:
            ctypes.memset(buffer, 0, ctypes.sizeof(buffer))

    def close(self) -> None:
        """Have it disappear, and nothing remain of what was typed."""
        window, self.window = self.window, None
        if window:
            if self._field:  # its memory is overwritten, which Windows need not do
                _SetWindowText(self._field, " " * _GetWindowTextLength(self._field))
            _DestroyWindow(window)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _on_message(self, window: int, message: int, first: int, _: int) -> int:
        """What Windows calls with each message to the dialog: whether that was dealt with."""
        if message == _TIMER:
            self._look()
        elif message == _COMMAND and any(first == number for number, _ in self._buttons):
            self._end(first)
        elif message == _CLOSE or (message == _COMMAND and first == CANCEL) or (message == _END_SESSION and first):
            if self._buttons:
                self._end(CANCEL)
            else:
                _ShowWindow(window, _HIDDEN)
        elif message == _APP:
            self._end(CANCEL)
        else:
            return False
        return True

    def _look(self) -> None:
        """See whether anybody still waits for the answer, unless there is one."""
        if self._answer is None:
            try:
                self._check()
            except BaseException as error:  # noqa: BLE001 - it is raised by `run`
                self._error = error
                self._end(CANCEL)

    def _end(self, answer: int) -> None:
        """Have `run` return with the first answer, also from where Windows itself waits for messages.

        These are menus, and the moving of windows, which Escape ends.
        """
        if self._answer is None:
            self._answer = answer
            _EndMenu()
            _ReleaseCapture()
            _PostMessage(self.window, _KEY_DOWN, _ESCAPE, 0)

    def _lay_out(self, text: str, *, field: bool, icon: int) -> None:
        """Put everything in its place: an icon beside the text, the field below it, buttons at the lower right."""
        screen = RECT()
        if not _SystemParametersInfo(_WORK_AREA, 0, byref(screen), 0):
            raise _failure()
        margin, gap = self._pixels(_MARGIN, _MARGIN), self._pixels(_GAP, _GAP)
        button, field_height = self._pixels(*_BUTTON), self._pixels(0, _FIELD_HEIGHT)[1]
        left, beside = margin[0], 0
        if icon:
            beside = 32  # as large as icons of this kind are
            image = self._add("STATIC", "", _STATIC_ICON, (left, margin[1], beside, beside))
            _SendMessage(image, _SET_ICON, _LoadIcon(None, icon), 0)
            left += beside + margin[0]
        width, height, scrolled = self._fitted(text, screen)
        place = left, margin[1], width, height
        if scrolled:
            self._add("EDIT", text, _SCROLLED_TEXT | _SCROLL_BAR | _TAB_STOP, place)
        else:
            self._add("STATIC", text, _STATIC_TEXT, place)
        right, below = left + width, margin[1] + max(height, beside)
        if field:
            below += gap[1]
            self._field = self._add(
                "EDIT", "", _PASSWORD | _TAB_STOP, (left, below, width, field_height), _SUNKEN, _FIELD
            )
            _SendMessage(self._field, _SET_LIMIT, _MOST, 0)
            below += field_height
        if self._buttons:
            below += margin[1]
            self._add_buttons(right, below, button, gap[0])
            below += button[1]
        self._place(right + margin[0], below + margin[1], screen)

    def _add_buttons(self, right: int, top: int, size: tuple[int, int], gap: int) -> None:
        """Add them from the right, and from the last, so that the keyboard begins there unless there is a field."""
        last = self._buttons[-1][0]
        default = self._buttons[0][0] if self._field else last
        for number, label in reversed(self._buttons):
            style = _TAB_STOP | (_DEFAULT_BUTTON if number == default else 0)
            made = self._add("BUTTON", label, style, (right - size[0], top, *size), number=number)
            if number == last:
                first = self._field or made
            right -= size[0] + gap
        _SendMessage(self.window, _SET_DEFAULT, default, 0)
        _SendMessage(self.window, _NEXT_CONTROL, first, True)

    def _add(self, kind: str, text: str, style: int, place: tuple[int, ...], extended: int = 0, number: int = 0) -> int:
        window: int = _CreateWindow(
            extended, kind, text, style | _CHILD | _VISIBLE, *place, self.window, number, None, None
        )
        if not window:
            raise _failure()
        _SendMessage(window, _SET_FONT, self._font, False)
        return window

    def _place(self, width: int, height: int, screen: RECT) -> None:
        """Give it the size for what is in it: a question in the upper middle of the screen, a notice at its top."""
        frame = RECT(0, 0, width, height)
        _AdjustWindowRect(byref(frame), self._style[0], False, self._style[1])
        width, height = frame.right - frame.left, frame.bottom - frame.top
        x = screen.left + (screen.right - screen.left - width) // 2
        y = screen.top + (screen.bottom - screen.top - height) // (3 if self._buttons else 12)
        _SetWindowPos(self.window, _ABOVE_ALL, x, y, width, height, _NOT_ACTIVATED)

    def _fitted(self, text: str, screen: RECT) -> tuple[int, int, bool]:
        """The width and height of the text in pixels, and whether that is less than all of it."""
        shortest, longest = self._pixels(_SHORTEST, 0)[0], self._pixels(_LONGEST, 0)[0]
        longest, highest = min(longest, (screen.right - screen.left) * 3 // 4), (screen.bottom - screen.top) * 3 // 5
        context = _GetDC(self.window)
        before = _SelectObject(context, self._font)
        try:
            area = RECT(0, 0, longest, 0)
            _DrawText(context, text, -1, byref(area), _MEASURED)
        finally:
            _SelectObject(context, before)
            _ReleaseDC(self.window, context)
        if area.bottom > highest:
            return longest, highest, True
        return min(max(area.right, shortest), longest), area.bottom, False

    def _pixels(self, width: int, height: int) -> tuple[int, int]:
        """What so many dialog units are."""
        area = RECT(0, 0, width, height)
        if not _MapDialogRect(self.window, byref(area)):
            raise _failure()
        return area.right, area.bottom


def _failure() -> NobodyToAsk:
    return NobodyToAsk(f"no window can be shown: {ctypes.FormatError(ctypes.get_last_error()).strip()}")
