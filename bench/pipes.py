"""How fast named pipes are: `python bench/pipes.py` on Windows, elsewhere `python3 lab/windows.py bench/pipes.py`.

How many lists of keys a client gets in a second over a pipe, from a server that does nothing else and is the same for
all. What can be had at the least is a loop of WriteFile and ReadFile that does nothing else either. Rounds of all
candidates are interleaved; figures are medians. `--json` as in run.py.
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
import os
import subprocess
import sys
import time
from contextlib import ExitStack
from ctypes import wintypes
from statistics import median
from typing import TYPE_CHECKING

from report import Result, give, options

import pageantry
from pageantry import winpipe
from pageantry.winpipe import aio
from pageantry.wire import Writer

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine
    from typing import Any

assert sys.platform == "win32", "named pipes are Windows'"

REQUEST = b"\x00\x00\x00\x01\x0b"
BARS = {"winpipe": 1.25, "pageantry": 1.4}
BARE = "bare overlapped loop"

kernel32 = ctypes.WinDLL("kernel32", use_last_error=True)
for function, arguments in (
    ("WriteFile", (wintypes.HANDLE, ctypes.c_void_p, wintypes.DWORD, ctypes.c_void_p, ctypes.c_void_p)),
    ("ReadFile", (wintypes.HANDLE, ctypes.c_void_p, wintypes.DWORD, ctypes.c_void_p, ctypes.c_void_p)),
    ("WaitForSingleObject", (wintypes.HANDLE, wintypes.DWORD)),
    ("GetOverlappedResult", (wintypes.HANDLE, ctypes.c_void_p, ctypes.POINTER(wintypes.DWORD), wintypes.BOOL)),
    ("CreateEventW", (ctypes.c_void_p, wintypes.BOOL, wintypes.BOOL, wintypes.LPCWSTR)),
    (
        "CreateFileW",
        (wintypes.LPCWSTR, *(wintypes.DWORD,) * 2, ctypes.c_void_p, *(wintypes.DWORD,) * 2, wintypes.HANDLE),
    ),
):
    getattr(kernel32, function).argtypes = arguments
for function in ("CreateEventW", "CreateFileW"):
    getattr(kernel32, function).restype = wintypes.HANDLE


class Overlapped(ctypes.Structure):
    """OVERLAPPED, without an offset."""

    _fields_ = (("Internal", ctypes.c_void_p * 2), ("Offset", ctypes.c_uint64), ("hEvent", wintypes.HANDLE))


class Bare:
    """The least that a program can do for overlapped input and output through ctypes."""

    def __init__(self, handle: int) -> None:
        self.handle = handle
        self.overlapped = Overlapped(hEvent=kernel32.CreateEventW(None, True, False, None))
        self.reference = ctypes.byref(self.overlapped)
        self.event = self.overlapped.hEvent
        self.buffer = ctypes.create_string_buffer(65536)
        self.count = wintypes.DWORD()

    def finish(self, started: int) -> None:
        if not started:
            if ctypes.get_last_error() != 997:  # ERROR_IO_PENDING
                raise ctypes.WinError(ctypes.get_last_error())
            kernel32.WaitForSingleObject(self.event, 0xFFFFFFFF)
        if not kernel32.GetOverlappedResult(self.handle, self.reference, self.count, False):
            raise ctypes.WinError(ctypes.get_last_error())

    def write(self, data: bytes) -> None:
        self.finish(kernel32.WriteFile(self.handle, data, len(data), None, self.reference))

    def read(self) -> bytes:
        self.finish(kernel32.ReadFile(self.handle, self.buffer, 65536, None, self.reference))
        return ctypes.string_at(self.buffer, self.count.value)


def serve(name: str) -> None:
    """Answer every request with the same list of one key, until the bench ends us."""
    import threading

    blob = Writer().string(b"ssh-ed25519").string(bytes(32))
    answer_ = Writer().byte(12).uint32(1).string(bytes(blob)).string(b"benchmark")
    reply = bytes(Writer().string(bytes(answer_)))

    def answer(pipe: winpipe.Pipe) -> None:
        handle: Any = pipe._handle
        server = Bare(handle.handle)
        try:
            while server.read():  # every candidate here sends its five bytes in one piece
                server.write(reply)
        except OSError:
            pipe.close()

    with winpipe.listen(name) as listener:
        print("ready", flush=True)
        while True:
            threading.Thread(target=answer, args=(listener.accept(),), daemon=True).start()


def bare_loop(name: str, stack: ExitStack) -> Callable[[int], None]:
    """What is to be had at the least."""
    handle = kernel32.CreateFileW(winpipe.path(name), 0xC0000000, 0, None, 3, 0x40000000, None)
    stack.callback(kernel32.CloseHandle, wintypes.HANDLE(handle))
    pipe = Bare(handle)

    def calls(count: int) -> None:
        for _ in range(count):
            pipe.write(REQUEST)
            reply = pipe.read()
            while len(reply) < 4 or len(reply) < 4 + int.from_bytes(reply[:4], "big"):
                reply += pipe.read()

    return calls


def winpipe_loop(name: str, stack: ExitStack) -> Callable[[int], None]:
    """The same through `winpipe`, with a deadline as the agent's client has one."""
    pipe = stack.enter_context(winpipe.connect(name))
    pipe.settimeout(30)

    def calls(count: int) -> None:
        for _ in range(count):
            pipe.sendall(REQUEST)
            reply = pipe.recv(65536)
            while len(reply) < 4 or len(reply) < 4 + int.from_bytes(reply[:4], "big"):
                reply += pipe.recv(65536)

    return calls


