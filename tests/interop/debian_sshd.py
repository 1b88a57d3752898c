"""A real sshd of Debian's, beside the Windows lab: Wine starts programs of the system that it runs on, too."""

from __future__ import annotations

import contextlib
import shlex
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

if sys.platform != "win32":
    pytest.skip("elsewhere sshd is no stranger: see logins.py", allow_module_level=True)

_SCRIPT = """
cd {home} || exit
ssh-keygen -q -t ed25519 -N '' -f host
ssh-keygen -l -f host.pub | cut -d' ' -f2 >fingerprint
id -un >user
[ "$(id -u)" != 0 ] || mkdir -p /run/sshd
{sshd} -f /dev/null -E log -h "$PWD/host" -p {port} -o ListenAddress=127.0.0.1 -o AuthorizedKeysFile="$PWD/authorized" \
  -o StrictModes=no -o PidFile="$PWD/pid" -o PasswordAuthentication=no -o KbdInteractiveAuthentication=no
touch ready
"""
_SSHD = "/usr/sbin/sshd"


class Sshd:
    """Where it is, the fingerprint of its key, and who may log in; `authorized` has the keys that may."""

    def __init__(self, home: Path, port: int) -> None:
        self.port = port
        self.fingerprint, self.user = ((home / name).read_text().strip() for name in ("fingerprint", "user"))
        self.authorized = home / "authorized"


def outside(command: str) -> None:
    """Have the system's own shell do it. That is no process of Windows': there are no handles of it, and no end."""
    import _winapi

    line = subprocess.list2cmdline(["Z:\\bin\\sh", "-c", f"exec </dev/null >/dev/null 2>&1; {command}"])
    _winapi.CreateProcess(None, line, None, None, False, 0, None, None, None)  # type: ignore[arg-type,unused-ignore]


def outside_path(path: Path) -> str:
    """A path as that system knows it."""
    assert path.drive == "Z:"
    return shlex.quote(path.as_posix()[2:])


@contextlib.contextmanager
def running(home: Path) -> Iterator[Sshd]:
    """One, with its files in `home`."""
    if not Path(f"Z:{_SSHD}").exists():
        pytest.skip("this is no Wine on a system that has sshd")
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    (home / "authorized").touch()
    (home / "script").write_text(_SCRIPT.format(home=outside_path(home), sshd=_SSHD, port=port), newline="\n")
    outside(f"sh {outside_path(home / 'script')}")
    try:
        deadline = time.monotonic() + 30
        while not ((home / "ready").exists() and (home / "pid").exists()):
            assert time.monotonic() < deadline, "sshd did not start"
            time.sleep(0.05)
        yield Sshd(home, port)
    finally:
        outside(f"kill $(cat {outside_path(home / 'pid')})")
