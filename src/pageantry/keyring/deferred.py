"""Private keys that stay encrypted, in the files they came in, until they are needed.

    deferred = Deferred(file, person)
    deferred.signer(question, gone)      # asks for the passphrase, unless it is open
    deferred.forget()                    # from here on it would ask again

Several requests for one key make one question; its answer is theirs, too, be it a refusal.
"""

from __future__ import annotations

import sys
import threading
import time

from ..errors import Disconnected, Error, KeyFileError, Refused, WrongPassphrase
from ..keys.signatures import Signer

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Final

    from ..keys.files import KeyFile
    from ..keys.public import PublicKey
    from ..prompts import Person

#: How often a passphrase is asked for before a request fails; a program that answers by itself would not tire.
ATTEMPTS: Final = 3
#: Seconds between two looks whether a client that waits for another's question is still there.
_PAUSE: Final = 1.0


def now() -> float:
    """Seconds of a clock that goes on while the machine sleeps, where there is one: limits of time are a person's."""
    if sys.platform == "linux":
        return time.clock_gettime(time.CLOCK_BOOTTIME)
    else:  # noqa: RET505 - so that type checkers know what is for which system
        return time.monotonic()


class _Opening:
    """An attempt to open a file: what came of it, once `ended` is set."""

    def __init__(self) -> None:
        self.ended = threading.Event()
        self.error: Error = Disconnected("whoever was asking for the passphrase has left")


class Deferred:
    """The private half of the key in `file`, whose bytes are `data` and which `person` is asked to open.

    Threads may share it. Until it was opened, nothing proves that the file holds what it says.

    Raises `KeyFileError` for a file that hides its public half, too.
    """

    #: the public half, without a certificate
    public: PublicKey

    def __init__(self, file: KeyFile, person: Person, data: bytes) -> None:
        if file.public is None:
            raise KeyFileError(
                f"{file.where} hides even its public key", "save it in OpenSSH's format: ssh-keygen -p -f FILE"
            )
        self.public = file.public.plain
        #: when it was last used, by `now`
        self.used = 0.0
        #: the whole file
        self.data = data
        self._file = file
        self._person = person
        self._gate = threading.Lock()
        self._signer: Signer | None = None
        self._opening: _Opening | None = None
        self._forgotten = 0  # how often

    @property
    def clear(self) -> bool:
        """Whether it can be used without asking."""
        return self._signer is not None

    def forget(self) -> None:
        """Have it encrypted alone again, also where it is just being opened."""
        with self._gate:
            self._forgotten += 1
            self._signer = None

    def signer(self, question: str, gone: Callable[[], bool], asker: object = None) -> Signer:
        """What signs with the key, after `question` unless it is open; `gone` and `asker` are as for `Person.secret`.

        Raises what `Person.secret` raises, `WrongPassphrase`, `KeyFileError`.
        """
        while True:
            with self._gate:
                self.used = now()
                if self._signer:
                    return self._signer
                opening = self._opening
                if opening is None:
                    mine = self._opening = _Opening()
                    forgotten = self._forgotten
                    break
            while not opening.ended.wait(_PAUSE):  # the other's question has a time-out
                if gone():
                    raise Disconnected("whoever was waiting for the passphrase has left")
            if not (self._signer or isinstance(opening.error, Disconnected)):
                raise Refused(str(opening.error), opening.error.hint)
        try:
            signer = self._opened(question, gone, asker)
            with self._gate:
                if self._forgotten > forgotten:
                    raise Refused("the key was to be encrypted again while it was being opened", "ask for it once more")
                self._signer, self.used = signer, now()
            return signer
        except Error as error:
            mine.error = error
            raise
        finally:
            with self._gate:
                self._opening = None
            mine.ended.set()

    def _opened(self, question: str, gone: Callable[[], bool], asker: object) -> Signer:
        for attempt in range(ATTEMPTS):
            again = "That passphrase was wrong.\n" if attempt else ""
            passphrase = self._person.secret(again + question, gone, asker)
            try:
                key, _ = self._file.decrypt(passphrase.encode())
            except WrongPassphrase:
                continue
            if key.public.plain != self.public:
                raise KeyFileError("the key file holds another key inside", "it is damaged: use a copy of it")
            signer = Signer(key.plain)
            signer.check()
            return signer
        raise WrongPassphrase(f"the passphrase was wrong, {ATTEMPTS} times", "try once more")

    def __repr__(self) -> str:
        return f"<Deferred {self.public.fingerprint()} {'clear' if self.clear else 'encrypted'}>"
