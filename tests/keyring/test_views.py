"""What a connection sees of a keyring: its hops, the lock, and what the extensions tell."""

from __future__ import annotations

import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pageantry.constraints import Confirm, Lifetime, MaxSign, RestrictDestination, SecurityKeyProvider
from pageantry.errors import NoSuchKey, Refused, Unsupported, UnsupportedKey, WireError
from pageantry.extensions import (
    ADD_ENCRYPTED,
    ADD_PPK,
    HAS_FILE,
    LIST_EXTENDED,
    NOT_CLEAR,
    QUERY,
    REENCRYPT,
    REENCRYPT_ALL,
    REPORT,
    ConnectionState,
    ExtendedKey,
    ExtendedList,
    HopState,
    KeyState,
    Report,
)
from pageantry.keyring import Keyring, locking
from pageantry.keys import ppk
from pageantry.messages import Query, SessionBind
from pageantry.wire import Writer

from ..exposure.upstream import wait_for
from ..hosts import binding, ed25519_key, hop, userauth
from .conftest import Process, Scripted, held

KEY, GATE, INNER = ed25519_key(1), ed25519_key(2), ed25519_key(3)
TO_GATE = RestrictDestination(((hop(""), hop("gate", GATE.public)),))
BIND = SessionBind.name


def encrypted(seed: int) -> bytes:
    return ppk.write(ed25519_key(seed), "encrypted", b"phrase", 2)


def test_a_connection_that_is_forwarded_elsewhere_sees_no_key_that_may_not_go_there(keyring: Keyring) -> None:
    keyring.add(KEY, constraints=[TO_GATE])
    keyring.add(ed25519_key(5))
    local, forwarded = keyring.open(Process()), keyring.open(Process())
    forwarded.extension(BIND, binding(INNER, b"id", True))
    assert held(local) == [KEY.public, ed25519_key(5).public]
    assert held(forwarded) == [ed25519_key(5).public]
    for refused in (
        lambda: forwarded.sign(KEY.public, b"data"),
        lambda: forwarded.remove(KEY.public),
    ):
        with pytest.raises(NoSuchKey):
            refused()
    with pytest.raises(Refused):
        forwarded.add(KEY)  # it would replace it, without its limits
    assert held(local) == [KEY.public, ed25519_key(5).public]


def test_a_limited_key_signs_the_login_that_it_is_for_and_no_other(keyring: Keyring) -> None:
    keyring.add(KEY, constraints=[TO_GATE])
    view = keyring.open(Process())
    login = userauth(KEY.public, b"id", "bob", GATE.public)
    with pytest.raises(Refused):
        view.sign(KEY.public, login)  # nothing is bound
    view.extension(BIND, binding(GATE, b"id", False))
    assert view.sign(KEY.public, login, verify=True)
    for other in (b"data", userauth(KEY.public, b"other", "bob"), userauth(KEY.public, b"id", "bob", INNER.public)):
        with pytest.raises(Refused):
            view.sign(KEY.public, other)


def test_a_connection_that_could_not_be_bound_is_no_local_one_any_more(keyring: Keyring) -> None:
    keyring.add(KEY, constraints=[TO_GATE])
    view = keyring.open(Process())
    for nonsense in (b"", b"nonsense", SessionBind(GATE.public.blob, b"id", b"no signature", True).encode()):
        with pytest.raises((WireError, Refused)):
            view.extension(BIND, nonsense)
        assert held(view) == []


def test_nor_is_one_that_was_to_be_bound_while_the_agent_was_locked(keyring: Keyring) -> None:
    keyring.add(KEY, constraints=[TO_GATE])
    view = keyring.open(Process())
    keyring.lock(b"phrase")
    with pytest.raises(Unsupported):
        view.extension(BIND, binding(INNER, b"id", True))
    keyring.unlock(b"phrase")
    assert held(view) == []
    assert held(keyring) == [KEY.public]


def test_a_library_for_security_keys_cannot_be_named_from_another_computer(keyring: Keyring) -> None:
    from .keys import made

    view = keyring.open(Process())
    view.extension(BIND, binding(GATE, b"id", True))
    with pytest.raises((Refused, UnsupportedKey), match=r"this computer|cannot be used here"):
        view.add(made("sk-ssh-ed25519@openssh.com"), constraints=[SecurityKeyProvider("/usr/lib/any.so")])


