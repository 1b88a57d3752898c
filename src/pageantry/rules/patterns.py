"""Patterns of names: what they match, and whether one matches all that another does."""

from __future__ import annotations

import re

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

#: Characters of the longest pattern.
MAX_PATTERN: Final = 1024
#: How the fingerprint of a key begins.
FINGERPRINT: Final = "SHA256:"


class Pattern:
    """A text in which * is any number of characters and ? any one; or, whole, the fingerprint of a key."""

    __slots__ = ("_expression", "_start", "_wider", "fold", "is_fingerprint", "plain", "text")

    def __init__(self, text: str, *, fold: bool = False) -> None:
        self.text = text.lower() if fold and not text.startswith(FINGERPRINT) else text
        self.fold = fold
        self.is_fingerprint = text.startswith(FINGERPRINT)
        #: whether it is one text and no other
        self.plain = self.is_fingerprint or not re.search(r"[*?]", text)
        self._expression = None if self.plain else re.compile(_expression(self.text, "."), re.DOTALL)
        self._start = re.split(r"[*?]", self.text, maxsplit=1)[0]
        self._wider: re.Pattern[str] | None = None  # made when needed: to make one takes long

    def matches(self, text: str) -> bool:
        """Whether it is all of `text`."""
        if self.fold and not self.is_fingerprint:
            text = text.lower()
        return text == self.text if self._expression is None else self._expression.fullmatch(text) is not None

    def covers(self, other: Pattern) -> bool:
        """Whether it certainly matches whatever the other one does."""
        if self.text == other.text or (self.text and not self.text.strip("*")):
            return True
        if self.plain or other.is_fingerprint or not other.text.startswith(self._start):
            return False
        self._wider = self._wider or re.compile(_expression(self.text, "[^*]"), re.DOTALL)
        return self._wider.fullmatch(other.text) is not None


def _expression(pattern: str, one: str) -> str:
    """The regular expression for a pattern; no part of it is ever tried twice at one place, so it takes no time."""
    first, *rest = (re.escape(part).replace(r"\?", one) for part in re.sub(r"\*+", "*", pattern).split("*"))
    if not rest:
        return first
    *middle, last = rest
    return "".join((first, *(f"(?>.*?{part})" for part in middle), ".*", last))
