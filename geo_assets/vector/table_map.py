"""The picture of a table: its features on a map, drawn from a sample.

What belongs here: what is kept of the features while they pass, and the drawing.  What does not: maps of where on
Earth something lies (``stac.locator_map``), putting pictures into Markdown (``geo_assets.pictures``).

A table may have any number of rows of any size, so what is kept is bounded: the places of some 20,000 rows, read right
out of their WKB, and some 3,000 lines or areas, simplified.  All rows have the same chance, but that larger ones are
likelier to be among the lines and areas.  Where the areas of a sample would be specks, the places are drawn instead.

The map is equirectangular, with degrees of longitude as wide as they are in its middle.
"""

import base64
import hashlib
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from io import BytesIO
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyproj
import shapely
from PIL import Image, ImageDraw, ImageFont

from geo_assets.vector.coordinates import Reprojection
from geo_assets.vector.footprint import first_longitude
from geo_assets.vector.wkb import kinds_of, to_shapely

__all__ = ["FULL_SIDE", "MEDIA_TYPE", "SMALL_BYTES", "TINY_BYTES", "TableSketch"]

MEDIA_TYPE: Final = "image/webp"
FULL_SIDE: Final = 512
"""Longer side of the full picture, pixels."""
SMALL_SIDE: Final = 320
SMALL_BYTES: Final = 6_500
"""Most bytes of the one in Dagster's event."""
TINY_BYTES: Final = 570
"""Most bytes of one that Dagster's UI shows without a click, see ``geo_assets.pictures``."""

type _Floats = npt.NDArray[np.float64]
type _Colour = tuple[int, int, int]

_MOST_PLACES: Final = 20_000
_MOST_SHAPES: Final = 3_000
_MOST_VERTICES: Final = 300_000
_BATCH_BYTES: Final = 4 * 1024 * 1024
"""Most WKB of lines and areas that is decoded of one batch."""
_SEED: Final = 20_261_124
_FIRST_COORDINATE: Final = {1: 5, 2: 9, 3: 13, 4: 14, 5: 18, 6: 22}
"""Where the first x lies in plain WKB, by base type."""


