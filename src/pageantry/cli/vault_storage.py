"""The part of `pageantry vault` that changes saved settings, brings them here and takes them elsewhere."""

from __future__ import annotations

import os

import click

from ..errors import Error, ImpossibleSettings, SettingsError
from ..vault.derive import SETTINGS, derive
from ..vault.settings import checked, decoded, effective, encoded, imported, quoted, shape, with_compat
from ..vault.store import MAX_FILE, read_bounded, save_privately
from .common import say
from .phrases import chosen_key, read_phrase, warn_unless_normal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

    from ..vault.settings import Config, Entry
    from .vault_call import Call

_INSTEAD: Final = {"phrase": "key", "key": "phrase"}


def run_delete(call: Call) -> None:
    """--delete SERVICE."""
    with call.store.editing() as config:
        if config["services"].pop(call.service, None) is None:
            call.say(f"there were no settings for {quoted(call.service)}")


def run_delete_globals(call: Call) -> None:
    """--delete-globals."""
    with call.store.editing() as config:
        config.pop("global", None)


def run_clear(call: Call) -> None:
    """--clear."""
    with call.store.editing() as config:
        config.clear()
        config["services"] = {}


def run_config(call: Call) -> None:
    """--config: save what the options say, for one service or for all."""
    chosen: Entry = dict(call.chosen)
    _check_config(call)
    if call.given("phrase"):
        chosen["phrase"] = read_phrase(call)
    elif call.given("key") or call.given("with_key"):
        chosen["key"] = _key_to_keep(call)
    before, path = "", ""
    if call.given("notes"):
        from .notes import discard, edited

        # The editor may be open for an hour, so the settings are not locked meanwhile.
        before = call.store.load()["services"].get(call.service, {}).get("notes", "")
        chosen["notes"], path = edited(call, before)
    try:
        _save(call, chosen, before)
    except Error as error:
        if path:
            raise SettingsError(f"{error}; your notes are in {path}", error.hint) from None
        raise
    if path:
        discard(path)


def _check_config(call: Call) -> None:
    """Refuse a --config that says nothing, or the opposite of itself."""
    ctx = click.get_current_context()
    given = {name for name in ("phrase", "key", "notes", *SETTINGS, "compat") if call.given(name)}
    given |= {"key"} if call.given("with_key") else set()
    if not given and not call.given("unset"):
        ctx.fail("--config needs a setting to save, such as --length 30, or one to --unset")
    if clash := sorted(given & set(call.options["unset"])):
        ctx.fail(f"{clash[0]} cannot be both set and unset")


def _key_to_keep(call: Call) -> str:
    """The key that the person chose, in base64, once it is sure that it makes the same phrase each time."""
    from ..vault.phrase import phrase_from

    agent, key = chosen_key(call)
    with agent:
        phrase_from(agent, key, say=call.say)
    return key.base64


def _save(call: Call, chosen: Entry, old_notes: str) -> None:
    """Put `chosen` into the settings."""
    with call.store.editing() as config:
        parent, name = (config["services"], call.service) if call.service else (config, "global")
        entry = parent.setdefault(name, {})
        if "notes" in chosen and entry.get("notes", "") != old_notes:
            raise SettingsError(
                "the notes were changed by another program meanwhile", "look at both, and edit them again"
            )
        if call.options["overwrite"]:
            entry.clear()
        for setting in call.options["unset"]:
            entry.pop(setting, None)
            if setting == "repeat":
                entry.pop("compat", None)
        if chosen.get("repeat", 0) > 1 and "compat" not in chosen and entry.get("compat") == "derivepassphrase":
            call.say("--repeat keeps derivepassphrase's meaning here; --compat vault gives it vault(1)'s")
        for new, other in _INSTEAD.items():
            if new in chosen and entry.pop(other, None):
                call.say(f"the saved {other} is gone: the {new} takes its place")
        if old_notes and chosen.get("notes", old_notes) != old_notes and not call.options["modern"]:
            kept = call.store.keep("old-notes.txt", old_notes.encode())
            call.say(f"the old notes are kept in {kept}")
        entry |= chosen
        if not entry.get("notes", "-"):
            del entry["notes"]
        _warn_if_impossible(call, config)


def _warn_if_impossible(call: Call, config: Config) -> None:
    try:
        derive("-", call.service, **shape(effective(config, call.service, {})))
    except ImpossibleSettings as error:
        say(f"saved, but no passphrase can satisfy this: {error}; {error.hint}")


