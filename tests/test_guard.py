"""What passes a guard to the agent behind it, byte for byte, and what does not."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path
from time import monotonic, time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pageantry import sessions
from pageantry.constraints import RestrictDestination
from pageantry.errors import DeadlineExceeded, Disconnected
from pageantry.exposure import Exposure
from pageantry.extensions import ADD_ENCRYPTED, ADD_PPK, LIST_EXTENDED, QUERY, REPORT, ExtendedKey, ExtendedList
from pageantry.guard import guarded
from pageantry.keyring import Keyring
from pageantry.keys.private import PrivateKey
from pageantry.keys.sshsig import to_be_signed
from pageantry.messages import (
    AddIdentity,
    AddIdentityConstrained,
    AddSmartcardKey,
    Extension,
    ExtensionFailure,
    Failure,
    IdentitiesAnswer,
    Lock,
    Message,
    RemoveAllIdentities,
    RemoveIdentity,
    RemoveSmartcardKey,
    RequestIdentities,
    SessionBind,
    SignRequest,
    SignResponse,
    Success,
    Unknown,
    Unlock,
    decode,
    frame,
)
from pageantry.prompts import Person
from pageantry.rules import READ_ONLY, Rules, RulesFile, parse
from pageantry.wire import Writer

from .agent.people import Thinker, asked
from .exposure.upstream import connected
from .hosts import binding, certificate, ed25519_key, hop, rsa_key, userauth
from .keyring.conftest import Process, Scripted

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pageantry.sessions import Session

WORK, HOME, NEW = ed25519_key(501), ed25519_key(502), ed25519_key(503)
HOST, GATE = ed25519_key(510), ed25519_key(511)
SID, OTHER_SID = b"S" * 32, b"T" * 32
NAMES = (("gate.example", GATE), ("git.example", HOST))
LIST = RequestIdentities()


class Caller:
    """The connection of a client, as far as a guard looks at it."""

    def __init__(self, peer: Process | None = None) -> None:
        self.peer = peer or Process()
        self.left = False

    def gone(self) -> bool:
        return self.left


class Upstream:
    """A session that notes what comes to it. `replies` are given before the agent is asked."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.requests: list[bytes] = []
        self.replies: list[bytes] = []
        self.ended: list[str] = []

    def answer(self, request: bytes) -> bytes:
        self.requests.append(request)
        return self.replies.pop(0) if self.replies else self.session.answer(request)

    def at_once(self, request: bytes) -> bytes | None:
        return self.session.at_once(request)

    def shutdown(self) -> None:
        self.ended.append("shutdown")

    def close(self) -> None:
        self.ended.append("close")


class Guarded:
    """A keyring with two keys behind a guard, and a client of that."""

    def __init__(
        self,
        rules: str | Rules | Callable[[], Rules],
        person: Person | None = None,
        peer: Process | None = None,
        keyring: Keyring | None = None,
    ) -> None:
        self.keyring = keyring or Keyring()
        if keyring is None:
            self.keyring.add(WORK, "work")
            self.keyring.add(HOME, "home")
        self.said: list[str] = []
        self.caller = Caller(peer)
        self.upstream = Upstream(sessions.to(self.keyring)(self.caller))  # type: ignore[arg-type]
        text = parse(rules.encode(), "guard.toml") if isinstance(rules, str) else rules
        current = (lambda: text) if isinstance(text, Rules) else text
        opener = guarded(lambda _: self.upstream, current, person, self.said.append)
        self.session = opener(self.caller)  # type: ignore[arg-type]

    def ask(self, request: Message | bytes) -> Message:
        return decode(self.session.answer(frame(request if isinstance(request, bytes) else request.payload()))[4:])

    def shown(self) -> list[bytes]:
        """The comments of the keys that are shown."""
        listed = self.ask(LIST)
        assert isinstance(listed, IdentitiesAnswer)
        return [comment for _, comment in listed.identities]

    def sign(self, key: PrivateKey = WORK, data: bytes = b"data") -> bool:
        return isinstance(self.ask(SignRequest(key.public.blob, data)), SignResponse)

    def bind(self, host: PrivateKey, session: bytes = SID, *, forwarding: bool = False) -> Message:
        return self.ask(Extension(SessionBind.name, binding(host, session, forwarding)))

    @property
    def passed(self) -> list[bytes]:
        """What came to the agent, the guard's own lists left out."""
        return [request for request in self.upstream.requests if request != frame(LIST.payload())]


