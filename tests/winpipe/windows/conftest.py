"""Real pipes. The tests beside this run on Windows, and in large part under Wine."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from pageantry import winpipe
from pageantry.winpipe import Listener, Pipe


@pytest.fixture
def listener(name: str) -> Iterator[Listener]:
    """A server of that name."""
    with winpipe.listen(name) as listener:
        listener.settimeout(30)
        yield listener


@pytest.fixture
def ends(name: str, listener: Listener) -> Iterator[tuple[Pipe, Pipe]]:
    """A client's pipe and its server's."""
    with winpipe.connect(name) as client, listener.accept() as server:
        client.settimeout(30)
        server.settimeout(30)
        yield client, server


@pytest.fixture(params=["client", "server"])
def either(request: pytest.FixtureRequest, ends: tuple[Pipe, Pipe]) -> tuple[Pipe, Pipe]:
    """The two, and the other way round."""
    return ends if request.param == "client" else ends[::-1]


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    """Threads enough."""
    with ThreadPoolExecutor(250) as pool:
        yield pool


@pytest.fixture
def others_pipes(wine: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have pipes that others made without a descriptor belong to us; under Wine they belong to nobody."""
    if sys.platform == "win32" and wine:
        from pageantry.winpipe import _security

        monkeypatch.setattr(_security, "owner", lambda handle: _security.user())
