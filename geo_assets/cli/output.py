"""What commands print: JSON for programs, tables for people.

What belongs here: the two forms and the ``--json`` option.  What does not: which fields a job has (``job_fields``).
"""

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from datetime import UTC, datetime
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from geo_assets.cli.exits import JSON_WANTED
from geo_assets.coremachine.contract import PICTURES

__all__ = [
    "JsonOption",
    "camel",
    "camel_fields",
    "console",
    "note",
    "print_json",
    "print_table",
    "printable",
    "readable",
    "say",
    "styled_status",
    "when",
]

_UNREADABLE = frozenset({PICTURES, "sample", "stac_item", "chunk_paths", "footprint"})
_SAYS_NOTHING: tuple[Any, ...] = (None, [], {})
_MOST_ENTRIES = 20
_MOST_CHARACTERS = 300
_WIDTH_OF_A_PIPE = 10_000
"""A row stays a line where ``grep`` reads it."""


def _remember_json(ctx: typer.Context, value: bool) -> bool:  # noqa: FBT001 - typer calls it so
    ctx.meta[JSON_WANTED] = value
    return value


JsonOption = Annotated[
    bool, typer.Option("--json", help="Print JSON and nothing else on stdout.", callback=_remember_json)
]


def console(*, stderr: bool = False) -> Console:
    """A console for the current stdout or stderr; a pipe gets whole lines and no colours."""
    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() else _WIDTH_OF_A_PIPE
    return Console(file=stream, width=width, highlight=False, soft_wrap=False)


def print_json(value: Any) -> None:
    """Print a value as JSON, two spaces deep."""
    sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=False, default=_jsonable) + "\n")


def camel_fields(value: Any) -> Any:
    """Dataclasses and named tuples for :func:`print_json`, their fields as ``fieldName``; keys of mappings stay."""
    if is_dataclass(value) and not isinstance(value, type):
        return {camel(one.name): camel_fields(getattr(value, one.name)) for one in fields(value)}
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        return {camel(name): camel_fields(inner) for name, inner in value._asdict().items()}
    if isinstance(value, Mapping):
        return {key: camel_fields(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [camel_fields(inner) for inner in value]
    return value


def camel(name: str) -> str:
    """``job_sample`` as ``jobSample``."""
    first, *others = name.split("_")
    return first + "".join(word.capitalize() for word in others)


def readable(value: Any) -> Any:
    """A result as a person wants it on a terminal: without pictures, samples and counters at zero, long lists cut."""
    if isinstance(value, Mapping):
        kept = {name: readable(inner) for name, inner in value.items() if name not in _UNREADABLE}
        return {name: inner for name, inner in kept.items() if inner not in _SAYS_NOTHING and not _is_idle(inner)}
    if isinstance(value, list):
        more = [f"… and {len(value) - _MOST_ENTRIES} more"] if len(value) > _MOST_ENTRIES else []
        return [*(readable(one) for one in value[:_MOST_ENTRIES]), *more]
    if isinstance(value, str) and len(value) > _MOST_CHARACTERS:
        return f"{value[:_MOST_CHARACTERS]}… ({len(value):,} characters)"
    return value


def _is_idle(value: Any) -> bool:
    return isinstance(value, Mapping) and set(value) <= {"count", "examples"} and not value.get("count")


def say(text: str) -> None:
    """Print a line on stdout, as it is."""
    console().print(Text(printable(text, keep_lines=True)), soft_wrap=True)


def note(text: str) -> None:
    """Print a line on stderr, as it is."""
    console(stderr=True).print(Text(printable(text, keep_lines=True)), soft_wrap=True)


def print_table(columns: Sequence[str], rows: Iterable[Sequence[Any]], *, title: str | None = None) -> None:
    """Print rows; on a terminal the last column is folded. A heading that begins with ``>`` aligns to the right."""
    table = Table(title=title, title_justify="left", header_style="bold", box=None, pad_edge=False)
    last = len(columns) - 1
    for position, column in enumerate(columns):
        table.add_column(
            column.removeprefix(">"),
            justify="right" if column.startswith(">") else "left",
            no_wrap=position != last,
            overflow="fold" if position == last else "ellipsis",
        )
    for row in rows:
        table.add_row(*(cell if isinstance(cell, Text) else Text(_cell(cell)) for cell in row))
    terminal = console()
    if terminal.is_terminal:
        terminal.print(table)
        return
    with terminal.capture() as captured:
        terminal.print(table)
    sys.stdout.write("".join(f"{line.rstrip()}\n" for line in captured.get().splitlines()))


def styled_status(status: str) -> Text:
    """A job's or task's status or outcome in its colour."""
    styles = {
        "completed": "green",
        "created": "green",
        "updated": "green",
        "unchanged": "green",
        "processing": "cyan",
        "completed_with_errors": "yellow",
        "skipped": "yellow",
        "cancelled": "yellow",
        "failed": "red",
        "invalid": "red",
    }
    return Text(status, style=styles.get(status, ""))


def when(moment: datetime | None) -> str:
    """A moment in local time, to the second; nothing where there is none."""
    if moment is None:
        return ""
    aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return f"{aware.astimezone():%Y-%m-%d %H:%M:%S}"


def printable(text: str, *, keep_lines: bool = False) -> str:
    """Text that cannot drive a terminal: names of files are other people's."""
    return "".join(
        character if character.isprintable() or (keep_lines and character in "\n\t") else _escaped(character)
        for character in text
    )


def _escaped(character: str) -> str:
    return " " if character in "\n\t" else character.encode("unicode_escape").decode()


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, datetime):
        return when(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return printable(str(value))


def _jsonable(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    return str(value)
