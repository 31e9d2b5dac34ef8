"""The page as HTML: whole, self-contained, and safe whatever names are in it."""

import json
import re
from dataclasses import replace
from datetime import UTC, datetime
from html import unescape
from html.parser import HTMLParser
from typing import Any

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from geo_assets.coremachine.ledger import FailureGroup
from geo_assets.pictures import Picture, shown_at_once
from geo_assets.report import Report, render, small_map, tiny_map
from geo_assets.report.charts import bars, columns, number, size
from geo_assets.report.facts import SourceState
from geo_assets.report.page import script_data
from geo_assets.report.world import HEIGHT, SMALL_MAP_BYTES, WIDTH, project
from tests.report.items import raster, report_of, table

HOSTILE = "</script><script>alert(1)</script><!--'\"&<img src=x onerror=alert(1)>\u2028\x00\u202e.tif"
EMPTY = Report(made_at=datetime(2026, 3, 4, 5, 6, tzinfo=UTC), stores=(), ui_url=None, problems=())
VOID = {"meta", "br", "input", "path", "rect", "polyline"}
LOADING = ("src", "srcset", "data", "poster", "action", "formaction", "background", "xlink:href", "ping")


class Read(HTMLParser):
    """What a browser would make of it: elements, links and scripts; fails where elements do not close in order."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []
        self.scripts: list[str] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(page)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        named = dict(attrs)
        assert not any(name.startswith("on") for name in named), named
        assert not set(LOADING) & set(named), named
        assert "url(" not in (named.get("style") or "")
        if "href" in named:
            assert tag == "a", named
            self.links.append(named["href"] or "")
        self.tags.append(tag)
        if tag == "script":
            self.scripts.append("")
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self._open.pop()

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] == "script":
            self.scripts[-1] += data
        elif self._open and self._open[-1] != "style":
            self.text += data

    @property
    def data(self) -> Any:
        """What the page's script gets."""
        return json.loads(self.scripts[0])


def test_an_empty_catalog_has_a_page() -> None:
    read = Read(render(EMPTY))
    assert "Nothing is catalogued yet." in read.text
    assert "No job needs attention." in read.text
    assert len(read.scripts) == 2


def test_the_page_says_what_was_counted() -> None:
    report = replace(
        report_of({"cogs": [raster("a.tif", size=2_500_000)], "vectors": [table()]}, ui_url="https://dagster.example/"),
        failures=[FailureGroup("cog", "CRS_MISSING: … it's", 1234, "bronze/x.tif")],
        queue={"failed": 1234},
        problems=[("containers", "the store is away")],
    )
    read = Read(render(report))
    for said in (
        "2.5 MB",
        "1\u202f234",
        "the store is away",
        """geo-assets retry --failed --asset cog --group 'CRS_MISSING: … it'"'"'s'""",
        "All of vectors",
    ):
        assert said in read.text, said
    assert "https://dagster.example/assets/raster_stac_item?view=partitions&partition=bronze%2Fa.tif" in read.links


def test_datasets_are_called_by_what_they_were_made_of_and_sources_are_seen_whole() -> None:
    long = f"survey 2024/{'a' * 80}/ortho.tif"
    watched = SourceState(name="surveys", container="bronze", looked_at=None, error=None, entries={"at work": 3})
    report = replace(report_of({"cogs": [raster(long, id="x=20y")]}), sources=[watched])
    page = render(report)
    assert f'<bdi title="bronze/{long}">bronze/survey 2024/aaaaaaaaaaa…{"a" * 19}/ortho.tif</bdi>' in page
    assert "x=20y" not in page
    assert 'class="n">At work</th>' in page


def test_nothing_is_loaded_from_anywhere() -> None:
    page = render(report_of({"cogs": [raster()]}, ui_url="https://dagster.example"))
    read = Read(page)
    assert not {"link", "img", "iframe", "object", "embed", "base", "form", "audio", "video", "image"} & set(read.tags)
    assert "@import" not in page
    assert not re.search(
        r"\b(fetch|XMLHttpRequest|WebSocket|importScripts|sendBeacon|eval|innerHTML)\b", read.scripts[1]
    )
    addresses = set(re.findall(r"https?://[^\s\"'<>\\]+", unescape(page))) - set(read.links)
    # what is left is in the data of the map, for links
    assert addresses == {"https://store.example/thumbnails/a.webp"}
    assert "default-src 'none'" in page.replace("&#x27;", "'")


def test_a_ui_that_is_no_web_address_is_no_link() -> None:
    read = Read(render(report_of({"cogs": [raster()]}, ui_url="javascript:alert(1)")))
    assert read.links == ["#main"]
    assert read.data["ui"] is None


