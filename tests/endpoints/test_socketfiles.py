from __future__ import annotations

import contextlib

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pageantry.endpoints.socketfiles import MAX_FILE, MAX_REDIRECT, SocketFile, beginning, parse, redirection

SECRET = bytes(range(16))
NUMBERS = b"03020100-07060504-0b0a0908-0f0e0d0c"


@pytest.mark.parametrize(
    ("content", "cygwin"),
    [
        (b"50123\n" + SECRET, False),
        (b"!<socket >50123 s " + NUMBERS + b"\0", True),
        (b"!<socket >50123 s " + NUMBERS, True),
        (b"!<socket >50123 s " + NUMBERS.upper() + b"\0", True),
    ],
)
def test_a_port_and_a_secret_are_read_from_either_form(content: bytes, cygwin: bool) -> None:
    file = parse(content)
    assert (file.port, file.secret, file.cygwin) == (50123, SECRET, cygwin)


def test_a_secret_may_be_of_any_bytes() -> None:
    for secret in (16 * b"\n", 16 * b"\0", 16 * b" ", b"!<socket >1 s \0\0", b"1\n1\n1\n1\n1\n1\n1\n1\n"):
        assert parse(b"1\n" + secret).secret == secret


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"0\n" + SECRET, "the port 0"),
        (b"99999\n" + SECRET, "the port 99999"),
        (b"65536\n" + SECRET, "the port 65536"),
        (b"501234\n" + SECRET, "not a socket"),
        (b"port\n" + SECRET, "not a socket"),
        (b"-1\n" + SECRET, "not a socket"),
        (b"\n" + SECRET, "not a socket"),
        ("٣\n".encode() + SECRET, "not a socket"),
        (b"50123\n" + SECRET[:15], "15 bytes instead of 16"),
        (b"50123\n" + SECRET + b"x", "17 bytes instead of 16"),
        (b"50123\r\n" + SECRET, "not a socket"),
        (b"50123", "not a socket"),
        (b"", "not a socket"),
        (b"hello\nworld\n", "not a socket"),
        (b"!<socket >0 s " + NUMBERS, "the port 0"),
        (b"!<socket >99999 s " + NUMBERS, "the port 99999"),
        (b"!<socket >port s " + NUMBERS, "the port 'port'"),
        (b"!<socket > s " + NUMBERS, "the port ''"),
        (b"!<socket >\xff\x1b s " + NUMBERS, "no number"),
        (b"!<socket >50123 " + NUMBERS + b"\0", "old msysGit"),
        (b"!<socket >50123 d " + NUMBERS, "does not go on"),
        (b"!<socket >50123 s " + NUMBERS[:-1], "does not go on"),
        (b"!<socket >50123 s " + NUMBERS + b"0", "does not go on"),
        (b"!<socket >50123 s " + NUMBERS + b"\0\0", "does not go on"),
        (b"!<socket >50123 s " + NUMBERS.replace(b"0", b"g"), "does not go on"),
        (b"!<socket >50123 s " + NUMBERS.replace(b"-", b" "), "does not go on"),
        (b"!<socket >50123 s +3020100-07060504-0b0a0908-0f0e0d0c", "does not go on"),
        (b"!<socket >50123 s", "does not go on"),
        (b"!<socket >", "does not go on"),
    ],
)
def test_what_is_neither_form_is_refused_in_words(content: bytes, why: str) -> None:
    with pytest.raises(ValueError, match=why) as caught:
        parse(content)
    assert str(caught.value).isprintable()
    assert "file(" not in str(caught.value)


@given(st.integers(1, 65535), st.binary(min_size=16, max_size=16), st.booleans())
def test_what_is_written_is_read_again(port: int, secret: bytes, cygwin: bool) -> None:
    content = SocketFile(port, secret, cygwin).encode()
    assert len(content) <= MAX_FILE
    again = parse(content)
    assert (again.port, again.secret, again.cygwin) == (port, secret, cygwin)
    assert secret.hex() not in repr(again)


@given(st.binary() | st.binary().map(b"!<socket >".__add__) | st.binary().map(b"1\n".__add__))
@example(b"!<socket >1" + 4400 * b"0" + b" s " + NUMBERS)
def test_any_file_is_one_or_is_refused_with_a_sentence(content: bytes) -> None:
    with contextlib.suppress(ValueError):
        file = parse(content)
        assert 0 < file.port < 65536
        assert len(file.secret) == 16


@pytest.mark.parametrize(
    ("content", "path"),
    [
        (b"%Assuan%\nsocket=/run/agent\n", b"/run/agent"),
        (b"%Assuan%\nsocket=/run/agent", b"/run/agent"),
        (b"%Assuan%\r\nsocket=/run/agent\n", None),
        (b"%Assuan%\nsocket=C:\\agent\r\n", b"C:\\agent"),
        (b"%Assuan%\nsocket=${HOME}/agent\nmore\n", b"${HOME}/agent"),
        (b"%Assuan%\nsocket=\n", None),
        (b"%Assuan%\nsocket=/a\0b\n", None),
        (b"%Assuan%\n", None),
        (b"%assuan%\nsocket=/a\n", None),
        (b"socket=/a\n", None),
        (b"%Assuan%\nsocket=/a\n".ljust(MAX_REDIRECT, b"\n"), b"/a"),
        (b"%Assuan%\nsocket=/a\n".ljust(MAX_REDIRECT + 1, b"\n"), None),
    ],
)
def test_a_redirect_names_a_path(content: bytes, path: bytes | None) -> None:
    assert redirection(content) == path


@given(st.binary() | st.binary().map(b"%Assuan%\nsocket=".__add__))
def test_any_file_is_a_redirect_or_none(content: bytes) -> None:
    path = redirection(content)
    assert path is None or (path and b"\0" not in path and b"\n" not in path)


@pytest.mark.parametrize(("content", "size"), [(b"x" * 9999, 128), (b"%Assuan%\n" + b"x" * 9999, 512), (b"x", 1)])
def test_no_more_of_a_file_is_read_than_it_takes(content: bytes, size: int) -> None:
    import io

    file = io.BytesIO(content)
    assert beginning(file.read) == content[:size]
    assert file.tell() == size
