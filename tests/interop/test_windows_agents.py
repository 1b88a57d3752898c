"""Agents on named pipes, each in a process of its own: the real Pageant, and stand-ins for OpenSSH for Windows'."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import pageantry
from pageantry import Found, PublicKey, SignFlags, winpipe
from pageantry.client import Client
from pageantry.endpoints import named_pipe, parse
from pageantry.endpoints.pageant import pipe_name
from pageantry.errors import Disconnected, Refused, Unreachable, Unsupported
from pageantry.keyfiles import KeyFiles
from pageantry.keys.files import read
from pageantry.messages import IdentitiesAnswer, SessionBind, frame

if sys.platform != "win32":
    pytest.skip("named pipes", allow_module_level=True)

pytestmark = pytest.mark.interop

HERE = Path(__file__).parent
KEYS = [str(HERE / "keys" / name) for name in ("ed25519", "rsa")]
SIGNATURES = [(0, SignFlags.NONE), (1, SignFlags.NONE), (1, SignFlags.RSA_SHA2_256), (1, SignFlags.RSA_SHA2_512)]
ONE = frame(IdentitiesAnswer(((b"\0\0\0\x0bssh-ed25519\0\0\0\x20" + bytes(range(32)), b"me"),)).payload())


def wait_for(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(what)
        time.sleep(0.05)


@contextlib.contextmanager
def script(name: str, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """One of the servers beside this file, listening."""
    command = [sys.executable, str(HERE / f"{name}.py"), *arguments]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline().strip() == b"ready"
            yield process
        finally:
            process.kill()


def untaken(name: str) -> str:
    if winpipe.exists(name):
        pytest.skip(f"an agent of this machine's serves {name}")
    return name


@pytest.fixture
def openssh() -> Iterator[subprocess.Popen[bytes]]:
    """A stand-in for OpenSSH for Windows' agent, at its own place, with both keys."""
    with script("openssh_for_windows", untaken(named_pipe.OPENSSH), *KEYS) as process:
        yield process


