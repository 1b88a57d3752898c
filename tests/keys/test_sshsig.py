import hashlib
import io
from base64 import b64decode, b64encode
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pageantry.errors import BadReply, WireError
from pageantry.keys import files, signatures
from pageantry.keys.private import PrivateKey
from pageantry.keys.public import PublicKey
from pageantry.keys.sshsig import armor, digest, sign_flags, to_be_signed, verify

DATA = b"a message\n"


def string(data: bytes) -> bytes:
    return len(data).to_bytes(4, "big") + data


def signed(key: PrivateKey, data: bytes = DATA, namespace: str = "file", flags: int | None = None) -> str:
    flags = sign_flags(key.public) if flags is None else flags
    signature = signatures.sign(key, to_be_signed(digest(io.BytesIO(data)), namespace), flags)
    return armor(key.public, namespace, signature)


def test_what_is_signed_has_the_layout_of_the_specification() -> None:
    sha = hashlib.sha512(DATA).digest()
    assert digest(io.BytesIO(DATA)) == sha
    assert to_be_signed(sha, "file") == (
        b"SSHSIG" + b"\0\0\0\4file" + b"\0\0\0\0" + b"\0\0\0\6sha512" + b"\0\0\0\x40" + sha
    )


def test_the_armour_has_the_layout_of_the_specification() -> None:
    key = PublicKey(string(b"ssh-new") + bytes(200))
    first, *lines, last = armor(key, "git", b"sig").splitlines()
    assert (first, last) == ("-----BEGIN SSH SIGNATURE-----", "-----END SSH SIGNATURE-----")
    assert {len(line) for line in lines[:-1]} == {70}
    assert b64decode("".join(lines)) == (
        b"SSHSIG\0\0\0\1" + string(key.blob) + b"\0\0\0\3git" + bytes(4) + b"\0\0\0\6sha512" + b"\0\0\0\3sig"
    )
    assert armor(key, "git", b"sig").endswith("-----\n")


def test_a_large_file_is_read_piece_by_piece() -> None:
    class Long(io.RawIOBase):
        left, most = 5 * 1024 * 1024 + 1, 0

        def readable(self) -> bool:
            return True

        def readinto(self, buffer: Any) -> int:
            size = min(len(buffer), self.left)
            buffer[:size] = bytes(size)
            self.most, self.left = max(self.most, size), self.left - size
            return size

    raw = Long()
    assert digest(io.BufferedReader(raw)) == digest(io.BytesIO(bytes(5 * 1024 * 1024 + 1)))
    assert raw.most <= 1024 * 1024


def test_a_namespace_is_needed() -> None:
    with pytest.raises(WireError, match="namespace"):
        to_be_signed(bytes(64), "")


def test_what_is_signed_verifies(private: PrivateKey) -> None:
    if private.public.hardware:
        return  # it signs only in a security key
    armored = signed(private)
    assert verify(armored, io.BytesIO(DATA), "file") == private.public
    assert verify("Here it is:\n" + armored.replace("\n", "\r\n"), io.BytesIO(DATA), "file") == private.public
    with pytest.raises(BadReply, match="does not match"):
        verify(armored, io.BytesIO(DATA + b"!"), "file")
    with pytest.raises(BadReply, match="namespace 'file', not 'git'"):
        verify(armored, io.BytesIO(DATA), "git")


def test_an_rsa_signature_with_sha_1_is_refused(private_keys: dict[str, PrivateKey]) -> None:
    for flags in (0, 2):
        with pytest.raises(BadReply, match="rsa-sha2-512"):
            verify(signed(private_keys["ssh-rsa"], flags=flags), io.BytesIO(DATA), "file")


@pytest.mark.parametrize("text", ["", "hello", "-----BEGIN SSH SIGNATURE-----\n!\n-----END SSH SIGNATURE-----\n"])
def test_what_is_no_signature_is_refused(text: str) -> None:
    with pytest.raises(WireError):
        verify(text, io.BytesIO(DATA), "file")


@given(st.text(max_size=60), st.binary(max_size=60))
def test_any_text_is_refused(text: str, data: bytes) -> None:
    for attempt in (text, armor(PublicKey(string(b"ssh-new") + data), text, data)):
        with pytest.raises((WireError, BadReply)):
            verify(attempt, io.BytesIO(DATA), "file")


@given(st.data())
def test_any_damage_is_noticed(private_keys: dict[str, PrivateKey], data: st.DataObject) -> None:
    armored = signed(private_keys["ssh-ed25519"])
    blob = b64decode("".join(armored.splitlines()[1:-1]))
    at = data.draw(st.integers(0, len(blob) - 1))
    blob = blob[:at] + bytes((blob[at] ^ data.draw(st.integers(1, 255)),)) + blob[at + 1 :]
    begin, *_, end = armored.splitlines()
    with pytest.raises((WireError, BadReply)):
        verify(f"{begin}\n{b64encode(blob).decode()}\n{end}\n", io.BytesIO(DATA), "file")


# the real ssh-keygen


@pytest.mark.interop
def test_ssh_keygen_accepts_our_signatures(kind: str, keygen: Any, tmp_path: Path) -> None:
    check(keygen, files.read(keygen.make(kind)).decrypt()[0], tmp_path)


@pytest.mark.interop
def test_ssh_keygen_accepts_a_certificate_s_signature(keygen: Any, tmp_path: Path) -> None:
    keygen.certificate("ecdsa256")
    path = keygen.make("ecdsa256")
    key, _ = files.read(path).decrypt()
    certificate = files.certificate_beside(path, key.public)
    assert certificate is not None
    (tmp_path / "signature").write_bytes(signed(key.certified(certificate)).encode())
    done = keygen.run("-Y", "check-novalidate", "-n", "file", "-s", str(tmp_path / "signature"), data=DATA, check=False)
    assert done.returncode == 0, done.stderr


def check(keygen: Any, key: PrivateKey, folder: Path) -> None:
    (folder / "signature").write_bytes(signed(key).encode())
    (folder / "allowed").write_text(f"me@here {key.public.line()}\n")
    for arguments in (
        ("verify", "-f", str(folder / "allowed"), "-I", "me@here"),
        ("check-novalidate",),
    ):
        command = ("-Y", *arguments, "-n", "file", "-s", str(folder / "signature"))
        done = keygen.run(*command, data=DATA, check=False)
        assert done.returncode == 0, done.stderr
        assert key.public.fingerprint() in done.stdout.decode()
        assert keygen.run(*command, data=DATA + b"!", check=False).returncode != 0


@pytest.mark.interop
def test_we_accept_ssh_keygen_s_signatures(kind: str, keygen: Any, tmp_path: Path) -> None:
    path = tmp_path / "message"
    path.write_bytes(DATA)
    done = keygen.run("-Y", "sign", "-f", keygen.make(kind), "-n", "file", str(path), check=False)
    if done.returncode and kind == "dsa":
        pytest.skip("this ssh-keygen does not sign files with DSA")
    assert done.returncode == 0, done.stderr
    armored = Path(f"{path}.sig").read_text()
    key = files.read(keygen.make(kind)).public
    assert key is not None
    assert verify(armored, io.BytesIO(DATA), "file") == key
    if kind in ("rsa", "ed25519"):  # these have one signature only
        assert armored == signed(files.read(keygen.make(kind)).decrypt()[0])
