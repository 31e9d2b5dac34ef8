"""Zip files: what is taken out of honest ones, and what is refused before anything is unpacked."""

import os
import stat
import struct
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from geo_assets.errors import VectorRefusedError, VectorUnreadableError
from geo_assets.vector.archives import unpack
from tests.vector.files import BUDGET, COLLECTION, CSV_TEXT, kml, patched, shapefile, write, zipped, zipped_folder

MIB = 1024 * 1024


@pytest.fixture
def out(tmp_path: Path) -> Path:
    folder = tmp_path / "out"
    folder.mkdir()
    return folder


def names(path: Path, out: Path, wanted: str | None = None, several: str | None = None) -> list[str]:
    return [one.name for one in unpack(path, out, budget=BUDGET, wanted=wanted, several=several)]


def refused(path: Path, out: Path, code: str = "ARCHIVE_REFUSED", *, budget: object = None) -> str:
    """The message, after a proof that nothing was unpacked."""
    limits = BUDGET if budget is None else budget
    with pytest.raises(VectorRefusedError) as caught:
        unpack(path, out, budget=limits, wanted=None)  # type: ignore[arg-type]
    assert caught.value.code == code
    assert not any(out.iterdir())
    return str(caught.value)


# --- honest archives ----------------------------------------------------------------------------------------------


def test_a_shapefile_is_unpacked_by_names_of_our_own(tmp_path: Path, out: Path) -> None:
    made = shapefile(tmp_path / "made", "Straßen 2020")
    path = zipped_folder(tmp_path / "x.zip", made.parent, below="deep/er/")
    (member,) = unpack(path, out, budget=BUDGET, wanted=None)
    assert member.name == "Straßen 2020.shp"
    there = {one.name for one in member.path.parent.iterdir()}
    assert {"vector.shp", "vector.shx", "vector.dbf", "vector.prj"} <= there
    assert member.path.read_bytes() == made.read_bytes()


def test_suffixes_in_upper_case_belong_together(tmp_path: Path, out: Path) -> None:
    made = shapefile(tmp_path / "made", "x")
    path = zipped(tmp_path / "x.zip", {f"X{one.suffix.upper()}": one.read_bytes() for one in made.parent.iterdir()})
    (member,) = unpack(path, out, budget=BUDGET, wanted=None)
    assert member.path.name == "vector.shp"
    assert member.path.with_suffix(".dbf").exists()


@pytest.mark.parametrize("part", [".shx", ".dbf"])
def test_fault_29_a_shapefile_in_a_zip_lacks_a_part(part: str, tmp_path: Path, out: Path) -> None:
    made = shapefile(tmp_path / "made")
    made.with_suffix(part).unlink()
    with pytest.raises(VectorUnreadableError, match=rf"{part} is missing"):
        names(zipped_folder(tmp_path / "x.zip", made.parent), out)


def test_fault_37_a_geodatabase_in_a_zip(tmp_path: Path, out: Path) -> None:
    (tmp_path / "made").mkdir()
    made = write(tmp_path / "made" / "Town.gdb", "OpenFileGDB")
    (made / "x.lock").write_text("")
    (member,) = unpack(zipped_folder(tmp_path / "x.zip", tmp_path / "made"), out, budget=BUDGET, wanted=None)
    assert (member.name, member.path.name) == ("Town.gdb", "vector.gdb")
    assert {one.name for one in member.path.iterdir()} == {one.name for one in made.iterdir()} - {"x.lock"}


@pytest.mark.parametrize("name", ["a.gpkg", "b/a.geojson", "a.CSV", "a.fgb", "a.parquet", "a.geoparquet", "a.kml"])
def test_any_single_file_is_taken(name: str, tmp_path: Path, out: Path) -> None:
    path = zipped(tmp_path / "x.zip", {name: b"content", "readme.txt": "", "__MACOSX/b/._a.shp": "", "b/.DS_Store": ""})
    (member,) = unpack(path, out, budget=BUDGET, wanted=None)
    assert member.name == name.rpartition("/")[2]
    assert member.path.read_bytes() == b"content"


def test_tables_beside_a_dataset_are_notes_about_it(tmp_path: Path, out: Path) -> None:
    assert names(zipped(tmp_path / "x.zip", {"codes.csv": CSV_TEXT, "a.gpkg": "", "m.json": ""}), out) == ["a.gpkg"]


