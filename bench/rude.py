"""Clients that no agent wants, each a function that goes on until its process is killed.

What they do is within the protocol, or nearly: nobody could tell at the first byte.
"""

from __future__ import annotations

import sys
import time

import raw

from pageantry.messages import AddIdentity, Unlock, frame
from pageantry.wire import Writer

assert sys.platform == "linux", "as raw.py has it"

#: How many connections those have that have several.
CONNECTIONS = 20

_LARGE = frame(bytes((200,)) * 256 * 1024)  # of a type that no agent knows


def dawdle(path: str) -> None:
    """Send a request a byte a second, over each of some connections."""
    connections = [raw.connect(path) for _ in range(CONNECTIONS)]
    while True:
        for at in range(len(raw.LIST)):
            for connection in connections:
                connection.sendall(raw.LIST[at : at + 1])
            time.sleep(1)


def swamp(path: str) -> None:
    """Send requests of 256 KiB, read no reply, and begin anew where that is not taken any more."""
    while True:
        with raw.connect(path) as connection:
            connection.settimeout(0.2)
            try:
                while True:
                    connection.sendall(_LARGE)
            except OSError:
                pass


def hoard(path: str) -> None:
    """Ask for a thousand lists over each of some connections, read none, hang up, and begin anew."""
    while True:
        connections = [raw.connect(path) for _ in range(CONNECTIONS)]
        for connection in connections:
            connection.setblocking(False)
            connection.send(raw.LIST * 1000)
        time.sleep(0.1)
        for connection in connections:
            connection.close()


def flood(path: str) -> None:
    """Ask for lists, hundreds at once, and read them."""
    connection = raw.connect(path)
    size = len(raw.ask(connection, raw.LIST))
    while True:
        connection.sendall(raw.LIST * 200)
        left = 200 * size
        while left:
            left -= len(connection.recv(65536))


def come_and_go(path: str) -> None:
    """Connect, and hang up."""
    while True:
        raw.connect(path).close()


def guess(path: str) -> None:
    """Try passphrases."""
    connection = raw.connect(path)
    number = 0
    while True:
        number += 1
        raw.ask(connection, frame(Unlock(f"guess {number}".encode()).payload()))


def inflate(path: str) -> None:
    """Add RSA keys that are none, of numbers with a million bits."""
    connection = raw.connect(path)
    large = 2**960_000 - 1
    writer = Writer().byte(AddIdentity.number).text("ssh-rsa")
    for number in (2**2048 - 1, 65537, 3, 3, large, large):
        writer.mpint(number)
    request = frame(bytes(writer.text("none")))
    while True:
        raw.expect(raw.FAILURE, connection, request)


#: What is measured while they act.
ACTS = {
    "dawdles": dawdle,
    "swamps it": swamp,
    "reads no reply": hoard,
    "floods it": flood,
    "comes and goes": come_and_go,
    "adds huge numbers": inflate,
}
