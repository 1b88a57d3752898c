#!/usr/bin/env python3
"""The Windows lab: `python3 lab/windows.py -m pytest` runs these arguments with a Windows Python, under Debian's Wine.

It is raised first where it is not there yet: CPython's own DLLs with the running Python's standard library, the Windows
wheels that `uv.lock` names, and PuTTY's programs built from Debian's source, all in `.lab`. Without arguments it is only
raised. Each run has a Windows of its own (registry, home, named pipes, screen), and nothing of it is left at the end.
"""

from __future__ import annotations

import contextlib
import glob
import hashlib
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
import threading

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
from lab.steps import PYTHON, ROOT, fetch, find_uv, missing, run, which

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import IO

HERE = os.path.join(ROOT, "lab")
LAB = os.path.join(ROOT, ".lab")
PROGRAMS = {  # and the Debian packages that have them
    "wine64": "wine64",
    "wineserver64": "wine64",
    "Xvfb": "xvfb",
    "x86_64-w64-mingw32-gcc": "gcc-mingw-w64-x86-64",
    "cmake": "cmake",
    "make": "make",
}
PUTTY = ("pageant", "plink", "puttygen")
DLL = f"python{sys.version_info[0]}{sys.version_info[1]}.dll"
# The tools of check.py itself run on Linux, also for Windows.
NOT_NEEDED = ("ruff", "mypy", "ast-serialize", "librt", "mypy-extensions", "pathspec")


class NoLab(Exception):  # noqa: N818
    """There is no lab: why, and what would help."""

    def __init__(self, why: str, remedy: str) -> None:
        super().__init__(why, remedy)
        self.why, self.remedy = why, remedy


class NotHere(NoLab):
    """This machine is none to raise it on, which is nobody's defect."""


def look_at_machine() -> None:
    """Say what the lab cannot do without."""
    if sys.platform == "win32":
        raise NotHere("this is Windows and needs no lab", "run the tests as they are: py check.py")
    if sys.platform != "linux" or platform.machine() != "x86_64" or not which("apt-get"):
        remedy = "run it there, for example as root in a container of Debian 12"
        raise NotHere("the lab needs Debian's Wine and Debian's sources, on x86-64", remedy)
    if absent := missing(PROGRAMS):
        packages = " ".join(dict.fromkeys(absent.values()))
        remedy = f"as root: apt-get install --no-install-recommends {packages}"
        raise NotHere(f"the lab needs {', '.join(absent)}, not installed here", remedy)


def must(good: bool) -> None:
    """Go no further after a step that failed."""
    if not good:
        raise NoLab("a step of raising the lab failed", "its own words are above; what was made before it stays")


def read(path: str) -> bytes:
    """The contents of a file."""
    with open(path, "rb") as file:
        return file.read()


def mark(*ingredients: object) -> str:
    """What tells a part from one that was made from something else."""
    return hashlib.sha256(repr(ingredients).encode()).hexdigest()


def parts() -> dict[str, tuple[Callable[[str], None], str]]:
    """The directories of the lab: how each is made, and the mark of what it is made from."""
    wine = os.stat(which("wine64") or "/")
    sources = [read(os.path.join(HERE, name)) for name in ("python.txt", "python.c", "bcryptprimitives.c")]
    return {
        "prefix": (make_prefix, mark(wine.st_size, wine.st_mtime_ns)),
        "python": (make_python, mark(sys.version, sources, NOT_NEEDED, read(os.path.join(ROOT, "uv.lock")))),
        "putty": (make_putty, mark(PUTTY, read("/etc/os-release"))),
    }


def is_made(name: str, wanted: str) -> bool:
    """Whether a part is there, made from what is wanted."""
    try:
        return read(os.path.join(LAB, name, "mark")).decode() == wanted
    except FileNotFoundError:
        return False


def make(name: str, maker: Callable[[str], None], wanted: str) -> None:
    """Make a part under another name; only a whole one gets its own."""
    there, new = os.path.join(LAB, name), os.path.join(LAB, f"new-{name}")
    shutil.rmtree(new, ignore_errors=True)
    os.mkdir(new)
    maker(new)
    with open(os.path.join(new, "mark"), "w", encoding="ascii") as file:
        file.write(wanted)
    shutil.rmtree(there, ignore_errors=True)
    os.rename(new, there)


