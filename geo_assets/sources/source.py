"""What a source is: a container, a pattern, and what to do with what matches.

What belongs here: :class:`Source`, and reading sources from YAML.  What does not: looking at containers (``look``),
parameters of jobs (``rules``).
"""

import difflib
import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

import polars as pl
import yaml
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PrivateAttr,
    ValidationError,
    ValidationInfo,
    field_validator,
)

from geo_assets.errors import SettingsError, UnsupportedNameError
from geo_assets.redaction import redact
from geo_assets.sources.globs import can_begin_with, globs_pattern, take_all_below
from geo_assets.stores.blobs import check_container_name

__all__ = ["Source", "load_sources"]

_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*([smhdw])")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_DAY = 86_400
_LEAST_EVERY = 5
_MOST_GLOBS = 100
_MOST_PATTERN = 500
_MOST_FILE = 1_000_000
_MOST_TOLD = 10
_RASTER_JOBS = ("process_raster", "validate_raster_job", "stac_catalog_raster")
_VECTOR_JOBS = ("ingest_vector",)
_CONTAINER_JOBS = ("list_container_contents", "summarize_container", "stac_catalog_container")


def _duration(value: Any) -> Any:
    """Seconds, from a number of them or from text such as ``60s``, ``5m``, ``2h``, ``30d``, ``1w``."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError(f"{value!r:.40} is no duration: write 90s, 5m, 2h, 30d or 1w")  # noqa: TRY004 - for pydantic
    if not isinstance(value, str):
        return value
    found = _DURATION.fullmatch(value.strip())
    if found is None:
        raise ValueError(f"'{value[:40]}' is no duration: write 90s, 5m, 2h, 30d or 1w")
    return float(found[1]) * _SECONDS[found[2]]


def _count(value: Any) -> Any:
    """No ``true``, which Python takes for 1."""
    if isinstance(value, bool):
        raise ValueError(f"{str(value).lower()} is no number")  # noqa: TRY004 - for pydantic
    return value


def _texts(value: Any) -> Any:
    return value if isinstance(value, list | tuple | set | frozenset) else (value,)


Count = Annotated[int, BeforeValidator(_count, json_schema_input_type=int), Field(ge=1)]
Duration = Annotated[
    float,
    BeforeValidator(_duration, json_schema_input_type=float | str),
    Field(allow_inf_nan=False, ge=0, le=3650 * _DAY),
]
"""Seconds, also as text such as ``5m``."""
Globs = Annotated[tuple[str, ...], BeforeValidator(_texts, json_schema_input_type=str | list[str])]
"""One glob or several; see ``globs``."""


class Source(BaseModel):
    """One watched container, or a part of one, and what becomes of its blobs."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(description="Its name: a small letter, then small letters, digits and underscores.")
    container: str = Field(description="Container that is watched.")
    prefix: str = Field("", description="What names start with: text, not a folder; capitals count.")
    match: Globs = Field((), description="Globs of names, one is enough. Default: what the workflow reads.")
    exclude: Globs = Field((), description="Globs of names that do not count.")
    workflow: str = Field(description="Job type of what is done with each blob or dataset, or with the container.")
    parameters: dict[str, Any] = Field(
        default_factory=dict,
        description="Parameters of the jobs. In texts, {container}, {name}, {folder}, {stem}, {table} and the"
        " named groups of `extract` are replaced.",
    )
    extract: str | None = Field(
        None, description="Regular expression found in each name; its named groups, (?P<year>…), fill parameters."
    )
    stable_for: Duration = Field(
        0.0, description="How long a blob or dataset must have been seen unchanged before it becomes a job."
    )
    every: Duration = Field(60.0, description="How often the container is looked at; 5s at least.")
    max_active: Count = Field(5000, description="Most jobs of this source that wait or are at work at a time.")
    per_minute: Count | None = Field(None, description="Most jobs of this source queued in a minute.")
    when_removed: Literal["keep", "unpublish"] = Field(
        "keep", description="What becomes of what was made of a blob that is gone, after `removed_after`."
    )
    removed_after: Duration = Field(
        30.0 * _DAY, description="How long a blob must be gone before `when_removed` is done."
    )
    paused: bool = Field(default=False, description="Whether its sensor is off until somebody switches it on.")

    _file: str = PrivateAttr("")

    @property
    def file(self) -> str:
        """Name of the file that it stands in; empty where it was made otherwise."""
        return self._file

    @field_validator("name", mode="after")
    @classmethod
    def _check_name(cls, value: str) -> str:
        if not re.fullmatch(r"[a-z][a-z0-9_]{0,79}", value):
            raise ValueError(
                f"'{value[:80]}' is no name of a source: a small letter, then at most 79 small letters, digits and"
                " underscores"
            )
        return value

    @field_validator("container", mode="after")
    @classmethod
    def _check_container(cls, value: str) -> str:
        try:
            return check_container_name(value)
        except UnsupportedNameError as error:
            raise ValueError(str(error)) from None

    @field_validator("prefix", mode="after")
    @classmethod
    def _check_prefix(cls, value: str) -> str:
        if value.startswith("/") or "//" in value or any(ord(character) < ord(" ") for character in value):
            raise ValueError(f"no name starts with {value[:80]!a}: no slash in front, no two in a row")
        return value

    @field_validator("every", mode="after")
    @classmethod
    def _check_every(cls, value: float) -> float:
        if value < _LEAST_EVERY:
            raise ValueError(f"{value:g} seconds is too often: write 5s or more")
        return value

    @field_validator("match", "exclude", mode="after")
    @classmethod
    def _check_globs(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if len(value) > _MOST_GLOBS:
            raise ValueError(f"{len(value)} globs, more than {_MOST_GLOBS}: make several sources")
        if value:
            _compile(globs_pattern(value))
        return value

    @field_validator("match", mode="after")
    @classmethod
    def _check_match(cls, value: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        prefix = info.data.get("prefix", "")
        if never := [glob for glob in value if not can_begin_with(glob, prefix)]:
            raise ValueError(
                f"no name that starts with the prefix '{prefix[:80]}' is taken by the glob '{never[0][:80]}', which is"
                " about whole names: mend one of them"
            )
        return value

    @field_validator("extract", mode="after")
    @classmethod
    def _check_extract(cls, value: str | None) -> str | None:
        if value is None:
            return None
        if len(value) > _MOST_PATTERN:
            raise ValueError(f"a pattern of {len(value)} characters, more than {_MOST_PATTERN}: shorten it")
        _compile(value)
        groups = _groups(value)
        if not groups:
            raise ValueError("the pattern has no named group: write (?P<year>[0-9]{4}), say")
        if taken := sorted({"container", "name", "folder", "stem", "table"} & set(groups)):
            raise ValueError(f"the group {taken[0]} is called like a placeholder that there is: rename it")
        return value

    @field_validator("parameters", mode="after")
    @classmethod
    def _check_json(cls, value: dict[str, Any]) -> dict[str, Any]:
        try:
            json.dumps(value, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise ValueError(f"must be plain JSON values: {error}") from None
        return value

    @property
    def stable_seconds(self) -> float:
        """:attr:`stable_for`."""
        return self.stable_for

    @property
    def every_seconds(self) -> int:
        """:attr:`every`, whole."""
        return int(self.every)

    @property
    def removed_days(self) -> float:
        """:attr:`removed_after` in days."""
        return self.removed_after / _DAY

    @cached_property
    def definition(self) -> str:
        """Digest of what decides which names match and what their jobs are; 32 hexadecimal digits."""
        deciding = {"prefix", "match", "exclude", "workflow", "parameters", "extract"}
        text = json.dumps(self.model_dump(mode="json", include=deciding), sort_keys=True)
        return f"{_digest(self.container)[:_OF_CONTAINER]}{_digest(text)}"[:32]

    def is_of_this_container(self, definition: str) -> bool:
        """Whether an earlier :attr:`definition` was about the same container."""
        return definition[:_OF_CONTAINER] == self.definition[:_OF_CONTAINER]

    @cached_property
    def group_names(self) -> tuple[str, ...]:
        """Names of the groups of :attr:`extract`."""
        return _groups(self.extract) if self.extract is not None else ()

    def groups_of(self, name: str) -> dict[str, str] | None:
        """The named groups of :attr:`extract` in a name, empty text where one took no part; ``None``: not found."""
        if self.extract is None:
            return {}
        # Rust's expressions take linear time whatever the name is
        found = pl.Series([name]).str.extract_groups(f"(?P<{_WHOLE}>{self.extract})")[0]
        if found[_WHOLE] is None:
            return None
        return {group: found[group] or "" for group in self.group_names}

    def matching(self) -> pl.Expr:
        """Which entries count, over the columns ``name``, ``kind``, ``role`` and ``problem``; never null.

        The frame is of a container's entries with their datasets (``containers.kinds.with_datasets``).  Parts and
        sidecars count for jobs about the whole container only, which read them all.
        """
        name = pl.col("name")
        counts = name.str.starts_with(self.prefix) & pl.col("problem").is_null()
        if self.workflow not in _CONTAINER_JOBS:
            counts &= ~pl.col("role").is_in(["part", "sidecar"]).fill_null(value=False)
        if self.match:
            counts &= name.str.contains(globs_pattern(self.match))
        elif self.workflow not in _CONTAINER_JOBS:
            counts &= pl.col("kind").is_in(self._kinds()) & (pl.col("role") == "main")
        if self.exclude:
            counts &= ~name.str.contains(globs_pattern(self.exclude))
        return counts.fill_null(value=False)

    def takes_nothing_below(self, folder: str) -> bool:
        """Whether it is plain that no entry counts that lies below a folder, or that the folder lies in.

        Args:
            folder: its name as it is shown, with a slash at its end.
        """
        if not folder.isprintable() or "\\" in folder:
            return False  # who knows what it is called
        inside = folder.lower().find(".gdb/")
        # a geodatabase is one entry, and what counts is its own name
        above = folder if inside < 0 else folder[: folder.rfind("/", 0, inside) + 1]
        outside = not (above.startswith(self.prefix) or self.prefix.startswith(above))
        unmatched = bool(self.match) and not any(can_begin_with(glob, above) for glob in self.match)
        return outside or unmatched or take_all_below(self.exclude, above)

    def _kinds(self) -> list[str]:
        if self.workflow in _RASTER_JOBS:
            return ["raster"]
        return ["vector"] if self.workflow in _VECTOR_JOBS else ["raster", "vector"]


_WHOLE = "geo_assets_whole"
_OF_CONTAINER = 12
"""How many digits of a definition are the container's."""


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()


def _compile(pattern: str) -> None:
    """Refuse a pattern that cannot be run.

    Raises:
        ValueError: in Rust's words.
    """
    try:
        pl.Series([""]).str.contains(pattern)
    except pl.exceptions.ComputeError as error:
        told = re.search(r"error: (?!regex)([^\n]+)|regex error: (Compiled[^\n]+)", str(error))
        said = next((part for part in told.groups() if part), "") if told else str(error).splitlines()[0]
        raise ValueError(f"the pattern '{pattern[:80]}' cannot be used: {said}") from None


def _groups(pattern: str) -> tuple[str, ...]:
    fields = pl.Series([""]).str.extract_groups(f"(?P<{_WHOLE}>{pattern})").struct.fields
    return tuple(name for name in fields if name != _WHOLE and not name.isdigit())


# --- YAML ----------------------------------------------------------------------------------------------------------


def load_sources(path: Path, *, required: bool = False) -> tuple[Source, ...]:
    """The sources of a YAML file, or of all ``*.yaml`` and ``*.yml`` of a folder; none where nothing is there.

    Args:
        path: the file or folder.
        required: whether something must be there, as somebody has set it.

    Raises:
        SettingsError: what cannot be used, all of it in one message that names file, source and key.
    """
    if required and not path.exists():
        raise SettingsError(f"GEO_ASSETS_SOURCES: there is nothing at {path}: make it, or take the setting away")
    problems: list[str] = []
    sources: list[Source] = []
    files: dict[str, Path] = {}
    for file in _files(path):
        for source in _sources_of(file, problems):
            if source.name in files:
                where = "" if files[source.name] == file else f", the first in {files[source.name].name}"
                problems.append(f"{file.name}: source '{source.name}' is there twice{where}: rename one")
            files.setdefault(source.name, file)
            sources.append(source)
    if problems:
        more = f"; and {len(problems) - _MOST_TOLD} more" if len(problems) > _MOST_TOLD else ""
        raise SettingsError(redact(f"sources of {path} cannot be used: {'; '.join(problems[:_MOST_TOLD])}{more}"))
    return tuple(sources)


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path] if path.exists() else []
    # a hidden file is some program's own: macOS puts ._a.yaml, which is no YAML, beside a.yaml on shares
    named = (file for file in path.iterdir() if not file.name.startswith("."))
    return sorted(file for file in named if file.suffix in (".yaml", ".yml") and file.is_file())


def _sources_of(file: Path, problems: list[str]) -> Iterator[Source]:
    try:
        listed = _read(file)
    except ValueError as error:
        problems.append(f"{file.name}: {error}")
        return
    for number, given in enumerate(listed, 1):
        if not isinstance(given, dict):
            problems.append(f"{file.name}: source {number} is {_kind(given)}, not keys and values such as name: roads")
            continue
        name = given.get("name")
        called = f"source '{name}'" if isinstance(name, str) else f"source {number}"
        try:
            source = Source.model_validate(given)
        except ValidationError as error:
            problems += [f"{file.name}: {called}: {problem}" for problem in explain(error)]
            continue
        source._file = file.name  # noqa: SLF001 - no key of the file's
        yield source


def _read(file: Path) -> list[Any]:
    """What stands under ``sources``.

    Raises:
        ValueError: there is nothing like that, or no YAML.
    """
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"cannot be read: {error}") from None
    if len(text) > _MOST_FILE:
        raise ValueError(f"has {len(text)} characters, more than {_MOST_FILE}: split it into several files of a folder")
    try:
        content = yaml.load(text, _Loader)  # noqa: S506 - a safe loader, made safer
    except (yaml.YAMLError, RecursionError) as error:
        told = _one_line(error)
        hint = ": put a text that begins with * in quotes" if "alias" in told else ""
        raise ValueError(f"is no YAML that is understood: {told}{hint}") from None
    if content is None:
        return []
    if not isinstance(content, dict) or set(content) != {"sources"}:
        raise ValueError("must hold one key, `sources`, with a list of sources under it")
    listed = content["sources"]
    if listed is not None and not isinstance(listed, list):
        raise ValueError(f"`sources` is {_kind(listed)}, not a list: begin each source with - name: …")
    return listed or []


def explain(error: ValidationError) -> list[str]:
    """What is wrong with a source, a sentence a key."""
    return [_sentence(dict(problem)) for problem in error.errors(include_url=False)]


def _sentence(problem: Mapping[str, Any]) -> str:
    key, where = str(problem["loc"][0]) if problem["loc"] else "", ""
    if in_component := _IN_COMPONENT.fullmatch(key):
        key, where = in_component[1], f"{in_component[2]}: "
    return where + _told(key, problem)


def _told(key: str, problem: Mapping[str, Any]) -> str:
    if problem["type"] == "extra_forbidden":
        near = difflib.get_close_matches(key, Source.model_fields, n=1)
        hint = f"did you mean `{near[0]}`?" if near else f"there are {', '.join(Source.model_fields)}"
        return f"unknown key `{key}`: {hint}"
    if problem["type"] == "missing":
        field = Source.model_fields.get(key)
        return f"`{key}` is missing: {field.description if field else 'give it'}"
    if problem["type"] == "string_type":
        return f"`{key}`: {_no_text(key, problem['input'])}"
    return f"`{key}`: {problem['msg'].removeprefix('Value error, ')}"


def _no_text(key: str, value: Any) -> str:
    if isinstance(value, bool):
        return "an unquoted yes, no, on, off, true or false is no text: put it in quotes"
    if isinstance(value, int | float):
        return f"{_kind(value)} is no text: put it in quotes"
    field = Source.model_fields.get(key)
    leave = "" if field is None or field.is_required() else ", or leave the key out"
    return f"is {_kind(value)}: give it a text{leave}"


_IN_COMPONENT = re.compile(r"attributes\.(\w+)\S* at (.*)")
"""How Dagster writes where in a component's YAML a key stands."""


def _kind(value: Any) -> str:
    return {dict: "a mapping", list: "a list", str: "text", type(None): "empty"}.get(type(value), f"{value!r:.40}")


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300]


class _Loader(yaml.SafeLoader):
    """Plain YAML: no aliases, which can make a small file huge, and no key twice, of which the last would win."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        """Compose a node that is no alias."""
        if self.check_event(yaml.AliasEvent):
            event: Any = self.peek_event()  # type: ignore[no-untyped-call] # not in the stubs
            raise yaml.composer.ComposerError(
                None, None, "aliases (*name) are not taken: write it out", event.start_mark
            )
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:  # noqa: FBT001, FBT002 - as the original's
        """Construct a mapping whose keys differ."""
        names = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise yaml.constructor.ConstructorError(
                None, None, f"the key {twice[0]} is there twice: keep one", node.start_mark
            )
        return super().construct_mapping(node, deep=deep)


# dates stay text, as parameters have them
_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