@contextlib.contextmanager
def running_pageant(*arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    program = shutil.which("pageant")
    if not program:
        pytest.skip("pageant is not installed")
    untaken(pipe_name())
    with subprocess.Popen([program, *arguments, *(f"{key}.ppk" for key in KEYS)]) as process:
        try:
            wait_for(lambda: winpipe.exists(pipe_name()), "pageant did not start")
            with pageantry.connect("pageant-pipe") as agent:
                wait_for(lambda: len(agent.identities()) == len(KEYS), "pageant did not read its keys")
            yield process
        finally:
            process.kill()


@pytest.fixture
def pageant() -> Iterator[subprocess.Popen[bytes]]:
    """The real one, with both keys."""
    with running_pageant() as process:
        yield process


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Nobody's configuration."""
    for name in ("SSH_AUTH_SOCK", "SSH_TPM_AUTH_SOCK", "BITWARDEN_SSH_AUTH_SOCK", "HOME"):
        monkeypatch.delenv(name, raising=False)
    for name in ("USERPROFILE", "PROGRAMDATA", "APPDATA", "LOCALAPPDATA"):
        monkeypatch.setenv(name, str(tmp_path))
    (tmp_path / ".ssh").mkdir()
    return tmp_path


def run(*arguments: str, given: str = "") -> subprocess.CompletedProcess[str]:
    """Run the command as a person would."""
    return subprocess.run(
        [sys.executable, "-m", "pageantry", *arguments],
        input=given,
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        timeout=60,
    )


def opened(address: str) -> Client:
    agent = parse(address).open()
    assert isinstance(agent, Client)
    return agent


def found_at(address: str, probe: int | None = None) -> Found:
    (found,) = (one for one in pageantry.locate(probe=probe) if one.address == address)
    return found


def expected() -> tuple[list[PublicKey], KeyFiles]:
    """The keys, and an agent in this process that has them from their files."""
    files = KeyFiles(KEYS)
    return [one.key for one in files.identities()], files


@pytest.mark.parametrize(
    ("address", "server"), [("openssh", "openssh"), ("pageant-pipe", "pageant"), ("pageant", "pageant")]
)
def test_an_agent_lists_and_signs_as_the_key_files_do(
    request: pytest.FixtureRequest, address: str, server: str
) -> None:
    request.getfixturevalue(server)
    keys, files = expected()
    with pageantry.connect(address) as agent:
        assert {one.key for one in agent.identities()} == set(keys)
        for number, flags in SIGNATURES:  # both kinds of key sign the same data in the same way each time
            signed = agent.sign(keys[number], b"data", flags, verify=True)
            assert signed == files.sign(keys[number], b"data", flags)
        assert agent.sign(keys[0], bytes(200_000), verify=True)


@pytest.mark.parametrize(("address", "server"), [("openssh", "openssh"), ("pageant-pipe", "pageant")])
def test_the_commands_reach_an_agent(request: pytest.FixtureRequest, address: str, server: str, home: Path) -> None:
    process = request.getfixturevalue(server)
    keys, _ = expected()
    shown = run("agents", "--probe", "3")
    assert (shown.returncode, shown.stderr) == (0, "")
    assert shown.stdout.startswith(f"{address}  ")
    assert all(key.fingerprint() in shown.stdout for key in keys)
    (found,) = json.loads(run("agents", "--probe", "3", "--json").stdout)
    assert (found["address"], found["reached"], found["keys"]) == (address, "answers", 2)
    assert (found["pid"], found["warning"], found["error"]) == (process.pid, None, None)
    assert found["owner"].endswith(os.environ.get("USERNAME", ""))
    assert os.path.basename(found["program"]) in shown.stdout
    listed = json.loads(run("keys", "--agent", address, "--json").stdout)
    assert {one["agent"] for one in listed} == {address}
    (home / "file").write_bytes(b"data")
    signed = run("sign", "--agent", address, keys[0].fingerprint(), str(home / "file"))
    assert signed.stdout.startswith("-----BEGIN SSH SIGNATURE-----")

    number = 1 + [one["fingerprint"] for one in listed].index(keys[0].fingerprint())
    derived = run("vault", "--agent", address, "-k", "example.org", given=f"{number}\n")
    assert derived.returncode == 0, derived.stderr
    assert derived.stdout == run("vault", "--agent", f"keys:{KEYS[0]}", "-k", "example.org").stdout


def test_what_openssh_for_windows_hangs_up_on_costs_nothing_but_that(openssh: object) -> None:
    with opened("openssh") as agent:
        assert agent.query() == []
        with pytest.raises(Unsupported):
            agent.extension("nobody-knows@example.org")
        for act in (agent.lock, agent.unlock):
            with pytest.raises(Disconnected):
                act(b"x")
        assert len(agent.identities()) == 2


def test_openssh_for_windows_takes_keys_without_constraints_and_gives_them_up(openssh: object) -> None:
    from pageantry.constraints import Confirm

    private, _ = read(KEYS[0]).decrypt()
    with opened("openssh") as agent:
        agent.remove_all()
        assert agent.identities() == []
        with pytest.raises(Refused) as caught:
            agent.add(private, constraints=[Confirm()])
        assert "without" in caught.value.hint
        agent.add(private, "added")
        assert [one.comment for one in agent.identities()] == ["added"]
        agent.sign(private.public, b"data", verify=True)
        agent.remove(private.public)
        assert agent.identities() == []


def test_openssh_for_windows_binds_a_session(openssh: object) -> None:
    with opened("openssh") as agent:
        assert agent.extension(SessionBind.name, SessionBind(b"k", b"id", b"s", False).encode()) == b""
        assert len(agent.identities()) == 2


def test_the_stand_in_drops_a_request_in_two_pieces_as_the_real_one_does(openssh: object) -> None:
    with winpipe.connect(named_pipe.OPENSSH) as pipe:
        pipe.settimeout(10)
        pipe.sendall(b"\0\0\0\x01")
        assert pipe.recv(1) == b""


def test_paramiko_takes_the_stand_in_for_the_real_one(openssh: object) -> None:
    agents = pytest.importorskip("paramiko.agent")
    pipes = pytest.importorskip("paramiko.win_openssh")
    agent = agents.AgentSSH()
    agent._connect(pipes.OpenSSHAgentConnection())
    keys, files = expected()
    assert [key.asbytes() for key in agent.get_keys()] == [key.blob for key in keys]
    assert agent.get_keys()[0].sign_ssh_data(b"data") == files.sign(keys[0], b"data")
    agent._close()


def test_asyncssh_takes_the_stand_in_for_the_real_one(
    openssh: object, monkeypatch: pytest.MonkeyPatch, wine: bool
) -> None:
    asyncssh = pytest.importorskip("asyncssh")
    import asyncio

    if wine:  # whose pipes cannot be sought, as the buffered file has to be that asyncssh makes of one
        monkeypatch.setattr("asyncssh.agent_win32.open_file", lambda path, mode: io.FileIO(path, "r+"))

    async def ask() -> list[bytes]:
        async with asyncssh.connect_agent(f"\\\\.\\pipe\\{named_pipe.OPENSSH}") as agent:
            return [key.public_data for key in await agent.get_keys()]

    assert asyncio.run(ask()) == [key.blob for key in expected()[0]]


@pytest.mark.parametrize(
    ("level", "reached"), [(0, "present"), (1, "listening"), (2, "connects"), (3, "answers"), (None, "connects")]
)
def test_a_probe_goes_as_far_as_told(openssh: subprocess.Popen[bytes], level: int | None, reached: str) -> None:
    found = found_at("openssh", level)
    assert (found.reached, found.error) == (reached, "")
    assert found.pid == (openssh.pid if reached in ("connects", "answers") else None)
    assert (found.identities is not None) == (reached == "answers")


def test_a_program_in_the_place_of_openssh_s_service_is_called_by_its_own_name(openssh: object) -> None:
    assert found_at("openssh").agent == Path(sys.executable).stem


def test_who_names_an_agent_asks_it_for_its_keys(openssh: object, monkeypatch: pytest.MonkeyPatch) -> None:
    (found,) = pageantry.locate("openssh")
    assert found.reached == "answers"
    monkeypatch.setenv("SSH_AUTH_SOCK", f"\\\\.\\pipe\\{named_pipe.OPENSSH}")
    assert (found_at("openssh").reached, found_at("openssh").source) == ("answers", "SSH_AUTH_SOCK")


def test_openssh_comes_before_pageant_and_a_named_one_before_both(
    openssh: object, pageant: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert [one.address for one in pageantry.locate()] == ["openssh", "pageant-pipe"]
    with pageantry.connect() as agent:
        assert agent.address == "openssh"
    monkeypatch.setenv("SSH_AUTH_SOCK", f"//./pipe/{pipe_name()}")
    assert [(one.address, one.source) for one in pageantry.locate()] == [
        (f"pipe:{pipe_name()}", "SSH_AUTH_SOCK"),
        ("openssh", ""),
    ]


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ("\\\\.\\pipe\\pageantry-test-gone", "no agent serves"),
        ("/tmp/ssh-XXXXXXabcdef/agent.42", "Git Bash"),
        ("C:\\gone\\agent.sock", "there is no"),
        ("\\\\elsewhere\\pipe\\openssh-ssh-agent", "another computer"),
        ("//./pipe/" + 300 * "x", "309 characters"),
        ("pageant-window", "no agent has Pageant's window"),
    ],
)
def test_an_ssh_auth_sock_that_leads_nowhere_is_said_aloud_with_what_is_used_instead(
    openssh: object, monkeypatch: pytest.MonkeyPatch, value: str, why: str
) -> None:
    monkeypatch.setenv("SSH_AUTH_SOCK", value)
    said: list[str] = []
    with pageantry.connect(say=said.append) as agent:
        assert agent.address == "openssh"
    assert len(said) == 1
    assert why in said[0]
    assert said[0].endswith("going on with openssh")
    dead, alive = pageantry.locate()
    assert (dead.reached, dead.source, alive.address) == (None, "SSH_AUTH_SOCK", "openssh")
    assert why in dead.error
    assert dead.hint
    for done in (run("agents"), run("keys")):
        assert done.returncode == 0
        assert "Traceback" not in done.stderr


