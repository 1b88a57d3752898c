"""IdentityAgent from the SSH configuration (ssh_config(5)), as far as it holds for no host in particular.

What stands before the first Host or Match, in `Host *` and in `Match all` counts; a value that depends on a host,
whether by its block or by its tokens, does not. As for ssh, the first value found is the one.
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Final

_MAX_SIZE: Final = 1024 * 1024


def identity_agent(environ: Mapping[str, str], home: str) -> tuple[str, str] | None:
    """The path of the agent that the user's or the system's configuration names, and the file that does.

    None where neither does, where it says `none` or `SSH_AUTH_SOCK`, or where the variable it names is not set.
    """
    system = os.path.join(environ.get("PROGRAMDATA", "C:\\ProgramData"), "ssh") if os.name == "nt" else "/etc/ssh"
    for path, base in (
        (os.path.join(home, ".ssh", "config"), os.path.join(home, ".ssh")),
        (os.path.join(system, "ssh_config"), system),
    ):
        for value, file in _values(path, base, set()):
            expanded = _expand(value, environ, home)
            return (expanded, file) if expanded else None
    return None


def _values(path: str, base: str, read: set[str]) -> Iterator[tuple[str, str]]:
    """The values of IdentityAgent that hold for every host, and their files, in order.

    A file is read once: if its first reading named no agent, another would not either.
    """
    if path in read:
        return
    read.add(path)
    applies = True
    for keyword, words in _lines(path):
        if keyword == "host":
            applies = "*" in words and not any(word.startswith("!") for word in words)
        elif keyword == "match":
            applies = [word.lower() for word in words] == ["all"]
        elif keyword == "identityagent" and applies and words:
            yield words[0], path
        elif keyword == "include" and applies:
            for pattern in words:
                yield from _included(os.path.expanduser(pattern), base, read)


def _included(pattern: str, base: str, read: set[str]) -> Iterator[tuple[str, str]]:
    import glob

    for path in sorted(glob.glob(os.path.join(glob.escape(base), pattern))):
        yield from _values(path, base, read)


def _lines(path: str) -> Iterator[tuple[str, list[str]]]:
    """Keywords in lower case, and their words. What cannot be read is as good as empty: ssh itself will complain."""
    import shlex

    try:
        if not os.path.isfile(path) or os.path.getsize(path) > _MAX_SIZE:
            return
        with open(path, "rb") as file:
            text = _text(file.read(_MAX_SIZE))
    except OSError:
        return
    for line in text.splitlines():
        bare = line.strip()
        keyword = bare.replace("=", " ", 1).partition(" ")[0].partition("\t")[0]
        if not keyword or keyword.startswith("#"):
            continue
        lexer = shlex.shlex(bare[len(keyword) :].lstrip(" \t="), posix=True)
        lexer.whitespace_split, lexer.escape, lexer.commenters = True, "", ""
        try:
            words = list(lexer)
            comment = next((index for index, word in enumerate(words) if word.startswith("#")), None)
            yield keyword.lower(), words[:comment]
        except ValueError:  # a quote that does not end
            continue


def _text(data: bytes) -> str:
    """`data` as UTF-8, or else in the code page of Windows' system, in which Pageant writes its --openssh-config."""
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return data.decode("mbcs", "replace") if os.name == "nt" else data.decode("utf-8", "surrogateescape")


def _expand(value: str, environ: Mapping[str, str], home: str) -> str | None:
    """`value` with `~`, `${VARIABLE}`s and tokens replaced; None where it names no agent, or only one for a host."""
    if value in ("none", "SSH_AUTH_SOCK"):
        return None
    if value.startswith("$") and not value.startswith("${"):
        return environ.get(value[1:])
    if value[:1] == "~" and value[1:2] in ("", "/", os.sep):
        value = home + value[1:]
    parts = value.split("${")
    value = parts[0]
    for part in parts[1:]:
        name, brace, rest = part.partition("}")
        if not brace or name not in environ:
            return None
        value += environ[name] + rest
    expanded = _replace_tokens(value, home)
    return expanded and _mend_pipe(expanded)


def _mend_pipe(path: str) -> str:
    """`path`; if it is a named pipe's, with as many backslashes as were meant.

    Some versions of ssh take two for one, so there may be twice as many, or what such a version shows, half.
    """
    parts = [part for part in path.split("\\") if part]
    is_pipe = path.startswith("\\") and parts[:1] == ["."] and [part.lower() for part in parts[1:2]] == ["pipe"]
    return "\\".join(("", "", *parts)) if is_pipe else path


def _replace_tokens(value: str, home: str) -> str | None:
    """`value` with those tokens replaced that do not depend on the host to be reached; None where there are others."""
    result = ""
    while value:
        before, percent, value = value.partition("%")
        result += before
        if percent:
            text = _token(value[:1], home)
            if text is None:
                return None
            result += text
            value = value[1:]
    return result


def _token(letter: str, home: str) -> str | None:
    import getpass
    import socket

    if letter == "i" and sys.platform != "win32":
        return str(os.getuid())
    if letter == "u":
        try:
            return getpass.getuser()
        except (KeyError, OSError, ImportError):  # a user without a name, as in some containers
            return None
    host = socket.gethostname() if letter in "lL" else ""
    return {"%": "%", "d": home, "l": host, "L": host.partition(".")[0]}.get(letter)
