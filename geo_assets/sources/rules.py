"""What a source does with a name: which job, and with which parameters.

What belongs here: :func:`grain_of`, :func:`parameters_for`, and the check of sources against the workflows there are.
What does not: which names match (``source``), and queueing (``turn``).
"""

import difflib
import functools
import re
import string
import types
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import ValidationError

from geo_assets.containers.kinds import extension_of
from geo_assets.coremachine.binding import Binding, Registry, binding_for
from geo_assets.coremachine.contract import without_submit_fields
from geo_assets.errors import ParameterError, SettingsError
from geo_assets.sources.globs import are_disjoint
from geo_assets.sources.source import Source

__all__ = ["check_sources", "grain", "grain_of", "parameters_for"]

_CONTAINER, _BLOB, _TABLE = "container_name", "blob_name", "table_name"


def grain(source: Source, binding: Binding) -> Literal["blob", "container"]:
    """Whether a source makes a job a blob or dataset, or one for its whole container.

    Raises:
        ParameterError: the workflow is about neither, and no parameter tells it of the blob; or a brace stands alone.
    """
    found = grain_of(binding)
    if found is None and _tells_names(source, source.parameters):
        return "blob"
    if found is None:
        raise ParameterError(
            f"source '{source.name}': the workflow {binding.job_type} takes neither a container nor a blob: give it"
            " the blob in a parameter of its own, such as '{container}/{name}'"
        )
    return found


def grain_of(binding: Binding) -> Literal["blob", "container"] | None:
    """What a job of a workflow is about by itself; ``None``: it is about a blob only where a source tells it of one."""
    if binding.key_parameter == _CONTAINER:
        return "container"
    takes_blob = _BLOB in _declared(binding) or binding.key_parameter == _BLOB
    return "blob" if takes_blob or binding.partition_set == "raster_blobs" else None


def parameters_for(source: Source, binding: Binding, name: str) -> dict[str, Any]:
    """Parameters of the job for a blob or dataset (or, of a container workflow, for the container, whatever the name).

    Container and blob fill themselves in where the workflow declares them.  ``ingest_vector`` gets the table that the
    name suggests, and replaces it when the blob has changed, unless the source says otherwise.

    Raises:
        ParameterError: ``extract`` is not found in the name, no table can be called so, a placeholder means nothing,
            or what it stands for is no number where one is declared.
    """
    if grain(source, binding) == "container":
        return _for_container(source, binding)
    groups = source.groups_of(name)
    if groups is None:
        raise ParameterError(f"`extract` of source '{source.name}' is not found in '{name[:200]}'")
    return _for_blob(source, binding, name, groups)


def _for_blob(source: Source, binding: Binding, name: str, groups: Mapping[str, str]) -> dict[str, Any]:
    values = _values(source, name, groups)
    given = _given(source, binding, values)
    declared = _declared(binding)
    if _TABLE in declared:
        if _TABLE not in given:
            given[_TABLE] = values["table"]()
        elif given[_TABLE] != source.parameters[_TABLE]:
            given[_TABLE] = _table(given[_TABLE])
        if "load_mode" in declared:
            given.setdefault("load_mode", "overwrite")
    own = {_CONTAINER: source.container, _BLOB: name}
    return {**{key: own[key] for key in _own(binding)}, **given}


def _own(binding: Binding) -> list[str]:
    """Parameters that follow from the source, whatever its ``parameters`` say."""
    found = grain_of(binding)
    if found == "container":
        return [_CONTAINER]
    declared = _declared(binding)
    # a class that declares nothing at all takes what jobs about blobs took in the original
    return [key for key in (_CONTAINER, _BLOB) if key in declared or (found == "blob" and not declared)]


def _for_container(source: Source, binding: Binding) -> dict[str, Any]:
    own: dict[str, Any] = {_CONTAINER: source.container}
    declared = _declared(binding)
    if source.prefix and "prefix" in declared:
        own["prefix"] = source.prefix
    elif source.prefix and "filter" in declared:
        own["filter"] = {"prefix": source.prefix}
    return {**own, **_given(source, binding, {"container": lambda: source.container})}


def _declared(binding: Binding) -> frozenset[str]:
    if binding.parameters_model is None:
        return frozenset(binding.parameters_schema)
    fields = binding.parameters_model.model_fields
    return frozenset(field.alias or name for name, field in fields.items())


def _required(binding: Binding) -> frozenset[str]:
    if binding.parameters_model is None:
        schema = binding.parameters_schema.items()
        return frozenset(key for key, entry in schema if isinstance(entry, Mapping) and entry.get("required"))
    fields = binding.parameters_model.model_fields
    return frozenset(field.alias or name for name, field in fields.items() if field.is_required())


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


