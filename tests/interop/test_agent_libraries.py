"""Programs in Python, and git, as clients of our agent: paramiko, asyncssh, derivepassphrase and our own vault.

GnuPG is not among them: gpg and gpg-agent use no other agent's keys.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest

if sys.platform == "win32":
    pytest.skip("an agent at a UNIX socket", allow_module_level=True)

from pageantry import PublicKey
from pageantry.keys import signatures

from .conftest import openssh, ssh_add
from .logins import Sshd, running_sshd
from .ours import Ours, ours, public

pytestmark = pytest.mark.interop

TYPES = {
    "ed25519": ("-t", "ed25519"),
    "rsa": ("-t", "rsa", "-b", "2048"),
    "ecdsa": ("-t", "ecdsa"),
    "dsa": ("-t", "dsa"),
}


@pytest.fixture(scope="module")
def agent() -> Iterator[Ours]:
    with ours() as made:
        for kind, options in TYPES.items():
            try:
                made.key(kind, *options)
            except subprocess.CalledProcessError:
                assert kind == "dsa"  # which not every ssh-keygen makes any more
        yield made


@pytest.fixture(autouse=True)
def empty(agent: Ours) -> None:
    agent.answers()
    agent.run("ssh-add", "-q", "-D")


def added(agent: Ours, *kinds: str) -> list[PublicKey]:
    """The public halves of those keys, which the agent holds from here on."""
    paths = [agent.home / kind for kind in kinds]
    if missing := [path.name for path in paths if not path.exists()]:
        pytest.skip(f"this ssh-keygen makes no {missing[0]} keys")
    agent.run("ssh-add", "-q", *paths)
    return [PublicKey.from_line(public(path)) for path in paths]


@pytest.fixture(scope="module")
def sshd() -> Iterator[Sshd]:
    with running_sshd() as made:
        yield made


def admit(sshd: Sshd, *keys: PublicKey) -> None:
    (sshd.home / "authorized").write_text("".join(f"{key.line()}\n" for key in keys))


# paramiko


@pytest.fixture
def paramiko(agent: Ours, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    module = pytest.importorskip("paramiko")
    assert isinstance(module, ModuleType)
    monkeypatch.setenv("SSH_AUTH_SOCK", str(agent.address))
    return module


def test_paramiko_lists_and_signs(agent: Ours, paramiko: ModuleType) -> None:
    keys = added(agent, "ed25519", "rsa", "ecdsa")
    session = paramiko.Agent()
    found = session.get_keys()
    assert [one.asbytes() for one in found] == [key.blob for key in keys]
    assert [one.comment for one in found] == ["ed25519@test", "rsa@test", "ecdsa@test"]
    for one, key in zip(found, keys, strict=True):
        algorithm = "rsa-sha2-512" if key.type == "ssh-rsa" else None
        signature = one.sign_ssh_data(b"data", algorithm)
        signatures.verify(key, signature, b"data")
        if algorithm:
            assert signature[4:].startswith(b"rsa-sha2-512")
    session.close()


@pytest.mark.parametrize("kind", ["ed25519", "rsa", "ecdsa"])
def test_paramiko_logs_in(agent: Ours, paramiko: ModuleType, sshd: Sshd, kind: str) -> None:
    admit(sshd, *added(agent, kind))
    with paramiko.SSHClient() as client:
        client.load_host_keys(str(sshd.home / ".ssh" / "known_hosts"))
        client.connect("127.0.0.1", sshd.port, sshd.user, look_for_keys=False, timeout=20)
        assert client.exec_command("echo in", timeout=20)[1].read() == b"in\n"


# asyncssh


@pytest.fixture
def asyncssh() -> ModuleType:
    module = pytest.importorskip("asyncssh")
    assert isinstance(module, ModuleType)
    return module


def test_asyncssh_does_all_that_it_can(agent: Ours, asyncssh: ModuleType) -> None:
    keys = [asyncssh.read_private_key(str(agent.home / kind)) for kind in ("ed25519", "rsa", "ecdsa")]
    keys[0].set_comment("by asyncssh")

    async def ask() -> None:
        async with asyncssh.connect_agent(str(agent.address)) as client:
            await client.add_keys(keys[:2])
            await client.add_keys(keys[2:], lifetime=600, confirm=True)
            found = await client.get_keys()
            assert [one.public_data for one in found] == [one.public_data for one in keys]
            assert found[0].get_comment() == "by asyncssh"
            for one in found:
                blob = one.public_data
                signatures.verify(PublicKey(blob), await client.sign(blob, b"data"), b"data")
            assert len(agent.asked) == 1
            agent.answers(yes=False)
            with pytest.raises(ValueError, match="Unable"):
                await client.sign(keys[2].public_data, b"data")
            await client.lock("a phrase")
            assert list(await client.get_keys()) == []
            with pytest.raises(ValueError, match="Unable"):
                await client.unlock("another phrase")
            await client.unlock("a phrase")
            await found[1].remove()
            assert len(await client.get_keys()) == 2
            await client.remove_all()
            assert list(await client.get_keys()) == []
            with contextlib.suppress(
                ValueError
            ):  # of asyncssh 2.24, which knows the reply only as it was before RFC 9987
                assert "session-bind@openssh.com" in await client.query_extensions()
            with pytest.raises(ValueError, match="Unable"):
                await client.add_smartcard_keys("/usr/lib/none.so")

    asyncio.run(ask())


@pytest.mark.parametrize("kind", ["ed25519", "rsa", "ecdsa"])
def test_asyncssh_logs_in_and_forwards(agent: Ours, asyncssh: ModuleType, sshd: Sshd, kind: str) -> None:
    (key,) = added(agent, kind)
    admit(sshd, key)

    async def ask() -> str:
        async with asyncssh.connect(
            "127.0.0.1", sshd.port, username=sshd.user, agent_path=str(agent.address), agent_forwarding=True,
            known_hosts=str(sshd.home / ".ssh" / "known_hosts"), config=None,
        ) as connection:  # fmt: skip
            return str((await connection.run("ssh-add -L", check=True)).stdout)

    assert asyncio.run(ask()).split()[1] == key.base64


# git


def test_git_signs_commits(agent: Ours) -> None:
    added(agent, "ed25519")
    repository = agent.home / "repository"
    lone = agent.home / "lone.pub"
    lone.write_text(public(agent.home / "ed25519"))
    (agent.home / "allowed").write_text(f"me@test {public(agent.home / 'ed25519')}\n")
    settings = {
        "user.name": "me", "user.email": "me@test", "gpg.format": "ssh", "user.signingKey": str(lone),
        "gpg.ssh.allowedSignersFile": str(agent.home / "allowed"),
    }  # fmt: skip
    words = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
    agent.run("git", "init", "-q", repository)
    agent.run("git", *words, "-C", repository, "commit", "-q", "-S", "--allow-empty", "-m", "signed")
    agent.run("git", *words, "-C", repository, "verify-commit", "HEAD")
    agent.run("ssh-add", "-q", "-D")
    assert agent.call("git", *words, "-C", repository, "commit", "-S", "--allow-empty", "-m", "not").returncode != 0


# From keys to passphrases


@pytest.fixture(scope="module")
def derivepassphrase(agent: Ours, peers: str) -> Callable[..., str]:
    """The passphrase that the real program derives for a service with a key, at the agent that has it."""
    home = agent.home / "derivepassphrase"
    home.mkdir()

    def call(address: Path, key: PublicKey) -> str:
        (home / "vault.json").write_text(json.dumps({"services": {"s": {"key": key.base64}}}))
        done = subprocess.run(
            [peers, "-m", "derivepassphrase", "vault", "s"],
            env=agent.environ(DERIVEPASSPHRASE_PATH=str(home), SSH_AUTH_SOCK=str(address)),
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return call


def vault(agent: Ours, address: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pageantry", "vault", *words, "s"],
        env=agent.environ(PAGEANTRY_HOME=str(agent.home / "settings"), SSH_AUTH_SOCK=str(address)),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.mark.parametrize("kind", ["ed25519", "rsa"])
def test_a_key_gives_the_passphrase_that_it_gives_in_openssh_s_agent(
    agent: Ours, derivepassphrase: Callable[..., str], kind: str
) -> None:
    (key,) = added(agent, kind)
    with openssh(agent.home / "derivepassphrase") as theirs:
        assert ssh_add(theirs, "-q", str(agent.home / kind)).returncode == 0
        expected = derivepassphrase(theirs, key)
    assert derivepassphrase(agent.address, key) == expected
    for words in (("-k",), ("--with-key", key.fingerprint())):
        done = vault(agent, agent.address, *words)
        assert done.stdout == expected, done.stderr


@pytest.mark.parametrize("kind", ["ecdsa", "dsa"])
def test_keys_that_other_agents_sign_with_at_random_give_the_same_passphrase_each_time(
    agent: Ours, derivepassphrase: Callable[..., str], kind: str
) -> None:
    (key,) = added(agent, kind)
    first = vault(agent, agent.address, "-k")
    assert first.returncode == 0, first.stderr
    assert len(first.stdout) == 21
    assert vault(agent, agent.address, "--with-key", key.fingerprint()).stdout == first.stdout
    assert derivepassphrase(agent.address, key) == first.stdout
