"""What a loaded table is to the UI and to those who take it back.

What belongs here: the metadata of a table's partition, and what a result says was published.  What does not: loading
(``ingest_vector``), and the metadata of items (``vector_cataloguing``).
"""

import base64
from collections.abc import Mapping, Sequence
from typing import Any

from geo_assets.coremachine.contract import PICTURES, Markdown, Published
from geo_assets.pictures import Picture, enlarged, gallery, shown_at_once

__all__ = ["box_text", "report_rows", "table_metadata", "table_published"]

_MAP_SIDE = 260
"""Pixels of the longer side of the map that is shown at once; larger, it would only be coarser."""
_COLUMNS_SHOWN = 40
_NOTES = 10
_WORDS = {
    "null": "rows without geometry",
    "empty": "rows with an empty geometry",
    "impossible": "rows with impossible coordinates, dropped",
    "repaired": "invalid geometries repaired",
    "repaired_moved": "geometries that reprojection made invalid, repaired",
    "collapsed": "invalid geometries of which nothing is left, dropped",
    "dropped_invalid": "invalid geometries dropped",
    "kept_invalid": "invalid geometries kept",
    "split_collections": "geometry collections split",
    "linearised": "curves made straight",
    "reprojected": "geometries reprojected",
    "wrapped_longitudes": "geometries with longitudes brought within ±180",
    "split_antimeridian": "geometries cut at the antimeridian",
    "reoriented": "rings turned round",
    "lost_z": "geometries that lost Z, or some of it, when they were repaired or cut",
    "lost_m": "geometries that lost M, or some of it, when they were repaired or cut",
    "flattened": "geometries that lost an empty Z or M",
    "filled_z": "geometries that got a Z of 0",
}


def table_metadata(table: Mapping[str, Any], source: Mapping[str, Any]) -> dict[str, Any]:
    """What the partition of a table shows."""
    geometry: Mapping[str, Any] = table.get("geometry") or {}
    columns: Sequence[Mapping[str, Any]] = table["columns"]
    shown = {
        **_pictures(table),
        "dagster/row_count": table["rows"],
        "dagster/table_name": f"{table['schema']}.{table['table']}",
        "dagster/uri": table["href"],
        "rows_loaded": table["rows_loaded"],
        "shown": None
        if table["rows"] == table["rows_loaded"]
        else "map, box, types and sample are of the rows of this load",
        "column_count": len(columns),
        "source_rows": table["source_rows"],
        "crs": f"EPSG:{geometry['srid']}" if geometry else None,
        "source_crs": table["source_crs"],
        "geometry_types": ", ".join(f"{kind}: {count:,}" for kind, count in table["geometry_types"].items()) or None,
        "geometry_column": f"{geometry['name']} {geometry['type']} {geometry['dimensions']}" if geometry else None,
        "bbox": box_text(table["bbox"]),
        "changes": report_rows(table["report"]) or None,
        "sample": [dict(row) for row in table.get("sample") or ()] or None,
        "dagster/column_schema": _schema_of(columns, geometry),
        "notes": [note[:200] for note in table["notes"][:_NOTES]] or None,
        "layer": table["layer"],
        "source": f"{source.get('container')}/{source.get('blob')}",
        "source_etag": source.get("etag"),
        "checksum_sha256": source.get("sha256"),
        "version": table["version"],
    }
    return {name: value for name, value in shown.items() if value is not None}


def box_text(box: Sequence[float] | None) -> str | None:
    """A box in one line, rounded to what a person reads."""
    return None if box is None else ", ".join(f"{edge:.7g}" for edge in box)


def report_rows(report: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What was changed or dropped on the way, a row a kind; nothing where nothing was."""
    rows = []
    for name, found in report.items():
        if isinstance(found, Mapping) and found.get("count"):
            examples = ", ".join(str(row) for row in found.get("examples") or ())
            rows.append({"what": _WORDS.get(name, name), "rows": found["count"], "first_rows": examples or None})
        elif isinstance(found, Mapping) and name not in ("invalid_reasons", "count"):
            rows += [{"what": f"{name}: {column}", "rows": count, "first_rows": None}
                     for column, count in found.items() if isinstance(count, int) and count]  # fmt: skip
    reasons: Mapping[str, int] = report.get("invalid_reasons") or {}
    rows += [{"what": f"of the invalid: {reason}", "rows": count, "first_rows": None}
             for reason, count in reasons.items()]  # fmt: skip
    return rows


def _schema_of(columns: Sequence[Mapping[str, Any]], geometry: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The columns as Dagster shows them; those of very wide tables are cut."""
    shown: list[dict[str, Any]] = [{"name": "id", "type": "bigint", "description": "number of the row in the source"}]
    for column in columns[:_COLUMNS_SHOWN]:
        renamed = column["source_name"] != column["name"]
        description = f"'{column['source_name'][:60]}' in the source" if renamed else None
        shown.append({"name": column["name"], "type": column["type"], "description": description})
    if len(columns) > _COLUMNS_SHOWN:
        shown.append({"name": f"… and {len(columns) - _COLUMNS_SHOWN} more", "type": "", "description": None})
    if geometry:
        kind = f"geometry({geometry['type']}, {geometry['srid']})"
        shown.append({"name": geometry["name"], "type": kind, "description": None})
    return shown


def _pictures(table: Mapping[str, Any]) -> dict[str, Any]:
    pictures: Mapping[str, Any] | None = table.get(PICTURES)
    if not pictures:
        return {}
    alt = f"Map of {table['schema']}.{table['table']}"
    tiny, small = (
        Picture(alt=alt, media_type=pictures["media_type"], data=base64.b64decode(pictures[size]))
        for size in ("tiny", "small")
    )
    scale = _MAP_SIDE / max(pictures["width"], pictures["height"], 1)
    width, height = (max(round(pictures[side] * scale), 1) for side in ("width", "height"))
    at_once = shown_at_once(enlarged(tiny, width=width, height=height))
    return {**({"map": Markdown(at_once)} if at_once else {}), "pictures": Markdown(gallery("", [small]))}


def table_published(table: Mapping[str, Any]) -> Sequence[Published]:
    """The table and its picture."""
    thumbnail = table.get("thumbnail")
    made = [Published(kind="table", collection=table["schema"], name=table["table"], version=table["version"])]
    if thumbnail:
        made.append(
            Published(kind="blob", collection=thumbnail["container"], name=thumbnail["blob"], version=thumbnail["etag"])
        )
    return made