class TableSketch:
    """A sample of the geometries that pass, and the picture of it.

    Args:
        crs: of the geometries; coordinates are in the order east, north.
    """

    def __init__(self, crs: pyproj.CRS) -> None:
        self._to_lonlat = Reprojection(crs, pyproj.CRS("OGC:CRS84"))
        self._random = np.random.default_rng(_SEED)
        self._rows = 0
        self._places = np.zeros((0, 2))
        self._place_keys = np.zeros(0)
        self._shapes = np.zeros(0, object)
        self._shape_keys = np.zeros(0)

    def add(self, wkb: pa.BinaryArray, dimension: int) -> None:
        """Take a batch.

        Args:
            wkb: plain WKB as :mod:`geo_assets.vector.geometry` leaves it; nulls are nowhere.
            dimension: of all of its geometries: 0 points, 1 lines, 2 areas; else they are not drawn.
        """
        if dimension < 0 or wkb.null_count == len(wkb):
            return
        wkb = wkb.drop_null() if wkb.null_count else wkb
        self._rows += len(wkb)
        draws = self._random.random(len(wkb))
        self._keep_places(wkb, draws)
        if dimension > 0 or (kinds_of(wkb) % 1000 != 1).any():
            self._keep_shapes(wkb, draws)

    def draw(self, folder: Path) -> dict[str, Any]:
        """Draw what was kept, and write the full picture to ``folder``.

        Returns:
            ``path``, ``size`` (bytes), ``sha256``, ``media_type``, ``width`` and ``height`` of the full picture, and
            two smaller ones in base64: ``small``, at most :data:`SMALL_BYTES`, and ``tiny``, at most
            :data:`TINY_BYTES`.
        """
        scene = self._scene()
        full = scene.render(FULL_SIDE)
        encoded = min(_webp(full, lossless=True), _webp(full, quality=88), key=len)
        path = folder / "map.webp"
        path.write_bytes(encoded)
        return {
            "path": str(path),
            "size": len(encoded),
            "sha256": hashlib.sha256(encoded).hexdigest(),
            "media_type": MEDIA_TYPE,
            "width": full.width,
            "height": full.height,
            "small": base64.b64encode(_within(scene.render(SMALL_SIDE), _SMALL_TRIES, SMALL_BYTES)).decode(),
            "tiny": base64.b64encode(_within(scene.render(_TINY_SIDE, bare=True), _TINY_TRIES, TINY_BYTES)).decode(),
        }

    def _keep_places(self, wkb: pa.BinaryArray, draws: _Floats) -> None:
        chosen = _smallest(draws, self._place_keys, _MOST_PLACES)
        places = _first_coordinates(wkb.take(chosen))
        known = np.isfinite(places).all(axis=1)
        places = np.vstack([self._places, places[known]])
        keys = np.concatenate([self._place_keys, draws[chosen][known]])
        kept = _lowest(keys, _MOST_PLACES)
        self._places, self._place_keys = places[kept], keys[kept]

    def _keep_shapes(self, wkb: pa.BinaryArray, draws: _Floats) -> None:
        ends, _ = _buffers(wkb)
        lengths = ends[1:] - ends[:-1]
        # the larger, the likelier: keys of weighted sampling without replacement
        keys = -np.log1p(-draws) / np.sqrt(lengths)
        chosen = _smallest(keys, self._shape_keys, _MOST_SHAPES)
        chosen = chosen[np.argsort(keys[chosen])]
        chosen = chosen[: max(1, int(np.searchsorted(np.cumsum(lengths[chosen]), _BATCH_BYTES)))]
        if not len(chosen):
            return
        shapes = np.concatenate([self._shapes, shapely.force_2d(to_shapely(wkb.take(chosen)))])
        all_keys = np.concatenate([self._shape_keys, keys[chosen]])
        kept = _lowest(all_keys, _MOST_SHAPES)
        self._shapes, self._shape_keys = _simplified(shapes[kept]), all_keys[kept]

    def _scene(self) -> "_Scene":
        places = self._lonlat(self._places)
        shapes = self._shapes
        if self._to_lonlat.needed and len(shapes):
            shapes = shapely.transform(shapes, self._lonlat_in_one)
        return _Scene.of(places[np.isfinite(places).all(axis=1)], shapes, self._rows)

    def _lonlat(self, places: _Floats) -> _Floats:
        return self._to_lonlat(places) if len(places) else places

    def _lonlat_in_one(self, places: _Floats) -> _Floats:
        moved = self._to_lonlat(places)
        # what does not transform would not draw, either
        return np.where(np.isfinite(moved).all(axis=1)[:, None], moved, np.nan)


# --- the sample ------------------------------------------------------------------------------------------------


def _smallest(keys: _Floats, kept: _Floats, most: int) -> npt.NDArray[np.int64]:
    """Rows whose keys are among the smallest of these and the kept ones, or may be."""
    below = float(kept.max()) if len(kept) >= most else np.inf
    chosen = np.flatnonzero(keys < below)
    if len(chosen) > most:
        chosen = chosen[np.argpartition(keys[chosen], most)[:most]]
    return np.sort(chosen)


def _lowest(keys: _Floats, most: int) -> npt.NDArray[np.int64]:
    return np.arange(len(keys)) if len(keys) <= most else np.argpartition(keys, most)[:most]


def _buffers(wkb: pa.BinaryArray) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.uint8]]:
    """Offsets (one more than rows, at least one) and bytes of an array without nulls."""
    _, offsets, data = wkb.buffers()
    if offsets is None or data is None:
        return np.zeros(len(wkb) + 1, np.int64), np.zeros(0, np.uint8)
    ends = np.frombuffer(offsets, np.int32)[wkb.offset : wkb.offset + len(wkb) + 1]
    return ends.astype(np.int64), np.frombuffer(data, np.uint8)


def _first_coordinates(wkb: pa.BinaryArray) -> _Floats:
    """The first x and y of every row (n, 2), NaN where there is none; without building geometries."""
    places = np.full((len(wkb), 2), np.nan)
    if not len(wkb):
        return places
    ends, data = _buffers(wkb)
    kinds = kinds_of(wkb) % 1000
    within = np.array([_FIRST_COORDINATE.get(kind, 0) for kind in range(8)])[np.minimum(kinds, 7)]
    there = (within > 0) & (ends[:-1] + within + 16 <= ends[1:])
    if there.any():
        starts = (ends[:-1] + within)[there]
        values = data[starts[:, None] + np.arange(16)]
        places[there] = np.ascontiguousarray(values).view("<f8")
    return places


