"""Sources in YAML and Python: what is refused and how, which names match, and when two definitions are the same."""

import re
from fnmatch import fnmatchcase
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from geo_assets.containers.kinds import with_datasets, with_kinds
from geo_assets.errors import SettingsError
from geo_assets.sources.globs import are_disjoint, can_begin_with, globs_pattern, take_all_below
from geo_assets.sources.source import Source, explain, load_sources


def source(**keys: object) -> Source:
    return Source.model_validate({"name": "a", "container": "bronze", "workflow": "process_raster", **keys})


def matched(of: Source, *names: str) -> list[str]:
    entries = pl.DataFrame(
        {"name": names, "file_count": [None] * len(names), "problem": [None] * len(names)},
        schema={"name": pl.String, "file_count": pl.Int64, "problem": pl.String},
    )
    return with_datasets(with_kinds(entries)).filter(of.matching())["name"].to_list()


# --- globs ---------------------------------------------------------------------------------------------------------


def takes(glob: str, name: str) -> bool:
    """What a glob means, told by the standard library a part at a time."""
    parts = glob.split("/")
    if len(parts) == 1 and glob != "**":
        return fnmatchcase(name.rpartition("/")[2].lower(), glob)
    return _parts_take(parts, name.lower().split("/"))


def _parts_take(globs: list[str], parts: list[str]) -> bool:
    if not globs:
        return not parts
    if globs == ["**"]:
        return bool(parts)
    if globs[0] == "**":
        return _parts_take(globs[1:], parts) or (len(parts) > 1 and _parts_take(globs, parts[1:]))
    return bool(parts) and fnmatchcase(parts[0], globs[0]) and _parts_take(globs[1:], parts[1:])


_PIECES = st.sampled_from(["a", "b", ".", "tif", "*", "?", "[ab]", "[!a]", "[a-c]", "+", "é", "~", "&", "-", " ", "$"])
_PARTS = st.lists(_PIECES, min_size=1, max_size=5).map("".join).filter(lambda part: "**" not in part)
_GLOBS = st.lists(st.one_of(st.just("**"), _PARTS), min_size=1, max_size=4).map("/".join).filter(str.strip)
_NAMES = st.lists(
    st.text("abcABCtif.+é~&-$ ]", min_size=1, max_size=6).filter(lambda part: part not in (".", "..")),
    min_size=1,
    max_size=4,
).map("/".join)


@given(glob=_GLOBS, names=st.lists(_NAMES, min_size=1, max_size=20))
def test_globs_mean_what_the_standard_library_says_part_by_part(glob: str, names: list[str]) -> None:
    pattern = globs_pattern([glob])
    found = pl.Series(names).str.contains(pattern).to_list()
    assert found == [takes(glob, name) for name in names]
    assert found == [re.search(pattern, name) is not None for name in names]


@given(one=_GLOBS, other=_GLOBS, names=st.lists(_NAMES, min_size=1, max_size=20))
def test_globs_that_are_told_apart_take_no_name_together(one: str, other: str, names: list[str]) -> None:
    if are_disjoint([one], [other]):
        assert not any(takes(one, name) and takes(other, name) for name in names)
    starts = [name[:length] for name in names if takes(one, name) for length in range(len(name) + 1)]
    assert all(can_begin_with(one, start) for start in starts)
    folders = [f"{name}/" for name in names if take_all_below([one], f"{name}/")]
    assert all(takes(one, f"{folder}{name}") for folder in folders for name in names)


@pytest.mark.parametrize(
    ("glob", "name", "wanted"),
    [
        ("*.tif", "2026/A.TIF", True),
        ("**/*.tif", "a.tif", True),
        ("2026/*.tif", "2026/x/a.tif", False),
        ("2026/**", "2026/x/a.tif", True),
        ("2026/**", "2026", False),
        ("**/tmp/**", "a/tmp/b/c.tif", True),
        ("**/tmp/**", "a/tmpx/c.tif", False),
        ("a[[]1].tif", "a[1].tif", True),
        ("a[,]*[{]1[}].tif", "a,b{1}.tif", True),
        ("*.tif", "a.tif\nb", False),
    ],
)
def test_globs_that_users_write(glob: str, name: str, *, wanted: bool) -> None:
    assert pl.Series([name]).str.contains(globs_pattern([glob]))[0] is wanted


