"""Our agent on GnuPG's and Cygwin's files, and clients in other processes: libassuan's, and one as Cygwin's are."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from pageantry import sessions
from pageantry.endpoints import loopback_listener
from pageantry.endpoints.loopback_listener import Listener
from pageantry.keyring import Keyring
from pageantry.keys.public import PublicKey
from pageantry.keys.signatures import verify
from pageantry.messages import IdentitiesAnswer, RequestIdentities, SignRequest, SignResponse, decode, frame
from pageantry.server import Server

from ..hosts import ed25519_key

pytestmark = pytest.mark.interop

HERE = Path(__file__).parent
LIST = frame(RequestIdentities().payload())

Serve = Callable[..., Listener]


@pytest.fixture
def keyring() -> Keyring:
    made = Keyring()
    with made.open(None) as view:
        for number in range(5):
            view.add(ed25519_key(number), f"key {number}")
    return made


@pytest.fixture
def serve(tmp_path: Path, keyring: Keyring) -> Iterator[Serve]:
    """An agent with five keys on a file of a kind."""
    directory = tmp_path / "private"
    directory.mkdir(0o700)
    with ExitStack() as stack:

        def start(kind: str, name: str = "S.agent") -> Listener:
            listener: Listener = getattr(loopback_listener, kind)(str(directory / name))
            stack.enter_context(closing(Server([listener], sessions.to(keyring))))
            return listener

        yield start


def output(*command: str) -> list[str]:
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def comments(reply: str) -> list[bytes]:
    answer = decode(bytes.fromhex(reply)[4:])
    assert isinstance(answer, IdentitiesAnswer)
    return [comment for _, comment in answer.identities]


def signed(reply: str, key: PublicKey, data: bytes) -> bool:
    answer = decode(bytes.fromhex(reply)[4:])
    assert isinstance(answer, SignResponse)
    verify(key, answer.signature, data)
    return True


def public(number: int) -> PublicKey:
    return ed25519_key(number).public


def signing(number: int) -> bytes:
    return frame(SignRequest(public(number).blob, b"data", 0).payload())


def libassuan() -> str:
    program = shutil.which("assuan_peer") if sys.platform == "win32" else None
    if not program:
        pytest.skip("assuan_peer, a program for Windows, is not here: see assuan_peer.c")
    return program


def test_libassuan_is_let_in_and_served(serve: Serve) -> None:
    path = serve("assuan").path
    (reply,) = output(libassuan(), "ask", path, LIST.hex())
    assert comments(reply) == [b"key %d" % number for number in range(5)]
    (reply,) = output(libassuan(), "ask", path, signing(3).hex())
    assert signed(reply, public(3), b"data")


def test_a_client_of_cygwin_s_is_let_in_and_served(serve: Serve) -> None:
    path = serve("cygwin").path
    client = str(HERE / "cygwin_client.py")
    process, listed, signature, again = output(sys.executable, client, path, LIST.hex(), signing(3).hex(), LIST.hex())
    assert int(process) == os.getpid()
    assert comments(listed) == [b"key %d" % number for number in range(5)]
    assert signed(signature, public(3), b"data")
    assert again == listed


def test_our_command_lists_the_keys_behind_either_file(serve: Serve) -> None:
    for kind in ("assuan", "cygwin"):
        listener = serve(kind, f"agent.{kind}")
        for address in (f"{kind}:{listener.path}", listener.path):
            lines = output(sys.executable, "-m", "pageantry", "keys", "--agent", address, "--json")
            assert " ".join(lines).count("key ") == 5


@pytest.mark.parametrize("kind", ["assuan", "cygwin"])
def test_the_file_of_an_agent_that_was_killed_makes_room_for_the_next(kind: str, serve: Serve, tmp_path: Path) -> None:
    path = tmp_path / "private" / "S.agent"
    program = f"""
import sys, time
from pageantry.endpoints import loopback_listener
listener = loopback_listener.{kind}(sys.argv[1])
print("ready", flush=True)
listener.accept()
"""
    with subprocess.Popen([sys.executable, "-c", program, str(path)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline().strip() == b"ready"
        before = path.read_bytes()
        process.kill()
    assert path.read_bytes() == before
    listener = serve(kind)
    assert path.read_bytes() != before
    assert listener.path == str(path)
