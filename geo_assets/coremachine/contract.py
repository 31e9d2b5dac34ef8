"""The seven elements every workflow class has, the values that pass between them, and the check that they are there.

What belongs here: the shapes of stages, tasks, results, statuses and the aggregation context; the base class
:class:`Workflow`; :func:`check_contract`.  What does not: how a workflow is run (``engine``), stored (``ledger``)
or shown in Dagster (``asset_job``).

The elements, in the order of the original CoreMachine: ``stages``, ``validate_job_parameters``,
``generate_job_id``, ``create_tasks_for_stage``, ``create_job_record``, ``queue_job``,
``aggregate_job_results``.  A class of static methods written for the original is accepted as it stands;
:class:`Workflow` supplies everything but the parameters, the stages, the tasks and the aggregation.
"""

import difflib
import hashlib
import inspect
import json
import re
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, ClassVar, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from geo_assets.errors import ContractError, ParameterError
from geo_assets.scratch import ScratchFolder

Handler = Callable[..., Any]
"""A task handler: ``handler(params)`` or ``handler(params, context)``, returning a dict with ``success``."""

SUBMIT_FIELDS = frozenset({"dataset_id", "resource_id", "version_id", "system", "use_service_bus"})
"""Fields the original's submit endpoint put into every job's parameters; accepted and dropped."""

PICTURES = "pictures"
"""Key of a result that holds small pictures; it is not shown as text."""


class JobStatus(StrEnum):
    """Status of a job; ``CANCELLED`` is ours, the others are the original's."""

    QUEUED = "queued"
    PROCESSING = "processing"
    COMPLETED = "completed"
    FAILED = "failed"
    COMPLETED_WITH_ERRORS = "completed_with_errors"
    CANCELLED = "cancelled"

    @property
    def is_terminal(self) -> bool:
        """Whether the job has ended."""
        return self not in (JobStatus.QUEUED, JobStatus.PROCESSING)


class TaskStatus(StrEnum):
    """Status of a task, as in the original; ``PENDING`` is another name of ``QUEUED``."""

    QUEUED = "queued"
    PROCESSING = "processing"
    COMPLETED = "completed"
    FAILED = "failed"
    RETRYING = "retrying"
    PENDING_RETRY = "pending_retry"
    CANCELLED = "cancelled"
    PENDING = "queued"  # an alias on purpose: the original's aggregators use the name

    @property
    def is_terminal(self) -> bool:
        """Whether the task has ended."""
        return self in (TaskStatus.COMPLETED, TaskStatus.FAILED, TaskStatus.CANCELLED)


class OutcomeKind(StrEnum):
    """What became of one input. Every batch returns exactly one a input, and the counts add up."""

    CREATED = "created"
    UPDATED = "updated"
    UNCHANGED = "unchanged"
    SKIPPED = "skipped"
    INVALID = "invalid"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def is_good(self) -> bool:
        """Whether the input needs no further attention."""
        return self not in (OutcomeKind.INVALID, OutcomeKind.FAILED, OutcomeKind.CANCELLED)


class Stage(BaseModel):
    """One entry of ``stages``. The class attribute stays a list of plain dicts; this is their checked form."""

    model_config = ConfigDict(extra="allow", frozen=True)

    number: int = Field(ge=1, strict=True)
    name: str = Field(min_length=1)
    task_type: str = Field(min_length=1)
    description: str = ""
    parallelism: Literal["single", "fan_out", "dynamic", "match_previous", "fan_in"] = "single"

    @field_validator("task_type")
    @classmethod
    def _normalise(cls, value: str) -> str:
        return normalise_task_type(value)


class TaskDefinition(BaseModel):
    """What ``create_tasks_for_stage`` returns for one task; keys it does not know are ignored."""

    model_config = ConfigDict(extra="ignore")

    task_id: str = Field(min_length=1, max_length=100)
    task_type: str = Field(min_length=1)
    parameters: dict[str, Any]
    metadata: dict[str, Any] = Field(default_factory=dict)

    @field_validator("task_type")
    @classmethod
    def _normalise(cls, value: str) -> str:
        return normalise_task_type(value)

    @field_validator("metadata", mode="before")
    @classmethod
    def _none_is_empty(cls, value: object) -> object:
        return {} if value is None else value


