"""The command `relay`, started as programs start it: with pipes for its streams."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import pageantry
from pageantry import Client, PublicKey, framing
from pageantry.endpoints import stdio
from pageantry.errors import Disconnected, Unsupported
from pageantry.keyfiles import KeyFiles
from pageantry.messages import MAX_MESSAGE, IdentitiesAnswer, RequestIdentities, frame

KEY = Path(__file__).parents[1] / "interop" / "keys" / "ed25519"
ED25519 = PublicKey(b"\0\0\0\x0bssh-ed25519\0\0\0\x20" + bytes(range(32)))
LIST = frame(RequestIdentities().payload())
ONE = frame(IdentitiesAnswer(((ED25519.blob, b"me"),)).payload())

#: What an agent makes of one request, without its length: the bytes that it sends, or None to hang up.
Script = Callable[[bytes], bytes | None]


class Agent:
    """An agent at an `address`; `connections` is how many there were."""

    def __init__(self, script: Script) -> None:
        self.address = ""
        self.connections = 0
        self._script = script

    def connect(self) -> socket.socket:
        ours, theirs = socket.socketpair()
        self.connections += 1
        threading.Thread(target=self._serve, args=(theirs,)).start()
        return ours

    def _serve(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            frames = framing.Frames(connection)
            while (request := frames.next(60)) and (reply := self._script(request[4:])) is not None:
                connection.sendall(reply)


@contextlib.contextmanager
def serving(script: Script) -> Iterator[Agent]:
    agent = Agent(script)
    with Client(agent.connect, "unix:/fake") as client, pageantry.exposed(client) as agent.address:
        agent.connections = 0
        yield agent


def relay(address: str) -> list[str]:
    return [sys.executable, "-m", "pageantry", "relay", address]


@contextlib.contextmanager
def started(address: str) -> Iterator[subprocess.Popen[bytes]]:
    pipe = subprocess.PIPE
    with subprocess.Popen(relay(address), stdin=pipe, stdout=pipe, stderr=pipe, bufsize=0) as process:
        try:
            yield process
        finally:
            process.kill()


def run(address: str, given: bytes) -> tuple[int, bytes, list[str]]:
    """The exit status, what came out, and the lines for people."""
    done = subprocess.run(relay(address), input=given, capture_output=True, timeout=60)
    return done.returncode, done.stdout, done.stderr.decode().splitlines()


def ask(process: subprocess.Popen[bytes], request: bytes, size: int) -> bytes:
    """So many bytes of the reply."""
    assert process.stdin
    assert process.stdout
    thread = threading.Thread(target=process.stdin.write, args=(request,))
    thread.start()
    reply = b""
    while len(reply) < size and (piece := process.stdout.read(size - len(reply))):
        reply += piece
    thread.join()
    return reply


def test_an_agent_lists_and_signs_through_it() -> None:
    with pageantry.exposed(KeyFiles([str(KEY)])) as address:
        words = relay(address)
        command = subprocess.list2cmdline(words) if sys.platform == "win32" else " ".join(map(repr, words))
        with pageantry.connect(f"stdio:{command}") as agent:
            key = agent.identities()[0].key
            assert agent.sign(key, bytes(100_000), verify=True)
            with pytest.raises(Unsupported):
                agent.extension("anything@example.org")
            assert agent.sign(key, b"data", verify=True)


def test_key_files_need_no_agent_at_all() -> None:
    status, out, words = run(f"keys:{KEY}", LIST)
    assert (status, words) == (0, [])
    assert out[4] == IdentitiesAnswer.number


def test_messages_go_there_and_back_as_they_are_over_one_connection() -> None:
    every = bytes(range(256))
    with serving(lambda request: frame(request[::-1])) as agent, started(agent.address) as process:
        for payload in (b"\xff", b"\n", b"\r\n\x1a\n", every, every * (MAX_MESSAGE // 256)):
            assert ask(process, frame(payload), 4 + len(payload)) == frame(payload[::-1])
        for byte in frame(every):
            ask(process, bytes((byte,)), 0)
        assert ask(process, b"", 260) == frame(every[::-1])
        assert agent.connections == 1


def test_a_thousand_requests_at_once_are_answered_in_order_before_the_end() -> None:
    sent = b"".join(frame(b"\xc8%d" % number) for number in range(1000))
    with serving(frame) as agent:
        assert run(agent.address, sent) == (0, sent, [])


def test_nothing_is_opened_before_the_first_request_nor_said_without_one() -> None:
    with serving(lambda _: ONE) as agent:
        assert run(agent.address, b"") == (0, b"", [])
        assert run(agent.address, LIST[:-1]) == (0, b"", [])
        assert agent.connections == 0


@pytest.fixture
def nobody() -> str:
    """An address where nobody listens."""
    with pageantry.exposed(KeyFiles([str(KEY)])) as address:
        return address


def test_an_agent_that_is_not_there_is_said(nobody: str) -> None:
    assert run(nobody, b"") == (0, b"", [])
    status, out, (what, hint) = run(nobody, LIST)
    assert (status, out) == (1, b"")
    assert what.startswith("pageantry: ")
    assert hint.startswith("  ")


def test_an_agent_that_hangs_up_ends_it_and_is_said() -> None:
    replies = iter([ONE])
    with serving(lambda _: next(replies, None)) as agent, started(agent.address) as process:
        assert ask(process, LIST, len(ONE)) == ONE
        assert ask(process, LIST, 1) == b""
        assert process.wait(20) == 1
        assert process.stderr
        what, hint = process.stderr.read().decode().splitlines()
        assert "hung up without a reply" in what
        assert hint
        assert agent.connections == 1


def test_the_program_that_started_it_is_told_of_a_hang_up_by_the_end_of_its_output() -> None:
    with serving(lambda _: None) as agent:
        words = relay(agent.address)
        command = subprocess.list2cmdline(words) if sys.platform == "win32" else " ".join(map(repr, words))
        with Client(lambda: stdio.connect(command, 5), "stdio:", 20) as client, pytest.raises(Disconnected) as caught:
            client.identities()
    assert "ended with exit status 1" in str(caught.value)


@pytest.mark.parametrize("given", [b"\0\0\0\0", b"\0\4\0\1", b"GET / HTTP/1.1\r\n\r\n"])
def test_what_is_no_request_is_said(given: bytes) -> None:
    with serving(lambda _: ONE) as agent:
        status, out, (what, _) = run(agent.address, given)
    assert (status, out) == (1, b"")
    assert "standard input is no request to an agent" in what


def test_an_agent_that_never_answers_does_not_outlive_the_input() -> None:
    with serving(lambda _: b"") as agent:
        status, out, (what, _) = run(agent.address, LIST)
    assert (status, out) == (1, b"")
    assert "the input ended before" in what


def test_it_ends_when_nobody_reads_the_replies_any_more() -> None:
    with serving(lambda _: ONE) as agent, started(agent.address) as process:
        assert ask(process, LIST, len(ONE)) == ONE
        assert process.stdin
        assert process.stdout
        process.stdout.close()
        process.stdin.write(LIST)
        assert process.wait(20) == 0
        assert process.stderr
        assert process.stderr.read() == b""


def test_it_ends_when_the_input_has_and_nobody_reads_the_replies() -> None:
    full = frame(b"\x06" + bytes(MAX_MESSAGE - 1))
    with serving(lambda _: full) as agent, started(agent.address) as process:
        assert process.stdin
        process.stdin.write(LIST)
        process.stdin.close()
        assert process.wait(20) == 1


def test_standard_input_may_be_a_file(tmp_path: Path) -> None:
    (tmp_path / "requests").write_bytes(LIST * 3)
    with serving(lambda _: ONE) as agent, (tmp_path / "requests").open("rb") as requests:
        done = subprocess.run(relay(agent.address), stdin=requests, capture_output=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, ONE * 3, b"")


@pytest.mark.skipif(sys.platform == "win32", reason="it has no such flag")
def test_streams_that_do_not_block_are_waited_for() -> None:
    ours, theirs = socket.socketpair()
    with serving(lambda _: ONE) as agent, ours, theirs:
        theirs.setblocking(False)
        with subprocess.Popen(relay(agent.address), stdin=theirs.fileno(), stdout=theirs.fileno()) as process:
            theirs.close()
            ours.settimeout(20)
            ours.sendall(LIST)
            assert ours.recv(10_000) == ONE
            ours.close()
            assert process.wait(20) == 0


def test_a_person_who_starts_it_is_told_what_it_is_for(at_terminal: Callable[..., tuple[int, str]]) -> None:
    status, shown = at_terminal("relay", "/some/agent", typed={})
    assert status == 1
    assert "standard input is a terminal" in shown
    assert "stdio:" in shown


@pytest.mark.parametrize(("words", "status"), [([], 2), (["a", "b"], 2), (["nonsense"], 1), (["stdio:"], 1)])
def test_an_address_is_needed_and_one_alone(words: list[str], status: int) -> None:
    command = [sys.executable, "-m", "pageantry", "relay", *words]
    done = subprocess.run(command, input=LIST, capture_output=True, timeout=60)
    assert (done.returncode, done.stdout) == (status, b"")
    assert b"Traceback" not in done.stderr


@pytest.mark.skipif(sys.platform != "win32", reason="UNIX sockets have a queue instead")
def test_a_pipe_that_is_busy_is_waited_for() -> None:
    from pageantry import winpipe
    from pageantry.endpoints.named_pipe import OPENSSH

    if winpipe.exists(OPENSSH):
        pytest.skip("this machine has an agent there")
    server = Path(__file__).parents[1] / "interop" / "one_client_pipe.py"
    with subprocess.Popen([sys.executable, str(server), OPENSSH, ONE.hex()], stdout=subprocess.PIPE) as process:
        assert process.stdout
        assert process.stdout.readline().strip() == b"ready"
        threading.Timer(1, winpipe.connect(OPENSSH).close).start()
        done = run("openssh", LIST)
        process.kill()
    assert done == (0, ONE, [])


def test_it_relays_to_programs_too_and_leaves_none_of_them(leaves_nothing: Callable[..., None]) -> None:
    command = subprocess.list2cmdline if sys.platform == "win32" else lambda words: " ".join(map(repr, words))

    def use() -> None:
        assert run(f"stdio:{command(relay(f'keys:{KEY}'))}", LIST)[0] == 0

    leaves_nothing(use, 2)
