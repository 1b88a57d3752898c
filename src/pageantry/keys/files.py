"""Private key files: OpenSSH's own format, the PEM forms that came before it, and PuTTY's.

    file = read("/home/me/.ssh/id_ed25519")
    file.encrypted, file.public                # what can be known without the passphrase
    key, comment = file.decrypt(b"passphrase")

Here they are found and told apart; `openssh`, `pem` and `ppk` each read one format.
"""

from __future__ import annotations

import os
import sys

from ..errors import KeyFileError, WireError
from . import openssh
from .keyfile import DAMAGED_HINT, KeyFile
from .public import PublicKey

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

__all__ = ["MAX_FILE", "KeyFile", "certificate_beside", "parse", "read", "read_file"]

#: The longest file that is read, in bytes. An RSA key of 16384 bits takes 13 KiB.
MAX_FILE: Final = 1024 * 1024

_PUTTY = b"PuTTY-User-Key-File-"


def read(path: str) -> KeyFile:
    """The key file at `path`. Raises `KeyFileError`."""
    return parse(read_file(path), path)


def parse(data: bytes, where: str) -> KeyFile:
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
        return openssh.parse(body, where)
    from . import pem

    return pem.parse(begin + kind + marker + body + end, where)


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
