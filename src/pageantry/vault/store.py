"""Our own settings on disk: one JSON file in one private folder.

A save is a new file that takes the old one's place once it is safely on disk, so that a reader sees the one or the
other, and a full disk or a crash loses nothing.
"""

from __future__ import annotations

import os
import sys
from contextlib import contextmanager, suppress
from errno import EEXIST

from ..errors import SettingsError
from .lock import FileLock
from .settings import checked, decoded, encoded, with_compat

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Final

    from .settings import Config

#: The most bytes of a settings file that are read. Thousands of services with notes fit in one MiB.
MAX_FILE: Final = 16 << 20

#: How long a save waits for another program, on Windows, to close the file that it replaces, in seconds.
REPLACE_SECONDS: Final = 2.0


def home() -> str:
    """The folder for our settings: `PAGEANTRY_HOME`, or where this platform keeps such things."""
    if chosen := os.environ.get("PAGEANTRY_HOME"):
        try:
            return os.path.abspath(os.path.expanduser(chosen))
        except OSError:
            raise SettingsError(
                f"PAGEANTRY_HOME={chosen} starts in a directory that is gone", "set it to a whole path"
            ) from None
    if sys.platform == "win32":
        base = os.environ.get("APPDATA") or os.path.expanduser("~\\AppData\\Roaming")
    elif sys.platform == "darwin":
        base = os.path.expanduser("~/Library/Application Support")
    else:
        base = os.environ.get("XDG_CONFIG_HOME", "")
        if not os.path.isabs(base):  # the XDG specification has a relative one ignored
            base = os.path.expanduser("~/.config")
    if not os.path.isabs(base):
        raise SettingsError("this user has no home directory to keep settings in", "set HOME, or PAGEANTRY_HOME")
    return os.path.join(base, "pageantry")


def read_bounded(path: str) -> bytes:
    """What the file at `path` holds. Raises OSError, and `SettingsError` when it is beyond `MAX_FILE`."""
    with open(path, "rb") as file:
        data = file.read(MAX_FILE + 1)
    if len(data) > MAX_FILE:
        raise SettingsError(f"{path} is larger than {MAX_FILE >> 20} MiB", "make sure that it is a settings file")
    return data


class Store:
    """The settings in one folder (by default `home()`).

    `load()` reads them; `with store.editing() as config:` reads them, hands them out to be changed and saves them,
    all under one lock. Nothing is saved when the block raises, when nothing changed, or when what is on disk cannot
    be understood. Every method raises `SettingsError`.
    """

    def __init__(self, folder: str = "") -> None:
        self.folder = folder or home()
        self.path = os.path.join(self.folder, "vault.json")

    @property
    def exists(self) -> bool:
        """Whether anything was saved yet."""
        return os.path.lexists(self.path)

    def load(self) -> Config:
        """The settings; empty ones when none were saved."""
        with FileLock(self._lock_path, shared=True):
            return self._read()[0]

    @contextmanager
    def editing(self) -> Iterator[Config]:
        """The settings, to be changed in place within the `with` and saved at its end."""
        self.make_folder()
        with FileLock(self._lock_path, shared=False):
            config, old = self._read()
            yield config
            new = encoded(with_compat(config))
            if len(new) > MAX_FILE:
                raise SettingsError(
                    f"the settings would take more than {MAX_FILE >> 20} MiB", "nothing was changed; save less in them"
                )
            if new != old and (old or config != {"services": {}}):
                with suppress(OSError):
                    os.unlink(os.path.realpath(self.path) + ".new")  # left over by a crash
                save_privately(self.path, new)

    def keep(self, name: str, data: bytes) -> str:
        """Save `data` as the file `name` beside the settings, as safely as they; its path is returned."""
        self.make_folder()
        path = os.path.join(self.folder, name)
        save_privately(path, data)
        return path

    def read(self, name: str) -> bytes | None:
        """What the file `name` beside the settings holds; None where there is none."""
        path = os.path.join(self.folder, name)
        try:
            return self._bytes(path)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise SettingsError(f"cannot read {path}: {error.strerror}", "make sure that you may read it") from None

    def make_folder(self) -> None:
        """Make the folder, and those above it that are missing, for their owner alone."""
        try:
            _make_private(self.folder)
        except OSError as error:
            raise SettingsError(
                f"cannot make the folder {self.folder}: {error.strerror}", "set PAGEANTRY_HOME to a folder of your own"
            ) from None

    @property
    def _lock_path(self) -> str:
        return os.path.join(self.folder, "vault.lock")

    def _bytes(self, path: str) -> bytes:
        _check_owner(self.folder)
        _check_owner(path)
        if not os.path.isfile(path):  # a FIFO would keep us waiting
            raise SettingsError(f"{path} is not a file", "move it away")
        return read_bounded(path)

    def _read(self) -> tuple[Config, bytes]:
        try:
            data = self._bytes(self.path)
        except FileNotFoundError:
            if os.path.islink(self.path):  # to go on without the settings would mean another passphrase
                raise SettingsError(
                    f"{self.path} points to {os.path.realpath(self.path)}, which is missing",
                    "bring it back, or delete it",
                ) from None
            if not os.path.isdir(place := _nearest(self.folder)):  # Windows calls that "not found", too
                raise SettingsError(
                    f"cannot read {self.path}: {place} is no folder, or on a disk that is not there",
                    "bring it back, or set PAGEANTRY_HOME to a folder of your own",
                ) from None
            return {"services": {}}, b""
        except OSError as error:
            raise SettingsError(
                f"cannot read {self.path}: {error.strerror}", "make sure that it is a file which you may read"
            ) from None
        return checked(decoded(data, self.path), self.path)[0], data