def rule(action: str, *lines: str, default: str = "allow") -> str:
    return "\n".join((f"default = '{default}'", "[[rule]]", f"action = '{action}'", *lines))


def known(monkeypatch: pytest.MonkeyPatch, home: Path, *names: tuple[str, PrivateKey]) -> None:
    """Have known_hosts know some hosts."""
    (home / ".ssh").mkdir()
    (home / ".ssh" / "known_hosts").write_text("".join(f"{name} {key.public.line()}\n" for name, key in names))
    for variable in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(variable, str(home))


# Each kind of message

KINDS: dict[str, list[Message]] = {
    "sign": [SignRequest(WORK.public.blob, b"data")],
    "add": [
        AddIdentity(NEW, "new"), AddIdentityConstrained(NEW, "new"), AddSmartcardKey("token", b"1234"),
        Extension(ADD_PPK, b"a file"), Extension(ADD_ENCRYPTED, b"a file"),
    ],
    "remove": [RemoveIdentity(WORK.public.blob), RemoveAllIdentities(), RemoveSmartcardKey("token", b"1234")],
    "lock": [Lock(b"secret"), Unlock(b"secret")],
    "extension": [Extension("some@example.org", b"contents"), Extension(REPORT)],
    "other": [Unknown(77, b"contents"), Unknown(9, b""), Unknown(1, b"")],
}  # fmt: skip
EACH = [(kind, message) for kind, messages in KINDS.items() for message in messages]
each = pytest.mark.parametrize(("kind", "message"), EACH, ids=lambda one: one if isinstance(one, str) else "")


@each
def test_what_is_denied_fails_and_does_not_come_to_the_agent(kind: str, message: Message) -> None:
    guard = Guarded(rule("deny", f"message = '{kind}'"))
    assert guard.ask(message) == Failure()
    assert guard.passed == []
    assert len(guard.said) == 1
    assert guard.said[0].startswith("refused to ")
    assert guard.said[0].endswith(": line 2 of the rules")
    assert "secret" not in guard.said[0]
    assert "1234" not in guard.said[0]


@each
def test_what_is_allowed_passes_as_it_is_and_so_does_the_reply(kind: str, message: Message) -> None:
    guard = Guarded(rule("allow", f"message = '{kind}'", default="deny"))
    guard.upstream.replies = [reply := frame(b"\x06a reply of its own")]
    assert guard.session.answer(frame(message.payload())) == reply
    assert guard.upstream.requests == [frame(message.payload())]
    assert guard.said == []


@each
def test_what_is_asked_for_passes_if_the_person_agrees(kind: str, message: Message) -> None:
    person = Scripted()
    guard = Guarded(rule("ask", f"message = '{kind}'"), person)
    person.answers = ["yes"]
    guard.ask(message)
    assert guard.passed == [frame(message.payload())]
    assert guard.ask(message) == Failure()
    assert guard.passed == [frame(message.payload())]
    assert person.questions[0] == person.questions[1] or kind == "remove"
    assert person.questions[0].startswith("Allow ssh (process 4123) to ")
    assert [line.partition(" to ")[0] for line in guard.said] == ["allowed", "refused"]
    assert "the person agreed" in guard.said[0]


@each
def test_without_a_person_what_is_asked_for_fails(kind: str, message: Message) -> None:
    guard = Guarded(rule("ask", f"message = '{kind}'"))
    assert guard.ask(message) == Failure()
    assert guard.passed == []


@each
def test_read_only_lets_pass_what_changes_nothing(kind: str, message: Message) -> None:
    guard = Guarded(READ_ONLY)
    assert (guard.ask(message) == Failure()) is (kind != "sign")
    assert bool(guard.passed) is (kind == "sign")


@pytest.mark.parametrize("rules", [READ_ONLY, "default = 'deny'"], ids=["read only", "deny"])
def test_binds_and_queries_always_pass(rules: Rules | str) -> None:
    guard = Guarded(rules)
    assert guard.bind(HOST) == Success()
    assert guard.ask(Extension(QUERY)) != Failure()
    assert len(guard.passed) == 2


