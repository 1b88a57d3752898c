"""Coming from derivepassphrase and vault(1): what keeps its meaning, and what is said where it does not."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from pageantry.vault import derive

STORES = Path(__file__).parents[1] / "vault" / "stores"

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def vault(tmp_path: Path) -> Run:
    """`pageantry vault` with settings of its own."""

    def call(*words: str, given: str = "", **environ: str) -> subprocess.CompletedProcess[str]:
        clean = {name: value for name, value in os.environ.items() if not name.endswith("_AUTH_SOCK")}
        clean |= {"HOME": str(tmp_path), "PAGEANTRY_HOME": str(tmp_path / "settings"), "PYTHONUTF8": "1"}
        command = [sys.executable, "-m", "pageantry", "vault", *words]
        return subprocess.run(
            command, input=given, env=clean | environ, capture_output=True, text=True, encoding="utf-8", timeout=60
        )

    return call


def saved(tmp_path: Path) -> dict[str, dict[str, dict[str, object]]]:
    loaded: dict[str, dict[str, dict[str, object]]] = json.loads((tmp_path / "settings" / "vault.json").read_text())
    return loaded


def load(vault: Run, **config: object) -> str:
    done = vault("--import", "-", given=json.dumps({"services": {}} | config))
    assert done.returncode == 0, done.stderr
    return done.stderr


def test_the_meaning_of_an_imported_global_repeat_is_not_given_to_new_ones(vault: Run, tmp_path: Path) -> None:
    assert "derivepassphrase" in load(vault, **{"global": {"repeat": 3}})
    old, new = vault("-p", "x", given="phrase"), vault("-p", "-r", "2", "x", given="phrase")
    assert old.stdout.strip() == derive("phrase", "x", repeat=3, compat="derivepassphrase")
    assert new.stdout.strip() == derive("phrase", "x", repeat=2)
    assert vault("-c", "-r", "5", "x").returncode == 0
    assert saved(tmp_path)["services"]["x"] == {"repeat": 5, "compat": "vault"}


def test_a_service_keeps_the_meaning_that_it_was_imported_with_and_says_so(vault: Run, tmp_path: Path) -> None:
    load(vault, services={"x": {"repeat": 3}})
    done = vault("-c", "-r", "6", "x")
    assert "keeps derivepassphrase's meaning" in done.stderr
    assert saved(tmp_path)["services"]["x"] == {"repeat": 6, "compat": "derivepassphrase"}
    assert vault("-c", "--unset", "repeat", "x").returncode == 0
    assert saved(tmp_path)["services"]["x"] == {}


def test_an_export_imports_again_unchanged(vault: Run, tmp_path: Path) -> None:
    load(
        vault,
        services={"a": {"repeat": 3}, "b\0c": {"length": 9}, "": {"lower": 1}, "d'e": {"notes": "x\ny", "repeat": 1}},
        other={"kept": [1]},
    )
    before = saved(tmp_path)
    for form in ("json",) if sys.platform == "win32" else ("json", "sh"):  # a shell script wants a shell
        exported = vault("--export", "-", "--export-as", form).stdout
        assert vault("--clear").returncode == 0
        if form == "json":
            assert vault("--import", "-", given=exported).returncode == 0
        else:
            script = exported.replace("pageantry ", f"'{sys.executable}' -m pageantry ")
            environ = os.environ | {"HOME": str(tmp_path), "PAGEANTRY_HOME": str(tmp_path / "settings")}
            subprocess.run(["sh", "-e"], input=script, text=True, env=environ, check=True, capture_output=True)
        assert saved(tmp_path) == before


def test_a_phrase_that_now_beats_the_global_key_is_said(vault: Run) -> None:
    said = load(vault, **{"global": {"key": "AAAA"}, "services": {"x": {"phrase": "abc"}, "y": {"length": 3}}})
    assert '"x"' in said
    assert "--unset phrase" in said
    assert '"y"' not in said


@pytest.mark.parametrize("name", ["v0.2", "v0.3"])
def test_a_store_is_imported_from_a_pipe(vault: Run, tmp_path: Path, name: str) -> None:
    sealed = (STORES / name).read_text()
    done = vault("--import", "-", given=sealed, VAULT_KEY="not so secret")
    assert done.returncode == 0, done.stderr
    assert saved(tmp_path)["services"].keys() == json.loads((STORES / "settings.json").read_text())["services"].keys()
    wrong = vault("--import", "-", given=sealed, VAULT_KEY="wrong")
    assert (wrong.returncode, len(wrong.stderr.splitlines())) == (1, 2)


def test_exports_leave_neighbours_alone(vault: Run, tmp_path: Path) -> None:
    load(vault, services={"x": {"length": 9}})
    (tmp_path / "out.new").write_text("mine")
    assert vault("--export", str(tmp_path / "out")).returncode == 0
    assert (tmp_path / "out.new").read_text() == "mine"
    assert vault("--export", "-").stdout.strip() == (tmp_path / "out").read_text().strip()


@pytest.mark.skipif(sys.platform == "win32", reason="/dev/stdout and what shells give for a pipe's path are POSIX")
def test_exports_go_to_pipes(vault: Run) -> None:
    load(vault, services={"x": {"length": 9}})
    assert vault("--export", "/dev/stdout").stdout == vault("--export", "-").stdout != ""


@pytest.mark.parametrize("end", ["sys.exit(3)", "os.kill(os.getpid(), 9)"])
def test_what_was_typed_into_an_editor_that_fails_is_kept(vault: Run, tmp_path: Path, end: str) -> None:
    (tmp_path / "editor").write_text(f"import os, sys; open(sys.argv[1], 'w').write('precious\\n'); {end}")
    done = vault("-c", "-n", "x", VISUAL=f'"{sys.executable}" "{tmp_path / "editor"}"')
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 2)
    kept = done.stderr.splitlines()[0].rpartition(" ")[2]
    assert Path(kept).read_text() == "precious\n"


@pytest.mark.parametrize("editor", ['"not closed', "/missing/editor"])
def test_an_editor_that_cannot_be_started_is_said_in_two_lines(vault: Run, editor: str) -> None:
    done = vault("-c", "-n", "x", VISUAL=editor)
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 2)
    assert "VISUAL" in done.stderr


def test_a_carriage_return_in_a_pipe_belongs_to_the_phrase_and_on_windows_to_the_line(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pageantry", "vault", "-p", "x"]
    environ = os.environ | {"PAGEANTRY_HOME": str(tmp_path)}
    done = subprocess.run(command, input=b"a\r\n", env=environ, capture_output=True, timeout=60, check=True)
    assert done.stdout.decode() == derive("a" if sys.platform == "win32" else "a\r", "x") + "\n"


def test_a_configuration_nested_beyond_reason_is_refused_in_two_lines(vault: Run, tmp_path: Path) -> None:
    load(vault, services={"x": {"length": 9}})
    (tmp_path / "settings" / "config.toml").write_text("a=" + "[" * 3000 + "]" * 3000)
    done = vault("-p", "x", given="é")
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 2)
