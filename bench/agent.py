"""How fast our agent is, beside OpenSSH's in the same run: `python bench/agent.py`, on Linux.

Signatures and lists per second, for one client and for eight; memory with 1,000 connections; what 2,000 keys cost; and
how long a client waits for a signature while others misbehave. Both agents are started as people start them, ours with
`pageantry ssh-agent`. Rounds are interleaved, so that whatever else the machine does falls on both; figures are
medians, ratios the medians of those of each round. Where "one CPU" is said, agent and client share one; otherwise they
run as the system has them. `--json` as in run.py.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from statistics import median
from typing import TYPE_CHECKING

import raw
import rude
from report import Result, give, options

from pageantry.keys.signatures import RSA_SHA2_256, verify
from pageantry.messages import MAX_MESSAGE, Lock, SignResponse, Unlock, decode, frame

if TYPE_CHECKING:
    from collections.abc import Callable

    from pageantry.keys.private import PrivateKey

assert sys.platform == "linux", "/proc and the choice of CPUs are Linux's"

#: What a client has signed to log in: a userauth request is about as long.
DATA = b"what a client has signed to log in ".ljust(200, b".")
CONNECTIONS = 1000
#: Seconds that clients ask at a time.
TURN = 0.1
SIZES = (500, 1000, 2000)
MOST_KEYS = 2048

WHOLE = os.sched_getaffinity(0)
ONE = {max(WHOLE)}


def both(directory: str, stack: ExitStack) -> list[raw.Agent]:
    """Both agents, new ones."""
    return [stack.enter_context(raw.started(name, directory)) for name in (raw.OURS, raw.THEIRS)]


def tell(agent: raw.Agent, *requests: bytes) -> None:
    """Requests that the agent has to grant."""
    with raw.connect(agent.path) as connection:
        for request in requests:
            raw.expect(raw.SUCCESS, connection, request)


# Signatures and lists per second


def rates(
    subject: str,
    agents: list[raw.Agent],
    clients: raw.Clients,
    request: bytes,
    kind: int,
    rounds: int,
    bar: float = 0.0,
    *,
    anew: bool = False,
) -> list[Result]:
    """How many replies in a second, and our share of theirs."""
    taken: dict[str, list[float]] = {agent.name: [] for agent in agents}
    for number in range(rounds + 1):
        for agent in agents:
            done = clients.ask(agent.path, request, kind, TURN, anew=anew)
            if number:
                taken[agent.name].append(done.rate)
    ratio = median(one / other for one, other in zip(taken[raw.OURS], taken[raw.THEIRS], strict=True))
    ours, theirs = (Result(subject, name, median(rate), "per second") for name, rate in taken.items())
    theirs.ratio = f"ours {ratio:.2f} x"
    if bar:
        theirs.bar, theirs.met = f">= {bar:.2f}", ratio >= bar
    return [ours, theirs]


def measure_rates(agents: list[raw.Agent], rounds: int) -> list[Result]:
    """Of all kinds."""
    one, eight = raw.Clients(1), raw.Clients(8)
    keys = {
        "Ed25519": (raw.ed25519_key(), 0),
        "ECDSA-256": (raw.ecdsa_key(), 0),
        "RSA-3072": (raw.rsa_key(3072), RSA_SHA2_256),
    }
    requests = {name: raw.sign(key, DATA, flags) for name, (key, flags) in keys.items()}
    ed25519 = requests["Ed25519"]
    results = []
    for agent in agents:
        tell(agent, raw.add(keys["Ed25519"][0], "one"))
    for label, clients, cpus, signatures in (
        ("one client, one CPU", one, ONE, 4.0),
        ("one client", one, WHOLE, 4.0),
        ("eight clients", eight, WHOLE, 6.0),
    ):
        stay_on(cpus, agents, clients)
        results += rates(f"Ed25519 signatures, {label}", agents, clients, ed25519, raw.SIGNATURE, rounds, signatures)
        results += rates(f"lists of one key, {label}", agents, clients, raw.LIST, raw.KEYS, rounds, 1.0)
    for name, (key, _) in list(keys.items())[1:]:
        for agent in agents:
            tell(agent, raw.add(key, name))
        stay_on(ONE, agents, one)
        label = f"{name} signatures, one client, one CPU"
        results += rates(label, agents, one, requests[name], raw.SIGNATURE, rounds)
    stay_on(WHOLE, agents, one)
    return results + rates("connections, each for a list", agents, one, raw.LIST, raw.KEYS, rounds, anew=True)


def stay_on(cpus: set[int], agents: list[raw.Agent], clients: raw.Clients) -> None:
    """Have them all run there."""
    for agent in agents:
        agent.stay_on(cpus)
    clients.stay_on(cpus)


# Many connections


def measure_connections(agents: list[raw.Agent]) -> list[Result]:
    """Memory with all of them, each of which has been answered."""
    key = raw.ed25519_key()
    request = raw.sign(key, DATA)
    peaks, later = [], []
    for agent in agents:
        tell(agent, raw.add(key, "one"))
        with ExitStack() as stack:
            connections = [stack.enter_context(raw.connect(agent.path)) for _ in range(CONNECTIONS)]
            for connection in connections:
                raw.expect(raw.KEYS, connection, raw.LIST)
            for connection in connections:
                raw.expect(raw.SIGNATURE, connection, request)
            peaks.append(Result(f"peak memory, {CONNECTIONS:,} connections", agent.name, agent.memory("VmHWM"), "MB"))
        time.sleep(0.5)  # which it may take to end a thousand threads
        later.append(Result("memory after they have gone", agent.name, agent.memory(), "MB"))
    peaks[0].bar, peaks[0].met = "<= 100 MB", peaks[0].value <= 100
    return peaks + later


# Many keys


def filled(count: int, agents: list[raw.Agent], keys: list[PrivateKey]) -> dict[str, raw.Agent]:
    """The agents, to which so many keys have been added."""
    for agent in agents:
        tell(agent, *(raw.add(key, f"key {number}") for number, key in enumerate(keys[:count])))
    return {f"{agent.name}, {count:,} keys": agent for agent in agents}


def costs(
    subject: str, agents: dict[str, raw.Agent], requests: dict[str, bytes], kind: int, rounds: int
) -> list[Result]:
    """Microseconds for a request to agents with ever more keys."""
    client = raw.Clients(1)
    taken: dict[str, list[float]] = {name: [] for name in agents}
    for number in range(rounds + 1):
        for name, agent in agents.items():
            done = client.ask(agent.path, requests[name], kind, TURN)
            if number:
                taken[name].append(done.latency)
    return [Result(subject, name, median(times) * 1e6, "µs") for name, times in taken.items()]


def linear(results: list[Result], of: float, what: str) -> list[Result]:
    """The results, each agent's last one judged by its first: may it take `of` times as long, at most twice over."""
    half = len(SIZES)
    for first, last, barred in ((0, half - 1, True), (half, 2 * half - 1, False)):
        ratio = results[last].value / results[first].value / of
        results[last].ratio = f"{what} {ratio:.2f} x"
        if barred:
            results[last].bar, results[last].met = "<= 2.00", ratio <= 2.0
    return results


