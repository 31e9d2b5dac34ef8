"""The page: a report as one HTML file that wants nothing from anywhere.

What belongs here: the document and its parts.  What does not: numbers (``gathering``), charts (``charts``), the map's
paths (``world``), and what moves in the browser (``page.js``).

Everything in it that comes from files, catalogs and errors passes through ``charts.text`` or, for the script, through
:func:`script_data`.  The page's own policy forbids the browser every address, so that a mistake cannot become a
request.
"""

import json
import shlex
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from importlib.resources import files
from itertools import takewhile
from typing import Any, Final
from urllib.parse import quote

from geo_assets.coremachine.ledger import FailureGroup
from geo_assets.report.charts import bars, columns, number, size, text
from geo_assets.report.facts import Dataset, Report
from geo_assets.report.world import COLOURS, HEIGHT, WIDTH, colour_numbers, map_content, world_paths

__all__ = ["MEDIA_TYPE", "PAGE_NAME", "POLICY", "partition_url", "render", "script_data"]

MEDIA_TYPE: Final = "text/html; charset=utf-8"
PAGE_NAME: Final = "catalog.html"
POLICY: Final = (
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
)
"""What a browser may do with the page: use what is in it."""

_FORMATS = {
    "image/tiff; application=geotiff; profile=cloud-optimized": "Cloud Optimized GeoTIFF",
    "image/tiff; application=geotiff": "GeoTIFF",
    "image/tiff": "TIFF",
    "application/vnd.apache.parquet": "GeoParquet",
    "application/x-postgresql": "PostGIS table",
    "application/geo+json": "GeoJSON",
    "application/geopackage+sqlite3": "GeoPackage",
    "image/jp2": "JPEG 2000",
}
_NOTHING = "\u2013"
_LARGEST = 20
_COLUMNS_ON_A_PHONE = 3
_MOST_FAILURES = 30
_MAP_CHARACTERS = 3_600_000
"""Most characters of the footprints that the script gets: with all else the page stays below 5 MB."""
_LONGEST_ID = 300
_LONGEST_NAME = 60
"""Of a name in a table; the whole name is its tooltip."""


def render(report: Report) -> str:
    """The page as text; it is valid UTF-8 whatever the names in it were."""
    drawn, data = _map_data(report)
    parts = [
        _tiles(report),
        _problems(report),
        _map(report, drawn),
        _counts(report),
        _growth(report),
        _failures(report),
        _largest(report),
        _state(report),
    ]
    document = (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{text(POLICY)}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="referrer" content="no-referrer">\n'
        f"<title>Catalog overview</title>\n<style>\n{_resource('page.css')}</style>\n</head>\n<body>\n"
        f'<a class="skip" href="#main">Skip to the content</a>\n{_header(report)}\n<main id="main">\n'
        + "\n".join(part for part in parts if part)
        + f"\n</main>\n{_footer(report)}\n"
        f'<script type="application/json" id="data">{data}</script>\n'
        f"<script>\n{_resource('page.js')}</script>\n</body>\n</html>\n"
    )
    return document.encode("utf-8", "replace").decode()


