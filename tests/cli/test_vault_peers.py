"""Beside the real derivepassphrase, and with the real ssh-agent."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.interop
Run = subprocess.CompletedProcess[str]


@pytest.fixture(autouse=True)
def surroundings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("SSH_AUTH_SOCK", "VAULT_KEY", "VAULT_PATH"):
        monkeypatch.delenv(name, raising=False)
    for name in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(name, str(tmp_path))
    monkeypatch.setenv("PAGEANTRY_HOME", str(tmp_path / "ours"))
    monkeypatch.setenv("PYTHONUTF8", "1")
    return tmp_path


@pytest.fixture
def theirs(peers: str) -> list[str]:
    return [peers, "-m", "derivepassphrase"]


@pytest.fixture
def agent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An ssh-agent in SSH_AUTH_SOCK; the folder with the key files one, two and curve, which are not in it yet."""
    if sys.platform == "win32":
        pytest.skip("an agent on a UNIX socket")
    if missing := [tool for tool in ("ssh-agent", "ssh-add", "ssh-keygen") if shutil.which(tool) is None]:
        pytest.skip(f"{', '.join(missing)} not installed")
    for name, kind in (("one", "ed25519"), ("two", "rsa"), ("curve", "ecdsa")):
        command = ["ssh-keygen", "-q", "-t", kind, "-N", "", "-C", name, "-f", str(tmp_path / name)]
        subprocess.run(command, check=True, timeout=60)
    socket = str(tmp_path / "agent")
    said = subprocess.run(["ssh-agent", "-a", socket], check=True, capture_output=True, text=True, timeout=30).stdout
    process = re.search(r"SSH_AGENT_PID=(\d+)", said)
    assert process
    monkeypatch.setenv("SSH_AUTH_SOCK", socket)
    yield tmp_path
    os.kill(int(process[1]), signal.SIGTERM)


def add(folder: Path, *names: str) -> None:
    subprocess.run(["ssh-add", "-q", *(folder / name for name in names)], check=True, timeout=30)


def call(program: list[str], words: list[str], stdin: str = "") -> Run:
    env = os.environ | {"DERIVEPASSPHRASE_PATH": str(Path.home() / "theirs")}
    command = [*program, "vault", *words]
    return subprocess.run(
        command, input=stdin, capture_output=True, encoding="utf-8", env=env, timeout=60, start_new_session=True
    )


def ours(*words: str, stdin: str = "") -> Run:
    done = call([sys.executable, "-m", "pageantry"], list(words), stdin)
    assert "Traceback" not in done.stderr
    return done


# Each step: the words of the command line, and what is piped in.
SETTINGS = (
    '{"global": {"phrase": "abc", "length": 12}, "services": {"a b": {"notes": "x\\ny", "symbol": 0}, "x": {"foo": 1}}}'
)
STEPS: list[tuple[list[str], str]] = [
    (["-p", "google"], "my phrase\n"),
    (["-p", "--length", "30", "--lower", "3", "--dash", "2", "--symbol", "0", "google"], "grüße"),
    (["--config", "--length", "30", "--dash", "0", "google"], ""),
    (["-c", "-l", "25"], ""),
    (["-c", "-p", "--repeat", "1"], "my phrase\n"),
    (["google"], ""),
    (["nothing"], ""),
    (["-c", "-p", "google"], "another\n"),
    (["google"], ""),
    (["-p", "google"], "third\n"),
    (["-c", "--unset", "length", "--unset", "phrase", "google"], ""),
    (["--unset", "dash", "google"], ""),
    (["-i", "-"], SETTINGS),
    (["a b"], ""),
    (["--print-notes-before", "a b"], ""),
    (["-c", "--overwrite-existing", "--lower", "3", "a b"], ""),
    (["a b"], ""),
    (["-i", "-", "--overwrite-existing"], '{"services": {"y": {"phrase": "z", "upper": 0, "notes": "n"}}}'),
    (["y"], ""),
    (["-c", "--number", "2", ""], ""),
    (["y"], ""),
    (["--delete-globals"], ""),
    (["-x", "y"], ""),
    (["-x", "y"], ""),
    (["-c", "--space", "1", "z"], ""),
    (["-X"], ""),
    (["-i", "-"], "[]"),
    (["-i", "missing"], ""),
    (["-e", "missing/file"], ""),
    ([], ""),
    (["-p", "-k", "x"], ""),
    (["-c"], ""),
    (["-c", "x"], ""),
    (["-c", "-x", "x"], ""),
    (["-c", "--lower", "0", "--unset", "lower", "x"], ""),
    (["-x"], ""),
    (["-X", "x"], ""),
    (["-e", "-", "x"], ""),
    (["-e", "-", "-l", "3"], ""),
    (["-l", "0", "x"], ""),
    (["--lower", "-1", "x"], ""),
    (["--unset", "other", "-c"], ""),
]


