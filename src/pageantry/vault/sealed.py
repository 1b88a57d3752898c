"""The cryptography that vault(1)'s stores share: AES-256-CBC, checked by an HMAC-SHA256 before it is opened."""

from __future__ import annotations

from ..errors import SettingsError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

IV_SIZE: Final = 16
MAC_SIZE: Final = 32


class Damaged(SettingsError):
    """A store, or a part of one, that is not what its format says. Says what, but not where."""


class WrongPassword(SettingsError):
    """The check sum does not fit: another password, or a damaged store, which nobody can tell apart."""

    def __init__(self) -> None:
        super().__init__("its check sum does not fit", "set VAULT_KEY to the password that vault(1) had")


def stretched(password: bytes, salt: bytes, iterations: int, size: int) -> bytes:
    """`size` bytes of key from a password, by PBKDF2-HMAC-SHA1."""
    from hashlib import pbkdf2_hmac

    return pbkdf2_hmac("sha1", password, salt, iterations, size)


def check(mac: bytes, key: bytes, message: bytes, *, hexadecimal: bool = False) -> None:
    """Raise `WrongPassword` unless `mac` is the HMAC-SHA256 of `message`, or that in hexadecimal."""
    import hmac

    expected = hmac.digest(key, message, "sha256")
    if not hmac.compare_digest(mac, expected.hex().encode() if hexadecimal else expected):
        raise WrongPassword


def unsealed(data: bytes, cipher_key: bytes, mac_key: bytes) -> bytes:
    """What is in IV ‖ ciphertext ‖ MAC, the MAC being that of the two before it. Raises `SettingsError`."""
    message, mac = data[:-MAC_SIZE], data[-MAC_SIZE:]
    check(mac, mac_key, message)
    return decrypted(message[IV_SIZE:], cipher_key, message[:IV_SIZE])


def decrypted(payload: bytes, key: bytes, iv: bytes) -> bytes:
    """`payload` out of AES-256-CBC and its padding. Raises `Damaged`."""
    from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
    from cryptography.hazmat.primitives.padding import PKCS7

    try:
        decryptor = Cipher(algorithms.AES(key), modes.CBC(iv)).decryptor()
        unpadder = PKCS7(128).unpadder()
        return unpadder.update(decryptor.update(payload) + decryptor.finalize()) + unpadder.finalize()
    except ValueError:
        raise Damaged("what it encrypts is cut off") from None


def unbase64(text: bytes, least: int) -> bytes:
    """`text` out of base64, white space ignored. Raises `Damaged`, also when it is below `least` bytes."""
    from binascii import Error, a2b_base64

    try:
        data = a2b_base64(b"".join(text.split()), strict_mode=True)
    except Error:
        raise Damaged("it is not base64") from None
    if len(data) < least:
        raise Damaged("it is too short")
    return data
