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
    from collections.abc import Callable, Iterator

    from pageantry.keys.private import PrivateKey

assert sys.platform == "linux", "/proc and the choice of CPUs are Linux's"

#: What a client has signed to log in: a userauth request is about as long.
DATA = b"what a client has signed to log in ".ljust(200, b".")
CONNECTIONS = 1000
#: Seconds that clients ask at a time.
TURN = 0.1
SIZES = (500, 1000, 2000)
MOST_KEYS = 2048

#: How many times as long a client may have to wait because of another that does its worst. On a machine with two CPUs,
#: what the other one does takes one of them, and its share of the other.
SLOWER = 4.0

LIST = raw.Request(raw.LIST, raw.KEYS)
WHOLE = os.sched_getaffinity(0)
ONE = {max(WHOLE)}


def tell(agent: raw.Agent, *requests: bytes) -> None:
    """Requests that the agent has to grant."""
    with raw.connect(agent.path) as connection:
        for request in requests:
            raw.expect(raw.SUCCESS, connection, request)


def turns(agents: list[raw.Agent], rounds: int) -> Iterator[raw.Agent]:
    """Each of them in each round, first the one and then the other first."""
    for number in range(rounds):
        yield from agents if number % 2 else reversed(agents)


# Signatures and lists per second


def rates(
    subject: str, agents: list[raw.Agent], clients: raw.Clients, request: raw.Request, rounds: int, bar: float = 0.0
) -> list[Result]:
    """How many replies in a second, and how ours stand to theirs."""
    taken: dict[str, list[float]] = {agent.name: [] for agent in agents}
    for agent in agents:
        clients.ask(agent, request, TURN)
    for agent in turns(agents, rounds):
        taken[agent.name].append(clients.ask(agent, request, TURN).rate)
    ratio = median(one / other for one, other in zip(taken[raw.OURS], taken[raw.THEIRS], strict=True))
    ours, theirs = (Result(subject, name, median(rate), "per second") for name, rate in taken.items())
    theirs.ratio = f"ours {ratio:.2f} x"
    if bar:
        theirs.bar, theirs.met = f">= {bar:.2f}", ratio >= bar
    return [ours, theirs]


def measure_rates(agents: list[raw.Agent], rounds: int) -> list[Result]:
    """Of all kinds, and connections."""
    one, eight = raw.Clients(1), raw.Clients(8)
    key = raw.ed25519_key()
    signature, results = raw.Request(raw.sign(key, DATA), raw.SIGNATURE), []
    for agent in agents:
        tell(agent, raw.add(key, "one"))
    for label, clients, cpus, bar in (
        ("one client, one CPU", one, ONE, 4.0),
        ("one client", one, WHOLE, 4.0),
        ("eight clients", eight, WHOLE, 6.0),
    ):
        stay_on(cpus, agents, clients)
        results += rates(f"Ed25519 signatures, {label}", agents, clients, signature, rounds, bar)
        results += rates(f"lists of one key, {label}", agents, clients, LIST, rounds, 1.0)
    results += rates("connections, each for a list", agents, one, LIST._replace(anew=True), rounds)
    stay_on(ONE, agents, one)
    for name, key, flags in (("ECDSA-256", raw.ecdsa_key(), 0), ("RSA-3072", raw.rsa_key(3072), RSA_SHA2_256)):
        for agent in agents:
            tell(agent, raw.add(key, name))
        signature = raw.Request(raw.sign(key, DATA, flags), raw.SIGNATURE)
        results += rates(f"{name} signatures, one client, one CPU", agents, one, signature, rounds)
    stay_on(WHOLE, agents, one)
    return results


def stay_on(cpus: set[int], agents: list[raw.Agent], clients: raw.Clients) -> None:
    """Have them all run there."""
    for agent in agents:
        agent.stay_on(cpus)
    clients.stay_on(cpus)


# Many connections


def measure_connections(directory: str) -> list[Result]:
    """Memory with all of them, each of which has been answered."""
    key = raw.ed25519_key()
    with ExitStack() as stack:
        agents = [stack.enter_context(raw.started(raw.OURS, directory))]  # which sees to it that it may have so many
        raw.many_files(4 * CONNECTIONS)
        agents.append(stack.enter_context(raw.started(raw.THEIRS, directory)))
        looks: dict[str, list[float]] = {"before": [], "the most": [], "after": []}
        for agent in agents:
            tell(agent, raw.add(key, "one"))
            looks["before"].append(agent.memory())
            connect_all(agent, raw.sign(key, DATA))
            looks["the most"].append(agent.memory("VmHWM"))
            time.sleep(0.5)  # which it may take to end a thousand threads
            looks["after"].append(agent.memory())
    results = [
        Result(f"memory, {CONNECTIONS:,} connections", f"{agent.name}, {when}", figures[at], "MB")
        for at, agent in enumerate(agents)
        for when, figures in looks.items()
    ]
    results[1].bar, results[1].met = "<= 100 MB", results[1].value <= 100
    return results


def connect_all(agent: raw.Agent, signature: bytes) -> None:
    """Have them all at the same time, and each answered twice."""
    with ExitStack() as stack:
        connections = [stack.enter_context(raw.connect(agent.path)) for _ in range(CONNECTIONS)]
        for connection in connections:
            raw.expect(raw.KEYS, connection, raw.LIST)
        for connection in connections:
            raw.expect(raw.SIGNATURE, connection, signature)


# Many keys


