"""Rules from a text in TOML, with the line of whatever is wrong in it. Nothing here does any input or output."""

from __future__ import annotations

import re
import sys
import tomllib

from ..errors import Error
from .judging import MESSAGES, Action, Rule, Rules
from .patterns import FINGERPRINT, MAX_PATTERN, Pattern

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Final

#: Bytes of the longest text, and the most rules in it.
MAX_SIZE: Final = 1024 * 1024
MAX_RULES: Final = 1000

_FIELDS: Final = ("key", "program", "host", "user", "from", "message", "action", "log")
_ACTIONS: Final = {"allow": Action.ALLOW, "ask": Action.ASK, "deny": Action.DENY}
_ORIGINS: Final = {"local": False, "forwarded": True}
#: What a key can be told of, and what else a rule without a message is for. Lists follow from what may be signed.
_ABOUT_KEYS: Final = ("list", "sign", "add", "remove")
_UNLISTED: Final = frozenset(MESSAGES) - {"list"}

#: Strings of several lines, headers, names at the beginnings of lines, other strings, comments.
_PARTS: Final = re.compile(
    r'''"""(?:\\.|[^\\])*?"{3,5}|\'\'\'.*?\'{3,5}'''
    r"""|^[ \t]*\[\[?[ \t]*["']?(?P<header>[A-Za-z0-9_-]+)["']?[ \t]*(?P<end>\]\]|)"""
    r"""|^[ \t]*["']?(?P<name>[A-Za-z0-9_-]+)["']?[ \t]*[=.]"""
    r"""|"(?:\\.|[^"\\\n])*"|'[^'\n]*'|\#[^\n]*""",
    re.DOTALL | re.MULTILINE,
)
_WHERE: Final = re.compile(r"\(at line (\d+), column \d+\)")


def parse(text: bytes, source: str) -> Rules:
    """The rules that `text` has; `source` is what to call it in errors.

    Raises `Error` for what is no TOML, has unknown fields, values that cannot be, or a rule that can never match.
    """
    return _Parser(text, source).rules()


