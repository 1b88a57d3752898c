"""Clients that are silent, many, leave in the middle, or meet a fault of ours; and the end of the agent meanwhile."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import pytest

import pageantry
from pageantry import framing, server
from pageantry.constraints import Confirm
from pageantry.errors import Disconnected
from pageantry.extensions import ADD_PPK
from pageantry.keyring import Keyring, locking
from pageantry.keys import ppk, signatures
from pageantry.messages import (
    MAX_MESSAGE,
    AddIdentity,
    AddIdentityConstrained,
    Extension,
    Failure,
    IdentitiesAnswer,
    Lock,
    RequestIdentities,
    SignRequest,
    SignResponse,
    Success,
    Unlock,
    frame,
)
from pageantry.prompts import Person
from pageantry.wire import Writer

from ..exposure.upstream import connected, hung_up, wait_for
from ..hosts import ed25519_key
from .people import PHRASE, Thinker, asked, reply, serves_others
from .requests import KEY

SIGN = SignRequest(KEY.public.blob, b"data")
ENCRYPTED = ed25519_key(3)


def add_encrypted() -> Extension:
    file = ppk.write(ENCRYPTED, "encrypted", PHRASE, 2)
    return Extension(ADD_PPK, bytes(Writer().string(file)))


def test_silent_clients_hold_nobody_up(address: str) -> None:
    with contextlib.ExitStack() as stack:
        for _ in range(20):
            silent = stack.enter_context(connected(address))
            silent.sendall(b"\0\0")
        serves_others(address)


def test_hundreds_of_connections_of_one_process_are_all_answered(address: str, keyring: Keyring) -> None:
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(connected(address)) for _ in range(300)]
        assert asked(clients[0], AddIdentity(KEY, "me")) == Success()
        for client in clients:
            client.sendall(frame(RequestIdentities().payload()) + frame(SIGN.payload()))
        for client in clients:
            assert reply(client) == IdentitiesAnswer(((KEY.public.blob, b"me"),))
            signed = reply(client)
            assert isinstance(signed, SignResponse)
            signatures.verify(KEY.public, signed.signature, b"data")
        assert len(keyring._common.views) == 300
    wait_for(lambda: not keyring._common.views, "some are still served")


def test_a_question_ends_when_its_client_leaves(address: str, keyring: Keyring, thinker: Thinker) -> None:
    keyring.add(KEY, "me", [Confirm()])
    with connected(address) as client:
        client.sendall(frame(SIGN.payload()))
        wait_for(lambda: thinker.questions, "nobody was asked")
        serves_others(address)
    wait_for(lambda: thinker.interruptions, "it is still asked")
    assert isinstance(thinker.interruptions[0], Disconnected)
    wait_for(lambda: not keyring._common.views, "the client is still served")
    thinker.answer.set()
    with connected(address) as client:
        assert isinstance(asked(client, SIGN), SignResponse)


def test_one_that_waits_for_another_s_question_may_leave(address: str, keyring: Keyring, thinker: Thinker) -> None:
    sign = SignRequest(ENCRYPTED.public.blob, b"data")
    with connected(address) as first:
        assert asked(first, add_encrypted()) == Success()
        first.sendall(frame(sign.payload()))
        wait_for(lambda: thinker.questions, "nobody was asked")
        for _ in range(10):
            with connected(address) as other:
                other.sendall(frame(sign.payload()))
        wait_for(lambda: len(keyring._common.views) == 1, "those that left are still served")
        thinker.answer.set()
        assert isinstance(reply(first), SignResponse)
    assert len(thinker.questions) == 1


def test_one_that_closes_its_sending_half_is_answered_all_the_same(
    address: str, keyring: Keyring, thinker: Thinker
) -> None:
    keyring.add(KEY, "me", [Confirm()])
    with connected(address) as client:
        if not isinstance(client, socket.socket):
            pytest.skip("a pipe cannot be closed in one direction alone")
        client.sendall(frame(SIGN.payload()))
        client.shutdown(socket.SHUT_WR)
        wait_for(lambda: thinker.questions, "nobody was asked")
        thinker.answer.set()
        assert isinstance(reply(client), SignResponse)
        assert hung_up(client)


def test_questions_of_many_clients_end_with_them(address: str, keyring: Keyring, thinker: Thinker) -> None:
    keyring.add(KEY, "me", [Confirm()])
    with contextlib.ExitStack() as stack:
        for _ in range(40):
            client = stack.enter_context(connected(address))
            client.sendall(frame(SIGN.payload()))
        wait_for(lambda: thinker.questions, "nobody was asked")
        serves_others(address)
    wait_for(lambda: not keyring._common.views, "some are still served")
    assert len(thinker.questions) < 40  # those that left were not asked for


#: Another process, which connects so often, sends something each time until nobody reads it, and stays.
_HOSTILE = """
import socket, sys
address, times, data = sys.argv[1], int(sys.argv[2]), bytes.fromhex(sys.argv[3])
connections = []
for _ in range(times):
    one = socket.socket(socket.AF_UNIX)
    one.connect(address)
    one.setblocking(False)
    try:
        for _ in range(10_000):
            one.send(data)
    except OSError:
        pass  # nobody reads it, or has hung up
    connections.append(one)
