"""A quiet look at 100,000 blobs, on disk and in Azurite, against bare obstore listing: at most 1.3 x as long + 1 s.

What belongs here: the sensor's everyday, a look that finds nothing new.  What does not: what new blobs cost
(``arrivals``).

``GEO_ASSETS_TEST_AZURITE`` may hold the connection string of an Azurite that runs; else one is started.
"""

import os
import resource
import statistics
import sys
import tempfile
import time
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

from obstore.store import AzureStore, LocalStore

from geo_assets.coremachine.ledger import Ledger
from geo_assets.coremachine.machine import CoreMachine
from geo_assets.jobs import load_registry
from geo_assets.services import Services
from geo_assets.settings import Settings
from geo_assets.sources.look import look
from geo_assets.sources.source import Source
from geo_assets.stores.azure_access import AzureAccess
from tests.services.session import ServiceSession

BLOBS = 100_000
REPEATS = 5
FACTOR, MORE = 1.3, 1.0


def name_of(number: int) -> str:
    """Fifty folders, as a container of scenes has them."""
    return f"region_{number % 50:02d}/scene_{number:06d}.tif"


def compare(what: str, settings: Settings, container: str, bare: Any) -> bool:
    """Look once to learn the container, then in turns with obstore; whether the target is met."""
    with tempfile.TemporaryDirectory() as folder:
        ledger = Ledger(f"sqlite:///{folder}/ledger.db")
        machine = CoreMachine(
            ledger=ledger, registry=load_registry(settings), settings=settings, services=Services(settings)
        )
        source = Source.model_validate({"name": "scenes", "container": container, "workflow": "validate_raster_job"})
        first = timed(lambda: look(machine, source, seconds=600).new)
        times: dict[str, list[float]] = {"obstore": [], "look": []}
        for _ in range(REPEATS):
            times["obstore"].append(timed(lambda: sum(len(metas) for metas in bare.list(chunk_size=5_000))))
            times["look"].append(timed(lambda: look(machine, source, seconds=600).unchanged))
        ledger.close()
    medians = {name: statistics.median(found) for name, found in times.items()}
    limit = FACTOR * medians["obstore"] + MORE
    print(f"{BLOBS:,} blobs {what}; medians of {REPEATS}, interleaved")
    print(f"obstore alone   {medians['obstore']:.2f} s")
    print(f"a quiet look    {medians['look']:.2f} s   (target: at most {limit:.2f} s)")
    print(f"the first look  {first:.2f} s, which writes each of them down")
    return medians["look"] <= limit


def timed(work: Callable[[], int]) -> float:
    """Seconds; every blob must have been seen."""
    started = time.perf_counter()
    found = work()
    assert found == BLOBS, found
    return time.perf_counter() - started


def on_disk() -> bool:
    """Empty files in a local folder."""
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        for region in range(50):
            (home / "containers" / "scenes" / f"region_{region:02d}").mkdir(parents=True)
        for number in range(BLOBS):
            (home / "containers" / "scenes" / name_of(number)).touch()
        bare = LocalStore(home / "containers" / "scenes")
        return compare("on disk", Settings(home=home), "scenes", bare)


def in_azurite(connection_string: str) -> bool:
    """Tiny blobs in an emulated storage account."""
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings.model_validate(
            {"home": folder, "blob_store": "azure", "azure_connection_string": connection_string}
        )
        store = Services(settings)["blobs"]
        container = f"bench-{uuid.uuid4().hex[:12]}"
        store.create_container(container)
        with ThreadPoolExecutor(8) as pool:
            for _ in pool.map(lambda number: store.put(container, name_of(number), b"x"), range(BLOBS)):
                pass
        access = AzureAccess.of_connection_string(connection_string)
        assert access.key is not None
        bare = AzureStore(
            container,
            endpoint=access.endpoint,
            account_name=access.account,
            account_key=access.key,
            client_options={"allow_http": True, "timeout": timedelta(minutes=5)},
        )
        return compare("in Azurite", settings, container, bare)


def main() -> None:
    """Measure both."""
    met = on_disk()
    given = os.environ.get("GEO_ASSETS_TEST_AZURITE")
    if given is not None:
        met = in_azurite(given) and met
    else:
        session = ServiceSession.begin()
        try:
            found = session.service("azurite")
            account = f"AccountName={found['account_name']};AccountKey={found['account_key']}"
            met = in_azurite(f"{account};BlobEndpoint={found['endpoint']}") and met
        finally:
            session.end()
    print(f"peak memory of this process {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB")
    if not met:
        sys.exit("benchmarks.looks: the target is missed")


if __name__ == "__main__":
    main()
