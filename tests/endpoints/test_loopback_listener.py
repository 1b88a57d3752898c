"""Agents served on GnuPG's and Cygwin's files: who gets in, and what others can take from those who do."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from pageantry import sessions
from pageantry.client import Client
from pageantry.endpoints import loopback_listener, parse, tcp_callers
from pageantry.endpoints.loopback_listener import Listener
from pageantry.endpoints.socketfiles import parse as parse_file
from pageantry.keyring import Keyring
from pageantry.server import Server

from ..hosts import ed25519_key
from .loopback_clients import (
    KINDS,
    LIST,
    NO_KEYS,
    PACK,
    answers,
    connected,
    file_of,
    greeting,
    listen,
    received,
    reply,
    served,
)  # fmt: skip

SECRET = bytes(range(16))

Serve = Callable[..., Listener]


@pytest.fixture
def serve(private_directory: Path) -> Iterator[Serve]:
    """An agent without keys on a file of a kind."""
    with contextlib.ExitStack() as stack:
        yield lambda kind="assuan": stack.enter_context(served(kind, private_directory / "agent"))


@pytest.mark.parametrize("kind", KINDS)
def test_our_own_client_lists_adds_and_signs(serve: Serve, kind: str) -> None:
    listener = serve(kind)
    for address in (f"{kind}:{listener.path}", f"unix:{listener.path}", listener.path):
        with parse(address).open(30) as agent:
            assert isinstance(agent, Client)
            if address != listener.path:
                agent.remove_all()
                for number in range(300):
                    agent.add(ed25519_key(number), f"key {number}")
            keys = agent.identities()
            assert [one.comment for one in keys] == [f"key {number}" for number in range(300)]
            assert agent.sign(keys[-1].key, b"data" * 10_000, verify=True)


@pytest.mark.parametrize("kind", KINDS)
def test_the_file_says_what_a_client_of_that_kind_expects(private_directory: Path, kind: str) -> None:
    with closing(listen(kind, private_directory / "agent")) as listener:
        assert listener.path == str(private_directory / "agent")
        content = (private_directory / "agent").read_bytes()
        assert content.startswith(b"!<socket >") == (kind == "cygwin")
        assert parse_file(content).cygwin == (kind == "cygwin")
        with closing(listen(kind, private_directory / "other")) as other:
            assert file_of(other).secret != file_of(listener).secret
            assert sorted(os.listdir(private_directory)) == ["agent", "other"]
    assert os.listdir(private_directory) == []


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("wrong", [bytes(16), SECRET, 16 * b"\xff", b"\0\0\0\1\x0b" * 4])
def test_who_does_not_know_the_secret_is_hung_up_on_without_a_word(serve: Serve, kind: str, wrong: bytes) -> None:
    listener = serve(kind)
    with connected(listener) as client:
        client.sendall(wrong + LIST)
        assert received(client) == b""
    assert answers(listener)


@pytest.mark.parametrize("kind", KINDS)
def test_every_bit_of_the_secret_counts(serve: Serve, kind: str) -> None:
    listener = serve(kind)
    secret = file_of(listener).secret
    for at in (0, 7, 15):
        with connected(listener) as client:
            client.sendall(secret[:at] + bytes([secret[at] ^ 1]) + secret[at + 1 :])
            assert received(client) == b""


@pytest.mark.parametrize("kind", KINDS)
def test_a_greeting_may_come_in_any_pieces(serve: Serve, kind: str) -> None:
    listener = serve(kind)
    with connected(listener) as client:
        for byte in greeting(listener) + LIST:
            client.sendall(bytes([byte]))
        expected = reply(listener) + NO_KEYS
        assert received(client, len(expected)) == expected
        client.sendall(LIST)
        assert received(client, len(NO_KEYS)) == NO_KEYS


def test_a_client_of_cygwin_s_that_waits_at_each_step_gets_its_secret_and_its_user_back(serve: Serve) -> None:
    listener = serve("cygwin")
    with connected(listener) as client:
        client.sendall(file_of(listener).secret)
        assert received(client, 16) == file_of(listener).secret
        client.sendall(PACK.pack(4242, 197609, 197121))
        assert PACK.unpack(received(client, 12)) == (os.getpid(), 197609, 197121)
        client.sendall(LIST)
        assert received(client, len(NO_KEYS)) == NO_KEYS


def test_gnupg_s_hears_nothing_before_it_asks(serve: Serve) -> None:
    listener = serve("assuan")
    with connected(listener) as client:
        client.sendall(file_of(listener).secret)
        client.settimeout(0.3)
        with pytest.raises(TimeoutError):
            client.recv(1)


@pytest.mark.parametrize(
    ("kind", "size"), [("assuan", 0), ("assuan", 8), ("assuan", 15), ("cygwin", 15), ("cygwin", 20)]
)
def test_half_a_greeting_and_silence_end_at_the_deadline(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, kind: str, size: int
) -> None:
    listener = serve(kind)
    monkeypatch.setattr(loopback_listener, "GREETING_TIMEOUT", 0.3)
    with connected(listener) as client:
        start = time.monotonic()
        client.sendall(greeting(listener)[:size])
        assert received(client) == reply(listener)[: 16 if size > 16 else 0]
        assert 0.2 < time.monotonic() - start < 5
    assert answers(listener)


def test_who_drips_its_secret_gets_no_more_time_for_it(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    listener = serve("assuan")
    monkeypatch.setattr(loopback_listener, "GREETING_TIMEOUT", 0.5)
    secret = file_of(listener).secret
    with connected(listener) as client:
        start = time.monotonic()
        client.settimeout(0.2)
        sent = 0
        with contextlib.suppress(ConnectionError):
            while sent < 15:
                client.sendall(secret[sent : sent + 1])
                sent += 1
                with contextlib.suppress(TimeoutError):
                    assert client.recv(1) == b""
                    break
        assert sent < 15
        assert time.monotonic() - start < 5


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [0, 1, 15, 16, 20])
def test_who_hangs_up_in_the_middle_disturbs_nobody(serve: Serve, kind: str, size: int) -> None:
    listener = serve(kind)
    for _ in range(3):
        with connected(listener) as client:
            client.sendall(greeting(listener)[:size])
    assert answers(listener)


@pytest.mark.parametrize("kind", KINDS)
def test_any_number_of_silent_clients_keep_nobody_from_being_served_and_take_no_threads(
    serve: Serve, kind: str
) -> None:
    listener = serve(kind)
    before = threading.active_count()
    with contextlib.ExitStack() as stack:
        silent = [stack.enter_context(connected(listener)) for _ in range(200)]
        assert all(answers(listener) for _ in range(20))
        assert threading.active_count() <= before + 20  # of those that were served
        for client in silent[:100]:  # which had to go for the others
            assert received(client) == b""
    assert answers(listener)


def test_a_client_that_has_greeted_stays_whoever_comes(serve: Serve) -> None:
    listener = serve("assuan")
    with contextlib.ExitStack() as stack:
        client = stack.enter_context(connected(listener))
        client.sendall(greeting(listener) + LIST)
        assert received(client, len(NO_KEYS)) == NO_KEYS
        for _ in range(2 * loopback_listener.MAX_NEWCOMERS):
            stack.enter_context(connected(listener))
        assert answers(listener)
        client.sendall(LIST)
        assert received(client, len(NO_KEYS)) == NO_KEYS


def test_a_client_that_has_greeted_is_accepted_with_a_plain_connection(private_directory: Path) -> None:
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(closing(listen("assuan", private_directory / "agent")))
        stack.enter_context(connected(listener))  # who says nothing
        client = stack.enter_context(connected(listener))
        client.sendall(greeting(listener) + b"question")
        connection = stack.enter_context(listener.accept())
        assert connection.gettimeout() is None
        assert not connection.get_inheritable()
        assert connection.recv(100) == b"question"
        connection.sendall(b"answer")
        assert client.recv(100) == b"answer"
        assert not connection.gone()
        connection.shutdown(2)
        assert received(client) == b""


def test_the_client_is_known_where_the_system_tells(private_directory: Path, wine: bool) -> None:
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(closing(listen("assuan", private_directory / "agent")))
        client = stack.enter_context(connected(listener))
        client.sendall(greeting(listener))
        connection = stack.enter_context(listener.accept())
        if sys.platform == "linux":
            assert getattr(connection.peer, "uid", None) == os.geteuid()
        elif sys.platform == "win32":
            assert connection.peer or wine  # which does not always tell
            if connection.peer:
                assert connection.peer.pid == os.getpid()
                assert connection.peer.account.rpartition("\\")[2] == os.environ["USERNAME"]


def test_another_user_s_client_is_hung_up_on_whatever_it_knows(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    listener = serve("assuan")
    monkeypatch.setattr(tcp_callers, "caller", lambda client, server: (None, False))
    with connected(listener) as client:
        with contextlib.suppress(ConnectionError):
            client.sendall(greeting(listener) + LIST)
        assert received(client) == b""
    monkeypatch.undo()
    assert answers(listener)


def test_closing_wakes_who_accepts(private_directory: Path) -> None:
    listener = listen("assuan", private_directory / "agent")
    caught: list[OSError] = []

    def accept() -> None:
        try:
            listener.accept()
        except OSError as error:
            caught.append(error)

    thread = threading.Thread(target=accept)
    thread.start()
    assert not listener.closed
    listener.close()
    thread.join(20)
    assert listener.closed
    assert [error.errno for error in caught] == [errno.EBADF]
    listener.close()
    with pytest.raises(OSError, match="was closed"):
        listener.accept()


def test_closing_a_server_ends_those_who_have_not_greeted(private_directory: Path) -> None:
    server = Server([listener := listen("assuan", private_directory / "agent")], sessions.to(Keyring()))
    with connected(listener) as client:
        assert answers(listener)  # so that the other one was accepted before
        server.close()
        assert received(client) == b""
