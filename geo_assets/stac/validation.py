"""Checks an item passes before it is written: the STAC core schema, its geometry, its times, and no secrets.

What belongs here: problems of one finished item, as sentences.  What does not: extension schemas; we write few
extension fields, and the tests check those against the schemas.

pgSTAC takes open rings, bow-ties and latitudes of 900, and a catalog is found by its geometry, so that is checked
here.  One kept jsonschema-rs validator over the schemas that pystac ships takes some 0.01 ms an item.
"""

import importlib.resources
import json
import math
import re
from collections.abc import Iterator, Mapping
from datetime import datetime
from functools import lru_cache
from itertools import pairwise
from typing import Any

import jsonschema_rs
import orjson
import shapely
import shapely.geometry

from geo_assets.redaction import redact
from geo_assets.stac.longitudes import bounding_box

__all__ = ["collection_problems", "core_schema_problems", "geometry_problems", "item_problems"]

_SCHEMAS = "https://schemas.stacspec.org/v1.1.0"
_SHIPPED = importlib.resources.files("pystac.validation") / "jsonschemas"
_BOX_TOLERANCE = 1e-6
_MOST_PROBLEMS = 5
_POSITIONS_OF_BOX = {4: (0, 1, 2, 3), 6: (0, 1, 3, 4)}
_RING_LEAST = 4
_MOST_ID_CHARACTERS = 1024
_TILE = re.compile(r"\{[xyz]\}")


def item_problems(item: Mapping[str, Any]) -> list[str]:
    """Say what is wrong with an item; empty where nothing is.

    It need not have the links a store adds (``root``, ``parent``, ``collection``, ``self``).
    """
    problems = _json_problems(item)
    if problems:
        return problems
    problems = core_schema_problems(item)
    if problems:
        return problems
    return [*_text_problems(item), *_time_problems(item["properties"]), *geometry_problems(item)]


def core_schema_problems(item: Mapping[str, Any]) -> list[str]:
    """Say where an item breaks the STAC core schema (a 1.0 item is held to that of 1.1, which only adds fields)."""
    checked = dict(item)
    if item.get("stac_version") == "1.0.0":
        checked["stac_version"] = "1.1.0"
    if isinstance(item.get("links"), list):
        checked["links"] = [_filled_in(link) for link in item["links"]]
        if "collection" in item:
            # the schema asks for this link beside the field; it is the stores that know where the collection lies
            checked["links"].append({"rel": "collection", "href": "./collection.json"})
    return _schema_problems("item", checked)


def collection_problems(collection: Mapping[str, Any]) -> list[str]:
    """Say where a collection breaks the STAC core schema."""
    return _json_problems(collection) or _schema_problems("collection", dict(collection))


def geometry_problems(item: Mapping[str, Any]) -> list[str]:
    """Say what is wrong with an item's geometry: rings, range, validity, winding, and whether its bbox agrees."""
    geometry, bbox = item.get("geometry"), item.get("bbox")
    if geometry is None:
        return ["geometry is null: a catalog finds items by their place"]
    problems = list(_shape_problems(geometry))
    if problems:
        return problems[:_MOST_PROBLEMS]
    if bbox is None:
        return ["bbox is missing"]
    return list(_box_problems(bbox, geometry))


