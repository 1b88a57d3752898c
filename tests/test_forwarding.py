from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pageantry.constraints import Hop, HostKey, RestrictDestination
from pageantry.errors import Refused, UnsupportedKey, WireError
from pageantry.forwarding import (
    LOCAL,
    MAX_BINDS,
    MAX_NAME,
    MAX_PRINCIPALS,
    MAX_SESSION_ID,
    Bind,
    Login,
    Path,
    check_use,
    login,
    may_see,
)
from pageantry.keys.private import PrivateKey
from pageantry.keys.public import PublicKey
from pageantry.keys.signatures import sign
from pageantry.keys.sshsig import to_be_signed
from pageantry.messages import SessionBind
from pageantry.wire import Writer

from .hosts import (
    HOST_BOUND,
    binding,
    certificate,
    certified_hop,
    ecdsa_key,
    ed25519_key,
    hop,
    rsa_key,
    security_key,
    strings,
    userauth,
)

A, B, C = (ed25519_key(seed) for seed in (1, 2, 3))
KEY = ed25519_key(9).public
AUTHORITY = ed25519_key(10)
HERE = Hop()
TO_A, TO_B, TO_C = (hop(name, key.public) for name, key in (("a", A), ("b", B), ("c", C)))
ID = b"an exchange hash"


def limited(*pairs: tuple[Hop, Hop]) -> RestrictDestination:
    return RestrictDestination(pairs)


def bound(*hosts: PrivateKey, forwarding: bool = False, shown: PublicKey | None = None) -> Path:
    """The path by way of these hosts, the last of which the agent may be forwarded to, or show a certificate."""
    path = LOCAL
    for number, host in enumerate(hosts, 1):
        last = number == len(hosts)
        path = path.bind(binding(host, ID + bytes((number,)), forwarding or not last, shown if last else None))
    return path


def good(path: Path, user: str = "me", key: PublicKey = KEY) -> bytes:
    """A login to the end of the path."""
    return userauth(key, path.binds[-1].session_id, user, path.binds[-1].host_key)


def may_use(limits: RestrictDestination | None, path: Path, data: bytes, now: float | None = None) -> bool:
    try:
        check_use(limits, path, KEY, data, now)
    except Refused as refusal:
        said = f"{refusal}{refusal.hint}"
    else:
        return True
    assert said.isprintable()
    return False


# binding


def test_each_bind_adds_a_host_to_the_path() -> None:
    path = LOCAL.bind(binding(A, ID, True))
    assert (path.attempted, path.binds) == (True, (Bind(A.public, ID, True),))
    path = path.bind(binding(B, b"another", False))
    assert path.binds == (Bind(A.public, ID, True), Bind(B.public, b"another", False))
    assert (LOCAL.attempted, LOCAL.binds) == (False, ())


def test_an_attempt_leaves_what_is_bound() -> None:
    assert LOCAL.attempt() == Path(True, (), True)
    path = bound(A, B)
    assert path.attempt() == Path(True, path.binds, True)


def test_a_failed_attempt_is_not_forgotten_for_a_later_bind() -> None:
    path = LOCAL.attempt().bind(binding(A, ID, False))
    assert path == Path(True, (Bind(A.public, ID, False),), True)


@pytest.mark.parametrize("key", [A, rsa_key(), rsa_key(1024), ecdsa_key(4), security_key(5)], ids=repr)
@pytest.mark.parametrize("flags", [0, 2, 4])
def test_a_host_signs_with_any_algorithm_of_its_key(key: PrivateKey, flags: int) -> None:
    assert LOCAL.bind(binding(key, ID, True, flags=flags)).binds[0].host_key == key.public


def test_a_host_with_a_certificate_signs_with_its_plain_key() -> None:
    shown = certificate(A.public, AUTHORITY)
    assert LOCAL.bind(binding(A, ID, True, shown)).binds[0].host_key == shown


def test_what_is_as_long_as_it_may_be_is_bound() -> None:
    shown = certificate(A.public, AUTHORITY, ("a",) * MAX_PRINCIPALS)
    assert LOCAL.bind(binding(A, b"x" * MAX_SESSION_ID, True, shown)).binds


