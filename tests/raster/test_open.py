"""The one door: what is let in, what is refused and why, and that nothing else is read or contacted.

What belongs here: files that lie about what they are, name other files, ask for too much, or are cut off.  What does
not: judging rasters that are what they say (``test_validate``).
"""

import os
import struct
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import rasterio
from hypothesis import given
from hypothesis import strategies as st

from geo_assets.coremachine.sandbox import Sandbox
from geo_assets.errors import RasterRefusedError, RasterUnreadableError
from geo_assets.raster.formats import DRIVERS, sniff
from geo_assets.raster.open import RasterBudget, format_of, open_raster
from geo_assets.raster.tiff import declared_nodata, where_cut_off
from geo_assets.raster.validate import validate_raster_file
from geo_assets.settings import get_settings
from tests.raster.conftest import Listener
from tests.raster.rasters import BUDGET, UTM, convert, hills, invalid, noise, verdict, write

SECRET = 77


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    """A raster somebody else put there."""
    folder = tmp_path / "others"
    folder.mkdir()
    return write(folder / "secret.tif", np.full((64, 64), SECRET, dtype="uint8"))


def vrt(source: str, *, raw: bool = False) -> str:
    name = f'<SourceFilename relativeToVRT="0">{source}</SourceFilename>'
    band = f"<SimpleSource>{name}<SourceBand>1</SourceBand></SimpleSource>"
    kind = ""
    if raw:
        kind = ' subClass="VRTRawRasterBand"'
        band = (
            f'<SourceFilename relativetoVRT="0">{source}</SourceFilename><ImageOffset>0</ImageOffset>'
            "<PixelOffset>1</PixelOffset><LineOffset>64</LineOffset>"
        )
    return (
        '<VRTDataset rasterXSize="64" rasterYSize="64"><SRS>EPSG:4326</SRS><GeoTransform>0,1,0,0,0,-1</GeoTransform>'
        f'<VRTRasterBand dataType="Byte" band="1"{kind}>{band}</VRTRasterBand></VRTDataset>'
    )


def refused(path: Path, budget: RasterBudget = BUDGET) -> str:
    with pytest.raises(RasterRefusedError) as caught, open_raster(path, budget=budget):
        pass
    return str(caught.value)


# --- files that name other files -------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["file", "raw", "remote", "nested", "declared", "bom"])
def test_a_vrt_disguised_as_tiff_is_refused(kind: str, tmp_path: Path, secret: Path, listener: Listener) -> None:
    inner = tmp_path / "inner.tif"
    inner.write_text(vrt(str(secret)))
    text = {
        "file": vrt(str(secret)),
        "raw": vrt("/etc/passwd", raw=True),
        "remote": vrt(f"/vsicurl/{listener.url}/x.tif"),
        "nested": vrt(str(inner)),
        "declared": f'<?xml version="1.0"?>\n{vrt(str(secret))}',
        "bom": f"\ufeff  {vrt(str(secret))}",
    }[kind]
    disguised = tmp_path / "innocent.tif"
    disguised.write_text(text)
    assert "virtual raster (VRT)" in refused(disguised)
    assert "VRT" in invalid(disguised, "FILE_UNREADABLE")["message"]


@pytest.mark.parametrize(
    "text",
    [
        "<GDALTileIndexDataset><IndexDataset>{url}/i.gpkg</IndexDataset></GDALTileIndexDataset>",
        '<GDAL_WMS><Service name="TMS"><ServerUrl>{url}/</ServerUrl></Service></GDAL_WMS>',
        "<WCS_GDAL><ServiceURL>{url}/</ServiceURL></WCS_GDAL>",
        '{{"type": "FeatureCollection", "stac_version": "1.0.0", "features": ["{url}"]}}',
        '{{"type": "gdal_streamed_alg", "command_line": "gdal raster pipeline read {url}"}}',
        "{url}/x.tif",
        "/vsicurl/{url}/x.tif",
    ],
)
def test_texts_that_name_addresses_are_refused(text: str, tmp_path: Path, listener: Listener) -> None:
    path = tmp_path / "x.tif"
    path.write_text(text.format(url=listener.url))
    refused(path)
    invalid(path, "FILE_UNREADABLE")


