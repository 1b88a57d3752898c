"""Two agents as people start them, ours and OpenSSH's, and clients that are no more than a socket.

What a client costs falls on both agents alike, so it is to be little: frames are made once, before anything is
measured. `Clients` are processes, as threads of one Python would wait for each other.
"""

from __future__ import annotations

import itertools
import multiprocessing
import os
import resource
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, NamedTuple

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from pageantry.keys.private import PrivateKey
from pageantry.messages import AddIdentity, AddIdentityConstrained, SignRequest, frame

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from multiprocessing.connection import Connection as Pipe

    from pageantry.constraints import Constraint

assert sys.platform == "linux", "proc(5) and the choice of CPUs are Linux's"

OURS = "pageantry"
THEIRS = "ssh-agent"
COMMANDS = {OURS: [sys.executable, "-m", "pageantry", "ssh-agent"], THEIRS: ["ssh-agent"]}

LIST = b"\x00\x00\x00\x01\x0b"
#: The type bytes of replies.
FAILURE, SUCCESS, KEYS, SIGNATURE = 5, 6, 12, 14

#: Seconds for a reply. OpenSSH's agent, which serves nobody after a wrong passphrase, may take 10.
PATIENCE = 60.0

_numbers = itertools.count()
_processes = multiprocessing.get_context("fork")


@dataclass
class Agent:
    """An agent that runs."""

    name: str
    path: str
    pid: int

    def memory(self, which: str = "VmRSS") -> float:
        """How much it has now, or had at most (VmHWM), in MB; proc(5)."""
        with open(f"/proc/{self.pid}/status") as file:
            return next(int(line.split()[1]) for line in file if line.startswith(which)) / 1024

    def stay_on(self, cpus: set[int]) -> None:
        """Have all its threads run there."""
        for task in os.listdir(f"/proc/{self.pid}/task"):
            with suppress(ProcessLookupError):  # it has ended meanwhile
                os.sched_setaffinity(int(task), cpus)


@contextmanager
def started(name: str, directory: str) -> Iterator[Agent]:
    """That agent, without keys, at a socket in `directory`."""
    path = place(name, directory)
    errors = subprocess.DEVNULL if name == THEIRS else None  # it has a line for whoever hangs up
    with running(name, [*COMMANDS[name], "-D", "-a", path], path, errors) as agent:
        yield agent


@contextmanager
def bridged(
    name: str, directory: str, agents: list[Agent], *options: str, errors: int | None = None
) -> Iterator[Agent]:
    """Our bridge to these agents, at a socket in `directory`."""
    path = place(name, directory)
    command = [sys.executable, "-m", "pageantry", "bridge", *(agent.path for agent in agents), "--to", path, *options]
    with running(name, command, path, errors) as agent:
        yield agent


def place(name: str, directory: str) -> str:
    """A path for a socket."""
    return os.path.join(directory, f"{name} {next(_numbers)}")


@contextmanager
def running(name: str, command: list[str], path: str, errors: int | None = None) -> Iterator[Agent]:
    """What `command` starts, once it takes connections at `path`; `errors` is for its standard error."""
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=errors) as process:
        try:
            deadline = time.monotonic() + PATIENCE
            while not accepts(path):
                if process.poll() is not None or time.monotonic() > deadline:
                    raise SystemExit(f"{name} did not start")
                time.sleep(0.01)
            yield Agent(name, path, process.pid)
        finally:
            process.terminate()


def accepts(path: str) -> bool:
    """Whether something takes connections there: a socket's name comes before that."""
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(path) == 0


