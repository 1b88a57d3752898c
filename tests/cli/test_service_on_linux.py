"""The command `service` with a systemd of its own, and without one that answers."""

from __future__ import annotations

import json
import os
import re
import shutil
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

if sys.platform != "linux":
    pytest.skip("systemd is Linux's", allow_module_level=True)

from pageantry.cli import service_options, service_systemd, service_units
from pageantry.errors import Error

from .serving import PROGRAM, Environ, call, failed, lists, openssh, serving, wait_for

SYSTEMD = next((path for path in ("/usr/lib/systemd/systemd", "/lib/systemd/systemd") if os.path.exists(path)), "")
#: Becomes a user's systemd, which starts only where the system seems to have been started by one.
BOOTED = 'mount -t tmpfs tmpfs /run && mkdir -p /run/systemd/system && exec "$0" --user --unit=basic.target'

pytestmark = [
    pytest.mark.interop,
    pytest.mark.skipif(not shutil.which("systemctl"), reason="systemd is not installed"),
]


@pytest.fixture
def environ(environ: Environ) -> Environ:
    """A person whose systemd is not that of whoever runs the tests."""
    return {
        name: value for name, value in environ.items() if not name.startswith(("DBUS_", "XDG_CONFIG", "MANAGERPID"))
    }


@pytest.fixture
def systemd(environ: Environ, home: Path) -> Iterator[Environ]:
    """The environment of a person whose systemd answers."""
    if not SYSTEMD or not shutil.which("unshare"):
        pytest.skip("systemd or unshare is not installed")
    options = ["--mount"] if os.geteuid() == 0 else ["--mount", "--map-root-user"]
    command = [SYSTEMD] if os.path.isdir("/run/systemd/system") else ["unshare", *options, "sh", "-c", BOOTED, SYSTEMD]
    if len(command) == 1:
        command += ["--user", "--unit=basic.target"]
    with (home / "systemd.log").open("w") as log:
        manager = subprocess.Popen(
            command, env=environ, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
        )
    try:
        deadline = time.monotonic() + 30
        while systemctl(environ, "show", "--property=Version").returncode:
            if manager.poll() is not None:
                pytest.skip(f"no systemd can be started here: {(home / 'systemd.log').read_text()[-500:]}")
            assert time.monotonic() < deadline
            time.sleep(0.05)
        yield environ
    finally:
        manager.terminate()  # it ends what it has started
        manager.wait(30)


def systemctl(environ: Environ, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["systemctl", "--user", *words], env=environ, capture_output=True, text=True, timeout=60, check=False
    )


def shown(environ: Environ, unit: str, what: str) -> str:
    return systemctl(environ, "show", f"--property={what}", "--value", unit).stdout.strip()


def pid(environ: Environ, unit: str) -> int:
    return int(shown(environ, unit, "MainPID"))


def status(environ: Environ, *names: str) -> list[dict[str, object]]:
    done = call(environ, "service", "status", "--json", *names)
    assert (done.returncode, done.stderr) == (0, "")
    found: list[dict[str, object]] = json.loads(done.stdout)
    return found


def folder(home: Path) -> Path:
    return home / ".config" / "systemd" / "user"


def files(home: Path) -> list[str]:
    return sorted(str(path.relative_to(folder(home))) for path in folder(home).rglob("*") if not path.is_dir())


# With a systemd


