"""Keys that outlive their agent: what it holds without an end is in a file, and there again in the next agent.

    memory = remembered.open(say=say)                  # refuses what a person has to see to; changes nothing
    keyring = Keyring(person, remember=memory)         # tells it of every change, and closes it
    memory.load(keyring)                               # brings the keys back; only from here on is anything written

The file is HEADER, a byte for the version, and, sealed by the system, a uint32 and so many strings: what each key came
in, sealed on its own. That is done when a key is added, so that keys in clear are neither kept nor put together to be
written. Encrypted key files are kept as they are, and so behind their own passphrases, too.
"""

from __future__ import annotations

import os
import sys
import threading
from contextlib import ExitStack, suppress

from .errors import Error, WireError
from .extensions import AddEncrypted
from .keys.public import PublicKey
from .messages import AddIdentityConstrained
from .vault.lock import FileLock, Locked
from .vault.store import MAX_FILE, Store, home
from .wire import Reader, Writer

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Final, Protocol, TypeAlias

    from .keyring import Keyring

    #: What a key came in, and goes into the next agent as.
    Entry: TypeAlias = AddIdentityConstrained | AddEncrypted

    class Protector(Protocol):
        """What the system has to seal data for its user; both raise OSError."""

        def protect(self, clear: bytes, /) -> bytes:
            """`clear`, sealed."""

        def unprotect(self, data: bytes, /) -> bytes:
            """What was sealed, if nobody has changed it."""


HEADER: Final = b"pageantry's keys\n"
VERSION: Final = 1
#: Seconds after a change before it is written, for more of them to come.
PAUSE: Final = 0.1
#: Seconds that the end of an agent waits for the last write, such as one to a disk in the network.
CLOSE_SECONDS: Final = 10.0

_KINDS: Final[tuple[type[Entry], ...]] = (AddIdentityConstrained, AddEncrypted)
_AWAY: Final = "nothing was changed; bring back a copy of it, or move it away to begin without keys"


def open(  # noqa: A001 - to be called as remembered.open
    path: str = "", *, protector: Protector | None = None, say: Callable[[str], object] | None = None
) -> Memory:
    """The file at `path`, by default `default_path()`, for one agent at a time, until `Memory.close`.

    `say` is told in a line what could not be brought back or written. Raises `Error` where this system has no
    `protector`, where another agent has the file, and for one that is not ours, or that cannot be read or opened.
    """
    return Memory(os.path.abspath(path or default_path()), protector or _system(), say or (lambda _: None))


def default_path() -> str:
    """Where keys are remembered: in `PAGEANTRY_HOME`, or with what does not leave this computer, as the user's own key
    to it does not. Raises `SettingsError`.
    """
    if sys.platform == "win32" and not os.environ.get("PAGEANTRY_HOME"):
        local = os.environ.get("LOCALAPPDATA") or os.path.expanduser("~\\AppData\\Local")
        return os.path.join(local, "pageantry", "remembered")
    return os.path.join(home(), "remembered")


def encode(entry: Entry) -> bytes:
    """The entry as bytes: one for its kind, and its contents, as they are in the agent protocol."""
    return bytes(Writer().byte(_KINDS.index(type(entry))).raw(entry.encode()))


def decode(data: bytes) -> Entry:
    """The entry that `data` is. Raises `WireError`."""
    reader = Reader(data)
    kind = reader.byte()
    if kind >= len(_KINDS):
        raise WireError(f"entry of a kind that is not known: {kind}", "use the newest pageantry")
    return _KINDS[kind].decode(reader.rest())