def _given(source: Source, binding: Binding, values: _Values) -> dict[str, Any]:
    """The source's parameters with their placeholders filled in; a number where one is declared."""
    given: dict[str, Any] = {}
    for key, value in source.parameters.items():
        given[key] = _filled(source, value, values)
        if isinstance(value, str) and _is_one_placeholder(source, value) and (wanted := _number_type(binding, key)):
            given[key] = _number(source, key, value, given[key], wanted)
    return given


def _filled(source: Source, value: Any, values: _Values) -> Any:
    if isinstance(value, str):
        return "".join(_pieces(source, value, values))
    if isinstance(value, list):
        return [_filled(source, inner, values) for inner in value]
    if isinstance(value, dict):
        return {key: _filled(source, inner, values) for key, inner in value.items()}
    return value


def _pieces(source: Source, text: str, values: _Values) -> Iterator[str]:
    for literal, field, spec, conversion in _parsed(source, text):
        yield literal
        if field is None:
            continue
        if field not in values or spec or conversion:
            known = ", ".join(f"{{{name}}}" for name in values)
            raise ParameterError(
                f"source '{source.name}': '{text[:80]}' has the unknown placeholder {{{field[:40]}}}; there are {known}"
            )
        yield values[field]()


def _parsed(source: Source, text: str) -> list[tuple[str, str | None, str | None, str | None]]:
    """Literal text, and the placeholder behind it with its format and conversion, again and again."""
    try:
        return list(string.Formatter().parse(text))
    except ValueError as error:
        raise ParameterError(
            f"source '{source.name}': the text '{text[:80]}' has a brace alone ({error}): write {{{{ or }}}} for the"
            " character itself"
        ) from None


def _tells_names(source: Source, value: Any) -> bool:
    """Whether what is filled in differs from name to name."""
    if isinstance(value, str):
        of_names = {"name", "folder", "stem", "table", *source.group_names}
        return any(field in of_names for _, field, _, _ in _parsed(source, value))
    if isinstance(value, dict):
        value = list(value.values())
    return isinstance(value, list) and any(_tells_names(source, inner) for inner in value)


# --- numbers from texts --------------------------------------------------------------------------------------------


type _Number = type[int | float | bool]

_NUMBERS: Mapping[_Number, tuple[re.Pattern[str], Callable[[str], Any], str]] = {
    int: (re.compile(r"[+-]?[0-9]{1,300}"), int, "a whole number"),
    float: (re.compile(r"[+-]?([0-9]{1,300}(\.[0-9]*)?|\.[0-9]+)"), float, "a number"),
    bool: (re.compile(r"(?i:true|false|0|1)"), lambda text: text.casefold() in ("true", "1"), "true or false, 1 or 0"),
}
"""How each is written in a name, how it is read, and what it is called."""
_SCHEMA_NUMBERS: Mapping[str, _Number] = {
    "int": int,
    "integer": int,
    "float": float,
    "number": float,
    "bool": bool,
    "boolean": bool,
}


def _is_one_placeholder(source: Source, text: str) -> bool:
    return [(literal, field is not None) for literal, field, _, _ in _parsed(source, text)] == [("", True)]


def _number_type(binding: Binding, key: str) -> _Number | None:
    """The type of a parameter that takes a number and no text."""
    if binding.parameters_model is None:
        entry = binding.parameters_schema.get(key)
        return _SCHEMA_NUMBERS.get(str(entry.get("type"))) if isinstance(entry, Mapping) else None
    fields = binding.parameters_model.model_fields.items()
    taken = {kind for name, field in fields if key == (field.alias or name) for kind in _types(field.annotation)}
    if taken & {str, Any}:
        return None
    # every whole number is a number
    return next((kind for kind in (float, int, bool) if kind in taken), None)


def _types(annotation: Any) -> Iterator[Any]:
    """The types that a value may have."""
    if isinstance(annotation, typing.TypeAliasType):
        yield from _types(annotation.__value__)
        return
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (typing.Union, types.UnionType):
        for one in arguments:
            yield from _types(one)
    elif origin is Annotated:
        yield from _types(arguments[0])
    elif origin is Literal:
        yield from map(type, arguments)
    else:
        yield annotation


