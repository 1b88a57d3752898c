"""What a bridge costs, beside other ways to pass an agent on: `python bench/bridge.py`, on Linux.

How long a client waits for a list and for a signature, alone and as one of eight: of OpenSSH's agent itself, and of the
same agent through our bridge (silent, with a log, with a guard, to two agents as one), through socat where that is
installed, and through the agent forwarding of a session with a real sshd. Rounds are interleaved, so that whatever
else the machine does falls on all; figures are medians, and ratios the medians of those of each round. Then 500
clients at once, each with a key and data of its own. `--json` as in run.py; for memory see `soak.py --bridge`.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, contextmanager
from statistics import median
from typing import TYPE_CHECKING

import raw
from report import Result, give, options

from pageantry.keys.signatures import verify
from pageantry.messages import SignResponse, decode
from pageantry.wire import Writer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pageantry.keys.private import PrivateKey

assert sys.platform == "linux", "as raw.py has it"

DIRECT = "directly"
SILENT = "bridge -q"
GUARDED = "bridge -q --guard"
#: How many times as long as directly a list may take one client.
BARS = {SILENT: 2.5, GUARDED: 3.0}
#: Seconds that clients ask at a time.
TURN = 0.1
CLIENTS = 500

#: Rules that a person may have, of which those for signatures look at all there is to know about a login.
RULES = """
default = "deny"

[[rule]]
key = "deploy@*"
host = "git.example.org"
user = "git"
action = "allow"

[[rule]]
key = "deploy@*"
action = "deny"

[[rule]]
message = "sign"
from = "forwarded"
action = "ask"

[[rule]]
message = ["list", "sign"]
action = "allow"
"""


def login(key: PrivateKey) -> bytes:
    """What a client has signed to log in (RFC 4252, section 7)."""
    writer = Writer().string(os.urandom(32)).byte(50)
    writer.string(b"somebody").string(b"ssh-connection").string(b"publickey").boolean(True)
    return bytes(writer.string(b"ssh-ed25519").string(key.public.blob))


def holding(directory: str, stack: ExitStack, *keys: PrivateKey) -> raw.Agent:
    """OpenSSH's agent with these keys."""
    agent = stack.enter_context(raw.started(raw.THEIRS, directory))
    with raw.connect(agent.path) as connection:
        for number, key in enumerate(keys):
            raw.expect(raw.SUCCESS, connection, raw.add(key, f"key {number}"))
    return agent


# Round trips


def ways(directory: str, key: PrivateKey, stack: ExitStack) -> list[raw.Agent]:
    """The same agent, reached in all ways."""
    agent = holding(directory, stack, key)
    other = holding(directory, stack, raw.ed25519_key())
    rules = os.path.join(directory, "rules")
    with open(os.open(rules, os.O_WRONLY | os.O_CREAT, 0o600), "w") as file:
        file.write(RULES)
    log = stack.enter_context(open(os.path.join(directory, "log"), "wb"))  # noqa: SIM115 - the stack closes it
    found = [
        raw.Agent(DIRECT, agent.path, agent.pid),
        stack.enter_context(raw.bridged(SILENT, directory, [agent], "-q")),
        stack.enter_context(raw.bridged("bridge, with its log", directory, [agent], errors=log.fileno())),
        stack.enter_context(raw.bridged(GUARDED, directory, [agent], "-q", "--guard", rules)),
        stack.enter_context(raw.bridged("bridge -q, to two agents", directory, [agent, other], "-q")),
    ]
    if socat := shutil.which("socat"):
        path = raw.place("socat", directory)
        command = [socat, f"UNIX-LISTEN:{path},fork", f"UNIX-CONNECT:{agent.path}"]
        found.append(stack.enter_context(raw.running("socat", command, path)))
    if sshd := shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin"):
        found += stack.enter_context(forwarded(directory, sshd, agent, key))
    return found


@contextmanager
def forwarded(directory: str, sshd: str, agent: raw.Agent, key: PrivateKey) -> Iterator[list[raw.Agent]]:
    """The agent as a session with that sshd forwards it; none where this user cannot log in."""
    host, authorized, config = (os.path.join(directory, name) for name in ("host", "authorized", "config"))
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", host], check=True)
    with open(authorized, "w") as file:
        file.write(f"{key.public.line()}\n")
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    with open(config, "w") as file:
        file.write(
            f"ListenAddress 127.0.0.1:{port}\nHostKey {host}\nAuthorizedKeysFile {authorized}\nPidFile none\n"
            "StrictModes no\nUsePAM no\nPasswordAuthentication no\nPermitRootLogin yes\nMaxSessions 100\n"
        )
    if os.geteuid() == 0:
        os.makedirs("/run/sshd", exist_ok=True)
    asked = [
        "-F",
        "none",
        "-o",
        "StrictHostKeyChecking=no",
        "-o",
        "UserKnownHostsFile=/dev/null",
        "-o",
        "BatchMode=yes",
    ]
    remote = ["ssh", *asked, "-o", "BatchMode=yes", "-A", "-p", str(port), "127.0.0.1", 'echo "$SSH_AUTH_SOCK"; cat']
    environ = {**os.environ, "SSH_AUTH_SOCK": agent.path}
    with subprocess.Popen([sshd, "-D", "-e", "-f", config], stderr=subprocess.DEVNULL) as server:
        try:
            until_it_listens(port)
            with subprocess.Popen(
                remote, env=environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
            ) as session:
                assert session.stdout
                path = session.stdout.readline().strip()
                try:
                    yield [raw.Agent("ssh -A", path, session.pid)] if path else []
                finally:
                    session.terminate()
        finally:
            server.terminate()


