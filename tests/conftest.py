from __future__ import annotations

import contextlib
import ctypes
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest


@pytest.fixture
def as_nobody() -> Callable[[], AbstractContextManager[None]]:
    """Root may read and write everything, so for the length of a `with` it becomes a user who may not."""

    @contextlib.contextmanager
    def become() -> Iterator[None]:
        seteuid, geteuid = getattr(os, "seteuid", None), getattr(os, "geteuid", None)
        root = seteuid and geteuid and geteuid() == 0
        if root and seteuid:
            seteuid(65534)
        try:
            yield
        finally:
            if root and seteuid:
                seteuid(0)

    return become


@pytest.fixture
def symlink() -> Callable[[Path, Path], None]:
    """Makes a symbolic link to the first path at the second, or skips the test: Windows lets not every user do so."""

    def make(target: Path, path: Path) -> None:
        try:
            path.symlink_to(target)
        except OSError as error:
            pytest.skip(f"this user may not make symbolic links: {error.strerror}")
        if not path.is_symlink():
            pytest.skip("this system says that it made a symbolic link, and made none")

    return make


@pytest.fixture
def wine() -> bool:
    """Whether this Windows is Wine, which does not do all that Windows does."""
    if sys.platform != "win32":
        return False
    return hasattr(ctypes.WinDLL("ntdll"), "wine_get_version")
