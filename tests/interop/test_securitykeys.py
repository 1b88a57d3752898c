"""Keys of security keys with OpenSSH's helper, its agent and its ssh-keygen, and the device that its own tests use."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import pytest

from pageantry.client import Client
from pageantry.constraints import SecurityKeyProvider
from pageantry.endpoints import parse
from pageantry.errors import Refused
from pageantry.keys import files, sshsig
from pageantry.keys.private import PrivateKey
from pageantry.keys.public import PublicKey
from pageantry.keys.signatures import check_algorithm, verify

if sys.platform == "win32":
    pytest.skip("keys of security keys are for UNIX", allow_module_level=True)

from pageantry import securitykeys

from ..hosts import ed25519_key, strings, userauth

DEVICE = "/usr/lib/openssh/regress/misc/sk-dummy/sk-dummy.so"
HELPER = "/usr/lib/openssh/ssh-sk-helper"
MISSING = [path for path in (DEVICE, HELPER) if not os.path.exists(path)]

pytestmark = [
    pytest.mark.interop,
    pytest.mark.skipif(bool(MISSING), reason=f"install openssh-tests: there is no {', '.join(MISSING)}"),
]

SecurityKey, web_safe = securitykeys.SecurityKey, securitykeys.web_safe
DATA = b"what is to be signed"

#: Notes what it is asked, and has OpenSSH's do it.
_LISTENER = f"""#!{sys.executable} -IS
import os, subprocess
asked = os.read(0, 4)
while len(asked) < 4 + int.from_bytes(asked[:4], "big"):
    asked += os.read(0, 65536)
with open(os.path.join(os.path.dirname(__file__), "asked"), "wb") as file:
    file.write(asked)
