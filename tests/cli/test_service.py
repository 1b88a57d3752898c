"""The command `service` on systems where it has no session to put an agent into yet."""

from __future__ import annotations

import os
import sys

import pytest

from .serving import call, failed

if sys.platform == "win32":
    pytest.skip("test_service_on_windows.py has Windows", allow_module_level=True)


@pytest.mark.parametrize("words", [["install"], ["install", "--now"], ["remove"], ["status"], ["status", "--json"]])
def test_it_says_where_to_look(words: list[str]) -> None:
    done = call(dict(os.environ), "service", *words)
    assert failed(done) == "pageantry puts an agent into the session on Windows alone, so far"
    assert "docs/serving.md" in done.stderr
