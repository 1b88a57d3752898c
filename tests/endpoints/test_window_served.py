"""Pageant's window, served by us, and clients of all kinds in processes of their own."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pageantry import Client, sessions, winpipe
from pageantry.agent import SignFlags
from pageantry.constraints import Confirm
from pageantry.endpoints import window, window_listener
from pageantry.errors import Error, Refused, Unsupported
from pageantry.keyring import Keyring
from pageantry.keys import signatures
from pageantry.messages import Extension, SessionBind, SignRequest, decode, frame
from pageantry.prompts import Person
from pageantry.server import Server

from ..agent.people import Thinker
from ..exposure.upstream import wait_for
from ..hosts import binding, ed25519_key

if sys.platform != "win32":
    pytest.skip("windows are on Windows", allow_module_level=True)

from ctypes import wintypes

from pageantry.endpoints import _copydata, _window, _window_memory

RAW = str(Path(__file__).with_name("raw_window.py"))
FAKE = str(Path(__file__).with_name("fake_window.py"))
STRANGER = "S-1-5-21-1-2-3-1002"
EVERYBODY = "S-1-1-0"
ALICE, ASKED = ed25519_key(1), ed25519_key(2)
LIST, FAILURE = frame(b"\x0b"), frame(b"\x05")
SLOW = frame(SignRequest(ASKED.public.blob, b"data").payload())

user32 = ctypes.WinDLL("user32", use_last_error=True)
user32.SendMessageTimeoutW.argtypes = (
    wintypes.HWND, wintypes.UINT, wintypes.WPARAM, wintypes.LPARAM, wintypes.UINT, wintypes.UINT, ctypes.c_void_p
)  # fmt: skip
user32.PostMessageW.argtypes = (wintypes.HWND, wintypes.UINT, wintypes.WPARAM, wintypes.LPARAM)
user32.IsWindow.argtypes = (wintypes.HWND,)


class Served:
    """An agent behind the window, with a key, and one that it asks about."""

    def __init__(self) -> None:
        self.person = Thinker()
        self.keyring = Keyring(Person([self.person]))
        self.keyring.add(ALICE, "alice")
        self.keyring.add(ASKED, "asked", [Confirm()])
        self.ended = threading.Semaphore(0)
        try:
            self.listener = window_listener.listen(self.ended.release)
        except Error as error:
            pytest.skip(str(error))
        self.server = Server([self.listener], sessions.to(self.keyring))

    def close(self) -> None:
        self.person.answer.set()
        self.server.close()
        self.keyring.close()


@pytest.fixture
def served() -> Iterator[Served]:
    made = Served()
    try:
        yield made
    finally:
        made.close()
    assert not _copydata.windows()
    assert not [one for one in threading.enumerate() if one.name == "pageantry window"]


class Raw:
    """See `raw_window.py`."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process

    def begin(self, content: bytes = LIST, **how: Any) -> None:
        assert self.process.stdin
        self.process.stdin.write(json.dumps({"content": content.hex(), "owner": winpipe.user(), **how}) + "\n")
        self.process.stdin.flush()

    def result(self) -> dict[str, Any]:
        assert self.process.stdout
        result = json.loads(self.process.stdout.readline())
        assert isinstance(result, dict)
        return result

    def ask(self, content: bytes = LIST, **how: Any) -> dict[str, Any]:
        self.begin(content, **how)
        return self.result()


@pytest.fixture(scope="module")
def raws() -> Iterator[Callable[[int], list[Raw]]]:
    """So many clients, each in a process of its own."""
    with contextlib.ExitStack() as stack:
        made: list[Raw] = []

        def give(count: int) -> list[Raw]:
            made[:] = [one for one in made if one.process.poll() is None]
            fresh: list[Raw] = []
            while len(made) + len(fresh) < count:
                process = subprocess.Popen(
                    [sys.executable, RAW], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
                )
                stack.enter_context(process)
                stack.callback(process.kill)
                fresh.append(Raw(process))
            for one in fresh:
                assert one.process.stdout
                assert one.process.stdout.readline() == "ready\n"
            made.extend(fresh)
            return made[:count]

        yield give


@pytest.fixture
def raw(raws: Callable[[int], list[Raw]]) -> Raw:
    return raws(1)[0]


