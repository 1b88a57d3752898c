from __future__ import annotations

import hashlib
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pageantry.endpoints.pageant import BLOCK, name_for, pipe_name, user_name

#: What Pageant's name ends in where CryptProtectMemory changes nothing.
PLAIN = "2e9e7389b30cd8240bf15518e9a228d6537dc38d64b2070a189ca2fe5452d492"


def test_an_unscrambled_block_gives_the_name_that_pageant_has_then() -> None:
    assert name_for(b"root", BLOCK) == f"pageant.root.{PLAIN}".encode()


@pytest.mark.parametrize(
    "user", [b"John Smith", b"j.smith", b"a" * 25, b"x" * 64, b"caf\xe9", b"\x83", b"m\xc3\xbcller", b""]
)
def test_a_user_is_named_as_the_system_says_byte_for_byte(user: bytes) -> None:
    assert name_for(user, BLOCK) == b"pageant." + user + b"." + PLAIN.encode()


@given(st.binary(min_size=16, max_size=16))
def test_all_of_the_block_counts_beyond_a_nul_too(block: bytes) -> None:
    assert name_for(b"me", block).endswith(hashlib.sha256(b"\0\0\0\x10" + block).hexdigest().encode())


@pytest.mark.parametrize(
    ("principal", "account", "user"),
    [
        (b"me@example.org", b"EXAMPLE-me", b"me"),
        (b"me@work@example.org", b"x", b"me"),
        (b"me", b"x", b"me"),
        (b"J Smith.Jr@example.org", b"x", b"J Smith.Jr"),
        (b"\x83@rest@example.org", b"x", b"\x83"),  # a Japanese character whose second byte is an "@"
        (b"@example.org", b"x", b""),
        (None, b"me", b"me"),
        (None, b"me@home", b"me@home"),  # accounts of this computer are not cut
        (None, None, None),
    ],
)
def test_the_principal_up_to_the_first_at_comes_before_the_account(
    principal: bytes | None, account: bytes | None, user: bytes | None
) -> None:
    assert user_name(principal, account) == user


if sys.platform == "win32":
    import ctypes

    from pageantry import winpipe
    from pageantry.endpoints import _session
    from pageantry.errors import Unreachable

    def test_the_name_can_be_that_of_a_pipe_and_does_not_change_while_we_run() -> None:
        assert pipe_name() == pipe_name()
        assert winpipe.path(pipe_name()).startswith("\\\\.\\pipe\\pageant.")

    def test_the_block_is_scrambled_the_same_way_each_time() -> None:
        assert _session.scrambled(BLOCK) == _session.scrambled(BLOCK)
        assert len(_session.scrambled(BLOCK)) == 16

    @pytest.mark.parametrize("how", ["missing", "failing"])
    @pytest.mark.parametrize("library", ["crypt32.dll", "secur32.dll", "advapi32.dll"])
    def test_a_library_that_is_missing_or_fails_is_done_without(
        monkeypatch: pytest.MonkeyPatch, library: str, how: str
    ) -> None:
        load = ctypes.WinDLL

        class Failing:
            def __getattr__(self, name: str) -> Any:
                return ctypes.WINFUNCTYPE(ctypes.c_int)(lambda *_: 0)

        def without(name: str, **options: Any) -> Any:
            if name != library:
                return load(name, **options)
            if how == "missing":
                raise OSError
            return Failing()

        monkeypatch.setattr(ctypes, "WinDLL", without)
        if library == "crypt32.dll":
            assert _session.scrambled(BLOCK) == BLOCK
            assert pipe_name().endswith(PLAIN)
        elif library == "secur32.dll":
            assert _session.principal() is None
            assert _session.account()
            assert pipe_name()
        else:
            assert _session.account() is None
            if _session.principal() is None:
                with pytest.raises(Unreachable, match="who you are"):
                    pipe_name()

    def test_a_name_is_read_in_the_systems_code_page_however_broken() -> None:
        assert _session.text(b"pageant.me") == "pageant.me"
        assert _session.text("é".encode("mbcs")) == "é".encode("mbcs").decode("mbcs")
        assert isinstance(_session.text(b"\x83\xff\x81"), str)
        assert _session.text(b"") == ""