@pytest.mark.parametrize(
    ("entries", "wanted", "expected"),
    [
        (("b.kml", "doc.kml"), None, "doc.kml"),
        (("b.kml", "c/doc.kml"), None, "b.kml"),
        (("b.kml", "doc.kml"), "B", "b.kml"),
        (("files/b.kml", "doc.kml"), "files/b.kml", "b.kml"),
    ],
)
def test_a_kmz_has_a_main_kml(
    entries: tuple[str, ...], wanted: str | None, expected: str, tmp_path: Path, out: Path
) -> None:
    path = zipped(tmp_path / "x.kmz", {**dict.fromkeys(entries, kml()), "files/icon.png": b"\x89PNG"})
    assert names(path, out, wanted) == [expected]


def two(folder: Path) -> Path:
    made = folder / "made"
    shapefile(made, "roads")
    shapefile(made, "rivers")
    return zipped_folder(folder / "x.zip", made)


def test_fault_36_two_datasets_are_named_and_one_is_chosen(tmp_path: Path, out: Path) -> None:
    path = two(tmp_path)
    message = refused(path, out, "SEVERAL_DATASETS")
    assert "'rivers.shp', 'roads.shp'" in message
    assert names(path, out, "roads.shp") == ["roads.shp"]


@pytest.mark.parametrize(("several", "expected"), [("*", ["rivers.shp", "roads.shp"]), ("rivers", ["rivers.shp"])])
def test_several_shapefiles_may_be_layers(several: str, expected: list[str], tmp_path: Path, out: Path) -> None:
    assert names(two(tmp_path), out, several=several) == expected


@pytest.mark.parametrize("wanted", ["lakes", "lakes.shp"])
def test_what_is_not_there_is_said_with_what_is(wanted: str, tmp_path: Path, out: Path) -> None:
    path = two(tmp_path)
    for arguments in ((wanted, None), (None, wanted)):
        with pytest.raises(VectorRefusedError, match=r"lakes.*rivers.*roads") as caught:
            names(path, out, *arguments)
        assert caught.value.code == "LAYER_NOT_FOUND"


def test_other_datasets_are_never_layers(tmp_path: Path, out: Path) -> None:
    path = zipped(tmp_path / "x.zip", {"a.gpkg": "", "b.gpkg": ""})
    with pytest.raises(VectorRefusedError, match=r"a\.gpkg.*b\.gpkg"):
        names(path, out, several="*")


def test_shapefiles_of_one_name_are_told_apart_by_folder(tmp_path: Path, out: Path) -> None:
    made = shapefile(tmp_path / "made", "x")
    entries = {f"{folder}/{one.name}": one.read_bytes() for folder in "ab" for one in made.parent.iterdir()}
    path = zipped(tmp_path / "x.zip", entries)
    for several in ("*", "x"):
        with pytest.raises(VectorRefusedError) as caught:
            names(path, out, several=several)
        assert caught.value.code == "SEVERAL_DATASETS"
    assert names(path, out, "b/x.shp") == ["x.shp"]


def test_an_archive_without_a_dataset_is_refused(tmp_path: Path, out: Path) -> None:
    assert "no vector file" in refused(zipped(tmp_path / "x.zip", {"readme.txt": "", "a.tif": ""}), out)


# --- fault 36 -----------------------------------------------------------------------------------------------------


def test_fault_36_a_bomb_by_ratio(tmp_path: Path, out: Path) -> None:
    path = zipped(tmp_path / "x.zip", {"a.csv": bytes(65 * MIB)})
    assert "GEO_ASSETS_VECTOR_MAX_RATIO" in refused(path, out)


def test_fault_36_too_large_unpacked(tmp_path: Path, out: Path) -> None:
    path = zipped(tmp_path / "x.zip", {"a.csv": bytes(MIB)})
    assert "GEO_ASSETS_VECTOR_MAX_GB" in refused(path, out, budget=replace(BUDGET, file_bytes=MIB - 1))


def test_fault_36_too_many_entries(tmp_path: Path, out: Path) -> None:
    path = zipped(tmp_path / "x.zip", {f"{number}": b"" for number in range(11)})
    message = refused(path, out, budget=replace(BUDGET, entries=10))
    assert "11 entries" in message
    assert "GEO_ASSETS_VECTOR_MAX_ENTRIES" in message


