import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.hazmat.primitives.kdf import argon2
from hypothesis import given, settings
from hypothesis import strategies as st

import pageantry
from pageantry.errors import KeyFileError, UnsupportedKey, WireError, WrongPassphrase
from pageantry.keys import ppk
from pageantry.keys.files import parse, read
from pageantry.keys.ppk import MAX_LINES, MAX_MEMORY, MAX_PARALLELISM, MAX_SALT, MAX_WORK, write
from pageantry.keys.private import PrivateKey
from pageantry.keys.public import PublicKey
from pageantry.keys.signatures import Signer
from pageantry.wire import Writer

Certify = Callable[[PublicKey], PublicKey]

HERE = Path(__file__).parents[1] / "interop" / "keys"
KINDS = ("ssh-ed25519", "ssh-ed448", "ssh-rsa", "ssh-dss", *(f"ecdsa-sha2-nistp{bits}" for bits in (256, 384, 521)))
COMMENTS = st.text(st.characters(codec="utf-8", exclude_characters="\0\r\n"), max_size=30)
SECRET = b"open sesame"
#: an Ed25519 key of PuTTY's, which takes little time to open with SECRET
SEALED = (HERE / "encrypted.ppk").read_bytes().replace(b"\r\n", b"\n")


def edwards(seed: bytes) -> PrivateKey:
    point = ed25519.Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes_raw()
    return PrivateKey("ssh-ed25519", (point, seed + point))


KEY = edwards(bytes(range(32)))
CLEAR = write(KEY, "me", None)


# both ways


@given(st.data())
@settings(deadline=None, max_examples=40)
def test_what_is_written_is_read(private_keys: dict[str, PrivateKey], certify: Certify, data: st.DataObject) -> None:
    key = private_keys[data.draw(st.sampled_from(KINDS))]
    if key.type != "ssh-ed448" and data.draw(st.booleans()):
        key = key.certified(certify(key.public))
    comment, version = data.draw(COMMENTS), data.draw(st.sampled_from((2, 3)))
    passphrase = data.draw(st.none() | st.binary(min_size=1, max_size=40))
    end = data.draw(st.sampled_from((b"\n", b"\r\n", b"\r")))
    written = write(key, comment, passphrase, version).replace(b"\n", end)
    file = parse(written + data.draw(st.sampled_from((b"", end))), "file")
    assert (file.encrypted, file.public, file.comment) == (passphrase is not None, key.public, comment)
    assert file.decrypt(passphrase) == (key, comment)
    for wrong in (passphrase + b"x", b"", None) if passphrase else ():
        with pytest.raises(WrongPassphrase, match=r"^file is encrypted") as caught:
            file.decrypt(wrong)
        assert caught.value.hint


@given(st.binary(min_size=32, max_size=32))
def test_any_ed25519_key_comes_back(seed: bytes) -> None:
    assert parse(write(edwards(seed), "", None), "file").decrypt() == (edwards(seed), "")


@given(st.text(max_size=20), st.sampled_from("\0\r\n"), st.text(max_size=20))
def test_a_comment_stays_in_its_line(start: str, breaking: str, end: str) -> None:
    file = parse(write(KEY, start + breaking + end, None), "file")
    assert "\0" not in file.comment
    assert file.decrypt() == (KEY, file.comment)
    assert len(file.comment) == len(start + breaking + end)


def test_a_comment_that_is_not_unicode_comes_back() -> None:
    assert b"\nComment: h\xe9\n" in write(KEY, "h\udce9", None)
    assert parse(write(KEY, "h\udce9", None), "file").comment == "h\udce9"


def test_an_empty_passphrase_is_none() -> None:
    assert write(KEY, "me", b"") == CLEAR


def test_every_encrypted_file_has_a_salt_of_its_own() -> None:
    assert write(KEY, "me", SECRET) != write(KEY, "me", SECRET)


