"""Our agent as others meet it: a keyring behind a server, at an address."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import pageantry
from pageantry.keyring import Keyring
from pageantry.prompts import Person

from .people import Thinker


@pytest.fixture
def said() -> list[str]:
    """The log."""
    return []


@pytest.fixture
def thinker() -> Thinker:
    return Thinker()


@pytest.fixture
def keyring(thinker: Thinker, said: list[str]) -> Iterator[Keyring]:
    with Keyring(Person([thinker]), say=said.append) as keyring:
        yield keyring


@pytest.fixture
def address(keyring: Keyring, said: list[str]) -> Iterator[str]:
    with pageantry.exposed(keyring, say=said.append) as address:
        yield address