def lists(result: dict[str, Any]) -> bool:
    return result["returned"] == 1 and bytes.fromhex(result["after"])[4:5] == b"\x0c"


def opened(timeout: float = 30) -> Client:
    return Client(lambda: window.connect(5), "pageant-window", timeout)


# what the window answers


def test_our_own_client_lists_signs_adds_and_removes(served: Served) -> None:
    found = window.peer()
    assert found.sid == winpipe.user()
    other = ed25519_key(3)
    with opened() as agent:
        assert [one.comment for one in agent.identities()] == ["alice", "asked"]
        data = bytes(200_000)
        signatures.verify(ALICE.public, agent.sign(ALICE.public, data, SignFlags.NONE), data)
        agent.add(other, "other")
        assert len(agent.identities()) == 3
        agent.remove(other.public)
        agent.lock(b"x")
        assert agent.identities() == []
        agent.unlock(b"x")
        with pytest.raises(Unsupported):
            agent.extension(SessionBind.name, binding(ALICE, b"1", True))
        with pytest.raises(Refused):
            agent.remove(other.public)


def test_a_request_with_the_threads_name_is_known_and_its_session_stays_bound(served: Served, raw: Raw) -> None:
    assert lists(raw.ask())
    assert lists(raw.ask())
    (one,) = served.server._served
    peer = getattr(one.frames.connection, "peer", None)
    assert isinstance(peer, winpipe.Peer)
    assert (peer.pid, peer.sid) == (raw.process.pid, winpipe.user())
    assert peer.program.lower() == sys.executable.lower()
    bind = frame(Extension(SessionBind.name, binding(ALICE, b"1", True)).payload())
    assert raw.ask(bind)["after"].startswith("0000000106")
    assert raw.ask(bind, name="PageantRequest-x")["after"].startswith(FAILURE.hex())
    name = f"PageantRequest{threading.get_native_id():08x}"  # it can say that it is a thread of ours, which binds that
    assert raw.ask(bind, name=name)["after"].startswith("0000000106")


@pytest.mark.parametrize(
    "how",
    [
        {"magic": 0x804E50BB},
        {"magic": 0},
        {"magic": 0xFFFFFFFF804E50BA},
        {"told": ""},
        {"told": "00"},
        {"told": b"PageantRequest-x".hex()},  # without its NUL
        {"told": b"PageantRequest-nothing\0".hex()},
        {"told": b"\xff\xfe\0".hex()},
        {"told": ("x" * 100_000).encode().hex() + "00"},
        {"told": b"PageantRequest-x\0no more".hex()},
        {"size": 0},
        {"owner": STRANGER},
        {"owner": EVERYBODY},
        {"owner": winpipe.SYSTEM},
        {"reserved": True, "content": b""},
        {"reading": True, "content": b""},
    ],
    ids=lambda how: str(how)[:40],
)
def test_what_is_no_request_gets_no_answer_and_stays_as_it_is(
    served: Served, raw: Raw, wine: bool, how: dict[str, Any]
) -> None:
    content = how.get("content", LIST)
    if wine and "reading" in how:
        pytest.skip("Wine lets everybody write to memory that is there to be read")
    result = raw.ask(**{"name": "PageantRequest-x", **how, "content": content})
    if result.get("error") == 1307:
        pytest.skip("this Windows lets nobody make memory for others")
    assert result["returned"] == 0
    assert bytes.fromhex(result["after"]) in (content, b"")
    assert not served.server._served
    assert lists(raw.ask())


def test_memory_of_whoever_it_belongs_to_by_default_is_taken(served: Served, raw: Raw, wine: bool) -> None:
    if wine:
        pytest.skip("Wine has memory belong to nobody, if whoever makes it does not say to whom")
    assert lists(raw.ask(owner=""))


def test_what_comes_after_the_names_end_does_not_count(served: Served, raw: Raw) -> None:
    assert lists(raw.ask(name="PageantRequest-x", told=b"PageantRequest-x\0more\0".hex()))


