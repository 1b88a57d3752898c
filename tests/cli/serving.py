"""`pageantry serve` as a process, with key files for it, and what its clients say."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
)

import pageantry
from pageantry import PublicKey
from pageantry.keys import ppk

from ..hosts import certificate, ed25519_key

PROGRAM = [sys.executable, "-m", "pageantry"]
PASSPHRASE = "geheim"

Environ = dict[str, str]


def wait_for(condition: Callable[[], object], what: str | Callable[[], str]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, what if isinstance(what, str) else what()
        time.sleep(0.01)


def call(environ: Environ, *words: str | Path, given: str = "", **more: str) -> subprocess.CompletedProcess[str]:
    """The command, run to its end."""
    return subprocess.run(
        [*PROGRAM, *map(str, words)], env=environ | more, capture_output=True, text=True, timeout=60, input=given
    )


def failed(done: subprocess.CompletedProcess[str], status: int = 1) -> str:
    """What a failure says in one line, with one more about what to do; nothing on standard output."""
    assert (done.returncode, done.stdout) == (status, "")
    what, *hint = done.stderr.splitlines()
    assert what.startswith("pageantry: ")
    assert len(hint) < 2
    assert all(line.startswith("  ") for line in hint)
    return what.removeprefix("pageantry: ")


def lists(place: Path | str) -> list[str]:
    """The comments of the keys of an agent."""
    with pageantry.connect(str(place)) as agent:
        return [identity.comment for identity in agent.identities()]


# Key files


def openssh(path: Path, seed: int, passphrase: str = "") -> PublicKey:
    """A file in OpenSSH's format."""
    encryption: KeySerializationEncryption = NoEncryption()
    if passphrase:
        encryption = PrivateFormat.OpenSSH.encryption_builder().kdf_rounds(1).build(passphrase.encode())
    secret = ed25519.Ed25519PrivateKey.from_private_bytes(seed.to_bytes(32, "big"))
    path.write_bytes(secret.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, encryption))
    return ed25519_key(seed).public


def putty(path: Path, seed: int, passphrase: str = "", comment: str = "of PuTTY's") -> PublicKey:
    """A file in PuTTY's format."""
    path.write_bytes(ppk.write(ed25519_key(seed), comment, passphrase.encode() or None, version=2))
    return ed25519_key(seed).public


def certify(path: Path, key: PublicKey) -> PublicKey:
    """Put a certificate beside a key file."""
    made = certificate(key, ed25519_key(99), ("me",), kind=1)
    Path(f"{path}-cert.pub").write_text(made.line("a certificate") + "\n")
    return made


# The agent


class Served:
    """An agent whose standard streams are pipes: where it listens, and the lines of its log."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout
        assert process.stderr
        self.process = process
        self.log: list[str] = []
        self._reader = threading.Thread(target=lambda: self.log.extend(process.stderr or ()), daemon=True)
        self._reader.start()
        self.said = process.stdout.readline()
        assert self.said, self.end()
        self.place = self.said.partition("=")[2].partition(";")[0]

    def logged(self, *words: str) -> str:
        """The line of the log with these words, which is waited for."""

        def found() -> list[str]:
            return [line for line in self.log if all(word in line for word in words)]

        wait_for(found, lambda: f"{words} not in {self.log}")
        return found()[0]

    def read_out(self) -> None:
        """Wait until the log has ended: its reader is not to meet a closed pipe."""
        self._reader.join(30)

    def end(self, number: int = signal.SIGTERM) -> tuple[int, str]:
        """End it; its exit status, and all of its log."""
        self.process.send_signal(number)
        status = self.process.wait(30)
        self.read_out()
        return status, "".join(self.log)


@contextlib.contextmanager
def started(environ: Environ, *command: str) -> Iterator[Served]:
    """What that command starts, until it is killed or ends."""
    with subprocess.Popen(
        command,
        env=environ,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        served = None
        try:
            served = Served(process)
            yield served
        finally:
            process.kill()
            if served is not None:
                served.read_out()


def serving(
    environ: Environ, *words: str | Path, command: str = "serve", **more: str
) -> contextlib.AbstractContextManager[Served]:
    """An agent of ours, or what else that command of ours starts."""
    return started(environ | more, *PROGRAM, command, *map(str, words))
