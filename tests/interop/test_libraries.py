"""Libraries that are given keys which they could not reach, and the real Pageant offered to others."""

from __future__ import annotations

import io
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

import pageantry
from pageantry import Identity, SignFlags
from pageantry.errors import Refused
from pageantry.keyfiles import KeyFiles

pytestmark = pytest.mark.interop

HERE = Path(__file__).parent
KEYS = [str(HERE / "keys" / name) for name in ("ed25519", "rsa")]


@pytest.fixture
def offered() -> Iterator[str]:
    with pageantry.exposed(KeyFiles(KEYS)) as address:
        yield address


@pytest.fixture
def paramiko() -> ModuleType:
    module = pytest.importorskip("paramiko")
    assert isinstance(module, ModuleType)
    return module


@pytest.fixture
def asyncssh() -> ModuleType:
    module = pytest.importorskip("asyncssh")
    assert isinstance(module, ModuleType)
    return module


def test_paramiko_is_given_the_keys_and_signs_with_them(offered: str, paramiko: ModuleType) -> None:
    files = KeyFiles(KEYS)
    with pageantry.connect(offered) as agent:
        ed25519, rsa = pageantry.paramiko_keys(agent)
        for key, identity in zip((ed25519, rsa), files.identities(), strict=True):
            assert isinstance(key, paramiko.PKey)
            assert (key.asbytes(), key.get_name()) == (identity.key.blob, identity.key.type)
            assert (key.comment, key.fingerprint) == (identity.comment, identity.fingerprint)
            assert (key.get_bits(), key.can_sign()) == (identity.key.bits, True)
            assert identity.comment in repr(key)
            assert paramiko.PKey.from_type_string(key.get_name(), key.asbytes()) is not None
        assert ed25519.sign_ssh_data(b"data") == files.sign(files.identities()[0].key, b"data")
        for algorithm, flags in (
            (None, SignFlags.NONE),
            ("ssh-rsa", SignFlags.NONE),
            ("rsa-sha2-256", SignFlags.RSA_SHA2_256),
            ("rsa-sha2-512-cert-v01@openssh.com", SignFlags.RSA_SHA2_512),
        ):
            assert rsa.sign_ssh_data(b"data", algorithm) == files.sign(files.identities()[1].key, b"data", flags)
        assert {ed25519, *pageantry.paramiko_keys(agent)} == {ed25519, rsa}


def test_paramiko_is_told_what_the_agent_refuses(paramiko: ModuleType) -> None:
    from pageantry.for_paramiko import ParamikoKey

    with pageantry.exposed(KeyFiles(KEYS[:1])) as address, pageantry.connect(address) as agent:
        other = KeyFiles(KEYS[1:]).identities()[0].key
        with pytest.raises(Refused):
            ParamikoKey(agent, Identity(other)).sign_ssh_data(b"data", "rsa-sha2-256")


def test_asyncssh_lists_and_signs(
    offered: str, asyncssh: ModuleType, monkeypatch: pytest.MonkeyPatch, wine: bool
) -> None:
    import asyncio

    if wine:  # whose pipes cannot be sought, as the buffered file has to be that asyncssh makes of one
        monkeypatch.setattr("asyncssh.agent_win32.open_file", lambda path, mode: io.FileIO(path, "r+"))
    files = KeyFiles(KEYS)

    async def ask() -> tuple[list[bytes], bytes]:
        async with asyncssh.connect_agent(offered) as agent:
            keys = await agent.get_keys()
            return [key.public_data for key in keys], await agent.sign(keys[0].public_data, b"data")

    blobs, signature = asyncio.run(ask())
    assert blobs == [one.key.blob for one in files.identities()]
    assert signature == files.sign(files.identities()[0].key, b"data")


if sys.platform == "win32":
    from pageantry import winpipe
    from pageantry.endpoints.pageant import pipe_name

    @pytest.fixture
    def pageant() -> Iterator[list[str]]:
        """The real one with both keys, whose fingerprints these are."""
        program = shutil.which("pageant")
        if not program:
            pytest.skip("pageant is not installed")
        if winpipe.exists(pipe_name()):
            pytest.skip("this machine has a Pageant of its own")
        with subprocess.Popen([program, *(f"{key}.ppk" for key in KEYS)]) as process:
            try:
                deadline = time.monotonic() + 30
                while not winpipe.exists(pipe_name()) or len(listed("pageant-pipe")) < len(KEYS):
                    assert time.monotonic() < deadline, "pageant did not start"
                    time.sleep(0.1)
                yield [one.fingerprint for one in KeyFiles(KEYS).identities()]
            finally:
                process.kill()

    def listed(address: str) -> list[str]:
        with pageantry.connect(address) as agent:
            return sorted(one.fingerprint for one in agent.identities())

    @pytest.mark.parametrize("address", ["pageant-pipe", "pageant-window"])
    def test_pageant_is_exposed_relayed_and_given_to_a_command(pageant: list[str], address: str) -> None:
        expected = sorted(pageant)
        with pageantry.connect(address) as agent, pageantry.exposed(agent) as place:
            assert listed(place) == expected
            with pageantry.connect(place) as other:
                for identity in other.identities():
                    assert other.sign(identity.key, bytes(100_000), verify=True)
                assert "list-extended@putty.projects.tartarus.org" in other.query()
                assert len(other.identities()) == 2
        python = [sys.executable, "-m", "pageantry"]
        assert listed(f"stdio:{subprocess.list2cmdline([*python, 'relay', address])}") == expected
        shown = subprocess.run(
            [*python, "exec", "--agent", address, *python, "keys"], capture_output=True, text=True, timeout=60
        )
        assert all(fingerprint in shown.stdout for fingerprint in expected), shown.stderr
