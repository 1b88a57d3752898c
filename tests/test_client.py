"""The client against peers that real agents cannot be made to be: slow, broken, lying."""

from __future__ import annotations

import contextlib
import itertools
import socket
import threading
import time
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pageantry import Client, PublicKey, SignFlags
from pageantry.errors import AgentError, BadReply, DeadlineExceeded, Disconnected, Refused, Unsupported
from pageantry.messages import MAX_MESSAGE, IdentitiesAnswer, SessionBind, SignResponse, frame
from pageantry.wire import Writer

ED25519 = PublicKey(b"\0\0\0\x0bssh-ed25519\0\0\0\x20" + bytes(range(32)))
RSA = PublicKey(bytes(Writer().text("ssh-rsa").mpint(65537).mpint(2**2048 - 1)))
SIGNATURE = bytes(Writer().text("ssh-ed25519").string(bytes(64)))
LIST = frame(IdentitiesAnswer(((ED25519.blob, b"me"),)).payload())

#: What a peer does with one connection: it is given the socket.
Script = Callable[[socket.socket], None]


def void(*_: object) -> None:
    pass


def read_request(peer: socket.socket) -> bytes:
    header = peer.recv(4, socket.MSG_WAITALL)
    return peer.recv(int.from_bytes(header, "big"), socket.MSG_WAITALL) if header else b""


def answer(*replies: bytes) -> Script:
    """Answers one request after the other with these bytes, then hangs up."""

    def script(peer: socket.socket) -> None:
        for reply in replies:
            if not read_request(peer):
                return
            peer.sendall(reply)

    return script


@contextlib.contextmanager
def client(*scripts: Script, timeout: float | None = 5) -> Iterator[Client]:
    """A client whose first connection is served by the first script, its second by the second, …"""
    waiting = list(scripts)
    threads = []

    def connect() -> socket.socket:
        ours, theirs = socket.socketpair()
        script = waiting.pop(0)

        def serve() -> None:
            with theirs, contextlib.suppress(OSError):
                script(theirs)

        threads.append(threading.Thread(target=serve))
        threads[-1].start()
        return ours

    with Client(connect, "unix:/fake", timeout) as made:
        yield made
    for thread in threads:
        thread.join(5)
        assert not thread.is_alive()


def test_a_reply_in_single_bytes_is_put_together() -> None:
    def script(peer: socket.socket) -> None:
        read_request(peer)
        for byte in LIST:
            peer.sendall(bytes((byte,)))
            time.sleep(0.0005)

    with client(script) as agent:
        assert [one.comment for one in agent.identities()] == ["me"]


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(1, len(LIST) - 1), max_size=8))
def test_any_chunking_gives_the_same_list(cuts: list[int]) -> None:
    def script(peer: socket.socket) -> None:
        for _ in range(2):
            read_request(peer)
            edges = [0, *sorted(cuts), len(LIST)]
            for start, end in itertools.pairwise(edges):
                peer.sendall(LIST[start:end])

    with client(script) as agent:
        assert agent.identities() == agent.identities()


def test_a_long_reply_in_small_pieces_takes_no_quadratic_time() -> None:
    many = frame(IdentitiesAnswer(tuple((ED25519.blob, b"x" * 40) for _ in range(2600))).payload())

    def script(peer: socket.socket) -> None:
        read_request(peer)
        for start in range(0, len(many), 7):
            peer.sendall(many[start : start + 7])

    with client(script, timeout=60) as agent:
        assert len(agent.identities()) == 2600


@pytest.mark.parametrize("size", [0, MAX_MESSAGE + 1, 2**31, 2**32 - 1])
def test_a_length_that_cannot_be_is_refused_at_once(size: int) -> None:
    with client(answer(size.to_bytes(4, "big") + b"\x0c")) as agent, pytest.raises(BadReply, match=f"{size} bytes"):
        agent.identities()


def test_an_agent_that_sends_nothing_is_given_up_at_the_deadline() -> None:
    def script(peer: socket.socket) -> None:
        read_request(peer)
        peer.recv(1)

    with client(script, timeout=0.2) as agent:
        start = time.monotonic()
        with pytest.raises(DeadlineExceeded, match=r"0\.2 s") as caught:
            agent.identities()
        assert 0.15 < time.monotonic() - start < 3
        assert caught.value.hint
        assert isinstance(caught.value, TimeoutError)


