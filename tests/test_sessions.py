"""What an agent replies to bytes, whatever they are, and how frames are taken off a connection."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from pageantry import Agent, Identity, PrivateKey, PublicKey, SignFlags, sessions
from pageantry.constraints import Confirm, Constraint, Lifetime
from pageantry.errors import Refused, Unsupported
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
    Unknown,
    Unlock,
    decode,
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
    return decode(sessions.answer(agent, message.payload()))


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


def test_there_are_no_keys_for_ssh_1_to_remove(agent: Memory) -> None:
    agent.add(made())
    assert [asked(agent, Unknown(number, b"")) for number in (8, 9, 10)] == [Failure(), Success(), Failure()]
    assert len(agent.keys) == 1


@settings(max_examples=300, deadline=None)
@given(st.sampled_from([*range(30), 255]), st.binary(max_size=80))
def test_any_bytes_get_a_reply(kind: int, contents: bytes) -> None:
    reply = decode(sessions.answer(Memory(), bytes((kind,)) + contents))
    assert isinstance(reply, (Success, Failure, IdentitiesAnswer, ExtensionResponse))
