import os
import shutil
import subprocess
import sys
import tempfile
import textwrap
import threading
from base64 import b64decode, b64encode
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, x25519
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from hypothesis import given
from hypothesis import strategies as st

from pageantry.errors import KeyFileError, WrongPassphrase
from pageantry.keys.files import MAX_FILE, certificate_beside, parse, read, read_file
from pageantry.keys.openssh import MAX_ROUNDS
from pageantry.keys.pem import MAX_ITERATIONS
from pageantry.keys.private import PrivateKey
from pageantry.keys.public import PublicKey
from pageantry.wire import Writer

SECRET = "correct horse"
PEM = {"PEM": ("-m", "PEM"), "PKCS8": ("-m", "PKCS8")}
CIPHERS = (
    "aes128-ctr", "aes192-ctr", "aes256-ctr", "aes128-cbc", "aes192-cbc", "aes256-cbc", "3des-cbc",
    "aes128-gcm@openssh.com", "aes256-gcm@openssh.com", "chacha20-poly1305@openssh.com",
)  # fmt: skip


def string(data: bytes) -> bytes:
    return len(data).to_bytes(4, "big") + data


def private_part(key: PrivateKey, comment: bytes = b"c", padding: bytes | None = None) -> bytes:
    """The inside of OpenSSH's format, by its PROTOCOL.key."""
    inside = b"same" + b"same" + bytes(key.write(Writer())) + string(comment)
    return inside + (bytes(range(1, 1 + -len(inside) % 8)) if padding is None else padding)


def outside(
    public: bytes, inside: bytes, *, cipher: bytes = b"none", kdf: bytes = b"none", options: bytes = b"",
    count: int = 1, tail: bytes = b"", magic: bytes = b"openssh-key-v1\0",
) -> bytes:  # fmt: skip
    """The whole file, armoured."""
    head = magic + string(cipher) + string(kdf) + string(options) + count.to_bytes(4, "big")
    return armor(head + string(public) + string(inside) + tail)


def armor(data: bytes, label: str = "OPENSSH PRIVATE KEY") -> bytes:
    lines = textwrap.wrap(b64encode(data).decode(), 70)
    return "\n".join((f"-----BEGIN {label}-----", *lines, f"-----END {label}-----", "")).encode()


def public_of(path: str) -> PublicKey:
    return PublicKey.from_line(Path(path + ".pub").read_text())


# OpenSSH's format


def test_every_type_is_read(private: PrivateKey) -> None:
    file = parse(outside(private.public.blob, private_part(private, b"me@h\xe9re")), "file")
    assert not file.encrypted
    assert file.public == private.public
    assert file.decrypt() == file.decrypt(b"not needed") == (private, "me@h\udce9re")
    assert repr(file) == "<KeyFile 'file'>"


def test_line_ends_and_what_stands_around_the_key_do_not_matter(private_keys: dict[str, PrivateKey]) -> None:
    key = private_keys["ssh-ed25519"]
    data = outside(key.public.blob, private_part(key))
    for variant in (data.replace(b"\n", b"\r\n"), b"\nBag Attributes\n" + data + b"\nmore\n", data.rstrip()):
        assert parse(variant, "file").decrypt()[0] == key


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"magic": b"openssh-key-v2\0"}, "unknown version"),
        ({"count": 0}, "0 keys in it"),
        ({"count": 2}, "2 keys in it"),
        ({"count": 2**32 - 1}, "4294967295 keys in it"),
        ({"cipher": b"rot13", "kdf": b"bcrypt"}, "'rot13', which is not known"),
        ({"kdf": b"scrypt"}, "'scrypt', which is not known"),
        ({"kdf": b"bcrypt"}, "'bcrypt', which is not known"),
        ({"cipher": b"aes256-ctr"}, "'none', which is not known"),
        ({"tail": b"x"}, "followed by 1"),
        ({"cipher": b"aes256-gcm@openssh.com", "kdf": b"bcrypt", "tail": bytes(15)}, "followed by 15"),
        ({"inside": b""}, "0 bytes"),
        ({"inside": bytes(9)}, "9 bytes"),
        ({"public": b""}, "announced"),
    ],
)
def test_a_header_that_says_the_wrong_thing_is_refused(
    change: dict[str, Any], message: str, private_keys: dict[str, PrivateKey]
) -> None:
    key = private_keys["ssh-ed25519"]
    with pytest.raises(KeyFileError, match=message) as caught:
        parse(outside(**{"public": key.public.blob, "inside": private_part(key)} | change), "some file")
    assert str(caught.value).startswith("some file ")
    assert caught.value.hint


def test_an_inside_that_is_not_what_it_should_be_is_refused(private_keys: dict[str, PrivateKey]) -> None:
    key, other = private_keys["ssh-ed25519"], private_keys["ecdsa-sha2-nistp256"]
    inside = private_part(key)
    bare = private_part(key, padding=b"")
    for broken, message in (
        (b"some" + inside[4:], "check numbers"),
        (private_part(other), "not that of the private key"),
        (bare + bytes(-len(bare) % 8), "padding"),
        (bare + bytes(range(2, 2 + -len(bare) % 8)), "padding"),
        (b"samesame" + string(b"ssh-new1") + bytes(4), "unknown type"),
        (b"samesame", "announced"),
    ):
        file = parse(outside(key.public.blob, broken), "file")
        with pytest.raises(KeyFileError, match=message) as caught:
            file.decrypt()
        assert not isinstance(caught.value, WrongPassphrase)