class _Parser:
    def __init__(self, text: bytes, source: str) -> None:
        self._source = source
        self._lines: list[dict[str, int]] = [{}]  # of names: those before all rules, then those of each
        self._begins: list[int] = []
        self._table = self._read(text)

    def rules(self) -> Rules:
        table = self._table
        for name in table:
            if name not in ("default", "rule"):
                raise self._wrong(self._line(name), f"there is no {_shown(name)}", "there are default and [[rule]]")
        default = self._choice(table, "default", _ACTIONS, 0)
        found = table.get("rule", [])
        if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
            raise self._wrong(self._line("rule"), "rule is no list of rules", "begin each with a line [[rule]]")
        if len(found) > MAX_RULES:
            raise self._wrong(self._begin(MAX_RULES), f"more than {MAX_RULES} rules", "use patterns, or lists of them")
        rules = [self._rule(one, index) for index, one in enumerate(found)]
        self._check_reach(rules)
        return Rules(default, rules)

    def _check_reach(self, rules: list[Rule]) -> None:
        """Raise `Error` for a rule that can never match."""
        wide: list[Rule] = []
        narrow: dict[str, list[Rule]] = {}  # those for some keys alone, by each, as there may be very many
        for later in rules:
            for earlier in (*wide, *(narrow.get(later.keys[0].text, ()) if later.keys else ())):
                if earlier.covers(later):
                    raise self._wrong(
                        later.line,
                        f"this rule can never match, as the one of line {earlier.line} matches all that it does",
                        "move it before that one, or remove it",
                    )
            if later.keys and all(key.plain for key in later.keys):
                for key in later.keys:
                    narrow.setdefault(key.text, []).append(later)
            else:
                wide.append(later)

    def _read(self, text: bytes) -> dict[str, Any]:
        if len(text) > MAX_SIZE:
            raise self._wrong(1, f"more than {MAX_SIZE} bytes", "use patterns, or lists of them")
        try:
            decoded = text.decode("utf-8-sig").replace("\r\n", "\n")
        except UnicodeDecodeError as error:
            line = text.count(b"\n", 0, error.start) + 1
            raise self._wrong(line, "the text is not UTF-8", "save it as UTF-8") from None
        try:
            table = tomllib.loads(decoded)
        except RecursionError:
            raise self._wrong(1, "values within values, too many", "write it as docs/guard.md shows") from None
        except ValueError as error:  # TOMLDecodeError, and what Python says of numbers that are too long
            where = _WHERE.search(str(error))
            line = int(where[1]) if where else decoded.count("\n") + 1 if "end of document" in str(error) else 1
            what = _WHERE.sub("", str(error)).replace("(at end of document)", "").strip()
            raise self._wrong(line, f"no TOML: {what[:200]}", "write it as docs/guard.md shows") from None
        self._look(decoded)
        return table

    def _look(self, text: str) -> None:
        """Find the lines of rules and names, which tomllib does not tell."""
        line, at = 1, 0
        for part in _PARTS.finditer(text):
            line, at = line + text.count("\n", at, part.start()), part.start()
            name = part["header"] or part["name"]
            if name == "rule" and part["end"]:
                self._begins.append(line)
                self._lines.append({})
            elif name:
                self._lines[-1].setdefault(name, line)

    def _begin(self, index: int) -> int:
        """The line at which a rule begins; that of them all, where they stand in brackets behind `rule =`."""
        return self._begins[index] if index < len(self._begins) else self._line("rule")

    def _line(self, name: str, index: int | None = None) -> int:
        """The line of a name within a rule, or outside of all; for want of it, that where the rule begins."""
        if index is None:
            return next((lines[name] for lines in self._lines if name in lines), 1)
        lines = self._lines[index + 1] if index + 1 < len(self._lines) else {}
        return lines.get(name) or self._begin(index)

    def _wrong(self, line: int, what: str, hint: str) -> Error:
        return Error(f"{self._source}, line {line}: {what}", hint)

    def _rule(self, table: dict[str, Any], index: int) -> Rule:
        for name in table:
            if name not in _FIELDS:
                line = self._line(name, index)
                raise self._wrong(line, f"a rule has no {_shown(name)}", f"it can have {', '.join(_FIELDS)}")
        action = self._choice(table, "action", _ACTIONS, self._begin(index), index)
        log = table.get("log", action is not Action.ALLOW)
        if not isinstance(log, bool):
            raise self._wrong(self._line("log", index), "log is neither true nor false", "write one, without quotes")
        origin = self._choice(table, "from", _ORIGINS, 0, index) if "from" in table else None
        return Rule(
            self._begin(index),
            self._messages(table, index),
            action,
            log,
            self._patterns(table, "key", index, _no_key),
            self._patterns(table, "program", index, _no_program, fold=sys.platform == "win32"),
            self._patterns(table, "host", index, _no_host, fold=True),
            self._patterns(table, "user", index, lambda _: ""),
            origin,
        )

    def _messages(self, table: dict[str, Any], index: int) -> frozenset[str]:
        """What messages a rule is about; those that it could be, where it does not say."""
        login = next((name for name in ("host", "user") if name in table), "")
        if "message" not in table:
            if login:
                return frozenset(("sign",))
            return frozenset(_ABOUT_KEYS) & _UNLISTED if "key" in table else _UNLISTED
        line = self._line("message", index)
        found = self._texts(table, "message", index)
        for name in found:
            if name not in MESSAGES:
                raise self._wrong(line, f"there is no message {_shown(name)}", f"there are {', '.join(MESSAGES)}")
            if login and name != "sign":
                raise self._wrong(
                    line, f"{login} is not known for {name}", f"only signatures have a {login}: split the rule"
                )
            if "key" in table and name not in _ABOUT_KEYS:
                raise self._wrong(
                    line, f"key is not known for {name}", "remove the one or the other, or split the rule"
                )
        return frozenset(found)

    def _patterns(
        self, table: dict[str, Any], name: str, index: int, obstacle: Callable[[str], str], *, fold: bool = False
    ) -> tuple[Pattern, ...]:
        if name not in table:
            return ()
        found = self._texts(table, name, index)
        for text in found:
            why = f"has more than {MAX_PATTERN} characters" if len(text) > MAX_PATTERN else obstacle(text)
            if why:
                raise self._wrong(
                    self._line(name, index), f"the {name} {_shown(text)} {why}", "correct it: it would match nothing"
                )
        if name == "program" and sys.platform == "win32":
            found = [text.replace("\\", "/") for text in found]
        return tuple(Pattern(text, fold=fold) for text in found)

    def _texts(self, table: dict[str, Any], name: str, index: int) -> list[str]:
        """A text, or several, none of them empty."""
        value = table[name]
        found = value if isinstance(value, list) else [value]
        if not found or not all(isinstance(one, str) and one for one in found):
            raise self._wrong(self._line(name, index), f"{name} is neither a text nor a list of texts", "use quotes")
        return found

    def _choice(
        self, table: dict[str, Any], name: str, choices: dict[str, Any], missing: int, index: int | None = None
    ) -> Any:
        """What a name stands for that must be there; `missing` is the line to tell if it is not."""
        value = table.get(name)
        words = " or ".join(f'"{word}"' for word in choices)
        if name not in table:
            raise self._wrong(missing or 1, f"{name} is missing", f"write {name} = {words}")
        if not isinstance(value, str) or value not in choices:
            shown = _shown(value) if isinstance(value, str) else "something else"
            raise self._wrong(self._line(name, index), f"{name} is {shown}", f"it can be {words}")
        return choices[value]


def _shown(text: str) -> str:
    """A text of the file's, cut, in quotes and without what could move a cursor."""
    return ascii(text[:64])


def _no_key(text: str) -> str:
    """Why it can be no key, or nothing."""
    if text.startswith("MD5:"):
        return "is a fingerprint that anybody could make another key for; SHA256:… is compared"
    return _no_fingerprint(text)


def _no_host(text: str) -> str:
    if re.search(r"[\s,/@|!]", text):
        return "is no name of a host: give it as known_hosts has it, without a user, and alone"
    return _no_fingerprint(text)


def _no_program(text: str) -> str:
    return "ends with a slash, as no program's path does" if text.endswith(("/", "\\")) else ""


def _no_fingerprint(text: str) -> str:
    if text.startswith(FINGERPRINT) and not re.fullmatch(r"[A-Za-z0-9+/]{43}", text[len(FINGERPRINT) :]):
        return "is no fingerprint, which has 43 letters and digits behind SHA256:"
    return ""