@pytest.mark.parametrize("domain", ["OVERVIEWS", "overviews", "GEOLOCATION"])
@pytest.mark.parametrize("target", ["local", "vrt", "remote"])
def test_a_true_tiff_whose_metadata_names_other_files_is_refused(
    domain: str, target: str, tmp_path: Path, secret: Path, listener: Listener
) -> None:
    raw = tmp_path / "raw.vrt"
    raw.write_text(vrt("/etc/passwd", raw=True))
    name = {"local": str(secret), "vrt": str(raw), "remote": f"/vsicurl/{listener.url}/x.tif"}[target]
    tag = "X_DATASET" if domain == "GEOLOCATION" else "OVERVIEW_FILE"
    path = write(tmp_path / "true.tif", np.zeros((64, 64), dtype="uint8"), tags={domain: {tag: name}})
    assert "names other files" in refused(path)
    invalid(path, "FILE_UNREADABLE")


def test_gdal_itself_follows_the_name_of_an_overview_file(tmp_path: Path, secret: Path) -> None:
    # the reason for the test above: should GDAL cease to do so, the check may go
    path = write(
        tmp_path / "x.tif", np.zeros((64, 64), dtype="uint8"), tags={"OVERVIEWS": {"OVERVIEW_FILE": str(secret)}}
    )
    with rasterio.open(path, driver="GTiff") as dataset:
        assert dataset.read(1, out_shape=(16, 16)).max() == SECRET


@pytest.mark.parametrize("kind", ["external", "link", "virtual", "deep"])
def test_hdf5_that_names_other_files_is_refused(kind: str, tmp_path: Path) -> None:
    other = tmp_path / "other.h5"
    with h5py.File(other, "w") as file:
        file["a"] = np.full((8, 8), SECRET, dtype="uint8")
    path = tmp_path / "x.h5"
    with h5py.File(path, "w") as file:
        if kind in ("external", "deep"):
            group = file.create_group("one/two") if kind == "deep" else file
            group.create_dataset("a", shape=(32, 32), dtype="u1", external=[("/etc/passwd", 0, 1024)])
        elif kind == "link":
            file["a"] = h5py.ExternalLink(str(other), "/a")
        else:
            layout = h5py.VirtualLayout(shape=(8, 8), dtype="u1")
            layout[:] = h5py.VirtualSource(str(other), "a", shape=(8, 8))
            file.create_virtual_dataset("a", layout)
    assert "other file" in refused(path) or "another file" in refused(path)


def test_hdf5_groups_in_a_circle_end(tmp_path: Path) -> None:
    path = tmp_path / "x.h5"
    with h5py.File(path, "w") as file:
        group = file.create_group("g")
        for number in range(20):
            group[f"again{number}"] = file["/g"]
        file["a"] = np.arange(64, dtype="u1").reshape(8, 8)
    with open_raster(path, budget=BUDGET) as dataset:
        assert dataset.read(1)[7, 7] == 63


def test_an_imagine_file_with_its_pixels_elsewhere_is_refused(tmp_path: Path) -> None:
    whole = write(tmp_path / "whole.img", noise(64, 64), driver="HFA")
    with open_raster(whole, budget=BUDGET) as dataset:
        assert dataset.driver == "HFA"
    assert ".ige" in refused(write(tmp_path / "spilled.img", noise(64, 64), driver="HFA", USE_SPILL="YES"))


def test_sidecars_are_not_read(tmp_path: Path) -> None:
    path = write(tmp_path / "x.tif", np.ones((64, 64), dtype="uint8"), transform=rasterio.Affine.identity())
    (tmp_path / "x.tfw").write_text("10\n0\n0\n-10\n0\n0\n")
    (tmp_path / "x.tif.aux.xml").write_text("<PAMDataset><SRS>EPSG:3857</SRS></PAMDataset>")
    write(tmp_path / "x.tif.msk", np.zeros((64, 64), dtype="uint8"))
    write(tmp_path / "x.tif.ovr", np.full((32, 32), SECRET, dtype="uint8"))
    with open_raster(path, budget=BUDGET) as dataset:
        assert dataset.crs.to_epsg() == 32633
        assert dataset.transform == rasterio.Affine.identity()
        assert dataset.overviews(1) == []
        assert dataset.read_masks(1).min() == 255
        assert dataset.files == [str(path)]
    assert sorted(found.name for found in tmp_path.glob("x.tif*")) == [
        "x.tif", "x.tif.aux.xml", "x.tif.msk", "x.tif.ovr",
    ]  # fmt: skip


