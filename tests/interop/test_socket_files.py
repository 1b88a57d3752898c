"""Agents behind files of GnuPG's and Cygwin's on Windows, and all kinds of agents beside each other there."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import pageantry
from pageantry import winpipe
from pageantry.endpoints import named_pipe, window
from pageantry.endpoints.pageant import pipe_name
from pageantry.endpoints.socketfiles import SocketFile
from pageantry.errors import Unreachable
from pageantry.messages import IdentitiesAnswer, frame

if sys.platform != "win32":
    pytest.skip("Windows' files", allow_module_level=True)

pytestmark = pytest.mark.interop

HERE = Path(__file__).parent


def listing(count: int) -> str:
    """The reply of an agent with so many keys, in hex."""
    blob = b"\0\0\0\x0bssh-ed25519\0\0\0\x20"
    return frame(IdentitiesAnswer(tuple((blob + bytes([n]) * 32, b"me") for n in range(count))).payload()).hex()


@contextlib.contextmanager
def server(*command: str) -> Iterator[subprocess.Popen[bytes]]:
    """A program that says when it listens."""
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline().strip() == b"ready"
            yield process
        finally:
            process.kill()


def cygwin(path: Path, keys: int) -> contextlib.AbstractContextManager[subprocess.Popen[bytes]]:
    return server(sys.executable, str(HERE / "cygwin_server.py"), str(path), listing(keys))


def libassuan(path: Path, keys: int, *form: str) -> contextlib.AbstractContextManager[subprocess.Popen[bytes]]:
    """The real one, in a program of ours."""
    return server(peer(), "serve", str(path), listing(keys), *form)


def peer() -> str:
    program = shutil.which("assuan_peer")
    if not program:
        pytest.skip("assuan_peer is not built: see assuan_peer.c")
    return program


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A person who has just come."""
    for name in ("SSH_AUTH_SOCK", "SSH_TPM_AUTH_SOCK", "BITWARDEN_SSH_AUTH_SOCK", "HOME"):
        monkeypatch.delenv(name, raising=False)
    for name in ("USERPROFILE", "PROGRAMDATA", "APPDATA", "LOCALAPPDATA", "TEMP"):
        monkeypatch.setenv(name, str(tmp_path))
    (tmp_path / ".ssh" / "agent").mkdir(parents=True)
    (tmp_path / "gnupg").mkdir()
    (tmp_path / "ssh-XXXX").mkdir()
    return tmp_path


def shown(*arguments: str) -> list[dict[str, Any]]:
    """What the command says, in the words of a person and of a machine."""
    command = [sys.executable, "-m", "pageantry", "agents", *arguments]
    text = subprocess.run(command, capture_output=True, timeout=60, check=False)
    assert b"Traceback" not in text.stderr
    done = subprocess.run([*command, "--json"], stdout=subprocess.PIPE, timeout=60, check=False)
    result: list[dict[str, Any]] = json.loads(done.stdout)
    for one in result:
        assert one["address"].encode() in text.stdout
        assert (one["error"] or "").encode() in text.stdout
    return result


@pytest.mark.parametrize("address", ["assuan:{}", "unix:{}", "{}"])
def test_libassuan_lets_us_in(home: Path, address: str) -> None:
    with libassuan(home / "S.gpg-agent.ssh", 3), pageantry.connect(address.format(home / "S.gpg-agent.ssh")) as agent:
        assert len(agent.identities()) == 3
        assert len(agent.identities()) == 3


@pytest.mark.parametrize("address", ["assuan:{}", "unix:{}"])
def test_libassuan_lets_us_in_by_a_file_of_cygwin_s_form_without_a_word(home: Path, address: str) -> None:
    path = home / "S.gpg-agent.ssh"
    with libassuan(path, 3, "cygwin"), pageantry.connect(address.format(path)) as agent:
        assert path.read_bytes().startswith(b"!<socket >")
        assert len(agent.identities()) == 3


def test_libassuan_refuses_another_secret_and_so_do_we(home: Path) -> None:
    path = home / "S.gpg-agent.ssh"
    with libassuan(path, 3):
        port, _, secret = path.read_bytes().partition(b"\n")
        path.write_bytes(port + b"\n" + secret[::-1])
        with pageantry.connect(str(path)) as agent, pytest.raises(pageantry.errors.Disconnected):
            agent.identities()


def test_libassuan_finds_a_file_of_ours(home: Path) -> None:
    """A server of our own, by the form that `SocketFile` writes."""
    import socket

    program, secret = peer(), os.urandom(16)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        (home / "S.x").write_bytes(SocketFile(listener.getsockname()[1], secret, cygwin=False).encode())
        with subprocess.Popen([program, "ask", str(home / "S.x"), "000000010b"], stdout=subprocess.PIPE) as process:
            listener.settimeout(30)
            with listener.accept()[0] as connection:
                connection.settimeout(30)
                data = b""
                while len(data) < 21:
                    data += connection.recv(21 - len(data))
                connection.sendall(b"answer")
            assert process.communicate(timeout=30)[0].strip() == b"answer".hex().encode()
    assert data == secret + b"\0\0\0\1\x0b"


