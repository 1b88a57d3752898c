from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pageantry.endpoints import Endpoint, is_pipe, parse
from pageantry.errors import AddressError, Unreachable


@pytest.mark.parametrize(
    ("address", "kind", "where"),
    [
        ("unix:/run/agent", "unix", "/run/agent"),
        ("/run/agent", "unix", "/run/agent"),
        ("./agent", "unix", os.path.abspath("agent")),
        ("unix:agent", "unix", os.path.abspath("agent")),
        ("~/agent", "unix", os.path.expanduser("~/agent")),
        ("unix:~/agent", "unix", os.path.expanduser("~/agent")),
        ("/with:colon", "unix", "/with:colon"),
        ("//host/pipe/agent", "unix", os.path.abspath("//host/pipe/agent")),
        ("unix://./pipe/agent", "unix", os.path.abspath("//./pipe/agent")),
        ("assuan:/home/me/.gnupg/S.gpg-agent.ssh", "assuan", "/home/me/.gnupg/S.gpg-agent.ssh"),
        ("assuan:~/S.gpg-agent.ssh", "assuan", os.path.expanduser("~/S.gpg-agent.ssh")),
        ("cygwin:agent.1", "cygwin", os.path.abspath("agent.1")),
        ("winsock:/mnt/c/agent", "winsock", "/mnt/c/agent"),
        ("keys:/a:/b", "keys", "/a:/b"),
        ("keys:~/a", "keys", os.path.expanduser("~/a")),
    ],
)
@pytest.mark.skipif(os.name == "nt", reason="POSIX paths")
def test_an_address_names_its_endpoint(address: str, kind: str, where: str) -> None:
    assert parse(address) == Endpoint(kind, where)


@pytest.mark.parametrize(
    ("address", "kind", "where"),
    [
        ("C:\\Users\\me\\agent", "unix", "C:\\Users\\me\\agent"),
        ("c:/users/me/agent", "unix", "c:\\users\\me\\agent"),
        ("unix:agent", "unix", os.path.abspath("agent")),
        ("~\\agent", "unix", os.path.join(os.path.expanduser("~"), "agent")),
        ("/tmp/ssh-x/agent.1", "unix", "/tmp/ssh-x/agent.1"),  # Git Bash's, not C:\tmp
        ("unix:\\\\.\\pipe\\agent", "pipe", "agent"),  # or else it would be opened to see what it is
        ("assuan:\\\\.\\pipe\\agent", "pipe", "agent"),
        ("cygwin:/tmp/ssh-x/agent.1", "cygwin", "/tmp/ssh-x/agent.1"),
        ("winsock:~/agent", "winsock", os.path.join(os.path.expanduser("~"), "agent")),
        ("keys:C:\\a;D:\\b", "keys", "C:\\a;D:\\b"),
    ],
)
@pytest.mark.skipif(os.name != "nt", reason="paths of Windows")
def test_an_address_names_its_endpoint_on_windows(address: str, kind: str, where: str) -> None:
    assert parse(address) == Endpoint(kind, where)


@pytest.mark.parametrize(
    ("address", "meant"),
    [
        ("openssh", "openssh"),
        ("pageant", "pageant"),
        ("pageant-pipe", "pageant-pipe"),
        ("pageant-window", "pageant-window"),
        ("stdio:ssh -q host 'socat - $SSH_AUTH_SOCK'", "stdio:ssh -q host 'socat - $SSH_AUTH_SOCK'"),
        ("stdio: relay ", "stdio: relay "),
        ("pipe:agent", "pipe:agent"),
        ("\\\\.\\pipe\\agent", "pipe:agent"),
        ("//./pipe/agent", "pipe:agent"),
        ("\\/.\\PIPE/agent", "pipe:agent"),
        ("pipe://./pipe/agent", "pipe:agent"),
        ("pipe:Ünï cödé.@ 1", "pipe:Ünï cödé.@ 1"),
        ("//./pipe/pageant.me.0123", "pipe:pageant.me.0123"),
        ("\\\\.\\pipe\\OpenSSH-ssh-agent", "openssh"),
        ("pipe:openssh-ssh-agent", "openssh"),
    ],
)
def test_what_is_no_path_has_one_address_whatever_it_was_called(address: str, meant: str) -> None:
    assert parse(address).address == meant


@pytest.mark.parametrize(
    "address",
    ["openssh", "pageant", "pageant-pipe", "pageant-window", "pipe:x", "//./pipe/x", "\\\\.\\pipe\\x"],
)
@pytest.mark.skipif(os.name == "nt", reason="where pipes are")
def test_pipes_and_windows_off_windows_are_unreachable_in_one_line(address: str) -> None:
    with pytest.raises(Unreachable, match=r"^[^\n]*Windows[^\n]*$") as caught:
        parse(address).open()
    assert "unix:PATH" in caught.value.hint


@pytest.mark.parametrize(
    ("address", "why"),
    [
        ("pipe:", "empty"),
        ("//./pipe/", "empty"),
        ("\\\\.\\pipe", "empty"),
        ("\\\\server\\pipe\\openssh-ssh-agent", "another computer"),
        ("\\\\?\\pipe\\x", "another computer"),
        ("pipe://server/pipe/x", "another computer"),
        ("pipe:a\\b", "slash"),
        ("//./pipe/a/b", "slash"),
        ("pipe:a\nb", "control"),
        ("pipe:" + 300 * "x", "309 characters"),
    ],
)
def test_what_can_be_no_pipe_is_refused_before_it_is_touched(address: str, why: str) -> None:
    with pytest.raises(AddressError, match=why) as caught:
        parse(address)
    assert caught.value.hint
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize(
    "address",
    [
        *("", "agent", "stdio", "ftp:x", "unix:", "keys:", "assuan:", "cygwin:", "winsock:", "stdio:", "stdio:  "),
        *("unix:a\0b", "/a\0b", "winsock:a\0b", "stdio:a\0b", "keys:/a" + os.pathsep),
    ],
)
def test_what_is_no_address_is_refused_with_a_hint(address: str) -> None:
    with pytest.raises(AddressError) as caught:
        parse(address)
    assert caught.value.hint


@pytest.mark.parametrize("address", ["openssh:x", "openssh:/x", "pageant:", "pageant-pipe:\\x", "pageant-window:"])
def test_nothing_follows_an_address_that_is_whole(address: str) -> None:
    with pytest.raises(AddressError, match="is a whole address"):
        parse(address)


KINDS = st.sampled_from(["unix:", "winsock:", "assuan:", "cygwin:", "pipe:", "stdio:", "keys:"])


@given(
    st.text()
    | st.text(alphabet="\\/.pieP:agnt-ow~ ").map("\\\\.\\pipe\\".__add__)
    | st.tuples(KINDS, st.text()).map("".join)
)
def test_any_text_is_an_endpoint_or_no_address(text: str) -> None:
    try:
        endpoint = parse(text)
    except AddressError:
        return
    assert parse(endpoint.address) == endpoint


@given(st.text(alphabet="\\/", min_size=2, max_size=2), st.sampled_from("\\/"), st.sampled_from("\\/"))
def test_either_slash_makes_the_path_of_a_pipe(start: str, middle: str, end: str) -> None:
    assert is_pipe(f"{start}.{middle}pipe{end}x")
    assert not is_pipe(f"{start[0]}.{middle}pipe{end}x")