@pytest.mark.parametrize("size", [5, 100, 4096, 8192, 262144, 1 << 20])
@pytest.mark.parametrize(
    "length", [0, 1, 4092, 4093, 8189, 262141, 262145, 1 << 20, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF]
)
def test_a_length_that_lies_gets_failure(served: Served, raw: Raw, size: int, length: int) -> None:
    pages = (size + 4095) // 4096 * 4096  # Windows gives memory by pages
    result = raw.ask(length.to_bytes(4, "big") + b"\xff", size=size, name="PageantRequest-x")
    assert result["returned"] == 1
    assert result["after"].startswith(FAILURE.hex())
    assert (len(served.server._served) == 1) == (0 < length <= min(pages - 4, 262144))


def test_a_reply_that_does_not_fit_becomes_failure(served: Served, raw: Raw) -> None:
    for number in range(60):
        served.keyring.add(ed25519_key(100 + number), "x" * 40)
    assert raw.ask(size=4096)["after"].startswith(FAILURE.hex())
    assert lists(raw.ask(size=8192))


def test_a_request_of_the_largest_size_is_answered(served: Served, raw: Raw) -> None:
    request = frame(SignRequest(ALICE.public.blob, bytes(262_000)).payload())
    result = raw.ask(request)
    signed = decode(bytes.fromhex(result["after"])[4:][: int(result["after"][:8], 16)])
    signatures.verify(ALICE.public, getattr(signed, "signature", b""), bytes(262_000))


# what others may do


def test_messages_of_all_kinds_end_and_rename_nothing(served: Served, raw: Raw) -> None:
    handles = [handle for handle, _ in _copydata.windows()]
    handle = handles[0]
    title = ctypes.create_unicode_buffer("another")
    for message in [*range(0x400), 0x8000, 0xC000, 0xFFFF]:
        if message in (0x4A, 0x16):
            continue
        lparam = ctypes.addressof(title) if message == 0x0C else 0
        user32.SendMessageTimeoutW(handle, message, 0, lparam, 0, 5000, None)
        user32.PostMessageW(handle, message, 0, 0)
    for _ in range(12_000):  # more than a queue holds
        user32.PostMessageW(handle, 0x8001, 0, 0)
    assert user32.IsWindow(handle)
    assert [found for found, _ in _copydata.windows()] == handles
    assert lists(raw.ask())
    assert not served.ended.acquire(blocking=False)


def test_threads_are_not_ended_by_messages_to_them(served: Served, raw: Raw) -> None:
    handle = _copydata.windows()[0][0]
    thread = user32.GetWindowThreadProcessId(wintypes.HWND(handle), None)
    for _ in range(5):
        assert user32.PostThreadMessageW(thread, 0x12, 0, 0)  # WM_QUIT
    assert lists(raw.ask())
    assert lists(raw.ask())


def test_logging_off_is_agreed_to_and_told_once(served: Served) -> None:
    handle = _copydata.windows()[0][0]
    answer = ctypes.c_size_t()
    for message, wparam, expected in ((0x11, 0, 1), (0x16, 0, 0), (0x16, 1, 0), (0x16, 1, 0)):
        assert user32.SendMessageTimeoutW(handle, message, wparam, 0, 0, 5000, ctypes.byref(answer))
        assert answer.value == expected
    assert served.ended.acquire(timeout=20)
    assert not served.ended.acquire(blocking=False)


def test_it_may_be_closed_from_where_it_is_told_of_logging_off() -> None:
    listeners: list[window_listener.Listener] = []
    try:
        listeners.append(window_listener.listen(lambda: listeners[0].close()))
    except Error as error:
        pytest.skip(str(error))
    handle = _copydata.windows()[0][0]
    assert user32.SendMessageTimeoutW(handle, 0x16, 1, 0, 0, 20_000, None)
    wait_for(lambda: not _copydata.windows(), "the window is left")
    wait_for(lambda: not _threads(), "its thread is left")
    window_listener.listen().close()


def _threads() -> list[threading.Thread]:
    return [one for one in threading.enumerate() if one.name == "pageantry window"]


# slow requests


def test_a_slow_one_stalls_nobody_and_two_windows_are_left_after_it(
    served: Served, raws: Callable[[int], list[Raw]]
) -> None:
    slow, quick = raws(2)
    windows = _copydata.windows()
    slow.begin(SLOW)
    wait_for(lambda: served.person.questions, "nobody is asked")
    assert f"(process {slow.process.pid})" in served.person.questions[0]
    for _ in range(5):
        begun = time.monotonic()
        result = quick.ask()
        assert lists(result)
        assert time.monotonic() - begun < 5
        assert result["window"] != windows[0][0]
    served.person.answer.set()
    result = slow.result()
    assert (result["returned"], result["after"][8:10]) == (1, "0e")
    wait_for(lambda: len(_threads()) == 2, "the other window is left")
    assert {*_copydata.windows()} == {*windows}
    assert lists(quick.ask())


