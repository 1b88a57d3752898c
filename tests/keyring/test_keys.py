"""Keys in memory: added, listed, signed with, replaced, removed; and the limits that end them."""

from __future__ import annotations

import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pageantry import PrivateKey, SignFlags
from pageantry.constraints import (
    AssociatedCertificates,
    Confirm,
    Constraint,
    Hop,
    HostKey,
    Lifetime,
    MaxSign,
    OtherConstraint,
    RestrictDestination,
    SecurityKeyProvider,
)
from pageantry.errors import Error, NobodyToAsk, NoSuchKey, Refused, UnsupportedKey, WireError
from pageantry.keyring import Keyring, holding
from pageantry.keys import signatures
from pageantry.messages import MAX_MESSAGE, IdentitiesAnswer, decode

from ..exposure.upstream import wait_for
from ..hosts import certificate, ecdsa_key, ed25519_key, rsa_key
from .conftest import Process, Scripted, held
from .keys import TYPES, made

#: An RSA key of 512 bits: n, e, d, iqmp, p, q
SHORT = (
    0xCD764394CC0B68BCE12A2E9DEC961135301C57DBA6C6525B4C2E4C29F9BD45B894F949E6890A2245E5D1B7DC521EB9A4F4F98D8C7F604136E7A55D9386A4C061,
    65537,
    0x9AEF2F8F293F01404D5B0DC431000901DEC1C0CEF6385F2A518C280B0F345739BBC25A8B4A12F673119C029B48FBFAD86B12E0D408E26FAB0AB3ABF198BA5241,
    0x21E1C6C787D3566BBFE4D9F8EF83A46C8B758513186CC80DD3E63FCDAC67910A,
    0xE02FDAA1AD864C44E049548E8A0A8C9632EA6928F6236BF2504B74BA4A0FE75D,
    0xEA9E2DE890D90E5A53777FEC1BA0895D61C12C05003E181AA962740FE4BA40D5,
)


@pytest.mark.parametrize("kind", TYPES)
def test_keys_of_every_type_are_held_and_sign_and_so_do_their_certificates(keyring: Keyring, kind: str) -> None:
    key = made(kind)
    keyring.add(key, "me")
    signatures.verify(key.public, keyring.sign(key.public, b"data"), b"data")
    if kind != "ssh-ed448":
        certified = key.certified(certificate(key.public, ed25519_key(9), kind=1))
        keyring.add(certified, "me, certified")
        signatures.verify(certified.public, keyring.sign(certified.public, b"data", verify=True), b"data")
        assert held(keyring) == [key.public, certified.public]


@pytest.mark.parametrize("kind", TYPES)
def test_the_same_data_has_the_same_signature_so_that_the_vault_can_use_it(keyring: Keyring, kind: str) -> None:
    key = made(kind)
    keyring.add(key)
    assert keyring.sign(key.public, b"data") == keyring.sign(key.public, b"data")


@pytest.mark.parametrize(
    ("flags", "algorithm"),
    [(0, b"ssh-rsa"), (2, b"rsa-sha2-256"), (4, b"rsa-sha2-512"), (6, b"rsa-sha2-256")],
)
def test_an_rsa_key_signs_as_the_flags_say(keyring: Keyring, flags: int, algorithm: bytes) -> None:
    keyring.add(rsa_key())
    signature = keyring.sign(rsa_key().public, b"data", SignFlags(flags))
    assert signature[4:].startswith(algorithm)
    signatures.verify(rsa_key().public, signature, b"data")


