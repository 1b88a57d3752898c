from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pageantry import messages as m
from pageantry.constraints import Confirm, Hop, HostKey, Lifetime, RestrictDestination
from pageantry.errors import UnsupportedConstraint, UnsupportedKey, WireError
from pageantry.keys.private import PrivateKey


def string(data: bytes) -> bytes:
    return len(data).to_bytes(4, "big") + data


POINT, SEED = bytes(range(32)), bytes(range(100, 132))
KEY = PrivateKey("ssh-ed25519", (POINT, SEED + POINT))
KEY_FIELDS = string(b"ssh-ed25519") + string(POINT) + string(SEED + POINT)
CURVE_POINT = b"\4" + bytes(64)
ECDSA = PrivateKey("ecdsa-sha2-nistp256", (b"nistp256", CURVE_POINT, 128))
ECDSA_FIELDS = string(b"ecdsa-sha2-nistp256") + string(b"nistp256") + string(CURVE_POINT) + string(b"\0\x80")

# every message of RFC 9987, section 5, its bytes by hand
BY_HAND: list[tuple[m.Message, bytes]] = [
    (m.Failure(), b"\x05"),
    (m.Success(), b"\x06"),
    (m.Success(b"more"), b"\x06more"),
    (m.RequestIdentities(), b"\x0b"),
    (m.IdentitiesAnswer(()), b"\x0c\0\0\0\0"),
    (m.IdentitiesAnswer(((b"blob", b"me@here"),)), b"\x0c\0\0\0\1\0\0\0\4blob\0\0\0\7me@here"),
    (m.SignRequest(b"key", b"data", 4), b"\x0d\0\0\0\3key\0\0\0\4data\0\0\0\4"),
    (m.SignResponse(b"sig"), b"\x0e\0\0\0\3sig"),
    (m.AddIdentity(KEY, "c"), b"\x11" + KEY_FIELDS + b"\0\0\0\1c"),
    (m.AddIdentity(ECDSA, "c"), b"\x11" + ECDSA_FIELDS + b"\0\0\0\1c"),
    (m.AddIdentityConstrained(KEY, "c"), b"\x19" + KEY_FIELDS + b"\0\0\0\1c"),
    (
        m.AddIdentityConstrained(KEY, "c", (Lifetime(60), Confirm())),
        b"\x19" + KEY_FIELDS + b"\0\0\0\1c\x01\0\0\0\x3c\x02",
    ),
    (m.RemoveIdentity(b"key"), b"\x12\0\0\0\3key"),
    (m.RemoveAllIdentities(), b"\x13"),
    (m.AddSmartcardKey("tok", b"1234"), b"\x14\0\0\0\3tok\0\0\0\0041234"),
    (m.AddSmartcardKeyConstrained("tok", b"1234", (Confirm(),)), b"\x1a\0\0\0\3tok\0\0\0\0041234\x02"),
    (m.RemoveSmartcardKey("tok", b"1234"), b"\x15\0\0\0\3tok\0\0\0\0041234"),
    (m.Lock(b"pass"), b"\x16\0\0\0\4pass"),
    (m.Unlock(b"pass"), b"\x17\0\0\0\4pass"),
    (m.Extension("query"), b"\x1b\0\0\0\5query"),
    (m.Extension("x@y", b"raw"), b"\x1b\0\0\0\3x@yraw"),
    (m.ExtensionFailure(), b"\x1c"),
    (m.ExtensionResponse("query", string(b"a@b")), b"\x1d\0\0\0\5query\0\0\0\3a@b"),
    (m.Unknown(1, b"ssh1"), b"\x01ssh1"),
    (m.Unknown(255, b""), b"\xff"),
]

BYTES = st.binary(max_size=50)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
PRIVATE = st.sampled_from((KEY, ECDSA))
CONSTRAINTS = st.lists(
    st.builds(Lifetime, st.integers(0, 2**32 - 1))
    | st.just(Confirm())
    | st.just(RestrictDestination(((Hop(), Hop("", "h", (HostKey(b"k", False),))),))),
    max_size=3,
).map(tuple)
MESSAGES = st.one_of(
    st.sampled_from([m.Failure(), m.RequestIdentities(), m.RemoveAllIdentities(), m.ExtensionFailure()]),
    st.builds(m.IdentitiesAnswer, st.lists(st.tuples(BYTES, BYTES), max_size=4).map(tuple)),
    st.builds(m.SignRequest, BYTES, BYTES, st.integers(0, 2**32 - 1)),
    st.builds(m.AddIdentity, PRIVATE, TEXT),
    st.builds(m.AddIdentityConstrained, PRIVATE, TEXT, CONSTRAINTS),
    st.builds(m.AddSmartcardKeyConstrained, TEXT, BYTES, CONSTRAINTS),
    *(st.builds(kind, BYTES) for kind in (m.Success, m.SignResponse, m.RemoveIdentity, m.Lock, m.Unlock)),
    *(st.builds(kind, TEXT, BYTES) for kind in (m.AddSmartcardKey, m.RemoveSmartcardKey)),
    *(st.builds(kind, TEXT, BYTES) for kind in (m.Extension, m.ExtensionResponse)),
    st.builds(m.Unknown, st.sampled_from([0, 1, 9, 24, 30, 240, 255]), BYTES),
)