def test_a_key_of_a_security_key_has_no_place_there(private_keys: dict[str, PrivateKey]) -> None:
    for name, key in private_keys.items():
        if key.public.hardware:
            with pytest.raises(UnsupportedKey, match=f"no place for a key of type {name}"):
                write(key, "", None)


@pytest.mark.parametrize("version", [0, 1, 4])
def test_other_versions_are_not_written(version: int) -> None:
    with pytest.raises(ValueError, match="version 2 or 3"):
        write(KEY, "", None, version)


# what is refused


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (b"File-3", b"File-1", "version 1 are out of use"),
        (b"File-3", b"File-4", "a PPK file of version '4', which is not known"),
        (b"File-3", b"File-03", "which is not known"),
        (b"File-3", b"File-", "which is not known"),
        (b": ssh-ed25519", b": ssh-rsa", "another type"),
        (b": ssh-ed25519", b"", "another type"),
        (b": ssh-ed25519", b" : ssh-ed25519", "which is not known"),
        (b": none", b": aes128-cbc", "'aes128-cbc', which is not known"),
        (b": none", b": ", "'', which is not known"),
        (b": none", b":none", "line 2 is not the one of Encryption"),
        (b"Comment: me\n", b"", "line 3 is not the one of Comment"),
        (b"Comment: me\n", b"\nComment: me\n", "line 3 is not"),
        (b"Comment: me", b"comment: me", "line 3 is not"),
        (b"Public-Lines: 2", b"Public-Lines: 1", "32 bytes announced at offset 19, 29 there"),
        (b"Public-Lines: 2", b"Public-Lines: 0", "Public-Lines is not a number"),
        (b"Public-Lines: 2", b"Public-Lines: -2", "Public-Lines is not a number"),
        (b"Public-Lines: 2", b"Public-Lines: ", "Public-Lines is not a number"),
        (b"Public-Lines: 2", b"Public-Lines: \xb2", "Public-Lines is not a number"),
        (b"Public-Lines: 2", b"Public-Lines: 3", "are not base64"),
        (b"Public-Lines: 2", b"Public-Lines: %d" % MAX_LINES, "breaks off"),
        (b"Public-Lines: 2", b"Public-Lines: %d" % (MAX_LINES + 1), f"not a number from 1 to {MAX_LINES}"),
        (b"Public-Lines: 2", b"Public-Lines: " + b"9" * 10000, f"not a number from 1 to {MAX_LINES}"),
        (b"AAAAC3", b"AAAA!3", "Public-Lines are not base64"),
        (b"AAAAC3", b"AAAAD3", "without a proper type name"),
        (b"AAAAC3NzaC1lZDI1", b"AAAAC3NzaC1lZDI2", "another type"),
        (b"\nPrivate-Lines: 1\n", b"\n", "line 7 is not"),
        (b"Private-MAC: ", b"Private-MAC: 00", "Private-MAC is not hexadecimal"),
        (b"Private-MAC: ", b"Private-MAC: x", "Private-MAC is not hexadecimal"),
        (b"Private-MAC: ", b"Private-Hash: ", "line 9 is not the one of Private-MAC"),
    ],
)
def test_a_line_that_says_the_wrong_thing_is_refused(old: bytes, new: bytes, message: str) -> None:
    refused(CLEAR.replace(old, new, 1), message)


def refused(data: bytes, message: str) -> None:
    with pytest.raises(KeyFileError, match=message) as caught:
        parse(data, "some file")
    assert str(caught.value).startswith("some file cannot be read: ")
    assert caught.value.hint
    assert "\n" not in str(caught.value) + caught.value.hint


def test_every_line_must_be_there_once_in_its_place() -> None:
    for whole in (CLEAR, SEALED):
        lines = whole.splitlines()
        for at in range(len(lines)):
            for changed in (lines[:at], lines[:at] + lines[at + 1 :], [*lines[: at + 1], *lines[at:]]):
                with pytest.raises(KeyFileError):
                    parse(b"\n".join(changed), "file").decrypt(SECRET)
        refused(whole + b"more", "more behind its MAC")