def proactor_loop(name: str, stack: ExitStack) -> Callable[[int], None]:
    """The pipes that asyncio has."""
    loop: Any = asyncio.ProactorEventLoop()
    stack.callback(loop.close)
    reader = asyncio.StreamReader(loop=loop)
    protocol = asyncio.StreamReaderProtocol(reader, loop=loop)
    transport, _ = loop.run_until_complete(loop.create_pipe_connection(lambda: protocol, winpipe.path(name)))
    stack.callback(lambda: loop.run_until_complete(asyncio.sleep(0.1)))
    stack.callback(transport.close)

    async def calls(count: int) -> None:
        for _ in range(count):
            transport.write(REQUEST)
            await reader.readexactly(int.from_bytes(await reader.readexactly(4), "big"))

    return lambda count: loop.run_until_complete(calls(count))


def on_loop(stack: ExitStack, opened: Coroutine[Any, Any, Callable[[], Awaitable[object]]]) -> Callable[[int], None]:
    """A function that makes so many of the calls that `opened` gives, on the same kind of loop."""
    loop = asyncio.ProactorEventLoop()
    stack.callback(loop.close)

    def wake() -> None:
        loop.call_later(0.05, wake)

    wake()  # under Wine, to wake a loop fails now and then (with WSAEWOULDBLOCK), which asyncio passes over
    call = loop.run_until_complete(opened)

    async def calls(count: int) -> None:
        for _ in range(count):
            await call()

    return lambda count: loop.run_until_complete(calls(count))


async def aio_call(name: str, stack: ExitStack) -> Callable[[], Awaitable[object]]:
    """`winpipe.aio`."""
    pipe = await aio.connect(name)
    stack.callback(pipe.close)

    async def call() -> None:
        await pipe.sendall(REQUEST)
        reply = await pipe.recv(65536)
        while len(reply) < 4 or len(reply) < 4 + int.from_bytes(reply[:4], "big"):
            reply += await pipe.recv(65536)

    return call


async def client_call(name: str, stack: ExitStack) -> Callable[[], Awaitable[object]]:
    """The agent's client for asyncio."""
    agent = await pageantry.aio.connect(f"pipe:{name}")
    loop = asyncio.get_running_loop()
    stack.callback(lambda: loop.run_until_complete(agent.close()))
    return agent.identities


def repeated(call: Callable[[], object]) -> Callable[[int], None]:
    """A function that makes this call so many times."""

    def calls(count: int) -> None:
        for _ in range(count):
            call()

    return calls


def paramiko_client(name: str, stack: ExitStack) -> Callable[[int], None]:
    """paramiko's way to OpenSSH's pipe, led to ours."""
    import paramiko.agent
    import paramiko.win_openssh

    paramiko.win_openssh.PIPE_NAME = winpipe.path(name)
    connection = paramiko.win_openssh.OpenSSHAgentConnection()
    stack.callback(connection.close)
    agent = paramiko.agent.AgentSSH()
    return repeated(lambda: agent._connect(connection))


def candidates(name: str, stack: ExitStack) -> dict[str, Callable[[int], None]]:
    """For each a function that asks for the list so many times, over one connection that is kept."""
    from derivepassphrase.ssh_agent import SSHAgentClient
    from derivepassphrase.ssh_agent.socketprovider import WindowsNamedPipeHandle

    ours = stack.enter_context(pageantry.connect(f"pipe:{name}"))
    deriver = SSHAgentClient(socket=stack.enter_context(WindowsNamedPipeHandle(winpipe.path(name))))
    return {
        BARE: bare_loop(name, stack),
        "winpipe": winpipe_loop(name, stack),
        "pageantry": repeated(ours.identities),
        "paramiko": paramiko_client(name, stack),
        "derivepassphrase": repeated(deriver.list_keys),
        "asyncio Proactor pipe": proactor_loop(name, stack),
        "winpipe.aio": on_loop(stack, aio_call(name, stack)),
        "pageantry.aio": on_loop(stack, client_call(name, stack)),
    }


def measure(name: str, rounds: int, count: int) -> list[Result]:
    """Times of a list, as ratios to those of the bare loop."""
    times: dict[str, list[float]] = {}
    with ExitStack() as stack:
        clients = candidates(name, stack)
        gc.collect()
        gc.freeze()
        for client in clients.values():
            client(count)
        for _ in range(rounds):
            for candidate, client in clients.items():
                started = time.perf_counter()
                client(count)
                times.setdefault(candidate, []).append((time.perf_counter() - started) / count)
    results = []
    for candidate, taken in times.items():
        result = Result("list of keys over a pipe", candidate, 1 / median(taken), "per second")
        if candidate != BARE:
            ratio = median(one / bare for one, bare in zip(taken, times[BARE], strict=True))
            result.ratio = f"{ratio:.2f} x bare"
            if bar := BARS.get(candidate):
                result.bar, result.met = f"<= {bar:.2f}", ratio <= bar
        results.append(result)
    return results


def main() -> None:
    """Start the server, measure, and print."""
    if sys.argv[1:2] == ["--serve"]:
        return serve(sys.argv[2])
    chosen = options("Measure pageantry's named pipes beside its peers.")
    name = f"pageantry-bench-{os.getpid()}"
    server = subprocess.Popen(
        [sys.executable, __file__, "--serve", name], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        if server.stdout is None or server.stdout.readline().strip() != b"ready":
            raise SystemExit("the server did not start")
        results = measure(name, 3 if chosen.quick else 15, 20 if chosen.quick else 1000)
    finally:
        server.kill()
        server.communicate()
    return give(results, chosen.json)


if __name__ == "__main__":
    main()