# --- names that are not paths ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        "/vsicurl/{url}/x.tif", "/vsizip/vsicurl/{url}/x.zip", "/vsis3/b/x.tif", "{url}/x.tif", "zip+{url}/x.zip!x.tif",
        "file:///etc/passwd", 'NETCDF:"{url}/x.nc":a', "<VRTDataset rasterXSize='1' rasterYSize='1'></VRTDataset>",
        "relative.tif", "GTIFF_DIR:1:/etc/passwd", "",
    ],
)  # fmt: skip
def test_only_paths_of_our_own_are_opened(name: str, listener: Listener) -> None:
    given = name.format(url=listener.url)
    with pytest.raises(RasterRefusedError), open_raster(given, budget=BUDGET):  # type: ignore[arg-type]
        pass
    with pytest.raises((RasterRefusedError, RasterUnreadableError)), open_raster(Path(given), budget=BUDGET):
        pass
    answer = verdict(Path(given)) if given else verdict(Path("x"))
    assert answer["error"] == "FILE_UNREADABLE"


def test_links_pipes_and_folders_are_refused(tmp_path: Path, secret: Path) -> None:
    link, pipe = tmp_path / "link.tif", tmp_path / "pipe.tif"
    link.symlink_to(secret)
    os.mkfifo(pipe)
    for path in (link, pipe, tmp_path):
        assert "not a regular file" in refused(path)


# --- what is opened ----------------------------------------------------------------------------------------------

FORMATS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "striped": ("GTiff", "tif", {"blockysize": 8}),
    "tiled": ("GTiff", "tif", {"tiled": True, "blockxsize": 128, "blockysize": 128, "compress": "deflate"}),
    "jpeg-in-tiff": ("GTiff", "tif", {"tiled": True, "compress": "jpeg"}),
    "bigtiff": ("GTiff", "tif", {"BIGTIFF": "YES", "compress": "zstd"}),
    "big-endian": ("GTiff", "tif", {"ENDIANNESS": "BIG", "blockysize": 8}),
    "lerc": ("GTiff", "tif", {"compress": "lerc", "tiled": True}),
    "webp": ("GTiff", "tif", {"compress": "webp", "tiled": True, "WEBP_LOSSLESS": "YES"}),
    "cog": ("COG", "tif", {"BLOCKSIZE": 128}),
    "jp2": ("JP2OpenJPEG", "jp2", {}),
    "png": ("PNG", "png", {}),
    "jpeg": ("JPEG", "jpg", {}),
    "hfa": ("HFA", "img", {}),
    "nitf": ("NITF", "ntf", {}),
    "nitf-jpeg": ("NITF", "ntf", {"IC": "C3"}),
    "netcdf3": ("netCDF", "nc", {"FORMAT": "NC"}),
    "netcdf3-64": ("netCDF", "nc", {"FORMAT": "NC2"}),
    "netcdf4": ("netCDF", "nc", {"FORMAT": "NC4"}),
    "ascii": ("AAIGrid", "asc", {}),
}


def make(name: str, folder: Path) -> Path:
    driver, suffix, options = FORMATS[name]
    bands = 1 if driver in ("netCDF", "AAIGrid") else 3
    source = write(folder / "source.tif", noise(bands, 384, 384))
    return convert(source, folder / f"made.{suffix}", driver, **options)


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_is_opened_with_its_own_driver_whatever_its_name(name: str, tmp_path: Path) -> None:
    path = make(name, tmp_path)
    form = format_of(path)
    assert form.driver in DRIVERS
    # only drivers that look at the suffix get their own
    odd = path if path.suffix == ".nc" else path.rename(tmp_path / "innocent.docx")
    with open_raster(odd, budget=BUDGET) as dataset:
        assert dataset.driver in {form.driver, "HDF5Image"}
        assert dataset.read().shape[1:] == (384, 384)


CUTS = [
    (name, cut)
    for name in FORMATS
    for cut in ("header", "30 %", "60 %", "end")
    if (name, cut) != ("hfa", "end")  # the end of an Imagine file is its type dictionary, not pixels
]