def test_fault_36_a_million_entries_are_never_read(tmp_path: Path, out: Path) -> None:
    # the end says one entry, and the directory has as many as fit
    path = zipped(tmp_path / "x.zip", {f"{number}": b"" for number in range(12)})
    end = path.stat().st_size - 22
    patched(path, end + 8, "<2H", 1, 1)
    assert "another number" in refused(path, out)
    length, offset = 100_000_000, end - struct.unpack_from("<L", path.read_bytes(), end + 12)[0]
    content = path.read_bytes()
    with path.open("wb") as file:
        file.write(content[:offset])
        file.truncate(offset + length)
        file.seek(offset + length)
        file.write(struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 1, 1, length, offset, 0))
    assert "at most 10,000 entries" in refused(path, out)


@pytest.mark.parametrize("name", ["in.zip", "in.kmz", "a/in.7z", "in.tar.gz"])
def test_fault_36_nested(name: str, tmp_path: Path, out: Path) -> None:
    assert "another archive" in refused(zipped(tmp_path / "x.zip", {"a.csv": CSV_TEXT, name: b"PK"}), out)


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("../a.csv", "leads out"),
        ("b/../../a.csv", "leads out"),
        ("/etc/a.csv", "leads out"),
        ("C:/a.csv", "leads out"),
        ("b//a.csv", "leads out"),
        ("b\\a.csv", "backslash"),
        ("a\n.csv", "control"),
        ("a.csv\0.txt", "control"),
    ],
)
def test_fault_36_paths(name: str, what: str, tmp_path: Path, out: Path) -> None:
    # writestr would cut a name at its NUL
    path = zipped(tmp_path / "x.zip", {name.replace("\0", "|"): CSV_TEXT})
    path.write_bytes(path.read_bytes().replace(b"|", b"\0"))
    assert what in refused(path, out)


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR])
def test_fault_36_links_and_devices(kind: int, tmp_path: Path, out: Path) -> None:
    entry = zipfile.ZipInfo("a.csv")
    entry.create_system = 3
    entry.external_attr = (kind | 0o777) << 16
    assert "link" in refused(zipped(tmp_path / "x.zip", [(entry, "/etc/passwd")]), out)


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("other", ["a.csv", "A.CSV", "a.csv/"])
def test_fault_36_duplicate_names(other: str, tmp_path: Path, out: Path) -> None:
    assert "twice" in refused(zipped(tmp_path / "x.zip", [("a.csv", CSV_TEXT), (other, "")]), out)


def offsets(path: Path) -> tuple[int, int]:
    """Of the first entry's header in the directory, and of the end."""
    content = path.read_bytes()
    return content.index(b"PK\1\2"), content.rindex(b"PK\5\6")


LIES: dict[str, Callable[[Path], object]] = {
    "encrypted": lambda path: patched(path, offsets(path)[0] + 8, "<H", 1),
    "method": lambda path: patched(path, offsets(path)[0] + 10, "<H", 12),
    "unknown method": lambda path: patched(path, offsets(path)[0] + 10, "<H", 99),
    "packed size": lambda path: patched(path, offsets(path)[0] + 20, "<L", 3),
    "size": lambda path: patched(path, offsets(path)[0] + 24, "<L", 3),
    "size of zip64 without zip64": lambda path: patched(path, offsets(path)[0] + 24, "<L", 0xFFFFFFFF),
    "checksum": lambda path: patched(path, offsets(path)[0] + 16, "<L", 3),
    "offset": lambda path: patched(path, offsets(path)[0] + 42, "<L", 3),
    "name": lambda path: patched(path, offsets(path)[0] + 46, "<5s", b"b.csv"),
    "local name": lambda path: patched(path, 30, "<5s", b"b.csv"),
    "local encryption": lambda path: patched(path, 6, "<H", 1),
    "local size": lambda path: patched(path, 22, "<L", 3),
    "directory's offset": lambda path: patched(path, offsets(path)[1] + 16, "<L", 3),
    "directory's length": lambda path: patched(path, offsets(path)[1] + 12, "<L", 3),
    "count": lambda path: patched(path, offsets(path)[1] + 8, "<2H", 2, 2),
    "disks": lambda path: patched(path, offsets(path)[1] + 4, "<2H", 1, 1),
    "text behind": lambda path: path.write_bytes(path.read_bytes() + b"more"),
    "text before": lambda path: path.write_bytes(b"#!/bin/sh\n" + path.read_bytes()),
}


