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

from pageantry.errors import KeyFileError, WrongPassphrase
from pageantry.keys.files import parse, read
from pageantry.keys.pem import MAX_ITERATIONS
from pageantry.keys.signatures import MAX_RSA_BITS

from .layout import armor

SECRET = "correct horse"
PEM = {"PEM": ("-m", "PEM"), "PKCS8": ("-m", "PKCS8")}


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


def integers(*numbers: int) -> bytes:
    """A sequence of them in DER."""
    return der(0x30, *(der(0x02, number.to_bytes(number.bit_length() // 8 + 1, "big")) for number in numbers))


def der(tag: int, *parts: bytes) -> bytes:
    body = b"".join(parts)
    return bytes((tag, 0x84)) + len(body).to_bytes(4, "big") + body


@pytest.mark.parametrize("at", [1, 3, 4, 5])
@pytest.mark.parametrize("form", ["PKCS#1", "PKCS#8", "with headers"])
def test_numbers_that_keep_the_processor_busy_are_not_looked_at(
    at: int, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[bytes] = []

    def look(data: bytes, _: bytes | None, **options: bool) -> None:
        looked.append(data)
        raise ValueError("which takes minutes")

    monkeypatch.setattr("cryptography.hazmat.primitives.serialization.load_pem_private_key", look)
    most = MAX_RSA_BITS if at < 4 else MAX_RSA_BITS // 2
    for bits, believed in (most, True), (most + 100, False):
        numbers = [0, *[3] * 8]
        numbers[at] = 2**bits - 1
        key = integers(*numbers)
        if form == "PKCS#8":
            key = der(0x30, der(0x02, b"\0"), der(0x30), der(0x04, key))
        file = armor(key, "PRIVATE KEY" if form == "PKCS#8" else "RSA PRIVATE KEY")
        if form == "with headers":
            file = file.replace(b"-----\n", b"-----\nNote: whatever\n\n", 1)
        looked.clear()
        with pytest.raises(KeyFileError) as caught:
            parse(file, "key")
        assert bool(looked) == believed
        assert ("larger numbers" in str(caught.value)) != believed


# what ssh-keygen does not make


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
