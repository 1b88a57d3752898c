"""Our agent beside the real Pageant: `python bench/pageant.py` on Windows, elsewhere under `lab/windows.py`.

Signatures and lists per second for one client over the pipe and over the window, and what becomes of many clients at
once. There is one place for both agents, so they take turns; ratios are to the real one's turn of the same round, and
figures medians. The client is no more than Windows' own calls, the same for both (`bare.py`). `--json` as in run.py.
"""

from __future__ import annotations

import ctypes
import json
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, NamedTuple

import bare
from report import Result, give, options

from pageantry.errors import Error
from pageantry.keyfiles import KeyFiles
from pageantry.keys.signatures import verify
from pageantry.messages import RequestIdentities, SignRequest, SignResponse, decode, frame

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pageantry.keys.public import PublicKey

assert sys.platform == "win32", "Pageant's places are on Windows"

KEY = str(Path(__file__).parents[1] / "tests" / "interop" / "keys" / "ed25519.ppk")
THEIRS, OURS, QUIET = "pageant.exe", "pageantry serve", "pageantry serve -q"
PROGRAM = [sys.executable, "-m", "pageantry", "serve"]
AGENTS = {THEIRS: ["pageant", KEY], OURS: [*PROGRAM, KEY], QUIET: [*PROGRAM, "-q", KEY]}
KEYS, SIGNATURE = 12, 14
#: Into how many slices one measurement falls.
SLICES = 5
#: How many clients come at once, by way, and in how many processes: as many as there are would take Wine minutes.
CLIENTS = {"pipe": (200, 8), "window": (20, 4)}


class Crowd(NamedTuple):
    """What became of many clients: requests, how many were answered rightly, and replies per second."""

    asked: int
    right: int
    rate: float


@contextmanager
def started(name: str, home: str) -> Iterator[None]:
    """That agent, as people start it; its log goes to a file."""
    command = AGENTS[name]
    with (
        open(Path(home, "log"), "wb") as log,
        subprocess.Popen(
            [shutil.which(command[0]) or command[0], *command[1:]],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=log,
        ) as process,
    ):
        try:
            wait_for_both(name, process)
            yield
        finally:
            process.kill()
            process.wait()


def wait_for_both(name: str, process: subprocess.Popen[bytes]) -> None:
    """Wait until a list with a key comes by both ways."""
    deadline = time.monotonic() + bare.PATIENCE
    for way in bare.WAYS.values():
        while not has_key(way):
            if process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"{name} did not start")
            time.sleep(0.05)


def has_key(way: type[bare.Pipe | bare.Window]) -> bool:
    """Whether an agent is there, and has the key."""
    try:
        with closing(way()) as client:
            return client.ask(frame(RequestIdentities().payload()))[4:9] == bytes((KEYS, 0, 0, 0, 1))
    except OSError:
        return False


def rate(way: str, request: bytes, kind: int, seconds: float) -> float:
    """How many replies of that type one client has in a second, in the best slice: in others the machine was busy."""
    best = 0.0
    with closing(bare.WAYS[way]()) as client:
        for _ in range(SLICES):
            count, began = 0, time.perf_counter()
            while (now := time.perf_counter()) < began + seconds / SLICES:
                if (reply := client.ask(request))[4] != kind:
                    raise SystemExit(f"a reply of type {reply[4]}, not {kind}")
                count += 1
            best = max(best, count / (now - began))
    return best


