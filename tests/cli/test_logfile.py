"""The log of an agent in a file: whole lines, for its user alone, of bounded size."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pageantry.cli import logfile
from pageantry.cli.log import Log
from pageantry.cli.logfile import OLD, LogFile, tail
from pageantry.errors import Error

TIME = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d ")
unix = pytest.mark.skipif(sys.platform == "win32", reason="modes and limits of UNIX")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "agent.log"


def lines(path: Path) -> list[str]:
    """The lines of a log without their times, which each has."""
    found = path.read_bytes().decode("utf-8").splitlines()
    assert all(TIME.match(line) for line in found), found
    return [line[20:] for line in found]


def said(path: Path, *words: str) -> list[str]:
    """What is in the log after its first line when this was said."""
    with Log(str(path)) as log:
        for line in words:
            log.say(line)
    return lines(path)[1:]


def python(code: str, *arguments: str | Path, **more: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(  # type: ignore[call-overload,no-any-return]
        [sys.executable, "-c", code, *map(str, arguments)], capture_output=True, text=True, timeout=60, **more
    )


def test_each_line_has_the_date_and_the_time_and_the_first_says_what_begins(path: Path) -> None:
    assert said(path, "one", "two\x1b[2J", "dreißig €") == ["one", "two\\x1b[2J", "dreißig €"]
    assert re.fullmatch(rf"pageantry \S+ starts \(process {os.getpid()}\)", lines(path)[0])


def test_it_goes_on_where_the_last_one_ended(path: Path) -> None:
    said(path, "one")
    assert said(path, "two")[0::2] == ["one", "two"]


def test_what_many_say_at_the_same_time_is_all_there_in_whole_lines(path: Path) -> None:
    with Log(str(path)) as log:

        def talk(who: int) -> None:
            for number in range(25):
                log.say(f"{who} says {number}")

        threads = [threading.Thread(target=talk, args=(who,)) for who in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert sorted(lines(path)[1:]) == sorted(f"{who} says {number}" for who in range(8) for number in range(25))


# Failures


def test_a_failure_is_told_there_too_with_what_to_do(path: Path) -> None:
    with pytest.raises(Error), Log(str(path)):
        raise Error("the pipe is another's", "end that")
    with pytest.raises(OSError, match="gone"), Log(str(path)):
        raise OSError(2, "gone", "C:\\keys")
    assert lines(path)[1::2] == ["failed: the pipe is another's; end that", "failed: C:\\keys: gone"]


def test_of_a_mistake_of_ours_the_place_is_told_and_no_value(path: Path) -> None:
    with pytest.raises(ValueError, match="geheim"), Log(str(path)):
        raise ValueError("geheim")
    (line,) = lines(path)[1:]
    assert line.startswith(f"failed: ValueError in {__file__}, line ")
    assert "geheim" not in line


def test_an_end_that_was_wished_is_no_failure(path: Path) -> None:
    for end in (KeyboardInterrupt, SystemExit):
        with pytest.raises(end), Log(str(path)):
            raise end
    assert len(lines(path)) == 2


# Whose it is


@unix
def test_it_is_made_for_its_user_alone(path: Path) -> None:
    before = os.umask(0)
    try:
        said(path, "one")
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.skipif(sys.platform != "win32", reason="access lists of Windows")
def test_it_is_made_for_its_user_alone_by_its_access_list(path: Path) -> None:
    if sys.platform == "win32":
        from pageantry import acl

        said(path, "one")
        assert acl.others(str(path)) == []


def refused(path: Path) -> str:
    with pytest.raises(Error) as caught:
        Log(str(path))
    assert caught.value.hint
    return str(caught.value)


def test_a_symbolic_link_is_not_followed(path: Path, tmp_path: Path, symlink: Callable[[Path, Path], None]) -> None:
    for target in (tmp_path / "there", tmp_path / "not there"):
        (tmp_path / "there").write_text("mine")
        symlink(target, path)
        assert str(path) in refused(path)
        path.unlink()
    assert (tmp_path / "there").read_text() == "mine"
    assert not (tmp_path / "not there").exists()


def test_what_is_put_in_its_place_while_it_runs_is_not_written_to(
    path: Path, tmp_path: Path, symlink: Callable[[Path, Path], None]
) -> None:
    (tmp_path / "mine").write_text("mine")
    with Log(str(path)) as log:
        log.say("one")
        log.flush()
        path.rename(tmp_path / "moved")
        symlink(tmp_path / "mine", path)
        for number in range(3):
            log.say(f"lost {number}")
        log.flush()
        path.unlink()
        log.say("two")
    assert (tmp_path / "mine").read_text() == "mine"
    assert lines(tmp_path / "moved")[1:] == ["one"]
    assert lines(path) == ["(3 lines were left out here)", "two"]


def test_a_file_with_two_names_is_refused(path: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("mine")
    (tmp_path / "mine").chmod(0o600)
    os.link(tmp_path / "mine", path)
    assert "not a file" in refused(path)
    assert path.read_text() == "mine"


def test_a_directory_is_refused(path: Path) -> None:
    path.mkdir()
    assert str(path) in refused(path)


@unix
@pytest.mark.parametrize("mode", [0o640, 0o602])
def test_a_file_that_others_can_use_is_refused(path: Path, mode: int) -> None:
    path.touch()
    path.chmod(mode)
    assert refused(path) == f"others can read or write {path}"


@unix
def test_a_file_of_another_s_is_refused(path: Path) -> None:
    if sys.platform != "win32":
        if os.geteuid():
            pytest.skip("only root gives files away")
        path.touch(mode=0o600)
        os.chown(path, 65534, -1)
        assert refused(path) == f"{path} belongs to another user"


@unix
@pytest.mark.parametrize("device", ["/dev/null", "/dev/tty", "fifo"])
def test_what_is_no_file_is_refused_and_nobody_is_waited_for(tmp_path: Path, device: str) -> None:
    if sys.platform != "win32":
        if device == "fifo":
            os.mkfifo(tmp_path / device, 0o600)
        refused(tmp_path / device)


@pytest.mark.skipif(sys.platform != "win32", reason="names of Windows' devices")
@pytest.mark.parametrize("device", ["NUL", "CON", "\\\\.\\pipe\\nobody"])
def test_devices_and_pipes_are_refused(device: str) -> None:
    with pytest.raises(Error):
        Log(device)


def test_a_directory_that_is_missing_is_named(tmp_path: Path) -> None:
    path = tmp_path / "missing" / "log"
    assert refused(path).startswith(f"the log cannot be written to {path}: ")


@unix
def test_a_directory_that_cannot_be_written_to_is_named(
    as_nobody: Callable[[], AbstractContextManager[None]],
) -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as made:
        os.chmod(made, 0o555)
        with as_nobody():
            assert refused(Path(made) / "log") == f"the log cannot be written to {made}/log: Permission denied"


# Its size


def test_before_it_is_too_large_it_is_begun_anew(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logfile, "MAX_SIZE", 1000)
    old = Path(f"{path}{OLD}")
    for runs in range(3):
        said(path, *(f"{runs} line {number}" for number in range(100)))
    assert path.stat().st_size <= 1000
    assert 900 < old.stat().st_size <= 1000
    kept = lines(old) + lines(path)
    assert kept == [f"2 line {number}" for number in range(100 - len(kept), 100)]
    assert sorted(one.name for one in path.parent.iterdir()) == [path.name, old.name]


@unix
def test_the_file_that_it_is_begun_anew_in_is_private(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logfile, "MAX_SIZE", 200)
    before = os.umask(0)
    try:
        said(path, *("line" for _ in range(20)))
    finally:
        os.umask(before)
    assert {one.stat().st_mode & 0o777 for one in path.parent.iterdir()} == {0o600}


def test_an_old_one_that_cannot_be_replaced_costs_no_more_than_lines(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logfile, "MAX_SIZE", 200)
    old = Path(f"{path}{OLD}")
    old.mkdir()
    with Log(str(path)) as log:
        for number in range(20):
            log.say(f"line {number}")
        log.flush()
        assert path.stat().st_size <= 200
        old.rmdir()
        log.say("again")
    kept = len(lines(old)) - 1
    assert lines(path) == [f"({20 - kept} lines were left out here)", "again"]


#: Two that write to one log which has room for all their lines in two files.
_WRITER = """
import sys
from pageantry.cli import logfile
logfile.MAX_SIZE = 60_000
log = logfile.LogFile(sys.argv[1])
print(flush=True)
sys.stdin.readline()
for number in range(500):
    try:
        log.append(f"{sys.argv[2]} wrote {number:04}, and so on to the end\\n".encode())
    except OSError as error:
        sys.exit(f"{number}: {error}")
