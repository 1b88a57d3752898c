"""How fast pageantry is, as ratios to what was measured beside it: `uv run --group bench bench/run.py`.

Three questions: how many lists of keys a client gets from a real ssh-agent in a second, blocking and on an event loop;
how long, and with how much memory, `vault -p` takes from start to passphrase; what importing costs. Rounds of all
candidates are interleaved, so that whatever else the machine does falls on all of them; figures are medians. `--json`
prints an array of objects with `subject`, `candidate`, `value`, `unit`, and, where there is a bar, `ratio`, `bar` and
`met`.
"""

from __future__ import annotations

import asyncio
import gc
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from statistics import median
from typing import TYPE_CHECKING

from report import Result, give, options

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

assert sys.platform != "win32", "ssh-agent and derivepassphrase's client for it are measured on UNIX"

SCRIPTS = os.path.dirname(sys.executable)
PHRASE = "correct horse battery staple"

# Started by a Python that has loaded almost nothing: the system counts a parent's memory as its child's peak too.
LAUNCH = """
import sys, os, time
started = time.perf_counter()
pid = os.posix_spawn(sys.argv[1], sys.argv[1:], os.environ)
_, status, usage = os.wait4(pid, 0)
print("\\n%d %.9f %d" % (status, time.perf_counter() - started, usage.ru_maxrss))
"""


def accepts(path: str) -> bool:
    """Whether something takes connections there: a socket's name comes before that."""
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(path) == 0


@contextmanager
def ssh_agent(directory: str) -> Iterator[str]:
    """A real ssh-agent with one Ed25519 key; its socket's path."""
    path, key = os.path.join(directory, "agent"), os.path.join(directory, "key")
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "benchmark", "-f", key], check=True)
    agent = subprocess.Popen(["ssh-agent", "-D", "-a", path], stdout=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 10
        while not accepts(path) and time.monotonic() < deadline:
            time.sleep(0.01)
        os.environ["SSH_AUTH_SOCK"] = path
        subprocess.run(["ssh-add", "-q", key], check=True)
        yield path
    finally:
        agent.terminate()
        agent.wait()


def repeated(call: Callable[[], object]) -> Callable[[int], None]:
    """A function that makes this call so many times."""

    def calls(count: int) -> None:
        for _ in range(count):
            call()

    return calls


def raw_loop(path: str, stack: ExitStack) -> Callable[[int], None]:
    """The least that a Python program can do: send, and receive until the frame is whole."""
    connection = stack.enter_context(socket.socket(socket.AF_UNIX))
    connection.connect(path)

    def calls(count: int) -> None:
        for _ in range(count):
            connection.sendall(b"\x00\x00\x00\x01\x0b")
            reply = connection.recv(65536)
            while len(reply) < 4 or len(reply) < 4 + int.from_bytes(reply[:4], "big"):
                reply += connection.recv(65536)

    return calls


def on_loop(loop: asyncio.AbstractEventLoop, call: Callable[[], Awaitable[object]]) -> Callable[[int], None]:
    """A function that has this loop make this call so many times."""

    async def calls(count: int) -> None:
        for _ in range(count):
            await call()

    return lambda count: loop.run_until_complete(calls(count))


def asyncio_clients(path: str, stack: ExitStack) -> dict[str, Callable[[int], None]]:
    """As `list_clients`, on an event loop."""
    import asyncssh

    import pageantry

    loop = asyncio.new_event_loop()
    stack.callback(loop.close)

    async def opened() -> pageantry.aio.Agent:
        return await pageantry.aio.connect(f"unix:{path}")

    reader, writer = loop.run_until_complete(asyncio.open_unix_connection(path))
    stack.callback(lambda: loop.run_until_complete(writer.wait_closed()))
    stack.callback(writer.close)
    ours = loop.run_until_complete(opened())
    stack.callback(lambda: loop.run_until_complete(ours.close()))
    theirs = loop.run_until_complete(asyncssh.connect_agent(path))
    stack.callback(lambda: loop.run_until_complete(theirs.wait_closed()))
    stack.callback(theirs.close)

    async def raw() -> None:
        writer.write(b"\x00\x00\x00\x01\x0b")
        await reader.readexactly(int.from_bytes(await reader.readexactly(4), "big"))

    return {
        "raw stream loop": on_loop(loop, raw),
        "pageantry.aio": on_loop(loop, ours.identities),
        "asyncssh": on_loop(loop, theirs.get_keys),
    }


def list_clients(path: str, stack: ExitStack) -> dict[str, Callable[[int], None]]:
    """For each candidate a function that asks for the list of keys so many times, over one connection that is kept."""
    import paramiko
    from derivepassphrase.ssh_agent import SSHAgentClient

    import pageantry

    ours = stack.enter_context(pageantry.connect(f"unix:{path}"))
    agent = paramiko.Agent()
    stack.callback(agent.close)
    deriver = stack.enter_context(SSHAgentClient.ensure_agent_subcontext())
    return {
        "raw socket loop": raw_loop(path, stack),
        "pageantry": repeated(ours.identities),
        # paramiko lists only in its constructor: this is what that does, without the connecting
        "paramiko": repeated(partial(agent._connect, agent._conn)),
        "asyncssh": asyncio_clients(path, stack)["asyncssh"],
        "derivepassphrase": repeated(deriver.list_keys),
    }


def measure_lists(
    subject: str, clients: dict[str, Callable[[int], None]], ours: str, rounds: int, count: int
) -> list[Result]:
    """Lists per second, and our share of each other candidate's."""
    rates: dict[str, list[float]] = {}
    gc.collect()
    gc.freeze()  # what the peers have imported is no burden for the others
    for client in clients.values():
        client(count)
    for _ in range(rounds):
        for name, client in clients.items():
            started = time.perf_counter()
            client(count)
            rates.setdefault(name, []).append(count / (time.perf_counter() - started))
    results = []
    for name, rate in rates.items():
        result = Result(subject, name, median(rate), "per second")
        if name != ours:
            ratio = median(one / other for one, other in zip(rates[ours], rate, strict=True))
            bar = 0.85 if name.startswith("raw") else 1.0
            result.ratio, result.bar, result.met = f"ours {ratio:.2f} x", f">= {bar:.2f}", ratio >= bar
        results.append(result)
    return results


@dataclass
class Run:
    """One run of a command: seconds from start to end, peak memory in MB, and what it printed."""

    seconds: float
    peak: float
    output: str


def launch(command: list[str]) -> Run:
    """Run a command, which gets a phrase to read."""
    # A session of its own has no terminal, so that nobody asks there for the phrase.
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", LAUNCH, *command],
        input=f"{PHRASE}\n", capture_output=True, text=True, check=True, start_new_session=True,
    )  # fmt: skip
    output, _, figures = done.stdout.rstrip("\n").rpartition("\n")
    status, seconds, peak = figures.split()
    if int(status):
        raise SystemExit(f"{' '.join(command)} failed\n{done.stderr}")
    return Run(float(seconds), int(peak) / (1024 * 1024 if sys.platform == "darwin" else 1024), output.strip())


