"""What stands in the units of a service: text for systemd, and what it says of the service.

See systemd.service(5), systemd.socket(5), systemd.syntax(7).
"""

from __future__ import annotations

import os
import re

from ..errors import Error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Final

    from .service_options import Wanted

#: The first line of what is ours.
MARK: Final = "# written by pageantry service install, which replaces it"

#: What a program's path cannot have: systemd refuses the most of it, and would replace $ in one of two places.
_NO_PROGRAM: Final = re.compile(r"[\x00-\x1f\x7f'\"\\$]")
_ESCAPED: Final = re.compile(r'[\x00-\x1f\x7f"\\]')


def service(name: str, wanted: Wanted, *, activated: bool) -> str:
    """The unit that runs the command: again when it has failed, but not for ever."""
    lines = [MARK, "[Unit]", f"Description={_description(wanted)}"]
    if activated:
        lines += [f"Requires={name}.socket"]
    lines += [
        "StartLimitIntervalSec=300",
        "StartLimitBurst=5",
        "",
        "[Service]",
        f"ExecStart={_command(wanted.words())}",
    ]
    for variable in ("SSH_ASKPASS", "SSH_ASKPASS_REQUIRE"):  # by which it asks where it has no terminal
        if value := os.environ.get(variable):
            lines += [f"Environment={_quoted(f'{variable}={value}')}"]
    lines += ["Restart=on-failure", "RestartSec=5", "RestartPreventExitStatus=2", "NoNewPrivileges=yes", "UMask=0077"]
    if not activated:
        lines += ["", "[Install]", "WantedBy=default.target"]
    return "\n".join(lines) + "\n"


def socket(paths: Sequence[str], wanted: Wanted, runtime: str) -> str:
    """The unit that listens, and starts the other one when somebody comes; `runtime` is the runtime directory."""
    lines = [MARK, "[Unit]", f"Description={_description(wanted)}", "", "[Socket]"]
    lines += [f"ListenStream={_specified(path, runtime)}" for path in paths]
    lines += ["SocketMode=0600", "DirectoryMode=0700", "RemoveOnStop=yes", "", "[Install]", "WantedBy=sockets.target"]
    return "\n".join(lines) + "\n"


def _description(wanted: Wanted) -> str:
    return "Bridge to SSH agents (pageantry)" if wanted.command == "bridge" else "SSH agent (pageantry)"


def _command(words: Sequence[str]) -> str:
    """A command for ExecStart. Raises `Error` for what systemd would not start."""
    program, *rest = words
    if _NO_PROGRAM.search(program):
        raise Error(f"systemd starts no program at {program!r}", "install pageantry at a path without such characters")
    return " ".join([_quoted(program), *(_quoted(word).replace("$", "$$") for word in rest)])


def _quoted(word: str) -> str:
    """A word as systemd.syntax(7) has it, in which it finds no specifiers. Raises `Error` where it is no UTF-8."""
    try:
        word.encode()
    except UnicodeEncodeError:
        raise Error(f"systemd has no words that are not UTF-8, such as {word!r}", "rename that file") from None
    escaped = _ESCAPED.sub(lambda found: f"\\x{ord(found[0]):02x}", word)
    return f'"{escaped.replace("%", "%%")}"'


def words(text: str) -> list[str]:
    """The words of the command in a unit of ours."""
    line = re.search(r"^ExecStart=(.*)$", text, re.MULTILINE)
    program, *rest = [_unquoted(word) for word in re.findall(r'"([^"]*)"', line[1] if line else "")] or [""]
    return [program, *(word.replace("$$", "$") for word in rest)]


def _unquoted(word: str) -> str:
    return re.sub(r"\\x(..)", lambda found: chr(int(found[1], 16)), word.replace("%%", "%"))


def _specified(path: str, runtime: str) -> str:
    """A path in a unit: %t is the runtime directory, which may be another one next time."""
    rest = path.removeprefix(f"{runtime}/")
    return ("%t/" if rest != path else "") + rest.replace("%", "%%")


def listening(text: str, runtime: str) -> list[str]:
    """The paths in a unit of ours at which systemd listens."""
    paths = re.findall(r"^ListenStream=(.*)$", text, re.MULTILINE)
    return [re.sub("%([%t])", lambda found: runtime if found[1] == "t" else "%", path) for path in paths]
