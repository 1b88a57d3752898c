"""The command `exec`: what it runs is as it would be without it, but for SSH_AUTH_SOCK."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

import pageantry
from pageantry.errors import Unreachable
from pageantry.keyfiles import KeyFiles

KEY = Path(__file__).parents[1] / "interop" / "keys" / "ed25519"
FINGERPRINT = KeyFiles([str(KEY)]).identities()[0].fingerprint
FILES = f"keys:{KEY}"  # an agent that must be offered
PAGEANTRY = [sys.executable, "-m", "pageantry"]

#: Prints what a program that runs is told and finds, as JSON.
_LOOK = """
import json, os, pageantry
address = os.environ["SSH_AUTH_SOCK"]
with pageantry.connect(address) as agent:
    keys = [one.fingerprint for one in agent.identities()]
print(json.dumps({"address": address, "keys": keys, "agent": os.environ.get("SSH_AGENT_PID"), "pid": os.getpid()}))
"""


@pytest.fixture
def offered() -> Iterator[str]:
    """An agent that has a socket or pipe already."""
    with pageantry.exposed(KeyFiles([str(KEY)])) as address:
        yield address


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where sockets are offered; nothing of them may remain there."""
    with tempfile.TemporaryDirectory(prefix="pgt", dir="/tmp" if sys.platform != "win32" else None) as made:
        monkeypatch.setenv("XDG_RUNTIME_DIR", made)
        monkeypatch.setenv("SSH_AUTH_SOCK", "/nobody/is/here")
        monkeypatch.setenv("SSH_AGENT_PID", "1")
        yield Path(made)
        wait_for(lambda: not os.listdir(made), f"{os.listdir(made)} is left")


def wait_for(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.01)


def python(lines: str, *words: str) -> list[str]:
    return [sys.executable, "-c", lines, *words]


def run(address: str, *command: str, given: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [*PAGEANTRY, "exec", "--agent", address, "--", *command], input=given, capture_output=True, timeout=60
    )


