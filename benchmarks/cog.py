"""COGs: ours against rio-cogeo as the old system calls it and against GDAL's own way; our peak memory by size.

What belongs here: the comparison.  What does not: cataloguing (``items``).

Run ``python -m benchmarks.cog``; ``--quick`` takes smaller rasters, ``--memory`` measures memory only, ``--huge`` adds
4 GB, ``--repeats 3`` is for figures to keep.  Every way runs in a process of its own, the ways in turn; times are of
the work, without imports; CPU and peak memory are the kernel's, of the process and its children.

Codecs, levels, predictors, tile sizes, grids and resampling are equal.  rio-cogeo reads through a WarpedVRT where it
reprojects and may use all cores; GDAL's way is what ``gdalwarp -of COG`` and ``gdal_translate -of COG`` do with
``NUM_THREADS=ALL_CPUS``.  Neither peer proves anything, so ours is given twice: making alone, and with the proof.
"""

import argparse
import json
import os
import resource
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
import rasterio.shutil
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


RGB: dict[str, Any] = {"bands": 3, "dtype": "uint8", "raster_type": "rgb"}
CASES = (
    Case(name="RGB 6000², warp, JPEG", size=6000, tiers={"visualization": "jpeg"}, warp=True, aim=1.8, **RGB),
    Case(name="RGB 12000², warp, JPEG", size=12000, tiers={"visualization": "jpeg"}, warp=True, aim=1.8, **RGB),
    Case(name="RGB 6000², warp, 4 tiers", size=6000, warp=True, aim=2.5, **RGB,
         tiers={"analysis": "zstd", "deflate": "deflate", "lerc": "lerc", "visualization": "jpeg"}),
    Case(name="DEM float32 5000², warp, ZSTD", size=5000, bands=1, dtype="float32", raster_type="dem",
         tiers={"analysis": "zstd"}, warp=True, aim=1.25),
    Case(name="uint16 x 4 4000², warp, DEFLATE", size=4000, bands=4, dtype="uint16", raster_type="multispectral",
         tiers={"analysis": "deflate"}, warp=True, aim=1.5),
    Case(name="RGB 6000², DEFLATE", size=6000, tiers={"analysis": "deflate"}, warp=False, aim=1.4, **RGB),
    Case(name="200 x RGB 512², DEFLATE", size=512, tiers={"analysis": "deflate"}, warp=False, aim=3.0, count=200,
         **RGB),
    Case(name="200 x RGB 512², warp, JPEG", size=512, tiers={"visualization": "jpeg"}, warp=True, aim=1.5, count=200,
         **RGB),
)  # fmt: skip
MEMORY = ((6000, "108 MB"), (12000, "430 MB"), (24000, "1.7 GB"))
HUGE = (36800, "4.1 GB")
LEVELS = {"zstd": 3, "deflate": 6}
WAYS = ("ours", "rio-cogeo", "GDAL")


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
    start = time.perf_counter()
    processes = 1
    if not set(case.tiers) <= {"analysis", "visualization", "archive"}:
        made = [_make_tiers(case, tasks[0])]
    elif len(tasks) == 1:
        made = [make_cogs(tasks[0])]
    else:
        processes = os.cpu_count() or 1
        with ProcessPoolExecutor(processes) as pool:
            list(pool.map(_make_one, tasks[:processes]))  # the pool of a run is warm, too
            for path in folder.rglob("*.tif"):
                path.unlink()
            start = time.perf_counter()
            made = list(pool.map(_make_one, [{**task, "threads": 1} for task in tasks]))
    wall = time.perf_counter() - start
    proof = sum(facts["timings"]["proof"] + facts["timings"]["statistics"] for facts in made) / processes
    facts = made[-1]
    return {"wall": wall, "making": wall - proof, "steps": facts["timings"], "grid": facts["transform"],
            "shape": facts["shape"],
            "resampling": [facts["overview_resampling"], facts["reproject_resampling"] or "nearest"]}  # fmt: skip