def test_no_agent_at_all_is_said_in_two_lines(home: Path) -> None:
    untaken(named_pipe.OPENSSH)
    for address in ("openssh", "pageant-pipe", "pageant", "pipe:pageantry-test-gone", "\\\\host\\pipe\\x", "C:\\gone"):
        if winpipe.exists(pipe_name()) and "pageant" in address:
            continue
        done = run("keys", "--agent", address)
        assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (1, "", 2)
        assert done.stderr.startswith("pageantry: ")


def test_two_servers_of_openssh_s_pipe_are_noticed_and_named() -> None:
    name = untaken(named_pipe.OPENSSH)
    with script("one_client_pipe", name, ONE.hex()) as first, script("one_client_pipe", name, ONE.hex()) as second:

        def noticed() -> bool:  # in the end, as chance may lead every look to the same one
            warning = found_at("openssh", 2).warning
            return all(f"{Path(sys.executable).name} (process {one.pid})" in warning for one in (first, second))

        wait_for(noticed, "two servers were never noticed")
        wait_for(lambda: "serve this pipe" in run("agents").stdout, "people were never told")
        wait_for(lambda: "serve this pipe" in run("agents", "--json").stdout, "machines were never told")


def test_an_agent_that_serves_one_client_at_a_time_is_reached_time_and_again() -> None:
    with script("one_client_pipe", untaken(named_pipe.OPENSSH), ONE.hex()):
        for _ in range(10):
            with opened("openssh") as agent:
                assert len(agent.identities()) == 1
        # It is being made anew, and discovery looks just once.
        wait_for(lambda: winpipe.exists(named_pipe.OPENSSH), "the pipe was not made anew")
        found = found_at("openssh", 3)
        assert (found.reached, found.warning, found.error) == ("answers", "", "")


