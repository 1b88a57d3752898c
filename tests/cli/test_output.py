"""What the command prints where characters, or the reader, are missing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

NAME = "k\xe9y \u4e2d\u6587 \U0001f511"


@pytest.fixture
def key(tmp_path: Path) -> Path:
    """A key file whose name has characters of all sorts; it is the key's comment in keys:."""
    path = tmp_path / NAME
    private = Ed25519PrivateKey.generate()
    path.write_bytes(private.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()))
    return path


def run(*words: str, encoding: str) -> tuple[str, str]:
    command = [sys.executable, "-m", "pageantry", *words]
    environ = os.environ | {"PYTHONIOENCODING": encoding, "PYTHONUTF8": "0"}
    done = subprocess.run(command, env=environ, capture_output=True, timeout=60)
    said = done.stderr.decode(encoding)
    assert done.returncode == 0, said
    return done.stdout.decode(encoding), said


@pytest.mark.parametrize(
    ("encoding", "shown"),
    [("cp1252", r"kéy \u4e2d\u6587 \U0001f511"), ("cp437", r"kéy \u4e2d\u6587 \U0001f511"), ("utf-8", NAME)],
)
def test_a_comment_beyond_the_code_page_is_shown_as_well_as_can_be(key: Path, encoding: str, shown: str) -> None:
    address = f"keys:{key}"
    for words in (("keys",), ("keys", "--public"), ("agents",)):
        out, said = run(*words, "--agent", address, encoding=encoding)
        assert shown in out
        assert said == ""
    listed = json.loads(run("keys", "--json", "--agent", address, encoding=encoding)[0])
    assert [one["comment"] for one in listed] == [NAME]


def test_a_terminal_shows_what_it_can(at_terminal: Callable[..., tuple[int, str]], key: Path) -> None:
    status, shown = at_terminal("keys", "--agent", f"keys:{key}", typed={})
    assert status == 0
    assert "k\xe9y \u4e2d\u6587" in shown


def test_a_word_that_is_no_text_is_refused_in_words_at_a_terminal(at_terminal: Callable[..., tuple[int, str]]) -> None:
    status, shown = at_terminal("x\udcff", typed={})
    assert status == 2
    assert "Error: " in shown
    assert "Traceback" not in shown


def test_a_reader_that_goes_away_early_is_no_traceback(key: Path) -> None:
    command = [sys.executable, "-m", "pageantry", "keys", "--json", "--agent", f"keys:{key}"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout
    assert process.stderr
    process.stdout.close()
    said = process.stderr.read().decode(errors="replace")
    process.stderr.close()
    assert process.wait(60) == 1
    assert "Traceback" not in said
    assert "Exception" not in said
    assert len(said.splitlines()) in (0, 2)
