"""Who listens on a port. The tables of both systems are made by hand; what this system says is tried, too."""

from __future__ import annotations

import os
import socket
import struct
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pageantry import winpipe, wsl
from pageantry.endpoints import listeners, sockets

MYSELF, STRANGER = "S-1-5-21-1-2-3-1001", "S-1-5-21-1-2-3-1002"

TCP = """\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:C3CB 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 12345 1 0000000000000000 100 0 0 10 0
   1: 00000000:0016 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 12346 1 0000000000000000 100 0 0 10 0
   2: 0100007F:C3CB 0100007F:A92D 01 00000000:00000000 00:00000000 00000000  1001        0 12347 1 0000000000000000 100 0 0 10 0
   3: 0200000A:C3CB 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1002        0 12348 1 0000000000000000 100 0 0 10 0
"""  # noqa: E501 - lines of the system's
TCP6 = """\
  sl  local_address                         remote_address                        st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 00000000000000000000000000000000:C3CB 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000  1003        0 12349 1 0000000000000000 100 0 0 10 0
   1: 0000000000000000FFFF00000100007F:C3CB 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000  1004        0 12350 1 0000000000000000 100 0 0 10 0
   2: 00000000000000000000000001000000:C3CB 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000  1005        0 12351 1 0000000000000000 100 0 0 10 0
"""  # noqa: E501 - lines of the system's

little = pytest.mark.skipif(sys.byteorder != "little", reason="the kernel writes addresses in its own order")


@little
def test_linux_names_the_users_who_listen_where_a_connection_to_this_computer_arrives() -> None:
    assert list(listeners.uids_of(TCP, 0xC3CB)) == [1000]
    assert list(listeners.uids_of(TCP, 22)) == [0]
    assert list(listeners.uids_of(TCP, 80)) == []
    assert list(listeners.uids_of(TCP6, 0xC3CB)) == [1003, 1004]
    assert list(listeners.uids_of("header\n", 80)) == []


def row(address: str, port: int, pid: int) -> bytes:
    """MIB_TCPROW_OWNER_PID; the port's upper half may hold anything."""
    at = socket.inet_aton(address) + struct.pack(">HH", port, 0xDEAD)
    return struct.pack("<I", 2) + at + bytes(8) + struct.pack("<I", pid)


def row_6(address: str, port: int, pid: int) -> bytes:
    """MIB_TCP6ROW_OWNER_PID."""
    at = socket.inet_pton(socket.AF_INET6, address) + bytes(4) + struct.pack(">HH", port, 0xDEAD)
    return at + bytes(24) + struct.pack("<II", 2, pid)


def table(*rows: bytes) -> bytes:
    return struct.pack("<I", len(rows)) + b"".join(rows) + b"what the buffer held beyond"


def test_windows_names_the_processes_that_listen_where_a_connection_to_this_computer_arrives() -> None:
    rows = [("127.0.0.1", 50123, 1), ("0.0.0.0", 50123, 2), ("10.0.0.2", 50123, 3), ("127.0.0.1", 50124, 4)]
    assert list(listeners.pids_of(table(*(row(*one) for one in rows)), 50123, 24)) == [1, 2]
    rows = [("::", 50123, 1), ("::1", 50123, 2), ("::ffff:127.0.0.1", 50123, 3), ("::", 50124, 4)]
    assert list(listeners.pids_of(table(*(row_6(*one) for one in rows)), 50123, 56)) == [1, 3]
    assert list(listeners.pids_of(table(), 50123, 24)) == []


@given(st.binary(), st.integers(1, 65535), st.sampled_from([24, 56]))
def test_a_table_that_is_cut_off_ends_early(data: bytes, port: int, size: int) -> None:
    data = data[:4].ljust(4, b"\0")[:1] + b"\0\0\0" + data[4:]  # few rows, not billions
    assert all(0 <= pid < 2**32 for pid in listeners.pids_of(data, port, size))


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (None, None),
        ([(1, True)], (1, True)),
        ([(1, True), (2, True)], (1, True)),
        ([(1, True), (2, False)], (2, False)),
        ([(1, False), (2, True)], (1, False)),
    ],
)
def test_one_whom_we_do_not_trust_is_enough(monkeypatch: pytest.MonkeyPatch, found: object, expected: object) -> None:
    monkeypatch.setattr(listeners, "_found", lambda port: found)
    assert listeners.listener(1) == expected


