"""That the benchmarks still run. Their figures need a quiet machine, and more rounds."""

import contextlib
import ctypes
import json
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

BENCH = Path(__file__).parents[1] / "bench"
PEERS = ("asyncssh", "derivepassphrase", "paramiko")
PROGRAMS = ("ssh-add", "ssh-agent", "ssh-keygen")
MISSING = [name for name in PEERS if not find_spec(name)]
if sys.platform != "win32":
    MISSING += [name for name in PROGRAMS if not shutil.which(name)]

pytestmark = [pytest.mark.interop, pytest.mark.skipif(bool(MISSING), reason=f"not installed: {', '.join(MISSING)}")]
on_unix = pytest.mark.skipif(sys.platform == "win32", reason="it measures ssh-agent and UNIX sockets")
on_linux = pytest.mark.skipif(sys.platform != "linux", reason="it reads /proc, and chooses CPUs")
on_windows = pytest.mark.skipif(sys.platform != "win32", reason="it measures what Windows alone has")


def run(script: str, *options: str) -> list[dict[str, object]]:
    command = [sys.executable, str(BENCH / script), "--quick", "--json", *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert isinstance(found, list)
    assert all(isinstance(result["value"], float) and result["value"] > 0 for result in found)
    return found


@pytest.fixture(scope="module")
def results() -> list[dict[str, object]]:
    return run("run.py")


@on_unix
def test_every_candidate_is_measured(results: list[dict[str, object]]) -> None:
    measured = {(result["subject"], result["candidate"]) for result in results}
    clients = {"raw socket loop", "pageantry", "paramiko", "asyncssh", "derivepassphrase"}
    assert {("list of keys", client) for client in clients} <= measured
    assert {("list of keys, asyncio", name) for name in ("raw stream loop", "pageantry.aio", "asyncssh")} <= measured
    assert {("start to passphrase", name) for name in ("python -c pass", "pageantry", "derivepassphrase")} <= measured


@on_unix
def test_every_bar_is_judged(results: list[dict[str, object]]) -> None:
    barred = {(result["subject"], result["candidate"]) for result in results if isinstance(result["met"], bool)}
    assert barred == {
        ("list of keys", "raw socket loop"),
        ("list of keys", "paramiko"),
        ("list of keys", "asyncssh"),
        ("list of keys", "derivepassphrase"),
        ("list of keys, asyncio", "raw stream loop"),
        ("list of keys, asyncio", "asyncssh"),
        ("start to passphrase", "derivepassphrase"),
        ("peak memory of that", "python -c pass"),
        ("start to import", "import socket"),
        ("the import alone", "import socket"),
    }


@on_windows
def test_pipes_are_measured_beside_their_peers_and_judged() -> None:
    judged = {result["candidate"]: result["met"] is not None for result in run("pipes.py")}
    assert judged == {
        "bare overlapped loop": False,
        "winpipe": True,
        "pageantry": True,
        "paramiko": False,
        "derivepassphrase": False,
        "asyncio Proactor pipe": False,
        "winpipe.aio": False,
        "pageantry.aio": False,
    }


@on_windows
def test_windows_are_measured_beside_paramiko_and_judged() -> None:
    from pageantry.endpoints import window
    from pageantry.errors import Unreachable

    with contextlib.suppress(Unreachable):
        window.check_presence()  # which has Wine start its desktop; started by the bench, that would keep its output
        pytest.skip("an agent of this machine's has Pageant's window")
    judged = {result["candidate"]: result["met"] is not None for result in run("window.py")}
    assert judged == {"paramiko": False, "pageantry": True, "pageantry, unread": False}


@on_windows
def test_our_agent_is_measured_beside_the_real_pageant_and_answers_all_clients_rightly() -> None:
    from pageantry import winpipe
    from pageantry.endpoints.pageant import pipe_name

    if not shutil.which("pageant"):
        pytest.skip("pageant is not installed")
    if winpipe.exists(pipe_name()):
        pytest.skip("an agent of this machine's has Pageant's pipe")
    if sys.platform == "win32":
        ctypes.windll.user32.GetDesktopWindow()  # has Wine start its desktop, which would keep the bench's output open
    found = {(result["subject"], result["candidate"]): result["met"] for result in run("pageant.py")}
    judged = {subject for (subject, candidate), met in found.items() if met is not None}
    rates = {f"{what}, {way}" for what in ("Ed25519 signatures", "lists of one key") for way in ("pipe", "window")}
    crowds = {f"{way}, answered rightly" for way in ("200 clients at once, pipe", "20 clients at once, window")}
    assert judged == rates | crowds
    assert all(found[subject, "pageantry serve"] for subject in crowds)


def test_exec_and_exposed_are_measured() -> None:
    found = {result["candidate"]: result["met"] is not None for result in run("exec.py")}
    assert found == {
        "python -c pass": False,
        "the command itself": False,
        "a socket or pipe": True,
        "key files": True,
        "a program": True,
        "directly": False,
        "exposed": False,
    }


@on_linux
def test_our_agent_is_measured_beside_that_of_openssh_and_judged() -> None:
    found = run("agent.py")
    kinds = {str(result["subject"]).partition(",")[0] for result in found if result["met"] is not None}
    assert kinds == {
        "Ed25519 signatures",
        "lists of one key",
        "memory",
        "a signature while another dawdles",
        "a signature while another swamps it",
        "a signature while another reads no reply",
        "a signature while another floods it",
        "a signature while another comes and goes",
        "a signature while another adds huge numbers",
        "a list",  # while the agent is locked
        "a new connection while another comes and goes",
        "list of many keys",
        "signature",  # the first and the last of many keys
        "keys until one is refused",
        "list until a key is refused",
    }
    refused = {result["subject"]: result["met"] for result in found if "refused" in str(result["subject"])}
    assert refused == {"keys until one is refused": True, "list until a key is refused": True}


@on_linux
@pytest.mark.parametrize("options", [(), ("--bridge",)], ids=["directly", "bridged"])
def test_our_agent_answers_rightly_whatever_fifty_clients_ask_at_once(options: tuple[str, ...]) -> None:
    figures = {result["candidate"]: result["met"] for result in run("soak.py", *options)}
    assert figures.pop("answered, and rightly") is True
    assert set(figures) == {
        "rate",
        "share of a processor",
        "memory from 10 to 40 %",
        "peak memory",
        "memory from 70 to 100 %",
    }


@on_linux
def test_a_bridge_is_measured_beside_other_ways_and_judged() -> None:
    found = run("bridge.py")
    ways = {"directly", "bridge -q", "bridge, with its log", "bridge -q --guard", "bridge -q, to two agents"}
    for subject in ("list, one client", "Ed25519 signature, eight clients"):
        assert ways <= {result["candidate"] for result in found if result["subject"] == subject}
    judged = {(result["subject"], result["candidate"]) for result in found if result["met"] is not None}
    assert judged == {
        ("list, one client", "bridge -q"),
        ("list, one client", "bridge -q --guard"),
        ("500 clients at once", "answered, and rightly"),
    }
