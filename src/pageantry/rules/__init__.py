"""Rules about what may pass to an agent: read from a small TOML file, checked, and judged by.

    rules = parse(text, "guard.toml")       # or raises Error, with the line
    rules.judge(request).action             # Action.ALLOW, ASK or DENY
    rules.shows(request).action             # the same for a key in a list
    current = RulesFile("guard.toml", say)  # the same of a file, which may change meanwhile: current() are the rules

What the fields of a rule can and cannot know is in docs/guard.md.
"""

from __future__ import annotations

from .file import RulesFile
from .judging import READ_ONLY, Action, Host, Key, Request, Rule, Rules, Verdict
from .parsing import parse

__all__ = ["READ_ONLY", "Action", "Host", "Key", "Request", "Rule", "Rules", "RulesFile", "Verdict", "parse"]
