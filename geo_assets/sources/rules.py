"""What a source does with a name: which job, and with which parameters.

What belongs here: :func:`grain_of`, :func:`parameters_for`, and the check of sources against the workflows there are.
What does not: which names match (``source``), and queueing (``turn``).
"""

import difflib
import functools
import json
import string
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal

from geo_assets.containers.kinds import extension_of
from geo_assets.coremachine.binding import Binding, Registry, binding_for
from geo_assets.errors import ParameterError, SettingsError
from geo_assets.sources.globs import are_disjoint
from geo_assets.sources.source import Source

__all__ = ["check_sources", "grain", "grain_of", "parameters_for"]

_CONTAINER, _BLOB, _TABLE = "container_name", "blob_name", "table_name"


def grain(source: Source, binding: Binding) -> Literal["blob", "container"]:
    """Whether a source makes a job a blob or dataset, or one for its whole container.

    Raises:
        ParameterError: the workflow is about neither.
    """
    found = grain_of(binding)
    if found is None:
        raise ParameterError(
            f"source '{source.name}': the workflow {binding.job_type} takes neither a container nor a blob: it cannot"
            " be given what a container holds"
        )
    return found


def grain_of(binding: Binding) -> Literal["blob", "container"] | None:
    """What a job of a workflow is about, as far as sources go; ``None``: no source can feed it."""
    if binding.key_parameter == _CONTAINER:
        return "container"
    return "blob" if binding.partition_set == "raster_blobs" or _BLOB in _declared(binding) else None


def parameters_for(source: Source, binding: Binding, name: str) -> dict[str, Any]:
    """Parameters of the job for a blob or dataset (or, of a container workflow, for the container, whatever the name).

    Container and blob fill themselves in.  ``ingest_vector`` gets the table that the name suggests, and replaces it
    when the blob has changed, unless the source says otherwise.

    Raises:
        ParameterError: ``extract`` is not found in the name, no table can be called so, or a placeholder means nothing.
    """
    if grain(source, binding) == "container":
        return _for_container(source, binding)
    groups = source.groups_of(name)
    if groups is None:
        raise ParameterError(f"`extract` of source '{source.name}' is not found in '{name[:200]}'")
    values = _values(source, name, groups)
    given = {key: _filled(source, value, values) for key, value in source.parameters.items()}
    declared = _declared(binding)
    if _TABLE in declared:
        if _TABLE not in given:
            given[_TABLE] = values["table"]()
        elif given[_TABLE] != source.parameters[_TABLE]:
            given[_TABLE] = _table(given[_TABLE])
        if "load_mode" in declared:
            given.setdefault("load_mode", "overwrite")
    return {_CONTAINER: source.container, _BLOB: name, **given}


def _for_container(source: Source, binding: Binding) -> dict[str, Any]:
    own: dict[str, Any] = {_CONTAINER: source.container}
    declared = _declared(binding)
    if source.prefix and "prefix" in declared:
        own["prefix"] = source.prefix
    elif source.prefix and "filter" in declared:
        own["filter"] = {"prefix": source.prefix}
    return {
        **own,
        **{
            key: _filled(source, value, {"container": lambda: source.container})
            for key, value in source.parameters.items()
        },
    }


def _declared(binding: Binding) -> frozenset[str]:
    if binding.parameters_model is None:
        return frozenset(binding.parameters_schema)
    fields = binding.parameters_model.model_fields
    return frozenset(field.alias or name for name, field in fields.items())


# --- placeholders --------------------------------------------------------------------------------------------------


type _Values = Mapping[str, Callable[[], str]]
"""What placeholders stand for, made when it is wanted: not every name makes a table's."""


def _values(source: Source, name: str, groups: Mapping[str, str]) -> _Values:
    folder, _, last = name.rpartition("/")
    stem = _stem(last)
    own: dict[str, Callable[[], str]] = {
        "container": lambda: source.container,
        "name": lambda: name,
        "folder": lambda: folder,
        "stem": lambda: stem,
        "table": lambda: _table(stem),
    }
    return {**own, **{group: functools.partial(str, text) for group, text in groups.items()}}


def _stem(last: str) -> str:
    """The last part of a name without its extension; of ``roads.shp.zip`` without both."""
    extension = extension_of(last)
    stem = last[: -len(extension)] if extension else last
    if extension == ".zip" and extension_of(stem) in (".shp", ".gdb"):
        stem = stem[: -len(".shp")]
    return stem or last


def _table(text: str) -> str:
    from geo_assets.vector.columns import table_name_of  # noqa: PLC0415 - brings Arrow and shapely

    return table_name_of(text)