@pytest.mark.parametrize(
    ("some", "others", "wanted"),
    [
        (["*.tif"], ["*.jp2"], True),
        (["**/*_rgb.tif"], ["**/*_dem.tif", "*.jp2"], True),
        (["2025/**"], ["2026/**"], True),
        (["*.tif"], ["2026/**"], False),
        (["*.tif"], ["*.TIF"], False),
        (["*.tif"], ["*"], False),
    ],
)
def test_it_is_seen_when_globs_begin_or_end_differently(some: list[str], others: list[str], *, wanted: bool) -> None:
    assert are_disjoint(some, others) is wanted


# --- which names match ---------------------------------------------------------------------------------------------

NAMES = (
    "2026/a.tif", "2026/a.tfw", "2026/a.tif.aux.xml", "2025/b.TIF", "roads.shp", "roads.dbf", "roads.shx", "x.zip",
    "readme.txt", "cities.gpkg",
)  # fmt: skip


@pytest.mark.parametrize(
    ("keys", "wanted"),
    [
        ({}, ["2026/a.tif", "2025/b.TIF"]),
        ({"prefix": "2026/"}, ["2026/a.tif"]),
        ({"match": "**"}, ["2026/a.tif", "2025/b.TIF", "roads.shp", "x.zip", "readme.txt", "cities.gpkg"]),
        ({"match": ["*.tif", "*.txt"], "exclude": "2025/**"}, ["2026/a.tif", "readme.txt"]),
        ({"workflow": "ingest_vector"}, ["roads.shp", "cities.gpkg"]),
        ({"workflow": "ingest_vector", "match": "*.zip"}, ["x.zip"]),
        ({"workflow": "our_own"}, ["2026/a.tif", "2025/b.TIF", "roads.shp", "cities.gpkg"]),
        ({"workflow": "stac_catalog_container"}, list(NAMES)),
        ({"workflow": "summarize_container", "exclude": "*.txt"}, [name for name in NAMES if name != "readme.txt"]),
    ],
)
def test_by_default_what_the_workflow_reads_matches(keys: dict[str, object], wanted: list[str]) -> None:
    assert matched(source(**keys), *NAMES) == wanted


@pytest.mark.parametrize(
    ("keys", "folder", "wanted"),
    [
        ({}, "a/", False),
        ({"exclude": "lost+found/**"}, "lost+found/", True),
        ({"exclude": ["*.txt", "**/tmp/**"]}, "a/tmp/b/", True),
        ({"exclude": "a/*"}, "a/", False),
        ({"exclude": "a/**"}, "a\\nb/", False),
        ({"prefix": "in/a"}, "in/", False),
        ({"prefix": "in/a"}, "in/b/", True),
        ({"match": "2026/*.tif"}, "2025/", True),
        ({"match": ["2026/*.tif", "*.tif"]}, "2025/", False),
        ({"match": "*.gdb", "exclude": "a.gdb/**"}, "a.gdb/x/", False),
        ({"match": "in/*.gdb"}, "in/a.gdb/x/", False),
        ({"exclude": "in/**"}, "in/a.gdb/x/", True),
    ],
)
def test_it_is_seen_where_nothing_below_a_folder_counts(keys: dict[str, object], folder: str, *, wanted: bool) -> None:
    assert source(**keys).takes_nothing_below(folder) is wanted


def test_names_with_a_problem_never_match() -> None:
    entries = pl.DataFrame({"name": ["a//b.tif"], "file_count": [None], "problem": ["two slashes"]}).cast(
        {"file_count": pl.Int64}
    )
    grouped = with_datasets(with_kinds(entries))
    for workflow in ("process_raster", "stac_catalog_container"):
        assert grouped.select(source(workflow=workflow, match="**").matching()).to_series().to_list() == [False]


