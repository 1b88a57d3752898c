"""The words of ssh-agent(1): read as getopt(3) does, and said so that a shell understands them."""

from __future__ import annotations

import getopt
import os
import shutil
import subprocess

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pageantry.cli.ssh_agent_words import Options, WrongWords, pid_of, quoted, removals, split
from pageantry.cli.ssh_agent_words import settings as shell_settings

word = st.text("acDsdktTuUEOPz-1h ", max_size=4)
path = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=12)


def wrong(*words: str) -> tuple[str, int]:
    """What is said of a command line, and the exit status."""
    with pytest.raises(WrongWords) as caught:
        Options(words)
    return str(caught.value), caught.value.status


@given(st.lists(word, max_size=5))
def test_words_are_divided_as_getopt_does(words: list[str]) -> None:
    try:
        expected = getopt.getopt(words, "cDdksTuUa:E:O:P:t:")
    except getopt.GetoptError:
        with pytest.raises(WrongWords):
            split(words)
        return
    assert split(words) == ([(name[1:], value) for name, value in expected[0]], expected[1])


@pytest.mark.parametrize(
    ("words", "letters", "command"),
    [
        (["-kc"], "kc", []),
        (["-t10", "-sD"], "tsD", []),
        (["-a", "-D", "-c"], "ac", []),
        (["sh", "-c", "true"], "", ["sh", "-c", "true"]),
        (["-t", "1h", "--", "-c"], "t", ["-c"]),
        (["-"], "", ["-"]),
    ],
)
def test_options_combine_and_end_at_the_command(words: list[str], letters: str, command: list[str]) -> None:
    given, rest = split(words)
    assert ("".join(letter for letter, _ in given), rest) == (letters, command)


def test_what_is_not_asked_for_is_as_ssh_agent_has_it() -> None:
    options = Options([])
    assert (options.address, options.digest, options.providers, options.lifetime) == ("", "sha256", None, 0)
    assert options.web_safe == "ssh:*"
    assert not options.csh
    assert not options.foreground


def test_values_are_taken() -> None:
    words = ["-a", "/run/a", "-E", "MD5", "-P/usr/lib/*,/opt/*", "-t1h30m", "-Ono-restrict-websafe"]
    options = Options([*words, "-O", "allow-remote-pkcs11"])
    assert (options.address, options.digest, options.providers) == ("/run/a", "md5", "/usr/lib/*,/opt/*")
    assert (options.lifetime, options.web_safe) == (5400, None)


@pytest.mark.parametrize(
    ("shell", "words", "csh"),
    [
        ("/bin/csh", [], True),
        ("/usr/local/bin/tcsh", [], True),
        ("/bin/csh", ["-s"], False),
        ("/bin/bash", [], False),
        ("/bin/bash", ["-c"], True),
        ("", [], False),
        ("/opt/csh/bin/sh", [], False),
    ],
)
def test_the_shell_tells_its_style(shell: str, words: list[str], csh: bool) -> None:
    assert Options(words, shell).csh is csh


def test_wrong_usage_is_explained_and_has_a_status_of_its_own() -> None:
    for words in (["-z"], ["-a"], ["-t", "soon"], ["-t", "4000000000"], ["-cs"], ["-dd"], ["-Dd"], ["-k", "true"]):
        said, status = wrong(*words)
        assert status == 1
        assert "usage: pageantry ssh-agent" in said
    for words in (["-E", "sha3"], ["-O", "everything"], ["-P", "a", "-P", "b"]):
        said, status = wrong(*words)
        assert status == 255
        assert len(said.splitlines()) == 1


@pytest.mark.parametrize("flag", ["-c", "-s", "-D", "-d", "-k", "-u"])
def test_what_is_for_no_command_goes_with_none(flag: str) -> None:
    assert wrong(flag, "true")[1] == 1


@given(st.integers(2, 2**31 - 1), st.sampled_from(["", " ", "\t", "+", " +"]))
def test_a_process_id_is_read(pid: int, before: str) -> None:
    assert pid_of(f"{before}{pid}") == pid


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "invalid"),
        ("x", "invalid"),
        ("12 ", "invalid"),
        ("1_2", "invalid"),
        ("+-5", "invalid"),
        ("١٢", "invalid"),
        ("0", "too small"),
        ("1", "too small"),
        ("-1", "too small"),
        (str(2**31), "too large"),
        ("9" * 5000, "too large"),
        ("-" + "9" * 5000, "too small"),
    ],
)
def test_what_must_not_be_killed_is_no_process_id(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=f"^{why}$"):
        pid_of(text)


def test_a_plain_path_is_said_as_it_is() -> None:
    plain = "/home/me/.ssh/agent/s.2N0me1rP8M.agent.AQGm8rcWnc"
    assert quoted(plain) == quoted(plain, csh=True) == plain


def test_a_shell_is_told_of_variables_in_its_own_words() -> None:
    variables = {"SSH_AUTH_SOCK": "/tmp/a b", "SSH_AGENT_PID": "7"}
    assert shell_settings(variables, csh=False) == (
        "SSH_AUTH_SOCK='/tmp/a b'; export SSH_AUTH_SOCK;\nSSH_AGENT_PID=7; export SSH_AGENT_PID;\n"
    )
    assert shell_settings(variables, csh=True) == "setenv SSH_AUTH_SOCK '/tmp/a b';\nsetenv SSH_AGENT_PID 7;\n"
    assert removals(["A", "B"], csh=False) == "unset A;\nunset B;\n"
    assert removals(["A", "B"], csh=True) == "unsetenv A;\nunsetenv B;\n"


def evaluated(shell: str, words: str) -> str:
    """What PLACE is after a shell has evaluated these words."""
    if not shutil.which(shell):
        pytest.skip(f"{shell} is not installed")
    script = f"{words}sh -c 'printf %s \"$PLACE\"'\n"
    done = subprocess.run([shell], input=os.fsencode(script), capture_output=True, timeout=30)
    assert done.returncode == 0, done.stderr
    return os.fsdecode(done.stdout)


@pytest.mark.skipif(os.name == "nt", reason="there is no shell of UNIX")
@settings(max_examples=40, deadline=None)
@given(path)
def test_any_path_passes_through_sh(text: str) -> None:
    assert evaluated("sh", shell_settings({"PLACE": text}, csh=False)) == text


@pytest.mark.skipif(os.name == "nt", reason="there is no shell of UNIX")
@pytest.mark.parametrize("text", ["/a b", "/it's", "/$HOME/`id`", "/a!b!", "/a\nb", '/"\\', "/*?[a]{b,c}~", "/ü"])
def test_odd_paths_pass_through_csh(text: str) -> None:
    assert evaluated("tcsh", shell_settings({"PLACE": text}, csh=True)) == text


def test_the_applications_whose_keys_may_sign_anything_can_be_named() -> None:
    assert Options(["-O", "websafe-allow=ssh:*,mine:*"]).web_safe == "ssh:*,mine:*"
