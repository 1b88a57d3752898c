"""Winsock where Python's own module ends: to use sockets that are files, and to ask who is at their other end."""

from __future__ import annotations

import ctypes
import sys
from ctypes import POINTER, byref, c_void_p, wintypes

assert sys.platform == "win32", "Windows only: callers ask first"

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

DWORD, SOCKET = wintypes.DWORD, ctypes.c_size_t

_ws2 = ctypes.WinDLL("ws2_32", use_last_error=True)


def _prototype(name: str, result: Any, *arguments: Any) -> Any:
    function = getattr(_ws2, name)
    function.restype, function.argtypes = result, arguments
    return function


_connect = _prototype("connect", ctypes.c_int, SOCKET, ctypes.c_char_p, ctypes.c_int)
_bind = _prototype("bind", ctypes.c_int, SOCKET, ctypes.c_char_p, ctypes.c_int)
_accept = _prototype("accept", SOCKET, SOCKET, c_void_p, c_void_p)
_WSAIoctl = _prototype(
    "WSAIoctl", ctypes.c_int, SOCKET, DWORD, c_void_p, DWORD, c_void_p, DWORD, POINTER(DWORD), c_void_p, c_void_p
)
_INVALID = SOCKET(-1).value  # INVALID_SOCKET
_GET_PEER_PID = 0x58000100  # SIO_AF_UNIX_GETPEERPID


def connect(socket: int, address: bytes) -> int:
    """Connect; 0, or the number of the error."""
    return ctypes.get_last_error() or -1 if _connect(socket, address, len(address)) else 0


def bind(socket: int, address: bytes) -> None:
    """Bind, which makes the file. Raises OSError."""
    if _bind(socket, address, len(address)):
        raise ctypes.WinError(ctypes.get_last_error())


def accept(socket: int) -> int:
    """The socket of the next client. Raises OSError; BlockingIOError where there is none."""
    client: int = _accept(socket, None, None)
    if client == _INVALID:
        raise ctypes.WinError(ctypes.get_last_error())
    return client


def peer_pid(socket: int) -> int | None:
    """The process at the other end; None where this Windows does not tell."""
    pid, size = DWORD(), DWORD()
    failed = _WSAIoctl(socket, _GET_PEER_PID, None, 0, byref(pid), ctypes.sizeof(pid), byref(size), None, None)
    return None if failed else pid.value or None