def test_the_deadline_is_for_the_whole_reply_not_for_each_piece() -> None:
    def script(peer: socket.socket) -> None:
        read_request(peer)
        for byte in LIST:
            peer.sendall(bytes((byte,)))
            time.sleep(0.05)

    with client(script, timeout=0.3) as agent:
        start = time.monotonic()
        with pytest.raises(DeadlineExceeded):
            agent.identities()
        assert time.monotonic() - start < 3


def test_an_agent_that_does_not_read_is_given_up_at_the_deadline() -> None:
    gone = threading.Event()
    with client(lambda _: void(gone.wait(5)), timeout=0.3) as agent:
        with pytest.raises(DeadlineExceeded):
            agent.sign(ED25519, bytes(262_000))  # more than fits into a socket's buffer
        gone.set()


@pytest.mark.parametrize("sent", [b"", LIST[:2], LIST[:4], LIST[:20]])
def test_a_hang_up_in_the_middle_of_a_reply_is_said(sent: bytes) -> None:
    with client(answer(sent)) as agent, pytest.raises(Disconnected, match="hung up"):
        agent.identities()


def test_after_a_broken_reply_the_next_request_has_a_connection_of_its_own() -> None:
    with client(answer(b"\0\0\0\0"), answer(LIST)) as agent:
        with pytest.raises(BadReply):
            agent.identities()
        assert len(agent.identities()) == 1


def test_an_interrupt_leaves_no_reply_behind_for_the_next_request() -> None:
    class Interrupted(BaseException):
        pass

    class Connection:
        def sendall(self, data: bytes) -> None:
            pass

        def recv(self, size: int) -> bytes:
            raise Interrupted

        def settimeout(self, seconds: float | None) -> None:
            pass

        def gettimeout(self) -> float | None:
            return None

        def shutdown(self, how: int) -> None:
            pass

        def close(self) -> None:
            closed.append(self)

    closed: list[Connection] = []
    agent = Client(Connection, "unix:/fake")
    with pytest.raises(Interrupted):
        agent.identities()
    assert len(closed) == 1


def test_a_closed_client_stays_closed() -> None:
    with client(answer(LIST)) as agent:
        agent.identities()
    agent.close()
    with pytest.raises(Disconnected, match="closed"):
        agent.identities()


def test_closing_ends_a_request_that_another_thread_has_under_way() -> None:
    ended: list[BaseException] = []

    def ask(agent: Client) -> None:
        try:
            agent.identities()
        except Disconnected as error:
            ended.append(error)

    with client(lambda peer: void(peer.recv(100), peer.recv(1)), timeout=30) as agent:
        thread = threading.Thread(target=ask, args=(agent,))
        thread.start()
        time.sleep(0.1)
        agent.close()
        thread.join(5)
        assert not thread.is_alive()
    assert len(ended) == 1


def test_waiting_for_another_threads_request_counts_towards_the_deadline() -> None:
    def script(peer: socket.socket) -> None:
        read_request(peer)
        time.sleep(0.4)
        peer.sendall(LIST)
        void(peer.recv(100), peer.recv(1))

    with client(script, timeout=0.6) as agent:
        first = threading.Thread(target=agent.identities)
        first.start()
        time.sleep(0.1)
        start = time.monotonic()
        with pytest.raises(DeadlineExceeded):
            agent.identities()
        assert time.monotonic() - start < 0.9
        first.join()


@pytest.mark.parametrize("timeout", [0, -1, float("nan"), float("inf"), 1e12])
def test_a_timeout_that_is_none_is_refused(timeout: float) -> None:
    with pytest.raises(ValueError, match="timeout"), client(timeout=timeout):
        pass


def test_bytes_behind_a_reply_are_not_taken_for_the_next_one() -> None:
    with client(answer(LIST + frame(b"\x06")), answer(LIST)) as agent:
        assert agent.identities() == agent.identities()


def test_the_success_that_openssh_10_3_sends_after_query_disturbs_nothing() -> None:
    reply = frame(b"\x1d" + bytes(Writer().text("query").text("session-bind@openssh.com"))) + frame(b"\x06")
    with client(answer(LIST), answer(reply), answer(LIST)) as agent:
        agent.identities()
        assert agent.query() == ["session-bind@openssh.com"]
        assert len(agent.identities()) == 1


