"""Programs that ask, each a script of these lines: such as desktops have, and such as they should not have."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pageantry import askpass
from pageantry.errors import DeadlineExceeded, NobodyToAsk, Refused

if sys.platform == "win32":
    pytest.skip("scripts of sh", allow_module_level=True)

from pageantry.askpass import MAX_ANSWER, Askpass

Script = Callable[[str], Askpass]


@pytest.fixture
def script(tmp_path: Path) -> Script:
    """A way to ask with a script of these lines, which runs in the test's directory."""

    def make(lines: str) -> Askpass:
        path = tmp_path / f"askpass{len(list(tmp_path.iterdir()))}"
        path.write_text(f"#!/bin/sh\ncd '{tmp_path}'\n{lines}\n")
        path.chmod(0o700)
        return Askpass(str(path), os.environ)

    return make


def patient() -> None:
    """Whoever asks waits for ever."""


def until(path: Path) -> Callable[[], None]:
    """Whoever asks waits until there is something in this file."""

    def check() -> None:
        if path.exists() and path.read_text().endswith("\n"):
            raise DeadlineExceeded("over")

    return check


@contextlib.contextmanager
def standard_input(data: bytes) -> Iterator[None]:
    """For the length of a `with`, our standard input is a pipe with this in it."""
    before = os.dup(0)
    output, input_ = os.pipe()
    os.write(input_, data)
    os.close(input_)
    os.dup2(output, 0)
    os.close(output)
    try:
        yield
    finally:
        os.dup2(before, 0)
        os.close(before)


def runs(pid: int) -> bool:
    state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True).stdout.strip()
    return bool(state) and not state.startswith("Z")


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 15
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.fixture
def child(tmp_path: Path) -> Iterator[Callable[[], int]]:
    """The process that a script has left the number of in the file `child`."""

    def pid() -> int:
        return int((tmp_path / "child").read_text())

    yield pid
    if (tmp_path / "child").exists() and runs(pid()):
        os.kill(pid(), 9)


def test_it_is_asked_as_openssh_asks(script: Script, tmp_path: Path) -> None:
    lines = (
        'echo "$#|$1|${SSH_ASKPASS_PROMPT-unset}|$HOME|$(cat)" > asked; ps -o pgid= -p $$ >> asked; echo $$ >> asked'
    )
    question = "Allow it?\n  $(id) 'ä'"
    way = script(lines)
    home = os.environ.get("HOME", "")
    with standard_input(b"this is another's"):
        way.confirm(question, patient)
    *asked, group, pid = (tmp_path / "asked").read_text().splitlines()
    assert "\n".join(asked) == f"1|{question}|confirm|{home}|"
    assert group.strip() == pid
    way.secret(question, patient)
    assert f"|unset|{home}|" in (tmp_path / "asked").read_text()


@pytest.mark.parametrize(
    "lines", ["", "echo", "echo yes", "echo YES", "printf Yes", "printf 'yes\\r\\nno'", "echo; echo no"]
)
def test_consent_is_status_0_and_nothing_or_yes(script: Script, lines: str) -> None:
    script(lines).confirm("Allow it?", patient)


@pytest.mark.parametrize(
    "lines",
    [
        "exit 1",
        "echo yes; exit 1",
        "exit 255",
        "kill -9 $$",
        "echo no",
        "echo ' yes'",
        "echo yes, please",
        "printf '\\0'",
    ],
)
def test_anything_else_is_no_consent(script: Script, lines: str) -> None:
    with pytest.raises(Refused) as caught:
        script(lines).confirm("Allow it?", patient)
    assert caught.value.hint


@pytest.mark.parametrize(
    ("lines", "secret"),
    [
        ("echo geheim", b"geheim"),
        ("printf geheim", b"geheim"),
        ("printf 'geheim\\r\\n'", b"geheim"),
        ("echo ' two words '; echo more", b" two words "),
        ("echo", b""),
        ("", b""),
        ("printf '\\344\\n'", b"\xe4"),
        ("echo geheim; exec >&-; sleep 0.3", b"geheim"),
        (f"printf '%{MAX_ANSWER}s' x", b" " * (MAX_ANSWER - 1) + b"x"),
    ],
)
def test_a_secret_is_the_first_line(script: Script, lines: str, secret: bytes) -> None:
    assert script(lines).secret("Passphrase: ", patient) == secret


@pytest.mark.parametrize("lines", ["exit 1", "echo geheim; exit 1", "echo geheim; exec >&-; sleep 0.3; exit 1"])
def test_a_secret_from_a_program_that_failed_is_none(script: Script, lines: str) -> None:
    with pytest.raises(Refused) as caught:
        script(lines).secret("Passphrase: ", patient)
    assert "geheim" not in f"{caught.value}{caught.value.hint}"


