"""Rules about what may pass to an agent: how they are read, what they decide, and when a file of them is believed."""

from __future__ import annotations

import hmac
import os
import re
import sys
import threading
import tracemalloc
from binascii import b2a_base64
from collections.abc import Callable
from itertools import product
from pathlib import Path
from time import monotonic, time

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pageantry.errors import Error
from pageantry.rules import READ_ONLY, Action, Host, Key, Request, Rule, Rules, RulesFile, parse
from pageantry.rules.judging import MESSAGES
from pageantry.rules.parsing import MAX_RULES, MAX_SIZE
from pageantry.rules.patterns import Pattern

ONE = "SHA256:" + "A" * 43
OTHER = "SHA256:" + "B" * 43
ALLOW, ASK, DENY = Action


def rules(text: str) -> Rules:
    return parse(text.encode(), "guard.toml")


# Patterns

words = st.text("ab*?.\\[", max_size=8)


def naive(pattern: str, text: str) -> bool:
    if not pattern:
        return not text
    if pattern[0] == "*":
        return any(naive(pattern[1:], text[start:]) for start in range(len(text) + 1))
    return bool(text) and pattern[0] in ("?", text[0]) and naive(pattern[1:], text[1:])


@settings(max_examples=200, deadline=None)
@given(words, words)
@example("a*a", "a")
@example("*ab*b", "abab")
def test_patterns_match_as_a_naive_matcher_says(pattern: str, text: str) -> None:
    assert Pattern(pattern).matches(text) is naive(pattern, text)


@settings(max_examples=300, deadline=None)
@given(st.text("ab*?", max_size=5), st.text("ab*?", max_size=5), st.text("ab", max_size=6))
@example("?", "*", "ab")
@example("a?", "a*", "a")
def test_what_covers_a_pattern_matches_all_that_it_does(wide: str, narrow: str, text: str) -> None:
    if Pattern(wide).covers(Pattern(narrow)) and naive(narrow, text):
        assert naive(wide, text)


def test_a_pattern_covers_narrower_ones_and_only_a_star_covers_fingerprints() -> None:
    assert Pattern("*.example.org").covers(Pattern("a.*.example.org"))
    assert Pattern("*").covers(Pattern(ONE))
    assert not Pattern("SHA256*").covers(Pattern(ONE))
    assert not Pattern("*.org").covers(Pattern("*.com"))


def test_a_pattern_takes_no_time_for_what_would_have_others_try_everything() -> None:
    assert not Pattern("*a" * 500 + "b").matches("a" * 100_000)


# Texts

GOOD = f"""\
default = "deny"

[[rule]]
key = ["{ONE}", "work *"]   # [[rule]]
program = '*/git-remote-*'
host = "*.example.org"
user = "git"
from = "local"
action = "allow"
log = true

[[ rule ]]
message = ["list", "sign"]
key = \"\"\"
[[rule]]
\"\"\"
action = "ask"

[["rule"]]
message = "lock"
"action" = "deny"
"""


def test_a_rule_has_what_the_text_says() -> None:
    first, second, third = rules(GOOD).rules
    assert [rule.line for rule in (first, second, third)] == [3, 12, 19]
    assert (first.messages, first.action, first.log, first.forwarded) == (frozenset({"sign"}), ALLOW, True, False)
    assert [[one.text for one in ones] for ones in (first.keys, first.programs, first.hosts, first.users)] == [
        [ONE, "work *"], ["*/git-remote-*"], ["*.example.org"], ["git"]
    ]  # fmt: skip
    assert (second.messages, second.action, second.log, second.forwarded) == (
        frozenset({"list", "sign"}),
        ASK,
        True,
        None,
    )
    assert (third.messages, third.action, third.log) == (frozenset({"lock"}), DENY, True)
    assert rules(GOOD).needs == {"keys", "programs", "hosts", "users"}


def test_a_rule_without_a_message_is_for_all_that_can_be_as_it_has_it() -> None:
    def messages(line: str) -> set[str]:
        return set(rules(f'default = "deny"\n[[rule]]\n{line}\naction = "allow"').rules[0].messages)

    assert messages("") == set(MESSAGES) - {"list"}
    assert messages('program = "a"\nfrom = "local"') == set(MESSAGES) - {"list"}
    assert messages('key = "a"') == {"sign", "add", "remove"}
    assert messages('user = "a"') == messages('key = "a"\nhost = "a"') == {"sign"}


