"""Who has connected to a port. The tables of both systems are made by hand; what this system says is tried, too."""

from __future__ import annotations

import os
import socket
import struct
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pageantry import winpipe
from pageantry.endpoints import sockets, tcp_callers

SERVER, CLIENT = ("127.0.0.1", 50123), ("127.0.0.1", 43309)

TCP = """\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:C3CB 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 12345 1 0000000000000000 100 0 0 10 0
   1: 0100007F:C3CB 0100007F:A92D 01 00000000:00000000 00:00000000 00000000  1001        0 12346 1 0000000000000000 100 0 0 10 0
   2: 0100007F:A92D 0100007F:C3CB 01 00000000:00000000 00:00000000 00000000  1002        0 12347 1 0000000000000000 100 0 0 10 0
   3: 0200007F:A92D 0100007F:C3CB 01 00000000:00000000 00:00000000 00000000  1003        0 12348 1 0000000000000000 100 0 0 10 0
   4: 0100007F:A92D 0100007F:C3CC 01 00000000:00000000 00:00000000 00000000  1004        0 12348 1 0000000000000000 100 0 0 10 0
"""  # noqa: E501 - lines of the system's


@pytest.mark.skipif(sys.byteorder != "little", reason="the kernel writes addresses in its own order")
def test_linux_names_the_user_whose_the_client_s_end_is() -> None:
    assert list(tcp_callers.uids_of(TCP, CLIENT, SERVER)) == [1002]
    assert list(tcp_callers.uids_of(TCP, ("127.0.0.2", 43309), SERVER)) == [1003]
    assert list(tcp_callers.uids_of(TCP, ("127.0.0.1", 43310), SERVER)) == []
    assert list(tcp_callers.uids_of("header\n", CLIENT, SERVER)) == []


def row(local: tuple[str, int], remote: tuple[str, int], pid: int) -> bytes:
    """MIB_TCPROW_OWNER_PID; the upper half of each port may hold anything."""
    ends = b"".join(socket.inet_aton(host) + struct.pack(">HH", port, 0xDEAD) for host, port in (local, remote))
    return struct.pack("<I", 5) + ends + struct.pack("<I", pid)


def table(*rows: bytes) -> bytes:
    return struct.pack("<I", len(rows)) + b"".join(rows) + b"what the buffer held beyond"


def test_windows_names_the_process_whose_the_client_s_end_is() -> None:
    rows = [(SERVER, CLIENT, 1), (CLIENT, SERVER, 2), (("127.0.0.2", 43309), SERVER, 3), (CLIENT, ("127.0.0.1", 1), 4)]
    made = table(*(row(*one) for one in rows))
    assert list(tcp_callers.pids_of(made, CLIENT, SERVER)) == [2]
    assert list(tcp_callers.pids_of(made, ("127.0.0.2", 43309), SERVER)) == [3]
    assert list(tcp_callers.pids_of(table(), CLIENT, SERVER)) == []


@given(st.binary())
def test_a_table_that_is_cut_off_ends_early(data: bytes) -> None:
    data = data[:1].ljust(1, b"\0") + b"\0\0\0" + data[1:]  # few rows, not billions
    assert all(0 <= pid < 2**32 for pid in tcp_callers.pids_of(data, CLIENT, SERVER))


def test_who_connects_here_is_ourselves(wine: bool) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as client:
        peer, trusted = tcp_callers.caller(client.getsockname(), server.getsockname())
    assert trusted
    if sys.platform == "linux":
        assert getattr(peer, "uid", None) == os.geteuid()
    elif sys.platform == "win32":
        assert peer or wine  # which does not always tell
        assert peer is None or peer.pid == os.getpid()
    else:
        assert peer is None


def test_who_is_not_there_any_more_may_have_been_anybody() -> None:
    assert tcp_callers.caller(("127.0.0.1", 1), ("127.0.0.1", 2)) == (None, True)


if sys.platform == "win32":
    from pageantry.endpoints import _owners

    STRANGER = "S-1-5-21-1-2-3-1002"

    @pytest.mark.parametrize(
        ("sid", "trusted"), [(winpipe.SYSTEM, True), (winpipe.user(), True), (STRANGER, False), (None, True)]
    )
    def test_windows_tells_of_other_users_or_does_not(
        monkeypatch: pytest.MonkeyPatch, sid: str | None, trusted: bool
    ) -> None:
        monkeypatch.setattr(_owners, "tcp_connections", lambda: table(row(CLIENT, SERVER, 42)))
        monkeypatch.setattr(sockets, "process", lambda pid: (winpipe.Peer(pid, sid), sockets.trusts(sid)))
        peer, may_be = tcp_callers.caller(CLIENT, SERVER)
        assert may_be is trusted
        assert peer is not None
        assert peer.pid == 42

    @pytest.mark.parametrize("connections", [lambda: table(row(CLIENT, SERVER, 0)), lambda: os.stat("C:\\none")])
    def test_a_windows_that_does_not_say_does_not_matter(monkeypatch: pytest.MonkeyPatch, connections: object) -> None:
        monkeypatch.setattr(_owners, "tcp_connections", connections)
        assert tcp_callers.caller(CLIENT, SERVER) == (None, True)


if sys.platform == "linux":
    from pageantry.endpoints import unix

    def test_another_user_is_not_trusted_and_root_is(monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(unix, "trusted", lambda: (0, 4711))
        for uid, trusted in ((0, True), (4711, True), (4712, False)):
            monkeypatch.setattr(tcp_callers, "uids_of", lambda *_, uid=uid: iter([uid]))
            assert tcp_callers.caller(CLIENT, SERVER)[1] is trusted
