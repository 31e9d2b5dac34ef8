"""STAC catalog in PostgreSQL: pgSTAC, as STAC APIs and tile servers read it.

What belongs here: :class:`PgstacCatalog`.  What does not: the decisions all catalogs share (``catalog``), pgSTAC's
schema, which pypgstac brings and migrates.

Rows are written by pypgstac's loader, in batches, as one ``delsert`` a partition and transaction: an item whose time
moved leaves no copy behind.  Each collection has one writer at a time, by an advisory lock that ends with the
connection.  pgSTAC itself checks nothing about an item and keeps no true extent; ``catalog`` and ``collections`` do.
"""

import random
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from typing import Any, Final, LiteralString

import psycopg
from psycopg import sql
from psycopg.types.json import Jsonb
from psycopg_pool import ConnectionPool
from pypgstac.db import PgstacDB
from pypgstac.load import Loader, Methods
from pypgstac.migrate import Migrate

from geo_assets.errors import CatalogError, CatalogUnavailableError
from geo_assets.redaction import redact
from geo_assets.stac.collections import (
    SUMMARISED,
    TEMPORAL,
    CollectionDescription,
    collection_document,
    describe_collection,
    facts_of,
)
from geo_assets.stac.items import DescribedBlob, described_blob, without_structural_links
from geo_assets.stores.catalog import ItemOutcome, ItemReferences, ItemStatus, UpsertPlan, references_of
from geo_assets.stores.postgres_connections import Connection, Connections, postgres_url

__all__ = ["PgstacCatalog"]

_LOCK_SPACE = 0x6765_6F61  # "geoa": ours among the advisory locks of the database
_LOCK_WAIT = "10min"
_MIGRATION_ATTEMPTS = 6
_PAGE = 1000
_REFERENCES: Final = (
    "jsonb_build_object('id', i.id, 'properties',"
    " (select jsonb_object_agg(key, value) from jsonb_each(i.content->'properties') where key like 'geo\\_assets:%%'),"
    " 'assets', (select jsonb_object_agg(key, jsonb_build_object('href', value->'href'))"
    " from jsonb_each(i.content->'assets')))"
)

_OVERVIEW: Final = (
    "jsonb_build_object('id', i.id, 'bbox', i.content->'bbox', 'geometry', st_asgeojson(i.geometry, 6)::jsonb,"
    " 'properties', (select jsonb_object_agg(key, value) from jsonb_each(i.content->'properties')"
    " where key like 'geo\\_assets:%%' or key in ('datetime', 'start_datetime', 'created', 'table:row_count')),"
    " 'assets', (select jsonb_object_agg(key, jsonb_build_object('href', value->'href', 'type', value->'type',"
    " 'roles', value->'roles', 'file:size', value->'file:size')) from jsonb_each(i.content->'assets')))"
)


