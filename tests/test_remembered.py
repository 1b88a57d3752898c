"""The file of remembered keys: what is in it, who may have it, and that nothing which happens to it loses keys."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pageantry import remembered
from pageantry.errors import Error, SettingsError, WireError
from pageantry.extensions import AddEncrypted
from pageantry.keyring import Keyring
from pageantry.messages import AddIdentityConstrained
from pageantry.remembered import HEADER, VERSION, Memory
from pageantry.vault.store import MAX_FILE, Store
from pageantry.wire import Writer

from .exposure.upstream import wait_for
from .hosts import certificate, ecdsa_key, ed25519_key, rsa_key, security_key
from .keyring.keys import TYPES, made
from .sealing import SYSTEM, Sealer
from .test_constraints import CONSTRAINTS

TEXT = st.text(max_size=30).filter(lambda text: text.isprintable())
CERTIFIED = [key.certified(certificate(key.public, ed25519_key(9), kind=1)) for key in (ed25519_key(1), ecdsa_key(1))]
KEYS = [*map(made, TYPES), *CERTIFIED, security_key(1)]
ENTRIES = st.builds(AddIdentityConstrained, st.sampled_from(KEYS), TEXT, CONSTRAINTS) | st.builds(
    AddEncrypted, st.binary(max_size=99), TEXT, st.binary(max_size=99), CONSTRAINTS
)


class Agent:
    """A keyring that remembers, started anew by `with`."""

    def __init__(self, path: Path, protector: remembered.Protector = SYSTEM) -> None:
        self._path, self._protector = path, protector
        self.said: list[str] = []

    def __enter__(self) -> Keyring:
        memory = remembered.open(str(self._path), protector=self._protector, say=self.said.append)
        self._keyring = Keyring(remember=memory)
        memory.load(self._keyring)
        return self._keyring

    def __exit__(self, *_: object) -> None:
        self._keyring.close()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "deep" / "remembered"


def comments(path: Path, protector: remembered.Protector = SYSTEM) -> list[str]:
    """What an agent would have of the keys."""
    with Agent(path, protector) as keyring:
        return [identity.comment for identity in keyring.identities()]


def opened(path: Path, protector: remembered.Protector = SYSTEM) -> Memory:
    return remembered.open(str(path), protector=protector)


@pytest.fixture
def filled(path: Path) -> Path:
    with Agent(path) as keyring:
        keyring.add(ed25519_key(1), "me@home")
    return path


@given(ENTRIES)
def test_what_is_encoded_is_decoded_again(entry: AddIdentityConstrained | AddEncrypted) -> None:
    assert remembered.decode(remembered.encode(entry)) == entry


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    data = bytearray(remembered.encode(draw(ENTRIES)))
    data[draw(st.integers(0, len(data) - 1))] = draw(st.integers(0, 255))
    return bytes(data[: draw(st.integers(0, len(data)))])


@given(st.binary(max_size=99) | mutated())
def test_any_bytes_are_decoded_or_refused(data: bytes) -> None:
    try:
        assert isinstance(remembered.decode(data), AddIdentityConstrained | AddEncrypted)
    except WireError:
        pass


def test_keys_are_there_again_and_no_secret_is_in_the_file(filled: Path) -> None:
    secret = ed25519_key(1).fields[1]
    assert isinstance(secret, bytes)
    data = filled.read_bytes()
    assert data.startswith(HEADER)
    assert secret not in data
    assert ed25519_key(1).public.blob not in data
    assert b"me@home" not in data
    assert comments(filled) == ["me@home"]
    assert comments(filled) == ["me@home"]


def test_nothing_in_clear_is_kept_to_be_written(path: Path) -> None:
    secret = ed25519_key(1).fields[1]
    assert isinstance(secret, bytes)
    sealed: list[bytes] = []

    class Watching(Sealer):
        def protect(self, clear: bytes, /) -> bytes:
            sealed.append(clear)
            return super().protect(clear)

    with Agent(path, Watching()) as keyring:
        keyring.add(ed25519_key(1))
    first, second = sealed
    assert secret in first
    assert secret not in second


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has access lists")
def test_only_the_user_may_read_it(filled: Path) -> None:
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (filled.parent, *filled.parent.iterdir())}
    assert modes == {"deep": 0o700, "remembered": 0o600, "remembered.lock": 0o600}


def test_before_keys_are_loaded_nothing_is_written(filled: Path) -> None:
    before = filled.read_bytes()
    memory = opened(filled)
    with Keyring(remember=memory) as keyring:
        keyring.add(ed25519_key(2), "too early")
    assert filled.read_bytes() == before


def test_no_keys_make_no_file(path: Path) -> None:
    assert comments(path) == []
    assert not path.exists()


def test_a_second_agent_is_refused_while_the_first_runs(filled: Path) -> None:
    with Agent(filled) as keyring:
        with pytest.raises(Error, match="another agent that is running remembers its keys in") as caught:
            opened(filled)
        assert "end it" in caught.value.hint
        assert "another agent that is running" in run(filled, "").stderr
        keyring.add(ed25519_key(2), "second")
    assert comments(filled) == ["me@home", "second"]


def damaged(data: bytes) -> Iterator[bytes]:
    for index in range(len(data)):
        yield data[:index]
        yield data[:index] + bytes((data[index] ^ 0x41,)) + data[index + 1 :]
        yield data[:index] + data[index + 1 :]
    yield data + b"\0"


def test_damage_anywhere_is_told_and_the_file_left_as_it_is(path: Path) -> None:
    sealer = Sealer()
    with Agent(path, sealer) as keyring:
        keyring.add(ed25519_key(1), "me@home")
    for data in islice(damaged(path.read_bytes()), None, None, 1 if sys.platform != "win32" else 10):  # opens slowly
        path.write_bytes(data)
        with pytest.raises(Error) as caught:
            opened(path, sealer)
        assert str(path) in str(caught.value)
        assert "move it away" in caught.value.hint
        assert path.read_bytes() == data


@pytest.mark.parametrize(
    ("clear", "what"),
    [
        (b"", "4 bytes announced"),
        (bytes(Writer().uint32(2).string(b"")), "4 bytes announced"),
        (bytes(Writer().uint32(2**32 - 1)), "4 bytes announced"),
        (bytes(Writer().uint32(0).raw(b"x")), "1 bytes more"),
    ],
)
def test_a_list_that_lies_about_its_length_is_damage(path: Path, clear: bytes, what: str) -> None:
    path.parent.mkdir(mode=0o700)
    path.write_bytes(HEADER + bytes((VERSION,)) + SYSTEM.protect(clear))
    with pytest.raises(Error, match=what):
        opened(path)


def test_another_users_file_is_told(path: Path) -> None:
    with Agent(path, Sealer()) as keyring:
        keyring.add(ed25519_key(1))
    before = path.read_bytes()
    with pytest.raises(Error, match="is damaged, or another user's or computer's: the data is not valid"):
        opened(path, Sealer())
    assert path.read_bytes() == before
    path.rename(path.with_name("away"))
    assert comments(path) == []


def test_a_file_of_a_later_version_is_told(filled: Path) -> None:
    data = filled.read_bytes()
    filled.write_bytes(HEADER + bytes((VERSION + 1,)) + data[len(HEADER) + 1 :])
    with pytest.raises(Error, match="a format that is not known: 2") as caught:
        opened(filled)
    assert "newest" in caught.value.hint


def test_a_file_that_is_too_large_is_not_read(filled: Path) -> None:
    with filled.open("r+b") as file:
        file.truncate(MAX_FILE + 1)
    with pytest.raises(SettingsError, match="larger than 16 MiB"):
        opened(filled)


def test_what_is_no_file_is_told(path: Path) -> None:
    path.mkdir(parents=True, mode=0o700)
    with pytest.raises(SettingsError, match=r"is not a file|Permission|Access"):
        opened(path)


def test_a_link_to_what_is_missing_is_told(path: Path, symlink: object) -> None:
    path.parent.mkdir(mode=0o700)
    assert callable(symlink)
    symlink(path.with_name("elsewhere"), path)
    with pytest.raises(Error, match="points to a file that is missing"):
        opened(path)


@pytest.mark.skipif(sys.platform == "win32", reason="chmod; tests of the store have access lists")
def test_a_file_that_others_may_change_is_refused(filled: Path) -> None:
    filled.chmod(0o666)
    with pytest.raises(SettingsError, match="others can write to"):
        opened(filled)
    filled.chmod(0o600)
    assert comments(filled) == ["me@home"]


def test_more_than_can_be_read_is_not_written(filled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = filled.read_bytes()
    agent = Agent(filled)
    with agent as keyring:
        monkeypatch.setattr(remembered, "MAX_FILE", len(before) + 10)
        keyring.add(ed25519_key(2))
    assert "it would take" in agent.said[-1]
    monkeypatch.undo()
    assert comments(filled) == ["me@home"]


def test_a_key_that_cannot_be_sealed_is_held_and_told(filled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    agent, sealer = Agent(filled), SYSTEM
    said: list[str] = []
    memory = remembered.open(str(filled), protector=sealer, say=said.append)
    with Keyring(remember=memory, say=said.append) as keyring:
        memory.load(keyring)

        def fail(entry: object) -> bytes:
            raise Error("the system does not seal it: no")

        monkeypatch.setattr(memory, "sealed", fail)
        keyring.add(ed25519_key(2), "second")
        assert len(keyring.identities()) == 2
    assert any("second" in line and "will not be remembered: the system does not seal it" in line for line in said)
    with agent as keyring:
        assert [identity.comment for identity in keyring.identities()] == ["me@home"]


START = """
import os, sys
sys.path[:0] = [sys.argv[2]]
from pageantry import remembered
from pageantry.keyring import Keyring
from tests.exposure.upstream import wait_for
from tests.hosts import ed25519_key
class Plain:
    protect = unprotect = staticmethod(bytes)
