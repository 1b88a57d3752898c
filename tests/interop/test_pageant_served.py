"""`pageantry serve` in Pageant's place: PuTTY's programs, paramiko and asyncssh are not to see a difference."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

if sys.platform != "win32":
    pytest.skip("Pageant's places are on Windows", allow_module_level=True)

import pageantry
from pageantry import winpipe
from pageantry.endpoints import named_pipe, window
from pageantry.endpoints.pageant import pipe_name
from pageantry.errors import Unreachable
from pageantry.keyfiles import KeyFiles
from pageantry.keys.signatures import verify

from . import debian_sshd
from .logins import program

pytestmark = pytest.mark.interop

KEYS = Path(__file__).parent / "keys"
FILE = KEYS / "ed25519"
PROGRAM = [sys.executable, "-m", "pageantry"]
#: What is served, and by which way in PuTTY's programs come then.
WAYS = {"pageant": "pageant-pipe", "pageant-pipe": "pageant-pipe", "pageant-window": "pageant-window"}


def wait_for(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


class Agent:
    """An agent of ours as a process, and its log."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.log: list[str] = []
        self._reader = threading.Thread(target=lambda: self.log.extend(process.stderr or ()), daemon=True)
        self._reader.start()

    def said(self, *words: str) -> bool:
        return any(all(word in line for word in words) for line in self.log)

    def end(self) -> int:
        status = self.process.wait(30)
        self._reader.join(30)
        return status


@pytest.fixture(scope="module", autouse=True)
def desktop() -> None:
    """The desktop itself, which Wine starts with the first program that has a window: that one's pipes stay open."""
    ctypes.windll.user32.GetDesktopWindow()