@pytest.mark.parametrize(("name", "cut"), CUTS)
def test_a_file_cut_off_is_invalid(name: str, cut: str, tmp_path: Path) -> None:
    path = make(name, tmp_path)
    whole = path.read_bytes()
    keep = {"header": 40, "30 %": len(whole) * 3 // 10, "60 %": len(whole) * 6 // 10, "end": len(whole) - 200}[cut]
    path.write_bytes(whole[:keep])
    # the CRS is given where a format has none, so that nothing but the cut can be wrong
    answer = verdict(path)
    assert not answer["success"]
    if answer["error"] != "CRS_MISSING":
        assert (answer["outcome"], answer["error"]) == ("invalid", "FILE_UNREADABLE")
    elif path.suffix in (".png", ".jpg", ".asc"):
        assert verdict(path, input_crs="EPSG:32633")["error"] in ("FILE_UNREADABLE", "CRS_VALIDATION_ERROR")


def test_a_cog_cut_off_within_its_overviews_is_invalid(tmp_path: Path) -> None:
    path = write(tmp_path / "x.tif", noise(512, 512), tiled=True, blockxsize=128, blockysize=128)
    size = path.stat().st_size
    with rasterio.open(path, "r+") as dataset:
        dataset.build_overviews([2, 4])
    whole = path.read_bytes()
    assert len(whole) > size + 5000
    path.write_bytes(whole[:-3000])
    assert "cannot be read" in invalid(path, "FILE_UNREADABLE")["message"]


@pytest.mark.parametrize("name", ["tiled", "png", "lerc", "jpeg-in-tiff"])
def test_damage_in_the_middle_is_found(name: str, tmp_path: Path) -> None:
    path = make(name, tmp_path)
    damaged = bytearray(path.read_bytes())
    middle = len(damaged) // 2
    damaged[middle : middle + 64] = bytes(64)
    path.write_bytes(damaged)
    answer = verdict(path, input_crs="EPSG:32633")
    assert answer["error"] in ("FILE_UNREADABLE", "CRS_VALIDATION_ERROR")


def test_directories_in_a_circle_end(tmp_path: Path) -> None:
    path = write(tmp_path / "x.tif", hills(64).astype("float32"))
    content = bytearray(path.read_bytes())
    (start,) = struct.unpack("<I", content[4:8])
    (entries,) = struct.unpack("<H", content[start : start + 2])
    following = start + 2 + 12 * entries
    content[following : following + 4] = struct.pack("<I", start)
    path.write_bytes(content)
    assert verdict(path)["error" if not verdict(path)["success"] else "success"] in ("FILE_UNREADABLE", True)


@pytest.mark.parametrize(
    ("head", "words"),
    [
        (b"", "0 bytes"),
        (b"PK\x03\x04abc", "zip archive"),
        (b"SQLite format 3\0", "SQLite"),
        (b"\x1f\x8b\x08", "gzip"),
        (b"%PDF-1.7", "no raster we open (first bytes 25 50 44 46"),
        (b"GIF89a", "no raster we open"),
    ],
)
def test_what_is_no_raster_is_called_by_its_name(head: bytes, words: str) -> None:
    with pytest.raises(RasterRefusedError) as caught:
        sniff(head, size=len(head))
    assert words in str(caught.value)


def test_srtm_heights_are_told_by_size_and_name(tmp_path: Path) -> None:
    path = tmp_path / "N46E007.hgt"
    path.write_bytes(np.tile(np.arange(1201, dtype=">i2"), (1201, 1)).tobytes())
    with open_raster(path, budget=BUDGET, name="alps/N46E007.hgt") as dataset:
        assert dataset.driver == "SRTMHGT"
        assert dataset.bounds.left == pytest.approx(7, abs=0.01)
    with pytest.raises(RasterRefusedError):
        sniff(path.read_bytes()[:100], size=path.stat().st_size - 2, name="N46E007.hgt")


# --- the budget --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("limit", "most"),
    [("pixels", 384 * 384 - 1), ("bands", 2), ("unpacked_bytes", 384 * 384 * 3 - 1), ("blocks", 8),
     ("block_bytes", 128 * 128 * 3 - 1)],
)  # fmt: skip
def test_each_limit_of_the_header_holds(limit: str, most: int, tmp_path: Path) -> None:
    path = make("tiled", tmp_path)
    tight = RasterBudget(**(BUDGET.as_dict() | {limit: most}))
    assert "GEO_ASSETS_RASTER_MAX_" in refused(path, tight)
    just = RasterBudget(**(BUDGET.as_dict() | {limit: most + 1}))
    with open_raster(path, budget=just) as dataset:
        assert dataset.count == 3


def sparse(path: Path, **profile: Any) -> Path:
    options = {"driver": "GTiff", "dtype": "uint8", "count": 1, "compress": "zstd", "SPARSE_OK": "TRUE", **profile}
    with rasterio.open(path, "w", crs="EPSG:4326", transform=rasterio.Affine(0.001, 0, 0, 0, -0.001, 0), **options):
        pass
    return path


@pytest.mark.parametrize(
    ("profile", "words"),
    [
        ({"width": 60_000, "height": 60_000, "tiled": True, "blockxsize": 1024, "blockysize": 1024}, "RATIO"),
        ({"width": 1_000_000_000, "height": 1, "blockysize": 1}, "BLOCK_MB"),
        ({"width": 64, "height": 64, "count": 5000}, "BANDS"),
        ({"width": 400_000, "height": 400_000, "tiled": True, "blockxsize": 8192, "blockysize": 8192}, "PIXELS"),
    ],
)
def test_header_bombs_are_refused_unread(profile: dict[str, Any], words: str, tmp_path: Path) -> None:
    assert words in refused(sparse(tmp_path / "bomb.tif", **profile))


