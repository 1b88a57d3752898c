"""Programs that know nothing of pageantry, logging in to a real sshd with keys of agents that they could not reach."""

from __future__ import annotations

import contextlib
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

import pytest

import pageantry
from pageantry import Client

if sys.platform == "win32":
    pytest.skip("sshd is not started there", allow_module_level=True)

from .logins import WAYS, Sshd, keygen, program, reached, relayed, run, running_sshd, ssh_agent

pytestmark = pytest.mark.interop

PAGE = Path(__file__).parents[2] / "docs" / "libraries.md"


@pytest.fixture(scope="module")
def sshd() -> Iterator[Sshd]:
    with running_sshd() as made:
        yield made


@pytest.fixture
def paramiko() -> ModuleType:
    module = pytest.importorskip("paramiko")
    assert isinstance(module, ModuleType)
    return module


@pytest.fixture
def asyncssh() -> ModuleType:
    module = pytest.importorskip("asyncssh")
    assert isinstance(module, ModuleType)
    return module


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", ["ed25519", "rsa", "ecdsa"])
def test_ssh_logs_in_through_exec(sshd: Sshd, way: str, name: str) -> None:
    with reached(sshd, way, name) as address:
        assert run(sshd, "pageantry", "exec", "--agent", address, "--", "ssh", "example.org", "echo in") == "in\n"


@pytest.mark.parametrize("way", ["ssh-agent", "relay"])
def test_ssh_logs_in_with_a_certificate_that_is_exposed(sshd: Sshd, way: str) -> None:
    with (
        reached(sshd, way, "certified") as address,
        pageantry.connect(address) as agent,
        pageantry.exposed(agent) as place,
    ):
        assert run(sshd, "ssh", "example.org", "echo in", SSH_AUTH_SOCK=place) == "in\n"


@pytest.mark.parametrize("way", WAYS)
def test_git_clones_and_pushes(sshd: Sshd, way: str, tmp_path: Path) -> None:
    git = program("git")
    name = f"{way.replace(' ', '-')}.git"
    run(sshd, git, "init", "-q", "--bare", str(sshd.home / "srv" / name))
    with reached(sshd, way, "ed25519") as address:
        exec_ = ("pageantry", "exec", "--agent", address, "--")
        run(sshd, *exec_, git, "clone", "-q", f"example.org:{name}", str(tmp_path / "clone"))
        here = (git, "-C", str(tmp_path / "clone"), "-c", "user.name=me", "-c", "user.email=me@example.org")
        run(sshd, *here, "commit", "-q", "--allow-empty", "-m", "first")
        run(sshd, *exec_, *here, "push", "-q", "origin", "HEAD:main")
    assert run(sshd, git, "-C", str(sshd.home / "srv" / name), "log", "--format=%s", "main") == "first\n"


@pytest.mark.parametrize("way", ["ssh-agent", "relay"])
def test_a_forwarded_agent_is_that_which_is_exposed(sshd: Sshd, way: str) -> None:
    with (
        reached(sshd, way, "ed25519", "rsa") as address,
        pageantry.connect(address) as agent,
        pageantry.exposed(agent) as place,
    ):
        shown = run(sshd, "ssh", "-A", "example.org", f"{program('ssh-add')} -l", SSH_AUTH_SOCK=place)
        assert [line.split()[1] for line in shown.splitlines()] == [one.fingerprint for one in agent.identities()]


@pytest.mark.parametrize("way", ["exposed", "relayed", "relayed and exposed"])
def test_a_key_for_one_host_alone_is_of_use_for_that_one_alone(sshd: Sshd, way: str) -> None:
    for host, status in (("example.org", 0), ("example.com", 255)):
        hosts = sshd.home / "hosts"
        keygen("-t", "ed25519", "-N", "", "-f", str(sshd.home / "other"))
        hosts.write_text(
            f"example.org {(sshd.home / 'host.pub').read_text()}example.com {(sshd.home / 'other.pub').read_text()}"
        )
        (sshd.home / "other").unlink()
        add = ["-H", str(hosts), "-h", host, str(sshd.home / ".ssh" / "ed25519")]
        with contextlib.ExitStack() as stack:
            address = stack.enter_context(ssh_agent(sshd, add))
            if "relayed" in way:
                address = relayed(address)
            agent = stack.enter_context(pageantry.connect(address))
            assert isinstance(agent, Client)
            place = stack.enter_context(pageantry.exposed(agent))
            if way == "relayed and exposed":
                place = stack.enter_context(pageantry.exposed(stack.enter_context(pageantry.connect(place))))
            command = ["ssh", "example.org", "echo in"]
            done = subprocess.run(command, env=sshd.environ(SSH_AUTH_SOCK=place), capture_output=True, timeout=60)
            assert (done.returncode, done.stdout) == (status, b"in\n" if status == 0 else b""), host


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", ["ed25519", "rsa", "ecdsa", "certified"])
def test_paramiko_logs_in_with_the_keys_of_any_agent(sshd: Sshd, paramiko: ModuleType, way: str, name: str) -> None:
    if way == "key files" and name == "certified":
        pytest.skip("key files come without their certificates")
    with (
        reached(sshd, way, name) as address,
        pageantry.connect(address) as agent,
        paramiko.SSHClient() as ssh,
    ):
        ssh.load_host_keys(str(sshd.home / ".ssh" / "known_hosts"))
        key = pageantry.paramiko_keys(agent)[-1]
        assert ("cert" in key.get_name()) == (name == "certified")
        options = {"allow_agent": False, "look_for_keys": False}
        ssh.connect("127.0.0.1", sshd.port, sshd.user, pkey=key, **options)
        assert ssh.exec_command("echo in")[1].read() == b"in\n"


