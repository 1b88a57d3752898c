"""OpenSSH's agent, GnuPG's and PuTTY's at once, as one agent for OpenSSH's own clients."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

if sys.platform == "win32":
    pytest.skip("agents on UNIX sockets; tests/test_mux.py goes through pipes", allow_module_level=True)

import pageantry
from pageantry import upstreams
from pageantry.endpoints import parse
from pageantry.errors import Refused
from pageantry.exposure import Exposure
from pageantry.mux import several

from .conftest import gpg_agent, openssh, pageant, program, running, ssh_add, wait_for
from .logins import Sshd, run, running_sshd, ssh_agent

pytestmark = pytest.mark.interop

KEYS = ("ed25519", "rsa", "ecdsa")


@pytest.fixture
def directory() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="pgt", dir="/tmp"))
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def three(directory: Path, key_files: dict[str, Path], said: list[str]) -> Iterator[Path]:
    """The address of all three as one; each holds another key, and GnuPG's takes new ones."""
    with openssh(directory) as one, gpg_agent(directory) as two, pageant(directory) as three:
        agents = (one, two, three)
        for agent, name in zip(agents, KEYS, strict=True):
            added = ssh_add(agent, str(key_files[name]))
            assert added.returncode == 0, added.stderr
        with Exposure(several([parse(str(agent)) for agent in agents], add_to=1, say=said.append)) as address:
            yield Path(address)


def names(address: Path) -> list[str]:
    """The comments of the keys that ssh-add lists."""
    done = ssh_add(address, "-L")
    return [line.split()[2] for line in done.stdout.splitlines()] if done.returncode == 0 else []


def signs(address: Path, key: Path, directory: Path) -> bool:
    """Whether ssh-keygen signs with a key of which it has the public half alone, and takes the signature for good."""
    public, message, signature = directory / "half.pub", directory / "message", directory / "message.sig"
    shutil.copy(f"{key}.pub", public)
    message.write_text("a message\n")
    signature.unlink(missing_ok=True)
    environ = {"SSH_AUTH_SOCK": str(address), "PATH": "/usr/bin:/bin", "HOME": str(directory)}
    keygen = program("ssh-keygen")
    done = subprocess.run(
        [keygen, "-Y", "sign", "-f", str(public), "-n", "file", str(message)],
        env=environ, capture_output=True, stdin=subprocess.DEVNULL, timeout=60,
    )  # fmt: skip
    if done.returncode:
        return False
    with message.open() as given:
        subprocess.run(
            [keygen, "-Y", "check-novalidate", "-n", "file", "-s", str(signature)],
            stdin=given, check=True, capture_output=True, timeout=60,
        )  # fmt: skip
    return True


def test_all_keys_are_listed_and_each_signs(
    three: Path, key_files: dict[str, Path], directory: Path, said: list[str]
) -> None:
    assert len(names(three)) == 3
    assert ssh_add(three, "-l").stdout.count("SHA256:") == 3
    for name in KEYS:
        assert signs(three, key_files[name], directory), name
        assert ssh_add(three, "-T", f"{key_files[name]}.pub").returncode == 0
    with pageantry.connect(str(three)) as agent:
        for identity in agent.identities():
            agent.sign(identity.key, b"data", verify=True)
        assert "session-bind@openssh.com" not in agent.query()  # of which OpenSSH 9.2 says nothing
        assert "add-ppk@putty.projects.tartarus.org" not in agent.query()  # which would go to GnuPG's
        assert "list-extended@putty.projects.tartarus.org" in agent.query()
    assert said == []


def test_a_key_is_added_to_the_one_that_takes_them_and_removed_where_it_is(
    three: Path, key_files: dict[str, Path], directory: Path
) -> None:
    new = directory / "new"
    subprocess.run([program("ssh-keygen"), "-q", "-t", "ed25519", "-N", "", "-C", "new", "-f", str(new)], check=True)
    assert ssh_add(three, str(new)).returncode == 0
    assert ssh_add(directory / "gnupg" / "S.gpg-agent.ssh", "-L").stdout.count("ssh-ed25519") == 1
    assert signs(three, new, directory)
    for left, name in ((3, "ecdsa"), (2, "ed25519")):  # not GnuPG's, which says that it removes keys and does not
        assert ssh_add(three, "-d", str(key_files[name])).returncode == 0
        assert len(names(three)) == left
        assert not signs(three, key_files[name], directory)


def test_none_is_locked_where_pageant_knows_no_locks(three: Path, said: list[str]) -> None:
    with pageantry.connect(str(three)) as agent:
        with pytest.raises(Refused):
            agent.lock(b"geheim")
        assert len(agent.identities()) == 3
        agent.unlock(b"geheim")  # GnuPG's says that it does so, always, and the others show that they are not locked
    assert len(said) == 1
    assert said[0].endswith("could not be locked, so none is")


