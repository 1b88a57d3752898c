"""What a keyring remembers, and what of that the next one has."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, PrivateFormat

from pageantry import remembered
from pageantry.constraints import Confirm, Constraint, Lifetime, MaxSign, RestrictDestination, SecurityKeyProvider
from pageantry.errors import Error, Refused, Unsupported, WireError
from pageantry.keyring import Keyring, hardware
from pageantry.keyring.deferred import Deferred
from pageantry.keys import ppk, signatures
from pageantry.messages import AddIdentityConstrained, SessionBind

from ..hosts import binding, certificate, ed25519_key, hop
from ..sealing import SYSTEM, Sealer
from .conftest import Scripted
from .keys import TYPES, made

Next = Callable[..., Keyring]

PHRASE = "open sesame"
TO_GATE = RestrictDestination(((hop(""), hop("gate", ed25519_key(3).public)),))


def file_of(seed: int, comment: str = "me@home", version: int = 2) -> bytes:
    return ppk.write(ed25519_key(seed), comment, PHRASE.encode(), version)  # version 2 is quick to open


def comments(keyring: Keyring) -> list[str]:
    return [identity.comment for identity in keyring.identities()]


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "remembered")


@pytest.fixture
def following(path: str, person: Scripted, said: list[str]) -> Iterator[Next]:
    """Ends the agent that is there, and gives the next; `asks` has a person to ask, `begin` is done before it loads."""
    agents: list[Keyring] = []

    def start(*, asks: bool = True, begin: Callable[[Keyring], object] = id) -> Keyring:
        if agents:
            agents.pop().close()
        memory = remembered.open(path, protector=SYSTEM, say=said.append)
        agents.append(Keyring(person if asks else None, say=said.append, remember=memory))
        begin(agents[0])
        memory.load(agents[0])
        return agents[0]

    yield start
    agents.pop().close()


@pytest.mark.parametrize("constraints", [(), (Confirm(),), (TO_GATE,), (TO_GATE, Confirm())])
@pytest.mark.parametrize("kind", TYPES)
def test_keys_of_every_type_come_back_with_their_certificates_and_limits(
    following: Next, person: Scripted, kind: str, constraints: tuple[Constraint, ...]
) -> None:
    keys = [made(kind)]
    if kind != "ssh-ed448":
        keys.append(keys[0].certified(certificate(keys[0].public, ed25519_key(9), kind=1)))
    keyring = following()
    for number, key in enumerate(keys):
        keyring.add(key, f"me {number}", iter(constraints))
    for _ in range(2):
        keyring = following()
        assert comments(keyring) == [f"me {number}" for number in range(len(keys))]
        for key, held in zip(keys, keyring.visible(), strict=True):
            assert held.public == key.public
            assert held.confirm == (Confirm() in constraints)
            assert held.destinations == (TO_GATE if TO_GATE in constraints else None)
            if not held.destinations:
                person.answers = ["yes"]
                signatures.verify(key.public, keyring.sign(key.public, b"data"), b"data")


def test_a_security_keys_handle_and_library_come_back(following: Next, monkeypatch: pytest.MonkeyPatch) -> None:
    key, provider = made("sk-ssh-ed25519@openssh.com"), SecurityKeyProvider("/usr/lib/libfido.so")
    reached: list[object] = []
    monkeypatch.setattr(hardware, "reached", lambda key, provider, *_: reached.append((key, provider)))
    following().add(key, "touch me", [provider])
    assert comments(following()) == ["touch me"]
    assert reached == 2 * [(key, provider)]


def test_encrypted_files_come_back_encrypted(following: Next, person: Scripted) -> None:
    certified = certificate(ed25519_key(1).public, ed25519_key(9), kind=1)
    keyring = following()
    keyring.add_encrypted(file_of(1))
    keyring.add_encrypted(file_of(1), certificate=certified)
    keyring.add_encrypted(file_of(2, "two"), constraints=[Confirm()])
    person.answers = [PHRASE]
    keyring.sign(ed25519_key(1).public, b"data")  # open in this agent, and so not in the next
    keyring = following()
    assert [held.public for held in keyring.visible()] == [ed25519_key(1).public, certified, ed25519_key(2).public]
    assert comments(keyring) == ["me@home", "me@home", "two"]
    assert [(type(held.private), held.clear, held.confirm) for held in keyring.visible()] == [
        (Deferred, False, False),
        (Deferred, False, False),
        (Deferred, False, True),
    ]
    person.questions, person.answers = [], [PHRASE]
    keyring.sign(ed25519_key(1).public, b"data")
    keyring.sign(certified, b"data", verify=True)  # the same passphrase
    assert len(person.questions) == 1


def test_an_encrypted_file_of_openssh_comes_back_as_it_was(following: Next) -> None:
    encryption = BestAvailableEncryption(PHRASE.encode())
    file = Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, encryption)
    following().add_encrypted(file, "openssh")
    (held,) = following().visible()
    assert isinstance(held.private, Deferred)
    assert held.private.data == file
    assert held.comment == "openssh"


def test_of_an_encrypted_key_nothing_in_clear_is_sealed(path: str, person: Scripted) -> None:
    secret = ed25519_key(1).fields[1]
    assert isinstance(secret, bytes)
    clear: list[bytes] = []

    class Watching(Sealer):
        def protect(self, data: bytes, /) -> bytes:
            clear.append(data)
            return super().protect(data)

    memory = remembered.open(path, protector=Watching())
    with Keyring(person, remember=memory) as keyring:
        memory.load(keyring)
        keyring.add_encrypted(file_of(1))
        person.answers = [PHRASE]
        keyring.sign(ed25519_key(1).public, b"data")
    assert len(clear) == 2
    assert file_of(1)[:25] in clear[0]
    assert not any(secret[:32] in data for data in clear)


@pytest.mark.parametrize("limit", [Lifetime(3600), MaxSign(3)])
def test_keys_that_end_by_themselves_are_not_remembered_even_in_place_of_others(
    following: Next, limit: Constraint
) -> None:
    keyring = following()
    keyring.add(ed25519_key(1), "for ever")
    keyring.add(ed25519_key(2), "replaced")
    keyring.add(ed25519_key(3), "for a while", [limit])
    keyring.add(ed25519_key(2), "replacement", [limit])
    assert comments(keyring) == ["for ever", "replacement", "for a while"]
    assert comments(following()) == ["for ever"]


def test_a_key_that_was_used_up_changes_nothing(following: Next) -> None:
    keyring = following()
    keyring.add(ed25519_key(1), "for ever")
    keyring.add(ed25519_key(2), "once", [MaxSign(1)])
    keyring.sign(ed25519_key(2).public, b"data")
    assert comments(keyring) == ["for ever"]
    assert comments(following()) == ["for ever"]


def test_what_was_added_anew_comes_back_as_it_was_added_last(following: Next) -> None:
    keyring = following()
    keyring.add(ed25519_key(1), "one")
    keyring.add(ed25519_key(2), "two")
    keyring.add(ed25519_key(1), "one anew", [Confirm()])
    keyring = following()
    assert comments(keyring) == ["one anew", "two"]
    assert [held.confirm for held in keyring.visible()] == [True, False]


def test_what_was_removed_does_not_come_back(following: Next) -> None:
    keyring = following()
    for seed in (1, 2, 3):
        keyring.add(ed25519_key(seed), str(seed))
    keyring.remove(ed25519_key(2).public)
    keyring = following()
    assert comments(keyring) == ["1", "3"]
    keyring.remove(ed25519_key(1).public)
    keyring.remove(ed25519_key(3).public)
    assert comments(following()) == []


@pytest.mark.parametrize("forget", [Keyring.remove_all, Keyring.forget])
def test_after_all_were_removed_or_forgotten_none_comes_back(
    following: Next, forget: Callable[[Keyring], None]
) -> None:
    following().add(ed25519_key(1))
    keyring = following()
    keyring.add(ed25519_key(2))
    forget(keyring)
    assert comments(following()) == []


def test_a_lock_changes_nothing_and_ends_with_the_agent(following: Next) -> None:
    keyring = following()
    keyring.add(ed25519_key(1), "one")
    keyring.lock(b"secret")
    with pytest.raises(Unsupported):
        keyring.add(ed25519_key(2))
    with pytest.raises(Unsupported):
        keyring.remove_all()
    assert comments(following()) == ["one"]


def test_a_key_that_cannot_be_brought_back_stays_until_it_can(following: Next, said: list[str]) -> None:
    keyring = following()
    keyring.add_encrypted(file_of(1, "encrypted"))
    keyring.add(ed25519_key(2), "clear")
    keyring = following(asks=False)
    assert comments(keyring) == ["clear"]
    assert any("could not be brought back, and stays in" in line and "nobody could be asked" in line for line in said)
    keyring.add(ed25519_key(3), "third")
    assert comments(following(asks=False)) == ["clear", "third"]
    assert sorted(comments(following())) == ["clear", "encrypted", "third"]


def test_a_key_that_cannot_be_brought_back_goes_with_all(following: Next) -> None:
    following().add_encrypted(file_of(1))
    following(asks=False).remove_all()
    assert comments(following()) == []


def test_a_key_that_could_not_be_brought_back_gives_way_to_itself(following: Next) -> None:
    following().add_encrypted(file_of(1))
    keyring = following(asks=False)
    keyring.add(ed25519_key(1), "in clear")
    keyring.remove(ed25519_key(1).public)
    assert comments(following()) == []


def test_what_was_added_comes_before_what_could_not_even_be_read(
    following: Next, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(data: bytes) -> AddIdentityConstrained:
        raise WireError("entry of a kind that is not known")

    following().add(ed25519_key(1), "remembered")
    with monkeypatch.context() as patch:
        patch.setattr(remembered, "decode", fail)
        following().add(ed25519_key(1), "added anew", [Confirm()])
    keyring = following()
    assert comments(keyring) == ["added anew"]
    assert [held.confirm for held in keyring.visible()] == [True]


def test_every_change_of_what_is_remembered_is_told_and_no_other(
    following: Next, monkeypatch: pytest.MonkeyPatch
) -> None:
    keyring = following()
    told: list[int] = []
    monkeypatch.setattr(remembered.Memory, "changed", lambda _, kept: told.append(len(kept())))
    keyring.add(ed25519_key(1))
    keyring.add(ed25519_key(2))
    assert told == [1, 2]
    keyring.add(ed25519_key(3), constraints=[MaxSign(2)])
    keyring.sign(ed25519_key(3).public, b"data")
    keyring.sign(ed25519_key(3).public, b"data")
    keyring.lock(b"secret")
    keyring.unlock(b"secret")
    assert told == [1, 2]
    keyring.add(ed25519_key(2), constraints=[Lifetime(60)])
    keyring.remove(ed25519_key(2).public)
    assert told == [1, 2, 1]
    keyring.remove(ed25519_key(1).public)
    keyring.remove_all()
    assert told == [1, 2, 1, 0, 0]


def test_an_entry_of_a_kind_to_come_stays(following: Next, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def later(entry: object) -> bytes:
        assert isinstance(entry, AddIdentityConstrained)
        return b"\7" + entry.encode()

    with monkeypatch.context() as patch:
        patch.setattr(remembered, "encode", later)
        following().add(ed25519_key(1), "later")
        following(asks=False).add(ed25519_key(2), "now")
    before = Path(path).stat().st_size
    keyring = following()
    keyring.add(ed25519_key(3), "three")
    assert comments(keyring) == ["three"]
    following()
    assert Path(path).stat().st_size > before


def test_a_key_that_is_held_already_stays_as_it_is(following: Next) -> None:
    following().add(ed25519_key(1), "remembered")
    following().add_encrypted(file_of(2, "encrypted"))

    def begin(keyring: Keyring) -> None:
        keyring.add(ed25519_key(1), "given", [Confirm()])
        keyring.add(ed25519_key(2), "given, too")

    for _ in range(2):
        keyring = following(begin=begin)
        assert comments(keyring) == ["given", "given, too"]
        assert [held.confirm for held in keyring.visible()] == [True, False]


def test_an_end_promises_nothing_that_it_does_not_keep(following: Next) -> None:
    keyring = following()
    keyring.add(ed25519_key(1), "one")
    view = keyring.open(None)
    keyring.close()
    with pytest.raises(Refused, match="is ending"):
        view.add(ed25519_key(2))
    with pytest.raises(Refused, match="is ending"):
        view.remove_all()
    assert comments(following()) == ["one"]


def test_with_a_lifetime_for_all_there_is_nothing_to_remember(path: str) -> None:
    memory = remembered.open(path, protector=SYSTEM)
    with pytest.raises(Error, match="cannot be remembered"):
        Keyring(lifetime=60, remember=memory)
    memory.close()


def test_the_last_state_stays_whoever_changes_it_at_the_same_time(
    following: Next, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remembered, "PAUSE", 0.0)  # as many writes as there can be
    keyring = following()

    def change(number: int) -> None:
        choice = random.Random(number)
        for turn in range(60):
            key = ed25519_key(100 * number + choice.randrange(1, 9))
            try:
                if choice.random() < 0.6:
                    keyring.add(key, f"{number} {turn}")
                else:
                    keyring.remove(key.public)
            except Error:
                pass  # it was not there

    threads = [threading.Thread(target=change, args=(number,)) for number in range(1, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    before = comments(keyring)
    assert before
    assert comments(following()) == before


def test_what_another_host_adds_is_gone_with_the_agent(following: Next) -> None:
    keyring = following()
    view = keyring.open(None)
    view.extension(SessionBind.name, binding(ed25519_key(3), b"session", forwarding=True))
    view.add(ed25519_key(1), "from afar")
    keyring.open(None).add(ed25519_key(2), "from here")
    assert comments(keyring) == ["from afar", "from here"]
    assert comments(following()) == ["from here"]
