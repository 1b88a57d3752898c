"""A week's worth of requests in some minutes: `python bench/soak.py [--bridge] [--requests COUNT]`, on Linux.

Fifty clients at once ask our agent, as people start it, for all there is (see mixed.py): they list and sign, add keys
with and without limits and remove them, bind sessions, lock and unlock, talk nonsense, and hang up in the middle. Every
answer has to be right, and memory is not to grow. With `--bridge` they ask through one, and it is the bridge whose
memory is looked at. How far it is stands on standard error; the result is as run.py's,
and the exit status 1 where something was wrong.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass
from multiprocessing.sharedctypes import RawArray, RawValue
from statistics import median
from typing import TYPE_CHECKING

import mixed
import raw
from report import Result, give, parser

from pageantry.errors import Error

if TYPE_CHECKING:
    from ctypes import Array, c_uint64
    from multiprocessing.process import BaseProcess


assert sys.platform == "linux", "what a process has and does stands in /proc"

CLIENTS = 50
REQUESTS = 1_000_000
#: How much the agent's memory may grow after the first tenth of the requests, in MB: 14 bytes a request.
GROWTH = 8.0
#: Seconds between two looks at it, and between two lines that say how far it is.
LOOK, LINE = 0.1, 5.0

_processes = multiprocessing.get_context("fork")


def soak(path: str, number: int, count: int, done: Array[c_uint64], locks: c_uint64) -> None:
    """Be a client that makes so many requests, and counts them where the others see it."""
    client = mixed.Client(path, number, locks)
    try:
        while client.count < count:
            client.act()
            done[number] = client.count
        client.end()
    except (mixed.Wrong, OSError, Error) as error:
        raise SystemExit(f"client {number}: {type(error).__name__}: {error}") from None


@dataclass
class Look:
    """At a moment: how many requests have been made, the agent's memory in MB, the seconds that it has computed."""

    moment: float
    count: int
    memory: float
    computed: float


def look(agent: raw.Agent, done: Array[c_uint64]) -> Look:
    """One, now."""
    with open(f"/proc/{agent.pid}/stat") as file:
        ticks = file.read().rpartition(")")[2].split()[11:13]  # proc(5): utime, stime
    computed = sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK")
    return Look(time.perf_counter(), sum(done), agent.memory(), computed)


def watch(agent: raw.Agent, clients: list[BaseProcess], done: Array[c_uint64], total: int) -> list[Look]:
    """Looks at the agent until all clients have ended. Raises SystemExit as soon as one of them failed."""
    looks = [look(agent, done)]
    told = looks[0]
    while any(client.is_alive() for client in clients):
        if any(client.exitcode for client in clients):
            for client in clients:
                client.terminate()
            raise SystemExit(f"a client failed after {sum(done):,} requests of all of them")
        time.sleep(LOOK)
        looks.append(now := look(agent, done))
        if now.moment - told.moment >= LINE:
            rate = (now.count - told.count) / (now.moment - told.moment)
            share = now.count / total
            print(
                f"{share:4.0%}  {now.count:9,} requests, {rate:,.0f} per second, {now.memory:.1f} MB", file=sys.stderr
            )
            told = now
    if any(client.exitcode for client in clients):
        raise SystemExit(f"a client failed after {sum(done):,} requests of all of them")
    return looks


def level(looks: list[Look], begin: int, end: int) -> float:
    """The agent's memory between so many requests and so many, in the median.

    That is to be a good part of the whole: with what fifty clients ask at a moment it goes up and down by some MB, and
    a lock takes 32 while it is made.
    """
    return median([one.memory for one in looks if begin <= one.count <= end] or [looks[-1].memory])


def judged(name: str, looks: list[Look], total: int) -> list[Result]:
    """What the looks say."""
    first, last = looks[0], looks[-1]
    seconds = last.moment - first.moment
    early, late = level(looks, total // 10, total * 4 // 10), level(looks, total * 7 // 10, total)
    grown = late - early
    return [
        Result("requests of 50 clients", "answered, and rightly", float(last.count), "", "", "all", True),
        Result("requests of 50 clients", "rate", last.count / seconds, "per second"),
        Result(name, "share of a processor", (last.computed - first.computed) / seconds * 100, "%"),
        Result(name, "memory from 10 to 40 %", early, "MB"),
        Result(name, "peak memory", max(one.memory for one in looks), "MB"),
        Result(
            name, "memory from 70 to 100 %", late, "MB", f"{grown:+.1f} MB", f"<= +{GROWTH:.0f} MB",
            grown <= GROWTH,
        ),
    ]  # fmt: skip


def main() -> None:
    """Have them ask, and print what came of it."""
    arguments = parser("Ask our agent for all there is, a million times.")
    arguments.add_argument("--requests", type=int, default=REQUESTS, help="how many, of all clients together")
    arguments.add_argument("--bridge", action="store_true", help="ask through a bridge")
    chosen = arguments.parse_args()
    total: int = 5000 if chosen.quick else chosen.requests
    done, locks = RawArray("Q", CLIENTS), RawValue("Q", 0)
    with ExitStack() as stack:
        directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-"))
        agent = stack.enter_context(raw.started(raw.OURS, directory))
        if chosen.bridge:
            agent = stack.enter_context(raw.bridged("bridge", directory, [agent], "-q"))
        clients: list[BaseProcess] = [
            _processes.Process(target=soak, args=(agent.path, number, total // CLIENTS, done, locks), daemon=True)
            for number in range(CLIENTS)
        ]
        for client in clients:
            client.start()
        looks = watch(agent, clients, done, total)
        with raw.connect(agent.path) as connection:
            if raw.expect(raw.KEYS, connection, raw.LIST)[5:] != bytes(4):
                raise SystemExit("the agent holds keys that nobody has left there")
    results = judged("the bridge" if chosen.bridge else "the agent", looks, total)
    give(results, chosen.json)
    sys.exit(any(result.met is False for result in results))


if __name__ == "__main__":
    main()
