"""The name of Pageant's pipe, put together in PuTTY's own steps.

PuTTY asks Windows for the user's name in the system's code page and gives the pipe's name back in it. What has no place
there is changed on the way ("ł" may become "l", "Ж" a "?"), and the cut at "@" may leave half of a character that has
two bytes. So the name is bytes here until it is whole, and then Windows makes text of it, as it does for PuTTY.
"""

from __future__ import annotations

import sys

from .. import wsl
from ..errors import Unreachable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

#: What every pipe of Pageant's is called at first. One that is not `pipe_name()` belongs to somebody else.
PREFIX: Final = "pageant."
#: What the mutex is called at first.
MUTEX: Final = "Local\\pageant-mutex."
#: What Windows scrambles, in another way in each session: this stands in the name, too.
BLOCK: Final = b"Pageant".ljust(16, b"\0")


def pipe_name() -> str:
    """The name of the pipe that Pageant has in this session; never keep it for another. Raises `Unreachable`."""
    if sys.platform == "win32":
        from . import _session

        return _session.text(name_for(_user(), _session.scrambled(BLOCK)))
    else:  # noqa: RET505 - so that type checkers know what is for Windows only
        raise Unreachable(
            "Pageant's pipe is on Windows only", wsl.hint("pageant") or "on UNIX Pageant has a socket: use unix:PATH"
        )


if sys.platform == "win32":

    def mutex_name() -> str:
        """The name of the mutex that a Pageant holds while it starts, since 0.77. Raises `Unreachable`."""
        from . import _session

        return f"{MUTEX}{_session.text(_user())}"

    def _user() -> bytes:
        from . import _session

        user = user_name(_session.principal(), _session.account())
        if user is None:
            raise Unreachable(
                "Windows does not say who you are, and Pageant's pipe has your name", "name its pipe with pipe:NAME"
            )
        return user


def user_name(principal: bytes | None, account: bytes | None) -> bytes | None:
    """The user's name as in the pipe's: that of the principal (user@domain), or else the account's."""
    return account if principal is None else principal.partition(b"@")[0]


def name_for(user: bytes, block: bytes) -> bytes:
    """The pipe's name for this user and this scrambled block, in the system's code page."""
    from hashlib import sha256

    from ..wire import Writer

    return b"%s%s.%s" % (PREFIX.encode(), user, sha256(bytes(Writer().string(block))).hexdigest().encode())