def _filled(source: Source, value: Any, values: _Values) -> Any:
    if isinstance(value, str):
        return "".join(_pieces(source, value, values))
    if isinstance(value, list):
        return [_filled(source, inner, values) for inner in value]
    if isinstance(value, dict):
        return {key: _filled(source, inner, values) for key, inner in value.items()}
    return value


def _pieces(source: Source, text: str, values: _Values) -> Iterator[str]:
    try:
        parsed = list(string.Formatter().parse(text))
    except ValueError as error:
        raise ParameterError(
            f"source '{source.name}': the text '{text[:80]}' has a brace alone ({error}): write {{{{ or }}}} for the"
            " character itself"
        ) from None
    for literal, field, spec, conversion in parsed:
        yield literal
        if field is None:
            continue
        if field not in values or spec or conversion:
            known = ", ".join(f"{{{name}}}" for name in values)
            raise ParameterError(
                f"source '{source.name}': '{text[:80]}' has the unknown placeholder {{{field[:40]}}}; there are {known}"
            )
        yield values[field]()


# --- the check of all of them --------------------------------------------------------------------------------------


def check_sources(sources: Sequence[Source], registry: Registry) -> None:
    """Refuse sources that cannot work with these workflows.

    Raises:
        SettingsError: all that is wrong, each sentence naming its source.
    """
    problems = [
        f"{source.file}: {problem}" if source.file else problem
        for source in sources
        for problem in _problems(source, registry)
    ]
    problems += [
        f"source '{source.name}' is there twice: rename one"
        for position, source in enumerate(sources)
        if any(source.name == other.name for other in sources[:position])
    ]
    problems += _overlaps(sources)
    if problems:
        raise SettingsError("sources cannot be used: " + "; ".join(problems))


def _problems(source: Source, registry: Registry) -> Iterator[str]:
    own = f"source '{source.name}': "
    if follows := sorted({_CONTAINER, _BLOB} & set(source.parameters)):
        yield f"{own}`parameters`: {' and '.join(follows)} follows from the source: leave it out"
        return
    if source.workflow not in registry and (near := difflib.get_close_matches(source.workflow, registry, n=1)):
        yield f"{own}`workflow`: there is no '{source.workflow}': did you mean `{near[0]}`?"
        return
    try:
        binding = binding_for(registry, source.workflow)
        binding.validate(_example(source, binding))
    except ParameterError as error:
        told = str(error)
        yield told if told.startswith(own) else own + told


def _example(source: Source, binding: Binding) -> dict[str, Any]:
    """Parameters for a name that nobody knows yet: those with groups of ``extract`` in them are left out."""
    if grain(source, binding) == "container":
        return parameters_for(source, binding, "")
    name = "folder/example.tif" if binding.partition_set == "raster_blobs" else "folder/example.geojson"
    values = _values(source, name, dict.fromkeys(source.group_names, "1"))
    for value in source.parameters.values():
        _filled(source, value, values)  # refuses what is unknown
    kept = {
        key: value
        for key, value in source.parameters.items()
        if not _names_groups(value, frozenset(source.group_names))
    }
    plain = source.model_copy(update={"extract": None, "parameters": kept})
    example = parameters_for(plain, binding, name)
    left_out = set(source.parameters) - set(kept) - {_TABLE}
    # what is left out may be needed: a text stands in for it
    needed = _required(binding) & left_out
    return {**example, **dict.fromkeys(sorted(needed), "1")}


def _required(binding: Binding) -> frozenset[str]:
    if binding.parameters_model is None:
        return frozenset()
    return frozenset(
        field.alias or name for name, field in binding.parameters_model.model_fields.items() if field.is_required()
    )


def _names_groups(value: Any, groups: frozenset[str]) -> bool:
    text = json.dumps(value)
    return any(f"{{{group}}}" in text for group in groups)


def _overlaps(sources: Sequence[Source]) -> Iterator[str]:
    for position, one in enumerate(sources):
        for other in sources[:position]:
            if _overlap(one, other):
                where = f"{one.container}/{max(one.prefix, other.prefix, key=len)}"
                yield (
                    f"sources '{other.name}' and '{one.name}' both watch '{where}' for {one.workflow}, so that a blob"
                    " could be theirs both: give them different prefixes, or globs that begin or end differently, or"
                    " exclude the globs of one in the other"
                )


def _overlap(one: Source, other: Source) -> bool:
    if (one.container, one.workflow) != (other.container, other.workflow):
        return False
    if not (one.prefix.startswith(other.prefix) or other.prefix.startswith(one.prefix)):
        return False
    if one.match and other.match and are_disjoint(one.match, other.match):
        return False
    return not (_excludes(one, other) or _excludes(other, one))


def _excludes(one: Source, other: Source) -> bool:
    return bool(other.match) and set(other.match) <= set(one.exclude)