@pytest.mark.parametrize(
    ("contents", "why"),
    [
        (binding(B, ID, True, shown=A.public), "did not sign it"),
        (SessionBind(A.public.blob, ID, sign(A, b"another"), True).encode(), "did not sign it"),
        (SessionBind(A.public.blob, ID, b"", True).encode(), "did not sign it"),
        (SessionBind(A.public.blob, ID, sign(rsa_key(), ID), True).encode(), "did not sign it"),
        (binding(B, ID, True, shown=certificate(A.public, AUTHORITY)), "did not sign it"),
        (binding(A, b"x" * (MAX_SESSION_ID + 1), True), "129 bytes; 128 are believed"),
        (binding(A, ID, True, certificate(A.public, AUTHORITY, signed_by=B)), "the certificate is not one of"),
    ],
)
def test_a_session_that_the_host_did_not_sign_is_not_bound(contents: bytes, why: str) -> None:
    with pytest.raises(Refused, match=why):
        LOCAL.bind(contents)


SHORT_RSA = PublicKey(bytes(Writer().text("ssh-rsa").mpint(65537).mpint(2**1022 + 1)))


@pytest.mark.parametrize(
    ("contents", "why"),
    [
        (b"", "announced"),
        (binding(A, ID, True) + b"\0", "more than expected"),
        (binding(A, ID, True)[:-1], "announced"),
        (binding(A, ID, True, PublicKey(strings("ssh-new", "x"))), "cannot be checked"),
        (binding(A, ID, True, SHORT_RSA), "an RSA key of 1023 bits; 1024 is the least"),
        (binding(A, ID, True, certificate(A.public, AUTHORITY, kind=3)), "unknown kind 3"),
        (binding(A, ID, True, certificate(A.public, AUTHORITY, ("a",) * 257)), "too many principals"),
        (binding(A, ID, True, certificate(A.public, AUTHORITY, ("a\0",))), "zero byte"),
        (binding(A, ID, True, certificate(A.public, AUTHORITY, key_id="\0")), "zero byte"),
        (binding(A, ID, True, certificate(A.public, AUTHORITY, critical=strings("x"))), "no value"),
        (binding(A, ID, True, certificate(A.public, AUTHORITY, extensions=strings("x", "", "y"))), "no value"),
        (binding(A, ID, True, certificate(A.public, AUTHORITY, extensions=b"\0")), "announced"),
        (
            binding(A, ID, True, certificate(A.public, AUTHORITY.certified(certificate(AUTHORITY.public, B)))),
            "signed with a certificate",
        ),
    ],
)
def test_what_is_malformed_or_cannot_be_checked_is_not_bound(contents: bytes, why: str) -> None:
    with pytest.raises(WireError, match=re.escape(why)):
        LOCAL.bind(contents)


def test_an_authority_with_a_short_key_is_not_believed() -> None:
    made = certificate(A.public, AUTHORITY).blob.replace(
        bytes(Writer().string(AUTHORITY.public.blob)), bytes(Writer().string(SHORT_RSA.blob))
    )
    with pytest.raises(UnsupportedKey, match="1024 is the least"):
        LOCAL.bind(binding(A, ID, True, PublicKey(made)))


@pytest.mark.parametrize("forwarding", [True, False])
def test_a_session_that_is_bound_again_changes_nothing(forwarding: bool) -> None:
    path = LOCAL.bind(binding(A, ID, True))
    assert path.bind(binding(A, ID, forwarding)) is path
    path = path.bind(binding(B, b"another", False))
    assert path.bind(binding(A, ID, forwarding)) is path  # it comes first, so B's being for a login is not looked at


def test_a_session_has_one_host() -> None:
    with pytest.raises(Refused, match="with another host's key"):
        LOCAL.bind(binding(A, ID, True)).bind(binding(B, ID, True))


def test_a_host_may_have_more_sessions() -> None:
    assert len(LOCAL.bind(binding(A, ID, True)).bind(binding(A, b"another", True)).binds) == 2


@pytest.mark.parametrize("again", [binding(A, ID, False), binding(A, ID, True), binding(B, b"another", True)])
def test_nothing_follows_a_session_that_is_logged_in_to(again: bytes) -> None:
    with pytest.raises(Refused, match="no other can follow"):
        LOCAL.bind(binding(A, ID, False)).bind(again)


def test_a_path_has_an_end() -> None:
    path = bound(*(A,) * MAX_BINDS, forwarding=True)
    assert path.bind(binding(A, ID + b"\1", True)) is path
    with pytest.raises(Refused, match="bound to 16 sessions already"):
        path.bind(binding(A, b"one more", True))
    assert len(bound(*(A,) * MAX_BINDS).binds) == MAX_BINDS


