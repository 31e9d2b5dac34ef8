"""The map: the world in the Equal Earth projection, as SVG.

What belongs here: projecting and drawing without a browser.  What does not: moving the map about (``page.js``, which
projects by the same formula).

``land.txt`` and ``borders.txt`` have a ring or line each in units of 0.1°: the first corner, then steps.  They were
drawn once from Natural Earth's countries at 1:50 million (public domain): those across the antimeridian split there,
all united, simplified by 0.1°, without islands below 0.02 square degrees; borders are their outlines off the coast.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from importlib.resources import files
from typing import Any, Final

import numpy as np
import shapely

from geo_assets.report.facts import Report, Rings
from geo_assets.report.outline import UNITS, middle_of
from geo_assets.stac import locator_map

__all__ = [
    "COLOURS",
    "HEIGHT",
    "WIDTH",
    "colour_numbers",
    "map_content",
    "project",
    "small_map",
    "tiny_map",
    "world_paths",
]

WIDTH: Final = 1000.0
HEIGHT: Final = 486.7
COLOURS: Final = 9
"""Collections with a colour of their own; more share the last, grey one."""

_A1, _A2, _A3, _A4 = 1.340264, -0.081106, 0.000893, 0.003796
_SCALE = WIDTH / (2 * 2.7066299836)
_LAND_UNITS = 10
_TINY = 3.0
"""Units of the map: what is no larger is a dot."""
_MOST_OUTLINES = 3000
SMALL_MAP_BYTES: Final = 8_000
"""No small map is larger."""
_TINY_MAP_BYTES = 840
"""In an address it becomes some 50 longer, and must stay below ``pictures.SHOWN_AT_ONCE``."""
_TINY_UNIT = 3.0
"""Degrees a unit of the tiny map, as ``locator_map.small_map`` has it."""
_SMALLEST_ISLAND = 30.0
_LIGHT = ("#2563eb", "#d9480f", "#0f8a5f", "#9333ea", "#c2255c", "#0e7490", "#a16207", "#4d7c0f", "#7c2d12", "#6b7280")
_MIXED = "#34506b"

Array = np.ndarray[Any, np.dtype[np.float64]]


def project(longitude: Array, latitude: Array) -> tuple[Array, Array]:
    """Where points are on the map: x from 0 to :data:`WIDTH`, y downwards from 0 to :data:`HEIGHT`.

    Args:
        longitude: degrees.
        latitude: degrees.
    """
    theta = np.arcsin(np.sqrt(3) / 2 * np.sin(np.radians(latitude)))
    t2 = theta**2
    t6 = t2**3
    x = 2 * np.sqrt(3) * np.radians(longitude) * np.cos(theta)
    x = x / (3 * (9 * _A4 * t6 * t2 + 7 * _A3 * t6 + 3 * _A2 * t2 + _A1))
    y = theta * (_A4 * t6 * t2 + _A3 * t6 + _A2 * t2 + _A1)
    return WIDTH / 2 + x * _SCALE, HEIGHT / 2 - y * _SCALE


@cache
def world_paths() -> Mapping[str, str]:
    """The paths ``sphere``, ``lines`` (every 30°), ``land`` and ``borders``."""
    up = np.arange(-90.0, 90.1, 2.5)
    edge = [*zip(np.full_like(up, 180.0), up, strict=True), *zip(np.full_like(up, -180.0), up[::-1], strict=True)]
    meridians = [np.column_stack((np.full_like(up, lon), up)) for lon in range(-150, 180, 30)]
    parallels = [np.array([[-180.0, lat], [180.0, lat]]) for lat in range(-60, 90, 30)]
    return {
        "sphere": _path([np.array(edge)], close=True),
        "lines": _path([*meridians, *parallels], close=False),
        "land": _path(_resource("land.txt"), close=True),
        "borders": _path(_resource("borders.txt"), close=False),
    }


def colour_numbers(report: Report) -> dict[str, int]:
    """Collection → number of its colour, the largest collections first."""
    by_size = sorted(report.collections, key=lambda one: (-one.items, one.id))
    return {one.id: min(number, COLOURS) for number, one in enumerate(by_size)}


def map_content(report: Report, *, most: int = _MOST_OUTLINES) -> list[tuple[int, str, str]]:
    """(Colour number, path of the outlines, path of the dots) of what is shown where nothing can be moved.

    Args:
        report: where there are more than ``most`` outlines, or cells, each cell with items becomes a dot.
        most: outlines.
    """
    numbers = colour_numbers(report)
    outlines: dict[int, list[Array]] = {}
    dots: dict[int, set[tuple[int, int]]] = {}
    if report.cells or len(report.datasets) > most:
        for collection, longitude, latitude, _ in _middles(report):
            x, y = project(np.array([longitude]), np.array([latitude]))
            dots.setdefault(numbers.get(collection, COLOURS), set()).add((round(float(x[0])), round(float(y[0]))))
    else:
        for dataset in report.datasets:
            number = numbers.get(dataset.collection, COLOURS)
            tiny, rings = _projected(dataset.rings)
            outlines.setdefault(number, []).extend(rings)
            if tiny is not None:
                dots.setdefault(number, set()).add(tiny)
    return [
        (
            number,
            "".join(_ring(ring, close=True) for ring in outlines.get(number, ())),
            _dots(dots.get(number, ())),
        )
        for number in sorted({*outlines, *dots})
    ]


def small_map(report: Report) -> str:
    """The map as an SVG document of at most :data:`SMALL_MAP_BYTES` bytes, for Dagster's UI."""
    land = _small_land()
    for lattice in (4, 8, 12, 20, 40):
        drawn = _small_dots(report, lattice)
        if len(drawn) + len(land) < SMALL_MAP_BYTES - 150:
            break
    return (
        f"<svg xmlns='http://www.w3.org/2000/svg' width='600' height='292' viewBox='0 0 1000 487'>{land}{drawn}</svg>"
    )


