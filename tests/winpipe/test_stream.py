"""A pipe's reading and writing, against a kernel in which each order of events can be had."""

from __future__ import annotations

import errno
import threading
from array import array
from functools import partial
from typing import TYPE_CHECKING

import pytest

from pageantry.winpipe import MAX_READ, MAX_WRITE, Peer, Pipe

if TYPE_CHECKING:
    from tests.winpipe.conftest import Clock, Handle

GONE = BrokenPipeError(errno.EPIPE, "gone")
FAULT = OSError(errno.EIO, "broken")


# --- reading


def test_what_is_there_is_read_at_once(pipe: Pipe, handle: Handle, clock: Clock) -> None:
    handle.reading.starts = [b"abc"]
    assert pipe.recv(10) == b"abc"
    assert clock.now == 1000


def test_a_read_waits_for_the_first_bytes(pipe: Pipe, handle: Handle) -> None:
    handle.reading.at["wait"] = [None, None, lambda: handle.reading.end(b"abc")]
    assert pipe.recv(10) == b"abc"


@pytest.mark.parametrize(("size", "asked"), [(1, 1), (4, 4), (MAX_READ, MAX_READ), (MAX_READ + 1, MAX_READ)])
def test_no_more_is_read_than_was_asked_for(pipe: Pipe, handle: Handle, size: int, asked: int) -> None:
    handle.reading.starts = [bytes(MAX_READ + 5)]
    assert len(pipe.recv(size)) == asked


def test_reads_of_all_sizes_follow_each_other(pipe: Pipe, handle: Handle) -> None:
    handle.reading.starts = [b"abcdef", b"gh", b"ijkl", b"m"]
    assert [pipe.recv(size) for size in (2, 100, 3, 100)] == [b"ab", b"gh", b"ijk", b"m"]


def test_nothing_is_asked_for_and_nothing_read(pipe: Pipe, handle: Handle) -> None:
    assert pipe.recv(0) == b""
    assert pipe.recv_into(bytearray()) == 0
    assert handle.reading.asked == 0


def test_a_size_below_zero_is_refused_and_not_taken_for_the_end(pipe: Pipe) -> None:
    with pytest.raises(ValueError, match="-1"):
        pipe.recv(-1)
    with pytest.raises(ValueError, match="-1"):
        pipe.recv_into(bytearray(4), -1)


def test_zero_bytes_are_no_end(pipe: Pipe, handle: Handle) -> None:
    handle.reading.starts = [b"", b"", b"abc"]
    assert pipe.recv(10) == b"abc"


@pytest.mark.parametrize(("timeout", "error"), [(0, BlockingIOError), (2, TimeoutError)])
def test_who_sends_nothing_for_ever_does_not_outlast_the_deadline(
    pipe: Pipe, handle: Handle, clock: Clock, timeout: float, error: type[OSError]
) -> None:
    handle.reading.starts = [b""] * 100
    handle.reading.at["start"] = [lambda: clock.sleep(0.5)] * 100
    pipe.settimeout(timeout)
    with pytest.raises(error):
        pipe.recv(10)
    assert clock.now <= 1002.5


def test_the_end_of_the_stream_stays_the_end(pipe: Pipe, handle: Handle) -> None:
    handle.reading.starts = [b"abc", GONE, None]
    handle.reading.at["wait"] = [lambda: handle.reading.end(GONE)]
    assert [pipe.recv(10), pipe.recv(10), pipe.recv(10)] == [b"abc", b"", b""]


def test_the_end_of_the_stream_is_zero_bytes_for_recv_into(pipe: Pipe, handle: Handle) -> None:
    handle.reading.starts = [GONE]
    assert pipe.recv_into(bytearray(4)) == 0


@pytest.mark.parametrize("at_once", [True, False])
def test_other_failures_of_a_read_are_raised(pipe: Pipe, handle: Handle, at_once: bool) -> None:
    handle.reading.starts = [FAULT if at_once else None, b"abc"]
    handle.reading.at["wait"] = [lambda: handle.reading.end(FAULT)]
    with pytest.raises(OSError, match="broken"):
        pipe.recv(10)
    assert pipe.recv(10) == b"abc"


