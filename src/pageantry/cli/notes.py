"""Editing a service's notes in the person's editor."""

from __future__ import annotations

import os
import sys
from contextlib import suppress

import click

from ..errors import Error
from ..vault.store import MAX_FILE
from . import Failure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

    from .vault_call import Call

#: The line below which the notes are, in the modern interface; whatever else it says, it has the scissors.
_SCISSORS: Final = ">8"
_EXPLANATION: Final = f"""\
# The notes are below the line with the scissors; what is above it does not matter.
# Leave nothing below the line to have no notes. Empty the whole file to give up and change nothing.
# - - - - - {_SCISSORS} - - - - - {_SCISSORS} - - - - -
"""


def edited(call: Call, old: str) -> tuple[str, str]:
    """The notes after the person edited `old`, and the path of a file with the text, for `discard` once it is saved.

    With the modern interface, emptying the file raises `Failure`; with the other there is no way to give up.
    """
    modern = bool(call.options["modern"])
    text = (_EXPLANATION if modern else "") + old
    path = call.store.keep(f"notes-{os.getpid()}.txt", text.encode() + b"\n" * bool(old))
    try:
        click.edit(filename=path, editor=_editor())
    except (ValueError, click.ClickException) as error:  # no such editor, it failed, or its name is no command line
        reason = error.message if isinstance(error, click.ClickException) else str(error)
        raise _kept(path, text, f"the editor failed: {reason}", "set VISUAL or EDITOR to an editor") from None
    except BaseException:
        if not _changed(path, text):
            discard(path)
        raise
    try:
        with open(path, encoding="utf-8-sig") as file:  # Notepad may put a mark in front
            new = file.read(MAX_FILE)
    except (UnicodeDecodeError, OSError):
        raise _kept(path, text, "the notes cannot be read as UTF-8", "set the editor to UTF-8, and try again") from None
    if modern and not new.strip():
        discard(path)
        raise Failure(
            "the file was emptied, so nothing was changed", "to have no notes, leave the line with the scissors"
        )
    if modern:
        head, line, tail = _split(new)
        new = tail if line else head
    return new.strip(), path


def _editor() -> str | None:
    """The person's editor where click would misread it, as it does a path of Windows' without quotes around it."""
    name = os.environ.get("VISUAL") or os.environ.get("EDITOR") or ""
    return f'"{name}"' if sys.platform == "win32" and os.path.isfile(name) else None


def _changed(path: str, text: str) -> bool:
    try:
        with open(path, "rb") as file:
            return file.read() not in (text.encode(), text.encode() + b"\n")
    except OSError:
        return False


def _kept(path: str, text: str, what: str, hint: str) -> Error:
    """The error to raise; what was typed is not thrown away with it."""
    if _changed(path, text):
        return Error(f"{what}; your notes are in {path}", hint)
    discard(path)
    return Error(f"{what}; nothing was changed", hint)


def discard(path: str) -> None:
    """Remove the file that was edited."""
    with suppress(OSError):
        os.unlink(path)


def _split(text: str) -> tuple[str, str, str]:
    """What is above the line with the scissors, that line, and what is below; all above where there is none."""
    lines = text.splitlines(keepends=True)
    for number, line in enumerate(lines):
        if line.startswith("#") and _SCISSORS in line:
            return "".join(lines[:number]), line, "".join(lines[number + 1 :])
    return text, "", ""
