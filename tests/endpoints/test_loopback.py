"""Agents behind GnuPG's and Cygwin's files. The servers are made of what is known of the real ones."""

from __future__ import annotations

import os
import socket
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pageantry import Client, PublicKey, wsl
from pageantry.endpoints import listeners, loopback, parse, sockets
from pageantry.endpoints.socketfiles import SocketFile
from pageantry.errors import Disconnected, Unreachable
from pageantry.messages import IdentitiesAnswer, frame

SECRET = bytes(range(16))
ED25519 = PublicKey(b"\0\0\0\x0bssh-ed25519\0\0\0\x20" + bytes(range(32)))
LIST = frame(IdentitiesAnswer(((ED25519.blob, b"me"),)).payload())
#: Process, user and group that the agent has.
THEIRS = (4242, 197609, 197121)
PACK = struct.Struct("<3I")

Open = Callable[..., Any]


def received(connection: socket.socket, size: int) -> bytes:
    """So many bytes, or all there are."""
    data = b""
    while len(data) < size and (piece := connection.recv(size - len(data))):
        data += piece
    return data


def answers(connection: socket.socket) -> None:
    """An agent with one key."""
    while connection.recv(1000):
        connection.sendall(LIST)


def assuan(connection: socket.socket) -> None:
    """GnuPG's: takes the secret, and hangs up on another."""
    if received(connection, 16) == SECRET:
        answers(connection)


class Cygwin:
    """Cygwin's: says the secret back, then both say who they are; then it may not want to talk to that user.

    `heard` are the credentials that clients gave.
    """

    def __init__(self, only: tuple[int, ...] = ()) -> None:
        self.heard: list[tuple[int, ...]] = []
        self.only = only

    def __call__(self, connection: socket.socket) -> None:
        if received(connection, 16) != SECRET:
            return
        connection.sendall(SECRET)
        self.heard.append(PACK.unpack(received(connection, 12)))
        connection.sendall(PACK.pack(*THEIRS))
        if not self.only or self.heard[-1][1:] == self.only:
            answers(connection)


@pytest.fixture
def place(tmp_path: Path) -> Callable[..., str]:
    """The path of a file with the port in it."""

    def make(number: int, cygwin: bool = False, name: str = "agent") -> str:
        path = tmp_path / name
        path.write_bytes(SocketFile(number, SECRET, cygwin).encode())
        return str(path)

    return make


def opened(address: str) -> Client:
    agent = parse(address).open(10)
    assert isinstance(agent, Client)
    return agent


def refused(address: str, timeout: float = 5) -> Unreachable:
    with pytest.raises(Unreachable) as caught:
        parse(address).connect(timeout)
    assert caught.value.hint
    assert "\n" not in str(caught.value) + caught.value.hint
    return caught.value


@pytest.mark.parametrize("kind", ["assuan:", "unix:", "cygwin:", ""])
def test_an_agent_of_gnupgs_is_reached_whatever_its_file_was_called(port: Open, place: Open, kind: str) -> None:
    server = port(assuan)
    with opened(kind + place(server.number)) as agent:
        assert [one.key for one in agent.identities()] == [ED25519]
        assert len(agent.identities()) == 1
    assert server.clients == 1


@pytest.mark.parametrize("kind", ["cygwin:", "unix:", "assuan:", ""])
def test_an_agent_of_cygwins_is_reached_whatever_its_file_was_called(port: Open, place: Open, kind: str) -> None:
    script = Cygwin()
    server = port(script)
    with opened(kind + place(server.number, cygwin=True)) as agent:
        assert [one.key for one in agent.identities()] == [ED25519]
    assert script.heard == [(os.getpid(), 0, 0)]
    assert server.clients == 1


def test_who_wants_another_user_than_root_gets_his_own_back(
    port: Open, place: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loopback, "REFUSAL_WAIT", 10)  # which ends with the refusal
    script = Cygwin(only=THEIRS[1:])
    server = port(script)
    with opened("cygwin:" + place(server.number, cygwin=True)) as agent:
        monkeypatch.undo()
        assert len(agent.identities()) == 1
    assert script.heard == [(os.getpid(), 0, 0), (os.getpid(), *THEIRS[1:])]


def test_who_refuses_everybody_is_asked_twice_and_no_more(
    port: Open, place: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loopback, "REFUSAL_WAIT", 10)
    server = port(Cygwin(only=(1, 1)))
    with opened("cygwin:" + place(server.number, cygwin=True)) as agent, pytest.raises(Disconnected):
        agent.identities()
    assert server.clients == 2


@pytest.mark.parametrize("address", ["assuan:{}", "{}"])
def test_gnupgs_is_spoken_to_when_its_file_has_cygwins_form_and_it_stays_silent(
    port: Open, place: Open, address: str
) -> None:
    server = port(assuan)
    with opened(address.format(place(server.number, cygwin=True, name="S.gpg-agent.ssh"))) as agent:
        assert len(agent.identities()) == 1


def test_cygwins_may_take_its_time_where_gnupgs_may_not(port: Open, place: Open) -> None:
    def slow(connection: socket.socket) -> None:
        assert received(connection, 16) == SECRET
        time.sleep(2 * loopback.ECHO_WAIT)
        connection.sendall(SECRET)
        received(connection, 12)
        connection.sendall(PACK.pack(*THEIRS))
        answers(connection)

    with opened("cygwin:" + place(port(slow).number, cygwin=True)) as agent:
        assert len(agent.identities()) == 1


