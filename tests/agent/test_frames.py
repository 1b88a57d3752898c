"""Frames that are cut, in pieces, too long, too many, or not read: each gets a reply or a hang-up, and others go on."""

from __future__ import annotations

import socket
import threading

import pytest

from pageantry import framing
from pageantry.constraints import Hop, HostKey, RestrictDestination
from pageantry.extensions import LIST_EXTENDED, REPORT
from pageantry.keyring import Keyring, locking
from pageantry.keys.signatures import Signer
from pageantry.messages import (
    MAX_MESSAGE,
    AddIdentity,
    Extension,
    ExtensionFailure,
    ExtensionResponse,
    Failure,
    IdentitiesAnswer,
    RequestIdentities,
    SignRequest,
    SignResponse,
    Success,
    frame,
)

from ..exposure.upstream import connected, hung_up, hung_up_after_all, received, wait_for
from ..hosts import ed25519_key
from .people import ALICE, Thinker, asked, reply, serves_others
from .requests import KEY, all_requests

REPLIES = (Success, Failure, IdentitiesAnswer, SignResponse, ExtensionFailure, ExtensionResponse)
LIST = RequestIdentities().payload()


@pytest.fixture(autouse=True)
def quick_locks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locking, "_SCRYPT", {"n": 2, "r": 8, "p": 1, "dklen": 32})
    monkeypatch.setattr(locking, "PENALTY", 0.0)


@pytest.mark.parametrize("size", [0, MAX_MESSAGE + 1, 2**31, 2**32 - 1])
@pytest.mark.parametrize("behind", [b"", b"\x0b", bytes(100_000)])
def test_a_length_that_cannot_be_is_hung_up_on(address: str, said: list[str], size: int, behind: bytes) -> None:
    with connected(address) as hostile:
        try:
            hostile.sendall(size.to_bytes(4, "big") + behind)
        except OSError:
            pass  # it was hung up on already
        assert hung_up(hostile)
    wait_for(lambda: said, "nothing was said of it")
    assert said == [f"a client was hung up on: message of {size} bytes announced; it can be 1 to {MAX_MESSAGE}"]
    serves_others(address)


def test_the_shortest_and_the_longest_frame_are_answered(address: str) -> None:
    with connected(address) as client:
        for kind in range(256):
            assert isinstance(asked(client, bytes((kind,))), REPLIES)
            longest = asked(client, bytes((kind,)) + b"\xff" * (MAX_MESSAGE - 1))
            assert longest == Failure() or kind in (9, 27)  # SSH-1's keys are gone; an extension may fail as such
        assert asked(client, LIST) == IdentitiesAnswer(())
        signed = asked(client, SignRequest(KEY.public.blob, bytes(MAX_MESSAGE - 64)))
        assert signed == Failure()
        asked(client, AddIdentity(KEY))
        signed = asked(client, SignRequest(KEY.public.blob, bytes(MAX_MESSAGE - 64)))
        assert isinstance(signed, SignResponse)


@pytest.mark.parametrize("name", all_requests())
def test_a_request_whose_contents_are_cut_anywhere_is_answered(address: str, thinker: Thinker, name: str) -> None:
    thinker.answer.set()
    whole = b"".join(all_requests()[name])
    with connected(address) as client:
        for end in range(1, len(whole)):
            assert isinstance(asked(client, whole[:end]), REPLIES)
        if name != "lock":  # with half of the passphrase
            serves_others(address)