def _simplified(shapes: Any) -> Any:
    """Lines and areas with so few vertices that any number of batches stays small."""
    if int(shapely.get_num_coordinates(shapes).sum()) <= _MOST_VERTICES:
        return shapes
    bounds = shapely.bounds(shapes)
    tolerance = float(np.nanmax(np.nanmax(bounds[:, 2:], axis=0) - np.nanmin(bounds[:, :2], axis=0))) / FULL_SIDE / 4
    while int(shapely.get_num_coordinates(shapes).sum()) > _MOST_VERTICES:
        shapes = shapely.simplify(shapes, tolerance, preserve_topology=False)
        tolerance *= 2
    return shapes


# --- the map ---------------------------------------------------------------------------------------------------

_OVERSAMPLED: Final = 3
_PADDING: Final = 0.05
_LEAST_EXTENT: Final = 0.02
"""Degrees, some two kilometres: a single point is no map."""
_FLATTEST: Final = 0.45
"""Least share of the longer side that the shorter has."""
_NARROWEST: Final = 0.15
"""Least width of a degree of longitude, as a share of one of latitude."""
_LAND_FROM: Final = 25.0
"""Degrees of extent from which land drawn in whole degrees does not look wrong."""
_DOTS: Final = 1_200
"""So many points at most are drawn one by one."""
_SPECK: Final = 2.0
"""Pixels; what is smaller is drawn as a dot."""
_TINY_SIDE: Final = 128
_SMALL_TRIES: Final = tuple((side, quality) for side in (320, 256, 192, 128) for quality in (85, 70, 50, 35))
_TINY_TRIES: Final = tuple(
    (side, quality) for side in (128, 112, 96, 80, 72, 64, 56, 48, 40, 32, 16) for quality in (40, 20)
)

_SEA: Final[_Colour] = (226, 236, 243)
_LAND: Final[_Colour] = (246, 243, 236)
_COAST: Final[_Colour] = (203, 208, 206)
_PAPER: Final[_Colour] = (247, 248, 249)
_GRID: Final[_Colour] = (214, 221, 226)
_LABEL: Final[_Colour] = (120, 132, 142)
_FRAME: Final[_Colour] = (160, 170, 178)
_FILL: Final[_Colour] = (58, 124, 201)
_EDGE: Final[_Colour] = (24, 74, 140)
_RAMP: Final = np.array([[92, 148, 214], [64, 84, 176], [122, 40, 140], [196, 32, 84], [238, 92, 32]], float)
"""Colours of few to many points."""


