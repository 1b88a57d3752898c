"""vault(1)'s own settings in a folder, as the npm package storeroom keeps them. Read only.

The file `.keys` has the master keys, sealed with the password. The others are buckets: a header, then one sealed line
with the names in the bucket, then one for each value. A name that ends in "/" is a folder, its value what is in it.
"""

from __future__ import annotations

import os

from ..errors import SettingsError
from .sealed import IV_SIZE, MAC_SIZE, Damaged, stretched, unbase64, unsealed
from .settings import decoded, quoted
from .store import read_bounded

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

_SALT = b"35b7c7ed-f71e-4adf-9051-02fb0f1e0e17"

#: The most rounds of PBKDF2 that a store may ask for, as a power of two: a second's work. storeroom itself takes 13.
MAX_WORK: Final = 20

_KEY_SIZE = 32
_MASTER_SIZE = IV_SIZE + 3 * _KEY_SIZE + 16 + MAC_SIZE  # three keys and their padding
_SESSION_SIZE = IV_SIZE + 2 * _KEY_SIZE + 16 + MAC_SIZE
_HEX = "0123456789abcdef"


def read_storeroom(folder: str, password: bytes) -> dict[str, object]:
    """The settings `{"global": …, "services": {…}}` in a store. Raises `SettingsError`."""
    keys = _master_keys(os.path.join(folder, ".keys"), password)
    items: dict[str, object] = {}
    for name in sorted(os.listdir(folder)):
        if _is_bucket(name):
            items |= _read_bucket(os.path.join(folder, name), keys)
    _check_folders(items)
    config: dict[str, object] = {}
    services: dict[str, object] = {}
    for path, value in items.items():
        if path == "/global":
            config["global"] = value
        elif path.startswith("/services/") and not path.endswith("/"):
            services[path.removeprefix("/services/")] = value
    return config | {"services": services}


def _is_bucket(name: str) -> bool:
    """vault(1) names its buckets 00 to 1f, storeroom by one letter or digit."""
    return len(name) == 1 or (len(name) == 2 and name[0] in "01" and name[1] in _HEX)


def _master_keys(path: str, password: bytes) -> tuple[bytes, bytes]:
    """The keys that seal the session keys: for the cipher and for the MAC."""
    header, _, body = read_bounded(path).partition(b"\n")
    _check_header(header)
    data = unbase64(body, 1 + _MASTER_SIZE)
    version, work = data[0] >> 4, 10 + (data[0] & 15)
    if version != 1 or len(data) != 1 + _MASTER_SIZE:
        raise Damaged("its .keys file is of an unknown form")
    if work > MAX_WORK:
        raise Damaged(f"it asks for 2^{work} rounds of stretching, more than 2^{MAX_WORK}")
    secret = stretched(password, _SALT, 1 << work, 2 * _KEY_SIZE)
    keys = unsealed(data[1:], secret[:_KEY_SIZE], secret[_KEY_SIZE:])
    if len(keys) != 3 * _KEY_SIZE:
        raise Damaged("its .keys file is of an unknown form")
    return keys[_KEY_SIZE : 2 * _KEY_SIZE], keys[2 * _KEY_SIZE :]


def _read_bucket(path: str, keys: tuple[bytes, bytes]) -> dict[str, object]:
    name = os.path.basename(path)
    try:
        header, *lines = read_bounded(path).split(b"\n")
        _check_header(header)
        values = [decoded(_open_line(line, keys), f"line {number}") for number, line in enumerate(lines, 2) if line]
        index = values.pop(0) if values else []
        if not isinstance(index, list) or not all(isinstance(entry, str) for entry in index):
            raise Damaged("its index is no list of names")
        if len(index) != len(values):
            raise Damaged(f"its index has {len(index)} names, but it holds {len(values)} values")
    except SettingsError as error:  # its master keys opened, so the password is right
        raise Damaged(f"its bucket {name} is damaged: {error}", "bring back a copy of it") from None
    return dict(zip(index, values, strict=True))


def _open_line(line: bytes, keys: tuple[bytes, bytes]) -> bytes:
    data = unbase64(line, 1 + _SESSION_SIZE + IV_SIZE + 16 + MAC_SIZE)
    if data[0] != 1:
        raise Damaged(f"a line in format {data[0]}, which is not known")
    session = unsealed(data[1 : 1 + _SESSION_SIZE], *keys)
    if len(session) != 2 * _KEY_SIZE:
        raise Damaged("session keys of a wrong size")
    return unsealed(data[1 + _SESSION_SIZE :], session[:_KEY_SIZE], session[_KEY_SIZE:])


def _check_header(header: bytes) -> None:
    try:
        value = decoded(header, "its header")
    except SettingsError as error:
        raise Damaged(str(error)) from None
    if value != {"version": 1}:
        raise Damaged("it is not of version 1")


def _check_folders(items: dict[str, object]) -> None:
    """Raise `Damaged` when a folder in the store lists what no bucket holds, as a lost file would have it."""
    if items and "/" not in items:
        raise Damaged('it is incomplete: the list "/" is missing', "bring back the files that are lost")
    for path, value in items.items():
        if not path.endswith("/"):
            continue
        if not isinstance(value, list) or not all(isinstance(entry, str) for entry in value):
            raise Damaged(f"its list {quoted(path)} is no list of names")
        missing = sorted(path + entry for entry in value if path + entry not in items)
        if missing:
            more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
            raise Damaged(
                f"it is incomplete: {quoted(missing[0])}{more} is listed, but missing",
                "bring back the files that are lost",
            )
