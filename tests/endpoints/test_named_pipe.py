"""Agents on named pipes. What Windows may say is injected everywhere; what real pipes do is tried on Windows."""

from __future__ import annotations

import errno
import sys
from collections.abc import Callable, Iterator

import pytest

from pageantry import winpipe
from pageantry.endpoints import named_pipe, parse
from pageantry.errors import Unreachable

MYSELF, STRANGER = "S-1-5-21-1-2-3-1001", "S-1-5-21-1-2-3-1002"


def refused(name: str = "agent", timeout: float = 0.2) -> Unreachable:
    with pytest.raises(Unreachable) as caught:
        named_pipe.connect(name, timeout)
    assert caught.value.hint
    assert "\n" not in str(caught.value) + caught.value.hint
    return caught.value


@pytest.mark.parametrize(
    ("error", "what", "hint"),
    [
        (FileNotFoundError(), r"no agent serves \\.\pipe\agent", "start"),
        (TimeoutError(), r"\\.\pipe\agent took no client for 0.2 s", "restart"),
        (PermissionError(errno.EACCES, "no"), r"you may not connect to \\.\pipe\agent", "another user's"),
        (ValueError("it is a pipe of another computer"), "a pipe of another computer", "correct"),
        (OSError(errno.EIO, "the disk is on fire"), r"cannot connect to \\.\pipe\agent: the disk is on fire", "check"),
        (OSError(errno.ENOSYS, "no pipes"), "only Windows has those", "unix:PATH"),
    ],
)
def test_every_failure_is_told_with_what_to_do(
    monkeypatch: pytest.MonkeyPatch, error: Exception, what: str, hint: str
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(winpipe, "connect", fail)
    told = refused()
    assert what in str(told)
    assert hint in told.hint


def test_a_pipe_of_somebody_elses_is_named_with_its_owner_and_process(monkeypatch: pytest.MonkeyPatch) -> None:
    class Squatter(winpipe.Peer):
        account = "PC\\mallory"
        program = "C:\\evil.exe"

    def fail(*_: object) -> None:
        raise winpipe.Untrusted("\\\\.\\pipe\\agent", Squatter(666, STRANGER))

    monkeypatch.setattr(winpipe, "connect", fail)
    told = refused()
    for part in ("PC\\mallory", "not to you", "C:\\evil.exe", "666"):
        assert part in str(told)
    assert "nothing was sent" in told.hint


@pytest.mark.parametrize(
    ("name", "trusted"),
    [
        ("pageant.me.0123", ()),
        ("PAGEANT.me.0123", ()),
        (named_pipe.OPENSSH, (winpipe.SYSTEM, winpipe.ADMINISTRATORS)),
        ("agent", (winpipe.SYSTEM, winpipe.ADMINISTRATORS)),
    ],
)
def test_pageant_must_be_our_own_and_others_may_be_the_systems(
    monkeypatch: pytest.MonkeyPatch, name: str, trusted: tuple[str, ...]
) -> None:
    asked: list[tuple[str, ...]] = []

    def connect(name: str, timeout: float, trust: tuple[str, ...]) -> None:
        asked.append(trust)

    monkeypatch.setattr(winpipe, "connect", connect)
    named_pipe.connect(name, 1)
    assert asked == [trusted]


@pytest.mark.parametrize(("name", "tries"), [(named_pipe.OPENSSH, 4), ("agent", 1), ("pageant.me.0123", 1)])
def test_only_openssh_s_pipe_is_looked_for_again_and_not_for_ever(
    monkeypatch: pytest.MonkeyPatch, name: str, tries: int
) -> None:
    looks: list[str] = []

    def absent(name: str, *_: object) -> bool:
        looks.append(name)
        raise FileNotFoundError(name)

    monkeypatch.setattr(winpipe, "connect", absent)
    monkeypatch.setattr(winpipe, "listening", absent)
    monkeypatch.setattr(winpipe, "exists", absent)
    refused(name)
    for check in (named_pipe.check_presence, named_pipe.check_listening):
        with pytest.raises(Unreachable):
            check(name)
    assert len(looks) == 3 * tries


def test_what_to_start_depends_on_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(winpipe, "exists", lambda name: False)
    for name, hint in ((named_pipe.OPENSSH, "Start-Service ssh-agent"), ("pageant.me.0", "Pageant"), ("x", "address")):
        with pytest.raises(Unreachable) as caught:
            named_pipe.check_presence(name)
        assert hint in caught.value.hint


class Opened:
    """A pipe that was opened, whose server is the next of `pids`; None stands for none that can be reached."""

    def __init__(self, pids: list[int | None]) -> None:
        pid = pids.pop(0)
        if pid is None:
            raise FileNotFoundError
        self.peer = winpipe.Peer(pid, MYSELF)

    def close(self) -> None:
        pass


@pytest.mark.parametrize(
    ("pids", "servers"), [([1, 1], [1]), ([2, 1], [1, 2]), ([2, 3], [1, 2, 3]), ([None], [1]), ([2, None], [1, 2])]
)
def test_several_servers_are_told_apart_by_a_few_looks(
    monkeypatch: pytest.MonkeyPatch, pids: list[int | None], servers: list[int]
) -> None:
    monkeypatch.setattr(winpipe, "connect", lambda *_: Opened(pids))
    found = named_pipe.servers(named_pipe.OPENSSH, 1, 0.1)
    assert [peer.pid for peer in found] == servers
    assert pids == []


if sys.platform == "win32":
    import contextlib
    import os
    import threading
    import time

    from pageantry import Client, PublicKey
    from pageantry.errors import DeadlineExceeded, Disconnected
    from pageantry.messages import IdentitiesAnswer, frame

    ED25519 = PublicKey(b"\0\0\0\x0bssh-ed25519\0\0\0\x20" + bytes(range(32)))
    LIST = frame(IdentitiesAnswer(((ED25519.blob, b"me"),)).payload())
    MINE = f"pageantry-test-{os.getpid()}"
    Script = Callable[[winpipe.Pipe], object]

    @pytest.fixture
    def serve() -> Iterator[Callable[[Script], str]]:
        """Serve one client of a pipe with a script; the pipe's address."""
        started: list[tuple[winpipe.Listener, threading.Thread]] = []

        def start(script: Script) -> str:
            name = f"{MINE}-{len(started)}"
            listener = winpipe.listen(name)

            def run() -> None:
                try:
                    with listener.accept() as pipe:
                        script(pipe)
                except OSError:
                    pass

            thread = threading.Thread(target=run)
            thread.start()
            started.append((listener, thread))
            return f"pipe:{name}"

        yield start
        for listener, thread in started:
            listener.close()
            thread.join(10)
            assert not thread.is_alive()

    def opened(address: str, timeout: float | None = 10) -> Client:
        agent = parse(address).open(timeout)
        assert isinstance(agent, Client)
        return agent

    def test_an_agent_answers_over_a_pipe(serve: Callable[[Script], str]) -> None:
        received: list[bytes] = []

        def script(pipe: winpipe.Pipe) -> None:
            while request := pipe.recv(100):
                received.append(request)
                pipe.sendall(LIST)

        with opened(serve(script)) as agent:
            assert agent.identities() == agent.identities()
        assert received[:2] == [frame(b"\x0b"), frame(b"\x0b")]  # each in one piece

    def test_a_long_request_arrives_whole(serve: Callable[[Script], str]) -> None:
        sizes: list[int] = []

        def script(pipe: winpipe.Pipe) -> None:
            missing = 200_000
            while missing:
                missing -= len(pipe.recv(1024 * 1024))
            sizes.append(missing)
            pipe.sendall(frame(b"\x05"))

        with opened(serve(script)) as agent:
            assert agent.request(bytes(200_000 - 4)) == b"\x05"
        assert sizes == [0]

    def test_a_long_reply_in_small_pieces_is_put_together(serve: Callable[[Script], str]) -> None:
        many = IdentitiesAnswer(tuple((ED25519.blob, b"x" * 44) for _ in range(2540))).payload()
        assert len(many) > 256_000

        def script(pipe: winpipe.Pipe) -> None:
            pipe.recv(100)
            reply = frame(many)
            for start in range(0, len(reply), 7):
                pipe.sendall(reply[start : start + 7])

        with opened(serve(script), timeout=60) as agent:
            assert len(agent.identities()) == 2540

    @pytest.mark.parametrize("sent", [b"", LIST[:2], LIST[:20]])
    def test_a_server_that_goes_away_in_the_middle_is_said(serve: Callable[[Script], str], sent: bytes) -> None:
        def script(pipe: winpipe.Pipe) -> None:
            pipe.recv(100)
            pipe.sendall(sent)

        with opened(serve(script)) as agent, pytest.raises(Disconnected, match="hung up"):
            agent.identities()

    def test_a_server_that_never_answers_is_given_up_at_the_deadline(serve: Callable[[Script], str]) -> None:
        with opened(serve(lambda pipe: (pipe.recv(100), pipe.recv(1))), timeout=0.3) as agent:
            start = time.monotonic()
            with pytest.raises(DeadlineExceeded):
                agent.identities()
            assert time.monotonic() - start < 5

    def test_closing_ends_a_request_that_another_thread_has_under_way(serve: Callable[[Script], str]) -> None:
        asked = threading.Event()
        ended: list[Disconnected] = []

        def script(pipe: winpipe.Pipe) -> None:
            pipe.recv(100)
            asked.set()
            pipe.recv(1)

        agent = opened(serve(script), timeout=60)

        def ask() -> None:
            try:
                agent.identities()
            except Disconnected as error:
                ended.append(error)

        thread = threading.Thread(target=ask)
        thread.start()
        assert asked.wait(10)
        agent.close()
        thread.join(10)
        assert len(ended) == 1

    def test_a_squatter_is_sent_nothing(serve: Callable[[Script], str], monkeypatch: pytest.MonkeyPatch) -> None:
        received: list[bytes] = []
        address = serve(lambda pipe: received.append(pipe.recv(100)))
        monkeypatch.setattr("pageantry.winpipe._windows.user", lambda: STRANGER)  # so the pipe's owner is another
        with pytest.raises(Unreachable, match="not to you"):
            opened(address)
        monkeypatch.undo()
        deadline = time.monotonic() + 10
        while not received:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert received == [b""]

    def test_nothing_there() -> None:
        start = time.monotonic()
        assert "no agent serves" in str(refused("pageantry-test-none"))
        assert time.monotonic() - start < 2

    def test_a_pipe_that_is_busy_for_ever_ends_at_the_deadline() -> None:
        name = f"{MINE}-busy"
        with winpipe.listen(name), contextlib.ExitStack() as stack:
            for _ in range(winpipe.BACKLOG):  # nobody accepts them
                stack.enter_context(winpipe.connect(name))
            start = time.monotonic()
            assert "took no client for 0.2 s" in str(refused(name))
            assert 0.2 <= time.monotonic() - start < 5
            named_pipe.check_presence(name)
            with pytest.raises(Unreachable, match="took no client"):
                named_pipe.check_listening(name)

    @pytest.mark.parametrize("name", ["J. Smith@work", "x" * 60, "Ünï cödé", "Жук 漢字"])
    def test_a_name_may_have_what_users_names_have(name: str) -> None:
        with winpipe.listen(f"{MINE}-{name}") as listener:
            pipe = named_pipe.connect(f"{MINE.upper()}-{name}", 1)
            with listener.accept() as peer:
                pipe.sendall(b"x")
                assert peer.recv(1) == b"x"
            pipe.close()
