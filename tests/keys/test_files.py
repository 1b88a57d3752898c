import os
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pageantry.errors import KeyFileError
from pageantry.keys.files import MAX_FILE, certificate_beside, parse, read, read_file
from pageantry.keys.private import PrivateKey
from pageantry.keys.public import PublicKey

from .layout import armor, look_at


@given(
    st.binary(max_size=200)
    | st.binary(max_size=200).map(lambda rest: armor(b"openssh-key-v1\0" + rest))
    | st.binary(max_size=100).map(lambda rest: armor(rest, "EC PRIVATE KEY"))
)
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    look_at(data)


@pytest.mark.interop
@pytest.mark.skipif(sys.platform == "win32", reason="PuTTYgen has windows there, and no command line")
@pytest.mark.skipif(not shutil.which("puttygen"), reason="puttygen (putty-tools) is not installed")
@pytest.mark.skipif(sys.platform == "win32", reason="puttygen for Windows is a window, not a command")
@pytest.mark.parametrize(
    ("kind", "form"),
    [
        ("ed448", "private-openssh-new"),
        ("ed25519", "private-openssh-new"),
        ("ecdsa", "private-openssh-new"),
        ("dsa", "private-openssh"),
    ],
)
def test_puttygen_s_exports_are_read(kind: str, form: str, tmp_path: Path) -> None:
    def puttygen(*arguments: str) -> str:
        done = subprocess.run(["puttygen", *arguments], check=True, capture_output=True, text=True, timeout=60)
        return done.stdout

    ppk, path, empty = str(tmp_path / "key.ppk"), str(tmp_path / "key"), str(tmp_path / "empty")
    Path(empty).touch()
    puttygen("-t", kind, "--new-passphrase", empty, "-C", "me@here", "-o", ppk)
    puttygen(ppk, "-O", form, "--old-passphrase", empty, "-o", path)
    key, _ = read(path).decrypt()
    assert key.public.line("me@here") == puttygen("-L", ppk).strip()
    assert key.public.fingerprint() in puttygen("-l", ppk)
    assert read(ppk).decrypt() == (key, "me@here")


# what is no private key


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is empty"),
        (b" \n", "is empty"),
        (b"hello", "is no private key file"),
        (b"\xff\xfe" * 100, "is no private key file"),
        (b"SSH PRIVATE KEY FILE FORMAT 1.1\n\0", "is a key for SSH version 1"),
        (b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n", "is a public key"),
        (b"---- BEGIN SSH2 PUBLIC KEY ----\nAAAA\n---- END SSH2 PUBLIC KEY ----\n", "is a public key"),
        (b"ssh-new AAAAB3NzaC1uZXc= me@here\n", "is a public key"),
        (b"-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXktdjEA\n", "breaks off"),
        (b"-----BEGIN OPENSSH PRIVATE KEY-----\nb3Bl!\n-----END OPENSSH PRIVATE KEY-----\n", "cannot be read"),
        (b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", "cannot be read"),
        (b"-----BEGIN RSA PRIVATE KEY-----\nAAAA\n-----END EC PRIVATE KEY-----\n", "breaks off"),
    ],
)
def test_what_is_no_private_key_is_called_by_its_name(data: bytes, message: str) -> None:
    with pytest.raises(KeyFileError, match=f"^some file {message}") as caught:
        parse(data, "some file")
    assert caught.value.hint


def test_a_missing_file_is_an_error_of_one_line(tmp_path: Path) -> None:
    for path, message in (
        (tmp_path / "none", "does not exist"),
        (tmp_path, "is not a regular file"),
        (tmp_path / "\0", "cannot be read"),
        (Path(os.devnull), "is not a regular file"),
    ):
        with pytest.raises(KeyFileError, match=message) as caught:
            read(str(path))
        assert caught.value.hint
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(KeyFileError):
        read(str(tmp_path / "file" / "below"))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no FIFOs on this system")
def test_a_fifo_does_not_hang(tmp_path: Path) -> None:
    path = str(tmp_path / "fifo")
    os.mkfifo(path)  # type: ignore[attr-defined,unused-ignore]
    failures: list[Exception] = []

    def attempt() -> None:
        try:
            read(path)
        except KeyFileError as error:
            failures.append(error)

    thread = threading.Thread(target=attempt, daemon=True)
    thread.start()
    thread.join(5)
    assert [str(error) for error in failures] == [f"{path} is not a regular file"]


@pytest.mark.skipif(sys.platform == "win32", reason="modes are different there")
def test_a_file_that_may_not_be_read_is_an_error_of_one_line(as_nobody: Any) -> None:
    with tempfile.TemporaryDirectory() as directory:
        os.chmod(directory, 0o755)
        path = os.path.join(directory, "secret")
        Path(path).touch(mode=0)
        with as_nobody(), pytest.raises(KeyFileError, match="may not be read"):
            read(path)


if sys.platform == "win32":
    import _winapi

    def test_a_file_that_another_program_keeps_to_itself_is_an_error_of_one_line(tmp_path: Path) -> None:
        path = str(tmp_path / "key")
        Path(path).touch()
        handle = _winapi.CreateFile(path, _winapi.GENERIC_READ, 0, 0, _winapi.OPEN_EXISTING, 0, 0)
        try:
            with pytest.raises(KeyFileError, match="another program keeps it to itself"):
                read(path)
        finally:
            _winapi.CloseHandle(handle)


def test_a_file_that_is_far_too_long_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "long"
    with path.open("wb") as file:
        file.truncate(MAX_FILE)
        assert len(read_file(str(path))) == MAX_FILE
        file.truncate(MAX_FILE + 1)
    with pytest.raises(KeyFileError, match="longer than"):
        read(str(path))


# certificates beside keys


def test_a_certificate_beside_the_key_is_found(
    private_keys: dict[str, PrivateKey], certify: Callable[[PublicKey], PublicKey], tmp_path: Path
) -> None:
    key, path = private_keys["ssh-ed25519"].public, str(tmp_path / "key")
    assert certificate_beside(path, key) is None
    certificate = certify(key)
    Path(path + "-cert.pub").write_text(certificate.line("comment") + "\n")
    assert certificate_beside(path, key) == certificate_beside(path, certificate) == certificate


def test_something_else_beside_the_key_is_refused(
    private_keys: dict[str, PrivateKey], certify: Callable[[PublicKey], PublicKey], tmp_path: Path
) -> None:
    key, path = private_keys["ssh-ed25519"].public, str(tmp_path / "key")
    for text in ("", "rubbish", key.line(), certify(private_keys["ssh-rsa"].public).line()):
        Path(path + "-cert.pub").write_text(text)
        with pytest.raises(KeyFileError, match=r"-cert\.pub") as caught:
            certificate_beside(path, key)
        assert caught.value.hint


@pytest.mark.interop
def test_ssh_keygen_s_certificates_are_found(kind: str, keygen: Any) -> None:
    keygen.certificate(kind)
    path = keygen.make(kind)
    key, _ = read(path).decrypt()
    certificate = certificate_beside(path, key.public)
    assert certificate is not None
    assert certificate.certificate is not None
    assert certificate.certificate.serial == 77
    assert key.certified(certificate).plain == key
