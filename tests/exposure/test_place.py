"""Where an agent is exposed, to whom, and what is left of it."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import stat
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import pageantry
from pageantry import server
from pageantry.endpoints import parse
from pageantry.errors import Unreachable
from pageantry.keyfiles import KeyFiles

from .upstream import (
    KEY,
    LIST,
    ONE,
    connected,
    hung_up,
    passing,
)


def test_the_end_hangs_up_on_everybody_and_waits_for_nothing(said: list[str]) -> None:
    asked = threading.Event()

    def script(_: bytes) -> bytes:
        asked.set()
        return b""

    with contextlib.ExitStack() as stack:
        with passing(script, said) as (address, _):
            idle = stack.enter_context(connected(address))
            waiting = stack.enter_context(connected(address))
            waiting.sendall(LIST)
            assert asked.wait(20)
            start = time.monotonic()
        assert time.monotonic() - start < server.GRACE
        assert hung_up(idle)
        assert hung_up(waiting)
    assert said == []
    with pytest.raises(Unreachable):
        parse(address).connect(0.5)


def test_an_error_within_ends_it_too() -> None:
    with pytest.raises(ZeroDivisionError), pageantry.exposed(KeyFiles([str(KEY)])) as address:
        raise ZeroDivisionError
    with pytest.raises(Unreachable):
        parse(address).connect(0.5)


def test_it_may_be_closed_twice_or_before_it_began() -> None:
    exposure = pageantry.exposed(KeyFiles([str(KEY)]))
    with exposure:
        pass
    exposure.close()
    pageantry.exposed(KeyFiles([str(KEY)])).close()


def test_one_exposed_may_be_exposed_again(offered: str) -> None:
    with pageantry.connect(offered) as one, pageantry.exposed(one) as address, pageantry.connect(address) as other:
        assert other.identities() == one.identities()


def test_nothing_is_left_of_it(leaves_nothing: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    def use() -> None:
        with passing(lambda _: ONE, []) as (address, _), contextlib.ExitStack() as stack:
            for _ in range(5):
                stack.enter_context(connected(address)).sendall(LIST)
            stack.enter_context(connected(address))
            with pageantry.connect(address) as agent:
                agent.identities()
        pageantry.exposed(KeyFiles([str(KEY)])).close()

    with tempfile.TemporaryDirectory(prefix="pgt", dir=None if sys.platform == "win32" else "/tmp") as made:
        monkeypatch.setenv("XDG_RUNTIME_DIR", made)
        leaves_nothing(use)
        assert os.listdir(made) == []


if sys.platform != "win32":
    NOBODY = 65534

    @pytest.fixture
    def place() -> Iterator[Path]:
        made = Path(tempfile.mkdtemp(prefix="pgt", dir="/tmp"))
        yield made
        shutil.rmtree(made)

    def shown(monkeypatch: pytest.MonkeyPatch, **places: Path | str) -> Path:
        """Where an agent is offered with these variables, which is gone afterwards."""
        for name in ("XDG_RUNTIME_DIR", "TMPDIR"):
            monkeypatch.setenv(name, str(places.get(name, "")))
        with pageantry.exposed(KeyFiles([str(KEY)])) as address:
            path = Path(address)
            assert (stat.S_IMODE(path.stat().st_mode), stat.S_IMODE(path.parent.stat().st_mode)) == (0o600, 0o700)
            assert stat.S_ISSOCK(path.stat().st_mode)
            assert len(address) <= 103
            with pageantry.connect(address) as agent:
                assert agent.identities()
        assert not path.parent.exists()
        return path.parent.parent

    def test_the_socket_is_ours_alone_in_a_directory_of_its_own(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        old = os.umask(0)
        try:
            assert shown(monkeypatch, XDG_RUNTIME_DIR=place) == place
        finally:
            os.umask(old)
        assert shown(monkeypatch, TMPDIR=place) == place
        assert shown(monkeypatch) == Path("/tmp")

    def test_a_place_that_will_not_do_is_passed_over(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        deep = place / ("x" * 80)
        deep.mkdir(0o700)
        assert shown(monkeypatch, XDG_RUNTIME_DIR=deep, TMPDIR=place) == place, "too deep for a socket"
        assert shown(monkeypatch, XDG_RUNTIME_DIR=place / "missing", TMPDIR=place) == place
        assert shown(monkeypatch, XDG_RUNTIME_DIR="relative", TMPDIR=place) == place
        place.chmod(0o777)
        assert shown(monkeypatch, XDG_RUNTIME_DIR=place) == Path("/tmp"), "everybody may put something else there"
        assert [path.name for path in place.iterdir()] == ["x" * 80]

    def test_what_is_there_already_is_neither_replaced_nor_removed(place: Path) -> None:
        from pageantry.endpoints.unix_listener import Listener

        there = place / "agent"
        there.write_text("precious")
        with pytest.raises(OSError):  # noqa: PT011 - each system says it in its own way
            Listener(str(there))
        assert there.read_text() == "precious"

    @pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")
    def test_another_user_gets_in_by_no_way(monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("pageantry.endpoints.unix.trusted", lambda: (0,))  # whoever we are at that moment
        with pageantry.exposed(KeyFiles([str(KEY)])) as address, socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(20)
            os.seteuid(NOBODY)
            try:
                with pytest.raises(PermissionError):
                    connection.connect(address)
            finally:
                os.seteuid(0)
            Path(address).parent.chmod(0o755)
            Path(address).chmod(0o666)
            os.seteuid(NOBODY)
            try:
                connection.connect(address)
            finally:
                os.seteuid(0)
            assert hung_up(connection)
            with pageantry.connect(address) as agent:
                assert agent.identities()
