from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def home() -> Iterator[Path]:
    """A home whose paths are short enough for sockets, with a runtime directory `run`."""
    with tempfile.TemporaryDirectory(prefix="pgt", dir="/tmp") as made:
        (Path(made) / "run").mkdir(mode=0o700)
        yield Path(made)


@pytest.fixture
def environ(home: Path) -> dict[str, str]:
    """The environment of a person who lives there, and has neither an agent nor a desktop."""
    desktop = ("SSH_", "LISTEN_", "DISPLAY", "WAYLAND_DISPLAY", "JOURNAL_STREAM")
    clean = {name: value for name, value in os.environ.items() if not name.startswith(desktop)}
    return clean | {"HOME": str(home), "TMPDIR": str(home), "XDG_RUNTIME_DIR": str(home / "run"), "TERM": "dumb"}