def test_hostile_names_stay_text_everywhere() -> None:
    odd = raster(HOSTILE, 5, id=HOSTILE, **{"geo_assets:raster_type": HOSTILE, "geo_assets:source_blob": HOSTILE})
    odd["assets"]["data"]["type"] = HOSTILE
    report = replace(
        report_of({HOSTILE: [odd]}, ui_url="https://dagster.example"),
        failures=[FailureGroup(HOSTILE, HOSTILE, 1, HOSTILE)],
        queue={HOSTILE: 1},
        problems=[(HOSTILE, HOSTILE)],
        stores=[(HOSTILE, HOSTILE)],
    )
    read = Read(render(report))
    assert len(read.scripts) == 2
    assert "img" not in read.tags
    assert read.data["collections"] == [[HOSTILE, 0]]
    assert read.data["items"][0][5] == f"bronze/{HOSTILE}"


names = st.text(st.characters(exclude_categories=()), max_size=40)


@settings(max_examples=15, suppress_health_check=[HealthCheck.too_slow])
@given(name=names, other=names, kind=names)
def test_any_name_gives_a_page_that_is_whole(name: str, other: str, kind: str) -> None:
    items = [
        raster("a.tif", 5, id=name, **{"geo_assets:raster_type": kind, "geo_assets:source_blob": other}),
        raster("b.tif", 5, id=other, **{"geo_assets:source_blob": kind}),
    ]
    nothing: dict[str, Any] = {"geo_assets:source_blob": None, "geo_assets:blob": None}
    plain = raster(id=name, **nothing)
    page = render(report_of({name: items, f"{name}2": [plain]}, ui_url="http://localhost:1"))
    page.encode()
    read = Read(page)
    assert len(read.scripts) == 2
    before, found = "", []
    for row in read.data["items"]:
        before = before[: row[4]] + row[5]
        found.append(before)
    assert sorted(found) == sorted([name, f"bronze/{other}", f"bronze/{kind}"])


@settings(max_examples=30)
@given(
    st.recursive(
        st.none() | st.text() | st.integers(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)
    )
)
def test_data_in_a_script_comes_back_and_cannot_end_it(value: Any) -> None:
    written = script_data(value)
    assert json.loads(written) == value
    assert written.isascii()
    assert not set("<>&") & set(written)


def test_the_largest_page_stays_below_5_mb() -> None:
    # a character that takes twelve in the data of the script
    items = [
        raster(
            id=str(n), size=n, bbox=[10.0, 50.0, 10.5 + n / 1e5, 51.0], **{"geo_assets:source_blob": f"{n}{'🗺' * 280}"}
        )
        for n in range(1300)
    ]
    report = report_of({"cogs": items}, ui_url="https://dagster.example")
    page = render(report)
    assert len(page.encode()) < 5_000_000
    drawn = len(Read(page).data["items"])
    assert 400 < drawn < 1300
    assert f"The {number(drawn)} largest datasets" in page


def test_maps_for_the_ui_are_small_and_show_every_place() -> None:
    items = [
        raster(f"{lon},{lat}", bbox=[float(lon), float(lat), lon + 1.0, lat + 1.0])
        for lon in range(-180, 180, 14)
        for lat in range(-84, 84, 8)
    ]
    report = report_of({"cogs": items[::2], "dev": items[1::2]})
    assert len(small_map(report)) <= SMALL_MAP_BYTES
    assert shown_at_once(Picture(alt="World map", media_type="image/svg+xml", data=tiny_map(report).encode()))
    assert "stroke-linecap" in tiny_map(report)
    one = report_of({"cogs": [raster(bbox=[10.0, 50.0, 11.0, 51.0])]})
    x, y = project(np.array([10.5]), np.array([50.5]))
    assert 0 < x[0] < WIDTH
    assert 0 < y[0] < HEIGHT
    assert f"M{round(x[0] / 4) * 4},{round(y[0] / 4) * 4}h0" in small_map(one)
    assert "M4,-17h0" in tiny_map(one)


def test_columns_choose_their_periods() -> None:
    assert 'aria-label="Items: 3 from 2024-01 to 2024-03, by month"' in columns("Items", {"2024-01": 1, "2024-03": 2})
    assert "by year" in columns("Items", {"1980-01": 1, "2024-03": 2})
    assert "by decade" in columns("Items", {"1850-01": 1, "2024-03": 2})
    assert columns("Items", {"0001-01": 1, "9999-12": 2}).count("<rect") == 2
    assert columns("Items", {}) == '<p class="none">Items: none yet.</p>'


def test_bars_keep_the_sum() -> None:
    drawn = bars("Types", {str(n): n for n in range(1, 31)})
    shown = [int(count) for count in re.findall(r'class="n">(\d+)<', drawn)]
    assert sum(shown) == sum(range(1, 31))
    assert "18 more" in drawn


def test_sizes_are_in_the_unit_that_suits() -> None:
    assert [size(count) for count in (0, 999, 1000, 999_600, 2_500_000, 3 * 10**12)] == [
        "0 bytes", "999 bytes", "1 kB", "1 MB", "2.5 MB", "3 TB",
    ]  # fmt: skip