def _number(source: Source, key: str, placeholder: str, text: str, wanted: _Number) -> int | float | bool:
    pattern, read, called = _NUMBERS[wanted]
    if pattern.fullmatch(text) is None:
        raise ParameterError(
            f"source '{source.name}': `parameters`: {key} takes {called}, but {placeholder} is '{text[:80]}'"
        )
    found: int | float | bool = read(text)
    return found


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
    problems += _overlaps(sources, registry)
    if problems:
        raise SettingsError("sources cannot be used: " + "; ".join(problems))


def _problems(source: Source, registry: Registry) -> Iterator[str]:
    own = f"source '{source.name}': "
    if source.workflow not in registry and (near := difflib.get_close_matches(source.workflow, registry, n=1)):
        yield f"{own}`workflow`: there is no '{source.workflow}': did you mean `{near[0]}`?"
        return
    try:
        binding = binding_for(registry, source.workflow)
        if follows := sorted(set(_own(binding)) & set(source.parameters)):
            yield f"{own}`parameters`: {' and '.join(follows)} follows from the source: leave it out"
            return
        _try(source, binding)
    except ParameterError as error:
        told = str(error)
        yield told if told.startswith(own) else own + told


def _try(source: Source, binding: Binding) -> None:
    """Make the parameters of a name that stands for all that nobody knows yet.

    Raises:
        ParameterError: no name will do.
    """
    if grain(source, binding) == "container":
        binding.validate(parameters_for(source, binding, ""))
        return
    # digits are text as well as a number, whichever a placeholder has to be
    name = "1/1.tif" if binding.partition_set == "raster_blobs" else "1/1.geojson"
    given = _for_blob(source, binding, name, dict.fromkeys(source.group_names, "1"))
    told = {key for key, value in source.parameters.items() if _tells_names(source, value)}
    told |= ({_BLOB, _TABLE} & set(given)) - set(source.parameters)
    # a key that is not declared is misspelt, whatever a name puts there
    told &= _declared(binding) or told
    optional = told - _required(binding)
    # a model may judge a parameter together with others, and say so of none: what is wrong without it is no name's
    for some in (given, {key: value for key, value in given.items() if key not in optional}):
        refusal = _refusal(binding, some, told)
        if refusal is None:
            return
    raise ParameterError(refusal)


def _refusal(binding: Binding, given: Mapping[str, Any], told: set[str]) -> str | None:
    """Why parameters are refused; ``None``: they are not, or for nothing but those that names tell."""
    try:
        binding.validate(given)
    except ParameterError as error:
        return None if _is_about(binding, given, told, str(error)) else _without(str(error), told)
    return None


def _is_about(binding: Binding, given: Mapping[str, Any], some: set[str], told: str) -> bool:
    """Whether a refusal is of some parameters and of nothing else."""
    model = binding.parameters_model
    if model is not None:
        try:
            model.model_validate(without_submit_fields(given, model.model_fields))
        except ValidationError as error:
            return all(problem["loc"] and problem["loc"][0] in some for problem in error.errors())
    return any(re.search(rf"\b{re.escape(key)}\b", told) for key in some)


def _without(told: str, some: set[str]) -> str:
    """A refusal without its sentences about some parameters, unless there are no others."""
    sentences = re.split("; (?!did you mean)", told)
    others = [sentence for sentence in sentences if sentence.partition(":")[0] not in some]
    return "; ".join(others) or told


def _overlaps(sources: Sequence[Source], registry: Registry) -> Iterator[str]:
    for position, one in enumerate(sources):
        for other in sources[:position]:
            if (one.container, one.workflow) != (other.container, other.workflow):
                continue
            if one.workflow in registry and grain_of(registry[one.workflow]) == "container":
                yield (
                    f"sources '{other.name}' and '{one.name}' both make jobs of {one.workflow} about the whole"
                    f" container '{one.container}', which would share a partition, whatever their prefixes: use one"
                    " source, or another workflow"
                )
            elif _overlap(one, other):
                where = f"{one.container}/{max(one.prefix, other.prefix, key=len)}"
                yield (
                    f"sources '{other.name}' and '{one.name}' both watch '{where}' for {one.workflow}, so that a blob"
                    " could be theirs both: give them different prefixes, or globs that begin or end differently, or"
                    " exclude the globs of one in the other"
                )


def _overlap(one: Source, other: Source) -> bool:
    if not (one.prefix.startswith(other.prefix) or other.prefix.startswith(one.prefix)):
        return False
    if one.match and other.match and are_disjoint(one.match, other.match):
        return False
    return not (_excludes(one, other) or _excludes(other, one))


def _excludes(one: Source, other: Source) -> bool:
    return bool(other.match) and set(other.match) <= set(one.exclude)
