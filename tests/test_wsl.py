from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from pageantry import wsl


@pytest.mark.parametrize(
    ("release", "number"),
    [
        ("4.4.0-19041-Microsoft", 1),
        ("4.4.0-22621-Microsoft", 1),
        ("4.19.104-microsoft-standard", 2),
        ("5.15.90.1-microsoft-standard-WSL2", 2),
        ("6.6.36.3-microsoft-standard-WSL2+", 2),
        ("6.1.0-custom-Microsoft-WSL2", 2),
        ("6.1.0-18-amd64", 0),
        ("23.5.0", 0),
    ],
)
def test_the_kernel_tells_which_wsl_it_is(release: str, number: int) -> None:
    assert wsl.version(release) == number


def test_this_system_is_looked_at() -> None:
    assert wsl.version() in (0, 1, 2)
    if sys.platform != "linux":
        assert wsl.version() == 0
        assert wsl.hint("openssh") == ""


@pytest.mark.parametrize("number", [1, 2])
def test_a_hint_says_how_to_reach_windows_from_there(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    monkeypatch.setattr(wsl, "version", lambda: number)
    assert wsl.hint("pageant").startswith(f"from WSL {number} use 'stdio:pageantry.exe relay pageant'")


MOUNTS = """\
rootfs / lxfs rw,noatime 0 0
none /dev tmpfs rw,noatime,mode=755 0 0
C: /mnt/c drvfs rw,noatime,uid=1000,gid=1000 0 0
D:\\134 /mnt/d 9p rw,noatime,aname=drvfs;path=D:\\134,trans=fd 0 0
none /mnt/c/linux ext4 rw 0 0
"""


@pytest.mark.skipif(os.name == "nt", reason="paths of Linux")
@pytest.mark.parametrize(
    ("path", "windows"),
    [
        ("/mnt/c", True),
        ("/mnt/c/Users/me/agent", True),
        ("/mnt/d/agent", True),
        ("/mnt/c/linux/agent", False),
        ("/mnt/cd/agent", False),
        ("/mnt", False),
        ("/", False),
        ("/home/me/agent", False),
    ],
)
def test_drives_of_windows_are_known_by_their_file_system(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str, windows: bool
) -> None:
    (tmp_path / "mounts").write_text(MOUNTS)
    assert not wsl.is_windows_drive(path, str(tmp_path / "mounts"))
    monkeypatch.setattr(wsl, "version", lambda: 1)
    assert wsl.is_windows_drive(path, str(tmp_path / "mounts")) == windows
    assert not wsl.is_windows_drive(path, str(tmp_path / "none"))
    (tmp_path / "mounts").write_text("broken\n")
    assert not wsl.is_windows_drive(path, str(tmp_path / "mounts"))


@pytest.mark.skipif(os.name == "nt", reason="programs of Linux")
def test_the_relay_is_a_program_on_path(tmp_path: Path) -> None:
    assert not wsl.has_relay({"PATH": str(tmp_path)})
    assert not wsl.has_relay({})
    (tmp_path / "pageantry.exe").touch(0o755)
    assert wsl.has_relay({"PATH": f"/nowhere:{tmp_path}"})