def save_privately(path: str, data: bytes, suffix: str = ".new") -> None:
    """Write `data` to the file `path`, for its owner alone: all of it, or nothing is changed.

    It is first a file of that name and `suffix`, which must not be there. A symbolic link, such as dotfile managers
    make, stays one. What is no file, such as /dev/stdout, is just written to. Raises `SettingsError`.
    """
    new = ""
    try:
        if os.path.exists(path) and not os.path.isfile(path):
            with open(path, "wb") as file:
                file.write(data)
            return
        target = os.path.realpath(path)
        if os.path.lexists(target + suffix):
            raise FileExistsError(EEXIST, "its new version is there already", target + suffix)
        new = target + suffix
        with open(new, "xb", opener=_open_private) as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        _replace(new, target)
    except OSError as error:
        if new:
            with suppress(OSError):
                os.unlink(new)
        raise SettingsError(
            f"cannot write {path}: {error.strerror}",
            "nothing was changed; make room there, see who may write there, or end the program that has it open"
            if sys.platform == "win32"
            else "nothing was changed; make room there, or see who may write there",
        ) from None
    _sync_folder(os.path.dirname(target))


def _open_private(path: str, flags: int) -> int:
    if sys.platform == "win32":
        from .. import acl

        return acl.create(path)
    else:  # noqa: RET505 - mypy wants to see which platform this is for
        return os.open(path, flags | os.O_NOFOLLOW, 0o600)


def _replace(new: str, target: str) -> None:
    """`os.replace`; on Windows, whoever has the old file open, as scanners do for a moment, is waited for."""
    if sys.platform != "win32":
        os.replace(new, target)
    else:
        from time import monotonic, sleep

        end = monotonic() + REPLACE_SECONDS
        while True:
            try:
                os.replace(new, target)
            except PermissionError:
                if monotonic() >= end:
                    raise
                sleep(0.02)
            else:
                return


def _make_private(folder: str) -> None:
    """Make `folder` and those above it that are missing, for their owner alone."""
    parent = os.path.dirname(folder)
    if parent != folder and not os.path.isdir(parent):
        _make_private(parent)
    try:
        if sys.platform == "win32":
            from .. import acl

            acl.make_folder(folder)
        else:
            os.mkdir(folder, 0o700)
    except FileExistsError:  # another process may have been faster
        return
    _sync_folder(parent)


def _nearest(folder: str) -> str:
    """`folder`, or for want of it the nearest above it that is there; at the latest the root of its disk."""
    while not os.path.lexists(folder) and folder != os.path.dirname(folder):
        folder = os.path.dirname(folder)
    return folder


def _check_owner(path: str) -> None:
    """Refuse what others can change, as they could make every passphrase short, or learn the phrase."""
    if sys.platform == "win32":
        from .. import winpipe
        from ..acl import others

        if who := others(path):
            whole = "(OI)(CI)F" if os.path.isdir(path) else "F"
            raise SettingsError(
                f"others can write to {path}, so it cannot be trusted",
                "set PAGEANTRY_HOME to a folder of your own, or run: "
                f'icacls "{path}" /inheritance:r /grant:r "*{winpipe.user()}:{whole}"'
                + "".join(f' /remove:g "*{sid}"' for sid in who),
            )
    else:
        status = os.stat(path)
        if status.st_uid not in (os.geteuid(), 0):
            raise SettingsError(
                f"{path} belongs to another user (number {status.st_uid})",
                "work as that user, or set PAGEANTRY_HOME to a folder of your own",
            )
        if status.st_mode & 0o022:
            from shlex import quote

            raise SettingsError(
                f"others can write to {path}, so it cannot be trusted", f"run: chmod go-w {quote(path)}"
            )


def _sync_folder(folder: str) -> None:
    """Have a new name in `folder` survive a power cut, where the file system can promise that."""
    if sys.platform != "win32":
        with suppress(OSError):
            file = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(file)
            finally:
                os.close(file)
