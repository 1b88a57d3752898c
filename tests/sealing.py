"""What seals remembered keys: on Windows the system itself, elsewhere something that stands in for it."""

from __future__ import annotations

import os
import sys

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from pageantry import remembered


class Sealer:
    """A system's protection of one user's data."""

    def __init__(self) -> None:
        self._cipher = AESGCM(AESGCM.generate_key(128))

    def protect(self, clear: bytes, /) -> bytes:
        nonce = os.urandom(12)
        return nonce + self._cipher.encrypt(nonce, clear, None)

    def unprotect(self, data: bytes, /) -> bytes:
        try:
            return self._cipher.decrypt(data[:12], data[12:], None)
        except (InvalidTag, ValueError):
            raise OSError(None, "the data is not valid") from None


#: What is used where the test does not care.
SYSTEM: remembered.Protector
if sys.platform == "win32":
    from pageantry import _dpapi

    SYSTEM = _dpapi
else:
    SYSTEM = Sealer()