def script_data(value: Any) -> str:
    """JSON for a script element: nothing in it can end the element or begin a comment or another one."""
    written = json.dumps(value, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return written.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def partition_url(ui_url: str, partition: tuple[str, str]) -> str:
    """Where Dagster's UI shows a partition."""
    asset, key = partition
    return f"{ui_url.rstrip('/')}/assets/{quote(asset, safe='')}?view=partitions&partition={quote(key, safe='')}"


@cache
def _resource(name: str) -> str:
    return files(__package__).joinpath(name).read_text(encoding="utf-8")


# --- head and foot -------------------------------------------------------------------------------------------------


def _header(report: Report) -> str:
    moment = report.made_at
    said = f"{moment:%-d %B %Y, %H:%M} {moment.tzname() or ''}"
    return (
        "<header><h1>Catalog overview</h1>"
        f'<p>As of <time datetime="{moment.isoformat(timespec="seconds")}">{text(said)}</time>'
        f"{_ui_link(report)}</p></header>"
    )


def _ui_link(report: Report) -> str:
    return "" if not _is_web(report.ui_url) else f' · <a href="{text(report.ui_url)}">Open Dagster</a>'


def _is_web(url: str | None) -> bool:
    return url is not None and url.lower().startswith(("http://", "https://"))


def _footer(report: Report) -> str:
    stores = "".join(f"<dt>{text(what)}</dt><dd>{text(which)}</dd>" for what, which in report.stores)
    return (
        f'<footer><dl aria-label="Stores">{stores}</dl><p>One file, made by geo-assets; it loads nothing from anywhere.'
        " Coastlines: Natural Earth.</p></footer>"
    )


def _tiles(report: Report) -> str:
    failed = report.failed_jobs
    away = {part for part, _ in report.problems}
    shown = [
        ("items", number(report.items), ""),
        ("collections", number(report.collection_count), ""),
        ("tables", number(report.tables), ""),
        ("containers", _NOTHING if report.containers is None else number(report.containers), ""),
        ("data catalogued", size(report.bytes), ""),
        ("failures open", _NOTHING if "jobs" in away else number(failed), "bad" if failed else "good"),
    ]
    tiles = "".join(
        f'<div class="{style}"><dt>{text(label)}</dt><dd>{text(value)}</dd></div>' for label, value, style in shown
    )
    return f'<dl class="tiles" aria-label="In numbers">{tiles}</dl>'


def _problems(report: Report) -> str:
    if not report.problems:
        return ""
    lines = "".join(f"<li><b>{text(part)}</b>: {text(why)}</li>" for part, why in report.problems)
    return (
        '<section class="card warn" aria-labelledby="h-away"><h2 id="h-away">Not in this report</h2>'
        f"<ul>{lines}</ul></section>"
    )


def _card(key: str, title: str, content: str, *, note: str = "") -> str:
    below = f'<p class="note">{note}</p>' if note else ""
    return (
        f'<section class="card" aria-labelledby="h-{key}"><h2 id="h-{key}">{text(title)}</h2>{content}{below}</section>'
    )


# --- map -----------------------------------------------------------------------------------------------------------


def _map(report: Report, drawn: int) -> str:
    numbers = colour_numbers(report)
    paths = world_paths()
    world = "".join(f'<path class="{name}" id="{name}" d="{path}"/>' for name, path in paths.items())
    shapes = "".join(
        f'<path class="shapes" style="fill:var(--c{colour});stroke:var(--c{colour})" d="{outlines}"/>'
        f'<path class="dots" style="stroke:var(--c{colour})" d="{dots}"/>'
        for colour, outlines, dots in map_content(report)
    )
    said = f"World map of the footprints of {number(report.items - report.without_place)} items"
    figure = (
        f'<figure><div class="map"><svg viewBox="0 0 {WIDTH:g} {HEIGHT:g}" role="img" aria-label="{text(said)}">'
        f'{world}{shapes}</svg><div class="zoom"><button type="button" aria-label="Zoom in">+</button>'
        '<button type="button" aria-label="Zoom out">\u2212</button>'
        '<button type="button" aria-label="Whole world">⤢</button></div>'
        f'<div class="tip" role="status"></div></div>{_legend(report, numbers)}</figure>'
    )
    return _card("map", "Where the data lies", figure, note=_map_note(report, drawn))


def _legend(report: Report, numbers: Mapping[str, int]) -> str:
    own = [one for one in report.collections if numbers[one.id] < COLOURS]
    entries = [(str(numbers[one.id]), one.id, one.title, one.items) for one in own]
    others = [one for one in report.collections if numbers[one.id] == COLOURS]
    if others:
        entries.append((str(COLOURS), f"{len(others):,} more", "", sum(one.items for one in others)))
    if not entries:
        return '<p class="none">No collections yet.</p>'
    labels = "".join(
        f'<label title="{text(title)}"><input type="checkbox" checked value="{colour}" autocomplete="off">'
        f'<span class="swatch" style="background:var(--c{colour})"></span><span><bdi>{text(name)}</bdi>'
        f" <small>{number(items)}</small></span></label>"
        for colour, name, title, items in entries
    )
    return f"<fieldset><legend>Collections</legend>{labels}</fieldset>"


def _map_note(report: Report, drawn: int) -> str:
    notes = []
    if report.cells:
        notes.append(
            f"Shades count the items with their middle in a cell of {report.cell_degrees}°, in the colour of the"
            f" collection that most are of; closer, the {number(drawn)} largest datasets are outlined."
        )
    elif drawn < len(report.datasets) - report.without_place:
        notes.append(f"The {number(drawn)} largest datasets are drawn one by one.")
    if report.without_place:
        notes.append(f"{number(report.without_place)} items have no place that can be drawn.")
    return " ".join(notes)


def _map_data(report: Report) -> tuple[int, str]:
    """How many footprints are drawn one by one, and the data for it: the largest, as many as the page has room for."""
    most = len(report.datasets)
    while True:
        data = _map_rows(report, most)
        written = script_data(data)
        if len(written) <= _MAP_CHARACTERS or not most:
            return len(data["items"]), written
        most = int(most * _MAP_CHARACTERS / len(written) * 0.95)


def _map_rows(report: Report, most: int) -> dict[str, Any]:
    """What the script draws: short rows instead of objects, as there are many."""
    numbers = colour_numbers(report)
    names = [one.id for one in report.collections]
    positions = {name: position for position, name in enumerate(names)}
    links = _is_web(report.ui_url)
    # beside each other in order, names have most in common
    drawn = [one for one in report.datasets[:most] if one.rings]
    drawn.sort(key=lambda one: (one.collection, one.name))
    names_drawn, keys, pictures = _Shortened(), _Shortened(), _Shortened()
    return {
        "collections": [[name[:_LONGEST_ID], numbers[name]] for name in names],
        "items": [
            [
                positions.get(one.collection, 0),
                one.day,
                size(one.bytes) if one.bytes else _rows(one),
                one.rings,
                *names_drawn.short(one.name[:_LONGEST_ID]),
                one.partition[0] if links and one.partition else "",
                *keys.short(one.partition[1] if links and one.partition else ""),
                *pictures.short(one.thumbnail or ""),
            ]
            for one in drawn
        ],
        "cells": [[positions.get(one.collection, 0), one.column, one.row, one.items] for one in report.cells],
        "cell": report.cell_degrees,
        "ui": report.ui_url if links else None,
    }


class _Shortened:
    """Texts as (how many characters are those of the text before, the rest)."""

    def __init__(self) -> None:
        self._before = ""

    def short(self, name: str) -> tuple[int, str]:
        pairs = zip(self._before, name, strict=False)
        # Python and JavaScript count other characters differently
        common = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1] and pair[0].isascii(), pairs))
        self._before = name
        return common, name[common:]