def test_a_failure_of_the_agent_passes_as_it_is() -> None:
    guard = Guarded("default = 'allow'")
    assert guard.ask(SignRequest(NEW.public.blob, b"data")) == Failure()
    assert len(guard.passed) == 1
    assert guard.ask(Extension("unknown@example.org")) == Failure()
    assert guard.ask(Lock(b"")) == Failure()
    assert guard.said == []


@pytest.mark.parametrize(
    "request_", [b"\x0d", b"\x0d\0\0\0\x09short", b"\x12\0\0\0\1", b"\x1b\0\0", b"\x0d\0\0\0\0\0\0\0\0"], ids=bytes.hex
)
def test_what_breaks_off_fails(request_: bytes) -> None:
    guard = Guarded("default = 'allow'")
    assert guard.ask(request_) == Failure()
    assert guard.passed == []


def test_a_signature_without_flags_passes_as_it_is() -> None:
    guard = Guarded(READ_ONLY)
    payload = SignRequest(WORK.public.blob, b"data").payload()[:-4]
    assert isinstance(guard.ask(payload), SignResponse)
    assert guard.passed == [frame(payload)]


def test_a_key_of_another_kind_is_added_only_if_no_key_is_denied() -> None:
    payload = b"\x11" + bytes(Writer().text("ssh-new").string(b"fields").text("comment"))
    guard = Guarded("default = 'allow'")
    guard.ask(payload)
    assert guard.passed == [frame(payload)]
    guard = Guarded(rule("deny", "key = 'something'"))
    assert guard.ask(payload) == Failure()
    assert guard.passed == []


@settings(max_examples=200, deadline=None)
@given(
    st.one_of(st.binary(min_size=1, max_size=60), st.sampled_from([one.payload() for _, one in EACH])), st.booleans()
)
def test_any_bytes_pass_as_they_are_or_fail(payload: bytes, denied: bool) -> None:
    with Keyring() as keyring:
        guard = Guarded("default = 'deny'" if denied else "default = 'allow'", keyring=keyring)
        reply = guard.session.answer(frame(payload))
        assert guard.upstream.requests in ([], [frame(payload)])
        if not guard.upstream.requests:
            assert reply == frame(Failure().payload())
        elif denied:
            assert payload[0] in (LIST.number, Extension.number)


def test_a_guard_ends_the_session_behind_it() -> None:
    guard = Guarded(READ_ONLY)
    guard.session.shutdown()
    guard.session.close()
    assert guard.upstream.ended == ["shutdown", "close"]
    assert guard.session.at_once(frame(LIST.payload())) is None


# Lists, and keys


def test_a_list_that_all_may_see_passes_as_it_is() -> None:
    guard = Guarded(READ_ONLY)
    direct = sessions.to(guard.keyring)(guard.caller).answer(frame(LIST.payload()))  # type: ignore[arg-type]
    assert guard.session.answer(frame(LIST.payload())) == direct


@pytest.mark.parametrize("pattern", ["work", "w*", WORK.public.fingerprint()])
def test_a_denied_key_is_not_shown_and_does_not_sign(pattern: str) -> None:
    guard = Guarded(rule("deny", f"key = '{pattern}'"))
    assert guard.shown() == guard.shown() == [b"home"]
    assert not guard.sign(WORK)
    assert guard.sign(HOME)
    assert guard.ask(RemoveIdentity(WORK.public.blob)) == Failure()


@pytest.mark.parametrize("pattern", ["work", WORK.public.fingerprint()])
def test_without_a_list_of_the_client_the_guard_makes_its_own(pattern: str) -> None:
    guard = Guarded(rule("allow", f"key = '{pattern}'", default="deny"))
    assert guard.sign(WORK)
    assert guard.upstream.requests == [frame(LIST.payload()), frame(SignRequest(WORK.public.blob, b"data").payload())]
    assert not guard.sign(HOME)
    assert guard.sign(WORK)
    assert len(guard.upstream.requests) == 3


