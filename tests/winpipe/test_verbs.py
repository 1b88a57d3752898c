"""The verbs where there are no such pipes, and the wait for a busy one."""

from __future__ import annotations

import asyncio
import errno
import sys
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import pytest

from pageantry import winpipe
from pageantry.winpipe import _client, aio

if TYPE_CHECKING:
    from tests.winpipe.conftest import Clock

VERBS: list[Callable[[str], object]] = [
    winpipe.connect, winpipe.listen, winpipe.exists, winpipe.listening, aio.listen,
    lambda name: asyncio.run(aio.connect(name)),
]  # fmt: skip


@pytest.mark.skipif(sys.platform == "win32", reason="they work here")
@pytest.mark.parametrize("verb", VERBS)
def test_elsewhere_there_are_no_such_pipes(verb: Callable[[str], object]) -> None:
    with pytest.raises(OSError, match="on Windows only") as caught:
        verb("x")
    assert caught.value.errno == errno.ENOSYS
    with pytest.raises(OSError, match="on Windows only"):
        winpipe.user()


@pytest.mark.parametrize("verb", VERBS)
def test_a_name_is_looked_at_before_anything_else(verb: Callable[[str], object]) -> None:
    with pytest.raises(ValueError, match="another computer"):
        verb(r"\\server\pipe\x")


@pytest.mark.parametrize(
    "sid",
    [
        "Everyone",
        "WD",
        "",
        "S-1-",
        "S-1-5-11)(A;;GA;;;WD",
        "S-1-5-11;",
        "S-1-5-٣",
        "s-1-5-11",
        "S-1-5-18 ",
        "S-1-0x5-1",
    ],
)
def test_only_identifiers_become_part_of_a_descriptor(sid: str) -> None:
    with pytest.raises((ValueError, OSError)) as caught:
        winpipe.listen("x", access=[sid])
    assert isinstance(caught.value, ValueError) or sid == "S-1-"


def test_a_single_identifier_is_no_list_of_them() -> None:
    with pytest.raises(ValueError, match="'S' is no security identifier"):
        winpipe.listen("x", access="S-1-5-11")


# --- waiting for a busy pipe


class Server:
    """A server whose instances are busy so and so often; each look at it takes that long."""

    def __init__(self, clock: Clock, busy: int, gone: int = 0) -> None:
        self.clock, self.busy, self.gone = clock, busy, gone
        self.tries = 0

    def open(self, path: str) -> str:
        self.tries += 1
        if self.tries <= self.busy:
            raise _client.Busy(errno.EAGAIN, "busy", path)
        return f"opened {path}"

    def wait(self, free: bool | OSError, path: str, seconds: float) -> bool:
        if isinstance(free, OSError):
            raise free
        if not free:
            self.clock.sleep(seconds)
        return free


@pytest.mark.parametrize("free", [True, False, FileNotFoundError(errno.ENOENT, "none just now")])
@pytest.mark.parametrize("busy", [0, 1, 10])
def test_a_busy_pipe_is_waited_for(clock: Clock, free: bool | OSError, busy: int) -> None:
    server = Server(clock, busy)
    assert _client.opened("x", 5, server.open, partial(server.wait, free)) == "opened x"
    assert server.tries == busy + 1
    assert (clock.now == 1000) == (busy == 0)


@pytest.mark.parametrize("free", [True, False, FileNotFoundError(errno.ENOENT, "none just now")])
@pytest.mark.parametrize("timeout", [-1, 0, 0.01, 0.25, 5])
def test_a_pipe_that_stays_busy_is_given_up_in_time(clock: Clock, free: bool | OSError, timeout: float) -> None:
    server = Server(clock, 1_000_000)
    with pytest.raises(TimeoutError, match="busy") as caught:
        _client.opened("x", timeout, server.open, partial(server.wait, free))
    assert caught.value.filename == "x"
    assert clock.now == pytest.approx(1000 + max(0, timeout))
    assert server.tries < 200  # that is, not all the time


@pytest.mark.parametrize("error", [FileNotFoundError(errno.ENOENT, "x"), PermissionError(errno.EACCES, "x")])
def test_what_is_not_there_or_not_for_us_fails_at_once(clock: Clock, error: OSError) -> None:
    def open_(path: str) -> str:
        raise error

    with pytest.raises(type(error)):
        _client.opened("x", 5, open_, partial(Server(clock, 0).wait, True))
    assert clock.now == 1000


def test_a_server_that_goes_away_while_one_waits_fails_at_once(clock: Clock) -> None:
    server = Server(clock, 3)

    def open_(path: str) -> str:
        if server.tries == 2:
            raise FileNotFoundError(errno.ENOENT, "gone", path)
        return server.open(path)

    with pytest.raises(FileNotFoundError):
        _client.opened("x", 5, open_, partial(server.wait, True))


def test_what_one_may_not_wait_for_fails(clock: Clock) -> None:
    server = Server(clock, 3)
    with pytest.raises(PermissionError):
        _client.opened("x", 5, server.open, partial(server.wait, PermissionError(errno.EACCES, "no")))
