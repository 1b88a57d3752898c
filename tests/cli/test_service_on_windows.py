"""The command `service` on Windows: what starts with the session, and what is said of it."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import re
import shutil
import site
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

if sys.platform != "win32":
    pytest.skip("test_service.py has the others", allow_module_level=True)

import winreg

import pageantry
from pageantry import acl, winpipe
from pageantry.cli import service_options, service_windows
from pageantry.endpoints import pageant
from pageantry.errors import Error

from .serving import PROGRAM, call, failed, lists, openssh, wait_for

ENVIRON = dict(os.environ)

RUN = r"Software\Microsoft\Windows\CurrentVersion\Run"
APPROVED = r"Software\Microsoft\Windows\CurrentVersion\Explorer\StartupApproved\Run"


@contextlib.contextmanager
def kept(path: str, name: str = "pageantry") -> Iterator[None]:
    """Leave the value of whoever runs the tests as it was."""
    with winreg.CreateKey(winreg.HKEY_CURRENT_USER, path) as key:
        try:
            before = winreg.QueryValueEx(key, name)
            winreg.DeleteValue(key, name)
        except FileNotFoundError:
            before = None
        try:
            yield
        finally:
            with contextlib.suppress(FileNotFoundError):
                winreg.DeleteValue(key, name)
            if before:
                winreg.SetValueEx(key, name, 0, before[1], before[0])


def bridges() -> contextlib.AbstractContextManager[None]:
    """The same for that of a bridge."""
    return kept(RUN, "pageantry-bridge")


@pytest.fixture(scope="module", autouse=True)
def desktop() -> None:
    """Wine starts its desktop for the first program that asks for windows, and with that program's streams."""
    ctypes.WinDLL("user32").GetDesktopWindow()


@pytest.fixture(autouse=True)
def registry() -> Iterator[None]:
    with kept(RUN), kept(APPROVED):
        yield


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """A folder whose path leaves room for more in a command of 260 characters."""
    made = Path(tempfile.mkdtemp(prefix="pgt", dir=f"{os.environ['SYSTEMDRIVE']}\\"))
    try:
        yield made
    finally:
        shutil.rmtree(made)


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    """The environment of a person whose logs are here."""
    return ENVIRON | {"LOCALAPPDATA": str(tmp_path)}


@pytest.fixture
def pipe() -> str:
    return f"pageantry-{os.urandom(8).hex()}"


def value(name: str = "pageantry") -> str | None:
    with winreg.OpenKey(winreg.HKEY_CURRENT_USER, RUN) as key:
        try:
            found, kind = winreg.QueryValueEx(key, name)
        except FileNotFoundError:
            return None
    assert kind == winreg.REG_SZ
    return str(found)


def serve(*options: str) -> service_options.Wanted:
    return service_options.Wanted("serve", options, {})


def status(environ: dict[str, str], *names: str) -> dict[str, object]:
    done = call(environ, "service", "status", "--json", *names)
    assert (done.returncode, done.stderr) == (0, "")
    found: list[dict[str, object]] = json.loads(done.stdout)
    assert len(found) == 1
    return found[0]


@contextlib.contextmanager
def ended(pipe: str) -> Iterator[None]:
    """See to the end of the agent at this pipe, whoever started it."""
    try:
        yield
    finally:
        if winpipe.exists(pipe):
            with winpipe.connect(pipe) as stream:
                pid = stream.peer.pid
            subprocess.run(["taskkill", "/F", "/PID", str(pid)], check=True, capture_output=True, timeout=60)
        wait_for(lambda: not winpipe.exists(pipe), "the pipe is left")


# What is written


