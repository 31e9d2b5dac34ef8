"""COGs: ours against rio-cogeo's ``cog_translate`` as the old system calls it, and our peak memory by size.

What belongs here: the comparison.  What does not: cataloguing.

Run ``python -m benchmarks.cog`` (about four minutes); ``--quick`` takes smaller rasters, ``--memory`` measures memory
only, ``--huge`` adds 4 GB.  Every way runs in a process of its own; times are of the work, without imports; memory is
the kernel's VmHWM of that process.  Codecs, levels, predictors, tile sizes and resampling are equal, rio-cogeo reads
through a WarpedVRT on the same grid where it reprojects and may use all cores.  Ours is given twice: making alone, as
rio-cogeo does, and with the proof of every COG.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from rasterio.enums import Resampling
from rasterio.transform import Affine, from_origin
from rasterio.vrt import WarpedVRT
from rasterio.windows import Window

MB = 1024 * 1024
GATE_MB = 600


@dataclass(frozen=True, kw_only=True)
class Case:
    """One comparison."""

    name: str
    size: int
    bands: int
    dtype: str
    raster_type: str
    tiers: dict[str, str]
    """Compression by tier."""
    warp: bool
    aim: float
    count: int = 1
    """How many such rasters."""


CASES = (
    Case(name="RGB 6000 warp JPEG", size=6000, bands=3, dtype="uint8", raster_type="rgb",
         tiers={"visualization": "jpeg"}, warp=True, aim=1.8),
    Case(name="RGB 6000 warp 3 tiers", size=6000, bands=3, dtype="uint8", raster_type="rgb",
         tiers={"analysis": "zstd", "archive": "deflate", "visualization": "jpeg"}, warp=True, aim=2.5),
    Case(name="RGB 6000 DEFLATE", size=6000, bands=3, dtype="uint8", raster_type="rgb",
         tiers={"analysis": "deflate"}, warp=False, aim=1.4),
    Case(name="DEM f32 5000 warp ZSTD", size=5000, bands=1, dtype="float32", raster_type="dem",
         tiers={"analysis": "zstd"}, warp=True, aim=1.25),
    Case(name="u16x4 4000 warp DEFLATE", size=4000, bands=4, dtype="uint16", raster_type="multispectral",
         tiers={"analysis": "deflate"}, warp=True, aim=1.5),
    Case(name="200 x 512 DEFLATE", size=512, bands=3, dtype="uint8", raster_type="rgb",
         tiers={"analysis": "deflate"}, warp=False, aim=3.0, count=200),
)  # fmt: skip
MEMORY = ((6000, "108 MB"), (12000, "430 MB"), (24000, "1.7 GB"))
HUGE = (36800, "4.1 GB")
LEVELS = {("analysis", "zstd"): 3, ("analysis", "deflate"): 6, ("archive", "deflate"): 9}


def make_raster(path: Path, size: int, bands: int, dtype: str) -> None:
    """Texture on several scales with noise, in uncompressed strips, written piece by piece."""
    rng = np.random.default_rng(size)
    tile = 1024
    texture = np.zeros((tile, tile))
    for scale in (4, 16, 64, 256):
        coarse = rng.random((tile // scale + 1, tile // scale + 1))
        texture += np.kron(coarse, np.ones((scale, scale)))[:tile, :tile] * scale**0.5
    texture = 30 + 190 * (texture - texture.min()) / np.ptp(texture)
    repeated = np.tile(texture, (1, -(-size // tile)))[:, :size]
    factor = {"uint8": 1.0, "uint16": 40.0, "float32": 10.0}[dtype]
    profile = {"driver": "GTiff", "width": size, "height": size, "count": bands, "dtype": dtype, "bigtiff": "IF_SAFER",
               "crs": "EPSG:32633", "transform": from_origin(400_000, 5_500_000, 1, 1)}  # fmt: skip
    if bands == 3:
        profile |= {"photometric": "rgb", "interleave": "pixel"}
    with rasterio.open(path, "w", **profile) as dataset:
        for row in range(0, size, 256):
            rows = min(256, size - row)
            base = np.roll(repeated, row * 3, axis=1)[row % tile : row % tile + rows]
            noisy = (
                base[None] + rng.normal(0, 4, (bands, rows, size)).astype("float32") + np.arange(bands)[:, None, None]
            )
            dataset.write((noisy * factor).astype(dtype), window=Window(0, row, size, rows))


# --- in a process of its own -----------------------------------------------------------------------------------


def ours(case: Case, sources: list[Path], folder: Path) -> dict[str, Any]:
    """Make the COGs with this package; many small rasters in a pool of processes, as a run does."""
    import rio_cogeo.cogeo  # noqa: F401, PLC0415 - imports are not measured

    from geo_assets.raster.cog import make_cogs  # noqa: PLC0415 - not the peer's

    tasks: list[dict[str, Any]] = []
    for number, source in enumerate(sources):
        scratch = folder / str(number)
        scratch.mkdir()
        tasks.append({
            "source": str(source), "scratch": str(scratch), "tiers": list(case.tiers), "compression": dict(case.tiers),
            "raster_type": case.raster_type, "target_crs": "EPSG:4326" if case.warp else None,
        })  # fmt: skip
    if len(tasks) == 1:
        start = time.perf_counter()
        made = [make_cogs(tasks[0])]
        wall = time.perf_counter() - start
        processes = 1
    else:
        processes = os.cpu_count() or 1
        with ProcessPoolExecutor(processes) as pool:
            list(pool.map(_make_one, tasks[:processes]))  # the pool of a run is warm, too
            for task in tasks[:processes]:
                Path(task["scratch"], "analysis.tif").unlink()
            start = time.perf_counter()
            made = list(pool.map(_make_one, [{**task, "threads": 1} for task in tasks]))
            wall = time.perf_counter() - start
    proof = sum(facts["timings"]["proof"] + facts["timings"]["statistics"] for facts in made) / processes
    facts = made[-1]
    return {"wall": wall, "making": wall - proof, "steps": facts["timings"], "grid": facts["transform"],
            "shape": facts["shape"],
            "resampling": [facts["overview_resampling"], facts["reproject_resampling"] or "nearest"]}  # fmt: skip


def _make_one(task: dict[str, Any]) -> dict[str, Any]:
    from geo_assets.raster.cog import make_cogs  # noqa: PLC0415 - see above

    return make_cogs(task)


def peer(case: Case, sources: list[Path], folder: Path, given: dict[str, Any]) -> dict[str, Any]:
    """Make the COGs with rio-cogeo."""
    import rio_cogeo.cogeo  # noqa: F401, PLC0415 - imports are not measured

    start = time.perf_counter()
    for number, source in enumerate(sources):
        scratch = folder / str(number)
        scratch.mkdir()
        for tier, compression in case.tiers.items():
            _translate(case, source, scratch / f"{tier}.tif", given, tier=tier, compression=compression)
    return {"wall": time.perf_counter() - start}


def _translate(
    case: Case, source: Path, target: Path, given: dict[str, Any], *, tier: str, compression: str
) -> None:  # fmt: skip
    from rio_cogeo.cogeo import cog_translate  # noqa: PLC0415 - see above
    from rio_cogeo.profiles import cog_profiles  # noqa: PLC0415

    profile: dict[str, Any] = dict(cog_profiles[compression])
    if compression == "jpeg":
        profile |= {"JPEG_QUALITY": 85}
    else:
        level = {"zstd": "ZSTD_LEVEL", "deflate": "ZLEVEL"}[compression]
        profile |= {level: LEVELS[tier, compression], "PREDICTOR": 3 if case.dtype == "float32" else 2}
    options: dict[str, Any] = {"in_memory": True, "quiet": True, "overview_resampling": given["resampling"][0],
                               "config": {"GDAL_NUM_THREADS": "ALL_CPUS"}}  # fmt: skip
    with rasterio.open(source) as dataset:
        if not case.warp:
            cog_translate(dataset, target, profile, **options)
            return
        height, width = given["shape"]
        with WarpedVRT(dataset, crs="EPSG:4326", transform=Affine(*given["grid"]), width=width, height=height,
                       resampling=Resampling[given["resampling"][1]]) as view:  # fmt: skip
            cog_translate(view, target, profile, **options)


def child(way: str, text: str) -> None:
    """Run one way and print what it took."""
    task = json.loads(text)
    case = Case(**task["case"])
    sources = [Path(source) for source in task["sources"]]
    folder = Path(task["folder"])
    cpu = time.process_time()
    result = ours(case, sources, folder) if way == "ours" else peer(case, sources, folder, task["given"])
    result["cpu"] = time.process_time() - cpu
    status = Path("/proc/self/status").read_text()
    result["peak_mb"] = int(status.split("VmHWM:")[1].split()[0]) / 1024
    print(json.dumps(result))


# --- the comparison --------------------------------------------------------------------------------------------


def run(way: str, case: Case, sources: list[Path], folder: Path, given: dict[str, Any] | None = None) -> dict[str, Any]:
    """Run one way in a process of its own."""
    folder.mkdir()
    task = {"case": asdict(case), "sources": [str(source) for source in sources], "folder": str(folder), "given": given}
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.cog", "--child", way, json.dumps(task)],
        check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def difference(one: Path, other: Path) -> float:
    """Mean absolute difference of valid pixels of two rasters on one grid, at most 2,000 rows of them."""
    with rasterio.open(one) as left, rasterio.open(other) as right:
        assert (left.width, left.height, left.transform.almost_equals(right.transform)) == (
            right.width, right.height, True,
        )  # fmt: skip
        window = Window(0, left.height // 3, left.width, min(2000, left.height - left.height // 3))
        valid = left.dataset_mask(window=window) > 0
        gap = np.abs(left.read(window=window).astype("float64") - right.read(range(1, left.count + 1), window=window))
        return float(gap[:, valid].mean()) if valid.any() else 0.0


def compare(case: Case, folder: Path, repeats: int) -> None:
    """Run both ways in turn, compare pixels and sizes, print one line."""
    sources = [folder / f"source_{number}.tif" for number in range(case.count)]
    for source in sources:
        make_raster(source, case.size, case.bands, case.dtype)
    rounds = []
    for number in range(repeats):
        mine = run("ours", case, sources, folder / f"ours_{number}")
        theirs = run("peer", case, sources, folder / f"peer_{number}", mine)
        rounds.append((mine, theirs))
    tier = next(iter(case.tiers))
    gap = difference(*(folder / f"{way}_0" / "0" / f"{tier}.tif" for way in ("ours", "peer")))
    assert case.warp or gap == 0
    sizes = [sum(path.stat().st_size for path in (folder / f"{way}_0").rglob("*.tif")) for way in ("ours", "peer")]

    def median(which: int, key: str) -> float:
        return float(statistics.median(one[which][key] for one in rounds))

    ratio, proven = median(1, "wall") / median(0, "making"), median(1, "wall") / median(0, "wall")
    steps = ", ".join(f"{step} {seconds:.2f}" for step, seconds in rounds[0][0]["steps"].items())
    cpu, peak = [median(way, "cpu") for way in (0, 1)], [median(way, "peak_mb") for way in (0, 1)]
    verdict = "reaches" if ratio >= case.aim else "MISSES"
    print(
        f"{case.name}: ours {median(0, 'making'):.2f} s ({median(0, 'wall'):.2f} s proven, {cpu[0]:.1f} CPU s,"
        f" {peak[0]:.0f} MB), rio-cogeo {median(1, 'wall'):.2f} s ({cpu[1]:.1f} CPU s, {peak[1]:.0f} MB):"
        f" {ratio:.2f} x, proven {proven:.2f} x ({verdict} {case.aim} x); size {sizes[0] / sizes[1]:.3f};"
        f" mean difference {gap:.4f}; steps: {steps}"
    )


def memory(folder: Path, sizes: list[tuple[int, str]]) -> bool:
    """Print our peak memory by size; whether all are within the gate."""
    good = True
    for size, name in sizes:
        source = folder / "source.tif"
        make_raster(source, size, 3, "uint8")
        for warp in (False, True):
            case = Case(name=name, size=size, bands=3, dtype="uint8", raster_type="rgb",
                        tiers={"visualization": "jpeg"}, warp=warp, aim=1)  # fmt: skip
            result = run("ours", case, [source], folder / f"{size}_{warp}")
            good &= result["peak_mb"] <= GATE_MB
            print(f"memory, {name} RGB {'with' if warp else 'without'} reprojection: {result['peak_mb']:.0f} MB"
                  f" ({'within' if result['peak_mb'] <= GATE_MB else 'OVER'} {GATE_MB}), {result['wall']:.1f} s,"
                  f" {result['steps']}")  # fmt: skip
            for path in (folder / f"{size}_{warp}").rglob("*.tif"):
                path.unlink()
    return good


def main() -> None:
    """Run all of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--child", nargs=2, metavar=("WAY", "TASK"), help="used by the benchmark itself")
    parser.add_argument("--quick", action="store_true", help="rasters a third as wide")
    parser.add_argument("--memory", action="store_true", help="measure memory only")
    parser.add_argument("--huge", action="store_true", help="measure memory with 4 GB, too")
    parser.add_argument("--only", default="", help="cases whose names contain this")
    parser.add_argument("--repeats", type=int, default=1)
    arguments = parser.parse_args()
    if arguments.child:
        child(*arguments.child)
        return
    print(f"rasterio {rasterio.__version__}, GDAL {rasterio.__gdal_version__}, {os.cpu_count()} cores,"
          f" load {os.getloadavg()[0]:.1f}")  # fmt: skip
    if not arguments.memory:
        for case in CASES:
            if arguments.only.lower() not in case.name.lower():
                continue
            small = Case(**(asdict(case) | {"size": case.size // 3, "count": min(case.count, 30)}))
            with tempfile.TemporaryDirectory(prefix="cog-") as folder:
                compare(small if arguments.quick else case, Path(folder), arguments.repeats)
    if not arguments.only:
        sizes = list(MEMORY[: 1 if arguments.quick else 3]) + ([HUGE] if arguments.huge else [])
        with tempfile.TemporaryDirectory(prefix="cog-") as folder:
            assert memory(Path(folder), sizes), f"over {GATE_MB} MB"


if __name__ == "__main__":
    main()
