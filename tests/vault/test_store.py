import errno
import json
import os
import shutil
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from pageantry.errors import SettingsError
from pageantry.vault.lock import FileLock
from pageantry.vault.store import MAX_FILE, Store, home, save_privately

posix = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no permission bits, FIFOs and limits")

Link = Callable[[Path, Path], None]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path / "deep" / "pageantry"))


def save(store: Store, **entry: object) -> None:
    with store.editing() as config:
        config["services"]["foo"] = entry


def test_home_is_where_the_platform_keeps_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("PAGEANTRY_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("APPDATA", str(tmp_path / "Roaming"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "xdg"))
    monkeypatch.setattr(sys, "platform", "linux")
    assert home() == str(tmp_path / "xdg" / "pageantry")
    monkeypatch.setenv("XDG_CONFIG_HOME", "relative")
    assert home() == os.path.join(os.path.expanduser("~/.config"), "pageantry")
    monkeypatch.setattr(sys, "platform", "darwin")
    assert home() == os.path.join(os.path.expanduser("~/Library/Application Support"), "pageantry")
    monkeypatch.setattr(sys, "platform", "win32")
    assert home() == os.path.join(str(tmp_path / "Roaming"), "pageantry")
    monkeypatch.setenv("PAGEANTRY_HOME", str(tmp_path / "own"))
    assert home() == str(tmp_path / "own")


def test_nothing_saved_is_empty_settings_and_makes_no_folder(store: Store) -> None:
    assert store.load() == {"services": {}}
    assert not store.exists
    assert not Path(store.folder).exists()


def test_what_is_saved_is_loaded(store: Store) -> None:
    save(store, length=3, notes="ü")
    assert store.load() == {"services": {"foo": {"length": 3, "notes": "ü"}}}
    text = Path(store.path).read_text(encoding="utf-8")
    assert text == '{\n  "services": {\n    "foo": {\n      "length": 3,\n      "notes": "ü"\n    }\n  }\n}'


@posix
def test_folder_and_files_are_private_whatever_the_umask(store: Store) -> None:
    before = os.umask(0)
    try:
        save(store, length=3)
        with store.editing():
            store.keep("old-notes.txt", b"x")
    finally:
        os.umask(before)
    folder = Path(store.folder)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {
        "vault.json": 0o600,
        "vault.lock": 0o600,
        "old-notes.txt": 0o600,
    }


@posix
def test_a_file_is_private_before_its_first_byte(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    modes = []
    fsync = os.fsync

    def look(file: int) -> None:
        modes.append(stat.S_IMODE(os.fstat(file).st_mode))
        fsync(file)

    def no_chmod(*_: object) -> None:
        raise AssertionError("privacy that comes by chmod comes too late")

    monkeypatch.setattr(os, "fsync", look)
    monkeypatch.setattr(os, "chmod", no_chmod)
    monkeypatch.setattr(os, "fchmod", no_chmod)
    save(store, length=3)
    assert 0o600 in modes
    assert {mode & 0o022 for mode in modes if mode != 0o600} <= {0}


def test_an_error_in_the_block_saves_nothing(store: Store) -> None:
    save(store, length=3)
    with suppress(KeyError), store.editing() as config:
        config["services"].clear()
        raise KeyError
    assert store.load()["services"] == {"foo": {"length": 3}}


def test_a_save_that_changes_nothing_does_not_touch_the_file(store: Store) -> None:
    save(store, length=3)
    before = os.stat(store.path)
    save(store, length=3)
    after = os.stat(store.path)
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)


def test_a_save_says_whose_repeat_it_is(store: Store) -> None:
    save(store, repeat=3)
    assert store.load()["services"]["foo"] == {"repeat": 3, "compat": "vault"}


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_full_disk_leaves_the_old_settings(store: Store, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    save(store, length=3)
    old = Path(store.path).read_bytes()

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, step, full)
        with pytest.raises(SettingsError, match="No space left") as caught:
            save(store, phrase="secret")
    assert "secret" not in str(caught.value)
    assert Path(store.path).read_bytes() == old
    assert sorted(os.listdir(store.folder)) == ["vault.json", "vault.lock"]
    save(store, length=4)
    assert store.load()["services"]["foo"] == {"length": 4}


LIMITED = """
import resource, signal, sys
from pageantry.errors import SettingsError
from pageantry.vault.store import Store
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (500, 500))
try:
    with Store(sys.argv[1]).editing() as config:
        config["services"]["big"] = {"notes": "x" * 1000}
except SettingsError as error:
    print("refused:", error)
"""


@posix
def test_a_write_that_the_system_cuts_off_leaves_the_old_settings(store: Store) -> None:
    save(store, length=3)
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, store.folder], capture_output=True, text=True, check=True, timeout=30
    )
    assert "refused: cannot write" in done.stdout
    assert store.load()["services"] == {"foo": {"length": 3}}
    assert sorted(os.listdir(store.folder)) == ["vault.json", "vault.lock"]


