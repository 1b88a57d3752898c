from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any, ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pageantry.errors import WireError
from pageantry.wire import Reader, Struct, Writer

if TYPE_CHECKING:
    from pageantry.wire import Byte, Rest, Secret

UINT32 = st.integers(0, 2**32 - 1)
TEXT = st.text(st.characters(exclude_categories=["Cs"]))
UINT64 = st.integers(0, 2**64 - 1)
# the value, the bytes that RFC 4251, section 5 gives for it
MPINTS = [
    (0, "00000000"),
    (0x9A378F9B2E332A7, "00000008 09a378f9b2e332a7"),
    (0x80, "00000002 0080"),
    (0x7F, "00000001 7f"),
    (0xFF, "00000002 00ff"),
    (0x100, "00000002 0100"),
]


class Sample(Struct):
    code: ClassVar[int] = 7
    name: str
    count: int
    small: Byte
    yes: bool
    hidden: Secret = b""
    tail: Rest = b""


class Child(Sample):
    more: int = 5


@pytest.mark.parametrize(("value", "wire"), MPINTS)
def test_mpints_are_those_of_the_rfc(value: int, wire: str) -> None:
    assert bytes(Writer().mpint(value)) == bytes.fromhex(wire)
    assert Reader(bytes.fromhex(wire)).mpint() == value


def test_each_type_has_the_bytes_of_the_rfc() -> None:
    writer = Writer().byte(255).boolean(True).boolean(False).uint32(0x29B7F4AA).uint64(1)
    writer.string(b"testing").text("é").raw(b"!")
    assert bytes(writer) == (
        b"\xff\x01\x00\x29\xb7\xf4\xaa\0\0\0\0\0\0\0\x01\0\0\0\x07testing\0\0\0\x02\xc3\xa9!"
    )  # fmt: skip


@given(UINT32, UINT64, st.binary(), TEXT, st.integers(0, 2**600), st.booleans(), st.integers(0, 255), st.binary())
def test_what_is_written_is_read_again(
    small: int, large: int, data: bytes, text: str, number: int, yes: bool, byte: int, rest: bytes
) -> None:
    writer = Writer().uint32(small).uint64(large).string(data).text(text).mpint(number).boolean(yes).byte(byte)
    reader = Reader(bytes(writer.raw(rest)))
    assert (reader.uint32(), reader.uint64(), reader.string(), reader.text()) == (small, large, data, text)
    assert (reader.mpint(), reader.boolean(), reader.byte(), reader.rest()) == (number, yes, byte, rest)
    reader.end()


@given(st.binary())
def test_text_that_is_not_utf_8_survives(data: bytes) -> None:
    encoded = bytes(Writer().string(data))
    assert bytes(Writer().text(Reader(encoded).text())) == encoded


@given(st.integers(0, 2**4096))
def test_mpints_are_as_short_as_can_be(value: int) -> None:
    body = bytes(Writer().mpint(value))[4:]
    assert int.from_bytes(body, "big") == value
    assert not body or not body[0] & 0x80
    assert not body.startswith(b"\0") or (len(body) > 1 and body[1] & 0x80)


def test_leading_zeros_of_an_mpint_are_forgiven() -> None:
    assert Reader(b"\0\0\0\x03\0\0\x05").mpint() == 5


def test_a_negative_mpint_is_refused() -> None:
    with pytest.raises(WireError, match="negative"):
        Reader(b"\0\0\0\x01\x80").mpint()


@pytest.mark.parametrize("data", [b"", b"\0\0\0", b"\0\0\0\x01", b"\xff\xff\xff\xff", b"\0\0\0\x05abcd"])
def test_a_lying_length_is_refused(data: bytes) -> None:
    for read in (Reader.string, Reader.text, Reader.mpint):
        with pytest.raises(WireError):
            read(Reader(data))


def test_what_could_not_be_read_is_still_there() -> None:
    reader = Reader(b"abc")
    with pytest.raises(WireError, match="4 bytes announced at offset 0, 3 there"):
        reader.uint32()
    assert reader.rest() == b"abc"


def test_bytes_left_over_are_refused() -> None:
    with pytest.raises(WireError, match="1 bytes more"):
        Reader(b"x").end()


@given(st.lists(st.binary()))
def test_strings_go_to_the_end(values: list[bytes]) -> None:
    writer = Writer()
    for value in values:
        writer.string(value)
    assert list(Reader(bytes(writer)).strings()) == values


@given(st.binary())
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    reads: list[Any] = [
        Reader.byte, Reader.boolean, Reader.uint32, Reader.uint64, Reader.string, Reader.text, Reader.mpint,
        lambda reader: list(reader.strings()), Sample.read,
    ]  # fmt: skip
    for read in reads:
        reader = Reader(data)
        with suppress(WireError):
            read(reader)
        assert 0 <= len(reader) <= len(data)
    with suppress(WireError):
        sample = Sample.decode(data)
        assert Sample.decode(sample.encode()) == sample


def test_numbers_that_do_not_fit_are_not_written() -> None:
    with pytest.raises(OverflowError):
        Writer().uint32(2**32)
    with pytest.raises(OverflowError):
        Writer().uint64(-1)
    with pytest.raises(OverflowError):
        Writer().mpint(-1)
    with pytest.raises(ValueError, match="range"):
        Writer().byte(256)


def test_a_struct_is_its_annotations_in_order() -> None:
    sample = Sample("é", 3, 255, True, b"secret", b"rest")
    encoded = b"\0\0\0\x02\xc3\xa9\0\0\0\x03\xff\x01\0\0\0\x06secretrest"
    assert sample.encode() == encoded
    assert Sample.decode(encoded) == sample
    assert Sample.decode(Child("é", 3, 255, True).encode()[:-4]).tail == b""


@given(TEXT, UINT32, st.integers(0, 255), st.booleans(), st.binary())
def test_structs_survive_the_wire(name: str, count: int, small: int, yes: bool, data: bytes) -> None:
    sample = Sample(name, count, small=small, yes=yes, hidden=data, tail=data)
    assert Sample.decode(sample.encode()) == sample
    assert hash(Sample.decode(sample.encode())) == hash(sample)


def test_a_struct_does_not_show_its_secrets() -> None:
    shown = repr(Sample("name", 1, 2, False, b"swordfish"))
    assert shown == "Sample(name='name', count=1, small=2, yes=False, hidden=…, tail=b'')"


def test_a_struct_is_frozen_and_takes_each_field_once() -> None:
    sample = Sample("name", 1, 2, False)
    with pytest.raises(AttributeError, match="frozen"):
        sample.count = 2  # type: ignore[misc]
    for values, named in [
        ((), {}), (("a", 1, 2), {}), (("a", 1, 2, True, b"", b"", 1), {}),
        (("a", 1, 2, True), {"name": "b"}), (("a", 1, 2, True), {"colour": "b"}),
    ]:  # fmt: skip
        with pytest.raises(TypeError):
            Sample(*values, **named)  # type: ignore[arg-type]


def test_structs_of_different_kinds_differ() -> None:
    class Twin(Struct):
        name: str

    class Other(Struct):
        name: str

    assert Twin("a") == Twin("a") != Other("a")
    assert Twin("a") != "a"
    assert len({Twin("a"), Twin("a"), Other("a")}) == 2
