"""Saved settings as values: what is valid, what holds for a service, and how others' settings join ours.

    {"global"?: entry, "services": {name: entry}}

An entry may hold `key` (a public key blob in base64), `phrase`, `notes`, `compat` (all text), `length` from 1, and
`repeat` and the six classes of characters from 0 (see `derive`). Other names are kept as they are.
"""

from __future__ import annotations

from ..errors import SettingsError
from .derive import CLASSES, COMPATS, DEFAULT_LENGTH, SETTINGS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any, Final, TypeAlias

    Entry: TypeAlias = dict[str, Any]
    Config: TypeAlias = dict[str, Any]

_TEXTS = ("key", "phrase", "notes", "compat")

#: The names that an entry may hold and that mean something here.
NAMES: Final = ("phrase", "key", *SETTINGS, "notes", "compat")

_HINT = "mend it in a text editor, or delete that line"


def checked(data: object, source: str) -> tuple[Config, list[str]]:
    """A copy of the settings `data`, and in words what was changed to make it valid.

    vault(1) only asks whether a value is true or false as JavaScript sees it, so null, "", 0 and false pass for "not
    set"; they are replaced by what vault(1) takes them for, or left out. Raises `SettingsError` for all else that is
    wrong; it names `source`, the file in a person's words, and the place in it, but no value.
    """
    if not isinstance(data, dict):
        raise SettingsError(f"{source} holds no settings, but {_kind(data)}", "it is an object with services in it")
    services = _object(data.get("services", {}), "services", source)
    for name in services:
        _check_text(name, f"services.{quoted(name)}", source)
    notes: list[str] = []
    config = data | {
        "services": {
            name: _checked_entry(entry, f"services.{quoted(name)}", source, notes) for name, entry in services.items()
        }
    }
    if "global" in data:
        config["global"] = _checked_entry(data["global"], "global", source, notes)
    return config, notes


def effective(config: Config, service: str, chosen: Entry) -> Entry:
    """What holds for `service`: `chosen` on the command line before its own entry before the global one.

    Of `key` and `phrase` only one is in the answer, or none: the one from the more specific of these sources, and
    within one source the key. A global `compat` is about the global `repeat` and no other. Notes are a service's own.
    """
    own, shared = config["services"].get(service, {}), config.get("global", {})
    levels = [chosen, own, shared]
    merged: Entry = shared | own | chosen
    if "repeat" in own | chosen and "compat" not in own | chosen:
        merged.pop("compat", None)
    if "notes" not in own:
        merged.pop("notes", None)
    merged.pop("key", None)
    merged.pop("phrase", None)
    hidden: set[str] = set()
    for level in levels:
        for name in ("key", "phrase"):
            if level.get(name) and name not in hidden:
                return merged | {name: level[name]}
        hidden |= level.keys()  # an empty key says that the global one is not meant here
    return merged


def shape(settings: Entry) -> dict[str, Any]:
    """The part of effective `settings` that `derive` takes."""
    return {name: settings[name] for name in (*SETTINGS, "compat") if name in settings}


def imported(existing: Config, others: Config, *, merge: bool = True, compat: str = "") -> tuple[Config, list[str]]:
    """`existing` with `others`' settings in it, and the places whose `repeat` is now read as derivepassphrase does.

    With `merge`, an entry of `others` replaces ours of that name as a whole and the rest stays; without, nothing of
    ours stays. An entry with `repeat` from 2 on that does not say whose meaning it has gets `compat`, if given;
    otherwise it was derivepassphrase's, as our own always say so.
    """
    result: Config = existing | {"services": dict(existing["services"])} if merge else {"services": {}}
    result |= {name: value for name, value in others.items() if name not in ("global", "services")}
    marked: list[str] = []
    for place, name, entry in _entries(others):
        copy = dict(entry)
        if copy.get("repeat", 0) > 1 and "compat" not in copy:
            copy["compat"] = compat or "derivepassphrase"
            if not compat:
                marked.append(place)
        if name is None:
            result["global"] = copy
        else:
            result["services"][name] = copy
    return result, marked


def with_compat(config: Config) -> Config:
    """`config` where each entry with `repeat` from 2 on says whose meaning that has, for whoever imports it."""
    result = config | {"services": dict(config["services"])}
    for _, name, entry in _entries(config):
        if entry.get("repeat", 0) > 1 and "compat" not in entry:
            marked = entry | {"compat": "vault"}
            if name is None:
                result["global"] = marked
            else:
                result["services"][name] = marked
    return result


