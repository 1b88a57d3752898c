"""The parts of the Windows lab, and how each is made: a Windows, a Python for it, PuTTY's programs, GnuPG's sockets."""

from __future__ import annotations

import glob
import hashlib
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile

from lab.steps import ROOT, THIS_PYTHON, fetch, find_uv, run

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

LAB = os.path.join(ROOT, ".lab")
WINE, WINESERVER = "/usr/lib/wine/wine64", "/usr/lib/wine/wineserver64"
PROGRAMS = {  # and the Debian packages they are in
    WINE: "wine64",
    WINESERVER: "wine64",
    "Xvfb": "xvfb",
    "x86_64-w64-mingw32-gcc": "gcc-mingw-w64-x86-64",
    "cmake": "cmake",
    "make": "make",
    "/usr/x86_64-w64-mingw32/include/assuan.h": "libassuan-mingw-w64-dev",
    "/usr/x86_64-w64-mingw32/include/gpg-error.h": "libgpg-error-mingw-w64-dev",
}
HERE = os.path.join(ROOT, "lab")
ASSUAN_PEER = os.path.join(ROOT, "tests", "interop", "assuan_peer.c")
PYTHON_DLL = f"python{sys.version_info[0]}{sys.version_info[1]}"
PUTTY = ("pageant", "plink")  # puttygen for Windows is a window without a command line


class NoLab(Exception):
    """Why there is no lab, and what would help; `here`: this machine is none to raise it on, which is no defect."""

    def __init__(self, why: str, remedy: str, *, here: bool = False) -> None:
        super().__init__(why, remedy)
        self.why, self.remedy, self.here = why, remedy, here


def must(good: bool) -> None:
    """Go no further after a step that failed."""
    if not good:
        raise NoLab(
            "a step of raising it failed", "its own words are above; the next run goes on with the part it is of"
        )


def make_windows(to: str) -> None:
    """Have Wine set up a Windows."""
    # Neither .NET nor a browser, which Wine would offer to download, and no entries in anybody's menus. Where there
    # is no home, Windows' Documents and its like are directories of its own, not links to somebody's home.
    options = {"WINEDLLOVERRIDES": "mscoree,mshtml,winemenubuilder.exe=", "HOME": "/nonexistent"}
    must(
        run(
            "set up a Windows", WINE, "wineboot", "--init", WINEPREFIX=to, WINEARCH="win64", WINEDEBUG="-all", **options
        )
    )
    end_windows(to)


def end_windows(prefix: str) -> None:
    """End every program of a Windows, and it."""
    subprocess.run((WINESERVER, "--kill"), env={"WINEPREFIX": prefix}, stderr=subprocess.DEVNULL, check=False)


def make_python(to: str) -> None:
    """Put a Windows Python of this Python's version together, with the packages that `uv.lock` names."""
    uv = find_uv()
    if uv is None:
        raise NoLab("there is no uv to fetch packages with", "install pip (Debian: apt install python3-pip), or uv")
    lib, dlls, fetched = (os.path.join(to, name) for name in ("Lib", "DLLs", "fetched"))
    # uv judges markers by the target; pip judges by its own system and would leave out what only Windows needs.
    target = ("--python-platform", "x86_64-pc-windows-msvc", "--no-deps", "--only-binary", ":all:")
    install = (uv, "pip", "install", "--quiet", *THIS_PYTHON, *target)
    must(fetch("fetch Python", *install, "--target", fetched, "--requirement", os.path.join(HERE, "python.txt")))
    os.mkdir(dlls)
    for dll in os.scandir(os.path.join(fetched, "deploy_libs")):
        # Windows' own DLLs are Wine's. Python can do without _wmi, which calls what Wine 8 lacks. A t after the version
        # is for Pythons without the global lock.
        if not re.match(r"api-ms-win-|_wmi\.|.*\.cp\d+t-", dll.name):
            place = to if re.match("(?i)python|vcruntime", dll.name) else dlls
            os.rename(dll.path, os.path.join(place, dll.name))
    shutil.rmtree(fetched)
    # What of the standard library is this system's own, or not to be had on Windows.
    without = ("site-packages", "dist-packages", "lib-dynload", "config-*", "test", "sitecustomize.py", "__pycache__")
    shutil.copytree(sysconfig.get_path("stdlib"), lib, ignore=shutil.ignore_patterns(*without))
    make_programs(to)

    packages, names = os.path.join(lib, "site-packages"), os.path.join(to, "requirements.txt")
    # ruff and mypy judge the code for every system where they are.
    chosen = ("--group", "dev", "--group", "bench", "--no-emit-package", "ruff", "--no-emit-package", "mypy")
    export = (uv, "export", "--quiet", "--frozen", "--no-emit-project", *chosen, "--output-file", names)
    must(run("name the packages", *export, *THIS_PYTHON))
    must(fetch("fetch the packages", *install, "--target", packages, "--requirement", names))
    with open(os.path.join(packages, "pageantry.pth"), "w", encoding="ascii") as file:
        file.write("../../../../src\n")  # as seen from there, so that it holds wherever the repository lies


