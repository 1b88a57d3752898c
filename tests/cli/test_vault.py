import json
import os
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from pageantry import discovery
from pageantry.cli import main
from pageantry.vault import derive

STORES = Path(__file__).parents[1] / "vault" / "stores"


class Done:
    """What a finished command said, and its exit status."""

    def __init__(self, done: subprocess.CompletedProcess[bytes]) -> None:
        self.status = done.returncode
        self.out = done.stdout.decode()
        self.said = done.stderr.decode().replace("\r\n", "\n")
        assert "Traceback" not in self.said

    @property
    def lines(self) -> list[str]:
        return self.said.splitlines()


Vault = Callable[..., Done]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Our settings' folder, in surroundings without anything else."""
    for name in ("SSH_AUTH_SOCK", "DERIVEPASSPHRASE_PATH", "VAULT_KEY", "VAULT_PATH", "XDG_CONFIG_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name in ("HOME", "USERPROFILE", "APPDATA"):
        monkeypatch.setenv(name, str(tmp_path))
    monkeypatch.setenv("PAGEANTRY_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PYTHONUTF8", "1")
    return tmp_path / "home"


def run(*words: str | Path, stdin: str | bytes = b"", **env: str) -> Done:
    return Done(
        subprocess.run(
            [sys.executable, "-m", "pageantry", *words],
            input=stdin.encode() if isinstance(stdin, str) else stdin,
            capture_output=True,
            env=os.environ | env,
            timeout=60,
            start_new_session=True,
            creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),
        )
    )


@pytest.fixture
def vault(home: Path) -> Vault:
    return lambda *words, **options: run("vault", *words, **options)


@pytest.fixture
def called(home: Path) -> Vault:
    """As `vault`, in this very process, which is quicker by the start of one."""

    def called(*words: str, stdin: str | bytes = b"") -> Done:
        result = CliRunner().invoke(main, ["vault", *words], input=stdin)
        assert isinstance(result.exception, (SystemExit, type(None)))
        return Done(subprocess.CompletedProcess(words, result.exit_code, result.stdout_bytes, result.stderr_bytes))

    return called


@pytest.fixture
def saved(home: Path) -> Callable[[], Any]:
    return lambda: json.loads((home / "vault.json").read_text(encoding="utf-8"))


def write_settings(home: Path, **config: Any) -> None:
    home.mkdir(mode=0o700, exist_ok=True)
    (home / "vault.json").write_text(json.dumps({"services": {}} | config), encoding="utf-8")


def write_key(path: Path, private: Any = None) -> str:
    """Write a private key's file; its public half in base64 is returned."""
    private = private or ed25519.Ed25519PrivateKey.generate()
    path.write_bytes(private.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()))
    path.chmod(0o600)
    line = private.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
    path.with_suffix(".pub").write_text(line + "\n")
    return str(line.split()[1])


def test_a_phrase_from_a_pipe_gives_the_passphrase_and_nothing_else(vault: Vault) -> None:
    done = vault("-p", "google", stdin="She cells C shells bye the sea shoars\nmore\n")
    assert (done.status, done.out, done.said) == (0, ": 4TVH#5:aZl8LueOT\\{\n", "")


def test_the_null_device_is_no_person(home: Path) -> None:
    command = [sys.executable, "-m", "pageantry", "vault", "-p", "x"]
    done = Done(subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=60))
    assert (done.status, done.out) == (1, "")
    assert "standard input is empty" in done.lines[0]


@pytest.mark.skipif(sys.platform != "win32", reason="PowerShell's mark, which belongs to the phrase elsewhere")
def test_the_mark_that_powershell_puts_in_front_is_no_part_of_the_phrase(vault: Vault) -> None:
    assert vault("-p", "x", stdin=b"\xef\xbb\xbfphrase\r\n").out == derive("phrase", "x") + "\n"


def test_options_shape_the_passphrase(vault: Vault) -> None:
    done = vault("-p", "-l", "30", "-r", "2", "--upper", "3", "--symbol", "0", "x", stdin="phrase")
    assert done.out == derive("phrase", "x", length=30, repeat=2, upper=3, symbol=0) + "\n"
    done = vault("-p", "-r", "3", "--compat", "derivepassphrase", "x", stdin="phrase")
    assert done.out == derive("phrase", "x", repeat=2) + "\n"