def test_a_key_of_a_type_that_ppk_files_do_not_have_is_refused(private_keys: dict[str, PrivateKey]) -> None:
    for blob in (private_keys["sk-ssh-ed25519@openssh.com"].public.blob, bytes(Writer().text("ssh-new1"))):
        public = PublicKey(blob)
        data = CLEAR.replace(b"ssh-ed25519", public.type.encode()).split(b"Public-Lines")[0]
        data += b"\n".join((*ppk._base64("Public-Lines", blob), *CLEAR.splitlines()[6:]))
        refused(data, "not known in PPK files")


@pytest.mark.parametrize("version", [2, 3])
def test_damage_to_a_file_in_the_clear_is_not_called_a_wrong_passphrase(version: int) -> None:
    data = write(KEY, "me", None, version)
    for old, new in ((b"Comment: me", b"Comment: you"), (b"AAAAIAAB", b"AAAAIBAB"), (b"Private-MAC: ", None)):
        changed = data.replace(old, new) if new else data[:-5] + bytes((data[-5] ^ 1,)) + data[-4:]
        with pytest.raises(KeyFileError, match=r"^file is damaged: its MAC") as caught:
            parse(changed, "file").decrypt()
        assert not isinstance(caught.value, WrongPassphrase)
        assert caught.value.hint


def test_damage_to_an_encrypted_file_is_noticed() -> None:
    assert parse(SEALED, "file").decrypt(SECRET)[1] == "test key encrypted"
    with pytest.raises(WrongPassphrase):
        parse(SEALED.replace(b"test key", b"best key"), "file").decrypt(SECRET)
    private = SEALED.index(b"Private-Lines: 1\n") + len(b"Private-Lines: 1\n")
    changed = SEALED[:private] + (b"B" if SEALED[private] == ord("A") else b"A") + SEALED[private + 1 :]
    with pytest.raises(WrongPassphrase):
        parse(changed, "file").decrypt(SECRET)
    refused(SEALED[:private] + b"AAAA" + SEALED[private + 64 :], "3 bytes are not whole blocks")


def test_a_private_part_that_is_none_is_refused(private_keys: dict[str, PrivateKey]) -> None:
    for kind, private, message in (
        ("ssh-ed25519", b"\0", "announced"),
        ("ssh-ed25519", bytes(Writer().string(b"\1" * 33)), "halves differ"),
        ("ssh-ed25519", bytes(Writer().string(bytes(32))) + b"\0", "1 bytes more"),
        ("ssh-rsa", bytes(Writer().mpint(1).mpint(2).mpint(3)), "announced"),
        ("ecdsa-sha2-nistp256", bytes(Writer().string(b"\xff")), "negative"),
    ):
        file = parse(with_private_part(private_keys[kind], private), "file")
        with pytest.raises(KeyFileError, match=message) as caught:
            file.decrypt()
        assert caught.value.hint


