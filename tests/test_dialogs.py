"""Asking with windows: answered as by a person with keys and a mouse, and gone when nobody waits for an answer."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import pageantry
from pageantry.askpass import Askpass
from pageantry.errors import DeadlineExceeded, NobodyToAsk, Refused
from pageantry.prompts import Person, ways

from .cli.serving import PASSPHRASE, openssh

if sys.platform != "win32":
    pytest.skip("windows of Windows'", allow_module_level=True)

import ctypes
from ctypes import byref, wintypes

from pageantry import _dialogs
from pageantry import dialogs as desktop

Dialogs = desktop.Dialogs
if not desktop.visible():
    pytest.skip("this session has no desktop that anybody sees", allow_module_level=True)

user32 = ctypes.WinDLL("user32", use_last_error=True)
for _name in ("FindWindowExW", "GetDlgItem", "GetForegroundWindow"):
    getattr(user32, _name).restype = ctypes.c_void_p
user32.FindWindowExW.argtypes = wintypes.HWND, wintypes.HWND, wintypes.LPCWSTR, wintypes.LPCWSTR
user32.GetDlgItem.argtypes = wintypes.HWND, ctypes.c_int
for _name in ("SendMessageW", "PostMessageW"):
    getattr(user32, _name).argtypes = wintypes.HWND, wintypes.UINT, wintypes.WPARAM, wintypes.LPARAM
    getattr(user32, _name).restype = ctypes.c_ssize_t

OK, CANCEL, ALLOW, FIELD = 1, 2, 100, 101
CLOSE, END_SESSION, KEY_DOWN, KEY_UP, CHAR, SYSTEM_COMMAND, CLICK = 0x10, 0x16, 0x100, 0x101, 0x102, 0x112, 0xF5
GET_PASSWORD_CHAR, MOVE, MENU = 0xD2, 0xF010, 0xF100


def never() -> None:
    """Nobody leaves."""


def wait_for(condition: Callable[[], Any]) -> Any:
    """What the condition comes to be."""
    deadline = time.monotonic() + 20
    while not (found := condition()):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return found


def dialogs(pid: int = 0) -> list[int]:
    """The windows of a process, by default of this one, that ask or tell something now."""
    found, window, owner = [], None, wintypes.DWORD()
    while window := user32.FindWindowExW(None, window, "#32770", "pageantry"):
        user32.GetWindowThreadProcessId(wintypes.HWND(window), byref(owner))
        if owner.value == (pid or os.getpid()) and user32.IsWindowVisible(wintypes.HWND(window)):
            found.append(window)
    return found


def dialog(pid: int = 0) -> int:
    """The one window, once it is there."""
    (window,) = wait_for(lambda: dialogs(pid))
    return int(window)


def click(window: int, number: int) -> None:
    user32.PostMessageW(user32.GetDlgItem(window, number), CLICK, 0, 0)


def press(window: int, key: int) -> None:
    """Press a key where the keyboard is."""
    info = (ctypes.c_size_t * 9)(72)  # GUITHREADINFO
    assert user32.GetGUIThreadInfo(user32.GetWindowThreadProcessId(wintypes.HWND(window), None), info)
    user32.PostMessageW(info[2] or window, KEY_DOWN, key, 0)


def enter(window: int, text: str) -> None:
    data = text.encode("utf-16-le")
    for index in range(0, len(data), 2):
        unit = int.from_bytes(data[index : index + 2], "little")
        assert user32.PostMessageW(user32.GetDlgItem(window, FIELD), CHAR, unit, 0)


def text_of(window: int) -> str:
    buffer = ctypes.create_unicode_buffer(32768)
    user32.GetWindowTextW(wintypes.HWND(window), buffer, len(buffer))
    return buffer.value


def box(window: int) -> tuple[int, int, int, int]:
    area = wintypes.RECT()
    assert user32.GetWindowRect(wintypes.HWND(window), byref(area))
    return area.left, area.top, area.right, area.bottom


def within(inner: tuple[int, int, int, int], outer: tuple[int, int, int, int]) -> bool:
    return inner[0] >= outer[0] and inner[1] >= outer[1] and inner[2] <= outer[2] and inner[3] <= outer[3]


@pytest.fixture(scope="module")
def pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(4)


def confirm(pool: ThreadPoolExecutor, question: str = "Allow it?") -> Future[None]:
    return pool.submit(Dialogs().confirm, question, never)


def secret(pool: ThreadPoolExecutor) -> Future[bytes]:
    return pool.submit(Dialogs().secret, "Passphrase: ", never)


def test_who_chooses_allow_agrees(pool: ThreadPoolExecutor) -> None:
    asked = confirm(pool)
    click(dialog(), ALLOW)
    asked.result(20)
    assert dialogs() == []


def say_end_of_session(window: int) -> None:
    assert user32.SendMessageW(window, 0x11, 0, 0), "nobody keeps the person from logging off"
    user32.SendMessageW(window, END_SESSION, True, 0)


REFUSALS: dict[str, Callable[[int], object]] = {
    "refuse": lambda window: click(window, CANCEL),
    "close": lambda window: user32.PostMessageW(window, CLOSE, 0, 0),
    "escape": lambda window: press(window, 0x1B),
    "log off": say_end_of_session,
}


@pytest.mark.parametrize("how", [*REFUSALS, "enter", "space"])
def test_whatever_else_is_done_refuses_even_enter_and_space(pool: ThreadPoolExecutor, how: str) -> None:
    asked = confirm(pool)
    window = dialog()
    if how == "enter":
        press(window, 0x0D)
    elif how == "space":
        press(window, 0x20)
        user32.PostMessageW(user32.GetDlgItem(window, CANCEL), KEY_UP, 0x20, 0)
    else:
        REFUSALS[how](window)
    with pytest.raises(Refused) as caught:
        asked.result(20)
    assert caught.value.hint
    assert dialogs() == []


def test_letters_that_are_meant_for_another_window_choose_nothing(pool: ThreadPoolExecutor) -> None:
    asked = confirm(pool)
    window = dialog()
    for key in b"YAOKJ":
        press(window, key)
        user32.PostMessageW(user32.GetDlgItem(window, CANCEL), CHAR, key + 0x20, 0)
    time.sleep(0.5)  # nothing can be waited for
    assert not asked.done()
    click(window, CANCEL)
    with pytest.raises(Refused):
        asked.result(20)


@pytest.mark.parametrize("how", REFUSALS)
def test_a_passphrase_may_be_refused_when_half_of_it_is_typed(pool: ThreadPoolExecutor, how: str) -> None:
    asked = secret(pool)
    window = dialog()
    enter(window, "half")
    REFUSALS[how](window)
    with pytest.raises(Refused) as caught:
        asked.result(20)
    assert "half" not in f"{caught.value}{caught.value.hint}"
    assert dialogs() == []


def test_what_is_typed_is_given_whatever_it_is() -> None:
    with _dialogs.Dialog("Passphrase: ", ((OK, "OK"), (CANCEL, "Cancel")), field=True) as shown:
        assert shown.window
        field = user32.GetDlgItem(shown.window, FIELD)

        @given(st.text(st.characters(exclude_categories=["Cc", "Cs"]), max_size=40))
        @settings(deadline=None)
        def check(text: str) -> None:
            user32.SetWindowTextW(wintypes.HWND(field), "")
            for unit in memoryview(text.encode("utf-16-le")).cast("H"):
                user32.SendMessageW(field, CHAR, unit, 0)
            assert shown.typed() == os.fsencode(text)

        check()


def test_a_passphrase_may_be_long_and_is_not_shown(pool: ThreadPoolExecutor) -> None:
    asked = secret(pool)
    window, text = dialog(), "é𝄞x" * 500
    enter(window, text)
    field = user32.GetDlgItem(window, FIELD)
    assert user32.SendMessageW(field, GET_PASSWORD_CHAR, 0, 0)
    click(window, OK)
    assert asked.result(20) == text.encode()


# A process that answers what another one asks, whose number it is told: with a passphrase, or with consent.
OTHER = """
import sys
from tests import test_dialogs as desktop
window = desktop.dialog(int(sys.argv[1]))
if sys.argv[2:]:
    desktop.enter(window, sys.argv[2])
