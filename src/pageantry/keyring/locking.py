"""The lock of an agent: a passphrase that suspends it, known again by its scrypt hash alone.

RFC 9987, section 5.7. OpenSSH's whole agent sleeps after a wrong passphrase; here only the client that gave it waits.
"""

from __future__ import annotations

import os
import threading

from ..errors import Refused, Unsupported

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

#: Seconds that each wrong passphrase in a row adds to the wait for the answer, and the longest wait, as in OpenSSH.
PENALTY: Final = 0.1
MAX_PENALTY: Final = 10.0

#: Cost of a try: 32 MiB and some 0.1 s.
_SCRYPT: Final = {"n": 2**15, "r": 8, "p": 1, "maxmem": 64 * 1024 * 1024, "dklen": 32}


class Locking:
    """Whether an agent is locked; every method may be called by any thread."""

    def __init__(self) -> None:
        #: whether it is
        self.locked = False
        self._salt = self._digest = b""
        self._wrong = 0
        self._turn = threading.Lock()  # a try takes memory, so one at a time
        self._closed = threading.Event()

    def check(self) -> None:
        """Raise `Unsupported` while it is locked: FAILURE is the answer then, to extensions, too."""
        if self.locked:
            raise Unsupported("the agent is locked", "unlock it: ssh-add -X")

    def lock(self, passphrase: bytes) -> None:
        """Raises `Refused` where it is locked already, and for an empty passphrase."""
        with self._turn:
            if self.locked or not passphrase:
                raise Refused("it is locked already" if self.locked else "a lock needs a passphrase")
            self._salt = os.urandom(16)
            self._digest = self._of(passphrase)
            self._wrong = 0
            self.locked = True

    def unlock(self, passphrase: bytes) -> None:
        """Raises `Refused` where it is not locked, and, after a while, for a wrong passphrase."""
        from hmac import compare_digest

        with self._turn:
            if not self.locked:
                raise Refused("it is not locked")
            if compare_digest(self._of(passphrase), self._digest):
                self._salt = self._digest = b""
                self.locked = False
                return
            self._wrong += 1
            penalty = min(PENALTY * self._wrong, MAX_PENALTY)
        self._closed.wait(penalty)
        raise Refused("the passphrase is wrong")

    def close(self) -> None:
        """Let nobody wait any longer."""
        self._closed.set()

    def _of(self, passphrase: bytes) -> bytes:
        from hashlib import scrypt

        return scrypt(passphrase, salt=self._salt, **_SCRYPT)
