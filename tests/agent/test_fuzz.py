"""Requests with any field cut, doubled or replaced: each gets a reply, others are served, and memory stays flat."""

from __future__ import annotations

import gc
import random
import tracemalloc
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import pageantry
from pageantry import sessions
from pageantry.keyring import Keyring, locking
from pageantry.messages import (
    MAX_MESSAGE,
    ExtensionFailure,
    ExtensionResponse,
    Failure,
    IdentitiesAnswer,
    Lock,
    SignResponse,
    Success,
    decode,
)
from pageantry.prompts import Person

from ..exposure.upstream import connected
from .people import PHRASE, Thinker, asked, serves_others
from .requests import KEY, Parts, all_requests, number, string

REPLIES = (Success, Failure, IdentitiesAnswer, SignResponse, ExtensionFailure, ExtensionResponse)
#: Numbers that programs get wrong.
EDGES = (0, 1, 127, 128, 255, 2**15, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 2, 2**32 - 1)
#: Contents that programs get wrong.
ODD = (
    b"", b"\0", b"\xff", b"\xed\xa0\x80\xed\xb0\x80", b"\0" * 1_000, b"%s%n{0}", b"\x1b[2J\r\n", b"\x7f" * 100_000,
    b"\x80" + bytes(64), b"-" * 1_000, "\u202e\ufeff\U0001f511".encode(),
)  # fmt: skip


def changed(part: bytes, how: str, amount: int, contents: bytes) -> bytes:
    """A field that is not what it was."""
    size = amount % (len(part) + 1)
    return {
        "cut": part[:size],
        "cut, and announced so": string(part[4 : 4 + size]),
        "announced wrongly": number(EDGES[amount % len(EDGES)]) + part[4:],
        "doubled": part * 2,
        "a thousand times": (part * 1_000)[:100_000],
        "replaced": string(contents),
        "nothing of it": b"",
        "a byte is another": part[:size] + bytes((amount % 256,)) + part[size + 1 :],
        "something behind it": part + contents,
    }[how]


WAYS = (
    "cut", "cut, and announced so", "announced wrongly", "doubled", "a thousand times", "replaced", "nothing of it",
    "a byte is another", "something behind it",
)  # fmt: skip

changes = st.tuples(
    st.integers(0, 20),
    st.sampled_from(WAYS),
    st.integers(0, 100_000),
    st.one_of(st.sampled_from(ODD), st.binary(max_size=60)),
)


def spoilt(parts: Parts, what: list[tuple[int, str, int, bytes]]) -> bytes:
    """The request with some changes, be it one that can be sent."""
    fields = list(parts)
    for at, how, amount, contents in what:
        at %= len(fields)
        if at or how == "a byte is another":  # the type remains, mostly
            fields[at] = changed(fields[at], how, amount, contents)
    return b"".join(fields)[:MAX_MESSAGE] or b"\0"


@pytest.fixture(scope="module")
def fuzzed() -> Iterator[tuple[Keyring, str, list[str]]]:
    said: list[str] = []
    thinker = Thinker()
    thinker.answer.set()
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(locking, "_SCRYPT", {"n": 2, "r": 8, "p": 1, "dklen": 32})
        patched.setattr(locking, "PENALTY", 0.0)
        with (
            Keyring(Person([thinker]), say=said.append) as keyring,
            pageantry.exposed(keyring, say=said.append) as address,
        ):
            yield keyring, address, said


def unlocked(keyring: Keyring, request: bytes) -> None:
    """Undo what a request may have done that locks."""
    if keyring._common.locking.locked:
        message = decode(request)
        assert isinstance(message, Lock)
        keyring.unlock(message.passphrase)


@settings(max_examples=400, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(sorted(all_requests())), st.lists(changes, max_size=3)), max_size=4))
def test_every_request_gets_a_reply_and_others_are_served(
    fuzzed: tuple[Keyring, str, list[str]], steps: list[tuple[str, list[tuple[int, str, int, bytes]]]]
) -> None:
    keyring, address, said = fuzzed
    said.clear()
    keyring.forget()
    keyring.add(KEY, "me")
    with connected(address) as client:
        for name, what in steps:
            request = spoilt(all_requests()[name], what)
            assert isinstance(asked(client, request), REPLIES)
            unlocked(keyring, request)
    serves_others(address)
    assert not [line for line in said if "fault" in line]
    assert all(len(line) < 2_000 for line in said)
    assert not [line for line in said if PHRASE.decode() in line or "secret" in line]  # what is locked with


@settings(max_examples=200, deadline=None)
@given(st.binary(min_size=1, max_size=200))
def test_any_bytes_get_a_reply(fuzzed: tuple[Keyring, str, list[str]], request: bytes) -> None:
    keyring, address, said = fuzzed
    said.clear()
    with connected(address) as client:
        assert isinstance(asked(client, request), REPLIES)
        unlocked(keyring, request)
    serves_others(address)
    assert not [line for line in said if "fault" in line]


@pytest.mark.timeout(300)
def test_memory_stays_flat(fuzzed: tuple[Keyring, str, list[str]]) -> None:
    keyring, address, said = fuzzed
    numbers = random.Random(7)
    names = sorted(all_requests())

    def fuzz(rounds: int) -> int:
        """Kibibytes held afterwards."""
        for _ in range(rounds):
            keyring.forget()
            keyring.add(KEY, "me")
            with connected(address) as client:
                for _ in range(20):
                    what = [
                        (
                            numbers.randrange(20),
                            numbers.choice(WAYS),
                            numbers.randrange(100_000),
                            numbers.choice((*ODD, numbers.randbytes(numbers.randrange(60)))),
                        )
                        for _ in range(numbers.randrange(3))
                    ]
                    request = spoilt(all_requests()[numbers.choice(names)], what)
                    assert isinstance(asked(client, request), REPLIES)
                    unlocked(keyring, request)
            said.clear()
        keyring.forget()
        serves_others(address)
        gc.collect()
        return tracemalloc.get_traced_memory()[0] // 1024

    fuzz(20)  # what is loaded once may stay
    tracemalloc.start()
    try:
        before = fuzz(40)
        assert fuzz(160) - before < 512
    finally:
        tracemalloc.stop()


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(sorted(all_requests())), st.lists(changes, max_size=3), st.booleans())
def test_a_keyring_raises_nothing_but_errors_of_ours(
    name: str, what: list[tuple[int, str, int, bytes]], bound: bool
) -> None:
    """The same without a server, whose last resort would hide it."""
    with pytest.MonkeyPatch.context() as patched, Keyring() as keyring:
        patched.setattr(locking, "_SCRYPT", {"n": 2, "r": 8, "p": 1, "dklen": 32})
        patched.setattr(locking, "PENALTY", 0.0)
        view = keyring.open(None)
        if bound:
            sessions.answer(view, b"".join(all_requests()["session-bind"]))
        reply = sessions.answer(view, spoilt(all_requests()[name], what))
        assert isinstance(decode(reply), REPLIES)