def test_a_squatter_on_pageants_name_is_shown_and_sent_nothing(
    pageant: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    me, another = winpipe.user(), "S-1-5-21-1-2-3-1002"  # as whom we look, and so the owners are others
    monkeypatch.setattr("pageantry.winpipe._windows.user", lambda pid=None: me if pid else another)
    found = found_at("pageant-pipe", 3)
    assert (found.reached, found.identities) == ("present", None)
    assert "not to you" in found.error
    assert "pageant.exe" in found.error
    with pytest.raises(Unreachable):
        pageantry.connect()


def test_pageant_says_what_it_can_do_and_refuses_constraints(pageant: object) -> None:
    from pageantry.constraints import Lifetime

    with opened("pageant") as agent:
        assert "list-extended@putty.projects.tartarus.org" in agent.query()
        with pytest.raises(Unsupported):
            agent.extension("nobody-knows@example.org")
        with pytest.raises(Refused):
            agent.add(read(KEYS[0]).decrypt()[0], constraints=[Lifetime(60)])
        assert len(agent.identities()) == 2


def test_the_configuration_that_pageant_writes_for_openssh_is_followed(
    home: Path, request: pytest.FixtureRequest
) -> None:
    (home / ".ssh" / "config").write_text("Include pageant.conf\n")
    with running_pageant("--openssh-config", str(home / ".ssh" / "pageant.conf")):
        (found,) = pageantry.locate()
        assert found.source == f"IdentityAgent in {home / '.ssh' / 'pageant.conf'}"
        assert (found.agent, found.reached) == ("Pageant", "answers")
        assert found.address == f"pipe:{pipe_name()}"
