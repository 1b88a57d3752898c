"""What the parts of `pageantry vault` share: one invocation of it."""

from __future__ import annotations

from ..vault.derive import SETTINGS
from ..vault.store import Store
from .common import say

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class Call:
    """One invocation: what was asked for, the settings on disk, and how much to say about it."""

    def __init__(self, options: dict[str, Any]) -> None:
        self.options = options
        self.service: str = options["service"] or ""
        self.store = Store()
        #: the settings given on the command line
        self.chosen = {name: options[name] for name in (*SETTINGS, "compat") if options[name] is not None}

    def given(self, name: str) -> bool:
        """Whether the option is there, be it with 0."""
        value = self.options[name]
        return value is not None and value is not False and value != ()

    def say(self, text: str) -> None:
        """A word to the person, unless they want it quiet."""
        if not self.options["quiet"]:
            say(text)

    def detail(self, text: str) -> None:
        """A word to the person who wants to know more."""
        if self.options["verbose"] or self.options["debug"]:
            say(text)
