"""How a process that holds keys keeps others out, and how many connections the system lets it have."""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Final

#: How many files an agent may want to have open: some for each of the connections that a server takes at most.
FILES: Final = 8192

_PR_SET_DUMPABLE: Final = 4  # linux/prctl.h
_PT_DENY_ATTACH: Final = 31  # macOS' sys/ptrace.h; not tried there
_READABLE: Final = "other programs of this user can read the memory of this one"


def protect() -> list[str]:
    """Have this process leave no core file, and let no other one of this user read its memory; what could not be done.

    Only root then reads it. On Windows, reports of its crashes come without its memory, and other processes are kept
    out by `restrict`, which is for those who ask for it. On Linux the files in /proc/PID are root's from then on: for a
    process that is not root's own, /proc/self/exe, fd, maps and status can be read as before, /proc/self/mem, environ
    and the like not, which nothing here does. Programs that it starts may be read again, but cannot leave core files
    either.
    """
    if sys.platform == "win32":
        return [*_no_dump(), *([_READABLE] if _is_readable() else [])]
    else:  # noqa: RET505 - so that type checkers know what is for which system
        return [*_no_core(), *hide()]


def many_files(wanted: int = FILES) -> int:
    """Have the system let this process have up to `wanted` files open, as far as it does; how many it may have."""
    if sys.platform == "win32":
        return wanted
    else:  # noqa: RET505 - see above
        import resource

        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if soft == resource.RLIM_INFINITY:
            return wanted
        more = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        if more > soft:
            try:
                resource.setrlimit(resource.RLIMIT_NOFILE, (more, hard))
            except (OSError, ValueError):  # macOS has a limit beside this one
                return soft
            return more
        return soft


if sys.platform == "win32":
    import ctypes
    from ctypes import byref, c_void_p, wintypes

    _BOOL, _DWORD, _HANDLE = wintypes.BOOL, wintypes.DWORD, wintypes.HANDLE

    def _prototype(library: str, name: str, result: Any, *arguments: Any) -> Any:
        function = getattr(ctypes.WinDLL(library, use_last_error=True), name)
        function.restype, function.argtypes = result, arguments
        return function

    _GetCurrentProcess = _prototype("kernel32", "GetCurrentProcess", _HANDLE)
    _OpenProcess = _prototype("kernel32", "OpenProcess", _HANDLE, _DWORD, _BOOL, _DWORD)
    _CloseHandle = _prototype("kernel32", "CloseHandle", _BOOL, _HANDLE)
    _LocalFree = _prototype("kernel32", "LocalFree", c_void_p, c_void_p)
    _SetErrorMode = _prototype("kernel32", "SetErrorMode", wintypes.UINT, wintypes.UINT)
    _SetReportFlags = _prototype("kernel32", "WerSetFlags", ctypes.c_long, _DWORD)
    _SetMitigation = _prototype(
        "kernel32", "SetProcessMitigationPolicy", _BOOL, ctypes.c_int, c_void_p, ctypes.c_size_t
    )
    _StringToDescriptor = _prototype(
        "advapi32", "ConvertStringSecurityDescriptorToSecurityDescriptorW", _BOOL, wintypes.LPCWSTR, _DWORD,
        ctypes.POINTER(c_void_p), c_void_p,
    )  # fmt: skip
    _SetSecurity = _prototype("advapi32", "SetKernelObjectSecurity", _BOOL, _HANDLE, _DWORD, c_void_p)

    _NO_CRASH_WINDOW, _NO_HEAP = 0x2, 0x1  # SEM_NOGPFAULTERRORBOX, WER_FAULT_REPORTING_FLAG_NOHEAP
    _VM_READ, _DACL = 0x10, 0x4
    _NO_EXTENSION_POINTS, _DISABLED = 6, 0x1  # ProcessExtensionPointDisablePolicy
    #: SYNCHRONIZE, PROCESS_QUERY_LIMITED_INFORMATION and PROCESS_TERMINATE.
    _OURS: Final = 0x101001
    #: READ_CONTROL, and nothing else: an owner could otherwise write the rights anew.
    _OWNERS: Final = 0x20000
    #: PROCESS_ALL_ACCESS, for Windows itself, which nothing keeps out.
    _ALL: Final = 0x1FFFFF

    def restrict() -> list[str]:
        """Close this process to others of the same user, as PuTTY's -restrict-acl does; what could not be done.

        They may wait for its end, end it and learn whose it is, as clients of an agent do, but neither read nor write
        its memory, take its handles, or start threads in it; nor be loaded into it with its windows, as hooks are.
        Administrators who may debug programs still can, and so can who opened it before: call it early. It is no
        boundary: Windows has each thread guarded for itself, keys can be pressed for the person, and programs that this
        one starts are as others are. Old input methods (IMM) and some aids that hook into windows do not work in it.
        """
        from . import winpipe

        problems = []
        me, memory = winpipe.user(), c_void_p()
        entries = f"(A;;{_OURS:#x};;;{me})(A;;{_OWNERS:#x};;;OW)(A;;{_ALL:#x};;;SY)"
        if not _StringToDescriptor(f"D:P{entries}", 1, byref(memory), None):
            return [f"{_READABLE}: {_why()}"]
        try:
            if not _SetSecurity(_GetCurrentProcess(), _DACL, memory):
                problems.append(f"{_READABLE}: {_why()}")
        finally:
            _LocalFree(memory)
        if not _SetMitigation(_NO_EXTENSION_POINTS, byref(_DWORD(_DISABLED)), 4):
            problems.append(f"other programs of this user can load theirs into this one: {_why()}")
        return problems

    def _no_dump() -> list[str]:
        """Have Windows report no crash with what is in memory. The programs that this one starts inherit a part of it:
        no window tells of their crashes, either.
        """
        _SetErrorMode(_SetErrorMode(_NO_CRASH_WINDOW) | _NO_CRASH_WINDOW)
        code = _SetReportFlags(_NO_HEAP)
        return [f"reports of a crash may tell what is in memory: {ctypes.FormatError(code).strip()}"] if code else []

    def _is_readable() -> bool:
        """Whether a process of this user may read the memory of this one: what this one itself may says that."""
        handle = _OpenProcess(_VM_READ, False, os.getpid())
        if handle:
            _CloseHandle(handle)
        return bool(handle)

    def _why() -> str:
        return ctypes.FormatError(ctypes.get_last_error()).strip()

else:

    def _no_core() -> list[str]:
        import resource

        try:
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        except (OSError, ValueError) as error:
            return [f"a core file may be left: {error}"]
        return []

    def hide() -> list[str]:
        """The part of `protect` that ends where this process becomes another program: what could not be done of that.

        Other processes of this user cannot attach to this one, and on Linux it leaves no core file.
        """
        import ctypes

        try:
            library = ctypes.CDLL(None, use_errno=True)
            if sys.platform == "linux":
                failed = library.prctl(_PR_SET_DUMPABLE, *map(ctypes.c_ulong, (0, 0, 0, 0)))
            elif sys.platform == "darwin":
                failed = library.ptrace(_PT_DENY_ATTACH, 0, None, 0)
            else:
                return [_READABLE]
        except (OSError, AttributeError) as error:  # a C library that cannot be loaded, or has no such call
            return [f"{_READABLE}: {error}"]
        return [f"{_READABLE}: {os.strerror(ctypes.get_errno())}"] if failed else []