def test_puttys_form_of_query_reads_like_the_standards() -> None:
    reply = frame(b"\x06" + bytes(Writer().text("query").text("add-ppk@x").text("reencrypt@x")))
    with client(answer(), answer(reply)) as agent:
        assert agent.query() == ["add-ppk@x", "reencrypt@x"]


@pytest.mark.parametrize("reply", [b"", frame(b"\x05"), frame(b"\x1c")])
def test_an_agent_without_query_knows_no_extensions(reply: bytes) -> None:
    with client(answer(), answer(reply), answer(LIST)) as agent:
        assert agent.query() == []
        assert len(agent.identities()) == 1  # a hang-up on the extension is none on this connection


def test_an_extension_that_failed_is_told_from_one_that_is_not_known() -> None:
    with client(answer(), answer(frame(b"\x1c"))) as agent, pytest.raises(Refused):
        agent.extension("known@example.org")
    with client(answer(), answer(frame(b"\x05"))) as agent, pytest.raises(Unsupported):
        agent.extension("unknown@example.org")
    with client(answer(), answer(b"")) as agent, pytest.raises(Unsupported, match="hung up"):
        agent.extension("fatal@example.org")


def test_an_extension_answers_under_its_own_name_only() -> None:
    good = frame(b"\x1d" + bytes(Writer().text("a@b").raw(b"contents")))
    with client(answer(), answer(good)) as agent:
        assert agent.extension("a@b") == b"contents"
    with client(answer(), answer(good)) as agent, pytest.raises(BadReply, match="another name"):
        agent.extension("c@d")


def test_session_bind_stays_on_its_connection_and_is_not_carried_to_another() -> None:
    with client(answer(frame(b"\x06"), LIST, b"\0\0\0\0")) as agent:
        agent.extension(SessionBind.name, SessionBind(b"k", b"id", b"s", False).encode())
        agent.identities()
        with pytest.raises(BadReply):
            agent.identities()
        with pytest.raises(Disconnected, match="bound"):
            agent.identities()


def test_the_success_of_session_bind_that_openssh_for_windows_frames_twice_is_one() -> None:
    with client(answer(frame(frame(b"\x06")), LIST)) as agent:
        assert agent.extension(SessionBind.name, SessionBind(b"k", b"id", b"s", False).encode()) == b""
        assert len(agent.identities()) == 1
    with client(answer(), answer(frame(frame(b"\x06")))) as agent, pytest.raises(BadReply):
        agent.extension("other@example.org")
    with client(answer(frame(frame(b"\x05")))) as agent, pytest.raises(BadReply):
        agent.extension(SessionBind.name)


def test_an_agent_that_serves_one_client_at_a_time_is_asked_for_extensions_all_the_same() -> None:
    opened: list[object] = []

    class Only:
        def __init__(self) -> None:
            assert opened == []
            opened.append(self)

        def sendall(self, data: bytes) -> None:
            pass

        def recv(self, size: int) -> bytes:
            return frame(b"\x05")

        def settimeout(self, seconds: float | None) -> None:
            pass

        def gettimeout(self) -> float | None:
            return None

        def shutdown(self, how: int) -> None:
            pass

        def close(self) -> None:
            opened.remove(self)

    with Client(Only, "openssh") as agent:
        for _ in range(2):
            assert agent.query() == []
            assert agent.request(b"\x0b") == b"\x05"
    assert opened == []


@pytest.mark.parametrize("act", [lambda a: a.remove_all(), lambda a: a.remove(ED25519), lambda a: a.lock(b"x")])
@pytest.mark.parametrize("status", [b"\x05", b"\x06"])
def test_bytes_behind_a_status_are_refused(act: Callable[[Client], None], status: bytes) -> None:
    with client(answer(frame(status + b"more"))) as agent, pytest.raises(BadReply):
        act(agent)


def test_a_status_is_done_or_refused() -> None:
    with client(answer(frame(b"\x06"), frame(b"\x05"), frame(b"\x1c"))) as agent:
        agent.remove_all()
        for _ in range(2):
            with pytest.raises(Refused):
                agent.unlock(b"x")


def test_an_answer_of_another_kind_is_refused() -> None:
    with client(answer(LIST)) as agent, pytest.raises(BadReply, match="type 12"):
        agent.lock(b"x")
    with client(answer(frame(b"\x06"))) as agent, pytest.raises(BadReply, match="type 6"):
        agent.identities()