def test_another_spelling_of_a_key_is_no_way_round_a_rule() -> None:
    rsa = rsa_key()
    keyring = Keyring()
    keyring.add(rsa, "rsa")
    guard = Guarded(rule("deny", f"key = '{rsa.public.fingerprint()}'"), keyring=keyring)
    e, n = (rsa.fields[1], rsa.fields[0])
    assert isinstance(e, int)
    assert isinstance(n, int)
    longer = Writer().text("ssh-rsa").string(b"\0\0" + e.to_bytes(3, "big")).string(b"\0" + n.to_bytes(257, "big"))
    assert guard.ask(SignRequest(bytes(longer), b"data")) == Failure()
    assert guard.passed == []


def test_an_added_key_is_known_by_what_it_is_added_with() -> None:
    guard = Guarded(rule("deny", "key = 'new*'", "message = 'add'"))
    assert guard.ask(AddIdentity(NEW, "new one")) == Failure()
    assert guard.ask(AddIdentity(NEW, "old one")) == Success()
    guard = Guarded(rule("allow", f"key = '{NEW.public.fingerprint()}'", "message = 'add'", default="deny"))
    assert guard.ask(AddIdentity(NEW, "new")) == Success()
    assert guard.ask(AddIdentity(HOME, "new")) == Failure()


def test_to_remove_all_keys_is_to_remove_each() -> None:
    guard = Guarded(rule("deny", "key = 'work'", "message = 'remove'"))
    assert guard.ask(RemoveAllIdentities()) == Failure()
    assert guard.ask(RemoveIdentity(WORK.public.blob)) == Failure()
    assert guard.ask(RemoveIdentity(HOME.public.blob)) == Success()
    assert guard.ask(RemoveSmartcardKey("token", b"")) == Failure()
    guard = Guarded(rule("deny", "key = 'neither'", "message = 'remove'"))
    assert guard.ask(RemoveAllIdentities()) == Failure(), "the agent may have keys that it does not list"


def test_rules_about_lists_decide_and_a_person_is_asked_once_for_a_list() -> None:
    person = Scripted()
    guard = Guarded(rule("ask", "message = 'list'", "key = ['work', 'home']"), person)
    person.answers = ["yes"]
    assert guard.shown() == [b"work", b"home"]
    assert guard.shown() == []
    assert person.questions == ["Allow ssh (process 4123) to list the keys?"] * 2
    assert ["2 of 2" in line for line in guard.said] == [True, False]


def test_a_list_in_reply_to_something_else_is_a_list() -> None:
    """As some agents, OpenSSH's 10.3 after a query, fall out of step."""
    guard = Guarded(rule("deny", "key = 'work'", default="allow"))
    guard.upstream.replies = [guard.upstream.session.answer(frame(LIST.payload()))]
    answer = guard.ask(Extension(QUERY))
    assert isinstance(answer, IdentitiesAnswer)
    assert [comment for _, comment in answer.identities] == [b"home"]


@pytest.mark.parametrize("contents", [b"", b"\0\0\0\2", b"\0\0\0\1\0\0\0\3abc"])
def test_a_list_that_cannot_be_read_fails(contents: bytes) -> None:
    guard = Guarded(READ_ONLY)
    guard.upstream.replies = [frame(b"\x0c" + contents)]
    assert guard.ask(LIST) == Failure()
    guard = Guarded(rule("allow", "key = 'work'", default="deny"))
    guard.upstream.replies = [frame(b"\x0c" + contents)]
    assert guard.ask(SignRequest(WORK.public.blob, b"data")) == Failure()


def test_a_key_that_cannot_be_read_is_shown_unless_a_key_is_denied() -> None:
    listed = frame(IdentitiesAnswer(((b"no key", b"odd"), (WORK.public.blob, b"work"))).payload())
    for rules, count in (("default = 'allow'", 2), (rule("deny", f"key = '{HOME.public.fingerprint()}'"), 1)):
        guard = Guarded(rules)
        guard.upstream.replies = [listed]
        assert len(guard.shown()) == count


def extended(guard: Guarded) -> Message:
    return guard.ask(Extension(LIST_EXTENDED))


