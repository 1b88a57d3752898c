import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pageantry.errors import SettingsError
from pageantry.vault.derive import CLASSES, derive
from pageantry.vault.settings import checked, decoded, effective, encoded, imported, shape, with_compat

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)
names = st.sampled_from(["key", "phrase", "notes", "compat", "length", "repeat", "lower", "symbol", "other"])
entries = st.fixed_dictionaries(
    {},
    optional={
        "key": st.text(max_size=3),
        "phrase": st.text(max_size=3),
        "notes": st.text(min_size=1),
        "compat": st.sampled_from(["vault", "derivepassphrase"]),
        "length": st.integers(1, 99),
        "repeat": st.integers(0, 9),
        "lower": st.integers(0, 3),
        "other": values,
    },
)
configs = st.builds(
    lambda services, top: {"services": services} | top,
    st.dictionaries(st.text(max_size=3), entries, max_size=4),
    st.fixed_dictionaries({}, optional={"global": entries.filter(lambda entry: entry.get("key") != "")}),
)


def one(**entry: Any) -> dict[str, Any]:
    return {"services": {"foo": entry}}


@pytest.mark.parametrize(
    ("data", "place"),
    [
        ([], "a list"),
        (None, "null"),
        ("secret", "text"),
        ({"services": None}, "services is null"),
        ({"services": {"foo": None}}, 'services."foo" is null'),
        ({"global": None}, "global is null"),
        ({"global": {"length": "secret"}}, "global.length is text"),
        (one(length=1.5), 'services."foo".length is a number with a fraction'),
        (one(length=-1), 'services."foo".length is below 1'),
        (one(length=True), 'services."foo".length is true'),
        (one(length=[]), 'services."foo".length is a list'),
        (one(lower=-1), 'services."foo".lower is below 0'),
        (one(repeat={}), 'services."foo".repeat is an object'),
        (one(lower=True), 'services."foo".lower is true'),
        (one(key=5), 'services."foo".key is a number'),
        (one(phrase=["secret"]), 'services."foo".phrase is a list'),
        (one(notes={}), 'services."foo".notes is an object'),
        (one(compat="secret"), 'services."foo".compat is not one of vault'),
        ({"services": {'a"\n\x1b[2J': 3}}, r'services."a"\n\x1b[2J" is a number'),
    ],
)
def test_a_wrong_type_is_named_by_its_place_and_not_shown(data: object, place: str) -> None:
    with pytest.raises(SettingsError) as caught:
        checked(data, "the file")
    assert place in str(caught.value)
    assert "the file" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.hint
    assert "secret" not in str(caught.value) + caught.value.hint


@pytest.mark.parametrize("empty", [None, False, 0, 0.0, ""])
def test_what_javascript_holds_for_false_is_what_vault_takes_it_for(empty: object) -> None:
    entry = dict.fromkeys(("key", "phrase", "notes", "length", "repeat", "other"), empty)
    config, _ = checked(one(**entry), "it")
    assert config == one(key="", phrase="", length=20, repeat=0, other=empty)
    config, _ = checked({"global": entry}, "it")
    assert config == {"global": {"phrase": "", "length": 20, "repeat": 0, "other": empty}, "services": {}}


def test_a_class_that_is_zero_stays_and_one_that_is_not_a_number_goes() -> None:
    assert checked(one(lower=0, upper=0.0), "it")[0] == one(lower=0, upper=0)
    for empty in (None, False, ""):
        assert checked(one(**dict.fromkeys(CLASSES, empty)), "it")[0] == one()


def test_what_was_changed_is_told() -> None:
    _, notes = checked(one(length=None, lower="", phrase="secret", upper=0, repeat=3), "it")
    assert notes == [
        'services."foo".length was null and is now 20',
        'services."foo".lower was empty text, which says nothing, and is left out',
    ]


def test_what_is_not_known_is_kept() -> None:
    data = {"version": 3, "services": {"foo": {"bar": [1, None]}}, "global": {"x": {"y": 1.5}}}
    assert checked(data, "it") == (data, [])


@given(st.dictionaries(st.sampled_from(["global", "services", "x"]), st.dictionaries(names, values) | values))
def test_any_json_is_either_valid_or_refused_in_words(data: dict[str, Any]) -> None:
    try:
        config, _ = checked(data, "it")
    except SettingsError:
        return
    assert checked(config, "it") == (config, [])


@given(configs)
def test_settings_survive_being_written_and_read(config: dict[str, Any]) -> None:
    try:
        data = encoded(config)
    except SettingsError:
        assert "\\ud" in json.dumps(config)
        return
    assert checked(decoded(data, "it"), "it") == (config, [])


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"", "ends too early at line 1"),
        (b'{"services": {', "ends too early"),
        (b'{\n"services": }', "not JSON at line 2, column 13"),
        (b'{"services": {"a": {"phrase": "secr', "is not JSON at line 1"),
        (b"\xff\xfe{}", "not UTF-8 at byte 0"),
        (b"[" * 100_000, "not JSON"),
        (b'{"a": NaN}', "not JSON"),
        (b"1" * 5000, "not JSON"),
    ],
)
def test_a_damaged_file_is_told_by_its_place(data: bytes, what: str) -> None:
    with pytest.raises(SettingsError) as caught:
        decoded(data, "the file")
    assert what in str(caught.value)
    assert "secr" not in str(caught.value)
    assert caught.value.hint


def test_a_byte_order_mark_is_no_damage() -> None:
    assert decoded(b"\xef\xbb\xbf{}", "it") == {}