def test_it_is_installed_shown_and_removed(environ: dict[str, str], tmp_path: Path) -> None:
    done = call(environ, "service", "install")
    log = str(tmp_path / "pageantry" / "agent.log")
    assert (done.returncode, done.stdout) == (0, "")
    command = value()
    assert command
    python, *words = service_windows._words(command)
    assert os.path.dirname(python) == os.path.dirname(sys.executable)
    assert words == ["-P", "-m", "pageantry", "serve", "--listen", "pageant", "--log", log]
    assert done.stderr.splitlines() == [
        f"starts with each session of yours: {command}",
        "with --now it starts at once, too; to undo it: pageantry service remove pageantry",
    ]
    shown = call(environ, "service", "status").stdout.splitlines()
    assert shown == [f"starts with each session of yours: {command}", "does not run", f"log: {log} (empty)"]
    assert status(environ) == {
        "name": "pageantry", "installed": True, "command": command, "switched_off": False, "running": [],
        "waiting": [], "log": log, "lines": [],
    }  # fmt: skip
    done = call(environ, "service", "remove")
    assert (done.returncode, done.stderr) == (0, "pageantry does not start with the session any more\n")
    assert value() is None
    done = call(environ, "service", "remove")
    assert (done.returncode, done.stderr) == (0, "no pageantry starts with the session; there is none to remove\n")
    assert status(environ)["installed"] is False
    assert call(environ, "service", "status").stdout.splitlines()[0] == "no pageantry starts with the session"


def test_what_is_installed_takes_the_place_of_what_was(environ: dict[str, str], pipe: str, tmp_path: Path) -> None:
    call(environ, "service", "install")
    openssh(tmp_path / "my key", 1)
    log = tmp_path / "other.log"
    options = ["--listen", f"pipe:{pipe}", "-t", "8h", str(tmp_path / "my key"), "--log", str(log)]
    done = call(environ, "service", "install", "--", *options)
    assert done.returncode == 0, done.stderr
    command = value()
    assert command
    assert service_windows._words(command)[4:] == ["serve", *options]
    assert status(environ)["log"] == str(log)


def test_several_go_by_their_names(environ: dict[str, str], tmp_path: Path) -> None:
    with bridges():
        assert call(environ, "service", "install").returncode == 0
        done = call(environ, "service", "install", "--", "bridge", "pageant", "--to", "openssh", "--read-only")
        assert done.returncode == 0, done.stderr
        log = tmp_path / "pageantry" / "pageantry-bridge.log"
        words = ["bridge", "pageant", "--to", "openssh", "--read-only", "--log", str(log)]
        assert service_windows._words(value("pageantry-bridge") or "")[4:] == words
        found = json.loads(call(environ, "service", "status", "--json").stdout)
        assert [one["name"] for one in found] == ["pageantry", "pageantry-bridge"]
        assert found[1]["log"] == str(log)
        assert call(environ, "service", "status").stdout.startswith("pageantry\nstarts with each session of yours: ")
        assert call(environ, "service", "remove", "pageantry").returncode == 0
        assert (value(), value("pageantry-bridge") is not None) == (None, True)
        done = call(environ, "service", "remove")
        assert done.stderr == "pageantry-bridge does not start with the session any more\n"
        assert value("pageantry-bridge") is None


@pytest.mark.parametrize("command", ["", "C:\\other.exe", "C:\\python.exe -P -m pageantry agents", '"'])
def test_the_name_of_another_program_is_left_to_it(environ: dict[str, str], command: str) -> None:
    with bridges():
        with winreg.OpenKey(winreg.HKEY_CURRENT_USER, RUN, access=winreg.KEY_SET_VALUE) as key:
            winreg.SetValueEx(key, "pageantry-bridge", 0, winreg.REG_SZ, command)
        told = f"pageantry-bridge starts with the session already, and is not ours: {command}".rstrip()
        done = call(environ, "service", "install", "--", "bridge", "pageant", "--to", "openssh")
        assert failed(done).rstrip() == told
        for words in (["remove", "pageantry-bridge"], ["status", "pageantry-bridge"]):
            assert failed(call(environ, "service", *words)).rstrip() == told
        assert value("pageantry-bridge") == command
        assert status(environ)["name"] == "pageantry"
    assert status(environ, "work")["running"] == []