class TaskResult(BaseModel):
    """How one task ended, as the aggregation sees it."""

    task_id: str
    task_type: str
    status: TaskStatus
    result_data: dict[str, Any] = Field(default_factory=dict)
    error_details: str | None = None
    execution_time_ms: int | None = None
    timestamp: datetime
    metadata: dict[str, Any] | None = None
    stage: int = 1
    task_index: int = 0

    @field_validator("result_data", mode="before")
    @classmethod
    def _none_is_empty(cls, value: object) -> object:
        # a handler may return a ready-made TaskResult; the original's had None as default here
        return {} if value is None else value

    @property
    def success(self) -> bool:
        """Whether the task completed."""
        return self.status is TaskStatus.COMPLETED


class JobExecutionContext(BaseModel):
    """The one argument of ``aggregate_job_results``."""

    model_config = ConfigDict(extra="forbid")

    job_id: str
    job_type: str
    current_stage: int = Field(ge=1)
    total_stages: int = Field(ge=1)
    parameters: dict[str, Any] = Field(default_factory=dict)
    stage_results: dict[str, Any] = Field(default_factory=dict)
    task_results: list[TaskResult] = Field(default_factory=list)
    metadata: dict[str, Any] | None = None


class Markdown(str):
    """Text that a workflow's ``materialization_metadata`` wants shown as Markdown, pictures included."""

    __slots__ = ()


class TaskContext(dict[str, Any]):
    """The optional second argument of a handler: a dict, as the original documented, with named accessors.

    Keys: ``job_id``, ``job_type``, ``task_id``, ``stage``, ``task_index``, ``attempt`` (1 on the first
    execution), ``services`` (the stores the run was given; empty in a worker process) and, only where the task of
    equal index in the stage before completed, ``predecessor_result``, what it returned.

    In threads, and in stages that do not fan out, also ``scratch``, the job's own folder of temporary files; and, for
    workflows that say ``remembers``, ``history`` and ``claims``, the :class:`geo_assets.coremachine.claims.Claims` of
    the partition.
    """

    @property
    def scratch(self) -> ScratchFolder | None:
        """The job's folder for files that one stage leaves to the next; gone when the job ends."""
        folder: ScratchFolder | None = self.get("scratch")
        return folder

    @property
    def history(self) -> Sequence[Mapping[str, Any]]:
        """The last ten attempts of this workflow on the same partition that ended with a result, newest first.

        Keys: ``job_id``, ``status``, ``parameters``, ``result`` and ``source_version``.
        """
        return self.get("history") or ()

    @property
    def predecessor_result(self) -> dict[str, Any] | None:
        """Raw return of the completed task of equal index in the stage before, or ``None``."""
        result: dict[str, Any] | None = self.get("predecessor_result")
        return result

    @property
    def services(self) -> Mapping[str, Any]:
        """Stores and clients by name, given to the run by its resources."""
        services: Mapping[str, Any] = self.get("services") or {}
        return services


@dataclass(frozen=True, kw_only=True)
class TaskLimits:
    """Limits of one task; ``None`` takes the setting. Only a worker process can keep them."""

    wall_seconds: float | None = None
    cpu_seconds: int | None = None
    memory_mb: int | None = None
    file_size_mb: int | None = None

    @property
    def any_set(self) -> bool:
        """Whether the workflow asks for a limit of its own."""
        return any(
            value is not None for value in (self.wall_seconds, self.cpu_seconds, self.memory_mb, self.file_size_mb)
        )


@dataclass(frozen=True, kw_only=True)
class CheckResult:
    """What a job proved on its way, shown as the evaluation of an asset check without looking again."""

    check: str
    """Name of a check of the partition's asset."""
    passed: bool
    description: str | None = None
    warning: bool = False
    """Whether a check that did not pass is only a warning."""
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class PartitionNews:
    """What a task says of a partition of another workflow's asset: materialized, or failed with the reason.

    With the outcome ``unchanged`` or ``skipped`` the partition is materialized only if it never was.
    """

    asset: str
    name: str
    """Of the partition, as people write it."""
    outcome: OutcomeKind
    reason: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    source_version: str | None = None
    removed: bool = False
    """What the partition stood for is no more: it is shown as never materialized."""
    checks: tuple[CheckResult, ...] = ()
    """What the task proved of it; shown where it is materialized."""


@dataclass(frozen=True, kw_only=True)
class EndedTask:
    """A task that ended for good, as :meth:`Workflow.partition_news` gets it."""

    task_type: str
    parameters: Mapping[str, Any]
    outcome: OutcomeKind
    reason: str | None
    """Why, in words, where it did not go well or nothing was done."""
    result: Mapping[str, Any]
    """What the handler returned."""


