"""SSHSIG: signatures of files, as `ssh-keygen -Y` makes and verifies them (OpenSSH's PROTOCOL.sshsig).

    data = to_be_signed(digest(file), "file")
    print(armor(key, "file", agent.sign(key, data, SignFlags(sign_flags(key)))))

The hash is SHA-512 always. The namespace says what a signature is for, such as "file", "git" or "mail@example.org".
"""

from __future__ import annotations

from binascii import Error as _Base64Error
from binascii import a2b_base64, b2a_base64

from ..errors import BadReply, WireError
from ..wire import Struct
from .public import PublicKey
from .signatures import RSA_SHA2_512, check_algorithm
from .signatures import verify as _verify

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import BinaryIO

_MAGIC = b"SSHSIG"
_VERSION = 1
_HASH = "sha512"
_BEGIN, _END = "-----BEGIN SSH SIGNATURE-----", "-----END SSH SIGNATURE-----"
_WIDTH = 70
_PIECE = 1024 * 1024  # bytes of a file in memory at a time


class _Signature(Struct):
    version: int
    key: bytes
    namespace: str
    reserved: bytes
    hash: str
    signature: bytes


class _Signed(Struct):
    namespace: str
    reserved: bytes
    hash: str
    digest: bytes


def sign_flags(key: PublicKey) -> int:
    """What to ask of `sign`: an RSA signature with SHA-1 is not valid here, and some agents refuse flags for others."""
    return RSA_SHA2_512 if key.plain_type == "ssh-rsa" else 0


def digest(file: BinaryIO) -> bytes:
    """The SHA-512 of all that is left in `file`, read piece by piece."""
    import hashlib

    state = hashlib.sha512()
    while piece := file.read(_PIECE):
        state.update(piece)
    return state.digest()


def to_be_signed(message_digest: bytes, namespace: str) -> bytes:
    """What an agent has to sign: the SHA-512 of the message, in its frame. `WireError` for an empty namespace."""
    if not namespace:
        raise WireError("a signature needs a namespace", "say what it is for, such as file or git")
    return _MAGIC + _Signed(namespace, b"", _HASH, message_digest).encode()


def armor(key: PublicKey, namespace: str, signature: bytes) -> str:
    """The signature of `to_be_signed` as a file's text, its lines ended by newlines."""
    blob = _MAGIC + _Signature(_VERSION, key.blob, namespace, b"", _HASH, signature).encode()
    text = b2a_base64(blob, newline=False).decode()
    lines = (text[start : start + _WIDTH] for start in range(0, len(text), _WIDTH))
    return "\n".join((_BEGIN, *lines, _END, ""))


def verify(armored: str, file: BinaryIO, namespace: str) -> PublicKey:
    """The key that signed what is left in `file`, for this namespace; whether to trust that key is not said.

    Raises `WireError` where `armored` is no SSHSIG with SHA-512, and `BadReply` where it is one of something else.
    """
    try:
        data = a2b_base64("".join(armored.partition(_BEGIN)[2].partition(_END)[0].split()), strict_mode=True)
    except (_Base64Error, ValueError):
        raise WireError("not an SSH signature: its text is not base64") from None
    found = _Signature.decode(data.removeprefix(_MAGIC))
    if not data.startswith(_MAGIC) or (found.version, found.hash) != (_VERSION, _HASH):
        raise WireError("an SSH signature of an unknown version or hash")
    if found.namespace != namespace:
        raise BadReply(f"the signature is for the namespace {found.namespace[:64]!r}, not {namespace!r}")
    key = PublicKey(found.key)
    check_algorithm(key, sign_flags(key), found.signature)
    _verify(key, found.signature, to_be_signed(digest(file), namespace))
    return key