def test_recv_into_leaves_the_rest_of_the_buffer_alone(pipe: Pipe, handle: Handle) -> None:
    handle.reading.starts = [b"abcdef", b"gh", b"ijk"]
    buffer = bytearray(b"........")
    assert pipe.recv_into(memoryview(buffer)[2:], 3) == 3
    assert buffer == b"..abc..."
    assert pipe.recv_into(buffer) == 2
    assert buffer == b"ghabc..."
    assert pipe.recv_into(memoryview(buffer)[6:], 100) == 2
    assert buffer == b"ghabc.ij"
    buffer += b"x"  # nobody holds it any more


def test_recv_into_counts_bytes_whatever_the_buffer_is_made_of(pipe: Pipe, handle: Handle) -> None:
    handle.reading.starts = [bytes(range(8))]
    buffer = array("H", [0] * 4)
    assert pipe.recv_into(memoryview(buffer)) == 8
    assert buffer.tobytes() == bytes(range(8))


@pytest.mark.parametrize("buffer", [b"abcd", memoryview(bytearray(8))[::2], 4])
def test_what_cannot_be_read_into_is_refused(pipe: Pipe, handle: Handle, buffer: bytearray) -> None:
    with pytest.raises(TypeError):
        pipe.recv_into(buffer)
    handle.reading.starts = [b"abc"]
    assert pipe.recv(10) == b"abc"


# --- writing


def test_a_partial_write_is_continued(pipe: Pipe, handle: Handle) -> None:
    handle.writing.starts = [3, None, 0, 4]
    handle.writing.at["wait"] = [lambda: handle.writing.end(1)]
    pipe.sendall(b"abcdefgh")
    assert handle.writing.taken == b"abcdefgh"


