"""What only SQLite tells of a GeoPackage: values that are not of the type their column says, and its feature ids.

What belongs here: asking SQLite, which keeps whatever it is given: text in a column of integers, bytes in one of text.
What does not: reading the rows, for which GDAL makes 0 or the first of January 1970 of such values (``ogr_layers``).
"""

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

__all__ = ["Misfits", "TypedTable"]

type Fids = npt.NDArray[np.int64]

# text compares as greater than any number, and bytes as greater than any text; what is no integer of so many bits
# is not what its bits say.  SQLite's functions would tell, too, but take eight times as long
_MISFITTING: "Final[dict[pa.DataType, str]]" = {
    pa.bool_(): "{0} >= ''",
    pa.int16(): "{0} <> ({0} << 48 >> 48)",
    pa.int32(): "{0} <> ({0} << 32 >> 32)",
    pa.int64(): "{0} <> ({0} | 0)",
    pa.float32(): "{0} >= ''",
    pa.float64(): "{0} >= ''",
    pa.string(): "{0} >= x''",
}
_NO_DATE: Final = "date(replace(substr({0}, 1, 10), '/', '-')) IS NOT replace(substr({0}, 1, 10), '/', '-')"
_SHOWN: Final = 40
_MOST_LISTED: Final = 500


@dataclass(frozen=True, kw_only=True)
class Misfits:
    """The values of one column that are not of its type."""

    fids: Fids
    example: str


@dataclass(frozen=True, kw_only=True)
class TypedTable:
    """A table, or a view, of a GeoPackage, and the types of some of its columns."""

    path: Path
    name: str
    fid: str
    """The column of feature ids."""
    types: "Sequence[tuple[str, pa.DataType]]" = field(default_factory=tuple)

    def counts_on(self) -> bool:
        """Whether the feature ids are 1, 2, 3 and so on; also where there is none.

        Raises:
            sqlite3.DatabaseError: as :meth:`misfits`.
        """
        fid, table = _quoted(self.fid), _quoted(self.name)
        # each by itself, which SQLite reads from an end of the table
        parts = (f"(SELECT {what} FROM {table})" for what in (f"min({fid})", f"max({fid})", "count(*)"))  # noqa: S608
        with self._connected() as connection:
            first, last, count = connection.execute(f"SELECT {', '.join(parts)}").fetchone()
        return count == 0 or (first, last) == (1, count)

    def misfits(self) -> dict[str, Misfits]:
        """Find values that are not of their column's type; but for dates.

        Raises:
            sqlite3.DatabaseError: the file is damaged, or has no such table or column.
        """
        wanted = {name: _MISFITTING[kind] for name, kind in self.types if kind in _MISFITTING}
        if not wanted:
            return {}
        conditions = {name: condition.format(_quoted(name)) for name, condition in wanted.items()}
        with self._connected() as connection:
            table = _quoted(self.name)
            # one pass over the table; it is the rule that there is none
            some = connection.execute(
                f"SELECT 1 FROM {table} WHERE {' OR '.join(conditions.values())} LIMIT 1"  # noqa: S608 - quoted
            ).fetchone()
            if some is None:
                return {}
            found = {name: self._of(connection, name, condition) for name, condition in conditions.items()}
        return {name: one for name, one in found.items() if one is not None}

    def no_dates(self, name: str, suspects: Fids) -> Misfits | None:
        """Find values of a column that are no dates, among those of some features.

        Raises:
            sqlite3.DatabaseError: as :meth:`misfits`.
        """
        fid = _quoted(self.fid)
        if len(suspects) <= _MOST_LISTED:
            among = f"{fid} IN ({', '.join(str(int(one)) for one in suspects)})"
        else:
            among = f"{fid} BETWEEN {int(suspects.min())} AND {int(suspects.max())}"
        column = _quoted(name)
        with self._connected() as connection:
            return self._of(connection, name, f"{among} AND {column} IS NOT NULL AND {_NO_DATE.format(column)}")

    def _of(self, connection: sqlite3.Connection, name: str, condition: str) -> Misfits | None:
        query = f"SELECT {_quoted(self.fid)}, {_quoted(name)} FROM {_quoted(self.name)} WHERE {condition}"  # noqa: S608
        rows = iter(connection.execute(query))
        first = next(rows, None)
        if first is None:
            return None
        fids = np.fromiter(_ids(first[0], rows), np.int64)
        return Misfits(fids=fids, example=repr(first[1])[:_SHOWN])

    def _connected(self) -> "closing[sqlite3.Connection]":
        connection = sqlite3.connect(f"{self.path.as_uri()}?mode=ro&immutable=1", uri=True)
        connection.text_factory = lambda value: value.decode("utf-8", "replace")
        connection.execute("PRAGMA trusted_schema = OFF")
        return closing(connection)


def _ids(first: int, rows: Iterator[tuple[int, object]]) -> Iterator[int]:
    yield first
    for fid, _ in rows:
        yield fid


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