answer = subprocess.run(["{HELPER}"], input=asked, stdout=subprocess.PIPE, check=True).stdout
os.write(1, answer)
"""


def keygen(*arguments: str | Path, given: bytes = b"") -> str:
    environ = {**os.environ, "SSH_SK_PROVIDER": DEVICE, "SSH_SK_HELPER": HELPER}
    command = ["ssh-keygen", *map(str, arguments)]
    done = subprocess.run(command, env=environ, input=given, capture_output=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout.decode()


KINDS = {
    "ed25519": ("ed25519-sk",),
    "ecdsa": ("ecdsa-sk",),
    "ed25519, untouched": ("ed25519-sk", "-O", "no-touch-required"),
    "ecdsa, with a PIN": ("ecdsa-sk", "-O", "verify-required"),
}


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    directory = tmp_path_factory.mktemp("keys")
    for number, options in enumerate(KINDS.values()):
        keygen("-q", "-N", "", "-C", "", "-f", directory / str(number), "-t", *options)
    return {kind: directory / str(number) for number, kind in enumerate(KINDS)}


@pytest.fixture(scope="module")
def keys(paths: dict[str, Path]) -> dict[str, PrivateKey]:
    return {kind: files.read(str(path)).decrypt()[0] for kind, path in paths.items()}


@pytest.fixture(autouse=True)
def helper(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSH_SK_HELPER", HELPER)


@contextlib.contextmanager
def openssh_agent(helper: str) -> Iterator[Client]:
    """OpenSSH's agent with this helper."""
    directory = Path(tempfile.mkdtemp(prefix="pgt", dir="/tmp"))
    address = directory / "agent"
    environ = {**os.environ, "SSH_SK_HELPER": helper}
    process = subprocess.Popen(["ssh-agent", "-D", "-a", str(address)], env=environ, stdout=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 15
        while True:
            with socket.socket(socket.AF_UNIX) as probe:
                if probe.connect_ex(str(address)) == 0:
                    break
            assert time.monotonic() < deadline, "ssh-agent did not start"
            time.sleep(0.02)
        with parse(str(address)).open() as agent:
            assert isinstance(agent, Client)
            yield agent
    finally:
        process.terminate()
        process.wait(10)
        shutil.rmtree(directory, ignore_errors=True)


@pytest.mark.parametrize("kind", KINDS)
def test_what_the_device_signs_verifies(keys: dict[str, PrivateKey], kind: str) -> None:
    key = keys[kind]
    made = SecurityKey(key, DEVICE)
    assert (made.needs_touch, made.needs_pin) == ("untouched" not in kind, "PIN" in kind)
    signature = made.sign(DATA, pin="1234" if made.needs_pin else None)
    check_algorithm(key.public, 0, signature)
    verify(key.public, signature, DATA)
    assert signature[-5] == key.fields[-3]  # the device has seen the flags


@pytest.mark.parametrize("kind", ["ed25519", "ecdsa"])
def test_ssh_keygen_takes_what_was_signed(keys: dict[str, PrivateKey], kind: str, tmp_path: Path) -> None:
    key = keys[kind]
    signature = SecurityKey(key, DEVICE).sign(sshsig.to_be_signed(sshsig.digest(BytesIO(DATA)), "file"))
    (tmp_path / "signature").write_text(sshsig.armor(key.public, "file", signature))
    (tmp_path / "signers").write_text(f"me {key.public.line()}\n")
    arguments = ("-n", "file", "-s", tmp_path / "signature")
    assert "Good" in keygen("-Y", "verify", *arguments, "-f", tmp_path / "signers", "-I", "me", given=DATA)


@pytest.mark.parametrize("kind", KINDS)
def test_the_helper_is_asked_as_openssh_asks_it(
    keys: dict[str, PrivateKey], kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listener = tmp_path / "listener"
    listener.write_text(_LISTENER)
    listener.chmod(0o700)
    key = keys[kind]
    with openssh_agent(str(listener)) as agent:
        agent.add(key, "", [SecurityKeyProvider(DEVICE)])
        verify(key.public, agent.sign(key.public, DATA), DATA)
    theirs = (tmp_path / "asked").read_bytes()
    monkeypatch.setenv("SSH_SK_HELPER", str(listener))
    verify(key.public, SecurityKey(key, DEVICE).sign(DATA), DATA)
    ours = (tmp_path / "asked").read_bytes()
    assert ours[9] == 0  # log to the system, which their agent does when it runs in the background
    assert (ours[:9], ours[10:]) == (theirs[:9], theirs[10:])


@pytest.mark.parametrize("kind", ["ed25519", "ecdsa"])
def test_a_certificate_signs_as_in_openssh(
    paths: dict[str, Path], keys: dict[str, PrivateKey], kind: str, tmp_path: Path
) -> None:
    keygen("-q", "-N", "", "-t", "ed25519", "-f", tmp_path / "authority")
    shutil.copy(f"{paths[kind]}.pub", tmp_path / "key.pub")
    keygen("-q", "-s", tmp_path / "authority", "-I", "me", "-n", "me", tmp_path / "key.pub")
    certified = keys[kind].certified(PublicKey.from_line((tmp_path / "key-cert.pub").read_text()))
    verify(certified.public, SecurityKey(certified, DEVICE).sign(DATA), DATA)
    with openssh_agent(HELPER) as agent:
        agent.add(certified, "", [SecurityKeyProvider(DEVICE)])
        verify(certified.public, agent.sign(certified.public, DATA), DATA)


@pytest.mark.parametrize("kind", ["ed25519", "ecdsa"])
def test_a_key_that_no_device_holds_is_refused(keys: dict[str, PrivateKey], kind: str) -> None:
    with pytest.raises(Refused):
        SecurityKey(keys[kind], "internal").sign(DATA)


def test_a_library_that_speaks_to_no_device_is_told_of(keys: dict[str, PrivateKey], tmp_path: Path) -> None:
    library = Path(os.path.realpath(tmp_path)) / "library.so"
    library.write_text("no library")
    with pytest.raises(Refused, match=r"library\.so"):
        SecurityKey(keys["ed25519"], str(library), f"{library.parent}/*").sign(DATA)


@pytest.mark.parametrize("version", [4, 6])
def test_openssh_of_another_version_ends_without_a_word(
    keys: dict[str, PrivateKey], version: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(securitykeys, "_VERSION", version)
    with pytest.raises(ConnectionError, match="status 255, without an answer"):
        SecurityKey(keys["ed25519"], DEVICE).sign(DATA)


@pytest.mark.parametrize(
    "name", [DEVICE, "internal", "Internal", "sk-dummy.so", "/usr/lib/absent.so", "/bin/sh", f"/usr/bin/../..{DEVICE}"]
)
def test_the_same_libraries_are_allowed_as_in_openssh(keys: dict[str, PrivateKey], name: str) -> None:
    def allows(add: object) -> bool:
        assert callable(add)
        try:
            add()
        except Refused:
            return False
        return True

    key = keys["ed25519"]
    with openssh_agent(HELPER) as agent:
        theirs = allows(lambda: agent.add(key, "", [SecurityKeyProvider(name)]))
    assert allows(lambda: SecurityKey(key, name)) == theirs


def test_the_same_is_safe_for_the_web_as_in_openssh(keys: dict[str, PrivateKey]) -> None:
    """The device signs for any application, and OpenSSH's agent decides about the data before it is asked."""
    point, _, flags, handle, reserved = keys["ed25519"].fields
    web, ssh = (
        PrivateKey("sk-ssh-ed25519@openssh.com", (point, application, flags, handle, reserved))
        for application in (b"https://example.org", b"ssh:example.org")
    )
    host = ed25519_key(1).public
    good = sshsig.to_be_signed(bytes(64), "file")
    login = userauth(web.public, bytes(32))
    samples = [
        b"", DATA, b'{"type":"webauthn.get"}', good, good + b"\0", good[:-1], good[6:], b"SSHSIG", login, login + b"\0",
        b"SSHSIG" + strings("", "", "", ""), b"SSHSIG" + strings("a", "b", "c", "d"), login[:-1],
        b"SSHSIG" + strings("a\0b", "", "sha512", "d"), b"SSHSIG" + strings("a", "b\0c", "sha512", "d\0e"),
        userauth(web.public, bytes(32), host_key=host), userauth(host, bytes(32)), userauth(ssh.public, bytes(32)),
        userauth(web.public, b""), userauth(web.public, b"x", service="ssh-userauth"),
        userauth(web.public, b"x", method="hostbased"), userauth(web.public, b"x", follows=0),
        userauth(web.public, b"x", number=51), userauth(web.public, b"x", algorithm="ssh-ed25519"),
    ]  # fmt: skip
    with openssh_agent(HELPER) as agent:
        for key in (web, ssh):
            agent.add(key, "", [SecurityKeyProvider(DEVICE)])
            for data in samples:
                try:
                    verify(key.public, agent.sign(key.public, data), data)
                    theirs = True
                except Refused:
                    theirs = False
                assert web_safe(key.public, data) == theirs, data
