from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pageantry.sshconfig import identity_agent


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / ".ssh").mkdir()
    return tmp_path


def agent(home: Path, text: str, **environ: str) -> str | None:
    (home / ".ssh" / "config").write_text(text)
    found = identity_agent(environ, str(home))
    return found[0] if found else None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("IdentityAgent /a", "/a"),
        ("identityagent=/a", "/a"),
        ("  IDENTITYAGENT = /a  # and why", "/a"),
        ('IdentityAgent "/a b"', "/a b"),
        ("IdentityAgent /a\nIdentityAgent /b", "/a"),
        ("Host *\n  IdentityAgent /a", "/a"),
        ("Match all\n  IdentityAgent /a", "/a"),
        ("Host x\n  IdentityAgent /x\nHost *\n  IdentityAgent /a", "/a"),
        ("Host x *\n  IdentityAgent /a", "/a"),
        ("Host * !x\n  IdentityAgent /a", None),
        ("Host all\n  IdentityAgent /a", None),
        ("IdentityAgent /a#b", "/a#b"),
        ("IdentityAgent /a #b", "/a"),
        ("=\nIdentityAgent\t/a", "/a"),
        ("IdentityAgent /caf\0e", "/caf\0e"),
        ("Match host x\n  IdentityAgent /a", None),
        ("IdentityAgent none\nIdentityAgent /a", None),
        ("IdentityAgent SSH_AUTH_SOCK", None),
        ("IdentityAgent $PLACE", "/place"),
        ("IdentityAgent $ELSEWHERE", None),
        ("IdentityAgent ${PLACE}/agent", "/place/agent"),
        ("IdentityAgent ${ELSEWHERE}/agent", None),
        ("IdentityAgent /of/%h", None),
        ("IdentityAgent /100%%", "/100%"),
        ("#IdentityAgent /a\n\nIdentityAgent", None),
        ('IdentityAgent "/not closed\nIdentityAgent /a', "/a"),
        ("IdentityAgent //./pipe/x", "//./pipe/x"),
        ("IdentityAgent \\\\.\\pipe\\x", "\\\\.\\pipe\\x"),
        ('IdentityAgent "//./pipe/pageant.me.0123"', "//./pipe/pageant.me.0123"),  # Pageant's own line since 0.79
        ('IdentityAgent "//./pipe/pageant.John Smith.0123"', "//./pipe/pageant.John Smith.0123"),
        ('IdentityAgent "\\\\.\\pipe\\x y"', "\\\\.\\pipe\\x y"),
        ("IdentityAgent \\\\\\\\.\\\\pipe\\\\x", "\\\\.\\pipe\\x"),  # for an ssh that takes two for one
        ("IdentityAgent \\.\\PIPE\\x", "\\\\.\\PIPE\\x"),  # what such a one makes of Pageant's before 0.79
        ("IdentityAgent \\", "\\"),
        ("IdentityAgent \\.\\", "\\.\\"),
        ("IdentityAgent /./pipe/x", "/./pipe/x"),
        ("IdentityAgent \\\\server\\pipe\\x", "\\\\server\\pipe\\x"),
    ],
)
def test_what_holds_for_every_host_is_found(home: Path, text: str, expected: str | None) -> None:
    assert agent(home, text, PLACE="/place") == expected


def test_tokens_and_tilde_stand_for_the_user(home: Path) -> None:
    assert agent(home, "IdentityAgent ~/agent") == f"{home}/agent"
    assert agent(home, "IdentityAgent %d/agent") == f"{home}/agent"
    if sys.platform != "win32":
        assert agent(home, "IdentityAgent /run/user/%i/agent") == f"/run/user/{os.getuid()}/agent"