def test_putty_s_extended_list_is_a_list() -> None:
    guard = Guarded(rule("deny", "key = 'work'"))
    reply = extended(guard)
    assert isinstance(reply, Success)
    keys = ExtendedList.decode(reply.contents).keys
    assert keys == (ExtendedKey(HOME.public.blob, b"home", keys[0].flags),)
    assert extended(Guarded("default = 'deny'")) == Success(b"\0\0\0\0")
    for refusal in (Failure(), ExtensionFailure()):
        guard.upstream.replies = [frame(refusal.payload())]
        assert extended(guard) == refusal
    for odd in (b"\x06", b"\x06\0\0\0\1", reply.payload() + b"x", b"\x1d" + reply.payload()[1:]):
        guard.upstream.replies = [frame(odd)]
        assert extended(guard) == Failure()


def test_a_locked_agent_lists_and_signs_nothing_through_a_guard() -> None:
    guard = Guarded(rule("allow", "key = 'work'", default="deny"))
    assert guard.shown() == [b"work"]
    guard.keyring.lock(b"secret")
    assert guard.shown() == []
    assert not guard.sign(WORK)


# Who asks, from where, and for what


def test_a_program_is_known_by_its_caller() -> None:
    rules = rule("allow", "program = 'git'", default="deny")
    assert Guarded(rules, peer=Process(1, "/usr/bin/git")).sign()
    assert not Guarded(rules, peer=Process(1, "/usr/bin/ssh")).sign()
    assert not Guarded(rules, peer=Process(None, "")).sign()
    assert Guarded(rules, peer=Process(1, "/usr/bin/ssh")).shown() == []


def test_a_request_is_local_until_a_session_is_bound_for_forwarding() -> None:
    guard = Guarded(rule("deny", "from = 'forwarded'"))
    assert guard.shown() == [b"work", b"home"]
    assert guard.sign()
    guard.bind(GATE, forwarding=True)
    assert guard.shown() == []
    assert not guard.sign()
    guard.bind(HOST, OTHER_SID)
    assert not guard.sign()


def test_a_session_that_is_bound_for_logging_in_is_local() -> None:
    guard = Guarded(rule("allow", "from = 'local'", default="deny"))
    guard.bind(HOST)
    assert guard.shown() == [b"work", b"home"]
    assert guard.sign(data=userauth(WORK.public, SID))


@pytest.mark.parametrize("rules", [rule("allow", "from = 'local'", default="deny"), rule("deny", "from = 'forwarded'")])
def test_who_fails_to_prove_where_he_comes_from_is_not_local(rules: str) -> None:
    guard = Guarded(rules)
    contents = binding(HOST, SID, True)[:-70] + b"x" * 70
    guard.ask(Extension(SessionBind.name, contents))
    assert guard.passed == [frame(Extension(SessionBind.name, contents).payload())]
    assert not guard.sign()
    assert guard.shown() == []


def test_a_bind_counts_whatever_the_agent_says_to_it() -> None:
    guard = Guarded(rule("deny", "from = 'forwarded'"))
    guard.upstream.replies = [frame(Failure().payload())]
    assert guard.bind(GATE, forwarding=True) == Failure()
    assert not guard.sign()


ONLY_GIT = rule("allow", "host = 'git.example'", "user = 'git'", default="deny")