def make_programs(to: str) -> None:
    """Compile what a Windows Python needs and no wheel has: python.exe and two DLLs."""
    compiler = ("x86_64-w64-mingw32-gcc", "-O2", "-s", "-municode")

    def compile_to(name: str, *arguments: str) -> None:
        must(run(f"make {name}", *compiler, "-o", os.path.join(to, name), *arguments))

    compile_to("python.exe", os.path.join(HERE, "python.c"), f'-DPYTHON=L"{PYTHON_DLL}.dll"')
    compile_to("bcryptprimitives.dll", os.path.join(HERE, "bcryptprimitives.c"), "-shared", "-ladvapi32")
    # Wheels that fit every Python link to python3.dll, whose every name leads on to the one Python's own DLL.
    dump = ("x86_64-w64-mingw32-objdump", "--private-headers", os.path.join(to, f"{PYTHON_DLL}.dll"))
    headers = subprocess.run(dump, capture_output=True, text=True, check=True).stdout
    forwards = os.path.join(to, "python3.def")
    with open(forwards, "w", encoding="ascii") as file:
        exports = re.findall(r"(?m)^\s*\[ *\d+\].*\b(_?Py\w+)$", headers)
        file.write("LIBRARY python3.dll\nEXPORTS\n")
        file.writelines(f"{name}={PYTHON_DLL}.{name}\n" for name in exports)
    compile_to("python3.dll", forwards, "-shared", "-nostdlib", "-Wl,--entry=0")


def make_putty(to: str) -> None:
    """Build PuTTY's programs for Windows from the source that Debian has."""
    with tempfile.TemporaryDirectory(dir=to) as work:
        for directory in ("etc", "lists/partial"):
            os.makedirs(os.path.join(work, directory))
        # The mirrors and keys that this system has, asked for sources; its own lists stay as they are.
        for path in glob.glob("/etc/apt/sources.list") + glob.glob("/etc/apt/sources.list.d/*"):
            with open(os.path.join(work, "etc", os.path.basename(path)), "w", encoding="utf-8") as file:
                file.write(for_sources(read(path)))
        places = (
            f"State::lists={work}/lists",
            f"Cache={work}",
            "Etc::sourcelist=/dev/null",
            f"Etc::sourceparts={work}/etc",
        )
        options = ("-o", "APT::Sandbox::User=root", *(word for place in places for word in ("-o", f"Dir::{place}")))
        # One mirror that fails is none of ours, as long as another has PuTTY.
        run("list Debian's sources", "apt-get", "-qq", *options, "update")
        must(run("fetch PuTTY's source", "apt-get", "-qq", *options, "source", "--tar-only", "putty", cwd=work))
        must(run("unpack it", "tar", "-xf", *glob.glob("putty_*.orig.tar.*", root_dir=work), cwd=work))
        (source,) = glob.glob(f"{work}/putty-*/")
        toolchain = f"-DCMAKE_TOOLCHAIN_FILE={source}cmake/toolchain-mingw.cmake"
        quiet = ("--log-level=WARNING", "-DCMAKE_RULE_MESSAGES=OFF")
        must(run("configure PuTTY", "cmake", "-S", source, "-B", f"{work}/built", toolchain, *quiet))
        must(run("build PuTTY", "cmake", "--build", f"{work}/built", "--parallel", "2", "--target", *PUTTY))
        for name in PUTTY:
            os.rename(f"{work}/built/{name}.exe", os.path.join(to, f"{name}.exe"))


def make_peers(to: str) -> None:
    """Compile what the tests talk to and is nowhere a program yet."""
    compile_to = ("x86_64-w64-mingw32-gcc", "-O2", "-s", "-static", "-o", os.path.join(to, "assuan_peer.exe"))
    must(run("make assuan_peer.exe", *compile_to, ASSUAN_PEER, "-lassuan", "-lgpg-error", "-lws2_32"))


def for_sources(text: str) -> str:
    """Turn what apt is told of packages, in either of its formats, into the same for sources."""
    return re.sub(r"(?m)^deb(?=\s)", "deb-src", re.sub(r"(?m)^Types:.*", "Types: deb-src", text))


def read(path: str) -> str:
    """The text of a file; empty where there is none."""
    try:
        with open(path, encoding="utf-8") as file:
            return file.read()
    except FileNotFoundError:
        return ""


def wanted() -> dict[str, tuple[Callable[[str], None], str]]:
    """The parts by name: how each is made, and the mark of what it is made from."""
    sources = [read(os.path.join(HERE, name)) for name in ("python.txt", "python.c", "bcryptprimitives.c")]
    wine = os.stat(WINE)
    ingredients: dict[str, tuple[Callable[[str], None], object]] = {
        "windows": (make_windows, (wine.st_size, wine.st_mtime_ns)),
        "python": (make_python, (sys.version, sources, read(os.path.join(ROOT, "uv.lock")))),
        "putty": (make_putty, read("/etc/os-release")),
        "peers": (make_peers, (read("/etc/os-release"), read(ASSUAN_PEER))),
    }
    here = read(os.path.abspath(__file__))
    return {name: (how, mark(here, what)) for name, (how, what) in ingredients.items()}


def mark(*ingredients: object) -> str:
    """What tells a part from one that was made from something else, or otherwise."""
    return hashlib.sha256(repr(ingredients).encode()).hexdigest()


def stale(directory: str) -> list[tuple[str, Callable[[str], None], str]]:
    """Those of the parts that are not in the directory as they are wanted: name, how to make it, its mark."""
    parts = wanted().items()
    return [(name, *how) for name, how in parts if read(os.path.join(directory, name, "mark")) != how[1]]


def make(directory: str, name: str, how: Callable[[str], None], its_mark: str) -> None:
    """Make a part under another name; only a whole one gets its own."""
    there, new = os.path.join(directory, name), os.path.join(directory, f"new-{name}")
    shutil.rmtree(new, ignore_errors=True)
    os.mkdir(new)
    try:
        how(new)
        with open(os.path.join(new, "mark"), "w", encoding="ascii") as file:
            file.write(its_mark)
        shutil.rmtree(there, ignore_errors=True)
        os.rename(new, there)
    finally:
        shutil.rmtree(new, ignore_errors=True)
