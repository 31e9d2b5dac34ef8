"""Job parameters and other values typed at the command line.

What belongs here: ``--params``, ``--param``, ``--keys-from`` and durations as values.  What does not: whether a
workflow takes them, which the workflow says.
"""

import json
import re
import sys
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

from geo_assets.errors import ParameterError

__all__ = ["parse_duration", "parse_parameters", "read_keys"]

_DURATION_PART = re.compile(r"(\d+(?:\.\d+)?)\s*([smhdw])")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}


def parse_parameters(params: str | None, pairs: Sequence[str]) -> dict[str, Any]:
    """Parameters from ``--params`` (JSON, or ``@file``) with each ``--param k=v`` put over them.

    A value that is JSON is taken as such, any other as text; a dotted name nests: ``filter.prefix=a/``.

    Raises:
        ParameterError: no JSON object, no such file, a pair without ``=``, or a name used both ways.
    """
    parameters = _parse_object(params) if params is not None else {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        path = name.split(".")
        if not equals or not all(path):
            raise ParameterError(f"--param '{pair}': write name=value (dots nest: filter.prefix=a/)")
        _put(parameters, path, _parse_value(value), name)
    return parameters


def read_keys(source: str) -> list[str]:
    """Keys from a file, one a line, empty lines left out; ``-`` is stdin.

    Raises:
        ParameterError: the file cannot be read; names it.
    """
    text = sys.stdin.read() if source == "-" else _read(Path(source), "--keys-from")
    # split at newlines only: other separators may be part of a name
    return [line for line in (raw.removesuffix("\r") for raw in text.split("\n")) if line.strip()]


_LONGEST = timedelta(days=36500)
"""A century: what lies further back is before any ledger, and soon before the calendar."""


def parse_duration(text: str) -> timedelta:
    """A length of time such as ``90s``, ``15m``, ``2h``, ``1d12h``, ``2w``.

    Raises:
        ParameterError: it is none.
    """
    compact = text.strip().lower()
    parts = _DURATION_PART.findall(compact)
    if not parts or "".join(f"{number}{unit}" for number, unit in parts) != compact.replace(" ", ""):
        raise ParameterError(f"'{text}' is no length of time: write for example 90s, 15m, 2h, 1d12h or 2w")
    try:
        length = timedelta(seconds=sum(float(number) * _SECONDS[unit] for number, unit in parts))
    except OverflowError:
        length = timedelta.max
    if length > _LONGEST:
        raise ParameterError(f"'{text}' is too long a time (at most {_LONGEST.days} days)")
    return length


def _parse_object(text: str) -> dict[str, Any]:
    source = "--params"
    if text.startswith("@"):
        source = f"--params {text}"
        text = _read(Path(text[1:]), "--params")
    try:
        parsed = json.loads(text)
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise ParameterError(f"{source} is not JSON ({error.msg}, {where}); quote it for the shell: '{{…}}'") from None
    except (ValueError, RecursionError) as error:  # a number of thousands of digits, or nesting as deep
        raise ParameterError(f"{source} cannot be read ({error})") from None
    if not isinstance(parsed, dict):
        raise ParameterError(f'{source} must be a JSON object such as {{"n": 3}}, not {type(parsed).__name__}')
    return parsed


def _parse_value(text: str) -> Any:
    try:
        return json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        return text


def _refuse_constant(name: str) -> None:
    raise ValueError(name)  # NaN and Infinity are no JSON, so they are text


def _put(parameters: dict[str, Any], path: Sequence[str], value: Any, name: str) -> None:
    inner = parameters
    for part in path[:-1]:
        below = inner.setdefault(part, {})
        if not isinstance(below, dict):
            raise ParameterError(f"--param {name}: '{part}' has a value already, so nothing can be nested in it")
        inner = below
    inner[path[-1]] = value


def _read(path: Path, option: str) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise ParameterError(f"{option}: {path} cannot be read ({error.strerror})") from None
    except UnicodeDecodeError:
        raise ParameterError(f"{option}: {path} is not UTF-8 text") from None