@pytest.mark.skipif(os.name != "nt", reason="how paths and files are on Windows")
def test_windows_has_its_own_slash_home_code_page_and_system_wide_file(home: Path) -> None:
    assert agent(home, "IdentityAgent ~\\agent") == f"{home}\\agent"
    assert agent(home, "IdentityAgent ${USERPROFILE}\\agent", USERPROFILE="C:\\me") == "C:\\me\\agent"
    assert agent(home, "IdentityAgent %d\\agent") == f"{home}\\agent"
    assert agent(home, f'Include "{home}\\.ssh\\more"\nIdentityAgent x') == "x"
    (home / ".ssh" / "config").write_bytes(
        'IdentityAgent "//./pipe/pageant.Zoë.0123"\r\n'.encode("mbcs")  # Pageant writes the code page's bytes
    )
    assert identity_agent({}, str(home)) == ("//./pipe/pageant.Zoë.0123", str(home / ".ssh" / "config"))
    (home / ".ssh" / "config").unlink()
    (home / "ssh").mkdir()
    (home / "ssh" / "ssh_config").write_text("IdentityAgent //./pipe/x")
    assert identity_agent({"PROGRAMDATA": str(home)}, str(home)) == (
        "//./pipe/x",
        str(home / "ssh" / "ssh_config"),
    )


def test_included_files_count_where_they_are_included(home: Path) -> None:
    (home / ".ssh" / "more.conf").write_text("IdentityAgent /more")
    assert agent(home, "Include *.conf\nIdentityAgent /a") == "/more"
    assert agent(home, "Host x\nInclude *.conf\nHost *\nIdentityAgent /a") == "/a"
    assert agent(home, f"Include {home}/.ssh/more.conf") == "/more"


def test_files_that_include_each_other_end_at_once(home: Path) -> None:
    assert agent(home, "Include config\nIdentityAgent /a") == "/a"
    (home / ".ssh" / "config.d").mkdir()
    for number in range(20):
        (home / ".ssh" / "config.d" / str(number)).write_text("Include config.d/*\n")
    assert agent(home, "Include config.d/*\nIdentityAgent /a") == "/a"


def test_a_user_without_a_name_has_no_percent_u(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody() -> str:
        raise KeyError

    monkeypatch.setattr("getpass.getuser", nobody)
    assert agent(home, "IdentityAgent /a/%u") is None
    assert agent(home, "IdentityAgent /a/%d") == f"/a/{home}"


def test_a_home_with_a_bracket_in_its_name_is_searched(tmp_path: Path) -> None:
    home = tmp_path / "[x]"
    (home / ".ssh").mkdir(parents=True)
    (home / ".ssh" / "more").write_text("IdentityAgent /more")
    assert agent(home, "Include mor*") == "/more"


def test_no_configuration_names_no_agent(tmp_path: Path) -> None:
    assert identity_agent({}, str(tmp_path)) is None


@given(st.text())
def test_any_text_is_read_without_an_error(text: str) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as home:
        os.mkdir(os.path.join(home, ".ssh"))
        with open(os.path.join(home, ".ssh", "config"), "w", encoding="utf-8", errors="replace") as file:
            file.write(text)
        identity_agent({}, home)


@pytest.mark.interop
@pytest.mark.parametrize(
    "text",
    [
        "IdentityAgent /a b",
        "IdentityAgent=/a",
        'IdentityAgent "/a b"',
        "Host x\n  IdentityAgent /x\nHost *\n  IdentityAgent /a",
        "Match all\n  IdentityAgent /a",
        "IdentityAgent /run/user/%i/agent",
        "IdentityAgent /a#b",
        "IdentityAgent /a #b",
        "Host x *\n  IdentityAgent /a",
        "Host all\n  IdentityAgent /x\nHost *\n  IdentityAgent /a",
    ],
)
def test_ssh_itself_reads_the_same(home: Path, text: str) -> None:
    ssh = shutil.which("ssh")
    if not ssh:
        pytest.skip("ssh is not installed")
    ours = agent(home, text)
    done = subprocess.run(
        [ssh, "-G", "-F", str(home / ".ssh" / "config"), "nowhere"],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
    )
    theirs = [line.split(None, 1)[1] for line in done.stdout.splitlines() if line.startswith("identityagent ")]
    if done.returncode:  # ssh refuses the whole file, which we read as far as it goes
        assert "extra arguments" in done.stderr
        return
    uid = os.getuid() if hasattr(os, "getuid") else 0
    assert ours == theirs[0].replace("%i", str(uid))  # which some versions print before they expand it
