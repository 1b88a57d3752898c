"""Nobody but root reads what an agent's process holds, and no core file keeps it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pageantry import Client, hardening, winpipe

if sys.platform == "win32":
    # A process that others look at: it says who it is, is told what to do, and says what that came to.
    LOOKED_AT = """
import os
from pageantry import hardening
print(os.getpid(), flush=True)
while line := input():
    print(getattr(hardening, line)(), flush=True)
"""
    # What another process of this user gets of it, by the rights in sys.argv; and whether it learns whose it is.
    OTHER = """
import ctypes, sys
from pageantry import winpipe
kernel32 = ctypes.WinDLL("kernel32", use_last_error=True)
kernel32.OpenProcess.restype = ctypes.c_void_p
pid, *rights = map(int, sys.argv[1:])
for right in rights:
    print("open" if kernel32.OpenProcess(right, False, pid) else ctypes.get_last_error())
print(winpipe.user(pid) == winpipe.user())
"""
    CLOSED = {
        "PROCESS_CREATE_THREAD": 0x2, "PROCESS_VM_OPERATION": 0x8, "PROCESS_VM_READ": 0x10, "PROCESS_VM_WRITE": 0x20,
        "PROCESS_DUP_HANDLE": 0x40, "PROCESS_SET_INFORMATION": 0x200, "PROCESS_QUERY_INFORMATION": 0x400,
        "PROCESS_SUSPEND_RESUME": 0x800, "PROCESS_ALL_ACCESS": 0x1FFFFF,
    }  # fmt: skip
    OPEN = {"SYNCHRONIZE": 0x100000, "PROCESS_QUERY_LIMITED_INFORMATION": 0x1000, "PROCESS_TERMINATE": 0x1}
    OWNERS = {"WRITE_DAC": 0x40000, "WRITE_OWNER": 0x80000}

    class LookedAt:
        """Such a process."""

        def __init__(self) -> None:
            command = [sys.executable, "-u", "-c", LOOKED_AT]
            self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            assert self.process.stdin
            assert self.process.stdout
            self._input, self._output = self.process.stdin, self.process.stdout
            self.pid = int(self._output.readline())

        def do(self, function: str) -> str:
            self._input.write(f"{function}\n")
            self._input.flush()
            return self._output.readline().strip()

        def seen(self, rights: dict[str, int]) -> list[str]:
            """What another process of this user gets of it, and at the end whether that learns whose it is."""
            command = [sys.executable, "-c", OTHER, str(self.pid), *map(str, rights.values())]
            return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout.split()

        def end(self) -> None:
            self._input.write("\n")
            self._input.close()
            assert self.process.wait(60) == 0
            self._output.close()

    @pytest.fixture
    def looked_at() -> Iterator[LookedAt]:
        process = LookedAt()
        yield process
        process.end()

    def test_another_process_of_the_same_user_is_kept_out_and_still_learns_whose_it_is(looked_at: LookedAt) -> None:
        assert looked_at.seen(CLOSED | OPEN) == ["open"] * len(CLOSED | OPEN) + ["True"], "or else this shows nothing"
        assert looked_at.do("restrict") == "[]"
        assert looked_at.seen(CLOSED) == ["5"] * len(CLOSED) + ["True"]
        assert looked_at.seen(OPEN) == ["open"] * len(OPEN) + ["True"]
        assert looked_at.do("restrict") == "[]", "a second time changes nothing"
        assert looked_at.seen({"PROCESS_VM_READ": 0x10}) == ["5", "True"]

    def test_its_owner_cannot_write_the_rights_anew(looked_at: LookedAt, wine: bool) -> None:
        if wine:
            pytest.skip("Wine 8 knows no rights of owners (S-1-3-4)")
        assert looked_at.do("restrict") == "[]"
        assert looked_at.seen(OWNERS) == ["5", "5", "True"]

    def test_that_others_can_read_it_is_said_as_long_as_they_can(looked_at: LookedAt) -> None:
        assert looked_at.do("protect") == "['other programs of this user can read the memory of this one']"
        assert looked_at.do("restrict") == "[]"
        assert looked_at.do("protect") == "[]"

    # An agent in a process that is closed.
    AGENT = """
import pageantry
from pageantry import hardening
from pageantry.keyfiles import KeyFiles
assert hardening.restrict() == []
with pageantry.exposed(KeyFiles([])) as address:
    print(address, flush=True)
    input()
"""

    def test_a_client_still_knows_the_agent_of_such_a_process() -> None:
        command = [sys.executable, "-c", AGENT]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as agent:
            assert agent.stdin
            assert agent.stdout
            with winpipe.connect(agent.stdout.readline().strip()) as pipe:
                assert (pipe.peer.pid, pipe.peer.sid) == (agent.pid, winpipe.user())
                assert pipe.peer.program.lower().endswith("python.exe")
                with Client(lambda: pipe, "pipe") as client:
                    assert list(client.identities()) == []
            agent.communicate("\n", timeout=60)
            assert agent.returncode == 0

    def test_what_cannot_be_done_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
        for name in ("_SetSecurity", "_SetMitigation"):
            monkeypatch.setattr(hardening, name, lambda *_: 0)
        monkeypatch.setattr(hardening, "_SetReportFlags", lambda *_: -2147024809)
        said = [*hardening.restrict(), *hardening.protect()]
        assert len(said) == 4
        assert "can read the memory" in said[0]
        assert "can load" in said[1]
        assert "reports of a crash" in said[2]

    def test_windows_itself_limits_no_files() -> None:
        assert hardening.many_files(5000) == 5000

else:
    import resource
    import signal

    # Two processes of a user who is not root. The first, which debuggers could attach to, tries to read the other's
    # memory: before the other protects itself, and then.
    TWO = """