def test_greetings_may_come_in_any_pieces(port: Open, place: Open) -> None:
    def bytewise(connection: socket.socket) -> None:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in received(connection, 16):
            connection.sendall(bytes([byte]))
        assert len(received(connection, 12)) == 12
        for byte in PACK.pack(*THEIRS):
            connection.sendall(bytes([byte]))
        answers(connection)

    path = place(port(bytewise).number, cygwin=True)
    for kind in ("cygwin", "assuan"):
        with opened(f"{kind}:{path}") as agent:
            assert len(agent.identities()) == 1


@pytest.mark.parametrize("kind", ["cygwin", "assuan"])
@pytest.mark.parametrize("echo", [SECRET[:15] + b"x", bytes(16), SECRET[::-1]])
def test_another_secret_back_is_an_impostors_who_gets_nothing_more(
    port: Open, place: Open, kind: str, echo: bytes
) -> None:
    more: list[bytes] = []

    def impostor(connection: socket.socket) -> None:
        received(connection, 16)
        connection.sendall(echo)
        more.append(connection.recv(100))

    server = port(impostor)
    assert "does not know the secret" in str(refused(f"{kind}:" + place(server.number, cygwin=True)))
    server.close()
    assert more == [b""]


@pytest.mark.parametrize("kind", ["cygwin", "assuan"])
@pytest.mark.parametrize("sent", [b"", SECRET[:1], SECRET[:15], SECRET, SECRET + PACK.pack(*THEIRS)[:11]])
def test_a_greeting_that_is_broken_off_is_said(port: Open, place: Open, kind: str, sent: bytes) -> None:
    def half(connection: socket.socket) -> None:
        received(connection, 16)
        connection.sendall(sent[:16])
        if len(sent) >= 16:
            received(connection, 12)
            connection.sendall(sent[16:])

    assert "broken off" in str(refused(f"{kind}:" + place(port(half).number, cygwin=True)))


@pytest.mark.parametrize("sent", [b"", SECRET[:15], SECRET])
def test_a_greeting_that_never_ends_is_given_up_at_the_deadline(port: Open, place: Open, sent: bytes) -> None:
    def stuck(connection: socket.socket) -> None:
        received(connection, 16)
        connection.sendall(sent)
        connection.recv(12)
        connection.recv(1)

    path = place(port(stuck).number, cygwin=True)
    start = time.monotonic()
    assert "within 0.3 s" in str(refused(f"cygwin:{path}", 0.3))
    assert 0.3 <= time.monotonic() - start < 5


def test_a_file_whose_agent_has_ended_is_said(place: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as gone:
        number = gone.getsockname()[1]
    error = refused("assuan:" + place(number))
    assert f"leads to port {number}, where nobody listens" in str(error)
    monkeypatch.setattr(wsl, "version", lambda: 2)
    assert "from WSL 2" in refused("assuan:" + place(number)).hint


def test_a_port_that_takes_no_connection_ends_at_the_deadline(place: Open) -> None:
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        with socket.socket() as one, socket.socket() as two, socket.socket() as three:
            for waiting in (one, two, three):
                waiting.setblocking(False)
                waiting.connect_ex(full.getsockname())
            start = time.monotonic()
            refused("cygwin:" + place(full.getsockname()[1], cygwin=True), 0.3)
            assert time.monotonic() - start < 5


@pytest.mark.parametrize("cygwin", [False, True])
def test_a_port_of_somebody_elses_gets_no_secret(
    port: Open, place: Open, monkeypatch: pytest.MonkeyPatch, cygwin: bool
) -> None:
    class Mallory:
        pid, account, program = 666, "PC\\mallory", "C:\\evil.exe"

    heard: list[bytes] = []
    monkeypatch.setattr(listeners, "listener", lambda number: (Mallory, False))
    server = port(lambda connection: heard.append(connection.recv(100)))
    error = refused("unix:" + place(server.number, cygwin))
    for part in ("belongs to PC\\mallory", "C:\\evil.exe, 666", "not to you"):
        assert part in str(error)
    assert "nothing was sent" in error.hint
    server.close()
    assert heard == [b""]


def test_where_the_system_does_not_tell_who_listens_the_agent_is_reached(
    port: Open, place: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listeners, "listener", lambda number: None)
    with opened("assuan:" + place(port(assuan).number)) as agent:
        assert len(agent.identities()) == 1


def test_connections_that_fail_are_closed(port: Open, place: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Any] = []

    class Counted(sockets.Connection):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            made.append(self)

    monkeypatch.setattr(loopback, "Connection", Counted)
    refused("cygwin:" + place(port(lambda connection: None).number, cygwin=True))
    monkeypatch.setattr(listeners, "listener", lambda number: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        parse("cygwin:" + place(port(lambda connection: None).number, cygwin=True)).connect()
    assert [one.fileno() for one in made] == [-1, -1]


def test_nothing_is_left_of_connections_good_or_bad(
    port: Open, place: Open, leaves_nothing: Callable[..., None]
) -> None:
    good, bad = place(port(Cygwin()).number, True, "good"), place(port(lambda connection: None).number, True, "bad")

    def come_and_go() -> None:
        with opened(f"cygwin:{good}") as agent:
            agent.identities()
        refused(f"cygwin:{bad}")
        refused(f"cygwin:{bad}.none")

    leaves_nothing(come_and_go)