@pytest.mark.parametrize("way", WAYS)
def test_paramiko_s_own_client_takes_what_is_exposed(
    sshd: Sshd, paramiko: ModuleType, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (
        reached(sshd, way, "rsa") as address,
        pageantry.connect(address) as agent,
        pageantry.exposed(agent) as place,
        paramiko.SSHClient() as ssh,
    ):
        monkeypatch.setenv("SSH_AUTH_SOCK", place)
        ssh.load_host_keys(str(sshd.home / ".ssh" / "known_hosts"))
        ssh.connect("127.0.0.1", sshd.port, sshd.user, look_for_keys=False)
        assert ssh.exec_command("echo in")[1].read() == b"in\n"


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", ["ed25519", "rsa", "ecdsa"])
def test_asyncssh_logs_in(sshd: Sshd, asyncssh: ModuleType, way: str, name: str) -> None:
    import asyncio

    async def log_in(place: str) -> str:
        known = str(sshd.home / ".ssh" / "known_hosts")
        async with asyncssh.connect(
            "127.0.0.1", sshd.port, username=sshd.user, agent_path=place, known_hosts=known
        ) as ssh:
            return str((await ssh.run("echo in")).stdout)

    with (
        reached(sshd, way, name) as address,
        pageantry.connect(address) as agent,
        pageantry.exposed(agent) as place,
    ):
        assert asyncio.run(log_in(place)) == "in\n"


def recipes(kind: str) -> list[str]:
    return re.findall(rf"```{kind}\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)


def test_there_are_recipes() -> None:
    assert (len(recipes("sh")), len(recipes("python"))) == (2, 6)


@pytest.fixture
def project(sshd: Sshd) -> Iterator[Path]:
    """A project to be cloned, and where to."""
    place = sshd.home / "srv" / "project.git"
    run(sshd, program("git"), "init", "-q", "--bare", str(place))
    (sshd.home / "work").mkdir()
    yield sshd.home / "work"
    shutil.rmtree(sshd.home / "work")
    shutil.rmtree(place)


def test_the_recipes_for_the_shell_run(sshd: Sshd, project: Path) -> None:
    for line in recipes("sh")[0].splitlines():
        done = subprocess.run(
            ["sh", "-c", line], cwd=project, env=sshd.environ(), capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 0, done.stderr
    assert (project / "project" / ".git").is_dir()
    assert done.stdout.strip() == socket.gethostname()


@pytest.mark.parametrize("number", range(6))
def test_the_recipes_in_python_run(sshd: Sshd, project: Path, number: int) -> None:
    """As they stand, but for the port and the user, for which they have no configuration."""
    code = recipes("python")[number]
    for name in ("paramiko", "asyncssh"):
        if f"import {name}" in code and not find_spec(name):
            pytest.skip(f"{name} is not installed")
    code = code.replace('("example.org", 22)', f'("127.0.0.1", {sshd.port})').replace('"me"', repr(sshd.user))
    code = code.replace('"example.org"', f'"127.0.0.1", port={sshd.port}')
    with ssh_agent(sshd, [str(sshd.home / ".ssh" / "ed25519")]) as address:
        environ = sshd.environ(SSH_AUTH_SOCK=address)
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=project, env=environ, capture_output=True, text=True, timeout=60
        )
    assert done.returncode == 0, done.stderr
    if number in (0, 1):
        assert (project / "project" / ".git").is_dir()
    elif number == 2:  # which logs in nowhere, but signs
        shown = subprocess.run(
            ["ssh-keygen", "-lf", str(sshd.home / ".ssh" / "ed25519.pub")], capture_output=True, text=True, check=True
        )
        assert done.stdout == f"{shown.stdout.split()[1]} 83\n"
    else:
        assert done.stdout.strip() in (socket.gethostname(), "True")


def test_the_recipe_for_another_computer_runs(sshd: Sshd) -> None:
    """With this one for the other, where the agent is OpenSSH's on a socket."""
    line = next(line for line in recipes("sh")[1].splitlines() if "ssh example.org" in line)
    there = ssh_agent(sshd, [str(sshd.home / ".ssh" / "rsa")])
    with there as address, ssh_agent(sshd, [str(sshd.home / ".ssh" / "ed25519")]) as here:
        shown = run(sshd, "sh", "-c", line.replace("openssh", address), SSH_AUTH_SOCK=here)
    assert "RSA" in shown
    assert "ED25519" not in shown
