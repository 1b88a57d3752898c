"""Programs as agents, each written here: real ones, and such as a person might name by mistake."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from pageantry import Client, PublicKey
from pageantry.endpoints import stdio
from pageantry.errors import AddressError, BadReply, DeadlineExceeded, Disconnected, Error, Unreachable
from pageantry.messages import MAX_MESSAGE, IdentitiesAnswer, frame

ED25519 = PublicKey(b"\0\0\0\x0bssh-ed25519\0\0\0\x20" + bytes(range(32)))
LIST = frame(IdentitiesAnswer(((ED25519.blob, b"me"),)).payload())

#: What each program starts with: ways to read and write that leave nothing in a buffer.
_BEGINNING = f"""
import os, signal, sys, time
if sys.platform == "win32":
    import msvcrt
    msvcrt.setmode(0, os.O_BINARY)
    msvcrt.setmode(1, os.O_BINARY)
LIST = {LIST!r}
def take(size):
    data = b""
    while len(data) < size:
        piece = os.read(0, size - len(data))
        if not piece:
            sys.exit(0)
        data += piece
    return data
def request():
    return take(int.from_bytes(take(4), "big"))
def write(data):
    while data:
        data = data[os.write(1, data):]
"""

Command = Callable[..., str]


def quoted(words: list[str]) -> str:
    return subprocess.list2cmdline(words) if sys.platform == "win32" else shlex.join(words)


@pytest.fixture
def command(tmp_path: Path) -> Command:
    """The command that runs a program of these lines."""

    def make(lines: str, *arguments: str) -> str:
        script = tmp_path / f"program{len(list(tmp_path.iterdir()))}.py"
        script.write_text(_BEGINNING + lines, encoding="utf-8")
        return quoted([sys.executable, str(script), *arguments])

    return make


def client(command: str, timeout: float | None = 20) -> Client:
    return Client(lambda: stdio.connect(command, 5), f"stdio:{command}", timeout)


def failure(command: str, kind: type[Error], timeout: float | None = 20) -> Error:
    """The error of asking it for its keys: one line each of what and what to do."""
    with pytest.raises(kind) as caught, client(command, timeout) as agent:
        agent.identities()
    assert caught.value.hint
    assert "\n" not in str(caught.value) + caught.value.hint
    return caught.value


def runs(pid: int) -> bool:
    if sys.platform == "win32":
        shown = subprocess.run(["tasklist", "/fi", f"pid eq {pid}"], capture_output=True, text=True, check=True)
        return str(pid) in shown.stdout
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_one_program_answers_many_requests(command: Command, tmp_path: Path) -> None:
    started = tmp_path / "started"
    text = command(f"open({str(started)!r}, 'a').write('x')\nwhile request() == b'\\x0b': write(LIST)")
    with client(text) as agent:
        for _ in range(50):
            assert [one.comment for one in agent.identities()] == ["me"]
    assert started.read_text() == "x"


def test_a_reply_in_single_bytes_is_put_together(command: Command) -> None:
    with client(command("while request():\n for byte in LIST: write(bytes((byte,)))")) as agent:
        assert agent.identities() == agent.identities()


def test_the_largest_messages_go_both_ways(command: Command) -> None:
    with client(command("while True: write((size := take(4)) + take(int.from_bytes(size, 'big'))[::-1])")) as agent:
        largest = bytes(range(256)) * (MAX_MESSAGE // 256)
        for _ in range(3):
            assert agent.request(largest) == largest[::-1]


def test_no_shell_has_a_say_in_the_arguments(command: Command, tmp_path: Path) -> None:
    words = ["two words", "$HOME", "%PATH%", "a;b|c>d", "*", 'x"y', "&"]
    heard = tmp_path / "heard"
    with client(command(f"open({str(heard)!r}, 'w').write(repr(sys.argv[1:]))\nrequest()\nwrite(LIST)", *words)) as one:
        one.identities()
    assert heard.read_text() == repr(words)


def test_standard_error_is_ours(command: Command, capfd: pytest.CaptureFixture[str]) -> None:
    with client(command("print('a word', file=sys.stderr, flush=True)\nrequest()\nwrite(LIST)")) as agent:
        agent.identities()
    captured = capfd.readouterr()
    assert captured.err.splitlines() == ["a word"]
    assert captured.out == ""


@pytest.mark.skipif(sys.platform != "linux", reason="it looks at /proc")
def test_the_program_has_no_descriptors_but_its_streams(command: Command, tmp_path: Path) -> None:
    heard = tmp_path / "heard"
    lines = f"open({str(heard)!r}, 'w').write(repr(sorted(os.listdir('/proc/self/fd'))))\nrequest()\nwrite(LIST)"
    with client(command("request()")), client(command(lines)) as agent:
        agent.identities()
    assert heard.read_text() == repr(["0", "1", "2", "3", "4"])  # the last two are those of the looking itself


@pytest.mark.parametrize("text", ["no-such-program --at all", "/no/such/program", "'no such' x"])
def test_a_program_that_is_not_there(text: str) -> None:
    assert "there is no program" in str(failure(text, Unreachable))


def test_a_program_of_the_current_directory_is_not_meant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ssh-of-a-stranger", "ssh-of-a-stranger.exe"):
        (tmp_path / name).write_bytes(b"MZ")
        (tmp_path / name).chmod(0o755)
        monkeypatch.chdir(tmp_path)
        assert "there is no program" in str(failure(f"{name} host", Unreachable))


def test_something_that_is_no_program(tmp_path: Path) -> None:
    (tmp_path / "file.txt").write_text("hello")
    failure(quoted([str(tmp_path / "file.txt")]), Unreachable)
    failure(quoted([str(tmp_path)]), Unreachable)


@pytest.mark.parametrize("text", ["", "  ", "''" if sys.platform != "win32" else '""', "a\0b"])
def test_no_command_at_all(text: str) -> None:
    failure(text, AddressError)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows leaves the line to the program to split")
def test_a_quotation_without_end() -> None:
    assert "quotation" in str(failure("ssh 'host", AddressError))


@pytest.mark.parametrize("lines", ["sys.exit(3)", "request()\nsys.exit(3)", "request()\nwrite(LIST[:-1])\nsys.exit(3)"])
def test_a_program_that_dies_is_told_with_its_status(command: Command, lines: str) -> None:
    assert str(failure(command(lines), Disconnected)).endswith("ended with exit status 3")


@pytest.mark.skipif(sys.platform == "win32", reason="it has no signals")
def test_a_program_that_is_killed_is_told_with_the_signal(command: Command) -> None:
    assert "was ended by signal 9" in str(failure(command("request()\nos.kill(os.getpid(), 9)"), Disconnected))


@pytest.mark.skipif(sys.platform != "win32", reason="its input and output are one socket, which it still has")
def test_a_program_that_closes_its_output_and_goes_on_has_hung_up(command: Command) -> None:
    error = failure(command("request()\nos.close(1)\ntake(1)"), Disconnected)
    assert "hung up without a reply" in str(error)


@pytest.mark.parametrize("before", ["", "request()\n"])
@pytest.mark.parametrize("after", ["", "\nsys.exit(1)", "\nwrite(LIST)\ntake(1)"])
def test_a_banner_is_shown_and_said_to_be_one(command: Command, before: str, after: str) -> None:
    banner = "\\nWelcome to \\x1b[1mthis\\x1b[0m machine!\\nLast login: never\\n"
    error = failure(command(f"{before}write(b'{banner}'){after}"), BadReply)
    assert "'Welcome to \\x1b[1mthis\\x1b[0m machine!'" in str(error)


def test_a_long_banner_is_cut(command: Command) -> None:
    assert len(str(failure(command("write(b'x' * 100_000)"), BadReply))) < 200


def test_a_program_that_says_nothing_is_given_up_at_the_deadline(command: Command) -> None:
    start = time.monotonic()
    failure(command("take(1_000_000)"), DeadlineExceeded, 0.5)
    assert 0.5 <= time.monotonic() - start < 20


def test_a_program_that_does_not_read_is_given_up_at_the_deadline(command: Command) -> None:
    program = stdio.connect(command("time.sleep(60)"), 0.5)
    try:
        with pytest.raises(TimeoutError):
            program.sendall(bytes(4 * MAX_MESSAGE))
    finally:
        program.close()


def test_after_a_deadline_another_program_is_started(command: Command, tmp_path: Path) -> None:
    there = tmp_path / "there"
    lines = f"if os.path.exists({str(there)!r}): request(), write(LIST)\nelse: open({str(there)!r}, 'w')\ntake(1_000)"
    with client(command(lines), 3) as agent:
        with pytest.raises(DeadlineExceeded):
            agent.identities()
        assert agent.identities()


ENDINGS = {
    "ends with its input": "take(1)",
    "has ended": "sys.exit(0)",
    "does not look at its input": "time.sleep(60)",
}
if sys.platform != "win32":
    ENDINGS["ignores being asked to end"] = "signal.signal(signal.SIGTERM, signal.SIG_IGN)\nwrite(b'x')\ntime.sleep(60)"


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_program_that_was_left_is_gone_and_waited_for(
    command: Command, ending: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stdio, "GRACE", 0.3)
    program = stdio.connect(command(ENDINGS[ending]), 5)
    if "ignores" in ending:
        with pytest.raises(BadReply):
            program.recv(1)  # it ignores by now
    start = time.monotonic()
    program.close()
    assert program._process.returncode is not None
    assert time.monotonic() - start < 20
    assert not runs(program._process.pid)
    program.close()


def test_a_program_that_ends_with_its_input_is_given_the_time(command: Command, tmp_path: Path) -> None:
    said = tmp_path / "said"
    program = stdio.connect(command(f"try: take(1)\nfinally: open({str(said)!r}, 'w').write('goodbye')"), 5)
    program.close()
    assert program._process.returncode == 0
    assert said.read_text() == "goodbye"


def test_an_interrupt_while_waiting_for_its_end_kills_it(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    program = stdio.connect(command("time.sleep(60)"), 5)
    wait = program._process.wait

    def interrupted(timeout: float | None = None) -> int:
        if timeout is not None:
            raise KeyboardInterrupt
        return wait()

    monkeypatch.setattr(program._process, "wait", interrupted)
    with pytest.raises(KeyboardInterrupt):
        program.close()
    assert program._process.returncode is not None


@pytest.mark.skipif(sys.platform == "win32", reason="it has no signals")
def test_ctrl_c_in_the_middle_of_a_request_leaves_no_program(command: Command) -> None:
    program = None

    def connect() -> stdio.Program:
        nonlocal program
        program = stdio.connect(command("signal.signal(signal.SIGINT, signal.SIG_IGN)\ntake(1)\ntime.sleep(60)"), 5)
        return program

    previous = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with Client(connect, "stdio:", 20) as agent:
            threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
            with pytest.raises(KeyboardInterrupt):
                agent.identities()
    finally:
        signal.signal(signal.SIGINT, previous)
    assert program
    assert program._process.returncode is not None


def test_closing_a_client_ends_what_another_thread_waits_for(command: Command) -> None:
    agent = client(command("write(b'')\ntake(1_000_000)"))
    caught: list[Exception] = []

    def ask() -> None:
        try:
            agent.identities()
        except Disconnected as error:
            caught.append(error)

    thread = threading.Thread(target=ask)
    thread.start()
    while not agent._lock.locked():
        time.sleep(0.01)
    while thread.is_alive():  # it may be just about to ask
        agent.close()
        thread.join(0.1)
    assert caught


def test_nothing_is_left_of_any_of_them(command: Command, leaves_nothing: Callable[..., None]) -> None:
    good = command("while request(): write(LIST)")
    bad = [command("sys.exit(1)"), command("write(b'hello')"), command("os.close(1)\nrequest()"), "no-such-program", ""]

    def use_all() -> None:
        with client(good) as one, client(good) as other:
            assert one.identities() == other.identities()
        for text in bad:
            with pytest.raises(Error), client(text) as agent:
                agent.identities()

    leaves_nothing(use_all)


def test_programs_at_the_same_time_do_not_share_their_streams(command: Command) -> None:
    text = command("while request(): write(LIST)")
    programs = []
    lock = threading.Lock()

    def start() -> None:
        program = stdio.connect(text, 5)
        with lock:
            programs.append(program)

    threads = [threading.Thread(target=start) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for program in programs:  # each ends with its own input, which no other holds open
        program.close()
        assert program._process.returncode == 0