@pytest.mark.parametrize("lie", LIES)
def test_fault_36_directory_and_headers_disagree(lie: str, tmp_path: Path, out: Path) -> None:
    path = zipped(tmp_path / "x.zip", {"a.csv": CSV_TEXT * 20})
    LIES[lie](path)
    with pytest.raises((VectorRefusedError, VectorUnreadableError)):
        unpack(path, out, budget=BUDGET, wanted=None)
    assert not any(out.iterdir())


def test_fault_36_entries_that_share_bytes(tmp_path: Path, out: Path) -> None:
    path = zipped(tmp_path / "x.zip", {"a.csv": bytes(MIB), "b.csv": bytes(MIB)})
    content = path.read_bytes()
    second = content.index(b"PK\1\2", content.index(b"PK\1\2") + 1)
    patched(path, second + 42, "<L", 0)
    assert "share bytes" in refused(path, out)


def sixty_four(path: Path, *, count: int = 1, short: int = 0xFFFF, where: int = 0) -> Path:
    """Give an archive an end of zip64."""
    content = path.read_bytes()
    end = content.rindex(b"PK\5\6")
    _, _, _, _, _, length, offset, _ = struct.unpack_from("<4s4H2LH", content, end)
    record = struct.pack("<4sQ2H2L4Q", b"PK\6\6", 44, 45, 45, 0, 0, count, count, length, offset)
    locator = struct.pack("<4sLQL", b"PK\6\7", 0, end + where, 1)
    last = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, short, short, length, offset, 0)
    path.write_bytes(content[:end] + record + locator + last)
    return path


def test_zip64_is_unpacked(tmp_path: Path, out: Path) -> None:
    path = zipped(tmp_path / "x.zip", {"a.csv": CSV_TEXT})
    assert names(sixty_four(path), out) == ["a.csv"]
    big = tmp_path / "big.zip"
    with zipfile.ZipFile(big, "w") as archive, archive.open("b.csv", "w", force_zip64=True) as file:
        file.write(CSV_TEXT.encode())
    (out / "0").rename(out.parent / "before")
    assert names(big, out) == ["b.csv"]


@pytest.mark.parametrize(
    ("count", "short", "where"), [(2, 0xFFFF, 0), (1, 3, 0), (1, 0xFFFF, 5), (1, 0xFFFF, 1 << 40), (1 << 60, 0xFFFF, 0)]
)
def test_fault_36_zip64_lies(count: int, short: int, where: int, tmp_path: Path, out: Path) -> None:
    path = sixty_four(zipped(tmp_path / "x.zip", {"a.csv": CSV_TEXT}), count=count, short=short, where=where)
    refused(path, out)


def test_streamed_archives_have_their_sizes_behind_the_bytes(tmp_path: Path, out: Path) -> None:
    path = tmp_path / "x.zip"
    read, write_end = os.pipe()
    with os.fdopen(write_end, "wb") as target, zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.csv", CSV_TEXT)
    with os.fdopen(read, "rb") as source:
        path.write_bytes(source.read())
    assert path.read_bytes()[6] & 8
    assert names(path, out) == ["a.csv"]


@pytest.mark.parametrize("share", [0.3, 0.6, 0.99])
def test_an_archive_cut_off_is_unreadable(share: float, tmp_path: Path, out: Path) -> None:
    path = zipped(tmp_path / "x.zip", {"a.csv": CSV_TEXT, "b.txt": CSV_TEXT})
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    with pytest.raises(VectorUnreadableError, match="cut off"):
        names(path, out)


def test_content_that_is_not_what_its_checksum_says_is_unreadable(tmp_path: Path, out: Path) -> None:
    path = zipped(tmp_path / "x.zip", {"a.geojson": COLLECTION * 20})
    patched(path, 45, "<4s", b"\xff\xff\xff\xff")
    with pytest.raises(VectorUnreadableError, match="damaged"):
        names(path, out)


@given(at=st.integers(0, 400), value=st.integers(0, 255))
@settings(max_examples=200, deadline=None)
def test_any_damaged_byte_is_refused_or_does_not_matter(
    at: int, value: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("damaged")
    path = zipped(folder / "x.zip", {"a.csv": CSV_TEXT, "b.txt": "note"})
    content = bytearray(path.read_bytes())
    content[at % len(content)] = value
    path.write_bytes(content)
    try:
        members = unpack(path, folder, budget=BUDGET, wanted=None)
    except (VectorRefusedError, VectorUnreadableError):
        return
    assert [one.path.read_text() for one in members] == [CSV_TEXT]
