"""STAC items of COGs: ours against rio-stac at the same sample and with statistics given; what checking one costs.

What belongs here: making and checking one item.  What does not: making the COGs (``cog``), storing items.

Run ``python -m benchmarks.items`` (half a minute; ``--quick``: smaller COGs).  All ways run in turn in one warm
process, on a freshly opened dataset each time, so that every one decodes its sample; times are CPU milliseconds of
one item, medians.
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import rasterio
from rio_stac.stac import create_stac_item

from benchmarks.cog import make_raster
from geo_assets.raster.cog import make_cogs
from geo_assets.stac.items import BlobFacts
from geo_assets.stac.raster_item import raster_item
from geo_assets.stac.sampling import sampled_statistics
from geo_assets.stac.validation import core_schema_problems, item_problems

TAKEN = datetime(2026, 1, 1, tzinfo=UTC)
SAMPLE_AIM, GIVEN_AIM, SCHEMA_LIMIT_MS = 1.4, 10.0, 0.1
SCHEMA_ROUNDS = 200
AT_ONCE = 10


class Case(NamedTuple):
    """One COG."""

    name: str
    size: int
    bands: int
    dtype: str
    raster_type: str
    compression: str


CASES = (
    Case("RGB 6000², JPEG", 6000, 3, "uint8", "rgb", "jpeg"),
    Case("RGB 6000², DEFLATE", 6000, 3, "uint8", "rgb", "deflate"),
    Case("DEM float32 5000², ZSTD", 5000, 1, "float32", "dem", "zstd"),
    Case("uint16 x 4 4000², ZSTD", 4000, 4, "uint16", "multispectral", "zstd"),
    Case("RGB 512², DEFLATE", 512, 3, "uint8", "rgb", "deflate"),
)


def make_cog(case: Case, folder: Path) -> Path:
    """A COG in UTM, made by this package."""
    source = folder / "source.tif"
    make_raster(source, case.size, case.bands, case.dtype)
    facts = make_cogs({
        "source": str(source), "scratch": str(folder), "tiers": ["analysis"], "raster_type": case.raster_type,
        "compression": {"analysis": case.compression},
    })  # fmt: skip
    return Path(facts["tiers"]["analysis"]["path"])


def ours(dataset: Any, *, given: Any = None) -> dict[str, Any]:
    """Our item."""
    blob = BlobFacts(
        container="cogs", name="a/cog.tif", href="https://account.example/cogs/a/cog.tif", last_modified=TAKEN
    )
    return raster_item(dataset, item_id="cogs:a/cog.tif", collection_id="cogs", blob=blob, statistics=given)


def rio_stac(dataset: Any, side: int) -> dict[str, Any]:
    """rio-stac's item with the same extensions."""
    item: dict[str, Any] = create_stac_item(
        dataset, id="cogs:a/cog.tif", collection="cogs", input_datetime=TAKEN, asset_name="data", with_proj=True,
        with_raster=True, with_eo=True, raster_max_size=side, histogram_bins=64,
        asset_href="https://account.example/cogs/a/cog.tif",
    ).to_dict()  # fmt: skip
    return item


def check(path: Path, side: int) -> list[dict[str, Any]]:
    """Our statistics, after a look whether both ways saw the same pixels and place."""
    with rasterio.open(path) as dataset:
        mine, theirs = ours(dataset), rio_stac(dataset, side)
        given = sampled_statistics(dataset)
    assert item_problems(mine) == []
    for band, other in zip(mine["assets"]["data"]["bands"], theirs["assets"]["data"]["raster:bands"], strict=True):
        for name in ("minimum", "maximum", "mean", "stddev"):
            one, two = band["statistics"][name], other["statistics"][name]
            assert abs(one - two) <= 1e-4 * max(1.0, abs(two)), f"{path.name}: {name} {one} is not {two}"
    assert all(abs(a - b) < 1e-6 for a, b in zip(mine["bbox"], theirs["bbox"], strict=True))
    return given


def sample_side(path: Path) -> int:
    """Longer side of the sample that ours takes: the first overview of at most 1,024 pixels."""
    with rasterio.open(path) as dataset:
        longer = max(dataset.width, dataset.height)
        found: int = next(-(-longer // factor) for factor in (1, *dataset.overviews(1)) if -(-longer // factor) <= 1024)
        return found


def timed(path: Path, ways: dict[str, Callable[[Any], Any]], repeats: int) -> dict[str, float]:
    """Median CPU milliseconds of each way, the ways in turn; several items at once, as reading the clock takes time."""
    spent: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(repeats + 1):
        for name, way in ways.items():
            with ExitStack() as opened:
                datasets = [opened.enter_context(rasterio.open(path, sharing=False)) for _ in range(AT_ONCE)]
                start = time.process_time()
                for dataset in datasets:
                    way(dataset)
                spent[name].append(1000 * (time.process_time() - start) / AT_ONCE)
    return {name: statistics.median(times[1:]) for name, times in spent.items()}


def main() -> None:
    """Run all of it and print one table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="COGs a third as wide")
    parser.add_argument("--repeats", type=int, default=7)
    arguments = parser.parse_args()
    rows = []
    for case in CASES:
        if arguments.quick:
            case = case._replace(size=max(512, case.size // 3))  # noqa: PLW2901 - the same case, smaller
        with tempfile.TemporaryDirectory(prefix="items-") as folder:
            rows.append(_row(case, make_cog(case, Path(folder)), arguments.repeats))
    print(f"rasterio {rasterio.__version__}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f};"
          f" CPU ms an item, medians of {arguments.repeats}")  # fmt: skip
    print(f"| COG | sample | rio-stac | rio-stac, 1024 | ours | rio-stac / ours (aim {SAMPLE_AIM}) | ours, statistics"
          f" given | rio-stac, 1024 / it (aim {GIVEN_AIM:.0f}) | core schema |")  # fmt: skip
    print("|---" * 9 + "|", *rows, sep="\n")


def _row(case: Case, path: Path, repeats: int) -> str:
    side = sample_side(path)
    given = check(path, side)
    took = timed(
        path,
        {
            "peer": lambda dataset: rio_stac(dataset, side),
            "default": lambda dataset: rio_stac(dataset, 1024),
            "ours": ours,
            "given": lambda dataset: ours(dataset, given=given),
        },
        repeats,
    )
    with rasterio.open(path) as dataset:
        item = ours(dataset)
    start = time.process_time()
    for _ in range(SCHEMA_ROUNDS):
        core_schema_problems(item)
    schema = 1000 * (time.process_time() - start) / SCHEMA_ROUNDS
    assert schema < SCHEMA_LIMIT_MS, f"core schema validation takes {schema:.3f} ms"
    sampled, free = took["peer"] / took["ours"], took["default"] / took["given"]
    verdicts = [
        f"{one:.1f}{'' if one >= aim else ' MISSED'}" for one, aim in ((sampled, SAMPLE_AIM), (free, GIVEN_AIM))
    ]
    return (f"| {case.name} | {side} | {took['peer']:.2f} | {took['default']:.2f} | {took['ours']:.2f} | {verdicts[0]}"
            f" | {took['given']:.2f} | {verdicts[1]} | {schema:.3f} |")  # fmt: skip


if __name__ == "__main__":
    main()
