"""Private keys in OpenSSH's own format (its PROTOCOL.key). For what deciphers, `cryptography` is imported."""

from __future__ import annotations

from binascii import Error as _Base64Error
from binascii import a2b_base64

from ..errors import KeyFileError, WireError, WrongPassphrase
from ..wire import Reader
from .keyfile import DAMAGED_HINT, KeyFile
from .private import PrivateKey
from .public import PublicKey

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Final

#: The most rounds of bcrypt that a file may ask for. ssh-keygen's default is 16 or 24, each costs some 5 ms, and the
#: number is believed before anything in the file could be proven.
MAX_ROUNDS: Final = 1024

_MAGIC = b"openssh-key-v1\0"
#: Sizes in bytes of key, initialisation vector, block and authentication tag.
_CIPHERS = {
    "none": (0, 0, 8, 0),
    "aes128-ctr": (16, 16, 16, 0),
    "aes192-ctr": (24, 16, 16, 0),
    "aes256-ctr": (32, 16, 16, 0),
    "aes128-cbc": (16, 16, 16, 0),
    "aes192-cbc": (24, 16, 16, 0),
    "aes256-cbc": (32, 16, 16, 0),
    "3des-cbc": (24, 8, 8, 0),
    "aes128-gcm@openssh.com": (16, 12, 16, 16),
    "aes256-gcm@openssh.com": (32, 12, 16, 16),
    "chacha20-poly1305@openssh.com": (64, 0, 8, 16),
}


def parse(body: bytes, where: str) -> KeyFile:
    """The key file whose base64, between BEGIN and END, is `body`; the public key stands in front, unencrypted.

    Raises `KeyFileError`.
    """
    try:
        cipher, options, public, sealed, tag = _read_outside(a2b_base64(b"".join(body.split()), strict_mode=True))
    except (WireError, _Base64Error) as error:
        raise KeyFileError(f"{where} cannot be read: {error}", DAMAGED_HINT) from None

    def load(passphrase: bytes | None) -> tuple[PrivateKey, str]:
        try:
            opened = sealed if passphrase is None else _decipher(cipher, options, sealed, tag, passphrase)
            if opened is not None:
                return _read_inside(opened, public)
        except WireError as error:
            raise KeyFileError(f"{where} cannot be read: {error}", error.hint or DAMAGED_HINT) from None
        raise WrongPassphrase(f"{where} is encrypted with another passphrase", "try again")

    return KeyFile(where, encrypted=cipher != "none", public=public, load=load)


def _read_outside(data: bytes) -> tuple[str, bytes, PublicKey, bytes, bytes]:
    """The cipher, the options of bcrypt, the public key, the private part as it is, and its authentication tag."""
    if not data.startswith(_MAGIC):
        raise WireError("an unknown version of OpenSSH's format")
    reader = Reader(data[len(_MAGIC) :])
    cipher, kdf, options, count = reader.text(), reader.text(), reader.string(), reader.uint32()
    if count != 1:
        raise WireError(f"{count} keys in it, not one")
    public, sealed, tag = PublicKey(reader.string()), reader.string(), reader.rest()
    _check_header(cipher, kdf, len(sealed), len(tag))
    return cipher, options, public, sealed, tag


def _read_inside(opened: bytes, public: PublicKey) -> tuple[PrivateKey, str]:
    """The key and its comment; `public` is what the file says outside."""
    reader = Reader(opened)
    if reader.uint32() != reader.uint32():
        raise WireError("its check numbers differ")
    key, comment = PrivateKey.read(reader), reader.text()
    padding = reader.rest()
    if padding != bytes(i & 0xFF for i in range(1, len(padding) + 1)):
        raise WireError("padding that is not 1, 2, 3 …")
    if key.public != public:
        raise WireError("the public key in front is not that of the private key")
    return key, comment


def _check_header(cipher: str, kdf: str, size: int, tag: int) -> None:
    if cipher not in _CIPHERS:
        raise WireError(f"it is encrypted with {cipher[:64]!r}, which is not known")
    if kdf != ("none" if cipher == "none" else "bcrypt"):
        raise WireError(f"its passphrase goes through {kdf[:64]!r}, which is not known")
    _, _, block, expected = _CIPHERS[cipher]
    if size == 0 or size % block or tag != expected:
        raise WireError(f"{size} bytes of {cipher} followed by {tag}")


def _decipher(cipher: str, options: bytes, sealed: bytes, tag: bytes, passphrase: bytes) -> bytes | None:
    """The private part, or None where this is not its passphrase: the tag or the check numbers say so."""
    from bcrypt import kdf
    from cryptography.exceptions import InvalidSignature, InvalidTag

    reader = Reader(options)
    salt, rounds = reader.string(), reader.uint32()
    reader.end()
    if not (salt and 0 < rounds <= MAX_ROUNDS):
        raise WireError(
            f"it asks for {rounds} rounds of bcrypt with {len(salt)} bytes of salt; 1 to {MAX_ROUNDS} are believed",
            "if the file is yours, have it written with fewer: ssh-keygen -p -a 24 -f FILE",
        )
    key_size, iv_size, _, _ = _CIPHERS[cipher]
    material = kdf(passphrase, salt, key_size + iv_size, rounds, ignore_few_rounds=True)
    try:
        opened = _decrypt(cipher, material[:key_size], material[key_size:], sealed, tag)
    except (InvalidTag, InvalidSignature):
        return None
    return opened if opened[:4] == opened[4:8] else None


def _decrypt(cipher: str, key: bytes, iv: bytes, sealed: bytes, tag: bytes) -> bytes:
    from cryptography.hazmat.primitives.ciphers import Cipher, aead, algorithms, modes

    if cipher.startswith("chacha20"):
        return _chacha20_poly1305(key[:32], sealed, tag)
    if "-gcm@" in cipher:
        return aead.AESGCM(key).decrypt(iv, sealed + tag, None)
    algorithm: Any = algorithms.AES
    if cipher == "3des-cbc":
        from cryptography.hazmat.decrepit.ciphers import algorithms as decrepit

        algorithm = decrepit.TripleDES
    mode = modes.CTR(iv) if cipher.endswith("-ctr") else modes.CBC(iv)
    decryptor = Cipher(algorithm(key), mode).decryptor()
    return decryptor.update(sealed) + decryptor.finalize()


def _chacha20_poly1305(key: bytes, sealed: bytes, tag: bytes) -> bytes:
    """SSH's variant (OpenSSH's PROTOCOL.chacha20poly1305), with the sequence number 0 that key files have.

    The first block of the key stream is Poly1305's key, the text starts with the second; no additional data.
    """
    from cryptography.hazmat.primitives.ciphers import Cipher, algorithms
    from cryptography.hazmat.primitives.poly1305 import Poly1305

    stream = Cipher(algorithms.ChaCha20(key, bytes(16)), mode=None).decryptor()
    Poly1305.verify_tag(stream.update(bytes(64))[:32], sealed, tag)
    return stream.update(sealed)
