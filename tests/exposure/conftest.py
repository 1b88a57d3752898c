from __future__ import annotations

from collections.abc import Iterator

import pytest

import pageantry
from pageantry.keyfiles import KeyFiles

from .upstream import (
    KEY,
)


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def offered() -> Iterator[str]:
    """A key file, at an address."""
    with pageantry.exposed(KeyFiles([str(KEY)])) as address:
        yield address
