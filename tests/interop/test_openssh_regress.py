"""OpenSSH's own regression scripts, with `pageantry ssh-agent` in the place of its agent, or a bridge before it.

Debian packages them (openssh-tests); each runs as `sh test-exec.sh DIRECTORY SCRIPT`, and TEST_SSH_* name its programs.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

if sys.platform == "win32":
    pytest.skip("OpenSSH's scripts are for UNIX", allow_module_level=True)

REGRESS = Path("/usr/lib/openssh/regress")
if not (REGRESS / "test-exec.sh").exists():
    pytest.skip(f"{REGRESS} is not there: install openssh-tests", allow_module_level=True)

# Seconds: agent-restrict takes 45 with OpenSSH's own agent and the others beside it, agent-timeout sleeps 20.
AT_MOST = 300
pytestmark = [pytest.mark.interop, pytest.mark.timeout(2 * AT_MOST + 60)]

# All that start an agent, but for those that want sudo and gdb, and the one with keys on a token.
SCRIPTS = ("agent-restrict", "agent", "agent-timeout", "agent-subprocess", "cert-file", "sshsig", "hostkey-agent")

_SCRIPTS = {
    "pageantry": '#!/bin/sh\nexec {pageantry} ssh-agent "$@"\n',
    "bridge": """#!/bin/sh
for place; do :; done
ssh-agent -D -a "$place.behind" & agent=$!
while [ ! -S "$place.behind" ]; do sleep 0.1; done
{pageantry} bridge "$place.behind" --to "$place" & bridge=$!
trap 'kill $bridge $agent' TERM
wait
wait
""",
}
#: What shows a bridge whatever a connection is bound to.
BRIDGED = "agent-restrict"


def program(name: str) -> str:
    found = shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/lib/openssh")
    if not found:
        pytest.skip(f"{name} is not installed")
    return found


class Run:
    """One of the scripts, running in a directory of its own, with an agent of the given name."""

    def __init__(self, script: str, agent: str) -> None:
        self._since = time.time() - 1
        self.directory = Path(tempfile.mkdtemp(prefix="pgt", dir="/tmp"))
        for one in REGRESS.iterdir():  # the scripts of some versions look for the programs of the tests here
            if os.access(one, os.X_OK) and one.is_file():
                (self.directory / one.name).symlink_to(one)
        names = {"SSH": "ssh", "SSHD": "sshd", "SSHADD": "ssh-add", "SSHKEYGEN": "ssh-keygen"}
        environ = {f"TEST_SSH_{name}": program(one) for name, one in names.items()}
        environ |= {
            "TEST_SSH_SSHAGENT": self._script(agent) if agent in _SCRIPTS else program(agent),
            "TEST_SSH_SFTPSERVER": "/usr/lib/openssh/sftp-server",
            "TEST_SSH_UNSAFE_PERMISSIONS": "1",
            "TEST_SHELL": "sh",
            "BUILDDIR": str(REGRESS),
            "HOME": str(self.directory),
            "PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin",
        }
        with (self.directory / "output").open("wb") as output:
            self.process = subprocess.Popen(
                ["sh", str(REGRESS / "test-exec.sh"), str(self.directory), str(REGRESS / f"{script}.sh")],
                env=environ,
                cwd=self.directory,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def _script(self, agent: str) -> str:
        """A script that is one of ours; what -X says means nothing, but tells its processes from others."""
        script = self.directory / "pageantry-agent"
        pageantry = f"{sys.executable} -X run={self.directory} -m pageantry"
        script.write_text(_SCRIPTS[agent].format(pageantry=pageantry))
        script.chmod(0o755)
        return str(script)

    def passes(self) -> bool:
        try:
            return self.process.wait(AT_MOST) == 0
        except subprocess.TimeoutExpired:
            return False

    def output(self) -> str:
        """What the script said, and the end of what it and the programs logged."""
        logs = [self.directory / "output", *sorted(self.directory.glob("failed-*.log"))]
        return "\n".join(f"== {log.name}\n{log.read_text(errors='replace')[-4000:]}" for log in logs)

    def agents(self) -> list[int]:
        """The processes of our agent that still run."""
        done = subprocess.run(["ps", "-A", "-o", "pid=,args="], capture_output=True, text=True, check=True)
        lines = [line.split(None, 1) for line in done.stdout.splitlines() if f" -X run={self.directory} " in line]
        return [int(pid) for pid, _ in lines]

    def close(self) -> None:
        """End what still runs, and remove what is left, also what sshd leaves in /tmp when it is ended by ssh."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        for pid in self.agents():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        keys = [b"publickey " + b" ".join(key.read_bytes().split()[:2]) for key in self.directory.glob("*.pub")]
        for left in Path("/tmp").iterdir():
            with contextlib.suppress(OSError):
                if left.name.startswith("sshauth.") and left.read_bytes().strip() in keys:
                    left.unlink()
                elif left.name.startswith("ssh-") and left.stat().st_ctime > self._since and not _listens(left):
                    shutil.rmtree(left)
        shutil.rmtree(self.directory, ignore_errors=True)


def _listens(directory: Path) -> bool:
    """Whether an agent, which sshd had forwarded to this directory, is still there."""
    for path in directory.glob("agent.*"):
        with socket.socket(socket.AF_UNIX) as probe:
            if probe.connect_ex(str(path)) == 0:
                return True
    return False


@pytest.fixture(scope="module")
def runs() -> Iterator[dict[str, Run]]:
    """All of the scripts, started at once: most of their time they wait."""
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)
    with contextlib.ExitStack() as stack:
        started = {}
        for script in SCRIPTS:
            started[script] = Run(script, "pageantry")
            stack.callback(started[script].close)
        started["bridge"] = Run(BRIDGED, "bridge")
        stack.callback(started["bridge"].close)
        yield started


@pytest.mark.parametrize("script", [*SCRIPTS, "bridge"])
def test_openssh_s_own_tests_pass_with_our_agent_and_with_its_own_behind_a_bridge(
    runs: dict[str, Run], script: str
) -> None:
    run = runs[script]
    if not run.passes():
        with contextlib.closing(Run(BRIDGED if script == "bridge" else script, "ssh-agent")) as stock:
            if not stock.passes():
                pytest.skip(f"{script} fails here with OpenSSH's own agent, too: {stock.output()[-300:]}")
        pytest.fail(run.output(), pytrace=False)
    deadline = time.monotonic() + 15
    while run.agents():
        assert time.monotonic() < deadline, "an agent was left running"
        time.sleep(0.05)
    assert [*run.directory.glob(".ssh/agent/*")] == [], "a socket was left"
