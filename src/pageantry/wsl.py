"""Windows' subsystem for Linux: whether this is one, of which kind, and how Windows' agents are reached from there.

WSL 1 shares Windows' 127.0.0.1 and its sockets that are files; WSL 2 is another computer. Both start Windows' programs.
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Final

#: The command that leads from there to an agent of Windows': pageantry for Windows, its other end.
RELAY: Final = "pageantry.exe relay"


def version(release: str = "") -> int:
    """1 or 2 by the kernel's `release` (default: this system's); 0 outside of WSL."""
    if sys.platform == "linux":
        release = release or os.uname().release
    release = release.lower()
    if "microsoft" not in release:
        return 0
    return 2 if "wsl2" in release or "microsoft-standard" in release else 1


def has_relay(environ: Mapping[str, str]) -> bool:
    """Whether pageantry for Windows is on PATH, where WSL puts what is on Windows' own."""
    from shutil import which

    return which(RELAY.split()[0], path=environ.get("PATH", "")) is not None


def hint(agent: str) -> str:
    """How to reach an agent of Windows' from here; empty outside of WSL."""
    number = version()
    return f"from WSL {number} use 'stdio:{RELAY} {agent}', with pageantry installed on Windows" if number else ""


def is_windows_drive(path: str, mounts: str = "/proc/mounts") -> bool:
    """Whether `path`, without links in it, lies on a drive of Windows', where owners and modes are made up."""
    if not version():
        return False
    best, kind = "", ""
    try:
        with open(mounts, encoding="utf-8", errors="surrogateescape") as file:
            for line in file:
                _, point, system, *_ = line.split(" ")
                inside = point == "/" or path == point or path.startswith(point + "/")
                if inside and len(point) >= len(best):
                    best, kind = point, system
    except (OSError, ValueError):
        return False
    return kind in ("drvfs", "9p")