def test_json_is_what_it_says(home: Path, vault: Vault) -> None:
    write_settings(home, services={"x": {"notes": "one\ntwo"}})
    done = vault("-p", "--json", "x", stdin="phrase")
    assert json.loads(done.out) == {"service": "x", "passphrase": derive("phrase", "x"), "notes": "one\ntwo"}


@pytest.mark.parametrize(("flag", "before"), [("--print-notes-before", True), ("--print-notes-after", False)])
def test_notes_are_printed_beside_it_without_escape_sequences(
    home: Path, vault: Vault, flag: str, before: bool
) -> None:
    write_settings(home, services={"x": {"notes": "one\ntwo\x1b[2J"}})
    done = vault("-p", flag, "x", stdin="phrase")
    assert done.out == derive("phrase", "x") + "\n"
    assert done.lines == (["one", r"two\x1b[2J", ""] if before else ["", "one", r"two\x1b[2J", ""])


@pytest.mark.parametrize(
    ("words", "what"),
    [
        ([], "needs a SERVICE"),
        ([""], "needs a SERVICE"),
        (["-p"], "needs a SERVICE"),
        (["-p", "-k", "x"], "--phrase and --key exclude each other"),
        (["-p", "--with-key", "1", "x"], "--phrase and --with-key exclude each other"),
        (["-c"], "--config needs a setting"),
        (["-c", "x"], "--config needs a setting"),
        (["-c", "-n"], "--notes needs a SERVICE"),
        (["-c", "-l", "3", "--unset", "length", "x"], "length cannot be both set and unset"),
        (["-c", "-p", "--unset", "phrase", "x"], "phrase cannot be both set and unset"),
        (["-c", "-x", "x"], "exclude each other"),
        (["-x"], "--delete needs a SERVICE"),
        (["-x", "-l", "3", "x"], "--delete and --length exclude each other"),
        (["-x", "--lower", "0", "x"], "--delete and --lower exclude each other"),
        (["-X", "-n"], "--clear and --notes exclude each other"),
        (["-X", "x"], "--clear takes no SERVICE"),
        (["--delete-globals", "x"], "--delete-globals takes no SERVICE"),
        (["-e", "-", "x"], "--export takes no SERVICE"),
        (["-i", "-", "x"], "--import takes no SERVICE"),
        (["-e", "-", "-i", "-"], "exclude each other"),
        (["-e", "-", "-k"], "--export and --key exclude each other"),
        (["-l", "0", "x"], "0 is below 1"),
        (["--lower", "-1", "x"], "-1 is below 0"),
        (["-l", "many", "x"], "not a valid integer"),
        (["--unset", "nothing", "x"], "nothing"),
        (["--ssh-agent-socket-provider", "other", "-k", "x"], "other"),
        (["--with-key", "", "x"], "empty"),
        (["--agent", "", "-k", "x"], "empty"),
        (["--agent", "a", "--ssh-agent-socket-provider", "native", "x"], "exclude each other"),
    ],
)
def test_wrong_usage_is_status_2_and_one_line_why(called: Vault, words: list[str], what: str) -> None:
    done = called(*words, stdin="phrase")
    assert done.status == 2
    assert done.out == ""
    assert done.lines[-1].startswith("Error: ")
    assert what in done.lines[-1]


