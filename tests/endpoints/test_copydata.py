"""Agents behind a window, in processes of their own: what they may do, and what is given back after it."""

from __future__ import annotations

import _thread
import contextlib
import ctypes
import gc
import json
import mmap
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import pytest

from pageantry import Client, winpipe
from pageantry.endpoints import window
from pageantry.endpoints.window import MAX_FRAME
from pageantry.errors import BadReply, DeadlineExceeded, Disconnected, Unreachable
from pageantry.messages import IdentitiesAnswer, frame

if sys.platform != "win32":
    pytest.skip("windows are on Windows", allow_module_level=True)

from ctypes import wintypes

from pageantry.endpoints import _copydata

FAKE = str(Path(__file__).with_name("fake_window.py"))
STRANGER = "S-1-5-21-1-2-3-1002"
ED25519 = b"\0\0\0\x0bssh-ed25519\0\0\0\x20" + bytes(range(32))
LIST = frame(IdentitiesAnswer(((ED25519, b"me"),)).payload())
REQUEST = frame(b"\x0b")


def wait_for(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def workers() -> int:
    """How many threads there are that `threading` knows nothing of."""
    return _thread._count() - (threading.active_count() - 1)


class Fake:
    """An agent behind a window, in a process of its own."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self._lines: SimpleQueue[str] = SimpleQueue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        for line in self.process.stdout or ():
            self._lines.put(line)

    def said(self) -> dict[str, Any]:
        line = json.loads(self._lines.get(timeout=20))
        assert isinstance(line, dict)
        return line

    def go_on(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()


@pytest.fixture
def serve() -> Iterator[Callable[..., Fake]]:
    """Start an agent behind a window (see `fake_window.py`)."""
    if _copydata.windows():
        pytest.skip("an agent of this machine's has Pageant's window")
    with contextlib.ExitStack() as stack:

        def start(*actions: str) -> Fake:
            command = [sys.executable, FAKE, *actions]
            process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            stack.enter_context(process)
            stack.callback(process.kill)
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            return Fake(process)

        yield start
    wait_for(lambda: not _copydata.windows())


def opened(timeout: float | None = 20) -> Client:
    return Client(lambda: window.connect(5), "pageant-window", timeout)


def answer(reply: bytes) -> str:
    return f"answer {reply.hex()}"


def handles() -> int:
    """How many this process has open; always 0 under Wine, where `held` must do."""
    count = wintypes.DWORD()
    kernel32 = ctypes.WinDLL("kernel32")
    assert kernel32.GetProcessHandleCount(wintypes.HANDLE(-1), ctypes.byref(count))
    return count.value


def test_nothing_there() -> None:
    if _copydata.windows():
        pytest.skip("an agent of this machine's has Pageant's window")
    for act in (lambda: window.connect(1), window.check_presence, window.peer):
        with pytest.raises(Unreachable, match="no agent has Pageant's window") as caught:
            act()
        assert "start Pageant" in caught.value.hint


def test_an_agent_answers_through_its_window(serve: Callable[..., Fake]) -> None:
    fake = serve(answer(LIST))
    window.check_presence()
    assert (window.peer().pid, window.peer().sid) == (fake.process.pid, winpipe.user())
    assert window.peer().program.lower() == sys.executable.lower()
    with opened() as agent:
        assert [one.key.blob for one in agent.identities()] == [ED25519]
        assert agent.identities() == agent.identities()


def test_the_memory_is_the_users_alone_and_large_and_has_another_name_each_time(serve: Callable[..., Fake]) -> None:
    fake = serve("keep 1")
    me = winpipe.user()
    names = set()
    for size in (1, 1000, MAX_FRAME - 4):
        request = frame(bytes(size))
        with window.connect(5) as connection:
            connection.settimeout(20)
            connection.sendall(request)
            reply = connection.recv(MAX_FRAME)
        seen = fake.said()
        assert (seen["size"], seen["length"], reply) == (MAX_FRAME, len(request), request)
        owner, _, entries = seen["security"].partition("D:")
        assert owner == f"O:{me}"
        assert entries.count("(") == 1
        assert entries.startswith("P(A;;")
        assert entries.endswith(f";;;{me})")
        names.add(seen["name"])
    assert len(names) == 3
    assert all(name.startswith("PageantRequest") for name in names)


@pytest.mark.parametrize(
    ("action", "error", "what"),
    [
        ("keep 0", Disconnected, "gave no answer"),
        ("keep -1", Disconnected, "gave no answer"),
        ("keep 1", BadReply, "message of type 11"),
        ("answer 000000050cffffffff", BadReply, "broken list"),
        ("answer 00000000", BadReply, "a reply of 0 bytes; it can be 1 to 262140"),
        ("answer 0003fffd0c", BadReply, "a reply of 262141 bytes"),
        ("answer ffffffff0c", BadReply, "a reply of 4294967295 bytes"),
        ("die", Disconnected, "hung up"),
    ],
)
def test_what_no_agent_may_answer_is_told(
    serve: Callable[..., Fake], action: str, error: type[Exception], what: str
) -> None:
    serve(action)
    start = time.monotonic()
    with opened() as agent, pytest.raises(error, match=what) as caught:
        agent.identities()
    assert "\n" not in str(caught.value)
    assert time.monotonic() - start < 15


def test_the_largest_reply_is_read(serve: Callable[..., Fake]) -> None:
    serve("answer 0003fffc0c")
    with window.connect(5) as connection:
        connection.settimeout(20)
        connection.sendall(REQUEST)
        reply = b""
        while len(reply) < MAX_FRAME:
            reply += connection.recv(65536)
    assert reply == b"\0\3\xff\xfc\x0c" + bytes(MAX_FRAME - 5)


def test_an_agent_that_hangs_is_given_up_and_does_not_find_what_waited_behind_it(
    serve: Callable[..., Fake],
) -> None:
    fake = serve(f"wait {LIST.hex()}", "keep 1", answer(LIST))
    first, second = opened(0.5), opened(0.5)
    for agent in (first, second):
        start = time.monotonic()
        with pytest.raises(DeadlineExceeded):
            agent.identities()
        assert time.monotonic() - start < 10
    assert fake.said() == {"waiting": True}
    fake.go_on()
    assert fake.said()["gone"]  # the first one's; and the second one's is not there for the agent to find, either
    with first, second:
        with contextlib.suppress(BadReply, Disconnected):  # where the system does not call back what was given up
            first.identities()
        assert len(second.identities()) == 1


def test_an_agent_may_take_its_time_while_a_person_is_asked(serve: Callable[..., Fake]) -> None:
    fake = serve(f"wait {LIST.hex()}")
    timer = threading.Timer(7, fake.go_on)  # Windows says of a window that it hangs after five seconds
    timer.start()
    with opened(60) as agent:
        assert len(agent.identities()) == 1
    timer.join()


def test_several_threads_get_each_its_own_replies(serve: Callable[..., Fake]) -> None:
    serve("keep 1")
    wrong: list[bytes] = []

    def ask(number: int) -> None:
        with window.connect(5) as connection:
            connection.settimeout(60)
            for turn in range(25):
                request = frame(bytes([number, turn]) * 1000)
                connection.sendall(request)
                reply = b""
                while len(reply) < len(request):
                    reply += connection.recv(65536)
                if reply != request:
                    wrong.append(reply)

    workers = [threading.Thread(target=ask, args=(number,)) for number in range(8)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
        assert not worker.is_alive()
    assert wrong == []


def test_an_agent_that_was_restarted_is_found_again(serve: Callable[..., Fake]) -> None:
    fake = serve(answer(LIST))
    with opened() as agent:
        assert len(agent.identities()) == 1
        fake.process.kill()
        fake.process.wait(20)
        wait_for(lambda: not _copydata.windows())
        with pytest.raises(Disconnected, match="its window is gone"):
            agent.identities()
        with pytest.raises(Unreachable, match="no agent has Pageant's window"):
            agent.identities()
        serve(answer(LIST))
        assert len(agent.identities()) == 1


def others(monkeypatch: pytest.MonkeyPatch, *pids: int, sid: str | None = STRANGER) -> None:
    """Let these processes be another user's, or not tell whose they are."""
    user = winpipe.user

    def of(pid: int | None = None) -> str:
        if pid in pids and sid is None:
            raise PermissionError
        return STRANGER if pid in pids else user(pid)

    monkeypatch.setattr(winpipe, "user", of)


@pytest.mark.parametrize(("sid", "what"), [(STRANGER, f"which {STRANGER} runs, not you"), (None, "does not say")])
def test_a_window_of_somebody_elses_is_named_and_sent_nothing(
    serve: Callable[..., Fake], monkeypatch: pytest.MonkeyPatch, sid: str | None, what: str
) -> None:
    fake = serve("keep 1")
    others(monkeypatch, fake.process.pid, sid=sid)
    window.check_presence()
    for act in (opened, window.peer):
        with pytest.raises(Unreachable, match=what) as caught:
            act()
        assert str(fake.process.pid) in str(caught.value)
        assert "python.exe" in str(caught.value)
        assert "nothing was sent" in caught.value.hint
    monkeypatch.undo()
    with opened() as agent:
        agent.request(b"\x0b")
    assert fake.said()["request"] == REQUEST.hex()  # the first thing that it ever got
    assert fake.process.poll() is None


def test_behind_somebody_elses_window_our_own_is_found(
    serve: Callable[..., Fake], monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(2):
        serve(answer(LIST))
    first, second = (pid for _, pid in _copydata.windows())
    assert window.peer().pid == first
    others(monkeypatch, first)
    assert window.peer().pid == second
    with opened() as agent:
        assert len(agent.identities()) == 1
    others(monkeypatch, first, second)
    with pytest.raises(Unreachable, match="not you"):
        opened()


def test_a_window_for_messages_alone_is_found_behind_the_others(serve: Callable[..., Fake]) -> None:
    hidden = serve("hidden", answer(LIST))
    assert window.peer().pid == hidden.process.pid
    with opened() as agent:
        assert len(agent.identities()) == 1
    shown = serve(answer(LIST))
    assert window.peer().pid == shown.process.pid


def test_a_name_that_is_taken_is_left_to_who_has_it(
    serve: Callable[..., Fake], monkeypatch: pytest.MonkeyPatch
) -> None:
    serve("keep 1")
    kernel32 = ctypes.WinDLL("kernel32")
    kernel32.CreateEventW.restype = wintypes.HANDLE
    taken = mmap.mmap(-1, MAX_FRAME, tagname=f"PageantRequest{b'a'.hex()}")
    event = kernel32.CreateEventW(None, True, False, f"PageantRequest{b'b'.hex()}")  # means no memory at all
    try:
        names = iter([b"a", b"b", b"c", b"a", b"a", b"a"])
        monkeypatch.setattr(_copydata, "urandom", lambda size: next(names))
        with opened() as agent:
            assert agent.request(b"\x0d") == b"\x0d"
            count = handles()
            with pytest.raises(Disconnected, match="names of our requests"):
                agent.request(b"\x0d")
        assert handles() <= count
        assert taken.read() == bytes(MAX_FRAME)
    finally:
        taken.close()
        kernel32.CloseHandle(wintypes.HANDLE(event))


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How much of each kind `_copydata` has not given back."""
    counts: Counter[str] = Counter()

    def watch(kind: str, take: str, give: str) -> None:
        taking, giving = getattr(_copydata, take), getattr(_copydata, give)
        ours = set()

        def taken(*arguments: object) -> object:
            got = taking(*arguments)
            if got:
                counts[kind] += 1
                ours.add(got)
            return got

        def given(what: object) -> object:
            if what in ours:
                ours.discard(what)
                counts[kind] -= 1
            return giving(what)

        monkeypatch.setattr(_copydata, take, taken)
        monkeypatch.setattr(_copydata, give, given)

    watch("memory", "_CreateFileMapping", "_CloseHandle")
    watch("views", "_MapViewOfFile", "_UnmapViewOfFile")
    watch("processes", "_OpenProcess", "_CloseHandle")
    return counts


def test_nothing_leaks_over_500_requests(serve: Callable[..., Fake], held: Counter[str]) -> None:
    serve(answer(LIST))
    with opened() as agent:
        agent.identities()
    gc.collect()
    begun = handles()
    for _ in range(25):
        with opened() as agent:
            for _ in range(20):
                agent.identities()
    del agent
    gc.collect()
    wait_for(lambda: workers() == 0)
    wait_for(lambda: not any(held.values()))
    assert set(held) == {"memory", "views", "processes"}
    wait_for(lambda: handles() <= begun)


def test_an_interrupt_comes_through_and_everything_is_given_back(
    serve: Callable[..., Fake], held: Counter[str]
) -> None:
    fake = serve(f"wait {LIST.hex()}", answer(LIST))
    with opened(60) as agent:

        def interrupt() -> None:
            assert fake.said() == {"waiting": True}
            _thread.interrupt_main()

        other = threading.Thread(target=interrupt)
        other.start()
        with pytest.raises(KeyboardInterrupt):
            agent.identities()
        other.join()
        fake.go_on()
        assert len(agent.identities()) == 1
    del agent
    wait_for(lambda: workers() == 0)
    gc.collect()
    wait_for(lambda: not any(held.values()))


def test_closing_wakes_who_waits_for_a_window(serve: Callable[..., Fake]) -> None:
    fake = serve(f"wait {LIST.hex()}")
    agent = opened(60)
    ended: list[Disconnected] = []

    def ask() -> None:
        try:
            agent.identities()
        except Disconnected as error:
            ended.append(error)

    thread = threading.Thread(target=ask)
    thread.start()
    assert fake.said() == {"waiting": True}
    agent.close()
    thread.join(10)
    assert len(ended) == 1
    fake.go_on()