def test_its_log_is_its_user_s_alone(environ: dict[str, str], tmp_path: Path) -> None:
    call(environ, "service", "install")
    for path in (tmp_path / "pageantry", tmp_path / "pageantry" / "agent.log"):
        assert acl.others(str(path)) == []


@pytest.mark.parametrize(
    ("options", "what"),
    [
        (["--liste", "pageant"], "No such option"),
        (["-t", "8 o'clock"], "is no time"),
        (["--listen"], "requires an argument"),
        (["--listen", "pageand"], "'pageand' is no address of an agent"),
        (["--never-ask", "pageand"], "'pageand' is no address of an agent"),
        (["key"], "key is looked for from where the session starts"),
        (["--log", "agent.log"], "agent.log is looked for from where the session starts"),
        (["--openssh-config", "config"], "config is looked for from where the session starts"),
        (["C:\\there is none"], "C:\\there is none"),
        (["--listen", "assuan:agent"], "agent is looked for from where the session starts"),
        (["--never-ask", "there\\agent"], "there\\agent is looked for from where the session starts"),
        (["--listen", "stdio:ssh host"], "an agent cannot be served at stdio:ssh host"),
        (["--never-ask", "keys:C:\\key"], "an agent cannot be served at keys:C:\\key"),
        (["--openssh-config", "C:\\"], "C:\\ cannot be read"),
        (["--remember", "-t", "8h"], "keys that all have a lifetime cannot be remembered"),
        (["--listen", "pageant", "--", "git", "push"], "an agent for a command ends with it"),
        (["serve", "--listen", "pageand"], "'pageand' is no address of an agent"),
        (["bridge", "pageant"], "Missing option '--to'"),
        (["bridge", "pageant", "--to", "pageand"], "'pageand' is no address of an agent"),
        (["bridge", "pageant", "--to", "stdio:"], "nobody is at the other end of stdio:"),
        (["bridge", "agent.sock", "--to", "pageant"], "agent.sock"),
        (["bridge", "keys:C:\\there is none", "--to", "pageant"], "C:\\there is none"),
        (["bridge", "pageant", "--guard", "rules", "--to", "openssh"], "rules is looked for"),
    ],
)
def test_what_would_fail_at_the_next_session_is_refused(options: list[str], what: str) -> None:
    with pytest.raises((Error, click.UsageError)) as caught:
        service_options.wanted(options)
    message = caught.value.format_message() if isinstance(caught.value, click.UsageError) else str(caught.value)
    assert what in message


@pytest.mark.parametrize(
    ("options", "code", "what"),
    [
        (["--liste", "pageant"], 2, "No such option"),
        (["--listen", "pageand"], 1, "'pageand' is no address of an agent"),
        (["--log", "C:\\there is none\\log"], 1, "the log cannot be written to C:\\there is none\\log"),
    ],
)
def test_it_is_told_now_and_nothing_is_written(
    environ: dict[str, str], options: list[str], code: int, what: str
) -> None:
    done = call(environ, "service", "install", "--", *options)
    assert (done.returncode, done.stdout) == (code, "")
    assert what in done.stderr
    assert value() is None


def test_serve_s_own_help_is_shown(environ: dict[str, str]) -> None:
    done = call(environ, "service", "install", "--", "--help")
    assert done.returncode == 0
    assert done.stdout.startswith("Usage: pageantry serve ")
    assert value() is None


def test_a_command_that_windows_would_not_start_is_refused(environ: dict[str, str]) -> None:
    call(environ, "service", "install", "--", "--listen", "pipe:a")
    first = value()
    assert first
    fits = "a" * (service_windows.MAX_COMMAND - len(first) + 1)
    done = call(environ, "service", "install", "--", "--listen", f"pipe:a{fits}")
    assert f"commands of 260 characters at most, and this has 261: {first[:20]}" in failed(done)
    assert value() == first
    assert call(environ, "service", "install", "--", "--listen", f"pipe:{fits}").returncode == 0
    assert len(value() or "") == service_windows.MAX_COMMAND