# limits


@pytest.mark.parametrize("limits", [None, limited()])
@pytest.mark.parametrize("path", [LOCAL, LOCAL.attempt(), bound(A), bound(A, B, forwarding=True)])
def test_a_key_without_limits_is_there_and_signs_anything(limits: RestrictDestination | None, path: Path) -> None:
    assert may_see(limits, path)
    assert may_use(limits, path, b"anything")


def test_a_limited_key_is_there_for_local_users_but_signs_nothing_outside_a_session() -> None:
    assert may_see(limited((HERE, TO_A)), LOCAL)
    assert not may_use(limited((HERE, TO_A)), LOCAL, userauth(KEY, ID, "me", A.public))


def test_a_limited_key_is_not_there_when_a_session_could_not_be_bound() -> None:
    assert not may_see(limited((HERE, TO_A)), LOCAL.attempt())
    assert not may_use(limited((HERE, TO_A)), LOCAL.attempt(), userauth(KEY, ID, "me", A.public))
    assert may_see(limited((HERE, TO_A)), bound(A).attempt())


NOT_THERE, LISTED, GOOD = (False, False), (True, False), (True, True)


@pytest.mark.parametrize(
    ("pairs", "path", "expected"),
    [
        ([(HERE, TO_A)], bound(A), GOOD),
        ([(HERE, TO_A)], bound(B), NOT_THERE),
        ([(HERE, TO_B), (HERE, TO_A)], bound(A), GOOD),
        ([(HERE, hop("hosts", B.public, A.public))], bound(A), GOOD),
        # the origin is an empty `from` and nothing else
        ([(TO_A, TO_A)], bound(A), NOT_THERE),
        ([(Hop("", "a", ()), TO_A)], bound(A), NOT_THERE),
        ([(Hop("", "", TO_A.keys), TO_A)], bound(A), NOT_THERE),
        # from hop to hop
        ([(HERE, TO_A), (TO_A, TO_B)], bound(A, B), GOOD),
        ([(HERE, TO_A), (TO_A, TO_B), (TO_B, TO_C)], bound(A, B, C), GOOD),
        ([(HERE, TO_A), (TO_A, TO_B), (TO_A, TO_C)], bound(A, B, C), NOT_THERE),
        ([(HERE, TO_A), (TO_A, TO_B), (TO_B, TO_C)], bound(A, C), NOT_THERE),
        ([(HERE, TO_B)], bound(A, B), NOT_THERE),
        ([(HERE, TO_A), (HERE, TO_B)], bound(A, B), NOT_THERE),
        ([(TO_A, TO_B)], bound(A, B), NOT_THERE),
        ([(HERE, TO_A), (TO_A, TO_B)], bound(B, A), NOT_THERE),
        ([(HERE, TO_A), (TO_A, TO_A)], bound(A, A), GOOD),
        ([(HERE, TO_A)], bound(A, A), NOT_THERE),
        # through a host
        ([(HERE, TO_A), (TO_A, TO_B)], bound(A, forwarding=True), LISTED),
        ([(HERE, TO_A)], bound(A, forwarding=True), NOT_THERE),
        ([(HERE, TO_A), (TO_B, TO_A)], bound(A, forwarding=True), NOT_THERE),
        ([(TO_A, TO_B)], bound(A, forwarding=True), NOT_THERE),
        ([(HERE, TO_A), (TO_A, TO_B), (TO_B, TO_C)], bound(A, B, forwarding=True), LISTED),
        # what stands for a host
        ([(HERE, certified_hop("a", A.public))], bound(A), NOT_THERE),
        ([(HERE, Hop("", "a", (HostKey(A.public.blob, True), HostKey(A.public.blob, False))))], bound(A), GOOD),
        ([(HERE, hop("a", A.public))], bound(A, shown=certificate(A.public, AUTHORITY)), NOT_THERE),
        ([(HERE, hop("a", AUTHORITY.public))], bound(A, shown=certificate(A.public, AUTHORITY)), NOT_THERE),
        (
            [(HERE, hop("a", certificate(A.public, AUTHORITY)))],
            bound(A, shown=certificate(A.public, AUTHORITY)),
            NOT_THERE,
        ),
        ([(HERE, Hop("", "a", (HostKey(b"no key", False),)))], bound(A), NOT_THERE),
    ],
)
def test_each_hop_has_to_be_allowed_from_the_one_before(
    pairs: list[tuple[Hop, Hop]], path: Path, expected: tuple[bool, bool]
) -> None:
    assert (may_see(limited(*pairs), path), may_use(limited(*pairs), path, good(path))) == expected