def test_a_stale_file_of_libassuan_s_is_said(home: Path) -> None:
    with libassuan(home / "S.gpg-agent.ssh", 1):
        pass
    with pytest.raises(Unreachable, match="where nobody listens any more"):
        pageantry.connect(str(home / "S.gpg-agent.ssh"))


def wait_for(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(what)
        time.sleep(0.05)


def keys_of(address: str) -> int:
    """How many keys the agent there has; 0 where there is none yet."""
    (found,) = pageantry.locate(address, probe=3)
    return len(found.identities or ())


@pytest.fixture
def pageant() -> Iterator[subprocess.Popen[bytes]]:
    """The real one, with two keys."""
    program = shutil.which("pageant")
    if not program:
        pytest.skip("pageant is not installed")
    if winpipe.exists(pipe_name()):
        pytest.skip("this machine's Pageant runs")
    keys = [str(HERE / "keys" / f"{name}.ppk") for name in ("ed25519", "rsa")]
    with subprocess.Popen([program, *keys]) as process:
        try:
            wait_for(lambda: winpipe.exists(pipe_name()), "pageant did not start")
            wait_for(lambda: keys_of("pageant-pipe") == 2, "pageant did not read its keys")
            wait_for(lambda: keys_of("pageant-window") == 2, "pageant has no window")
            yield process
        finally:
            process.kill()


def test_agents_of_each_kind_beside_each_other_are_each_shown_as_they_are(
    home: Path, pageant: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    if winpipe.exists(named_pipe.OPENSSH):
        pytest.skip("this machine's own agent runs")
    git, gpg = home / "ssh-XXXX" / "agent.42", home / "gnupg" / "S.gpg-agent.ssh"
    omni = home / ".ssh" / "omnisshagent-cygwin.sock"
    dead, old, broken = (home / ".ssh" / "agent" / name for name in ("s.1dead", "s.2old", "s.3broken"))
    dead.write_bytes(SocketFile(9, bytes(16), cygwin=True).encode())  # where nobody listens, as a rule
    old.write_bytes(SocketFile(9, bytes(16), cygwin=True).encode().replace(b" s ", b" "))
    broken.write_bytes(b"99999\n" + bytes(16))
    with cygwin(git, 1), cygwin(omni, 4), libassuan(gpg, 3):
        by_address = {one["address"]: one for one in shown("--probe", "3")}
        assert list(by_address) == [
            "pageant-pipe",
            f"assuan:{gpg}",
            f"cygwin:{git}",
            *(f"cygwin:{path}" for path in (dead, old, broken)),
            f"cygwin:{omni}",
        ]
        one = by_address["pageant-pipe"]
        assert (one["agent"], one["reached"], one["keys"], one["pid"]) == ("Pageant", "answers", 2, pageant.pid)
        assert one["also"] == ["pageant-window"]
        for path, whose, keys in ((gpg, "gpg-agent", 3), (git, "OpenSSH", 1), (omni, "OmniSSHAgent", 4)):
            one = by_address[f"{'assuan' if path == gpg else 'cygwin'}:{path}"]
            assert (one["agent"], one["reached"], one["keys"], one["error"]) == (whose, "answers", keys, None)
        for path, reached, why in (
            (dead, "present", "nobody listens"),
            (old, None, "old msysGit"),
            (broken, None, "the port 99999"),
        ):
            one = by_address[f"cygwin:{path}"]
            assert one["reached"] == reached
            assert why in one["error"]
            assert one["hint"]
        with pageantry.connect() as agent:
            assert agent.address == "pageant-pipe"

        monkeypatch.setenv("SSH_AUTH_SOCK", "/tmp/ssh-XXXX/agent.42")  # as Git Bash has it, where no cygpath is
        first, *others = shown()
        assert (first["address"], first["source"], first["keys"]) == (f"unix:{git}", "SSH_AUTH_SOCK", 1)
        assert f"cygwin:{git}" not in [one["address"] for one in others]
        with pageantry.connect() as agent:
            assert len(agent.identities()) == 1
        for level, reached in ((0, "present"), (1, "present"), (2, "connects"), (3, "answers")):
            assert [one["reached"] for one in shown("--probe", str(level)) if one["agent"] == "gpg-agent"] == [reached]


def test_pageant_is_reached_by_its_window_where_it_has_no_pipe(
    pageant: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pageantry.connect("pageant") as agent:
        assert len(agent.identities()) == 2
    monkeypatch.setattr("pageantry.endpoints.pageant.pipe_name", lambda: "pageantry-test-gone")
    for probe in (2, 3):
        (found,) = pageantry.locate("pageant", probe=probe)
        assert found.reached in ("connects", "answers")
        assert found.pid == window.peer().pid
    with pageantry.connect("pageant") as agent:
        assert agent.address == "pageant"
        assert len(agent.identities()) == 2
    assert [one.address for one in pageantry.locate()] == ["pageant-window"]


def test_the_reason_that_there_is_no_pageant_is_its_pipe_s() -> None:
    if winpipe.exists(pipe_name()):
        pytest.skip("this machine's Pageant runs")
    for attempt in (lambda: pageantry.connect("pageant"), lambda: pageantry.locate("pageant")[0].endpoint.connect()):
        with pytest.raises(Unreachable, match="no agent serves") as caught:
            attempt()
        assert "start Pageant" in caught.value.hint
    assert pageantry.locate("pageant")[0].reached is None
