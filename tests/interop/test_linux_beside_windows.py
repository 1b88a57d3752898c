"""Windows' real Pageant for OpenSSH's programs on Linux, by the lines of docs/bridging.md for WSL 2.

Wine starts programs of the system that it runs on, and they start others in the same Windows: as WSL does.
"""

from __future__ import annotations

import shlex
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

if sys.platform != "win32":
    pytest.skip("runs in the Windows lab, and starts what is to run on Linux from there", allow_module_level=True)

from lab.parts import WINE
from lab.steps import ROOT
from pageantry import PublicKey

from ..cli.bridging_page import ON_BOTH, lines
from .debian_sshd import outside, outside_path, running
from .test_windows_agents import expected, home, pageant

__all__ = ["home", "pageant"]  # fixtures

pytestmark = pytest.mark.interop

SECONDS = 90
_SCRIPT = """
set -eu
mkdir -m 700 .ssh
trap 'kill $bridges' EXIT; bridges=
awaited() {{ until [ -S "$1" ]; do sleep 0.05; done; }}

{bridge} 2>log >said &
bridges=$!
awaited .ssh/windows.sock
{export}
ssh-add -L >listed
ssh {login} 'echo in' >in
{exec} >executed
{read_only} 2>log-read-only &
bridges="$bridges $!"
awaited .ssh/read-only.sock
export SSH_AUTH_SOCK=.ssh/read-only.sock
ssh-add -L >listed-read-only
ssh {login} 'echo in' >in-read-only
! ssh-add -D 2>refused
SSH_AUTH_SOCK=.ssh/windows.sock ssh-add -L >listed-again
touch done
"""
#: CPython for Windows does not start on anything but pipes, under Wine.
_ON_WINDOWS = '#!/bin/sh\ncat | {{ {wine} {python} -m pageantry "$@" 2>&1 >&4 | cat >&2; }} 4>&1 | cat\n'
_ON_LINUX = '#!/bin/sh\nexec {python} -m pageantry "$@"\n'


@pytest.fixture
def outside_home() -> Iterator[Path]:
    """A home on that system, with pageantry on PATH, and pageantry.exe, as in WSL."""
    venv = Path(ROOT, ".venv", "bin", "python")
    if not (Path("Z:/bin/sh").exists() and venv.exists()):
        pytest.skip("this is no Wine on a system where check.py has made .venv")
    windows = {"wine": WINE, "python": outside_path(Path(sys.executable))}
    with tempfile.TemporaryDirectory(dir="Z:\\tmp", prefix="pgt", ignore_cleanup_errors=True) as made:
        home = Path(made)
        (home / "bin").mkdir()
        (home / "bin" / "pageantry").write_text(_ON_LINUX.format(python=outside_path(venv)), newline="\n")
        (home / "bin" / "pageantry.exe").write_text(_ON_WINDOWS.format(**windows), newline="\n")
        yield home


def run_outside(home: Path, script: str) -> None:
    """Have a shell there run the script at that home; it makes the file `done` as its last step."""
    (home / "script").write_text(script, newline="\n")
    at = outside_path(home)
    kept = 'WINEPREFIX="$WINEPREFIX" WINEDEBUG=-all DISPLAY="$DISPLAY"'
    clean = f'env -i HOME={at} PATH={at}/bin:"$PATH" {kept} timeout {SECONDS} sh script'
    outside(f"cd {at} && chmod 755 bin/* && {clean} >script-said 2>&1; touch ended")
    deadline = time.monotonic() + SECONDS + 15
    while not (home / "ended").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    said = "".join(f"{path.name}: {path.read_text()}" for path in home.iterdir() if path.is_file())
    assert (home / "done").exists(), said


def test_openssh_s_programs_have_pageant_s_keys(pageant: object, outside_home: Path) -> None:
    (title,) = ON_BOTH
    bridge, export, exec_, read_only = lines(title, "sh")
    keys, _ = expected()
    with running(outside_home) as sshd:
        sshd.authorized.write_text(keys[0].line("me") + "\n", newline="\n")
        login = (
            f"-F none -p {sshd.port} -o BatchMode=yes -o StrictHostKeyChecking=accept-new "
            f"-o UserKnownHostsFile=known_hosts -o IdentityFile=none {shlex.quote(sshd.user)}@127.0.0.1"
        )
        words = {"bridge": bridge, "export": export, "exec": exec_, "read_only": read_only, "login": login}
        run_outside(outside_home, _SCRIPT.format(**words))

    def said(name: str) -> str:
        return (outside_home / name).read_text()

    for name in ("listed", "listed-read-only", "listed-again"):
        assert {PublicKey.from_line(line) for line in said(name).splitlines()} == set(keys)
    assert all(key.fingerprint() in said("executed") for key in keys)
    assert said("in") == said("in-read-only") == "in\n"
    assert said("said") == f"SSH_AUTH_SOCK={outside_path(outside_home)}/.ssh/windows.sock; export SSH_AUTH_SOCK;\n"
    assert "ssh (process " in said("log")
    assert ": signed, " in said("log")
    assert "refused" in said("refused").lower() or "fail" in said("refused").lower()
