"""Agents that are exposed, and clients that come to them."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pageantry
from pageantry import Client, PublicKey, framing
from pageantry.endpoints import parse
from pageantry.messages import IdentitiesAnswer, RequestIdentities, frame

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pageantry.client import Connection

KEY = Path(__file__).parents[1] / "interop" / "keys" / "ed25519"
ED25519 = PublicKey(b"\0\0\0\x0bssh-ed25519\0\0\0\x20" + bytes(range(32)))
LIST = frame(RequestIdentities().payload())
ONE = frame(IdentitiesAnswer(((ED25519.blob, b"me"),)).payload())

#: What an agent makes of one request, without its length: the bytes that it sends, or None to hang up.
Script = Callable[[bytes], bytes | None]


@contextlib.contextmanager
def connected(address: str) -> Iterator[Connection]:
    connection = parse(address).connect(10)
    connection.settimeout(20)
    try:
        yield connection
    finally:
        connection.close()


def received(connection: Connection, size: int) -> bytes:
    """So many bytes, or all up to the end."""
    data = b""
    while len(data) < size and (piece := connection.recv(size - len(data))):
        data += piece
    return data


def hung_up(connection: Connection) -> bool:
    """Whether the other end closes it."""
    try:
        return connection.recv(1) == b""
    except TimeoutError:
        return False
    except OSError:
        return True


def hung_up_after_all(connection: Connection) -> bool:
    """Whether the other end has closed it, behind whatever it sent before."""
    while True:
        try:
            if not connection.recv(1_000_000):
                return True
        except TimeoutError:
            return False
        except OSError:
            return True


def wait_for(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.01)


class Upstream:
    """An agent that `client` leads to, and notes which connection brought which request."""

    def __init__(self, script: Script) -> None:
        self.heard: list[list[bytes]] = []
        self.open = 0
        self._script = script
        self._gate = threading.Lock()

    def client(self, timeout: float | None = 20) -> Client:
        return Client(self._connect, "unix:/fake", timeout)

    def _connect(self) -> socket.socket:
        ours, theirs = socket.socketpair()
        heard: list[bytes] = []
        with self._gate:
            self.heard.append(heard)
            self.open += 1
        threading.Thread(target=self._serve, args=(theirs, heard), daemon=True).start()
        return ours

    def _serve(self, connection: socket.socket, heard: list[bytes]) -> None:
        with connection, contextlib.suppress(OSError):
            frames = framing.Frames(connection)
            while request := frames.next(60):
                heard.append(request)
                reply = self._script(request[4:])
                if reply is None:
                    break
                connection.sendall(reply)
        with self._gate:
            self.open -= 1


@contextlib.contextmanager
def passing(script: Script, said: list[str], timeout: float | None = 20) -> Iterator[tuple[str, Upstream]]:
    """An address that leads to an agent with this script, and that agent."""
    upstream = Upstream(script)
    with upstream.client(timeout) as client, pageantry.exposed(client, say=said.append) as address:
        upstream.heard.clear()
        yield address, upstream
    wait_for(lambda: upstream.open == 0, "connections are left")