def _rows(dataset: Dataset) -> str | None:
    return None if dataset.rows is None else f"{number(dataset.rows)} rows"


# --- counts --------------------------------------------------------------------------------------------------------


def _table(heads: Sequence[tuple[str, str]], rows: Iterable[Sequence[tuple[str, object]]], *, label: str) -> str:
    """A table that can be sorted.

    Args:
        heads: (text, class) a column; class ``n`` for numbers.
        rows: (HTML, value to sort by) a cell; the first is the row's head.
        label: for those who do not see it.
    """
    columns_html = "".join(f'<th scope="col" class="{style}">{text(name)}</th>' for name, style in heads)
    body = []
    for row in rows:
        cells = []
        for position, ((content, value), (_, style)) in enumerate(zip(row, heads, strict=True)):
            tag, scope = ("th", ' scope="row"') if position == 0 else ("td", "")
            cells.append(f'<{tag}{scope} class="{style}" data-v="{text(value)}">{content}</{tag}>')
        body.append(f"<tr>{''.join(cells)}</tr>")
    width = "wide " if len(heads) > _COLUMNS_ON_A_PHONE else ""
    return (
        f'<div class="scroll" tabindex="0"><table class="{width}sortable" aria-label="{text(label)}">'
        f"<thead><tr>{columns_html}</tr></thead>"
        f"<tbody>{''.join(body)}</tbody></table></div>"
    )


def _counts(report: Report) -> str:
    numbers = colour_numbers(report)
    rows = [
        [
            (
                f'<span class="swatch" style="background:var(--c{numbers[one.id]})"></span> <bdi>{text(one.id)}</bdi>'
                + (f" <small>{text(one.title)}</small>" if one.title and one.title != one.id else ""),
                one.id,
            ),
            (number(one.items), one.items),
            (size(one.bytes) if one.bytes else _NOTHING, one.bytes),
            (number(one.rows) if one.rows else _NOTHING, one.rows),
            (text(one.first_day or _NOTHING), one.first_day or ""),
            (text(one.last_day or _NOTHING), one.last_day or ""),
        ]
        for one in report.collections
    ]
    heads = [("Collection", ""), ("Items", "n"), ("Size", "n"), ("Rows", "n"), ("From", "d"), ("To", "d")]
    table = _table(heads, rows, label="Collections") if rows else '<p class="none">Nothing is catalogued yet.</p>'
    types = "".join(
        bars(caption, counts)
        for caption, counts in (
            ("Items by type", report.kinds),
            ("Tables by type of geometry", report.geometry_types),
            ("Items by type of file", _formats(report.media_types)),
        )
    )
    return _card("collections", "Collections", table) + _card("types", "What it is", f'<div class="trio">{types}</div>')


def _formats(media_types: Mapping[str, int]) -> dict[str, int]:
    """Media types by the names people know them by."""
    counts: dict[str, int] = {}
    for media_type, count in media_types.items():
        name = _FORMATS.get(media_type, media_type)
        counts[name] = counts.get(name, 0) + count
    return counts


