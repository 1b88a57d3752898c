"""Sockets that systemd or launchd has made for an agent of ours."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

if sys.platform == "win32":
    pytest.skip("UNIX sockets", allow_module_level=True)

from pageantry.endpoints import activation, unix
from pageantry.errors import Error

from ..cli.serving import openssh

# An agent that serves one client at each socket: it says what it finds.
AGENT = """
import json, os, sys
from pageantry.endpoints import activation
from pageantry.errors import Error
try:
    listeners = activation.launchd("Listeners") if sys.argv[1:] else activation.inherited()
except Error as error:
    sys.exit(f"{error}|{error.hint}")
for listener in listeners:
    connection = listener.accept()
    told = {
        "path": listener.path,
        "pid": os.getpid(),
        "peer": connection.peer.pid,
        "inheritable": os.get_inheritable(listener._socket.fileno()),
        "environ": [name for name in os.environ if name.startswith("LISTEN")],
    }
    connection.sendall(json.dumps(told).encode())
    connection.close()
    listener.close()
"""
# Becomes a program, with the descriptors that are named as those from 3 on.
PARENT = """
import os, sys
count = int(sys.argv[1])
for number, descriptor in enumerate(sys.argv[2 : 2 + count]):
    os.dup2(int(descriptor), 100 + number)
for number in range(count):
    os.dup2(100 + number, 3 + number)
