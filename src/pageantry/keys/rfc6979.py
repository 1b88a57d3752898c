"""DSA whose random number is none, but follows from the key and the data (RFC 6979): the same signature each time.

PuTTY signs so since 0.81, for ssh-dss with SHA-1. The arithmetic is Python's own, and takes more or less time depending
on the numbers: who can measure that very precisely, and often, may learn something of the key.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Final

#: How many numbers are tried. The first one all but never fails, with a key that is one.
ATTEMPTS: Final = 64


def sign(p: int, q: int, g: int, x: int, data: bytes, digest: str = "sha1") -> tuple[int, int]:
    """The signature (r, s) of `data` by the private key `x`; `digest` is the hash, by its name in hashlib.

    Raises ValueError for numbers that are no key.
    """
    from hashlib import new

    hashed = new(digest, data).digest()
    for _, k in zip(range(ATTEMPTS), nonces(q, x, hashed, digest), strict=False):
        r = pow(g, k, p) % q
        s = pow(k, -1, q) * (_integer(hashed, q) + x * r) % q
        if r and s:
            return r, s
    raise ValueError("a DSA key that signs nothing")


def nonces(q: int, x: int, hashed: bytes, digest: str) -> Iterator[int]:
    """The numbers k to try, one after the other (RFC 6979, section 3.2), for data of which `hashed` is the hash."""
    from hmac import digest as hmac

    size = (q.bit_length() + 7) // 8
    seed = x.to_bytes(size, "big") + (_integer(hashed, q) % q).to_bytes(size, "big")
    key, value = bytes(len(hashed)), b"\1" * len(hashed)
    for step in (b"\0", b"\1"):
        key = hmac(key, value + step + seed, digest)
        value = hmac(key, value, digest)
    while True:
        block = b""
        while len(block) < size:
            value = hmac(key, value, digest)
            block += value
        k = _integer(block[:size], q)
        if 0 < k < q:
            yield k
        key = hmac(key, value + b"\0", digest)
        value = hmac(key, value, digest)


def _integer(data: bytes, q: int) -> int:
    """The first bits of `data` as a number, as many as `q` has."""
    return int.from_bytes(data, "big") >> max(0, 8 * len(data) - q.bit_length())