"""


def test_programs_that_share_one_lose_no_line_when_it_is_begun_anew(path: Path) -> None:
    command = [sys.executable, "-c", _WRITER, str(path)]
    writers = [
        subprocess.Popen([*command, str(who)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for who in range(4)
    ]
    for writer in writers:
        assert writer.stdout
        assert writer.stdout.readline() == "\n"
    for writer in writers:
        assert writer.stdin
        writer.stdin.write("\n")
        writer.stdin.flush()
    for writer in writers:
        writer.communicate(timeout=60)
        assert writer.returncode == 0
    found = [line for one in (path, Path(f"{path}{OLD}")) for line in one.read_text().splitlines()]
    assert max(one.stat().st_size for one in path.parent.iterdir()) <= 60_000
    assert sorted(found) == sorted(
        f"{who} wrote {number:04}, and so on to the end" for who in range(4) for number in range(500)
    )


@pytest.mark.skipif(sys.platform != "win32", reason="elsewhere readers keep nobody from giving a file another name")
def test_a_reader_who_keeps_it_from_being_begun_anew_costs_lines_that_are_counted(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logfile, "MAX_SIZE", 200)
    with Log(str(path)) as log:
        with path.open():
            for number in range(20):
                log.say(f"line {number}")
            log.flush()
            assert path.stat().st_size <= 200
        log.say("again")
    kept = len(lines(Path(f"{path}{OLD}"))) - 1
    assert lines(path) == [f"({20 - kept} lines were left out here)", "again"]


# A disk that is full

_FULL = """
import resource, sys
from pageantry.cli.log import Log
limit = resource.RLIMIT_FSIZE
resource.setrlimit(limit, (1000, -1))
with Log(sys.argv[1]) as log:
    for number in range(100):
        log.say(f"line {number}")
    log.flush()
    resource.setrlimit(limit, (-1, -1))
    log.say("there is room again")
    log.say("and more")