class PgstacCatalog:
    """A catalog in the pgSTAC schema of a database; the schema is made, or brought up to date, when it is opened."""

    def __init__(self, url: str, *, batch_size: int = 2000) -> None:
        """Connect, and migrate if need be.

        Args:
            url: ``postgresql://…``; a driver in the scheme is ignored.
            batch_size: items compared and written at once.

        Raises:
            SettingsError: the URL is not one of PostgreSQL.
            CatalogUnavailableError: the database cannot be reached.
            CatalogError: its pgSTAC is newer than ours, or may not be made by this user.
        """
        parsed = postgres_url(url, setting="GEO_ASSETS_CATALOG_URL", what="pgSTAC")
        self.description = f"pgSTAC in {parsed.host or 'the local socket'}/{parsed.database}"
        self._dsn = parsed.render_as_string(hide_password=False)
        self._batch_size = batch_size
        self._connections = Connections(self._connected, ask_first=False)
        self._migrate()

    def close(self) -> None:
        """Close all connections; also done when nobody holds the catalog any more."""
        self._connections.close()

    # --- items

    def upsert_items(
        self, collection_id: str, items: Iterable[Mapping[str, Any]], *, refresh: bool = True
    ) -> list[ItemOutcome]:
        """Write items to a collection; see :class:`~geo_assets.stores.catalog.CatalogStore`."""
        described = describe_collection(collection_id)
        plan = UpsertPlan(collection_id, items)
        with self._connection() as connection, _locked(connection, collection_id, queue=not refresh):
            self._create(connection, described)
            to_write = plan.decide(self._existing(connection, collection_id, plan.candidate_ids))
            for start in range(0, len(to_write), self._batch_size):
                self._load(connection, collection_id, to_write[start : start + self._batch_size])
            if refresh:
                self._refresh(connection, collection_id)
        return plan.outcomes

    def delete_items(self, collection_id: str, item_ids: Iterable[str]) -> list[ItemOutcome]:
        """Remove items and bring the collection up to date."""
        wanted = list(item_ids)
        with self._connection() as connection, _locked(connection, collection_id):
            with connection.transaction():
                rows = connection.execute(
                    "delete from pgstac.items where collection = %s and id = any(%s) returning id",
                    (collection_id, wanted),
                ).fetchall()
            gone = {row[0] for row in rows}
            if gone:
                self._refresh(connection, collection_id)
        return [
            ItemOutcome(item_id, ItemStatus.DELETED if item_id in gone else ItemStatus.ABSENT) for item_id in wanted
        ]

    def get_item(self, collection_id: str, item_id: str) -> dict[str, Any] | None:
        """One item; ``None`` if it is not there."""
        with self._connection() as connection:
            return self._existing(connection, collection_id, [item_id]).get(item_id)

    def iter_items(self, collection_id: str) -> Iterator[dict[str, Any]]:
        """All items of a collection, by id, a page at a time."""
        for item in self._pages("pgstac.content_hydrate(i)", collection_id):
            yield _restored(item)

    def iter_references(self, collection_id: str) -> Iterator[ItemReferences]:
        """What each item of a collection points at, by id, a page at a time."""
        # what is left out makes the page small: statistics and footprints are most of an item
        for item in self._pages(_REFERENCES, collection_id):
            yield references_of(item)

    def iter_overviews(self, collection_id: str) -> Iterator[dict[str, Any]]:
        """All items of a collection, of each what an overview shows, by id, a page at a time."""
        return self._pages(_OVERVIEW, collection_id)

    def _pages(self, what: LiteralString, collection_id: str) -> Iterator[dict[str, Any]]:
        query = sql.SQL(
            "select i.id, {} from pgstac.items i"
            ' where collection = %s and id > %s collate "C" order by id collate "C" limit %s'
        ).format(sql.SQL(what))
        last = ""
        while True:
            with self._connection() as connection:
                rows = connection.execute(query, (collection_id, last, _PAGE)).fetchall()
            for _, item in rows:
                yield item
            if len(rows) < _PAGE:
                return
            last = rows[-1][0]

    def described_blobs(self, collection_id: str, *, container: str | None = None) -> dict[str, DescribedBlob]:
        """Id → blob, of every item of a collection that describes a blob, of this container if one is named."""
        with self._connection() as connection:
            rows = connection.execute(
                "select id, jsonb_build_object('properties', jsonb_build_object("
                " 'geo_assets:container', content->'properties'->'geo_assets:container',"
                " 'geo_assets:blob', content->'properties'->'geo_assets:blob',"
                " 'geo_assets:etag', content->'properties'->'geo_assets:etag',"
                " 'geo_assets:recipe', content->'properties'->'geo_assets:recipe'))"
                " from pgstac.items where collection = %(collection)s and"
                " (%(container)s::text is null or content->'properties'->>'geo_assets:container' = %(container)s)",
                {"collection": collection_id, "container": container},
            ).fetchall()
        described = ((item_id, described_blob(item)) for item_id, item in rows)
        return {item_id: blob for item_id, blob in described if blob is not None}

    def count_items(self, collection_id: str) -> int:
        """How many items a collection holds."""
        with self._connection() as connection:
            return _number(connection, "select count(*) from pgstac.items where collection = %s", (collection_id,))

    # --- collections

    def ensure_collection(self, described: CollectionDescription) -> dict[str, Any]:
        """Create a collection if it is not there; returns its document."""
        describe_collection(described.id)  # refuses an id that cannot be one
        with self._connection() as connection, _locked(connection, described.id):
            return self._create(connection, described)

    def get_collection(self, collection_id: str) -> dict[str, Any] | None:
        """A collection's document; ``None`` if it is not there."""
        with self._connection() as connection:
            return _document(connection, collection_id)

    def list_collections(self) -> list[str]:
        """The ids of all collections, sorted."""
        with self._connection() as connection:
            rows = connection.execute("select id from pgstac.collections").fetchall()
        return sorted(row[0] for row in rows)

    def refresh_collection(self, collection_id: str) -> dict[str, Any] | None:
        """Bring extent and summaries up to date; returns the document, ``None`` if it is not there."""
        with self._connection() as connection, _locked(connection, collection_id):
            return self._refresh(connection, collection_id)

    def delete_collection(self, collection_id: str) -> bool:
        """Remove a collection with all its items; whether it was there."""
        with self._connection() as connection, _locked(connection, collection_id):
            if _document(connection, collection_id) is None:
                return False
            connection.execute("select pgstac.delete_collection(%s)", (collection_id,))
        return True

    # --- inside

    def _create(self, connection: Connection, described: CollectionDescription) -> dict[str, Any]:
        present = _document(connection, described.id)
        if present is not None:
            return present
        document = collection_document(described, facts_of(()))
        connection.execute("select pgstac.create_collection(%s)", (Jsonb(document),))
        return document

    def _existing(
        self, connection: Connection, collection_id: str, item_ids: Sequence[str]
    ) -> dict[str, dict[str, Any]]:
        found: dict[str, dict[str, Any]] = {}
        for start in range(0, len(item_ids), self._batch_size):
            rows = connection.execute(
                "select i.id, pgstac.content_hydrate(i) from pgstac.items i where collection = %s and id = any(%s)",
                (collection_id, list(item_ids[start : start + self._batch_size])),
            )
            found.update((item_id, _restored(item)) for item_id, item in rows)
        return found

    def _load(self, connection: Connection, collection_id: str, items: Sequence[dict[str, Any]]) -> None:
        Loader(_database(connection)).load_items(iter(items), Methods.delsert, chunksize=self._batch_size)
        ids = [item["id"] for item in items]
        there = _number(
            connection, "select count(*) from pgstac.items where collection = %s and id = any(%s)", (collection_id, ids)
        )
        if there != len(ids):
            raise CatalogError(
                f"{self.description} holds {there} of the {len(ids)} items just written to '{collection_id}':"
                " does something else write there? Run the job again"
            )

    def _refresh(self, connection: Connection, collection_id: str) -> dict[str, Any] | None:
        present = _document(connection, collection_id)
        if present is None:
            return None
        connection.execute("call pgstac.run_queued_queries()")
        looked_at = sql.SQL(", ").join(
            part
            for name in (*TEMPORAL, *SUMMARISED)
            for part in (sql.Literal(name), sql.SQL("content->'properties'->{}").format(sql.Literal(name)))
        )
        query = sql.SQL(
            "select jsonb_build_object('bbox', content->'bbox', 'properties', jsonb_build_object({}))"
            " from pgstac.items where collection = {}"
        ).format(looked_at, sql.Literal(collection_id))
        # a cursor on the server: memory follows the page, not the collection
        with connection.transaction(), connection.cursor(name="geo_assets_facts") as cursor:
            cursor.itersize = _PAGE
            facts = facts_of(row[0] for row in cursor.execute(query))
        document = collection_document(describe_collection(collection_id), facts, existing=present)
        if document != present:
            connection.execute("select pgstac.update_collection(%s)", (Jsonb(document),))
        return document

    def _migrate(self) -> None:
        ours = version("pypgstac")
        with self._connection() as connection, _locked(connection, ""):
            database = _database(connection)
            theirs = database.version
            if theirs == ours:
                return
            if theirs is not None and _release(theirs) > _release(ours):
                raise CatalogError(
                    f"{self.description} is of version {theirs}, newer than ours ({ours}): install pypgstac {theirs}"
                )
            for attempt in range(1, _MIGRATION_ATTEMPTS + 1):
                try:
                    Migrate(database).run_migration()
                except (psycopg.errors.InternalError, psycopg.errors.UniqueViolation, psycopg.errors.DuplicateObject):
                    # roles belong to the server: the migration of another database may change them at this moment
                    connection.rollback()
                    connection.autocommit = True
                    if attempt == _MIGRATION_ATTEMPTS:
                        raise
                    time.sleep(random.uniform(0.2, 1.0) * attempt)  # noqa: S311 - spreads retries
                else:
                    return

    @contextmanager
    def _connection(self) -> Iterator[Connection]:
        """A connection of one's own for a while; what the database says wrong becomes an error of ours."""
        try:
            with self._connections.lent() as connection:
                yield connection
        except (psycopg.errors.LockNotAvailable, psycopg.errors.QueryCanceled) as error:
            raise CatalogUnavailableError(f"{self.description} is held by another writer: try again later") from error
        except psycopg.OperationalError as error:
            raise CatalogUnavailableError(
                f"{self.description} cannot be reached: {redact(str(error)).strip()}"
            ) from error
        except psycopg.Error as error:
            raise CatalogError(f"{self.description} refused: {redact(str(error)).strip()[:500]}") from error

    def _connected(self) -> Connection:
        return psycopg.connect(
            self._dsn,
            autocommit=True,
            connect_timeout=10,
            application_name="geo_assets catalog",
            options=f"-c search_path=pgstac,public -c timezone=UTC -c lock_timeout={_LOCK_WAIT}",
        )