def test_several_slow_ones_have_windows_each_and_behind_the_last_clients_wait(
    served: Served, raws: Callable[[int], list[Raw]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_window, "MAX_WINDOWS", 4)
    clients = raws(6)
    for number, client in enumerate(clients[:4], 1):
        client.begin(SLOW)
        wait_for(lambda: len(served.server._served) == number, "it does not come in")  # noqa: B023
        wait_for(lambda: len(_threads()) == min(4, number + 2), "there are no further windows")  # noqa: B023
        wait_for(lambda: len(_copydata.windows()) == max(1, min(2, 4 - number)), "too many are found")  # noqa: B023
    for client in clients[4:]:
        client.begin()
    time.sleep(0.3)  # nothing tells that they wait
    assert len(served.server._served) == 4
    served.person.answer.set()
    assert [client.result()["after"][8:10] for client in clients[:4]] == ["0e"] * 4
    assert all(lists(client.result()) for client in clients[4:])
    wait_for(lambda: len(_threads()) == 2, "the other windows are left")
    assert len(_copydata.windows()) == 2


def test_a_client_that_is_killed_is_asked_for_no_more(served: Served, raws: Callable[[int], list[Raw]]) -> None:
    for name in ({}, {"name": "PageantRequest-x"}):
        (client,) = raws(1)
        client.begin(SLOW, **name)
        wait_for(lambda: served.person.questions, "nobody is asked")
        client.process.kill()
        wait_for(lambda: served.person.interruptions, "the question is still there")
        served.person.questions.clear()
        served.person.interruptions.clear()
    wait_for(lambda: len(_threads()) == 2, "its window is left")
    assert lists(raws(1)[0].ask())


@pytest.mark.parametrize("name", [{}, {"name": "PageantRequest-x"}], ids=str)
def test_a_client_that_waits_no_longer_is_asked_for_no_more(served: Served, raw: Raw, name: dict[str, str]) -> None:
    assert raw.ask(SLOW, timeout=0.5, **name)["returned"] is None
    wait_for(lambda: served.person.interruptions, "the question is still there")
    assert lists(raw.ask())


def test_a_thread_that_asks_again_has_given_up_what_it_asked_before(served: Served, raw: Raw) -> None:
    for _ in range(3):
        assert raw.ask(SLOW, timeout=0.5)["returned"] is None
    assert lists(raw.ask())
    assert len(served.server._served) == 1


def test_a_request_that_nobody_answers_in_time_gets_failure(
    served: Served, raw: Raw, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(window_listener, "DEADLINE", 0.5)
    result = raw.ask(SLOW)
    assert (result["returned"], result["after"][:10]) == (1, FAILURE.hex())
    assert lists(raw.ask())


def test_20_clients_at_once_get_each_its_own_replies(served: Served, raws: Callable[[int], list[Raw]]) -> None:
    clients = raws(20)
    for turn in range(5):
        for number, client in enumerate(clients):
            client.begin(frame(SignRequest(ALICE.public.blob, b"%d %d" % (turn, number)).payload()))
        for number, client in enumerate(clients):
            reply = bytes.fromhex(client.result()["after"])
            signed = decode(reply[4 : 4 + int.from_bytes(reply[:4], "big")])
            signatures.verify(ALICE.public, getattr(signed, "signature", b""), b"%d %d" % (turn, number))
    wait_for(lambda: len(_threads()) == 2, "windows are left")


# beginning and end


def test_closing_answers_who_waits(served: Served, raws: Callable[[int], list[Raw]]) -> None:
    known, nobody = raws(2)
    known.begin(SLOW)
    wait_for(lambda: len(served.server._served) == 1, "it does not come in")
    nobody.begin(SLOW, name="PageantRequest-x")
    wait_for(lambda: len(served.server._served) == 2, "it does not come in")
    begun = time.monotonic()
    served.server.close()
    assert time.monotonic() - begun < 10
    for client in (known, nobody):
        result = client.result()
        assert (result["returned"], result["after"][:10]) == (1, FAILURE.hex())


def test_another_programs_window_is_named_and_left_alone() -> None:
    if _copydata.windows():
        pytest.skip("an agent of this machine's has Pageant's window")
    for hidden in ([], ["hidden"]):
        with subprocess.Popen(
            [sys.executable, FAKE, *hidden, "keep 1"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as other:
            try:
                assert other.stdout
                assert other.stdout.readline() == "ready\n"
                with pytest.raises(
                    Error, match=f"another program has Pageant's window: .*python.exe \\({other.pid}\\)"
                ):
                    window_listener.listen()
                assert [pid for _, pid in _copydata.windows()] == [other.pid]
            finally:
                other.kill()
        wait_for(lambda: not _copydata.windows(), "the other one is left")
    window_listener.listen().close()


def test_where_nobody_sees_a_desktop_there_is_no_window(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_window, "_ObjectInformation", lambda *arguments: True)
    with pytest.raises(Error, match="no desktop") as caught:
        window_listener.listen()
    assert "services" in caught.value.hint
    monkeypatch.undo()
    monkeypatch.setattr(_window, "_CreateWindow", lambda *arguments: None)
    with pytest.raises(Error, match="no window"):
        window_listener.listen()
    monkeypatch.undo()
    assert not _threads()
    window_listener.listen().close()


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How much of each kind was taken and not given back; Wine does not count handles."""
    counts: Counter[str] = Counter()
    kinds: dict[tuple[str, int], str] = {}

    def watch(kind: str, take: str, give: str) -> None:
        taking, giving = getattr(_window_memory, take), getattr(_window_memory, give)

        def taken(*arguments: object) -> object:
            got = taking(*arguments)
            if got:
                counts[kind] += 1
                kinds[give, got] = kind
            return got

        def given(what: Any) -> object:
            if mine := kinds.pop((give, what), None):
                counts[mine] -= 1
            return giving(what)

        monkeypatch.setattr(_window_memory, take, taken)
        if give not in patched:
            patched.add(give)
            monkeypatch.setattr(_window_memory, give, given)

    patched: set[str] = set()
    watch("memory", "_OpenFileMapping", "_CloseHandle")
    watch("views", "_MapViewOfFile", "_UnmapViewOfFile")
    watch("threads", "_OpenThread", "_CloseHandle")
    watch("processes", "_OpenProcess", "_CloseHandle")
    return counts


def test_nothing_is_left_of_windows_and_requests(
    leaves_nothing: Callable[..., None], raw: Raw, held: Counter[str]
) -> None:
    def serve() -> None:
        made = Served()
        try:
            assert lists(raw.ask())
            assert lists(raw.ask(name="PageantRequest-x"))
            assert raw.ask(SLOW, timeout=0.3)["returned"] is None
            assert raw.ask(owner=STRANGER).get("returned") in (0, None)
            assert raw.ask(size=0)["returned"] == 0
        finally:
            made.close()

    leaves_nothing(serve)
    assert {*held} == {"memory", "views", "threads", "processes"}
    wait_for(lambda: not any(held.values()), "handles are left")


def test_a_length_is_read_once_however_fast_it_changes() -> None:
    owner = _copydata.Target(0, os.getpid())
    handle, name = owner._memory()
    view = _window_memory._MapViewOfFile(handle, 6, 0, 0, 0)
    memory = _window_memory.Memory(name, _window_memory.owners())
    done = threading.Event()

    def change() -> None:
        lengths = [size.to_bytes(4, "big") for size in (1, 1000, 200_000, 0xFFFFFFFF)]
        while not done.is_set():
            for length in lengths:
                ctypes.memmove(view, length, 4)

    thread = threading.Thread(target=change)
    thread.start()
    try:
        seen: set[int | bytes | None] = set()
        deadline = time.monotonic() + 20
        while len(seen) < 4 and time.monotonic() < deadline:
            request = memory.request()
            assert request is None or len(request) == 4 + int.from_bytes(request[:4], "big")
            seen.add(request and len(request))
        assert seen == {None, 5, 1004, 200_004}
    finally:
        done.set()
        thread.join()
        memory.close()
        _window_memory._UnmapViewOfFile(view)
        _window_memory._CloseHandle(handle)
