"""From a key in a real agent to a passphrase, beside derivepassphrase."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from pageantry import PublicKey

pytestmark = pytest.mark.interop

Keys = dict[str, Path]
Run = Callable[..., subprocess.CompletedProcess[str]]


def public(path: Path) -> PublicKey:
    return PublicKey.from_line(Path(f"{path}.pub").read_text())


@pytest.fixture(scope="session")
def derivepassphrase(tmp_path_factory: pytest.TempPathFactory, peers: str) -> Callable[..., str]:
    """Runs the real program with these settings for service `s`, on that agent."""
    home = tmp_path_factory.mktemp("derivepassphrase")

    def call(agent: Path, **settings: object) -> str:
        (home / "vault.json").write_text(json.dumps({"services": {"s": settings}}))
        environ = {**os.environ, "DERIVEPASSPHRASE_PATH": str(home), "SSH_AUTH_SOCK": str(agent)}
        command = [peers, "-m", "derivepassphrase", "vault", "s"]
        done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return call


@pytest.mark.parametrize("name", ["ed25519", "rsa"])
def test_every_agents_key_gives_the_passphrase_that_derivepassphrase_gives(
    run: Run, derivepassphrase: Callable[..., str], agent: Path, key_files: Keys, name: str
) -> None:
    key = public(key_files[name])
    theirs = derivepassphrase(agent, key=key.base64, length=30, symbol=0, upper=2)
    for called in (key.fingerprint(), f"{key_files[name]}.pub"):
        ours = run("vault", "--with-key", called, "-l", "30", "--symbol", "0", "--upper", "2", "s", sock=agent)
        assert (ours.returncode, ours.stdout) == (0, theirs), ours.stderr


@pytest.mark.parametrize("name", ["ed25519", "rsa"])
def test_a_key_file_gives_the_same_passphrase_without_any_agent(
    run: Run, agent: Path, key_files: Keys, name: str
) -> None:
    in_agent = run("vault", "--with-key", f"{key_files[name]}.pub", "s", sock=agent)
    in_process = run("vault", "-k", "--agent", f"keys:{key_files[name]}", "s")
    assert in_agent.stdout == in_process.stdout != ""


def test_a_saved_key_is_found_in_whichever_agent_has_it(
    run: Run, agent: Path, fresh_agent: Path, key_files: Keys, tmp_path: Path
) -> None:
    saved = run("vault", "--config", "--with-key", f"{key_files['rsa']}.pub", "s", sock=agent)
    assert saved.returncode == 0, saved.stderr
    direct = run("vault", "s", sock=agent)
    (tmp_path / "ssh-agent").symlink_to(agent)
    assert run("vault", "s", sock=fresh_agent).stdout == direct.stdout != ""


def test_the_only_suitable_key_is_used_and_named(run: Run, fresh_agent: Path, key_files: Keys) -> None:
    for name in ("ecdsa", "ed25519"):
        assert run("add", str(key_files[name]), sock=fresh_agent).returncode == 0
    with_k = run("vault", "-k", "s", sock=fresh_agent)
    without = run("vault", "s", sock=fresh_agent)
    assert with_k.stdout == without.stdout != ""
    for done in (with_k, without):
        assert public(key_files["ed25519"]).fingerprint() in done.stderr


def test_among_several_keys_a_number_chooses(run: Run, fresh_agent: Path, key_files: Keys) -> None:
    for name in ("ed25519", "rsa"):
        assert run("add", str(key_files[name]), sock=fresh_agent).returncode == 0
    chosen = run("vault", "-k", "s", sock=fresh_agent, given="2\n")
    named = run("vault", "--with-key", public(key_files["rsa"]).fingerprint(), "s", sock=fresh_agent)
    assert chosen.stdout == named.stdout != ""
    refused = run("vault", "-k", "s", sock=fresh_agent, given="\n")
    assert (refused.returncode, refused.stdout) == (1, "")


def test_an_ecdsa_key_is_used_only_where_it_signs_the_same_way_twice(
    run: Run, fresh_agent: Path, key_files: Keys
) -> None:
    key = f"{key_files['ecdsa']}.pub"
    assert run("add", str(key_files["ecdsa"]), sock=fresh_agent).returncode == 0
    for arguments in (("--with-key", key), ("-k",)):  # OpenSSH's agent signs at random
        refused = run("vault", *arguments, "s", "--agent", str(fresh_agent))
        assert (refused.returncode, refused.stdout) == (1, "")
        assert "differently each time" in refused.stderr


@pytest.mark.parametrize("agent", ["pageant", "gpg-agent"], indirect=True)
def test_an_ecdsa_key_in_an_agent_that_signs_deterministically_serves(run: Run, agent: Path, key_files: Keys) -> None:
    added = run("add", str(key_files["ecdsa"]), sock=agent)
    assert added.returncode == 0, added.stderr
    try:
        first = run("vault", "--with-key", f"{key_files['ecdsa']}.pub", "s", sock=agent)
        second = run("vault", "--with-key", f"{key_files['ecdsa']}.pub", "s", sock=agent)
        assert first.stdout == second.stdout != "", first.stderr
    finally:
        run("remove", f"{key_files['ecdsa']}.pub", sock=agent)


def test_a_locked_agent_ends_in_words(run: Run, fresh_agent: Path, key_files: Keys) -> None:
    assert run("add", str(key_files["ed25519"]), sock=fresh_agent).returncode == 0
    assert run("lock", sock=fresh_agent, given="x\n").returncode == 0
    refused = run("vault", "-k", "s", "--agent", str(fresh_agent))
    assert (refused.returncode, refused.stdout, "Traceback" in refused.stderr) == (1, "", False)