D = 'default = "deny"\n'


@pytest.mark.parametrize(
    ("text", "line", "what"),
    [
        ("", 1, "default is missing"),
        ('[[rule]]\naction = "deny"\n', 1, "default is missing"),
        ('\n\ndefault = "perhaps"', 3, "'perhaps'"),
        ("default = 3", 1, "something else"),
        (D + "others = 1", 2, "no 'others'"),
        (D + "\n[others]\na = 1", 3, "no 'others'"),
        (D + "[rule]\naction = 'deny'", 2, "no list of rules"),
        (D + "rule = [1]", 2, "no list of rules"),
        (D + "\nrule = [{action = 'deny'},\n {act = 1}]", 3, "'act'"),
        (D + "[[rule]]\n[[rule]]\naction='deny'", 2, "action is missing"),
        (D + "[[rule]]\naction='deny'\nmessage='lock'\n[[rule]]\n\naction='den'", 7, "'den'"),
        (D + "[[rule]]\naction='deny'\n\nprogramm='x'", 5, "no 'programm'"),
        (D + "[[rule]]\naction='deny'\nkey.x = 1", 4, "key"),
        (D + "[[rule]]\naction='deny'\nfrom='here'", 4, "'here'"),
        (D + "[[rule]]\naction='deny'\nfrom=['local']", 4, "something else"),
        (D + "[[rule]]\naction='deny'\nlog='no'", 4, "log"),
        (D + "[[rule]]\naction='deny'\nuser=[]", 4, "user"),
        (D + "[[rule]]\naction='deny'\nuser=''", 4, "user"),
        (D + "[[rule]]\naction='deny'\nuser=['a', 3]", 4, "user"),
        (D + "[[rule]]\naction='deny'\nmessage='sing'", 4, "'sing'"),
        (D + "[[rule]]\naction='deny'\nmessage=['sign', 'lock']\nkey='x'", 4, "key is not known for lock"),
        (D + "[[rule]]\naction='deny'\nmessage='list'\nhost='x'", 4, "host is not known for list"),
        (D + "[[rule]]\naction='deny'\nkey='SHA256:abc'", 4, "no fingerprint"),
        (D + "[[rule]]\naction='deny'\nkey='MD5:00:11'", 4, "MD5"),
        (D + "[[rule]]\naction='deny'\nhost='SHA256:abc*'", 4, "no fingerprint"),
        (D + "[[rule]]\naction='deny'\nhost='git@example.org'", 4, "no name of a host"),
        (D + "[[rule]]\naction='deny'\nprogram='/usr/bin/'", 4, "slash"),
        (D + f"[[rule]]\naction='deny'\nuser='{'a' * 1025}'", 4, "1024"),
        (D + "a = ", 2, "no TOML"),
        (D + "[[rule]]\naction='deny'\n[[rule", 4, "no TOML"),
        (D + "a = '''\n\n", 4, "no TOML"),
        (D + "a = " + "9" * 5000, 1, "no TOML"),
        (D + "a = " + "[" * 5000, 1, ""),
        (D + "default = 'deny'", 2, "no TOML"),
        ("\n" * (MAX_SIZE + 1), 1, "bytes"),
        (D + "[[rule]]\naction='deny'\nmessage='lock'\n" * (MAX_RULES + 1), 2 + 3 * MAX_RULES, "rules"),
    ],
)  # fmt: skip
def test_an_error_has_its_line(text: str, line: int, what: str) -> None:
    with pytest.raises(Error) as caught:
        rules(text)
    assert str(caught.value).startswith(f"guard.toml, line {line}: ")
    assert what in str(caught.value)
    assert caught.value.hint


def test_what_is_not_utf_8_has_its_line_and_a_mark_of_notepads_is_none() -> None:
    with pytest.raises(Error, match="line 2: the text is not UTF-8"):
        parse(b'default = "deny"\r\n# caf\xe9', "guard.toml")
    assert parse(b'\xef\xbb\xbfdefault = "ask"\r\n', "guard.toml").default is ASK