def test_an_agent_is_forwarded_only_through_what_was_bound_for_that() -> None:
    limits = limited((HERE, TO_A), (TO_A, TO_B))
    path = Path(True, (Bind(A.public, ID, False), Bind(B.public, b"another", False)))  # `bind` makes none like this
    assert not may_see(limits, path)
    assert not may_use(limits, path, good(path))


@pytest.mark.parametrize(
    ("pattern", "user", "expected"),
    [
        ("", "me", True),
        ("", "", True),
        ("me", "me", True),
        ("me", "ME", False),
        ("me", "you", False),
        ("me", "", False),
        ("me", "mee", False),
        ("*", "", True),
        ("m*", "me", True),
        ("*m", "me", False),
        ("?e", "me", True),
        ("?", "me", False),
        ("???", "ö", False),
        ("??", "ö", True),  # a byte each
        ("me,you", "me", False),
        ("!you", "me", False),
        ("[m]e", "me", False),
        ("*a*b*", "xaxxbx", True),
        ("*a*b", "abab", True),
        ("*aab", "aaab", True),
        ("a**?b", "ab", False),
        ("m?", "m*", True),
        ("\\*", "*", False),
    ],
)
def test_the_user_is_a_pattern_of_the_last_hop(pattern: str, user: str, expected: bool) -> None:
    path = bound(A)
    limits = limited((HERE, hop("a", A.public, user=pattern)))
    assert may_use(limits, path, good(path, user)) is expected
    assert may_see(limits, path)


@given(st.text("ab*?ö\udcff", max_size=9), st.text("abö\udcff", max_size=9))
def test_patterns_are_those_of_the_shell_without_its_brackets(pattern: str, user: str) -> None:
    limits = limited((HERE, hop("a", A.public, user=pattern)))
    path = Path(True, (Bind(A.public, ID, False),))
    expression = re.escape(pattern.encode("utf-8", "surrogateescape")).replace(rb"\*", b".*").replace(rb"\?", b".")
    expected = not pattern or re.fullmatch(expression, user.encode("utf-8", "surrogateescape"), re.DOTALL)
    assert may_use(limits, path, good(path, user)) is bool(expected)


def test_a_pattern_costs_no_more_than_its_length() -> None:
    path = Path(True, (Bind(A.public, ID, False),))
    limits = limited((HERE, hop("a", A.public, user="*a" * 30 + "b")))
    assert not may_use(limits, path, good(path, "a" * 1000))


LONGEST = "x" * MAX_NAME


