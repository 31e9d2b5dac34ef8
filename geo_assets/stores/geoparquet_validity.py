"""Whether the geometries in Parquet files are valid, a batch at a time.

What belongs here: looking.  What does not: judging tables (``geo_assets.checking``), and what else is known of them
(``geoparquet_facts``).
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
import shapely

from geo_assets.errors import TableDataError
from geo_assets.stores.geoparquet_facts import Files
from geo_assets.stores.tables import GeometryValidity
from geo_assets.vector.table import ID_COLUMN

__all__ = ["validity_of"]

_EXAMPLES: Final = 3


def validity_of(paths: Sequence[Path], *, name: str, most: int) -> GeometryValidity:
    """Look at the geometries of a table's files; at ``most`` spread evenly over them where there are more.

    Raises:
        TableDataError: a file, or a geometry in it, cannot be read.
    """
    looked_at = invalid = 0
    examples: list[str] = []
    try:
        files = Files(paths)
        every = max(1, -(-files.rows // max(most, 1)))
        keys = [ID_COLUMN] if ID_COLUMN in files.schema.names else []
        for column in files.geometry_columns if most else ():
            at = 0
            for batch in files.batches([column, *keys]):
                chosen = batch.take(np.arange(-at % every, batch.num_rows, every))
                at += batch.num_rows
                shapes = shapely.from_wkb(chosen.column(0).to_numpy(zero_copy_only=False))
                there = np.flatnonzero(~shapely.is_missing(shapes))
                bad = there[~shapely.is_valid(shapes[there])]
                looked_at, invalid = looked_at + len(there), invalid + len(bad)
                for row in bad[: _EXAMPLES - len(examples)].tolist():
                    number = f" (id {chosen.column(1)[row].as_py()})" if keys else ""
                    examples.append(f"{shapely.is_valid_reason(shapes[row])}{number}")
    except (pa.ArrowInvalid, shapely.errors.GEOSException) as error:
        raise TableDataError(f"the files of {name} cannot be read: {error}") from error
    return GeometryValidity(
        rows=files.rows, looked_at=looked_at, invalid=invalid, examples=tuple(examples), exact=files.rows <= most
    )