said = []
memory = remembered.open(sys.argv[1], protector=Plain(), say=said.append)
keyring = Keyring(remember=memory)
memory.load(keyring)
"""


class Plain:
    """Seals nothing, so that several processes can have it."""

    def protect(self, clear: bytes, /) -> bytes:
        return clear

    def unprotect(self, data: bytes, /) -> bytes:
        return data


def run(path: Path, code: str) -> subprocess.CompletedProcess[str]:
    root = str(Path(__file__).parents[1])
    command = [sys.executable, "-c", START + code, str(path), root]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_a_crash_before_the_new_file_has_its_place_leaves_the_old_one(path: Path) -> None:
    with Agent(path, Plain()) as keyring:
        keyring.add(ed25519_key(1), "first")
    done = run(
        path,
        """
os.replace = lambda *_: os._exit(9)
keyring.add(ed25519_key(2), "second")
keyring.close()
""",
    )
    assert (done.returncode, done.stderr) == (9, "")
    assert sorted(entry.name for entry in path.parent.iterdir()) == [
        "remembered",
        "remembered.lock",
        "remembered.new",
    ]
    with Agent(path, Plain()) as keyring:  # whose file is free again
        assert [identity.comment for identity in keyring.identities()] == ["first"]
        keyring.add(ed25519_key(3), "third")
    assert not path.with_name("remembered.new").exists()
    assert comments(path, Plain()) == ["first", "third"]


@pytest.mark.skipif(sys.platform == "win32", reason="no limits of files' sizes here")
def test_a_full_disk_is_told_and_the_next_change_tries_again(path: Path) -> None:
    with Agent(path, Plain()) as keyring:
        keyring.add(ed25519_key(1), "first")
    done = run(
        path,
        """