# --- keys ----------------------------------------------------------------------------------------------------------


def test_durations_are_friendly_text_or_seconds() -> None:
    of = source(stable_for="1.5m", every=300, removed_after="2 w")
    assert (of.stable_seconds, of.every_seconds, of.removed_days) == (90.0, 300, 14.0)
    assert Source.model_validate(of.model_dump()) == of


def test_the_definition_changes_with_what_decides_and_with_nothing_else() -> None:
    same = source(parameters={"x": 1, "y": [2]})
    assert len(same.definition) == 32
    assert same.definition == source(name="b", every="9m", paused=True, parameters={"y": [2], "x": 1}).definition
    for keys in ({"prefix": "a"}, {"match": "*"}, {"exclude": "*"}, {"extract": "(?P<x>a)"}, {"parameters": {"x": 2}}):
        assert source(**keys).definition != source().definition


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        ({"name": "Aerials"}, "`name`: 'Aerials' is no name of a source"),
        ({"container": "a/b"}, "`container`: unsupported container name: 'a/b' is a path"),
        ({"prefix": "/a"}, "`prefix`: no name starts with '/a'"),
        ({"matches": "*"}, "unknown key `matches`: did you mean `match`?"),
        ({"colour": "red"}, "unknown key `colour`: there are name, container"),
        ({"match": "*.{tif,jp2}"}, "has braces: write a glob for each alternative"),
        ({"match": "a**.tif"}, "has ** within a part"),
        ({"match": "/a/*.tif"}, "has a slash at an end"),
        ({"match": "a[b"}, "has a [ that no ] closes"),
        ({"match": "[z-a]"}, "has the range z-a"),
        ({"match": ["*"] * 101}, "101 globs, more than 100"),
        ({"match": "x" * 501}, "has 501 characters"),
        ({"match": ""}, "is empty"),
        ({"match": "*.tif, *.jp2"}, "has a comma before *: write a list of globs"),
        ({"match": None}, "`match`: is empty: give it a text, or leave the key out"),
        ({"match": {"a": "b"}}, "`match`: is a mapping: give it a text"),
        ({"match": ["2024/*", 2024]}, "`match`: 2024 is no text: put it in quotes"),
        ({"exclude": True}, "`exclude`: an unquoted yes, no, on, off, true or false is no text: put it in quotes"),
        ({"container": 2024}, "`container`: 2024 is no text: put it in quotes"),
        (
            {"prefix": "x/", "match": ["X/*.tif", "y/*.tif"]},
            "no name that starts with the prefix 'x/' is taken by the glob 'y",
        ),
        ({"prefix": "x/y/", "match": "x/*.tif"}, "is taken by the glob 'x/*.tif'"),
        ({"extract": "("}, "unclosed group"),
        ({"extract": "(?=a)(?P<x>a)"}, "look-ahead"),
        ({"extract": "(?P<x>(a{1000}){1000})"}, "Compiled regex exceeds size limit"),
        ({"extract": "[0-9]+"}, "`extract`: the pattern has no named group"),
        ({"extract": "(?P<stem>a)"}, "the group stem is called like a placeholder"),
        ({"extract": f"(?P<x>{'a' * 500})"}, "more than 500"),
        ({"every": "1s"}, "`every`: 1 seconds is too often"),
        ({"every": "5 minutes"}, "'5 minutes' is no duration: write 90s, 5m, 2h, 30d or 1w"),
        ({"stable_for": True}, "True is no duration"),
        ({"stable_for": -1}, "`stable_for`:"),
        ({"stable_for": float("inf")}, "`stable_for`:"),
        ({"max_active": 0}, "`max_active`:"),
        ({"max_active": True}, "`max_active`: true is no number"),
        ({"per_minute": True}, "`per_minute`: true is no number"),
        ({"when_removed": "delete"}, "`when_removed`: Input should be 'keep' or 'unpublish'"),
        ({"parameters": {"x": float("nan")}}, "`parameters`: must be plain JSON values"),
        ({"parameters": {"x": {1, 2}}}, "`parameters`: must be plain JSON values"),
        ({"workflow": None}, "`workflow`: is empty: give it a text"),
    ],
)
def test_what_cannot_be_used_is_refused_by_key(keys: dict[str, object], told: str) -> None:
    with pytest.raises(ValidationError) as refused:
        source(**keys)
    (problem,) = explain(refused.value)
    assert told in problem