def make_prefix(to: str) -> None:
    """Have Wine set up a Windows."""
    # Neither .NET nor a browser (each a download that asks first), and no entries in anybody's menus.
    with_wine = {"WINEPREFIX": to, "WINEDLLOVERRIDES": "mscoree,mshtml,winemenubuilder.exe=", **QUIET}
    must(run("set up Windows", which("wine64") or "", "wineboot", "--init", **with_wine))
    end_windows(to)


def make_python(to: str) -> None:
    """Put a Windows Python together, with the packages it needs here."""
    uv = find_uv()
    if uv is None:
        raise NoLab("there is no uv to fetch packages with", "install pip (Debian: apt install python3-pip), or uv")
    fetched, lib = os.path.join(to, "fetched"), os.path.join(to, "Lib")
    packages, names = os.path.join(lib, "site-packages"), os.path.join(to, "requirements.txt")
    install = (uv, "pip", "install", "--quiet", *PYTHON, "--python-platform", "x86_64-pc-windows-msvc", "--no-deps")
    # uv goes by the target's markers; pip would go by its own system's and forget what only Windows needs.
    must(
        fetch(
            "fetch Python for Windows", *install, "--target", fetched, "--requirement", os.path.join(HERE, "python.txt")
        )
    )
    os.mkdir(os.path.join(to, "DLLs"))
    for name in os.listdir(os.path.join(fetched, "deploy_libs")):
        # Wine has Windows' own DLLs; those with a t are for a Python without the global lock.
        if not name.startswith("api-ms-win-") and not re.search(r"\.cp\d+t-", name):
            place = to if name.lower().startswith(("python", "vcruntime")) else os.path.join(to, "DLLs")
            os.rename(os.path.join(fetched, "deploy_libs", name), os.path.join(place, name))
    shutil.rmtree(fetched)
    other = ("site-packages", "dist-packages", "lib-dynload", "config-*", "test", "sitecustomize.py", "__pycache__")
    shutil.copytree(sysconfig.get_path("stdlib"), lib, ignore=shutil.ignore_patterns(*other))

    without = [word for name in NOT_NEEDED for word in ("--no-emit-package", name)]
    export = (uv, "export", "--quiet", "--frozen", "--no-emit-project", "--group", "dev", "--group", "bench", *without)
    must(run("name the packages", *export, "--output-file", names, *PYTHON))
    must(fetch("fetch packages for Windows", *install, "--target", packages, "--requirement", names))
    with open(os.path.join(packages, "pageantry.pth"), "w", encoding="ascii") as file:
        file.write("../../../../src\n")  # seen from there, so that it holds wherever the repository lies
    make_dlls(to)


def make_dlls(to: str) -> None:
    """Compile what a Windows Python needs and no wheel has."""
    compiler = ("x86_64-w64-mingw32-gcc", "-O2", "-s", "-municode")
    program = os.path.join(to, "python.exe")
    must(run("make python.exe", *compiler, f'-DPYTHON=L"{DLL}"', "-o", program, os.path.join(HERE, "python.c")))
    random = (os.path.join(to, "bcryptprimitives.dll"), os.path.join(HERE, "bcryptprimitives.c"), "-ladvapi32")
    must(run("make bcryptprimitives.dll", *compiler, "-shared", "-o", *random))
    # Wheels for every Python link to python3.dll, where each name leads on to the one Python's own DLL.
    dump = ("x86_64-w64-mingw32-objdump", "--private-headers", os.path.join(to, DLL))
    headers = subprocess.run(dump, capture_output=True, text=True, check=True).stdout
    definition = os.path.join(to, "python3.def")
    with open(definition, "w", encoding="ascii") as file:
        exported = re.findall(r"^\s*\[ *\d+\] .*\b(_?Py\w+)$", headers, re.MULTILINE)
        file.write("LIBRARY python3.dll\nEXPORTS\n")
        file.writelines(f"{name}={DLL.removesuffix('.dll')}.{name}\n" for name in exported)
    must(run("make python3.dll", *compiler, "-shared", "-nostdlib", "-o", os.path.join(to, "python3.dll"), definition))