@dataclass(frozen=True, kw_only=True)
class Published:
    """One thing a finished job left in a store: what ``geo-assets unpublish`` takes back."""

    kind: Literal["blob", "item", "table"]
    collection: str
    """What holds it: the blob's container, the item's collection, or the table's schema."""
    name: str
    """Its name in there: the blob's, the item's id, or the table's."""
    version: str | None = None
    """Of a blob, the ETag the job wrote, of a table its version; ``None``: not recorded, so whatever is there now
    counts as somebody else's."""
    about: tuple[str, str] | None = None
    """Of an item, the container and blob it describes; ``None``: not recorded, so the id alone says that it is ours."""
    asset: str | None = None
    """Asset whose partition of the same key it belongs to; ``None``: the job's own asset."""
    partition: str | None = None
    """Name of the partition that shows it, where that is not the job's own (a layer's table); it goes with either."""


def normalise_task_type(task_type: str) -> str:
    """Lower case with underscores, as the original's registry looked task types up."""
    return task_type.lower().replace("-", "_")


def canonical_json(value: object) -> str:
    """The JSON text the original hashed: sorted keys, default separators, ASCII escapes."""
    return json.dumps(value, sort_keys=True)


def without_submit_fields(params: Mapping[str, Any], declared: Iterable[str] = ()) -> dict[str, Any]:
    """The parameters without the five submit fields, except those that the workflow itself declares."""
    dropped = SUBMIT_FIELDS.difference(declared)
    return {key: value for key, value in params.items() if key not in dropped}


def fallback_aggregation(context: JobExecutionContext) -> dict[str, Any]:
    """The result of a job whose class has no aggregation; the original's, except that it owns up to failed tasks."""
    total = len(context.task_results)
    bad = sum(not result.success for result in context.task_results)
    return {
        "job_type": context.job_type,
        "total_tasks": total,
        "message": f"{bad} of {total} tasks failed" if bad else "Job completed successfully",
    }