def test_locked_it_shows_nothing_does_nothing_and_goes_on_afterwards(keyring: Keyring) -> None:
    keyring.add(KEY)
    keyring.lock(b"phrase")
    assert held(keyring) == []
    for refused in (
        lambda: keyring.sign(KEY.public, b"data"),
        lambda: keyring.add(ed25519_key(2)),
        lambda: keyring.remove(KEY.public),
        keyring.remove_all,
        lambda: keyring.extension(QUERY),
        lambda: keyring.lock(b"phrase"),
    ):
        with pytest.raises((Refused, Unsupported)):
            refused()
    keyring.unlock(b"phrase")
    assert held(keyring) == [KEY.public]
    with pytest.raises(Refused):
        keyring.unlock(b"phrase")


def test_an_empty_passphrase_locks_nothing(keyring: Keyring) -> None:
    with pytest.raises(Refused):
        keyring.lock(b"")
    assert not keyring._common.locking.locked


def test_a_wrong_passphrase_delays_only_who_gave_it(keyring: Keyring, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locking, "PENALTY", 60.0)
    monkeypatch.setattr(locking, "MAX_PENALTY", 60.0)
    keyring.lock(b"phrase")
    bad, good = keyring.open(Process(1)), keyring.open(Process(2))
    with pytest.raises(Refused, match="wrong"):
        bad.unlock(b"guess")

    def guess() -> None:
        with pytest.raises(Refused):
            bad.unlock(b"another")

    guesser = threading.Thread(target=guess)
    guesser.start()
    wait_for(lambda: 1 in keyring._common.locking._trying, "nobody has guessed")
    with pytest.raises(Refused, match="another passphrase"):
        keyring.open(Process(1)).unlock(b"phrase")  # one at a time
    good.unlock(b"phrase")
    good.add(KEY)
    assert held(keyring) == [KEY.public]
    assert guesser.is_alive()
    keyring.close()  # lets it go
    guesser.join(30)
    assert not guesser.is_alive()