@pytest.mark.parametrize("rounds", [0, MAX_ROUNDS + 1, 2**32 - 1])
def test_a_number_of_rounds_that_would_never_end_is_refused(rounds: int, private_keys: dict[str, PrivateKey]) -> None:
    key = private_keys["ssh-ed25519"]
    options = string(b"s" * 16) + rounds.to_bytes(4, "big")
    data = outside(key.public.blob, bytes(128), cipher=b"aes256-ctr", kdf=b"bcrypt", options=options)
    with pytest.raises(KeyFileError, match=f"{rounds} rounds of bcrypt"):
        parse(data, "file").decrypt(b"x")


@pytest.mark.parametrize("options", [b"", string(b"") + b"\0\0\0\1", string(b"salt") + b"\0\0\0\1x"])
def test_broken_options_of_bcrypt_are_refused(options: bytes, private_keys: dict[str, PrivateKey]) -> None:
    blob = private_keys["ssh-ed25519"].public.blob
    data = outside(blob, bytes(128), cipher=b"aes256-ctr", kdf=b"bcrypt", options=options)
    with pytest.raises(KeyFileError, match="cannot be read"):
        parse(data, "file").decrypt(b"x")


@given(st.data())
def test_any_damage_is_noticed_or_harmless(private_keys: dict[str, PrivateKey], data: st.DataObject) -> None:
    key = data.draw(st.sampled_from(list(private_keys.values())))
    whole = b64decode(b"".join(outside(key.public.blob, private_part(key)).splitlines()[1:-1]))
    start = data.draw(st.integers(0, len(whole)))
    end = start + data.draw(st.integers(0, 6))
    look_at(armor(whole[:start] + data.draw(st.binary(max_size=6)) + whole[end:]))


@given(
    st.binary(max_size=200)
    | st.binary(max_size=200).map(lambda rest: armor(b"openssh-key-v1\0" + rest))
    | st.binary(max_size=100).map(lambda rest: armor(rest, "EC PRIVATE KEY"))
)
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    look_at(data)


def look_at(data: bytes) -> None:
    try:
        file = parse(data, "file")
        key, _ = file.decrypt(b"" if file.encrypted else None)
    except KeyFileError as caught:
        error = caught
    else:
        assert key.public == file.public
        return
    assert str(error).startswith("file ")
    assert error.hint
    assert "\n" not in str(error) + error.hint


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


@pytest.mark.parametrize(("rounds", "believed"), [(2048, True), (MAX_ITERATIONS, True), (2**31 - 1, False)])
def test_rounds_that_take_for_ever_are_not_begun(rounds: int, believed: bool) -> None:
    def der(tag: int, *parts: bytes) -> bytes:
        body = b"".join(parts)
        return bytes((tag, len(body))) + body

    cost = der(0x30, der(0x04, b"saltsalt"), der(0x02, rounds.to_bytes(5, "big")))
    algorithm = der(0x30, der(0x06, b"pbes2"), der(0x30, der(0x30, der(0x06, b"pbkdf2"), cost)))
    file = armor(der(0x30, algorithm, der(0x04, bytes(16))), "ENCRYPTED PRIVATE KEY")
    if believed:
        assert parse(file, "key").encrypted
    else:
        with pytest.raises(KeyFileError, match="rounds of key derivation"):
            parse(file, "key")


def test_a_file_that_is_far_too_long_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "long"
    with path.open("wb") as file:
        file.truncate(MAX_FILE)
        assert len(read_file(str(path))) == MAX_FILE
        file.truncate(MAX_FILE + 1)
    with pytest.raises(KeyFileError, match="longer than"):
        read(str(path))


# PEM forms that ssh-keygen does not make


@pytest.mark.parametrize("passphrase", [None, b"pass"])
@pytest.mark.parametrize("key", [ed25519.Ed25519PrivateKey.generate(), ed448.Ed448PrivateKey.generate()])
def test_edwards_keys_in_pkcs8_are_read(key: Any, passphrase: bytes | None) -> None:
    encryption = BestAvailableEncryption(passphrase) if passphrase else NoEncryption()
    file = parse(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption), "file")
    assert file.encrypted == (passphrase is not None)
    read_key, comment = file.decrypt(passphrase)
    point = key.public_key().public_bytes_raw()
    assert read_key.fields == (point, key.private_bytes_raw() + point)
    assert comment == ""
    assert file.public == (None if passphrase else read_key.public)


@pytest.mark.parametrize("key", [x25519.X25519PrivateKey.generate(), ec.generate_private_key(ec.SECP256K1())])
def test_a_key_that_ssh_does_not_use_is_refused(key: Any) -> None:
    with pytest.raises(KeyFileError, match="holds a kind of key that SSH does not use"):
        parse(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()), "file")


