"""A workflow class together with everything needed to run it, checked once when the code location loads.

What belongs here: filling in defaults for what a plain class does not say, refusing what cannot run.  What does
not: the contract itself (``contract``) and the list of our workflows (``geo_assets.jobs``).
"""

import inspect
import json
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from geo_assets.coremachine.contract import (
    CheckResult,
    EndedTask,
    Handler,
    JobExecutionContext,
    PartitionNews,
    Published,
    Stage,
    TaskLimits,
    Workflow,
    WorkflowParameters,
    aggregation_of,
    normalise_task_type,
    parse_stages,
    require_contract,
    without_submit_fields,
)
from geo_assets.coremachine.identity import PartitionKey, decode_partition_key, encode_partition_key
from geo_assets.coremachine.task_runner import require_enforceable
from geo_assets.errors import ContractError, GeoAssetsError, ParameterError, UnknownJobTypeError
from geo_assets.redaction import redact

_log = logging.getLogger(__name__)

Registry = Mapping[str, "Binding"]
"""Job type → binding."""


@dataclass(frozen=True, kw_only=True)
class Segment:
    """Stages that one chunk takes a job through without leaving it, or one stage that fans out within a job."""

    first: int
    last: int
    fans_out: bool


@dataclass(frozen=True, kw_only=True)
class Binding:
    """One workflow, ready to run. Made by :func:`bind`."""

    workflow: type
    handlers: Mapping[str, Handler]
    stages: tuple[Stage, ...]
    job_type: str
    description: str
    parameters_model: type[WorkflowParameters] | None
    parameters_schema: Mapping[str, Any]
    asset: str
    partition_set: str
    key_parameter: str | None
    asset_deps: tuple[str, ...]
    group: str
    kinds: frozenset[str]
    owners: tuple[str, ...]
    tags: Mapping[str, str]
    execution: Literal["thread", "process"]
    limits: TaskLimits
    tolerates_partial_failure: bool
    remembers: bool
    production: bool
    """Whether the workflow is for production rather than for tests; shown by ``geo-assets jobs --types --json``."""

    # The seven elements

    def validate(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """Element 2. The original's five injected submit fields are taken out first, unless the class declares them.

        Raises:
            ParameterError: what the class refuses, in its own words.
        """
        if not isinstance(params, Mapping):  # whatever JSON a caller sent
            msg = f"{self.job_type}: parameters must be a JSON object, got {type(params).__name__}"  # type: ignore[unreachable]
            raise ParameterError(msg)
        declared = self.parameters_model.model_fields if self.parameters_model else self.parameters_schema
        given = without_submit_fields(params, declared)
        try:
            validated = self._element("validate_job_parameters")(given)
        except ParameterError:
            raise
        except (ValueError, TypeError, KeyError) as error:
            msg = str(error) or f"{self.job_type}: parameters refused ({type(error).__name__})"
            raise ParameterError(msg) from error
        except Exception as error:
            what = redact(f"{type(error).__name__}: {error}")
            msg = f"{self.workflow.__name__}.validate_job_parameters raised {what}; mend the class"
            raise ContractError(msg) from error
        if not isinstance(validated, dict):
            msg = f"{self.workflow.__name__}.validate_job_parameters returned {type(validated).__name__}, not a dict"
            raise ContractError(msg)
        try:
            json.dumps(validated, allow_nan=False)
        except (TypeError, ValueError) as error:
            msg = f"{self.job_type}: parameters that are not JSON cannot be stored ({error})"
            raise ParameterError(msg) from None
        return validated

    def job_id(self, params: dict[str, Any]) -> str:
        """Element 3."""
        job_id = self._answer("generate_job_id", params)
        if not isinstance(job_id, str) or not 1 <= len(job_id) <= 64:  # noqa: PLR2004 - the column's width
            msg = f"{self.workflow.__name__}.generate_job_id returned {job_id!r}; it must be 1 to 64 characters"
            raise ContractError(msg)
        return job_id

    def create_tasks(
        self, stage: int, params: dict[str, Any], job_id: str, previous_results: list[dict[str, Any]] | None
    ) -> Any:
        """Element 4, as the class returns it."""
        return self._element("create_tasks_for_stage")(stage, params, job_id, previous_results=previous_results)

    def create_record(self, job_id: str, params: dict[str, Any]) -> Mapping[str, Any]:
        """Element 5."""
        record = self._answer("create_job_record", job_id, params)
        return record if isinstance(record, Mapping) else {}

    def queue(self, job_id: str, params: dict[str, Any]) -> dict[str, Any]:
        """Element 6."""
        answer = self._answer("queue_job", job_id, params)
        return dict(answer) if isinstance(answer, Mapping) else {"queued": True, "job_id": job_id}

    def aggregate(self, context: JobExecutionContext) -> Any:
        """Element 7, under either of its names, or the fallback."""
        return aggregation_of(self.workflow)(context)

    # What follows from the class

    @property
    def total_stages(self) -> int:
        """Number of stages."""
        return len(self.stages)

    def segments(self) -> list[Segment]:
        """The stages cut where a stage fans out within a job (see the design's decision 2)."""
        segments: list[Segment] = []
        for stage in self.stages:
            fans_out = stage.parallelism == "fan_out"
            if segments and not fans_out and not segments[-1].fans_out:
                segments[-1] = Segment(first=segments[-1].first, last=stage.number, fans_out=False)
            else:
                segments.append(Segment(first=stage.number, last=stage.number, fans_out=fans_out))
        return segments

    @property
    def takes_keys(self) -> bool:
        """Whether parameters follow from a key, so that jobs can be submitted by keys and prefix."""
        base = Workflow.__dict__["partition_name"]
        own = inspect.getattr_static(self.workflow, "partition_name", base) is not base
        return self.key_parameter is not None or own

    def parameters_of_key(self, key: str, others: Mapping[str, Any]) -> dict[str, Any]:
        """Parameters of the job for one key (as people write it), with the other parameters given.

        Raises:
            ParameterError: nothing follows from this key.
        """
        if self.key_parameter is not None:
            return {**others, self.key_parameter: key}
        own: dict[str, Any] | None = self._hook("parameters_for_partition")(key)
        if own is None:
            msg = (
                f"{self.job_type}: no parameters follow from the key '{key}': give the whole name of a partition"
                " (container/blob where it is a file), or parameters"
            )
            raise ParameterError(msg)
        return {**own, **others}

    def partition_key(self, params: Mapping[str, Any], job_id: str) -> PartitionKey:
        """The partition a job with these parameters materializes."""
        if self.key_parameter is None:
            name: str = self._hook("partition_name")(params, job_id)
            return encode_partition_key(name)
        if self.key_parameter not in params:
            msg = (
                f"{self.workflow.__name__}.validate_job_parameters leaves out '{self.key_parameter}', which is to be"
                " the partition key"
            )
            raise ContractError(msg)
        return encode_partition_key(str(params[self.key_parameter]))

    def parameters_for(self, partition_key: str) -> dict[str, Any] | None:
        """Parameters that follow from a partition key alone, or ``None``.

        Raises:
            ParameterError: the key is not one our codec makes.
        """
        name = decode_partition_key(partition_key)
        parameters: dict[str, Any] | None = self._hook("parameters_for_partition")(name)
        return parameters

    def source_version(self, params: dict[str, Any], services: Mapping[str, Any]) -> str | None:
        """Version of what the job reads, or ``None``."""
        version: str | None = self._hook("source_version")(params, services)
        return version

    def max_age_seconds(self) -> float | None:
        """Age at which a recorded answer no longer counts."""
        age: float | None = self._hook("max_age_seconds")()
        return age

    def keys_with_prefix(self, prefix: str, services: Mapping[str, Any]) -> list[str]:
        """Existing values of the key parameter that start with ``prefix``."""
        keys: Iterable[str] = self._hook("keys_with_prefix")(prefix, services)
        return list(keys)

    def materialization_metadata(self, result: dict[str, Any]) -> dict[str, Any]:
        """Plain values worth showing on the partition."""
        metadata: dict[str, Any] = self._hook("materialization_metadata")(result)
        return metadata

    def check_results(self, result: dict[str, Any]) -> tuple[CheckResult, ...]:
        """What a job with this result proved of its partition; nothing where the class stumbles over the result."""
        try:
            results: Iterable[CheckResult] = self._hook("check_results")(result)
            return tuple(results)
        except Exception:  # noqa: BLE001 - whatever a workflow raises here
            # a check that is not shown can be run; it must not cost the materialization
            _log.warning("%s.check_results failed", self.workflow.__name__, exc_info=True)
            return ()

    def partition_news(self, task: EndedTask) -> tuple[PartitionNews, ...]:
        """What an ended task means for partitions of other assets."""
        news: Iterable[PartitionNews] = self._hook("partition_news")(task)
        return tuple(news)

    def finish_run(self, jobs: Sequence[Mapping[str, Any]], services: Mapping[str, Any]) -> None:
        """What is done once a run."""
        self._hook("finish_run")(jobs, services)

    @property
    def publishes(self) -> bool:
        """Whether its jobs leave anything in the stores that can be taken back."""
        base = Workflow.__dict__["published"]
        return inspect.getattr_static(self.workflow, "published", base) is not base

    def published_by_others(
        self, names: Sequence[str], services: Mapping[str, Any]
    ) -> Mapping[str, Sequence[Published]]:
        """What the stores hold for partitions that jobs of other workflows made."""
        left: Mapping[str, Sequence[Published]] = self._hook("published_by_others")(names, services)
        return left

    def published(self, result: dict[str, Any]) -> tuple[Published, ...]:
        """What a job with this result left in the stores.

        Raises:
            ContractError: the class stumbles over the result.
        """
        try:
            left: Iterable[Published] = self._hook("published")(result)
            return tuple(left)
        except Exception as error:
            msg = redact(f"{self.workflow.__name__}.published failed: {type(error).__name__}: {error}; mend the class")
            raise ContractError(msg) from error

    def _answer(self, name: str, *arguments: Any) -> Any:
        try:
            return self._element(name)(*arguments)
        except GeoAssetsError:
            raise
        except Exception as error:
            msg = redact(f"{self.workflow.__name__}.{name} failed: {type(error).__name__}: {error}")
            raise ContractError(msg) from error

    def _element(self, name: str) -> Callable[..., Any]:
        method: Callable[..., Any] = getattr(self.workflow, name)
        return method

    def _hook(self, name: str) -> Callable[..., Any]:
        # a plain legacy class has none of our hooks; the base class's defaults read attributes of the binding
        own = getattr(self.workflow, name, None)
        if own is not None:
            return own  # type: ignore[no-any-return]
        return getattr(_defaults_for(self), name)  # type: ignore[no-any-return]


def _defaults_for(binding: Binding) -> type[Workflow]:
    return type(
        f"{binding.workflow.__name__}Defaults",
        (Workflow,),
        {"job_type": binding.job_type, "key_parameter": binding.key_parameter},
    )


def bind(
    workflow: type,
    handlers: Mapping[str, Handler] | None = None,
    *,
    production: bool = True,
    key_parameter: str | None = None,
) -> Binding:
    """Check a workflow class and bind it to its handlers.

    Args:
        workflow: a class with the seven elements; the aggregation may be missing.
        handlers: task type → handler; default: the class's own ``handlers``.
        production: whether it is for production rather than for tests.
        key_parameter: parameter that is the partition key, for a class that cannot say so itself.

    Raises:
        ContractError: the class cannot be run; says which class, which element, what to do.
    """
    require_contract(workflow)
    name = workflow.__name__
    job_type: str = workflow.job_type  # type: ignore[attr-defined]
    stages = tuple(parse_stages(workflow))
    given = handlers if handlers is not None else getattr(workflow, "handlers", {})
    table = {normalise_task_type(task_type): handler for task_type, handler in given.items()}
    for stage in stages:
        if stage.task_type not in table:
            msg = (
                f"{name}: no handler is registered for the task type '{stage.task_type}' of stage {stage.number};"
                f" registered: {', '.join(sorted(table)) or 'none'}."
            )
            raise ContractError(msg)
        if not callable(table[stage.task_type]):
            msg = f"{name}: the handler of task type '{stage.task_type}' is not callable."
            raise ContractError(msg)
    execution: Any = getattr(workflow, "execution", "thread")
    limits: TaskLimits = getattr(workflow, "limits", TaskLimits())
    if execution not in ("thread", "process"):
        msg = f"{name}: execution must be 'thread' or 'process', not {execution!r}."
        raise ContractError(msg)
    require_enforceable(execution, limits, name)
    asset = getattr(workflow, "asset", None) or job_type
    model = getattr(workflow, "Parameters", None)
    key = key_parameter or getattr(workflow, "key_parameter", None)
    if key is not None and model is not None and key not in model.model_fields:
        msg = f"{name}: key_parameter '{key}' is not one of its parameters."
        raise ContractError(msg)
    owners: Sequence[str] = getattr(workflow, "owners", ())
    return Binding(
        workflow=workflow,
        handlers=table,
        stages=stages,
        job_type=job_type,
        description=getattr(workflow, "description", "") or "",
        parameters_model=model,
        parameters_schema=getattr(workflow, "parameters_schema", {}) or {},
        asset=asset,
        partition_set=getattr(workflow, "partition_set", None) or asset,
        key_parameter=key,
        asset_deps=tuple(getattr(workflow, "asset_deps", ())),
        group=getattr(workflow, "group", "workflows"),
        kinds=frozenset(getattr(workflow, "kinds", frozenset())),
        owners=tuple(owners),
        tags=dict(getattr(workflow, "tags", {})),
        execution=execution,
        limits=limits,
        tolerates_partial_failure=bool(getattr(workflow, "tolerates_partial_failure", False)),
        remembers=bool(getattr(workflow, "remembers", False)),
        production=production,
    )


def registry_of(bindings: Iterable[Binding]) -> dict[str, Binding]:
    """Bindings by job type.

    Raises:
        ContractError: two workflows share a job type.
    """
    registry: dict[str, Binding] = {}
    for binding in bindings:
        other = registry.get(binding.job_type)
        if other is not None:
            msg = (
                f"two workflows have the job type '{binding.job_type}':"
                f" {other.workflow.__name__} and {binding.workflow.__name__}; rename one."
            )
            raise ContractError(msg)
        registry[binding.job_type] = binding
    return registry


def binding_for(registry: Registry, job_type: str) -> Binding:
    """The binding of a job type.

    Raises:
        UnknownJobTypeError: lists the types there are.
    """
    try:
        return registry[job_type]
    except KeyError:
        msg = f"Unknown job type: '{job_type}'. Available: {', '.join(sorted(registry))}"
        raise UnknownJobTypeError(msg) from None
