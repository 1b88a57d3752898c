"""Prompts on a real terminal."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

AtTerminal = Callable[..., tuple[int, str]]


@pytest.fixture
def locked(tmp_path: Path) -> Path:
    """A key file whose passphrase is `geheim`."""
    return write_key(tmp_path / "locked")


def write_key(path: Path) -> Path:
    sealed = serialization.PrivateFormat.OpenSSH.encryption_builder().kdf_rounds(1).build(b"geheim")
    made = Ed25519PrivateKey.generate().private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, sealed
    )
    path.write_bytes(made)
    return path


def sign(key: Path) -> tuple[str, ...]:
    (key.parent / "data").write_text("data")
    return ("sign", "1", str(key.parent / "data"), "--raw", "--agent", f"keys:{key}")


def test_a_passphrase_is_asked_for_unseen(at_terminal: AtTerminal, locked: Path) -> None:
    status, shown = at_terminal(*sign(locked), typed={"Passphrase for": b"geheim\n"})
    assert status == 0
    assert "geheim" not in shown
    assert "AAAAC3NzaC1lZDI1NTE5" in shown


def test_ctrl_c_at_a_prompt_ends_in_one_line(at_terminal: AtTerminal, locked: Path) -> None:
    status, shown = at_terminal(*sign(locked), typed={"Passphrase for": b"\x03"})
    assert status == 1
    assert "Traceback" not in shown
    assert "interrupted" in shown


def test_the_end_of_input_at_a_prompt_ends_in_one_line(at_terminal: AtTerminal, locked: Path) -> None:
    status, shown = at_terminal(*sign(locked), typed={"Passphrase for": b"\x04"})
    assert status == 1
    assert "Traceback" not in shown


def test_a_key_is_chosen_at_the_terminal_and_its_passphrase_asked_for(at_terminal: AtTerminal, locked: Path) -> None:
    address = f"keys:{locked}{os.pathsep}{write_key(locked.parent / 'another')}"
    typed = {"to abort):": b"1\n", "Passphrase for": b"falsch\n", "Wrong passphrase": b"geheim\n"}
    status, shown = at_terminal("vault", "-k", "--agent", address, "--length", "9", "--space", "0", "x", typed=typed)
    assert status == 0
    assert "[2]" in shown
    assert "geheim" not in shown
    assert len(shown.split()[-1]) == 9


def test_a_lock_is_asked_for_twice(at_terminal: AtTerminal) -> None:
    typed = {"Lock with passphrase": b"one\n", "The same again": b"two\n"}
    status, shown = at_terminal("lock", "--agent", "unix:/nowhere", typed=typed)
    assert status == 1
    assert "differ, nothing was locked" in shown


def test_colours_are_for_terminals_and_not_for_those_who_want_none(
    at_terminal: AtTerminal, locked: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ("agents", "--agent", f"keys:{locked}")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert "\x1b[1m" in at_terminal(*command, typed={})[1]
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b[3" not in at_terminal(*command, typed={})[1]
