"""Consent and passphrases: what a person is asked, who waits for it, and what becomes of the answer."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from pageantry.constraints import Confirm, Lifetime, RestrictDestination
from pageantry.errors import Disconnected, KeyFileError, NobodyToAsk, Refused, WrongPassphrase
from pageantry.extensions import ADD_ENCRYPTED, ADD_PPK, AddEncrypted
from pageantry.keyring import Keyring, deferred, questions
from pageantry.keys import ppk, signatures
from pageantry.keys.public import PublicKey
from pageantry.keys.sshsig import to_be_signed
from pageantry.wire import Writer

from ..exposure.upstream import wait_for
from ..hosts import binding, certificate, ecdsa_key, ed25519_key, hop, userauth
from .conftest import Process, Scripted, held

KEY, HOST, GATE = ed25519_key(1), ed25519_key(2), ed25519_key(3)
PHRASE = "open sesame"


def file_of(seed: int, comment: str = "me@home") -> bytes:
    return ppk.write(ed25519_key(seed), comment, PHRASE.encode(), 2)  # version 2 is quick to open


def test_consent_is_asked_for_with_all_that_is_known_of_the_request(keyring: Keyring, person: Scripted) -> None:
    keyring.add(KEY, "me@home", [Confirm()])
    view = keyring.open(Process(4123, "/usr/bin/ssh"))
    person.answers.append("yes")
    signature = view.sign(KEY.public, userauth(KEY.public, b"session", "bob", HOST.public))
    signatures.verify(KEY.public, signature, userauth(KEY.public, b"session", "bob", HOST.public))
    (question,) = person.questions
    for part in ("ssh (process 4123)", "me@home", KEY.public.fingerprint(), 'as "bob"', HOST.public.fingerprint()):
        assert part in question
    assert "asked for over" not in question


def test_consent_names_the_hosts_that_the_agent_is_forwarded_over(keyring: Keyring, person: Scripted) -> None:
    limits = RestrictDestination(
        ((hop("", user=""), hop("gate", GATE.public)), (hop("gate", GATE.public), hop("inner", HOST.public)))
    )
    keyring.add(KEY, "me@home", [Confirm(), limits])
    view = keyring.open(Process())
    view.extension("session-bind@openssh.com", binding(GATE, b"first", True))
    view.extension("session-bind@openssh.com", binding(HOST, b"second", False))
    person.answers.append("yes")
    assert view.sign(KEY.public, userauth(KEY.public, b"second", "bob", HOST.public))
    (question,) = person.questions
    assert f'as "bob" at inner (ssh-ed25519 {HOST.public.fingerprint()})' in question
    assert f"asked for over: this computer > gate (ssh-ed25519 {GATE.public.fingerprint()})" in question


def test_what_is_refused_for_its_destination_is_not_even_asked(keyring: Keyring, person: Scripted) -> None:
    keyring.add(KEY, constraints=[Confirm(), RestrictDestination(((hop(""), hop("gate", GATE.public)),))])
    view = keyring.open(Process())
    view.extension("session-bind@openssh.com", binding(GATE, b"first", False))
    with pytest.raises(Refused):
        view.sign(KEY.public, userauth(KEY.public, b"another", "bob"))
    assert person.questions == []


def test_refusal_and_nobody_to_ask_mean_no(keyring: Keyring, person: Scripted) -> None:
    keyring.add(KEY, constraints=[Confirm()])
    for answer in ("no", Refused("no"), NobodyToAsk("nobody")):
        person.answers.append(answer)
        with pytest.raises((Refused, NobodyToAsk)):
            keyring.sign(KEY.public, b"data")


def test_a_comment_or_a_user_cannot_write_lines_of_its_own_into_the_question(
    keyring: Keyring, person: Scripted, said: list[str]
) -> None:
    keyring.add(KEY, "harmless\nto log in nowhere?\x1b[2J", [Confirm()])
    person.answers.append("yes")
    keyring.sign(KEY.public, userauth(KEY.public, b"session", "bob\n\u202ereversed", HOST.public))
    (question,) = person.questions
    assert len(question.splitlines()) == 4
    assert len(keyring.held(KEY.public).label.splitlines()) == 1
    assert "\x1b" not in question
    assert "\u202e" not in question


def test_what_is_no_login_is_called_by_what_it_is(keyring: Keyring) -> None:
    keyring.add(KEY)
    entry = keyring.held(KEY.public)
    path = keyring._path
    assert "git" in questions.purpose(entry, to_be_signed(b"message", "git"), path)
    assert questions.purpose(entry, b"something", path) == "for something that is no login"
    assert questions.purpose(entry, b"SSHSIG", path) == "for something that is no login"


def test_hosts_go_by_the_names_that_known_hosts_has_in_clear(tmp_path: Path) -> None:
    known = tmp_path / "known_hosts"
    line = f"{HOST.public.type} {HOST.public.base64}"
    known.write_text(
        f"# comment\n|1|abc=|def= {line}\n@revoked bad.example {line}\n\ngood.example,192.0.2.1 {line} x\n"
    )
    assert questions.known_names(HOST.public, str(known)) == ["good.example", "192.0.2.1"]
    assert questions.known_names(GATE.public, str(known)) == []
    assert questions.known_names(GATE.public, str(tmp_path / "missing")) == []


def test_an_encrypted_file_is_opened_when_its_key_is_first_used_and_stays_open(
    keyring: Keyring, person: Scripted
) -> None:
    keyring.add_encrypted(file_of(1))
    assert [one.comment for one in keyring.identities()] == ["me@home"]
    assert person.questions == []
    person.answers += ["wrong", PHRASE]
    for _ in range(2):
        signatures.verify(KEY.public, keyring.sign(KEY.public, b"data"), b"data")
    assert len(person.questions) == 2
    assert "me@home" in person.questions[0]
    assert person.questions[1].startswith("That passphrase was wrong")


def test_one_that_is_asked_for_in_vain_is_asked_for_again_the_next_time(keyring: Keyring, person: Scripted) -> None:
    keyring.add_encrypted(file_of(1))
    person.answers += ["wrong"] * deferred.ATTEMPTS
    with pytest.raises(WrongPassphrase):
        keyring.sign(KEY.public, b"data")
    with pytest.raises(Refused):
        keyring.sign(KEY.public, b"data")
    person.answers += [PHRASE]
    assert keyring.sign(KEY.public, b"data")


def test_requests_for_one_key_share_its_question_and_others_go_on(keyring: Keyring, person: Scripted) -> None:
    keyring.add_encrypted(file_of(1))
    keyring.add(ed25519_key(5))
    asked, answer = threading.Event(), threading.Event()

    def slow() -> str:
        asked.set()
        assert answer.wait(30)
        return PHRASE

    person.answers.append(slow)
    signed: list[bytes] = []
    threads = [threading.Thread(target=lambda: signed.append(keyring.sign(KEY.public, b"data"))) for _ in range(5)]
    for thread in threads:
        thread.start()
    assert asked.wait(30)
    assert keyring.sign(ed25519_key(5).public, b"data")  # while the person thinks
    assert len(held(keyring)) == 2
    answer.set()
    for thread in threads:
        thread.join(30)
    assert len(signed) == 5
    assert len(person.questions) == 1


def test_requests_for_one_key_share_its_refusal(keyring: Keyring, person: Scripted) -> None:
    keyring.add_encrypted(file_of(1))
    refuse = threading.Event()

    def slow() -> str:
        assert refuse.wait(30)
        raise Refused("not now")

    person.answers.append(slow)
    refused: list[Refused] = []

    def sign() -> None:
        try:
            keyring.sign(KEY.public, b"data")
        except Refused as error:
            refused.append(error)

    private = keyring.held(KEY.public).private
    assert isinstance(private, deferred.Deferred)
    threads = [threading.Thread(target=sign) for _ in range(3)]
    for thread in threads:
        thread.start()
    wait_for(lambda: person.questions, "nobody was asked")
    opening = private._opening
    assert opening is not None
    wait_for(lambda: len(opening.ended._cond._waiters) == 2, "the others do not wait")  # type: ignore[attr-defined]
    refuse.set()
    for thread in threads:
        thread.join(30)
    assert [str(error) for error in refused] == ["not now"] * 3
    assert len(person.questions) == 1


def test_who_leaves_while_asked_for_lets_the_next_one_ask(keyring: Keyring, person: Scripted) -> None:
    keyring.add_encrypted(file_of(1))
    leave = threading.Event()

    def leaving() -> str:
        assert leave.wait(30)
        raise Disconnected("it has left")

    person.answers += [leaving, PHRASE]
    results: list[object] = []

    def sign() -> None:
        try:
            results.append(keyring.sign(KEY.public, b"data"))
        except Disconnected as error:
            results.append(error)

    first = threading.Thread(target=sign)
    first.start()
    wait_for(lambda: person.questions, "nobody was asked")
    second = threading.Thread(target=sign)
    second.start()
    leave.set()
    first.join(30)
    second.join(30)
    assert isinstance(results[0], Disconnected)
    assert isinstance(results[1], bytes)


def test_the_clear_text_goes_on_request_on_lock_and_after_a_time(person: Scripted, said: list[str]) -> None:
    with Keyring(person, clear_after=0.3, say=said.append) as keyring:
        keyring.add_encrypted(file_of(1))
        person.answers += [PHRASE] * 3
        private = keyring.held(KEY.public).private
        assert isinstance(private, deferred.Deferred)
        keyring.sign(KEY.public, b"data")
        keyring.extension("reencrypt-all@putty.projects.tartarus.org")
        assert not private.clear
        keyring.sign(KEY.public, b"data")
        keyring.lock(b"phrase")
        assert not private.clear
        keyring.unlock(b"phrase")
        keyring.sign(KEY.public, b"data")
        wait_for(lambda: not private.clear, "the clear text is still there")
        assert len(person.questions) == 3
        assert any("encrypted again" in line for line in said)


def test_a_certificate_and_its_plain_key_share_one_private_half(keyring: Keyring, person: Scripted) -> None:
    certified = certificate(KEY.public, ed25519_key(9), kind=1)
    keyring.add_encrypted(file_of(1))
    keyring.add_encrypted(file_of(1), certificate=certified)
    assert held(keyring) == [KEY.public, certified]
    person.answers.append(PHRASE)
    for key in held(keyring):
        assert keyring.sign(key, b"data", verify=True)
    assert len(person.questions) == 1


def test_a_file_that_is_not_encrypted_is_added_as_it_is(keyring: Keyring, person: Scripted) -> None:
    keyring.add_encrypted(ppk.write(KEY, "plain", None, 3))
    assert keyring.sign(KEY.public, b"data")
    assert person.questions == []


def test_encrypted_files_come_by_both_extensions_ours_with_limits(keyring: Keyring, person: Scripted) -> None:
    keyring.extension(ADD_PPK, bytes(Writer().string(file_of(1))))
    limits = (Confirm(), Lifetime(1000))
    certified = certificate(ed25519_key(2).public, ed25519_key(9), kind=1)
    keyring.extension(ADD_ENCRYPTED, AddEncrypted(file_of(2), "ignored", certified.blob, limits).encode())
    assert held(keyring) == [KEY.public, certified]
    person.answers += ["yes", PHRASE]
    assert keyring.sign(certified, b"data", verify=True)
    assert keyring.held(certified).confirm


@pytest.mark.parametrize("seed", [2])
def test_a_certificate_for_another_key_than_the_file_is_refused(keyring: Keyring, seed: int) -> None:
    certified = certificate(ed25519_key(seed).public, ed25519_key(9), kind=1)
    with pytest.raises(Refused):
        keyring.add_encrypted(file_of(1), certificate=certified)
    assert held(keyring) == []


def test_a_file_that_lies_about_its_public_half_is_found_out(keyring: Keyring, person: Scripted) -> None:
    own, other = (ppk.write(ecdsa_key(seed), "lie", PHRASE.encode(), 2) for seed in (1, 2))

    def public(text: bytes) -> bytes:
        return text.split(b"Public-Lines")[1].split(b"Private-Lines")[0]

    keyring.add_encrypted(own.replace(public(own), public(other)))
    person.answers += [PHRASE] * deferred.ATTEMPTS
    (shown,) = held(keyring)
    assert shown == ecdsa_key(2).public
    with pytest.raises((KeyFileError, WrongPassphrase)):
        keyring.sign(shown, b"data")


def test_nobody_to_ask_takes_no_encrypted_file() -> None:
    with Keyring() as keyring, pytest.raises(NobodyToAsk):
        keyring.add_encrypted(file_of(1))


def test_no_secret_is_in_what_is_said_or_shown(keyring: Keyring, person: Scripted, said: list[str]) -> None:
    keyring.add_encrypted(file_of(1))
    person.answers += ["a wrong phrase", PHRASE]
    keyring.sign(KEY.public, b"data")
    shown = " ".join([*said, *person.questions, repr(keyring.held(KEY.public).private), repr(AddEncrypted(
        b"SECRET", "comment", b""
    ))])  # fmt: skip
    assert PHRASE not in shown
    assert "a wrong phrase" not in shown
    assert "SECRET" not in shown


def test_a_public_key_in_a_certificates_place_is_no_harm(keyring: Keyring) -> None:
    keyring.add_encrypted(file_of(1), certificate=PublicKey(KEY.public.blob))
    assert held(keyring) == [KEY.public]


def forged(seed: int) -> bytes:
    """A file whose public half is that of a key, and whose private half is another's."""
    own, other = file_of(seed), file_of(99)
    private = other.split(b"Private-Lines")[1]
    return own.split(b"Private-Lines")[0] + b"Private-Lines" + private


