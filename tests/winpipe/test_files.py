"""Files over pipes, as sockets have them."""

from __future__ import annotations

import errno
import io
from typing import TYPE_CHECKING

import pytest

from pageantry.winpipe import Pipe

if TYPE_CHECKING:
    from tests.winpipe.conftest import Handle

GONE = BrokenPipeError(errno.EPIPE, "gone")


def test_lines_and_the_rest_are_read(pipe: Pipe, handle: Handle) -> None:
    handle.reading.starts = [b"first\nse", b"cond\nthe ", b"rest", GONE, GONE]
    with pipe.makefile("rb") as file:
        assert file.readline() == b"first\n"
        assert file.readline() == b"second\n"
        assert file.read() == b"the rest"
        assert file.read() == b""
        assert (file.readable(), file.writable(), file.seekable()) == (True, False, False)
    assert not handle.closed


def test_exactly_so_many_bytes_are_read(pipe: Pipe, handle: Handle) -> None:
    handle.reading.starts = [b"ab", b"c", b"defg", GONE]
    file = pipe.makefile("rb")
    assert [file.read(4), file.read(4)] == [b"abcd", b"efg"]


@pytest.mark.parametrize("buffering", [-1, 1024])
def test_what_is_written_goes_when_it_is_flushed(pipe: Pipe, handle: Handle, buffering: int) -> None:
    handle.writing.starts = [7, 1]
    with pipe.makefile("wb", buffering) as file:
        file.write(b"abc")
        file.write(b"defg")
        assert handle.writing.taken == b""
        file.flush()
        assert handle.writing.taken == b"abcdefg"
        file.write(b"h")
    assert handle.writing.taken == b"abcdefgh"
    assert not handle.closed


def test_without_a_buffer_each_call_is_one_operation(pipe: Pipe, handle: Handle) -> None:
    handle.reading.starts, handle.writing.starts = [b"abc", GONE], [2, 1]
    file = pipe.makefile("rwb", 0)
    assert isinstance(file, io.RawIOBase)
    assert file.write(memoryview(b"xyz")) == 3
    assert handle.writing.taken == b"xyz"
    assert file.read(10) == b"abc"
    assert file.read(10) == b""


def test_a_dialogue_in_text(pipe: Pipe, handle: Handle) -> None:
    handle.reading.starts = ["grüß\r\n".encode(), b"you\n", GONE]
    handle.writing.starts = [100]
    with pipe.makefile("rw", encoding="utf-8", newline="\n") as file:
        file.write("hä?\n")
        file.flush()
        assert file.readline() == "grüß\r\n"
        assert list(file) == ["you\n"]
    assert handle.writing.taken == "hä?\n".encode()


def test_how_text_is_coded(pipe: Pipe, handle: Handle) -> None:
    handle.reading.starts = [b"\xe4\xff\n", GONE]
    with pipe.makefile(encoding="ascii", errors="replace") as file:
        assert file.read() == "��\n"


@pytest.mark.parametrize("mode", ["", "b", "a", "r+", "x", "rbb", "wr", "rwr", "rt", "U"])
def test_other_modes_are_refused(pipe: Pipe, mode: str) -> None:
    with pytest.raises(ValueError, match="mode"):
        pipe.makefile(mode)


def test_text_has_a_buffer(pipe: Pipe) -> None:
    with pytest.raises(ValueError, match="unbuffered"):
        pipe.makefile("r", 0)


@pytest.mark.parametrize("buffering", [-1, 0])
def test_what_is_not_open_that_way_or_any_more_is_not_used(pipe: Pipe, handle: Handle, buffering: int) -> None:
    with pipe.makefile("rb", buffering) as reader, pipe.makefile("wb", buffering) as writer:
        with pytest.raises(io.UnsupportedOperation, match="writ"):
            reader.write(b"x")
        with pytest.raises(io.UnsupportedOperation, match="read"):
            writer.read(1)
    with pytest.raises(ValueError, match="closed"):
        reader.read(1)
    with pytest.raises(ValueError, match="closed"):
        writer.write(b"x")
    assert handle.reading.asked == handle.writing.asked == 0


def test_after_a_timeout_nothing_is_read_as_something_may_be_missing(pipe: Pipe, handle: Handle) -> None:
    handle.reading.starts = [b"abc"]
    pipe.settimeout(1)
    with pipe.makefile("rb") as file:
        with pytest.raises(TimeoutError):
            file.read(5)
        with pytest.raises(OSError, match="after a timeout"):
            file.read(5)
    handle.reading.starts = [b"def"]
    assert pipe.recv(10) == b"def"


def test_with_a_timeout_of_zero_nothing_is_none(pipe: Pipe, handle: Handle) -> None:
    pipe.settimeout(0)
    with pipe.makefile("rb") as file:
        assert file.read(5) is None
        handle.reading.starts = [b"abc"]
        assert file.read(5) == b"abc"


@pytest.mark.parametrize(("timeout", "error"), [(0, BlockingIOError), (1, TimeoutError)])
def test_nothing_is_written_twice_after_a_write_that_did_not_finish(
    pipe: Pipe, handle: Handle, timeout: float, error: type[OSError]
) -> None:
    pipe.settimeout(timeout)
    handle.writing.starts = [2]
    file = pipe.makefile("wb")
    file.write(b"abcd")
    with pytest.raises(error):
        file.flush()
    handle.writing.starts = [4]
    with pytest.raises(OSError, match="how much went"):
        file.close()
    assert handle.writing.taken == b"ab"
    assert file.closed


def test_a_file_of_a_closed_pipe_says_so(pipe: Pipe) -> None:
    file = pipe.makefile("rb")
    pipe.close()
    with pytest.raises(OSError, match="closed"):
        file.read(1)


def test_a_file_keeps_its_pipe_alive(pipe: Pipe, handle: Handle) -> None:
    file = pipe.makefile("rb")
    handle.reading.starts = [b"abc"]
    assert file.read(3) == b"abc"
