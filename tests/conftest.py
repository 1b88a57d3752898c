from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

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
