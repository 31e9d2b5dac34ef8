"""The rules for names, and the choice of a store by the settings.

What belongs here: pure functions of ``stores.blobs`` and ``open_blob_store``.  What does not: requests.
"""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from geo_assets.settings import Settings
from geo_assets.stores import open_blob_store
from geo_assets.stores.blobs import name_problem, printable
from geo_assets.stores.local import LocalBlobStore
from geo_assets.stores.memory import MemoryBlobStore

# what os.fsdecode gives for any bytes
file_names = st.binary(min_size=1).map(os.fsdecode)


@given(file_names)
def test_printable_names_can_be_shown_and_stored(name: str) -> None:
    shown = printable(name)
    assert shown.isprintable()
    assert shown.encode()
    assert "unsupported name" in (name_problem(name) or "unsupported name")


@given(file_names, file_names)
def test_two_names_never_look_the_same(first: str, second: str) -> None:
    assert (printable(first) == printable(second)) == (first == second)


@pytest.mark.parametrize(("first", "second"), [("a\n", "a\\n"), ("\x80", "\udc80"), ("\\", "\\\\"), ("\r", "\n")])
def test_names_that_escapes_could_confuse_differ(first: str, second: str) -> None:
    assert printable(first) != printable(second)


@given(st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1).filter(lambda name: name not in (".", "..")))
def test_plain_text_without_slashes_is_a_name(name: str) -> None:
    assert name_problem(name.replace("/", "_")) is None


def test_the_settings_choose_the_store(tmp_path: Path) -> None:
    local = open_blob_store(Settings.model_validate({"blob_root": tmp_path / "here"}))
    assert isinstance(local, LocalBlobStore)
    assert local.root == tmp_path / "here"
    memory = open_blob_store(Settings.model_validate({"blob_store": "memory"}))
    assert memory is open_blob_store(Settings.model_validate({"blob_store": "memory"}))
    assert memory is MemoryBlobStore.named()


def test_memory_stores_of_different_names_are_apart() -> None:
    one, other = MemoryBlobStore.named("one"), MemoryBlobStore.named("other")
    one.create_container("c")
    try:
        assert not other.container_exists("c")
    finally:
        one.clear()
    assert one.list_containers() == []
