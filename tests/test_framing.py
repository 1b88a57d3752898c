"""How frames are taken off a connection, whatever pieces they come in."""

from __future__ import annotations

import itertools
import socket
import threading
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pageantry import framing
from pageantry.errors import WireError
from pageantry.messages import MAX_MESSAGE, frame


@settings(max_examples=50, deadline=None)
@given(st.lists(st.binary(min_size=1, max_size=40), max_size=6), st.lists(st.integers(0, 300), max_size=8))
def test_any_chunking_gives_the_same_frames(payloads: list[bytes], cuts: list[int]) -> None:
    stream = b"".join(map(frame, payloads))
    edges = sorted({0, len(stream), *(cut for cut in cuts if cut < len(stream))})
    pieces = [stream[start:end] for start, end in itertools.pairwise(edges)]
    ours, theirs = socket.socketpair()
    with ours:

        def send() -> None:
            with theirs:
                for piece in pieces:
                    theirs.sendall(piece)

        thread = threading.Thread(target=send)
        thread.start()
        frames = framing.Frames(ours)
        assert [frames.next(5) for _ in payloads] == [frame(payload) for payload in payloads]
        assert frames.next(5) == b""
        thread.join()


@pytest.mark.parametrize("size", [0, MAX_MESSAGE + 1, 2**31, 2**32 - 1])
def test_a_length_that_cannot_be_is_not_read(size: int) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(size.to_bytes(4, "big"))
        with pytest.raises(WireError, match=f"{size} bytes"):
            framing.Frames(ours).next(5)


def test_the_largest_frame_is_taken() -> None:
    ours, theirs = socket.socketpair()
    largest = frame(bytes(MAX_MESSAGE))
    with ours, theirs:
        thread = threading.Thread(target=theirs.sendall, args=(largest,))
        thread.start()
        assert framing.Frames(ours).next(5) == largest
        thread.join()


@pytest.mark.parametrize("begun", [b"", b"\0", b"\0\0\0\x05\x0b"])
def test_a_frame_has_time_to_begin_and_time_to_end(begun: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(framing, "FRAME_TIMEOUT", 0.2)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(begun)
        start = time.monotonic()
        with pytest.raises(TimeoutError):
            framing.Frames(ours).next(60 if begun else 0.2)
        assert 0.15 < time.monotonic() - start < 30


def test_slow_bytes_do_not_buy_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(framing, "FRAME_TIMEOUT", 0.3)
    ours, theirs = socket.socketpair()
    done = threading.Event()

    def drip() -> None:
        with theirs:
            theirs.sendall(b"\0\0\xff\xff")
            while not done.wait(0.02):
                theirs.sendall(b"x")

    thread = threading.Thread(target=drip)
    thread.start()
    with ours:
        with pytest.raises(TimeoutError):
            framing.Frames(ours).next(60)
        done.set()
        thread.join()