import ctypes, os, resource, sys
from pageantry import hardening
if os.geteuid() == 0:
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
    ctypes.CDLL(None).prctl(4, 1, 0, 0, 0)  # which setuid has taken away
ask, asked = os.pipe()
tell, told = os.pipe()
child = os.fork()
if child == 0:
    os.close(asked)
    while os.read(ask, 1):
        os.write(told, bytes((len(hardening.protect()),)))
    os._exit(0)
def look(name):
    try:
        with open(f"/proc/{child}/{name}", "rb") as file:
            return file.fileno() >= 0 and "open"
    except PermissionError:
        return "closed"
names = ["mem", "environ", "maps", "auxv"]
print(*map(look, names))
os.write(asked, b"!")
print(tell and os.read(tell, 1)[0])
print(*map(look, names))
os.close(asked)
os.waitpid(child, 0)
"""

    @pytest.mark.skipif(sys.platform != "linux", reason="only Linux shows memory as a file")
    def test_another_process_of_the_same_user_cannot_read_its_memory() -> None:
        done = subprocess.run([sys.executable, "-c", TWO], capture_output=True, text=True, timeout=60)
        before, failed, after = done.stdout.splitlines()
        assert before == "open open open open", "or else this shows nothing"
        assert failed == "0"
        assert after == "closed closed closed closed"
        assert done.stderr == ""

    # What is done with one's own process elsewhere in the package, by a user who is not root.
    OWN = """
import os, subprocess, sys
from pageantry import hardening
import ctypes, resource, selectors  # which may lie where that user cannot read
if os.geteuid() == 0:
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
assert hardening.protect() == []
reading, writing = os.pipe()
assert str(reading) in os.listdir("/dev/fd")
assert "python" in os.readlink("/proc/self/exe")
with open("/proc/self/status") as file:
    assert file.read()
done = subprocess.run(["sh", "-c", "echo hello >&$0", str(writing)], pass_fds=[writing])
assert (done.returncode, os.read(reading, 10)) == (0, b"hello\\n")
done = subprocess.run(["sh", "-c", "cat /proc/self/environ"], env={"A": "B"}, capture_output=True)
assert b"A=B" in done.stdout, "programs that it runs are as others are"
print("done")
"""

    @pytest.mark.skipif(sys.platform != "linux", reason="this is about Linux' /proc")
    def test_it_can_still_do_what_it_has_to() -> None:
        done = subprocess.run([sys.executable, "-c", OWN], capture_output=True, text=True, timeout=60, cwd="/")
        assert (done.stdout, done.stderr) == ("done\n", "")

    ABORT = """
import os, resource, sys
from pageantry import hardening
hard = resource.getrlimit(resource.RLIMIT_CORE)[1]
resource.setrlimit(resource.RLIMIT_CORE, (hard, hard))
if sys.argv[1] == "protected":
    assert hardening.protect() == []
os.abort()
"""

    def aborted(directory: Path, how: str) -> list[str]:
        """What a process that aborts leaves behind."""
        directory.mkdir()
        command = [sys.executable, "-c", ABORT, how]
        done = subprocess.run(command, cwd=directory, capture_output=True, text=True, timeout=60)
        assert done.returncode == -signal.SIGABRT, done.stderr
        return os.listdir(directory)

    def test_an_abort_leaves_no_core_file(tmp_path: Path) -> None:
        assert aborted(tmp_path / "protected", "protected") == []
        if not aborted(tmp_path / "not", "not"):
            pytest.skip("this system puts no core files into the current directory: that none is there shows nothing")

    def limits(code: str) -> list[str]:
        """What a process prints whose limits are its own."""
        code = f"import resource\nfrom pageantry import hardening\n{code}"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
        return done.stdout.split()

    def test_neither_it_nor_its_children_can_have_core_files_again() -> None:
        assert limits("hardening.protect(); print(*resource.getrlimit(resource.RLIMIT_CORE))") == ["0", "0"]

    def test_it_may_have_as_many_files_as_the_system_lets_it() -> None:
        begin = "kind = resource.RLIMIT_NOFILE; resource.setrlimit(kind, (200, 300));"
        end = "print(*resource.getrlimit(kind))"
        assert limits(f"{begin} print(hardening.many_files(250)); {end}") == ["250", "250", "300"]
        assert limits(f"{begin} print(hardening.many_files(1000)); {end}") == ["300", "300", "300"]
        assert limits(f"{begin} print(hardening.many_files(100)); {end}") == ["200", "200", "300"]

    def test_where_the_system_does_not_say_how_many_it_is_as_many_as_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(resource, "getrlimit", lambda _: (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        assert hardening.many_files(1000) == 1000

    def test_where_the_system_has_a_limit_of_its_own_there_are_as_many_as_before(
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        def refuse(*_: object) -> None:
            raise ValueError("current limit exceeds maximum limit")

        monkeypatch.setattr(resource, "getrlimit", lambda _: (256, resource.RLIM_INFINITY))
        monkeypatch.setattr(resource, "setrlimit", refuse)
        assert hardening.many_files(1000) == 256

    def test_what_cannot_be_done_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
        import ctypes

        def refuse(*_: object) -> None:
            raise ValueError("not allowed to raise maximum limit")

        def missing(*_: object, **__: object) -> None:
            raise OSError("no C library")

        monkeypatch.setattr(resource, "setrlimit", refuse)
        monkeypatch.setattr(ctypes, "CDLL", missing)
        said = hardening.protect()
        assert len(said) == 2
        assert "a core file may be left" in said[0]
        assert "no C library" in said[1]
