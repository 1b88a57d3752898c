"""vault(1)'s own settings in one encrypted file: the formats of its versions 0.2 and 0.3. Read only."""

from __future__ import annotations

from .derive import UUID
from .sealed import IV_SIZE, MAC_SIZE, check, decrypted, stretched, unbase64

_SALT = UUID.encode()


def read_v03(data: bytes, password: bytes) -> bytes:
    """The JSON text in a file of vault 0.3: base64 of IV ‖ ciphertext ‖ MAC.

    The keys' hexadecimal text is what serves as keys, and that of the message is what the MAC is made of.
    Raises `SettingsError`.
    """
    sealed = unbase64(data, IV_SIZE + 16 + MAC_SIZE)
    message, mac = sealed[:-MAC_SIZE], sealed[-MAC_SIZE:]
    check(mac, _hex_key(password, 200, 16), message.hex().encode())
    return decrypted(message[IV_SIZE:], _hex_key(password, 100, 16), message[:IV_SIZE])


def read_v02(data: bytes, password: bytes) -> bytes:
    """The JSON text in a file of vault 0.2: base64 of IV ‖ base64 of the ciphertext ‖ MAC in hexadecimal.

    Its key and IV are not the ones that are there: node's old `createCipher` makes both from a password, which is
    base64 of these two. Raises `SettingsError`.
    """
    from binascii import b2a_base64
    from hashlib import md5

    sealed = unbase64(data, IV_SIZE + 24 + 2 * MAC_SIZE)
    message, mac = sealed[: -2 * MAC_SIZE], sealed[-2 * MAC_SIZE :]
    check(mac, _hex_key(password, 16, 8), b2a_base64(message, newline=False), hexadecimal=True)
    secret = b2a_base64(message[:IV_SIZE] + _hex_key(password, 16, 4), newline=False)
    block = material = b""
    while len(material) < 32 + IV_SIZE:  # OpenSSL's EVP_BytesToKey with MD5, one iteration and no salt
        block = md5(block + secret, usedforsecurity=False).digest()
        material += block
    return decrypted(unbase64(message[IV_SIZE:], 16), material[:32], material[32:])


def _hex_key(password: bytes, iterations: int, size: int) -> bytes:
    return stretched(password, _SALT, iterations, size).hex().encode()