@pytest.mark.skipif(sys.platform == "win32", reason="it asks the console there, whatever is piped in, and hangs")
def test_a_script_for_derivepassphrase_goes_on_with_ours(theirs: list[str]) -> None:
    for words, stdin in STEPS:
        one, other = call(theirs, words, stdin), ours(*words, stdin=stdin)
        assert (other.returncode, other.stdout) == (one.returncode, one.stdout), words
        if {"-c", "--config", "-i", "-x", "-X", "--delete-globals"} & set(words):
            one, other = call(theirs, ["-e", "-"]), ours("-e", "-")
            assert other.stdout == one.stdout + "\n", words


def test_notes_go_to_the_same_place(theirs: list[str]) -> None:
    for run in (lambda *words, stdin="": call(theirs, list(words), stdin), ours):
        run("-i", "-", stdin='{"services": {"x": {"phrase": "p", "notes": "one\\ntwo"}}}')
    for flags in ([], ["--print-notes-before"], ["--print-notes-after"]):
        assert ours(*flags, "x").stderr == call(theirs, [*flags, "x"]).stderr


def test_derivepassphrases_file_gives_the_same_passphrases_once_imported(theirs: list[str]) -> None:
    config: dict[str, Any] = {
        "global": {"phrase": "p", "repeat": 2},
        "services": {
            str(number): {"length": 40, "lower": 0, "upper": 0, "symbol": 0, "repeat": number} for number in range(6)
        }
        | {"inherits": {}},
    }
    call(theirs, ["-i", "-"], json.dumps(config))
    done = ours("-i", str(Path.home() / "theirs" / "vault.json"))
    assert "derivepassphrase" in done.stderr
    for name in config["services"]:
        assert ours(name).stdout == call(theirs, [name]).stdout


def test_our_settings_file_is_one_that_derivepassphrase_reads(theirs: list[str]) -> None:
    ours("-i", "-", stdin='{"global": {"phrase": "p"}, "services": {"grüße": {"repeat": 1, "upper": 2}}}')
    folder = Path.home() / "theirs"
    folder.mkdir()
    shutil.copy(Path.home() / "ours" / "vault.json", folder)
    assert call(theirs, ["grüße"]).stdout == ours("grüße").stdout
    before = (folder / "vault.json").read_text(encoding="utf-8")  # on Windows it ends its lines otherwise
    call(theirs, ["-c", "-l", "9"])
    call(theirs, ["-c", "--unset", "length"])
    assert (folder / "vault.json").read_text(encoding="utf-8") == before


def test_a_key_in_ssh_agent_gives_the_passphrase_that_derivepassphrase_gives(theirs: list[str], agent: Path) -> None:
    add(agent, "curve", "one")
    assert ours("-k", "x").stdout == call(theirs, ["-k", "x"], "y\n").stdout
    add(agent, "two")
    for number in ("1\n", "2\n"):
        done = ours("-k", "x", stdin=number)
        assert done.stdout == call(theirs, ["-k", "x"], number).stdout
        assert len(done.stdout) == 21
    ours("-c", "-k", "x", stdin="2\n")
    call(theirs, ["-c", "-k", "x"], "2\n")
    assert ours("-e", "-").stdout == call(theirs, ["-e", "-"]).stdout + "\n"
    assert ours("x").stdout == call(theirs, ["x"]).stdout


def test_a_key_in_ssh_agent_is_used_and_said(agent: Path) -> None:
    add(agent, "one")
    done = ours("x")
    assert len(done.stdout) == 21
    assert done.stderr.startswith("using the key one (SHA256:")
    assert ours("--with-key", "one", "x").stdout == done.stdout
    assert ours("--ssh-agent-socket-provider", "native", "-k", "x").stdout == done.stdout
    subprocess.run(["ssh-add", "-qD"], check=True, timeout=30)
    assert ours("--agent", f"keys:{agent / 'one'}", "x").stdout == done.stdout


def test_an_agent_that_signs_differently_each_time_is_found_out(agent: Path) -> None:
    add(agent, "curve")
    for words in (["--with-key", "curve", "x"], ["-c", "--with-key", "curve", "x"]):
        done = ours(*words)
        assert (done.returncode, done.stdout) == (1, "")
        assert "differently each time" in done.stderr
    assert not (Path.home() / "ours" / "vault.json").exists()


def test_a_locked_agent_and_a_lost_key_are_told_in_two_lines(agent: Path) -> None:
    add(agent, "one")
    ours("-c", "--with-key", "one", "x")
    subprocess.run(["ssh-add", "-qd", agent / "one"], check=True, timeout=30)
    done = ours("--agent", os.environ["SSH_AUTH_SOCK"], "x")
    assert (done.returncode, done.stdout) == (1, "")
    assert len(done.stderr.splitlines()) == 2