@pytest.mark.parametrize(("message", "payload"), BY_HAND, ids=lambda value: type(value).__name__)
def test_each_message_has_the_bytes_of_the_rfc(message: m.Message, payload: bytes) -> None:
    assert message.payload() == payload
    assert m.decode(payload) == message


def test_no_message_is_left_out_above() -> None:
    def kinds(kind: type[m.Message]) -> set[type[m.Message]]:
        return {kind}.union(*(kinds(child) for child in kind.__subclasses__()))

    assert kinds(m.Message) - {m.Message} == {type(message) for message, _ in BY_HAND}


@given(MESSAGES)
def test_what_is_sent_is_understood(message: m.Message) -> None:
    assert m.decode(message.payload()) == message


@given(MESSAGES, st.binary(max_size=4), st.data())
def test_any_bytes_are_understood_or_refused(message: m.Message, new: bytes, data: st.DataObject) -> None:
    payload = message.payload()
    start = data.draw(st.integers(0, len(payload)))
    check_bytes(payload[:start] + new + payload[start + data.draw(st.integers(0, 4)) :])


@given(st.binary(max_size=200))
def test_any_bytes_at_all_are_understood_or_refused(payload: bytes) -> None:
    check_bytes(payload)


def check_bytes(payload: bytes) -> None:
    try:
        message = m.decode(payload)
    except WireError:
        return
    assert m.decode(message.payload()) == message


def test_a_message_without_a_type_is_refused() -> None:
    with pytest.raises(WireError, match="empty"):
        m.decode(b"")


@pytest.mark.parametrize("payload", [b"\x05x", b"\x0bx", b"\x12\0\0\0\3keyx", b"\x0d\0\0\0\0\0\0\0\0\0\0\0\0x"])
def test_bytes_behind_a_message_are_refused(payload: bytes) -> None:
    with pytest.raises(WireError):
        m.decode(payload)


def test_a_sign_request_may_leave_its_flags_out() -> None:
    assert m.decode(b"\x0d\0\0\0\3key\0\0\0\4data") == m.SignRequest(b"key", b"data", 0)


@pytest.mark.parametrize("count", [b"\xff\xff\xff\xff", b"\0\0\0\2", b"\0\1\0\0", bytes(4)])
def test_a_lying_count_of_keys_is_refused_before_anything_is_made_of_it(count: bytes) -> None:
    with pytest.raises(WireError, match="list of"):
        m.decode(b"\x0c" + count + b"\0\0\0\4blob\0\0\0\0")


def test_an_unknown_key_or_constraint_is_told_from_broken_ones() -> None:
    with pytest.raises(UnsupportedKey):
        m.decode(b"\x11\0\0\0\7ssh-new\0\0\0\1k\0\0\0\0")
    with pytest.raises(UnsupportedConstraint):
        m.decode(b"\x19" + KEY_FIELDS + b"\0\0\0\1c\x07")


def test_a_key_whose_halves_differ_is_refused() -> None:
    broken = b"\x11" + string(b"ssh-ed25519") + string(POINT) + string(SEED + bytes(32)) + b"\0\0\0\0"
    with pytest.raises(WireError, match="differ"):
        m.decode(broken)


def test_what_no_agent_would_take_is_not_sent() -> None:
    room = m.MAX_MESSAGE - len(m.SignRequest(b"", b"", 0).payload())
    assert len(m.SignRequest(b"", bytes(room)).payload()) == 256 * 1024
    with pytest.raises(WireError, match="262145 bytes; agents take 262144 at most"):
        m.SignRequest(b"", bytes(room + 1)).payload()


@pytest.mark.parametrize(
    "message",
    [
        m.Lock(b"swordfish"),
        m.Unlock(b"swordfish"),
        m.AddSmartcardKey("token", b"swordfish"),
        m.AddSmartcardKeyConstrained("token", b"swordfish"),
        m.RemoveSmartcardKey("token", b"swordfish"),
        m.AddIdentity(PrivateKey("ssh-ed25519", (POINT, b"swordfish".ljust(32) + POINT))),
    ],
    ids=lambda message: type(message).__name__,
)
def test_no_secret_is_printed(message: m.Message) -> None:
    assert "swordfish" not in repr(message)
    assert b"swordfish" in message.payload()


def test_a_frame_is_the_length_and_the_payload() -> None:
    assert m.frame(m.RequestIdentities().payload()) == b"\0\0\0\1\x0b"


@given(st.lists(TEXT, max_size=5).map(tuple))
def test_the_names_of_a_query_survive(names: Any) -> None:
    assert m.Query.decode(m.Query(names).encode()) == m.Query(names)


def test_session_bind_has_the_bytes_of_openssh() -> None:
    bind = m.SessionBind(b"host", b"id", b"sig", True)
    assert bind.encode() == b"\0\0\0\4host\0\0\0\2id\0\0\0\3sig\1"
    assert m.SessionBind.decode(bind.encode()) == bind
