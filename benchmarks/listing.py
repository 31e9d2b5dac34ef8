"""Listing 10,000 blobs from Azurite through our store against obstore alone: at most 1.2 times as long.

What belongs here: the comparison.  What does not: statistics (``summary``).

``GEO_ASSETS_TEST_AZURITE`` may hold the connection string of an Azurite that runs; else one is started.
"""

import os
import statistics
import sys
import time
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta

from obstore.store import AzureStore

from geo_assets.stores.azure import AzureBlobStore
from geo_assets.stores.azure_access import AzureAccess
from tests.services.session import ServiceSession

BLOBS = 10_000
REPEATS = 9

Row = tuple[str, int, datetime]


def with_obstore(store: AzureStore) -> list[Row]:
    """List as a user of obstore alone would, every blob's values in Python."""
    return [
        (meta["path"], meta["size"], meta["last_modified"]) for metas in store.list(chunk_size=5_000) for meta in metas
    ]


def count_with_obstore(store: AzureStore) -> int:
    """The bare listing, its values not even looked at."""
    return sum(len(metas) for metas in store.list(chunk_size=5_000))


def count_with_ours(store: AzureBlobStore, container: str) -> int:
    """Our listing, as Arrow batches with ETags and problems."""
    return sum(batch.num_rows for batch in store.list_blobs(container))


def with_ours(store: AzureBlobStore, container: str) -> list[Row]:
    """Our listing's rows in the form of :func:`with_obstore`."""
    return [
        (row["name"], row["size"], row["last_modified"])
        for batch in store.list_blobs(container)
        for row in batch.select(["name", "size", "last_modified"]).to_pylist()
    ]


def timed(work: Callable[[], int]) -> float:
    """Seconds that a listing takes; all of it must come."""
    started = time.perf_counter()
    assert work() == BLOBS
    return time.perf_counter() - started


def measure(connection_string: str) -> None:
    """Fill a container, compare, and fail if the target is missed."""
    access = AzureAccess.of_connection_string(connection_string)
    ours = AzureBlobStore(access)
    container = f"bench-{uuid.uuid4().hex[:12]}"
    ours.create_container(container)
    assert access.key is not None
    bare = AzureStore(
        container,
        endpoint=access.endpoint,
        account_name=access.account,
        account_key=access.key,
        client_options={"allow_http": True, "timeout": timedelta(minutes=5)},
    )
    with ThreadPoolExecutor(8) as pool:
        for _ in pool.map(
            lambda number: ours.put(container, f"region_{number % 50:02d}/scene_{number:05d}.tif", b"x" * (number % 9)),
            range(BLOBS),
        ):
            pass
    assert with_ours(ours, container) == with_obstore(bare), "the listings differ"
    times: dict[str, list[float]] = {"obstore": [], "ours": []}
    for _ in range(REPEATS):
        times["obstore"].append(timed(lambda: count_with_obstore(bare)))
        times["ours"].append(timed(lambda: count_with_ours(ours, container)))
    medians = {name: statistics.median(found) for name, found in times.items()}
    ratio = medians["ours"] / medians["obstore"]
    print(f"{BLOBS:,} blobs from Azurite, equal listings; medians of {REPEATS}, interleaved")
    print(f"obstore alone  {medians['obstore']:.3f} s")
    print(f"our listing    {medians['ours']:.3f} s   {ratio:.2f} x as long (target: at most 1.2)")
    if ratio > 1.2:
        sys.exit("benchmarks.listing: the target is missed")


def main() -> None:
    """Measure on the Azurite that was given, or on one started for it."""
    given = os.environ.get("GEO_ASSETS_TEST_AZURITE")
    if given is not None:
        measure(given)
        return
    session = ServiceSession.begin()
    try:
        state = session.service("azurite")
        measure(
            f"AccountName={state['account_name']};AccountKey={state['account_key']};BlobEndpoint={state['endpoint']}"
        )
    finally:
        session.end()


if __name__ == "__main__":
    main()
