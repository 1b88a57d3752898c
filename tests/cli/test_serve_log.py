"""What `serve` tells while it runs: its log, and questions at its terminal."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import pytest

if sys.platform == "win32":
    pytest.skip("sockets and terminals of UNIX", allow_module_level=True)

import pageantry
from pageantry import PublicKey
from pageantry.constraints import Confirm
from pageantry.errors import Refused
from pageantry.extensions import ADD_ENCRYPTED, REPORT, AddEncrypted, Report
from pageantry.messages import Failure, Message, SessionBind, SignRequest, SignResponse, decode, frame

from ..hosts import binding, ecdsa_key, ed25519_key, userauth
from . import terminals
from .serving import PASSPHRASE, PROGRAM, Environ, lists, openssh, putty, serving, wait_for

ME = f"{os.path.basename(os.path.realpath(sys.executable))} (process {os.getpid()})"
KEY = ed25519_key(1)
FINGERPRINT = KEY.public.fingerprint()


@contextmanager
def asking(place: str, key: PublicKey = KEY.public, data: bytes = b"data") -> Iterator[socket.socket]:
    """A client that wants a signature, and does not wait for it."""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(30)
        client.connect(place)
        client.sendall(frame(SignRequest(key.blob, data, 0).payload()))
        yield client


def answer(client: socket.socket) -> Message:
    reply = client.recv(10_000)
    while len(reply) < 4 or len(reply) < 4 + int.from_bytes(reply[:4], "big"):
        reply += client.recv(10_000)
    return decode(reply[4:])


def place_of(terminal: terminals.AtTerminal) -> str:
    return terminal.shown.partition("SSH_AUTH_SOCK=")[2].partition(";")[0]


# The log


def test_it_tells_who_had_what_done_with_which_key(environ: Environ) -> None:
    with serving(environ) as agent, pageantry.connect(agent.place) as client:
        client.add(KEY, "me@home")
        client.sign(KEY.public, b"data")
        client.remove(KEY.public)
        client.lock(b"sesame")
        client.unlock(b"sesame")
        client.remove_all()
        log = agent.end()[1]
    one = f"me@home ({FINGERPRINT}) for {ME}"
    assert [line[9:] for line in log.splitlines()] == [
        f"listening at {agent.place}",
        f"added {one}",
        f"signed with {one}, for something that is no login",
        f"removed {one}",
        f"locked for {ME}",
        f"unlocked for {ME}",
        f"removed all keys for {ME}",
        "ended; all keys are forgotten",
    ]


def test_it_tells_for_which_login(environ: Environ, home: Path) -> None:
    host = ed25519_key(2)
    (home / ".ssh").mkdir()
    (home / ".ssh" / "known_hosts").write_text(f"example.org {host.public.line()}\n")
    with serving(environ) as agent, pageantry.connect(agent.place) as client:
        client.add(KEY, "me@home")
        client.extension(SessionBind.name, binding(host, b"session", False))
        client.sign(KEY.public, userauth(KEY.public, b"session", "bob"))
        line = agent.logged("signed with")
    told = f'to log in as "bob" at example.org (ssh-ed25519 {host.public.fingerprint()})'
    assert line.endswith(f"signed with me@home ({FINGERPRINT}) for {ME}, {told}\n")


@pytest.mark.interop
@pytest.mark.skipif(not shutil.which("ssh-keygen"), reason="ssh-keygen is not installed")
def test_it_names_the_program_that_asks(environ: Environ, home: Path) -> None:
    (home / "key.pub").write_text(openssh(home / "key", 1).line())
    with serving(environ, home / "key") as agent:
        command = ["ssh-keygen", "-Y", "sign", "-f", str(home / "key.pub"), "-n", "file"]
        with subprocess.Popen(
            command, env=environ | {"SSH_AUTH_SOCK": agent.place}, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL
        ) as process:
            process.communicate(b"data", timeout=30)
        line = agent.logged("signed with")
    assert f'for ssh-keygen (process {process.pid}), to sign a file or message in the namespace "file"' in line


def test_it_tells_what_was_refused_and_why(environ: Environ) -> None:
    with serving(environ) as agent, pageantry.connect(agent.place) as client:
        client.add(KEY, "me@home", [Confirm()])
        with pytest.raises(Refused):
            client.sign(KEY.public, b"data")
        with pytest.raises(Refused):
            client.unlock(b"sesame")
        agent.logged(f"refused to sign with me@home ({FINGERPRINT}) for {ME}: there is no terminal to ask at")
        agent.logged(f"refused to unlock for {ME}: it is not locked")
        with socket.socket(socket.AF_UNIX) as rude:
            rude.connect(agent.place)
            rude.sendall(b"\xff" * 8)
            agent.logged("a client was hung up on: ")


def test_no_secret_is_in_the_log(environ: Environ, home: Path) -> None:
    askpass = home / "askpass"
    askpass.write_text(f"#!/bin/sh\n[ -e {home}/again ] && echo {PASSPHRASE} || echo falsch\ntouch {home}/again\n")
    askpass.chmod(0o700)
    openssh(home / "sealed", 1, PASSPHRASE)
    putty(home / "sealed.ppk", 3, PASSPHRASE)
    environ |= {"SSH_ASKPASS": str(askpass), "SSH_ASKPASS_REQUIRE": "force"}
    with serving(environ, home / "sealed", home / "sealed.ppk") as agent, pageantry.connect(agent.place) as client:
        client.sign(KEY.public, b"data", verify=True)
        client.sign(ed25519_key(3).public, b"data", verify=True)
        client.add(ecdsa_key(1), "plain")
        client.lock(b"sesame")
        with pytest.raises(Refused):
            client.unlock(b"opened")
        log = agent.end()[1]
    assert log.count("signed with") == 2
    secrets = [PASSPHRASE, "falsch", "sesame", "opened", *(secret.hex() for secret in map(bytes, private_parts()))]
    assert not [secret for secret in secrets if secret in log]


def private_parts() -> list[bytes]:
    return [(1).to_bytes(32, "big"), (3).to_bytes(32, "big"), ((1 << 248) + 1).to_bytes(32, "big")]


def test_a_reader_of_the_log_who_stops_reading_stops_nobody_else(environ: Environ) -> None:
    command = [*PROGRAM, "serve"]
    with subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout
        assert process.stderr
        place = process.stdout.readline().decode().partition("=")[2].partition(";")[0]
        try:
            with pageantry.connect(place) as client:
                client.add(KEY, "me@home")
                for _ in range(3000):
                    client.sign(KEY.public, b"data")
                while b"lines were left out here" not in process.stderr.readline():
                    pass  # it reads on, and the log goes on
                for _ in range(3000):
                    client.sign(KEY.public, b"data")
            process.terminate()
            assert process.wait(30) == 0
        finally:
            process.kill()
    assert not os.path.exists(place)


def test_a_log_whose_reader_has_gone_stops_nobody(environ: Environ) -> None:
    with subprocess.Popen([*PROGRAM, "serve"], env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout
        assert process.stderr
        place = process.stdout.readline().decode().partition("=")[2].partition(";")[0]
        process.stderr.close()
        with pageantry.connect(place) as client:
            client.add(KEY, "me@home")
            for _ in range(1200):
                client.sign(KEY.public, b"data")
        process.terminate()
        assert process.wait(30) == 0


def test_what_does_not_fit_into_a_pipe_that_waits_for_nobody_is_left_out_and_the_log_goes_on(environ: Environ) -> None:
    reader, writer = os.pipe()
    for end in (reader, writer):
        os.set_blocking(end, False)
    with subprocess.Popen([*PROGRAM, "serve"], env=environ, stdout=subprocess.PIPE, stderr=writer) as process:
        assert process.stdout
        os.close(writer)
        place = process.stdout.readline().decode().partition("=")[2].partition(";")[0]
        read = b""

        def goes_on() -> bool:
            nonlocal read
            client.sign(KEY.public, b"data")
            with suppress(BlockingIOError):
                read += os.read(reader, 100_000)
            return b"lines were left out here" in read

        try:
            with pageantry.connect(place) as client:
                client.add(KEY, "me@home")
                for _ in range(3000):
                    client.sign(KEY.public, b"data")
                wait_for(goes_on, "nothing is written any more")
            process.terminate()
            assert process.wait(30) == 0
        finally:
            process.kill()
            os.close(reader)


def test_comments_cannot_play_tricks_on_whoever_reads_the_log(environ: Environ) -> None:
    with terminals.at_terminal(environ) as terminal, pageantry.connect(place_of(terminal)) as client:
        client.add(KEY, "\x1b[2Jx\n17:00:00 signed\r")
        terminal.shows(r"added \x1b[2Jx\n17:00:00 signed\r (")


def test_at_a_terminal_long_lines_are_broken_between_words(environ: Environ) -> None:
    with terminals.at_terminal(environ, columns=100) as terminal, pageantry.connect(place_of(terminal)) as client:
        client.add(KEY, "me@home")
        client.sign(KEY.public, b"data")
        terminal.shows("no login\n")
        lines = terminal.shown.splitlines()
    assert all(len(line) <= 100 for line in lines)
    signed = next(index for index, line in enumerate(lines) if "signed with" in line)
    assert lines[signed][:9].strip()
    assert lines[signed + 1][:10].strip() == lines[signed + 1][9]
    told = f"signed with me@home ({FINGERPRINT}) for {ME}, for something that is no login"
    assert f"{lines[signed]} {lines[signed + 1].strip()}"[9:] == told


#: Has a program run in the background until a line comes, at a terminal that stops those who write to it from there.
_IN_BACKGROUND = 'stty tostop; "$@" & read line; kill %1; kill -CONT %1; wait'


def test_in_the_background_it_writes_where_others_would_be_stopped(environ: Environ) -> None:
    environ |= {"XDG_RUNTIME_DIR": "/nowhere"}  # of which a word is said, too
    with closing(terminals.AtTerminal(environ, shell(), "-mc", _IN_BACKGROUND, "sh", *PROGRAM, "serve")) as terminal:
        try:
            terminal.shows("listening at")
            with pageantry.connect(place_of(terminal)) as client:
                client.add(KEY, "me@home")
            terminal.shows("added me@home")
        finally:
            terminal.type("\n")
        assert terminal.process.wait(30) == 0
        assert "listening elsewhere" in terminal.shown


def shell() -> str:
    found = shutil.which("sh")
    assert found
    return found


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux shows how a process takes signals")
def test_programs_that_it_starts_are_stopped_as_others_are(environ: Environ, home: Path) -> None:
    askpass = home / "askpass"
    askpass.write_text(f"#!/bin/sh\ngrep -E 'Sig(Blk|Ign)' /proc/self/status >{home}/signals\necho {PASSPHRASE}\n")
    askpass.chmod(0o700)
    openssh(home / "sealed", 1, PASSPHRASE)
    environ |= {"SSH_ASKPASS": str(askpass), "SSH_ASKPASS_REQUIRE": "force"}
    with serving(environ, home / "sealed") as agent, pageantry.connect(agent.place) as client:
        client.sign(KEY.public, b"data", verify=True)
    masks = [int(line.split()[1], 16) for line in (home / "signals").read_text().splitlines()]
    assert [mask & 1 << signal.SIGTTOU - 1 for mask in masks] == [0, 0]


# The log in a file (test_logfile.py has the file)


def test_it_goes_to_a_file_instead(environ: Environ, home: Path) -> None:
    with serving(environ, "--log", home / "log") as agent, pageantry.connect(agent.place) as client:
        client.add(KEY, "me@home")
        assert agent.end()[1] == ""
    start, *lines = [line[20:] for line in (home / "log").read_text().splitlines()]
    assert start.endswith(f"(process {agent.process.pid})")
    assert lines[0].startswith(f"listening at {agent.place}")
    assert lines[1:] == [f"added me@home ({FINGERPRINT}) for {ME}", "ended; all keys are forgotten"]


def test_why_it_does_not_start_is_told_there_where_nobody_reads_its_words(environ: Environ, home: Path) -> None:
    command = [*PROGRAM, "serve", "--log", str(home / "log"), "--listen", str(home / "no" / "socket")]
    done = subprocess.run(["sh", "-c", 'exec "$@" <&- 2>&-', "sh", *command], env=environ, timeout=60)
    assert done.returncode == 1
    _, line = (home / "log").read_text().splitlines()
    assert line[20:].startswith(f"failed: cannot listen in {home / 'no'}: No such file or directory; ")


# Questions at the terminal


@contextmanager
def asked(environ: Environ, home: Path, what: str) -> Iterator[tuple[terminals.AtTerminal, socket.socket, str]]:
    """An agent that asks, whoever wants the answer, and how the terminal was set before."""
    openssh(home / "key", 1, PASSPHRASE if what == "passphrase" else "")
    with terminals.at_terminal(environ) as terminal:
        place = place_of(terminal)
        with pageantry.connect(place) as client:
            if what == "consent":
                client.add(KEY, "me@home", [Confirm()])
            else:
                encrypted = AddEncrypted((home / "key").read_bytes(), "me@home", b"")
                client.extension(ADD_ENCRYPTED, encrypted.encode())
        terminal.shows("added me@home")
        before = terminal.mode()
        with asking(place) as client_socket:
            terminal.shows("[y/N] " if what == "consent" else "Passphrase: ")
            yield terminal, client_socket, before


@pytest.mark.parametrize(("typed", "granted"), [("y", True), ("n", False), ("", False)])
def test_consent_is_asked_for_with_all_that_is_known(environ: Environ, home: Path, typed: str, granted: bool) -> None:
    with asked(environ, home, "consent") as (terminal, client, before):
        terminal.type(f"{typed}\n")
        assert isinstance(answer(client), SignResponse if granted else Failure)
        terminal.shows("signed with" if granted else "the person said no")
        assert terminal.mode() == before
        question = (
            f"Allow {ME} to sign with the key\n  me@home\n  ssh-ed25519 {FINGERPRINT}\n"
            f"for something that is no login? [y/N] {typed}\n"
        )
        assert question in terminal.shown


def test_a_passphrase_is_asked_for_until_it_is_right(environ: Environ, home: Path) -> None:
    with asked(environ, home, "passphrase") as (terminal, client, before):
        terminal.type("falsch\n")
        terminal.shows("That passphrase was wrong.")
        terminal.shows("Passphrase: ", 2)
        terminal.type(f"{PASSPHRASE}\n")
        assert isinstance(answer(client), SignResponse)
        terminal.shows("signed with")
        assert terminal.mode() == before
        assert PASSPHRASE not in terminal.shown
        assert "falsch" not in terminal.shown
        question = (
            f"Passphrase for the key\n  me@home\n  ssh-ed25519 {FINGERPRINT}\n"
            f"for something that is no login\nwanted by {ME}\nPassphrase: "
        )
        assert f"{question}\nThat passphrase was wrong.\n{question}" in terminal.shown


def test_the_log_waits_for_the_answer(environ: Environ, home: Path) -> None:
    with asked(environ, home, "consent") as (terminal, client, _):
        place = place_of(terminal)
        with pageantry.connect(place) as other:
            for seed in range(10, 30):
                other.add(ed25519_key(seed), f"key {seed}")
        assert len(lists(place)) == 21
        terminal.type("y\n")
        assert isinstance(answer(client), SignResponse)
        terminal.shows("signed with")
        shown = terminal.shown
        question = shown[shown.index("Allow ") : shown.index("[y/N] y\n")]
        assert "added" not in question
        assert all(f"added key {seed} (" in shown for seed in range(10, 30))


@pytest.mark.parametrize("what", ["consent", "passphrase"])
def test_a_question_goes_when_whoever_wanted_the_answer_leaves(environ: Environ, home: Path, what: str) -> None:
    with asked(environ, home, what) as (terminal, client, before):
        client.close()
        terminal.shows("refused to sign with me@home")
        terminal.shows("whoever wanted the answer has left")
        assert terminal.mode() == before
        assert terminal.process.poll() is None


@pytest.mark.parametrize("what", ["consent", "passphrase"])
@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT, "\3"], ids=str)
def test_in_the_middle_of_a_question_it_ends_and_the_terminal_is_as_before(
    environ: Environ, home: Path, what: str, how: signal.Signals | str
) -> None:
    with asked(environ, home, what) as (terminal, client, before):
        place = place_of(terminal)
        if isinstance(how, str):
            terminal.type(how)
        else:
            terminal.process.send_signal(how)
        assert terminal.process.wait(30) == 0
        assert terminal.mode() == before
        assert client.recv(100)[4:] in (b"", b"\5")
        assert not os.path.lexists(place)


def test_without_a_log_it_asks_as_well(environ: Environ) -> None:
    with closing(terminals.AtTerminal(environ, *PROGRAM, "serve", "-q")) as terminal:
        terminal.shows("export SSH_AUTH_SOCK;\n")
        with pageantry.connect(place_of(terminal)) as client:
            client.add(KEY, "me@home", [Confirm()])
        with asking(place_of(terminal)) as waiting:
            terminal.shows("[y/N] ")
            terminal.type("y\n")
            assert isinstance(answer(waiting), SignResponse)
        assert terminal.shown.count("\n") == 5


def test_a_terminal_that_is_stopped_holds_up_no_request_and_no_end(environ: Environ) -> None:
    with terminals.at_terminal(environ) as terminal:
        place = place_of(terminal)
        terminal.type("\x13")  # Ctrl-S
        with pageantry.connect(place) as client:
            client.add(KEY, "me@home", [Confirm()])  # which the log is stopped at
            client.add(ed25519_key(2), "another")
            with asking(place):
                client.sign(ed25519_key(2).public, b"data", verify=True)
                wait_for(lambda: connections(client) == 2, "the question is not asked")
            wait_for(lambda: connections(client) == 1, "the question is still asked")
        terminal.process.terminate()
        assert terminal.process.wait(30) == 0
        assert not os.path.lexists(place)


def connections(client: pageantry.Agent) -> int:
    return len(Report.decode(client.extension(REPORT)).connections)