def test_a_login_is_for_the_host_whose_session_was_bound(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    known(monkeypatch, tmp_path, ("git.example", HOST), ("other.example", GATE))
    guard = Guarded(ONLY_GIT)
    guard.bind(HOST)
    assert guard.shown() == [b"work", b"home"]
    assert guard.sign(data=userauth(WORK.public, SID, "git"))
    assert not guard.sign(data=userauth(WORK.public, SID, "me"))
    assert not guard.sign(data=userauth(WORK.public, OTHER_SID, "git"))
    assert not guard.sign(data=userauth(WORK.public, SID, "git", GATE.public))
    assert not guard.sign(data=b"something")
    assert not guard.sign(data=to_be_signed(b"message", "git"))
    other = Guarded(ONLY_GIT)
    other.bind(GATE)
    assert other.shown() == []
    assert not other.sign(data=userauth(WORK.public, SID, "git"))


def test_a_login_is_for_the_host_that_it_names_itself(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    known(monkeypatch, tmp_path, ("git.example", HOST), ("other.example", GATE))
    guard = Guarded(ONLY_GIT)
    assert guard.sign(data=userauth(WORK.public, SID, "git", HOST.public))
    assert not guard.sign(data=userauth(WORK.public, SID, "git", GATE.public))
    assert not guard.sign(data=userauth(WORK.public, SID, "git"))


def test_beyond_a_host_that_the_agent_is_forwarded_to_there_may_be_the_right_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    known(monkeypatch, tmp_path, *NAMES)
    guard = Guarded(ONLY_GIT)
    guard.bind(GATE, forwarding=True)
    assert guard.shown() == [b"work", b"home"]
    guard.bind(HOST, OTHER_SID)
    assert guard.sign(data=userauth(WORK.public, OTHER_SID, "git", HOST.public))


def test_a_forwarded_host_does_not_pass_another_one_s_session_for_its_own(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Whoever has the key of GATE can sign any session with it, say that of a login at HOST."""
    known(monkeypatch, tmp_path, *NAMES)
    theirs = userauth(WORK.public, OTHER_SID, "git")
    person = Scripted()
    strict, asking = Guarded(rule("allow", "host = 'gate.example'", default="deny")), Guarded(rule("ask"), person)
    for guard in (strict, asking):
        guard.bind(GATE, forwarding=True)
        guard.bind(GATE, OTHER_SID)
        assert not guard.sign(data=theirs)
        assert "at a host that its program did not name" in guard.said[-1]
    assert "at a host that its program did not name" in person.questions[0]
    assert strict.sign(data=userauth(WORK.public, OTHER_SID, "git", GATE.public))


def test_who_failed_to_prove_where_he_comes_from_is_not_local_for_another_bind(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    known(monkeypatch, tmp_path, *NAMES)
    failing = Extension(SessionBind.name, binding(HOST, SID, True)[:-70] + b"x" * 70)
    for rules in (rule("deny", "from = 'forwarded'"), rule("allow", "host = 'gate.example'", default="deny")):
        guard = Guarded(rules)
        guard.ask(failing)
        guard.bind(GATE, OTHER_SID)
        assert not guard.sign(data=userauth(WORK.public, OTHER_SID, "git"))
        assert "not known, as it could not be proven" in guard.said[-1]


@pytest.mark.parametrize("pattern", [HOST.public.fingerprint(), "git.example"])
def test_a_host_with_a_certificate_is_known_by_its_plain_key(
    pattern: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    known(monkeypatch, tmp_path, *NAMES)
    shown = certificate(HOST.public, ed25519_key(9))
    guard = Guarded(rule("allow", f"host = '{pattern}'", default="deny"))
    guard.ask(Extension(SessionBind.name, binding(HOST, SID, False, shown)))
    assert guard.sign(data=userauth(WORK.public, SID))


def test_what_is_no_login_has_no_host_unless_nobody_can_tell(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    known(monkeypatch, tmp_path, ("git.example", HOST))
    guard = Guarded(rule("deny", "host = 'git.example'"))
    assert guard.sign(data=to_be_signed(b"message", "file"))
    assert not guard.sign(data=b"something")
    assert not guard.sign(data=userauth(WORK.public, SID, "git", HOST.public))
    assert not guard.sign(data=userauth(WORK.public, SID, "git", GATE.public)), "who may have any name"
    certified = certificate(WORK.public, ed25519_key(9), kind=1)
    assert not guard.sign(data=userauth(certified, SID, "git", HOST.public)), "a login with a certificate"


def test_limits_of_the_agent_hold_behind_a_guard() -> None:
    keyring = Keyring()
    keyring.add(WORK, "work", [RestrictDestination(((hop(""), hop("one", HOST.public)),))])
    guard = Guarded("default = 'allow'", keyring=keyring)
    assert guard.shown() == [b"work"]
    guard.bind(GATE)
    assert guard.shown() == []


# Asking


def test_the_question_tells_what_a_signature_is_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    known(monkeypatch, tmp_path, *NAMES)
    person = Scripted()
    person.answers = ["yes"]
    guard = Guarded(rule("ask", "from = 'forwarded'"), person)
    assert guard.sign()
    guard.bind(GATE, forwarding=True)
    guard.bind(HOST, OTHER_SID)
    assert guard.shown() == [b"work", b"home"]
    assert guard.sign(data=userauth(WORK.public, OTHER_SID, "git", HOST.public))
    gate, host = (f"{name} (ssh-ed25519 {key.public.fingerprint()})" for name, key in NAMES)
    (question,) = person.questions
    assert question == (
        "Allow ssh (process 4123) to sign with the key\n"
        f"  work\n  ssh-ed25519 {WORK.public.fingerprint()}\n"
        f'to log in as "git" at {host}\nasked for over: this computer > {gate}?'
    )
    (line,) = guard.said
    assert line == (
        f"allowed to sign with work ({WORK.public.fingerprint()}) for ssh (process 4123) over this computer > {gate}, "
        f'to log in as "git" at {host}: the person agreed'
    )


def test_the_question_for_a_key_to_be_added_shows_no_tricks() -> None:
    person = Scripted()
    guard = Guarded(rule("ask", "message = 'add'"), person)
    assert guard.ask(AddIdentity(NEW, "good?\n\x1b[2Jbad")) == Failure()
    assert person.questions == [
        f"Allow ssh (process 4123) to add\n  good?\\n\\x1b[2Jbad\n  ssh-ed25519 {NEW.public.fingerprint()}?"
    ]


def test_nobody_answers_in_time() -> None:
    guard = Guarded(rule("ask", "message = 'sign'"), Person([Thinker()], timeout=0.2))
    assert not guard.sign()
    assert "nobody answered" in guard.said[0]


def test_nobody_is_asked_for_a_client_that_has_left() -> None:
    thinker = Thinker()
    guard = Guarded(rule("ask", "message = 'sign'"), Person([thinker]))
    guard.caller.left = True
    assert not guard.sign()
    assert thinker.questions == []
    assert "has left" in guard.said[0]


def test_a_client_leaves_while_the_person_thinks() -> None:
    thinker = Thinker()
    guard = Guarded(rule("ask", "message = 'sign'"), Person([thinker]))
    signed: list[bool] = []
    thread = threading.Thread(target=lambda: signed.append(guard.sign()))
    thread.start()
    while not thinker.questions:
        thread.join(0.01)
        assert thread.is_alive()
    guard.caller.left = True
    thread.join(30)
    assert signed == [False]
    assert isinstance(thinker.interruptions[0], Disconnected)


@pytest.mark.parametrize("error", [DeadlineExceeded("nobody answered"), Disconnected("left")])
def test_what_ends_a_question_fails_the_request(error: DeadlineExceeded | Disconnected) -> None:
    person = Scripted()
    person.answers = [error]
    guard = Guarded(rule("ask", "message = 'lock'"), person)
    assert guard.ask(Lock(b"x")) == Failure()
    assert guard.passed == []
    assert str(error) in guard.said[0]


# Rules that change


def test_rules_that_change_hold_for_connections_that_there_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    current = parse(b"default = 'allow'", "x")
    guard = Guarded(lambda: current)
    assert guard.shown() == [b"work", b"home"]
    assert guard.sign()
    current = parse(rule("deny", "key = 'work'").encode(), "x")
    assert guard.shown() == [b"home"]
    assert not guard.sign()


def test_a_request_that_was_agreed_to_is_denied_if_the_rules_do_so_by_then() -> None:
    current = parse(rule("ask", "message = 'sign'").encode(), "x")

    def forbid() -> str:
        nonlocal current
        current = parse(b"default = 'deny'", "x")
        return "yes"

    person = Scripted()
    person.answers = [forbid]
    guard = Guarded(lambda: current, person)
    assert not guard.sign()
    assert guard.passed == []
    assert "no rule allows it" in guard.said[0]


def test_a_file_that_changes_holds_for_a_connection_that_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "guard.toml"

    def write(default: str) -> None:
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            file.write(f"default = '{default}'\n")
        for clock in (monotonic, time):
            later = 10 * len(default) + clock()
            monkeypatch.setattr(f"pageantry.rules.file.{clock.__name__}", lambda later=later: later)

    write("deny")
    with Keyring() as keyring:
        keyring.add(WORK, "work")
        sign = SignRequest(WORK.public.blob, b"data")
        opener = guarded(sessions.to(keyring), RulesFile(str(path)))
        with Exposure(opener) as address, connected(address) as connection:
            assert asked(connection, sign) == Failure()
            write("allow")
            assert isinstance(asked(connection, sign), SignResponse)
            assert isinstance(asked(connection, LIST), IdentitiesAnswer)