def test_an_agent_is_there_when_somebody_comes_and_keeps_its_place_when_it_is_killed(
    systemd: Environ, home: Path
) -> None:
    openssh(home / "my key", 1)
    done = call(systemd, "service", "install", "--now", "--", str(home / "my key"))
    assert done.returncode == 0, done.stderr
    place = home / "run" / "pageantry.socket"
    assert done.stderr.splitlines()[-1] == f"listening at {place}; to undo it: pageantry service remove pageantry"
    assert stat.S_IMODE(place.stat().st_mode) == 0o600
    (found,) = status(systemd)
    assert (found["installed"], found["switched_off"], found["running"]) == (True, False, [])
    assert found["waiting"] == [str(place)]
    assert f"starts when somebody comes to {place}" in call(systemd, "service", "status").stdout
    assert lists(place) == [str(home / "my key")]
    first = pid(systemd, "pageantry.service")
    (found,) = status(systemd, "pageantry")
    assert (found["running"], found["waiting"]) == ([{"address": str(place), "pid": first}], [])
    before = place.stat().st_ino
    os.kill(first, 9)
    assert lists(place) == [str(home / "my key")]
    assert pid(systemd, "pageantry.service") not in (0, first)
    assert place.stat().st_ino == before
    assert systemctl(systemd, "restart", "pageantry.service").returncode == 0
    assert lists(place) == [str(home / "my key")]
    assert place.stat().st_ino == before
    done = call(systemd, "service", "remove")
    assert (done.returncode, done.stderr) == (0, "pageantry does not start with the session any more\n")
    assert files(home) == []
    assert not place.exists()
    assert shown(systemd, "pageantry.service", "LoadState") == "not-found"


def test_a_bridge_keeps_its_places_when_it_is_killed(systemd: Environ, home: Path) -> None:
    openssh(home / "key", 1)
    places = [home / "to 100%", home / "there is none" / "other"]
    with serving(systemd, "--listen", home / "from", home / "key"):
        words = [word for place in places for word in ("--to", str(place))]
        done = call(systemd, "service", "install", "--now", "--", "bridge", str(home / "from"), *words)
        assert done.returncode == 0, done.stderr
        assert lists(places[0]) == lists(places[1]) == [str(home / "key")]
        first = pid(systemd, "pageantry-bridge.service")
        inodes = [place.stat().st_ino for place in places]
        os.kill(first, 9)
        assert lists(places[1]) == lists(places[0]) == [str(home / "key")]
        assert pid(systemd, "pageantry-bridge.service") not in (0, first)
        assert [place.stat().st_ino for place in places] == inodes
        (found,) = status(systemd)
        assert found["name"] == "pageantry-bridge"
        running = found["running"]
        assert isinstance(running, list)
        assert [one["address"] for one in running] == [str(place) for place in places]
        assert call(systemd, "service", "remove", "pageantry-bridge").returncode == 0
    assert not any(place.exists() for place in places)


def test_installing_again_changes_nothing_that_runs(systemd: Environ, home: Path) -> None:
    place = home / "run" / "pageantry.socket"
    assert call(systemd, "service", "install", "--now").returncode == 0
    assert lists(place) == []
    first, written = pid(systemd, "pageantry.service"), files(home)
    done = call(systemd, "service", "install", "--now")
    assert done.stderr.splitlines()[-1] == "it runs already; to undo it: pageantry service remove pageantry"
    done = call(systemd, "service", "install", "--", "-t", "8h")
    again = "systemctl --user restart pageantry.socket"
    assert f"it runs already; to have it as it is now: {again}; " in done.stderr
    assert (pid(systemd, "pageantry.service"), files(home)) == (first, written)
    assert subprocess.run(again.split(), env=systemd, check=False).returncode == 0
    assert lists(place) == []
    with open(f"/proc/{pid(systemd, 'pageantry.service')}/cmdline") as file:
        assert file.read().split("\0")[1:-1] == ["-P", "-m", "pageantry", "serve", "-t", "8h"]


