"""Programs that know nothing of pageantry, logging in to a real sshd with keys of agents that they could not reach."""

from __future__ import annotations

import contextlib
import getpass
import io
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

import pytest

import pageantry
from pageantry import Client, Identity, SignFlags
from pageantry.errors import Refused
from pageantry.keyfiles import KeyFiles

pytestmark = pytest.mark.interop

HERE = Path(__file__).parent
KEYS = [str(HERE / "keys" / name) for name in ("ed25519", "rsa")]
PACKAGES = str(Path(pageantry.__file__).parents[1])
PAGE = HERE.parents[1] / "docs" / "libraries.md"


@pytest.fixture
def offered() -> Iterator[str]:
    with pageantry.exposed(KeyFiles(KEYS)) as address:
        yield address


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


def test_paramiko_is_given_the_keys_and_signs_with_them(offered: str, paramiko: ModuleType) -> None:
    files = KeyFiles(KEYS)
    with pageantry.connect(offered) as agent:
        ed25519, rsa = pageantry.paramiko_keys(agent)
        for key, identity in zip((ed25519, rsa), files.identities(), strict=True):
            assert isinstance(key, paramiko.PKey)
            assert (key.asbytes(), key.get_name()) == (identity.key.blob, identity.key.type)
            assert (key.comment, key.fingerprint) == (identity.comment, identity.fingerprint)
            assert (key.get_bits(), key.can_sign()) == (identity.key.bits, True)
            assert identity.comment in repr(key)
            assert paramiko.PKey.from_type_string(key.get_name(), key.asbytes()) is not None
        assert ed25519.sign_ssh_data(b"data") == files.sign(files.identities()[0].key, b"data")
        for algorithm, flags in (
            (None, SignFlags.NONE),
            ("ssh-rsa", SignFlags.NONE),
            ("rsa-sha2-256", SignFlags.RSA_SHA2_256),
            ("rsa-sha2-512-cert-v01@openssh.com", SignFlags.RSA_SHA2_512),
        ):
            assert rsa.sign_ssh_data(b"data", algorithm) == files.sign(files.identities()[1].key, b"data", flags)
        assert {ed25519, *pageantry.paramiko_keys(agent)} == {ed25519, rsa}


def test_paramiko_is_told_what_the_agent_refuses(paramiko: ModuleType) -> None:
    from pageantry.for_paramiko import ParamikoKey

    with pageantry.exposed(KeyFiles(KEYS[:1])) as address, pageantry.connect(address) as agent:
        other = KeyFiles(KEYS[1:]).identities()[0].key
        with pytest.raises(Refused):
            ParamikoKey(agent, Identity(other)).sign_ssh_data(b"data", "rsa-sha2-256")


def test_asyncssh_lists_and_signs(
    offered: str, asyncssh: ModuleType, monkeypatch: pytest.MonkeyPatch, wine: bool
) -> None:
    import asyncio

    if wine:  # whose pipes cannot be sought, as the buffered file has to be that asyncssh makes of one
        monkeypatch.setattr("asyncssh.agent_win32.open_file", lambda path, mode: io.FileIO(path, "r+"))
    files = KeyFiles(KEYS)

    async def ask() -> tuple[list[bytes], bytes]:
        async with asyncssh.connect_agent(offered) as agent:
            keys = await agent.get_keys()
            return [key.public_data for key in keys], await agent.sign(keys[0].public_data, b"data")

    blobs, signature = asyncio.run(ask())
    assert blobs == [one.key.blob for one in files.identities()]
    assert signature == files.sign(files.identities()[0].key, b"data")


