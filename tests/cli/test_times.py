from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pageantry.cli.times import seconds

UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}


@pytest.mark.parametrize(("text", "total"), [("90", 90), ("15m", 900), ("1h30m", 5400), ("1h5", 3605), ("2W", 1209600)])
def test_times_are_read(text: str, total: int) -> None:
    assert seconds(text) == total


@given(st.lists(st.tuples(st.integers(0, 10**9), st.sampled_from("smhdw")), max_size=4), st.integers(0, 10**9))
def test_parts_add_up(parts: list[tuple[int, str]], last: int) -> None:
    text = "".join(f"{count}{unit}" for count, unit in parts) + str(last)
    assert seconds(text) == sum(count * UNITS[unit] for count, unit in parts) + last


@pytest.mark.parametrize("text", ["", "s", "soon", "1x", "h1", "-1", "+1", "1.5h", " 1", "1 ", "1hm", "٣", "1" * 11])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is no time"):
        seconds(text)


@given(st.text(max_size=6))
def test_nothing_else_happens_to_any_text(text: str) -> None:
    with contextlib.suppress(ValueError):
        assert seconds(text) >= 0
