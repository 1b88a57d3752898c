"""The commands against real agents, as a person or a script calls them."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pageantry import PublicKey, winpipe
from pageantry.constraints import Confirm, Lifetime
from pageantry.keys.signatures import verify
from pageantry.messages import AddIdentityConstrained, decode

pytestmark = pytest.mark.interop

Keys = dict[str, Path]
Run = Callable[..., subprocess.CompletedProcess[str]]


def public(path: Path) -> PublicKey:
    return PublicKey.from_line(Path(f"{path}.pub").read_text())


def failed(done: subprocess.CompletedProcess[str], status: int = 1) -> list[str]:
    """The lines of a failure: what, and what to do; nothing on standard output."""
    assert (done.returncode, done.stdout) == (status, "")
    assert "Traceback" not in done.stderr
    return done.stderr.splitlines()


@pytest.mark.parametrize("command", [(), ("agents",)])
def test_every_agent_is_shown_with_its_keys(run: Run, agent: Path, key_files: Keys, command: tuple[str, ...]) -> None:
    shown = run(*command, sock=agent)
    assert shown.returncode == 0
    assert shown.stdout.startswith(f"unix:{agent}  ")
    for name in ("ed25519", "rsa"):
        assert public(key_files[name]).fingerprint() in shown.stdout

    found = json.loads(run(*command, "--json", sock=agent).stdout)[0]
    assert (found["address"], found["kind"], found["reached"]) == (f"unix:{agent}", "unix", "answers")
    assert (found["keys"], found["error"]) == (2, None)


def test_a_dead_ssh_auth_sock_is_shown_with_its_reason(run: Run, agent: Path, tmp_path: Path) -> None:
    (tmp_path / "ssh-agent").symlink_to(agent)
    shown = run(sock=tmp_path / "gone")
    assert shown.returncode == 0  # there is another one
    assert "there is no" in shown.stdout
    assert str(tmp_path / "ssh-agent") in shown.stdout
    found = json.loads(run("agents", "--json", sock=tmp_path / "gone").stdout)[0]
    assert (found["reached"], found["keys"]) == (None, None)
    assert found["error"]


def test_keys_are_listed_for_people_machines_and_authorized_keys(run: Run, agent: Path, key_files: Keys) -> None:
    listed = json.loads(run("keys", "--json", "--agent", str(agent)).stdout)
    expected = {public(key_files[name]).fingerprint() for name in ("ed25519", "rsa")}
    assert {one["fingerprint"] for one in listed} == expected
    assert {one["type"] for one in listed} == {"ssh-ed25519", "ssh-rsa"}
    assert {one["agent"] for one in listed} == {f"unix:{agent}"}
    lines = run("keys", "--public", "--agent", str(agent)).stdout.splitlines()
    assert [line.rsplit(" ", 1)[0] for line in lines] == [one["public"] for one in listed]
    table = run("keys", "--agent", str(agent)).stdout
    assert [line.split()[0] for line in table.splitlines()] == ["1", "2"]
    assert {line.split()[3] for line in table.splitlines()} == expected


@pytest.mark.parametrize(
    ("name", "spelling"),
    [("ed25519", "fingerprint"), ("rsa", "md5"), ("ed25519", "file"), ("ed25519", "line"), ("rsa", "base64")],
)
def test_a_signed_file_is_accepted_by_ssh_keygen(
    run: Run, agent: Path, key_files: Keys, tmp_path: Path, name: str, spelling: str
) -> None:
    key = public(key_files[name])
    called = {
        "fingerprint": key.fingerprint(),
        "md5": key.fingerprint("md5"),
        "file": f"{key_files[name]}.pub",
        "line": key.line("whatever"),
        "base64": key.base64,
    }[spelling]
    (tmp_path / "data").write_bytes(bytes(300_000))
    done = run("sign", called, str(tmp_path / "data"), "--namespace", "test", sock=agent)
    assert done.returncode == 0, done.stderr
    (tmp_path / "sig").write_text(done.stdout)
    (tmp_path / "allowed").write_text(f"me {key.line()}\n")
    verified = subprocess.run(
        ["ssh-keygen", "-Y", "verify", "-n", "test", "-I", "me", "-f", tmp_path / "allowed", "-s", tmp_path / "sig"],
        input=(tmp_path / "data").read_bytes(),
        capture_output=True,
    )
    assert verified.returncode == 0, verified.stderr


def test_a_number_and_a_comment_name_a_key(run: Run, fresh_agent: Path, key_files: Keys) -> None:
    for name in ("ed25519", "ecdsa"):
        assert run("add", str(key_files[name]), sock=fresh_agent).returncode == 0
    by_number = json.loads(run("sign", "2", "--json", sock=fresh_agent, given="data").stdout)
    by_comment = json.loads(run("sign", "ecdsa@test", "--json", sock=fresh_agent, given="data").stdout)
    assert by_number["fingerprint"] == by_comment["fingerprint"] == public(key_files["ecdsa"]).fingerprint()
    assert by_number["namespace"] == "file"
    for name in ("0", "3", "nobody", "SHA256:x"):
        what, hint = failed(run("sign", name, "--agent", str(fresh_agent), given="data"))
        assert name in what
        assert "pageantry keys" in hint


@pytest.mark.parametrize("name", ["ed25519", "rsa"])
def test_a_raw_signature_is_of_the_data_themselves(run: Run, agent: Path, key_files: Keys, name: str) -> None:
    key = public(key_files[name])
    done = run("sign", key.fingerprint(), "--raw", sock=agent, given="data")
    verify(key, base64.b64decode(done.stdout), b"data")


def test_a_key_is_signed_with_by_whichever_agent_holds_it(
    run: Run, agent: Path, fresh_agent: Path, key_files: Keys, tmp_path: Path
) -> None:
    (tmp_path / "ssh-agent").symlink_to(agent)  # where one is found without being named
    done = run("sign", public(key_files["rsa"]).fingerprint(), "--json", sock=fresh_agent, given="data")
    assert json.loads(done.stdout)["agent"] != f"unix:{fresh_agent}"
    assert "no key here is called '1'" in failed(run("sign", "1", sock=fresh_agent, given="data"))[0]


def test_a_key_of_no_agent_is_said_to_lack_the_agent(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    from pageantry.cli.common import find
    from pageantry.errors import Unreachable

    monkeypatch.setattr("pageantry.discovery.usable", lambda **_: iter(()))
    with pytest.raises(Unreachable, match="no SSH agent"):
        find("me@home", None)


def test_key_files_serve_without_any_agent(run: Run, key_files: Keys) -> None:
    address = f"keys:{key_files['ed25519']}{os.pathsep}{key_files['ecdsa']}"
    listed = json.loads(run("keys", "--json", "--agent", address).stdout)
    assert [one["comment"] for one in listed] == ["ed25519", "ecdsa"]
    done = run("sign", "2", "--raw", "--agent", address, given="data")
    verify(public(key_files["ecdsa"]), base64.b64decode(done.stdout), b"data")
    found = json.loads(run("agents", "--json", "--agent", address).stdout)
    assert [(one["kind"], one["reached"], one["keys"]) for one in found] == [("keys", "answers", 2)]
    for command in (["add", str(key_files["rsa"])], ["remove", "1"], ["lock"], ["unlock"]):
        what, hint = failed(run(*command, "--agent", address, given="x\n"))
        assert "key files cannot" in what
        assert hint


def test_keys_come_and_go(run: Run, fresh_agent: Path, key_files: Keys) -> None:
    added = json.loads(
        run("add", str(key_files["encrypted"]), "--json", sock=fresh_agent, given="open sesame\n").stdout
    )
    assert added[0]["comment"] == "encrypted@test"
    assert run("add", str(key_files["ed25519"]), str(key_files["rsa"]), sock=fresh_agent).returncode == 0
    assert len(json.loads(run("keys", "--json", sock=fresh_agent).stdout)) == 3
    gone = json.loads(run("remove", "1", "rsa@test", "--json", sock=fresh_agent).stdout)
    assert [one["comment"] for one in gone] == ["encrypted@test", "rsa@test"]
    assert [one["comment"] for one in json.loads(run("keys", "--json", sock=fresh_agent).stdout)] == ["ed25519@test"]
    assert run("remove", "--all", sock=fresh_agent).returncode == 0
    assert json.loads(run("keys", "--json", sock=fresh_agent).stdout) == []


def test_putty_s_files_are_added_and_sign_without_any_agent(run: Run, fresh_agent: Path) -> None:
    keys = Path(__file__).parent / "keys"
    files = [str(keys / f"{name}.ppk") for name in ("rsa", "encrypted")]
    assert run("add", *files, sock=fresh_agent, given="open sesame\n").returncode == 0
    held = json.loads(run("keys", "--json", sock=fresh_agent).stdout)
    assert [one["comment"] for one in held] == ["test key rsa", "test key encrypted"]
    for one in held:
        done = run("sign", one["fingerprint"], "--raw", sock=fresh_agent, given="data")
        verify(PublicKey.from_line(one["public"]), base64.b64decode(done.stdout), b"data")
    done = run("sign", held[0]["fingerprint"], "--raw", "--agent", f"keys:{files[0]}", given="data")
    verify(PublicKey.from_line(held[0]["public"]), base64.b64decode(done.stdout), b"data")


def test_a_wrong_passphrase_adds_nothing_and_is_not_shown(run: Run, fresh_agent: Path, key_files: Keys) -> None:
    files = [str(key_files["ed25519"]), str(key_files["encrypted"])]
    lines = failed(run("add", *files, "--agent", str(fresh_agent), given="hunter2\n"))
    assert "passphrase" in lines[0]
    assert not any("hunter2" in line for line in lines)
    assert json.loads(run("keys", "--json", sock=fresh_agent).stdout) == []


def test_an_encrypted_key_without_a_passphrase_is_said(run: Run, fresh_agent: Path, key_files: Keys) -> None:
    lines = failed(run("add", str(key_files["encrypted"]), "--agent", str(fresh_agent)))
    assert "standard input is empty" in lines[0]


@pytest.mark.parametrize(("time", "seconds"), [("90", 90), ("1h30m", 5400), ("2W", 1209600)])
def test_lifetime_and_confirmation_are_passed_on(
    run: Run, short_directory: Path, key_files: Keys, time: str, seconds: int
) -> None:
    asked: list[bytes] = []
    with fake_agent(short_directory, b"\0\0\0\1\6", asked) as address:
        done = run("add", "-c", "-t", time, str(key_files["ed25519"]), "--agent", address)
    assert done.returncode == 0, done.stderr
    message = decode(asked[0][4:])
    assert isinstance(message, AddIdentityConstrained)
    assert message.key.public == public(key_files["ed25519"])
    assert message.comment == "ed25519@test"
    assert message.constraints == (Lifetime(seconds), Confirm())


@pytest.mark.parametrize("time", ["9" * 5000, "", "0", "-1", "1x", "h", "99999w", "1h3", "½"])
def test_a_time_that_is_none_is_wrong_usage(run: Run, fresh_agent: Path, key_files: Keys, time: str) -> None:
    done = run("add", f"--lifetime={time}", str(key_files["ed25519"]), sock=fresh_agent)
    if time == "1h3":  # ssh_config(5) takes it for 3 seconds more
        assert done.returncode == 0
    else:
        assert "Error" in failed(done, 2)[-1]


def test_an_agent_is_locked_and_unlocked(run: Run, fresh_agent: Path, key_files: Keys) -> None:
    assert run("add", str(key_files["ed25519"]), sock=fresh_agent).returncode == 0
    locked = run("lock", "--json", sock=fresh_agent, given="geheim\n")
    assert json.loads(locked.stdout) == {"agent": f"unix:{fresh_agent}", "locked": True}
    assert json.loads(run("keys", "--json", sock=fresh_agent).stdout) == []
    assert "refused" in failed(run("unlock", sock=fresh_agent, given="falsch\n"))[0]
    assert run("unlock", sock=fresh_agent, given="geheim\n").returncode == 0
    assert len(json.loads(run("keys", "--json", sock=fresh_agent).stdout)) == 1


def test_an_empty_passphrase_locks_nothing(run: Run, fresh_agent: Path) -> None:
    assert "empty" in failed(run("lock", sock=fresh_agent, given="\n"))[0]


@pytest.mark.parametrize("agent", ["gpg-agent"], indirect=True)
def test_gpg_agents_hollow_yes_is_not_believed(run: Run, agent: Path) -> None:
    assert "still shows its keys" in failed(run("lock", sock=agent, given="x\n"))[0]
    assert "still lists" in failed(run("remove", "1", sock=agent))[0]


@pytest.mark.parametrize(
    "address", ["nonsense", "unix:/does/not/exist", "/dev/null", "/tmp", "pageant", "keys:/missing"]
)
def test_an_address_without_an_agent_is_said_in_two_lines(run: Run, address: str) -> None:
    what, hint = failed(run("keys", "--agent", address))
    assert address.partition(":")[2] in what or "nonsense" in what
    assert hint.startswith("  ")


def test_an_agent_that_was_named_and_does_not_answer_is_a_failure(run: Run, tmp_path: Path) -> None:
    for option in ((), ("--json",)):
        done = run("agents", "--agent", str(tmp_path / "gone"), *option)
        assert done.returncode == 1
        assert "there is no" in done.stdout
        assert "Traceback" not in done.stderr


def test_what_an_agent_says_cannot_play_tricks_on_the_terminal(run: Run, fresh_agent: Path, tmp_path: Path) -> None:
    evil = "\x1b]0;owned\x07\x1b[2J\r\u202eevil"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", evil, "-f", tmp_path / "evil"], check=True)
    for done in (
        run("add", str(tmp_path / "evil"), sock=fresh_agent),
        run("keys", sock=fresh_agent),
        run(sock=fresh_agent),
        run("keys", "--public", sock=fresh_agent),
        run("keys", "--json", sock=fresh_agent),
    ):
        assert done.returncode == 0
        for char in "\x1b\x07\r\u202e":
            assert char not in done.stdout + done.stderr
    assert json.loads(run("keys", "--json", sock=fresh_agent).stdout)[0]["comment"] == evil


def test_a_pipe_that_closes_early_is_no_error(run: Run, agent: Path) -> None:
    done = run("keys", "--json", sock=agent)
    assert done.returncode == 0
    shell = f"{sys.executable} -m pageantry keys --json --agent {agent} | true"
    piped = subprocess.run(["sh", "-c", shell], capture_output=True, text=True)
    assert "Traceback" not in piped.stderr


def in_shell(shell: str, agent: Path, **environ: str) -> subprocess.CompletedProcess[bytes]:
    command = f"'{sys.executable}' -m pageantry"
    script = shell.replace("PAGEANTRY", command)
    environment = {**os.environ, "SSH_AUTH_SOCK": str(agent), **environ}
    return subprocess.run(["sh", "-c", script], env=environment, capture_output=True, timeout=60)


@pytest.mark.parametrize("command", ["", "agents", "keys", "keys --json", "sign 1 /dev/null"])
@pytest.mark.parametrize("agent", ["openssh"], indirect=True)
def test_output_that_cannot_be_written_is_a_failure_in_words(agent: Path, command: str) -> None:
    for redirection in (">&-", ">/dev/full"):
        done = in_shell(f"PAGEANTRY {command} {redirection}", agent)
        assert done.returncode == 1, redirection
        lines = done.stderr.decode().splitlines()
        assert "standard output" in lines[0]
        assert len(lines) == 2


@pytest.mark.parametrize("agent", ["openssh"], indirect=True)
def test_input_that_is_closed_is_empty(agent: Path) -> None:
    assert in_shell("PAGEANTRY sign 1 <&-", agent).returncode == 0
    done = in_shell("PAGEANTRY lock <&-", agent)
    assert done.returncode == 1
    assert b"standard input is empty" in done.stderr


def test_a_comment_beyond_the_locale_is_shown_as_well_as_can_be(run: Run, fresh_agent: Path, tmp_path: Path) -> None:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "kéy", "-f", tmp_path / "key"], check=True)
    assert run("add", str(tmp_path / "key"), sock=fresh_agent).returncode == 0
    done = in_shell("PAGEANTRY keys; PAGEANTRY", fresh_agent, PYTHONIOENCODING="ascii")
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.count("kéy".encode()) == 2  # click takes a terminal of 1963 for a mistake


def test_raw_data_beyond_the_limit_are_not_cut(run: Run, key_files: Keys, tmp_path: Path) -> None:
    (tmp_path / "big").write_bytes(bytes(300_000))
    address = f"keys:{key_files['ed25519']}"
    assert "longer than 262144" in failed(run("sign", "--raw", "1", str(tmp_path / "big"), "--agent", address))[0]


def test_a_key_named_like_another_things_name_is_found_by_its_comment(
    run: Run, fresh_agent: Path, key_files: Keys, tmp_path: Path
) -> None:
    path = tmp_path / "2024"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "2024", "-f", path], check=True)
    assert run("add", str(path), sock=fresh_agent).returncode == 0
    assert run("sign", "2024", sock=fresh_agent, given="data").returncode == 0
    pem = tmp_path / "pem"  # without a comment, its path becomes that
    subprocess.run(["ssh-keygen", "-q", "-t", "ecdsa", "-m", "PEM", "-N", "", "-f", pem], check=True)
    assert run("add", str(pem), sock=fresh_agent).returncode == 0
    assert run("remove", str(pem), sock=fresh_agent).returncode == 0


def test_a_comment_that_poses_as_a_fingerprint_is_not_taken_for_one(
    run: Run, fresh_agent: Path, key_files: Keys, tmp_path: Path
) -> None:
    good = public(key_files["ed25519"]).fingerprint()
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", good, "-f", tmp_path / "evil"], check=True)
    assert run("add", str(tmp_path / "evil"), str(key_files["ed25519"]), sock=fresh_agent).returncode == 0
    signed = json.loads(run("sign", good, "--json", sock=fresh_agent, given="data").stdout)
    assert signed["fingerprint"] == good


def test_a_bad_certificate_beside_a_key_adds_nothing(
    run: Run, fresh_agent: Path, key_files: Keys, tmp_path: Path
) -> None:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / "key"], check=True)
    (tmp_path / "key-cert.pub").write_text("junk")
    files = (str(key_files["ed25519"]), str(tmp_path / "key"))
    assert "key-cert.pub" in failed(run("add", *files, sock=fresh_agent))[0]
    assert json.loads(run("keys", "--json", "--agent", str(fresh_agent)).stdout) == []


@pytest.mark.parametrize(
    ("reply", "word"),
    [
        (b"", "hung up"),
        (b"\0\0\0", "hung up"),
        (b"\xff\xff\xff\xff", "4294967295 bytes"),
        (b"\0\0\0\1\5", "refused"),
        (b"\0\0\0\1\6", "type 6"),
        (b"\0\0\0\5\x0c\xff\xff\xff\xff", "breaks off or"),
    ],
)
@pytest.mark.parametrize("command", [("keys",), ("sign", "1"), ("remove", "1"), ("keys", "--json")])
def test_a_broken_agent_is_said_in_two_lines(
    run: Run, short_directory: Path, reply: bytes, word: str, command: tuple[str, ...]
) -> None:
    with fake_agent(short_directory, reply) as address:
        what, hint = failed(run(*command, "--agent", address, given="data"))
    assert word in what
    assert hint.strip()


def test_a_key_type_that_looks_like_markup_is_shown_as_it_is(run: Run, short_directory: Path) -> None:
    blob = b"\0\0\0\6[/foo]"
    reply = b"\x0c\0\0\0\1" + len(blob).to_bytes(4, "big") + blob + b"\0\0\0\0"
    with fake_agent(short_directory, len(reply).to_bytes(4, "big") + reply) as address:
        for command in (("keys",), ("agents",)):
            done = run(*command, "--agent", address)
            assert done.returncode == 0
            assert "[/foo]" in done.stdout


@contextlib.contextmanager
def fake_agent(directory: Path, reply: bytes, asked: list[bytes] | None = None) -> Iterator[str]:
    """The address of one that answers everything with `reply`, then hangs up; what it was asked is put into `asked`."""
    accept: Callable[[], Any]
    stop: Callable[[], object]
    if sys.platform == "win32":
        address = f"pipe:fake-{os.getpid()}"
        listener = winpipe.listen(address.removeprefix("pipe:"))
        accept, stop = listener.accept, listener.close
    else:
        address = f"unix:{directory / 'fake'}"
        (directory / "fake").unlink(missing_ok=True)
        server = socket.socket(socket.AF_UNIX)
        server.bind(str(directory / "fake"))
        server.listen()
        accept = lambda: server.accept()[0]  # noqa: E731 - a name for it in each branch
        stop = lambda: server.shutdown(socket.SHUT_RDWR)  # noqa: E731

    def serve() -> None:
        while True:
            try:
                connection = accept()
            except OSError:
                return
            with connection:
                request = connection.recv(100_000)
                if asked is not None:
                    asked.append(request)
                connection.sendall(reply)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield address
    finally:
        stop()
        thread.join()
        if sys.platform != "win32":
            server.close()


def test_help_has_examples_for_every_command(run: Run) -> None:
    for command in ("agents", "keys", "sign", "add", "remove"):
        shown = run(command, "--help")
        assert "Examples:" in shown.stdout
    assert "pageantry vault" in run("--help").stdout