@pytest.mark.parametrize(
    "data", [b"", b'{"services": {"a', b"\xff", b"[]", b'{"services": {"a": {"length": "x"}}}', b" " * (MAX_FILE + 1)]
)
def test_settings_that_cannot_be_understood_are_never_overwritten(store: Store, data: bytes) -> None:
    save(store, length=3)
    Path(store.path).write_bytes(data)
    with pytest.raises(SettingsError) as caught:
        store.load()
    assert store.path in str(caught.value)
    assert caught.value.hint
    with pytest.raises(SettingsError):
        save(store, length=4)
    assert Path(store.path).read_bytes() == data


def test_a_folder_in_the_files_place_is_told(store: Store) -> None:
    os.makedirs(store.path, 0o700)
    with pytest.raises(SettingsError, match=r"vault\.json is not a file"):
        store.load()


@posix
def test_a_fifo_in_the_files_place_is_not_waited_for(store: Store) -> None:
    os.makedirs(store.folder, 0o700)
    subprocess.run(["mkfifo", "-m", "600", store.path], check=True)
    with pytest.raises(SettingsError, match=r"vault\.json is not a file"):
        store.load()


@pytest.mark.parametrize("below", ["under", "under/further"])
def test_a_file_in_the_folders_place_is_told(tmp_path: Path, below: str) -> None:
    (tmp_path / "plain").write_text("")
    store = Store(str(tmp_path / "plain" / below))
    with pytest.raises(SettingsError, match="cannot read"):
        store.load()
    with pytest.raises(SettingsError, match="cannot make the folder"):
        save(store, length=3)


def test_settings_that_may_not_be_read_are_not_taken_for_none(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    save(store, length=3)

    def forbidden(path: str) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", path)

    monkeypatch.setattr("pageantry.vault.store.read_bounded", forbidden)
    with pytest.raises(SettingsError, match="Permission denied"):
        store.load()


def test_a_link_into_nothing_is_not_taken_for_no_settings(store: Store, tmp_path: Path, symlink: Link) -> None:
    os.makedirs(store.folder, 0o700)
    symlink(tmp_path / "missing", Path(store.path))
    with pytest.raises(SettingsError, match="which is missing"):
        store.load()
    with pytest.raises(SettingsError, match="which is missing"):
        save(store, length=3)


@posix
@pytest.mark.parametrize("name", ["", "vault.json"])
def test_what_others_can_change_is_refused(store: Store, name: str) -> None:
    save(store, length=3)
    Path(store.folder, name).chmod(0o722)
    with pytest.raises(SettingsError, match="others can write") as caught:
        store.load()
    assert caught.value.hint.startswith("run: chmod go-w")
    with pytest.raises(SettingsError, match="others can write"):
        save(store, length=4)


@posix
def test_a_folder_of_another_user_is_refused(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    save(store, length=3)
    if os.stat(store.folder).st_uid == 0:
        shutil.chown(store.folder, 12345)
    else:
        monkeypatch.setattr(os, "geteuid", lambda: 12345)
    with pytest.raises(SettingsError, match="another user"):
        store.load()


def test_a_symbolic_link_stays_one(store: Store, tmp_path: Path, symlink: Link) -> None:
    target = tmp_path / "dotfiles" / "vault.json"
    target.parent.mkdir()
    target.write_text('{"services": {}}')
    os.makedirs(store.folder, 0o700)
    symlink(target, Path(store.path))
    save(store, length=3)
    assert os.path.islink(store.path)
    assert json.loads(target.read_text())["services"] == {"foo": {"length": 3}}
    assert os.listdir(target.parent) == ["vault.json"]


def test_a_planted_link_in_the_new_files_place_is_not_written_through(
    store: Store, tmp_path: Path, symlink: Link
) -> None:
    save(store, length=3)
    victim = tmp_path / "victim"
    victim.write_text("mine")
    symlink(victim, Path(store.path + ".new"))
    save(store, length=4)
    assert victim.read_text() == "mine"
    assert store.load()["services"]["foo"] == {"length": 4}


WRITER = """
import sys
from pageantry.vault.store import Store
for number in range(25):
    with Store(sys.argv[1]).editing() as config:
        config["services"][sys.argv[2] + str(number)] = {"notes": "x" * 3000}
"""


def test_no_reader_sees_a_torn_file_and_no_writers_change_is_lost(store: Store) -> None:
    save(store, length=3)
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, store.folder, name]) for name in "abc"]
    reads = 0
    while any(writer.poll() is None for writer in writers):
        assert store.load()["services"]["foo"] == {"length": 3}
        reads += 1
    assert [writer.wait() for writer in writers] == [0, 0, 0]
    assert reads
    assert len(store.load()["services"]) == 3 * 25 + 1