# --- YAML ----------------------------------------------------------------------------------------------------------

GOOD = """
sources:
  - name: aerials
    container: bronze
    match: "**/*.tif"
    workflow: process_raster
    parameters: {collection_id: aerials, since: 2026-01-31}
    every: 5m
"""


def test_a_file_a_folder_and_nothing_at_all(tmp_path: Path) -> None:
    assert load_sources(tmp_path / "sources.yaml") == ()
    folder = tmp_path / "sources"
    folder.mkdir()
    assert load_sources(folder) == ()
    (folder / "b.yml").write_text(GOOD.replace("aerials", "b"))
    (folder / "a.yaml").write_text(GOOD)
    (folder / "empty.yaml").write_text("# none yet\n")
    (folder / "notes.txt").write_text("no YAML: [")
    (folder / "._a.yaml").write_bytes(b"\x00\x05\x16\x07\xff")
    assert [found.name for found in load_sources(folder)] == ["aerials", "b"]
    (found,) = load_sources(folder / "a.yaml")
    # dates stay as they are written
    assert found.parameters == {"collection_id": "aerials", "since": "2026-01-31"}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("a: [", "s.yaml: is no YAML that is understood:"),
        ("- name: a", "s.yaml: must hold one key, `sources`, with a list"),
        ("sources: {name: a}", "s.yaml: `sources` is a mapping, not a list"),
        ("sources: [a]", "s.yaml: source 1 is text, not keys and values"),
        ("sources: [{name: a}]", "s.yaml: source 'a': `container` is missing: Container that is watched."),
        (GOOD + "    ever: 5m\n", "s.yaml: source 'aerials': unknown key `ever`: did you mean `every`?"),
        (GOOD + "    every: 6m\n", "the key every is there twice"),
        (GOOD + GOOD.removeprefix("\nsources:\n"), "s.yaml: source 'aerials' is there twice"),
        ("sources: !!python/object/apply:os.system ['true']", "is no YAML that is understood:"),
        ("a: &a [x, x]\nb: &b [*a, *a]\nsources: [*b]", "aliases (*name) are not taken"),
        (GOOD.replace('"**/*.tif"', "*.tif"), ": put a text that begins with * in quotes"),
        (GOOD.replace('"**/*.tif"', "*tif"), ": put a text that begins with * in quotes"),
        ("sources: " + "[" * 5000, "is no YAML that is understood:"),
        ("#" * 1_000_001, "more than 1000000: split it"),
    ],
)
def test_a_file_that_cannot_be_used_is_named(tmp_path: Path, text: str, told: str) -> None:
    file = tmp_path / "s.yaml"
    file.write_text(text)
    with pytest.raises(SettingsError) as refused:
        load_sources(file)
    assert told in str(refused.value)
    assert "\n" not in str(refused.value)


def test_all_that_is_wrong_is_told_at_once(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(GOOD + "    colour: red\n    every: x\n".replace("every", "stable_for"))
    (tmp_path / "b.yaml").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "c.yaml").write_text(GOOD.replace("aerials", "c"))
    (tmp_path / "d.yaml").write_text(GOOD.replace("aerials", "c"))
    with pytest.raises(SettingsError) as refused:
        load_sources(tmp_path)
    for told in (
        "source 'aerials': unknown key `colour`",
        "source 'aerials': `stable_for`: 'x' is no duration",
        "b.yaml: cannot be read",
        "d.yaml: source 'c' is there twice, the first in c.yaml: rename one",
    ):
        assert told in str(refused.value)
