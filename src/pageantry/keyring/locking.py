"""The lock of an agent: a passphrase that suspends it, known again by its scrypt hash alone.

RFC 9987, section 5.7. OpenSSH's whole agent sleeps after a wrong passphrase; here only the process that gave it waits.
"""

from __future__ import annotations

import os
import threading

from ..errors import Refused, Unsupported

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

#: Seconds that each wrong passphrase in a row adds to the wait before the next, and the longest wait, as in OpenSSH.
PENALTY: Final = 0.1
MAX_PENALTY: Final = 10.0

#: Of how many processes it is known that they gave a wrong one.
_REMEMBERED: Final = 1024
#: Cost of a try: 32 MiB and some 0.1 s.
_SCRYPT: Final = {"n": 2**15, "r": 8, "p": 1, "maxmem": 64 * 1024 * 1024, "dklen": 32}


class Locking:
    """Whether an agent is locked; every method may be called by any thread."""

    def __init__(self) -> None:
        #: whether it is
        self.locked = False
        self._salt = self._digest = b""
        self._wrong: dict[object, int] = {}  # how many in a row, by who gave them
        self._trying: set[object] = set()
        self._gate = threading.Lock()
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
            self._wrong.clear()
            self.locked = True

    def unlock(self, passphrase: bytes, who: object = None) -> None:
        """Raises `Refused` where it is not locked, and for a wrong passphrase.

        After that whoever gave it (`who`, a process) waits before his next one is looked at, and has one at a time.
        """
        with self._gate:
            if not self.locked:
                raise Refused("it is not locked")
            if who in self._trying:
                raise Refused("another passphrase of this process is being looked at", "wait for that")
            self._trying.add(who)
            penalty = min(PENALTY * self._wrong.get(who, 0), MAX_PENALTY)
        try:
            self._closed.wait(penalty)
            self._try(passphrase, who)
        finally:
            with self._gate:
                self._trying.discard(who)

    def _try(self, passphrase: bytes, who: object) -> None:
        from hmac import compare_digest

        with self._turn:
            if not self.locked:
                raise Refused("it is not locked")
            if not compare_digest(self._of(passphrase), self._digest):
                self._wrong[who] = self._wrong.pop(who, 0) + 1
                if len(self._wrong) > _REMEMBERED:
                    del self._wrong[next(iter(self._wrong))]
                raise Refused("the passphrase is wrong")
            self._salt = self._digest = b""
            self._wrong.clear()
            self.locked = False

    def close(self) -> None:
        """Let nobody wait any longer."""
        self._closed.set()

    def _of(self, passphrase: bytes) -> bytes:
        from hashlib import scrypt

        return scrypt(passphrase, salt=self._salt, **_SCRYPT)