os.environ |= {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": str(count), "LISTEN_FDNAMES": "agent"}
os.execv(sys.executable, [sys.executable, "-c", *sys.argv[2 + count :]])
"""


@pytest.fixture
def directory() -> Iterator[Path]:
    made = Path(tempfile.mkdtemp(prefix="pgt", dir="/tmp"))
    yield made
    shutil.rmtree(made)


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as made:
        yield made


def served(path: Path) -> dict[str, object]:
    """What the agent says to a client, and the process that the client finds to be its peer."""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(20)
        deadline = time.monotonic() + 20
        while client.connect_ex(str(path)):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        said = b"".join(iter(lambda: client.recv(1000), b""))
    told = json.loads(said)
    assert isinstance(told, dict)
    return told


def started(given: list[socket.socket]) -> subprocess.Popen[str]:
    """An agent that was passed these sockets, as systemd passes them."""
    descriptors = [one.fileno() for one in given]
    return subprocess.Popen(
        [sys.executable, "-c", PARENT, str(len(given)), *map(str, descriptors), AGENT],
        pass_fds=descriptors,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.skipif(not shutil.which("systemd-socket-activate"), reason="systemd-socket-activate is not installed")
@pytest.mark.interop
def test_systemd_s_sockets_are_served_and_stay(directory: Path) -> None:
    paths = [directory / "one", directory / "two"]
    options = [f"--setenv=PYTHONPATH={os.pathsep.join(sys.path)}", *(f"--listen={path}" for path in paths)]
    command = ["systemd-socket-activate", *options, sys.executable, "-c", AGENT]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as agent:
        told = [served(path) for path in paths]
        said = agent.communicate(timeout=20)[1]
        assert agent.returncode == 0, said
    assert told == [
        {"path": str(path), "pid": agent.pid, "peer": os.getpid(), "inheritable": False, "environ": []}
        for path in paths
    ]
    assert all(path.is_socket() for path in paths), "it is systemd that removes what it has made"


@pytest.mark.skipif(not shutil.which("systemd-socket-activate"), reason="systemd-socket-activate is not installed")
@pytest.mark.interop
@pytest.mark.parametrize("words", [["serve", "--listen"], ["bridge", "keys:KEY", "--to"]])
def test_of_systemd_s_sockets_those_are_served_that_are_named(directory: Path, words: list[str]) -> None:
    paths = [directory / "one", directory / "two"]
    options = [f"--setenv=PYTHONPATH={os.pathsep.join(sys.path)}", *(f"--listen={path}" for path in paths)]
    openssh(directory / "key", 1)
    words = [word.replace("KEY", str(directory / "key")) for word in words]
    served = [word for path in (f"{directory}/../{directory.name}/one", paths[1]) for word in (words[-1], str(path))]
    command = ["systemd-socket-activate", *options, sys.executable, "-m", "pageantry", *words[:-1], *served]
    inodes = []
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as agent:
        try:
            for path in paths:
                with socket.socket(socket.AF_UNIX) as client:
                    client.settimeout(20)
                    deadline = time.monotonic() + 20
                    while client.connect_ex(str(path)):
                        assert time.monotonic() < deadline
                        time.sleep(0.01)
                    client.sendall(b"\0\0\0\1\x0b")  # a request for the list of keys
                    assert client.recv(5)[:3] == b"\0\0\0"
                    inodes.append(path.stat().st_ino)
        finally:
            agent.terminate()
        said = agent.communicate(timeout=20)[1]
    assert agent.returncode == 0, said
    assert [path.stat().st_ino for path in paths] == inodes, "they are systemd's"


def test_what_a_parent_passes_is_served(directory: Path, stack: ExitStack) -> None:
    given = []
    for name in ("one", "two"):
        given.append(stack.enter_context(socket.socket(socket.AF_UNIX)))
        given[-1].bind(str(directory / name))
        given[-1].listen(1)
    agent = stack.enter_context(started(given))
    for name in ("one", "two"):
        assert served(directory / name)["pid"] == agent.pid
    assert agent.communicate(timeout=20)[1] == ""
    assert sorted(os.listdir(directory)) == ["one", "two"]


def test_clients_find_that_it_is_the_agent_that_listens(directory: Path, stack: ExitStack) -> None:
    given = stack.enter_context(socket.socket(socket.AF_UNIX))
    given.bind(str(directory / "agent"))
    given.listen()
    agent = stack.enter_context(started([given]))
    served(directory / "agent")
    client = stack.enter_context(socket.socket(socket.AF_UNIX))
    client.connect(str(directory / "agent"))
    found = unix.peer(client)
    assert found
    assert found.pid == agent.pid
    assert agent.communicate(timeout=20)[1] == ""


Maker = Callable[[Path], socket.socket]


def bound(kind: socket.SocketKind, family: socket.AddressFamily = socket.AF_UNIX) -> Maker:
    def make(directory: Path) -> socket.socket:
        made = socket.socket(family, kind)
        made.bind(str(directory / "agent") if family == socket.AF_UNIX else ("127.0.0.1", 0))
        return made

    return make


def listening_by_number(directory: Path) -> socket.socket:
    made = bound(socket.SOCK_STREAM, socket.AF_INET)(directory)
    made.listen()
    return made


def listening_without_a_path(directory: Path) -> socket.socket:
    if sys.platform != "linux":
        pytest.skip("only Linux has sockets without a path")
    made = socket.socket(socket.AF_UNIX)
    made.bind(f"\0pageantry-{os.urandom(8).hex()}")
    made.listen()
    return made


def connected(directory: Path) -> socket.socket:
    ours, theirs = socket.socketpair()
    theirs.close()
    return ours


@pytest.mark.parametrize(
    "make",
    [
        bound(socket.SOCK_DGRAM),
        bound(socket.SOCK_STREAM),
        listening_by_number,
        listening_without_a_path,
        connected,
    ],
)
def test_what_an_agent_cannot_listen_on_is_said(directory: Path, stack: ExitStack, make: Maker) -> None:
    agent = stack.enter_context(started([stack.enter_context(make(directory))]))
    said = agent.communicate(timeout=20)[1]
    assert agent.returncode == 1
    assert said.startswith("descriptor 3, which systemd passed, is no UNIX socket that listens at a path|")


@pytest.mark.parametrize("count", [1, 10**9])
def test_what_is_no_socket_is_said(directory: Path, monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    with (directory / "file").open("w") as file:
        monkeypatch.setattr(activation, "_FIRST", file.fileno())
        monkeypatch.setenv("LISTEN_PID", str(os.getpid()))
        monkeypatch.setenv("LISTEN_FDS", str(count))
        with pytest.raises(Error, match="is no socket") as caught:
            activation.inherited()
        assert caught.value.hint
        file.write("it is still open")
    monkeypatch.setenv("LISTEN_PID", str(os.getpid()))
    monkeypatch.setenv("LISTEN_FDS", str(count))
    with pytest.raises(Error, match="Bad file descriptor"):
        activation.inherited()


@pytest.mark.parametrize("pid", [None, "", "1", "x"])
def test_what_is_not_for_this_process_is_not_taken(monkeypatch: pytest.MonkeyPatch, pid: str | None) -> None:
    for name, value in (("LISTEN_PID", pid), ("LISTEN_FDS", "1"), ("LISTEN_FDNAMES", "a"), ("LISTEN_PIDFDID", "7")):
        if value is not None:
            monkeypatch.setenv(name, value)
    assert activation.inherited() == []
    assert [name for name in os.environ if name.startswith("LISTEN")] == []
    assert activation.inherited() == []


@pytest.mark.parametrize("count", ["", "-1", "one", "１", "1 "])
def test_a_count_that_is_none_is_said(monkeypatch: pytest.MonkeyPatch, count: str) -> None:
    monkeypatch.setenv("LISTEN_PID", str(os.getpid()))
    monkeypatch.setenv("LISTEN_FDS", count)
    with pytest.raises(Error, match="is no number") as caught:
        activation.inherited()
    assert caught.value.hint
    assert "LISTEN_FDS" not in os.environ


@pytest.mark.skipif(sys.platform == "darwin", reason="macOS has launchd")
def test_without_launchd_that_is_said() -> None:
    with pytest.raises(Error, match="no launchd") as caught:
        activation.launchd("Listeners")
    assert caught.value.hint


# What launch_activate_socket(3) says that it does. No launchd takes part.
LAUNCHD = r"""
#include <stdlib.h>
#include <string.h>
int launch_activate_socket(const char *name, int **fds, size_t *cnt)
{
    const char *fd = getenv("FAKE_LAUNCHD");
    if (strcmp(name, "Listeners") != 0 || fd == NULL)
        return 2;
    *fds = malloc(sizeof(int));
    (*fds)[0] = atoi(fd);
    *cnt = 1;
    return 0;
}
"""


@pytest.mark.skipif(sys.platform != "linux" or not shutil.which("cc"), reason="takes a C compiler and LD_PRELOAD")
def test_launchd_is_asked_as_its_manual_says(directory: Path, stack: ExitStack) -> None:
    library = directory / "launchd.so"
    compiler = ["cc", "-shared", "-fPIC", "-x", "c", "-o", str(library), "-"]
    subprocess.run(compiler, input=LAUNCHD, text=True, check=True)
    given = stack.enter_context(socket.socket(socket.AF_UNIX))
    given.bind(str(directory / "agent"))
    given.listen()
    command = [sys.executable, "-c", AGENT, "launchd"]
    environ = {**os.environ, "LD_PRELOAD": str(library), "FAKE_LAUNCHD": str(given.fileno())}
    agent = stack.enter_context(
        subprocess.Popen(command, env=environ, pass_fds=[given.fileno()], stderr=subprocess.PIPE, text=True)
    )
    assert served(directory / "agent")["pid"] == agent.pid
    assert agent.communicate(timeout=20)[1] == ""
    del environ["FAKE_LAUNCHD"]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=20)
    assert done.stderr.startswith("launchd has no sockets called Listeners: No such file or directory|")
