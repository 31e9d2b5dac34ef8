"""The STAC extension schemas as one check, offline.

What belongs here: :func:`extension_problems`.  What does not: the core schemas, which the package itself checks.
"""

import json
from functools import lru_cache
from pathlib import Path
from typing import Any

import jsonschema_rs
import pystac

_FOLDER = Path(__file__).resolve().parents[1] / "data/schemas"


def extension_problems(item: dict[str, Any]) -> list[str]:
    """Say where an item breaks the extensions it declares, as far as their schemas are here."""
    problems = []
    for uri in item["stac_extensions"]:
        validator = _validators().get(uri)
        if validator is not None:
            problems += [f"{uri}: {error.message[:200]}" for error in validator.iter_errors(item)]
    return problems


@lru_cache(maxsize=1)
def _validators() -> dict[str, Any]:
    core = Path(pystac.__file__).parent / "validation/jsonschemas/geojson/Geometry.json"
    registry = jsonschema_rs.Registry(
        [
            ("https://geojson.org/schema/Geometry.json", json.loads(core.read_text())),
            ("https://proj.org/schemas/v0.7/projjson.schema.json", {"type": "object"}),
        ]
    )
    schemas = [json.loads(path.read_text()) for path in _FOLDER.rglob("*.json")]
    assert len(schemas) >= 8
    return {
        schema["$id"].rstrip("#"): jsonschema_rs.Draft7Validator(schema, registry=registry, validate_formats=True)
        for schema in schemas
    }
