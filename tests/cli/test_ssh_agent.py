"""The command `ssh-agent`: beside the real one where that is installed, and by itself."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

if sys.platform == "win32":
    pytest.skip("ssh-agent(1) is a program of UNIX", allow_module_level=True)

import pageantry
from pageantry.cli import ssh_agent
from pageantry.cli.ssh_agent_words import Options
from pageantry.endpoints import places
from pageantry.errors import Error, Unreachable
from pageantry.keys.files import read

OURS = [sys.executable, "-m", "pageantry", "ssh-agent"]
STOCK = shutil.which("ssh-agent")
KEY = Path(__file__).parents[1] / "interop" / "keys" / "ed25519"

needs_stock = pytest.mark.skipif(not STOCK, reason="ssh-agent is not installed")
Environ = dict[str, str]


@pytest.fixture
def home() -> Iterator[Path]:
    """A short one, in which nothing of an agent may remain."""
    with tempfile.TemporaryDirectory(prefix="pgt", dir="/tmp") as made:
        yield Path(made)
        wait_for(lambda: not sockets(Path(made)), f"{sockets(Path(made))} is left")


@pytest.fixture
def environ(home: Path) -> Environ:
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("SSH_", "LISTEN_"))}
    return clean | {"HOME": str(home), "TMPDIR": str(home), "SHELL": "/bin/sh"}


def wait_for(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.01)


def sockets(directory: Path) -> list[Path]:
    return [path for path in directory.rglob("*") if path.is_socket()]


def runs(pid: int) -> bool:
    """Whether that process runs, and is not just waited for by init."""
    done = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True)
    return bool(done.stdout.strip()) and not done.stdout.startswith("Z")


def wait_for_end(pid: int) -> None:
    wait_for(lambda: not runs(pid), f"process {pid} did not end")


def call(environ: Environ, *words: str, program: list[str] = OURS, **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*program, *words], env=environ | more, capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL
    )


def pid_in(shown: str) -> int:
    found = re.search(r"Agent pid (\d+)", shown)
    assert found, shown
    return int(found[1])


def place_in(shown: str) -> str:
    found = re.search(r"SSH_AUTH_SOCK[= ]([^;]+);", shown)
    assert found, shown
    return found[1]


def general(shown: str) -> str:
    """Without what differs from one agent to the next."""
    return re.sub(
        r"(SSH_AUTH_SOCK[= ])[^;]+;", r"\1PLACE;", re.sub(r"\b\d+;", "N;", re.sub(r"\d+ killed", "N killed", shown))
    )


@contextlib.contextmanager
def started(environ: Environ, *words: str, program: list[str] = OURS) -> Iterator[tuple[str, int]]:
    """An agent in the background; what was printed of it, and its process."""
    done = call(environ, *words, program=program)
    assert (done.returncode, done.stderr) == (0, "")
    pid = pid_in(done.stdout)
    try:
        yield done.stdout, pid
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
        wait_for_end(pid)


@contextlib.contextmanager
def staying(environ: Environ, *words: str, program: list[str] = OURS) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """An agent in the foreground; what it has printed, and its process."""
    with subprocess.Popen(
        [*program, *words], env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout
        try:
            yield process.stdout.readline() + process.stdout.readline(), process
        finally:
            process.terminate()
            process.communicate(timeout=30)


def lists(place: str) -> list[str]:
    with pageantry.connect(place) as agent:
        return [identity.comment for identity in agent.identities()]


def add(place: str) -> None:
    with pageantry.connect(place) as agent:
        agent.add(read(str(KEY)).decrypt(None)[0], "one")


# Beside ssh-agent

WRONG = (
    "-z", "-h", "-a", "-E", "-E sha3", "-O", "-O everything", "-P", "-P a -P b", "-t", "-t soon", "-t -5",
    "-t 2147483648", "-cs", "-sc", "-dD", "-dd", "-DD", "-c true", "-s true", "-d true", "-D true", "-k true",
    "-zk", "-k -z", "-ka", "-k",
)  # fmt: skip


@needs_stock
@pytest.mark.parametrize("words", WRONG)
def test_what_is_wrong_is_said_as_ssh_agent_says_it(environ: Environ, words: str) -> None:
    assert STOCK
    theirs, ours = (call(environ, *words.split(), program=program) for program in ([STOCK], OURS))
    assert (ours.returncode, ours.stdout) == (theirs.returncode, theirs.stdout) != (0, "")
    assert ours.stderr.partition("usage:")[:2] == theirs.stderr.partition("usage:")[:2]


@needs_stock
@pytest.mark.parametrize("pid", ["", "x", "1", "0", "-7", "99999999999", "999999999", " +999999999", "7x"])
def test_only_what_can_be_an_agent_is_killed(environ: Environ, pid: str) -> None:
    assert STOCK
    theirs, ours = (call(environ, "-k", program=program, SSH_AGENT_PID=pid) for program in ([STOCK], OURS))
    assert (ours.returncode, ours.stdout, ours.stderr) == (theirs.returncode, theirs.stdout, theirs.stderr)
    assert (ours.returncode, ours.stdout) == (1, "")


@needs_stock
@pytest.mark.parametrize("shell", ["/bin/bash", "/bin/csh", "/usr/bin/tcsh", "csh", "", "/usr/bin/fish"])
@pytest.mark.parametrize("words", ["", "-s", "-c", "-st1h", "-O no-restrict-websafe -E md5 -P /usr/lib/*"])
def test_the_shell_is_told_what_ssh_agent_tells_it(environ: Environ, words: str, shell: str) -> None:
    assert STOCK
    environ = environ | {"SHELL": shell}
    said = []
    for program in ([STOCK], OURS):
        with started(environ, *words.split(), program=program) as (shown, pid):
            kill = "-kc" if "-c" in words else "-ks" if "-s" in words else "-k"
            killed = call(environ, kill, program=program, SSH_AGENT_PID=str(pid))
            assert (killed.returncode, killed.stderr) == (0, "")
            wait_for_end(pid)
            said.append((general(shown), general(killed.stdout)))
    assert said[0] == said[1]


@needs_stock
@pytest.mark.parametrize("words", ["-D", "-Dc", "-d", "-ds"])
def test_in_the_foreground_it_says_what_ssh_agent_says(environ: Environ, home: Path, words: str) -> None:
    assert STOCK
    said = []
    for program in ([STOCK], OURS):
        path = home / "agent"
        with staying(environ, words, "-a", str(path), program=program) as (shown, process):
            assert place_in(shown) == str(path)
            assert pid_in(shown) == process.pid
            assert lists(str(path)) == []  # only now does theirs see to signals
            said.append(general(shown))
        assert not path.exists()
        said.append(str(process.returncode))
    assert said[:2] == said[2:]


@needs_stock
def test_each_kills_the_other(environ: Environ) -> None:
    assert STOCK
    for program, other in ([STOCK], OURS), (OURS, [STOCK]):
        with started(environ, program=program) as (_, pid):
            assert call(environ, "-k", program=other, SSH_AGENT_PID=str(pid)).returncode == 0
            wait_for_end(pid)


# In the background


def test_it_listens_in_the_home_of_its_user_and_tidies_up(environ: Environ, home: Path) -> None:
    with started(environ) as (shown, _):
        place = Path(place_in(shown))
        assert place.parent == home / ".ssh" / "agent"
        assert place.name.startswith(f"s.{places.host_hash()}.agent.")
        assert (place.stat().st_mode & 0o777, place.parent.stat().st_mode & 0o777) == (0o600, 0o700)
        assert lists(str(place)) == []
    assert not place.exists()


def test_it_is_in_nobody_s_way(environ: Environ) -> None:
    read_end, write_end = os.pipe()
    with open(read_end, "rb") as held:
        done = subprocess.run(
            OURS, env=environ, capture_output=True, text=True, timeout=60, pass_fds=[write_end], check=True
        )
        os.close(write_end)
        pid = pid_in(done.stdout)
        try:
            assert os.getsid(pid) == pid
            assert held.read() == b""  # it has let go of what it was given, as of its standard streams
            if sys.platform == "linux" and os.geteuid() == 0:  # nobody else may look
                assert os.readlink(f"/proc/{pid}/cwd") == "/"
                assert {os.readlink(f"/proc/{pid}/fd/{number}") for number in range(3)} == {os.devnull}
                assert "Max core file size        0 " in Path(f"/proc/{pid}/limits").read_text()
        finally:
            os.kill(pid, signal.SIGTERM)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_signals_end_it_cleanly(environ: Environ, home: Path, number: signal.Signals) -> None:
    with started(environ) as (shown, pid):
        with pageantry.connect(place_in(shown)) as agent:
            agent.identities()
            os.kill(pid, number)
            wait_for_end(pid)
        assert sockets(home) == []


def test_sigusr1_deletes_all_keys(environ: Environ) -> None:
    with started(environ) as (shown, pid):
        place = place_in(shown)
        add(place)
        assert lists(place) == ["one"]
        os.kill(pid, signal.SIGUSR1)
        wait_for(lambda: lists(place) == [], "the key is still there")
        add(place)
        assert lists(place) == ["one"]


def test_sigusr1_deletes_what_is_locked_away(environ: Environ) -> None:
    with started(environ) as (shown, pid), pageantry.connect(place_in(shown)) as agent:
        add(place_in(shown))
        agent.lock(b"sesame")
        os.kill(pid, signal.SIGUSR1)

        def unlocked() -> list[pageantry.Identity]:
            agent.unlock(b"sesame")
            found = agent.identities()
            agent.lock(b"sesame")
            return found

        wait_for(lambda: unlocked() == [], "the key is still there")


def test_keys_live_as_long_as_the_options_say(environ: Environ) -> None:
    with started(environ, "-t", "1") as (shown, _):
        add(place_in(shown))
        wait_for(lambda: lists(place_in(shown)) == [], "the key is still there")


def test_it_listens_where_it_is_told(environ: Environ, home: Path) -> None:
    odd = home / "it's a $place;"
    done = call(environ, "-a", str(odd))
    pid = pid_in(done.stdout)
    try:
        assert lists(str(odd)) == []
        script = f'{done.stdout}printf "%s\\n%s" "$SSH_AUTH_SOCK" "$SSH_AGENT_PID"'
        told = subprocess.run(["sh", "-c", script], env=environ, capture_output=True, text=True, check=True).stdout
        assert told.splitlines() == [f"Agent pid {pid}", str(odd), str(pid)]
    finally:
        os.kill(pid, signal.SIGTERM)
    wait_for(lambda: not odd.exists(), "the socket is left")


def test_a_relative_path_is_the_starter_s(environ: Environ, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(home)
    with started(environ, "-a", "agent") as (shown, _):
        assert place_in(shown) == "agent"
        assert lists(str(home / "agent")) == []
    assert not (home / "agent").exists()


def test_two_do_not_listen_at_one_place(environ: Environ, home: Path) -> None:
    path = str(home / "agent")
    with started(environ, "-a", path):
        add(path)
        second = call(environ, "-a", path)
        assert (second.returncode, second.stdout) == (1, "")
        assert second.stderr.startswith(f"pageantry: an agent answers at {path} already")
        assert len(second.stderr.splitlines()) == 2
        assert lists(path) == ["one"]


def test_what_an_agent_has_left_makes_room(environ: Environ, home: Path) -> None:
    path = home / "agent"
    with started(environ, "-a", str(path)) as (_, pid):
        os.kill(pid, signal.SIGKILL)
        wait_for_end(pid)
    assert path.is_socket()
    with started(environ, "-a", str(path)):
        assert lists(str(path)) == []


def test_it_says_why_it_cannot_listen_and_leaves_nothing(environ: Environ, home: Path) -> None:
    for place in (home / "nowhere" / "agent", home / ("long" * 40)):
        done = call(environ, "-a", str(place))
        assert (done.returncode, done.stdout) == (1, "")
        what, hint = done.stderr.splitlines()
        assert what.startswith("pageantry: ")
        assert hint.startswith("  ")
    assert list(home.iterdir()) == []


def test_a_temporary_place_goes_with_it(environ: Environ, home: Path) -> None:
    with started(environ, "-T") as (shown, _):
        place = Path(place_in(shown))
        assert place.parents[1] == home
        assert re.fullmatch(r"ssh-\w{10}/agent\.\d+", str(place.relative_to(home)))
        assert place.parent.stat().st_mode & 0o777 == 0o700
    assert list(home.iterdir()) == []


def stale(home: Path, host: str = "") -> Path:
    """A socket that an agent has left long ago."""
    directory = home / ".ssh" / "agent"
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = directory / f"s.{host or places.host_hash()}.agent.aaaaaaaaaa"
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
    os.utime(path, (time.time() - 7200,) * 2)
    return path


def test_stale_sockets_are_removed_unless_they_are_to_stay(environ: Environ, home: Path) -> None:
    here, elsewhere = stale(home), stale(home, "bbbbbbbbbb")
    with started(environ, "-U"):
        assert here.exists()
    with started(environ):
        assert (here.exists(), elsewhere.exists()) == (False, True)
    elsewhere.unlink()


def test_it_starts_although_stale_sockets_cannot_be_removed(
    environ: Environ, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise Error("cannot look into it")

    monkeypatch.setattr(places, "remove_stale", fail)
    monkeypatch.setattr(os, "environ", environ)
    for listener in ssh_agent._listeners(Options([], "/bin/sh")):
        listener.close()
    assert "cannot look into it" in capsys.readouterr().err


def test_stale_sockets_are_removed_by_themselves(environ: Environ, home: Path) -> None:
    here, elsewhere = stale(home), stale(home, "bbbbbbbbbb")
    done = call(environ, "-u")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert (here.exists(), elsewhere.exists()) == (False, True)
    assert call(environ, "-uu").returncode == 0
    assert not elsewhere.exists()


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no /dev/full")
def test_an_agent_that_nobody_hears_of_is_ended(environ: Environ, home: Path) -> None:
    with open("/dev/full", "wb") as full:
        done = subprocess.run(OURS, env=environ, stdout=full, stderr=subprocess.PIPE, text=True, timeout=60)
    assert done.returncode == 1
    assert "standard output" in done.stderr
    wait_for(lambda: not sockets(home), "it still listens")


def test_starting_loads_nothing_heavy(environ: Environ) -> None:
    done = subprocess.run(
        [sys.executable, "-X", "importtime", *OURS[1:], "true"], env=environ, capture_output=True, text=True, check=True
    )
    loaded = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "pageantry.keyring" in loaded  # all that it takes to serve
    assert not loaded & {"cryptography", "asyncio", "subprocess", "json", "logging", "tempfile", "pathlib"}


# In the foreground


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_in_the_foreground_a_signal_ends_it_as_it_ends_ssh_agent(
    environ: Environ, home: Path, number: signal.Signals
) -> None:
    with staying(environ, "-D") as (shown, process):
        assert lists(place_in(shown)) == []
        process.send_signal(number)
        assert process.wait(30) == 2
    assert sockets(home) == []


def test_the_debug_log_tells_what_was_done_and_no_secret(environ: Environ) -> None:
    with staying(environ, "-d") as (shown, process):
        add(place_in(shown))
        process.terminate()
        _, log = process.communicate(timeout=30)
    key = read(str(KEY)).decrypt(None)[0]
    assert key.public.fingerprint() in log
    assert "added" in log
    assert KEY.read_text().splitlines()[1][:20] not in log


@pytest.mark.skipif(sys.platform != "linux", reason="systemd is Linux'")
def test_it_takes_over_the_socket_that_systemd_has_made(environ: Environ, home: Path) -> None:
    path = home / "activated"
    script = 'exec 3<&0; LISTEN_FDS=1 LISTEN_PID=$$ exec "$@"'
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen()
        with subprocess.Popen(
            ["sh", "-c", script, "sh", *OURS, "-D"],
            env=environ,
            stdin=listening.fileno(),
            stdout=subprocess.PIPE,
            text=True,
        ) as process:
            assert process.stdout
            assert place_in(process.stdout.readline()) == str(path)
            assert lists(str(path)) == []
            process.terminate()
            assert process.wait(30) == 0
    assert path.exists()  # it is systemd's
    path.unlink()


# For a command

_LOOK = 'printf "%s\\n%s\\n%s\\n" "$SSH_AUTH_SOCK" "$SSH_AGENT_PID" "$PPID"; read line; exit 7'


@contextlib.contextmanager
def command(environ: Environ, *words: str) -> Iterator[tuple[subprocess.Popen[str], str, int]]:
    """A command with an agent, which ends with a line: the process, and the agent's place and process."""
    with subprocess.Popen(
        [*OURS, *words, "sh", "-c", _LOOK], env=environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout
        place, pid, parent = (process.stdout.readline().strip() for _ in range(3))
        assert int(parent) == os.getpid()  # nothing stands between
        try:
            yield process, place, int(pid)
        finally:
            process.kill()


@pytest.mark.parametrize("words", [[], ["-T"], ["-U", "-t", "1h"]])
def test_a_command_has_an_agent_as_long_as_it_runs(environ: Environ, home: Path, words: list[str]) -> None:
    with command(environ, *words) as (process, place, pid):
        assert os.getsid(pid) == pid != process.pid
        assert lists(place) == []
        process.communicate("\n", timeout=30)
        assert process.returncode == 7
    wait_for_end(pid)
    with pytest.raises(Unreachable):
        pageantry.connect(place)
    assert sockets(home) == []
    assert not list(home.glob("ssh-*"))


def test_an_agent_ends_when_its_command_is_killed(environ: Environ) -> None:
    with command(environ) as (process, _, pid):
        process.kill()
        process.wait(30)
        wait_for_end(pid)


def test_the_command_has_its_signals(environ: Environ) -> None:
    with command(environ) as (process, _, _):
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == -signal.SIGINT


def test_a_command_that_is_not_there_leaves_no_agent(environ: Environ, home: Path) -> None:
    done = call(environ, str(home / "nothing"))
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.splitlines()[0] == f"pageantry: there is no program {home / 'nothing'}"
    wait_for(lambda: not sockets(home), "the agent still listens")


def test_no_command_is_run_without_its_agent(environ: Environ, home: Path) -> None:
    done = call(environ, "-a", str(home / "nowhere" / "agent"), "sh", "-c", "echo run")
    assert (done.returncode, done.stdout) == (1, "")


def test_help_is_for_people(environ: Environ) -> None:
    done = call(environ, "--help")
    assert done.returncode == 0
    assert 'eval "$(pageantry ssh-agent -s)"' in done.stdout