def test_two_of_openssh_are_locked_and_unlocked(directory: Path, key_files: dict[str, Path]) -> None:
    others = directory / "others"
    others.mkdir()
    with openssh(directory) as one, openssh(others) as two:
        for where, name in ((one, "ed25519"), (two, "rsa")):
            assert ssh_add(where, str(key_files[name])).returncode == 0
        with Exposure(several([parse(str(one)), parse(str(two))])) as address, pageantry.connect(address) as agent:
            agent.lock(b"geheim")
            assert [*names(Path(address)), *names(one), *names(two)] == []
            with pytest.raises(Refused):
                agent.unlock(b"wrong")
            agent.unlock(b"geheim")
            assert len(agent.identities()) == 2
            with pageantry.connect(str(two)) as alone:
                alone.lock(b"geheim")
            assert len(agent.identities()) == 1
            with pytest.raises(Refused):  # as one of them is
                agent.lock(b"another")
            assert len(names(one)) == 1
            agent.unlock(b"geheim")  # although the other is not
            assert len(agent.identities()) == 2


def test_one_that_is_killed_and_started_again_is_missed_and_found(
    directory: Path, key_files: dict[str, Path], said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upstreams, "FIRST_PAUSE", 0.1)
    mortal = directory / "mortal"
    with contextlib.ExitStack() as stack:
        agents = [stack.enter_context(openssh(directory)), stack.enter_context(gpg_agent(directory)), mortal]
        for agent, name in zip(agents, KEYS[:2], strict=False):
            assert ssh_add(agent, str(key_files[name])).returncode == 0
        address = Path(stack.enter_context(Exposure(several([*map(parse, map(str, agents))], say=said.append))))
        client = stack.enter_context(pageantry.connect(str(address)))
        for times in (1, 2):
            with running(program("ssh-agent"), "-D", "-a", str(mortal)) as process:
                wait_for(lambda: ssh_add(mortal, "-l").returncode == 1, "ssh-agent did not start")
                assert ssh_add(mortal, str(key_files["ecdsa"])).returncode == 0
                wait_for(lambda: len(client.identities()) == 3, "it is not found")
                assert signs(address, key_files["ecdsa"], directory)
                key = client.identities()[2].key
                process.kill()
                process.wait(10)
            mortal.unlink()
            with pytest.raises(Refused):
                client.sign(key, b"data")
            assert len(client.identities()) == len(names(address)) == 2
            assert signs(address, key_files["ed25519"], directory)
            assert sum(line.endswith("left out until it answers") for line in said) == times
    assert sum(line.endswith("answers again") for line in said) == 1


@pytest.fixture(scope="module")
def sshd() -> Iterator[Sshd]:
    with running_sshd() as made:
        yield made


def test_ssh_logs_in_with_a_key_that_is_limited_to_destinations(sshd: Sshd, directory: Path) -> None:
    useless, key = directory / "useless", sshd.home / ".ssh" / "ed25519"
    subprocess.run([program("ssh-keygen"), "-q", "-t", "rsa", "-N", "", "-f", str(useless)], check=True)
    with (
        ssh_agent(sshd, [str(useless)]) as one,
        ssh_agent(sshd) as two,
        Exposure(several([parse(one), parse(two)], add_to=1)) as address,
    ):
        for host, allowed in (("example.org", True), ("elsewhere.org", False)):
            run(sshd, program("ssh-add"), "-q", *limits(sshd, directory, host), str(key), SSH_AUTH_SOCK=address)
            assert len(names(Path(address))) == 2
            environ = sshd.environ(SSH_AUTH_SOCK=address)
            done = subprocess.run(["ssh", "example.org", "echo in"], env=environ, capture_output=True, timeout=60)
            assert (done.stdout == b"in\n") is allowed, done.stderr
            assert not signs(Path(address), key, directory)


def test_an_agent_that_is_forwarded_from_here_is_bound_there(sshd: Sshd, directory: Path) -> None:
    limited = [*limits(sshd, directory, "elsewhere.org"), str(sshd.home / ".ssh" / "rsa")]
    with (
        ssh_agent(sshd, [str(sshd.home / ".ssh" / "ed25519")]) as one,
        ssh_agent(sshd, limited) as two,
        Exposure(several([parse(one), parse(two)])) as address,
    ):
        assert len(names(Path(address))) == 2
        remote = run(sshd, "ssh", "-A", "example.org", f"{program('ssh-add')} -L", SSH_AUTH_SOCK=address)
    assert [line.split()[0] for line in remote.splitlines()] == ["ssh-ed25519"]


def limits(sshd: Sshd, directory: Path, host: str) -> list[str]:
    """What has ssh-add limit a key to that host, which is example.org or elsewhere.org."""
    known = directory / "known"
    known.write_text(f"elsewhere.org {(sshd.home / 'ca.pub').read_text()}")
    return ["-H", str(sshd.home / ".ssh" / "known_hosts"), "-H", str(known), "-h", host]