def make_putty(to: str) -> None:
    """Build PuTTY's programs from the source that Debian has."""
    with tempfile.TemporaryDirectory(dir=to) as work:
        # The same mirrors and keys that this system uses, asked for sources and without touching its own lists.
        os.makedirs(os.path.join(work, "etc"))
        os.makedirs(os.path.join(work, "lists", "partial"))
        for path in glob.glob("/etc/apt/sources.list") + glob.glob("/etc/apt/sources.list.d/*"):
            text = re.sub(r"(?m)^(Types:.*|deb(?=\s))", lambda found: DEB_SRC[found[0][:3]], read(path).decode())
            with open(os.path.join(work, "etc", os.path.basename(path)), "w", encoding="utf-8") as file:
                file.write(text)
        places = {"Etc::sourcelist": "/dev/null", "Etc::sourceparts": f"{work}/etc", "State::lists": f"{work}/lists"}
        options = [word for key, value in places.items() for word in ("-o", f"Dir::{key}={value}")]
        apt = ("apt-get", "-qq", "-o", f"Dir::Cache={work}", "-o", "APT::Sandbox::User=root", *options)
        run("list Debian's sources", *apt, "update")
        must(run("fetch PuTTY's source", *apt, "source", "--tar-only", "putty", cwd=work))
        must(run("unpack it", "tar", "-xf", *glob.glob(f"{work}/putty_*.orig.tar.*"), "-C", work))
        (source,) = glob.glob(f"{work}/putty-*/")
        toolchain = f"-DCMAKE_TOOLCHAIN_FILE={source}cmake/toolchain-mingw.cmake"
        quiet = ("--log-level=WARNING", "-DCMAKE_RULE_MESSAGES=OFF")
        must(run("configure PuTTY", "cmake", "-S", source, "-B", f"{work}/built", toolchain, *quiet))
        must(run("build PuTTY", "cmake", "--build", f"{work}/built", "--parallel", "2", "--target", *PUTTY))
        for name in PUTTY:
            os.rename(f"{work}/built/{name}.exe", os.path.join(to, f"{name}.exe"))


DEB_SRC = {"Typ": "Types: deb-src", "deb": "deb-src"}
QUIET = {"WINEARCH": "win64", "WINEDEBUG": "-all"}


def raise_lab() -> int:
    """Make what is not there; the descriptor that holds the lab while it is open: nobody makes anything then.

    Raises NoLab.
    """
    look_at_machine()
    assert sys.platform != "win32"
    import fcntl

    os.makedirs(LAB, exist_ok=True)
    hold = os.open(os.path.join(LAB, "lock"), os.O_RDWR | os.O_CREAT, 0o600)
    with contextlib.suppress(BlockingIOError):
        fcntl.flock(hold, fcntl.LOCK_EX | fcntl.LOCK_NB)
        for left in glob.glob(os.path.join(LAB, "run-*")):  # by a run that was killed
            end_windows(left)
            shutil.rmtree(left, ignore_errors=True)
    while True:
        fcntl.flock(hold, fcntl.LOCK_SH)
        wanted = {name: how for name, how in parts().items() if not is_made(name, how[1])}
        if not wanted:
            return hold
        fcntl.flock(hold, fcntl.LOCK_EX)  # waits for the end of runs that use the old ones
        for name, (maker, fresh) in parts().items():
            if not is_made(name, fresh):
                make(name, maker, fresh)


def end_windows(prefix: str) -> None:
    """End every program of a Windows."""
    subprocess.run(
        (which("wineserver64") or "", "--kill"), env={"WINEPREFIX": prefix}, stderr=subprocess.DEVNULL, check=False
    )


