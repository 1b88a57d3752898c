"""Who asked an agent for what, what it answered, and how long that took.

Server(listeners, told(open_session, lambda exchange: print(exchange.line())))
"""

from __future__ import annotations

from time import perf_counter

from . import forwarding
from .errors import Error, WireError
from .keys.public import PublicKey
from .messages import (
    AddIdentity,
    AddIdentityConstrained,
    AddSmartcardKey,
    AddSmartcardKeyConstrained,
    Extension,
    ExtensionFailure,
    ExtensionResponse,
    Failure,
    IdentitiesAnswer,
    Lock,
    RemoveAllIdentities,
    RemoveIdentity,
    RemoveSmartcardKey,
    RequestIdentities,
    SignRequest,
    SignResponse,
    Success,
    Unlock,
    decode,
)
from .wire import Reader

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Final

    from .agent import Peer
    from .sessions import Opener, Session

#: What requests and replies are called.
NAMES: Final = {
    RequestIdentities.number: "list",
    SignRequest.number: "sign",
    AddIdentity.number: "add",
    AddIdentityConstrained.number: "add",
    RemoveIdentity.number: "remove",
    RemoveAllIdentities.number: "remove all",
    AddSmartcardKey.number: "add token",
    AddSmartcardKeyConstrained.number: "add token",
    RemoveSmartcardKey.number: "remove token",
    Lock.number: "lock",
    Unlock.number: "unlock",
    Extension.number: "extension",
}
_ANSWERS: Final = {
    Failure.number: "refused",
    Success.number: "done",
    IdentitiesAnswer.number: "keys",
    SignResponse.number: "signed",
    ExtensionFailure.number: "failed",
    ExtensionResponse.number: "done",
}
#: Keys whose comments are remembered, and characters of a name that somebody else chose.
_MAX_COMMENTS: Final = 4096
_MAX_NAME: Final = 100


class Exchange:
    """A request and what became of it. What is not known is empty."""

    __slots__ = ("answer", "comment", "fingerprint", "peer", "request", "seconds", "user")

    #: who asked
    peer: Peer | None
    #: such as "sign", or the name of an extension
    request: str
    #: the key's that it was about, and its comment as far as a list has told
    fingerprint: str
    comment: str
    #: as whom a signature is to log in
    user: str
    #: such as "signed", "3 keys", "refused", or why there was none
    answer: str
    seconds: float

    def line(self) -> str:
        """In words."""
        from .keyring.questions import who

        key = (
            f" with {self.comment} ({self.fingerprint})"
            if self.comment
            else self.fingerprint and f" {self.fingerprint}"
        )
        user = self.user.replace('"', '\\"')
        login = f' to log in as "{user}"' if user else ""
        return f"{who(self.peer)}: {self.request}{key}{login}: {self.answer}, {self.seconds * 1000:.1f} ms"

    def as_json(self) -> dict[str, object]:
        """For machines: null for what is not known."""
        return {
            "pid": self.peer.pid if self.peer else None,
            "program": (self.peer.program if self.peer else "") or None,
            "request": self.request,
            "key": self.fingerprint or None,
            "comment": self.comment or None,
            "user": self.user or None,
            "answer": self.answer,
            "milliseconds": round(self.seconds * 1000, 3),
        }


def told(open_session: Opener, tell: Callable[[Exchange], object]) -> Opener:
    """The same sessions, each exchange of which `tell` is told; it must not wait for anything."""
    comments: dict[bytes, str] = {}
    return lambda connection: _Told(open_session(connection), getattr(connection, "peer", None), tell, comments)


class _Told:
    """See `told`."""

    def __init__(
        self, session: Session, peer: Peer | None, tell: Callable[[Exchange], object], comments: dict[bytes, str]
    ) -> None:
        self._session, self._peer, self._tell, self._comments = session, peer, tell, comments
        self.shutdown, self.close = session.shutdown, session.close
        self._listed = b"", ""  # the last list, and how it was called

    def at_once(self, request: bytes) -> bytes | None:
        return None

    def answer(self, request: bytes) -> bytes:
        began = perf_counter()
        try:
            reply = self._session.answer(request)
        except Error as error:
            self._tell(self._exchange(request, str(error), began))
            raise
        self._tell(self._exchange(request, self._answer(reply), began))
        return reply

    def _exchange(self, request: bytes, answer: str, began: float) -> Exchange:
        seconds = perf_counter() - began  # before what telling takes
        exchange = Exchange()
        exchange.peer, exchange.answer, exchange.seconds = self._peer, answer, seconds
        exchange.request = NAMES.get(request[4], f"message {request[4]}")
        exchange.fingerprint = exchange.comment = exchange.user = ""
        if len(self._comments) > _MAX_COMMENTS:
            self._comments.clear()
        try:
            self._look(exchange, request)
        except WireError:
            pass  # the agent will have said what it thinks of it
        return exchange

    def _look(self, exchange: Exchange, request: bytes) -> None:
        """Note what the request says of itself, whatever follows that: some agents do not mind."""
        kind, reader = request[4], Reader(request[5:])
        if kind == Extension.number:
            exchange.request = _line(reader.text())
        elif kind in (AddIdentity.number, AddIdentityConstrained.number):
            from .keys.private import PrivateKey

            key = PrivateKey.read(reader).public
            exchange.fingerprint = key.fingerprint()
            exchange.comment = _line(reader.text())
            if exchange.answer == _ANSWERS[Success.number]:  # or else anybody could give a key another name here
                self._comments[key.blob] = exchange.comment
        elif kind in (SignRequest.number, RemoveIdentity.number):
            key = PublicKey(reader.string())
            exchange.fingerprint = key.fingerprint()
            exchange.comment = self._comments.get(key.blob, "")
            if kind == SignRequest.number and (login := forwarding.login(key, reader.string())):
                exchange.user = _line(login.user)

    def _answer(self, reply: bytes) -> str:
        if reply[4] == IdentitiesAnswer.number:
            if self._listed[0] != reply:  # which is rare, and takes longer than all else
                try:
                    keys = self._keys(reply)
                except WireError:
                    return "a list that is none"
                self._listed = reply, f"{keys} key{'s' * (keys != 1)}"
            return self._listed[1]
        return _ANSWERS.get(reply[4], f"message {reply[4]}")

    def _keys(self, reply: bytes) -> int:
        """How many there are in a list, the comments of which are remembered."""
        message = decode(reply[4:])
        assert isinstance(message, IdentitiesAnswer)
        for blob, comment in message.identities:
            self._comments[blob] = _line(comment.decode("utf-8", "replace"))
        return len(message.identities)


def _line(text: str) -> str:
    text = text[:_MAX_NAME]
    return text if text.isprintable() else "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)
