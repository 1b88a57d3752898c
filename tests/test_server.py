"""What an agent replies to bytes, whatever they are, and how frames are taken off a connection."""

from __future__ import annotations

import itertools
import socket
import threading
import time
from collections.abc import Iterable

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from pageantry import Agent, Identity, PrivateKey, PublicKey, SignFlags, server
from pageantry.constraints import Confirm, Constraint, Lifetime
from pageantry.errors import Refused, Unsupported, WireError
from pageantry.keys import signatures
from pageantry.messages import (
    MAX_MESSAGE,
    AddIdentity,
    AddIdentityConstrained,
    AddSmartcardKey,
    Extension,
    ExtensionFailure,
    ExtensionResponse,
    Failure,
    IdentitiesAnswer,
    Lock,
    Message,
    RemoveAllIdentities,
    RemoveIdentity,
    RequestIdentities,
    SignRequest,
    SignResponse,
    Success,
    Unlock,
    decode,
    frame,
)


def made() -> PrivateKey:
    key = Ed25519PrivateKey.generate()
    point = key.public_key().public_bytes_raw()
    return PrivateKey("ssh-ed25519", (point, key.private_bytes_raw() + point))


class Memory(Agent):
    """An agent with keys in memory, which notes what it was asked for."""

    address = "memory"

    def __init__(self) -> None:
        self.keys: dict[PublicKey, tuple[PrivateKey, str]] = {}
        self.asked: list[object] = []

    def identities(self) -> list[Identity]:
        return [Identity(key, comment) for key, (_, comment) in self.keys.items()]

    def sign(self, key: PublicKey, data: bytes, flags: SignFlags = SignFlags.NONE, *, verify: bool = False) -> bytes:
        if key not in self.keys:
            raise Refused("no such key")
        return signatures.sign(self.keys[key][0], data, flags)

    def add(self, key: PrivateKey, comment: str = "", constraints: Iterable[Constraint] = ()) -> None:
        self.keys[key.public] = key, comment
        self.asked.append(tuple(constraints))

    def remove(self, key: PublicKey) -> None:
        if not self.keys.pop(key, None):
            raise Refused("no such key")

    def remove_all(self) -> None:
        self.keys.clear()

    def lock(self, passphrase: bytes) -> None:
        self.asked.append(("lock", passphrase))

    def unlock(self, passphrase: bytes) -> None:
        self.asked.append(("unlock", passphrase))

    def extension(self, name: str, data: bytes = b"") -> bytes:
        if name == "unknown":
            raise Unsupported("no")
        if name == "failing":
            raise Refused("no")
        return data

    def query(self) -> list[str]:
        return []


@pytest.fixture
def agent() -> Memory:
    return Memory()


def asked(agent: Agent, message: Message) -> Message:
    return decode(server.answer(agent, message.payload()))


def test_keys_are_added_listed_signed_with_and_removed(agent: Memory) -> None:
    one, other = made(), made()
    assert asked(agent, AddIdentity(one, "one")) == Success()
    assert asked(agent, AddIdentityConstrained(other, "\udcff", (Lifetime(60), Confirm()))) == Success()
    assert agent.asked == [(), (Lifetime(60), Confirm())]
    listed = asked(agent, RequestIdentities())
    assert listed == IdentitiesAnswer(((one.public.blob, b"one"), (other.public.blob, b"\xff")))
    signed = asked(agent, SignRequest(one.public.blob, b"data"))
    assert isinstance(signed, SignResponse)
    signatures.verify(one.public, signed.signature, b"data")
    assert asked(agent, RemoveIdentity(one.public.blob)) == Success()
    assert asked(agent, SignRequest(one.public.blob, b"data")) == Failure()
    assert asked(agent, RemoveIdentity(one.public.blob)) == Failure()
    assert asked(agent, RemoveAllIdentities()) == Success()
    assert asked(agent, RequestIdentities()) == IdentitiesAnswer(())


def test_it_is_locked_and_unlocked(agent: Memory) -> None:
    assert asked(agent, Lock(b"geheim")) == asked(agent, Unlock(b"geheim")) == Success()
    assert agent.asked == [("lock", b"geheim"), ("unlock", b"geheim")]


def test_extensions_are_answered_failed_and_not_known(agent: Memory) -> None:
    assert asked(agent, Extension("echo", b"contents")) == ExtensionResponse("echo", b"contents")
    assert asked(agent, Extension("echo")) == Success()
    assert asked(agent, Extension("failing")) == ExtensionFailure()
    assert asked(agent, Extension("unknown")) == Failure()


@pytest.mark.parametrize("flags", [1, 8, 2**31, 3])
def test_a_flag_that_nobody_knows_fails(agent: Memory, flags: int) -> None:
    key = made()
    agent.add(key)
    assert asked(agent, SignRequest(key.public.blob, b"data", flags)) == Failure()


def test_a_list_that_fits_into_no_message_fails(agent: Memory) -> None:
    agent.add(made(), "x" * MAX_MESSAGE)
    assert asked(agent, RequestIdentities()) == Failure()


@pytest.mark.parametrize("message", [Success(), Failure(), IdentitiesAnswer(()), AddSmartcardKey("card", b"1234")])
def test_what_is_no_request_or_not_done_here_fails(agent: Memory, message: Message) -> None:
    assert asked(agent, message) == Failure()


@settings(max_examples=300, deadline=None)
@given(st.sampled_from([*range(30), 255]), st.binary(max_size=80))
def test_any_bytes_get_a_reply(kind: int, contents: bytes) -> None:
    reply = decode(server.answer(Memory(), bytes((kind,)) + contents))
    assert isinstance(reply, (Success, Failure, IdentitiesAnswer, ExtensionResponse))


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
        frames = server.Frames(ours)
        assert [frames.next(5) for _ in payloads] == [frame(payload) for payload in payloads]
        assert frames.next(5) == b""
        thread.join()


@pytest.mark.parametrize("size", [0, MAX_MESSAGE + 1, 2**31, 2**32 - 1])
def test_a_length_that_cannot_be_is_not_read(size: int) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(size.to_bytes(4, "big"))
        with pytest.raises(WireError, match=f"{size} bytes"):
            server.Frames(ours).next(5)


def test_the_largest_frame_is_taken() -> None:
    ours, theirs = socket.socketpair()
    largest = frame(bytes(MAX_MESSAGE))
    with ours, theirs:
        thread = threading.Thread(target=theirs.sendall, args=(largest,))
        thread.start()
        assert server.Frames(ours).next(5) == largest
        thread.join()


@pytest.mark.parametrize("begun", [b"", b"\0", b"\0\0\0\x05\x0b"])
def test_a_frame_has_time_to_begin_and_time_to_end(begun: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "FRAME_TIMEOUT", 0.2)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(begun)
        start = time.monotonic()
        with pytest.raises(TimeoutError):
            server.Frames(ours).next(60 if begun else 0.2)
        assert 0.15 < time.monotonic() - start < 30


def test_slow_bytes_do_not_buy_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "FRAME_TIMEOUT", 0.3)
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
            server.Frames(ours).next(60)
        done.set()
        thread.join()