def crowd(way: str, key: PublicKey, times: int) -> Crowd:
    """Have many clients at once ask for so many signatures each, and check them all."""
    clients, processes = CLIENTS[way]
    each = clients // processes
    with ExitStack() as stack:
        running = []
        for number in range(processes):
            words = (bare.__file__, way, key.blob.hex(), str(number * each), str(each), str(times))
            process = subprocess.Popen([sys.executable, *words], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            running.append(stack.enter_context(process))
            stack.callback(process.kill)
        for process in running:
            if process.stdout is None or process.stdout.readline().strip() != b"ready":
                raise SystemExit("the clients did not start")
        for process in running:
            if process.stdin:
                process.stdin.write(b"go\n")
                process.stdin.flush()
        ends = [json.loads(process.communicate(timeout=300)[0]) for process in running]
    for error in {error for end in ends for error in end["errors"]}:
        print(f"of {clients} clients over the {way}: {error}", file=sys.stderr)
    right = {
        (client, number)
        for end in ends
        for client, number, reply in end["replies"]
        if signed(key, bare.data(client, number), bytes.fromhex(reply))
    }
    return Crowd(clients * times, len(right), len(right) / max(end["seconds"] for end in ends))


def signed(key: PublicKey, data: bytes, reply: bytes) -> bool:
    """Whether a reply has the signature over `data`."""
    try:
        message = decode(reply[4:])
        if isinstance(message, SignResponse):
            verify(key, message.signature, data)
            return True
    except Error:
        pass
    return False


def compare(subject: str, figures: dict[str, list[float]], bar: float | None = None) -> list[Result]:
    """The medians of figures per second, and ratios to the real Pageant's."""
    results = []
    for name, taken in figures.items():
        result = Result(subject, name, median(taken), "per second")
        if name != THEIRS:
            ratio = median(one / theirs for one, theirs in zip(taken, figures[THEIRS], strict=True))
            result.ratio = f"{ratio:.2f} x theirs"
            if bar and name == OURS:
                result.bar, result.met = f">= {bar:.2f}", ratio >= bar
        results.append(result)
    return results


def measure(rounds: int, seconds: float, times: int) -> list[Result]:
    """Have the agents take turns, and each answer all of it in each turn; in the last ones, many clients too."""
    key = KeyFiles([KEY]).identities()[0].key
    requests = {
        "Ed25519 signatures": (frame(SignRequest(key.blob, bytes(100), 0).payload()), SIGNATURE),
        "lists of one key": (frame(RequestIdentities().payload()), KEYS),
    }
    rates: dict[str, dict[str, list[float]]] = {}
    crowds: dict[str, dict[str, list[Crowd]]] = {}
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as home:
        for number in range(rounds):
            for name in AGENTS:
                with started(name, home):
                    for way in bare.WAYS:
                        for what, (request, kind) in requests.items():
                            figures = rates.setdefault(f"{what}, {way}", {}).setdefault(name, [])
                            figures.append(rate(way, request, kind, seconds))
                        if number == rounds - 1 and name != QUIET:
                            subject = f"{CLIENTS[way][0]} clients at once, {way}"
                            crowds.setdefault(subject, {}).setdefault(name, []).append(crowd(way, key, times))
    results = [result for subject, figures in rates.items() for result in compare(subject, figures, 1.0)]
    for subject, by_name in crowds.items():
        results += compare(subject, {name: [one.rate for one in found] for name, found in by_name.items()})
        for name, found in by_name.items():
            asked, right = sum(one.asked for one in found), sum(one.right for one in found)
            result = Result(f"{subject}, answered rightly", name, float(right), f"of {asked:,}")
            if name == OURS:
                result.bar, result.met = "all", right == asked
            results.append(result)
    return results


def main() -> None:
    """Measure, and print."""
    chosen = options("Measure our agent beside the real Pageant.")
    if not shutil.which("pageant"):
        raise SystemExit("not installed: pageant.exe")
    ctypes.windll.user32.GetDesktopWindow()  # has Wine start its desktop, which would keep an agent's streams open
    if has_key(bare.Pipe) or has_key(bare.Window):
        raise SystemExit("an agent of this machine's has Pageant's places")
    results = measure(1, 0.3, 2) if chosen.quick else measure(9, 1.0, 20)
    give(results, chosen.json)


if __name__ == "__main__":
    main()
