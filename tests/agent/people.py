"""Who is asked by our agent, and who asks it."""

from __future__ import annotations

import threading
from collections.abc import Callable

from pageantry.messages import (
    MAX_MESSAGE,
    AddIdentity,
    IdentitiesAnswer,
    Message,
    RequestIdentities,
    SignRequest,
    SignResponse,
    Success,
    decode,
    frame,
)

from ..exposure.upstream import connected, received
from ..hosts import ed25519_key

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pageantry.client import Connection

PHRASE = b"open sesame"
#: A key that the tests of this folder do nothing else with.
ALICE = ed25519_key(4242)


class Thinker:
    """A way to ask a person who thinks until `answer` is set, and then agrees, or knows the passphrase."""

    def __init__(self) -> None:
        self.answer = threading.Event()
        self.questions: list[str] = []
        #: what ended a question otherwise
        self.interruptions: list[Exception] = []

    def confirm(self, question: str, check: Callable[[], object]) -> None:
        self.questions.append(question)
        while not self.answer.wait(0.02):
            try:
                check()
            except Exception as error:
                self.interruptions.append(error)
                raise

    def secret(self, question: str, check: Callable[[], object]) -> bytes:
        self.confirm(question, check)
        return PHRASE

    def notify(self, text: str) -> Callable[[], object]:
        return lambda: None


def reply(connection: Connection) -> Message:
    """The next one, which is whole and can be read."""
    size = int.from_bytes(received(connection, 4), "big")
    assert 0 < size <= MAX_MESSAGE, "hung up, or no length that can be"
    payload = received(connection, size)
    assert len(payload) == size, "hung up in the middle of a reply"
    return decode(payload)


def asked(connection: Connection, request: Message | bytes) -> Message:
    """The reply to a message, or to a payload that may be none."""
    connection.sendall(frame(request if isinstance(request, bytes) else request.payload()))
    return reply(connection)


def serves_others(address: str) -> None:
    """Fail unless somebody else can add a key, see it and sign with it."""
    with connected(address) as other:
        assert asked(other, AddIdentity(ALICE, "alice")) == Success()
        listed = asked(other, RequestIdentities())
        assert isinstance(listed, IdentitiesAnswer)
        assert (ALICE.public.blob, b"alice") in listed.identities
        assert isinstance(asked(other, SignRequest(ALICE.public.blob, b"data")), SignResponse)
