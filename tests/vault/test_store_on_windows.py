"""What is different for settings on Windows: access lists, files that others have open, disks that are not there."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

if sys.platform != "win32":
    pytest.skip("Windows' access lists and open files", allow_module_level=True)

from pageantry import acl, winpipe
from pageantry.errors import SettingsError
from pageantry.vault import store
from pageantry.vault.store import Store, save_privately

EVERYONE = "S-1-1-0"


@pytest.fixture
def settings(tmp_path: Path) -> Store:
    return Store(str(tmp_path / "deep" / "pageantry"))


def save(settings: Store, length: int) -> None:
    with settings.editing() as config:
        config["services"]["foo"] = {"length": length}


def grant(path: Path | str, rights: str, sid: str = EVERYONE) -> None:
    """Let somebody else use a file or folder, and what will be in it."""
    advapi32 = ctypes.WinDLL("advapi32", use_last_error=True)
    descriptor = ctypes.c_void_p()
    text = f"D:P(A;OICI;{rights};;;{sid})(A;OICI;FA;;;{winpipe.user()})"
    convert = advapi32.ConvertStringSecurityDescriptorToSecurityDescriptorW
    convert.argtypes = (ctypes.c_wchar_p, ctypes.c_uint32, ctypes.POINTER(ctypes.c_void_p), ctypes.c_void_p)
    advapi32.SetFileSecurityW.argtypes = (ctypes.c_wchar_p, ctypes.c_uint32, ctypes.c_void_p)
    assert convert(text, 1, ctypes.byref(descriptor), None)
    assert advapi32.SetFileSecurityW(str(path), 4, descriptor), ctypes.FormatError(ctypes.get_last_error())


def test_folder_and_files_are_private_whatever_the_folder_above_grants(
    settings: Store, tmp_path: Path, wine: bool
) -> None:
    grant(tmp_path, "FA")
    (tmp_path / "careless").write_text("")
    assert acl.others(str(tmp_path)) == [EVERYONE]
    if not wine:  # where nothing is inherited
        assert acl.others(str(tmp_path / "careless")) == [EVERYONE]
    save(settings, 3)
    with settings.editing():
        settings.keep("old-notes.txt", b"x")
    save_privately(str(tmp_path / "export"), b"x")
    folder = Path(settings.folder)
    made = [folder.parent, folder, *folder.iterdir(), tmp_path / "export"]
    assert sorted(path.name for path in made[2:-1]) == ["old-notes.txt", "vault.json", "vault.lock"]
    assert {path.name: acl.others(str(path)) for path in made} == {path.name: [] for path in made}


@pytest.mark.parametrize("name", ["", "vault.json"])
@pytest.mark.parametrize("rights", ["FA", "0x1301bf", "FW"])
def test_what_others_can_change_is_refused_with_the_command_that_mends_it(
    settings: Store, name: str, rights: str, wine: bool
) -> None:
    save(settings, 3)
    grant(os.path.join(settings.folder, name), rights)
    with pytest.raises(SettingsError, match="others can write") as caught:
        settings.load()
    with pytest.raises(SettingsError, match="others can write"):
        save(settings, 4)
    command = caught.value.hint.partition("run: ")[2]
    assert command.startswith('icacls "')
    assert f'/remove:g "*{EVERYONE}"' in command
    if not wine:  # whose icacls does nothing
        subprocess.run(command, check=True, capture_output=True)
        save(settings, 4)
        assert settings.load()["services"]["foo"] == {"length": 4}


def test_what_others_can_only_read_is_good_enough(settings: Store) -> None:
    save(settings, 3)
    grant(settings.folder, "FR")
    grant(settings.path, "FR")
    assert settings.load()["services"]["foo"] == {"length": 3}


def test_a_folder_of_another_user_is_refused(settings: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    save(settings, 3)
    monkeypatch.setattr(winpipe, "user", lambda: "S-1-5-21-1-2-3-1001")
    with pytest.raises(SettingsError, match="cannot be trusted"):
        settings.load()


@pytest.mark.parametrize(
    ("sid", "trusted"),
    [
        ("S-1-5-18", True),
        ("S-1-5-32-544", True),
        ("S-1-5-21-1-2-3-512", True),
        ("S-1-5-21-1-2-3-513", False),
        ("S-1-5-32-545", False),
        ("S-1-5-11", False),
    ],
)
def test_only_those_who_may_do_anything_anyway_are_trusted(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, sid: str, trusted: bool
) -> None:
    monkeypatch.setattr(acl, "_writers", lambda _: iter([sid]))
    assert acl.others(str(tmp_path)) == ([] if trusted else [sid])


def test_a_reader_of_the_old_file_is_waited_for(settings: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    save(settings, 3)
    reader = open(settings.path, "rb")  # noqa: SIM115 - closed in the middle of the save
    replace, attempts = os.replace, []

    def attempt(new: str, target: str) -> None:
        attempts.append(new)
        if len(attempts) == 3:
            reader.close()
        replace(new, target)

    monkeypatch.setattr(os, "replace", attempt)
    save(settings, 4)
    assert len(attempts) == 3
    assert settings.load()["services"]["foo"] == {"length": 4}


def test_a_file_that_stays_open_is_given_up_in_one_line_and_nothing_is_lost(
    settings: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(settings, 3)
    monkeypatch.setattr(store, "REPLACE_SECONDS", 0.3)
    with open(settings.path, "rb"):
        start = time.monotonic()
        with pytest.raises(SettingsError, match="cannot write") as caught:
            save(settings, 4)
        assert 0.3 <= time.monotonic() - start < 5
    assert "end the program that has it open" in caught.value.hint
    assert settings.load()["services"]["foo"] == {"length": 3}
    assert sorted(os.listdir(settings.folder)) == ["vault.json", "vault.lock"]
    save(settings, 5)
    assert settings.load()["services"]["foo"] == {"length": 5}


def test_a_disk_that_is_not_there_is_told() -> None:
    free = next(letter for letter in "QRSTUVWXYP" if not os.path.exists(f"{letter}:\\"))
    for folder in (f"{free}:\\", f"{free}:\\deep\\pageantry"):
        with pytest.raises(SettingsError, match="cannot read"):
            Store(folder).load()
        with pytest.raises(SettingsError, match="cannot make the folder"):
            save(Store(folder), 3)