def run_import(call: Call) -> None:
    """--import: from a JSON file, or from one of vault(1)'s own stores."""
    path: str = call.options["import"]
    others, notes, compat = _foreign(path)
    for note in notes:
        call.say(f"{note} (in what was imported)")
    merge = not call.options["overwrite"]
    with call.store.editing() as config:
        result, marked = imported(config, others, merge=merge, compat=call.options["compat"] or compat)
        config.clear()
        config.update(result)
    call.detail(f"imported the settings of {len(others['services'])} services from {path}")
    if marked:
        call.say(
            f"repeat is taken as derivepassphrase means it (--compat derivepassphrase) for {', '.join(marked)}; "
            "were these vault(1)'s, import them with --compat vault"
        )
    for name, entry in [("", others.get("global", {})), *others["services"].items()]:
        _warn_about(call, name, entry)
    if result.get("global", {}).get("key") and (changed := _own_phrases(result)):
        call.say(
            f"the phrases saved for {', '.join(changed)} count here, not the global key as in derivepassphrase and "
            "vault(1), so these passphrases change; to have the old ones: pageantry vault -c --unset phrase SERVICE"
        )
    if "" in others["services"]:
        call.say('the settings for the service "" are kept, but cannot be reached: an empty SERVICE means none')


def _own_phrases(config: Config) -> list[str]:
    """The services with a phrase and no key of their own."""
    return [quoted(name) for name, entry in config["services"].items() if entry.get("phrase") and not entry.get("key")]


def _warn_about(call: Call, service: str, entry: Entry) -> None:
    """A word about an imported entry that may not do what it looks like."""
    place = f"services.{quoted(service)}" if service else "global"
    if entry.get("key") and entry.get("phrase"):
        call.say(f"{place} has a key, so its phrase is not used")
    if phrase := entry.get("phrase"):
        warn_unless_normal(call, phrase, service, f"{place}.phrase")


def _foreign(path: str) -> tuple[Config, list[str], str]:
    """The settings at `path`, what was mended in them, and whose meaning `repeat` has, where that is known."""
    import sys

    data = None
    if path == "-":
        path = "standard input"
        data = sys.stdin.buffer.read(MAX_FILE + 1)
        if len(data) > MAX_FILE:
            raise SettingsError(f"standard input is larger than {MAX_FILE >> 20} MiB", "give it settings to read")
    elif not os.path.isdir(path):
        try:
            data = read_bounded(path)
        except OSError as error:
            raise SettingsError(
                f"cannot read {path}: {error.strerror}", "give the path of a file with settings"
            ) from None
    if data is not None and not _looks_sealed(data):
        return *checked(decoded(data, path), path), ""
    from ..vault.foreign import load
    from .export import store_password

    return *load(path, store_password(), data=data), "vault"


def _looks_sealed(data: bytes) -> bool:
    """Whether it may be a file of vault(1)'s: one word of base64, and a long one."""
    word = data.strip()
    return len(word) > 60 and not set(word) - set(
        b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/=\r\n"
    )


def run_export(call: Call) -> None:
    """--export: all settings, as JSON or as a script that makes them anew."""
    config = with_compat(call.store.load())
    data = encoded(config) + b"\n"
    if call.options["export_as"] == "sh":
        data = _script(config)
    path: str = call.options["export"]
    if path == "-":
        click.echo(data, nl=False)
    else:
        save_privately(path, data, f".{os.getpid()}.new")


def _script(config: Config) -> bytes:
    """A shell script that sets these settings: numbers as options, all else as JSON."""
    lines = ["#!/bin/sh -e", "", "pageantry vault --clear"]
    numbers, rest = _divided(config.get("global", {}))
    others = {name: value for name, value in config.items() if name not in ("global", "services")}
    if rest or others:
        lines.append(_import({"services": {}} | others | ({"global": rest} if rest else {})))
    if numbers:
        lines.append(_configure(numbers))
    for name, entry in sorted(config["services"].items()):
        numbers, rest = _divided(entry) if name and "\0" not in name else ({}, entry)  # no command line holds these
        if rest or not numbers:
            lines.append(_import({"services": {name: rest}}))
        if numbers:
            lines.append(_configure(numbers, "--", name))
    return ("\n".join(lines) + "\n").encode()


def _divided(entry: Entry) -> tuple[Entry, Entry]:
    """What an entry holds that options can say, and what else."""
    numbers = {name: entry[name] for name in (*SETTINGS, "compat") if name in entry}
    return numbers, {name: value for name, value in entry.items() if name not in numbers}


def _configure(numbers: Entry, *service: str) -> str:
    from shlex import join

    return join(["pageantry", "vault", "--config", *(f"--{name}={value}" for name, value in numbers.items()), *service])


def _import(part: Config) -> str:
    import json

    return f"pageantry vault --import - <<'HERE'\n{json.dumps(part, ensure_ascii=False, sort_keys=True)}\nHERE"