def test_who_listens_here_is_ourselves(wine: bool) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        found = listeners.listener(server.getsockname()[1])
    if wine or sys.platform == "darwin":
        assert found is None  # neither tells
    else:
        assert found is not None
        assert found[1]
        assert found[0].account
        if sys.platform == "win32":
            assert found[0].pid == os.getpid()


def test_who_has_gone_meanwhile_is_nobody_to_talk_to(monkeypatch: pytest.MonkeyPatch) -> None:
    if sys.platform == "darwin":
        pytest.skip("which does not tell who listens")
    with socket.create_server(("127.0.0.1", 0)) as gone:
        number = gone.getsockname()[1]
    with pytest.raises(ConnectionRefusedError):
        listeners.listener(number)
    if sys.platform == "linux":  # where it may be somebody on Windows
        monkeypatch.setattr(wsl, "version", lambda: 1)
        assert listeners.listener(number) is None


if sys.platform == "linux":
    from pageantry.endpoints import unix

    def test_another_users_port_is_not_trusted_and_roots_is(monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(unix, "trusted", lambda: (0, 4711))
        for uid, trusted in ((0, True), (4711, True), (4712, False)):
            monkeypatch.setattr(listeners, "_uids", lambda path, port, uid=uid: [uid] if path.endswith("tcp6") else [])
            found = listeners.listener(1)
            assert found is not None
            assert (found[0].account, found[1]) == ("root" if uid == 0 else f"uid {uid}", trusted)

    def test_a_system_that_does_not_say_does_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
        def hidden(path: str, port: int) -> list[int]:
            raise PermissionError

        monkeypatch.setattr(listeners, "_uids", hidden)
        assert listeners.listener(1) is None


@pytest.mark.parametrize(
    ("sid", "trusted"),
    [(MYSELF, True), (winpipe.SYSTEM, True), (winpipe.ADMINISTRATORS, True), (STRANGER, False), (None, False)],
)
def test_a_process_of_windows_is_trusted_by_its_user(
    monkeypatch: pytest.MonkeyPatch, sid: str | None, trusted: bool
) -> None:
    def user(pid: int | None = None) -> str:
        if pid is None:
            return MYSELF
        if sid is None:
            raise PermissionError
        return sid

    monkeypatch.setattr(winpipe, "user", user)
    peer, good = sockets.process(42)
    assert (peer.pid, peer.sid, good) == (42, sid, trusted)


if sys.platform == "win32":
    from pageantry.endpoints import _owners

    def test_windows_tables_lead_to_processes_and_their_users(monkeypatch: pytest.MonkeyPatch) -> None:
        tables = {
            socket.AF_INET: table(row("127.0.0.1", 1, os.getpid()), row("127.0.0.1", 2, 0xFFFFFFF0)),
            socket.AF_INET6: table(row_6("::", 3, os.getpid())),
        }
        monkeypatch.setattr(_owners, "tcp_listeners", tables.__getitem__)
        for port, trusted in ((1, True), (2, False), (3, True)):
            found = listeners.listener(port)
            assert found is not None
            assert found[1] == trusted
        with pytest.raises(ConnectionRefusedError):
            listeners.listener(4)

    def test_a_process_is_asked_whose_it_is() -> None:
        assert winpipe.user(os.getpid()) == winpipe.user()
        peer, trusted = sockets.process(os.getpid())
        assert (peer.account.rpartition("\\")[2], trusted) == (os.environ["USERNAME"], True)
        assert os.path.basename(peer.program).lower().startswith("python")
        with pytest.raises(OSError, match="WinError 87"):  # there is no such process
            winpipe.user(0xFFFFFFF0)
        assert sockets.process(0xFFFFFFF0)[1] is False

    def test_the_tables_are_to_be_had() -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:
            data = _owners.tcp_listeners(socket.AF_INET)
            assert len(list(listeners.pids_of(data, server.getsockname()[1], 24))) == 1
        assert len(_owners.tcp_listeners(socket.AF_INET6)) >= 4
