"""PuTTY's key files (PPK), versions 2 and 3: read, and written.

    key, comment = parse(data, "key.ppk").decrypt(b"passphrase")
    data = write(key, "me@home", b"passphrase")

The public key, or a certificate in its place, and the comment stand in the clear; a MAC over them and the private key
tells whether the passphrase was the right one. Format: PuTTY's manual, appendix C.
"""

from __future__ import annotations

import os
from binascii import Error as _BinasciiError
from binascii import a2b_base64, a2b_hex, b2a_base64

from ..errors import KeyFileError, UnsupportedKey, WireError, WrongPassphrase
from ..wire import Reader, Struct, Writer
from .keyfile import DAMAGED_HINT, KeyFile
from .private import PrivateKey
from .public import PublicKey

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Final

#: What Argon2 may be asked for, which is believed before anything in the file could be proven: memory in KiB, memory
#: in KiB times passes (some 5 to 15 seconds), and threads. PuTTY's default is 8 MiB, as many passes as take 0.1 s
#: (about 20), and one thread.
MAX_MEMORY: Final = 1024 * 1024
MAX_WORK: Final = 8 * MAX_MEMORY
MAX_PARALLELISM: Final = 64
#: The salt in bytes: OpenSSL takes no shorter one, and nobody needs a longer one. PuTTY's has 16.
MIN_SALT: Final = 8
MAX_SALT: Final = 64
#: The most lines of base64, at 48 bytes each. A certificate for an RSA key of 16384 bits takes less than 150.
MAX_LINES: Final = 4096

_BEGIN = b"PuTTY-User-Key-File-"
_ENCRYPTION = b"aes256-cbc"
_BLOCK = 16
_HASHES = {2: "sha1", 3: "sha256"}
_MAC_SIZES = {2: 20, 3: 32}
_LINE = 48  # bytes in a line of base64
_SEEDS = {"ssh-ed25519": 32, "ssh-ed448": 57}
#: Of the other types, where among the fields of `private.PRIVATE_LAYOUTS` those of the file's private part are.
_PRIVATE = {
    "ssh-rsa": (2, 4, 5, 3),  # d, p, q, iqmp
    "ssh-dss": (4,),
    "ecdsa-sha2-nistp256": (2,),
    "ecdsa-sha2-nistp384": (2,),
    "ecdsa-sha2-nistp521": (2,),
}
#: What in a comment would end its line, or PuTTY's view of it.
_CLEAN = {ord(char): " " for char in "\0\r\n"}
_COSTLY_HINT = "if the file is yours, save it with PuTTY's defaults: puttygen KEY.ppk --reencrypt -o KEY.ppk"


class _Argon2(Struct):
    """How a passphrase becomes a key (RFC 9106)."""

    kind: str
    memory: int  #: in KiB
    passes: int
    parallelism: int
    salt: bytes

    def derive(self, passphrase: bytes) -> bytes:
        """80 bytes. Raises `WireError` where this machine cannot do that."""
        from cryptography.exceptions import UnsupportedAlgorithm

        try:
            from cryptography.hazmat.primitives.kdf import argon2

            kind: Any = getattr(argon2, self.kind)
            costs = {"memory_cost": self.memory, "iterations": self.passes, "lanes": self.parallelism}
            return bytes(kind(salt=self.salt, length=80, **costs).derive(passphrase))
        except MemoryError:
            raise WireError(
                f"{self.kind} takes {self.memory} KiB of memory, which are not there", _COSTLY_HINT
            ) from None
        except (ImportError, AttributeError, UnsupportedAlgorithm):
            raise WireError(
                f"{self.kind} is not known to this Python's cryptography, or its OpenSSL",
                "pip install --upgrade cryptography, or save it as of old: puttygen KEY.ppk -P --ppk-param version=2",
            ) from None


class _Secrets:
    """What the passphrase becomes. A file that is not encrypted has an empty one, and of this the MAC alone."""

    def __init__(self, version: int, passphrase: bytes, argon2: _Argon2 | None) -> None:
        from hashlib import sha1

        self._hash = _HASHES[version]
        if version == 2:
            halves = (sha1(bytes((0, 0, 0, half)) + passphrase).digest() for half in (0, 1))  # noqa: S324
            self._key, self._vector = b"".join(halves)[:32], bytes(_BLOCK)
            self._mac_key = sha1(b"putty-private-key-file-mac-key" + passphrase).digest()  # noqa: S324
        else:
            material = argon2.derive(passphrase) if argon2 else b""
            self._key, self._vector, self._mac_key = material[:32], material[32:48], material[48:]

    def mac(self, kind: bytes, encryption: bytes, comment: bytes, public: bytes, private: bytes) -> bytes:
        import hmac

        writer = Writer().string(kind).string(encryption).string(comment).string(public).string(private)
        return hmac.digest(self._mac_key, bytes(writer), self._hash)

    def encrypt(self, blocks: bytes) -> bytes:
        return self._passed(self._cipher().encryptor(), blocks)

    def decrypt(self, blocks: bytes) -> bytes:
        return self._passed(self._cipher().decryptor(), blocks)

    def _cipher(self) -> Any:
        from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

        return Cipher(algorithms.AES(self._key), modes.CBC(self._vector))

    @staticmethod
    def _passed(context: Any, blocks: bytes) -> bytes:
        return bytes(context.update(blocks) + context.finalize())