def test_a_file_that_proves_nothing_lifts_no_limit_of_a_key_that_is_held(keyring: Keyring, person: Scripted) -> None:
    keyring.add_encrypted(file_of(1), constraints=[Confirm(), Lifetime(1000)])
    for file in (forged(1), file_of(1), file_of(1, "another comment")):
        with pytest.raises(Refused, match="held already"):
            keyring.add_encrypted(file)
    assert keyring.held(KEY.public).confirm
    keyring.add(ed25519_key(5), constraints=[Confirm()])
    with pytest.raises(Refused, match="held already"):
        keyring.add_encrypted(forged(5))
    assert keyring.held(ed25519_key(5).public).confirm


@pytest.mark.parametrize("limits", [(), (Confirm(),)], ids=["unlimited", "limited"])
def test_nor_does_it_borrow_the_private_half_with_a_certificate(
    keyring: Keyring, person: Scripted, limits: tuple[Confirm, ...]
) -> None:
    keyring.add_encrypted(file_of(1), constraints=limits)
    person.answers += ["yes", PHRASE] if limits else [PHRASE]
    keyring.sign(KEY.public, b"data")
    assert keyring.held(KEY.public).clear
    certified = certificate(KEY.public, ed25519_key(66), kind=1)
    keyring.add_encrypted(forged(1), certificate=certified)
    assert not keyring.held(certified).clear
    with pytest.raises((Refused, WrongPassphrase, KeyFileError)):
        keyring.sign(certified, b"data")
    keyring.remove(certified)
    keyring.add_encrypted(file_of(1), certificate=certified)
    assert keyring.held(certified).clear == (not limits)  # the same file, and nothing to be got round