def tiny_map(report: Report) -> str:
    """A map so small that Dagster's UI shows it without a click: the places where most items are."""
    world = locator_map.small_map(None)
    counts: Counter[tuple[int, int]] = Counter()
    for _, longitude, latitude, items in _middles(report):
        counts[round(longitude / _TINY_UNIT), round(-latitude / _TINY_UNIT)] += items
    dots = ""
    for (x, y), _ in sorted(counts.items(), key=lambda pair: (-pair[1], pair[0])):
        more = f"{dots}M{x},{y}h0"
        if len(world) + len(more) > _TINY_MAP_BYTES:
            break
        dots = more
    drawn = f"<path stroke='#d33' stroke-width='3' stroke-linecap='round' d='{dots}'/>" if dots else ""
    return world.replace("</svg>", f"{drawn}</svg>")


@cache
def _small_land() -> str:
    rings = [np.column_stack(project(ring[:, 0], ring[:, 1])) for ring in _resource("land.txt")]
    # rounding made some rings touch themselves
    simple = [shapely.make_valid(shapely.Polygon(ring)).simplify(3) for ring in rings]
    parts = shapely.get_parts(shapely.get_parts(simple))
    outlines = [part.exterior for part in parts if part.geom_type == "Polygon" and part.area > _SMALLEST_ISLAND]
    land = "".join(_ring(shapely.get_coordinates(line)[:-1], close=True, decimals=0) for line in outlines)
    up = np.arange(-90.0, 90.1, 15)
    edge = [*zip(np.full_like(up, 180.0), up, strict=True), *zip(np.full_like(up, -180.0), up[::-1], strict=True)]
    sphere = _path([np.array(edge)], close=True)
    return f"<path fill='#dbe9f4' d='{sphere}'/><path fill='#a9b59b' d='{land}'/>"


def _small_dots(report: Report, lattice: int) -> str:
    """A dot in each place of a lattice where something is, in the colour of the collection that most of it is of."""
    numbers = colour_numbers(report)
    counts: dict[tuple[int, int], Counter[int]] = {}
    for collection, longitude, latitude, items in _middles(report):
        x, y = project(np.array([longitude]), np.array([latitude]))
        place = (round(float(x[0]) / lattice), round(float(y[0]) / lattice))
        counts.setdefault(place, Counter())[numbers.get(collection, COLOURS)] += items
    by_colour: dict[str, list[tuple[int, int]]] = {}
    for place, colours in counts.items():
        number, most = colours.most_common(1)[0]
        by_colour.setdefault(_LIGHT[number] if 2 * most > colours.total() else _MIXED, []).append(place)
    width = max(lattice, 12)
    return "".join(
        f"<path stroke='{colour}' stroke-width='{width}' stroke-linecap='round' d='{_runs(places, lattice)}'/>"
        for colour, places in sorted(by_colour.items())
    )


