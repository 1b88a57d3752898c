"""Nobody but root reads what an agent's process holds, and no core file keeps it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pageantry import hardening

if sys.platform == "win32":

    def test_what_windows_does_not_do_is_said() -> None:
        assert len(hardening.protect()) == 1
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
