"""Parameters, keys and lengths of time as typed at the command line."""

from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from geo_assets.cli.parameters import parse_duration, parse_parameters, read_keys
from geo_assets.errors import ParameterError


@pytest.mark.parametrize(
    ("params", "pairs", "expected"),
    [
        (None, [], {}),
        ('{"n": 3}', [], {"n": 3}),
        ('{"n": 3}', ["n=4"], {"n": 4}),
        (None, ["n=4", "message=hello world", "rate=0.5", "on=true", "none=null"], None),
        (None, ["message=a=b"], {"message": "a=b"}),
        (None, ["message="], {"message": ""}),
        (None, ['message="5"'], {"message": "5"}),
        (None, ["limit=NaN"], {"limit": "NaN"}),
        (None, ["filter.prefix=a/", "filter.min_size_mb=1"], {"filter": {"prefix": "a/", "min_size_mb": 1}}),
        ('{"filter": {"prefix": "x"}}', ['filter.extensions=[".tif"]'], None),
    ],
)
def test_parameters_come_from_json_and_pairs(params: str | None, pairs: list[str], expected: Any) -> None:
    others = {
        5: {"n": 4, "message": "hello world", "rate": 0.5, "on": True, "none": None},
        1: {"filter": {"prefix": "x", "extensions": [".tif"]}},
    }
    assert parse_parameters(params, pairs) == (expected if expected is not None else others[len(pairs)])


def test_parameters_come_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "params.json"
    path.write_text('{"message": "ä"}', encoding="utf-8")
    assert parse_parameters(f"@{path}", []) == {"message": "ä"}


@pytest.mark.parametrize(
    ("params", "pairs", "said"),
    [
        ("{", [], "not JSON"),
        ("[1]", [], "must be a JSON object"),
        ("@/no/such/file.json", [], "/no/such/file.json cannot be read"),
        (None, ["n"], "write name=value"),
        (None, ["=3"], "write name=value"),
        (None, ["a..b=3"], "write name=value"),
        (None, ["filter=1", "filter.prefix=a"], "'filter' has a value already"),
    ],
)
def test_what_cannot_be_parameters_is_refused(params: str | None, pairs: list[str], said: str) -> None:
    with pytest.raises(ParameterError, match=r"^--param") as refused:
        parse_parameters(params, pairs)
    assert said in str(refused.value)


def test_a_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "keys").write_bytes(b"\xff\xfe")
    with pytest.raises(ParameterError, match="not UTF-8"):
        read_keys(str(tmp_path / "keys"))


def test_keys_are_lines_and_nothing_but_line_breaks_part_them(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    path.write_bytes("one\r\n\n two \nthr\u2028ee\n".encode())
    assert read_keys(str(path)) == ["one", " two ", "thr\u2028ee"]


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("15m", 900), ("2h", 7200), ("1d12h", 129_600), (" 2W ", 1_209_600), ("0.5h", 1800)],
)
def test_lengths_of_time(text: str, seconds: int) -> None:
    assert parse_duration(text) == timedelta(seconds=seconds)


@pytest.mark.parametrize("text", ["", "2", "h", "2 hours", "-2h", "2h and", "99999999999999w"])
def test_what_is_no_length_of_time_is_refused(text: str) -> None:
    with pytest.raises(ParameterError, match="time"):
        parse_duration(text)


@given(st.text())
def test_any_text_is_a_length_of_time_or_refused(text: str) -> None:
    with suppress(ParameterError):
        assert parse_duration(text) >= timedelta(0)