@contextlib.contextmanager
def running(*words: str | Path) -> Iterator[Agent]:
    """A command of ours that listens, until it is killed or ends."""
    with subprocess.Popen(
        [*PROGRAM, *map(str, words)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        agent = Agent(process)
        try:
            wait_for(lambda: process.poll() is not None or agent.said("listening at"), "it does not listen")
            assert process.poll() is None, agent.log
            yield agent
        finally:
            process.kill()
            agent.end()


@contextlib.contextmanager
def serving(*words: str | Path) -> Iterator[Agent]:
    if winpipe.exists(pipe_name()):
        pytest.skip("a Pageant of this machine's runs already")
    with running("serve", *words) as agent:
        yield agent


@pytest.fixture(scope="module")
def sshd() -> Iterator[debian_sshd.Sshd]:
    outside = "Z:\\tmp" if os.path.isdir("Z:\\tmp") else None
    with (
        tempfile.TemporaryDirectory(dir=outside, ignore_cleanup_errors=True) as home,
        debian_sshd.running(Path(home)) as made,
    ):
        made.authorized.write_text(KeyFiles([str(FILE)]).identities()[0].key.line("me") + "\n", newline="\n")
        yield made


def plink(sshd: debian_sshd.Sshd, *words: str) -> str:
    command = [program("plink"), "-ssh", "-batch", "-agent", "-hostkey", sshd.fingerprint, "-P", str(sshd.port)]
    done = subprocess.run(
        [*command, *words[:-1], f"{sshd.user}@127.0.0.1", words[-1]],
        stdin=subprocess.PIPE,
        capture_output=True,
        text=True,
        timeout=90,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture(params=WAYS)
def place(request: pytest.FixtureRequest, wine: bool) -> str:
    if wine and request.param == "pageant-pipe":
        pytest.skip("PuTTY's programs look for the pipe in the list of all, which Wine does not have")
    assert isinstance(request.param, str)
    return request.param


def test_plink_logs_in_to_debian_s_sshd(sshd: debian_sshd.Sshd, place: str) -> None:
    with serving("--listen", place, FILE) as agent:
        assert plink(sshd, "echo in") == "in"
        wait_for(lambda: agent.said("signed with test key ed25519", "plink.exe (process "), f"not in {agent.log}")
        assert agent.said(f'to log in as "{sshd.user}"')


def test_plink_forwards_it(sshd: debian_sshd.Sshd, place: str) -> None:
    fingerprint = KeyFiles([str(FILE)]).identities()[0].fingerprint
    with serving("--listen", place, FILE):
        assert fingerprint in plink(sshd, "-A", "ssh-add -l")


def test_pageant_hands_its_keys_to_it(place: str) -> None:
    pageant = shutil.which("pageant")
    if not pageant:
        pytest.skip("pageant is not installed")
    with serving("--listen", place):
        subprocess.run([pageant, f"{FILE}.ppk"], check=True, timeout=60)
        subprocess.run([pageant, "--encrypted", str(KEYS / "encrypted.ppk")], check=True, timeout=60)
        with pageantry.connect(WAYS[place]) as agent:
            wait_for(lambda: len(agent.identities()) == 2, "it does not have them")
        shown = subprocess.run(
            [*PROGRAM, "keys", "--limits", "--agent", WAYS[place]], capture_output=True, text=True, timeout=60
        )
        assert "encrypted: asks for its passphrase" in shown.stdout


def test_paramiko_has_its_keys() -> None:
    paramiko = pytest.importorskip("paramiko")
    with serving(FILE):
        keys = paramiko.Agent().get_keys()
        (identity,) = KeyFiles([str(FILE)]).identities()
        assert [key.asbytes() for key in keys] == [identity.key.blob]
        signature = keys[0].sign_ssh_data(b"data")
        verify(identity.key, signature, b"data")


def test_asyncssh_has_its_keys_at_openssh_s_pipe(wine: bool) -> None:
    if wine:
        pytest.skip("asyncssh opens the pipe as a file that one could seek in, which Wine does not take it for")
    asyncssh = pytest.importorskip("asyncssh")
    if winpipe.exists(named_pipe.OPENSSH):
        pytest.skip("an agent of this machine's serves OpenSSH's pipe")

    async def comments() -> list[str]:
        async with asyncssh.connect_agent(winpipe.path(named_pipe.OPENSSH)) as agent:
            return [key.get_comment() for key in await agent.get_keys()]

    with serving("--listen", "openssh", FILE):
        assert asyncio.run(comments()) == ["test key ed25519"]


def test_all_ways_in_lead_to_one_keyring(tmp_path: Path) -> None:
    assuan, cygwin = tmp_path / "S.gpg-agent.ssh", tmp_path / "agent.cygwin"
    places = ["pageant", "openssh", "pipe:pageantry-test-one", f"assuan:{assuan}", f"cygwin:{cygwin}"]
    with serving(*(word for place in places for word in ("--listen", place)), FILE) as agent:
        for address in ("pageant-pipe", "pageant-window", *places[1:]):
            with pageantry.connect(address) as client:
                (identity,) = client.identities()
                assert client.sign(identity.key, b"data", verify=True), address
        with pageantry.connect("pageant-window") as client:
            client.remove(identity.key)
        with pageantry.connect(places[-1]) as client:
            assert client.identities() == []
        assert sum("listening at" in line for line in agent.log) == 6


def test_there_is_never_a_second_pageant_nor_half_of_one() -> None:
    with serving("--listen", "pageant-window"):
        done = subprocess.run([*PROGRAM, "serve"], capture_output=True, text=True, timeout=60)
        assert (done.returncode, done.stdout) == (1, "")
        assert "another program has Pageant's window: " in done.stderr
        assert not winpipe.exists(pipe_name())
    with serving("--listen", "pageant-pipe"):
        done = subprocess.run([*PROGRAM, "serve"], capture_output=True, text=True, timeout=60)
        assert (done.returncode, done.stdout) == (1, "")
        assert "Pageant's pipe is another program's: " in done.stderr
        with pytest.raises(Unreachable):
            window.peer()


def test_where_the_real_pageant_runs_it_says_so() -> None:
    pageant = shutil.which("pageant")
    if not pageant or winpipe.exists(pipe_name()):
        pytest.skip("pageant is not installed, or runs already")
    with subprocess.Popen([pageant]) as process:
        try:
            wait_for(lambda: winpipe.exists(pipe_name()), "pageant did not start")
            done = subprocess.run([*PROGRAM, "serve"], capture_output=True, text=True, timeout=60)
            assert done.returncode == 1
            assert f"pageant.exe ({process.pid})" in done.stderr
            assert "end that Pageant" in done.stderr
        finally:
            process.kill()


def test_openssh_is_led_to_the_pipe_until_the_user_logs_off(tmp_path: Path) -> None:
    file = tmp_path / "pageant.conf"
    with serving("--openssh-config", file, FILE) as agent:
        assert file.read_text() == f'IdentityAgent "//./pipe/{pipe_name()}"\n'
        found = ctypes.windll.user32.FindWindowW("Pageant", "Pageant")
        assert ctypes.windll.user32.PostMessageW(found, 0x16, 1, 0)  # WM_ENDSESSION
        assert agent.end() == 0
        assert agent.said("ended; all keys are forgotten")
    assert file.read_bytes() == b""


def test_those_who_cannot_wait_may_have_the_window_for_themselves() -> None:
    with serving("--listen", "pageant-pipe", "--never-ask", "pageant-window", FILE, KEYS / "encrypted.ppk"):
        with pageantry.connect("pageant-pipe") as agent:
            assert len(agent.identities()) == 2
        with pageantry.connect("pageant-window") as agent:
            assert [one.comment for one in agent.identities()] == ["test key ed25519"]
