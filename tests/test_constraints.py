from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pageantry.constraints import (
    MAX_ENTRIES,
    AssociatedCertificates,
    Confirm,
    Hop,
    HostKey,
    Lifetime,
    MaxSign,
    OtherConstraint,
    RestrictDestination,
    SecurityKeyProvider,
    read_constraints,
    write_constraints,
)
from pageantry.errors import UnsupportedConstraint, WireError
from pageantry.wire import Reader, Writer

if TYPE_CHECKING:
    from pageantry.constraints import Constraint

UINT32 = st.integers(0, 2**32 - 1)
TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)
NAME = TEXT.filter(bool)
KEYS = st.lists(st.builds(HostKey, st.binary(max_size=20), st.booleans()), min_size=1, max_size=3).map(tuple)
ORIGIN = st.builds(Hop, st.just(""), NAME, KEYS) | st.just(Hop())
TARGET = st.builds(Hop, TEXT, NAME, KEYS)
CONSTRAINTS = st.lists(
    st.one_of(
        st.builds(Lifetime, UINT32),
        st.just(Confirm()),
        st.builds(MaxSign, UINT32),
        st.builds(RestrictDestination, st.lists(st.tuples(ORIGIN, TARGET), max_size=3).map(tuple)),
        st.builds(SecurityKeyProvider, TEXT),
        st.builds(AssociatedCertificates, st.booleans(), st.lists(st.binary(max_size=9), max_size=3).map(tuple)),
    ),
    max_size=5,
).map(tuple)


def written(*constraints: Constraint) -> bytes:
    writer = Writer()
    write_constraints(writer, constraints)
    return bytes(writer)


def string(data: bytes) -> bytes:
    return len(data).to_bytes(4, "big") + data


# the layouts of RFC 9987, section 5.2.7, and OpenSSH's PROTOCOL.agent, by hand
HOST = string(b"me") + string(b"host") + string(b"") + string(b"key") + b"\0"
BY_HAND = [
    (Lifetime(3600), b"\x01\0\0\x0e\x10"),
    (Confirm(), b"\x02"),
    (MaxSign(2), b"\x03\0\0\0\x02"),
    (SecurityKeyProvider("internal"), b"\xff" + string(b"sk-provider@openssh.com") + string(b"internal")),
    (
        AssociatedCertificates(True, (b"one", b"two")),
        b"\xff" + string(b"associated-certs-v00@openssh.com") + b"\x01" + string(string(b"one") + string(b"two")),
    ),
    (
        RestrictDestination(((Hop(), Hop("me", "host", (HostKey(b"key", False),))),)),
        b"\xff"
        + string(b"restrict-destination-v00@openssh.com")
        + string(string(string(3 * string(b"")) + string(HOST) + string(b""))),
    ),
    (
        RestrictDestination(((Hop("", "a", (HostKey(b"k", True),)), Hop("me", "host", (HostKey(b"key", False),))),)),
        b"\xff"
        + string(b"restrict-destination-v00@openssh.com")
        + string(
            string(string(string(b"") + string(b"a") + string(b"") + string(b"k") + b"\1") + string(HOST) + string(b""))
        ),
    ),
]


@pytest.mark.parametrize(("constraint", "wire"), BY_HAND)
def test_each_constraint_has_the_bytes_of_its_specification(constraint: Constraint, wire: bytes) -> None:
    assert written(constraint) == wire
    assert read_constraints(Reader(wire)) == (constraint,)


@given(CONSTRAINTS)
def test_what_is_written_is_read_again(constraints: tuple[Constraint, ...]) -> None:
    assert read_constraints(Reader(written(*constraints))) == constraints


def test_a_constraint_of_another_kind_is_written_as_it_is() -> None:
    assert written(OtherConstraint("x@example.org", b"\1\2")) == b"\xff\0\0\0\x0dx@example.org\1\2"


@pytest.mark.parametrize("wire", [b"\0", b"\x04", b"\xfe", b"\xff\0\0\0\x01x", b"\x02\xff\0\0\0\x01x\x02"])
def test_an_unknown_constraint_fails_them_all(wire: bytes) -> None:
    with pytest.raises(UnsupportedConstraint):
        read_constraints(Reader(wire))


@pytest.mark.parametrize(
    ("origin", "target"),
    [
        (Hop("me", "", ()), Hop("", "h", (HostKey(b"k", False),))),
        (Hop("", "a", ()), Hop("", "h", (HostKey(b"k", False),))),
        (Hop("", "", (HostKey(b"k", False),)), Hop("", "h", (HostKey(b"k", False),))),
        (Hop(), Hop("", "h", ())),
        (Hop(), Hop("", "", (HostKey(b"k", False),))),
    ],
)
def test_a_destination_that_openssh_would_refuse_is_neither_written_nor_read(origin: Hop, target: Hop) -> None:
    with pytest.raises(WireError):
        written(RestrictDestination(((origin, target),)))
    pair = string(origin.encode()) + string(target.encode()) + string(b"")
    with pytest.raises(WireError):
        RestrictDestination.decode(string(string(pair)))


def test_too_many_entries_are_refused() -> None:
    many = b"\x02" * MAX_ENTRIES
    assert len(read_constraints(Reader(many))) == MAX_ENTRIES
    with pytest.raises(WireError, match="more than 1024"):
        read_constraints(Reader(many + b"\x02"))
    with pytest.raises(WireError, match="more than 1024"):
        AssociatedCertificates.decode(b"\0" + string(4 * b"\0" * (MAX_ENTRIES + 1)))


def test_bytes_left_over_in_a_destination_are_refused() -> None:
    pair = string(Hop().encode()) + string(HOST) + string(b"")
    assert RestrictDestination.decode(string(string(pair))).pairs
    for broken in (string(string(pair + b"\0")), string(string(pair)) + b"\0", string(string(pair) + b"\0")):
        with pytest.raises(WireError):
            RestrictDestination.decode(broken)


@given(st.binary(max_size=300) | CONSTRAINTS.flatmap(lambda kinds: mutated(written(*kinds))))
def test_any_bytes_are_read_or_refused(wire: bytes) -> None:
    try:
        constraints = read_constraints(Reader(wire))
    except WireError:
        return
    assert read_constraints(Reader(written(*constraints))) == constraints


def mutated(wire: bytes) -> st.SearchStrategy[bytes]:
    """`wire` with a few bytes replaced by others, left out or put in."""
    places = st.integers(0, len(wire))
    return st.builds(
        lambda start, size, new: wire[:start] + new + wire[start + size :],
        places,
        st.integers(0, 4),
        st.binary(max_size=4),
    )


@pytest.mark.parametrize("where", ["pair", "hop"])
def test_what_is_reserved_in_a_destination_must_be_empty(where: str) -> None:
    """It may come to limit a key further, which an agent that does not know it must not overlook."""
    host = Writer().text("").text("host").string(b"x" if where == "hop" else b"")
    host.string(b"key").boolean(False)
    pair = Writer().string(Hop().encode()).string(bytes(host)).string(b"x" if where == "pair" else b"")
    wire = bytes(Writer().string(bytes(Writer().string(bytes(pair)))))
    with pytest.raises(WireError, match="not known"):
        RestrictDestination.decode(wire)


@pytest.mark.parametrize("name", ["user", "host"])
def test_names_in_a_destination_have_no_zero_bytes(name: str) -> None:
    names = {"user": "me", "host": "host"} | {name: "a\0b"}
    limits = RestrictDestination(((Hop(), Hop(names["user"], names["host"], (HostKey(b"key", False),))),))
    with pytest.raises(WireError, match="zero"):
        limits.encode()
