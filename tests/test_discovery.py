from __future__ import annotations

import shutil
import socket
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

import pageantry
from pageantry import PublicKey
from pageantry.errors import BadReply, Unreachable
from pageantry.known import candidates
from pageantry.messages import IdentitiesAnswer, frame

if sys.platform == "win32":
    pytest.skip("UNIX sockets", allow_module_level=True)

ED25519 = PublicKey(b"\0\0\0\x0bssh-ed25519\0\0\0\x20" + bytes(range(32)))
EMPTY = frame(IdentitiesAnswer(()).payload())
ONE = frame(IdentitiesAnswer(((ED25519.blob, b"me"),)).payload())


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A home and a runtime directory of our own, and no agent but those put there."""
    made = Path(tempfile.mkdtemp(prefix="pgt", dir="/tmp"))
    for name in ("SSH_AUTH_SOCK", "SSH_TPM_AUTH_SOCK", "BITWARDEN_SSH_AUTH_SOCK", "PREFIX", "TMPDIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(made))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(made / "run"))
    monkeypatch.setattr("pageantry.known._glob", lambda base, pattern, agent: iter(()))  # others' agents in /tmp
    (made / "run").mkdir()
    (made / ".ssh").mkdir()
    yield made
    shutil.rmtree(made)


_SERVE = """
import socket, sys, threading
server = socket.socket(socket.AF_UNIX)
server.bind(sys.argv[1])
server.listen()
print("ready", flush=True)
def answer(connection):
    with connection:
        while connection.recv(1000) and sys.argv[2] != "silent":
            connection.sendall(bytes.fromhex(sys.argv[2]))
        threading.Event().wait()
while True:
    threading.Thread(target=answer, args=(server.accept()[0],), daemon=True).start()
