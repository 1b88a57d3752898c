"""A lock between processes, as a file: shared by readers, held alone by a writer.

By hand, because it is thirty lines, and the package that does it costs as much time to import as all the rest of a
command and knows no shared lock.
"""

from __future__ import annotations

import os
import sys

from ..errors import SettingsError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType
    from typing import Final

#: How long somebody else's lock is waited for, in seconds. A save takes milliseconds, on a slow network disk a second.
LOCK_SECONDS: Final = 5.0

if sys.platform == "win32":
    import ctypes
    import msvcrt
    from ctypes import wintypes

    # Not msvcrt.locking, which knows no shared locks.
    _LockFileEx = ctypes.WinDLL("kernel32", use_last_error=True).LockFileEx
    _LockFileEx.restype = wintypes.BOOL
    _LockFileEx.argtypes = (wintypes.HANDLE, *(wintypes.DWORD,) * 4, ctypes.c_void_p)
    _FAIL_IMMEDIATELY, _EXCLUSIVE, _LOCK_VIOLATION, _IO_PENDING = 1, 2, 33, 997

    def _try_lock(file: int, shared: bool) -> None:
        start = ctypes.create_string_buffer(32)  # OVERLAPPED, all of it zero
        flags = _FAIL_IMMEDIATELY | (0 if shared else _EXCLUSIVE)
        if not _LockFileEx(msvcrt.get_osfhandle(file), flags, 0, 1, 0, start):
            code = ctypes.get_last_error()
            if code in (_LOCK_VIOLATION, _IO_PENDING):
                raise BlockingIOError
            raise ctypes.WinError(code)
else:
    import fcntl

    def _try_lock(file: int, shared: bool) -> None:
        fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)


class Locked(SettingsError):
    """Others keep it locked."""


class FileLock:
    """Holds a lock on the file at `path`, which is made when it is missing, for the length of a `with`.

    Raises `Locked` when others keep it locked for longer than `seconds`, `SettingsError` when it cannot be opened.
    A reader (`shared`) for whom there can be no lock goes on without: what it reads is replaced as a whole.
    """

    def __init__(self, path: str, *, shared: bool, seconds: float = LOCK_SECONDS) -> None:
        self._path, self._shared, self._seconds = path, shared, seconds
        self._file: int | None = None

    def __enter__(self) -> None:
        try:
            self._file = os.open(self._path, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o600)
        except OSError as error:
            if self._shared:
                return
            raise SettingsError(
                f"cannot open the lock {self._path}: {error.strerror}", "make sure that you may write there"
            ) from None
        try:
            self._wait(self._file)
        except BaseException:
            os.close(self._file)
            raise

    def _wait(self, file: int) -> None:
        from time import monotonic, sleep

        end = monotonic() + self._seconds
        while True:
            try:
                _try_lock(file, self._shared)
            except BlockingIOError:
                if monotonic() >= end:
                    raise Locked(
                        f"another program holds {self._path} for more than {self._seconds:g} seconds",
                        "wait until it is done, or end it",
                    ) from None
                sleep(0.005)
            except OSError as error:
                if self._shared:
                    return
                raise SettingsError(
                    f"cannot lock {self._path}: {error.strerror}", "set PAGEANTRY_HOME to a folder on a local disk"
                ) from None
            else:
                return

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            os.close(self._file)  # and with it goes the lock
            self._file = None