@pytest.mark.parametrize(
    ("earlier", "later"),
    [
        ("", "key = 'a'"),
        ("", ""),
        ("from = 'local'", "from = 'local'\nprogram = 'ssh'"),
        ("key = '*'", f"key = '{ONE}'"),
        ("host = '*.org'", "host = ['a.org', '*.b.ORG']"),
        ("user = ['a*', 'b']", "user = 'b'"),
        ("message = ['sign', 'add']", "message = 'add'"),
        ("key = ['a', 'b']", "key = ['b', 'a']\nuser = 'me'"),
    ],
)
def test_a_rule_that_can_never_match_is_an_error_with_both_lines(earlier: str, later: str) -> None:
    line = 5 + earlier.count("\n")
    with pytest.raises(Error, match=rf"line {line}: .* line 2 "):
        rules(f"{D}[[rule]]\n{earlier}\naction = 'allow'\n[[rule]]\n{later}\naction = 'deny'\n")


@pytest.mark.parametrize(
    ("earlier", "later"),
    [
        ("key = 'a'", ""),
        ("from = 'local'", "from = 'forwarded'"),
        ("key = 'SHA256*'", f"key = '{ONE}'"),
        ("host = '*.org'", "host = ['a.org', 'b.com']"),
        ("message = 'list'", ""),
        ("key = 'a'", "key = '*'"),
        ("", "message = 'list'"),
    ],
)
def test_a_rule_that_can_match_is_none(earlier: str, later: str) -> None:
    assert len(rules(f"{D}[[rule]]\n{earlier}\naction='allow'\n[[rule]]\n{later}\naction='deny'").rules) == 2


ODD = ["true", "false", "1979-05-27", "inf", '"""\n"""']
names = st.sampled_from([*MESSAGES, "*", "a*", "ab", ONE, "local", "forwarded", "allow", "deny", "ask", "", "a\\", "é"])
values = st.recursive(
    st.one_of(
        names.map(repr), st.integers().map(str), st.sampled_from(["true", "false", "1979-05-27", "inf", '"""\n"""'])
    ),
    lambda inner: st.lists(inner, max_size=3).map(lambda many: f"[{', '.join(many)}]"),
    max_leaves=5,
)
fields = st.sampled_from(
    ["key", "program", "host", "user", "from", "message", "action", "log", "'key'", "other", "a.b"]
)
entries = st.builds("{} = {}".format, fields, values)
WHOLE = ["[[rule]]", "[[rule]]", "[rule]", "# x", "", "action = 'deny'", 'default = "ask"', "[[a.b]]"]
lines = st.one_of(entries, st.sampled_from(WHOLE))
texts = st.one_of(
    st.lists(lines, max_size=12).map("\n".join),
    st.lists(lines, max_size=12).map(lambda many: "default = 'ask'\n" + "\r\n".join(many)),
    st.text(max_size=40),
    st.tuples(st.integers(0, len(GOOD)), st.text(max_size=3)).map(lambda cut: GOOD[: cut[0]] + cut[1] + GOOD[cut[0] :]),
).map(lambda text: text.encode("utf-8", "surrogatepass"))


@settings(max_examples=300, deadline=None)
@given(st.one_of(texts, st.binary(max_size=60)))
def test_any_text_is_rules_or_an_error_with_a_line_of_it(text: bytes) -> None:
    try:
        found = parse(text, "guard.toml")
    except Error as error:
        said = str(error)
    else:
        assert all(b"rule" in text.splitlines()[rule.line - 1] for rule in found.rules)
        return
    line = re.match(r"guard\.toml, line (\d+): .", said)
    assert line, said
    assert 1 <= int(line[1]) <= text.count(b"\n") + 1
    assert "\n" not in said


def test_the_manual_s_examples_are_rules() -> None:
    manual = (Path(__file__).parents[1] / "docs" / "guard.md").read_text(encoding="utf-8")
    examples = re.findall(r"```toml\n(.*?)```", manual, re.DOTALL)
    assert len(examples) > 5
    first, *recipes = (rules(example) for example in examples)
    assert first.judge(Request("sign", Key(ONE, "me"), forwarded=False)).action is ASK
    assert recipes[0].default is READ_ONLY.default
    assert [(one.messages, one.action) for one in recipes[0].rules] == [
        (one.messages, one.action) for one in READ_ONLY.rules
    ]


# What they decide: against a reading of the same rules that is as plain as can be

PROGRAMS, HOSTS, USERS, COMMENTS = ("/bin/a", "/bin/b"), ("one", "two"), ("me", "git"), ("work", "home")
PRINTS = (ONE, OTHER)


def some(*texts: str) -> st.SearchStrategy[tuple[Pattern, ...]]:
    return st.lists(st.sampled_from(texts), max_size=2, unique=True).map(lambda many: tuple(map(Pattern, many)))


