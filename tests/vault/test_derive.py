import json
import math
import random
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import pageantry
from pageantry.errors import ImpossibleSettings
from pageantry.vault.derive import CLASSES, COMPATS, MAX_LENGTH, UUID, derive

PHRASE = "She cells C shells bye the sea shoars"
VECTORS = json.loads(Path(__file__).with_name("vault.json").read_text(encoding="utf-8"))

counts = st.integers(0, 12)
settings = st.fixed_dictionaries(
    {}, optional={"length": st.integers(1, 80), "repeat": counts} | dict.fromkeys(CLASSES, counts)
)
words = st.text(st.characters(exclude_categories=["Cs"]), max_size=80)


def outcome(phrase: str, service: str, compat: str, chosen: dict[str, int]) -> str | None:
    try:
        return derive(phrase, service, compat=compat, **chosen)
    except ImpossibleSettings:
        return None


@pytest.mark.parametrize("compat", COMPATS)
@pytest.mark.parametrize("case", VECTORS["named"], ids=lambda case: case["name"])
def test_each_named_vector_holds(case: dict[str, Any], compat: str) -> None:
    assert outcome(case["phrase"], case["service"], compat, case["settings"]) == case[compat]


@pytest.mark.parametrize("compat", COMPATS)
def test_all_random_vectors_hold(compat: str) -> None:
    cases = VECTORS["random"]
    assert len(cases) == 400
    assert [outcome(case["phrase"], case["service"], compat, case["settings"]) for case in cases] == [
        case[compat] for case in cases
    ]


def random_cases(count: int, longest: int) -> list[dict[str, Any]]:
    rng = random.Random(20)
    alphabet = "aZ09 _-éß🔑\u0301/."
    cases = []
    for _ in range(count):
        chosen = {name: rng.choice([0, 0, 1, 2, 9]) for name in CLASSES if rng.random() < 0.4}
        chosen["length"] = rng.randint(1, longest)
        chosen["repeat"] = rng.randint(0, 4)
        phrase, service = ("".join(rng.choices(alphabet, k=rng.randint(1, 90))) for _ in range(2))
        cases.append({"phrase": phrase, "service": service, "settings": chosen})
    return cases


VAULT_ORACLE = """
const Vault = require(process.argv[1] + '/vault/lib/vault.js');
const cases = JSON.parse(require('fs').readFileSync(0, 'utf8'));
console.log(JSON.stringify(cases.map(c => {
  try { return new Vault({phrase: c.phrase, ...c.settings}).generate(c.service); } catch (e) { return null; }
})));
"""


def test_npm_vault_agrees_on_random_cases(npm: Path) -> None:
    cases = random_cases(300, 60) + random_cases(2, MAX_LENGTH)
    done = subprocess.run(
        ["node", "-e", VAULT_ORACLE, str(npm)], input=json.dumps(cases), capture_output=True, text=True, check=True
    )
    compared = 0
    for case, theirs in zip(cases, json.loads(done.stdout), strict=True):
        if theirs is None or "undefined" not in theirs:  # where it ran out of bits there is nothing to agree with
            compared += 1
            assert outcome(case["phrase"], case["service"], "vault", case["settings"]) == theirs, case
    assert compared > 250


PEER_ORACLE = """
import json, sys
from derivepassphrase.vault import Vault
def run(case):
    try:
        return Vault(phrase=case["phrase"], **case["settings"]).generate(case["service"]).decode()
    except ValueError:
        return None
print(json.dumps([run(case) for case in json.load(sys.stdin)]))
"""


def test_derivepassphrase_agrees_on_random_cases(peers: str) -> None:
    cases = random_cases(300, 60)
    done = subprocess.run(
        [peers, "-c", PEER_ORACLE], input=json.dumps(cases), capture_output=True, text=True, check=True
    )
    for case, theirs in zip(cases, json.loads(done.stdout), strict=True):
        assert outcome(case["phrase"], case["service"], "derivepassphrase", case["settings"]) == theirs, case


@given(words, words, settings, st.sampled_from(COMPATS))
def test_a_passphrase_keeps_to_its_settings(phrase: str, service: str, chosen: dict[str, int], compat: str) -> None:
    try:
        word = derive(phrase, service, compat=compat, **chosen)
    except ImpossibleSettings:
        return
    assert len(word) == chosen.get("length", 20)
    assert word.isascii()
    assert word.isprintable()
    assert "`" not in word
    for name, chars in CLASSES.items():
        found = sum(char in chars for char in word)
        assert found >= chosen.get(name, 0)
        if chosen.get(name) == 0 and not (name == "symbol" and chosen.get("dash")):
            overlapping = name == "dash" and chosen.get("symbol")
            assert found == 0 or overlapping
    if repeat := chosen.get("repeat", 0):
        assert all(char * (repeat + 1) not in word for char in set(word))
    assert derive(phrase.encode(), service, compat=compat, **chosen) == word