@contextmanager
def _locked(connection: Connection, collection_id: str, *, queue: bool = False) -> Iterator[None]:
    """Hold a collection (or, with an empty id, the schema) against other writers of ours.

    Args:
        connection: one's own.
        collection_id: what is held.
        queue: have pgSTAC queue what it does after each load: it reads the whole partition and, where its times grew,
            locks readers out.  Searches find everything without; the next refresh works the queue off.
    """
    key = (_LOCK_SPACE, collection_id)
    # an empty setting counts as none: the database's own holds
    connection.execute(
        "select set_config('pgstac.use_queue', %s, false), pg_advisory_lock(%s, hashtext(%s))",
        ("on" if queue else "", *key),
    )
    yield
    # not in a finally: after an error the connection is closed, which frees it, too
    connection.execute("select pg_advisory_unlock(%s, hashtext(%s))", key)


def _restored(item: Mapping[str, Any]) -> dict[str, Any]:
    """An item as it was written: pgSTAC drops what is null, also the datetime that a range must have."""
    plain = without_structural_links(item)
    properties = plain["properties"]
    return plain if "datetime" in properties else {**plain, "properties": {"datetime": None, **properties}}


def _database(connection: Connection) -> PgstacDB:
    # given a connection it wants a pool only to ask for another, which this one refuses
    return PgstacDB(pool=ConnectionPool(open=False, min_size=0, max_size=1), connection=connection)


def _document(connection: Connection, collection_id: str) -> dict[str, Any] | None:
    row = connection.execute("select content from pgstac.collections where id = %s", (collection_id,)).fetchone()
    return None if row is None else dict(row[0])


def _number(connection: Connection, query: Any, arguments: tuple[Any, ...]) -> int:
    row = connection.execute(query, arguments).fetchone()
    return 0 if row is None else int(row[0])


def _release(text: str) -> tuple[int, ...]:
    """The numbers of a version; what is not released counts as newer than all."""
    parts = text.partition("-")[0].split(".")
    return tuple(int(part) for part in parts) if all(part.isdigit() for part in parts) else (1 << 30,)
