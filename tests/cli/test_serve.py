"""The command `serve`: where it listens and what it says of that, the keys it starts with, and how it ends."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

if sys.platform == "win32":
    pytest.skip("sockets and signals of UNIX; test_serve_on_windows.py has pipes", allow_module_level=True)

import pageantry
from pageantry import PublicKey
from pageantry.errors import Disconnected, Unreachable

from .serving import (
    PASSPHRASE,
    PROGRAM,
    Environ,
    call,
    certify,
    failed,
    lists,
    openssh,
    putty,
    serving,
    wait_for,
)


def held(place: str) -> list[PublicKey]:
    with pageantry.connect(place) as agent:
        return [identity.key for identity in agent.identities()]


def gone(place: Path | str) -> bool:
    return not os.path.lexists(place)


# Where it listens


def test_it_listens_in_the_runtime_directory_and_says_so_to_the_shell(environ: Environ, home: Path) -> None:
    place = home / "run" / "pageantry" / "agent"
    with serving(environ) as agent:
        assert agent.said == f"SSH_AUTH_SOCK={place}; export SSH_AUTH_SOCK;\n"
        assert agent.logged("listening at").endswith(f"listening at {place}\n")
        assert lists(place) == []
        assert (place.stat().st_mode & 0o777, place.parent.stat().st_mode & 0o777) == (0o600, 0o700)
        status, log = agent.end()
    assert (status, len(log.splitlines())) == (0, 2)
    assert gone(place)


def test_a_shell_can_evaluate_what_it_says_of_any_path(environ: Environ, home: Path) -> None:
    odd = home / "it's $HOME; é"
    with serving(environ, "--listen", odd) as agent:
        script = f"{agent.said} exec {shlex.join(PROGRAM)} keys --json"
        shown = subprocess.run(["sh", "-c", script], env=environ, capture_output=True, text=True, timeout=60)
        assert (shown.stdout, agent.end()[0]) == ("[]\n", 0)


def test_machines_are_told_all_places(environ: Environ, home: Path) -> None:
    places = [str(home / "one"), str(home / "two")]
    listen = [word for place in places for word in ("--listen", place)]
    with serving(environ, *listen, "--json") as agent:
        assert agent.process.stdout
        text = agent.said
        while not text.endswith("}\n"):
            text += agent.process.stdout.readline()
        assert json.loads(text) == {"listens": places, "pid": agent.process.pid}
        assert [lists(place) for place in places] == [[], []]
        for place in places:
            agent.logged(f"listening at {place}")
        agent.end()
    assert all(map(gone, places))


def test_it_serves_without_a_standard_error(environ: Environ) -> None:
    command = ["sh", "-c", 'exec "$@" 2>&-', "sh", *PROGRAM, "serve"]
    with subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        try:
            place = process.stdout.readline().partition("=")[2].partition(";")[0]
            assert lists(place) == []
            process.terminate()
            assert process.wait(30) == 0
        finally:
            process.kill()


def test_quiet_is_without_a_word(environ: Environ) -> None:
    with serving(environ, "-q") as agent:
        assert lists(agent.place) == []
        assert agent.end() == (0, "")


@pytest.mark.parametrize("address", ["~/s", "unix:~/s", "s/../s"])
def test_it_listens_where_it_is_told(
    environ: Environ, home: Path, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(home)
    with serving(environ, "--listen", address) as agent:
        assert agent.place == str(home / "s")
        assert lists(home / "s") == []


def test_without_a_runtime_directory_it_listens_where_openssh_does(environ: Environ, home: Path) -> None:
    del environ["XDG_RUNTIME_DIR"]
    with serving(environ) as agent:
        assert Path(agent.place).parent == home / ".ssh" / "agent"
        agent.end()
    assert gone(agent.place)


@pytest.mark.parametrize("what", ["nothing", "file", "open", "another's"])
def test_a_runtime_directory_that_is_of_no_use_is_passed_over_with_a_word(
    environ: Environ, home: Path, what: str
) -> None:
    runtime = home / "run"
    if what == "nothing":
        runtime.rmdir()
    elif what == "file":
        runtime.rmdir()
        runtime.write_text("")
    elif what == "open":
        (runtime / "pageantry").mkdir()
        (runtime / "pageantry").chmod(0o777)
    elif os.geteuid():
        pytest.skip("only root gives directories away")
    else:
        os.chown(runtime, 65534, 65534)
    with serving(environ) as agent:
        assert Path(agent.place).parent == home / ".ssh" / "agent"
        assert str(runtime) in agent.logged("; listening elsewhere")
    if what == "another's":
        assert not list(runtime.iterdir())


def test_two_do_not_serve_at_one_place(environ: Environ) -> None:
    with serving(environ) as agent:
        second = call(environ, "serve")
        assert failed(second) == f"an agent answers at {agent.place} already (process {agent.process.pid})"
        assert lists(agent.place) == []
        assert agent.end()[0] == 0


def test_what_one_that_was_killed_has_left_makes_room(environ: Environ) -> None:
    with serving(environ) as agent:
        agent.end(signal.SIGKILL)
    assert not gone(agent.place)
    with serving(environ) as second:
        assert second.place == agent.place
        assert lists(second.place) == []


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("/nowhere/at/all", "cannot listen in /nowhere/at: No such file or directory"),
        ("./" + "long" * 30, "bytes long; a socket's path can have"),
        ("./open/s", "others may write in"),
        ("./file/s", "is no directory"),
        ("./file", "is there already, and is no socket"),
        ("pageant", "an agent cannot be served at pageant"),
        ("pipe:x", "an agent cannot be served at pipe:x"),
        ("keys:x", "an agent cannot be served at keys:x"),
        ("stdio:cat", "an agent cannot be served at stdio:cat"),
        ("agent", "'agent' is no address of an agent"),
        ("unix:", "'unix:' has no path in it"),
        ("", "'' is no address of an agent"),
    ],
)
def test_it_says_in_two_lines_why_it_cannot_listen_there_and_leaves_nothing(
    environ: Environ, home: Path, address: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(home)
    (home / "file").write_text("")
    (home / "open").mkdir()
    (home / "open").chmod(0o777)
    assert said in failed(call(environ, "serve", "--listen", "./first", "--listen", address))
    assert gone(home / "first")


@pytest.mark.skipif(sys.platform == "darwin", reason="there it has launchd")
def test_launchd_is_said_to_be_missing(environ: Environ) -> None:
    assert failed(call(environ, "serve", "--listen", "launchd:Listeners")) == "there is no launchd here"


def activated(environ: Environ, *words: str, listening: socket.socket) -> subprocess.Popen[str]:
    """As systemd starts it."""
    script = 'exec 3<&0 </dev/null; LISTEN_FDS=1 LISTEN_PID=$$ exec "$@"'
    return subprocess.Popen(
        ["sh", "-c", script, "sh", *PROGRAM, "serve", *words],
        env=environ,
        stdin=listening.fileno(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_it_takes_over_the_socket_that_systemd_has_made(environ: Environ, home: Path) -> None:
    path = home / "activated"
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen()
        with pageantry.connect(str(path)) as early, activated(environ, listening=listening) as process:
            try:
                assert early.identities() == []  # it has waited in the queue
                assert lists(path) == []
                process.terminate()
                said, log = process.communicate(timeout=30)
                assert process.returncode == 0
            finally:
                process.kill()
    assert said == f"SSH_AUTH_SOCK={path}; export SSH_AUTH_SOCK;\n"
    assert f"listening at {path}\n" in log
    assert not gone(path)  # it is systemd's
    assert not list((home / "run").iterdir())


@pytest.mark.interop
@pytest.mark.skipif(not shutil.which("systemd-socket-activate"), reason="systemd-socket-activate is not installed")
def test_systemd_starts_it_for_the_first_client(environ: Environ, home: Path) -> None:
    path = home / "activated"
    command = ["systemd-socket-activate", "-l", str(path), "-E", f"HOME={home}", *PROGRAM, "serve", str(home / "key")]
    key = openssh(home / "key", 1)
    with subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        try:
            wait_for(path.is_socket, "it does not listen")
            assert held(str(path)) == [key]
            process.terminate()
            assert process.wait(30) == 0
        finally:
            process.kill()
    assert path.is_socket()


def test_what_systemd_hands_over_has_to_be_a_socket_of_unix(environ: Environ) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening, activated(environ, listening=listening) as process:
        said, log = process.communicate(timeout=30)
    assert (process.returncode, said) == (1, "")
    assert "descriptor 3, which systemd passed, is no UNIX socket" in log


def test_the_journal_gets_lines_without_the_time(environ: Environ, home: Path) -> None:
    log = home / "log"
    for name, timed in ("its own", False), ("another's", True):
        with log.open("wb") as file:
            status = os.fstat(file.fileno())
            stream = f"{status.st_dev}:{status.st_ino + timed}"
            with subprocess.Popen(
                [*PROGRAM, "serve"], env=environ | {"JOURNAL_STREAM": stream}, stdout=subprocess.PIPE, stderr=file
            ) as process:
                assert process.stdout
                process.stdout.readline()
                process.terminate()
        assert log.read_text().startswith("listening at") is not timed, name


# Key files


def test_key_files_are_held_from_the_start_with_their_certificates(environ: Environ, home: Path) -> None:
    names = ("plain", "sealed", "plain.ppk", "sealed.ppk")
    keys = []
    for seed, (name, make) in enumerate(zip(names, (openssh, openssh, putty, putty), strict=True), 1):
        key = make(home / name, seed, PASSPHRASE if "sealed" in name else "")
        keys += [key, certify(home / name, key)]
    with serving(environ, *(home / name for name in names)) as agent:
        assert held(agent.place) == keys
        comments = [str(home / "plain"), str(home / "sealed"), "of PuTTY's", "of PuTTY's"]
        assert lists(agent.place) == [comment for comment in comments for _ in range(2)]
        with pageantry.connect(agent.place) as client:
            for key in keys[:2] + keys[4:6]:
                client.sign(key, b"data", verify=True)
        _, log = agent.end()
    assert log.count("added ") == 8
    assert log.index("added ") < log.index("listening at")


@pytest.mark.parametrize("what", ["missing", "public", "certificate", "hidden"])
def test_a_file_that_is_of_no_use_is_said_before_anything_listens(environ: Environ, home: Path, what: str) -> None:
    file = home / "key"
    key = openssh(file, 1)
    if what == "missing":
        file.unlink()
    elif what == "public":
        file.write_text(key.line("public"))
    elif what == "certificate":
        certify(file, openssh(home / "other", 2))
    else:
        from cryptography.hazmat.primitives.asymmetric import ec
        from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, PrivateFormat

        made = ec.generate_private_key(ec.SECP256R1())
        sealed = BestAvailableEncryption(PASSPHRASE.encode())
        file.write_bytes(made.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, sealed))
    assert str(file) in failed(call(environ, "serve", "-q", file))
    assert not list((home / "run").rglob("agent"))


def test_keys_live_as_long_as_the_option_says(environ: Environ, home: Path) -> None:
    openssh(home / "key", 1)
    with serving(environ, "-t", "2", home / "key") as agent:
        wait_for(lambda: lists(agent.place) == [], "the key is still there")
        agent.logged("the time of", str(home / "key"), "is over")


# How it ends


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_signals_end_it_and_its_clients_cleanly(environ: Environ, number: int) -> None:
    with serving(environ) as agent, pageantry.connect(agent.place) as client:
        assert client.identities() == []
        status, log = agent.end(number)
        assert status == 0
        assert log.endswith("ended; all keys are forgotten\n")
        with pytest.raises((Unreachable, Disconnected)):
            client.identities()
    assert gone(agent.place)


def test_sigusr1_has_it_forget_all_keys(environ: Environ, home: Path) -> None:
    openssh(home / "key", 1)
    with serving(environ, home / "key") as agent:
        assert len(lists(agent.place)) == 1
        agent.process.send_signal(signal.SIGUSR1)
        agent.logged("forgot all keys")
        assert lists(agent.place) == []


def test_an_agent_that_can_tell_nobody_where_it_is_ends(environ: Environ, home: Path) -> None:
    if not os.path.exists("/dev/full"):
        pytest.skip("there is no /dev/full")
    with open("/dev/full", "wb") as full:
        done = subprocess.run([*PROGRAM, "serve"], env=environ, stdout=full, stderr=subprocess.PIPE, timeout=60)
    assert done.returncode == 1
    assert b"standard output" in done.stderr
    assert gone(home / "run" / "pageantry" / "agent")


@pytest.mark.parametrize("words", [["--"], ["--", ""], ["-q", "--listen", "/tmp/x", "--", ""]])
def test_a_command_that_is_missing_is_wrong_usage_in_a_line(environ: Environ, words: list[str]) -> None:
    done = call(environ, "serve", *words)
    assert failed(done, 2).startswith("there is no command behind --")
    assert len(done.stderr.splitlines()) == 1