def _runs(places: Iterable[tuple[int, int]], lattice: int) -> str:
    """Places of a lattice as lines, those beside each other as one."""
    path, before = "", (-2, 0)
    run = 0
    for x, y in sorted(places, key=lambda place: (place[1], place[0])):
        if (x, y) == (before[0] + 1, before[1]):
            run += lattice
        else:
            path += (f"h{run}" if path else "") + f"M{x * lattice},{y * lattice}"
            run = 0
        before = (x, y)
    return f"{path}h{run}" if path else ""


def _dots(places: Iterable[tuple[int, int]]) -> str:
    """Points as lines without length, whose round ends show."""
    return "".join(f"M{x},{y}h0" for x, y in sorted(places))


def _middles(report: Report) -> Iterator[tuple[str, float, float, int]]:
    """(Collection, longitude, latitude, items) of all cells, or where there are none of all datasets."""
    size = report.cell_degrees
    for cell in report.cells:
        yield cell.collection, (cell.column + 0.5) * size - 180, (cell.row + 0.5) * size - 90, cell.items
    for dataset in () if report.cells else report.datasets:
        if dataset.rings:
            yield dataset.collection, *middle_of(dataset.rings), 1


def _projected(rings: Rings) -> tuple[tuple[int, int] | None, list[Array]]:
    """A dot where the outline is tiny, else its rings on the map."""
    drawn = []
    for ring in rings:
        corners = np.cumsum(np.asarray(ring, dtype=np.float64).reshape(-1, 2), axis=0) / UNITS
        corners = _dense(corners)
        drawn.append(np.column_stack(project(corners[:, 0], corners[:, 1])))
    if not drawn:
        return None, []
    together = np.concatenate(drawn)
    low, high = together.min(axis=0), together.max(axis=0)
    if len(drawn) == 1 and float((high - low).max()) <= _TINY:
        x, y = (low + high) / 2
        return (round(float(x)), round(float(y))), []
    return None, drawn


def _dense(corners: Array) -> Array:
    """A ring with corners at least every 5° of latitude: meridians are curves."""
    if len(corners) < 2:  # noqa: PLR2004 - a point
        return corners
    following = np.roll(corners, -1, axis=0)
    pieces = np.maximum(1, np.ceil(np.abs(following - corners)[:, 1] / 5)).astype(int)
    return np.concatenate(
        [
            start + (end - start) * np.linspace(0, 1, count, endpoint=False)[:, None]
            for start, end, count in zip(corners, following, pieces, strict=True)
        ]
    )


def _resource(name: str) -> list[Array]:
    text = files(__package__).joinpath(name).read_text(encoding="ascii")
    rings = []
    for line in text.splitlines():
        steps = np.array([pair.split(",") for pair in line.split(" ")], dtype=np.float64)
        rings.append(np.cumsum(steps, axis=0) / _LAND_UNITS)
    return rings


def _path(lines: Iterable[Array], *, close: bool) -> str:
    return "".join(_ring(np.column_stack(project(line[:, 0], line[:, 1])), close=close) for line in lines)


def _ring(points: Array, *, close: bool, decimals: int = 1) -> str:
    """A path in steps, as they are shorter; rounded before, so that errors do not add up."""
    scaled = np.rint(points * 10**decimals).astype(np.int64)
    steps = np.diff(scaled, axis=0)
    steps = steps[steps.any(axis=1)]
    start = _pair(scaled[0], decimals)
    # a minus sign separates as well as a comma
    drawn = ",".join(_pair(step, decimals) for step in steps).replace(",-", "-")
    return f"M{start}l{drawn}{'z' if close else ''}" if drawn else ""


def _pair(point: Sequence[int] | Array, decimals: int) -> str:
    return ",".join(_number(int(number), decimals) for number in point)


def _number(number: int, decimals: int) -> str:
    return f"{number / 10**decimals:.{decimals}f}".rstrip("0").rstrip(".") if decimals else str(number)
