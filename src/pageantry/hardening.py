"""How a process that holds keys keeps others out, and how many connections the system lets it have."""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

#: How many files an agent may want to have open: some for each of the connections that a server takes at most.
FILES: Final = 8192

_PR_SET_DUMPABLE: Final = 4  # linux/prctl.h
_PT_DENY_ATTACH: Final = 31  # macOS' sys/ptrace.h; not tried there
_READABLE: Final = "other programs of this user can read the memory of this one"


def protect() -> list[str]:
    """Have this process leave no core file, and let no other one of this user read its memory; what could not be done.

    Only root then reads it. On Linux the files in /proc/PID are root's from then on: for a process that is not root's
    own, /proc/self/exe, fd, maps and status can be read as before, /proc/self/mem, environ and the like not, which
    nothing here does. Programs that it starts may be read again, but cannot leave core files either.
    """
    if sys.platform == "win32":
        return [_READABLE]
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


if sys.platform != "win32":

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