def encoded(config: Config) -> bytes:
    """The settings as derivepassphrase writes them too: JSON in UTF-8, sorted, indented by two.

    Raises `SettingsError` for text that UTF-8 cannot hold.
    """
    import json

    try:
        return json.dumps(config, ensure_ascii=False, indent=2, sort_keys=True).encode()
    except UnicodeEncodeError:  # which would show what it could not encode
        raise SettingsError(
            "the settings hold text that UTF-8 cannot hold", "use other characters for the name, phrase or notes"
        ) from None


def decoded(data: bytes, source: str) -> object:
    """The JSON value in `data`. Raises `SettingsError`, which names `source`."""
    import json

    try:
        return json.loads(data.decode("utf-8-sig"), parse_constant=_refuse_constant)
    except UnicodeDecodeError as error:
        raise SettingsError(f"{source} is not UTF-8 at byte {error.start}", _HINT) from None
    except json.JSONDecodeError as error:
        what = "ends too early" if error.pos >= len(error.doc.rstrip()) else "is not JSON"
        place = f"line {error.lineno}, column {error.colno}"
        raise SettingsError(f"{source} {what} at {place}", "mend it, or bring back a copy of it") from None
    except (ValueError, RecursionError):
        raise SettingsError(f"{source} is not JSON that can be read", "mend it, or bring back a copy of it") from None


def quoted(name: str) -> str:
    """`name` in double quotes, without control characters and not too long, for messages."""
    shown = name if len(name) <= 64 else name[:63] + "…"
    return '"' + repr(shown)[1:-1] + '"'


def _entries(config: Config) -> Iterator[tuple[str, str | None, Entry]]:
    """Each entry with its place in words and its service's name, None for the global one."""
    if "global" in config:
        yield "global", None, config["global"]
    for name, entry in config["services"].items():
        yield f"services.{quoted(name)}", name, entry


def _checked_entry(data: object, place: str, source: str, notes: list[str]) -> Entry:
    entry = {}
    for name, value in _object(data, place, source).items():
        if name not in NAMES:
            entry[name] = value
            continue
        valid = _checked_value(name, value, f"{place}.{name}", source)
        if valid is None or (name == "key" and valid == "" and place == "global"):
            notes.append(f"{place}.{name} was {_kind(value)}, which says nothing, and is left out")
            continue
        if type(valid) is not type(value) or valid != value:
            notes.append(f"{place}.{name} was {_kind(value)} and is now {valid!r}")
        entry[name] = valid
    return entry


def _checked_value(name: str, value: object, place: str, source: str) -> str | int | None:
    """The valid value for `value`, or None where it says nothing."""
    unset = value in (None, False, 0, "")
    if name in _TEXTS:
        if unset:
            return "" if name in ("key", "phrase") else None
        if not isinstance(value, str):
            raise SettingsError(f"{source}: {place} is {_kind(value)}, not text", _HINT)
        _check_text(value, place, source)
        if name == "compat" and value not in COMPATS:
            raise SettingsError(f"{source}: {place} is not one of {', '.join(COMPATS)}", _HINT)
        return value
    if unset and (name not in CLASSES or value is None or isinstance(value, (bool, str))):
        return {"length": DEFAULT_LENGTH, "repeat": 0}.get(name)
    if isinstance(value, float) and value.is_integer():
        value = int(value)  # JavaScript has one kind of number
    if not isinstance(value, int) or isinstance(value, bool):
        raise SettingsError(f"{source}: {place} is {_kind(value)}, not a whole number", _HINT)
    if value < (name == "length"):
        raise SettingsError(f"{source}: {place} is below {int(name == 'length')}", _HINT)
    return value


def _check_text(text: str, place: str, source: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:  # which would show the text
        raise SettingsError(f"{source}: {place} has characters that UTF-8 cannot hold", _HINT) from None


def _object(data: object, place: str, source: str) -> dict[str, Any]:
    if not isinstance(data, dict):
        raise SettingsError(f"{source}: {place} is {_kind(data)}, not an object", _HINT)
    return data


def _kind(value: object) -> str:
    """What sort of JSON value it is; the value itself only where that tells nothing."""
    if value is None or isinstance(value, bool) or value == "":
        return {None: "null", True: "true", False: "false", "": "empty text"}[value]
    return {str: "text", dict: "an object", list: "a list", float: "a number with a fraction"}.get(
        type(value), "a number"
    )


def _refuse_constant(name: str) -> None:
    raise ValueError(name)