desktop.click(window, desktop.OK if sys.argv[2:] else desktop.ALLOW)
"""


@pytest.mark.parametrize("words", [[], ["sesame"]])
def test_it_is_a_window_as_others_are_to_other_programs(pool: ThreadPoolExecutor, words: list[str]) -> None:
    asked: Future[Any] = secret(pool) if words else confirm(pool)
    command = [sys.executable, "-c", OTHER, str(os.getpid()), *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.stderr == ""
    assert asked.result(20) == (b"sesame" if words else None)


@pytest.mark.parametrize("meanwhile", [None, MOVE, MENU])
@pytest.mark.parametrize("kind", ["confirm", "secret"])
def test_it_disappears_when_nobody_waits_whatever_the_person_does_with_it(
    pool: ThreadPoolExecutor, meanwhile: int | None, kind: str
) -> None:
    left = threading.Event()
    looked: list[float] = []

    def check() -> None:
        looked.append(time.monotonic())
        if left.is_set():
            raise DeadlineExceeded("nobody answered")

    asked = pool.submit(getattr(Dialogs(), kind), "Well?", check)
    window = dialog()
    if meanwhile:
        user32.PostMessageW(window, SYSTEM_COMMAND, meanwhile, 0)
    count = len(looked)
    wait_for(lambda: len(looked) > count + 5)
    assert looked[-1] - looked[-6] > 0.5, "about five times a second"
    assert not asked.done()
    left.set()
    with pytest.raises(DeadlineExceeded):
        asked.result(5)
    assert dialogs() == []


def test_a_person_has_only_so_much_time_and_the_agent_may_end(pool: ThreadPoolExecutor) -> None:
    with pytest.raises(DeadlineExceeded, match="within 1 s"):
        Person([Dialogs()], timeout=1).secret("Passphrase: ")
    assert dialogs() == []
    person = Person([Dialogs()])
    asked = pool.submit(person.confirm, "Allow it?")
    dialog()
    with person.notify("Touch it"):
        wait_for(lambda: len(dialogs()) == 2)
        person.close()
        assert dialogs() == []
    with pytest.raises(NobodyToAsk):
        asked.result(5)


def test_a_notice_is_there_until_its_end_and_leaves_the_keyboard_where_it_is() -> None:
    before = user32.GetForegroundWindow()
    end = Dialogs().notify("Touch the security key")
    window = dialog()
    assert user32.GetForegroundWindow() in (before, None)
    assert "Touch the security key" in [text_of(child) for child in children(window)]
    end()
    assert dialogs() == []


def test_a_notice_can_be_put_away_before_its_end() -> None:
    end = Dialogs().notify("Touch the security key")
    user32.PostMessageW(dialog(), CLOSE, 0, 0)
    wait_for(lambda: dialogs() == [])
    end()


def children(window: int) -> list[int]:
    found, child = [], None
    while child := user32.FindWindowExW(window, child, None, None):
        found.append(child)
    return found


@pytest.mark.parametrize(
    "question",
    [
        "Allow it?",
        "Allow R&D to sign\n  with & and &&?",
        "\n".join(f"{number} {'n' * 200} {'word ' * 40}" for number in range(5)),
        "\n".join("x" * 200 for _ in range(100)),
    ],
    ids=["short", "ampersands", "long names", "more than the screen"],
)
def test_all_of_a_question_can_be_read_and_answered(pool: ThreadPoolExecutor, question: str) -> None:
    asked = confirm(pool, question)
    window = dialog()
    screen = 0, 0, user32.GetSystemMetrics(0), user32.GetSystemMetrics(1)
    assert within(box(window), screen)
    assert all(within(box(child), box(window)) for child in children(window))
    assert question.replace("\n", "\r\n").strip() in [text_of(child) for child in children(window)]
    buttons = box(user32.GetDlgItem(window, ALLOW)), box(user32.GetDlgItem(window, CANCEL))
    assert buttons[0][2] < buttons[1][0], "beside each other"
    click(window, ALLOW)
    asked.result(20)


def test_nothing_remains(pool: ThreadPoolExecutor, leaves_nothing: Callable[..., None]) -> None:
    def resources() -> list[int]:
        return [user32.GetGuiResources(ctypes.c_void_p(-1), kind) for kind in (0, 1)]

    def ask() -> None:
        person = Person([Dialogs()], timeout=0.3)
        for question in (person.confirm, person.secret):
            with pytest.raises(DeadlineExceeded):
                question("Well?")
        with person.notify("Touch it"):
            dialog()

    ask()
    before = resources()
    leaves_nothing(ask, 2)
    assert resources() == before
    assert dialogs() == []


# A process with a window station of its own, as services have.
SERVICE = """
import ctypes
from pageantry.dialogs import Dialogs
from pageantry.errors import NobodyToAsk
from pageantry.prompts import ways
user32 = ctypes.WinDLL("user32", use_last_error=True)
user32.CreateWindowStationW.restype = ctypes.c_void_p
station = user32.CreateWindowStationW(None, 0, 0x37F, None)
assert station and user32.SetProcessWindowStation(ctypes.c_void_p(station)), ctypes.get_last_error()
assert ways({}, terminal=True) == []
for ask in Dialogs().confirm, Dialogs().secret, lambda text, _: Dialogs().notify(text):
    try:
        ask("Well?", lambda: None)
    except NobodyToAsk as error:
        assert error.hint
        print(error)
