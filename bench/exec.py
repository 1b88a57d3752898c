"""What `exec` and an exposed agent cost: `python bench/exec.py`, anywhere.

From start to end of a command that does nothing, run by `pageantry exec` and by itself: what that adds to what starting
Python takes, with an agent that has a socket or pipe, with key files, and with a program as the agent. And lists of
keys per second through `exposed`, beside the agent itself. Rounds of all candidates are interleaved; figures are
medians. `--json` as in run.py.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from statistics import median

from report import Result, give, options

import pageantry

KEY = os.path.join(os.path.dirname(__file__), "..", "tests", "interop", "keys", "ed25519")
NOTHING = ["cmd", "/c", "exit"] if sys.platform == "win32" else ["true"]
BARE = "python -c pass"
MOST = 60.0


def seconds(command: list[str]) -> float:
    """From start to end of it."""
    started = time.perf_counter()
    subprocess.run(command, check=True)
    return time.perf_counter() - started


def measure_start(place: str, rounds: int) -> list[Result]:
    """What each kind of agent adds; `place` is where one listens."""
    here = shutil.which("pageantry", path=os.path.dirname(sys.executable))
    run = [*([here] if here else [sys.executable, "-m", "pageantry"]), "exec", "--agent"]
    silent = "cmd /c pause" if sys.platform == "win32" else "cat"  # it is started, and says nothing
    agents = {"a socket or pipe": place, "key files": f"keys:{KEY}", "a program": f"stdio:{silent}"}
    commands = {BARE: [sys.executable, "-c", "pass"], "the command itself": NOTHING}
    commands |= {name: [*run, address, "--", *NOTHING] for name, address in agents.items()}
    taken: dict[str, list[float]] = {name: [] for name in commands}
    for number in range(rounds + 1):
        for name, command in commands.items():
            one = seconds(command)
            if number:  # in the first, things are compiled
                taken[name].append(one * 1000)
    results = []
    for name, times in taken.items():
        result = Result("start to end of a command", name, median(times), "ms")
        if name in agents:
            bare = zip(times, taken[BARE], taken["the command itself"], strict=True)
            added = median(one - python - alone for one, python, alone in bare)
            result.ratio, result.bar, result.met = f"adds {added:.1f} ms", f"<= {MOST:.0f} ms", added <= MOST
        results.append(result)
    return results


def measure_lists(place: str, rounds: int, count: int) -> list[Result]:
    """Lists per second from the agent at `place`, and from there once more exposed."""
    with pageantry.connect(place) as agent, pageantry.exposed(agent) as again, pageantry.connect(again) as other:
        clients = {"directly": agent, "exposed": other}
        rates: dict[str, list[float]] = {name: [] for name in clients}
        for client in clients.values():
            client.identities()
        for _ in range(rounds):
            for name, client in clients.items():
                started = time.perf_counter()
                for _ in range(count):
                    client.identities()
                rates[name].append(count / (time.perf_counter() - started))
    results = [Result("list of keys", name, median(rate), "per second") for name, rate in rates.items()]
    times = median(one / other for one, other in zip(rates["directly"], rates["exposed"], strict=True))
    results[-1].ratio = f"takes {times:.2f} x"
    return results


SERVE = """
import sys, pageantry
from pageantry.keyfiles import KeyFiles
with pageantry.exposed(KeyFiles([sys.argv[1]])) as address:
    print(address, flush=True)
    sys.stdin.read()
"""


def main() -> None:
    """Measure everything and print it."""
    chosen = options("Measure what exec and exposed cost.")
    for name in [name for name in os.environ if name.startswith("PYTHON") and name != "PYTHONPATH"]:
        del os.environ[name]  # PYTHONDONTWRITEBYTECODE, for one, would have everything compiled at each start
    rounds = 2 if chosen.quick else 21
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", SERVE, KEY], stdin=pipe, stdout=pipe, text=True) as server:
        assert server.stdout
        place = server.stdout.readline().strip()
        results = measure_start(place, rounds) + measure_lists(place, rounds, 20 if chosen.quick else 1000)
        server.communicate()
    give(results, chosen.json)


if __name__ == "__main__":
    main()
