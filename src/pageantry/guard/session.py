"""The session before a session: it lets pass what the rules allow, and tells people what."""

from __future__ import annotations

from .. import forwarding
from ..errors import Error, NobodyToAsk, WireError
from ..extensions import LIST_EXTENDED
from ..keys.public import PublicKey
from ..messages import (
    ExtensionFailure,
    Failure,
    IdentitiesAnswer,
    RequestIdentities,
    SessionBind,
    Success,
    frame,
    split_identities,
)
from ..rules import Action, Host, Key, Request
from ..sessions import _has_left
from ..wire import Reader, Struct, Writer
from .asked import understood

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Final

    from ..agent import Peer
    from ..client import Connection
    from ..constraints import RestrictDestination
    from ..prompts import Person
    from ..rules import Rules, Verdict
    from ..sessions import Opener, Session
    from .asked import Asked

_LIST: Final = frame(RequestIdentities().payload())
_FAILURE: Final = frame(Failure().payload())
_SSHSIG: Final = b"SSHSIG"  # how what is signed begins that is no login, but a file or message


def guarded(
    open_session: Opener,
    rules: Callable[[], Rules],
    person: Person | None = None,
    say: Callable[[str], object] | None = None,
) -> Opener:
    """The same sessions, through which passes what `rules` allow; these are asked for at each request.

    A `RulesFile` is such a callable. `person` is asked where the rules have it so; without one, that is refused. `say`
    is told in a line what was refused, and what else the rules want to be logged.
    """
    return lambda connection: _Guarded(open_session(connection), connection, rules, person, say or (lambda _: None))


class _Told(Struct):
    """A key as people are told of it."""

    public: PublicKey
    comment: str
    fingerprint: str
    destinations: RestrictDestination | None = None