def runs_of(commands: dict[str, list[str]], rounds: int) -> dict[str, list[Run]]:
    """So many runs of each command, after one that compiles what is not compiled yet."""
    for command in commands.values():
        launch(command)
    runs: dict[str, list[Run]] = {name: [] for name in commands}
    for _ in range(rounds):
        for name, command in commands.items():
            runs[name].append(launch(command))
    return runs


def times(subject: str, ours: str, seconds: dict[str, list[float]], bars: dict[str, float]) -> list[Result]:
    """Median times, and the medians of what we took to what another took in the same round."""
    results = []
    for name, taken in seconds.items():
        result = Result(subject, name, median(taken) * 1000, "ms")
        if name != ours:
            ratio = median(one / other for one, other in zip(seconds[ours], taken, strict=True))
            result.ratio = f"ours {ratio:.2f} x"
            if bar := bars.get(name):
                result.bar, result.met = f"<= {bar:.2f}", ratio <= bar
        results.append(result)
    return results


def measure_vault(rounds: int) -> list[Result]:
    """From start to passphrase."""
    bare, ours, theirs = "python -c pass", "pageantry", "derivepassphrase"
    commands = {bare: [sys.executable, "-c", "pass"]}
    for name in (ours, theirs):
        commands[name] = [shutil.which(name, path=SCRIPTS) or name, "vault", "-p", "example.org"]
    runs = runs_of(commands, rounds)
    if runs[ours][0].output != runs[theirs][0].output:
        raise SystemExit("pageantry and derivepassphrase derived different passphrases")
    seconds = {name: [run.seconds for run in all_] for name, all_ in runs.items()}
    results = times("start to passphrase", ours, seconds, {theirs: 0.5})
    peak = {name: median(run.peak for run in all_) for name, all_ in runs.items()}
    for name in commands:
        result = Result("peak memory of that", name, peak[name], "MB")
        if name != ours:
            result.ratio = f"ours {peak[ours] - peak[name]:+.1f} MB"
        if name == bare:
            result.bar, result.met = "<= +25 MB", peak[ours] - peak[name] <= 25
        results.append(result)
    return results


def measure_imports(path: str, rounds: int) -> list[Result]:
    """What a program pays for having modules, and with us a connection: as a whole, and beyond what Python takes."""
    ours = "import pageantry; connect"
    statements = {
        "python -c pass": "pass",
        "import socket": "import socket",
        ours: f"import pageantry; pageantry.connect({'unix:' + path!r}).close()",
        "import asyncssh": "import asyncssh",
        "import paramiko": "import paramiko",
    }
    timed = "from time import perf_counter as now; began = now(); {}; print(now() - began)"
    runs = runs_of({name: [sys.executable, "-c", timed.format(code)] for name, code in statements.items()}, rounds)
    whole = {name: [run.seconds for run in all_] for name, all_ in runs.items()}
    alone = {name: [float(run.output) for run in all_] for name, all_ in runs.items() if name != "python -c pass"}
    bars = {"import socket": 1.5}
    return times("start to import", ours, whole, bars) + times("the import alone", ours, alone, bars)


def main() -> None:
    """Measure everything and print it."""
    chosen = options("Measure pageantry beside its peers.")
    if sys.platform == "linux":  # the agent and every process started below are pinned with us
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    for name in [name for name in os.environ if name.startswith("PYTHON")]:
        del os.environ[name]  # PYTHONDONTWRITEBYTECODE, for one, would have everything compiled at each start
    with tempfile.TemporaryDirectory(prefix="bench-") as directory:
        os.environ.update(
            HOME=directory,
            PAGEANTRY_HOME=os.path.join(directory, "pageantry"),
            DERIVEPASSPHRASE_PATH=os.path.join(directory, "derivepassphrase"),
        )
        with ssh_agent(directory) as path:
            rounds = 2 if chosen.quick else 21
            count = 20 if chosen.quick else 2000
            with ExitStack() as stack:
                results = measure_lists("list of keys", list_clients(path, stack), "pageantry", rounds, count)
            with ExitStack() as stack:
                clients = asyncio_clients(path, stack)
                results += measure_lists("list of keys, asyncio", clients, "pageantry.aio", rounds, count)
            results += measure_vault(rounds)
            results += measure_imports(path, rounds)
    give(results, chosen.json)


if __name__ == "__main__":
    main()