def many_files(count: int) -> None:
    """Have this process, and those that it starts from now on, have so many files open, if the system allows it."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(count, hard), hard))


# Requests and replies


def connect(path: str) -> socket.socket:
    """A connection to the agent there."""
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(path)
    return connection


def ask(connection: socket.socket, request: bytes) -> bytes:
    """The reply to `request`, both whole frames."""
    connection.sendall(request)
    return receive(connection)


def receive(connection: socket.socket) -> bytes:
    """The next frame, which nothing may follow. Raises ConnectionError where it does not come."""
    reply = connection.recv(65536)
    while len(reply) < 4 or len(reply) < 4 + int.from_bytes(reply[:4], "big"):
        more = connection.recv(65536)
        if not more:
            raise ConnectionError(f"the connection ended after {len(reply)} bytes of a reply")
        reply += more
    return reply


def expect(kind: int, connection: socket.socket, request: bytes) -> bytes:
    """The reply, as a whole frame, which has to be of that type."""
    reply = ask(connection, request)
    if reply[4] != kind:
        raise SystemExit(f"a request of type {request[4]} had a reply of type {reply[4]}, not {kind}")
    return reply


def sign(key: PrivateKey, data: bytes, flags: int = 0) -> bytes:
    """The frame that asks for a signature."""
    return frame(SignRequest(key.public.blob, data, flags).payload())


def add(key: PrivateKey, comment: str, *constraints: Constraint) -> bytes:
    """The frame that adds a key."""
    if constraints:
        return frame(AddIdentityConstrained(key, comment, constraints).payload())
    return frame(AddIdentity(key, comment).payload())


def ed25519_key() -> PrivateKey:
    """A new one."""
    key = ed25519.Ed25519PrivateKey.generate()
    point = key.public_key().public_bytes_raw()
    return PrivateKey("ssh-ed25519", (point, key.private_bytes_raw() + point))


def ecdsa_key() -> PrivateKey:
    """A new one, of 256 bits."""
    key = ec.generate_private_key(ec.SECP256R1())
    point = key.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    return PrivateKey("ecdsa-sha2-nistp256", (b"nistp256", point, key.private_numbers().private_value))


def rsa_key(bits: int) -> PrivateKey:
    """A new one."""
    numbers = rsa.generate_private_key(65537, bits).private_numbers()
    public = numbers.public_numbers
    return PrivateKey("ssh-rsa", (public.n, public.e, numbers.d, numbers.iqmp, numbers.p, numbers.q))


# Clients


class Request(NamedTuple):
    """What clients ask for: a frame, and the type byte of the reply; with `anew` over a connection of its own."""

    frame: bytes
    kind: int
    anew: bool = False


class Done(NamedTuple):
    """What some clients did together: replies per second, and how long one took in the median, in seconds."""

    rate: float
    latency: float


class Clients:
    """So many processes, each a client with one connection, which ask when they are told to."""

    def __init__(self, count: int) -> None:
        self._pipes: list[Pipe] = []
        self._pids: list[int] = []
        for _ in range(count):
            here, there = _processes.Pipe()
            process = _processes.Process(target=_client, args=(there,), daemon=True)
            process.start()
            there.close()  # so that its end shows
            self._pipes.append(here)
            self._pids.append(process.pid or 0)

    def stay_on(self, cpus: set[int]) -> None:
        """Have them run there."""
        for pid in self._pids:
            os.sched_setaffinity(pid, cpus)

    def ask(self, agent: Agent, request: Request, seconds: float) -> Done:
        """Have all of them ask the agent, at the same time and for so long; other replies end this program."""
        for pipe in self._pipes:
            pipe.send((agent.path, request))
        for pipe in self._pipes:
            pipe.recv()
        began = time.perf_counter() + 0.005
        for pipe in self._pipes:
            pipe.send((began, began + seconds))
        done: list[tuple[int, float, float]] = [pipe.recv() for pipe in self._pipes]
        rate = sum(count / (ended - began) for count, ended, _ in done)
        return Done(rate, median(latency for *_, latency in done))


def _client(pipe: Pipe) -> None:
    """What one of them does, until nobody tells it any more."""
    while True:
        try:
            path, (request, kind, anew) = pipe.recv()
        except EOFError:
            return
        with connect(path) as connection:
            expect(kind, connection, request)
            pipe.send(None)
            began, end = pipe.recv()
            time.sleep(max(0.0, began - time.perf_counter()))
            taken: list[float] = []
            now = time.perf_counter()
            while now < end or not taken:
                before = now
                if anew:
                    with connect(path) as another:
                        expect(kind, another, request)
                else:
                    expect(kind, connection, request)
                now = time.perf_counter()
                taken.append(now - before)
        pipe.send((len(taken), now, median(taken)))


@contextmanager
def meanwhile(act: Callable[[str], object], path: str) -> Iterator[None]:
    """Has a process of its own call `act` with that path for the time being."""
    process = _processes.Process(target=act, args=(path,), daemon=True)
    process.start()
    try:
        yield
    finally:
        os.kill(process.pid or 0, signal.SIGKILL)
        process.join()
