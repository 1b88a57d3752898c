"""OpenSSH's format written by its PROTOCOL.key, and what must hold of whatever is read."""

import textwrap
from base64 import b64encode

from pageantry.errors import KeyFileError
from pageantry.keys.files import parse
from pageantry.keys.private import PrivateKey
from pageantry.wire import Writer


def string(data: bytes) -> bytes:
    return len(data).to_bytes(4, "big") + data


def private_part(key: PrivateKey, comment: bytes = b"c", padding: bytes | None = None) -> bytes:
    """The inside of OpenSSH's format, by its PROTOCOL.key."""
    inside = b"same" + b"same" + bytes(key.write(Writer())) + string(comment)
    return inside + (bytes(range(1, 1 + -len(inside) % 8)) if padding is None else padding)


def outside(
    public: bytes, inside: bytes, *, cipher: bytes = b"none", kdf: bytes = b"none", options: bytes = b"",
    count: int = 1, tail: bytes = b"", magic: bytes = b"openssh-key-v1\0",
) -> bytes:  # fmt: skip
    """The whole file, armoured."""
    head = magic + string(cipher) + string(kdf) + string(options) + count.to_bytes(4, "big")
    return armor(head + string(public) + string(inside) + tail)


def armor(data: bytes, label: str = "OPENSSH PRIVATE KEY") -> bytes:
    lines = textwrap.wrap(b64encode(data).decode(), 70)
    return "\n".join((f"-----BEGIN {label}-----", *lines, f"-----END {label}-----", "")).encode()


def look_at(data: bytes) -> None:
    try:
        file = parse(data, "file")
        key, _ = file.decrypt(b"" if file.encrypted else None)
    except KeyFileError as caught:
        error = caught
    else:
        assert key.public == file.public
        return
    assert str(error).startswith("file ")
    assert error.hint
    assert "\n" not in str(error) + error.hint
