"""What stands in for ws2_32 where there is none: libc, whose calls take the same arguments.

A sockaddr_un is made in the same way on Windows and on Linux.
"""

from __future__ import annotations

import ctypes
import errno
import os

libc = ctypes.CDLL(None, use_errno=True)


class Libc:
    """A ws2_32 that does its work. `pid` is whose it says the other end is."""

    def __init__(self, pid: int | None = None) -> None:
        self.pid = pid
        self.calls: list[str] = []
        self.addresses: list[bytes] = []

    def connect(self, descriptor: int, address: bytes) -> int:
        self.calls.append("connect")
        self.addresses.append(address)
        if not libc.connect(descriptor, address, len(address)):
            return 0
        return {errno.ECONNREFUSED: 10061, errno.EAGAIN: 10035}.get(ctypes.get_errno(), 10050)

    def bind(self, descriptor: int, address: bytes) -> None:
        self.calls.append("bind")
        if libc.bind(descriptor, address, len(address)):
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))

    def accept(self, descriptor: int) -> int:
        self.calls.append("accept")
        client: int = libc.accept(descriptor, None, None)
        if client < 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        return client

    def peer_pid(self, descriptor: int) -> int | None:
        return self.pid