@contextlib.contextmanager
def own_windows() -> Iterator[str]:
    """A Windows for one run: its own registry and home, and Wine's files as they are."""
    made, prefix = os.path.join(LAB, "prefix"), tempfile.mkdtemp(prefix="run-", dir=LAB)
    try:
        shared = os.path.join("drive_c", "windows")
        shutil.copytree(
            made, prefix, symlinks=True, dirs_exist_ok=True, ignore=lambda at, _: ["windows"] * at.endswith("drive_c")
        )
        os.symlink(os.path.join(made, shared), os.path.join(prefix, shared))
        yield prefix
    finally:
        end_windows(prefix)
        shutil.rmtree(prefix, ignore_errors=True)


@contextlib.contextmanager
def screen() -> Iterator[str]:
    """The name of an X display in memory: Windows' programs with a window, Pageant among them, want one."""
    reading, writing = os.pipe()
    server = subprocess.Popen(
        (*DIES_WITH_US, "Xvfb", "-displayfd", str(writing), "-nolisten", "tcp"),
        pass_fds=(writing,),
        start_new_session=True,
        stderr=subprocess.DEVNULL,
    )
    try:
        os.close(writing)
        with open(reading, encoding="ascii") as file:
            yield f":{file.readline().strip()}"
    finally:
        server.terminate()
        server.wait()


DIES_WITH_US = ("setpriv", "--pdeathsig", "KILL")


def environment(prefix: str, display: str) -> dict[str, str]:
    """What Windows' Python gets to see of this process's environment, and what Wine is told."""
    # What is said there to the Python or about the agents of this system would only mislead over there.
    foreign = ("PYTHON", "SSH_", "WINE", "VIRTUAL_ENV", "XDG_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(foreign) or name in KEPT}
    lab = "Z:" + LAB.replace("/", "\\")
    return kept | QUIET | {
        "WINEPREFIX": prefix, "DISPLAY": display, "HOME": prefix, "LC_ALL": "C.UTF-8",
        "WINEPATH": rf"{lab}\python;{lab}\putty", "PYTHONPYCACHEPREFIX": rf"{lab}\compiled",
    }  # fmt: skip


KEPT = ("PYTHONDONTWRITEBYTECODE",)


def relay(source: int, sink: int, finally_close: IO[bytes]) -> threading.Thread:
    """Pass on bytes from one descriptor to another, in a thread, until either has had enough."""

    def pass_on() -> None:
        with finally_close, contextlib.suppress(OSError):
            while data := os.read(source, 1 << 16):
                while data:
                    data = data[os.write(sink, data) :]

    thread = threading.Thread(target=pass_on, daemon=True)
    thread.start()
    return thread


def run_python(arguments: list[str]) -> int:
    """Run Windows' Python, connected to this process's standard streams; its exit status, of which Wine keeps 8 bits."""
    relays = []
    with screen() as display:
        with own_windows() as prefix:
            # CPython under Wine takes nothing but pipes for its standard streams.
            python = subprocess.Popen(
                (*DIES_WITH_US, which("wine64") or "", os.path.join(LAB, "python", "python.exe"), "-u", *arguments),
                env=environment(prefix, display), start_new_session=True, bufsize=0, stdin=subprocess.PIPE,
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT if os.path.sameopenfile(1, 2) else subprocess.PIPE,
            )  # fmt: skip
            assert python.stdin and python.stdout
            relay(0, python.stdin.fileno(), python.stdin)
            relays.append(relay(python.stdout.fileno(), 1, python.stdout))
            if python.stderr:
                relays.append(relay(python.stderr.fileno(), 2, python.stderr))
            status = wait(python)
    for each in relays:  # they end with the last program that could write
        each.join()
    return status


def wait(process: subprocess.Popen[bytes]) -> int:
    """Wait for the end of a process; Ctrl-C is for it, and a second one for us."""
    try:
        return process.wait()
    except KeyboardInterrupt:
        process.send_signal(signal.SIGINT)
        return process.wait()


def main() -> int:
    """Raise the lab and run the arguments in it."""
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    try:
        hold = raise_lab()
        if len(sys.argv) == 1:
            print("the lab is up; a Windows Python: python3 lab/windows.py -c 'import sys; print(sys.version)'")
            return 0
        with open(hold, "rb"):
            return run_python(sys.argv[1:])
    except NoLab as reason:
        print(f"lab: {reason.why}\n{reason.remedy}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