def holding(name: str, keys: list[PrivateKey], directory: str, stack: ExitStack) -> raw.Agent:
    """A new agent with these keys."""
    agent = stack.enter_context(raw.started(name, directory))
    tell(agent, *(raw.add(key, f"key {number}") for number, key in enumerate(keys)))
    return agent


def costs(
    subject: str, agents: dict[tuple[str, int], raw.Agent], requests: dict[int, raw.Request], rounds: int
) -> list[Result]:
    """Microseconds for a request to agents with ever more keys: `requests` is by their number."""
    client = raw.Clients(1)
    taken: dict[tuple[str, int], list[float]] = {which: [] for which in agents}
    for number in range(rounds + 1):
        for (name, count), agent in agents.items():
            latency = client.ask(agent, requests[count], TURN).latency
            if number:
                taken[name, count].append(latency)
    return [
        Result(subject, f"{name}, {count:,} keys", median(times) * 1e6, "µs") for (name, count), times in taken.items()
    ]


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
    most = SIZES[-1]
    with ExitStack() as stack:
        agents = {
            (name, count): holding(name, keys[:count], directory, stack)
            for name in (raw.OURS, raw.THEIRS)
            for count in SIZES
        }
        lists = dict.fromkeys(SIZES, LIST)
        results = linear(costs("list of many keys", agents, lists, rounds), most / SIZES[0], "per key")
        first = {count: raw.Request(raw.sign(keys[0], DATA), raw.SIGNATURE) for count in SIZES}
        last = {count: raw.Request(raw.sign(keys[count - 1], DATA), raw.SIGNATURE) for count in SIZES}
        for which, requests in (("first", first), ("last", last)):
            results += linear(costs(f"signature, the {which} of many keys", agents, requests, rounds), 1.0, "takes")
        ours = agents[raw.OURS, most]
        full = [ours, agents[raw.THEIRS, most]]
        for agent in full:
            check_all_there(agent, keys[:most])
        results += measure_ssh_add(full, rounds)
        count = most + taken_by(ours, keys[most:], "one more")
        met = count == MOST_KEYS == listed_by_ssh_add(ours)
        results.append(Result("keys until one is refused", ours.name, float(count), "keys", "", f"{MOST_KEYS:,}", met))
    return [*results, measure_longest(directory, keys)]


def measure_longest(directory: str, keys: list[PrivateKey]) -> Result:
    """How long a list can become, by keys with long comments, until one of them is refused."""
    with raw.started(raw.OURS, directory) as agent:
        count = taken_by(agent, keys, "a long comment ".ljust(1000, "."))
        with raw.connect(agent.path) as connection:
            size = len(raw.expect(raw.KEYS, connection, raw.LIST)) - 4
        met = size <= MAX_MESSAGE < size + 1100 and count == listed_by_ssh_add(agent)
    return Result("list until a key is refused", raw.OURS, size / 1024, "KiB", "", "<= 256", met)


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
    request, results = raw.Request(raw.sign(key, DATA), raw.SIGNATURE), []
    for what, act in rude.ACTS.items():
        results += beside(f"a signature while another {what}", agents, client, request, act, rounds)
    lock, unlock = (frame(kind(b"the right passphrase").payload()) for kind in (Lock, Unlock))
    for agent in agents:
        tell(agent, lock)
    rounds = min(rounds, 5)  # theirs sleeps longer after each guess
    results += beside("a list, locked, while another guesses", agents, client, LIST, rude.guess, rounds)
    for agent in agents:
        tell(agent, unlock)
    request = LIST._replace(anew=True)
    arriving = beside(
        "a new connection while another comes and goes", agents, client, request, rude.come_and_go, rounds
    )
    arriving[0].bar, arriving[0].met = "<= 50 ms", arriving[0].value <= 50_000
    return results + arriving


def beside(
    subject: str,
    agents: list[raw.Agent],
    client: raw.Clients,
    request: raw.Request,
    act: Callable[[str], object],
    rounds: int,
) -> list[Result]:
    """How long a reply takes with and without what another client does."""
    taken: dict[str, list[tuple[float, float]]] = {agent.name: [] for agent in agents}
    for agent in turns(agents, rounds):
        calm = client.ask(agent, request, TURN).latency
        with raw.meanwhile(act, agent.path):
            time.sleep(5 * TURN if request.anew else TURN)  # in which a queue becomes as long as it can
            taken[agent.name].append((client.ask(agent, request, TURN).latency, calm))
    results = []
    for name, pairs in taken.items():
        ratio = median(busy / calm for busy, calm in pairs)
        results.append(Result(subject, name, median(busy for busy, _ in pairs) * 1e6, "µs", f"takes {ratio:,.1f} x"))
        if name == raw.OURS:
            results[-1].bar, results[-1].met = f"<= {SLOWER:.1f}", ratio <= SLOWER
    return results


def main() -> None:
    """Measure everything and print it."""
    chosen = options("Measure our agent beside OpenSSH's.")
    if missing := [name for name in ("ssh-agent", "ssh-add") if not shutil.which(name)]:
        raise SystemExit(f"not installed: {', '.join(missing)}")
    rounds = 1 if chosen.quick else 15
    with tempfile.TemporaryDirectory(prefix="bench-") as directory:
        memory = measure_connections(directory)
        with ExitStack() as stack:
            agents = [stack.enter_context(raw.started(name, directory)) for name in (raw.OURS, raw.THEIRS)]
            results = measure_rates(agents, rounds) + memory + measure_latency(agents, rounds)
        results += measure_keys(directory, rounds)
    give(results, chosen.json)


if __name__ == "__main__":
    main()