def with_private_part(key: PrivateKey, private: bytes) -> bytes:
    """A file in the clear with `key`, whose private part is another one and has the right MAC."""
    mac = ppk._Secrets(3, b"", None).mac(key.type.encode(), b"none", b"me", key.public.blob, private)
    head, _, _ = write(key, "me", None).partition(b"Private-Lines")
    return head + b"\n".join((*ppk._base64("Private-Lines", private), b"Private-MAC: " + mac.hex().encode()))


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("Argon2-Memory", MAX_MEMORY + 1, f"not a number from 1 to {MAX_MEMORY}"),
        ("Argon2-Memory", 2**32 - 1, "Argon2-Memory is not a number"),
        ("Argon2-Memory", 0, "Argon2-Memory is not a number"),
        ("Argon2-Memory", 7, "less than Argon2 takes"),
        ("Argon2-Passes", MAX_WORK // 256 + 1, f"not a number from 1 to {MAX_WORK // 256}"),
        ("Argon2-Passes", 0, "Argon2-Passes is not a number"),
        ("Argon2-Parallelism", MAX_PARALLELISM + 1, f"not a number from 1 to {MAX_PARALLELISM}"),
        ("Argon2-Parallelism", 33, "less than Argon2 takes"),
        ("Argon2-Parallelism", 0, "Argon2-Parallelism is not a number"),
        ("Argon2-Salt", "00" * 7, "Argon2-Salt is not hexadecimal"),
        ("Argon2-Salt", "00" * (MAX_SALT + 1), "Argon2-Salt is not hexadecimal"),
        ("Argon2-Salt", "0g" * 16, "Argon2-Salt is not hexadecimal"),
        ("Key-Derivation", "Argon2x", "'Argon2x', which is not known"),
    ],
)
def test_what_costs_too_much_is_refused_before_a_passphrase_is_asked_for(
    name: str, value: object, message: str
) -> None:
    refused(with_line(SEALED, name, value), message)


def with_line(data: bytes, name: str, value: object) -> bytes:
    return b"\n".join(
        f"{name}: {value}".encode() if line.startswith(name.encode()) else line for line in data.splitlines()
    )


@pytest.mark.parametrize("kind", ["Argon2id", "Argon2i", "Argon2d"])
def test_a_cryptography_without_argon2_is_said(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(argon2, kind)
    file = parse(with_line(SEALED, "Key-Derivation", kind), "file")
    with pytest.raises(KeyFileError, match=f"{kind} is not known to this Python's cryptography") as caught:
        file.decrypt(SECRET)
    assert "upgrade" in caught.value.hint
    if kind == "Argon2id":
        with pytest.raises(WireError, match="not known"):
            write(KEY, "me", SECRET)
    assert parse(write(KEY, "me", SECRET, 2), "file").decrypt(SECRET) == (KEY, "me")


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux keeps a process from having memory")
def test_memory_that_is_not_there_is_said(tmp_path: Path) -> None:
    (tmp_path / "key").write_bytes(with_line(SEALED, "Argon2-Memory", MAX_MEMORY))
    code = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_AS, (2**29, 2**29));"
        "from pageantry.keys.files import read\n"
        "try: read(sys.argv[1]).decrypt(b'x')\n"
        "except Exception as error: print(type(error).__name__, error, error.hint)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "key")],
        env={**os.environ, "PYTHONPATH": os.path.dirname(os.path.dirname(pageantry.__file__))},
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stdout.startswith("KeyFileError ")
    assert "takes 1048576 KiB of memory, which are not there" in done.stdout


@given(st.data())
@settings(deadline=None)
def test_any_damage_is_noticed_or_harmless(private_keys: dict[str, PrivateKey], data: st.DataObject) -> None:
    key = private_keys[data.draw(st.sampled_from(KINDS))]
    passphrase = data.draw(st.sampled_from((None, SECRET)))
    whole = write(key, "me", passphrase, data.draw(st.sampled_from((2, 3))) if passphrase is None else 2)
    start = data.draw(st.integers(0, len(whole)))
    end = start + data.draw(st.integers(0, 6))
    changed = whole[:start] + data.draw(st.binary(max_size=6)) + whole[end:]
    try:
        file = parse(changed, "file")
        assert file.decrypt(SECRET) == (key, "me")
    except KeyFileError as error:
        assert str(error).startswith("file ")  # noqa: PT017
        assert error.hint  # noqa: PT017
        assert "\n" not in str(error) + error.hint  # noqa: PT017


@given(st.binary(max_size=200), st.integers(0, len(SEALED)))
def test_any_bytes_are_read_or_refused(junk: bytes, at: int) -> None:
    for data in (b"PuTTY-User-Key-File-3: " + junk, CLEAR[:at] + junk, SEALED[:at] + junk):
        try:
            parse(data, "file")
        except KeyFileError:
            pass


