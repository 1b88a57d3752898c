"""Times as people write them, which are those of ssh_config(5)."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}


def seconds(text: str) -> int:
    """`90`, `15m` or `1h30m` in seconds. ValueError for what is no time."""
    total, digits = 0, ""
    for char in (text.lower() or "?") + ("s" if text[-1:].isdigit() else ""):
        if char.isascii() and char.isdigit():
            digits += char
        elif char in _UNITS and 0 < len(digits) < 11:
            total, digits = total + int(digits) * _UNITS[char], ""
        else:
            raise ValueError(f"{text!r} is no time; 90, 15m and 1h30m are")
    return total
