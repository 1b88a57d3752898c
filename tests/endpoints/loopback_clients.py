"""Clients of agents that are served on GnuPG's and Cygwin's files, made of what is known of the real ones."""

from __future__ import annotations

import contextlib
import os
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from pageantry import sessions
from pageantry.endpoints import loopback_listener
from pageantry.endpoints.loopback_listener import Listener
from pageantry.endpoints.socketfiles import SocketFile, parse
from pageantry.errors import Error
from pageantry.keyring import Keyring
from pageantry.server import Server

KINDS = ("assuan", "cygwin")
#: Process, user and group.
PACK = struct.Struct("<3I")
LIST = b"\0\0\0\1\x0b"
NO_KEYS = b"\0\0\0\5\x0c\0\0\0\0"


def listen(kind: str, path: Path | str) -> Listener:
    made = getattr(loopback_listener, kind)(str(path))
    assert isinstance(made, Listener)
    return made


@contextlib.contextmanager
def served(kind: str, path: Path) -> Iterator[Listener]:
    """An agent without keys."""
    listener = listen(kind, path)
    with contextlib.closing(Server([listener], sessions.to(Keyring()))):
        yield listener


def refused(kind: str, path: Path | str) -> Error:
    with pytest.raises(Error) as caught:
        listen(kind, path).close()
    assert caught.value.hint
    assert "\n" not in str(caught.value) + caught.value.hint
    return caught.value


def file_of(listener: Listener) -> SocketFile:
    return parse(Path(listener.path).read_bytes())


def connected(listener: Listener) -> socket.socket:
    client = socket.create_connection(("127.0.0.1", file_of(listener).port), 20)
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return client


def received(connection: socket.socket, size: int = 1000) -> bytes:
    """So many bytes, or all there are until it ends."""
    data = b""
    with contextlib.suppress(ConnectionError):
        while len(data) < size and (piece := connection.recv(size - len(data))):
            data += piece
    return data


def greeting(listener: Listener) -> bytes:
    """All that a client sends before it may ask for something."""
    return file_of(listener).secret + (PACK.pack(4242, 1001, 1002) if file_of(listener).cygwin else b"")


def reply(listener: Listener) -> bytes:
    """What comes back."""
    file = file_of(listener)
    return file.secret + PACK.pack(os.getpid(), 1001, 1002) if file.cygwin else b""


def answers(listener: Listener) -> bool:
    """Whether a client is served."""
    with connected(listener) as client:
        client.sendall(greeting(listener) + LIST)
        expected = reply(listener) + NO_KEYS
        return received(client, len(expected)) == expected