def test_no_error_tells_of_the_private_key() -> None:
    lines = CLEAR.splitlines()
    secret = lines[7].decode()
    for at in range(1, 9):
        for changed in (lines[:at] + lines[at + 1 :], [*lines[:at], lines[7], *lines[at:]]):
            with pytest.raises(KeyFileError) as caught:
                parse(b"\n".join(changed), "file").decrypt()
            assert secret[:12] not in str(caught.value) + caught.value.hint
    file = parse(CLEAR, "file")
    assert repr(file) == "<KeyFile 'file'>"


# PuTTY's own files


@pytest.mark.parametrize("name", ["ed25519", "rsa"])
def test_a_ppk_file_holds_the_same_key_as_openssh_s(name: str) -> None:
    ours, theirs = read(str(HERE / f"{name}.ppk")), read(str(HERE / name))
    assert not ours.encrypted
    assert ours.public == theirs.public
    assert ours.decrypt()[0] == theirs.decrypt()[0]
    assert ours.decrypt()[1] == ours.comment == f"test key {name}"


class Puttygen:
    """The real puttygen, and files to keep passphrases and keys in."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.secret, self.empty = self.path("secret"), self.path("empty")
        Path(self.secret).write_bytes(SECRET)
        Path(self.empty).touch()

    def path(self, name: str) -> str:
        return str(self.folder / name)

    def run(self, *arguments: str) -> bytes:
        done = subprocess.run(["puttygen", *arguments], capture_output=True, timeout=60)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def passphrases(self, encrypted: bool) -> tuple[str, ...]:
        secret = self.secret if encrypted else self.empty
        return "--old-passphrase", secret, "--new-passphrase", secret

    def opened(self, path: str) -> tuple[PrivateKey, str]:
        """The key of a PPK file with SECRET or none, by way of OpenSSH's format."""
        new = self.path("opened")
        arguments = ("--old-passphrase", self.secret, "--new-passphrase", self.empty)
        self.run(path, "-O", "private-openssh-new", *arguments, "-o", new)
        try:
            return read(new).decrypt()
        finally:
            os.remove(new)


@pytest.fixture
def puttygen(tmp_path: Path) -> Puttygen:
    if sys.platform == "win32":
        pytest.skip("puttygen for Windows is a window, not a command")
    if not shutil.which("puttygen"):
        pytest.skip("puttygen (putty-tools) is not installed")
    return Puttygen(tmp_path)


MADE = [
    ("rsa", "-b", "2048"),
    ("dsa", "-b", "1024"),
    ("dsa", "-b", "2048"),
    ("ecdsa", "-b", "256"),
    ("ecdsa", "-b", "384"),
    ("ecdsa", "-b", "521"),
    ("ed25519",),
    ("ed448",),
]


@pytest.mark.interop
@pytest.mark.parametrize("kind", MADE, ids="-".join)
def test_puttygen_s_keys_are_read(kind: tuple[str, ...], puttygen: Puttygen) -> None:
    made, path = puttygen.path("made.ppk"), puttygen.path("key.ppk")
    puttygen.run("-q", "-t", *kind, "-C", "me @ h\u00e9re: ", "--new-passphrase", puttygen.empty, "-o", made)
    for version in (2, 3):
        for passphrase in (puttygen.empty, puttygen.secret):
            parameters = ("--new-passphrase", passphrase, "--ppk-param", f"version={version}")
            puttygen.run(made, "-P", *parameters, "-O", "private", "-o", path)
            check_puttygen_s(path, passphrase == puttygen.secret, puttygen)


def check_puttygen_s(path: str, encrypted: bool, puttygen: Puttygen) -> None:
    file = read(path)
    key, comment = file.decrypt(SECRET)
    assert (file.encrypted, file.comment, comment) == (encrypted, "me @ h\u00e9re: ", "me @ h\u00e9re: ")
    assert file.public == key.public
    assert puttygen.opened(path) == (key, comment)
    assert key.public.fingerprint().encode() in puttygen.run("-l", path)
    Signer(key)  # its numbers are a key
    if encrypted:
        with pytest.raises(WrongPassphrase):
            file.decrypt(SECRET + b"!")


