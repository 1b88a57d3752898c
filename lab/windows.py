#!/usr/bin/env python3
"""The Windows lab: `python3 lab/windows.py -m pytest` has a Windows Python run these arguments, under Debian's Wine.

What is missing of the lab is made first, in `.lab`; without arguments no more than that. Each run has a Windows of its
own (registry, home, named pipes, screen), and nothing of it is left afterwards.
"""

from __future__ import annotations

import contextlib
import glob
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import threading

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
from lab.parts import LAB, PROGRAMS, WINE, NoLab, end_windows, make, stale
from lab.steps import missing

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import IO

WITH_US = ("setpriv", "--pdeathsig", "KILL")  # nothing outlives this process, not even where it is killed
# What is said to a Python or Wine here, and about agents and directories of this system, would mislead there.
FOREIGN = ("PYTHON", "WINE", "SSH_", "XDG_", "VIRTUAL_ENV")


@contextlib.contextmanager
def raised() -> Iterator[None]:
    """The lab, raised where it is not there, and held: nobody makes parts of it anew meanwhile.

    Raises NoLab.
    """
    if sys.platform == "win32":
        raise NoLab("this is Windows and needs no lab", "run it with Python itself; all checks: py check.py", here=True)
    elif sys.platform != "linux" or platform.machine() != "x86_64" or not shutil.which("apt-get"):
        remedy = "run it there, for example as root in a container of Debian 12"
        raise NoLab("it is made of Debian's Wine and Debian's sources, for x86-64", remedy, here=True)
    elif absent := missing(PROGRAMS):
        packages = " ".join(dict.fromkeys(absent.values()))
        remedy = f"as root: apt-get install --no-install-recommends {packages}"
        raise NoLab(f"{', '.join(absent)} not found", remedy, here=True)
    else:
        from fcntl import LOCK_EX, LOCK_NB, LOCK_SH, flock

        os.makedirs(LAB, exist_ok=True)
        with open(os.path.join(LAB, "lock"), "w", encoding="ascii") as lock:
            with contextlib.suppress(BlockingIOError):
                flock(lock, LOCK_EX | LOCK_NB)
                for left in glob.glob(os.path.join(LAB, "run-*")):  # by a run that was killed
                    end_windows(left)
                    shutil.rmtree(left, ignore_errors=True)
            flock(lock, LOCK_SH)
            while stale(LAB):
                flock(lock, LOCK_EX)  # which waits for the end of the runs with the parts as they are
                for part in stale(LAB):
                    make(LAB, *part)
                flock(lock, LOCK_SH)
            yield


@contextlib.contextmanager
def own_windows() -> Iterator[str]:
    """A Windows for one run, as a Wine prefix: its own but for the files of Windows itself."""
    made, prefix = os.path.join(LAB, "windows"), tempfile.mkdtemp(prefix="run-", dir=LAB)
    system = os.path.join("drive_c", "windows")
    try:
        own = shutil.ignore_patterns("windows")
        shutil.copytree(made, prefix, symlinks=True, ignore=own, dirs_exist_ok=True)
        os.symlink(os.path.join(made, system), os.path.join(prefix, system))
        yield prefix
    finally:
        end_windows(prefix)
        shutil.rmtree(prefix, ignore_errors=True)


@contextlib.contextmanager
def screen() -> Iterator[str]:
    """An X display in memory, by name: programs with a window, Pageant among them, do not start without one."""
    reading, writing = os.pipe()
    command = (*WITH_US, "Xvfb", "-displayfd", str(writing), "-nolisten", "tcp")
    server = subprocess.Popen(command, pass_fds=(writing,), start_new_session=True, stderr=subprocess.DEVNULL)
    try:
        os.close(writing)
        with open(reading, encoding="ascii") as file:
            number = file.readline().strip()
        if not number:
            raise NoLab("Xvfb did not start", "see what it says: Xvfb -displayfd 1")
        yield f":{number}"
    finally:
        server.terminate()
        server.wait()


def environment(prefix: str, display: str) -> dict[str, str]:
    """What the Windows Python gets to see of this process's environment, and what Wine is told in it."""
    lab = "Z:" + LAB.replace("/", "\\")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(FOREIGN)}
    if "PYTHONDONTWRITEBYTECODE" in os.environ:
        kept["PYTHONDONTWRITEBYTECODE"] = "1"
    # What crashes shall end: Wine's debugger would wait for somebody.
    wine = {"WINEPREFIX": prefix, "WINEARCH": "win64", "WINEDEBUG": "-all", "WINEDLLOVERRIDES": "winedbg.exe="}
    windows = {"WINEPATH": rf"{lab}\python;{lab}\putty;{lab}\peers", "PYTHONPYCACHEPREFIX": rf"{lab}\compiled"}
    # In UTF-8 are the names of files; text is encoded as in an English Windows.
    return kept | wine | windows | {"HOME": prefix, "DISPLAY": display, "LC_ALL": "C.UTF-8"}


def relay(source: int, sink: int, end: IO[bytes]) -> threading.Thread:
    """Pass bytes on, in a thread, until there are no more or nobody wants them; then close this end of the pipe."""

    def pass_on() -> None:
        with end, contextlib.suppress(OSError):
            while data := os.read(source, 1 << 16):
                while data:
                    data = data[os.write(sink, data) :]

    thread = threading.Thread(target=pass_on, daemon=True)
    thread.start()
    return thread


def run_python(arguments: list[str]) -> int:
    """Run the Windows Python on this process's standard streams; its exit status (its low 8 bits, says Wine)."""
    outputs = []
    with screen() as display, own_windows() as prefix:
        command = (*WITH_US, WINE, os.path.join(LAB, "python", "python.exe"), "-u", *arguments)
        # Under Wine, CPython does not start on anything but pipes.
        one_output = os.path.sameopenfile(1, 2)
        python = subprocess.Popen(
            command,
            env=environment(prefix, display),
            start_new_session=True,  # Ctrl-C comes from here
            bufsize=0,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT if one_output else subprocess.PIPE,
        )
        if python.stdin:
            relay(0, python.stdin.fileno(), python.stdin)
        for sink, pipe in ((1, python.stdout), (2, python.stderr)):
            if pipe:
                outputs.append(relay(pipe.fileno(), sink, pipe))
        try:
            status = python.wait()
        except KeyboardInterrupt:
            python.send_signal(signal.SIGINT)
            status = python.wait()  # which a second Ctrl-C ends
    for output in outputs:  # complete, now that no program of this Windows is left to write
        output.join()
    return status


def main() -> int:
    """Raise the lab and run the arguments there; the exit status."""
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    try:
        with raised():
            return run_python(sys.argv[1:]) if sys.argv[1:] else 0
    except NoLab as reason:
        print(f"no Windows lab: {reason.why}\n{reason.remedy}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
