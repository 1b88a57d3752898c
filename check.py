#!/usr/bin/env python3
"""Run every check of this project: `python3 check.py` (PowerShell: `py check.py`).

It needs Python 3.11 or later with pip, and nothing else. What it sets up stays in two directories of this repository,
`.uv` (the tool uv) and `.venv` (what `uv.lock` names), and is used again next time. Arguments after `--` go to pytest.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import time

ROOT = os.path.dirname(os.path.abspath(__file__))
PYTHON = os.path.join(ROOT, ".venv", "Scripts\\python.exe" if sys.platform == "win32" else "bin/python")
UV_VERSION = "0.13.8"
UV_HOME = os.path.join(ROOT, ".uv", UV_VERSION)
PROGRAMS = ("ssh-agent", "ssh-add", "ssh-keygen", "sshd", "gpg-agent", "pageant")
DEBIAN_PACKAGES = ("openssh-client", "openssh-server", "gnupg", "putty", "putty-tools")


def run(name: str, *command: str, **environment: str) -> bool:
    """Run one step under its own heading; whether it went well."""
    print(f"\n=== {name}: {' '.join(command)}", flush=True)
    started = time.monotonic()
    # A virtual environment that happens to be active is not ours, and tools warn about it.
    inherited = {key: value for key, value in os.environ.items() if key != "VIRTUAL_ENV"}
    good = subprocess.run(command, cwd=ROOT, env=inherited | environment, check=False).returncode == 0
    print(f"=== {name}: {'passed' if good else 'FAILED'} in {time.monotonic() - started:.1f} s", flush=True)
    return good


def find_uv() -> str | None:
    """Our own uv, fetched the first time; where Python has no pip, the uv on PATH."""
    ours = os.path.join(UV_HOME, "bin")
    if not shutil.which("uv", path=ours):
        if importlib.util.find_spec("pip") is None:
            return shutil.which("uv")
        # --target also works where the system's Python refuses to have packages installed (PEP 668).
        install = ("install", "--quiet", "--target", UV_HOME, f"uv=={UV_VERSION}")
        run("fetch uv", sys.executable, "-m", "pip", *install, PIP_ROOT_USER_ACTION="ignore")
    return shutil.which("uv", path=ours)


def missing_programs() -> list[str]:
    """Those of the programs the interop tests talk to that are not here, after an attempt to install them."""
    path = os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/sbin"))

    def missing() -> list[str]:
        return [program for program in PROGRAMS if not shutil.which(program, path=path)]

    # On a running system the packages would start an SSH server; only in a container is that nobody's business.
    if sys.platform == "linux" and missing() and os.geteuid() == 0 and not os.path.exists("/run/systemd/system"):
        apt = shutil.which("apt-get")
        if apt and run("update the list of packages", apt, "-qq", "update"):
            install = (apt, "-qq", "install", "--yes", "--no-install-recommends", *DEBIAN_PACKAGES)
            run("install programs to test with", *install, DEBIAN_FRONTEND="noninteractive")
    return missing()


def check(pytest_arguments: list[str]) -> int:
    """Set up, run all checks, sum up; the exit code."""
    uv = find_uv()
    if uv is None:
        print("check.py: no uv to set up with\ninstall pip (Debian: apt install python3-pip), or uv", file=sys.stderr)
        return 1
    python = ("--python", sys.executable, "--no-python-downloads")
    sync = (uv, "sync", "--quiet", "--frozen", "--group", "dev", "--group", "bench", *python)
    where = {"UV_PROJECT_ENVIRONMENT": ".venv"}
    # Behind a proxy with a certificate of its own, only the system knows whom to trust.
    if not run("set up .venv", *sync, **where) and not run("set up .venv again", *sync, "--system-certs", **where):
        return 1
    missing = missing_programs()
    results = {
        "lock file": run("lock file", uv, "lock", "--quiet", "--check", "--offline", *python),
        "format": run("format", PYTHON, "-m", "ruff", "format", "--diff"),
        "lint": run("lint", PYTHON, "-m", "ruff", "check"),
    }
    for platform in ("linux", "darwin", "win32"):
        mypy = (PYTHON, "-m", "mypy", "--platform", platform, "--cache-dir", f".mypy_cache/{platform}")
        results[f"types for {platform}"] = run(f"types for {platform}", *mypy)
    results["tests"] = run("tests", PYTHON, "-m", "pytest", *pytest_arguments)

    failed = [name for name, good in results.items() if not good]
    print(f"\npassed: {', '.join(name for name in results if name not in failed) or 'nothing'}")
    if missing:
        print(f"skipped: the tests that talk to {', '.join(missing)}, because these programs are not installed")
    print(f"FAILED: {', '.join(failed)}" if failed else "all checks passed")
    return 1 if failed else 0


def main() -> int:
    """Look at the Python and the arguments, then check."""
    if sys.version_info < (3, 11):  # noqa: UP036 - people do start it with an older one
        print("check.py: this Python is too old\nstart it with Python 3.11 or later", file=sys.stderr)
        return 2
    arguments = sys.argv[1:]
    if arguments and arguments[0] != "--":
        print("usage: python3 check.py [-- PYTEST-ARGUMENT...]", file=sys.stderr)
        return 2
    try:
        return check(arguments[1:])
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