def _growth(report: Report) -> str:
    undated = (
        f"{number(report.undated)} items only have the date of their file or load; they are not counted here."
        if report.undated
        else ""
    )
    of_no_moment = report.items - sum(report.created.values())
    uncounted = (
        f"{number(of_no_moment)} items do not say when they were catalogued; they are not counted here."
        if of_no_moment
        else ""
    )
    return (
        '<div class="pair">'
        + _card("created", "Growth of the catalog", columns("Items catalogued", report.created), note=uncounted)
        + _card("acquired", "When the data is from", columns("Items by acquisition", report.acquired), note=undated)
        + "</div>"
    )


# --- failures, datasets, state -------------------------------------------------------------------------------------


def _failures(report: Report) -> str:
    if any(part == "jobs" for part, _ in report.problems):
        return ""
    if not report.failures:
        return _card("failures", "Failures by reason", '<p class="none">No job needs attention.</p>')
    shown, rest = report.failures[:_MOST_FAILURES], report.failures[_MOST_FAILURES:]
    rows = [
        [
            (
                f"{text(group.reason)} <small>such as <bdi>{text(group.example[:200])}</bdi></small>{_retry(group)}",
                group.reason,
            ),
            (text(group.asset), group.asset),
            (number(group.jobs), group.jobs),
        ]
        for group in shown
    ]
    note = (
        f"{number(sum(group.jobs for group in rest))} jobs of {number(len(rest))} more reasons:"
        " <code>geo-assets failures --by-reason --limit 0</code>"
        if rest
        else ""
    )
    heads = [("Reason, and how to run them again", ""), ("Asset", "w"), ("Jobs", "n")]
    return _card("failures", "Failures by reason", _table(heads, rows, label="Failures by reason"), note=note)


def _retry(group: FailureGroup) -> str:
    command = shlex.join(["geo-assets", "retry", "--failed", "--asset", group.asset, "--group", group.reason])
    return f"<code>{text(command)}</code>"


def _largest(report: Report) -> str:
    largest = [one for one in report.datasets[:_LARGEST] if one.bytes]
    if not largest:
        return ""
    rows = [
        [
            (_linked(report, one), one.name),
            (_named(one.collection), one.collection),
            (text(one.kind or _NOTHING), one.kind),
            (text(one.day or _NOTHING), one.day or ""),
            (size(one.bytes), one.bytes),
        ]
        for one in largest
    ]
    heads = [("Dataset", ""), ("Collection", ""), ("Type", ""), ("Date", "d"), ("Size", "n")]
    return _card("largest", "Biggest datasets", _table(heads, rows, label="Biggest datasets"))


def _linked(report: Report, dataset: Dataset) -> str:
    name = _named(dataset.name)
    if report.ui_url is None or not _is_web(report.ui_url) or dataset.partition is None:
        return name
    return f'<a href="{text(partition_url(report.ui_url, dataset.partition))}">{name}</a>'


def _named(name: str) -> str:
    """A name, cut in the middle where it is long: the end of a path tells more than its middle."""
    half = _LONGEST_NAME // 2
    if len(name) <= _LONGEST_NAME:
        return f"<bdi>{text(name)}</bdi>"
    return f'<bdi title="{text(name)}">{text(name[:half])}…{text(name[-half + 1 :])}</bdi>'


def _state(report: Report) -> str:
    if any(part == "jobs" for part, _ in report.problems):
        return ""
    states = list(dict.fromkeys(state for source in report.sources for state in source.entries))
    rows = [
        [
            (_named(source.name), source.name),
            (_named(source.container or _NOTHING), source.container or ""),
            (
                text(f"{source.looked_at:%Y-%m-%d %H:%M}" if source.looked_at else "never")
                + (f"<br><small>not well: {text(source.error)}</small>" if source.error else ""),
                source.looked_at.isoformat() if source.looked_at else "",
            ),
            *((number(source.entries.get(state, 0)), source.entries.get(state, 0)) for state in states),
        ]
        for source in report.sources
    ]
    heads = [("Source", ""), ("Container", ""), ("Last look (UTC)", "d"), *((_heading(state), "n") for state in states)]
    sources = (
        _table(heads, rows, label="Watched containers")
        if rows
        else '<p class="none">No container is watched: see docs/sources.md.</p>'
    )
    # a column a state: half a page is too narrow
    return _card("sources", "Watched containers", sources) + _card(
        "jobs", "Jobs", bars("Jobs by status", {name.replace("_", " "): n for name, n in report.queue.items()})
    )


def _heading(state: str) -> str:
    return state.replace("_", " ").capitalize()
