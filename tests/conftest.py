from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest


@pytest.fixture
def as_nobody() -> Callable[[], AbstractContextManager[None]]:
    """Root may read and write everything, so for the length of a `with` it becomes a user who may not."""

    @contextlib.contextmanager
    def become() -> Iterator[None]:
        seteuid, geteuid = getattr(os, "seteuid", None), getattr(os, "geteuid", None)
        root = seteuid and geteuid and geteuid() == 0
        if root and seteuid:
            seteuid(65534)
        try:
            yield
        finally:
            if root and seteuid:
                seteuid(0)

    return become


@pytest.fixture
def symlink() -> Callable[[Path, Path], None]:
    """Makes a symbolic link to the first path at the second, or skips the test: Windows lets not every user do so."""

    def make(target: Path, path: Path) -> None:
        try:
            path.symlink_to(target)
        except OSError as error:
            pytest.skip(f"this user may not make symbolic links: {error.strerror}")
        if not path.is_symlink():
            pytest.skip("this system says that it made a symbolic link, and made none")

    return make


@pytest.fixture
def wine() -> bool:
    """Whether this Windows is Wine, which does not do all that Windows does."""
    return _is_wine()


def _is_wine() -> bool:
    return sys.platform == "win32" and hasattr(ctypes.WinDLL("ntdll"), "wine_get_version")


@pytest.fixture
def leaves_nothing() -> Callable[..., None]:
    """Does something several times, and fails if threads, descriptors, handles or processes remain of it.

    The first time does not count: what is loaded then may stay.
    """

    def repeat(action: Callable[[], object], times: int = 5) -> None:
        action()
        before = _held()
        for _ in range(times):
            action()
        deadline = time.monotonic() + 15
        while any(now > then for now, then in zip(_held(), before, strict=True)):
            assert time.monotonic() < deadline, f"held {before} before, {_held()} after it"
            time.sleep(0.05)

    return repeat


def _held() -> tuple[int, int, int]:
    """How many threads, descriptors (on Windows: handles) and children this process has."""
    gc.collect()
    threads = threading.active_count()
    if sys.platform == "win32":
        count = ctypes.c_uint32()
        assert ctypes.WinDLL("kernel32").GetProcessHandleCount(ctypes.c_void_p(-1), ctypes.byref(count))
        return threads, count.value, 0
    ps = subprocess.run(["ps", "-A", "-o", "ppid="], capture_output=True, text=True, check=True)
    return threads, len(os.listdir("/dev/fd")), ps.stdout.split().count(str(os.getpid()))


@pytest.fixture(scope="session")
def peers() -> str:
    """A Python that has derivepassphrase: of the environment whose bin folder PAGEANTRY_PEERS names, or this one."""
    folder = os.environ.get("PAGEANTRY_PEERS")
    python = shutil.which("python", path=folder) if folder else sys.executable
    if not python or subprocess.run([python, "-c", "import derivepassphrase"], capture_output=True).returncode:
        pytest.skip("PAGEANTRY_PEERS names no environment with derivepassphrase, and this one has none")
    return python


#: How long a program may take at a terminal, in seconds.
_SECONDS = 60


