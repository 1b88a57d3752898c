"""Directories for sockets, which are made, or left as they are, or refused."""

from __future__ import annotations

import os
import stat
import sys
import threading
from pathlib import Path

import pytest

if sys.platform == "win32":
    pytest.skip("UNIX's directories", allow_module_level=True)

from pageantry.endpoints import directories
from pageantry.errors import Error

NOBODY = 65534
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files to another user")


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def refused(path: Path) -> str:
    with pytest.raises(Error) as caught:
        directories.make_private(str(path))
    assert caught.value.hint
    return str(caught.value)


def test_one_that_is_not_there_is_made_for_its_user_alone(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        directories.make_private(str(tmp_path / "new"))
    finally:
        os.umask(before)
    assert mode(tmp_path / "new") == 0o700


@pytest.mark.parametrize("given", [0o700, 0o755, 0o500])
def test_one_where_only_its_user_may_write_stays_as_it_is(tmp_path: Path, given: int) -> None:
    (tmp_path / "old").mkdir()
    (tmp_path / "old").chmod(given)
    directories.make_private(str(tmp_path / "old"))
    assert mode(tmp_path / "old") == given


@pytest.mark.parametrize("given", [0o777, 0o702, 0o1777])
def test_one_where_others_may_write_is_refused(tmp_path: Path, given: int) -> None:
    (tmp_path / "old").mkdir()
    (tmp_path / "old").chmod(given)
    assert "others may write" in refused(tmp_path / "old")
    assert mode(tmp_path / "old") == given


def test_what_is_no_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("precious")
    (tmp_path / "link").symlink_to("file")
    for name in ("file", "link"):
        assert "is no directory" in refused(tmp_path / name)
    assert (tmp_path / "file").read_text() == "precious"


def test_a_link_of_ours_leads_to_it(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    (tmp_path / "link").symlink_to("elsewhere")
    directories.make_private(str(tmp_path / "link"))
    (tmp_path / "elsewhere").chmod(0o777)
    assert "others may write" in refused(tmp_path / "link")


@needs_root
def test_what_is_another_user_s_is_refused(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    (tmp_path / "link").symlink_to("elsewhere")
    os.lchown(tmp_path / "link", NOBODY, NOBODY)
    assert "is no directory" in refused(tmp_path / "link")
    os.chown(tmp_path / "elsewhere", NOBODY, NOBODY)
    assert "belongs to nobody" in refused(tmp_path / "elsewhere")


def test_where_none_can_be_made_the_system_says_why(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        directories.make_private(str(tmp_path / "missing" / "new"))


@pytest.mark.parametrize("given", [0o710, 0o750, 0o705, 0o1777])
def test_one_that_others_can_keep_locked_is_waited_for_no_longer_than_its_turn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: int
) -> None:
    monkeypatch.setattr(directories, "_TURN", 0.1)
    tmp_path.chmod(given)
    held = directories.lock(str(tmp_path))
    try:
        if given == 0o710:
            with pytest.raises(Error, match="another program keeps"):
                directories.lock(str(tmp_path))
        else:
            os.close(directories.lock(str(tmp_path)))
    finally:
        os.close(held)


def test_several_may_make_it_at_once(tmp_path: Path) -> None:
    failed: list[Exception] = []

    def make(together: threading.Barrier, path: str) -> None:
        together.wait(20)
        try:
            directories.make_private(path)
        except (Error, OSError) as error:
            failed.append(error)

    for number in range(20):
        together = threading.Barrier(4)
        threads = [threading.Thread(target=make, args=(together, str(tmp_path / str(number)))) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
        assert mode(tmp_path / str(number)) == 0o700
    assert failed == []
