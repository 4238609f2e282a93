"""Durations and sizes: the forms that are read, and what the error says of any other."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stackbus.units import SECONDS, parse_duration, parse_size


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("0s", 0), ("30s", 30), ("10m", 600), ("1.5h", 5400), ("24h", 86_400), ("2w", 1_209_600)],
)
def test_a_duration_is_a_number_and_a_unit(text: str, seconds: int) -> None:
    assert parse_duration(text) == timedelta(seconds=seconds)


@given(st.integers(0, 99_999), st.sampled_from(sorted(SECONDS)))
def test_every_whole_duration_is_read(number: int, unit: str) -> None:
    assert parse_duration(f"{number}{unit}") == timedelta(seconds=number * SECONDS[unit])


@pytest.mark.parametrize("text", ["", "5", "h", "-1h", "1 h", "1H", "1h30m", "1.h", "24h\n", "१h"])
def test_any_other_text_is_not_a_duration(text: str) -> None:
    with pytest.raises(ValueError, match="not a duration: give a number and a unit"):
        parse_duration(text)


def test_a_duration_that_python_cannot_hold_is_refused() -> None:
    with pytest.raises(ValueError, match="too long"):
        parse_duration("999999999w")


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("1B", 1),
        ("2kB", 2_000),
        ("2KB", 2_000),
        ("3MB", 3_000_000),
        ("512MiB", 512 * 1024**2),
        ("1GiB", 1024**3),
        ("9TiB", 9 * 1024**4),
    ],
)
def test_a_size_is_a_number_and_a_unit(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "1", "GiB", "1.5GiB", "1 GiB", "1gib", "1kiB", "1PB", "-1B"])
def test_any_other_text_is_not_a_size(text: str) -> None:
    with pytest.raises(ValueError, match="not a size: give a number and a unit"):
        parse_size(text)
