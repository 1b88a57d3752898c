"""PuTTY's programs as clients of our agent: Unix Pageant's client with its encrypted keys, and plink."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

if sys.platform == "win32":
    pytest.skip("Unix Pageant's client; test_windows_agents.py has Windows' Pageant", allow_module_level=True)

from pageantry import PublicKey
from pageantry.keys import signatures

from .logins import Sshd, program, running_sshd
from .ours import Ours, ours

pytestmark = pytest.mark.interop

PHRASE = "open sesame"
TYPES = {
    "ed25519": ("-t", "ed25519"),
    "ed448": ("-t", "ed448"),
    "rsa": ("-t", "rsa", "-b", "1024"),
    "dsa": ("-t", "dsa", "-b", "1024"),
    "ecdsa256": ("-t", "ecdsa", "-b", "256"),
    "ecdsa384": ("-t", "ecdsa", "-b", "384"),
    "ecdsa521": ("-t", "ecdsa", "-b", "521"),
}
#: Arguments of puttygen for the versions of its files; version 3's are cheap enough for a test.
VERSIONS = {2: "version=2", 3: "version=3,kdf=argon2id,memory=256,passes=2,parallelism=1"}


@pytest.fixture(scope="module")
def agent() -> Iterator[Ours]:
    program("pageant")
    program("puttygen")
    with ours() as made:
        (made.home / "phrase.txt").write_text(f"{PHRASE}\n")
        (made.home / "empty.txt").write_text("\n")
        yield made


@pytest.fixture(autouse=True)
def empty(agent: Ours) -> None:
    agent.answers(phrase=PHRASE)
    agent.run("pageant", "-D")


def ppk(agent: Ours, kind: str, version: int = 3, *, encrypted: bool = False) -> Path:
    """A file of PuTTY's own making, which is made once."""
    path = agent.home / f"{kind}.{version}.{'encrypted' if encrypted else 'clear'}.ppk"
    if not path.exists():
        phrase = "phrase.txt" if encrypted else "empty.txt"
        words: tuple[str | Path, ...] = (
            *TYPES[kind],
            "-C",
            f"{kind} of PuTTY's",
            "--ppk-param",
            VERSIONS[version],
            "-o",
            path,
        )
        agent.run("puttygen", "-q", *words, "--new-passphrase", agent.home / phrase)
    return path


def public(agent: Ours, path: Path) -> PublicKey:
    return PublicKey.from_line(agent.run("puttygen", "-L", path))


def signature_of(agent: Ours, key: PublicKey, flags: int = 0) -> bytes:
    """A signature that Pageant's client asked for."""
    command = [program("pageant"), f"--test-sign-with-flags={flags}", f"sha256:{key.fingerprint().partition(':')[2]}"]
    done = subprocess.run(command, env=agent.environ(), input=b"hello", capture_output=True, timeout=60)
    assert done.returncode == 0, (done.stderr, agent.log)
    return done.stdout


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("kind", TYPES)
def test_pageant_adds_lists_signs_and_removes_keys_of_every_type(agent: Ours, kind: str, version: int) -> None:
    path = ppk(agent, kind, version)
    key = public(agent, path)
    agent.run("pageant", "-a", path)
    assert agent.run("pageant", "-L", "comment:" + f"{kind} of PuTTY's").split()[1] == key.base64
    (line,) = agent.run("pageant", "-l").splitlines()
    assert key.fingerprint() in line
    assert f"{kind} of PuTTY's" in line
    assert "encrypt" not in line
    signatures.verify(key, signature_of(agent, key), b"hello")
    agent.run("pageant", "-d", path)
    assert agent.run("pageant", "-l") == ""
    assert agent.asked == []