@given(words, words, settings.filter(lambda chosen: chosen.get("repeat", 0) > 1))
def test_derivepassphrases_repeat_is_one_less(phrase: str, service: str, chosen: dict[str, int]) -> None:
    less = chosen | {"repeat": chosen["repeat"] - 1}
    assert outcome(phrase, service, "derivepassphrase", chosen) == outcome(phrase, service, "vault", less)


@pytest.mark.parametrize(("service", "word"), [("102", "161"), ("192", "690"), ("1838", "850")])
def test_running_out_of_bits_takes_more_of_them(service: str, word: str) -> None:
    # vault(1) has too few bits here and writes "undefined" for the last digit.
    assert derive(PHRASE, service, length=3, number=3) == word


def test_the_longest_allowed_passphrase_is_made() -> None:
    assert len(derive(PHRASE, "long", length=MAX_LENGTH)) == MAX_LENGTH


def test_exact_logarithms_are_what_vaults_floats_give() -> None:
    # vault(1) counts digits by dividing logarithms, this package by multiplying; they must never differ.
    for limit in range(2, MAX_LENGTH + 1):
        base = 2
        seen = set()
        while base > 1 and base not in seen:
            seen.add(base)
            count, power = 0, 1
            while power < limit:
                count, power = count + 1, power * base
            assert math.ceil(math.log(limit) / math.log(base)) == count, (limit, base)
            base = (power - limit - 1) % limit + 1  # from a base above the limit, one digit is taken: no logarithm


@pytest.mark.parametrize(
    ("chosen", "clash"),
    [
        ({"length": 3, "upper": 4}, "upper 4"),
        ({"length": 10**9}, "4096"),
        ({"lower": 10**9}, "lower 1000000000"),
        ({"length": 3, "upper": 2, "symbol": 2}, "upper 2 + symbol 2"),
        ({"lower": 0, "upper": 0, "number": 0, "space": 0, "symbol": 0}, "symbol"),
        ({"lower": 0, "upper": 0, "number": 0, "symbol": 0, "repeat": 1}, "repeat of 1"),
        ({"length": 4, "space": 4, "repeat": 2}, "repeat of 2"),
    ],
)
def test_impossible_settings_name_what_clashes(chosen: Any, clash: str) -> None:
    with pytest.raises(ImpossibleSettings, match=re.escape(clash)) as caught:
        derive(PHRASE, "x", **chosen)
    assert caught.value.hint
    assert PHRASE not in str(caught.value) + caught.value.hint


@pytest.mark.parametrize(
    ("chosen", "kind"),
    [
        ({"lenght": 3}, TypeError),
        ({"length": True}, TypeError),
        ({"length": 2.0}, TypeError),
        ({"length": "2"}, TypeError),
        ({"length": None}, TypeError),
        ({"length": 0}, ValueError),
        ({"lower": -1}, ValueError),
        ({"repeat": -1}, ValueError),
        ({"compat": "other"}, ValueError),
    ],
)
def test_settings_of_a_wrong_kind_are_refused(chosen: Any, kind: type[Exception]) -> None:
    with pytest.raises(kind):
        derive(PHRASE, "x", **chosen)


def test_text_that_utf8_cannot_hold_is_refused_without_showing_it() -> None:
    with pytest.raises(ValueError, match="phrase") as caught:
        derive("secret\udcff", "x")
    assert "secret" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__
    with pytest.raises(ValueError, match="service"):
        derive(PHRASE, "x\udcff")


def test_a_service_of_a_megabyte_is_fine() -> None:
    assert len(derive(PHRASE, "x" * 1_000_000)) == 20


def test_the_uuid_ends_the_salt() -> None:
    assert derive(PHRASE, "google" + UUID) != derive(PHRASE, "google")


def test_importing_derive_costs_hashlib_and_no_more() -> None:
    code = (
        "import sys; from pageantry.vault.derive import derive; derive('x', 'y');"
        "print([name for name in ('typing', 're', 'json', 'dataclasses', 'collections') if name in sys.modules])"
    )
    package = str(Path(pageantry.__file__).parents[1])
    code = f"import sys; sys.path.insert(0, {package!r}); {code}"
    done = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_repeat_beyond_any_length_is_none() -> None:
    assert derive("p", "s", repeat=10**20) == derive("p", "s")
