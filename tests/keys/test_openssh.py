import os
import subprocess
import sys
from base64 import b64decode
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pageantry.errors import KeyFileError, WrongPassphrase
from pageantry.keys.files import parse, read
from pageantry.keys.openssh import MAX_ROUNDS
from pageantry.keys.private import PrivateKey
from pageantry.keys.public import PublicKey

from .layout import armor, look_at, outside, private_part, string

SECRET = "correct horse"
CIPHERS = (
    "aes128-ctr", "aes192-ctr", "aes256-ctr", "aes128-cbc", "aes192-cbc", "aes256-cbc", "3des-cbc",
    "aes128-gcm@openssh.com", "aes256-gcm@openssh.com", "chacha20-poly1305@openssh.com",
)  # fmt: skip


def public_of(path: str) -> PublicKey:
    return PublicKey.from_line(Path(path + ".pub").read_text())


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
def test_ssh_keygen_reads_the_layout_that_these_tests_write(private: PrivateKey, keygen: Any, tmp_path: Path) -> None:
    if private.type == "ssh-ed448":
        return  # OpenSSH does not know it; PuTTY's program below does
    path = tmp_path / "key"
    path.write_bytes(outside(private.public.blob, private_part(private, b"comment")))
    path.chmod(0o600)
    assert keygen.run("-y", "-f", str(path)).stdout.decode().splitlines() == [private.public.line("comment")]
