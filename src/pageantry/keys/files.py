"""Private key files: OpenSSH's own format, the PEM forms that came before it, and PuTTY's.

    file = read("/home/me/.ssh/id_ed25519")
    file.encrypted, file.public                # what can be known without the passphrase
    key, comment = file.decrypt(b"passphrase")

OpenSSH's format (its PROTOCOL.key) is read here, the others in `pem` and `ppk`; for what deciphers, `cryptography` is
imported.
"""

from __future__ import annotations

import os
import sys
from binascii import Error as _Base64Error
from binascii import a2b_base64

from ..errors import KeyFileError, WireError, WrongPassphrase
from ..wire import Reader
from .private import PrivateKey
from .public import PublicKey

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Final, TypeAlias

    #: From the passphrase, if any, to the key and its comment.
    Loader: TypeAlias = Callable[[bytes | None], tuple[PrivateKey, str]]

#: The longest file that is read, in bytes. An RSA key of 16384 bits takes 13 KiB.
MAX_FILE: Final = 1024 * 1024
#: The most rounds of bcrypt that a file may ask for. ssh-keygen's default is 16 or 24, each costs some 5 ms, and the
#: number is believed before anything in the file could be proven.
MAX_ROUNDS: Final = 1024

_PUTTY = b"PuTTY-User-Key-File-"
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
#: What to do about a file that is not whole.
DAMAGED_HINT: Final = "the file is damaged or cut off; use a copy of it"


class KeyFile:
    """One private key file, as far as it can be read without its passphrase."""

    __slots__ = ("_load", "comment", "encrypted", "public", "where")

    #: the name to speak of it by, such as its path
    where: str
    encrypted: bool
    #: the public key, in PuTTY's files perhaps a certificate; None where the format hides it (encrypted PEM)
    public: PublicKey | None
    #: the comment where the format never hides it (PuTTY's), otherwise empty: `decrypt` tells it then
    comment: str

    def __init__(
        self, where: str, *, encrypted: bool, public: PublicKey | None, load: Loader, comment: str = ""
    ) -> None:
        self.where = where
        self.encrypted = encrypted
        self.public = public
        self.comment = comment
        self._load = load

    @classmethod
    def parse(cls, data: bytes, where: str) -> KeyFile:
        """The key file that `data` holds; `where` is its name in messages. Raises `KeyFileError`."""
        if data.startswith(_PUTTY):
            from . import ppk

            return ppk.parse(data, where)
        head, marker, rest = data.partition(b"PRIVATE KEY-----")
        _, begin, kind = head.rpartition(b"-----BEGIN ")
        if not (begin and marker):
            raise _foreign(data, where)
        body, end, _ = rest.partition(b"-----END " + kind + marker)
        if not end:
            raise KeyFileError(f"{where} breaks off: its END line is missing", DAMAGED_HINT)
        if kind == b"OPENSSH ":
            return _openssh(body, where)
        from . import pem

        return pem.parse(begin + kind + marker + body + end, where)

    def decrypt(self, passphrase: bytes | None = None) -> tuple[PrivateKey, str]:
        """The key and its comment, which is empty in PEM files; a file that is not encrypted needs no passphrase.

        Raises `WrongPassphrase`, also when one is needed and none given, and `KeyFileError`.
        """
        if not self.encrypted:
            return self._load(None)
        if not passphrase:
            raise WrongPassphrase(f"{self.where} is encrypted and no passphrase was given", "give its passphrase")
        return self._load(passphrase)

    def __repr__(self) -> str:
        return f"<KeyFile {self.where!r}{' encrypted' if self.encrypted else ''}>"


def read(path: str) -> KeyFile:
    """The key file at `path`. Raises `KeyFileError`."""
    return KeyFile.parse(read_file(path), path)


def read_file(path: str) -> bytes:
    """The bytes of a regular file of at most `MAX_FILE` bytes. Raises `KeyFileError`; never waits on a FIFO."""
    from stat import S_ISREG

    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0) | getattr(os, "O_BINARY", 0)
    try:
        if not S_ISREG(os.stat(path).st_mode):  # opening a device may already do something
            raise KeyFileError(f"{path} is not a regular file", "name the file that holds the key")
        with open(os.open(path, flags), "rb") as file:
            if not S_ISREG(os.fstat(file.fileno()).st_mode):
                raise KeyFileError(f"{path} is not a regular file", "name the file that holds the key")
            data = file.read(MAX_FILE + 1)
    except FileNotFoundError:
        raise KeyFileError(f"{path} does not exist", "check the path of the key file") from None
    except PermissionError:
        what = "may not be read by this user"
        if sys.platform == "win32":
            what += ", or another program keeps it to itself"
        raise KeyFileError(f"{path} {what}", "check its owner and permissions") from None
    except (OSError, ValueError) as error:  # ValueError: a NUL byte in the path
        if isinstance(error, KeyFileError):
            raise
        reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
        raise KeyFileError(f"{path} cannot be read: {reason}", "check the path of the key file") from None
    if len(data) > MAX_FILE:
        raise KeyFileError(f"{path} is longer than {MAX_FILE} bytes", "name the file that holds the key")
    return data


def certificate_beside(path: str, key: PublicKey) -> PublicKey | None:
    """The certificate in `path`-cert.pub for `key`, that of the file at `path`; None where there is no such file.

    Raises `KeyFileError` when that file holds no certificate, or one for another key.
    """
    path += "-cert.pub"
    if not os.path.lexists(path):
        return None
    try:
        certificate = PublicKey.from_line(read_file(path).decode("utf-8", "surrogateescape"))
        if certificate.certificate is None:
            raise WireError(f"a key of type {certificate.type} in a certificate's place")
        if certificate.plain != key.plain:
            raise WireError("certificate for another key than the one it lies beside")
    except WireError as error:
        raise KeyFileError(f"{path}: {error}", "make a new certificate for this key, or move the file away") from None
    return certificate


def _foreign(data: bytes, where: str) -> KeyFileError:
    """The error for what is no private key file, by what it is instead."""
    if data.startswith(b"SSH PRIVATE KEY FILE FORMAT 1.1"):
        return KeyFileError(f"{where} is a key for SSH version 1", "make a new key with ssh-keygen")
    public = b"PUBLIC KEY-----" in data or b"SSH2 PUBLIC KEY ----" in data
    if not public:
        try:
            PublicKey.from_line(data.decode("utf-8", "surrogateescape"))
            public = True
        except WireError:
            pass
    if public:
        return KeyFileError(f"{where} is a public key", "name the private one, often the same without .pub at the end")
    what = "is no private key file" if data.strip() else "is empty"
    return KeyFileError(f"{where} {what}", "name a file that ssh-keygen made, the one without .pub at the end")


def _openssh(body: bytes, where: str) -> KeyFile:
    """A file of OpenSSH's own format; the public key stands in front, unencrypted."""
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