def until_it_listens(port: int) -> None:
    """Wait for sshd."""
    deadline = time.monotonic() + raw.PATIENCE
    while True:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        if time.monotonic() > deadline:
            raise SystemExit("sshd did not start")
        time.sleep(0.01)


def measure_way(
    subject: str, agents: list[raw.Agent], clients: raw.Clients, request: raw.Request, rounds: int, *, judged: bool
) -> list[Result]:
    """How long a round trip takes each of the clients, and how many times as long as directly."""
    taken: dict[str, list[float]] = {agent.name: [] for agent in agents}
    for agent in agents:
        clients.ask(agent, request, TURN)
    for number in range(rounds):
        for agent in agents if number % 2 else reversed(agents):
            taken[agent.name].append(clients.ask(agent, request, TURN).latency)
    results = []
    for name, times in taken.items():
        ratio = median(one / direct for one, direct in zip(times, taken[DIRECT], strict=True))
        results.append(Result(subject, name, median(times) * 1e6, "µs"))
        if name != DIRECT:
            results[-1].ratio = f"{ratio:.2f} x"
        if judged and name in BARS:
            results[-1].bar, results[-1].met = f"<= {BARS[name]:.1f}", ratio <= BARS[name]
    return results


def measure_ways(directory: str, rounds: int) -> list[Result]:
    """Lists and signatures, of one client and of eight."""
    key, results = raw.ed25519_key(), []
    one, eight = raw.Clients(1), raw.Clients(8)
    lists = raw.Request(raw.LIST, raw.KEYS)
    signatures = raw.Request(raw.sign(key, login(key)), raw.SIGNATURE)
    with ExitStack() as stack:
        agents = ways(directory, key, stack)
        for label, clients in (("one client", one), ("eight clients", eight)):
            results += measure_way(f"list, {label}", agents, clients, lists, rounds, judged=clients is one)
            results += measure_way(f"Ed25519 signature, {label}", agents, clients, signatures, rounds, judged=False)
    return results


# Many clients


def measure_many(directory: str, rounds: int) -> list[Result]:
    """All of them at once, each with its own key; any answer that is not the right one ends this program."""
    raw.many_files(4 * CLIENTS)
    keys = [raw.ed25519_key() for _ in range(CLIENTS)]
    with ExitStack() as stack:
        agent = holding(directory, stack, *keys)
        bridge = stack.enter_context(raw.bridged(SILENT, directory, [agent], "-q"))
        connections = [stack.enter_context(raw.connect(bridge.path)) for _ in keys]
        with raw.connect(agent.path) as connection:
            listed = raw.expect(raw.KEYS, connection, raw.LIST)
        seconds = 0.0
        for number in range(rounds):
            texts = [os.urandom(200) for _ in keys]
            requests = [
                raw.LIST if (number + place) % 8 == 0 else raw.sign(key, text)
                for place, (key, text) in enumerate(zip(keys, texts, strict=True))
            ]
            began = time.perf_counter()
            for connection, request in zip(connections, requests, strict=True):
                connection.sendall(request)
            replies = [raw.receive(connection) for connection in connections]
            seconds += time.perf_counter() - began
            for key, text, request, reply in zip(keys, texts, requests, replies, strict=True):
                check(key, text, reply, listed if request == raw.LIST else None)
        memory = bridge.memory()
    subject, count = f"{CLIENTS} clients at once", float(CLIENTS * rounds)
    return [
        Result(subject, "answered, and rightly", count, "", "", "all", True),
        Result(subject, "rate", count / seconds, "per second"),
        Result(subject, "memory", memory, "MB"),
    ]


def check(key: PrivateKey, text: bytes, reply: bytes, listed: bytes | None) -> None:
    """That a reply is the list, or this key's signature of that text."""
    if listed is not None:
        if reply != listed:
            raise SystemExit("a list is not the agent's")
        return
    answer = decode(reply[4:])
    if not isinstance(answer, SignResponse):
        raise SystemExit(f"a request for a signature had a reply of type {reply[4]}")
    verify(key.public, answer.signature, text)


def main() -> None:
    """Measure everything and print it."""
    chosen = options("Measure what a bridge costs.")
    if missing := [name for name in ("ssh", "ssh-agent", "ssh-keygen") if not shutil.which(name)]:
        raise SystemExit(f"not installed: {', '.join(missing)}")
    with tempfile.TemporaryDirectory(prefix="bench-") as directory:
        results = measure_ways(directory, 1 if chosen.quick else 15)
        results += measure_many(directory, 2 if chosen.quick else 20)
    give(results, chosen.json)


if __name__ == "__main__":
    main()
