"""The Windows lab: what it is made from, what it says where it cannot be, and what runs in it get to see."""

import platform
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from lab import parts, windows
from lab.parts import LAB, NoLab

ROOT = Path(__file__).parents[1]
DEBIAN = """\
Types: deb
URIs: http://deb.debian.org/debian
Suites: bookworm bookworm-updates
"""


def test_a_source_of_packages_becomes_one_of_sources() -> None:
    assert parts.for_sources(DEBIAN) == DEBIAN.replace("Types: deb", "Types: deb-src")
    assert parts.for_sources("deb http://example.org/debian stable main") == (
        "deb-src http://example.org/debian stable main"
    )


def test_what_is_a_source_of_sources_stays_one() -> None:
    text = "Types: deb deb-src\n# deb\n"
    assert parts.for_sources(text) == "Types: deb-src\n# deb\n"
    assert parts.for_sources("deb-src http://example.org/debian stable main") == (
        "deb-src http://example.org/debian stable main"
    )


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """One part, which notes where it is made, and fails where its directory is named so."""
    places: list[str] = []

    def how(to: str) -> None:
        places.append(to)
        Path(to, "file").write_text("whole", encoding="utf-8")
        if "failing" in to:
            raise NoLab("why", "remedy")

    monkeypatch.setattr(parts, "wanted", lambda: {"part": (how, "made from this")})
    return places


def test_a_part_is_made_once_and_again_when_it_is_made_from_something_else(
    tmp_path: Path, made: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(2):
        for part in parts.stale(str(tmp_path)):
            parts.make(str(tmp_path), *part)
    assert len(made) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["part"]
    assert (tmp_path / "part" / "file").read_text(encoding="utf-8") == "whole"
    how = parts.wanted()["part"][0]
    monkeypatch.setattr(parts, "wanted", lambda: {"part": (how, "made from that")})
    assert [name for name, *_ in parts.stale(str(tmp_path))] == ["part"]


def test_a_part_that_failed_is_not_there(tmp_path: Path, made: list[str]) -> None:
    directory = tmp_path / "failing"
    directory.mkdir()
    (part,) = parts.stale(str(directory))
    with pytest.raises(NoLab):
        parts.make(str(directory), *part)
    assert made
    assert list(directory.iterdir()) == []


def test_a_part_that_failed_leaves_the_one_before(tmp_path: Path, made: list[str]) -> None:
    directory = tmp_path / "failing"
    before = directory / "part"
    before.mkdir(parents=True)
    (before / "mark").write_text("made from that", encoding="ascii")
    (part,) = parts.stale(str(directory))
    with pytest.raises(NoLab):
        parts.make(str(directory), *part)
    assert (before / "mark").read_text(encoding="ascii") == "made from that"


@pytest.mark.parametrize("system", ["win32", "darwin"])
def test_where_no_lab_can_be_it_says_why_and_what_to_do(system: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", system)
    with pytest.raises(NoLab) as caught, windows.raised():
        pass
    assert caught.value.here
    assert {"win32": "needs no lab", "darwin": "Debian"}[system] in caught.value.why


@pytest.mark.skipif(sys.platform != "linux" or not shutil.which("apt-get"), reason="only Debian gets so far")
def test_missing_programs_are_named_with_their_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(windows, "missing", lambda programs: {"wine64": "wine64", "cmake": "cmake", "Xvfb": "xvfb"})
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    with pytest.raises(NoLab) as caught, windows.raised():
        pass
    assert (caught.value.here, caught.value.why) == (True, "wine64, cmake, Xvfb not found")
    assert caught.value.remedy == "as root: apt-get install --no-install-recommends wine64 cmake xvfb"


@pytest.mark.skipif(sys.platform == "linux", reason="would raise it")
def test_the_command_says_so_too() -> None:
    command = [sys.executable, str(ROOT / "lab" / "windows.py"), "-c", "pass"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (1, "", 2)
    assert done.stderr.startswith("no Windows lab: ")


def test_what_is_said_to_programs_of_this_system_stays_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PYTHONPATH", "PYTHONUTF8", "SSH_AUTH_SOCK", "WINEPREFIX", "XDG_RUNTIME_DIR", "VIRTUAL_ENV", "CI"):
        monkeypatch.setenv(name, "here")
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    seen = windows.environment("/prefix", ":7")
    assert [name for name, value in seen.items() if value == "here"] == ["CI"]
    assert (seen["WINEPREFIX"], seen["DISPLAY"], seen["PYTHONDONTWRITEBYTECODE"]) == ("/prefix", ":7", "1")
    assert seen["WINEPATH"].startswith("Z:" + LAB.replace("/", "\\"))