def test_each_wrong_passphrase_costs_more_than_the_last_up_to_a_bound(
    keyring: Keyring, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited: list[float] = []
    monkeypatch.setattr(keyring._common.locking, "_closed", type("Never", (), {"wait": staticmethod(waited.append)}))
    monkeypatch.setattr(locking, "_SCRYPT", {"n": 2, "r": 8, "p": 1, "dklen": 32})
    keyring.lock(b"phrase")
    for _ in range(150):
        with pytest.raises(Refused):
            keyring.unlock(b"guess")
    assert waited[:3] == pytest.approx([0, 0.1, 0.2])
    assert max(waited) == waited[-1] == locking.MAX_PENALTY


def test_it_is_not_known_for_ever_who_gave_wrong_passphrases(keyring: Keyring, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locking, "_SCRYPT", {"n": 2, "r": 8, "p": 1, "dklen": 32})
    keyring.lock(b"phrase")
    for pid in range(2 * locking._REMEMBERED):
        with pytest.raises(Refused):
            keyring._common.locking.unlock(b"guess", pid)
    assert len(keyring._common.locking._wrong) == locking._REMEMBERED


def test_what_waits_for_a_person_does_not_sign_once_it_is_locked(keyring: Keyring, person: Scripted) -> None:
    keyring.add(KEY, constraints=[Confirm()])

    def lock() -> str:
        keyring.lock(b"phrase")
        return "yes"

    person.answers.append(lock)
    with pytest.raises(Unsupported):
        keyring.sign(KEY.public, b"data")


def test_the_extensions_are_named_query_first(keyring: Keyring) -> None:
    names = Query.decode(keyring.extension(QUERY)).names
    assert list(names) == keyring.query()
    assert names[0] == "query"
    assert {BIND, LIST_EXTENDED, REENCRYPT, REENCRYPT_ALL} < set(names)
    for name in names[1:]:
        try:
            keyring.extension(name, b"\xff")
        except (Refused, WireError):
            pass  # known, that is


@pytest.mark.parametrize("name", [QUERY, REENCRYPT, REENCRYPT_ALL, LIST_EXTENDED, REPORT, ADD_PPK, ADD_ENCRYPTED])
def test_extensions_with_nonsense_for_contents_fail(keyring: Keyring, name: str) -> None:
    for nonsense in (b"\0", b"\0\0\0\5abc", bytes(4) + b"x"):
        with pytest.raises((WireError, Refused, NoSuchKey)):
            keyring.extension(name, nonsense)


def test_keys_are_listed_with_whether_they_are_encrypted(keyring: Keyring, person: Scripted) -> None:
    keyring.add(KEY, "clear")
    keyring.add_encrypted(encrypted(2))
    keyring.add_encrypted(encrypted(3))
    person.answers.append("phrase")
    keyring.sign(ed25519_key(3).public, b"data")
    assert ExtendedList.decode(keyring.extension(LIST_EXTENDED)).keys == (
        ExtendedKey(KEY.public.blob, b"clear", 0),
        ExtendedKey(ed25519_key(2).public.blob, b"encrypted", HAS_FILE | NOT_CLEAR),
        ExtendedKey(ed25519_key(3).public.blob, b"encrypted", HAS_FILE),
    )


def test_keys_are_encrypted_again_one_by_one_or_all(keyring: Keyring, person: Scripted) -> None:
    keyring.add_encrypted(encrypted(2))
    keyring.add(KEY)
    person.answers += ["phrase"] * 2
    for name, contents, reply in (
        (REENCRYPT, bytes(Writer().string(ed25519_key(2).public.blob)), b""),
        (REENCRYPT_ALL, b"", b"\0\0\0\1"),
    ):
        keyring.sign(ed25519_key(2).public, b"data")
        assert keyring.held(ed25519_key(2).public).clear
        assert keyring.extension(name, contents) == reply
        assert keyring.extension(name, contents) == reply  # no harm in asking again
        assert not keyring.held(ed25519_key(2).public).clear
    with pytest.raises(Refused):
        keyring.extension(REENCRYPT, bytes(Writer().string(KEY.public.blob)))
    keyring.remove(ed25519_key(2).public)
    with pytest.raises(Refused):
        keyring.extension(REENCRYPT_ALL)
    keyring.remove_all()
    assert keyring.extension(REENCRYPT_ALL) == bytes(4)


def test_the_report_tells_limits_and_connections(keyring: Keyring) -> None:
    keyring.add(KEY, constraints=[Lifetime(1000), Confirm(), MaxSign(3), TO_GATE])
    keyring.add_encrypted(encrypted(2))
    local, forwarded = keyring.open(Process(1, "/usr/bin/ssh-add")), keyring.open(Process(2, "/usr/bin/ssh"))
    forwarded.extension(BIND, binding(GATE, b"id", True))
    report = Report.decode(local.extension(REPORT))
    first, second = report.keys
    assert 990 <= first.seconds_left <= 1000
    assert first == KeyState(KEY.public.blob, first.seconds_left, 3, True, False, True, TO_GATE.encode())
    assert second == KeyState(ed25519_key(2).public.blob, 0, 0, False, True, False, b"")
    assert report.connections == (
        ConnectionState(1, "/usr/bin/ssh-add", False, ()),
        ConnectionState(2, "/usr/bin/ssh", True, (HopState(GATE.public.blob, True),)),
    )
    local.close()
    told = Report.decode(forwarded.extension(REPORT))
    assert [one.pid for one in told.connections] == [2]


structs = st.one_of(
    st.builds(ExtendedKey, st.binary(max_size=9), st.binary(max_size=9), st.integers(0, 2**32 - 1)),
    st.builds(
        KeyState,
        st.binary(max_size=9),
        st.integers(0, 2**32 - 1),
        st.integers(0, 2**32 - 1),
        st.booleans(),
        st.booleans(),
        st.booleans(),
        st.binary(max_size=9),
    ),
    st.builds(
        ConnectionState,
        st.integers(0, 2**32 - 1),
        st.text(max_size=9),
        st.booleans(),
        st.lists(st.builds(HopState, st.binary(max_size=9), st.booleans()), max_size=3).map(tuple),
    ),
)


@given(structs)
def test_what_the_extensions_carry_survives_encoding(value: ExtendedKey | KeyState | ConnectionState) -> None:
    assert type(value).decode(value.encode()) == value


@given(st.binary(max_size=60))
def test_broken_answers_are_errors_of_the_wire_and_nothing_else(data: bytes) -> None:
    for kind in (Report, ExtendedList):
        began = time.monotonic()
        try:
            kind.decode(data)
        except WireError:
            pass
        assert time.monotonic() - began < 10
