"""Services of launchd's: what is written, and what launchctl is told. No launchd takes part, and no macOS."""

from __future__ import annotations

import json
import os
import plistlib
import sys
from pathlib import Path

import pytest

if sys.platform == "win32":
    pytest.skip("launchd is macOS's", allow_module_level=True)

from pageantry.cli import service_launchd as launchd
from pageantry.cli.service_options import wanted
from pageantry.errors import Error

# What launchctl(1) says that it does: it knows what was bootstrapped and not booted out, and fails for others.
LAUNCHCTL = """#!{python}
import json, os, sys
place = os.path.join(os.environ["HOME"], "loaded")
loaded = set(json.load(open(place))) if os.path.exists(place) else set()
verb, *words = sys.argv[1:]
name = words[-1].rpartition("/")[2].removesuffix(".plist")
if (name in loaded) == (verb == "bootstrap"):
    sys.exit(f"{{verb}} failed: 5: Input/output error")
if verb == "bootstrap":
    assert words[0] == f"gui/{{os.getuid()}}" and os.path.exists(words[1])
else:
    assert words == [f"gui/{{os.getuid()}}/{{name}}"]
if verb != "print":
    json.dump(sorted(loaded ^ {{name}}), open(place, "w"))
"""


@pytest.fixture(autouse=True)
def mac(home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The home of a person with a launchctl."""
    program = home / "bin" / "launchctl"
    program.parent.mkdir()
    program.write_text(LAUNCHCTL.format(python=sys.executable))
    program.chmod(0o755)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("PATH", str(program.parent))
    for name in ("SSH_ASKPASS", "SSH_ASKPASS_REQUIRE"):
        monkeypatch.delenv(name, raising=False)
    return home


def plist(home: Path, name: str) -> Path:
    return home / "Library" / "LaunchAgents" / f"{name}.plist"


def loaded(home: Path) -> object:
    return json.loads((home / "loaded").read_text()) if (home / "loaded").exists() else []


def test_what_is_written_is_what_launchd_documents(mac: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSH_ASKPASS", "/usr/local/bin/ask")
    launchd.install("pageantry", wanted(["-t", "8h"]), now=False)
    log = mac / "Library" / "Logs" / "pageantry" / "pageantry.log"
    serve = ["serve", "--listen", str(mac / ".ssh" / "pageantry.sock"), "-t", "8h", "--log", str(log)]
    assert plistlib.loads(plist(mac, "pageantry").read_bytes()) == {
        "Label": "pageantry",
        "ProgramArguments": [sys.executable, "-P", "-m", "pageantry", *serve],
        "RunAtLoad": True,
        "KeepAlive": {"SuccessfulExit": False},
        "StandardErrorPath": f"{log}.err",
        "Umask": 0o077,
        "EnvironmentVariables": {"SSH_ASKPASS": "/usr/local/bin/ask"},
    }
    for path in (plist(mac, "pageantry"), plist(mac, "pageantry").parent, log):
        assert not path.stat().st_mode & 0o077
    assert loaded(mac) == []


def test_a_bridge_is_started_shown_and_removed(mac: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["bridge", "/a <&> b", "--to", str(mac / "é"), "--log", str(mac / "log")]
    launchd.install("b", wanted(words), now=True)
    assert loaded(mac) == ["b"]
    assert f"started, to listen at {mac / 'é'}; its log is {mac / 'log'}; to undo it" in capsys.readouterr().err
    assert plistlib.loads(plist(mac, "b").read_bytes())["ProgramArguments"][4:] == words
    launchd.install("b", wanted(words), now=True)
    assert "it runs already; to have it as it is now: launchctl bootout " in capsys.readouterr().err
    state = launchd.status("b")
    assert (state.off, state.running, state.log, state.lines) == ("", [], str(mac / "log"), [])
    assert launchd.names() == ["b"]
    assert launchd.remove("b") == (True, [])
    assert (loaded(mac), launchd.names(), launchd.remove("b")) == ([], [], (False, []))
    assert launchd.status("b").command is None


def test_what_is_not_loaded_is_said_to_be_so(mac: Path) -> None:
    launchd.install("a", wanted([]), now=False)
    assert launchd.status("a").off.startswith(f"but it is not loaded: launchctl bootstrap gui/{os.getuid()} ")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"<plist",
        plistlib.dumps([]),
        plistlib.dumps({"Label": "a", "ProgramArguments": ["/bin/ls", "-P", "-m", "other"]}),
        plistlib.dumps({"Label": "a", "ProgramArguments": [1, 2]}),
        plistlib.dumps({"Label": "b", "ProgramArguments": ["/python", "-P", "-m", "pageantry", "serve"]}),
    ],
)
def test_what_others_wrote_is_left_as_it_is(mac: Path, content: bytes) -> None:
    theirs = plist(mac, "a")
    theirs.parent.mkdir(parents=True)
    theirs.write_bytes(content)
    assert launchd.names() == []
    for call in (
        lambda: launchd.install("a", wanted([]), now=True),
        lambda: launchd.remove("a"),
        lambda: launchd.status("a"),
    ):
        with pytest.raises(Error, match="is not ours, and is left as it is"):
            call()
    assert theirs.read_bytes() == content


def test_what_launchctl_says_is_told(mac: Path) -> None:
    (mac / "bin" / "launchctl").write_text("#!/bin/sh\necho 'Bootstrap failed: 125: no' >&2; exit 125\n")
    with pytest.raises(Error, match=r"launchctl bootstrap gui/.*: Bootstrap failed: 125: no"):
        launchd.install("a", wanted([]), now=True)


def test_without_launchd_that_is_said(mac: Path) -> None:
    (mac / "bin" / "launchctl").unlink()
    with pytest.raises(Error, match="there is no launchd here"):
        launchd.names()
