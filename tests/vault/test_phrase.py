import os
from collections.abc import Iterable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import dsa

from pageantry.agent import Agent, Identity, SignFlags
from pageantry.constraints import Constraint
from pageantry.errors import Refused, UnsupportedKey, VaultError, WireError
from pageantry.keyfiles import KeyFiles
from pageantry.keys.ppk import write
from pageantry.keys.private import PrivateKey
from pageantry.keys.public import PublicKey
from pageantry.vault.derive import UUID, derive
from pageantry.vault.phrase import phrase_from, suitable, suitable_identities
from pageantry.wire import Writer

PAGEANT = "list-extended@putty.projects.tartarus.org"
EXAMPLE = PublicKey.from_line("AAAAC3NzaC1lZDI1NTE5AAAAIMGdHt5hXHrGrzJl/HeTPw5vyDH97wAkbbqZrgQ5h5Kw")
EXAMPLE_PHRASE = "xcZImVWCZGM79/EjQZoR0d3xV0ktvFVN2dchfOOmaxOH6TvTqWIVMEuYAcc3gRbcCZtKIbhG8jRyrBmiIrpODw=="
POINT = b"\4" + b"\1" * 64


def blob(*strings: bytes) -> bytes:
    writer = Writer()
    for string in strings:
        writer.string(string)
    return bytes(writer)


ED448 = PublicKey(blob(b"ssh-ed448", b"\1" * 57))
RSA = PublicKey(blob(b"ssh-rsa", b"\1\0\1", b"\1" * 256))
DSA = PublicKey(blob(b"ssh-dss", *[b"\1"] * 4))
ECDSA = PublicKey(blob(b"ecdsa-sha2-nistp256", b"nistp256", POINT))
SK = PublicKey(blob(b"sk-ssh-ed25519@openssh.com", b"\1" * 32, b"ssh:"))
OTHER = PublicKey(blob(b"new-kind@example.org", b"\1"))


class Fixed(Agent):
    """Signs with what it was given, one answer after the other."""

    def __init__(self, *signatures: bytes, keys: Iterable[PublicKey] = (), extensions: Iterable[str] = ()) -> None:
        self.signatures = list(signatures)
        self.keys, self.extensions = list(keys), list(extensions)
        self.asked: list[tuple[PublicKey, bytes, SignFlags, bool]] = []

    def identities(self) -> list[Identity]:
        return [Identity(key, f"number {number}") for number, key in enumerate(self.keys)]

    def sign(self, key: PublicKey, data: bytes, flags: SignFlags = SignFlags.NONE, *, verify: bool = False) -> bytes:
        self.asked.append((key, data, flags, verify))
        if not self.signatures:
            raise Refused("the agent refused to sign")
        return self.signatures.pop(0)

    def query(self) -> list[str]:
        return self.extensions

    def add(self, key: PrivateKey, comment: str = "", constraints: Iterable[Constraint] = ()) -> None:
        raise NotImplementedError

    def remove(self, key: PublicKey) -> None:
        raise NotImplementedError

    def remove_all(self) -> None:
        raise NotImplementedError

    def lock(self, passphrase: bytes) -> None:
        raise NotImplementedError

    def unlock(self, passphrase: bytes) -> None:
        raise NotImplementedError

    def extension(self, name: str, data: bytes = b"") -> bytes:
        raise NotImplementedError


def test_the_known_example_holds() -> None:
    from binascii import a2b_base64

    signature = blob(b"ssh-ed25519", a2b_base64(EXAMPLE_PHRASE))
    asked = (EXAMPLE, UUID.encode(), SignFlags.NONE, True)
    for proven, times in ((False, 2), (True, 1)):
        agent = Fixed(signature, signature)
        phrase = phrase_from(agent, EXAMPLE, proven=proven)
        assert phrase == EXAMPLE_PHRASE
        assert derive(phrase, "google") == "$wcE1C<I5jSA!!4mFNV5"
        assert agent.asked == [asked] * times