@contextlib.contextmanager
def started(address: str, lines: str) -> Iterator[subprocess.Popen[bytes]]:
    """A program that prints a line when it is ready."""
    command = [*PAGEANTRY, "exec", "--agent", address, "--", *python(lines)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout
            assert process.stdout.readline().strip() == b"ready"
            yield process
        finally:
            process.kill()


def test_an_agent_without_a_socket_is_offered_while_the_command_runs() -> None:
    done = run(FILES, *python(_LOOK))
    assert (done.returncode, done.stderr) == (0, b"")
    found = json.loads(done.stdout)
    assert (found["keys"], found["agent"]) == ([FINGERPRINT], None)
    with pytest.raises(Unreachable):
        pageantry.connect(found["address"])


def test_an_agent_with_a_socket_or_pipe_is_led_to_itself(offered: str) -> None:
    done = run(offered, *python(_LOOK))
    assert (done.returncode, done.stderr) == (0, b"")
    found = json.loads(done.stdout)
    assert (found["address"], found["keys"], found["agent"]) == (offered, [FINGERPRINT], None)


def test_the_agent_in_use_is_the_one_that_is_found(offered: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(name, str(KEY.parent))  # no configuration there
    monkeypatch.setenv("SSH_AUTH_SOCK", offered)
    done = subprocess.run([*PAGEANTRY, "exec", *python(_LOOK)], capture_output=True, timeout=60)
    assert json.loads(done.stdout)["address"] == offered


def test_a_program_behind_a_command_is_offered(offered: str, place: Path) -> None:
    done = run(stdio(*PAGEANTRY, "relay", offered), *python(_LOOK))
    assert (done.returncode, done.stderr) == (0, b"")
    found = json.loads(done.stdout)
    assert found["address"] != offered
    assert found["keys"] == [FINGERPRINT]


def test_the_command_s_own_options_are_its_own(offered: str) -> None:
    command = [
        *PAGEANTRY,
        "exec",
        "--agent",
        offered,
        *python("import sys; print(sys.argv[1:])", "--agent", "-h", "--"),
    ]
    done = subprocess.run(command, capture_output=True, timeout=60)
    assert done.stdout.split() == b"['--agent', '-h', '--']".split()


@pytest.fixture(params=["offered", "led"])
def address(request: pytest.FixtureRequest) -> str:
    """An agent that must be offered, and one that need not be."""
    if request.param == "offered":
        return FILES
    found = request.getfixturevalue("offered")
    assert isinstance(found, str)
    return found


@pytest.mark.parametrize("status", [0, 1, 7, 255])
def test_the_exit_status_is_the_command_s(address: str, status: int) -> None:
    done = run(address, *python(f"raise SystemExit({status})"))
    assert (done.returncode, done.stdout, done.stderr) == (status, b"", b"")


@pytest.mark.skipif(sys.platform != "win32", reason="it has no such exit statuses")
def test_an_exit_status_of_windows_is_passed_on(address: str) -> None:
    status = 0xC0000005  # as after a crash
    assert run(address, *python(f"import os; os._exit({status} - 2**32)")).returncode == status


def test_what_comes_and_goes_is_the_command_s(address: str) -> None:
    given = bytes(range(256)) * 1000
    copy = "import sys; sys.stdout.buffer.write(sys.stdin.buffer.read()); print('word', file=sys.stderr)"
    done = run(address, *python(copy), given=given)
    assert (done.stdout, done.stderr.strip()) == (given, b"word")


@pytest.mark.parametrize(("command", "words"), [("missing", "there is no program"), ("file.txt", "cannot be run")])
def test_what_cannot_be_run_is_said(address: str, command: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "file.txt").write_text("hello")
    done = run(address, str(tmp_path / command))
    what, hint = done.stderr.decode().splitlines()
    assert (done.returncode, done.stdout) == (1, b"")
    assert words in what
    assert hint


def test_a_program_of_the_current_directory_is_not_meant(
    address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "of-a-stranger.exe").write_bytes(b"MZ")
    (tmp_path / "of-a-stranger.exe").chmod(0o755)
    monkeypatch.chdir(tmp_path)
    done = run(address, "of-a-stranger.exe")
    assert (done.returncode, done.stderr.count(b"there is no program")) == (1, 1)


def test_a_command_without_a_name_is_said(address: str) -> None:
    done = run(address, "", "-l")
    what, _ = done.stderr.decode().splitlines()
    assert (done.returncode, what) == (1, "pageantry: the command has no name")


def test_without_an_agent_nothing_is_run(tmp_path: Path) -> None:
    done = run(str(tmp_path / "missing"), *python("print('it runs')"))
    assert (done.returncode, done.stdout) == (1, b"")
    assert len(done.stderr.splitlines()) == 2
    assert subprocess.run([*PAGEANTRY, "exec"], capture_output=True, timeout=60).returncode == 2


def stdio(*words: str) -> str:
    """The address of this program as an agent."""
    return f"stdio:{subprocess.list2cmdline(words) if sys.platform == 'win32' else ' '.join(map(repr, words))}"


def test_a_program_is_not_started_before_it_is_needed(tmp_path: Path) -> None:
    started = tmp_path / "started"
    agent = stdio(*python(f"open({str(started)!r}, 'a').write('x'); import sys; sys.stdin.buffer.read(5)"))
    assert run(agent, *python("")).returncode == 0
    assert not started.exists()
    run(agent, *python(_LOOK))
    assert started.read_text() == "x"


def test_an_agent_that_fails_later_is_said(offered: str) -> None:
    fails = "import sys; sys.exit(0 if sys.stdin.buffer.read(5) else 0)"  # it takes a request, and has no reply
    for agent, why in ((stdio(*python(fails)), b"ended with exit status 0"), ("stdio:missing", b"there is no program")):
        done = run(agent, *python(_LOOK))
        assert done.returncode == 1
        assert b"a client was hung up on: " in done.stderr
        assert why in done.stderr


@pytest.fixture
def locked(tmp_path: Path) -> Path:
    """A key file whose passphrase is `geheim`."""
    sealed = serialization.PrivateFormat.OpenSSH.encryption_builder().kdf_rounds(1).build(b"geheim")
    made = Ed25519PrivateKey.generate().private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, sealed
    )
    (tmp_path / "locked").write_bytes(made)
    return tmp_path / "locked"


_SIGN = """
import os, sys, pageantry
print("it runs", sys.stdin.isatty())
with pageantry.connect(os.environ["SSH_AUTH_SOCK"]) as agent:
    print(len(agent.sign(agent.identities()[0].key, b"data", verify=True)))
"""


def test_a_passphrase_is_asked_for_before_the_command_has_the_terminal(
    locked: Path, at_terminal: Callable[..., tuple[int, str]]
) -> None:
    status, shown = at_terminal(
        "exec", "--agent", f"keys:{locked}", "--", *python(_SIGN), typed={"Passphrase": b"geheim\n"}
    )
    assert status == 0
    assert shown.index("Passphrase") < shown.index("it runs True") < shown.index("83")


def test_nothing_is_left_of_it(address: str, leaves_nothing: Callable[..., None]) -> None:
    leaves_nothing(lambda: run(address, *python("")), 3)


if sys.platform != "win32":

    def test_the_command_takes_the_place_of_the_process(address: str) -> None:
        with started(address, "import os; print('ready', flush=True); print(os.getpid(), flush=True); input()") as one:
            assert one.stdout
            assert int(one.stdout.readline()) == one.pid

    _ON_SIGNAL = """
import os, signal, sys, pageantry
heard = []
signal.signal(signal.{name}, lambda number, _: heard.append(number))
print("ready", flush=True)
while not heard:
    signal.pause()
with pageantry.connect(os.environ["SSH_AUTH_SOCK"]) as agent:
    print(len(agent.identities()), heard == [signal.{name}], flush=True)
sys.exit(9)
"""

    @pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGTSTP", "SIGWINCH"])
    def test_a_signal_reaches_the_command_alone(address: str, name: str) -> None:
        with started(address, _ON_SIGNAL.format(name=name)) as process:
            process.send_signal(getattr(signal, name))
            assert process.stdout
            assert process.stdout.read() == b"1 True\n"
            assert process.wait(20) == 9

    @pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT", "SIGTSTP", "SIGTTOU", "SIGUSR1"])
    def test_a_signal_to_the_whole_group_leaves_the_agent_to_the_command(name: str) -> None:
        command = [*PAGEANTRY, "exec", "--agent", FILES, "--", *python(_ON_SIGNAL.format(name=name))]
        with subprocess.Popen(command, stdout=subprocess.PIPE, process_group=0) as process:
            assert process.stdout
            assert process.stdout.readline() == b"ready\n"
            os.killpg(process.pid, getattr(signal, name))
            assert process.stdout.read() == b"1 True\n"
            assert process.wait(20) == 9

    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL, signal.SIGPIPE, signal.SIGXFSZ])
    def test_a_command_that_is_killed_is_seen_to_be(address: str, number: int) -> None:
        assert run(address, "sh", "-c", f"kill -{int(number)} $$").returncode == -number

    def test_the_command_stops_and_goes_on_as_any_job() -> None:
        def state() -> str:
            ps = subprocess.run(["ps", "-o", "stat=", "-p", str(process.pid)], capture_output=True, text=True)
            return ps.stdout[:1]

        with started(FILES, f"print('ready', flush=True)\ninput()\n{_LOOK}") as process:
            process.send_signal(signal.SIGTSTP)
            wait_for(lambda: state() == "T", "it does not stop")
            process.send_signal(signal.SIGCONT)
            wait_for(lambda: state() != "T", "it does not go on")
            assert process.stdin
            assert process.stdout
            process.stdin.write(b"\n")
            process.stdin.close()
            assert json.loads(process.stdout.read())["keys"] == [FINGERPRINT]
            assert process.wait(20) == 0

    _INTERRUPTED = """
import os, signal, sys, pageantry
heard = []
signal.signal(signal.SIGINT, lambda *_: heard.append(1))
print("now", flush=True)
while not heard:
    signal.pause()
with pageantry.connect(os.environ["SSH_AUTH_SOCK"]) as agent:
    print(len(agent.identities()), "key is still there", flush=True)
"""

    def test_ctrl_c_is_the_command_s(at_terminal: Callable[..., tuple[int, str]]) -> None:
        status, shown = at_terminal("exec", "--agent", FILES, "--", *python(_INTERRUPTED), typed={"now": b"\x03"})
        assert status == 0
        assert "1 key is still there" in shown

    def test_a_command_that_is_killed_takes_the_agent_along(place: Path) -> None:
        with started(FILES, "print('ready', flush=True)\ninput()") as process:
            (directory,) = place.iterdir()
            process.kill()
            wait_for(lambda: not directory.exists(), "the agent outlives its command")

    def test_what_the_command_leaves_behind_has_no_agent_any_more(place: Path) -> None:
        lines = "import subprocess, sys; print(subprocess.Popen([sys.executable, '-c', 'input()'], stdout=2).pid)"
        with subprocess.Popen(
            [*PAGEANTRY, "exec", "--agent", FILES, "--", *python(lines)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        ) as process:
            assert process.stdout
            left = int(process.stdout.read())
            assert process.wait(20) == 0
            wait_for(lambda: not list(place.iterdir()), "the agent outlives its command")
            os.kill(left, signal.SIGKILL)

    @pytest.mark.skipif(sys.platform != "linux", reason="it looks at /proc")
    def test_the_command_gets_no_descriptors_of_ours(address: str) -> None:
        done = run(address, "sh", "-c", "ls /proc/$$/fd")
        assert sorted(done.stdout.split()) == [b"0", b"1", b"2"]

    def altered(lines: str, *command: str) -> subprocess.CompletedProcess[bytes]:
        """As `run`, with `lines` before."""
        main = "\nfrom pageantry.cli import main\nmain(['exec', '--agent', sys.argv[1], '--', *sys.argv[2:]])"
        return subprocess.run(
            python(f"import os, signal, sys\n{lines}{main}", FILES, *command), capture_output=True, timeout=60
        )

    @pytest.mark.parametrize(
        "lines", ["def none(_): raise OSError\nos.pidfd_open = none", "vars(os).pop('pidfd_open', 0)"]
    )
    def test_where_the_system_does_not_tell_the_end_it_is_looked_for(lines: str, place: Path) -> None:
        done = altered(lines, *python(_LOOK))
        assert json.loads(done.stdout)["keys"] == [FINGERPRINT]
        wait_for(lambda: not list(place.iterdir()), "the agent outlives its command")

    def test_ctrl_c_before_the_command_runs_leaves_nothing(place: Path) -> None:
        done = altered("def fork(): raise KeyboardInterrupt\nos.fork = fork", *python("print('it runs')"))
        assert (done.returncode, done.stdout) == (1, b"")
        assert b"pageantry: interrupted" in done.stderr
        assert not list(place.iterdir())

    def test_ctrl_c_does_not_reach_the_agent_even_at_first() -> None:
        lines = "forked = os.fork\ndef fork():\n child = forked()\n child or os.kill(os.getpid(), signal.SIGINT)"
        done = altered(f"{lines}\n return child\nos.fork = fork", *python(_LOOK))
        assert json.loads(done.stdout)["keys"] == [FINGERPRINT]

    def test_the_command_may_be_interrupted() -> None:
        blocked = "import signal; print(signal.pthread_sigmask(signal.SIG_BLOCK, []))"
        assert altered("", *python(blocked)).stdout == b"set()\n"