class WorkflowParameters(BaseModel):
    """Base of a workflow's parameter model: unknown keys are refused, values are not silently re-typed."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Workflow:
    """Base of our own workflows: give it ``Parameters``, ``stages``, ``handlers``, the tasks and the aggregation.

    Everything is a class attribute or class method, because no instance is ever made.  Attributes below the
    seven elements say how Dagster shows the workflow; each has a default.
    """

    job_type: ClassVar[str]
    """Name of the job, the Dagster job and (unless ``asset`` is set) the asset."""
    description: ClassVar[str] = ""
    stages: ClassVar[list[dict[str, Any]]]
    Parameters: ClassVar[type[WorkflowParameters]]
    """Typed, documented parameters; its fields become the config of the submit job."""
    handlers: ClassVar[Mapping[str, Handler]] = {}
    """Task type → handler."""

    asset: ClassVar[str | None] = None
    """Key of the asset that a job of this type materializes; default: the job type."""
    partition_set: ClassVar[str | None] = None
    """Name of the dynamic partitions; assets with the same name share one definition. Default: the asset."""
    key_parameter: ClassVar[str | None] = None
    """Parameter whose value is the partition key; without one the job id is the key."""
    asset_deps: ClassVar[Sequence[str]] = ()
    """Keys of the upstream assets."""
    group: ClassVar[str] = "workflows"
    kinds: ClassVar[frozenset[str]] = frozenset()
    owners: ClassVar[Sequence[str]] = ()
    tags: ClassVar[Mapping[str, str]] = {}

    execution: ClassVar[Literal["thread", "process"]] = "thread"
    """Where handlers run. Whatever opens a file someone uploaded says ``process``."""
    limits: ClassVar[TaskLimits] = TaskLimits()
    tolerates_partial_failure: ClassVar[bool] = False
    """Whether a job with some failed tasks ends ``completed_with_errors`` rather than ``failed``."""
    remembers: ClassVar[bool] = False
    """Whether handlers are told of the partition's past (``context.history``, ``context["claims"]``)."""

    @classmethod
    def validate_job_parameters(cls, params: dict[str, Any]) -> dict[str, Any]:
        """Return the validated parameters: what is hashed, stored and passed as ``job_params``.

        Raises:
            ParameterError: every problem in one message, each naming its parameter.
        """
        if not isinstance(params, dict):  # whatever JSON a caller sent
            msg = f"{cls.job_type}: parameters must be a JSON object, got {type(params).__name__}"  # type: ignore[unreachable]
            raise ParameterError(msg)
        given = without_submit_fields(params, cls.Parameters.model_fields)
        try:
            model = cls.Parameters.model_validate(given)
        except ValidationError as error:
            raise ParameterError(_explain(cls.job_type, cls.Parameters, error)) from None
        return cls.parameters_to_dict(model)

    @classmethod
    def parameters_to_dict(cls, model: WorkflowParameters) -> dict[str, Any]:
        """The validated parameters as the dict that is hashed; override where the original left defaults out."""
        return model.model_dump(mode="json")

    @classmethod
    def generate_job_id(cls, params: dict[str, Any]) -> str:
        """SHA-256 of the whole validated parameters, as seven of the original's eight jobs have it."""
        return hashlib.sha256(canonical_json(params).encode()).hexdigest()

    @classmethod
    def create_tasks_for_stage(
        cls,
        stage: int,
        job_params: dict[str, Any],
        job_id: str,
        previous_results: list[dict[str, Any]] | None = None,
    ) -> list[dict[str, Any]]:
        """Return the tasks of a stage; an empty list completes the stage."""
        raise NotImplementedError

    @classmethod
    def create_job_record(cls, job_id: str, params: dict[str, Any]) -> dict[str, Any]:
        """Return the job's first record; the submission writes it to the ledger, in one transaction with the queue."""
        return {
            "job_id": job_id,
            "job_type": cls.job_type,
            "parameters": params,
            "status": JobStatus.QUEUED.value,
            "stage": 1,
            "total_stages": len(cls.stages),
            "stage_results": {},
            "metadata": {"description": cls.description, "created_by": cls.__name__},
        }

    @classmethod
    def queue_job(cls, job_id: str, params: dict[str, Any]) -> dict[str, Any]:
        """Return the queue's answer in the original's form; the ledger is the queue."""
        del params
        return {
            "queued": True,
            "queue_type": "ledger",
            "queue_name": "geo_assets-jobs",
            "message_id": str(uuid.uuid4()),
            "job_id": job_id,
        }

    @classmethod
    def aggregate_job_results(cls, context: JobExecutionContext) -> dict[str, Any]:
        """Return the job's result; override it. The default is the original's fallback."""
        return fallback_aggregation(context)

    # Optional hooks of ours, none of them part of the contract

    @classmethod
    def source_version(cls, params: dict[str, Any], services: Mapping[str, Any]) -> str | None:
        """Version of what the job reads (a blob's ETag), or ``None`` where there is no source."""
        del params, services
        return None

    @classmethod
    def max_age_seconds(cls) -> float | None:
        """Age at which a recorded answer no longer counts; ``None``: it always counts."""
        return None

    @classmethod
    def parameters_for_partition(cls, partition_key: str) -> dict[str, Any] | None:
        """Parameters that follow from a partition key alone, or ``None`` where they do not."""
        return {cls.key_parameter: partition_key} if cls.key_parameter else None

    @classmethod
    def partition_name(cls, params: Mapping[str, Any], job_id: str) -> str:
        """Name of the partition where no single parameter is the key; the default is the job id.

        A class that overrides it also overrides ``parameters_for_partition``, its inverse.
        """
        del params
        return job_id

    @classmethod
    def keys_with_prefix(cls, prefix: str, services: Mapping[str, Any]) -> Iterable[str]:
        """Existing values of the key parameter that start with ``prefix`` (for submission by prefix)."""
        del prefix, services
        msg = f"{cls.job_type} cannot be submitted by prefix; name the keys"
        raise ParameterError(msg)

    @classmethod
    def materialization_metadata(cls, result: dict[str, Any]) -> dict[str, Any]:
        """Plain values worth showing on the partition, beside the result itself."""
        del result
        return {}

    @classmethod
    def check_results(cls, result: dict[str, Any]) -> Iterable[CheckResult]:
        """What a job with this result proved of its partition; shown together with the materialization.

        Only facts that the result holds already: an asset check that is run looks at the real thing.
        """
        del result
        return ()

    @classmethod
    def partition_news(cls, task: EndedTask) -> Iterable[PartitionNews]:
        """What an ended task means for partitions of other assets than the job's own."""
        del task
        return ()

    @classmethod
    def finish_run(cls, jobs: Sequence[Mapping[str, Any]], services: Mapping[str, Any]) -> None:
        """Put right, once a run, what would be too dear to do once a job; ``jobs`` are the parameters of each."""
        del jobs, services

    @classmethod
    def published_by_others(
        cls, names: Sequence[str], services: Mapping[str, Any]
    ) -> Mapping[str, Sequence[Published]]:
        """Partition name → what the stores hold for it that jobs of other workflows made (a bulk one's, say)."""
        del names, services
        return {}

    @classmethod
    def published(cls, result: dict[str, Any]) -> Sequence[Published]:
        """What a job with this result left in the stores, in any order.

        It is asked of every result on record, also of failed jobs and of older versions of the workflow: take nothing
        for granted about ``result``.
        """
        del result
        return ()