@st.composite
def a_rule(draw: st.DrawFn) -> Rule:
    hosts, users = draw(some("one", "t*", "host-1")), draw(some("me", "g?t"))
    keys = draw(some(ONE, "w*", "home"))
    usual = {"sign"} if hosts or users else {"list", "sign", "add", "remove"} if keys else set(MESSAGES)
    return Rule(
        draw(st.integers(1, 99)),
        frozenset(draw(st.sets(st.sampled_from(sorted(usual)), min_size=1))),
        draw(st.sampled_from(Action)),
        draw(st.booleans()),
        keys,
        draw(some("a", "/bin/b", "*b")),
        hosts,
        users,
        draw(st.sampled_from([None, False, True])),
    )


some_rules = st.builds(Rules, st.sampled_from(Action), st.lists(a_rule(), max_size=5))
known_keys = st.builds(Key, st.sampled_from(PRINTS), st.sampled_from(COMMENTS))
keys = st.one_of(known_keys, st.builds(Key, st.sampled_from(PRINTS), st.none(), st.just(False)))
hosts = st.builds(Host, st.just("SHA256:host"), st.sampled_from([(), ("one",), ("two", "host-1"), ("|1|AA==|AA==",)]))
logins = st.one_of(
    st.tuples(st.sampled_from([None, False]), st.none(), st.none()),
    st.tuples(st.just(True), st.sampled_from(USERS), st.one_of(st.none(), hosts)),
)
requests = st.builds(
    lambda message, key, program, forwarded, login: Request(message, key, program, forwarded, *login),
    st.sampled_from(MESSAGES),
    st.one_of(st.none(), keys),
    st.sampled_from(("", *PROGRAMS)),
    st.sampled_from([None, False, True]),
    logins,
)


def both(*found: bool | None) -> bool | None:
    return False if False in found else None if None in found else True


def either(*found: bool | None) -> bool | None:
    return True if True in found else None if None in found else False


def is_key(pattern: Pattern, key: Key) -> bool | None:
    if pattern.is_fingerprint:
        return pattern.text == key.fingerprint
    return None if key.comment is None else naive(pattern.text, key.comment)


def plainly(rule: Rule, request: Request) -> bool | None:
    """Whether a rule matches, None in doubt."""
    found: list[bool | None] = [request.message in rule.messages]
    if rule.keys and request.key is None:
        found.append(None)
    elif rule.keys and request.key:
        found.append(either(False if request.key.certain else None, *(is_key(one, request.key) for one in rule.keys)))
    if rule.programs:
        whole, name = request.program, request.program.rpartition("/")[2]
        found.append(
            either(*(naive(one.text, whole if "/" in one.text else name) for one in rule.programs)) if whole else None
        )
    if rule.forwarded is not None:
        found.append(None if request.forwarded is None else request.forwarded == rule.forwarded)
    if rule.users:
        found.append(request.login and any(naive(one.text, str(request.user)) for one in rule.users))
    if rule.hosts:
        if request.host is None or not request.host.names:
            found.append(False if request.login is False else None)
        elif request.host.names[0].startswith("|"):
            found.append(either(*(None if "*" in one.text else False for one in rule.hosts)))
        else:
            found.append(any(naive(one.text, name) for one in rule.hosts for name in request.host.names))
    return both(*found)


def plain_verdict(default: Action, all_rules: tuple[Rule, ...], request: Request) -> Action:
    if not all_rules:
        return default
    matches = plainly(all_rules[0], request)
    if matches:
        return all_rules[0].action
    rest = plain_verdict(default, all_rules[1:], request)
    return rest if matches is False else max(rest, all_rules[0].action)


@settings(max_examples=300, deadline=None)
@given(some_rules, requests)
def test_the_first_rule_decides_and_in_doubt_the_stricter_outcome(found: Rules, request: Request) -> None:
    verdict = found.judge(request)
    assert verdict.action is plain_verdict(found.default, found.rules, request)
    assert verdict == found.judge(request)
    if verdict.rule:
        assert (verdict.rule.action, verdict.rule.log) == (verdict.action, verdict.log)
        assert plainly(verdict.rule, request) is not False


