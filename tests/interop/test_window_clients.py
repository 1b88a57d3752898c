"""PuTTY's programs for Windows as clients of our agent, by its window: they find no pipe of Pageant's."""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pageantry import PublicKey, sessions, winpipe
from pageantry.constraints import Confirm
from pageantry.endpoints import window_listener
from pageantry.endpoints.pageant import pipe_name
from pageantry.errors import Error
from pageantry.keyring import Keyring
from pageantry.keys.files import read
from pageantry.prompts import Person
from pageantry.server import Server

if sys.platform != "win32":
    pytest.skip("windows are on Windows", allow_module_level=True)

from .logins import program

pytest.importorskip("paramiko")
import paramiko

pytestmark = pytest.mark.interop

KEYS = Path(__file__).parent / "keys"


class Agreeing:
    """A person who agrees to everything."""

    def __init__(self) -> None:
        self.questions: list[str] = []

    def confirm(self, question: str, check: Callable[[], object]) -> None:
        self.questions.append(question)

    def secret(self, question: str, check: Callable[[], object]) -> bytes:
        raise NotImplementedError

    def notify(self, text: str) -> Callable[[], object]:
        return lambda: None


@pytest.fixture
def person() -> Agreeing:
    return Agreeing()


@pytest.fixture
def keyring(person: Agreeing) -> Iterator[Keyring]:
    """Our agent, behind the window alone."""
    if winpipe.exists(pipe_name()):
        pytest.skip("a Pageant of this machine's runs already")
    with Keyring(Person([person])) as keyring:
        try:
            listener = window_listener.listen()
        except Error as error:
            pytest.skip(str(error))
        server = Server([listener], sessions.to(keyring))
        try:
            yield keyring
        finally:
            server.close()


class Login(paramiko.ServerInterface):  # type: ignore[misc]
    """A server that lets in who has one of some keys, and runs nothing."""

    def __init__(self, keys: list[PublicKey]) -> None:
        self._keys = keys
        self.asked = threading.Event()

    def get_allowed_auths(self, username: str) -> str:
        return "publickey"

    def check_auth_publickey(self, username: str, key: Any) -> int:
        known = any(key.asbytes() == one.blob for one in self._keys)
        return int(paramiko.AUTH_SUCCESSFUL if known else paramiko.AUTH_FAILED)

    def check_channel_request(self, kind: str, chanid: int) -> int:
        return int(paramiko.OPEN_SUCCEEDED)

    def check_channel_exec_request(self, channel: Any, command: bytes) -> bool:
        self.asked.set()
        return True


@contextlib.contextmanager
def server(*keys: PublicKey) -> Iterator[tuple[int, str]]:
    """A server for one login; its port, and its key as plink takes it."""
    host = paramiko.RSAKey.generate(2048)

    def serve(listening: socket.socket) -> None:
        connection, _ = listening.accept()
        with paramiko.Transport(connection) as transport:
            transport.add_server_key(host)
            login = Login(list(keys))
            transport.start_server(server=login)
            channel = transport.accept(30)
            if channel and login.asked.wait(30):
                channel.sendall(b"logged in\n")
                channel.send_exit_status(0)
                channel.close()
                transport.join(10)

    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(60)
        thread = threading.Thread(target=serve, args=(listening,))
        thread.start()
        yield listening.getsockname()[1], PublicKey(host.asbytes()).fingerprint()
        thread.join(60)
        assert not thread.is_alive()


def plink(port: int, fingerprint: str) -> subprocess.CompletedProcess[bytes]:
    command = [program("plink"), "-ssh", "-batch", "-agent", "-hostkey", fingerprint, "-P", str(port)]
    return subprocess.run(
        [*command, "me@127.0.0.1", "anything"], stdin=subprocess.PIPE, capture_output=True, timeout=90
    )


@pytest.mark.parametrize("name", ["ed25519", "rsa"])
def test_plink_logs_in(keyring: Keyring, person: Agreeing, name: str) -> None:
    key, _ = read(str(KEYS / name)).decrypt()
    keyring.add(key, name, [Confirm()])
    with server(key.public) as (port, fingerprint):
        done = plink(port, fingerprint)
    assert (done.returncode, done.stdout.strip()) == (0, b"logged in"), done.stderr
    (question,) = person.questions
    assert "plink.exe (process " in question
    assert 'to log in as "me"' in question


def test_pageant_hands_its_keys_to_it(keyring: Keyring) -> None:
    pageant = shutil.which("pageant")
    if not pageant:
        pytest.skip("pageant is not installed")
    files = [str(KEYS / f"{name}.ppk") for name in ("ed25519", "rsa")]
    subprocess.run([pageant, *files], check=True, timeout=60)
    assert {one.key for one in keyring.identities()} == {read(file).public for file in files}