@pytest.mark.parametrize(
    ("words", "stdin", "what"),
    [
        (["-p", "-l", "3", "--upper", "4", "x"], "secret", "upper 4 is more than a length of 3"),
        (["-p", "-l", "1000000000", "x"], "secret", "4096"),
        (
            ["-p", "--lower", "0", "--upper", "0", "--number", "0", "--space", "0", "--symbol", "0", "x"],
            "secret",
            "no char",
        ),
        (["-p", "x"], "", "standard input is empty"),
        (["-p", "x"], "\n", "no phrase was given"),
        (["-p", "x"], b"\xffsecret\n", "not UTF-8"),
        (["-i", "-"], "{", "ends too early"),
        (["-i", "-"], "[]", "holds no settings"),
        (["-i", "-"], '{"services": {"x": {"length": "secret"}}}', 'services."x".length is text'),
        (["-i", "missing"], "", "cannot read missing"),
        (["-e", os.path.join("missing", "file")], "", "cannot write"),
        (["--agent", "unix:/missing", "-k", "x"], "", "/missing"),
        (["--ssh-agent-socket-provider", "posix", "-k", "x"], "", "SSH_AUTH_SOCK is not set"),
    ],
)
def test_what_cannot_be_done_is_status_1_one_line_why_and_one_line_what_to_do(
    called: Vault, words: list[str], stdin: str | bytes, what: str
) -> None:
    done = called(*words, stdin=stdin)
    assert done.status == 1
    assert done.out == ""
    assert len(done.lines) == 2
    assert done.lines[0].startswith("pageantry: ")
    assert what in done.lines[0]
    assert "secret" not in done.said


def test_a_service_that_is_not_utf8_is_refused(vault: Vault) -> None:
    done = vault("-p", "x\udcff", stdin="phrase", PYTHONUTF8="0", LC_ALL="C.UTF-8")
    assert done.status == 2
    assert "not UTF-8" in done.lines[-1]


def test_settings_that_cannot_be_read_are_told_and_left_alone(home: Path, vault: Vault) -> None:
    write_settings(home)
    (home / "vault.json").write_text('{"services": {"x": {"phr')
    for words in (["x"], ["-p", "x"], ["-c", "-l", "3"], ["-X"], ["-x", "x"], ["-e", "-"]):
        done = vault(*words, stdin="phrase")
        assert (done.status, done.out) == (1, "")
        assert str(home / "vault.json") in done.lines[0]
        assert len(done.lines) == 2
    assert (home / "vault.json").read_text() == '{"services": {"x": {"phr'


def test_config_saves_for_one_service_and_for_all(vault: Vault, saved: Any) -> None:
    assert vault("-c", "-l", "30", "--dash", "0", "x").said == ""
    assert vault("--config", "--length", "25", "--repeat", "2").said == ""
    vault("-c", "--upper", "1", "x")
    assert saved() == {
        "global": {"length": 25, "repeat": 2, "compat": "vault"},
        "services": {"x": {"length": 30, "dash": 0, "upper": 1}},
    }
    vault("-c", "--unset", "dash", "--unset", "notes", "x")
    assert saved()["services"]["x"] == {"length": 30, "upper": 1}
    vault("-c", "--overwrite-existing", "--lower", "3", "x")
    assert saved()["services"]["x"] == {"lower": 3}
    vault("-c", "--compat", "derivepassphrase", "x")
    assert saved()["services"]["x"] == {"lower": 3, "compat": "derivepassphrase"}
    done = vault("-p", "-l", "10", "x", stdin="phrase")
    assert done.out == derive("phrase", "x", length=10, lower=3, repeat=2, compat="derivepassphrase") + "\n"


def test_an_empty_service_means_all(vault: Vault, saved: Any) -> None:
    done = vault("-c", "-l", "9", "")
    assert done.said == "an empty SERVICE means no service, as for vault(1)\n"
    assert saved() == {"global": {"length": 9}, "services": {}}


def test_a_phrase_can_be_saved_and_then_serves(vault: Vault, saved: Any) -> None:
    vault("-c", "-p", "x", stdin="mine\n")
    vault("-c", "-p", stdin="all\n")
    assert saved() == {"global": {"phrase": "all"}, "services": {"x": {"phrase": "mine"}}}
    assert vault("x").out == derive("mine", "x") + "\n"
    assert vault("y").out == derive("all", "y") + "\n"


def test_settings_that_nothing_can_satisfy_are_saved_with_a_word(vault: Vault, saved: Any) -> None:
    done = vault("-c", "-l", "3", "--upper", "4", "x")
    assert done.status == 0
    assert "upper 4 is more than a length of 3" in done.said
    assert saved()["services"]["x"] == {"length": 3, "upper": 4}