@settings(max_examples=200, deadline=None)
@given(some_rules, requests)
def test_knowing_more_never_makes_it_stricter(found: Rules, request: Request) -> None:
    """What is refused for want of knowledge may be allowed with it; the other way round, a lack would be a way in."""
    worlds = (
        Request(request.message, request.key, program, forwarded, request.login, request.user, request.host)
        for program, forwarded in product(
            (request.program,) if request.program else PROGRAMS,
            (False, True) if request.forwarded is None else (request.forwarded,),
        )
    )
    action = found.judge(request).action
    assert all(found.judge(world).action <= action for world in worlds)


@settings(max_examples=100, deadline=None)
@given(some_rules, known_keys, st.sampled_from(("", *PROGRAMS)), st.sampled_from([None, False, True]))
def test_a_key_is_shown_if_there_can_be_a_login_that_it_is_allowed_for(
    found: Rules, key: Key, program: str, forwarded: bool | None
) -> None:
    every = [(False, None, None)] + [
        (True, user, Host("SHA256:host", names))
        for user, names in product((*USERS, "else"), (("one",), ("two",), ("else",), ("host-1",), ("one", "two")))
    ]
    possible = any(
        found.judge(Request("sign", key, program, forwarded, *login)).action is not DENY
        for login in every
    )  # fmt: skip
    first = next((rule for rule in found.rules if "list" in rule.messages), None)
    shown = found.shows(Request("list", key, program, forwarded)).action is not DENY
    if first is None and possible:
        assert shown
    if first is None and not found.needs & {"hosts", "users"}:
        assert shown is (found.judge(Request("sign", key, program, forwarded)).action is not DENY)


def test_rules_about_lists_decide_what_is_listed() -> None:
    found = rules(
        "default='allow'\n[[rule]]\nmessage='list'\nkey='work'\naction='deny'\n"
        "[[rule]]\nmessage='list'\nfrom='forwarded'\naction='ask'\n[[rule]]\nmessage='sign'\nkey='home'\naction='deny'"
    )
    assert found.shows(Request("list", Key(ONE, "work"))).action is DENY
    assert found.shows(Request("list", Key(ONE, "other"), forwarded=True)).action is ASK
    assert found.shows(Request("list", Key(ONE, "other"))).action is ALLOW
    assert found.shows(Request("list", Key(ONE, "home"))).action is DENY


def test_once_the_host_is_known_keys_for_other_hosts_are_not_shown() -> None:
    found = rules(f"{D}[[rule]]\nhost='one'\naction='allow'")
    key = Key(ONE, "work")
    assert found.shows(Request("list", key)).action is ALLOW
    assert found.shows(Request("list", key, host=Host(ONE, ("one",)))).action is ALLOW
    assert found.shows(Request("list", key, host=Host(ONE, ("two",)))).action is DENY


def test_a_pattern_that_known_hosts_has_for_names_is_a_name_of_which_only_part_is_known() -> None:
    def asked(host: str, *names: str) -> Action:
        found = rules(f"default = 'ask'\n[[rule]]\nhost='{host}'\naction='deny'\n[[rule]]\naction='allow'")
        return found.judge(Request("sign", Key(ONE, ""), login=True, user="x", host=Host(OTHER, names))).action

    assert asked("git.example", "*.example") is DENY, "it may be that one"
    assert asked("git.example", "*.example", "!git.example") is DENY, "this much is not known"
    assert asked("*.example", "*.EXAMPLE") is DENY
    assert asked("git.*", "*.example") is DENY
    assert asked("git.example", "other.example") is ALLOW
    found = rules("default = 'deny'\n[[rule]]\nhost=['git.example', '?.example']\naction='allow'")
    for names in (("*.example",), ("git.example",)):
        request = Request("sign", Key(ONE, ""), login=True, user="x", host=Host(OTHER, names))
        assert found.judge(request).action is (ALLOW if names == ("git.example",) else DENY)


def test_hosts_are_known_by_names_in_clear_hashed_ones_and_fingerprints() -> None:
    salt = b"some salt"
    hashed = "|1|" + "|".join(
        b2a_base64(one, newline=False).decode() for one in (salt, hmac.digest(salt, b"one.example", "sha1"))
    )

    def asked(pattern: str, *names: str) -> Action:
        found = rules(f"default='ask'\n[[rule]]\nhost='{pattern}'\naction='deny'\n")
        return found.judge(Request("sign", Key(ONE, ""), login=True, user="x", host=Host(OTHER, names))).action

    assert asked("ONE.example", "two", "one.example") is DENY
    assert asked("one.example", hashed) is DENY
    assert asked("two.example", hashed) is ASK
    assert asked("two.example", "|1|bad", "|1|%|%") is ASK
    assert asked("*.com", "one.example") is ASK
    assert asked("*.com", hashed) is DENY, "a pattern cannot be compared with a hash"
    assert asked("*.com") is DENY, "a host without a name may be that one"
    assert asked(OTHER) is DENY
    assert asked(ONE, "one.example") is ASK
    assert asked("*", "!one.example") is ASK