def _json_problems(document: Mapping[str, Any]) -> list[str]:
    try:
        # orjson writes NaN as null without a word
        json.dumps(document, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        return [f"cannot be written as JSON: {redact(str(error))[:200]}"]
    return []


def _text_problems(item: Mapping[str, Any]) -> Iterator[str]:
    try:
        text = orjson.dumps(item)
    except (TypeError, ValueError) as error:
        yield f"cannot be written as JSON: {redact(str(error))[:200]}"
        return
    if b"\\u0000" in text:
        yield "holds a NUL character, which a database refuses"
    if len(item["id"]) > _MOST_ID_CHARACTERS:
        yield f"the id has {len(item['id'])} characters (at most {_MOST_ID_CHARACTERS})"
    for key, asset in item["assets"].items():
        href = asset["href"]
        if "sig=" in href or redact(href) != href:
            yield f"the href of asset '{key}' holds a credential: give the URL without a query"


def _time_problems(properties: Mapping[str, Any]) -> Iterator[str]:
    moments: dict[str, datetime] = {}
    for name in ("datetime", "start_datetime", "end_datetime"):
        value = properties.get(name)
        if value is None:
            continue
        try:
            moments[name] = datetime.fromisoformat(value)
        except ValueError:
            yield f"{name} '{value[:80]}' is not a time between the years 1 and 9999"
            continue
        if moments[name].tzinfo is None:
            yield f"{name} '{value}' has no time zone"
            moments.pop(name)
    if (
        "start_datetime" in moments
        and "end_datetime" in moments
        and moments["start_datetime"] > moments["end_datetime"]
    ):
        yield "start_datetime lies after end_datetime"


# --- schema ------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=2)
def _validator(kind: str) -> Any:
    shipped = [
        *(
            (f"{_SCHEMAS}/{name}-spec/json-schema/{name}.json", f"{name}.json")
            for name in ("item", "catalog", "collection")
        ),
        *(
            (f"{_SCHEMAS}/item-spec/json-schema/{name}.json", f"{name}.json")
            for name in ("bands", "basics", "common", "data-values", "datetime", "instrument", "licensing", "provider")
        ),
    ]
    resources = [(uri, _shipped("stac-spec/v1.1.0", name)) for uri, name in shipped]
    resources += [
        (f"https://geojson.org/schema/{name}.json", _shipped("geojson", f"{name}.json"))
        for name in ("Feature", "Geometry")
    ]
    return jsonschema_rs.Draft7Validator(
        _shipped("stac-spec/v1.1.0", f"{kind}.json"),
        registry=jsonschema_rs.Registry(resources),
        validate_formats=True,
        # a message that quotes the value could quote all of the item
        mask="the value",
    )


def _filled_in(link: Any) -> Any:
    """A link to map tiles with numbers for its placeholders, which the core schema does not know."""
    if not isinstance(link, dict) or link.get("rel") != "xyz" or not isinstance(link.get("href"), str):
        return link
    return {**link, "href": _TILE.sub("0", link["href"])}


def _shipped(folder: str, name: str) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((_SHIPPED / folder / name).read_text())
    return loaded


def _schema_problems(kind: str, document: dict[str, Any]) -> list[str]:
    validator = _validator(kind)
    if validator.is_valid(document):
        return []
    problems: list[str] = []
    for error in validator.iter_errors(document):
        where = "/".join(str(part) for part in error.instance_path) or kind
        problems.append(redact(f"{where}: {error.message[:300]}"))
        if len(problems) == _MOST_PROBLEMS:
            break
    return problems


# --- geometry ----------------------------------------------------------------------------------------------------


def _shape_problems(geometry: Mapping[str, Any]) -> Iterator[str]:
    if geometry["type"] == "GeometryCollection":
        for part in geometry["geometries"]:
            yield from _shape_problems(part)
        return
    coordinates = geometry["coordinates"]
    polygons = {"Polygon": [coordinates], "MultiPolygon": coordinates}.get(geometry["type"], [])
    found = False
    for problem in (*_range_problems(coordinates), *(p for rings in polygons for p in _ring_problems(rings))):
        found = True
        yield problem
    if found or not polygons:
        return
    shape = shapely.geometry.shape(geometry)
    if not shape.is_valid:
        yield f"the geometry is not valid: {shapely.is_valid_reason(shape)}"
    elif shape.area == 0:
        yield "the geometry has no area"


def _range_problems(coordinates: Any) -> Iterator[str]:
    for position in _positions(coordinates):
        longitude, latitude = position[0], position[1]
        if not (math.isfinite(longitude) and math.isfinite(latitude)):
            yield "a coordinate is not a number"
        elif abs(longitude) > 180 or abs(latitude) > 90:  # noqa: PLR2004
            yield f"the position ({longitude:g}, {latitude:g}) lies outside ±180, ±90"
            return  # one tells enough


def _positions(coordinates: Any) -> Iterator[Any]:
    if coordinates and isinstance(coordinates[0], int | float):
        yield coordinates
        return
    for part in coordinates:
        yield from _positions(part)


def _ring_problems(rings: Any) -> Iterator[str]:
    for number, ring in enumerate(rings):
        name = "the outer ring" if number == 0 else f"hole {number}"
        if len(ring) < _RING_LEAST:
            yield f"{name} has {len(ring)} positions, fewer than four"
        elif list(ring[0]) != list(ring[-1]):
            yield f"{name} is not closed"
        elif (_doubled_area(ring) > 0) != (number == 0):
            yield f"{name} runs the wrong way round: outer rings go counter-clockwise, holes clockwise"
    if not rings:
        yield "a polygon has no ring"


def _doubled_area(ring: Any) -> float:
    return sum(float(here[0] * there[1] - there[0] * here[1]) for here, there in pairwise(ring))


def _box_problems(bbox: Any, geometry: Mapping[str, Any]) -> Iterator[str]:
    west, south, east, north = (float(bbox[at]) for at in _POSITIONS_OF_BOX[len(bbox)])
    shape = shapely.geometry.shape(geometry)
    parts = [part.bounds for part in getattr(shape, "geoms", [shape])]
    expected = [list(shape.bounds), bounding_box(parts)]
    given = [west, south, east, north]
    if not any(
        all(abs(ours - theirs) <= _BOX_TOLERANCE for ours, theirs in zip(given, box, strict=True)) for box in expected
    ):
        yield f"bbox {given} does not agree with the geometry's {expected[-1]}"
