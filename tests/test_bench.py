"""That the benchmark still runs. Its figures need a quiet machine, and more rounds."""

import json
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

BENCH = Path(__file__).parents[1] / "bench" / "run.py"
PEERS = ("asyncssh", "derivepassphrase", "paramiko")
PROGRAMS = ("ssh-add", "ssh-agent", "ssh-keygen")
MISSING = [name for name in PEERS if not find_spec(name)] + [name for name in PROGRAMS if not shutil.which(name)]

pytestmark = [
    pytest.mark.interop,
    pytest.mark.skipif(sys.platform == "win32", reason="it measures on UNIX"),
    pytest.mark.skipif(bool(MISSING), reason=f"not installed: {', '.join(MISSING)}"),
]


@pytest.fixture(scope="module")
def results() -> list[dict[str, object]]:
    command = [sys.executable, str(BENCH), "--quick", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert isinstance(found, list)
    return found


def test_every_candidate_is_measured(results: list[dict[str, object]]) -> None:
    measured = {(result["subject"], result["candidate"]) for result in results}
    clients = {"raw socket loop", "pageantry", "paramiko", "asyncssh", "derivepassphrase"}
    assert {("list of keys", client) for client in clients} <= measured
    assert {("start to passphrase", name) for name in ("python -c pass", "pageantry", "derivepassphrase")} <= measured
    assert all(isinstance(result["value"], float) and result["value"] > 0 for result in results)


def test_every_bar_is_judged(results: list[dict[str, object]]) -> None:
    barred = {(result["subject"], result["candidate"]) for result in results if isinstance(result["met"], bool)}
    assert barred == {
        ("list of keys", "raw socket loop"),
        ("list of keys", "paramiko"),
        ("list of keys", "asyncssh"),
        ("list of keys", "derivepassphrase"),
        ("start to passphrase", "derivepassphrase"),
        ("peak memory of that", "python -c pass"),
        ("start to import", "import socket"),
        ("the import alone", "import socket"),
    }