def test_deleting(vault: Vault, home: Path, saved: Any) -> None:
    write_settings(home, services={"x": {}, "y": {}}, **{"global": {"length": 3}})
    vault("-x", "x")
    assert saved() == {"global": {"length": 3}, "services": {"y": {}}}
    done = vault("-x", "x")
    assert (done.status, done.said) == (0, 'there were no settings for "x"\n')
    vault("--delete-globals")
    assert saved() == {"services": {"y": {}}}
    vault("-X")
    assert saved() == {"services": {}}


def test_an_export_comes_back_unchanged_in_either_form(vault: Vault, home: Path, saved: Any, tmp_path: Path) -> None:
    config = {
        "global": {"phrase": "a'b", "length": 12},
        "services": {
            "": {"length": 3},
            "-x": {},
            "a b": {"notes": "x\nHERE\ny", "symbol": 0},
            "grüße $HOME": {"repeat": 4, "compat": "derivepassphrase", "foo": [1]},
            "vault": {"repeat": 2, "compat": "vault", "key": ""},
        },
    }
    write_settings(home, **config)
    as_json, as_script = tmp_path / "out.json", tmp_path / "out.sh"
    assert vault("-e", as_json).said == ""
    assert vault("-e", as_script, "--export-as", "sh").said == ""
    assert vault("-e", "-").out == as_json.read_text(encoding="utf-8")
    if sys.platform != "win32":
        assert {stat.S_IMODE(path.stat().st_mode) for path in (as_json, as_script)} == {0o600}
    vault("-X")
    done = vault("-i", as_json)
    assert saved() == config
    assert "cannot be reached" in done.said
    assert "repeat" not in done.said
    if sys.platform == "win32":
        return  # a shell script wants a shell
    tools = tmp_path / "bin"
    tools.mkdir()
    (tools / "pageantry").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m pageantry "$@"\n')
    (tools / "pageantry").chmod(0o755)
    vault("-X")
    env = os.environ | {"PATH": f"{tools}:{os.environ['PATH']}"}
    subprocess.run(["sh", as_script], check=True, env=env, timeout=60, capture_output=True)
    assert saved() == config


def test_an_export_that_fails_leaves_the_old_file(vault: Vault, home: Path, tmp_path: Path) -> None:
    write_settings(home)
    target = tmp_path / "backup"
    target.mkdir()
    done = vault("-e", target)
    assert done.status == 1
    assert list(target.iterdir()) == []


def test_importing_from_derivepassphrase_keeps_its_repeat_and_says_so(vault: Vault, saved: Any) -> None:
    theirs = {"global": {"repeat": 1}, "services": {"x": {"repeat": 3}, "y": {"length": None}}}
    done = vault("-i", "-", stdin=json.dumps(theirs))
    assert saved()["services"] == {"x": {"repeat": 3, "compat": "derivepassphrase"}, "y": {"length": 20}}
    assert 'services."y".length was null and is now 20' in done.lines[0]
    assert 'services."x"; were these vault(1)\'s' in done.lines[1]
    assert vault("-p", "x", stdin="phrase").out == derive("phrase", "x", repeat=2) + "\n"
    done = vault("-i", "-", "--compat", "vault", stdin=json.dumps(theirs | {"services": {"x": {"repeat": 3}}}))
    assert done.said == ""
    assert saved()["services"]["x"] == {"repeat": 3, "compat": "vault"}
    assert vault("-i", "-", "-q", stdin=json.dumps(theirs)).said == ""


def test_an_import_merges_or_overwrites(vault: Vault, home: Path, saved: Any) -> None:
    write_settings(home, services={"x": {"length": 3, "lower": 1}, "y": {}}, **{"global": {"length": 4}})
    vault("-i", "-", stdin='{"services": {"x": {"length": 5}}}')
    assert saved() == {"global": {"length": 4}, "services": {"x": {"length": 5}, "y": {}}}
    vault("-i", "-", "--overwrite-existing", stdin='{"services": {"z": {}}}')
    assert saved() == {"services": {"z": {}}}