"""


def test_a_process_whose_windows_nobody_sees_has_nobody_to_ask() -> None:
    done = subprocess.run([sys.executable, "-c", SERVICE], capture_output=True, text=True, timeout=60)
    assert done.stderr == ""
    assert done.stdout.splitlines() == ["this process has no desktop that anybody sees"] * 3


def test_a_program_that_is_named_is_asked_first_and_never_means_never() -> None:
    environ = {"SSH_ASKPASS": os.path.abspath("askpass.exe"), "SSH_ASKPASS_REQUIRE": "force"}
    assert [type(way) for way in ways(environ, terminal=False)] == [Askpass, Dialogs]
    assert [type(way) for way in ways({}, terminal=True)] == [Dialogs]
    assert ways({**environ, "SSH_ASKPASS_REQUIRE": "never"}, terminal=True) == []


def test_an_agent_that_is_closed_to_others_asks_there_for_a_passphrase(
    pool: ThreadPoolExecutor, tmp_path: Path
) -> None:
    key, name = openssh(tmp_path / "sealed", 1, PASSPHRASE), f"pageantry-test-{os.urandom(8).hex()}"
    command = [sys.executable, "-m", "pageantry", "serve", "--restrict-acl", "--listen", f"pipe:{name}"]
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("SSH_", "DISPLAY"))}
    with subprocess.Popen(
        [*command, tmp_path / "sealed"],
        env=environ,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as agent:
        try:
            assert agent.stdout
            agent.stdout.readline()
            with pageantry.connect(f"pipe:{name}") as client:
                signed = pool.submit(client.sign, key, b"data", verify=True)
                window = dialog(agent.pid)
                enter(window, PASSPHRASE)
                click(window, OK)
                signed.result(20)
        finally:
            agent.kill()
