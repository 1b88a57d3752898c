"""What pipes may be called."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pageantry.winpipe import MAX_PATH, path

PREFIX = "\\\\.\\pipe\\"


@pytest.mark.parametrize("name", ["x", r"\\.\pipe\x", "//./pipe/x", r"\\.\PIPE\x", r"//./PiPe\x", r"\/./pipe/x"])
def test_the_ways_to_write_a_name(name: str) -> None:
    assert path(name) == r"\\.\pipe\x"


@pytest.mark.parametrize(
    "name", ["openssh-ssh-agent", "pageant.root.2e9e", "a b", ".x", "x:y", "CON", "Ärger", "😀", "a~1"]
)
def test_names_stay_as_they_are(name: str) -> None:
    assert path(name) == PREFIX + name


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("", "empty"),
        ("//./pipe/", "empty"),
        (r"a\b", "slash"),
        ("a/b", "slash"),
        (r"\x", "slash"),
        ("//./pipe//x", "slash"),
        ("//./pipe/LOCAL/x", "slash"),
        (r"\\server\pipe\x", "another computer"),
        (r"\\localhost\pipe\x", "another computer"),
        (r"\\127.0.0.1\pipe\x", "another computer"),
        (r"\\?\pipe\x", "another computer"),
        (r"\\.\\pipe\x", "no path of a pipe"),
        (r"\\.\mailslot\x", "no path of a pipe"),
        (r"\\.\C:\x", "no path of a pipe"),
        (r"\\?\GLOBALROOT\Device\NamedPipe\x", "no path of a pipe"),
        ("//", "no path of a pipe"),
        ("//./pipe", "empty"),
        ("a\0b", "control"),
        ("a\nb", "control"),
        ("a\x7f", "control"),
        ("a*", "stand for others"),
        ("a?", "stand for others"),
        ("a<", "stand for others"),
        ('a"', "stand for others"),
        ("x.", "dot"),
        ("x ", "space"),
        ("..", "dot"),
        ("x" * (MAX_PATH - len(PREFIX) + 1), "257 characters"),
        ("😀" * 124, "257 characters"),
    ],
)
def test_what_is_no_name_of_a_pipe_here(name: str, why: str) -> None:
    with pytest.raises(ValueError, match=why) as caught:
        path(name)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300


def test_the_longest_names() -> None:
    for name in ("x" * (MAX_PATH - len(PREFIX)), "😀" * 123 + "x"):
        assert len(path(name).encode("utf-16-le")) == 2 * MAX_PATH


@given(st.one_of(st.text(), st.text(r"\/.pipePIPE*x ?😀", max_size=20), st.text().map(lambda text: PREFIX + text)))
def test_what_is_a_path_is_one_of_a_pipe_of_this_computer_and_stays_the_same(name: str) -> None:
    try:
        whole = path(name)
    except ValueError as error:
        assert len(str(error)) < 900  # noqa: PT017 - most texts are names
        return
    assert whole.startswith(PREFIX)
    bare = whole.removeprefix(PREFIX)
    assert bare
    assert not set(bare) & set('\\/*?<>"')
    assert bare[-1] not in ". "
    assert bare.isprintable() or all(char >= " " for char in bare)
    assert len(whole.encode("utf-16-le", "surrogatepass")) <= 2 * MAX_PATH
    assert bare in name
    assert path(whole) == path(bare) == path("//./pipe/" + bare) == whole