def test_what_openssh_is_to_find_starts_with_the_session(systemd: Environ, home: Path) -> None:
    config, place = home / "config", home / "agent"
    assert call(systemd, "service", "install", "--now", "--", "--listen", str(place)).returncode == 0
    assert (folder(home) / "sockets.target.wants" / "pageantry.socket").is_symlink()
    assert call(systemd, "service", "remove").returncode == 0
    words = ["--listen", str(place), "--openssh-config", str(config)]
    done = call(systemd, "service", "install", "--now", "--", *words)
    assert f"listening at {place}; " in done.stderr
    wait_for(config.exists, "OpenSSH is not told")
    assert files(home) == ["default.target.wants/pageantry.service", "pageantry.service"]
    (found,) = status(systemd)
    running = [{"address": str(place), "pid": pid(systemd, "pageantry.service")}]
    assert (found["running"], found["waiting"]) == (running, [])
    first = pid(systemd, "pageantry.service")
    os.kill(first, 9)
    wait_for(lambda: pid(systemd, "pageantry.service") not in (0, first), "it is not started again")
    assert call(systemd, "service", "install", "--", "--listen", str(place)).returncode == 0
    assert files(home) == ["pageantry.service", "pageantry.socket", "sockets.target.wants/pageantry.socket"]
    assert call(systemd, "service", "remove").returncode == 0
    words = ["--openssh-config", str(config)]
    assert (
        f"listening at {home}/run/pageantry/agent; "
        in call(systemd, "service", "install", "--now", "--", *words).stderr
    )
    assert "runs at " in call(systemd, "service", "status").stdout


def test_several_go_by_their_names(systemd: Environ, home: Path) -> None:
    assert call(systemd, "service", "install", "--now", "--name", "work-1").returncode == 0
    assert call(systemd, "service", "install", "--name", "b", "--", "serve").returncode == 0
    assert [one["name"] for one in status(systemd)] == ["b", "work-1"]
    assert lists(home / "run" / "work-1.socket") == []
    assert call(systemd, "service", "status").stdout.startswith("b\nstarts with each session of yours: ")
    assert call(systemd, "service", "remove", "b").returncode == 0
    assert [one["name"] for one in status(systemd)] == ["work-1"]
    assert call(systemd, "service", "remove").returncode == 0
    assert [(one["name"], one["installed"]) for one in status(systemd)] == [("pageantry", False)]


def test_what_systemd_had_listened_for_ends_where_it_is_to_listen_itself(systemd: Environ, home: Path) -> None:
    words = ["service", "install", "--now", "--", "--listen", str(home / "agent")]
    assert call(systemd, *words).returncode == 0
    assert lists(home / "agent") == []
    done = call(systemd, *words, "--openssh-config", str(home / "config"))
    assert f"listening at {home / 'agent'}; " in done.stderr
    assert files(home) == ["default.target.wants/pageantry.service", "pageantry.service"]


HARD = [chr(number) for number in range(1, 0x180)] + [
    "\u2028",
    "\N{KEY}",
    "",
    ";",
    "$HOME ${HOME} $$",
    "%h %% %",
    "\\x41",
]


def test_systemd_runs_a_command_with_the_words_that_are_meant(systemd: Environ, home: Path) -> None:
    out = home / "out"
    write = "import json, sys; open(sys.argv[1], 'w').write(json.dumps(sys.argv[2:]))"
    line = service_units._command([sys.executable, "-c", write, str(out), *HARD, "".join(HARD)])
    folder(home).mkdir(parents=True)
    (folder(home) / "words.service").write_text(f"[Service]\nType=oneshot\nExecStart={line}\n", "utf-8")
    assert systemctl(systemd, "daemon-reload").returncode == 0
    done = systemctl(systemd, "start", "words.service")
    assert done.returncode == 0, done.stderr
    assert json.loads(out.read_text()) == [*HARD, "".join(HARD)]


