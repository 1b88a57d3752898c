"""A real sshd to log in to, and agents of several kinds with the keys for it."""

from __future__ import annotations

import contextlib
import getpass
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import pageantry

PACKAGES = str(Path(pageantry.__file__).parents[1])

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


@contextlib.contextmanager
def running_sshd() -> Iterator[Sshd]:
    """It, or the test is skipped."""
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
    if sys.platform != "win32" and os.geteuid() == 0:
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
    assert hasattr(socket, "AF_UNIX")
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
