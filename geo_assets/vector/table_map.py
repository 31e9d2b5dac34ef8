"""The picture of a table: its features on a map, drawn from a sample.

What belongs here: what is kept of the features while they pass, and the drawing.  What does not: maps of where on
Earth something lies (``stac.locator_map``), putting pictures into Markdown (``geo_assets.pictures``).

A table may have any number of rows of any size, so what is kept is bounded: the places of some 20,000 rows, read right
out of their WKB, and some 4,000 lines or areas, simplified.  All rows have the same chance, but that larger ones are
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
from geo_assets.vector.dateline import continuous
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
_MOST_SHAPES: Final = 4_000
_MOST_VERTICES: Final = 300_000
_BATCH_BYTES: Final = 4 * 1024 * 1024
"""Most WKB of lines and areas that is decoded of one batch."""
_MOST_LOSSLESS: Final = 64 * 1024
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
            dimension: of all of its geometries: 0 points, 1 lines, 2 areas.
        """
        if wkb.null_count == len(wkb):
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
        encoded = _webp(full, lossless=True)
        if len(encoded) > _MOST_LOSSLESS:
            encoded = _webp(full, quality=90)
        path = folder / "map.webp"
        path.write_bytes(encoded)
        return {
            "path": str(path),
            "size": len(encoded),
            "sha256": hashlib.sha256(encoded).hexdigest(),
            "media_type": MEDIA_TYPE,
            "width": full.width,
            "height": full.height,
            "small": base64.b64encode(_within(scene.render(SMALL_SIDE), SMALL_BYTES)).decode(),
            "tiny": base64.b64encode(_within(scene.render(_TINY_SIDE, bare=True), TINY_BYTES)).decode(),
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
            shapes = shapely.transform(shapes, self._to_lonlat)
            bounds = shapely.bounds(shapes)
            jumps = np.flatnonzero(bounds[:, 2] - bounds[:, 0] > 180.0)  # noqa: PLR2004 - degrees
            shapes[jumps] = [continuous(shape) for shape in shapes[jumps]]
        return _Scene.of(places[np.isfinite(places).all(axis=1)], shapes, self._rows)

    def _lonlat(self, places: _Floats) -> _Floats:
        return self._to_lonlat(places) if len(places) else places


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
_PADDING: Final = 0.07
_LEAST_EXTENT: Final = 0.02
"""Degrees, some two kilometres: a single point is no map."""
_FLATTEST: Final = 0.45
"""Least share of the longer side that the shorter has."""
_LETTERS: Final = 10
"""Height of letters, pixels."""
_MARGIN: Final = 70
"""Pixels of the large picture from its edge, where a name would be cut off."""
_NARROWEST: Final = 0.15
"""Least width of a degree of longitude, as a share of one of latitude."""
_LAND_FROM: Final = 25.0
"""Degrees of extent from which land drawn in whole degrees does not look wrong."""
_DOTS: Final = 1_200
"""So many points at most are drawn one by one."""
_SPECK: Final = 2.0
"""Pixels; what is smaller is drawn as a dot."""
_CROWDED: Final = 4.0
"""Pixels of the full picture; where most areas are smaller, their edges would hide them."""
_ROOMY: Final = 20.0
_TINY_SIDE: Final = 128

_SEA: Final[_Colour] = (226, 236, 243)
_LAND: Final[_Colour] = (246, 243, 236)
_COAST: Final[_Colour] = (203, 208, 206)
_PAPER: Final[_Colour] = (247, 248, 249)
_GRID: Final[_Colour] = (214, 221, 226)
_LABEL: Final[_Colour] = (120, 132, 142)
_FRAME: Final[_Colour] = (160, 170, 178)
_FILL: Final[_Colour] = (58, 124, 201)
_EDGE: Final[_Colour] = (24, 74, 140)
_DOT: Final[_Colour] = (196, 32, 84)
_RAMP: Final = np.array([[66, 118, 196], [64, 84, 176], [122, 40, 140], [196, 32, 84], [238, 92, 32]], float)
"""Colours of few to many points."""


@dataclass(frozen=True, kw_only=True)
class _Scene:
    """What is drawn, in degrees that do not jump at the antimeridian."""

    places: _Floats
    areas: Sequence[tuple[_Floats, Sequence[_Floats]]]
    """Edge and holes of each, the largest first, so that what lies in a hole is drawn into it."""
    lines: Sequence[_Floats]
    sizes: _Floats
    """Width and height (n, 2) of each feature that is not a point."""
    corners: _Floats
    """A place (n, 2) of each of these."""
    box: tuple[float, float, float, float]
    """West, south, east, north of the map."""
    complete: bool
    """Whether most of the lines or areas are there."""

    @classmethod
    def of(cls, places: _Floats, shapes: Any, rows: int) -> "_Scene":
        parts, feature = shapely.get_parts(shapes, return_index=True)
        bounds = shapely.bounds(parts)
        known = np.isfinite(bounds).all(axis=1)
        order = np.flatnonzero(known)
        order = order[np.argsort(-np.prod(bounds[order, 2:] - bounds[order, :2], axis=1), kind="stable")]
        parts, bounds, feature = parts[order], bounds[order], feature[order]
        start = first_longitude(np.append(places[:, 0], bounds[:, 0]), np.append(places[:, 0], bounds[:, 2]))
        turns = _turns(bounds[:, 0], start)
        bounds = bounds + turns[:, [0, 1, 0, 1]]
        areas: list[tuple[_Floats, list[_Floats]]] = []
        lines: list[_Floats] = []
        dots = [places + _turns(places[:, 0], start)]
        for part, turn in zip(parts, turns, strict=True):
            if part.geom_type == "Polygon":
                edge, *holes = [shapely.get_coordinates(ring) + turn for ring in (part.exterior, *part.interiors)]
                areas.append((edge, holes))
            elif part.geom_type == "Point":
                dots.append(shapely.get_coordinates(part) + turn)
            else:
                lines.append(shapely.get_coordinates(part) + turn)
        _, largest = np.unique(feature, return_index=True)
        spread = shapely.get_type_id(parts[largest]) > 0
        largest = largest[spread]
        every = np.vstack([*dots, bounds[:, :2], bounds[:, 2:]])
        return cls(
            places=np.vstack(dots),
            areas=areas,
            lines=lines,
            sizes=bounds[largest, 2:] - bounds[largest, :2],
            corners=bounds[largest, :2],
            box=_padded(every),
            complete=len(shapes) * 2 >= rows,
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
        sizes = (self.sizes * [view.x, view.y]).max(axis=1)
        typical = float(np.median(sizes)) if len(sizes) else 0.0
        if len(sizes) and (self.complete or typical >= _SPECK):
            self._draw_shapes(image, view, typical=typical * FULL_SIDE / side, specks=self.corners[sizes < _SPECK])
            return image.resize((view.width, view.height), Image.Resampling.BOX)
        return _with_places(image, view, self.places, bold=bare)

    def _draw_shapes(self, image: Image.Image, view: "_View", *, typical: float, specks: _Floats) -> None:
        mask = Image.new("L", view.large, 0)
        inside = ImageDraw.Draw(mask)
        areas = [(view.pixels(edge), [view.pixels(hole) for hole in holes]) for edge, holes in self.areas]
        for edge, holes in areas:
            inside.polygon(edge, fill=110 if typical >= _CROWDED else 170)
            for hole in holes:
                inside.polygon(hole, fill=0)
        image.paste(_FILL, mask=mask)
        canvas = ImageDraw.Draw(image)
        edges = areas if typical >= _CROWDED else []
        for run in (run for edge, holes in edges for run in (edge, *holes)):
            canvas.line(run, fill=_EDGE, width=1 if typical < _ROOMY else 2)
        for line in self.lines:
            canvas.line(view.pixels(line), fill=_EDGE, width=2 if typical < _ROOMY else 5, joint="curve")
        for x, y in view.pixels(specks, each=True):
            canvas.ellipse((x - 3, y - 3, x + 3, y + 3), fill=_EDGE if edges or self.lines else _FILL)


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

    def pixels(self, run: _Floats, *, each: bool = False) -> list[tuple[float, float]]:
        """For Pillow, in the large picture; unless ``each``, neighbours that fall on one pixel once."""
        x = (run[:, 0] - self.west) * self.x * _OVERSAMPLED
        y = (self.north - run[:, 1]) * self.y * _OVERSAMPLED
        moved = np.rint(np.column_stack([x, y]) * 2) / 2
        kept = np.append(True, (np.diff(moved, axis=0) != 0).any(axis=1) | each)[: len(moved)]
        runs: list[tuple[float, float]] = [tuple(point) for point in moved[kept].tolist()]
        return runs if each or len(runs) > 1 else runs * 2


def _turns(longitudes: _Floats, start: float) -> _Floats:
    """What to add to places (n, 2) so that longitudes count from ``start``."""
    turned = np.where((longitudes < start) & (start > -180.0), 360.0, 0.0)  # noqa: PLR2004 - degrees
    return np.column_stack([turned, np.zeros(len(turned))])


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
    rough = (high - low) / 6
    power = 10.0 ** math.floor(math.log10(rough))
    steps = [power * factor for factor in (1, 2, 5, 10)] if rough <= 10.0 else [15.0, 30.0, 45.0, 60.0]  # noqa: PLR2004
    step = next((step for step in steps if step >= rough), steps[-1])
    first = math.floor(low / step) + 1
    return step, [step * at for at in range(first, math.ceil(high / step))]


def _draw_graticule(image: Image.Image, view: _View, box: tuple[float, float, float, float]) -> None:
    """Lines of whole degrees, named at the left and the lower edge, and a frame."""
    west, south, east, north = box
    canvas = ImageDraw.Draw(image)
    font = ImageFont.load_default(size=_LETTERS * _OVERSAMPLED)
    (across, longitudes), (along, latitudes) = _lines_between(west, east), _lines_between(south, north)
    wide, high = view.large
    for run in [[(longitude, south), (longitude, north)] for longitude in longitudes] + [
        [(west, latitude), (east, latitude)] for latitude in latitudes
    ]:
        canvas.line(view.pixels(np.array(run)), fill=_GRID, width=2)
    for longitude in longitudes:
        (x, _), *_ = view.pixels(np.array([(longitude, south)]))
        if _MARGIN < x < wide - _MARGIN:
            name = _degrees((longitude + 180.0) % 360.0 - 180.0, across, "EW")
            canvas.text((x, high - 9), name, fill=_LABEL, anchor="ms", font=font)
    for latitude in latitudes:
        (_, y), *_ = view.pixels(np.array([(west, latitude)]))
        if y < high - _MARGIN / 2:
            canvas.text((12, y), _degrees(latitude, along, "NS"), fill=_LABEL, anchor="lm", font=font)
    canvas.rectangle((0, 0, wide - 1, high - 1), outline=_FRAME, width=_OVERSAMPLED)


def _degrees(value: float, step: float, signs: str) -> str:
    decimals = max(0, -math.floor(math.log10(step) + 1e-9))
    number = f"{abs(value):.{decimals}f}°"
    return number if float(number[:-1]) in (0.0, 180.0) else number + signs[0 if value > 0 else 1]


# --- points ----------------------------------------------------------------------------------------------------


def _with_places(large: Image.Image, view: _View, places: _Floats, *, bold: bool) -> Image.Image:
    """The finished map: dots one by one where they are few, else how many there are."""
    if len(places) > _DOTS:
        x, y = (places[:, 0] - view.west) * view.x, (view.north - places[:, 1]) * view.y
        return _with_density(large.resize((view.width, view.height), Image.Resampling.BOX), x, y)
    canvas = ImageDraw.Draw(large)
    radius = (5.0 if len(places) < 10 else 3.0 if len(places) < 200 else 2.0) + bold  # noqa: PLR2004
    for size, colour in (((radius + 0.8) * _OVERSAMPLED, (255, 255, 255)), (radius * _OVERSAMPLED, _DOT)):
        for across, down in view.pixels(places, each=True):
            canvas.ellipse((across - size, down - size, across + size, down + size), fill=colour)
    return large.resize((view.width, view.height), Image.Resampling.BOX)


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
    opacity = np.clip(np.minimum(around, 1.0) * 0.8 + shade * 0.5, 0.0, 1.0)[..., None]
    mixed = np.asarray(image, float) * (1 - opacity) + colours * opacity
    return Image.fromarray(mixed.round().astype(np.uint8))


# --- files -----------------------------------------------------------------------------------------------------


def _webp(image: Image.Image, **options: Any) -> bytes:
    file = BytesIO()
    image.save(file, "WEBP", method=4, **options)
    return file.getvalue()


def _within(image: Image.Image, limit: int) -> bytes:
    """The largest picture of at most so many bytes: in few exact colours, or blurred."""
    side = max(image.size)
    while True:
        scale = side / max(image.size)
        size = max(1, round(image.width * scale)), max(1, round(image.height * scale))
        shrunk = image if scale == 1 else image.resize(size, Image.Resampling.BOX)
        for data in _encodings(shrunk):
            if len(data) <= limit:
                return data
        side = max(1, min(side - 1, round(side * 0.88)))


def _encodings(image: Image.Image) -> Iterator[bytes]:
    """From the best to the least."""
    for quality, colours in ((85, 24), (60, 12), (40, 8)):
        yield _webp(image, quality=quality)
        few = image.quantize(colours, method=Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
        yield _webp(few.convert("RGB"), lossless=True)
