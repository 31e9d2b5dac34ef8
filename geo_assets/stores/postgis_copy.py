"""Arrow batches on their way into a table: COPY in PostgreSQL's binary format.

What belongs here: the encoding and the copy.  What does not: which table, in which transaction (``postgis_staging``).

Geometries are sent as they are: a geometry column takes WKB, and its type modifier stamps the SRID.
"""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final

import pyarrow as pa
from pgpq import ArrowToPostgresBinaryEncoder, encoders
from pgpq import schema as pgpq_schema
from psycopg import sql

from geo_assets.errors import TableDataError
from geo_assets.vector.table import ID_COLUMN, ColumnType, TableDefinition

if TYPE_CHECKING:
    from geo_assets.stores.postgis_session import Connection

__all__ = ["copy_rows"]

_ENCODERS: Final[Mapping[ColumnType, Any]] = {
    ColumnType.BOOLEAN: encoders.BooleanEncoderBuilder,
    ColumnType.SMALLINT: encoders.Int16EncoderBuilder,
    ColumnType.INTEGER: encoders.Int32EncoderBuilder,
    ColumnType.BIGINT: encoders.Int64EncoderBuilder,
    ColumnType.REAL: encoders.Float32EncoderBuilder,
    ColumnType.DOUBLE: encoders.Float64EncoderBuilder,
    ColumnType.NUMERIC: encoders.Decimal128EncoderBuilder,
    ColumnType.TEXT: encoders.StringEncoderBuilder,
    ColumnType.DATE: encoders.Date32EncoderBuilder,
    ColumnType.TIME: encoders.Time64MicrosecondEncoderBuilder,
    ColumnType.TIMESTAMP: encoders.TimestampMicrosecondEncoderBuilder,
    ColumnType.TIMESTAMPTZ: encoders.TimestampMicrosecondEncoderBuilder,
    ColumnType.JSON: lambda field: encoders.StringEncoderBuilder.new_with_output(field, pgpq_schema.Jsonb()),
    ColumnType.BINARY: encoders.BinaryEncoderBuilder,
}


def copy_rows(
    connection: "Connection", target: sql.Composable, definition: TableDefinition, batches: Iterable[pa.RecordBatch]
) -> int:
    """Copy batches into a table with the columns of ``definition``, in order; returns the rows that arrived.

    Raises:
        TableDataError: a batch has other columns, or the server counted other rows than were sent.
    """
    schema = definition.chunk_schema
    encoder = _encoder(definition, schema)
    sent = 0
    with connection.cursor() as cursor:
        with cursor.copy(sql.SQL("copy {} from stdin (format binary)").format(target)) as copy:
            copy.write(encoder.write_header())
            for batch in batches:
                if not batch.schema.equals(schema):
                    raise TableDataError(
                        f"a chunk of {definition.name} has other columns than its table:"
                        f" {batch.schema.names} of {[str(one) for one in batch.schema.types]}"
                    )
                copy.write(encoder.write_batch(batch))
                sent += batch.num_rows
            copy.write(encoder.finish())
        arrived = cursor.rowcount
    if arrived != sent:
        raise TableDataError(f"{arrived} rows of a chunk of {definition.name} arrived, {sent} were sent")
    return sent


def _encoder(definition: TableDefinition, schema: pa.Schema) -> ArrowToPostgresBinaryEncoder:
    kinds = {column.name: _ENCODERS[column.type] for column in definition.columns}
    kinds[ID_COLUMN] = _ENCODERS[ColumnType.BIGINT]
    if definition.geometry is not None:
        kinds[definition.geometry.name] = _ENCODERS[ColumnType.BINARY]
    return ArrowToPostgresBinaryEncoder.new_with_encoders(
        schema, {field.name: kinds[field.name](field) for field in schema}
    )
