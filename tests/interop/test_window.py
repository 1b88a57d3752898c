"""The real Pageant, through its window, in a process of its own."""

from __future__ import annotations

import contextlib
import ctypes
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from pageantry import Client, PublicKey, SignFlags, winpipe
from pageantry.endpoints import named_pipe, window
from pageantry.endpoints.pageant import pipe_name
from pageantry.errors import DeadlineExceeded, Disconnected, Refused, Unreachable, Unsupported
from pageantry.keyfiles import KeyFiles
from pageantry.keys.files import read
from pageantry.keys.private import PrivateKey
from pageantry.messages import SessionBind

if sys.platform != "win32":
    pytest.skip("windows are on Windows", allow_module_level=True)

pytestmark = pytest.mark.interop

DIRECTORY = Path(__file__).parent / "keys"
KEYS = [str(DIRECTORY / name) for name in ("ed25519", "rsa")]
SIGNATURES = [(0, SignFlags.NONE), (1, SignFlags.NONE), (1, SignFlags.RSA_SHA2_256), (1, SignFlags.RSA_SHA2_512)]


def opened(timeout: float | None = 30) -> Client:
    return Client(lambda: window.connect(5), "pageant-window", timeout)


def wait_for(condition: Callable[[], object], what: str, seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(what)
        time.sleep(0.05)


def present() -> int | None:
    """The process that has the window."""
    try:
        return window.peer().pid
    except Unreachable:
        return None


def gone() -> bool:
    return present() is None and not winpipe.exists(pipe_name())


@contextlib.contextmanager
def running(*arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """Pageant, with both keys and what the arguments say."""
    program = shutil.which("pageant")
    if not program:
        pytest.skip("pageant is not installed")
    try:
        wait_for(gone, "pageant runs", 5)
    except TimeoutError:
        pytest.skip("a Pageant of this machine's runs already")
    with subprocess.Popen([program, *(f"{key}.ppk" for key in KEYS), *arguments]) as process:
        try:
            count = len(KEYS) + sum(argument.endswith(".ppk") for argument in arguments)
            wait_for(lambda: present() == process.pid, "pageant did not start")
            with opened() as agent:
                wait_for(lambda: len(agent.identities()) == count, "pageant did not read its keys")
            yield process
        finally:
            process.kill()
            process.wait(30)
            wait_for(gone, "pageant did not end")


@pytest.fixture
def pageant() -> Iterator[subprocess.Popen[bytes]]:
    with running() as process:
        yield process


def expected() -> tuple[list[PublicKey], KeyFiles]:
    """The keys, and an agent in this process that has them from their files."""
    files = KeyFiles(KEYS)
    return [one.key for one in files.identities()], files


def test_it_lists_and_signs_as_the_key_files_do(pageant: object) -> None:
    keys, files = expected()
    with opened() as agent:
        assert {one.key for one in agent.identities()} == set(keys)
        for number, flags in SIGNATURES:
            signed = agent.sign(keys[number], b"data", flags, verify=True)
            assert signed == files.sign(keys[number], b"data", flags)
        assert agent.sign(keys[0], bytes(200_000), verify=True)


def test_its_window_is_found_and_known_as_its_own(pageant: subprocess.Popen[bytes]) -> None:
    window.check_presence()
    found = window.peer()
    assert (found.pid, found.sid) == (pageant.pid, winpipe.user())
    assert found.program.lower().endswith("\\pageant.exe")


def test_it_tells_what_it_can_do_refuses_constraints_and_binds_no_session(pageant: object) -> None:
    from pageantry.constraints import Lifetime

    with opened() as agent:
        assert "list-extended@putty.projects.tartarus.org" in agent.query()
        for name in ("nobody-knows@example.org", SessionBind.name):
            with pytest.raises(Unsupported):
                agent.extension(name)
        with pytest.raises(Refused):
            agent.add(read(KEYS[0]).decrypt()[0], constraints=[Lifetime(60)])
        with pytest.raises(Refused):
            agent.lock(b"x")


def test_threads_get_each_its_own_signatures(pageant: object) -> None:
    keys, files = expected()
    good: list[bool] = []

    def ask(number: int) -> None:
        with opened() as agent:
            for turn in range(10):
                data = b"%d %d" % (number, turn)
                good.append(agent.sign(keys[0], data) == files.sign(keys[0], data))

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert good == [True] * 60


def test_300_keys_go_in_and_are_listed_as_by_the_pipe() -> None:
    with running(), opened() as agent:
        for number in range(300):
            made = Ed25519PrivateKey.generate()
            point = made.public_key().public_bytes_raw()
            agent.add(PrivateKey("ssh-ed25519", (point, made.private_bytes_raw() + point)), f"key number {number}")
        identities = agent.identities()
        with Client(lambda: named_pipe.connect(pipe_name(), 5), "pageant-pipe") as by_pipe:
            assert by_pipe.identities() == identities
        assert len(identities) == 302
        agent.remove_all()
        assert agent.identities() == []


def answer_prompt(passphrase: str | None) -> None:
    """Do what a person does whom Pageant asks for a passphrase: give one, or press Cancel."""
    user32 = ctypes.WinDLL("user32")
    user32.FindWindowW.restype = user32.GetDlgItem.restype = ctypes.c_void_p
    found: list[int] = []

    def look() -> bool:
        prompt = user32.FindWindowW(None, "Pageant: Decrypting Stored Key")
        found[:] = [prompt] if prompt else []
        return bool(found)

    wait_for(look, "pageant asked for no passphrase")
    prompt = ctypes.c_void_p(found[0])
    if passphrase is not None:
        user32.SendMessageW(ctypes.c_void_p(user32.GetDlgItem(prompt, 104)), 0x0C, 0, ctypes.c_wchar_p(passphrase))
    user32.PostMessageW(prompt, 0x111, 2 if passphrase is None else 1, None)  # WM_COMMAND: IDCANCEL, IDOK


def test_a_person_may_be_asked_for_a_passphrase_and_take_longer_than_windows_gives_a_window() -> None:
    encrypted = str(DIRECTORY / "encrypted.ppk")
    with running("--encrypted", encrypted), opened() as agent:
        (key,) = {one.key for one in agent.identities()} - set(expected()[0])
        with opened(1) as hasty:
            with pytest.raises(DeadlineExceeded):
                hasty.sign(key, b"data")
            with pytest.raises(DeadlineExceeded):  # while a person is asked, the window does nothing else
                hasty.identities()
        answer_prompt(None)
        assert len(agent.identities()) == 3

        person = threading.Timer(7, answer_prompt, ("open sesame",))
        person.start()
        assert agent.sign(key, b"data", verify=True)
        person.join()
        assert agent.sign(key, b"more", verify=True)


def test_it_is_found_again_when_it_was_restarted() -> None:
    with running() as process, opened() as agent:
        assert len(agent.identities()) == 2
        process.kill()
        process.wait(30)
        with pytest.raises(Disconnected):
            agent.identities()
        with running():
            assert len(agent.identities()) == 2


def test_it_is_reached_when_others_may_not_touch_its_process() -> None:
    with running("-restrict-acl") as process, opened() as agent:
        assert window.peer().pid == process.pid
        assert len(agent.identities()) == 2
