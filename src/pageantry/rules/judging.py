"""What may pass to an agent: rules, and what they are judged by. Nothing here does any input or output.

The first rule that matches decides, and the default where none does. What a rule goes by may not be known: the program
at the other end, say, or the host behind a session that nobody bound. Then both are judged, as if the rule matched and
as if it did not, and the stricter outcome is the one.
"""

from __future__ import annotations

import hmac
import sys
from binascii import a2b_base64
from enum import IntEnum

from ..wire import Struct
from .patterns import Pattern

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Sequence
    from typing import Final

#: What a request can be; those of the first four are about a key.
MESSAGES: Final = ("list", "sign", "add", "remove", "lock", "extension", "other")
#: Keys whose rules are remembered, and characters of their comments: whoever asks to add a key may send any.
_MAX_REMEMBERED: Final = 4096
_MAX_COMMENT: Final = 256


class Action(IntEnum):
    """What becomes of a request; the stricter, the higher."""

    ALLOW = 0
    ASK = 1
    DENY = 2


class Key(Struct):
    """A key, as far as rules go by it.

    `comment` is None where it is not known. `certain` is whether the key is known to be this one and no other: an agent
    may take a blob that it does not list for one of its keys, in another spelling.
    """

    fingerprint: str
    comment: str | None
    certain: bool = True


class Host(Struct):
    """A host: the fingerprint of its key, and the names that known_hosts has for that, hashed ones as they are."""

    fingerprint: str
    names: tuple[str, ...] = ()


class Request(Struct):
    """What somebody asks an agent for.

    `message` is one of `MESSAGES`. `key` is None where it is not known, or where there is none. `program` is empty, and
    `forwarded` None, where it is not known. `login` is whether a signature is to log in: None if that is not known. As
    whom and where is in `user` and `host`, which are None where they are not known.
    """

    message: str
    key: Key | None = None
    program: str = ""
    forwarded: bool | None = False
    login: bool | None = None
    user: str | None = None
    host: Host | None = None


class Rule(Struct):
    """A rule; where it has no patterns for something, it does not go by that. `line` is where it begins."""

    line: int
    messages: frozenset[str]
    action: Action
    log: bool
    keys: tuple[Pattern, ...] = ()
    programs: tuple[Pattern, ...] = ()
    hosts: tuple[Pattern, ...] = ()
    users: tuple[Pattern, ...] = ()
    forwarded: bool | None = None

    def is_for(self, key: Key | None) -> bool | None:
        """Whether the key is one that it is about; None where that cannot be told."""
        if not self.keys:
            return True
        if key is None:
            return None
        found = _any(_is_key(pattern, key) for pattern in self.keys)
        return None if found is False and not key.certain else found

    def matches(self, request: Request, *, yet: bool = True) -> bool | None:
        """Whether the rest of `request` is as it has it, in doubt None. Unless `yet`, its login is still to come."""
        certain = True
        for found in self._tests(request, yet):
            if found is False:
                return False
            certain = certain and found is True
        return True if certain else None

    def awaits(self, request: Request) -> bool:
        """Whether it depends on the login that is still to come."""
        return bool(self.users) or (bool(self.hosts) and request.host is None)

    def covers(self, other: Rule) -> bool:
        """Whether it certainly matches whatever the other one does."""
        return (
            self.messages >= other.messages
            and self.forwarded in (None, other.forwarded)
            and _cover(self.keys, other.keys)
            and _cover(self.programs, other.programs)
            and _cover(self.hosts, other.hosts)
            and _cover(self.users, other.users)
        )

    def _tests(self, request: Request, yet: bool) -> Iterator[bool | None]:
        if self.forwarded is not None:
            yield None if request.forwarded is None else request.forwarded is self.forwarded
        if self.programs:
            yield _is_program(self.programs, request.program) if request.program else None
        if self.hosts and (yet or request.host):
            host = request.host
            yield _any(_is_host(pattern, host) for pattern in self.hosts) if host else request.login and None
        if self.users and yet:
            yield _matches(self.users, request.user) if request.user is not None else request.login and None


def _any(found: Iterable[bool | None]) -> bool | None:
    """Whether one is true; None where one may be."""
    doubt = False
    for one in found:
        if one:
            return True
        doubt = doubt or one is None
    return None if doubt else False


def _matches(patterns: Iterable[Pattern], text: str) -> bool:
    return any(pattern.matches(text) for pattern in patterns)


def _is_key(pattern: Pattern, key: Key) -> bool | None:
    if pattern.is_fingerprint:
        return pattern.matches(key.fingerprint)
    return None if key.comment is None else pattern.matches(key.comment)


def _is_program(patterns: Iterable[Pattern], path: str) -> bool:
    """Whether one of the patterns is the whole path, or without a slash its last part. Windows' slashes are slashes."""
    path = _program(path)
    name = path.rpartition("/")[2]
    return any(pattern.matches(path if "/" in pattern.text else name) for pattern in patterns)


