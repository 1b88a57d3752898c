"""Prompts on a real terminal."""

from __future__ import annotations

import os
import select
import signal
import sys
import time
from pathlib import Path

import pytest

if sys.platform == "win32":
    pytest.skip("pseudo-terminals", allow_module_level=True)

import pty

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey


@pytest.fixture
def locked(tmp_path: Path) -> Path:
    """A key file whose passphrase is `geheim`."""
    sealed = serialization.PrivateFormat.OpenSSH.encryption_builder().kdf_rounds(1).build(b"geheim")
    made = Ed25519PrivateKey.generate().private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, sealed
    )
    (tmp_path / "locked").write_bytes(made)
    return tmp_path / "locked"


def at_terminal(home: Path, *arguments: str, typed: dict[str, bytes]) -> tuple[int, str]:
    """Run the command at a terminal, typing each answer when its prompt appears; its status, and what was shown."""
    process, terminal = pty.fork()
    if process == 0:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # which whoever runs the tests may have had ignored
        os.environ |= {"HOME": str(home), "PAGEANTRY_HOME": str(home / "settings"), "XDG_RUNTIME_DIR": str(home)}
        os.environ.pop("SSH_AUTH_SOCK", None)
        os.execv(sys.executable, [sys.executable, "-m", "pageantry", *arguments])
    shown = ""
    waiting = dict(typed)
    deadline = time.monotonic() + 30
    try:
        while time.monotonic() < deadline:
            if not select.select([terminal], [], [], 0.5)[0]:
                if b"\x03" in typed.values() and not waiting:  # it may have come just before Python began to read
                    os.write(terminal, b"\x03")
                continue
            try:
                piece = os.read(terminal, 10_000)
            except OSError:  # Linux: the other side has closed
                break
            if not piece:
                break
            shown += piece.decode()
            for prompt in [prompt for prompt in waiting if prompt in shown]:
                os.write(terminal, waiting.pop(prompt))
    finally:
        os.close(terminal)
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]), shown


def sign(key: Path) -> tuple[str, ...]:
    (key.parent / "data").write_text("data")
    return ("sign", "1", str(key.parent / "data"), "--raw", "--agent", f"keys:{key}")


def test_a_passphrase_is_asked_for_unseen(locked: Path) -> None:
    status, shown = at_terminal(locked.parent, *sign(locked), typed={"Passphrase for": b"geheim\n"})
    assert status == 0
    assert "geheim" not in shown
    assert "AAAAC3NzaC1lZDI1NTE5" in shown


def test_ctrl_c_at_a_prompt_ends_in_one_line(locked: Path) -> None:
    status, shown = at_terminal(locked.parent, *sign(locked), typed={"Passphrase for": b"\x03"})
    assert status == 1
    assert "Traceback" not in shown
    assert "interrupted" in shown


def test_the_end_of_input_at_a_prompt_ends_in_one_line(locked: Path) -> None:
    status, shown = at_terminal(locked.parent, *sign(locked), typed={"Passphrase for": b"\x04"})
    assert status == 1
    assert "Traceback" not in shown


def test_a_lock_is_asked_for_twice(tmp_path: Path) -> None:
    typed = {"Lock with passphrase": b"one\n", "The same again": b"two\n"}
    status, shown = at_terminal(tmp_path, "lock", "--agent", "unix:/nowhere", typed=typed)
    assert status == 1
    assert "differ, nothing was locked" in shown


def test_colours_are_for_terminals_and_not_for_those_who_want_none(
    locked: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ("agents", "--agent", f"keys:{locked}")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert "\x1b[1m" in at_terminal(locked.parent, *command, typed={})[1]
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b[3" not in at_terminal(locked.parent, *command, typed={})[1]