def test_a_key_whose_halves_do_not_belong_together_is_refused(keyring: Keyring) -> None:
    point, secret = ed25519_key(1).fields
    assert isinstance(point, bytes)
    stranger = ed25519_key(2).fields[0]
    assert isinstance(stranger, bytes)
    assert isinstance(secret, bytes)
    lies = [
        ("ssh-ed25519", (stranger, secret[:32] + stranger)),
        ("ecdsa-sha2-nistp256", (*ecdsa_key(1).fields[:2], ecdsa_key(2).fields[2])),
        ("ssh-rsa", (*rsa_key().fields[:2], 12345, *rsa_key().fields[3:])),
    ]
    for kind, fields in lies:
        with pytest.raises(WireError):
            keyring.add(PrivateKey(kind, fields))
    assert held(keyring) == []


def test_limits_that_take_too_much_are_refused_and_the_others_stay(keyring: Keyring) -> None:
    host = HostKey(rsa_key().public.blob, False)
    long = RestrictDestination(tuple((Hop(), Hop("", f"host {number}", (host,) * 300)) for number in range(2)))
    size = len(long.encode())
    for seed in range(1, holding.MAX_BURDEN // size + 1):
        keyring.add(ed25519_key(seed), constraints=[long])
    with pytest.raises(Refused, match="too much"):
        keyring.add(ed25519_key(9999), constraints=[long])
    keyring.add(ed25519_key(9999))
    keyring.remove(ed25519_key(1).public)  # which makes room
    keyring.add(ed25519_key(9999), constraints=[long])


def test_an_rsa_key_too_short_for_openssh_is_too_short_for_us(keyring: Keyring) -> None:
    with pytest.raises(UnsupportedKey, match="512 bits"):
        keyring.add(PrivateKey("ssh-rsa", SHORT))
    assert held(keyring) == []


def test_keys_are_listed_in_the_order_in_which_they_came_and_replaced_in_their_places(keyring: Keyring) -> None:
    for seed in (1, 2, 3):
        keyring.add(ed25519_key(seed), f"key {seed}")
    keyring.add(ed25519_key(2), "another comment \udcff")
    assert [one.comment for one in keyring.identities()] == ["key 1", "another comment \udcff", "key 3"]
    listed = decode((keyring.listing_at_once() or b"")[4:])
    assert isinstance(listed, IdentitiesAnswer)
    assert listed.identities[1] == (ed25519_key(2).public.blob, b"another comment \xff")


def test_keys_are_removed_one_by_one_and_all_at_once(keyring: Keyring) -> None:
    for seed in (1, 2, 3):
        keyring.add(ed25519_key(seed))
    keyring.remove(ed25519_key(2).public)
    assert held(keyring) == [ed25519_key(1).public, ed25519_key(3).public]
    with pytest.raises(NoSuchKey):
        keyring.remove(ed25519_key(2).public)
    keyring.remove_all()
    assert held(keyring) == []
    with pytest.raises(NoSuchKey):
        keyring.sign(ed25519_key(1).public, b"data")


def test_a_key_that_is_added_anew_has_the_limits_that_it_comes_with_and_no_others(
    keyring: Keyring, person: Scripted
) -> None:
    key = ed25519_key(1)
    keyring.add(key, constraints=[Confirm(), MaxSign(1)])
    keyring.add(key)
    keyring.sign(key.public, b"data")
    keyring.sign(key.public, b"data")
    assert person.questions == []
    keyring.add(key, constraints=[Confirm()])
    with pytest.raises(Refused):
        keyring.sign(key.public, b"data")


@pytest.mark.parametrize(
    "constraints",
    [
        [Lifetime(5), Lifetime(5)],
        [Confirm(), Confirm()],
        [RestrictDestination(()), RestrictDestination(())],
        [Lifetime(0)],
        [MaxSign(0)],
        [AssociatedCertificates(True, ())],
        [OtherConstraint("unknown@example.org", b"")],
        [SecurityKeyProvider("internal")],
        [RestrictDestination(((Hop(), Hop("", "host", (HostKey(b"nonsense", False),))),))],
        [RestrictDestination(((Hop(), Hop("", "host", (HostKey(b"\0\0\0\3new", False),))),))],
    ],
    ids=repr,
)
def test_limits_that_are_given_twice_or_cannot_be_kept_fail_the_whole_request(
    keyring: Keyring, constraints: list[Constraint]
) -> None:
    with pytest.raises(Error):
        keyring.add(ed25519_key(1), constraints=constraints)
    assert held(keyring) == []


def test_a_key_goes_when_its_time_is_over_even_if_nobody_asks(keyring: Keyring, said: list[str]) -> None:
    keyring.add(ed25519_key(1), "short", [Lifetime(1)])
    keyring.add(ed25519_key(2), "long", [Lifetime(3600)])
    assert len(held(keyring)) == 2
    holding_ = keyring._common.holding
    wait_for(lambda: len(holding_._keys) == 1, "the key is still in memory")
    assert any("the time of short" in line for line in said)
    assert held(keyring) == [ed25519_key(2).public]


def test_the_time_of_a_key_is_over_to_the_second(monkeypatch: pytest.MonkeyPatch, keyring: Keyring) -> None:
    moment = [1000.0]
    monkeypatch.setattr(holding, "now", lambda: moment[0])
    keyring.add(ed25519_key(1), constraints=[Lifetime(100)])
    moment[0] += 99.9
    assert keyring.sign(ed25519_key(1).public, b"data")
    moment[0] += 0.2
    with pytest.raises(NoSuchKey):
        keyring.sign(ed25519_key(1).public, b"data")
    assert held(keyring) == []


def test_keys_have_the_lifetime_of_the_agent_unless_they_bring_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    moment = [1000.0]
    monkeypatch.setattr(holding, "now", lambda: moment[0])
    with Keyring(lifetime=50) as keyring:
        keyring.add(ed25519_key(1))
        keyring.add(ed25519_key(2), constraints=[Lifetime(100)])
        moment[0] += 60
        assert held(keyring) == [ed25519_key(2).public]


def test_a_key_signs_as_often_as_it_may_and_is_gone_then(keyring: Keyring) -> None:
    keyring.add(ed25519_key(1), constraints=[MaxSign(2)])
    for _ in range(2):
        assert keyring.sign(ed25519_key(1).public, b"data")
    assert held(keyring) == []


def test_threads_cannot_sign_more_often_than_a_key_may(keyring: Keyring) -> None:
    keyring.add(ed25519_key(1), constraints=[MaxSign(50)])
    signed: list[bytes] = []

    def sign() -> None:
        for _ in range(20):
            try:
                signed.append(keyring.sign(ed25519_key(1).public, b"data"))
            except NoSuchKey:
                return
            except Refused:
                return

    threads = [threading.Thread(target=sign) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(signed) == 50


def test_a_key_for_which_a_list_has_no_room_is_refused_with_a_word_and_the_others_stay(
    keyring: Keyring, said: list[str]
) -> None:
    keyring.add(ed25519_key(1), "x" * 100_000)
    keyring.add(ed25519_key(2), "y" * 100_000)
    with pytest.raises(Refused, match="no room"):
        keyring.add(ed25519_key(3), "z" * 100_000)
    assert any("no room" in line for line in said)
    assert len(keyring.listing_at_once() or b"") in range(200_000, 4 + MAX_MESSAGE + 1)
    keyring.add(ed25519_key(2), "short")  # which makes room
    keyring.add(ed25519_key(3), "z" * 100_000)
    assert len(held(keyring)) == 3


def test_as_many_keys_are_held_as_openssh_lists_and_no_more(keyring: Keyring, said: list[str]) -> None:
    for seed in range(1, holding.MAX_KEYS + 1):
        keyring.add(ed25519_key(seed), f"{seed}")
    with pytest.raises(Refused, match="2048 keys"):
        keyring.add(ed25519_key(holding.MAX_KEYS + 1))
    assert keyring.sign(ed25519_key(holding.MAX_KEYS).public, b"data")
    assert len(held(keyring)) == holding.MAX_KEYS
    keyring.add(ed25519_key(1), "again")  # takes no more room


def test_the_log_has_the_fingerprints_that_are_wanted(said: list[str]) -> None:
    with Keyring(digest="md5", say=said.append) as keyring:
        keyring.add(ed25519_key(1), "me")
    assert ed25519_key(1).public.fingerprint("md5") in said[0]


def test_the_owner_forgets_all_keys_be_it_locked_or_not(keyring: Keyring) -> None:
    keyring.add(ed25519_key(1))
    keyring.lock(b"phrase")
    keyring.forget()
    keyring.unlock(b"phrase")
    assert held(keyring) == []


def test_without_a_person_what_must_be_asked_is_refused() -> None:
    with Keyring() as keyring:
        keyring.add(ed25519_key(1), constraints=[Confirm()])
        with pytest.raises(NobodyToAsk):
            keyring.sign(ed25519_key(1).public, b"data")


def test_a_key_that_is_removed_or_replaced_while_a_person_thinks_does_not_sign(
    keyring: Keyring, person: Scripted
) -> None:
    key = ed25519_key(1)

    def remove() -> str:
        keyring.remove(key.public)
        return "yes"

    def replace() -> str:
        keyring.add(key, "another")
        return "yes"

    for change in (remove, replace):
        keyring.add(key, constraints=[Confirm()])
        person.answers.append(change)
        with pytest.raises(Refused, match="meanwhile"):
            keyring.sign(key.public, b"data")


def test_closing_forgets_everything_and_ends_all_questions(person: Scripted) -> None:
    keyring = Keyring(person)
    keyring.add(ed25519_key(1), constraints=[Lifetime(1000)])
    view = keyring.open(Process())
    view.close()
    assert not person.closed
    assert held(keyring)
    keyring.close()
    assert person.closed
    assert held(keyring) == []


def test_nothing_of_a_private_key_is_in_a_repr_or_in_the_log(keyring: Keyring, said: list[str]) -> None:
    key = ed25519_key(12345)
    keyring.add(key, "me")
    keyring.sign(key.public, b"data")
    secret = key.fields[1]
    assert isinstance(secret, bytes)
    shown = " ".join([*said, repr(keyring), repr(keyring._common.holding.all()), repr(signatures.Signer(key))])
    assert secret[:32].hex() not in shown
    assert repr(secret[:8])[2:-1] not in shown


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["add", "remove", "sign", "remove all"]), st.integers(1, 4), st.sampled_from([0, 1, 3])
        ),
        max_size=40,
    )
)
def test_it_holds_what_a_dictionary_would_hold(steps: list[tuple[str, int, int]]) -> None:
    model: dict[int, int] = {}  # the key, and how many signatures it has left; 0 is any number
    with Keyring() as keyring:
        for step, seed, limit in steps:
            key = ed25519_key(seed)
            if step == "add":
                keyring.add(key, constraints=[MaxSign(limit)] if limit else [])
                model[seed] = limit
            elif step == "remove all":
                keyring.remove_all()
                model.clear()
            elif seed not in model:
                with pytest.raises(NoSuchKey):
                    keyring.remove(key.public) if step == "remove" else keyring.sign(key.public, b"data")
            elif step == "remove":
                keyring.remove(key.public)
                del model[seed]
            else:
                signatures.verify(key.public, keyring.sign(key.public, b"data"), b"data")
                if model[seed] == 1:
                    del model[seed]
                elif model[seed]:
                    model[seed] -= 1
            assert held(keyring) == [ed25519_key(one).public for one in model]


def test_a_security_key_needs_a_provider_that_is_there(keyring: Keyring) -> None:
    key = made("sk-ssh-ed25519@openssh.com")
    with pytest.raises((Refused, UnsupportedKey)):
        keyring.add(key, constraints=[SecurityKeyProvider("/nowhere/at/all.so")])
    assert held(keyring) == []