def _program(path: str) -> str:
    return path.replace("\\", "/") if sys.platform == "win32" else path


def _is_host(pattern: Pattern, host: Host) -> bool | None:
    """Whether the host is one that the pattern names; None where known_hosts does not tell."""
    if pattern.is_fingerprint:
        return pattern.matches(host.fingerprint)
    hashed = [name for name in host.names if name.startswith("|")]
    clear = [name for name in host.names if not name.startswith(("|", "!"))]
    wild = [name for name in clear if "*" in name or "?" in name]  # it can have patterns itself: sshd(8)
    if any(pattern.covers(Pattern(name, fold=True)) if name in wild else pattern.matches(name) for name in clear):
        return True
    if pattern.plain:
        return any(_is_hash(entry, pattern.text) for entry in hashed) or (None if wild or not host.names else False)
    return None if wild or hashed or not host.names else False


def _is_hash(entry: str, name: str) -> bool:
    """Whether an entry such as |1|SALT|HASH is of that name."""
    try:
        _, kind, salt, digest = entry.split("|")
        made = hmac.digest(a2b_base64(salt), name.encode(), "sha1")  # as sshd(8) has it; it is only to find something
        return kind == "1" and made == a2b_base64(digest)
    except ValueError:
        return False


def _cover(mine: Collection[Pattern], others: Collection[Pattern]) -> bool:
    """Whether some patterns, none being all, match whatever the others do."""
    return not mine or (bool(others) and all(any(one.covers(other) for one in mine) for other in others))


class Verdict(Struct):
    """What is to become of a request, by which rule (None: by default), and whether the log is to say so."""

    action: Action
    rule: Rule | None
    log: bool


class Rules:
    """What may pass. Threads may share it."""

    def __init__(self, default: Action, rules: Sequence[Rule] = ()) -> None:
        self.default = default
        self.rules = tuple(rules)
        #: of what a request has, what some rule goes by
        self.needs = frozenset(
            name for name in ("keys", "programs", "hosts", "users") if any(getattr(rule, name) for rule in rules)
        )
        self._default = Verdict(default, None, default is not Action.ALLOW)
        self._about = {name: tuple(rule for rule in rules if name in rule.messages) for name in MESSAGES}
        self._for_key: dict[tuple[str, Key | None], list[tuple[Rule, bool | None]]] = {}

    def judge(self, request: Request) -> Verdict:
        """What is to become of `request`."""
        return self._first(request, request.message, self._default)

    def shows(self, request: Request) -> Verdict:
        """Whether the key of `request` is to be in a list, in which somebody looks for keys to sign with.

        That is as the first rule has it that is about lists. Where none is, the keys are shown that a signature could
        be allowed for: `request` has what is known of the connection, and its login is still to come.
        """
        otherwise = Action.ALLOW if self._could_sign(request) else Action.DENY
        return self._first(request, "list", Verdict(otherwise, None, False))

    def _first(self, request: Request, message: str, default: Verdict) -> Verdict:
        """What the first rule about that kind of message says that matches for sure, or a stricter one that may."""
        strictest = None
        for rule, sure in self._for(message, request.key):
            matches = rule.matches(request)
            certain = sure and matches
            if matches is False or not (certain or rule.action):
                continue
            if strictest is None or rule.action > strictest.action:
                strictest = Verdict(rule.action, rule, rule.log)
            if certain:
                return strictest
        return default if strictest is None or default.action > strictest.action else strictest

    def _could_sign(self, request: Request) -> bool:
        """Whether there could be a login, or something else to sign, for which this connection has the key."""
        strictest = Action.ALLOW
        for rule, sure in self._for("sign", request.key):
            matches = rule.matches(request, yet=False)
            if matches is False:
                continue
            action = max(strictest, rule.action)
            if rule.awaits(request):
                if sure and matches and action < Action.DENY:
                    return True
                continue
            if sure and matches:
                return action < Action.DENY
            strictest = action
        return max(strictest, self.default) < Action.DENY

    def _for(self, message: str, key: Key | None) -> list[tuple[Rule, bool | None]]:
        """The rules about a kind of message that may be about that key, each with whether it surely is."""
        found = self._for_key.get((message, key))
        if found is None:
            found = [(rule, sure) for rule in self._about[message] if (sure := rule.is_for(key)) is not False]
            if len(self._for_key) >= _MAX_REMEMBERED:
                self._for_key.clear()
            if key is None or len(key.comment or "") <= _MAX_COMMENT:
                self._for_key[message, key] = found
        return found


#: Keys can be listed and signed with; they cannot be added, removed or locked, nor whatever else there may be.
READ_ONLY: Final = Rules(
    Action.DENY, [Rule(line=0, messages=frozenset(("list", "sign")), action=Action.ALLOW, log=False)]
)
