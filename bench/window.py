"""How fast agents are behind Pageant's window: `python bench/window.py` on Windows, elsewhere under `lab/windows.py`.

How long a list of one key takes from a window in another process that has it ready; the bar is paramiko, whose memory
for a reply is a 32nd of ours, too small for long lists. Rounds of all candidates are interleaved; figures are medians.
`--json` as in run.py.
"""

from __future__ import annotations

import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from report import Result, give, options

from pageantry.client import Client
from pageantry.endpoints import window
from pageantry.messages import IdentitiesAnswer, RequestIdentities, frame

if TYPE_CHECKING:
    from collections.abc import Callable

assert sys.platform == "win32", "windows of this kind are Windows'"

SERVER = str(Path(__file__).parents[1] / "tests" / "endpoints" / "fake_window.py")
LIST = frame(IdentitiesAnswer(((b"\0\0\0\x0bssh-ed25519\0\0\0\x20" + bytes(32), b"benchmark"),)).payload())
REQUEST = frame(RequestIdentities().payload())
PARAMIKO, BAR = "paramiko", 1.2


def candidates(stack: ExitStack) -> dict[str, Callable[[], object]]:
    """For each a function that asks for the list."""
    import paramiko.agent
    import paramiko.win_pageant

    theirs = paramiko.agent.AgentSSH()
    connection = paramiko.win_pageant.PageantConnection()
    raw = stack.enter_context(window.connect(5))
    raw.settimeout(30)
    ours = stack.enter_context(Client(lambda: window.connect(5), "pageant-window"))

    def ask() -> None:
        raw.sendall(REQUEST)
        if raw.recv(65536) != LIST:
            raise SystemExit("the server answered something else")

    return {PARAMIKO: lambda: theirs._connect(connection), "pageantry": ours.identities, "pageantry, unread": ask}


def measure(rounds: int, count: int) -> list[Result]:
    """Times of a list, as ratios to paramiko's of the same round."""
    times: dict[str, list[float]] = {}
    with ExitStack() as stack:
        clients = candidates(stack)
        for client in clients.values():
            client()
        for _ in range(rounds):
            for candidate, client in clients.items():
                started = time.perf_counter()
                for _ in range(count):
                    client()
                times.setdefault(candidate, []).append((time.perf_counter() - started) / count)
    results = []
    for candidate, taken in times.items():
        result = Result("list of keys through a window", candidate, 1 / median(taken), "per second")
        if candidate != PARAMIKO:
            ratio = median(one / theirs for one, theirs in zip(taken, times[PARAMIKO], strict=True))
            result.ratio = f"{ratio:.2f} x paramiko"
            if candidate == "pageantry":
                result.bar, result.met = f"<= {BAR:.2f}", ratio <= BAR
        results.append(result)
    return results


def main() -> None:
    """Start the server, measure, and print."""
    chosen = options("Measure pageantry's way through Pageant's window beside paramiko's.")
    command = [sys.executable, SERVER, f"answer {LIST.hex()}"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as server:
        try:
            if server.stdout is None or server.stdout.readline().strip() != b"ready":
                raise SystemExit("the server did not start")
            results = measure(3 if chosen.quick else 60, 20)
        finally:
            server.kill()
    return give(results, chosen.json)


if __name__ == "__main__":
    main()
