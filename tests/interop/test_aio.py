"""The asyncio client against real agents: those of UNIX, key files, and Pageant on Windows."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

import pageantry
from pageantry import PublicKey, SignFlags, aio, winpipe
from pageantry.constraints import Lifetime
from pageantry.endpoints.pageant import pipe_name
from pageantry.errors import Refused, Unreachable, Unsupported
from pageantry.keyfiles import KeyFiles
from pageantry.keys.files import read

pytestmark = pytest.mark.interop

Keys = dict[str, Path]
FILES = [str(Path(__file__).parent / "keys" / name) for name in ("ed25519", "rsa")]
on_unix = pytest.mark.skipif(sys.platform == "win32", reason="these agents are UNIX'")
on_windows = pytest.mark.skipif(sys.platform != "win32", reason="Pageant has its pipe on Windows")


def public(path: Path) -> PublicKey:
    return PublicKey.from_line(Path(f"{path}.pub").read_text())


@on_unix
def test_every_agent_lists_and_signs_for_many_tasks_some_of_them_cancelled(agent: Path, key_files: Keys) -> None:
    keys = [public(key_files[name]) for name in ("ed25519", "rsa")]

    async def use(client: aio.Agent, number: int) -> None:
        key, flags = keys[number % 2], SignFlags.RSA_SHA2_512 if number % 2 else SignFlags.NONE
        if number % 3 == 0:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0.001 * number):
                    await client.sign(key, b"never seen", flags)
        data = f"data of task {number}".encode()
        await client.sign(key, data, flags, verify=True)
        assert {one.key for one in await client.identities()} == set(keys)

    async def test() -> None:
        async with aio.connect(str(agent)) as client:
            assert isinstance(client, aio.Client)
            async with asyncio.TaskGroup() as tasks:
                for number in range(12):
                    tasks.create_task(use(client, number))

    asyncio.run(test())


@on_unix
def test_what_real_agents_make_of_extensions_leaves_the_client_usable(agent: Path) -> None:
    async def test() -> None:
        async with aio.connect(str(agent)) as client:
            names = await client.query()
            with pytest.raises(Unsupported):
                await client.extension("nobody-knows@example.org", b"\0\0\0\1x")
            assert len(await client.identities()) == 2
            with pageantry.connect(str(agent)) as blocking:
                assert names == blocking.query()

    asyncio.run(test())


@on_unix
def test_openssh_takes_keys_locks_and_forgets(fresh_agent: Path, key_files: Keys) -> None:
    private, _ = read(str(key_files["ed25519"])).decrypt()

    async def test() -> None:
        async with await aio.connect(str(fresh_agent)) as client:
            await client.add(private, "a comment", [Lifetime(600)])
            await client.lock(b"geheim")
            assert await client.identities() == []
            with pytest.raises(Refused):
                await client.sign(private.public, b"data")
            await client.unlock(b"geheim")
            assert [one.comment for one in await client.identities()] == ["a comment"]
            await client.remove(private.public)
            with pytest.raises(Refused, match="remove"):
                await client.remove(private.public)
            await client.add(private)
            await client.remove_all()
            assert await client.identities() == []

    asyncio.run(test())


@on_unix
def test_the_agent_with_a_key_is_found_and_each_located(
    agent: Path, fresh_agent: Path, key_files: Keys, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setenv("SSH_AUTH_SOCK", str(fresh_agent))
    (tmp_path / "ssh-agent").symlink_to(agent)
    key = public(key_files["rsa"])

    async def test() -> None:
        async with aio.connect(holding=key) as client:
            await client.sign(key, b"data", SignFlags.RSA_SHA2_512, verify=True)
        async with aio.connect() as client:
            assert client.address == f"unix:{fresh_agent}"
        assert f"unix:{fresh_agent}" in [found.address for found in await aio.locate()]
        with pytest.raises(Unreachable, match="there is no"):
            await aio.connect(str(tmp_path / "nothing"))

    asyncio.run(test())


def quoted(*words: str) -> str:
    return subprocess.list2cmdline(words) if sys.platform == "win32" else shlex.join(words)


@on_unix
def test_a_program_with_an_agent_behind_it_is_asked_cancelled_and_seen_to_its_end(
    agent: Path, key_files: Keys, tmp_path: Path
) -> None:
    started = tmp_path / "started"
    relay = quoted(sys.executable, "-m", "pageantry", "relay", str(agent))
    key = public(key_files["ed25519"])

    async def test() -> None:
        async with aio.connect(f"stdio:sh -c {quoted(f'echo $$ >> {started}; exec {relay}')}") as client:
            await client.sign(key, b"data", verify=True)
            signing = asyncio.create_task(client.sign(key, b"never seen"))
            await asyncio.sleep(0)
            signing.cancel()
            with pytest.raises(asyncio.CancelledError):
                await signing
            await client.sign(key, b"data", verify=True)
        for process in started.read_text().split():
            deadline = time.monotonic() + 10
            with contextlib.suppress(ProcessLookupError):
                while True:
                    os.kill(int(process), 0)
                    assert time.monotonic() < deadline
                    await asyncio.sleep(0.01)
        assert len(started.read_text().split()) == 2

    asyncio.run(test())


def test_key_files_sign_too() -> None:
    async def test() -> None:
        async with aio.connect(f"keys:{os.pathsep.join(FILES)}") as client:
            for one in await client.identities():
                await client.sign(one.key, b"data", SignFlags.RSA_SHA2_256, verify=True)
            with pytest.raises(Unsupported):
                await client.lock(b"x")

    asyncio.run(test())


@contextlib.asynccontextmanager
async def pageant() -> AsyncIterator[None]:
    """The real one, with both keys."""
    program = shutil.which("pageant")
    if not program:
        pytest.skip("pageant is not installed")
    if winpipe.exists(pipe_name()):
        pytest.skip("an agent of this machine's serves Pageant's pipe")
    with subprocess.Popen([program, *(f"{key}.ppk" for key in FILES)]) as process:
        try:
            deadline = time.monotonic() + 30
            while not winpipe.exists(pipe_name()):
                assert time.monotonic() < deadline
                await asyncio.sleep(0.05)
            async with aio.connect("pageant-pipe") as agent:
                while len(await agent.identities()) < len(FILES):
                    assert time.monotonic() < deadline
                    await asyncio.sleep(0.05)
            yield
        finally:
            process.kill()


@on_windows
@pytest.mark.parametrize("address", ["pageant-pipe", "pageant-window"])
def test_pageant_lists_and_signs_for_every_loop(address: str) -> None:
    async def test() -> None:
        files = KeyFiles(FILES)
        keys = [one.key for one in files.identities()]
        async with pageant(), aio.connect(address) as agent:
            assert {one.key for one in await agent.identities()} == set(keys)
            assert "list-extended@putty.projects.tartarus.org" in await agent.query()

            async def sign(number: int) -> None:
                key, flags = keys[number % 2], SignFlags.RSA_SHA2_512 if number % 2 else SignFlags.NONE
                data = f"data of task {number}".encode()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(0.002 * number):
                        await agent.sign(key, b"never seen", flags)
                signature = await agent.sign(key, data, flags, verify=True)
                assert signature == files.sign(key, data, flags)

            async with asyncio.TaskGroup() as tasks:
                for number in range(12):
                    tasks.create_task(sign(number))

    for loop in ("ProactorEventLoop", "SelectorEventLoop"):
        with asyncio.Runner(loop_factory=getattr(asyncio, loop)) as runner:
            runner.run(test())
