#!/usr/bin/env python3
"""Run every check of this project: `python3 check.py` (PowerShell: `py check.py`).

It needs Python 3.11 or later with pip, and nothing else. What it sets up stays in three directories of this repository,
`.uv` (the tool uv), `.venv` (what `uv.lock` names) and, on Debian, `.lab` (a Windows Python under Wine: the tests run
there, too), and is used again next time. Arguments after `--` go to pytest.
"""

from __future__ import annotations

import os
import sys

from lab import windows
from lab.parts import NoLab
from lab.steps import ROOT, THIS_PYTHON, fetch, find_uv, missing, run, run_at_once

PYTHON = os.path.join(ROOT, ".venv", "Scripts\\python.exe" if sys.platform == "win32" else "bin/python")
PROGRAMS = {  # the tests talk to, and the Debian packages they are in
    "ssh-agent": "openssh-client",
    "ssh-add": "openssh-client",
    "ssh-keygen": "openssh-client",
    "sshd": "openssh-server",
    "gpg-agent": "gnupg",
    "pageant": "putty",
    "puttygen": "putty-tools",
    "/usr/lib/openssh/regress/test-exec.sh": "openssh-tests",
    "tcsh": "tcsh",
}
HALF = (os.path.join("tests", "cli"), os.path.join("tests", "interop"))  # of the tests on Windows, by their time
AT_MOST = ("timeout", "--foreground", "--kill-after", "60", "20m")  # for what hangs as no test may


def check_on_windows(results: dict[str, bool], pytest_arguments: list[str]) -> NoLab | None:
    """Run the tests in the Windows lab, too; where there is none, why."""
    if sys.platform != "win32":
        try:
            with windows.raised():
                tests = (*AT_MOST, sys.executable, os.path.join("lab", "windows.py"), "-m", "pytest")
                if pytest_arguments:
                    results["tests on Windows"] = run("tests on Windows", *tests, *pytest_arguments)
                else:  # which take long; each half has a Windows of its own
                    halves = {
                        "tests on Windows, 1": (*tests, *HALF),
                        "tests on Windows, 2": (*tests, *(f"--ignore={part}" for part in HALF)),
                    }
                    results |= run_at_once(halves)
        except NoLab as reason:
            if not reason.here:
                results["raising the Windows lab"] = False
            return reason
    return None


def check(pytest_arguments: list[str]) -> int:
    """Set up, run all checks, sum up; the exit code."""
    uv = find_uv()
    if uv is None:
        print("check.py: no uv to set up with\ninstall pip (Debian: apt install python3-pip), or uv", file=sys.stderr)
        return 1
    sync = (uv, "sync", "--quiet", "--frozen", "--group", "dev", "--group", "bench", *THIS_PYTHON)
    if not fetch("set up .venv", *sync, UV_PROJECT_ENVIRONMENT=".venv"):
        return 1
    not_here = missing(PROGRAMS)
    results = {
        "lock file": run("lock file", uv, "lock", "--quiet", "--check", "--offline", *THIS_PYTHON),
        "format": run("format", PYTHON, "-m", "ruff", "format", "--diff"),
        "lint": run("lint", PYTHON, "-m", "ruff", "check"),
    }
    for platform in ("linux", "darwin", "win32"):
        mypy = (PYTHON, "-m", "mypy", "--platform", platform, "--cache-dir", f".mypy_cache/{platform}")
        results[f"types for {platform}"] = run(f"types for {platform}", *mypy)
    results["tests"] = run("tests", PYTHON, "-m", "pytest", *pytest_arguments)
    no_lab = check_on_windows(results, pytest_arguments)

    failed = [name for name, good in results.items() if not good]
    print(f"\npassed: {', '.join(name for name in results if name not in failed) or 'nothing'}")
    if not_here:
        print(f"skipped: the tests that talk to {', '.join(not_here)}, because these programs are not installed")
    if no_lab:
        print(f"NOT RUN: the tests on Windows, for there is no lab: {no_lab.why}\n    {no_lab.remedy}")
    good = "passed what could run here" if no_lab else "all checks passed"
    print(f"FAILED: {', '.join(failed)}" if failed else good)
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