def test_a_file_that_was_there_first_does_not_keep_the_true_one_out_in_silence(
    keyring: Keyring, person: Scripted
) -> None:
    keyring.add_encrypted(forged(1))
    with pytest.raises(Refused, match="held already"):
        keyring.add_encrypted(file_of(1))
    keyring.remove(KEY.public)
    keyring.add_encrypted(file_of(1))
    person.answers.append(PHRASE)
    assert keyring.sign(KEY.public, b"data")


def test_the_same_file_may_come_again(keyring: Keyring) -> None:
    for _ in range(2):
        keyring.add_encrypted(file_of(1))
    assert held(keyring) == [KEY.public]


@pytest.mark.parametrize("what", ["lock", "reencrypt-all"])
def test_what_is_to_be_forgotten_while_it_is_opened_is_not_kept(keyring: Keyring, person: Scripted, what: str) -> None:
    keyring.add_encrypted(file_of(1))

    def meanwhile() -> str:
        if what == "lock":
            keyring.lock(b"phrase")
        else:
            keyring.extension("reencrypt-all@putty.projects.tartarus.org")
        return PHRASE

    person.answers.append(meanwhile)
    with pytest.raises(Refused, match="encrypted again"):
        keyring.sign(KEY.public, b"data")
    if what == "lock":
        keyring.unlock(b"phrase")
    assert not keyring.held(KEY.public).clear


def test_a_known_hosts_file_that_never_ends_or_changes_is_no_obstacle(tmp_path: Path) -> None:
    import os

    known = tmp_path / "known_hosts"
    line = f"{HOST.public.type} {HOST.public.base64}"
    known.write_text(f"one.example {line}\n")
    assert questions.known_names(HOST.public, str(known)) == ["one.example"]
    known.write_text(f"another.example {line}\n")
    assert questions.known_names(HOST.public, str(known)) == ["another.example"]
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "fifo")
        assert questions.known_names(HOST.public, str(tmp_path / "fifo")) == []


def test_the_question_shows_where_a_user_s_name_ends_and_begins_with_our_own_words(
    keyring: Keyring, person: Scripted
) -> None:
    keyring.add_encrypted(file_of(1))
    view = keyring.open(Process(1, "/tmp/--option=evil"))
    person.answers.append(PHRASE)
    view.sign(KEY.public, userauth(KEY.public, b"id", 'bob" at good.example' + " " * 200, HOST.public))
    (question,) = person.questions
    assert question.startswith("Passphrase for the key\n")
    assert '"bob\\" at good.example' in question
    assert max(map(len, question.splitlines())) < 250