def _explain(job_type: str, model: type[BaseModel], error: ValidationError) -> str:
    """One sentence a problem; a message our own validators raised stands alone, as the original worded it."""
    sentences: list[str] = []
    for problem in error.errors(include_url=False):
        name = ".".join(str(part) for part in problem["loc"])
        cause = (problem.get("ctx") or {}).get("error")
        if isinstance(cause, ValueError):
            sentences.append(str(cause))
        elif problem["type"] == "extra_forbidden":
            sentences.append(_unknown(job_type, model, name))
        elif problem["type"] == "missing":
            sentences.append(f"{name} is required")
        else:
            sentences.append(f"{name}: {problem['msg']}, got {type(problem['input']).__name__}")
    return "; ".join(sentences)


def _unknown(job_type: str, model: type[BaseModel], name: str) -> str:
    names = [field.alias or field_name for field_name, field in model.model_fields.items()]
    known = [one for one in names if not one.startswith("_")]  # the others are for tests
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"; did you mean '{near[0]}'?" if near else ""
    return f"{job_type}: unknown parameter '{name}'; it takes: {', '.join(known)}{hint}"


# --- the check -------------------------------------------------------------------------------------------


class ElementState(StrEnum):
    """State of one element in a class."""

    PRESENT = "present"
    MISSING = "missing"
    WRONG_SIGNATURE = "wrong signature"


class _Element(NamedTuple):
    name: str
    arguments: tuple[str, ...]
    keywords: tuple[str, ...] = ()


_ABSENT = object()
_JOB_TYPE = re.compile(r"[A-Za-z0-9_]{1,100}")
"""What Dagster takes as a name, as long as the column of the original."""

AGGREGATION_NAMES = ("aggregate_job_results", "finalize_job")

ELEMENTS: tuple[_Element, ...] = (
    _Element("stages", ()),
    _Element("validate_job_parameters", ("params",)),
    _Element("generate_job_id", ("params",)),
    _Element("create_tasks_for_stage", ("stage", "job_params", "job_id"), ("previous_results",)),
    _Element("create_job_record", ("job_id", "params")),
    _Element("queue_job", ("job_id", "params")),
    _Element("aggregate_job_results", ("context",)),
)


@dataclass(frozen=True)
class ContractReport:
    """What :func:`check_contract` found in one class."""

    workflow: str
    job_type: str | None
    elements: Mapping[str, ElementState]
    problems: tuple[str, ...]
    """A sentence a problem, each naming the class and the element."""

    @property
    def complete(self) -> bool:
        """All seven elements present, stages well-formed."""
        return not self.problems and all(state is ElementState.PRESENT for state in self.elements.values())

    @property
    def runnable(self) -> bool:
        """Whether the class can be loaded: everything but the aggregation, which has a fallback."""
        return not self.problems


def check_contract(workflow: type) -> ContractReport:
    """Check ``workflow`` against the seven elements without running any of them."""
    name = workflow.__name__
    elements: dict[str, ElementState] = {}
    problems: list[str] = []
    job_type = getattr(workflow, "job_type", None)
    if not isinstance(job_type, str) or not job_type:
        problems.append(f"{name} has no job_type: set the class attribute to the job's name.")
        job_type = None
    elif not _JOB_TYPE.fullmatch(job_type):
        problems.append(
            f"{name}: the job_type {job_type!r} cannot name a Dagster job:"
            " use 1 to 100 letters, digits and underscores."
        )

    for element in ELEMENTS:
        if element.name == "stages":
            state, problem = _check_stages(workflow)
        else:
            state, problem = _check_method(workflow, element)
        elements[element.name] = state
        if problem:
            problems.append(problem)
    return ContractReport(name, job_type, elements, tuple(problems))


def require_contract(workflow: type) -> None:
    """Refuse a class that cannot be run.

    Raises:
        ContractError: one sentence a problem, naming the class and the element.
    """
    report = check_contract(workflow)
    if not report.runnable:
        raise ContractError(" ".join(report.problems))