def test_entries_that_are_no_keys_are_left_out_of_the_list_and_counted() -> None:
    entries = (
        (b"", b"empty"),
        (ED25519.blob, b"good"),
        (b"\0\0\0\x0bssh-ed25519\0\0\0\x20short", b"cut off"),
        (b"\0\0\0\x07ssh-rsa\0\0\0\x01\x80\0\0\0\x01\x01", b"negative"),
        (bytes(Writer().text("ssh-future@example.org").raw(b"?")), b"not known, and kept"),
        (b"\xff\xff\xff\xff", b"lying"),
    )
    with client(answer(frame(IdentitiesAnswer(entries).payload()))) as agent:
        assert [one.comment for one in agent.identities()] == ["good", "not known, and kept"]
        assert agent.unreadable == 4


def test_a_comment_that_is_not_utf_8_survives() -> None:
    reply = frame(IdentitiesAnswer(((ED25519.blob, b"caf\xe9"),)).payload())
    with client(answer(reply)) as agent:
        assert agent.identities()[0].comment.encode("utf-8", "surrogateescape") == b"caf\xe9"


@pytest.mark.parametrize(
    "contents",
    [
        b"",
        b"\0\0\0",
        b"\xff\xff\xff\xff",
        b"\0\0\0\x01",
        b"\0\0\0\x01\xff\xff\xff\xff",
        b"\0\0\0\0more",
        IdentitiesAnswer(((b"k", b"c"),)).payload()[1:-1],
        IdentitiesAnswer(((b"k", b"c"),)).payload()[1:] + b"x",
    ],
)
def test_a_broken_list_is_refused(contents: bytes) -> None:
    with client(answer(frame(b"\x0c" + contents))) as agent, pytest.raises(BadReply, match="list"):
        agent.identities()


def test_as_many_identities_as_a_message_holds_are_listed() -> None:
    entries = tuple((bytes(Writer().text(f"t{number:05}")), b"") for number in range(10_000))
    with client(answer(frame(IdentitiesAnswer(entries).payload()))) as agent:
        assert len(agent.identities()) == 10_000


@pytest.mark.parametrize(
    ("key", "flags", "algorithm"),
    [
        (ED25519, SignFlags.NONE, "ssh-rsa"),
        (RSA, SignFlags.RSA_SHA2_512, "rsa-sha2-256"),
        (RSA, SignFlags.RSA_SHA2_256, "ssh-rsa"),
        (RSA, SignFlags.NONE, "rsa-sha2-512"),
    ],
)
def test_a_signature_of_another_algorithm_than_asked_for_is_refused(
    key: PublicKey, flags: SignFlags, algorithm: str
) -> None:
    signature = bytes(Writer().text(algorithm).string(bytes(256)))
    with client(answer(frame(SignResponse(signature).payload()))) as agent, pytest.raises(BadReply):
        agent.sign(key, b"data", flags)


@pytest.mark.parametrize("signature", [b"", b"\0\0\0\x0bssh-ed25519", SIGNATURE + b"x", SIGNATURE[:-1]])
def test_a_signature_of_another_shape_is_refused(signature: bytes) -> None:
    with client(answer(frame(SignResponse(signature).payload()))) as agent, pytest.raises(BadReply):
        agent.sign(ED25519, b"data")


def test_a_signature_that_does_not_match_is_refused_on_request() -> None:
    reply = frame(SignResponse(SIGNATURE).payload())
    with client(answer(reply, reply)) as agent:
        assert agent.sign(ED25519, b"data") == SIGNATURE
        with pytest.raises(BadReply):
            agent.sign(ED25519, b"data", verify=True)


def test_threads_share_a_client_without_mixing_their_replies() -> None:
    def script(peer: socket.socket) -> None:
        while request := read_request(peer):
            peer.sendall(frame(b"\x1d" + request[1:]))

    failures: list[object] = []

    def ask(agent: Client, number: int) -> None:
        for round_ in range(50):
            payload = b"\x1b" + bytes(Writer().text("echo").text(f"{number} {round_}"))
            if agent.request(payload)[1:] != payload[1:]:
                failures.append((number, round_))

    with client(script) as agent:
        threads = [threading.Thread(target=ask, args=(agent, number)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert failures == []


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200))
def test_whatever_an_agent_sends_gives_a_list_or_an_agent_error(reply: bytes) -> None:
    with client(answer(reply), timeout=1) as agent, contextlib.suppress(AgentError):
        assert isinstance(agent.identities(), list)
