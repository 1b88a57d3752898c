from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pageantry.endpoints import Endpoint, parse
from pageantry.errors import AddressError


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
        ("assuan:/home/me/.gnupg/S.gpg-agent.ssh", "unix", "/home/me/.gnupg/S.gpg-agent.ssh"),
        ("keys:/a:/b", "keys", "/a:/b"),
        ("keys:~/a", "keys", os.path.expanduser("~/a")),
    ],
)
@pytest.mark.skipif(os.name == "nt", reason="POSIX paths")
def test_an_address_names_its_endpoint(address: str, kind: str, where: str) -> None:
    assert parse(address) == Endpoint(kind, where)


@pytest.mark.parametrize("address", ["", "agent", "unix:", "keys:", "ftp:x", "unix:a\0b", "/a\0b", "keys:/a:"])
def test_what_is_no_address_is_refused_with_a_hint(address: str) -> None:
    with pytest.raises(AddressError) as caught:
        parse(address)
    assert caught.value.hint


@pytest.mark.parametrize(
    "address", ["openssh", "pageant", "pageant-pipe", "pipe:x", "winsock:/x", "stdio:wsl", "cygwin:/x"]
)
def test_ways_that_this_version_lacks_are_named(address: str) -> None:
    with pytest.raises(AddressError, match="cannot be reached by this version"):
        parse(address)


@given(st.text())
def test_any_text_is_an_endpoint_or_no_address(text: str) -> None:
    try:
        endpoint = parse(text)
    except AddressError:
        return
    assert parse(endpoint.address) == endpoint