@dataclass(frozen=True, kw_only=True)
class _Scene:
    """What is drawn, in degrees that do not jump at the antimeridian."""

    places: _Floats
    rings: Sequence[_Floats]
    """Edges of areas, their holes after them, the largest first."""
    holes: Sequence[bool]
    lines: Sequence[_Floats]
    box: tuple[float, float, float, float]
    """West, south, east, north of the map."""
    sampled: bool
    """Whether there are more lines or areas than are drawn."""

    @classmethod
    def of(cls, places: _Floats, shapes: Any, rows: int) -> "_Scene":
        parts = shapely.get_parts(shapely.get_parts(shapes))
        bounds = shapely.bounds(parts)
        parts, bounds = parts[np.isfinite(bounds).all(axis=1)], bounds[np.isfinite(bounds).all(axis=1)]
        order = np.argsort(-(bounds[:, 2] - bounds[:, 0]) * (bounds[:, 3] - bounds[:, 1]), kind="stable")
        parts, bounds = parts[order], bounds[order]
        start = first_longitude(np.append(places[:, 0], bounds[:, 0]), np.append(places[:, 0], bounds[:, 2]))
        places = places + np.column_stack([_moved(places[:, 0], start), np.zeros(len(places))])
        rings: list[_Floats] = []
        holes: list[bool] = []
        lines: list[_Floats] = []
        dots: list[_Floats] = [places]
        for part, turn in zip(parts, _moved(bounds[:, 0], start), strict=True):
            shift = np.array([turn, 0.0])
            if part.geom_type == "Polygon":
                rings += [shapely.get_coordinates(ring) + shift for ring in (part.exterior, *part.interiors)]
                holes += [False] + [True] * len(part.interiors)
            elif part.geom_type == "Point":
                dots.append(shapely.get_coordinates(part) + shift)
            else:
                lines.append(shapely.get_coordinates(part) + shift)
        places = np.vstack(dots)
        every = np.vstack([places, *rings, *lines])
        return cls(
            places=places,
            rings=rings,
            holes=holes,
            lines=lines,
            box=_padded(every),
            sampled=len(shapes) < rows,
        )

    def render(self, side: int, *, bare: bool = False) -> Image.Image:
        """The map, its longer side of so many pixels; ``bare``: without what cannot be made out in a tiny one."""
        west, south, east, north = self.box
        narrow = _narrow(south, north)
        wide, high = (east - west) * narrow, north - south
        scale = side / max(wide, high)
        view = _View(west=west, north=north, x=scale * narrow, y=scale,
                     width=max(1, round(wide * scale)), height=max(1, round(high * scale)))  # fmt: skip
        far = max(wide, high) >= _LAND_FROM
        image = Image.new("RGB", view.large, _SEA if far else _PAPER)
        if far:
            _draw_land(image, view)
        if not bare:
            _draw_graticule(image, view, self.box)
        sizes = [float(np.ptp(run * [view.x, view.y], axis=0).max()) for run in (*self.rings, *self.lines)]
        specks = self.sampled and bool(sizes) and float(np.median(sizes)) < _SPECK
        if sizes and not specks:
            self._draw_shapes(image, view, fine=float(np.median(sizes)) < side / 24)
        small = image.resize((view.width, view.height), Image.Resampling.BOX)
        shown = self.places if specks or not sizes else self._specks(view)
        if len(shown):
            small = _with_places(small, view, shown, bold=1.0 if bare else 0.0)
        if not bare:
            _draw_labels(small, view, self.box)
        return small

    def _draw_shapes(self, image: Image.Image, view: "_View", *, fine: bool) -> None:
        mask = Image.new("L", view.large, 0)
        areas = ImageDraw.Draw(mask)
        runs = [view.pixels(ring) for ring in self.rings]
        for run, hole in zip(runs, self.holes, strict=True):
            areas.polygon(run, fill=0 if hole else 110)
        image.paste(_FILL, mask=mask)
        edges = ImageDraw.Draw(image)
        for run in runs:
            edges.line(run, fill=_EDGE, width=1 if fine else 2, joint=None)
        for line in self.lines:
            edges.line(view.pixels(line), fill=_EDGE, width=2 if fine else 4, joint="curve")

    def _specks(self, view: "_View") -> _Floats:
        """Places of areas and lines that are there, but too small to be seen."""
        found = [
            run[:1]
            for run, hole in (*zip(self.rings, self.holes, strict=True), *((line, False) for line in self.lines))
            if not hole and float(np.ptp(run * [view.x, view.y], axis=0).max()) < _SPECK
        ]
        return np.vstack(found) if found else np.zeros((0, 2))


@dataclass(frozen=True, kw_only=True)
class _View:
    """From degrees to pixels."""

    west: float
    north: float
    x: float
    """Pixels a degree of longitude."""
    y: float
    width: int
    height: int

    @property
    def large(self) -> tuple[int, int]:
        return self.width * _OVERSAMPLED, self.height * _OVERSAMPLED

    def pixels(self, run: _Floats) -> list[tuple[float, float]]:
        """For Pillow, in the large picture; vertices that fall on one pixel once."""
        x = (run[:, 0] - self.west) * self.x * _OVERSAMPLED
        y = (self.north - run[:, 1]) * self.y * _OVERSAMPLED
        moved = np.rint(np.column_stack([x, y]) * 2) / 2
        kept = np.append(True, (np.diff(moved, axis=0) != 0).any(axis=1))
        runs: list[tuple[float, float]] = [tuple(point) for point in moved[kept].tolist()]
        return runs if len(runs) > 1 else runs * 2