def listed_by_ssh_add(agent: raw.Agent) -> int:
    """How many keys the real client lists."""
    done = subprocess.run(
        ["ssh-add", "-l"], env=os.environ | {"SSH_AUTH_SOCK": agent.path}, capture_output=True, check=True
    )
    return done.stdout.count(b"\n")


def check_all_there(agent: raw.Agent, keys: list[PrivateKey]) -> None:
    """End where the agent does not list all of these keys, or the first and the last do not sign."""
    if (found := listed_by_ssh_add(agent)) != len(keys):
        raise SystemExit(f"ssh-add lists {found} keys of {agent.name}'s, not {len(keys)}")
    with raw.connect(agent.path) as connection:
        for key in (keys[0], keys[-1]):
            reply = decode(raw.expect(raw.SIGNATURE, connection, raw.sign(key, DATA))[4:])
            assert isinstance(reply, SignResponse)
            verify(key.public, reply.signature, DATA)


def taken_by(agent: raw.Agent, keys: list[PrivateKey], comment: str) -> int:
    """How many of these keys it takes until it refuses one; all that it took are still there then."""
    count = 0
    with raw.connect(agent.path) as connection:
        for key in keys:
            reply = raw.ask(connection, raw.add(key, comment))
            if reply[4] == raw.FAILURE:
                break
            count += 1
    return count