@pytest.mark.parametrize("name", all_requests())
def test_a_connection_that_ends_within_a_request_changes_nothing(address: str, keyring: Keyring, name: str) -> None:
    keyring.add(ALICE)
    whole = frame(b"".join(all_requests()[name]))
    step = max(1, len(whole) // 100)
    for end in range(1, len(whole), step):
        with connected(address) as client:
            client.sendall(whole[:end])
            if isinstance(client, socket.socket):  # pipes cannot be closed in one direction alone
                client.shutdown(socket.SHUT_WR)
                assert hung_up(client)
    wait_for(lambda: not keyring._common.views, "somebody is still served")
    assert [identity.key for identity in keyring.identities()] == [ALICE.public]
    assert not keyring._common.locking.locked


@pytest.mark.parametrize("name", all_requests())
def test_a_request_in_pieces_of_one_byte_is_answered_as_a_whole_one(
    address: str, keyring: Keyring, thinker: Thinker, name: str
) -> None:
    thinker.answer.set()
    request = b"".join(all_requests()[name])
    replies = []
    for pieces in (False, True):
        keyring.forget()
        keyring.add(KEY, "me")
        with connected(address) as client:
            for byte in frame(request) if pieces else ():
                client.sendall(bytes((byte,)))
            replies.append(reply(client) if pieces else asked(client, request))
        if keyring._common.locking.locked:
            keyring.unlock(b"secret")
    assert type(replies[0]) is type(replies[1])
    if name != "report@pageantry":  # which tells the time
        assert replies[0] == replies[1]


def test_thousands_of_requests_at_once_are_answered_in_their_order(address: str, keyring: Keyring) -> None:
    keyring.add(KEY)
    signer = Signer(KEY)
    requests = [
        RequestIdentities() if number % 3 else SignRequest(KEY.public.blob, f"data {number}".encode())
        for number in range(5_000)
    ]
    with connected(address) as client:
        sender = threading.Thread(target=client.sendall, args=(b"".join(frame(one.payload()) for one in requests),))
        sender.start()
        for number, request in enumerate(requests):
            answer = reply(client)
            if isinstance(request, SignRequest):
                assert answer == SignResponse(signer.sign(f"data {number}".encode()))
            else:
                assert answer == IdentitiesAnswer(((KEY.public.blob, b""),))
        sender.join(30)


def test_bytes_behind_the_last_request_are_hung_up_on_when_it_is_answered(address: str) -> None:
    with connected(address) as client:
        client.sendall(frame(LIST) * 3 + b"\xff" * 5)
        assert [reply(client) for _ in range(3)] == [IdentitiesAnswer(())] * 3
        assert hung_up(client)


def test_who_reads_no_replies_is_hung_up_on_and_holds_nobody_up(
    address: str, keyring: Keyring, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(framing, "FRAME_TIMEOUT", 1)
    keyring.add(KEY, "x" * 200_000)
    with connected(address) as greedy:
        greedy.sendall(frame(LIST) * 200)
        serves_others(address)
        wait_for(lambda: not keyring._common.views, "it is still served")
        assert hung_up_after_all(greedy)


def test_bytes_that_drip_buy_no_time(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(framing, "FRAME_TIMEOUT", 1)
    over = threading.Event()

    def drip() -> None:
        try:
            while not over.wait(0.05):
                slow.sendall(b"\0")
        except OSError:
            pass  # it was hung up on

    with connected(address) as slow:
        slow.sendall((MAX_MESSAGE).to_bytes(4, "big"))
        thread = threading.Thread(target=drip)
        thread.start()
        serves_others(address)
        assert hung_up(slow)
        over.set()
        thread.join(30)


def test_a_list_is_as_long_as_it_may_be_and_a_report_that_would_be_longer_fails(address: str, keyring: Keyring) -> None:
    hosts = tuple(HostKey(ed25519_key(seed).public.blob, False) for seed in range(1, 30))
    far = RestrictDestination(tuple((Hop(), Hop("", f"host {number}", hosts)) for number in range(10)))
    for seed in range(1, 41):
        keyring.add(ed25519_key(seed), "x" * 6_000, [far])
    with connected(address) as client:
        listed = asked(client, LIST)
        assert isinstance(listed, IdentitiesAnswer)
        assert len(listed.identities) == 40
        assert asked(client, Extension(REPORT)) == Failure()
        assert isinstance(asked(client, Extension(LIST_EXTENDED)), Success)
        keyring.add(ed25519_key(1000), "y" * (MAX_MESSAGE - len(listed.payload()) - 59))
        client.sendall(frame(LIST))
        assert len(received(client, 4 + MAX_MESSAGE)) == 4 + MAX_MESSAGE
        assert asked(client, Extension(LIST_EXTENDED)) == Failure()
        assert isinstance(asked(client, LIST), IdentitiesAnswer)
