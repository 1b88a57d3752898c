"""The client's way to a free instance of a pipe: the logic, for any kernel."""

from __future__ import annotations

import errno
from time import monotonic, sleep

from ._stream import SLICE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Final, TypeVar

    _T = TypeVar("_T")

_SHORTEST_PAUSE: Final = 0.001
_LONGEST_PAUSE: Final = 0.05


class Busy(OSError):
    """All instances of the pipe are taken."""


def opened(path: str, timeout: float, open_: Callable[[str], _T], wait_free: Callable[[str, float], bool]) -> _T:
    """What `open_` gives, tried again for `timeout` seconds while that raises `Busy`.

    That an instance became free, as `wait_free` tells, does not mean that it is still so when it is opened.
    Raises TimeoutError, and what the two raise otherwise.
    """
    deadline = monotonic() + timeout
    pause = _SHORTEST_PAUSE
    while True:
        try:
            return open_(path)
        except Busy:
            left = deadline - monotonic()
            if left <= 0:
                raise TimeoutError(errno.ETIMEDOUT, f"all of its instances were busy for {timeout:g} s", path) from None
        try:
            free = wait_free(path, min(left, SLICE))  # in slices, for Ctrl-C's sake
        except FileNotFoundError:  # nobody's just now, as between two clients of a server with one instance: look again
            free = True
        if free:
            sleep(min(pause, max(0.0, deadline - monotonic())))
            pause = min(pause * 2, _LONGEST_PAUSE)