def test_a_program_is_known_by_its_path_or_the_last_part_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    found = [rules(f"{D}[[rule]]\nprogram='{one}'\naction='allow'") for one in ("ssh", "/usr/*/ssh", "C:/*/SSH.exe")]

    def asked(program: str) -> list[bool]:
        return [one.judge(Request("lock", program=program)).action is ALLOW for one in found]

    assert asked("/usr/bin/ssh") == [True, True, False]
    assert asked("/tmp/ssh") == [True, False, False]
    assert asked("/usr/bin/sshd") == [False, False, False]
    assert asked("") == [False, False, False]
    monkeypatch.setattr(sys, "platform", "win32")
    found = [rules(f"{D}[[rule]]\nprogram='{one}'\naction='allow'") for one in ("SSH.exe", "c:\\*\\ssh.EXE")]
    assert asked("C:\\Windows\\ssh.exe") == [True, True]
    assert asked("C:\\ssh.exe") == [True, False]


def test_keys_with_long_comments_are_not_remembered() -> None:
    found = rules(D + "[[rule]]\nkey='*mine'\naction='allow'\n")
    tracemalloc.start()
    try:
        for number in range(100):
            request = Request("add", Key(f"SHA256:{number:043d}", f"{'long' * 25_000} {number} mine"))
            assert found.judge(request).action is ALLOW
        assert tracemalloc.get_traced_memory()[0] < 2_000_000
    finally:
        tracemalloc.stop()


def test_many_rules_with_many_patterns_are_checked_in_seconds() -> None:
    began = monotonic()
    for pattern in ("h{}.{}.*", "*.h{}.{}"):
        hosts = (str([pattern.format(number, index) for index in range(20)]) for number in range(100))
        rules(D + "".join(f"[[rule]]\nhost={host}\naction='allow'\n" for host in hosts))
    assert monotonic() - began < 8


def test_a_thousand_rules_for_keys_cost_a_signature_next_to_nothing() -> None:
    text = "".join(f"[[rule]]\nkey='SHA256:{index:043d}'\naction='allow'\n" for index in range(MAX_RULES))
    found = rules(D + text)
    request = Request("sign", Key(f"SHA256:{MAX_RULES - 1:043d}", ""))
    assert found.judge(request).action is ALLOW
    asked = 0

    class Counted(Rule):
        def matches(self, request: Request, *, yet: bool = True) -> bool | None:
            nonlocal asked
            asked += 1
            return super().matches(request, yet=yet)

    counted = Rules(DENY, [Counted(**rule.__dict__) for rule in found.rules])
    assert counted.judge(request).action is ALLOW
    assert asked == 1


@pytest.mark.parametrize("message", MESSAGES)
def test_read_only_is_to_list_and_to_sign(message: str) -> None:
    request = Request(message, Key(ONE, "work"))
    expected = ALLOW if message in ("list", "sign") else DENY
    assert (READ_ONLY.shows if message == "list" else READ_ONLY.judge)(request).action is expected