if sys.platform == "win32":
    from pageantry import winpipe
    from pageantry.endpoints.pageant import pipe_name

    @pytest.fixture
    def pageant() -> Iterator[list[str]]:
        """The real one with both keys, whose fingerprints these are."""
        program = shutil.which("pageant")
        if not program:
            pytest.skip("pageant is not installed")
        if winpipe.exists(pipe_name()):
            pytest.skip("this machine has a Pageant of its own")
        with subprocess.Popen([program, *(f"{key}.ppk" for key in KEYS)]) as process:
            try:
                deadline = time.monotonic() + 30
                while not winpipe.exists(pipe_name()) or len(listed("pageant-pipe")) < len(KEYS):
                    assert time.monotonic() < deadline, "pageant did not start"
                    time.sleep(0.1)
                yield [one.fingerprint for one in KeyFiles(KEYS).identities()]
            finally:
                process.kill()

    def listed(address: str) -> list[str]:
        with pageantry.connect(address) as agent:
            return sorted(one.fingerprint for one in agent.identities())

    @pytest.mark.parametrize("address", ["pageant-pipe", "pageant-window"])
    def test_pageant_is_exposed_relayed_and_given_to_a_command(pageant: list[str], address: str) -> None:
        expected = sorted(pageant)
        with pageantry.connect(address) as agent, pageantry.exposed(agent) as place:
            assert listed(place) == expected
            with pageantry.connect(place) as other:
                for identity in other.identities():
                    assert other.sign(identity.key, bytes(100_000), verify=True)
                assert "list-extended@putty.projects.tartarus.org" in other.query()
                assert len(other.identities()) == 2
        python = [sys.executable, "-m", "pageantry"]
        assert listed(f"stdio:{subprocess.list2cmdline([*python, 'relay', address])}") == expected
        shown = subprocess.run(
            [*python, "exec", "--agent", address, *python, "keys"], capture_output=True, text=True, timeout=60
        )
        assert all(fingerprint in shown.stdout for fingerprint in expected), shown.stderr