"""


@unix
def test_what_does_not_fit_on_the_disk_is_left_out_and_counted_and_the_log_goes_on(path: Path) -> None:
    assert python(_FULL, path).returncode == 0
    data = path.read_bytes()
    written, later = data[:1000], data[1000:].decode()
    assert written.startswith(b"20")
    if not written.endswith(b"\n"):  # what follows does not join a line that broke off
        assert later.startswith("\n")
        later = later[1:]
    left_out = 101 - written.count(b"\n")  # the first line is of the start
    assert [line[20:] for line in later.splitlines()] == [
        f"({left_out} lines were left out here)",
        "there is room again",
        "and more",
    ]


@unix
def test_a_disk_that_is_full_is_told_at_the_start(path: Path) -> None:
    code = (
        "import resource, sys; from pageantry.cli.log import Log; "
        "resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0)); Log(sys.argv[1])"
    )
    assert f"the log cannot be written to {path}: File too large" in python(code, path).stderr


# Without any standard error

_NOBODY = """
import os, sys
assert sys.stderr is None
from pageantry.cli.log import Log
number = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT)
os.dup2(number, 2)
log = Log()
log.say("a line")
log.flush()
log.close()
"""


@unix
def test_what_took_the_place_of_standard_error_gets_no_lines(tmp_path: Path) -> None:
    done = subprocess.run(["sh", "-c", 'exec "$@" 2>&-', "sh", sys.executable, "-c", _NOBODY, tmp_path / "file"])
    assert done.returncode == 0
    assert (tmp_path / "file").read_bytes() == b""


# Its end


def test_its_end_is_what_came_since(path: Path) -> None:
    assert tail(str(path)) == []
    path.write_bytes(b"one\ntwo\n")
    assert tail(str(path)) == ["one", "two"]
    assert tail(str(path), 4) == ["two"]
    assert tail(str(path), 8) == []
    assert tail(str(path), 9) == ["one", "two"]  # it was begun anew


@given(st.lists(st.text(st.characters(categories=["L", "N", "P", "Zs"]), min_size=1, max_size=3000), max_size=30))
def test_its_end_is_whole_lines(words: list[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "log"
        path.write_bytes("".join(f"{line}\n" for line in words).encode())
        found = tail(str(path))
    assert found == words[len(words) - len(found) :]
    assert len(found) <= 10
    assert bool(found) == bool(words)


def test_the_file_of_a_log_is_let_go_of_at_its_end(path: Path, leaves_nothing: Callable[..., None]) -> None:
    leaves_nothing(lambda: said(path, "one"))


def test_a_home_directory_is_meant_by_a_tilde(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    LogFile("~/log").close()
    assert (tmp_path / "log").exists()