def aggregation_of(workflow: type) -> Callable[[JobExecutionContext], Any]:
    """The class's aggregation under either name, or the fallback."""
    name = _implementation(workflow, "aggregate_job_results")
    return fallback_aggregation if name is None else getattr(workflow, name)


def parse_stages(workflow: type) -> list[Stage]:
    """The class's stages in their checked form.

    Raises:
        ContractError: they are not a well-formed list.
    """
    state, problem = _check_stages(workflow)
    if state is not ElementState.PRESENT:
        raise ContractError(problem or f"{workflow.__name__}: stages are malformed.")
    return [Stage.model_validate(entry) for entry in workflow.stages]  # type: ignore[attr-defined]


def _implementation(workflow: type, element: str) -> str | None:
    """Name of the attribute that implements an element; ``None`` where nothing does."""
    if element == "aggregate_job_results":
        # our base class gives every workflow a default; a finalize_job beside it wins
        own = (name for name in AGGREGATION_NAMES if _implements(workflow, name) and not _is_base(workflow, name))
        return next(own, element if _is_base(workflow, element) else None)
    if not _implements(workflow, element):
        return None
    if _is_base(workflow, "create_tasks_for_stage") and element == "create_tasks_for_stage":
        return None
    if _is_base(workflow, element) and element == "validate_job_parameters" and not _has_parameters(workflow):
        return None
    return element


def _implements(workflow: type, name: str) -> bool:
    method = getattr(workflow, name, None)
    # no instance is ever made, so Python itself never refuses a class with abstract methods left
    return method is not None and not getattr(method, "__isabstractmethod__", False)


def _is_base(workflow: type, name: str) -> bool:
    return inspect.getattr_static(workflow, name, None) is Workflow.__dict__.get(name, _ABSENT)


def _has_parameters(workflow: type) -> bool:
    model = getattr(workflow, "Parameters", None)
    return isinstance(model, type) and issubclass(model, BaseModel)


def _check_stages(workflow: type) -> tuple[ElementState, str | None]:
    name = workflow.__name__
    stages = getattr(workflow, "stages", None)
    if stages is None:
        return ElementState.MISSING, f"{name} lacks the element 'stages': add a list of stage dicts."
    if not isinstance(stages, list) or not stages:
        return ElementState.WRONG_SIGNATURE, f"{name}: the element 'stages' must be a non-empty list of dicts."
    for position, entry in enumerate(stages, start=1):
        if not isinstance(entry, dict):
            return (
                ElementState.WRONG_SIGNATURE,
                f"{name}: entry {position} of the element 'stages' must be a dict, not {type(entry).__name__}.",
            )
        try:
            stage = Stage.model_validate(entry)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            where = ".".join(str(part) for part in first["loc"])
            return (
                ElementState.WRONG_SIGNATURE,
                f"{name}: entry {position} of the element 'stages' is malformed ({where}: {first['msg']}).",
            )
        if stage.number != position:
            return (
                ElementState.WRONG_SIGNATURE,
                f"{name}: entry {position} of the element 'stages' has number {stage.number}; they count 1, 2, 3, ….",
            )
    return ElementState.PRESENT, None


def _check_method(workflow: type, element: _Element) -> tuple[ElementState, str | None]:
    name = workflow.__name__
    found = _implementation(workflow, element.name)
    if found is None:
        if element.name == "aggregate_job_results":
            return ElementState.MISSING, None  # the one element with a fallback
        return ElementState.MISSING, f"{name} lacks the element '{element.name}': {_remedy(workflow, element)}."
    expected = f"{found}({', '.join(element.arguments + tuple(f'{word}=…' for word in element.keywords))})"
    if _can_be_called(workflow, found, element):
        return ElementState.PRESENT, None
    return (
        ElementState.WRONG_SIGNATURE,
        f"{name}: the element '{found}' cannot be called as {expected}; make it a static method that can.",
    )


def _can_be_called(workflow: type, name: str, element: _Element) -> bool:
    method = getattr(workflow, name)
    if not callable(method) or inspect.iscoroutinefunction(method):
        return False
    if inspect.isfunction(inspect.getattr_static(workflow, name)):
        return False  # an instance method: its first argument would be taken for self
    try:
        # as the engine calls it: previous_results always given, always by name
        inspect.signature(method).bind(*element.arguments, **dict.fromkeys(element.keywords))
    except (TypeError, ValueError):
        return False
    return True


def _remedy(workflow: type, element: _Element) -> str:
    if element.name == "validate_job_parameters" and issubclass(workflow, Workflow):
        return "give it a Parameters model, or a class method of that name"
    return "add a static method of that name"