else:
    WAYS = ("key files", "ssh-agent", "relay")

    class Sshd:
        """A real server, and a home directory from which it is reached as example.org, with keys for it."""

        def __init__(self, home: Path, port: int, user: str) -> None:
            self.home = home
            self.port = port
            self.user = user

        def environ(self, **more: str) -> dict[str, str]:
            """That of a person who is at home there, with an `ssh` that reads their configuration."""
            clean = {name: value for name, value in os.environ.items() if not name.endswith(("_AUTH_SOCK", "_PID"))}
            path = f"{self.home / 'bin'}{os.pathsep}{os.path.dirname(sys.executable)}{os.pathsep}{clean['PATH']}"
            places = {"HOME": str(self.home), "XDG_RUNTIME_DIR": str(self.home), "PATH": path, "PYTHONPATH": PACKAGES}
            return clean | places | more

    def program(name: str) -> str:
        found = shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/lib/openssh")
        if not found:
            pytest.skip(f"{name} is not installed")
        return found

    def keygen(*arguments: str) -> None:
        subprocess.run([program("ssh-keygen"), "-q", *arguments], check=True, stdin=subprocess.DEVNULL)

    def script(path: Path, line: str) -> None:
        path.write_text(f"#!/bin/sh\n{line}\n")
        path.chmod(0o755)

    @pytest.fixture(scope="module")
    def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
        server, ssh = program("sshd"), program("ssh")
        home = Path(tempfile.mkdtemp(prefix="pgt", dir="/tmp"))
        for name in ("bin", ".ssh", "srv"):
            (home / name).mkdir()
        keygen("-t", "ed25519", "-N", "", "-f", str(home / "host"))
        keygen("-t", "ed25519", "-N", "", "-f", str(home / "ca"))
        for name, kind in (("ed25519", "ed25519"), ("rsa", "rsa"), ("ecdsa", "ecdsa"), ("certified", "ed25519")):
            keygen("-t", kind, "-N", "", "-C", "me@home", "-f", str(home / ".ssh" / name))
        shutil.copy(home / ".ssh" / "ed25519", home / ".ssh" / "deploy")
        shutil.copy(home / ".ssh" / "ed25519.pub", home / ".ssh" / "deploy.pub")
        user = getpass.getuser()
        keygen("-s", str(home / "ca"), "-I", "me", "-n", user, str(home / ".ssh" / "certified.pub"))
        allowed = [(home / ".ssh" / f"{name}.pub").read_text() for name in ("ed25519", "rsa", "ecdsa")]
        (home / "authorized").write_text("".join(allowed))
        with socket.create_server(("127.0.0.1", 0)) as probe:
            port = probe.getsockname()[1]
        host_key = (home / "host.pub").read_text()
        (home / ".ssh" / "known_hosts").write_text(f"[127.0.0.1]:{port} {host_key}example.org {host_key}")
        (home / "config").write_text(
            f"Host example.org\n HostName 127.0.0.1\n Port {port}\n User {user}\n HostKeyAlias example.org\n"
            f"Host *\n UserKnownHostsFile {home}/.ssh/known_hosts\n StrictHostKeyChecking yes\n BatchMode yes\n"
            f" IdentityFile none\n ControlPath none\n"
        )
        script(home / "bin" / "ssh", f'exec {ssh} -F {home}/config "$@"')
        script(home / "bin" / "pageantry", f'PYTHONPATH={PACKAGES} exec {sys.executable} -m pageantry "$@"')
        script(home / "session", f'cd {home}/srv && export PATH="{home}/bin:$PATH" && eval "$SSH_ORIGINAL_COMMAND"')
        (home / "sshd_config").write_text(
            f"ListenAddress 127.0.0.1:{port}\nHostKey {home}/host\nAuthorizedKeysFile {home}/authorized\n"
            f"TrustedUserCAKeys {home}/ca.pub\nForceCommand {home}/session\nPidFile none\nStrictModes no\nUsePAM no\n"
            f"PasswordAuthentication no\nPermitRootLogin yes\nAuthenticationMethods publickey\n"
        )
        if os.geteuid() == 0:
            Path("/run/sshd").mkdir(exist_ok=True)
        process = subprocess.Popen([server, "-D", "-e", "-f", str(home / "sshd_config")], stderr=subprocess.DEVNULL)
        try:
            wait_for(lambda: listens(port), "sshd did not start")
            made = Sshd(home, port, user)
            key = ["-i", str(home / ".ssh" / "ed25519"), "-o", "IdentitiesOnly=yes", "-o", "IdentityAgent=none"]
            tried = subprocess.run(["ssh", *key, "example.org", "true"], env=made.environ(), capture_output=True)
            if tried.returncode:
                pytest.skip("this machine's sshd does not let this user log in")
            yield made
        finally:
            process.terminate()
            process.wait(20)
            shutil.rmtree(home)

    def listens(port: int) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    def wait_for(condition: Callable[[], object], what: str) -> None:
        deadline = time.monotonic() + 20
        while not condition():
            assert time.monotonic() < deadline, what
            time.sleep(0.02)

    @contextlib.contextmanager
    def ssh_agent(sshd: Sshd, *added: list[str]) -> Iterator[str]:
        """The address of OpenSSH's agent with what ssh-add is told to add."""
        address = str(sshd.home / f"agent{time.monotonic_ns()}")
        process = subprocess.Popen([program("ssh-agent"), "-D", "-a", address], stdout=subprocess.DEVNULL)
        try:
            wait_for(lambda: os.path.exists(address) and connects(address), "ssh-agent did not start")
            for words in added:
                subprocess.run(
                    [program("ssh-add"), "-q", *words], env=sshd.environ(SSH_AUTH_SOCK=address), check=True, timeout=20
                )
            yield address
        finally:
            process.terminate()
            process.wait(20)
            Path(address).unlink(missing_ok=True)

    def connects(address: str) -> bool:
        with socket.socket(socket.AF_UNIX) as probe:
            return probe.connect_ex(address) == 0

    def relayed(address: str) -> str:
        return f"stdio:{sys.executable} -m pageantry relay {address}"

    @contextlib.contextmanager
    def reached(sshd: Sshd, way: str, *names: str) -> Iterator[str]:
        """The address of an agent of this kind that holds these keys."""
        paths = [str(sshd.home / ".ssh" / name) for name in names]
        if way == "key files":
            yield f"keys:{os.pathsep.join(paths)}"
            return
        with ssh_agent(sshd, paths) as address:
            yield relayed(address) if way == "relay" else address

    def run(sshd: Sshd, *command: str, **environ: str) -> str:
        """What the command prints, which must succeed."""
        done = subprocess.run(
            command, env=sshd.environ(**environ), capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

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
        assert (len(recipes("sh")), len(recipes("python"))) == (2, 4)

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

    @pytest.mark.parametrize("number", range(4))
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
        if number == 0:
            assert (project / "project" / ".git").is_dir()
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
