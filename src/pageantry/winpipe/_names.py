"""What a pipe may be called."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

PREFIX: Final = "\\\\.\\pipe\\"

#: The longest whole path of a pipe, in UTF-16 units (CreateNamedPipeW).
MAX_PATH: Final = 256


def path(name: str) -> str:
    r"""The whole path of the pipe called `name`, which may be NAME, \\.\pipe\NAME or //./pipe/NAME, in any case.

    Raises ValueError, with a sentence for a person, for what can be no name of a pipe on this computer. Limits on what
    a server may do in its client's name do not hold on others.
    """
    bare = name.replace("/", "\\")
    if bare.startswith("\\\\"):
        host, _, rest = bare[2:].partition("\\")
        device, _, bare = rest.partition("\\")
        if device.lower() != "pipe":
            raise ValueError(f"{_shown(name)} is no path of a pipe, which is {PREFIX}NAME")
        if host != ".":
            raise ValueError(f"{_shown(name)} is a pipe of another computer; only those of this one are used")
    if not bare:
        raise ValueError("the name of a pipe cannot be empty")
    if "\\" in bare:
        raise ValueError(f"{_shown(name)} has a slash in the pipe's own name")
    if any(char < " " or char == "\x7f" for char in bare):
        raise ValueError(f"{_shown(name)} has a control character in it")
    if any(char in '*?<>"' for char in bare):  # a pattern, where Windows lists pipes
        raise ValueError(f'{_shown(name)} has one of the characters in it that stand for others: * ? < > "')
    if bare[-1] in ". ":  # Windows would drop it, and mean another pipe
        raise ValueError(f"{_shown(name)} ends in a dot or a space")
    whole = PREFIX + bare
    size = len(whole.encode("utf-16-le", "surrogatepass")) // 2
    if size > MAX_PATH:
        raise ValueError(f"{_shown(name)} makes a path of {size} characters; a pipe's can have {MAX_PATH}")
    return whole


def _shown(name: str) -> str:
    """`name` on one line of bearable length, its backslashes as people type them."""
    return repr(name if len(name) <= 80 else name[:77] + "…").replace("\\\\", "\\")
