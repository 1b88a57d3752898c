from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

import pageantry
from pageantry.agent import Identity
from pageantry.errors import KeyFileError, NoSuchKey, Unsupported, WrongPassphrase
from pageantry.keyfiles import ATTEMPTS, KeyFiles
from pageantry.keys.files import read
from pageantry.keys.ppk import write
from pageantry.keys.public import PublicKey
from pageantry.keys.signatures import verify
from pageantry.wire import Writer


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    """A key in the clear and one whose passphrase is `geheim`."""
    clear, locked = tmp_path / "clear", tmp_path / "locked"
    openssh = (serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH)
    clear.write_bytes(Ed25519PrivateKey.generate().private_bytes(*openssh, serialization.NoEncryption()))
    sealed = serialization.PrivateFormat.OpenSSH.encryption_builder().kdf_rounds(1).build(b"geheim")
    locked.write_bytes(Ed25519PrivateKey.generate().private_bytes(*openssh, sealed))
    return [str(clear), str(locked)]


def asked(*answers: str) -> tuple[list[str], Callable[[str], str]]:
    prompts: list[str] = []
    left = list(answers)

    def ask(prompt: str) -> str:
        prompts.append(prompt)
        return left.pop(0)

    return prompts, ask


def test_files_are_listed_without_asking_for_their_passphrases(files: list[str]) -> None:
    with pageantry.connect("keys:" + os.pathsep.join(files)) as agent:
        assert [one.comment for one in agent.identities()] == ["clear", "locked"]
        assert agent.query() == []


def test_the_first_use_asks_and_the_second_does_not(files: list[str]) -> None:
    prompts, ask = asked("geheim")
    agent = KeyFiles(files, ask)
    for identity in agent.identities():
        for data in (b"one", b"two"):
            verify(identity.key, agent.sign(identity.key, data, verify=True), data)
    assert prompts == [f"Passphrase for {files[1]}: "]


def test_putty_s_files_sign_too_also_with_a_certificate_in_them(files: list[str], tmp_path: Path) -> None:
    key = read(files[0]).decrypt()[0]
    point = key.fields[0]
    assert isinstance(point, bytes)
    certificate = Writer().text("ssh-ed25519-cert-v01@openssh.com").string(b"nonce").string(point).uint64(1).uint32(1)
    certificate.text("id").string(b"").uint64(0).uint64(2**64 - 1)
    for value in (b"", b"", b"", b"authority", b"signature"):
        certificate.string(value)
    certified = key.certified(PublicKey(bytes(certificate)))
    path = tmp_path / "key.ppk"
    path.write_bytes(write(certified, "me", b"geheim", version=2))
    prompts, ask = asked("geheim")
    agent = KeyFiles([str(path)], ask)
    assert agent.identities() == [Identity(certified.public, "key.ppk")]
    agent.decrypt()
    for public in (certified.public, key.public):
        verify(public, agent.sign(public, b"data", verify=True), b"data")
    assert prompts == [f"Passphrase for {path}: "]


def test_a_wrong_passphrase_is_asked_for_again_a_few_times(files: list[str]) -> None:
    prompts, ask = asked("wrong", "geheim")
    agent = KeyFiles([files[1]], ask)
    agent.sign(agent.identities()[0].key, b"data")
    assert prompts[1].startswith("Wrong passphrase, again")
    prompts, ask = asked(*["wrong"] * ATTEMPTS)
    agent = KeyFiles([files[1]], ask)
    with pytest.raises(WrongPassphrase) as caught:
        agent.sign(agent.identities()[0].key, b"data")
    assert len(prompts) == ATTEMPTS
    assert "wrong passphrase" in str(caught.value)


def test_a_key_that_is_in_none_of_the_files_is_named(files: list[str]) -> None:
    other = KeyFiles([files[1]]).identities()[0].key
    with pytest.raises(NoSuchKey) as caught:
        KeyFiles([files[0]]).sign(other, b"data")
    assert other.fingerprint() in str(caught.value)


def test_a_file_that_is_no_key_is_refused_at_once(tmp_path: Path) -> None:
    (tmp_path / "junk").write_text("junk")
    with pytest.raises(KeyFileError):
        KeyFiles([str(tmp_path / "junk")])
    with pytest.raises(KeyFileError):
        KeyFiles([str(tmp_path / "missing")])


def test_files_cannot_do_what_only_an_agent_can(files: list[str]) -> None:
    agent = KeyFiles(files)
    key = agent.identities()[0].key
    for act in (agent.remove_all, lambda: agent.remove(key), lambda: agent.lock(b"x"), lambda: agent.extension("x")):
        with pytest.raises(Unsupported):
            act()


def test_nothing_secret_is_shown_by_repr(files: list[str]) -> None:
    agent = KeyFiles(files, lambda _: "geheim")
    agent.sign(agent.identities()[1].key, b"data")
    private = agent._open[agent.identities()[1].key]
    seed = private.fields[1]
    assert isinstance(seed, bytes)
    shown = repr(agent) + repr(vars(agent)) + repr(private)
    assert seed.hex() not in shown
    assert repr(seed)[2:-1] not in shown