@pytest.mark.parametrize(
    ("pattern", "user", "expected"),
    [
        (LONGEST, LONGEST, True),
        ("?" * MAX_NAME, LONGEST, True),
        ("*" * MAX_NAME, "me", True),
        ("*", LONGEST, True),
        ("*", LONGEST + "x", False),
        ("ö" * (MAX_NAME // 2), "ö" * (MAX_NAME // 2), True),
        ("*", "ö" * (MAX_NAME // 2 + 1), False),  # it is bytes that count
        (LONGEST + "x", LONGEST + "x", False),
        ("*" * (MAX_NAME + 1), "me", False),
        (LONGEST + "*", LONGEST, False),
    ],
    ids=range(10),
)
def test_a_name_or_pattern_that_is_too_long_matches_nothing(pattern: str, user: str, expected: bool) -> None:
    path = bound(A)
    assert may_use(limited((HERE, hop("a", A.public, user=pattern))), path, good(path, user)) is expected
    shown = bound(A, shown=certificate(A.public, AUTHORITY, (user,)))
    limits = limited((HERE, certified_hop(pattern, AUTHORITY.public)))
    assert may_see(limits, shown) is may_use(limits, shown, good(shown)) is expected


def test_users_on_the_way_do_not_matter() -> None:
    limits = limited((HERE, hop("a", A.public, user="nobody")), (TO_A, hop("b", B.public, user="me")))
    assert may_use(limits, bound(A, B), good(bound(A, B)))
    assert not may_use(limits, bound(A, B), good(bound(A, B), "nobody"))


NOW = 1_000_000_000


@pytest.mark.parametrize(
    ("made", "name", "expected"),
    [
        (certificate(A.public, AUTHORITY), "a", True),
        (certificate(A.public, AUTHORITY, ("b", "a")), "a", True),
        (certificate(A.public, AUTHORITY, ("b",)), "a", False),
        (certificate(A.public, AUTHORITY, ("A",)), "a", False),
        (certificate(A.public, AUTHORITY, ()), "a", False),
        (certificate(A.public, AUTHORITY, ("",)), "a", False),
        (certificate(A.public, AUTHORITY, ("a.example",)), "*.example", True),
        (certificate(A.public, AUTHORITY, ("*",)), "a", False),
        (certificate(A.public, AUTHORITY, kind=1), "a", False),
        (certificate(A.public, AUTHORITY, valid=(NOW, NOW + 1)), "a", True),
        (certificate(A.public, AUTHORITY, valid=(0, NOW)), "a", False),
        (certificate(A.public, AUTHORITY, valid=(NOW + 1, NOW + 9)), "a", False),
        (certificate(A.public, AUTHORITY, critical=strings("force-command", "")), "a", False),
        (certificate(A.public, AUTHORITY, extensions=strings("permit-pty", "")), "a", True),
        (certificate(A.public, rsa_key()), "a", True),
        (certificate(A.public, rsa_key(), flags=2), "a", True),
        (certificate(A.public, rsa_key(), flags=0), "a", False),
        (certificate(A.public, ecdsa_key(4)), "a", True),
        (certificate(A.public, security_key(5)), "a", True),
        (certificate(A.public, B), "a", False),
    ],
)
def test_a_certificate_is_good_for_its_principals_and_while_it_is_valid(
    made: PublicKey, name: str, expected: bool
) -> None:
    authorities = (key.public for key in (C, AUTHORITY, rsa_key(), ecdsa_key(4), security_key(5)))
    limits = limited((HERE, certified_hop(name, *authorities)))
    path = bound(A, shown=made)
    assert may_see(limits, path, NOW) is expected
    assert may_use(limits, path, good(path), NOW) is expected
    before = limited(*limits.pairs, (limits.pairs[0][1], TO_B))
    path = bound(A, forwarding=True, shown=made).bind(binding(B, b"another", False))
    assert may_use(before, path, good(path), NOW) is expected


def test_certificates_are_looked_at_in_the_present() -> None:
    limits = limited((HERE, certified_hop("a", AUTHORITY.public)))
    for valid, expected in (((NOW, 2**40), True), ((0, NOW), False), ((2**40, 2**41), False)):
        path = bound(A, shown=certificate(A.public, AUTHORITY, valid=valid))
        assert may_see(limits, path) is expected
        assert may_use(limits, path, good(path)) is expected


# logins


@pytest.mark.parametrize(
    ("path", "data", "expected"),
    [
        (bound(A), userauth(KEY, ID + b"\1", "me", A.public), True),
        (bound(A), userauth(KEY, ID + b"\1", "me"), True),
        (bound(A), userauth(KEY, ID + b"\2", "me", A.public), False),
        (bound(A), userauth(KEY, ID, "me"), False),
        (bound(A), userauth(KEY, ID + b"\1", "me", B.public), False),
        (bound(A), userauth(C.public, ID + b"\1", "me", A.public), False),
        (bound(A), to_be_signed(b"x" * 64, "file"), False),
        (bound(A), b"", False),
        (bound(A, B), userauth(KEY, ID + b"\2", "me", B.public), True),
        (bound(A, B), userauth(KEY, ID + b"\2", "me"), False),
        (bound(A, B), userauth(KEY, ID + b"\2", "me", A.public), False),
        (bound(A, B), userauth(KEY, ID + b"\1", "me", B.public), False),
        (bound(A, B), userauth(KEY, ID + b"\1", "me", A.public), False),
    ],
)
def test_a_limited_key_signs_only_for_the_session_that_was_bound_last(path: Path, data: bytes, expected: bool) -> None:
    assert may_use(limited((HERE, TO_A), (TO_A, TO_B)), path, data) is expected


@pytest.mark.parametrize(
    "data",
    [
        userauth(KEY, b"", "me", A.public),
        userauth(KEY, ID, "me", A.public, number=51),
        userauth(KEY, ID, "me", A.public, service="ssh-userauth"),
        userauth(KEY, ID, "me", A.public, service="ssh-connection\0"),
        userauth(KEY, ID, "me", A.public, method="publickey"),
        userauth(KEY, ID, "me", A.public, method="hostbased"),
        userauth(KEY, ID, "me", method="hostbased"),
        userauth(KEY, ID, "me", method=HOST_BOUND),
        userauth(KEY, ID, "me", A.public, follows=0),
        userauth(KEY, ID, "me", A.public, follows=2),
        userauth(KEY, ID, "me", A.public, algorithm="rsa-sha2-512"),
        userauth(KEY, ID, "me", A.public, algorithm="ED25519"),
        userauth(KEY, ID, "me", A.public, algorithm=certificate(KEY, AUTHORITY).type),
        userauth(KEY, ID, "me", A.public, blob=A.public.blob),
        userauth(KEY, ID, "me", A.public, blob=certificate(KEY, AUTHORITY).blob),
        userauth(KEY, ID, "me\0", A.public),
        userauth(KEY, ID, "me\0you"),
        userauth(KEY, ID, "me") + b"\0",
        userauth(KEY, ID, "me", A.public) + b"\0",
        userauth(KEY, ID, "me") + bytes(Writer().string(A.public.blob)),
        userauth(KEY, ID, "me", method=HOST_BOUND) + bytes(Writer().string(b"no key")),
        to_be_signed(b"x" * 64, "file"),
        b"",
    ],
)
def test_anything_but_a_login_is_none(data: bytes) -> None:
    assert login(KEY, data) is None


@pytest.mark.parametrize("algorithm", ["ssh-rsa", "rsa-sha2-256", "rsa-sha2-512"])
def test_an_rsa_key_logs_in_with_each_of_its_algorithms(algorithm: str) -> None:
    plain = rsa_key().public
    shown = certificate(plain, AUTHORITY, kind=1)
    for key, suffix, other in ((plain, "", "-cert-v01@openssh.com"), (shown, "-cert-v01@openssh.com", "")):
        assert login(key, userauth(key, ID, "me", algorithm=algorithm + suffix)) == Login("me", ID, None)
        assert login(key, userauth(key, ID, "me", algorithm=algorithm + other)) is None


KEYS = (KEY, rsa_key().public, ecdsa_key(4).public, certificate(KEY, AUTHORITY, kind=1))
LOGINS = st.tuples(
    st.sampled_from(KEYS),
    st.builds(
        Login,
        st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20),
        st.binary(min_size=1, max_size=64),
        st.sampled_from((None, A.public, certificate(B.public, AUTHORITY))),
    ),
)


@given(LOGINS)
def test_what_a_login_asks_for_is_read_again(made: tuple[PublicKey, Login]) -> None:
    key, wanted = made
    assert login(key, userauth(key, wanted.session_id, wanted.user, wanted.host_key)) == wanted


@given(LOGINS, st.data())
def test_what_is_read_as_a_login_is_exactly_one(made: tuple[PublicKey, Login], data: st.DataObject) -> None:
    key, wanted = made
    changed = data.draw(mutated(userauth(key, wanted.session_id, wanted.user, wanted.host_key)))
    found = login(key, changed)
    if found:
        names = {key.type} | ({"rsa-sha2-256", "rsa-sha2-512"} if key.type == "ssh-rsa" else set())
        assert changed in [
            userauth(key, found.session_id, found.user, found.host_key, algorithm=name) for name in names
        ]


@given(st.binary(max_size=300))
def test_any_bytes_are_a_login_or_none(data: bytes) -> None:
    assert login(KEY, data) is None


@given(st.deferred(lambda: mutated(binding(A, ID, True, certificate(A.public, AUTHORITY)))))
def test_any_bytes_are_bound_or_refused(contents: bytes) -> None:
    try:
        path = LOCAL.bind(contents)
    except (WireError, Refused) as refusal:
        said = f"{refusal}{refusal.hint}"
    else:
        assert [bind.session_id for bind in path.binds] == [ID]
        return
    assert said.isprintable()


def mutated(wire: bytes) -> st.SearchStrategy[bytes]:
    """`wire` with a few bytes replaced by others, left out or put in."""
    return st.builds(
        lambda start, size, new: wire[:start] + new + wire[start + size :],
        st.integers(0, len(wire)),
        st.integers(0, 4),
        st.binary(max_size=4),
    )
