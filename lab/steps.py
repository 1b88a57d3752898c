"""What check.py and the lab set up with: steps, each under its own heading, and what brings them uv and programs."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import threading
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
UV_VERSION = "0.13.8"
UV_HOME = os.path.join(ROOT, ".uv", UV_VERSION)
THIS_PYTHON = ("--python", sys.executable, "--no-python-downloads")  # told to every command of uv


def run(name: str, *command: str, cwd: str = ROOT, **environment: str) -> bool:
    """Run one step under its own heading; whether it went well."""
    print(f"\n=== {name}: {' '.join(command)}", flush=True)
    started = time.monotonic()
    # A virtual environment that happens to be active is not ours, and tools warn about it.
    inherited = {key: value for key, value in os.environ.items() if key != "VIRTUAL_ENV"}
    good = subprocess.run(command, cwd=cwd, env=inherited | environment, check=False).returncode == 0
    print(f"=== {name}: {'passed' if good else 'FAILED'} in {time.monotonic() - started:.1f} s", flush=True)
    return good


def run_at_once(steps: dict[str, tuple[str, ...]]) -> dict[str, bool]:
    """Run steps at the same time, each line of theirs behind the step's name; whether each went well."""
    results = {}

    def follow(name: str, command: tuple[str, ...]) -> None:
        print(f"\n=== {name}: {' '.join(command)}", flush=True)
        started = time.monotonic()
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
            for line in process.stdout or ():
                print(f"[{name}] {line.decode('utf-8', 'replace').rstrip()}", flush=True)
        results[name] = process.returncode == 0
        words = "passed" if results[name] else "FAILED"
        print(f"=== {name}: {words} in {time.monotonic() - started:.1f} s", flush=True)

    threads = [threading.Thread(target=follow, args=step, daemon=True) for step in steps.items()]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


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


def fetch(name: str, *command: str, **environment: str) -> bool:
    """Run a command of uv that downloads; whether it went well."""
    # Behind a proxy with a certificate of its own, only the system knows whom to trust.
    return run(name, *command, **environment) or run(f"{name} again", *command, "--system-certs", **environment)


def missing(programs: dict[str, str]) -> dict[str, str]:
    """Those of the programs and files (each with its Debian package) that are not here, after an attempt to install."""
    path = os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/sbin"))

    def absent() -> dict[str, str]:
        return {
            program: package
            for program, package in programs.items()
            if not (shutil.which(program, path=path) or os.path.isfile(program))
        }

    # On a running system a package may start an SSH server; only in a container is that nobody's business.
    if sys.platform == "linux" and absent() and os.geteuid() == 0 and not os.path.exists("/run/systemd/system"):
        apt = shutil.which("apt-get")
        if apt and run("update the list of packages", apt, "-qq", "update"):
            install = (apt, "-qq", "install", "--yes", "--no-install-recommends", *dict.fromkeys(absent().values()))
            run("install programs", *install, DEBIAN_FRONTEND="noninteractive")
    return absent()