@pytest.mark.interop
@pytest.mark.parametrize("parallelism", [1, 3])
@pytest.mark.parametrize("kind", ["argon2id", "argon2i", "argon2d"])
def test_every_argon2_of_puttygen_is_read(kind: str, parallelism: int, puttygen: Puttygen) -> None:
    path, costs = puttygen.path("key.ppk"), f"kdf={kind},memory=1027,passes=3,parallelism={parallelism}"
    puttygen.run("-q", "-t", "ed25519", "--new-passphrase", puttygen.secret, "--ppk-param", costs, "-o", path)
    assert read(path).decrypt(SECRET) == puttygen.opened(path)


@pytest.mark.interop
@pytest.mark.parametrize("encrypted", [False, True])
@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("name", KINDS)
def test_puttygen_reads_what_is_written(
    name: str, version: int, encrypted: bool, puttygen: Puttygen, private_keys: dict[str, PrivateKey]
) -> None:
    key, path = private_keys[name], puttygen.path("key.ppk")
    Path(path).write_bytes(write(key, " me @ h\u00e9re: ", SECRET if encrypted else None, version))
    assert puttygen.opened(path) == (key, " me @ h\u00e9re: ")
    assert puttygen.run("-L", path).decode().split()[1] == key.public.base64


@pytest.mark.interop
@pytest.mark.parametrize(("version", "encrypted"), [(2, False), (2, True), (3, False)])
@pytest.mark.parametrize("name", KINDS)
def test_where_chance_has_no_part_puttygen_writes_the_same_bytes(
    name: str, version: int, encrypted: bool, puttygen: Puttygen, private_keys: dict[str, PrivateKey]
) -> None:
    path, again = puttygen.path("key.ppk"), puttygen.path("again.ppk")
    Path(path).write_bytes(write(private_keys[name], "me", SECRET if encrypted else None, version))
    parameters = ("--ppk-param", f"version={version}", "-O", "private", "-o", again)
    puttygen.run(path, "--reencrypt", *puttygen.passphrases(encrypted), *parameters)
    assert Path(again).read_bytes() == Path(path).read_bytes()


@pytest.mark.interop
def test_certificates_go_both_ways(kind: str, keygen: Any, puttygen: Puttygen) -> None:
    made = keygen.make(kind)
    certificate = PublicKey.from_line(Path(keygen.certificate(kind)).read_text())
    path, again = puttygen.path("key.ppk"), puttygen.path("again.ppk")
    arguments = ("--certificate", keygen.certificate(kind), "--new-passphrase", puttygen.empty)
    puttygen.run(made, *arguments, "-C", "me", "-o", path)
    file = read(path)
    key, _ = file.decrypt()
    assert file.public == key.public == certificate
    assert key.plain == read(made).decrypt()[0]
    assert write(key, "me", None) == Path(path).read_bytes()
    Path(path).write_bytes(write(key, "me", SECRET))
    puttygen.run(path, "--remove-certificate", *puttygen.passphrases(encrypted=True), "-o", again)
    assert read(again).decrypt(SECRET) == (key.plain, "me")


@pytest.mark.interop
@pytest.mark.parametrize("seed", [bytes(range(30)), bytes(range(1, 32)) + b"\xff\0", bytes(range(32))])
def test_a_seed_may_be_written_with_fewer_or_more_zeros_at_its_end(seed: bytes, puttygen: Puttygen) -> None:
    key = edwards(seed[:32].ljust(32, b"\0"))
    path = Path(puttygen.path("key.ppk"))
    path.write_bytes(with_private_part(key, bytes(Writer().string(seed))) + b"\n")
    assert read(str(path)).decrypt() == puttygen.opened(str(path)) == (key, "me")