def test_a_program_that_does_not_start_asks_nobody(script: Script, tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no program")
    for path in (tmp_path / "missing", tmp_path, tmp_path / "text"):
        way = Askpass(str(path), os.environ)
        with pytest.raises(NobodyToAsk) as caught:
            way.secret("Passphrase: ", patient)
        assert str(path) in str(caught.value)
        with pytest.raises(NobodyToAsk):
            way.notify("Touch it")
    with pytest.raises(NobodyToAsk):
        script("").confirm("x" * 200_000, patient)


def test_an_answer_that_is_too_long_is_refused(script: Script) -> None:
    with pytest.raises(Refused, match=str(MAX_ANSWER)):
        script(f"printf '%{MAX_ANSWER + 1}s' x").secret("Passphrase: ", patient)


def test_a_program_that_prints_without_an_end_is_refused_and_killed(script: Script, tmp_path: Path) -> None:
    way = script("echo $$ > pid; trap '' PIPE; exec cat /dev/zero")
    with pytest.raises(Refused, match=str(MAX_ANSWER)):
        way.secret("Passphrase: ", patient)
    assert not runs(int((tmp_path / "pid").read_text()))


@pytest.mark.parametrize(
    "lines",
    [
        "echo $$ > child; exec sleep 1000",
        "echo $$ > child; exec sleep 1000 >&-",
        "trap '' TERM; echo $$ > child; while :; do sleep 1; done",
        "sleep 1000 & echo $! > child; wait",
        "(trap '' TERM; sh -c 'echo $PPID' > child; while :; do sleep 1; done) & wait",
    ],
    ids=["waits", "closes its output and lingers", "ignores SIGTERM", "has a child", "has one that ignores SIGTERM"],
)
def test_nothing_of_a_question_that_is_over_goes_on(
    script: Script, tmp_path: Path, child: Callable[[], int], lines: str
) -> None:
    with pytest.raises(DeadlineExceeded):
        script(lines).confirm("Allow it?", until(tmp_path / "child"))
    wait_for(lambda: not runs(child()))


def test_a_child_that_keeps_the_output_open_delays_no_answer(script: Script, child: Callable[[], int]) -> None:
    assert script("sleep 1000 & echo $! > child; echo geheim").secret("Passphrase: ", patient) == b"geheim"
    assert runs(child())  # it is no business of ours


def test_a_notice_is_shown_as_long_as_it_is_wanted(script: Script, tmp_path: Path) -> None:
    end = script('echo "$1 $SSH_ASKPASS_PROMPT" > shown; echo $$ > pid; exec sleep 1000').notify("Touch it")
    wait_for(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text().endswith("\n"))
    pid = int((tmp_path / "pid").read_text())
    assert (tmp_path / "shown").read_text() == "Touch it none\n"
    assert runs(pid)
    end()
    assert not runs(pid)


def test_no_descriptor_of_ours_is_open_in_it(script: Script, tmp_path: Path) -> None:
    way = script("ls /dev/fd | tr '\\n' ' '")
    before = way.secret("?", patient)
    inheritable = os.open(tmp_path, os.O_RDONLY)
    os.set_inheritable(inheritable, True)
    try:
        assert way.secret("?", patient) == before
    finally:
        os.close(inheritable)


IGNORED = """
import os, signal, sys
from pageantry.askpass import Askpass
from pageantry.errors import NobodyToAsk
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
way = Askpass(sys.argv[1], os.environ)
for ask in way.confirm, way.secret:
    try:
        ask("?", lambda: None)
    except NobodyToAsk as error:
        print(error)
way.notify("?")()
"""


def test_where_the_system_does_not_tell_how_it_ended_there_is_no_consent(tmp_path: Path) -> None:
    (tmp_path / "no").write_text("#!/bin/sh\nexit 1\n")
    (tmp_path / "no").chmod(0o700)
    command = [sys.executable, "-W", "error", "-c", IGNORED, str(tmp_path / "no")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == ["how the program that asked has ended is not known"] * 2


def test_threads_ask_at_the_same_time_and_nothing_remains(script: Script, leaves_nothing: Callable[..., None]) -> None:
    way = script('[ "$1" = no ] && exit 1; echo "$1"')

    def ask(number: int) -> None:
        assert way.secret(str(number), patient) == str(number).encode()
        with pytest.raises(Refused):
            way.confirm("no", patient)
        way.notify("Touch it")()

    def all_ask() -> None:
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(ask, range(16)))

    leaves_nothing(all_ask, 2)


@pytest.mark.parametrize(
    ("environ", "usable"),
    [
        ({}, False),
        ({"DISPLAY": ":0"}, True),
        ({"DISPLAY": ""}, False),
        ({"WAYLAND_DISPLAY": "wayland-0"}, True),
        ({"SSH_ASKPASS_REQUIRE": "force"}, True),
        ({"SSH_ASKPASS_REQUIRE": "FORCE"}, True),
        ({"SSH_ASKPASS_REQUIRE": "prefer"}, False),
        ({"SSH_ASKPASS_REQUIRE": "prefer", "DISPLAY": ":0"}, True),
        ({"SSH_ASKPASS_REQUIRE": "never", "DISPLAY": ":0"}, False),
        ({"SSH_ASKPASS_REQUIRE": "whatever", "DISPLAY": ":0"}, True),
    ],
)
def test_it_is_used_where_openssh_would(environ: dict[str, str], usable: bool) -> None:
    found = askpass.find({**environ, "SSH_ASKPASS": "/opt/askpass"})
    assert found == ("/opt/askpass" if usable else None)


def test_a_name_is_looked_for_on_path_and_never_in_the_current_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bin").mkdir()
    for path in (tmp_path / "ask", tmp_path / "bin" / "ask"):
        path.touch(0o700)
    monkeypatch.chdir(tmp_path)

    def found(name: str, path: str) -> str | None:
        return askpass.find({"DISPLAY": ":0", "SSH_ASKPASS": name, "PATH": path})

    assert found("ask", f".::{tmp_path / 'bin'}") == str(tmp_path / "bin" / "ask")
    for directories in (".", "", "bin"):
        assert found("ask", directories) is None
    for name in ("./ask", "bin/ask"):
        assert found(name, str(tmp_path)) is None


def test_without_a_name_it_is_the_system_s(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "directory").mkdir()
    (tmp_path / "ask").touch(0o700)
    monkeypatch.setattr(askpass, "_PLACES", [str(tmp_path / name) for name in ("missing", "directory", "ask")])
    assert askpass.find({"DISPLAY": ":0", "SSH_ASKPASS": ""}) == str(tmp_path / "ask")
    (tmp_path / "ask").unlink()
    assert askpass.find({"DISPLAY": ":0"}) is None