@pytest.mark.parametrize(
    ("chosen", "service", "top", "winner"),
    [
        ({}, {}, {"key": "gk"}, {"key": "gk"}),
        ({}, {"phrase": "sp"}, {"key": "gk"}, {"phrase": "sp"}),
        ({}, {"key": "sk"}, {"phrase": "gp"}, {"key": "sk"}),
        ({}, {"key": "sk", "phrase": "sp"}, {}, {"key": "sk"}),
        ({"phrase": "cp"}, {"key": "sk"}, {"key": "gk"}, {"phrase": "cp"}),
        ({"key": "ck"}, {"phrase": "sp"}, {}, {"key": "ck"}),
        ({}, {"key": ""}, {"key": "gk", "phrase": "gp"}, {"phrase": "gp"}),
        ({}, {"key": "", "phrase": ""}, {"key": "gk", "phrase": "gp"}, {}),
        ({}, {}, {}, {}),
    ],
)
def test_the_more_specific_source_of_the_phrase_wins(
    chosen: dict[str, str], service: dict[str, str], top: dict[str, str], winner: dict[str, str]
) -> None:
    config = {"global": top, "services": {"foo": service}}
    assert effective(config, "foo", chosen) == winner


def test_the_command_line_beats_the_service_beats_the_global_settings() -> None:
    config = {
        "global": {"length": 1, "upper": 1, "lower": 1, "notes": "n"},
        "services": {"a": {"length": 2, "upper": 2}},
    }
    assert effective(config, "a", {"length": 3}) == {"length": 3, "upper": 2, "lower": 1}
    assert effective(config, "b", {}) == {"length": 1, "upper": 1, "lower": 1}  # notes are a service's own
    assert shape(effective(config, "a", {})) == {"length": 2, "upper": 2, "lower": 1}


def test_the_meaning_of_a_repeat_comes_with_it() -> None:
    theirs = "derivepassphrase"
    config = {
        "global": {"repeat": 3, "compat": theirs},
        "services": {"own": {"repeat": 4}, "kept": {"repeat": 5, "compat": theirs}, "bare": {"length": 9}},
    }
    assert effective(config, "bare", {})["compat"] == theirs
    assert effective(config, "new", {})["compat"] == theirs
    assert "compat" not in effective(config, "new", {"repeat": 2})
    assert "compat" not in effective(config, "own", {})
    assert effective(config, "kept", {"repeat": 2})["compat"] == theirs
    assert effective(config, "kept", {"compat": "vault"})["compat"] == "vault"
    assert with_compat(config)["services"]["own"]["compat"] == "vault"


def test_names_that_mean_nothing_here_are_imported_too() -> None:
    assert imported({"services": {}, "a": 1, "b": 1}, {"services": {}, "b": 2})[0] == {"services": {}, "a": 1, "b": 2}


@pytest.mark.parametrize(
    "data",
    [
        {"services": {"a": {"phrase": "\ud800"}}},
        {"services": {"a": {"notes": "\udfff"}}},
        {"services": {"\ud800": {}}},
        {"global": {"key": "\ud800"}, "services": {}},
    ],
)
def test_text_that_utf_8_cannot_hold_is_refused(data: object) -> None:
    with pytest.raises(SettingsError, match="UTF-8 cannot hold"):
        checked(data, "file")


def test_a_merge_replaces_entries_whole_and_keeps_the_rest() -> None:
    ours: dict[str, Any] = {
        "global": {"length": 9},
        "services": {"a": {"length": 1, "lower": 1}, "b": {"upper": 1}},
        "x": 1,
    }
    theirs = {"services": {"a": {"length": 2}, "c": {}}}
    merged, _ = imported(ours, theirs)
    assert merged == {"global": {"length": 9}, "services": {"a": {"length": 2}, "b": {"upper": 1}, "c": {}}, "x": 1}
    assert imported(ours, {"global": {"phrase": "g"}, "services": {}})[0]["global"] == {"phrase": "g"}
    assert imported(ours, theirs, merge=False)[0] == theirs
    assert ours["services"]["a"] == {"length": 1, "lower": 1}


def test_a_plain_files_repeat_is_taken_for_derivepassphrases_and_told() -> None:
    theirs: dict[str, Any] = {
        "global": {"repeat": 2},
        "services": {"a": {"repeat": 3}, "b": {"repeat": 1}, "c": {"repeat": 4, "compat": "vault"}, "d": {}},
    }
    config, marked = imported({"services": {}}, theirs)
    assert marked == ["global", 'services."a"']
    assert config["global"] == {"repeat": 2, "compat": "derivepassphrase"}
    assert config["services"] == theirs["services"] | {"a": {"repeat": 3, "compat": "derivepassphrase"}}
    config, marked = imported({"services": {}}, theirs, compat="vault")
    assert marked == []
    assert config["services"]["a"] == {"repeat": 3, "compat": "vault"}


@given(configs)
def test_what_we_export_comes_back_unchanged(config: dict[str, Any]) -> None:
    exported = with_compat(config)
    again, marked = imported({"services": {}}, exported, merge=False)
    assert marked == []
    assert again == {name: exported[name] for name in again}
    for name in config["services"]:
        before, after = shape(effective(config, name, {})), shape(effective(again, name, {}))
        assert before | {"compat": before.get("compat", "vault")} == after | {"compat": after.get("compat", "vault")}


def test_effective_settings_are_ready_for_derive() -> None:
    config = {"global": {"repeat": 2, "phrase": "p"}, "services": {"a": {"length": 30, "notes": "n", "z": 1}}}
    assert len(derive("p", "a", **shape(effective(config, "a", {})))) == 30