def test_a_text_that_declares_an_endless_row_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.asc"
    path.write_text("ncols 1000000000\nnrows 1\nxllcorner 0\nyllcorner 0\ncellsize 1\nNODATA_value -9999\n1 2 3\n")
    assert "Too large raster dimension" in invalid(path, "FILE_UNREADABLE")["message"]


# --- in the sandbox, as in production ------------------------------------------------------------------------------


def test_in_the_sandbox_nothing_is_contacted_and_no_secret_comes_out(
    tmp_path: Path, secret: Path, listener: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GEO_ASSETS_AZURE_ACCOUNT_KEY", "canary")
    remote = f"/vsicurl/{listener.url}/x.tif"
    true = np.zeros((64, 64), dtype="uint8")
    hostile = {
        "vrt.tif": vrt(str(secret)),
        "raw.tif": vrt("/etc/passwd", raw=True),
        "remote.tif": vrt(remote),
        "wms.tif": f"<GDAL_WMS><Service name='TMS'><ServerUrl>{listener.url}</ServerUrl></Service></GDAL_WMS>",
    }
    for name, text in hostile.items():
        (tmp_path / name).write_text(text)
    for number, target in enumerate([str(secret), remote]):
        write(tmp_path / f"overview{number}.tif", true, tags={"OVERVIEWS": {"OVERVIEW_FILE": target}})
    good = write(tmp_path / "good.tif", hills().astype("float32"))
    sandbox = Sandbox(get_settings())
    paths = sorted(path for path in tmp_path.glob("*.tif") if path != good)
    assert len(paths) == 6
    for path in [*paths, good]:
        outcome = sandbox.call(validate_raster_file, {"path": str(path), "budget": BUDGET.as_dict()})
        assert outcome.kind.value == ("created" if path == good else "invalid"), (path, outcome)
        assert "root:" not in str(outcome.result_data)
    sandbox.close()


# --- TIFFs cut off -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options", [{"compress": "deflate"}, {"tiled": True, "compress": "lzw"}, {}, {"bigtiff": "YES"}]
)
@pytest.mark.parametrize("share", [0.004, 0.0075, 0.3, 0.6, 0.95])
def test_a_tiff_cut_off_is_known_by_its_directory(tmp_path: Path, options: dict[str, Any], share: float) -> None:
    path = write(tmp_path / "x.tif", noise(1, 200, 200), blockysize=16, **options)
    assert where_cut_off(path) is None
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    needed = where_cut_off(path)
    # GDAL writes the directory first here; uncompressed blocks count by their beginning only
    assert needed is not None
    assert int(len(whole) * share) < needed <= len(whole)
    with pytest.raises(RasterUnreadableError, match="is cut off: it goes on to byte"):
        format_of(path)


def test_a_cog_cut_off_behind_its_overviews_is_cut_off(tmp_path: Path) -> None:
    source = write(tmp_path / "source.tif", noise(1, 1500, 1500))
    cog = convert(source, tmp_path / "cog.tif", "COG", COMPRESS="DEFLATE", BLOCKSIZE="256")
    assert where_cut_off(cog) is None
    whole = cog.read_bytes()
    cog.write_bytes(whole[: len(whole) * 6 // 10])
    assert where_cut_off(cog) == len(whole) or (where_cut_off(cog) or 0) > len(whole) * 6 // 10


def test_a_tiff_whose_directory_is_gone_is_cut_off(tmp_path: Path) -> None:
    path = write(tmp_path / "x.tif", noise(1, 200, 200))
    whole = bytearray(path.read_bytes())
    whole[4:8] = struct.pack("<I", len(whole) + 1000)
    path.write_bytes(whole)
    assert where_cut_off(path) == len(whole) + 1001


def test_a_sparse_tiff_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "sparse.tif"
    with rasterio.open(
        path, "w", driver="GTiff", width=1000, height=1000, count=1, dtype="uint8", tiled=True, sparse_ok=True, **UTM
    ):
        pass
    assert where_cut_off(path) is None


@given(
    data=st.binary(max_size=300),
    cut=st.integers(0, 300),
    order=st.sampled_from([b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"]),
)
def test_no_bytes_make_the_look_at_directories_fail_or_hang(
    tmp_path_factory: pytest.TempPathFactory, data: bytes, cut: int, order: bytes
) -> None:
    path = tmp_path_factory.mktemp("tiff") / "x.tif"
    path.write_bytes(order + data[:cut])
    where_cut_off(path)
    declared_nodata(path)
