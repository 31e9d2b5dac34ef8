"""What docs/sources.md tells operators is so: the table of keys, every example, every setting and command it names.

``python -m tests.sources.test_page`` writes the table of keys anew.
"""

import re
from pathlib import Path
from typing import get_args

import pytest
import yaml
from pydantic_core import PydanticUndefined
from typer.main import get_command

from geo_assets.cli import app
from geo_assets.jobs import load_registry
from geo_assets.settings import Settings
from geo_assets.sources.rules import check_sources, parameters_for
from geo_assets.sources.source import Source, load_sources

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "sources.md"
BEGIN, END = "<!-- keys: begin -->\n", "<!-- keys: end -->\n"
_FRIENDLY = {60.0: "1m", 30 * 86_400.0: "30d", 0.0: "0"}


def keys_table() -> str:
    """The keys as a table, from names, defaults and descriptions."""
    rows = [f"| `{name}` | {_default(name)} | {_meaning(name)} |" for name in Source.model_fields]
    return "\n".join(["", "| key | default | means |", "|---|---|---|", *rows, "", ""])


def _default(name: str) -> str:
    field = Source.model_fields[name]
    default = field.default
    if field.is_required():
        return "required"
    if default in (PydanticUndefined, None, (), "") or default is PydanticUndefined:
        return "-"
    return f"`{_FRIENDLY.get(default, default) if isinstance(default, float) else str(default).lower()}`"


def _meaning(name: str) -> str:
    field = Source.model_fields[name]
    choices = [choice for choice in get_args(field.annotation) if isinstance(choice, str)]
    more = f" One of {', '.join(f'`{choice}`' for choice in choices)}." if choices else ""
    return f"{field.description}{more}".replace("|", "\\|")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)


def test_the_table_of_keys_is_up_to_date() -> None:
    told = PAGE.read_text(encoding="utf-8")
    inside = told[told.index(BEGIN) + len(BEGIN) : told.index(END)]
    assert inside == keys_table(), "write it anew: .venv/bin/python -m tests.sources.test_page"


def test_every_example_can_be_loaded(tmp_path: Path) -> None:
    registry = load_registry(Settings())
    loaded: list[Source] = []
    for number, block in enumerate(blocks("yaml")):
        content = yaml.safe_load(block)
        if "sources" in content:
            file = tmp_path / f"{number}.yaml"
            file.write_text(block)
            found = load_sources(file)
        else:
            assert content["type"] == "geo_assets.BlobSource"
            assert len(block.splitlines()) - 1 <= 10, "a source in ten lines"
            found = (Source.model_validate(content["attributes"]),)
        check_sources(found, registry)
        loaded += found
    assert {source.name for source in loaded} == {"aerials", "scenes", "cadastre", "archive"}


@pytest.mark.parametrize(
    ("placeholder", "wanted"),
    re.findall(r"^\| `(\{\w+\})` \| `(.*)` \|$", PAGE.read_text(encoding="utf-8"), re.MULTILINE),
)
def test_placeholders_are_what_the_page_says(placeholder: str, wanted: str) -> None:
    of = Source(name="a", container="c", workflow="ingest_vector", parameters={"collection_id": placeholder})
    given = parameters_for(of, load_registry(Settings())["ingest_vector"], "ch/zurich/Roads 2026.shp")
    assert given["collection_id"] == wanted


def test_links_settings_and_commands_of_the_page_exist() -> None:
    told = PAGE.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#]+)", told):
        assert (PAGE.parent / target).exists(), target
    settings = set(re.findall(r"GEO_ASSETS_([A-Z_]+)", told))
    assert settings <= {name.upper() for name in Settings.model_fields}
    commands = get_command(app).commands  # type: ignore[attr-defined]
    for name, sub in re.findall(r"geo-assets (\w+)(?: (list|check|schema)\b)?", told):
        assert name in commands
        assert not sub or sub in commands[name].commands


if __name__ == "__main__":
    page = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(page[: page.index(BEGIN) + len(BEGIN)] + keys_table() + page[page.index(END) :], encoding="utf-8")
