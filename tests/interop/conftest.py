"""Real agents to talk to: OpenSSH's, Unix Pageant, gpg-agent, and OpenSSH's forwarded through a real sshd."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

AGENTS = ("openssh", "pageant", "gpg-agent", "forwarded")

# What gpg-agent asks to type a passphrase at; this one leaves all of them empty.
_PINENTRY = """#!/bin/sh
echo "OK ready"
while read -r command rest; do
  echo OK
  [ "$command" = BYE ] && exit
done
"""


def program(name: str) -> str:
    found = shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/lib/openssh")
    if not found:
        pytest.skip(f"{name} is not installed")
    return found


@pytest.fixture(scope="session")
def short_directory() -> Iterator[Path]:
    """Sockets' paths are short, and pytest's are not."""
    directory = Path(tempfile.mkdtemp(prefix="pgt", dir=None if sys.platform == "win32" else "/tmp"))
    yield directory
    shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture(scope="session")
def key_files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    keygen = program("ssh-keygen")
    directory = tmp_path_factory.mktemp("keys")
    files = {}
    for name, options in (
        ("ed25519", ["-t", "ed25519"]),
        ("rsa", ["-t", "rsa", "-b", "2048"]),
        ("ecdsa", ["-t", "ecdsa"]),
        ("encrypted", ["-t", "ed25519", "-a", "2"]),
    ):
        files[name] = directory / name
        phrase = "open sesame" if name == "encrypted" else ""
        subprocess.run(
            [keygen, "-q", "-N", phrase, "-C", f"{name}@test", "-f", str(files[name]), *options],
            check=True,
            stdin=subprocess.DEVNULL,
        )
    return files


def ssh_add(address: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environ = {**os.environ, "SSH_AUTH_SOCK": str(address)}
    return subprocess.run(
        [program("ssh-add"), *arguments],
        env=environ,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=60,
    )


def wait_for(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 15
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(what)
        time.sleep(0.02)


@contextlib.contextmanager
def running(*command: str, environ: dict[str, str] | None = None) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(
        command,
        env={**os.environ, **(environ or {})},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield process
    finally:
        process.terminate()
        process.communicate(timeout=10)


def _accepts(address: Path) -> bool:
    """Whether an agent takes connections there: its socket's name comes before that."""
    assert hasattr(socket, "AF_UNIX")
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(str(address)) == 0


@contextlib.contextmanager
def openssh(directory: Path) -> Iterator[Path]:
    address = directory / "openssh"
    with running(program("ssh-agent"), "-D", "-a", str(address)):
        wait_for(lambda: _accepts(address), "ssh-agent did not start")
        yield address
    address.unlink(missing_ok=True)


@contextlib.contextmanager
def pageant(directory: Path) -> Iterator[Path]:
    with running(program("pageant"), "--exec", "sh", "-c", 'echo "$SSH_AUTH_SOCK"; cat') as process:
        assert process.stdout is not None
        yield Path(process.stdout.readline().decode().strip())
        assert process.stdin is not None
        process.stdin.close()
        process.wait(timeout=10)
        process.stdin = None


@contextlib.contextmanager
def gpg_agent(directory: Path) -> Iterator[Path]:
    agent = program("gpg-agent")
    home = directory / "gnupg"
    home.mkdir(mode=0o700)
    pinentry = home / "pinentry"
    pinentry.write_text(_PINENTRY)
    pinentry.chmod(0o700)
    command = (agent, "--homedir", str(home), "--daemon", "--enable-ssh-support", "--pinentry-program", str(pinentry))
    address = home / "S.gpg-agent.ssh"
    with running(*command, "sleep", "3600"):
        wait_for(lambda: _accepts(address), "gpg-agent did not start")
        yield address
    shutil.rmtree(home, ignore_errors=True)


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@contextlib.contextmanager
def forwarded(directory: Path, key: Path) -> Iterator[Path]:
    """OpenSSH's agent, reached through the agent forwarding of a session with a real sshd."""
    sshd, ssh = program("sshd"), program("ssh")
    base = directory / "sshd"
    base.mkdir()
    if sys.platform != "win32" and os.geteuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)
    subprocess.run([program("ssh-keygen"), "-q", "-t", "ed25519", "-N", "", "-f", str(base / "host")], check=True)
    shutil.copy(f"{key}.pub", base / "authorized")
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    (base / "config").write_text(
        f"ListenAddress 127.0.0.1:{port}\nHostKey {base}/host\nAuthorizedKeysFile {base}/authorized\n"
        f"PidFile none\nStrictModes no\nUsePAM no\nPasswordAuthentication no\nPermitRootLogin yes\n"
    )
    options = ["-F", "none", "-o", "StrictHostKeyChecking=no", "-o", f"UserKnownHostsFile={base}/known", "-i", str(key)]
    with contextlib.ExitStack() as stack:
        address = stack.enter_context(openssh(base))
        stack.enter_context(running(sshd, "-D", "-e", "-f", str(base / "config")))
        wait_for(lambda: _listens(port), "sshd did not start")
        remote = ("-A", "-p", str(port), "127.0.0.1", 'echo "$SSH_AUTH_SOCK"; sleep 3600')
        session = stack.enter_context(running(ssh, *options, *remote, environ={"SSH_AUTH_SOCK": str(address)}))
        assert session.stdout is not None
        line = session.stdout.readline().decode().strip()
        if not line:
            pytest.skip("this machine's sshd does not let this user log in")
        yield Path(line)
    shutil.rmtree(base, ignore_errors=True)


def skip_without_sockets() -> None:
    if sys.platform == "win32":
        pytest.skip("agents on UNIX sockets; test_windows_agents.py has those on pipes")


@pytest.fixture(scope="session", params=AGENTS)
def agent(request: pytest.FixtureRequest, short_directory: Path, key_files: dict[str, Path]) -> Iterator[Path]:
    """The socket of a real agent that holds the Ed25519 and the RSA key."""
    skip_without_sockets()
    start = {"openssh": openssh, "pageant": pageant, "gpg-agent": gpg_agent}.get(request.param)
    with start(short_directory) if start else forwarded(short_directory, key_files["ed25519"]) as address:
        assert stat.S_ISSOCK(address.stat().st_mode)
        for name in ("ed25519", "rsa"):
            added = ssh_add(address, str(key_files[name]))
            assert added.returncode == 0, added.stderr
        yield address


@pytest.fixture
def fresh_agent(tmp_path: Path) -> Iterator[Path]:
    """OpenSSH's agent, empty, for a test that changes it."""
    skip_without_sockets()
    directory = Path(tempfile.mkdtemp(prefix="pgt", dir="/tmp"))
    with openssh(directory) as address:
        yield address
    shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run the command as a person would, in an environment of its own."""

    def call(
        *arguments: str, sock: Path | str | None = None, given: str = "", **environ: str
    ) -> subprocess.CompletedProcess[str]:
        clean = {name: value for name, value in os.environ.items() if not name.endswith("_AUTH_SOCK")}
        clean |= dict.fromkeys(("HOME", "USERPROFILE", "XDG_RUNTIME_DIR"), str(tmp_path))
        clean |= {"PAGEANTRY_HOME": str(tmp_path / "settings")}
        if sock is not None:
            clean["SSH_AUTH_SOCK"] = str(sock)
        return subprocess.run(
            [sys.executable, "-m", "pageantry", *arguments],
            env=clean | environ,
            input=given,
            capture_output=True,
            text=True,
            timeout=60,
        )

    return call