def test_a_mebibyte_goes_in_one_piece_and_more_in_several(pipe: Pipe, handle: Handle) -> None:
    data = bytes(range(256)) * (MAX_WRITE * 2 // 256) + b"end"
    handle.writing.starts = [MAX_WRITE, MAX_WRITE, 3]
    pipe.sendall(data)
    assert handle.writing.taken == data
    assert handle.writing.asked == 3


def test_nothing_to_write_is_not_written(pipe: Pipe, handle: Handle) -> None:
    pipe.sendall(b"")
    assert handle.writing.asked == 0


@pytest.mark.parametrize("data", [bytearray(b"abcd"), memoryview(b"abcd"), memoryview(b"aXbXcXdX")[::2]])
def test_whatever_has_bytes_is_written(pipe: Pipe, handle: Handle, data: bytearray | memoryview) -> None:
    handle.writing.starts = [4]
    pipe.sendall(data)
    assert handle.writing.taken == b"abcd"


@pytest.mark.parametrize("data", [5, "abc", [1, 2], None])
def test_what_has_no_bytes_is_refused_and_not_taken_for_a_number_of_zeros(pipe: Pipe, data: bytes) -> None:
    with pytest.raises(TypeError):
        pipe.sendall(data)


@pytest.mark.parametrize("at_once", [True, False])
def test_a_write_to_nobody_raises_broken_pipe(pipe: Pipe, handle: Handle, at_once: bool) -> None:
    handle.writing.starts = [2, GONE if at_once else None]
    handle.writing.at["wait"] = [lambda: handle.writing.end(GONE)]
    with pytest.raises(BrokenPipeError):
        pipe.sendall(b"abcd")
    assert handle.writing.taken == b"ab"


# --- timeouts


@pytest.mark.parametrize("timeout", [0.05, 0.1, 0.25, 3])
def test_a_timeout_is_kept_to_the_moment_and_loses_nothing(
    pipe: Pipe, handle: Handle, clock: Clock, timeout: float
) -> None:
    pipe.settimeout(timeout)
    assert pipe.gettimeout() == timeout
    with pytest.raises(TimeoutError):
        pipe.recv(10)
    assert clock.now == pytest.approx(1000 + timeout)
    with pytest.raises(TimeoutError):
        pipe.sendall(b"abc")
    assert clock.now == pytest.approx(1000 + 2 * timeout)
    handle.reading.starts = [b"abc"]
    assert pipe.recv(10) == b"abc"


def test_one_deadline_holds_for_all_pieces_of_a_write(pipe: Pipe, handle: Handle, clock: Clock) -> None:
    def slowly() -> None:
        clock.sleep(0.3)
        if clock.now < 1001:
            handle.writing.end(1)

    handle.writing.at["wait"] = [slowly] * 100
    pipe.settimeout(1)
    with pytest.raises(TimeoutError):
        pipe.sendall(b"abcdefgh")
    assert handle.writing.taken == b"abc"


def test_zero_is_now_or_never(pipe: Pipe, handle: Handle, clock: Clock) -> None:
    pipe.settimeout(0)
    with pytest.raises(BlockingIOError):
        pipe.recv(10)
    with pytest.raises(BlockingIOError):
        pipe.sendall(b"abc")
    handle.reading.starts, handle.writing.starts = [b"abc"], [3]
    assert pipe.recv(10) == b"abc"
    pipe.sendall(b"abc")
    assert clock.now == 1000


def test_a_read_that_succeeded_as_it_was_cancelled_is_returned(pipe: Pipe, handle: Handle) -> None:
    handle.reading.cancels = [b"abc"]
    pipe.settimeout(1)
    assert pipe.recv(10) == b"abc"


def test_a_write_that_succeeded_as_it_was_cancelled_is_a_success(pipe: Pipe, handle: Handle) -> None:
    handle.writing.cancels = [3]
    pipe.settimeout(1)
    pipe.sendall(b"abc")
    assert handle.writing.taken == b"abc"


def test_a_stream_that_ended_as_the_read_was_cancelled_has_ended(pipe: Pipe, handle: Handle) -> None:
    handle.reading.cancels = [GONE]
    pipe.settimeout(1)
    assert pipe.recv(10) == b""


@pytest.mark.parametrize("seconds", [-1, -0.001, float("nan"), float("inf"), threading.TIMEOUT_MAX * 2])
def test_what_is_no_timeout_is_refused(pipe: Pipe, seconds: float) -> None:
    with pytest.raises(ValueError, match="timeout"):
        pipe.settimeout(seconds)
    assert pipe.gettimeout() is None


# --- the rest


def test_it_says_what_it_is(pipe: Pipe) -> None:
    assert repr(pipe) == r"<Pipe \\.\pipe\x>"
    pipe.close()
    assert repr(pipe) == r"<Pipe \\.\pipe\x, closed>"
    assert (pipe.path, repr(pipe.peer)) == (r"\\.\pipe\x", "<Peer pid=1 sid=S-1-5-18>")


def test_half_a_pipe_cannot_be_closed(pipe: Pipe, handle: Handle) -> None:
    for how in (0, 1):
        with pytest.raises(OSError, match="one direction") as caught:
            pipe.shutdown(how)
        assert caught.value.errno == errno.EOPNOTSUPP
    assert not handle.closed
    pipe.shutdown(2)
    assert handle.closed


@pytest.mark.filterwarnings("default::ResourceWarning")
def test_a_pipe_that_was_forgotten_is_closed_with_a_warning(handle: Handle) -> None:
    with pytest.warns(ResourceWarning, match=r"unclosed <Pipe .*x>"):
        Pipe(handle, r"\\.\pipe\x", Peer(None, None))
    assert handle.closed


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_pipe_that_was_forgotten_is_closed_where_warnings_are_errors(handle: Handle) -> None:
    Pipe(handle, r"\\.\pipe\x", Peer(None, None))
    assert handle.closed


# --- what event loops need


def test_a_read_or_a_write_can_be_stopped_until_that_is_taken_back(pipe: Pipe, handle: Handle) -> None:
    for lane, stop, call in (
        (handle.reading, pipe._stop_reading, lambda: pipe.recv(10)),
        (handle.writing, pipe._stop_writing, lambda: pipe.sendall(b"abc")),
    ):
        lane.at["wait"] = [partial(stop, True)]
        for asked in (1, 1):  # the one that was under way, and another that does not begin
            with pytest.raises(TimeoutError):
                call()
            assert lane.asked == asked
        stop(False)
        lane.starts = [b"abc" if lane is handle.reading else 3]
        assert call() in (b"abc", None)


def test_what_one_direction_stops_goes_on_in_the_other(pipe: Pipe, handle: Handle) -> None:
    pipe._stop_reading(True)
    handle.writing.starts = [3]
    pipe.sendall(b"abc")
    pipe._stop_reading(False)


def test_what_was_read_for_nobody_is_there_again(pipe: Pipe) -> None:
    pipe._unread(b"cd")
    pipe._unread(b"ab")
    assert [pipe.recv(3), pipe.recv(3)] == [b"abc", b"d"]


def test_whether_somebody_is_there_is_the_handle_s_to_say_until_it_is_closed(pipe: Pipe, handle: Handle) -> None:
    assert not pipe.gone()
    handle.left = True
    assert pipe.gone()
    handle.left = False
    pipe.close()
    assert pipe.gone()
