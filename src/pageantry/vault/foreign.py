"""The front of vault(1)'s own stores: whichever format it is, one call reads it."""

from __future__ import annotations

import os

from ..errors import SettingsError
from .sealed import Damaged, WrongPassword
from .settings import checked, decoded
from .store import read_bounded

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Final

    from .settings import Config

#: The formats of vault(1)'s stores: two of a file and one of a folder.
FORMATS: Final = ("v0.3", "v0.2", "storeroom")


def load(
    path: str, password: bytes, formats: Sequence[str] = FORMATS, *, data: bytes | None = None
) -> tuple[Config, list[str]]:
    """The settings in vault(1)'s store at `path`, and in words what was changed to make them valid.

    `data` is what the file holds, where it was read already. `formats` are tried in their order. Raises
    `SettingsError`, which shows neither the password nor a content.
    """
    folder = os.path.isdir(path)
    fitting = [form for form in formats if (form == "storeroom") == folder]
    if not fitting:
        raise SettingsError(
            f"{path} is a {'folder' if folder else 'file'}, which is not how {' or '.join(formats)} is kept",
            "give another --format, or none",
        )
    try:
        failures = []
        for form in fitting:
            try:
                return _load(path, password, form, data)
            except (Damaged, WrongPassword) as error:
                failures.append(error)
    except OSError as error:
        raise SettingsError(
            f"cannot read {error.filename or path}: {error.strerror}", "give the path of vault(1)'s store"
        ) from None
    raise _verdict(path, failures)


def _load(path: str, password: bytes, form: str, data: bytes | None) -> tuple[Config, list[str]]:
    from . import native, storeroom

    if form == "storeroom":
        return checked(storeroom.read_storeroom(path, password), path)
    read = {"v0.2": native.read_v02, "v0.3": native.read_v03}[form]
    return checked(decoded(read(read_bounded(path) if data is None else data, password), path), path)


def _verdict(path: str, failures: list[Damaged | WrongPassword]) -> SettingsError:
    """The failure that says most: the password is the usual reason, and one that lies deeper knows better."""
    best = next((error for error in failures if isinstance(error, WrongPassword)), failures[0])
    if isinstance(best, WrongPassword):
        return SettingsError(f"cannot open {path}: wrong password, or a damaged store", best.hint)
    return SettingsError(f"cannot read {path} as a store of vault(1): {best}", best.hint or "bring back a copy of it")