def _moved(longitudes: _Floats, start: float) -> _Floats:
    return np.where((longitudes < start) & (start > -180.0), 360.0, 0.0)  # noqa: PLR2004


def _narrow(south: float, north: float) -> float:
    return max(_NARROWEST, math.cos(math.radians((max(south, -90.0) + min(north, 90.0)) / 2)))


def _padded(places: _Floats) -> tuple[float, float, float, float]:
    """The map's edges: with room around what is drawn, and neither a stripe nor a column; the world for nothing."""
    if not len(places):
        return -180.0, -90.0, 180.0, 90.0
    (west, south), (east, north) = places.min(axis=0).tolist(), places.max(axis=0).tolist()
    narrow = _narrow(south, north)
    wide, high = max((east - west) * narrow, _LEAST_EXTENT), max(north - south, _LEAST_EXTENT)
    wide, high = max(wide, high * _FLATTEST), max(high, wide * _FLATTEST)
    wide, high = wide + 2 * _PADDING * max(wide, high), high + 2 * _PADDING * max(wide, high)
    across, middle = min(wide / narrow, 360.0) / 2, (west + east) / 2
    if across == 180.0 and west >= -180.0 and east <= 180.0:  # noqa: PLR2004
        middle = 0.0
    level = (south + north) / 2
    return middle - across, max(level - high / 2, -90.0), middle + across, min(level + high / 2, 90.0)


# --- what lies around ------------------------------------------------------------------------------------------


@cache
def _land() -> list[_Floats]:
    """Rings of the land of ``stac/land.txt``, closed, the largest first; lakes run the other way round."""
    text = files("geo_assets.stac").joinpath("land.txt").read_text(encoding="ascii")
    rings: list[_Floats] = []
    for start, rest in re.findall(r"M(-?\d+-?,?\d+)l([^zM]*)z?", text):
        numbers = [int(number) for number in re.findall(r"-?\d+", f"{start},{rest}")]
        steps = np.array(numbers, float).reshape(-1, 2)
        ring = np.cumsum(steps, axis=0) * [1.0, -1.0]
        rings.append(np.vstack([ring, ring[:1]]))
    return sorted(rings, key=lambda ring: -abs(_area(ring)))


def _area(ring: _Floats) -> float:
    return float((ring[:-1, 0] * ring[1:, 1] - ring[1:, 0] * ring[:-1, 1]).sum()) / 2


def _draw_land(image: Image.Image, view: _View) -> None:
    canvas = ImageDraw.Draw(image)
    ashore = _area(_land()[0]) > 0
    for ring in _land():
        for turn in (-360.0, 0.0, 360.0):
            run = view.pixels(ring + np.array([turn, 0.0]))
            canvas.polygon(run, fill=_LAND if (_area(ring) > 0) == ashore else _SEA)
            canvas.line(run, fill=_COAST, width=2)


def _lines_between(low: float, high: float) -> tuple[float, list[float]]:
    """A round step, and its multiples strictly between two degrees, some three to six."""
    rough = (high - low) / 5
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough)
    for round_ in (30.0, 45.0, 60.0, 90.0):
        if step >= 20.0 and round_ >= step:  # noqa: PLR2004
            step = round_
            break
    first = math.floor(low / step) + 1
    return step, [step * at for at in range(first, math.ceil(high / step))]


def _draw_graticule(image: Image.Image, view: _View, box: tuple[float, float, float, float]) -> None:
    west, south, east, north = box
    canvas = ImageDraw.Draw(image)
    for longitude in _lines_between(west, east)[1]:
        canvas.line(view.pixels(np.array([[longitude, south], [longitude, north]])), fill=_GRID, width=2)
    for latitude in _lines_between(south, north)[1]:
        canvas.line(view.pixels(np.array([[west, latitude], [east, latitude]])), fill=_GRID, width=2)


def _draw_labels(image: Image.Image, view: _View, box: tuple[float, float, float, float]) -> None:
    """Degrees along the left and the lower edge, and the frame."""
    west, south, east, north = box
    canvas = ImageDraw.Draw(image)
    font = ImageFont.load_default(size=10)
    step, longitudes = _lines_between(west, east)
    for longitude in longitudes:
        within = (longitude + 180.0) % 360.0 - 180.0
        place = ((longitude - west) * view.x, view.height - 3)
        _label(canvas, place, _degrees(within, step, "EW"), "ms", font)
    step, latitudes = _lines_between(south, north)
    for latitude in latitudes:
        _label(canvas, (4, (north - latitude) * view.y), _degrees(latitude, step, "NS"), "lm", font)
    canvas.rectangle((0, 0, view.width - 1, view.height - 1), outline=_FRAME)


