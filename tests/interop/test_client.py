"""The client against real agents."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

import pytest

import pageantry
from pageantry import PublicKey, SignFlags
from pageantry.constraints import Confirm, Constraint, Lifetime
from pageantry.errors import NoSuchKey, Refused, Unsupported, WireError
from pageantry.keys.files import read
from pageantry.keys.signatures import verify

pytestmark = pytest.mark.interop

Keys = dict[str, Path]


def public(path: Path) -> PublicKey:
    return PublicKey.from_line(Path(f"{path}.pub").read_text())


def test_every_agent_lists_what_ssh_add_put_there(agent: Path, key_files: Keys) -> None:
    with pageantry.connect(str(agent)) as client:
        assert {public(key_files["ed25519"]), public(key_files["rsa"])} == {one.key for one in client.identities()}


@pytest.mark.parametrize(
    ("name", "flags", "expected"),
    [("ed25519", 0, b"ssh-ed25519"), ("rsa", 0, b"ssh-rsa"), ("rsa", 2, b"rsa-sha2-256"), ("rsa", 4, b"rsa-sha2-512")],
)
def test_every_agent_signs_what_verifies(
    agent: Path, key_files: Keys, name: str, flags: SignFlags, expected: bytes
) -> None:
    key = public(key_files[name])
    with pageantry.connect(str(agent)) as client:
        signature = client.sign(key, b"data", flags, verify=True)
    assert expected in signature
    with pytest.raises(pageantry.Error):
        verify(key, signature, b"other data")


@pytest.mark.parametrize("agent", ["gpg-agent"], indirect=True)
def test_a_file_of_gnupgs_leads_to_its_agent(agent: Path, tmp_path: Path) -> None:
    (tmp_path / "S.gpg-agent.ssh").write_text(f"%Assuan%\nsocket={agent}\n")
    for address in (str(tmp_path / "S.gpg-agent.ssh"), f"assuan:{tmp_path}/S.gpg-agent.ssh"):
        with pageantry.connect(address) as client:
            assert len(client.identities()) == 2


def test_a_key_that_no_agent_holds_is_refused(agent: Path, key_files: Keys) -> None:
    with pageantry.connect(str(agent)) as client, pytest.raises(Refused, match="refused to sign with SHA256"):
        client.sign(public(key_files["ecdsa"]), b"data")


def test_query_leaves_the_connection_usable_whatever_the_agent_makes_of_it(agent: Path) -> None:
    with pageantry.connect(str(agent)) as client:
        names = client.query()
        assert len(client.identities()) == 2
    if "pageant" in str(agent):
        assert "list-extended@putty.projects.tartarus.org" in names


def test_an_extension_that_nobody_knows_is_unsupported(agent: Path) -> None:
    with pageantry.connect(str(agent)) as client:
        with pytest.raises(Unsupported):
            client.extension("nobody-knows@example.org", b"\0\0\0\1x")
        assert len(client.identities()) == 2


def test_long_data_are_signed(agent: Path, key_files: Keys) -> None:
    size = 10_000 if "gpg-agent" in str(agent) else 200_000  # gpg-agent hangs up on more than some 16 KiB
    with pageantry.connect(str(agent)) as client:
        client.sign(public(key_files["ed25519"]), bytes(size), verify=True)


def test_data_beyond_the_limit_are_refused_before_anything_is_sent(agent: Path, key_files: Keys) -> None:
    with pageantry.connect(str(agent)) as client:
        with pytest.raises(WireError, match="262144 at most"):
            client.sign(public(key_files["ed25519"]), bytes(262_144))
        assert len(client.identities()) == 2


@pytest.mark.parametrize("name", ["ed25519", "rsa", "ecdsa", "encrypted"])
def test_openssh_takes_our_keys_and_gives_them_up_again(fresh_agent: Path, key_files: Keys, name: str) -> None:
    private, comment = read(str(key_files[name])).decrypt(b"open sesame")
    with pageantry.connect(str(fresh_agent)) as client:
        client.add(private, "a comment")
        assert [(one.key, one.comment) for one in client.identities()] == [(public(key_files[name]), "a comment")]
        client.sign(private.public, b"data", verify=True)
        client.remove(private.public)
        assert client.identities() == []
        with pytest.raises(Refused, match="remove"):
            client.remove(private.public)
        client.add(private)
        client.remove_all()
        assert client.identities() == []
    assert comment == f"{name}@test"


def test_openssh_forgets_a_key_with_a_lifetime(fresh_agent: Path, key_files: Keys) -> None:
    private, _ = read(str(key_files["ed25519"])).decrypt()
    with pageantry.connect(str(fresh_agent)) as client:
        client.add(private, constraints=[Lifetime(1)])
        assert client.identities()
        deadline = time.monotonic() + 10
        while client.identities():
            assert time.monotonic() < deadline
            time.sleep(0.1)


def test_openssh_does_not_sign_unasked_with_a_key_to_be_confirmed(fresh_agent: Path, key_files: Keys) -> None:
    private, _ = read(str(key_files["ed25519"])).decrypt()
    with pageantry.connect(str(fresh_agent)) as client:
        client.add(private, constraints=[Confirm()])
        with pytest.raises(Refused):  # there is nobody to ask
            client.sign(private.public, b"data")


@pytest.mark.parametrize("agent", ["pageant"], indirect=True)
def test_pageant_refuses_constraints(agent: Path, key_files: Keys) -> None:
    limits: list[Constraint] = [Lifetime(60)]
    private, _ = read(str(key_files["ecdsa"])).decrypt()
    with pageantry.connect(str(agent)) as client, pytest.raises(Refused) as caught:
        client.add(private, constraints=limits)
    assert "without" in caught.value.hint


def test_a_locked_openssh_agent_shows_nothing_until_unlocked(fresh_agent: Path, key_files: Keys) -> None:
    private, _ = read(str(key_files["ed25519"])).decrypt()
    with pageantry.connect(str(fresh_agent)) as client:
        client.add(private)
        client.lock(b"geheim")
        assert client.identities() == []
        with pytest.raises(Refused):
            client.sign(private.public, b"data")
        with pytest.raises(Refused):
            client.unlock(b"wrong")
        client.unlock(b"geheim")
        assert len(client.identities()) == 1


def test_a_certificate_is_added_listed_and_signed_with(fresh_agent: Path, key_files: Keys, tmp_path: Path) -> None:
    from pageantry.keys.files import certificate_beside

    key = tmp_path / "user"
    for command in (
        ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)],
        ["ssh-keygen", "-q", "-s", str(key_files["ed25519"]), "-I", "id", "-n", "me", f"{key}.pub"],
    ):
        subprocess.run(command, check=True)
    plain, _ = read(str(key)).decrypt()
    certificate = certificate_beside(str(key), plain.public)
    assert certificate is not None
    certified = plain.certified(certificate)
    with pageantry.connect(str(fresh_agent)) as client:
        client.add(certified, "certified")
        assert [one.key for one in client.identities()] == [certified.public]
        client.sign(certified.public, b"data", verify=True)
        assert client.identities()[0].fingerprint == plain.public.fingerprint()


def test_three_hundred_keys_are_listed(fresh_agent: Path) -> None:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from pageantry import PrivateKey

    keys = []
    with pageantry.connect(str(fresh_agent)) as client:
        for number in range(300):
            made = Ed25519PrivateKey.generate()
            point = made.public_key().public_bytes_raw()
            keys.append(PrivateKey("ssh-ed25519", (point, made.private_bytes_raw() + point)))
            client.add(keys[-1], f"key {number}")
        assert [one.key for one in client.identities()] == [key.public for key in keys]


def test_connect_finds_the_agent_that_holds_a_key(
    agent: Path, fresh_agent: Path, key_files: Keys, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setenv("SSH_AUTH_SOCK", str(fresh_agent))
    (tmp_path / "ssh-agent").symlink_to(agent)
    with pageantry.connect(holding=public(key_files["rsa"])) as client:
        client.sign(public(key_files["rsa"]), b"data", SignFlags.RSA_SHA2_512, verify=True)
    with pageantry.connect() as client:
        assert client.address == f"unix:{fresh_agent}"
    with pytest.raises(NoSuchKey):
        pageantry.connect(str(fresh_agent), holding=public(key_files["rsa"]))


def test_discovery_tells_each_agent_once_with_its_keys(
    agent: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setenv("SSH_AUTH_SOCK", str(agent))
    (tmp_path / "ssh-agent").symlink_to(agent)
    found = [one for one in pageantry.locate() if one.endpoint.where in (str(agent), str(tmp_path / "ssh-agent"))]
    assert [(one.source, one.reached) for one in found] == [("SSH_AUTH_SOCK", "answers")]
    assert found[0].identities is not None
    assert len(found[0].identities) == 2
    assert found[0].owner