def _make_tiers(case: Case, task: dict[str, Any]) -> dict[str, Any]:
    """More tiers than have names: the steps of ``make_cogs`` with its own parts."""
    from geo_assets.raster import cog, cog_grid, cog_proof, cog_settings  # noqa: PLC0415 - not the peer's
    from geo_assets.raster.open import RasterBudget, open_raster  # noqa: PLC0415
    from geo_assets.settings import Settings  # noqa: PLC0415

    kind = cog_settings.PixelKind(dtype=case.dtype, bands=case.bands)
    overviews, warping, _ = cog_settings.resamplings_for(
        cog_settings.CogRequest(raster_type=case.raster_type), kind
    )  # fmt: skip
    resources = cog.Resources(threads=os.cpu_count() or 1, cache_mb=64, warp_mb=32)
    encodings = tuple(
        cog_settings.Encoding(
            tier=tier, compression=codec, level=LEVELS.get(codec), quality=85 if codec == "jpeg" else None,
            predictor="STANDARD" if codec in LEVELS else "NO",
        )
        for tier, codec in case.tiers.items()
    )  # fmt: skip
    budget = RasterBudget.from_settings(Settings.model_construct())
    with open_raster(Path(task["source"]), budget=budget) as source, rasterio.Env(**cog.gdal_options(resources)):
        place = cog_grid.placement_of(source, None)
        grid = cog_grid.target_grid(source, place, task["target_crs"])
        job = cog.CogJob(
            source=source, place=place, grid=grid, kind=kind, tiers=encodings, overview_resampling=overviews,
            reproject_resampling=warping, blocksize=512, folder=Path(task["scratch"]), resources=resources,
        )  # fmt: skip
        with cog.GdalEngine().pixels(job) as pixels:
            for encoding in sorted(encodings, key=lambda tier: not tier.lossless):
                path = job.folder / f"{encoding.tier}.tif"
                with job.timed("encode"):
                    pixels.write(encoding, path)
                with job.timed("proof"), pixels.reference() as reference:
                    cog_proof.prove(
                        path, reference, grid=grid, encoding=encoding, blocksize=512, threads=resources.threads
                    )
    return {"timings": {**job.timings, "statistics": 0.0}, "transform": list(grid.transform)[:6],
            "shape": [grid.height, grid.width], "overview_resampling": overviews,
            "reproject_resampling": warping}  # fmt: skip


def _make_one(task: dict[str, Any]) -> dict[str, Any]:
    from geo_assets.raster.cog import make_cogs  # noqa: PLC0415 - see above

    return make_cogs(task)


def peer(case: Case, sources: list[Path], folder: Path, given: dict[str, Any], way: str) -> dict[str, Any]:
    """Make the COGs with rio-cogeo or with GDAL's COG driver."""
    import rio_cogeo.cogeo  # noqa: F401, PLC0415 - imports are not measured

    make = _translate if way == "rio-cogeo" else _gdal
    start = time.perf_counter()
    for number, source in enumerate(sources):
        scratch = folder / str(number)
        scratch.mkdir()
        for tier, compression in case.tiers.items():
            make(case, source, scratch / f"{tier}.tif", given, compression)
    return {"wall": time.perf_counter() - start}


def _translate(case: Case, source: Path, target: Path, given: dict[str, Any], compression: str) -> None:
    from rio_cogeo.cogeo import cog_translate  # noqa: PLC0415 - see above
    from rio_cogeo.profiles import cog_profiles  # noqa: PLC0415

    profile: dict[str, Any] = dict(cog_profiles[compression])
    if compression == "jpeg":
        profile |= {"JPEG_QUALITY": 85}
    elif compression in LEVELS:
        level = {"zstd": "ZSTD_LEVEL", "deflate": "ZLEVEL"}[compression]
        profile |= {level: LEVELS[compression], "PREDICTOR": 3 if case.dtype == "float32" else 2}
    options: dict[str, Any] = {"in_memory": True, "quiet": True, "overview_resampling": given["resampling"][0],
                               "config": {"GDAL_NUM_THREADS": "ALL_CPUS"}}  # fmt: skip
    with rasterio.open(source) as dataset:
        if not case.warp:
            cog_translate(dataset, target, profile, **options)
            return
        height, width = given["shape"]
        masked = case.dtype == "uint8"  # what lies outside the source is invalid in ours, too
        with WarpedVRT(dataset, crs="EPSG:4326", transform=Affine(*given["grid"]), width=width, height=height,
                       resampling=Resampling[given["resampling"][1]], add_alpha=masked) as view:  # fmt: skip
            cog_translate(view, target, profile, add_mask=masked, **options)


def _gdal(case: Case, source: Path, target: Path, given: dict[str, Any], compression: str) -> None:
    overviews, warping = (name.replace("_", "").upper() for name in given["resampling"])
    options = {"COMPRESS": compression.upper(), "NUM_THREADS": "ALL_CPUS", "BLOCKSIZE": "512",
               "BIGTIFF": "IF_SAFER", "OVERVIEW_RESAMPLING": overviews}  # fmt: skip
    if compression == "jpeg":
        options |= {"QUALITY": "85"}
    elif compression in LEVELS:
        options |= {"LEVEL": str(LEVELS[compression]), "PREDICTOR": "YES"}
    if case.warp:
        # the default; but of 16 bits rio-cogeo makes a mask that is wrong, and nobody wants one in a DEM
        options |= {"TARGET_SRS": "EPSG:4326", "WARP_RESAMPLING": warping,
                    "ADD_ALPHA": "YES" if case.dtype == "uint8" else "NO"}  # fmt: skip
    with rasterio.open(source) as dataset:
        rasterio.shutil.copy(dataset, target, driver="COG", **options)