def test_readers_share_and_a_writer_waits_for_them_and_they_for_it(tmp_path: Path) -> None:
    path = str(tmp_path / "lock")

    def refused(*, shared: bool) -> None:
        with pytest.raises(SettingsError, match=r"another program holds .*lock"):
            FileLock(path, shared=shared, seconds=0.05).__enter__()

    with FileLock(path, shared=True), FileLock(path, shared=True):
        refused(shared=False)
    with FileLock(path, shared=False):
        refused(shared=True)
        refused(shared=False)
    with FileLock(path, shared=False, seconds=0):
        pass


def test_a_lock_is_waited_for_until_its_deadline(store: Store) -> None:
    save(store, length=3)
    held, done = threading.Event(), threading.Event()

    def hold() -> None:
        with store.editing():
            held.set()
            done.wait(10)

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait(10)
    try:
        start = time.monotonic()
        with pytest.raises(SettingsError, match=r"vault\.lock"):
            FileLock(os.path.join(store.folder, "vault.lock"), shared=False, seconds=0.2).__enter__()
        assert 0.19 <= time.monotonic() - start < 10  # a clock may go in steps of 16 ms
    finally:
        done.set()
        thread.join()
    save(store, length=4)


@posix
def test_settings_in_a_folder_that_cannot_be_written_can_be_read(as_nobody: Any) -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        store = Store(folder)
        save(store, length=3)
        os.unlink(os.path.join(folder, "vault.lock"))
        os.chmod(store.path, 0o644)
        os.chmod(folder, 0o555)
        with as_nobody():
            assert store.load()["services"] == {"foo": {"length": 3}}
            with pytest.raises(SettingsError, match="cannot open the lock"):
                save(store, length=4)
        os.chmod(folder, 0o700)


def test_other_files_beside_the_settings_are_kept_and_read(store: Store) -> None:
    assert store.read("config.toml") is None
    with store.editing() as config:
        config["services"]["x"] = {}
        path = store.keep("old-notes.txt", b"old")
    assert Path(path).read_bytes() == b"old"
    assert store.read("old-notes.txt") == b"old"


def test_settings_that_could_not_be_read_again_are_not_saved(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    save(store, length=3)
    monkeypatch.setattr("pageantry.vault.store.MAX_FILE", 1000)
    with pytest.raises(SettingsError, match="more than"), store.editing() as config:
        config["services"]["foo"]["notes"] = "x" * 1000
    assert store.load()["services"] == {"foo": {"length": 3}}


def test_nothing_is_saved_where_there_was_and_is_nothing(store: Store) -> None:
    with store.editing() as config:
        config["services"].pop("foo", None)
    assert not store.exists


MAKER = """
import sys
from pageantry.vault.store import Store
with Store(sys.argv[1]).editing() as config:
    config["services"][sys.argv[2]] = {"length": 3}
"""


def test_ten_first_saves_at_once_are_all_kept(tmp_path: Path) -> None:
    folder = str(tmp_path / "deep" / "deeper" / "settings")
    makers = [subprocess.Popen([sys.executable, "-c", MAKER, folder, str(number)]) for number in range(10)]
    assert [maker.wait() for maker in makers] == [0] * 10
    assert len(Store(folder).load()["services"]) == 10


def test_a_file_that_happens_to_be_in_the_way_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "out.json.new").write_text("mine")
    with pytest.raises(SettingsError):
        save_privately(str(tmp_path / "out.json"), b"data")
    assert (tmp_path / "out.json.new").read_text() == "mine"
    assert not (tmp_path / "out.json").exists()


def test_a_user_without_a_home_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PAGEANTRY_HOME", "XDG_CONFIG_HOME", "APPDATA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("os.path.expanduser", lambda path: path)
    with pytest.raises(SettingsError, match="no home"):
        home()


@posix
def test_a_fifo_beside_the_settings_is_not_waited_for(store: Store) -> None:
    save(store, length=3)
    subprocess.run(["mkfifo", "-m", "600", os.path.join(store.folder, "config.toml")], check=True)
    with pytest.raises(SettingsError, match=r"config\.toml is not a file"):
        store.read("config.toml")