@pytest.fixture
def at_terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[int, str]]:
    """Calls the command, or another program in Python, at a terminal: a pseudo-terminal, or Windows' pseudoconsole.

    It is given the command's words and, in `typed`, what to type at which prompt; it returns the exit status, and what
    was shown.
    """
    for name in ("HOME", "USERPROFILE", "APPDATA", "XDG_RUNTIME_DIR"):
        monkeypatch.setenv(name, str(tmp_path))
    monkeypatch.setenv("PAGEANTRY_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)

    def run(*words: str | Path, typed: dict[str, bytes], program: str = _COMMAND) -> tuple[int, str]:
        return _run_at_terminal([sys.executable, "-c", _STREAMS + program, *map(str, words)], typed)

    return run


_COMMAND = """
import sys
from pageantry.cli import main
sys.argv[0] = "pageantry"
main()
"""

# Wine's pseudoconsoles come without standard streams.
_STREAMS = """
import os, sys
if sys.stdin is None:
    import ctypes, msvcrt
    open_ = ctypes.WinDLL("kernel32").CreateFileW
    open_.restype = ctypes.c_void_p
    for number, name in enumerate(("CONIN$", "CONOUT$", "CONOUT$")):
        os.dup2(msvcrt.open_osfhandle(open_(name, 0xC0000000, 3, None, 3, 0, None), os.O_RDWR), number)
    sys.stdin, sys.stdout, sys.stderr = open(0), open(1, "w"), open(2, "w", buffering=1)
"""


if sys.platform == "win32":
    from ctypes import wintypes

    class _StartupInfo(ctypes.Structure):
        _fields_ = (
            ("cb", wintypes.DWORD),
            ("strings", ctypes.c_void_p * 3),
            ("numbers", wintypes.DWORD * 7),
            ("dwFlags", wintypes.DWORD),
            ("words", wintypes.DWORD),
            ("handles", ctypes.c_void_p * 4),
            ("lpAttributeList", ctypes.c_void_p),
        )

    class _ProcessInformation(ctypes.Structure):
        _fields_ = (
            ("hProcess", wintypes.HANDLE),
            ("hThread", wintypes.HANDLE),
            ("dwProcessId", wintypes.DWORD),
            ("dwThreadId", wintypes.DWORD),
        )

    class _Pseudoconsole:
        """A process in a console of its own, whose screen and keyboard are pipes."""

        def __init__(self, command: list[str]) -> None:
            self._kernel = ctypes.WinDLL("kernel32", use_last_error=True)
            self.shown = b""
            theirs_in, self._keyboard = self._pipe()
            screen, theirs_out = self._pipe()
            self._console = wintypes.HANDLE()
            size = wintypes._COORD(200, 50)
            assert self._kernel.CreatePseudoConsole(size, theirs_in, theirs_out, 0, ctypes.byref(self._console)) == 0
            self._start(subprocess.list2cmdline(command))
            for handle in (theirs_in, theirs_out):
                self._kernel.CloseHandle(handle)
            self._reader = threading.Thread(target=self._read, args=(screen,), daemon=True)
            self._reader.start()

        def _pipe(self) -> tuple[wintypes.HANDLE, wintypes.HANDLE]:
            ends = wintypes.HANDLE(), wintypes.HANDLE()
            assert self._kernel.CreatePipe(ctypes.byref(ends[0]), ctypes.byref(ends[1]), None, 0)
            return ends

        def _start(self, command: str) -> None:
            size = ctypes.c_size_t()
            self._kernel.InitializeProcThreadAttributeList(None, 1, 0, ctypes.byref(size))
            attributes = ctypes.create_string_buffer(size.value)
            assert self._kernel.InitializeProcThreadAttributeList(attributes, 1, 0, ctypes.byref(size))
            assert self._kernel.UpdateProcThreadAttribute(
                attributes, 0, ctypes.c_size_t(0x00020016), self._console, ctypes.c_size_t(8), None, None
            )  # PROC_THREAD_ATTRIBUTE_PSEUDOCONSOLE
            info, made = _StartupInfo(), _ProcessInformation()
            info.cb, info.dwFlags = ctypes.sizeof(info), 0x100  # STARTF_USESTDHANDLES, lest it gets ours
            info.lpAttributeList = ctypes.addressof(attributes)
            assert self._kernel.CreateProcessW(
                None, command, None, None, False, 0x00080000, None, None, ctypes.byref(info), ctypes.byref(made)
            ), ctypes.FormatError(ctypes.get_last_error())
            self._process = wintypes.HANDLE(made.hProcess)
            self._kernel.CloseHandle(wintypes.HANDLE(made.hThread))

        def _read(self, screen: wintypes.HANDLE) -> None:
            buffer, count = ctypes.create_string_buffer(10_000), wintypes.DWORD()
            while self._kernel.ReadFile(screen, buffer, len(buffer), ctypes.byref(count), None) and count.value:
                self.shown += buffer.raw[: count.value]
            self._kernel.CloseHandle(screen)

        def type(self, keys: bytes) -> None:
            keys = keys.replace(b"\n", b"\r").replace(b"\x04", b"\x1a\r")  # the keys that mean the same here
            count = wintypes.DWORD()
            assert self._kernel.WriteFile(self._keyboard, keys, len(keys), ctypes.byref(count), None)

        def wait(self, seconds: float) -> bool:
            return bool(self._kernel.WaitForSingleObject(self._process, int(seconds * 1000)) == 0)

        def close(self) -> int:
            """End it; the process's exit status."""
            status = wintypes.DWORD()
            assert self._kernel.GetExitCodeProcess(self._process, ctypes.byref(status))
            if status.value == 259:  # it still runs
                self._kernel.TerminateProcess(self._process, 1)
            self._kernel.ClosePseudoConsole(self._console)
            self._reader.join(10)
            for handle in (self._keyboard, self._process):
                self._kernel.CloseHandle(handle)
            return int(status.value)

    def _run_at_terminal(command: list[str], typed: dict[str, bytes]) -> tuple[int, str]:
        if b"\x03" in typed.values() and _is_wine():
            pytest.skip("Wine's pseudoconsole takes Ctrl-C for its own end")
        console = _Pseudoconsole(command)
        waiting = dict(typed)
        deadline = time.monotonic() + _SECONDS
        while not console.wait(0.05) and time.monotonic() < deadline:
            shown = _plain(console.shown)
            for prompt in [prompt for prompt in waiting if prompt in shown]:
                console.type(waiting.pop(prompt))
        return console.close(), _plain(console.shown)

    def _plain(shown: bytes) -> str:
        """What is on the screen: blanks may be movements of the cursor."""
        text = re.sub(r"\x1b\[(\d*)C", lambda match: " " * int(match[1] or 1), shown.decode("utf-8", "replace"))
        return re.sub(r"\x1b\][^\x07]*\x07|\x1b\[[0-9;?]*[A-Za-ln-z]|\x1b\[m", "", text)  # not those that colour it
else:
    import pty
    import select

    def _run_at_terminal(command: list[str], typed: dict[str, bytes]) -> tuple[int, str]:
        process, terminal = pty.fork()
        if process == 0:
            signal.signal(signal.SIGINT, signal.SIG_DFL)  # which whoever runs the tests may have had ignored
            try:
                os.execv(command[0], command)
            finally:
                os._exit(127)  # or there would be two that run the tests
        shown = b""
        waiting = dict(typed)
        deadline = time.monotonic() + _SECONDS
        try:
            while time.monotonic() < deadline:
                if not select.select([terminal], [], [], 0.5)[0]:
                    if b"\x03" in typed.values() and not waiting:  # it may have come just before Python began to read
                        os.write(terminal, b"\x03")
                    continue
                try:
                    piece = os.read(terminal, 10_000)
                except OSError:  # Linux: the other side has closed
                    break
                if not piece:
                    break
                shown += piece
                for prompt in [prompt for prompt in waiting if prompt in shown.decode("utf-8", "replace")]:
                    os.write(terminal, waiting.pop(prompt))
        finally:
            os.close(terminal)
        return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]), shown.decode()