def measure_keys(directory: str, rounds: int) -> list[Result]:
    """Lists and signatures with ever more keys, and where there is no room for one more."""
    keys = [raw.ed25519_key() for _ in range(MOST_KEYS + 10)]
    with ExitStack() as stack:
        agents: dict[str, raw.Agent] = {}
        for name in (raw.OURS, raw.THEIRS):
            for count in SIZES:
                agents |= filled(count, [stack.enter_context(raw.started(name, directory))], keys)
        lists = dict.fromkeys(agents, raw.LIST)
        growth = SIZES[-1] / SIZES[0]
        results = linear(costs("list of many keys", agents, lists, raw.KEYS, rounds), growth, "per key")
        for which in ("first", "last"):
            at = {count: 0 if which == "first" else count - 1 for count in SIZES}
            requests = {
                f"{name}, {n:,} keys": raw.sign(keys[at[n]], DATA) for name in (raw.OURS, raw.THEIRS) for n in SIZES
            }
            subject = f"signature with the {which} of many keys"
            results += linear(costs(subject, agents, requests, raw.SIGNATURE, rounds), 1.0, "takes")
        full = [agents[f"{name}, {SIZES[-1]:,} keys"] for name in (raw.OURS, raw.THEIRS)]
        for agent in full:
            check_all_there(agent, keys[: SIZES[-1]])
        results += measure_ssh_add(full, rounds)
        count = SIZES[-1] + taken_by(full[0], keys[SIZES[-1] :], "one more")
        results.append(Result("keys until one is refused", raw.OURS, float(count), "keys", "", f"{MOST_KEYS:,}"))
        results[-1].met = count == MOST_KEYS == listed_by_ssh_add(full[0])
    with raw.started(raw.OURS, directory) as agent:
        count = taken_by(agent, keys, "a long comment ".ljust(1000, "."))
        with raw.connect(agent.path) as connection:
            size = len(raw.expect(raw.KEYS, connection, raw.LIST)) - 4
        results.append(Result("list until a key is refused", raw.OURS, size / 1024, "KiB", "", "<= 256"))
        results[-1].met = size <= MAX_MESSAGE < size + 1100 and count == listed_by_ssh_add(agent)
    return results


def measure_ssh_add(agents: list[raw.Agent], rounds: int) -> list[Result]:
    """From start to end of the real client."""
    taken: dict[str, list[float]] = {agent.name: [] for agent in agents}
    for _ in range(rounds):
        for agent in agents:
            began = time.perf_counter()
            listed_by_ssh_add(agent)
            taken[agent.name].append((time.perf_counter() - began) * 1000)
    return [Result(f"ssh-add -l, {SIZES[-1]:,} keys", name, median(times), "ms") for name, times in taken.items()]


# Others that misbehave


def measure_latency(agents: list[raw.Agent], rounds: int) -> list[Result]:
    """How long a signature takes while others misbehave, and how much longer than without them."""
    key = raw.ed25519_key()
    client = raw.Clients(1)
    for agent in agents:
        tell(agent, raw.add(key, "one"))
    request = raw.sign(key, DATA)
    results = []
    for what, act in rude.ACTS.items():
        results += beside(f"a signature while another {what}", agents, client, request, raw.SIGNATURE, act, rounds)
    subject = "a connection and a list while another comes and goes"
    results += beside(subject, agents, client, raw.LIST, raw.KEYS, rude.come_and_go, rounds, anew=True)
    lock, unlock = (frame(kind(b"the right passphrase").payload()) for kind in (Lock, Unlock))
    for agent in agents:
        tell(agent, lock)
    subject = "a list, locked, while another guesses passphrases"
    results += beside(
        subject, agents, client, raw.LIST, raw.KEYS, rude.guess, min(rounds, 5)
    )  # theirs sleeps ever longer
    for agent in agents:
        tell(agent, unlock)
    return results


def beside(
    subject: str,
    agents: list[raw.Agent],
    client: raw.Clients,
    request: bytes,
    kind: int,
    act: Callable[[str], object],
    rounds: int,
    *,
    anew: bool = False,
) -> list[Result]:
    """How long a reply takes with and without what another client does."""
    taken: dict[str, list[tuple[float, float]]] = {agent.name: [] for agent in agents}
    for _ in range(rounds):
        for agent in agents:
            calm = client.ask(agent.path, request, kind, TURN, anew=anew).latency
            with raw.meanwhile(act, agent.path):
                time.sleep(TURN)
                busy = client.ask(agent.path, request, kind, TURN, anew=anew).latency
                taken[agent.name].append((busy, calm))
    results = []
    for name, pairs in taken.items():
        ratio = median(busy / calm for busy, calm in pairs)
        value = median(busy for busy, _ in pairs) * 1e6
        result = Result(subject, name, value, "µs", f"takes {ratio:,.1f} x")
        if name == raw.OURS:
            result.bar, result.met = "<= 4.0", ratio <= 4.0
        results.append(result)
    return results


def main() -> None:
    """Measure everything and print it."""
    chosen = options("Measure our agent beside OpenSSH's.")
    if missing := [name for name in ("ssh-agent", "ssh-add") if not shutil.which(name)]:
        raise SystemExit(f"not installed: {', '.join(missing)}")
    rounds = 1 if chosen.quick else 15
    raw.many_files(4 * CONNECTIONS)
    with tempfile.TemporaryDirectory(prefix="bench-") as directory:
        with ExitStack() as stack:
            agents = both(directory, stack)
            results = measure_rates(agents, rounds)
            results += measure_latency(agents, rounds)
        with ExitStack() as stack:
            results += measure_connections(both(directory, stack))
        results += measure_keys(directory, rounds)
    give(results, chosen.json)


if __name__ == "__main__":
    main()