class _Guarded:
    """The session `session`, as the rules let it be used."""

    def __init__(
        self,
        session: Session,
        connection: Connection,
        rules: Callable[[], Rules],
        person: Person | None,
        say: Callable[[str], object],
    ) -> None:
        self._session = session
        self._connection = connection
        self._peer: Peer | None = getattr(connection, "peer", None)
        self._rules = rules
        self._person = person
        self._say = say
        self._path = forwarding.LOCAL
        self._listed: dict[bytes, Key] = {}  # what the agent listed last
        self._shown: tuple[bytes, bytes, Rules, forwarding.Path] | None = None  # what came of which list, by what

    def answer(self, request: bytes) -> bytes:
        """See `Session`."""
        rules = self._rules()
        try:
            asked = understood(request)
        except WireError:  # no agent could do anything with it
            return _FAILURE
        if asked.message not in ("", "list") and not self._passes(asked, rules):
            return _FAILURE
        if asked.what == SessionBind.name:
            self._bind(asked.data)
        reply = self._session.answer(request)
        if reply[4] == IdentitiesAnswer.number:  # whatever it is the reply to: some agents fall out of step
            return self._filtered(reply, rules)
        if asked.what == LIST_EXTENDED:
            return self._filtered_extended(reply, rules)
        return reply

    def at_once(self, request: bytes) -> bytes | None:
        """None: a person may have to be asked."""

    def shutdown(self) -> None:
        """See `Session`. Whatever waits for a person looks whether its client is still there."""
        self._session.shutdown()

    def close(self) -> None:
        """See `Session`."""
        self._session.close()

    # What is known

    def _bind(self, contents: bytes) -> None:
        try:
            self._path = self._path.bind(contents)
        except Error:
            self._path = self._path.attempt()

    def _learn(self, pairs: Iterable[tuple[bytes, bytes]]) -> None:
        self._listed = {blob: _key(blob, comment.decode("utf-8", "surrogateescape")) for blob, comment in pairs}

    def _list(self) -> None:
        """Learn which keys there are, for the guard's own use; what no list comes back for stays unknown."""
        reply = self._session.answer(_LIST)
        try:
            self._learn(split_identities(reply[5:]) if reply[4] == IdentitiesAnswer.number else ())
        except WireError:
            self._learn(())

    def _known(self, key: PublicKey) -> Key:
        """A key as the agent lists it."""
        if key.blob not in self._listed:
            self._list()
        return self._listed.get(key.blob) or Key(key.fingerprint(), None, certain=False)

    def _request(self, message: str, key: Key | None, rules: Rules) -> Request:
        """A request over this connection, as far as that is known before there is a login."""
        program = self._peer.program if self._peer and "programs" in rules.needs else ""
        binds = self._path.binds
        forwarded = True if any(bind.forwarding for bind in binds) else None if self._path.failed else False
        host = None
        if "hosts" in rules.needs and binds and not binds[-1].forwarding:
            host = _host(binds[-1].host_key)
        return Request(message, key, program, forwarded, None, None, host)

    def _sign_request(self, asked: Asked, key: Key | None, rules: Rules) -> Request:
        """The same with what the data to be signed tell."""
        before = self._request("sign", key, rules)
        public = asked.key
        login = forwarding.login(public, asked.data) if public and rules.needs & {"hosts", "users"} else None
        if login is None:
            kind = False if asked.data.startswith(_SSHSIG) else None
            return Request("sign", key, before.program, before.forwarded, kind, None, None)
        host_key = forwarding.destination(login, self._path) if "hosts" in rules.needs else None
        host = _host(host_key) if host_key else None
        return Request("sign", key, before.program, before.forwarded, True, login.user, host)

    # What passes

    def _passes(self, asked: Asked, rules: Rules) -> bool:
        """Whether a request may pass, which a person may be asked, and the log told."""
        verdict = self._verdict(asked, rules)
        allowed, why = self._settled(
            verdict, lambda: self._question(asked), lambda: self._verdict(asked, self._rules())
        )
        if verdict.log:
            self._say(f"{'allowed' if allowed else 'refused'} to {self._described(asked)}: {why}")
        return allowed

    def _settled(self, verdict: Verdict, question: Callable[[], str], again: Callable[[], Verdict]) -> tuple[bool, str]:
        """Whether that is allowed, by a person if need be, and why."""
        if verdict.action is not Action.ASK:
            return verdict.action is Action.ALLOW, _reason(verdict)
        try:
            if self._person is None:
                raise NobodyToAsk("there is nobody to ask")
            peer = self._peer
            self._person.confirm(question(), lambda: _has_left(self._connection), peer.pid if peer else None)
        except Error as error:
            return False, str(error)
        later = again()  # the rules may have changed meanwhile
        return (False, _reason(later)) if later.action is Action.DENY else (True, "the person agreed")

    def _verdict(self, asked: Asked, rules: Rules) -> Verdict:
        """What the rules say, before anybody is asked. Raises what the session's `answer` raises."""
        key = None  # any, or all of them, for which rules are as strict as for the one that they are strictest for
        if asked.key and "keys" in rules.needs:
            added = asked.message == "add"
            key = Key(asked.key.fingerprint(), asked.comment) if added else self._known(asked.key)
        if asked.message == "sign":
            return rules.judge(self._sign_request(asked, key, rules))
        return rules.judge(self._request(asked.message, key, rules))

    def _filtered(self, reply: bytes, rules: Rules) -> bytes:
        """A list without the keys that are of no use to this connection."""
        if self._shown and self._shown[0] == reply and self._shown[2] is rules and self._shown[3] is self._path:
            return self._shown[1]
        try:
            pairs = split_identities(reply[5:])
        except WireError:
            return _FAILURE
        self._learn(pairs)
        shown, again = self._chosen([blob for blob, _ in pairs], rules)
        if len(shown) == len(pairs):
            filtered = reply
        else:
            filtered = frame(IdentitiesAnswer(tuple(pairs[index] for index in shown)).payload())
        if again:
            self._shown = reply, filtered, rules, self._path
        return filtered

    def _filtered_extended(self, reply: bytes, rules: Rules) -> bytes:
        """The same for the reply to PuTTY's `list-extended`."""
        if reply[4] in (Failure.number, ExtensionFailure.number):
            return reply
        try:
            reader = Reader(reply[5:])
            entries = [(reader.string(), reader.string(), reader.string()) for _ in range(reader.uint32())]
            reader.end()
        except WireError:
            return _FAILURE
        if reply[4] != Success.number:
            return _FAILURE
        self._learn(entry[:2] for entry in entries)
        shown, _ = self._chosen([entry[0] for entry in entries], rules)
        writer = Writer().uint32(len(shown))
        for index in shown:
            for part in entries[index]:
                writer.string(part)
        return frame(Success(bytes(writer)).payload())

    def _chosen(self, blobs: list[bytes], rules: Rules) -> tuple[list[int], bool]:
        """The places of those keys in a list that are to be seen, and whether the same goes for the same list again."""
        verdicts = [rules.shows(self._request("list", self._listed[blob], rules)) for blob in blobs]
        asking = next((verdict for verdict in verdicts if verdict.action is Action.ASK), None)
        most, why = Action.ALLOW, ""
        if asking:
            agreed, why = self._settled(asking, lambda: self._general("list the keys"), lambda: asking)
            most = Action.ASK if agreed else Action.ALLOW
        shown = [index for index, verdict in enumerate(verdicts) if verdict.action <= most]
        log = any(verdict.log for verdict in verdicts)
        if log:
            how_many = f"{len(shown)} of {len(blobs)}"
            self._say(f"allowed to list the keys{self._caller()}: {how_many}{why and f', as {why}'}")
        return shown, not (asking or log)

    # What people are told

    def _question(self, asked: Asked) -> str:
        if asked.key and asked.message != "add":
            self._known(asked.key)
        if asked.message == "sign" and asked.key:
            from ..keyring import questions

            return questions.confirmation(self._told(asked.key, asked), asked.data, self._path, self._peer)
        return self._general(asked.what, asked)

    def _general(self, what: str, asked: Asked | None = None) -> str:
        """The question whether something other than a signature may pass, in some lines."""
        from ..keyring import questions
        from ..keyring.holding import line

        lines = [f"Allow {questions.who(self._peer)} to {what}"]
        if asked and asked.key:
            told = self._told(asked.key, asked)
            lines += (
                f"  {line(told.comment) or 'without a comment'}",
                f"  {told.public.type} {told.fingerprint}",
            )
        if forwarded := questions.way(self._path, None):
            lines.append(f"asked for over: {forwarded}")
        return "\n".join(lines) + "?"

    def _told(self, key: PublicKey, asked: Asked) -> _Told:
        """The key that a request is about, with its comment as far as that is known already."""
        listed = self._listed.get(key.blob)
        comment = asked.comment if asked.message == "add" else listed.comment if listed else ""
        return _Told(key, comment or "", key.fingerprint())

    def _described(self, asked: Asked) -> str:
        """A request in a line, for the log."""
        from ..keyring import questions
        from ..keyring.holding import line

        key = purpose = ""
        if asked.key:
            told = self._told(asked.key, asked)
            comment = line(told.comment)
            key = f" {comment} ({told.fingerprint})" if comment else f" {told.fingerprint}"
            if asked.message == "sign":
                purpose = f", {questions.purpose(told, asked.data, self._path)}"
        return f"{asked.what}{key}{self._caller()}{purpose}"

    def _caller(self) -> str:
        from ..keyring import questions

        forwarded = questions.way(self._path, None)
        return f" for {questions.who(self._peer)}{forwarded and f' over {forwarded}'}"


def _key(blob: bytes, comment: str) -> Key:
    try:
        return Key(PublicKey(blob).fingerprint(), comment)
    except WireError:  # which rules for fingerprints cannot be about, as far as we know
        return Key("", comment, certain=False)


def _host(key: PublicKey) -> Host:
    from ..keyring import questions

    return Host(key.fingerprint(), tuple(questions.names_and_hashes(key.plain)))


def _reason(verdict: Verdict) -> str:
    """Why it is so."""
    return f"line {verdict.rule.line} of the rules" if verdict.rule else "no rule allows it"