class _Lines:
    """The lines of a file, of which each has its place; they end in CR, LF or both. Raises `WireError`.

    What stands in a wrong line is not told: it may be of the private key.
    """

    def __init__(self, data: bytes) -> None:
        self._lines = data.splitlines()
        self._at = 0

    def _next(self) -> bytes:
        if self._at == len(self._lines):
            raise WireError("it breaks off", DAMAGED_HINT)
        self._at += 1
        return self._lines[self._at - 1]

    def version(self) -> tuple[int, bytes]:
        """The version, and the type of the key."""
        head, _, kind = self._next().partition(b": ")
        version = head.removeprefix(_BEGIN)
        if version == b"1":
            raise WireError("PPK files of version 1 are out of use", "load it in PuTTYgen, and save it anew")
        if version not in (b"2", b"3"):
            raise WireError(
                f"it is a PPK file of version {version[:16].decode('ascii', 'replace')!r}, which is not known",
                "save it as one that is: puttygen KEY.ppk -o KEY.ppk --reencrypt --ppk-param version=3",
            )
        return int(version), kind

    def value(self, name: str) -> bytes:
        """What the line `name` says."""
        found, colon, value = self._next().partition(b": ")
        if found != name.encode() or not colon:
            raise WireError(f"its line {self._at} is not the one of {name}, which belongs there", DAMAGED_HINT)
        return value

    def number(self, name: str, most: int, hint: str = DAMAGED_HINT) -> int:
        digits = self.value(name)
        if not (digits.isdigit() and len(digits) < 12 and 0 < int(digits) <= most):
            raise WireError(f"its {name} is not a number from 1 to {most}", hint)
        return int(digits)

    def base64(self, name: str) -> bytes:
        """So many lines as `name` says, decoded."""
        lines = [self._next() for _ in range(self.number(name, MAX_LINES))]
        try:
            return a2b_base64(b"".join(lines), strict_mode=True)
        except _BinasciiError:
            raise WireError(f"its {name} are not base64", DAMAGED_HINT) from None

    def hex(self, name: str, least: int, most: int) -> bytes:
        try:
            value = a2b_hex(self.value(name))
        except _BinasciiError:
            value = b""
        if not least <= len(value) <= most:
            raise WireError(f"its {name} is not hexadecimal, or too short or long", DAMAGED_HINT)
        return value

    def argon2(self) -> _Argon2:
        kind = self.value("Key-Derivation").decode("ascii", "replace")
        if kind not in ("Argon2id", "Argon2i", "Argon2d"):
            raise WireError(f"its passphrase goes through {kind[:64]!r}, which is not known", _COSTLY_HINT)
        memory = self.number("Argon2-Memory", MAX_MEMORY, _COSTLY_HINT)
        passes = self.number("Argon2-Passes", MAX_WORK // memory, _COSTLY_HINT)
        parallelism = self.number("Argon2-Parallelism", MAX_PARALLELISM, _COSTLY_HINT)
        if memory < 8 * parallelism:  # RFC 9106, section 3.1
            raise WireError(f"its Argon2-Memory of {memory} KiB is less than Argon2 takes", _COSTLY_HINT)
        return _Argon2(kind, memory, passes, parallelism, self.hex("Argon2-Salt", MIN_SALT, MAX_SALT))

    def end(self) -> None:
        if b"".join(self._lines[self._at :]).strip():
            raise WireError("there is more behind its MAC", DAMAGED_HINT)


def parse(data: bytes, where: str) -> KeyFile:
    """The key file that `data` holds; `where` is its name in messages. Raises `KeyFileError`."""
    try:
        return _parse(_Lines(data), where)
    except WireError as error:
        raise KeyFileError(f"{where} cannot be read: {error}", error.hint) from None


def _parse(lines: _Lines, where: str) -> KeyFile:
    version, kind = lines.version()
    encryption, comment = lines.value("Encryption"), lines.value("Comment")
    encrypted = encryption == _ENCRYPTION
    if not encrypted and encryption != b"none":
        raise WireError(f"it is encrypted with {encryption[:64].decode('ascii', 'replace')!r}, which is not known")
    public = _public_key(lines.base64("Public-Lines"), kind)
    argon2 = lines.argon2() if encrypted and version == 3 else None
    private = lines.base64("Private-Lines")
    mac = lines.hex("Private-MAC", _MAC_SIZES[version], _MAC_SIZES[version])
    lines.end()
    if encrypted and len(private) % _BLOCK:
        raise WireError(f"{len(private)} bytes are not whole blocks of AES", DAMAGED_HINT)
    text = comment.decode("utf-8", "surrogateescape")

    def load(passphrase: bytes | None) -> tuple[PrivateKey, str]:
        from hmac import compare_digest

        try:
            secrets = _Secrets(version, passphrase or b"", argon2)
            opened = secrets.decrypt(private) if encrypted else private
            if compare_digest(secrets.mac(kind, encryption, comment, public.blob, opened), mac):
                return _read_private(public, opened, _BLOCK if encrypted else 1), text
        except WireError as error:
            raise KeyFileError(f"{where} cannot be read: {error}", error.hint) from None
        if encrypted:
            raise WrongPassphrase(f"{where} is encrypted with another passphrase", "try again")
        raise KeyFileError(f"{where} is damaged: its MAC is not that of what it holds", DAMAGED_HINT)

    return KeyFile(where, encrypted=encrypted, public=public, load=load, comment=text)


def _public_key(blob: bytes, kind: bytes) -> PublicKey:
    public = PublicKey(blob)
    if public.type.encode() != kind:
        raise WireError(f"its first line names another type than that of its public key, {public.type}", DAMAGED_HINT)
    if public.plain_type not in _SEEDS.keys() | _PRIVATE.keys():
        raise UnsupportedKey(f"keys of type {public.type} are not known in PPK files")
    return public


def _read_private(public: PublicKey, data: bytes, block: int) -> PrivateKey:
    """The key out of its public half and the file's private part, which is padded to whole blocks."""
    kind = public.plain_type
    reader, fields = Reader(data), list(public.fields)
    if kind in _SEEDS:
        # PuTTY reads it as a number, lowest byte first: zeros at its end may be missing, or too many.
        seed = reader.string().rstrip(b"\0").ljust(_SEEDS[kind], b"\0")
        fields.append(seed + bytes(fields[0]))
    elif kind == "ssh-rsa":
        e, n = fields
        d, p, q, iqmp = (reader.mpint() for _ in range(4))
        fields = [n, e, d, iqmp, p, q]
    else:
        fields.append(reader.mpint())
    if len(reader) >= block:
        raise WireError(f"{len(reader)} bytes more than belong to a key of type {kind}", DAMAGED_HINT)
    return PrivateKey(kind, tuple(fields), public if public.certificate else None)


def write(key: PrivateKey, comment: str, passphrase: bytes | None, version: int = 3) -> bytes:
    """`key`, with its certificate if it has one, as a PPK file.

    It is encrypted if there is a passphrase, at the cost that PuTTY has for a default; None or an empty one leaves it
    in the clear. Version 2 is for PuTTY before 0.75, and protects worse. Line breaks in `comment` become spaces. Raises
    `UnsupportedKey` for a key that has no place there (sk-*), ValueError for another version, and `WireError` where
    `cryptography` has no Argon2.
    """
    if version not in _HASHES:
        raise ValueError(f"PPK files are written in version 2 or 3, not {version!r}")
    kind, public, private = key.public.type.encode(), key.public.blob, _write_private(key)
    remark = comment.translate(_CLEAN).encode("utf-8", "surrogateescape")
    argon2 = _Argon2("Argon2id", 8192, 20, 1, os.urandom(16)) if passphrase and version == 3 else None
    secrets = _Secrets(version, passphrase or b"", argon2)
    if passphrase:
        from hashlib import sha1

        private += sha1(private).digest()[: -len(private) % _BLOCK]  # noqa: S324
    encryption = _ENCRYPTION if passphrase else b"none"
    mac = secrets.mac(kind, encryption, remark, public, private)
    lines = [b"%b%d: %b" % (_BEGIN, version, kind), b"Encryption: " + encryption, b"Comment: " + remark]
    lines += _base64("Public-Lines", public)
    if argon2:
        lines += (
            b"Key-Derivation: " + argon2.kind.encode(),
            b"Argon2-Memory: %d" % argon2.memory,
            b"Argon2-Passes: %d" % argon2.passes,
            b"Argon2-Parallelism: %d" % argon2.parallelism,
            b"Argon2-Salt: " + argon2.salt.hex().encode(),
        )
    lines += _base64("Private-Lines", secrets.encrypt(private) if passphrase else private)
    lines += (b"Private-MAC: " + mac.hex().encode(), b"")
    return b"\n".join(lines)


def _write_private(key: PrivateKey) -> bytes:
    fields: Any = key.fields
    if key.type in _SEEDS:
        return bytes(Writer().string(fields[1][: _SEEDS[key.type]]))
    if key.type not in _PRIVATE:
        raise UnsupportedKey(f"PPK files have no place for a key of type {key.type}")
    writer = Writer()
    for at in _PRIVATE[key.type]:
        writer.mpint(fields[at])
    return bytes(writer)


def _base64(name: str, data: bytes) -> list[bytes]:
    """How many lines there are, and these."""
    pieces = [data[start : start + _LINE] for start in range(0, len(data), _LINE)]
    return [b"%b: %d" % (name.encode(), len(pieces)), *(b2a_base64(piece, newline=False) for piece in pieces)]