@pytest.mark.parametrize(("flags", "algorithm"), [(0, b"ssh-rsa"), (2, b"rsa-sha2-256"), (4, b"rsa-sha2-512")])
def test_rsa_keys_sign_as_the_flags_say(agent: Ours, flags: int, algorithm: bytes) -> None:
    path = ppk(agent, "rsa")
    agent.run("pageant", "-a", path)
    signature = signature_of(agent, public(agent, path), flags)
    assert signature[4:].startswith(algorithm)
    signatures.verify(public(agent, path), signature, b"hello")


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("kind", TYPES)
def test_an_encrypted_key_is_held_as_it_is_opened_when_used_and_encrypted_again(
    agent: Ours, kind: str, version: int
) -> None:
    path = ppk(agent, kind, version, encrypted=True)
    key = public(agent, path)
    agent.run("pageant", "-a", "--encrypted", path)
    assert agent.asked == []
    assert "(encrypted)" in agent.run("pageant", "-l")
    first = signature_of(agent, key)
    signatures.verify(key, first, b"hello")
    (question,) = agent.asked
    assert f"{kind} of PuTTY's" in question
    assert key.fingerprint() in question
    assert "(re-encryptable)" in agent.run("pageant", "-l")
    assert signature_of(agent, key) == first  # the same, as with Pageant
    assert len(agent.asked) == 1
    for words in (("-r", path), ("-R",)):
        agent.run("pageant", *words)
        assert "(encrypted)" in agent.run("pageant", "-l")
        agent.answers(phrase=PHRASE)
        signature_of(agent, key)
        assert len(agent.asked) == 1
    agent.run("pageant", "-d", path)
    assert agent.run("pageant", "-l") == ""


def test_a_person_who_knows_no_passphrase_lets_nobody_sign(agent: Ours) -> None:
    path = ppk(agent, "ed25519", 2, encrypted=True)
    agent.run("pageant", "-a", "--encrypted", path)
    agent.answers(phrase="something else")
    done = agent.call("pageant", "--test-sign", path, given="hello")
    assert done.returncode != 0
    assert len(agent.asked) == 3
    agent.answers(yes=False)
    assert agent.call("pageant", "--test-sign", path, given="hello").returncode != 0
    assert len(agent.asked) == 1
    assert "(encrypted)" in agent.run("pageant", "-l")


def test_what_came_in_the_clear_is_not_encrypted_again(agent: Ours) -> None:
    clear, encrypted = ppk(agent, "ed25519"), ppk(agent, "rsa", encrypted=True)
    agent.run("pageant", "-a", clear)
    assert agent.call("pageant", "-r", clear).returncode != 0
    agent.run("pageant", "-a", "--encrypted", encrypted)
    agent.run("pageant", "-R")
    assert len(agent.run("pageant", "-l").splitlines()) == 2


def test_a_key_that_is_encrypted_is_opened_when_it_comes_in_the_clear(agent: Ours) -> None:
    path = ppk(agent, "ed25519", 3, encrypted=True)
    agent.run("pageant", "-a", "--encrypted", path)
    agent.run("pageant", "-a", path, SSH_ASKPASS=str(agent.home / "askpass"))
    assert "ed25519" in agent.run("pageant", "-l")
    signatures.verify(public(agent, path), signature_of(agent, public(agent, path)), b"hello")


def test_our_command_hands_over_puttys_files_as_they_are(agent: Ours) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pageantry", "add", "--encrypted", str(ppk(agent, "ecdsa256", encrypted=True))],
        env=agent.environ(),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert "(encrypted)" in agent.run("pageant", "-l")


@pytest.fixture(scope="module")
def sshd() -> Iterator[Sshd]:
    with running_sshd() as made:
        yield made


@pytest.mark.parametrize("kind", ["ed25519", "rsa", "ecdsa256"])
@pytest.mark.parametrize("encrypted", [False, True])
def test_plink_logs_in(agent: Ours, sshd: Sshd, kind: str, encrypted: bool) -> None:
    path = ppk(agent, kind, encrypted=encrypted)
    (sshd.home / "authorized").write_text(public(agent, path).line() + "\n")
    agent.run("pageant", "-a", *(["--encrypted"] if encrypted else []), path)
    host_key = PublicKey.from_line((sshd.home / "host.pub").read_text()).fingerprint()
    words = ("-batch", "-agent", "-hostkey", host_key, "-P", str(sshd.port), f"{sshd.user}@127.0.0.1", "echo in")
    done = agent.call("plink", *words, SSH_ASKPASS="")
    assert (done.returncode, done.stdout) == (0, "in\n"), done.stderr
    assert len(agent.asked) == encrypted


def test_plink_forwards_it(agent: Ours, sshd: Sshd) -> None:
    path = ppk(agent, "ed25519")
    (sshd.home / "authorized").write_text(public(agent, path).line() + "\n")
    agent.run("pageant", "-a", path)
    host_key = PublicKey.from_line((sshd.home / "host.pub").read_text()).fingerprint()
    words = ("-batch", "-A", "-hostkey", host_key, "-P", str(sshd.port), f"{sshd.user}@127.0.0.1", "ssh-add -L")
    done = agent.call("plink", *words)
    assert done.returncode == 0, done.stderr
    assert public(agent, path).base64 in done.stdout