"""


class Fake:
    """An agent in a process of its own, for one in ours is left out as our own; without a reply it is silent."""

    def __init__(self, path: Path, reply: bytes | None) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.process = subprocess.Popen(
            [sys.executable, "-c", _SERVE, str(path), "silent" if reply is None else reply.hex()],
            stdout=subprocess.PIPE,
        )
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == b"ready\n"

    def end(self) -> None:
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def agents() -> Iterator[list[Fake]]:
    made: list[Fake] = []
    yield made
    for one in made:
        one.end()


def addresses(found: list[pageantry.Found]) -> list[str]:
    return [one.endpoint.where for one in found]


def test_a_machine_without_agents_has_none(place: Path) -> None:
    assert pageantry.locate() == []
    with pytest.raises(Unreachable, match="no SSH agent") as caught:
        pageantry.connect()
    assert "keys:" in caught.value.hint


def test_named_agents_come_first_in_the_order_in_which_ssh_takes_them(
    place: Path, agents: list[Fake], monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ("run/ssh-agent", "sock", "configured", "tpm")
    agents += [Fake(place / name, ONE) for name in names]
    monkeypatch.setenv("SSH_AUTH_SOCK", str(place / "sock"))
    monkeypatch.setenv("SSH_TPM_AUTH_SOCK", str(place / "tpm"))
    (place / ".ssh" / "config").write_text(f"IdentityAgent {place}/configured\n")
    found = pageantry.locate()
    assert addresses(found) == [str(place / name) for name in ("configured", "sock", "tpm", "run/ssh-agent")]
    assert [one.source.split()[0] for one in found if one.source] == [
        "IdentityAgent",
        "SSH_AUTH_SOCK",
        "SSH_TPM_AUTH_SOCK",
    ]
    with pageantry.connect() as agent:
        assert agent.address == f"unix:{place}/configured"
    with pageantry.connect(str(place / "tpm")) as agent:
        assert agent.address == f"unix:{place}/tpm"


@pytest.mark.parametrize(
    ("level", "reached"), [(0, "present"), (1, "present"), (2, "connects"), (3, "answers"), (None, "answers")]
)
def test_a_probe_goes_as_far_as_told(place: Path, agents: list[Fake], level: int | None, reached: str) -> None:
    agents.append(Fake(place / "run/ssh-agent", ONE))
    (found,) = pageantry.locate(probe=level)
    assert found.reached == reached
    assert (found.identities is not None) == (reached == "answers")


@pytest.mark.parametrize(
    ("name", "reached"),
    [
        ("gcr/ssh", "present"),
        ("gnupg/S.gpg-agent.ssh", "present"),
        ("keyring/ssh", "connects"),
        ("ssh-agent", "answers"),
    ],
)
def test_unasked_nothing_is_started_and_nobody_is_asked_to_unlock(
    place: Path, agents: list[Fake], name: str, reached: str
) -> None:
    agents.append(Fake(place / "run" / name, ONE))
    (found,) = pageantry.locate()
    assert (found.reached, found.error) == (reached, "")
    (found,) = pageantry.locate(probe=3)
    assert found.reached == "answers"
    with pageantry.connect() as agent:  # needed, so woken
        assert len(agent.identities()) == 1


def test_one_socket_under_several_names_is_one_agent(
    place: Path, agents: list[Fake], monkeypatch: pytest.MonkeyPatch
) -> None:
    agents.append(Fake(place / "run/ssh-agent", ONE))
    (place / "link").symlink_to(place / "run/ssh-agent")
    monkeypatch.setenv("SSH_AUTH_SOCK", str(place / "link"))
    assert addresses(pageantry.locate()) == [str(place / "link")]


def test_our_own_socket_is_left_out(place: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(place / "run/ssh-agent"))
        server.listen()
        assert pageantry.locate() == []


def test_a_dead_ssh_auth_sock_is_said_aloud_with_what_is_used_instead(
    place: Path, agents: list[Fake], monkeypatch: pytest.MonkeyPatch
) -> None:
    agents.append(Fake(place / "run/ssh-agent", ONE))
    monkeypatch.setenv("SSH_AUTH_SOCK", str(place / "gone"))
    said: list[str] = []
    with pageantry.connect(say=said.append) as agent:
        assert agent.address == f"unix:{place}/run/ssh-agent"
    assert len(said) == 1
    for part in ("SSH_AUTH_SOCK", f"there is no {place}/gone", f"going on with unix:{place}/run/ssh-agent"):
        assert part in said[0]
    dead, alive = pageantry.locate()
    assert (dead.reached, alive.reached) == (None, "answers")
    assert dead.error
    assert dead.hint
    with pytest.warns(UserWarning, match="SSH_AUTH_SOCK") as warned:
        pageantry.connect().close()
    assert warned[0].filename == __file__  # where it was called, not where it was noticed


def test_a_dead_ssh_auth_sock_alone_is_the_reason_given(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSH_AUTH_SOCK", str(place / "gone"))
    said: list[str] = []
    with pytest.raises(Unreachable):
        pageantry.connect(say=said.append)
    assert "SSH_AUTH_SOCK" in said[0]


@pytest.mark.parametrize("value", ["agent", "/x" * 200, "openssh", "//./pipe/x", "\\\\host\\pipe\\x"])
def test_an_ssh_auth_sock_that_is_no_address_is_told_not_raised(
    place: Path, monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    monkeypatch.setenv("SSH_AUTH_SOCK", value)
    (found,) = pageantry.locate()
    assert found.reached is None
    assert found.error


@pytest.mark.parametrize(
    ("level", "reached"), [(0, "present"), (1, "present"), (2, "connects"), (3, "answers"), (None, "answers")]
)
def test_an_agent_on_a_port_is_found_by_its_file(
    place: Path, monkeypatch: pytest.MonkeyPatch, level: int | None, reached: str
) -> None:
    monkeypatch.setenv("SSH_AUTH_SOCK", str(place / "agent"))
    script = Path(__file__).parent / "interop" / "cygwin_server.py"
    command = [sys.executable, str(script), str(place / "agent"), ONE.hex()]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as server:
        try:
            assert server.stdout is not None
            assert server.stdout.readline() == b"ready\n"
            (found,) = pageantry.locate(probe=level)
        finally:
            server.kill()
    assert (found.reached, found.error, found.pid) == (reached, "", None)
    assert bool(found.owner) == (reached in ("connects", "answers") and sys.platform == "linux")
    assert (found.identities is not None) == (reached == "answers")


@pytest.mark.parametrize("level", [0, 2, 3])
def test_a_file_that_is_no_agent_s_is_told_not_connected_to(
    place: Path, monkeypatch: pytest.MonkeyPatch, level: int
) -> None:
    (place / ".gnupg").mkdir()
    (place / ".gnupg" / "S.gpg-agent.ssh").write_bytes(b"99999\n" + bytes(16))
    (found,) = pageantry.locate(probe=level)
    assert (found.agent, found.reached) == ("gpg-agent", None)
    assert "names the port 99999" in found.error
    assert found.hint


def test_a_program_is_probed_like_any_agent() -> None:
    lines = f"import os; [os.write(1, {ONE!r}) for _ in iter(lambda: os.read(0, 99), b'')]"
    for level, reached in ((0, "present"), (1, "present"), (2, "connects"), (3, "answers")):
        (found,) = pageantry.locate(f'stdio:{sys.executable} -c "{lines}"', probe=level)
        assert (found.reached, found.error) == (reached, "")
    (found,) = pageantry.locate("stdio:/nowhere/relay", probe=3)
    assert "there is no program /nowhere/relay" in found.error


def test_connect_passes_over_the_agents_that_lack_the_key(place: Path, agents: list[Fake]) -> None:
    agents += [Fake(place / "run/ssh-agent", EMPTY), Fake(place / "run/keyring/ssh", ONE)]
    with warnings.catch_warnings(), pageantry.connect(holding=ED25519) as agent:
        assert agent.address == f"unix:{place}/run/keyring/ssh"


def test_agents_that_hang_cost_one_deadline_together(place: Path, agents: list[Fake]) -> None:
    names = ("run/ssh-agent", ".gnupg/S.gpg-agent.ssh", ".1password/agent.sock")
    agents += [Fake(place / name, None) for name in names]
    start = time.monotonic()
    found = pageantry.locate(probe=3)
    assert time.monotonic() - start < 5
    assert [one.reached for one in found] == ["connects"] * 3
    assert all("did not answer" in one.error for one in found)


def test_a_named_agent_that_cannot_list_its_keys_is_no_agent_without_the_key(place: Path, agents: list[Fake]) -> None:
    agents.append(Fake(place / "broken", frame(b"\x06")))
    with pytest.raises(BadReply):
        pageantry.connect(str(place / "broken"), holding=ED25519)
    agents.append(Fake(place / "run/ssh-agent", frame(b"\x05")))
    with pytest.raises(Unreachable):
        pageantry.connect(holding=ED25519)


def test_many_silent_agents_are_passed_over_together(place: Path, agents: list[Fake]) -> None:
    for name in ("ssh-agent", ".gnupg/S.gpg-agent.ssh"):
        base = place / "run" if name == "ssh-agent" else place
        agents.append(Fake(base / name, None))
    start = time.monotonic()
    with pytest.raises(Unreachable):
        pageantry.connect()
    assert time.monotonic() - start < 3.9


def test_candidates_of_an_empty_environment_are_found_without_an_error() -> None:
    assert isinstance(list(candidates({})), list)
