"""What an item is refused for.

What belongs here: ``geo_assets.stac.validation``.  What does not: what the stores do about it.
"""

import copy
import re
from functools import lru_cache
from typing import Any

import pytest
from jsonschema import Draft7Validator  # type: ignore[import-untyped]
from pystac.validation.local_validator import get_local_schema_cache
from referencing import Registry, Resource

from geo_assets.stac.validation import collection_problems, core_schema_problems, item_problems
from tests.stores.catalog_items import item


def square(*points: tuple[float, float]) -> dict[str, Any]:
    return {"type": "Polygon", "coordinates": [[list(point) for point in points]]}


def test_a_good_item_has_no_problems() -> None:
    assert item_problems(item()) == []


@pytest.mark.parametrize(
    ("geometry", "bbox", "said"),
    [
        (square((0, 0), (1, 0), (1, 1), (0, 1)), [0, 0, 1, 1], "not closed"),
        (square((0, 0), (1, 1), (1, 0), (0, 1), (0, 0)), [0, 0, 1, 1], "not valid|wrong way"),
        (square((0, 0), (0, 1), (1, 1), (1, 0), (0, 0)), [0, 0, 1, 1], "wrong way"),
        (square((0, 0), (900, 0), (900, 1), (0, 1), (0, 0)), [0, 0, 900, 1], "outside"),
        (square((0, 0), (1, 0), (1, 95), (0, 95), (0, 0)), [0, 0, 1, 95], "outside"),
        (square((0, 0), (1, 0), (1, 1), (0, 1), (0, 0)), [0, 0, 1, 2], "bbox .* does not agree"),
        (square((0, 0), (1, 0), (1, 1), (0, 1), (0, 0)), [1, 0, 0, 1], "bbox .* does not agree"),
        (square((0, 0), (1, 0), (0, 0)), [0, 0, 1, 1], "fewer|coordinates|geometry"),
        ({"type": "Polygon", "coordinates": []}, [0, 0, 1, 1], "no ring"),
        ({"type": "Circle", "coordinates": [0, 0]}, [0, 0, 1, 1], "geometry|item"),
        (
            {
                "type": "Polygon",
                "coordinates": [
                    [[0, 0], [9, 0], [9, 9], [0, 9], [0, 0]],
                    [[1, 1], [2, 1], [2, 2], [1, 2], [1, 1]],
                ],
            },
            [0, 0, 9, 9],
            "hole 1 runs the wrong way",
        ),
    ],
)
def test_bad_geometry_is_named(geometry: dict[str, Any], bbox: list[float], said: str) -> None:
    problems = item_problems({**item(), "geometry": geometry, "bbox": bbox})
    assert problems
    assert re.search(said, " ".join(problems)), problems


@pytest.mark.parametrize(
    ("geometry", "bbox"),
    [
        (square((0, 0), (1, 0), (1, 1), (0, 1), (0, 0)), [0, 0, -5, 1, 1, 5]),
        ({"type": "Point", "coordinates": [5, 6]}, [5, 6, 5, 6]),
        (
            {
                "type": "MultiPolygon",
                "coordinates": [
                    square((170, 0), (180, 0), (180, 1), (170, 1), (170, 0))["coordinates"],
                    square((-180, 0), (-170, 0), (-170, 1), (-180, 1), (-180, 0))["coordinates"],
                ],
            },
            [170, 0, -170, 1],
        ),
    ],
)
def test_good_geometry_passes(geometry: dict[str, Any], bbox: list[float]) -> None:
    assert item_problems({**item(), "geometry": geometry, "bbox": bbox}) == []


def test_a_null_geometry_is_refused() -> None:
    placeless = {**item(), "geometry": None}
    del placeless["bbox"]
    assert item_problems(placeless) == ["geometry is null: a catalog finds items by their place"]
    without_box = item()
    del without_box["bbox"]
    assert item_problems(without_box)


@pytest.mark.parametrize(
    ("properties", "fine"),
    [
        ({"datetime": None}, False),
        ({"datetime": None, "start_datetime": "2020-01-01T00:00:00Z", "end_datetime": "2021-01-01T00:00:00Z"}, True),
        ({"datetime": None, "start_datetime": "2022-01-01T00:00:00Z", "end_datetime": "2021-01-01T00:00:00Z"}, False),
        ({"datetime": "2020-01-01T00:00:00"}, False),
        ({"datetime": "2020-01-01"}, False),
        ({"datetime": "1066-10-14T09:00:00Z"}, True),
        ({"datetime": "10000-01-01T00:00:00Z"}, False),
        ({"datetime": "2020-13-01T00:00:00Z"}, False),
        ({"datetime": 5}, False),
    ],
)
def test_times(properties: dict[str, Any], fine: bool) -> None:  # noqa: FBT001
    assert (item_problems(item(**properties)) == []) is fine


@pytest.mark.parametrize(
    "href",
    ["https://h.example/a.tif?sv=1&sig=canary", "https://user:canary@h.example/a.tif", "postgresql://u:canary@h/d"],
)
def test_credentials_in_hrefs_are_refused_without_being_repeated(href: str) -> None:
    leaking = item()
    leaking["assets"]["data"]["href"] = href
    problems = item_problems(leaking)
    assert any("credential" in problem for problem in problems)
    assert "canary" not in str(problems)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), object(), "a\x00b", "\ud800", {1: 2, "x": {3}}])
def test_what_json_or_a_database_cannot_hold(value: object) -> None:
    assert item_problems(item(odd=value))


def test_ids() -> None:
    assert item_problems({**item(), "id": ""})
    assert item_problems({**item(), "id": 5})
    assert item_problems({**item(), "id": "x" * 1025})
    assert not item_problems({**item(), "id": "x" * 500})


def test_the_verdict_is_pystacs() -> None:
    """Take every key away, and put null, a number and a text in its place: both say the same each time."""
    good = {**item(), "links": [{"rel": "collection", "href": "./collection.json"}]}
    checked = 0
    for mutant in _mutants(good):
        ours = core_schema_problems(mutant) == []
        assert ours == _pystac_accepts(mutant), mutant
        checked += 1
    assert checked > 100


def _mutants(good: dict[str, Any]) -> list[dict[str, Any]]:
    mutants = []
    values: tuple[Any, ...] = (..., None, 5, "text", [], {})
    for place in ((), ("properties",), ("assets", "data"), ("geometry",)):
        target: Any = good
        for step in place:
            target = target[step]
        for key in target:
            for value in values:
                mutant = copy.deepcopy(good)
                inner: Any = mutant
                for step in place:
                    inner = inner[step]
                if value is ...:
                    del inner[key]
                else:
                    inner[key] = value
                mutants.append(mutant)
    return mutants


def _pystac_accepts(mutant: dict[str, Any]) -> bool:
    checked = dict(mutant)
    if "collection" in mutant and isinstance(mutant.get("links"), list):
        checked["links"] = [*mutant["links"], {"rel": "collection", "href": "./collection.json"}]
    return bool(_pystacs_validator().is_valid(checked))


@lru_cache(maxsize=1)
def _pystacs_validator() -> Any:
    schemas = get_local_schema_cache()
    resources = ((uri, Resource.from_contents(schema)) for uri, schema in schemas.items())
    registry: Any = Registry().with_resources(resources)
    core = next(schema for uri, schema in schemas.items() if uri.endswith("/item.json"))
    return Draft7Validator(core, registry=registry)


def test_collections() -> None:
    assert collection_problems({"type": "Collection"})