@given(
    st.lists(st.text(st.characters(exclude_characters="\0", codec="utf-16")), max_size=5),
    st.lists(st.text('\\" \ta', max_size=8), max_size=5),
)
def test_the_words_of_a_command_come_back_as_they_were(words: list[str], hard: list[str]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(service_windows, "MAX_COMMAND", 1_000_000)
        patch.setattr(sys, "executable", "C:\\Program Files\\Pythön 3\\python.exe")
        command = service_windows._command(serve(*words, *hard))
    expected = [sys.executable and "C:\\Program Files\\Pythön 3\\python.exe", "-P", "-m", "pageantry", "serve"]
    assert service_windows._words(command) == [*expected, *words, *hard]


def test_characters_are_counted_as_windows_counts_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "C:\\python.exe")
    room = service_windows.MAX_COMMAND - len(service_windows._command(serve("x"))) + 1
    assert len(service_windows._command(serve("x" * room))) == service_windows.MAX_COMMAND
    with pytest.raises(Error):
        service_windows._command(serve("\N{KEY}" * (room // 2 + 1)))


@pytest.mark.parametrize("name", ["python.exe", "python3.13t.exe", "pythonw.exe"])
def test_it_takes_the_python_without_a_window_if_there_is_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / name))
    assert service_windows._words(service_windows._command(serve()))[0] == str(tmp_path / name)
    windowless = tmp_path / name.replace("python", "pythonw", name != "pythonw.exe")
    windowless.touch()
    assert service_windows._words(service_windows._command(serve()))[0] == str(windowless)


def test_a_python_that_keeps_its_registry_to_itself_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    base = "C:\\Program Files\\WindowsApps\\PythonSoftwareFoundation.Python.3.13_3.13.1_x64__qbz5n2kfra8p0"
    monkeypatch.setattr(sys, "base_prefix", base)
    with pytest.raises(Error, match="Microsoft Store"):
        service_windows.names()


@pytest.mark.parametrize("command", ["", "C:\\other.exe", "C:\\other.exe serve --unknown --help", "serve -- x", '"'])
def test_what_others_wrote_there_is_shown_and_removed(environ: dict[str, str], command: str) -> None:
    with winreg.OpenKey(winreg.HKEY_CURRENT_USER, RUN, access=winreg.KEY_SET_VALUE) as key:
        winreg.SetValueEx(key, "pageantry", 0, winreg.REG_SZ, command)
    assert status(environ)["command"] == command
    assert call(environ, "service", "remove").returncode == 0
    assert value() is None


@pytest.mark.parametrize(("data", "off"), [(b"\3" + bytes(11), True), (b"\2" + bytes(11), False), (b"", False)])
def test_what_the_task_manager_switched_off_is_told(environ: dict[str, str], data: bytes, off: bool) -> None:
    with winreg.OpenKey(winreg.HKEY_CURRENT_USER, APPROVED, access=winreg.KEY_SET_VALUE) as key:
        winreg.SetValueEx(key, "pageantry", 0, winreg.REG_BINARY, data)
    told = "but it is switched off: enable pageantry in the Task Manager, under Startup apps"
    assert (told in call(environ, "service", "install").stderr) == off
    assert (told in call(environ, "service", "status").stdout) == off
    assert status(environ)["switched_off"] is off


# What it starts


@contextlib.contextmanager
def explorer_starts(command: str) -> Iterator[subprocess.Popen[bytes]]:
    """Start a command as the session does: without a console, and without standard streams."""
    with subprocess.Popen(command, creationflags=subprocess.DETACHED_PROCESS) as process:
        try:
            yield process
        finally:
            process.kill()


def test_what_is_written_starts_an_agent(environ: dict[str, str], pipe: str, tmp_path: Path) -> None:
    key = openssh(tmp_path / "key", 1)
    options = ["--listen", f"pipe:{pipe}", str(tmp_path / "key")]
    assert call(environ, "service", "install", "--", *options).returncode == 0
    command = value()
    assert command
    with explorer_starts(command) as process, ended(pipe):
        wait_for(lambda: winpipe.exists(pipe) or process.poll() is not None, "nothing listens")
        assert lists(f"pipe:{pipe}") == [str(tmp_path / "key")]
        wait_for(lambda: "listening" in str(status(environ)["lines"]), "it does not say that it listens")
        told = status(environ)
        assert told["running"] == [{"address": f"pipe:{pipe}", "pid": process.pid}]
        log = tmp_path / "pageantry" / "agent.log"
        lines = [line[20:] for line in log.read_text("utf-8").splitlines()]
        assert lines[0].startswith("pageantry ")
        assert f"added {tmp_path / 'key'} ({key.fingerprint()})" in lines
        assert lines[-1].partition(" until ")[0] == f"listening at \\\\.\\pipe\\{pipe}"
        assert f"runs at pipe:{pipe} (process {process.pid})" in call(environ, "service", "status").stdout
        done = call(environ, "service", "remove")
        assert f"one still runs at pipe:{pipe}; to end it: taskkill /F /PID {process.pid}" in done.stderr
        subprocess.run(done.stderr.split("to end it: ")[1].split(), check=True, capture_output=True, timeout=60)
        process.wait(30)


def test_what_is_written_starts_a_bridge(environ: dict[str, str], pipe: str, tmp_path: Path) -> None:
    openssh(tmp_path / "key", 1)
    options = ["bridge", f"keys:{tmp_path / 'key'}", "--to", f"pipe:{pipe}"]
    with bridges(), ended(pipe):
        done = call(environ, "service", "install", "--", *options)
        assert done.returncode == 0, done.stderr
        command = value("pageantry-bridge")
        assert command
        with explorer_starts(command) as process:
            wait_for(lambda: winpipe.exists(pipe) or process.poll() is not None, "nothing listens")
            assert len(lists(f"pipe:{pipe}")) == 1
            running = status(environ, "pageantry-bridge")["running"]
            assert running == [{"address": f"pipe:{pipe}", "pid": process.pid}]
            done = call(environ, "service", "install", "--now", "--", *options)
            assert f"it runs already at pipe:{pipe} (process {process.pid})" in done.stderr


def test_a_bridge_can_be_started_at_once(environ: dict[str, str], pipe: str, tmp_path: Path) -> None:
    openssh(tmp_path / "key", 1)
    with bridges(), ended(pipe):
        words = ["bridge", f"keys:{tmp_path / 'key'}", "--to", f"pipe:{pipe}"]
        done = call(environ, "service", "install", "--now", "--name", "pageantry-bridge", "--", *words)
        assert done.returncode == 0, done.stderr
        assert f"started: it is listening at \\\\.\\pipe\\{pipe}" in done.stderr
        assert len(lists(f"pipe:{pipe}")) == 1


def without_window(python: str) -> bytes:
    """The same program, but one that gets no console of its own, as pythonw.exe is."""
    data = bytearray(Path(python).read_bytes())
    header = struct.unpack_from("<I", data, 0x3C)[0]
    struct.pack_into("<H", data, header + 24 + 68, 2)  # Subsystem in IMAGE_OPTIONAL_HEADER: a program with windows
    return bytes(data)


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """A Python of its own, with pythonw.exe beside it, where paths have spaces and other characters in them."""
    folder = tmp_path / "Zwei Wörter"
    (folder / "Scripts").mkdir(parents=True)
    (folder / "Lib" / "site-packages").mkdir(parents=True)
    home = Path(sys.base_prefix)
    (folder / "pyvenv.cfg").write_text(f"home = {home}\ninclude-system-site-packages = true\n", "utf-8")
    here = [*site.getsitepackages(), str(Path(pageantry.__file__).parents[1])]
    (folder / "Lib" / "site-packages" / "here.pth").write_text("\n".join(here))
    python = Path(sys.executable)
    (folder / "Scripts" / "python.exe").write_bytes(python.read_bytes())
    windowless = python.with_name("pythonw.exe")
    data = windowless.read_bytes() if windowless.exists() else without_window(sys.executable)
    (folder / "Scripts" / "pythonw.exe").write_bytes(data)
    return folder / "Scripts"


def test_from_a_path_with_spaces_pythonw_starts_and_writes_its_log(
    installed: Path, environ: dict[str, str], pipe: str, tmp_path: Path
) -> None:
    log = tmp_path / "mein Übungs-log.txt"
    command: list[str | Path] = [installed / "python.exe", "-m", "pageantry", "service", "install", "--"]
    subprocess.run([*command, "--listen", f"pipe:{pipe}", "--log", log], env=environ, check=True, timeout=60)
    written = value()
    assert written
    assert written.startswith(f'"{installed}\\pythonw.exe" -P ')
    with explorer_starts(written), ended(pipe):
        wait_for(lambda: log.exists() and "listening at" in log.read_text("utf-8"), "nothing is in the log")
        assert lists(f"pipe:{pipe}") == []


def test_it_can_be_started_at_once_and_only_once(environ: dict[str, str], pipe: str) -> None:
    words = ["service", "install", "--now", "--", "--listen", f"pipe:{pipe}"]
    with ended(pipe):
        done = call(environ, *words)
        assert done.returncode == 0, done.stderr
        undo = "to undo it: pageantry service remove pageantry"
        started = done.stderr.splitlines()[1]
        assert started.startswith(f"started: it is listening at \\\\.\\pipe\\{pipe}")
        assert started.endswith(f"; {undo}")
        assert lists(f"pipe:{pipe}") == []
        again = call(environ, *words)
        assert again.returncode == 0
        assert again.stderr.splitlines()[1].startswith(f"it runs already at pipe:{pipe} (process ")
        assert str(status(environ)["lines"]).count("listening at") == 1


def test_why_it_did_not_start_is_told(environ: dict[str, str], pipe: str, tmp_path: Path) -> None:
    with bridges():
        options = ["bridge", f"pipe:{pipe}", "--to", f"pipe:{pipe}"]
        done = call(environ, "service", "install", "--now", "--", *options)
        assert done.returncode == 1
        *_, what, hint = done.stderr.splitlines()
        assert what.startswith("pageantry: it was started, and ended: ")
        assert "failed: " in what
        assert hint == f"  its log is {tmp_path}\\pageantry\\pageantry-bridge.log"
        assert value("pageantry-bridge") is not None
        assert not winpipe.exists(pipe)


def test_any_command_can_be_run_by_pythonw(installed: Path, environ: dict[str, str]) -> None:
    words = [str(installed / "pythonw.exe"), *PROGRAM[1:], "service", "status"]
    with explorer_starts(subprocess.list2cmdline(words)) as process:
        assert process.wait(60) == 0


# docs/service.md


def test_what_the_page_says_can_be_done(environ: dict[str, str], tmp_path: Path) -> None:
    if winpipe.exists(pageant.pipe_name()):
        pytest.skip("a Pageant runs here")
    page = (Path(__file__).parents[2] / "docs" / "service.md").read_text("utf-8")
    commands = re.findall(r"^C:\\> pageantry (.*)$", page, re.MULTILINE)
    assert len(commands) == 7
    openssh(tmp_path / "key", 1)
    theirs, ours = "C:\\Users\\me\\.ssh\\id_ed25519", str(tmp_path / "key")
    with bridges(), ended(pageant.pipe_name()):
        for command in commands:
            words = service_windows._words(f"pageantry {command}".replace(theirs, ours))
            done = call(environ, *words[1:])
            assert done.returncode == 0, (command, done.stderr)
            if command == "service install --now":
                assert f"listening at \\\\.\\pipe\\{pageant.pipe_name()}" in done.stderr
            if command == "service status pageantry":
                assert "runs at pageant (process " in done.stdout
            if command == "service remove pageantry":
                assert "one still runs at pageant; to end it: taskkill /F /PID " in done.stderr
        assert (value(), value("pageantry-bridge")) == (None, None)