def child(way: str, text: str) -> None:
    """Run one way and print what it took."""
    task = json.loads(text)
    case = Case(**task["case"])
    sources = [Path(source) for source in task["sources"]]
    folder = Path(task["folder"])
    before = _cpu()
    result = ours(case, sources, folder) if way == "ours" else peer(case, sources, folder, task["given"], way)
    result["cpu"] = _cpu() - before
    status = Path("/proc/self/status").read_text()
    own = int(status.split("VmHWM:")[1].split()[0])
    result["peak_mb"] = max(own, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss) / 1024
    print(json.dumps(result))


def _cpu() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


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
        if left.dtypes[0] == "uint8":
            also = right.dataset_mask(window=window) > 0
            assert (valid == also).mean() > 0.999, f"{one.parent} and {right.name} differ in what is valid"
        bands = list(range(1, min(left.count, right.count) + 1))
        gap = np.abs(left.read(bands, window=window).astype("float64") - right.read(bands, window=window))
        return float(gap[:, valid].mean()) if valid.any() else 0.0


def compare(case: Case, folder: Path, repeats: int) -> str:
    """Run all ways in turn, compare pixels and sizes, return one row of the table."""
    sources = [folder / f"source_{number}.tif" for number in range(case.count)]
    for source in sources:
        make_raster(source, case.size, case.bands, case.dtype)
    rounds: list[dict[str, dict[str, Any]]] = []
    for number in range(repeats):
        mine = run("ours", case, sources, folder / f"ours_{number}")
        theirs = {way: run(way, case, sources, folder / f"{way}_{number}", mine) for way in WAYS[1:]}
        rounds.append({"ours": mine, **theirs})
    _check_pixels(case, folder)
    sizes = {way: sum(path.stat().st_size for path in (folder / f"{way}_0").rglob("*.tif")) for way in WAYS}
    assert sizes["ours"] <= 1.01 * sizes["GDAL"], f"{case.name}: {sizes}"
    # rio-cogeo has one overview less than GDAL's driver and ours, which shows in small rasters
    assert case.size <= 4000 or sizes["ours"] <= 1.01 * sizes["rio-cogeo"], f"{case.name}: {sizes}"

    def median(way: str, key: str) -> float:
        return float(statistics.median(one[way][key] for one in rounds))

    def faster(way: str, key: str) -> float:
        return float(statistics.median(one[way]["wall"] / one["ours"][key] for one in rounds))

    steps = ", ".join(f"{step} {seconds:.2f}" for step, seconds in rounds[-1]["ours"]["steps"].items())
    print(f"  {case.name}, our last one's steps: {steps}", file=sys.stderr)
    times = " | ".join(f"{median(way, 'wall'):.2f} ({median(way, 'cpu'):.1f})" for way in WAYS)
    peaks = " / ".join(f"{median(way, 'peak_mb'):.0f}" for way in WAYS)
    relative = " / ".join(f"{sizes['ours'] / sizes[way]:.3f}" for way in WAYS[1:])
    reached = faster("rio-cogeo", "making")
    proof = median("ours", "wall") - median("ours", "making")
    verdict = "" if reached >= case.aim else " MISSED"
    ratios = f"{reached:.2f}{verdict} | {faster('rio-cogeo', 'wall'):.2f} | {faster('GDAL', 'making'):.2f}"
    return f"| {case.name} | {times} | {proof:.2f} | {case.aim} | {ratios} | {peaks} | {relative} |"


def _check_pixels(case: Case, folder: Path) -> None:
    """Without reprojection every lossless pixel is equal; with it, all ways agree but for GDAL's own approximation."""
    scale = {"uint8": 1.0, "uint16": 40.0, "float32": 10.0}[case.dtype]
    for tier in case.tiers:
        for way in WAYS[1:]:
            gap = difference(*(folder / f"{one}_0" / "0" / f"{tier}.tif" for one in ("ours", way)))
            print(f"  {case.name}, {tier}: mean difference from {way} {gap:.4f}", file=sys.stderr)
            assert gap <= (scale if case.warp else 0), f"{case.name}, {tier}, {way}: {gap}"


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
        rows = []
        for case in CASES:
            if arguments.only.lower() not in case.name.lower():
                continue
            small = Case(**(asdict(case) | {"size": case.size // 3, "count": min(case.count, 30)}))
            with tempfile.TemporaryDirectory(prefix="cog-") as folder:
                rows.append(compare(small if arguments.quick else case, Path(folder), arguments.repeats))
        print(f"load {os.getloadavg()[0]:.1f}; medians of {arguments.repeats}, the ways in turn; seconds (CPU)")
        print("| job | ours, proven | rio-cogeo | GDAL | of ours: proof | aim | rio-cogeo / ours | the same, proven"
              " | GDAL / ours | peak MB | size to rio-cogeo's / GDAL's |")  # fmt: skip
        print("|---" * 11 + "|", *rows, sep="\n")
    if not arguments.only:
        sizes = list(MEMORY[: 1 if arguments.quick else 3]) + ([HUGE] if arguments.huge else [])
        with tempfile.TemporaryDirectory(prefix="cog-") as folder:
            assert memory(Path(folder), sizes), f"over {GATE_MB} MB"


if __name__ == "__main__":
    main()
