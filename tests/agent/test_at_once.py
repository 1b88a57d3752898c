"""What is answered from the one thread that waits for all clients: as it is answered in full, or not at all."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pageantry import sessions
from pageantry.constraints import Confirm, Constraint, Lifetime, MaxSign, RestrictDestination
from pageantry.keyring import Keyring, locking
from pageantry.keys import ppk, signatures
from pageantry.messages import RequestIdentities, SignRequest, SignResponse, decode, frame
from pageantry.prompts import Person
from pageantry.sessions import View

from ..hosts import binding, certificate, ed25519_key, hop
from ..keyring.keys import TYPES, made
from .people import PHRASE, Thinker
from .requests import HOST, KEY, all_requests
from .test_fuzz import changes, spoilt

LIST = frame(RequestIdentities().payload())
CERTIFIED = KEY.certified(certificate(KEY.public, ed25519_key(9), kind=1))
QUICK = ("ssh-ed25519", "ecdsa-sha2-nistp256")


def sign(blob: bytes, flags: int = 0) -> bytes:
    return frame(SignRequest(blob, b"data", flags).payload())


def viewed(keyring: Keyring) -> View:
    return View(keyring.open(None))


@settings(max_examples=500, deadline=None)
@given(
    st.one_of(st.sampled_from(sorted(all_requests())), st.sampled_from(["list", "sign", "sign a login"])),
    st.lists(changes, max_size=3),
)
def test_it_is_what_is_answered_in_full_or_nothing(name: str, what: list[tuple[int, str, int, bytes]]) -> None:
    request = spoilt(all_requests()[name], what)
    with pytest.MonkeyPatch.context() as patched, Keyring() as keyring:
        patched.setattr(locking, "_SCRYPT", {"n": 2, "r": 8, "p": 1, "dklen": 32})
        keyring.add(KEY, "me")
        keyring.add(CERTIFIED, "\udcff")
        reply = viewed(keyring).at_once(frame(request))
        full = frame(sessions.answer(keyring.open(None), request))
        assert reply in (None, full)
        if request in (b"".join(all_requests()["list"]), b"".join(all_requests()["sign"])):
            assert reply == full


@settings(max_examples=200, deadline=None)
@given(st.binary(min_size=1, max_size=60))
def test_any_bytes_are_answered_as_in_full_or_not_at_all(request: bytes) -> None:
    with Keyring() as keyring:
        keyring.add(KEY, "me")
        reply = viewed(keyring).at_once(frame(request))
        assert reply in (None, frame(sessions.answer(keyring.open(None), request)))


@pytest.mark.parametrize("kind", TYPES)
def test_quick_keys_and_no_others_sign(kind: str) -> None:
    with Keyring() as keyring:
        keyring.add(made(kind), "me")
        reply = viewed(keyring).at_once(sign(made(kind).public.blob))
        assert (reply is not None) is (kind in QUICK)
        if reply:
            signed = decode(reply[4:])
            assert isinstance(signed, SignResponse)
            signatures.verify(made(kind).public, signed.signature, b"data")


@pytest.mark.parametrize(
    "limit",
    [Confirm(), MaxSign(1), MaxSign(100), RestrictDestination(((hop(""), hop("gate", HOST.public)),))],
    ids=lambda limit: type(limit).__name__,
)
def test_a_key_that_may_not_sign_whatever_never_does(limit: Constraint) -> None:
    with Keyring() as keyring:
        keyring.add(KEY, "me", [limit, Lifetime(1000)])
        view = viewed(keyring)
        assert view.at_once(sign(KEY.public.blob)) is None
        keyring.add(KEY, "me", [Lifetime(1000)])
        assert view.at_once(sign(KEY.public.blob))


def test_a_key_that_is_held_encrypted_never_signs_even_when_it_is_open() -> None:
    thinker = Thinker()
    thinker.answer.set()
    with Keyring(Person([thinker])) as keyring:
        keyring.add_encrypted(ppk.write(KEY, "encrypted", PHRASE, 2))
        view = viewed(keyring)
        assert view.at_once(sign(KEY.public.blob)) is None
        assert isinstance(decode(view.answer(sign(KEY.public.blob))[4:]), SignResponse)
        assert view.at_once(sign(KEY.public.blob)) is None
        assert view.at_once(LIST)


def test_nothing_is_while_it_is_locked() -> None:
    with Keyring() as keyring:
        keyring.add(KEY, "me")
        view = viewed(keyring)
        keyring.lock(b"secret")
        assert view.at_once(LIST) is view.at_once(sign(KEY.public.blob)) is None
        keyring.unlock(b"secret")
        assert view.at_once(LIST)
        assert view.at_once(sign(KEY.public.blob))


@pytest.mark.parametrize("contents", [binding(HOST, b"session", True), b"no binding"], ids=["bound", "failed"])
def test_nothing_is_on_a_connection_that_was_bound_or_that_was_tried_with(contents: bytes) -> None:
    with Keyring() as keyring:
        keyring.add(KEY, "me")
        view = viewed(keyring)
        view.answer(frame(b"\x1b" + all_requests()["session-bind"][1] + contents))
        assert view.at_once(LIST) is view.at_once(sign(KEY.public.blob)) is None
        assert viewed(keyring).at_once(LIST)


def test_no_signature_is_where_each_is_told_in_a_log() -> None:
    said: list[str] = []
    with Keyring(say=said.append) as keyring:
        keyring.add(KEY, "me")
        assert viewed(keyring).at_once(sign(KEY.public.blob)) is None


@pytest.mark.parametrize("flags", [1, 8, 2**31])
def test_no_signature_is_with_a_flag_that_nobody_knows(flags: int) -> None:
    with Keyring() as keyring:
        keyring.add(KEY, "me")
        assert viewed(keyring).at_once(sign(KEY.public.blob, flags)) is None


def test_a_key_that_is_gone_signs_no_more() -> None:
    with Keyring() as keyring:
        keyring.add(KEY, "me")
        view = viewed(keyring)
        before = view.at_once(LIST)
        keyring.remove(KEY.public)
        assert view.at_once(sign(KEY.public.blob)) is None
        assert view.at_once(LIST) not in (None, before)