@pytest.mark.parametrize("name", ["v0.3", "v0.2", "storeroom"])
def test_vaults_own_stores_are_imported_and_exported(vault: Vault, saved: Any, name: str, home: Path) -> None:
    wanted = json.loads((STORES / "settings.json").read_text(encoding="utf-8"))
    wanted["services"]["example.org"]["compat"] = "vault"
    assert vault("-i", STORES / name, VAULT_KEY="not so secret").said == ""
    assert saved() == wanted
    done = run("export", "vault", "-k", "not so secret", STORES / name)
    assert json.loads(done.out) == wanted
    done = run("export", "vault", "-f", name, "VAULT_PATH", VAULT_KEY="not so secret", VAULT_PATH=str(STORES / name))
    assert json.loads(done.out) == wanted
    done = run("export", "vault", "--debug", STORES / name, VAULT_KEY="wrong secret")
    assert (done.status, done.out) == (1, "")
    assert "wrong password" in done.said
    assert "wrong secret" not in done.said


def test_without_any_name_for_a_password_it_says_which_one_to_set(home: Path) -> None:
    done = run("export", "vault", STORES / "v0.3", VAULT_KEY="", LOGNAME="", USER="", USERNAME="")
    assert done.status == 1
    assert "VAULT_KEY" in done.lines[1]


def test_derivepassphrases_settings_are_pointed_at_until_there_are_ours(vault: Vault, tmp_path: Path) -> None:
    theirs = tmp_path / "theirs" / "vault.json"
    theirs.parent.mkdir()
    theirs.write_text('{"services": {"x": {"length": 9}}}')
    env = {"DERIVEPASSPHRASE_PATH": str(theirs.parent)}
    done = vault("-p", "x", stdin="phrase", **env)
    assert done.out == derive("phrase", "x") + "\n"
    assert len(done.lines) == 1
    assert "pageantry vault --import" in done.said
    assert vault("-q", "-p", "x", stdin="phrase", **env).said == ""
    assert vault("-i", theirs, **env).said == ""
    assert vault("-p", "x", stdin="phrase", **env).said == ""


def test_options_without_effect_are_told(vault: Vault) -> None:
    done = vault("-p", "-n", "--unset", "length", "--overwrite-existing", "--export-as", "sh", "x", stdin="phrase")
    assert done.status == 0
    assert [line.split()[0] for line in done.lines] == ["--notes", "--unset", "--overwrite-existing", "--export-as"]


def test_a_phrase_in_another_normal_form_is_told_as_config_toml_says(vault: Vault, home: Path) -> None:
    decomposed = "e\u0301"
    assert "NFC" in vault("-p", "x", stdin=decomposed).said
    assert vault("-p", "x", stdin="é").said == ""
    write_settings(home)
    (home / "config.toml").write_text(
        '[vault]\ndefault-unicode-normalization-form = "NFD"\n[vault.unicode-normalization-form]\ny = "NFC"\n'
    )
    assert vault("-p", "x", stdin=decomposed).said == ""
    assert "NFD" in vault("-p", "x", stdin="é").said
    assert "NFC" in vault("-p", "y", stdin=decomposed).said
    imported = json.dumps({"services": {"y": {"phrase": decomposed}}})
    assert 'services."y".phrase' in vault("-i", "-", stdin=imported).said
    (home / "config.toml").write_text("[vault\n")
    done = vault("-p", "x", stdin="é")
    assert (done.status, len(done.lines)) == (1, 2)
    assert "config.toml" in done.lines[0]


def test_service_names_complete(vault: Vault, home: Path) -> None:
    write_settings(home, services={"example.org": {}, "example.net": {}, "other": {}, "exa\nmple": {}})
    env = {"_PAGEANTRY_COMPLETE": "bash_complete", "COMP_WORDS": "pageantry vault exa", "COMP_CWORD": "2"}

    def completions() -> list[str]:
        tool = "import sys; sys.argv = ['pageantry']; from pageantry.cli import main; main(prog_name='pageantry')"
        done = subprocess.run(
            [sys.executable, "-c", tool], env=os.environ | env, capture_output=True, text=True, timeout=30
        )
        assert done.stderr == ""
        return sorted(line.rpartition(",")[2] for line in done.stdout.split())

    assert completions() == ["example.net", "example.org"]
    (home / "vault.json").write_text("{")
    assert completions() == []