import resource
before = open(sys.argv[1], "rb").read()
hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
wait_for(lambda: not memory._changed, "the write at the start")
resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
keyring.add(ed25519_key(2), "second")
wait_for(lambda: said, "word of the full disk")
assert len(keyring.identities()) == 2
assert open(sys.argv[1], "rb").read() == before
resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
keyring.add(ed25519_key(3), "third")
keyring.close()
print(*said, sep="\\n")
""",
    )
    assert (done.returncode, done.stderr) == (0, "")
    (line,) = done.stdout.splitlines()
    assert line.startswith(f"{path} is not up to date, until it is written with the next change: cannot write")
    assert "File too large" in line
    assert comments(path, Plain()) == ["first", "second", "third"]


def test_what_could_not_be_written_is_tried_once_more_at_the_end(filled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keep = Store.keep
    failed: list[str] = []

    def fail(self: Store, name: str, data: bytes) -> str:
        if failed:
            return keep(self, name, data)
        failed.append(name)
        raise SettingsError("cannot write it: the disk is full")

    agent = Agent(filled)
    with agent as keyring:
        monkeypatch.setattr(Store, "keep", fail)
        keyring.add(ed25519_key(2), "second")
        wait_for(lambda: agent.said, "word of the failure")
    assert len(agent.said) == 1
    assert comments(filled) == ["me@home", "second"]


def test_a_burst_of_changes_is_written_in_few_steps(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keep = Store.keep
    written: list[int] = []

    def counted(self: Store, name: str, data: bytes) -> str:
        written.append(len(data))
        return keep(self, name, data)

    monkeypatch.setattr(Store, "keep", counted)
    monkeypatch.setattr(remembered, "PAUSE", 60)  # which the end does not wait for
    with Agent(path) as keyring:
        for seed in range(1, 301):
            keyring.add(ed25519_key(seed), str(seed))
    assert len(written) == 1
    assert comments(path) == [str(seed) for seed in range(1, 301)]


def test_changes_are_written_while_the_agent_runs(path: Path) -> None:
    with Agent(path) as keyring:
        keyring.add(ed25519_key(1))
        wait_for(path.exists, "the file")


def test_an_end_that_waits_for_the_disk_in_vain_is_told(filled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stuck, released = threading.Event(), threading.Event()
    keep = Store.keep

    def slow(self: Store, name: str, data: bytes) -> str:
        stuck.set()
        assert released.wait(30)
        return keep(self, name, data)

    monkeypatch.setattr(Store, "keep", slow)
    monkeypatch.setattr(remembered, "CLOSE_SECONDS", 0.1)
    agent = Agent(filled)
    with agent as keyring:
        keyring.add(ed25519_key(2), "second")
        assert stuck.wait(30)
    assert "could not be written in time" in agent.said[-1]
    with pytest.raises(Error, match="another agent"):
        opened(filled)
    released.set()
    wait_for(lambda: free(filled), "the end of the write")
    assert comments(filled) == ["me@home", "second"]


def free(path: Path) -> bool:
    """Whether an agent could have the file."""
    try:
        opened(path).close()
    except Error:
        return False
    return True


def test_nothing_is_left_of_an_agent(path: Path, leaves_nothing: object) -> None:
    def once() -> None:
        with Agent(path) as keyring:
            keyring.add(rsa_key())

    assert callable(leaves_nothing)
    leaves_nothing(once)


def test_closing_twice_does_nothing(filled: Path) -> None:
    memory = opened(filled)
    memory.close()
    memory.close()
    opened(filled).close()


def test_a_memory_shows_nothing(filled: Path) -> None:
    with Agent(filled) as keyring:
        (held,) = keyring.visible()
        assert held.kept
        assert "me@home" not in repr(held)


def test_a_name_alone_is_one_in_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with Agent(Path("mine")) as keyring:
        keyring.add(ed25519_key(1), "me@home")
    assert comments(tmp_path / "mine") == ["me@home"]


def test_the_folder_can_be_chosen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PAGEANTRY_HOME", str(tmp_path))
    assert remembered.default_path() == str(tmp_path / "remembered")
    monkeypatch.delenv("PAGEANTRY_HOME")
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path))
    usual = str(tmp_path / "pageantry" / "remembered")
    assert (remembered.default_path() == usual) == (sys.platform == "win32")


if sys.platform == "win32":
    import ctypes
    import re

    from pageantry import _dpapi, acl, winpipe

    def test_windows_opens_what_it_has_sealed() -> None:
        for clear in (b"", b"x", os.urandom(100_000)):
            sealed = _dpapi.protect(clear)
            assert _dpapi.unprotect(sealed) == clear
            assert len(clear) < 16 or clear not in sealed

    def test_windows_opens_it_with_our_entropy_alone(monkeypatch: pytest.MonkeyPatch) -> None:
        sealed = _dpapi.protect(b"secret")
        monkeypatch.setattr(_dpapi, "_ENTROPY", b"another program's")
        with pytest.raises(OSError, match=r".+"):
            _dpapi.unprotect(sealed)

    def test_windows_does_not_open_what_is_no_seal_of_its() -> None:
        for data in (b"", b"x", bytes(500)):
            with pytest.raises(OSError, match=r".+"):
                _dpapi.unprotect(data)

    def test_damage_to_what_windows_has_sealed_is_told_or_nothing(filled: Path) -> None:
        before = filled.read_bytes()
        told = 0
        for index in range(0, len(before), 7):
            data = before[:index] + bytes((before[index] ^ 0x41,)) + before[index + 1 :]
            filled.write_bytes(data)
            if free(filled):
                assert comments(filled) == ["me@home"]
                filled.write_bytes(before)
            else:
                told += 1
                assert filled.read_bytes() == data
        assert told

    def allowed(path: Path) -> set[str]:
        """The SIDs of those who may do anything at all with a file."""
        advapi32 = ctypes.WinDLL("advapi32", use_last_error=True)
        convert = advapi32.ConvertSecurityDescriptorToStringSecurityDescriptorW
        convert.argtypes = (ctypes.c_char_p, ctypes.c_uint32, ctypes.c_uint32, ctypes.c_void_p, ctypes.c_void_p)
        descriptor, text = ctypes.create_string_buffer(4096), ctypes.c_wchar_p()
        size = ctypes.c_uint32()
        assert advapi32.GetFileSecurityW(str(path), 4, descriptor, len(descriptor), ctypes.byref(size))
        assert convert(descriptor, 1, 4, ctypes.byref(text), None)
        names = {"SY": winpipe.SYSTEM, "BA": winpipe.ADMINISTRATORS}
        sids = re.findall(r"\(A;[^)]*;([^;)]+)\)", text.value or "")
        return {names.get(sid, sid) for sid in sids}

    def test_only_this_user_and_who_may_anything_have_the_file(filled: Path) -> None:
        for one in (filled.parent, *filled.parent.iterdir()):
            assert acl.others(str(one)) == []
        for one in (filled.parent, filled):
            assert winpipe.user() in allowed(one)
            assert allowed(one) <= {winpipe.user(), winpipe.SYSTEM, winpipe.ADMINISTRATORS}

    def test_another_process_of_the_same_user_has_the_keys(filled: Path) -> None:
        code = """
import sys
from pageantry import remembered
from pageantry.keyring import Keyring
memory = remembered.open(sys.argv[1])
with Keyring(remember=memory) as keyring:
    memory.load(keyring)
    print(*(identity.comment for identity in keyring.identities()))
"""
        done = subprocess.run([sys.executable, "-c", code, filled], capture_output=True, text=True, timeout=60)
        assert (done.returncode, done.stdout, done.stderr) == (0, "me@home\n", "")

    def test_the_usual_place_and_protection_are_the_systems(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("PAGEANTRY_HOME", raising=False)
        monkeypatch.setenv("LOCALAPPDATA", str(tmp_path))
        for _ in range(2):
            memory = remembered.open()
            with Keyring(remember=memory) as keyring:
                memory.load(keyring)
                keyring.add(ed25519_key(1), "me@home")
        assert comments(tmp_path / "pageantry" / "remembered") == ["me@home"]

else:

    def test_a_system_that_would_not_protect_them_remembers_none(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("PAGEANTRY_HOME", str(tmp_path / "home"))
        with pytest.raises(Error, match="on Windows only") as caught:
            remembered.open()
        assert "encrypted" in caught.value.hint
        assert not (tmp_path / "home").exists()