def _label(canvas: ImageDraw.ImageDraw, place: tuple[float, float], text: str, anchor: str, font: Any) -> None:
    canvas.text(place, text, fill=_LABEL, anchor=anchor, font=font, stroke_width=2, stroke_fill=(255, 255, 255))


def _degrees(value: float, step: float, signs: str) -> str:
    decimals = max(0, -math.floor(math.log10(step) + 1e-9))
    number = f"{abs(value):.{decimals}f}°"
    return number if float(number[:-1]) in (0.0, 180.0) else number + signs[0 if value > 0 else 1]


# --- points ----------------------------------------------------------------------------------------------------


def _with_places(image: Image.Image, view: _View, places: _Floats, *, bold: float) -> Image.Image:
    x, y = (places[:, 0] - view.west) * view.x, (view.north - places[:, 1]) * view.y
    if len(places) <= _DOTS:
        return _with_dots(image, x, y, radius=_radius(len(places)) + bold)
    return _with_density(image, x, y)


def _radius(count: int) -> float:
    return 5.0 if count < 10 else 3.0 if count < 200 else 2.0  # noqa: PLR2004


def _with_dots(image: Image.Image, x: _Floats, y: _Floats, *, radius: float) -> Image.Image:
    large = image.resize((image.width * _OVERSAMPLED, image.height * _OVERSAMPLED), Image.Resampling.BICUBIC)
    canvas = ImageDraw.Draw(large)
    centres = np.column_stack([x, y]) * _OVERSAMPLED
    for size, colour in (((radius + 0.8) * _OVERSAMPLED, (255, 255, 255)), (radius * _OVERSAMPLED, (196, 32, 84))):
        for across, down in centres.tolist():
            canvas.ellipse((across - size, down - size, across + size, down + size), fill=colour)
    return large.resize(image.size, Image.Resampling.BOX)


def _with_density(image: Image.Image, x: _Floats, y: _Floats) -> Image.Image:
    """Every pixel by how many points lie in and around it, on a scale of logarithms."""
    counts, _, _ = np.histogram2d(y, x, bins=(image.height, image.width), range=((0, image.height), (0, image.width)))
    padded = np.pad(counts, 1)
    weights = (0.25, 1.0, 0.25)
    rows = np.sum([weight * padded[at : at + image.height] for at, weight in enumerate(weights)], axis=0)
    around = np.sum([weight * rows[:, at : at + image.width] for at, weight in enumerate(weights)], axis=0)
    shade = np.log1p(around) / np.log1p(max(float(np.percentile(around[around > 0], 99.5)), 1.0))
    shade = np.clip(shade, 0.0, 1.0)
    along = shade * (len(_RAMP) - 1)
    steps = np.arange(len(_RAMP))
    colours = np.dstack([np.interp(along, steps, _RAMP[:, channel]) for channel in range(3)])
    opacity = np.clip(np.minimum(around, 1.0) * 0.55 + shade * 0.6, 0.0, 1.0)[..., None]
    mixed = np.asarray(image, float) * (1 - opacity) + colours * opacity
    return Image.fromarray(mixed.round().astype(np.uint8))


# --- files -----------------------------------------------------------------------------------------------------


def _webp(image: Image.Image, **options: Any) -> bytes:
    file = BytesIO()
    image.save(file, "WEBP", method=4, **options)
    return file.getvalue()


def _within(image: Image.Image, tries: Sequence[tuple[int, int]], limit: int) -> bytes:
    """The first of the tries (longer side, quality) that is small enough."""

    def encoded() -> Iterator[bytes]:
        for side, quality in tries:
            scale = min(1.0, side / max(image.size))
            size = max(1, round(image.width * scale)), max(1, round(image.height * scale))
            yield _webp(image.resize(size, Image.Resampling.BOX), quality=quality)

    return next(data for data in encoded() if len(data) <= limit)