def test_which_keys_are_suitable() -> None:
    keys = [EXAMPLE, ED448, RSA, DSA, ECDSA, SK, OTHER]
    assert [key for key in keys if suitable(key)] == [EXAMPLE, ED448, RSA]
    assert [key for key in keys if suitable(key, deterministic=True)] == [EXAMPLE, ED448, RSA, DSA, ECDSA]
    assert [one.key for one in suitable_identities(Fixed(keys=keys))] == [EXAMPLE, ED448, RSA]
    assert [one.key for one in suitable_identities(Fixed(keys=[ECDSA]))] == [ECDSA]  # to be put to the test
    pageant = Fixed(keys=keys, extensions=[PAGEANT])
    assert [one.key for one in suitable_identities(pageant)] == [EXAMPLE, ED448, RSA, DSA, ECDSA]


@pytest.mark.parametrize("key", [SK, OTHER])
def test_a_key_that_never_signs_twice_alike_is_not_even_asked(key: PublicKey) -> None:
    agent = Fixed(b"")
    with pytest.raises(UnsupportedKey) as caught:
        phrase_from(agent, key)
    assert caught.value.hint
    assert agent.asked == []


def test_an_agent_that_signs_ed25519_at_random_is_found_out() -> None:
    with pytest.raises(VaultError, match="differently each time"):
        phrase_from(Fixed(blob(b"ssh-ed25519", b"one"), blob(b"ssh-ed25519", b"other")), EXAMPLE)


@pytest.mark.parametrize(("signature", "words"), [(b"\1" * 256, 0), (b"\0" + b"\1" * 255, 1), (b"\1" * 255, 1)])
def test_an_rsa_signature_that_agents_write_in_two_ways_is_warned_of(signature: bytes, words: int) -> None:
    said: list[str] = []
    key = PublicKey(blob(b"ssh-rsa", b"\1\0\1", b"\0" + b"\xff" * 256))
    phrase_from(Fixed(blob(b"ssh-rsa", signature)), key, say=said.append)  # asked once: RSA has no choice
    assert len(said) == words


@pytest.mark.parametrize("key", [DSA, ECDSA])
def test_dsa_and_ecdsa_are_signed_twice_and_compared_even_in_pageant(key: PublicKey) -> None:
    one, other = blob(key.type.encode(), b"one"), blob(key.type.encode(), b"other")
    assert phrase_from(Fixed(one, one), key, proven=True) == "b25l"
    with pytest.raises(VaultError, match="differently each time") as caught:
        phrase_from(Fixed(one, other, extensions=[PAGEANT]), key)
    assert caught.value.hint


def test_a_certificate_stands_for_its_plain_key(tmp_path: Path) -> None:
    import shutil
    import subprocess

    if shutil.which("ssh-keygen") is None:
        pytest.skip("ssh-keygen is not installed")
    for name in ("user", "authority"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / name], check=True)
    sign: list[str | Path] = ["ssh-keygen", "-q", "-s", tmp_path / "authority", "-I", "me", tmp_path / "user.pub"]
    subprocess.run(sign, check=True, env=os.environ | {"LC_ALL": "C"})
    plain = PublicKey.from_line((tmp_path / "user.pub").read_text())
    certified = PublicKey.from_line((tmp_path / "user-cert.pub").read_text())
    agent = Fixed(*[blob(b"ssh-ed25519", b"one")] * 2, keys=[certified, plain])
    assert [(one.key, one.comment) for one in suitable_identities(agent)] == [(plain, "number 0")]
    assert phrase_from(agent, certified) == "b25l"
    assert agent.asked[0][0] == plain


def test_an_agent_that_refuses_is_told_as_it_says() -> None:
    with pytest.raises(Refused):
        phrase_from(Fixed(), EXAMPLE)


def test_a_signature_with_something_behind_it_is_refused() -> None:
    with pytest.raises(WireError):
        phrase_from(Fixed(*[blob(b"ssh-ed25519", b"one", b"more")] * 2), EXAMPLE)


def test_a_key_file_s_dsa_key_makes_a_phrase_when_there_is_no_other(tmp_path: Path) -> None:
    numbers = dsa.generate_private_key(1024).private_numbers()
    public = numbers.public_numbers
    shared = public.parameter_numbers
    key = PrivateKey("ssh-dss", (shared.p, shared.q, shared.g, public.y, numbers.x))
    (tmp_path / "key.ppk").write_bytes(write(key, "me", None))
    agent = KeyFiles([str(tmp_path / "key.ppk")])
    assert [one.key for one in suitable_identities(agent)] == [key.public]
    assert phrase_from(agent, key.public) == phrase_from(KeyFiles([str(tmp_path / "key.ppk")]), key.public)
