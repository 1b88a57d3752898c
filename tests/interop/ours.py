"""Our agent as a process, a person whom it asks by askpass, and other people's programs that use it."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from .logins import PACKAGES, connects, program, script, wait_for

#: The command lines that start it, each before the path at which it is to listen.
STARTS = {"serve": ["serve", "--listen"], "ssh-agent": ["ssh-agent", "-D", "-a"]}

_ASKPASS = """printf '%s|%s\\n' "$SSH_ASKPASS_PROMPT" "$(echo "$1" | tr '\\n' ' ')" >> {home}/asked
[ -f {home}/no ] && exit 1
[ -f {home}/phrase ] && [ -z "$SSH_ASKPASS_PROMPT" ] && cat {home}/phrase
exit 0"""


class Ours:
    """The agent; `home` is a directory with a short path for whatever its clients need."""

    def __init__(self, home: Path, start: str) -> None:
        self.home = home
        self.address = home / "agent"
        script(home / "askpass", _ASKPASS.format(home=home))
        self._log = (home / "log").open("wb")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "pageantry", *STARTS[start], str(self.address)],
            env=self.environ(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=self._log,
            start_new_session=True,  # so that it has no terminal to ask at
        )
        wait_for(lambda: connects(str(self.address)), "the agent did not start")

    def environ(self, **more: str) -> dict[str, str]:
        clean = {name: value for name, value in os.environ.items() if not name.startswith("SSH_")}
        clean |= {"HOME": str(self.home), "PYTHONPATH": PACKAGES, "SSH_AUTH_SOCK": str(self.address)}
        clean |= {"SSH_ASKPASS": str(self.home / "askpass"), "SSH_ASKPASS_REQUIRE": "force", "DISPLAY": ""}
        return clean | more

    def call(self, name: str, *words: str | Path, given: str = "", **environ: str) -> subprocess.CompletedProcess[str]:
        """What became of another program; its standard input has `given`."""
        return subprocess.run(
            [program(name), *map(str, words)],
            env=self.environ(**environ),
            input=given,
            capture_output=True,
            text=True,
            timeout=60,
            errors="surrogateescape",
        )

    def run(self, name: str, *words: str | Path, given: str = "", **environ: str) -> str:
        """What another program printed, which has to succeed."""
        done = self.call(name, *words, given=given, **environ)
        assert done.returncode == 0, (name, words, done.stdout, done.stderr, self.log)
        return done.stdout

    def lists(self) -> list[str]:
        """The public key lines of the keys, as ssh-add prints them."""
        return self.call("ssh-add", "-L").stdout.splitlines() if self.call("ssh-add", "-l").returncode == 0 else []

    def key(self, name: str, *options: str, phrase: str = "") -> Path:
        """A new key file of OpenSSH's, and the public half beside it."""
        path = self.home / name
        subprocess.run(
            [program("ssh-keygen"), "-q", "-N", phrase, "-C", f"{name}@test", "-f", str(path), *options],
            check=True,
            stdin=subprocess.DEVNULL,
        )
        return path

    def answers(self, *, phrase: str = "", yes: bool = True) -> None:
        """How the person answers from here on; what was asked before is forgotten."""
        for name in ("asked", "no", "phrase"):
            (self.home / name).unlink(missing_ok=True)
        if phrase:
            (self.home / "phrase").write_text(f"{phrase}\n")
        if not yes:
            (self.home / "no").touch()

    @property
    def asked(self) -> list[str]:
        """The questions, each behind the kind that the program was told and a bar."""
        path = self.home / "asked"
        return path.read_text().splitlines() if path.exists() else []

    @property
    def log(self) -> str:
        return (self.home / "log").read_text()

    def end(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(20)
        self._log.close()


@contextlib.contextmanager
def ours(start: str = "serve") -> Iterator[Ours]:
    home = Path(tempfile.mkdtemp(prefix="pgt", dir="/tmp"))
    made = Ours(home, start)
    try:
        yield made
        assert made.process.poll() is None, made.log
        assert "Traceback" not in made.log
        assert "fault of this program" not in made.log
    finally:
        made.end()
        shutil.rmtree(home, ignore_errors=True)


def public(path: Path) -> str:
    """The line of the public key beside a key file."""
    return Path(f"{path}.pub").read_text().strip()
