"""The words of ssh-agent(1): what its command line asks for, and what it says to a shell.

Those are of OpenSSH 9.2 to 10.1. Nothing here is done yet.
"""

from __future__ import annotations

from .times import seconds

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Final

_FLAGS: Final = "cDdksTuU"
_VALUED: Final = "aEOPt"
#: The largest C int: of seconds, and of a process id.
_MAX_INT: Final = 2**31 - 1
#: What may stand in a path that no shell takes for more than a path.
_PLAIN: Final = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789@%+=:,./-_")

USAGE: Final = """\
usage: pageantry ssh-agent [-c | -s] [-DdTU] [-a bind_address] [-E fingerprint_hash]
                           [-O option] [-P allowed_providers] [-t life]
       pageantry ssh-agent [-TU] [-a bind_address] [-E fingerprint_hash] [-O option]
                           [-P allowed_providers] [-t life] command [arg ...]
       pageantry ssh-agent [-c | -s] -k
       pageantry ssh-agent -u
"""


class WrongWords(Exception):
    """A command line that means nothing: what to say, and the exit status."""

    def __init__(self, line: str, *, usage: bool = True) -> None:
        super().__init__(f"{line}\n{USAGE}".lstrip("\n") if usage else f"{line}\n")
        self.status = 1 if usage else 255


def split(words: Sequence[str]) -> tuple[list[tuple[str, str]], list[str]]:
    """The options, each with its value, and the words behind them, as getopt(3) divides them on BSD."""
    given: list[tuple[str, str]] = []
    rest = list(words)
    while rest and rest[0].startswith("-") and rest[0] != "-":
        letters = rest.pop(0)[1:]
        if letters == "-":
            break
        while letters:
            letter, letters = letters[0], letters[1:]
            value = ""
            if letter in _VALUED:
                if not letters and not rest:
                    raise WrongWords(f"option requires an argument -- {letter}")
                value, letters = letters or rest.pop(0), ""
            elif letter not in _FLAGS:
                raise WrongWords(f"unknown option -- {letter}")
            given.append((letter, value))
    return given, rest


class Options:
    """What a command line asks for. `shell` is what SHELL says. Raises `WrongWords`."""

    def __init__(self, words: Sequence[str], shell: str = "") -> None:
        given, self.command = split(words)
        self.address = ""
        self.digest = "sha256"
        self.providers: str | None = None
        #: of keys that come without one, in seconds; 0 is for ever
        self.lifetime = 0
        #: patterns of the applications whose keys may sign anything; None is all
        self.web_safe: str | None = "ssh:*"
        #: how often each letter was given
        self.count = dict.fromkeys(_FLAGS, 0)
        for letter, value in given:
            self._take(letter, value)
        if self.command and any(self.count[letter] for letter in "cDdksu"):
            raise WrongWords("")
        #: whether the shell is one of csh's kind
        self.csh = bool(self.count["c"]) or (not self.count["s"] and shell.endswith("csh"))
        #: whether not to go to the background
        self.foreground = bool(self.count["d"] or self.count["D"])

    def _take(self, letter: str, value: str) -> None:
        if letter in _VALUED:
            return _READERS[letter](self, value)
        self.count[letter] += 1
        if (self.count["c"] and self.count["s"]) or self.count["d"] + self.count["D"] > 1:
            raise WrongWords("")
        return None

    def _address(self, value: str) -> None:
        self.address = value

    def _hash(self, value: str) -> None:
        if value.lower() not in ("md5", "sha256"):
            raise WrongWords(f'Invalid hash algorithm "{value}"', usage=False)
        self.digest = value.lower()

    def _option(self, value: str) -> None:
        if value == "no-restrict-websafe":
            self.web_safe = None
        elif value.startswith("websafe-allow="):
            self.web_safe = value.partition("=")[2]
        elif value != "allow-remote-pkcs11":  # nobody on another computer may, here, whatever is asked for
            raise WrongWords("Unknown -O option", usage=False)

    def _providers(self, value: str) -> None:
        if self.providers is not None:
            raise WrongWords("-P option already specified", usage=False)
        self.providers = value

    def _lifetime(self, value: str) -> None:
        try:
            self.lifetime = seconds(value)
        except ValueError:
            raise WrongWords("Invalid lifetime") from None
        if self.lifetime > _MAX_INT:
            raise WrongWords("Invalid lifetime")


_READERS: Final[dict[str, Callable[[Options, str], None]]] = {
    "a": Options._address,
    "E": Options._hash,
    "O": Options._option,
    "P": Options._providers,
    "t": Options._lifetime,
}


def pid_of(text: str) -> int:
    """The process that SSH_AGENT_PID names. ValueError with a word for why it names none."""
    digits = text.lstrip(" \t\n\v\f\r")
    if not (unsigned := digits[1:] if digits[:1] in ("-", "+") else digits).isdecimal() or not unsigned.isascii():
        raise ValueError("invalid")
    pid = int(digits[:12])  # which is more than enough for each of them
    if pid < 2:
        raise ValueError("too small")
    if pid > _MAX_INT:
        raise ValueError("too large")
    return pid


def settings(variables: dict[str, str], *, csh: bool) -> str:
    """The commands that give a shell these variables."""
    if csh:
        return "".join(f"setenv {name} {quoted(value, csh=True)};\n" for name, value in variables.items())
    return "".join(f"{name}={quoted(value)}; export {name};\n" for name, value in variables.items())


def removals(names: Sequence[str], *, csh: bool) -> str:
    """The commands that take variables from a shell."""
    return "".join(f"{'unsetenv' if csh else 'unset'} {name};\n" for name in names)


def quoted(text: str, *, csh: bool = False) -> str:
    """`text` as a word for a shell. In quotes all but the quote itself is what it is, but for csh."""
    if _PLAIN.issuperset(text):
        return text
    text = text.replace("'", "'\\''")
    if csh:
        text = text.replace("!", "\\!").replace("\n", "\\\n")
    return f"'{text}'"