def test_what_the_page_says_can_be_done(systemd: Environ, home: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "service.md").read_text("utf-8")
    (script,) = re.findall(r"```sh\n(.*?)```", page, re.DOTALL)
    (home / "bin").mkdir()
    (home / "bin" / "pageantry").write_text(f'#!/bin/sh\nexec {" ".join(PROGRAM)} "$@"\n')
    (home / "bin" / "pageantry").chmod(0o755)
    shell = systemd | {"PATH": f"{home / 'bin'}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(["sh", "-ec", script], env=shell, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    bridge = home / ".ssh" / "read-only"
    assert f"starts when somebody comes to {bridge}" in done.stdout
    openssh(home / "key", 1)
    (home / ".gnupg").mkdir(mode=0o700)
    with serving(systemd, "--listen", home / ".gnupg" / "S.gpg-agent.ssh", home / "key"):
        assert lists(bridge) == [str(home / "key")]


# What is written


@given(
    st.lists(st.text(st.characters(exclude_characters="\0", codec="utf-8")), max_size=5),
    st.text('"\\%$x0\n', max_size=9),
)
def test_the_words_of_a_command_come_back_as_they_were(words: list[str], hard: str) -> None:
    wanted = service_options.Wanted("serve", (*words, hard), {})
    text = service_units.service("a", wanted, activated=False)
    assert service_units.words(text) == [sys.executable, "-P", "-m", "pageantry", "serve", *words, hard]


@given(st.lists(st.text(st.characters(exclude_categories=("Cc", "Cs")), min_size=1).map(lambda name: f"/r/{name}")))
def test_the_paths_of_a_socket_come_back_as_they_were(paths: list[str]) -> None:
    text = service_units.socket(paths, service_options.Wanted("serve", (), {}), "/r")
    assert service_units.listening(text, "/r") == paths


@pytest.mark.parametrize("program", ["/it's/python", "/a\\b", "/$HOME/python", '/"/python', "/a\nb"])
def test_a_python_that_systemd_would_not_start_is_refused(program: str) -> None:
    with pytest.raises(Error, match="systemd starts no program at"):
        service_units._command([program])


def test_words_that_are_no_text_are_refused() -> None:
    with pytest.raises(Error, match="not UTF-8"):
        service_units._command(["/python", "\udcff"])


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd-analyze is not installed")
@pytest.mark.parametrize(
    "words", [[], ["--", "--openssh-config", "/tmp/none"], ["--", "bridge", "/a b", "--to", "/tmp/1% $a"]]
)
def test_systemd_finds_no_fault_with_what_is_written(environ: Environ, home: Path, words: list[str]) -> None:
    done = call(environ | {"SSH_ASKPASS": "/usr/bin/ask %h"}, "service", "install", *words)
    assert done.returncode == 0, done.stderr
    written = [str(path) for path in folder(home).iterdir()]
    verify = ["systemd-analyze", "--user", "verify", *written]
    done = subprocess.run(verify, env=environ, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_without_an_answer_the_units_are_written_and_it_is_said_what_to_do(environ: Environ, home: Path) -> None:
    done = call(environ, "service", "install", "--now")
    assert (done.returncode, done.stdout) == (0, "")
    enable = "systemctl --user daemon-reload && systemctl --user enable --now pageantry.socket"
    assert f"no systemd answers here that could be told; where one does: {enable}; to undo it" in done.stderr
    assert files(home) == ["pageantry.service", "pageantry.socket"]
    for path in (folder(home), *folder(home).iterdir()):
        assert not path.stat().st_mode & 0o077
    (found,) = status(environ)
    assert (found["installed"], found["switched_off"]) == (True, True)
    assert f"but it is not enabled: {enable}" in call(environ, "service", "status").stdout
    done = call(environ, "service", "remove")
    assert "systemctl --user stop pageantry.socket pageantry.service" in done.stderr
    assert files(home) == []
    done = call(environ, "service", "remove")
    assert done.stderr == "no pageantry starts with the session; there is none to remove\n"


def test_the_folder_is_where_the_person_wants_it(environ: Environ, home: Path) -> None:
    assert call(environ, "service", "install", XDG_CONFIG_HOME=str(home / "there")).returncode == 0
    assert (home / "there" / "systemd" / "user" / "pageantry.service").exists()


@pytest.mark.parametrize("unit", ["pageantry.service", "pageantry.socket"])
@pytest.mark.parametrize("link", [False, True])
def test_what_others_wrote_is_left_as_it_is(environ: Environ, home: Path, unit: str, link: bool) -> None:
    folder(home).mkdir(parents=True)
    theirs = folder(home) / unit
    if link:  # as of something masked
        theirs.symlink_to(os.devnull)
    else:
        theirs.write_text("[Unit]\n")
    for words in (["install"], ["install", "--now"], ["remove", "pageantry"]):
        assert failed(call(environ, "service", *words)) == f"{theirs} is not ours, and is left as it is"
    assert files(home) == [unit]
    assert theirs.is_symlink() == link


def test_what_the_system_brings_is_not_hidden(environ: Environ, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (home / "theirs.socket").touch()
    monkeypatch.setattr(service_systemd, "_OTHERS", (str(home),))
    service_systemd._check_free("ours.socket")
    with pytest.raises(Error, match="would be hidden"):
        service_systemd._check_free("theirs.socket")


def test_the_place_of_another_agent_is_not_taken(environ: Environ, home: Path) -> None:
    with serving(environ, "--listen", home / "agent") as agent:
        done = call(environ, "service", "install", "--", "--listen", str(home / "agent"))
        assert failed(done) == f"an agent answers at {home / 'agent'} already (process {agent.process.pid})"
    (home / "file").touch()
    done = call(environ, "service", "install", "--", "bridge", "/from", "--to", str(home / "file"))
    assert failed(done) == f"{home / 'file'} is no socket, and is left as it is"
    (home / "open").mkdir()
    (home / "open").chmod(0o777)
    done = call(environ, "service", "install", "--", "bridge", "/from", "--to", str(home / "open" / "agent"))
    assert f"others may write in {home / 'open'}" in failed(done)
    assert not folder(home).exists()


@pytest.mark.parametrize(
    ("words", "status", "what"),
    [
        (["--liste", "x"], 2, "No such option"),
        (["serve", "--listen", "pipe:a"], 1, "an agent cannot be served at pipe:a"),
        (["--listen", "./agent"], 1, "./agent is looked for from where the session starts"),
        (["--listen", "launchd:a"], 1, "launchd:a is a socket of launchd's"),
        (["key"], 1, "key is looked for from where the session starts"),
        (["/there is none"], 1, "/there is none"),
        (["--", "git", "push"], 1, "an agent for a command ends with it"),
        (["bridge", "/from"], 2, "Missing option '--to'"),
        (["bridge", "--to", "/to"], 2, "Missing argument"),
        (["bridge", "/from", "--to", "pageant"], 1, "an agent cannot be served at pageant"),
        (["bridge", "/from", "--to", "stdio:"], 1, "nobody is at the other end of stdio:"),
        (["bridge", "from/agent", "--to", "/to"], 1, "from/agent is looked for"),
        (["bridge", "keys:/a:b", "--to", "/to"], 1, "b is looked for"),
        (["bridge", "nonsense", "--to", "/to"], 1, "'nonsense' is no address"),
        (["bridge", "/from", "--add-to", "/other", "--to", "/to"], 1, "keys cannot be added to /other"),
        (["bridge", "/from", "--guard", "rules", "--to", "/to"], 1, "rules is looked for"),
        (["bridge", "/from", "--guard", "/there is none", "--to", "/to"], 1, "/there is none"),
        (
            ["bridge", "/from", "--guard", "/a", "--read-only", "--to", "/to"],
            1,
            "--read-only and --guard are two guards",
        ),
    ],
)
def test_what_would_fail_at_the_next_session_is_refused(
    environ: Environ, home: Path, words: list[str], status: int, what: str
) -> None:
    done = call(environ, "service", "install", "--", *words)
    assert (done.returncode, done.stdout) == (status, "")
    assert what in done.stderr
    assert not folder(home).exists()


@pytest.mark.parametrize("name", ["", "-a", "a b", "a/b", "a.service", "é", "a" * 65, "a\n"])
def test_names_that_are_none_are_refused(environ: Environ, name: str) -> None:
    done = call(environ, "service", "install", f"--name={name}")
    assert (done.returncode, done.stdout) == (2, "")
    assert "is no name: use up to 64 letters, digits" in done.stderr


def test_without_systemd_it_says_what_to_do(environ: Environ, home: Path) -> None:
    for words in (
        ["install"],
        ["remove"],
        ["status"],
        ["status", "--json"],
        ["install", "--", "bridge", "/a", "--to", "/b"],
    ):
        done = call(environ, "service", *words, PATH=str(home))
        assert failed(done) == "there is no systemd here"
        assert "docs/service.md" in done.stderr
