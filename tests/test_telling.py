"""What is told of who asked an agent for what."""

from __future__ import annotations

from pageantry import sessions
from pageantry.keyring import Keyring
from pageantry.keys.private import PrivateKey
from pageantry.messages import AddIdentity, Message, RequestIdentities, SignRequest, frame
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