# Files of them


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Lets time pass."""
    passed = 0.0

    def more(seconds: float) -> None:
        nonlocal passed
        passed += seconds

    monkeypatch.setattr("pageantry.rules.file.monotonic", lambda: monotonic() + passed)
    monkeypatch.setattr("pageantry.rules.file.time", lambda: time() + passed)
    return more


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "guard.toml"
    write(path, D)
    return path


def write(path: Path, text: str) -> None:
    path.write_text(text)
    if sys.platform != "win32":
        path.chmod(0o600)


def test_a_file_is_read_again_when_it_has_changed_and_was_left_alone(
    path: Path, clock: Callable[[float], None]
) -> None:
    said: list[str] = []
    current = RulesFile(str(path), said.append)
    before = current()
    assert before.default is DENY
    clock(1.1)
    assert current() is before
    write(path, "default = 'allow'\n")
    assert current() is before, "a look too soon"
    clock(1.1)
    assert current().default is ALLOW
    assert len(said) == 1


def test_a_file_that_was_just_written_may_be_half_of_one(path: Path, clock: Callable[[float], None]) -> None:
    current = RulesFile(str(path))
    clock(100)
    write(path, "default = 'allow'\n")
    os.utime(path, (time() + 100,) * 2)
    assert current().default is DENY
    clock(1.1)
    assert current().default is ALLOW


def test_a_file_of_the_future_is_read_once_it_stays_as_it_is(path: Path, clock: Callable[[float], None]) -> None:
    current = RulesFile(str(path))
    write(path, "default = 'allow'\n")
    os.utime(path, (time() + 10_000,) * 2)
    clock(1.1)
    assert current().default is DENY
    clock(1.1)
    assert current().default is ALLOW


def test_a_broken_file_keeps_the_old_rules_and_says_so_once(path: Path, clock: Callable[[float], None]) -> None:
    said: list[str] = []
    current = RulesFile(str(path), said.append)
    write(path, "default = 'allow'\n[[rul")
    for _ in range(3):
        clock(1.1)
        assert current().default is DENY
    assert len(said) == 1
    assert "line 2: " in said[0]
    path.unlink()
    for _ in range(3):
        clock(1.1)
        assert current().default is DENY
    assert len(said) == 2
    write(path, "default = 'allow'\n")
    clock(1.1)
    assert current().default is ALLOW
    assert len(said) == 3


def test_an_empty_file_keeps_the_old_rules(path: Path, clock: Callable[[float], None]) -> None:
    current = RulesFile(str(path))
    write(path, "")
    clock(5)
    assert current().default is DENY


@pytest.mark.skipif(sys.platform == "win32", reason="modes are UNIX's")
def test_a_file_that_others_can_write_to_is_refused_from_then_on(path: Path, clock: Callable[[float], None]) -> None:
    said: list[str] = []
    current = RulesFile(str(path), said.append)
    path.write_text("default = 'allow'\n")
    path.chmod(0o620)
    clock(1.1)
    assert current().default is DENY
    assert "others can write" in said[0]
    with pytest.raises(Error, match="others can write"):
        RulesFile(str(path))
    path.chmod(0o644)
    clock(1.1)
    assert current().default is ALLOW


def test_a_file_of_another_user_is_refused(path: Path) -> None:
    if sys.platform == "win32" or os.geteuid() != 0:
        pytest.skip("only root on UNIX can give files away")
    os.chown(path, 4242, -1)
    with pytest.raises(Error, match="another user"):
        RulesFile(str(path))


@pytest.mark.skipif(sys.platform != "win32", reason="access lists are Windows'")
def test_a_file_that_everyone_can_write_to_is_refused_on_windows(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pageantry import acl

    monkeypatch.setattr(acl, "others", lambda _: ["S-1-1-0"])
    with pytest.raises(Error, match="can write to"):
        RulesFile(str(path))


@pytest.mark.parametrize("name", ["", "missing", "\0", "."])
def test_what_is_no_file_is_an_error(tmp_path: Path, name: str) -> None:
    with pytest.raises(Error) as caught:
        RulesFile(os.path.join(tmp_path, name))
    assert caught.value.hint


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    if sys.platform == "win32":
        pytest.skip("pipes with names in directories are UNIX's")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(Error, match="is no file"):
        RulesFile(str(tmp_path / "pipe"))


def test_a_file_that_is_too_long_is_an_error(path: Path) -> None:
    write(path, D + "#" * MAX_SIZE)
    with pytest.raises(Error, match="bytes"):
        RulesFile(str(path))


def test_many_threads_see_one_file_or_the_other_while_it_is_replaced(
    path: Path, clock: Callable[[float], None], tmp_path: Path
) -> None:
    current = RulesFile(str(path))
    seen: list[Rules] = []
    ended = threading.Event()

    def ask() -> None:
        while not ended.is_set():
            clock(0.5)
            seen.append(current())

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for index in range(50):
        write(tmp_path / "new", D if index % 2 else "default = 'allow'\n" + "#" * index)
        while True:
            try:
                (tmp_path / "new").replace(path)
                break
            except PermissionError:  # on Windows, while somebody reads it
                assert sys.platform == "win32"
    ended.set()
    for thread in threads:
        thread.join(30)
    assert {one.default for one in seen} <= {ALLOW, DENY}
    clock(5)
    assert current().default is DENY