class Memory:
    """What one agent remembers: what `keyring.Keyring` has its `remember` for. See `open`."""

    def __init__(self, path: str, protector: Protector, say: Callable[[str], object]) -> None:
        self._path = path
        self._protector = protector
        self._say = say
        self._store = Store(os.path.dirname(path))
        self._gate = threading.Condition()
        self._kept: Callable[[], dict[bytes, bytes]] = dict
        self._stray: list[tuple[bytes, bytes]] = []  # what could not be brought back: whose it is, if known, and itself
        self._changed = self._closing = False
        self._writer = threading.Thread(target=self._write, name="pageantry memory", daemon=True)
        with ExitStack() as stack:
            self._store.make_folder()
            try:
                stack.enter_context(FileLock(path + ".lock", shared=False, seconds=0))
            except Locked:
                raise Error(
                    f"another agent that is running remembers its keys in {path}",
                    "end it, or start this one without remembering keys",
                ) from None
            self._found = self._read()
            self._lock = stack.pop_all()

    def load(self, keyring: Keyring) -> None:
        """Bring back what the file has into `keyring`, except for keys that it holds already; then write what changes.

        A key that cannot be brought back is told, and stays in the file until it is added anew or all are removed.
        """
        here = {held.public.blob for held in keyring.visible()}
        for sealed in self._found:
            blob = b""
            try:
                entry = self._opened(sealed)
                blob = _blob(entry)
                if blob not in here:
                    _add(keyring, entry)
                here.add(blob)
            except Error as error:
                self._stray.append((blob, sealed))
                self._say(f"a key could not be brought back, and stays in {self._path}: {error}")
        self._found = []
        self._writer.start()

    def _opened(self, sealed: bytes) -> Entry:
        try:
            return decode(self._protector.unprotect(sealed))
        except OSError as error:
            raise Error(f"the system does not open it: {error.strerror or error}") from None

    # What a keyring tells it, see `keyring.holding.Remembering`

    def sealed(self, entry: Entry, /) -> bytes:
        """What brings the key back, sealed. Raises `Error`."""
        try:
            return self._protector.protect(encode(entry))
        except OSError as error:
            raise Error(f"the system does not seal it: {error.strerror or error}", "add it once more") from None

    def changed(self, kept: Callable[[], dict[bytes, bytes]], /) -> None:
        """Have what `kept` gives be remembered, soon; the last change is what stays."""
        here = kept() if self._stray else {}
        with self._gate:
            self._stray = [(blob, sealed) for blob, sealed in self._stray if blob not in here]
            self._kept = kept
            self._changed = True
            self._gate.notify_all()

    def clear(self) -> None:
        """Remember nothing any more of what could not be brought back."""
        with self._gate:
            self._stray = []

    def close(self) -> None:
        """Write what has changed, and let others have the file. Closing twice does nothing."""
        with self._gate:
            self._closing = True
            self._gate.notify_all()
        if self._writer.ident is None:  # nothing was loaded, and nothing is to be written
            self._lock.close()
            return
        self._writer.join(CLOSE_SECONDS)
        if self._writer.is_alive():
            self._say(f"{self._path} could not be written in time: it may lack the last changes")

    # The file

    def _write(self) -> None:
        """Write whenever something has changed, until closed; once more at the end where that had failed."""
        written = True
        closing = False
        while not closing:
            with self._gate:
                self._gate.wait_for(lambda: self._changed or self._closing)
                self._gate.wait_for(lambda: self._closing, PAUSE)
                closing = self._closing
                changed, self._changed = self._changed, False
            if changed or not written:
                written = self._save()
        self._lock.close()

    def _save(self) -> bool:
        """Whether it could be written."""
        stray = self._stray  # before what is kept: a key that goes from here to there may be in both, but not in none
        sealed = [*self._kept().values(), *(sealed for _, sealed in stray)]
        writer = Writer().uint32(len(sealed))
        for one in sealed:
            writer.string(one)
        try:
            data = HEADER + bytes((VERSION,)) + self._protector.protect(bytes(writer))
            if len(data) > MAX_FILE:
                raise Error(f"it would take {len(data)} bytes, and {MAX_FILE} are read")
            with suppress(OSError):
                os.unlink(os.path.realpath(self._path) + ".new")  # left over by a crash
            self._store.keep(os.path.basename(self._path), data)
        except (Error, OSError) as error:
            self._say(f"{self._path} is not up to date, until it is written with the next change: {error}")
            return False
        return True

    def _read(self) -> list[bytes]:
        """The entries in the file, each still sealed; none where there is no file."""
        data = self._store.read(os.path.basename(self._path))
        if data is None:
            if os.path.lexists(self._path):
                raise Error(f"{self._path} points to a file that is missing", "bring it back, or delete that link")
            return []
        start = len(HEADER) + 1
        if data[: start - 1] != HEADER or len(data) < start:
            raise Error(f"{self._path} holds no keys of pageantry's, or is damaged", _AWAY)
        if data[start - 1] != VERSION:
            raise Error(
                f"{self._path} has a format that is not known: {data[start - 1]}, where {VERSION} is",
                f"use the newest pageantry; {_AWAY}",
            )
        try:
            reader = Reader(self._protector.unprotect(data[start:]))
            sealed = [reader.string() for _ in range(reader.uint32())]
            reader.end()
        except (OSError, WireError) as error:
            why = error.strerror if isinstance(error, OSError) else error
            raise Error(f"{self._path} is damaged, or another user's or computer's: {why}", _AWAY) from None
        return sealed


def _blob(entry: Entry) -> bytes:
    """The blob of the key. Raises `Error`."""
    if isinstance(entry, AddIdentityConstrained):
        return entry.key.public.blob
    from .keys.files import parse

    public = parse(entry.file, "its file").public
    return entry.certificate or (public.blob if public else b"")


def _add(keyring: Keyring, entry: Entry) -> None:
    if isinstance(entry, AddIdentityConstrained):
        keyring.add(entry.key, entry.comment, entry.constraints)
    else:
        certificate = PublicKey(entry.certificate) if entry.certificate else None
        keyring.add_encrypted(entry.file, entry.comment, certificate, entry.constraints)


if sys.platform == "win32":

    def _system() -> Protector:
        from . import _dpapi

        return _dpapi

else:

    def _system() -> Protector:
        raise Error(
            "keys can be remembered on Windows only, where the system protects them",
            "on UNIX give serve the key files, encrypted",
        )