@pytest.mark.interop
def test_putty_s_ecdsa_export_with_a_byte_too_many_is_read_or_refused_with_the_way_out(
    keygen: Any, tmp_path: Path
) -> None:
    key = ec.derive_private_key(0x9EDC << 240, ec.SECP256R1())
    der = key.private_bytes(Encoding.DER, PrivateFormat.TraditionalOpenSSL, NoEncryption())
    at = der.index(b"\x04\x20")
    odd = der[:1] + bytes((der[1] + 1,)) + der[2:at] + b"\x04\x21\0" + der[at + 2 :]
    path = tmp_path / "key"
    path.write_bytes(armor(odd, "EC PRIVATE KEY"))
    path.chmod(0o600)
    try:
        read(str(path))  # some versions of cryptography take it
    except KeyFileError as caught:
        assert "ssh-keygen -p -f FILE" in caught.hint  # noqa: PT017
    keygen.run("-p", "-P", "", "-N", "", "-f", str(path))
    assert read(str(path)).decrypt()[0].fields[2] == 0x9EDC << 240


# real files


@pytest.mark.interop
def test_ssh_keygen_s_keys_are_read(kind: str, keygen: Any) -> None:
    path = keygen.make(kind)
    file = read(path)
    key, comment = file.decrypt()
    assert not file.encrypted
    assert key.public == file.public == public_of(path)
    assert comment == f"{kind}@example"
    assert keygen.run("-y", "-f", path).stdout.decode().splitlines() == [key.public.line(comment)]


@pytest.mark.interop
def test_keys_encrypted_by_default_are_read(kind: str, keygen: Any) -> None:
    check_encrypted(kind, keygen.encrypted(kind, "default", "-a", "1", passphrase=SECRET), keygen)


@pytest.mark.interop
@pytest.mark.parametrize("cipher", CIPHERS)
def test_keys_encrypted_with_any_cipher_are_read(cipher: str, keygen: Any) -> None:
    for kind in ("ed25519", "rsa"):
        check_encrypted(kind, keygen.encrypted(kind, cipher, "-Z", cipher, "-a", "2", passphrase=SECRET), keygen)


def check_encrypted(kind: str, path: str, keygen: Any) -> None:
    file = read(path)
    assert file.encrypted
    assert file.public == public_of(keygen.make(kind))
    assert file.decrypt(SECRET.encode()) == read(keygen.make(kind)).decrypt()
    for wrong in (b"wrong", b"", None):
        with pytest.raises(WrongPassphrase) as caught:
            file.decrypt(wrong)
        assert str(caught.value).startswith(path)
        assert caught.value.hint


@pytest.mark.interop
@pytest.mark.parametrize("form", PEM)
@pytest.mark.parametrize("passphrase", ["", SECRET])
def test_the_older_forms_are_read(kind: str, form: str, passphrase: str, keygen: Any) -> None:
    if kind == "ed25519":
        return  # ssh-keygen keeps it in its own format
    file = read(keygen.encrypted(kind, f"{form}-{bool(passphrase)}", *PEM[form], passphrase=passphrase))
    key, comment = file.decrypt(passphrase.encode())
    assert file.encrypted == bool(passphrase)
    assert file.public == (None if passphrase else key.public)
    assert (key, comment) == (read(keygen.make(kind)).decrypt()[0], "")
    if passphrase:
        for wrong in (b"wrong", b"", None):
            with pytest.raises(WrongPassphrase):
                file.decrypt(wrong)


@pytest.mark.interop
def test_ssh_keygen_reads_the_layout_that_these_tests_write(private: PrivateKey, keygen: Any, tmp_path: Path) -> None:
    if private.type == "ssh-ed448":
        return  # OpenSSH does not know it; PuTTY's program below does
    path = tmp_path / "key"
    path.write_bytes(outside(private.public.blob, private_part(private, b"comment")))
    path.chmod(0o600)
    assert keygen.run("-y", "-f", str(path)).stdout.decode().splitlines() == [private.public.line("comment")]


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


def test_no_cryptography_is_loaded_to_look_at_an_encrypted_file(tmp_path: Path, private_keys: dict[str, Any]) -> None:
    options = string(b"s" * 16) + b"\0\0\0\1"
    blob = private_keys["ssh-ed25519"].public.blob
    (tmp_path / "key").write_bytes(outside(blob, bytes(128), cipher=b"aes256-ctr", kdf=b"bcrypt", options=options))
    code = (
        "import sys; from pageantry.keys.files import read; assert read(sys.argv[1]).encrypted;"
        "print([name for name in ('cryptography', 'bcrypt', 're', 'typing') if name in sys.modules])"
    )
    package = str(Path(sys.modules["pageantry"].__file__ or "").parents[1])
    done = subprocess.run(
        [sys.executable, "-S", "-c", code, str(tmp_path / "key")],
        env={**os.environ, "PYTHONPATH": package},
        check=True,
        capture_output=True,
        text=True,
    )
    assert done.stdout.strip() == "[]"