def test_the_command_starts_without_what_it_does_not_need(home: Path) -> None:
    code = (
        "import sys, atexit; sys.argv = ['pageantry', 'vault', '-p', 'x'];"
        "heavy = 'rich cryptography pathlib socket json tempfile subprocess logging dataclasses'.split();"
        "atexit.register(lambda: print([name for name in heavy if name in sys.modules]));"
        "from pageantry.cli import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", code], input=b"phrase\n", capture_output=True, check=True, timeout=30)
    assert done.stdout.decode().splitlines() == [derive("phrase", "x"), "[]"]


class TestKeys:
    """Keys come from files here; real agents are in test_vault_peers.py."""

    @pytest.fixture
    def keys(self, tmp_path: Path) -> dict[str, str]:
        curve = ec.generate_private_key(ec.SECP256R1())
        return {"one": write_key(tmp_path / "one"), "two": write_key(tmp_path / "two")} | {
            "curve": write_key(tmp_path / "curve", curve)
        }

    @pytest.fixture
    def agent(self, tmp_path: Path, keys: dict[str, str]) -> Callable[..., list[str]]:
        return lambda *names: ["--agent", "keys:" + os.pathsep.join(str(tmp_path / name) for name in names)]

    def test_one_suitable_key_is_used_without_asking_and_named(self, vault: Vault, agent: Any) -> None:
        done = vault("-k", *agent("curve", "one"), "x")
        assert done.status == 0
        assert len(done.out) == 21
        assert done.said.startswith("using the key one (SHA256:")
        assert len(done.lines) == 1
        assert vault("-k", "-q", *agent("one"), "x").said == ""
        assert vault(*agent("one"), "x").out == done.out  # nothing else being configured

    def test_of_several_keys_one_is_asked_for_by_number(self, vault: Vault, agent: Any) -> None:
        one, two = (vault("-k", *agent(name), "x").out for name in ("one", "two"))
        done = vault("-k", *agent("one", "curve", "two"), "x", stdin="2\n")
        assert done.out == two
        assert [line[:3] for line in done.lines[1:3]] == ["[1]", "[2]"]
        done = vault("-k", *agent("one", "two"), "x", stdin="9\nfoo\n1\n")
        assert done.out == one
        for nothing in ("", "\n", "9\n"):
            done = vault("-k", *agent("one", "two"), "x", stdin=nothing)
            assert (done.status, done.out) == (1, "")
            assert done.lines[-2:] == ["pageantry: no key was chosen", "  type its number, or name it: --with-key KEY"]

    def test_a_script_can_name_the_key(self, vault: Vault, agent: Any, keys: Any, tmp_path: Path) -> None:
        two = vault("-k", *agent("two"), "x").out
        for name in ("two", "2", keys["two"], str(tmp_path / "two.pub"), (tmp_path / "two.pub").read_text().strip()):
            done = vault("--with-key", name, *agent("one", "two"), "x")
            assert (done.status, done.out, done.said) == (0, two, "")
        done = vault("--with-key", "three", *agent("one", "two"), "x")
        assert (done.status, len(done.lines)) == (1, 2)
        assert "three" in done.lines[0]

    def test_an_ecdsa_key_that_signs_the_same_way_twice_serves_where_there_is_no_other(
        self, vault: Vault, agent: Any, keys: Any, saved: Any
    ) -> None:
        done = vault("-k", *agent("curve"), "x")
        assert (done.status, len(done.lines)) == (0, 1)
        assert vault("-k", *agent("curve"), "x").out == done.out != ""
        assert vault("-c", "-k", *agent("curve"), "x").status == 0
        assert saved()["services"]["x"] == {"key": keys["curve"]}
        other = vault("-k", *agent("curve", "one"), "x")
        assert (other.status, len(other.lines)) == (0, 1)
        assert other.out != done.out

    def test_a_saved_key_is_used(self, vault: Vault, agent: Any, keys: Any, saved: Any) -> None:
        expected = vault("-k", *agent("two"), "x").out
        done = vault("-c", "-k", *agent("one", "two"), "x", stdin="2\n")
        assert done.status == 0
        assert saved() == {"services": {"x": {"key": keys["two"]}}}
        done = vault(*agent("one", "two"), "-v", "x")
        assert done.out == expected
        assert done.said.startswith("the phrase is a signature by SHA256:")
        done = vault(*agent("one"), "x")
        assert (done.status, len(done.lines)) == (1, 2)

    def test_phrase_and_key_replace_each_other_with_a_word(
        self, vault: Vault, agent: Any, keys: Any, saved: Any
    ) -> None:
        vault("-c", "-p", "x", stdin="phrase")
        done = vault("-c", "--with-key", "one", *agent("one"), "x")
        assert saved()["services"]["x"] == {"key": keys["one"]}
        assert done.said == "the saved phrase is gone: the key takes its place\n"
        done = vault("-c", "-p", "x", stdin="phrase")
        assert saved()["services"]["x"] == {"phrase": "phrase"}
        assert done.said == "the saved key is gone: the phrase takes its place\n"

    def test_a_services_phrase_beats_a_global_key(self, vault: Vault, home: Path, keys: Any) -> None:
        write_settings(home, services={"x": {"phrase": "phrase"}}, **{"global": {"key": keys["one"]}})
        assert vault("x").out == derive("phrase", "x") + "\n"

    def test_a_saved_key_that_is_none_is_told(self, vault: Vault, home: Path) -> None:
        write_settings(home, services={"x": {"key": "!!"}})
        done = vault("x")
        assert (done.status, len(done.lines)) == (1, 2)
        assert "no public key" in done.lines[0]

    def test_without_phrase_key_and_agent_it_says_to_use_p(self, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def nobody(*_: object, **__: object) -> Iterator[Any]:
            return iter(())

        monkeypatch.setattr(discovery, "usable", nobody)
        for words in (["x"], ["-k", "x"], ["--with-key", "one", "x"]):
            result = CliRunner().invoke(main, ["vault", *words])
            assert result.exit_code == 1
            assert len(result.output.splitlines()) == 2
        result = CliRunner().invoke(main, ["vault", "x"])
        assert "no SSH agent answers here" in result.output
        assert "use -p" in result.output.splitlines()[1]


class TestNotes:
    @pytest.fixture
    def edit(self, home: Path, tmp_path: Path) -> Callable[..., Done]:
        """Edits the notes for x with an editor that runs these lines, in which `notes` is the path of the file."""

        def edit(script: str, *words: str) -> Done:
            editor = tmp_path / "an editor.py"
            editor.write_text(f"import sys, pathlib; notes = pathlib.Path(sys.argv[1])\n{script}\n", encoding="utf-8")
            return run("vault", "-c", "-n", *words, "x", VISUAL="", EDITOR=f'"{sys.executable}" "{editor}"')

        return edit

    def test_the_legacy_interface_shows_the_notes_and_keeps_the_old_ones(
        self, edit: Any, home: Path, saved: Any
    ) -> None:
        show = "sys.stdout.buffer.write(notes.read_bytes())"
        assert edit(f"{show}; notes.write_text('hello\\n')").out == ""
        assert saved()["services"]["x"] == {"notes": "hello"}
        done = edit(f"{show}; notes.write_text('hello\\nmore\\n')", "-l", "9")
        assert done.out == "hello\n"
        assert saved()["services"]["x"] == {"notes": "hello\nmore", "length": 9}
        assert done.said == f"the old notes are kept in {home / 'old-notes.txt'}\n"
        assert (home / "old-notes.txt").read_text() == "hello"
        edit("pass")
        assert (home / "old-notes.txt").read_text() == "hello"
        edit("notes.write_text('\\n')")
        assert saved()["services"]["x"] == {"length": 9}
        assert (home / "old-notes.txt").read_bytes() == b"hello\nmore"
        assert sorted(path.name for path in home.iterdir()) == ["old-notes.txt", "vault.json", "vault.lock"]

    def test_the_modern_interface_has_scissors_and_a_way_to_give_up(self, edit: Any, home: Path, saved: Any) -> None:
        modern = "--modern-editor-interface"
        edit("notes.write_text(notes.read_text() + 'hello\\n')", modern)
        assert saved()["services"]["x"] == {"notes": "hello"}
        done = edit("sys.stdout.buffer.write(notes.read_bytes())", modern)
        above, line, below = done.out.rpartition("# - - - - - >8 - - - - - >8 - - - - -\n")
        assert line
        assert all(text.startswith("#") for text in above.splitlines())
        assert below == "hello\n"
        done = edit("notes.write_text('')", modern, "-l", "9")
        assert done.status == 1
        assert saved()["services"]["x"] == {"notes": "hello"}
        edit("notes.write_text('no scissors')", modern)
        assert saved()["services"]["x"] == {"notes": "no scissors"}
        edit("notes.write_text(notes.read_text().replace('no scissors', ''))", modern)
        assert "notes" not in saved()["services"]["x"]
        assert sorted(path.name for path in home.iterdir()) == ["vault.json", "vault.lock"]

    @pytest.mark.parametrize("text", [b"\xef\xbb\xbfone\r\ntwo\r\n", b"one\ntwo"])
    def test_an_editor_may_write_as_notepad_does(self, edit: Any, saved: Any, text: bytes) -> None:
        assert edit(f"notes.write_bytes({text!r})").status == 0
        assert saved()["services"]["x"] == {"notes": "one\ntwo"}

    def test_an_editor_that_fails_changes_nothing(self, edit: Any, home: Path) -> None:
        assert edit("sys.exit(1)", "-l", "9").status == 1
        assert not (home / "vault.json").exists()
        assert [path.name for path in home.iterdir() if path.suffix == ".txt"] == []

    def test_notes_are_not_lost_when_they_cannot_be_saved(self, edit: Any, home: Path) -> None:
        done = edit(f"notes.write_text('precious'); pathlib.Path({str(home / 'vault.json')!r}).write_text('{{')")
        assert done.status == 1
        kept = Path(done.lines[0].rpartition("your notes are in ")[2])
        assert kept.read_text() == "precious"
        if sys.platform != "win32":
            assert stat.S_IMODE(kept.stat().st_mode) == 0o600

    def test_notes_that_another_program_changed_meanwhile_are_not_overwritten(
        self, edit: Any, home: Path, saved: Any
    ) -> None:
        write_settings(home, services={"x": {"notes": "old"}})
        theirs = json.dumps({"services": {"x": {"notes": "theirs"}}})
        done = edit(f"notes.write_text('mine'); pathlib.Path({str(home / 'vault.json')!r}).write_text({theirs!r})")
        assert done.status == 1
        assert "another program" in done.lines[0]
        assert saved()["services"]["x"] == {"notes": "theirs"}

    @pytest.mark.skipif(sys.platform != "win32", reason="elsewhere a path is a command line, blanks and all")
    def test_a_path_without_quotes_is_an_editor(self, home: Path, tmp_path: Path) -> None:
        editor = tmp_path / "my editor.exe"
        editor.write_bytes(Path(os.environ["COMSPEC"]).read_bytes())
        assert run("vault", "-c", "-n", "x", VISUAL=str(editor), stdin="exit").status == 0


@pytest.mark.parametrize(
    ("words", "prompt"), [("-p x", "Passphrase:"), ("-c -p x", "Passphrase:"), ("-k x", "to abort):")]
)
def test_control_c_at_a_prompt_ends_it_with_status_1_and_nothing_lost(
    at_terminal: Callable[..., tuple[int, str]], home: Path, saved: Any, words: str, prompt: str, tmp_path: Path
) -> None:
    write_settings(home, services={"x": {"length": 9}})
    write_key(tmp_path / "one")
    write_key(tmp_path / "two")
    address = f"keys:{tmp_path / 'one'}{os.pathsep}{tmp_path / 'two'}"
    status, shown = at_terminal("vault", "--agent", address, *words.split(), typed={prompt: b"\x03"})
    assert status == 1
    assert "Traceback" not in shown
    assert "pageantry: interrupted" in shown.split(prompt)[1]
    assert saved() == {"services": {"x": {"length": 9}}}


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_an_output_that_takes_nothing_is_told(vault: Vault, home: Path) -> None:
    write_settings(home)
    done = vault("-e", "/dev/full")
    assert (done.status, len(done.lines)) == (1, 2)
    assert "cannot write /dev/full: No space left" in done.lines[0]
