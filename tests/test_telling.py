"""What is told of who asked an agent for what."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pageantry import sessions
from pageantry.keyring import Keyring
from pageantry.keys.private import PrivateKey
from pageantry.messages import AddIdentity, Message, RemoveIdentity, RequestIdentities, SignRequest, frame
from pageantry.telling import Exchange, told

from .hosts import ed25519_key, userauth
from .keyring.conftest import Process

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pageantry.sessions import Session

KEY = ed25519_key(601)


class Caller:
    peer = Process()


def listening(keyring: Keyring) -> tuple[Session, list[Exchange]]:
    heard: list[Exchange] = []
    return told(sessions.to(keyring), heard.append)(Caller()), heard  # type: ignore[arg-type]


def ask(session: Session, message: Message) -> None:
    session.answer(frame(message.payload()))


def signing(key: PrivateKey, data: bytes = b"data") -> Message:
    return SignRequest(key.public.blob, data)


def test_a_key_is_called_by_the_comment_that_the_agent_lists_and_not_by_one_that_somebody_sent() -> None:
    keyring = Keyring()
    keyring.add(KEY, "mine")
    session, heard = listening(keyring)
    ask(session, RequestIdentities())
    keyring.lock(b"secret")  # so that it is not added
    ask(session, AddIdentity(KEY, "of somebody else"))
    keyring.unlock(b"secret")
    ask(session, signing(KEY))
    assert [one.comment for one in heard] == ["", "of somebody else", "mine"]
    assert [one.answer for one in heard] == ["1 key", "refused", "signed"]


@pytest.mark.parametrize(
    "message",
    [SignRequest(KEY.public.blob, b"data"), AddIdentity(KEY, "mine"), RemoveIdentity(KEY.public.blob)],
    ids=lambda message: type(message).__name__,
)
def test_what_follows_a_request_hides_nothing_of_it(message: Message) -> None:
    session, heard = listening(Keyring())
    session.answer(frame(message.payload() + b"more, which OpenSSH's agent does not mind"))
    assert heard[0].fingerprint == KEY.public.fingerprint()


@given(st.binary(min_size=1, max_size=60), st.sampled_from((b"", b"\x0d", b"\x11", b"\x12", b"\x19", b"\x1b")))
def test_whatever_is_asked_is_told_in_a_line(contents: bytes, kind: bytes) -> None:
    session, heard = listening(Keyring())
    session.answer(frame(kind + contents))
    assert heard[0].line().isprintable()
    assert json.dumps(heard[0].as_json()).isprintable()


def test_names_that_others_chose_break_out_of_no_line() -> None:
    keyring = Keyring()
    keyring.add(KEY, "a\nb\x1b[2J")
    session, heard = listening(keyring)
    ask(session, RequestIdentities())
    ask(session, signing(KEY, userauth(KEY.public, b"session", 'git": refused, 1 ms\n')))
    line = heard[-1].line()
    assert line.isprintable()
    assert "a\\nb\\x1b[2J (SHA256:" in line
    assert ' to log in as "git\\": refused, 1 ms\\n": signed' in line