print("all have sent", flush=True)
sys.stdin.read()
"""


@contextlib.contextmanager
def hostile(address: str, times: int, data: bytes) -> Iterator[None]:
    if sys.platform == "win32":
        pytest.skip("what is hostile comes through a UNIX socket")
    command = [sys.executable, "-c", _HOSTILE, address, str(times), data.hex()]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout
        assert process.stdout.readline() == b"all have sent\n"
        yield
        process.communicate(timeout=30)


def test_guesses_by_the_thousand_keep_nobody_from_unlocking(address: str, keyring: Keyring) -> None:
    with connected(address) as owner:
        assert asked(owner, Lock(b"right")) == Success()
        with hostile(address, 50, frame(Unlock(b"wrong").payload())):
            wait_for(lambda: keyring._common.locking._wrong, "nobody has guessed")
            assert asked(owner, Unlock(b"right")) == Success()
            serves_others(address)


def test_guessers_who_leave_are_forgotten(address: str, keyring: Keyring, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locking, "PENALTY", 2.0)
    with connected(address) as owner:
        assert asked(owner, Lock(b"right")) == Success()
        with hostile(address, 3, frame(Unlock(b"wrong").payload())):
            wait_for(lambda: keyring._common.locking._wrong, "nobody has guessed")
        wait_for(lambda: len(keyring._common.views) == 1, "the guessers are still served")
        assert asked(owner, Unlock(b"right")) == Success()
    serves_others(address)


def test_a_process_that_keeps_all_connections_busy_takes_none_from_others(
    address: str, keyring: Keyring, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "MAX_CONNECTIONS", 20)
    list_ = frame(RequestIdentities().payload())
    with connected(address) as mine:
        assert asked(mine, AddIdentity(KEY, "x" * 1_000)) == Success()  # and it is idle from here on
        with hostile(address, 40, list_), hostile(address, 5, list_):
            for _ in range(10):
                serves_others(address)
            assert isinstance(asked(mine, SIGN), SignResponse)
    assert "there is no room for all clients: one was hung up on for another" in said
    wait_for(lambda: not keyring._common.views, "some are still served")


def test_long_messages_that_never_end_keep_nobody_from_sending_theirs(
    address: str, keyring: Keyring, said: list[str]
) -> None:
    keyring.add(KEY)
    with hostile(address, 100, MAX_MESSAGE.to_bytes(4, "big")), connected(address) as mine:
        wait_for(lambda: len(keyring._common.views) <= framing._MAX_LARGE + 1, "none was hung up on")
        began = time.monotonic()
        assert isinstance(asked(mine, SignRequest(KEY.public.blob, bytes(200_000))), SignResponse)
        assert time.monotonic() - began < 10
    assert any("more than 64 long messages of one process" in line for line in said)
    wait_for(lambda: not framing._large, "some are still waited for")
    serves_others(address)


FAULTS = [
    MemoryError(),
    RecursionError("SECRET"),
    OverflowError("SECRET"),
    UnicodeEncodeError("utf-8", "SECRET", 0, 1, "SECRET"),
    ZeroDivisionError("SECRET"),
    OSError(12, "SECRET"),
    RuntimeError("SECRET\nSECRET"),
    KeyError("SECRET"),
    AssertionError("SECRET"),
]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: type(fault).__name__)
def test_a_fault_of_ours_is_a_failure_and_a_line_without_secrets(
    address: str, keyring: Keyring, said: list[str], fault: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def faulty(*_: object) -> bytes:
        raise fault

    keyring.add(KEY)
    with connected(address) as client:
        with monkeypatch.context() as patched:
            patched.setattr(Keyring, "_signature", faulty)
            for _ in range(2):
                assert asked(client, SIGN) == Failure()
        assert isinstance(asked(client, SIGN), SignResponse)
    lines = [line for line in said if "fault of this program" in line]
    assert len(lines) == 2
    assert type(fault).__name__ in lines[0]
    assert "pageantry.keyring.memory:" in lines[0]
    assert "SECRET" not in " ".join(said)


def test_what_is_10_000_deep_is_no_harm(address: str) -> None:
    deep = b"-----BEGIN OPENSSH PRIVATE KEY-----\n" * 5_000
    nested = b"\0" * 4
    for _ in range(10_000):
        nested = len(nested).to_bytes(4, "big") + nested
    with connected(address) as client:
        for file in (deep, nested, b"-----BEGIN RSA PRIVATE KEY-----\n", b"PuTTY-User-Key-File-3: ssh-rsa\n" * 5_000):
            assert asked(client, Extension(ADD_PPK, bytes(Writer().string(file)))) != Success()
        assert asked(client, b"\x19" + nested) == Failure()
    serves_others(address)


def test_files_that_openssl_would_read_for_minutes_are_not_read(address: str) -> None:
    from base64 import encodebytes

    numbers = b"".join(b"\2\x82\x30\0" + bytes((0x7F,)) + b"\xff" * 0x2FFF for _ in range(8))
    sequence = b"\2\1\0" + numbers
    der = b"\x30\x83" + len(sequence).to_bytes(3, "big") + sequence
    file = b"-----BEGIN RSA PRIVATE KEY-----\n" + encodebytes(der) + b"-----END RSA PRIVATE KEY-----\n"
    with connected(address) as client:
        began = time.monotonic()
        assert asked(client, Extension(ADD_PPK, bytes(Writer().string(file)))) != Success()
        assert time.monotonic() - began < 10
    serves_others(address)


# The end


@pytest.mark.parametrize("who", ["server", "keyring"])
def test_closing_ends_questions_penalties_and_silence_within_seconds_and_leaves_nothing(
    who: str, leaves_nothing: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locking, "PENALTY", 60.0)
    monkeypatch.setattr(locking, "MAX_PENALTY", 60.0)
    monkeypatch.setattr(locking, "_SCRYPT", {"n": 2, "r": 8, "p": 1, "dklen": 32})

    def serve() -> None:
        thinker = Thinker()
        keyring = Keyring(Person([thinker]))
        exposure = pageantry.exposed(keyring)
        with keyring, exposure as address, contextlib.ExitStack() as stack:
            silent, half, asking, guessing = (stack.enter_context(connected(address)) for _ in range(4))
            assert asked(silent, AddIdentityConstrained(KEY, "me", (Confirm(),))) == Success()
            half.sendall(b"\0\0\0\x09\x0b")
            asking.sendall(frame(SIGN.payload()))
            wait_for(lambda: thinker.questions, "nobody was asked")
            began = time.monotonic()
            if who == "keyring":  # which also lets go of whoever is punished
                assert asked(silent, Lock(b"right")) == Success()
                guessing.sendall(frame(Unlock(b"wrong").payload()))
                wait_for(lambda: keyring._common.locking._wrong, "nobody has guessed")
                keyring.close()
                assert reply(asking) == reply(guessing) == Failure()
            exposure.close()
            assert time.monotonic() - began < 15
            assert all(map(hung_up, (silent, half, asking, guessing)))

    leaves_nothing(serve, 2)


def test_clients_of_every_unpleasant_kind_leave_nothing(
    leaves_nothing: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    thinker = Thinker()
    thinker.answer.set()
    keyring = Keyring(Person([thinker]))
    exposure = pageantry.exposed(keyring)
    with keyring, exposure as address:

        def visit() -> None:
            for data in (b"", b"\0", b"\0\0\0\0", b"\xff" * 4, frame(b"\x0b") * 50, b"\0\0\0\x05\x0b", frame(b"\xff")):
                for _ in range(5):
                    with connected(address) as client:
                        client.sendall(data)
            with connected(address) as client:
                asked(client, AddIdentityConstrained(KEY, "me", (Confirm(),)))
                assert isinstance(asked(client, SIGN), SignResponse)
                asked(client, add_encrypted())
                assert isinstance(asked(client, SignRequest(ENCRYPTED.public.blob, b"data")), SignResponse)
            wait_for(lambda: not keyring._common.views, "somebody is still served")

        leaves_nothing(visit)
