"""Where `serve` leads OpenSSH, and what those see who cannot wait for a person."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

if sys.platform == "win32":
    pytest.skip("sockets of UNIX; test_serve_on_windows.py has pipes", allow_module_level=True)

import pageantry
from pageantry import sshconfig
from pageantry.cli.openssh_config import Config, _line
from pageantry.constraints import Confirm
from pageantry.errors import Error, NoSuchKey, Refused

from ..hosts import ed25519_key
from .serving import PASSPHRASE, Environ, call, failed, lists, openssh, putty, serving


def test_openssh_finds_the_agent_by_the_line_that_is_written_and_no_more_when_it_ends(
    environ: Environ, home: Path
) -> None:
    if not shutil.which("ssh"):
        pytest.skip("ssh is not installed")
    file, place = home / "pageantry.conf", home / "50% off"
    with serving(environ, "--listen", place, "--openssh-config", file) as agent:
        shown = subprocess.run(["ssh", "-G", "-F", file, "host"], capture_output=True, text=True, check=True)
        assert f"\nidentityagent {place}\n" in shown.stdout
        assert file.stat().st_mode & 0o777 == 0o600
        assert agent.end()[0] == 0
    assert file.read_bytes() == b""
    with serving(environ, "--listen", place, "--openssh-config", file):  # which may be empty, or have such a line
        assert file.read_bytes()


def test_one_place_cannot_be_both(environ: Environ, home: Path) -> None:
    place = home / "agent"
    done = call(environ, "serve", "--listen", place, "--never-ask", place)
    assert failed(done) == f"{place} is to ask, and never to"
    assert not place.exists()


def test_other_settings_are_never_overwritten(environ: Environ, home: Path) -> None:
    file = home / "config"
    file.write_text("Host example.org\n  User me\n")
    done = call(environ, "serve", "--openssh-config", file)
    assert "has other settings, which would be overwritten" in done.stderr
    assert done.returncode == 1
    assert file.read_text() == "Host example.org\n  User me\n"


def test_what_somebody_else_wrote_meanwhile_stays_at_the_end(environ: Environ, home: Path) -> None:
    file = home / "config"
    with serving(environ, "--openssh-config", file) as agent:
        file.write_text('IdentityAgent "/another"\n')
        assert agent.end()[0] == 0
    assert file.read_text() == 'IdentityAgent "/another"\n'


def test_a_file_that_cannot_be_written_is_said_in_words(home: Path) -> None:
    with pytest.raises(Error, match=r"nowhere/config cannot be written: No such file"):
        Config(str(home / "nowhere" / "config")).lead("/agent")


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
def test_what_is_no_file_is_refused_and_not_waited_for(home: Path, make: Callable[[Path], object]) -> None:
    make(home / "config")
    with pytest.raises(Error, match="cannot be read: "):
        Config(str(home / "config")).lead("/agent")


@given(st.text(st.characters(exclude_categories=["C", "Z"], exclude_characters='"\\'), min_size=1))
def test_any_path_that_can_be_said_is_read_again_as_it_was(name: str) -> None:
    path = f"/run/{name}"
    assume("${" not in path)
    line = _line(path).decode()
    assert line.count("\n") == 1
    assert sshconfig._expand(line.removeprefix("IdentityAgent ").strip().strip('"'), {}, "/home") == path


def test_a_pipe_is_written_with_slashes() -> None:
    assert _line(r"\\.\pipe\pageant.me.0123") == b'IdentityAgent "//./pipe/pageant.me.0123"\n'


@pytest.mark.parametrize("path", ['/a"b', "/a\nb", "$HOME/agent", "/${HOME}", "/a\\b"])
def test_what_openssh_could_not_read_is_refused(path: str) -> None:
    with pytest.raises(Error, match="cannot name"):
        _line(path)


def test_those_who_cannot_wait_see_only_keys_that_need_no_question(environ: Environ, home: Path) -> None:
    free, asking = openssh(home / "free", 1), openssh(home / "asking", 2)
    putty(home / "sealed.ppk", 3, PASSPHRASE)
    patient, hasty = str(home / "patient"), str(home / "hasty")
    environ["SSH_ASKPASS"], environ["SSH_ASKPASS_REQUIRE"] = "/bin/false", "force"
    words: list[str | Path] = ["--listen", patient, "--never-ask", hasty, home / "free", home / "sealed.ppk"]
    with serving(environ, *words) as agent:
        key = ed25519_key(2)
        with pageantry.connect(patient) as all_of_them, pageantry.connect(hasty) as few:
            all_of_them.add(key, "asking", [Confirm()])
            assert [one.key for one in all_of_them.identities()] == [free, ed25519_key(3).public, asking]
            assert [one.key for one in few.identities()] == [free]
            assert few.sign(free, b"data", verify=True)
            for unseen in (asking, ed25519_key(3).public):
                with pytest.raises(Refused):
                    few.sign(unseen, b"data")
                with pytest.raises((Refused, NoSuchKey)):
                    few.remove(unseen)
            with pytest.raises(Refused):
                few.add(key, "no limit any more")
            assert len(all_of_them.identities()) == 3
        assert agent.end()[0] == 0
    assert not Path(hasty).exists()


def test_listening_for_the_hasty_alone_is_enough(environ: Environ, home: Path) -> None:
    place = str(home / "hasty")
    with serving(environ, "--never-ask", place) as agent:
        assert agent.place == place
        assert lists(place) == []


def test_where_one_place_is_taken_none_is_served(environ: Environ, home: Path) -> None:
    taken, other = home / "taken", home / "other"
    with serving(environ, "--listen", taken):
        done = call(environ, "serve", "--never-ask", other, "--listen", taken)
        assert done.returncode == 1
        assert not other.exists()
        done = call(environ, "serve", "--listen", other, "--never-ask", taken)
        assert done.returncode == 1
        assert not other.exists()
    assert failed(call(environ, "serve", "--never-ask", other, "--", "true")) == "a command has an agent for itself"
