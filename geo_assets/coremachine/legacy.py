"""Lets workflow classes written for the original CoreMachine import and run unchanged.

What belongs here: stand-ins for the modules that such classes import inside their static methods (``infrastructure``,
``core.models``, ``core.task_id``, ``core.schema.queue``, ``config``, ``util_logger``, ``jobs.base``, …), the finder
that serves them, and :func:`load_workflows`.  What does not: running the classes, which is the engine's work and the
same for every workflow, and stand-ins for domain code (blob, vector and STAC repositories), which a team brings.

The finder stands last on ``sys.meta_path``, so a team's own module of the same name wins, sub-module by sub-module.
Nothing here writes anything: the submission calls ``create_job_record`` and ``queue_job`` and itself stores what they
return, in one transaction with the queue.  ``create_job`` therefore says yes and ``send_message`` returns a fresh id.
"""

import functools
import hashlib
import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import logging
import sys
import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from enum import Enum, StrEnum
from types import MappingProxyType, ModuleType
from typing import Any, ClassVar, ParamSpec, TypeVar

from pydantic import BaseModel, ConfigDict, Field, field_validator

from geo_assets.coremachine.contract import (
    Handler,
    JobExecutionContext,
    JobStatus,
    TaskDefinition,
    TaskResult,
    TaskStatus,
    canonical_json,
    normalise_task_type,
    parse_stages,
    require_contract,
)
from geo_assets.coremachine.identity import check_job_id, predecessor_task_id, task_id
from geo_assets.errors import ContractError, SettingsError
from geo_assets.redaction import redact
from geo_assets.settings import Settings, get_settings

__all__ = ["STAND_INS", "configured_workflows", "install", "load_workflows"]

_P = ParamSpec("_P")
_R = TypeVar("_R")

JOBS_QUEUE = "geospatial-jobs"
TASKS_QUEUE = "geospatial-tasks"

# --- core.models, core.contracts, core.schema.queue ------------------------------------------------------


class StageStatus(StrEnum):
    """Status of a stage; the original defined it and never used it."""

    PENDING = "pending"
    PROCESSING = "processing"
    COMPLETED = "completed"
    FAILED = "failed"
    COMPLETED_WITH_ERRORS = "completed_with_errors"


def _now() -> datetime:
    return datetime.now(UTC)


class JobData(BaseModel):
    """What identifies a job."""

    job_id: str
    job_type: str = Field(min_length=1, max_length=100)
    parameters: dict[str, Any] = Field(default_factory=dict)

    _check_id = field_validator("job_id")(check_job_id)
    _normalise = field_validator("job_type")(normalise_task_type)


class TaskData(BaseModel):
    """What identifies a task."""

    task_id: str = Field(min_length=1, max_length=100)
    parent_job_id: str = Field(min_length=1, max_length=64)
    job_type: str = Field(min_length=1, max_length=100)
    task_type: str = Field(min_length=1, max_length=100)
    stage: int = Field(ge=1)
    task_index: str = Field("0", max_length=50)
    parameters: dict[str, Any] = Field(default_factory=dict)

    _normalise = field_validator("task_type")(normalise_task_type)


class JobRecord(JobData):
    """A job as ``create_job_record`` builds it; ``model_dump()`` is what the submission stores."""

    status: JobStatus = JobStatus.QUEUED
    stage: int = Field(1, ge=1)
    total_stages: int = Field(1, ge=1)
    stage_results: dict[str, Any] = Field(default_factory=dict)
    metadata: dict[str, Any] = Field(default_factory=dict)
    result_data: dict[str, Any] | None = None
    error_details: str | None = None
    created_at: datetime = Field(default_factory=_now)
    updated_at: datetime = Field(default_factory=_now)


class TaskRecord(TaskData):
    """A task as the original stored it."""

    status: TaskStatus = TaskStatus.QUEUED
    result_data: dict[str, Any] | None = None
    metadata: dict[str, Any] = Field(default_factory=dict)
    error_details: str | None = None
    retry_count: int = Field(0, ge=0)
    heartbeat: datetime | None = None
    next_stage_params: dict[str, Any] | None = None
    created_at: datetime = Field(default_factory=_now)
    updated_at: datetime = Field(default_factory=_now)


class JobQueueMessage(JobData):
    """The message ``queue_job`` sends; unknown fields such as ``correlation_id`` are dropped, as they were."""

    model_config = ConfigDict(validate_assignment=True)

    stage: int = Field(ge=1, le=100)
    stage_results: dict[str, Any] | None = Field(default_factory=dict)
    retry_count: int = Field(0, ge=0, le=10)
    timestamp: datetime = Field(default_factory=_now)


class TaskQueueMessage(TaskData):
    """The message that carried one task."""

    model_config = ConfigDict(validate_assignment=True)

    parent_task_id: str | None = Field(None, max_length=100)
    retry_count: int = Field(0, ge=0, le=10)
    timestamp: datetime = Field(default_factory=_now)


# --- core.task_id, core.utils ----------------------------------------------------------------------------


def generate_deterministic_task_id(job_id: str, stage: int, logical_unit: str) -> str:
    """Task id of a unit of work in a stage: 16 hexadecimal digits."""
    return task_id(job_id, stage, logical_unit)


def get_predecessor_task_id(job_id: str, current_stage: int, logical_unit: str) -> str | None:
    """Task id of the same unit in the stage before; ``None`` at stage 1."""
    return predecessor_task_id(job_id, current_stage, logical_unit)


def get_successor_task_id(job_id: str, current_stage: int, logical_unit: str) -> str:
    """Task id of the same unit in the stage after."""
    return task_id(job_id, current_stage + 1, logical_unit)


def generate_job_id(job_type: str, parameters: dict[str, Any]) -> str:
    """Job id over ``job_type:parameters``; none of the original's eight jobs used it."""
    return hashlib.sha256(f"{job_type}:{canonical_json(parameters)}".encode()).hexdigest()


# --- infrastructure --------------------------------------------------------------------------------------


class _Partial:
    """A repository of which only the part that submission needs is here."""

    def __init__(self, *args: object, **kwargs: object) -> None:
        """Take whatever connection details the original took; none is used."""

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(_not_provided(f"{type(self).__name__}.{name}"))


class JobRepository(_Partial):
    """Accepts the job record; the submission stores it."""

    def create_job(self, job: object) -> bool:
        """Say that the record is new."""
        del job
        return True


class TaskRepository(_Partial):
    """Accepts a task record; the engine stores tasks."""

    def create_task(self, task: object) -> bool:
        """Say that the record is new."""
        del task
        return True


class StageCompletionRepository(_Partial):
    """Named by the factory's answer; the engine completes stages itself."""


class ServiceBusRepository(_Partial):
    """Accepts messages; the ledger is the queue."""

    @classmethod
    def instance(cls, *args: object, **kwargs: object) -> "ServiceBusRepository":
        """Return a repository; the original kept one a process."""
        return cls(*args, **kwargs)

    def send_message(self, queue_name: str, message: object, *args: object, **kwargs: object) -> str:
        """Return a fresh message id."""
        del queue_name, message, args, kwargs
        return str(uuid.uuid4())


class BlobRepository:
    """Can be imported, but not made: blobs are read through stores here."""

    def __init__(self, *args: object, **kwargs: object) -> None:
        """Refuse.

        Raises:
            ContractError: says where blobs are to be had.
        """
        del args, kwargs
        raise ContractError(
            "infrastructure.blob.BlobRepository is not part of the compatibility layer: take the blob store from the"
            " handler's second argument (context['services']), or put your own infrastructure/blob.py on the Python"
            " path."
        )

    @classmethod
    def instance(cls, *args: object, **kwargs: object) -> "BlobRepository":
        """Refuse, as the constructor does."""
        return cls(*args, **kwargs)


class RepositoryFactory:
    """Makes the repositories above."""

    @staticmethod
    def create_repositories(connection_string: str | None = None, schema_name: str = "app") -> dict[str, Any]:
        """Return them under the names the classes look them up by."""
        del connection_string, schema_name
        return {
            "job_repo": JobRepository(),
            "task_repo": TaskRepository(),
            "stage_completion_repo": StageCompletionRepository(),
        }

    @staticmethod
    def create_job_repository(*args: object, **kwargs: object) -> JobRepository:
        """Return the job repository alone."""
        return JobRepository(*args, **kwargs)

    @staticmethod
    def create_task_repository(*args: object, **kwargs: object) -> TaskRepository:
        """Return the task repository alone."""
        return TaskRepository(*args, **kwargs)

    @staticmethod
    def create_service_bus_repository() -> ServiceBusRepository:
        """Return the queue."""
        return ServiceBusRepository()

    @staticmethod
    def create_blob_repository(*args: object, **kwargs: object) -> BlobRepository:
        """Refuse, as :class:`BlobRepository` does."""
        return BlobRepository(*args, **kwargs)


# --- config ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class AppConfig:
    """The configuration names that job classes and handlers read; credentials are not among them."""

    storage_account_name: str
    bronze_container_name: str
    silver_container_name: str
    gold_container_name: str
    vector_pickle_container: str
    vector_pickle_prefix: str = "temp/vector_etl"
    raster_intermediate_prefix: str = "temp/raster_etl"
    raster_size_threshold_mb: int = 1000
    raster_cog_compression: str = "deflate"
    raster_cog_jpeg_quality: int = 85
    raster_cog_tile_size: int = 512
    raster_overview_resampling: str = "cubic"
    raster_reproject_resampling: str = "cubic"
    raster_strict_validation: bool = False
    raster_cog_in_memory: bool = True
    postgis_schema: str = "geo"
    app_schema: str = "app"
    job_processing_queue: str = JOBS_QUEUE
    task_processing_queue: str = TASKS_QUEUE
    service_bus_jobs_queue: str = JOBS_QUEUE
    service_bus_tasks_queue: str = TASKS_QUEUE
    service_bus_max_batch_size: int = 100
    service_bus_retry_count: int = 3
    task_max_retries: int
    task_retry_base_delay: float
    task_retry_max_delay: float
    max_retry_attempts: int = 3
    function_timeout_minutes: int = 5
    log_level: str = "INFO"

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(_not_provided(f"config.get_config().{name}"))


class QueueNames:
    """The two queue names."""

    JOBS = JOBS_QUEUE
    TASKS = TASKS_QUEUE


def get_config() -> AppConfig:
    """Return the configuration, read from this package's settings."""
    settings = get_settings()
    return AppConfig(
        storage_account_name=settings.azure_account or "",
        bronze_container_name=settings.bronze_container,
        silver_container_name=settings.silver_container,
        gold_container_name=settings.gold_container,
        vector_pickle_container=settings.silver_container,
        task_max_retries=settings.task_max_retries,
        task_retry_base_delay=settings.task_retry_base_delay,
        task_retry_max_delay=settings.task_retry_max_delay,
    )


# --- util_logger -----------------------------------------------------------------------------------------


class ComponentType(Enum):
    """Layer a logger belongs to; the first part of its name."""

    CONTROLLER = "controller"
    SERVICE = "service"
    REPOSITORY = "repository"
    FACTORY = "factory"
    SCHEMA = "schema"
    TRIGGER = "trigger"
    ADAPTER = "adapter"
    VALIDATOR = "validator"
    JOB = "job"


class LogLevel(Enum):
    """Levels of the standard library."""

    DEBUG = "DEBUG"
    INFO = "INFO"
    WARNING = "WARNING"
    ERROR = "ERROR"
    CRITICAL = "CRITICAL"


@dataclass
class LogContext:
    """What a log line is about; accepted and not shown, because Dagster knows job and task."""

    job_id: str | None = None
    job_type: str | None = None
    task_id: str | None = None
    task_type: str | None = None
    stage: int | None = None
    correlation_id: str | None = None
    request_id: str | None = None
    user_id: str | None = None
    tenant_id: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the fields that are set."""
        return {key: value for key, value in asdict(self).items() if value is not None}


class _Redact(logging.Filter):
    """The original's classes and handlers log signed URLs."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.msg, record.args = redact(record.getMessage()), None
        if record.exc_info:
            record.exc_text = redact(logging.Formatter().formatException(record.exc_info))
        return True


_REDACT = _Redact()


class LoggerFactory:
    """Makes standard loggers, named ``component.name``, with credentials redacted."""

    @classmethod
    def create_logger(
        cls, component_type: ComponentType | str, name: str, context: object = None, config: object = None
    ) -> logging.Logger:
        """Return the logger of a component; the same one for the same names."""
        del context, config
        component = component_type.value if isinstance(component_type, ComponentType) else component_type
        logger = logging.getLogger(f"{component}.{name}")
        logger.addFilter(_REDACT)  # adding it again changes nothing
        return logger

    @classmethod
    def create_with_context(
        cls,
        component_type: ComponentType | str,
        name: str,
        job_id: str | None = None,
        task_id: str | None = None,
        stage: int | None = None,
    ) -> logging.Logger:
        """Return the logger of a component."""
        return cls.create_logger(component_type, name, LogContext(job_id=job_id, task_id=task_id, stage=stage))


def log_exceptions(
    component_type: ComponentType | None = None,
    component_name: str | None = None,
    logger: logging.Logger | None = None,
) -> Callable[[Callable[_P, _R]], Callable[_P, _R]]:
    """Decorate a function so that what it raises is logged, then raised on."""

    def decorate(function: Callable[_P, _R]) -> Callable[_P, _R]:
        name = component_name or function.__qualname__
        target = logger or LoggerFactory.create_logger(component_type or ComponentType.SERVICE, name)

        @functools.wraps(function)
        def wrapper(*args: _P.args, **kwargs: _P.kwargs) -> _R:
            try:
                return function(*args, **kwargs)
            except Exception:
                target.exception("%s failed", function.__qualname__)
                raise

        return wrapper

    return decorate


def log_memory_checkpoint(logger: logging.Logger, checkpoint_name: str, *args: object, **fields: object) -> None:
    """Do nothing: the original measured only in its debug mode."""
    del logger, checkpoint_name, args, fields


def clear_checkpoint_context(context_id: str) -> None:
    """Do nothing."""
    del context_id


def get_memory_stats() -> dict[str, float] | None:
    """Return ``None``, as the original did outside its debug mode."""
    return None


# --- exceptions ------------------------------------------------------------------------------------------


class ContractViolationError(TypeError):
    """A bug: a component got or gave the wrong thing."""


class BusinessLogicError(Exception):
    """Base of failures that are expected at run time."""


class ServiceBusError(BusinessLogicError):
    """The queue failed."""


class DatabaseError(BusinessLogicError):
    """The database failed."""


class TaskExecutionError(BusinessLogicError):
    """A task failed."""


class ResourceNotFoundError(BusinessLogicError):
    """Something asked for is not there."""


class ValidationError(BusinessLogicError):
    """A business rule is broken."""


class ConfigurationError(Exception):
    """The system is set up wrongly."""


# --- jobs.base, jobs.mixins ------------------------------------------------------------------------------


class JobBase(ABC):
    """The interface that later job classes inherit. No instance is made, so ``check_contract`` does the checking."""

    job_type: str
    description: str
    stages: list[dict[str, Any]]

    @staticmethod
    @abstractmethod
    def validate_job_parameters(params: dict[str, Any]) -> dict[str, Any]:
        """Element 2."""

    @staticmethod
    @abstractmethod
    def generate_job_id(params: dict[str, Any]) -> str:
        """Element 3."""

    @staticmethod
    @abstractmethod
    def create_job_record(job_id: str, params: dict[str, Any]) -> dict[str, Any]:
        """Element 4."""

    @staticmethod
    @abstractmethod
    def queue_job(job_id: str, params: dict[str, Any]) -> dict[str, Any]:
        """Element 5."""

    @staticmethod
    @abstractmethod
    def create_tasks_for_stage(
        stage: int, job_params: dict[str, Any], job_id: str, previous_results: list[dict[str, Any]] | None = None
    ) -> list[dict[str, Any]]:
        """Element 6."""


_SCHEMA_TYPES: Mapping[str, tuple[type | tuple[type, ...], str]] = {
    "int": (int, "an integer"),
    "float": ((int, float), "a number"),
    "str": (str, "a string"),
    "bool": (bool, "a boolean"),
    "list": (list, "a list"),
    "dict": (dict, "a dict"),
}


def _check_against_schema(name: str, given: Any, schema: Mapping[str, Any]) -> Any:
    kind = schema.get("type", "str")
    if kind not in _SCHEMA_TYPES:
        raise ValueError(f"Unknown type '{kind}' for parameter '{name}'")
    expected, phrase = _SCHEMA_TYPES[kind]
    if not isinstance(given, expected):
        raise ValueError(f"Parameter '{name}' must be {phrase}, got {type(given).__name__}")  # noqa: TRY004
    checked: Any = given
    if kind == "float":
        checked = float(checked)
    if kind in ("int", "float"):
        if "min" in schema and checked < schema["min"]:
            raise ValueError(f"Parameter '{name}' must be >= {schema['min']}, got {checked}")
        if "max" in schema and checked > schema["max"]:
            raise ValueError(f"Parameter '{name}' must be <= {schema['max']}, got {checked}")
    if kind == "str" and "allowed" in schema and checked not in schema["allowed"]:
        raise ValueError(f"Parameter '{name}' must be one of {schema['allowed']}, got '{checked}'")
    return checked


class JobBaseMixin(ABC):
    """Four of the seven elements from a ``parameters_schema``, for the classes of November 2025 and later."""

    job_type: ClassVar[str]
    description: ClassVar[str]
    stages: ClassVar[list[dict[str, Any]]]
    parameters_schema: ClassVar[dict[str, dict[str, Any]]]
    resource_validators: ClassVar[Sequence[Any]] = ()

    @classmethod
    def validate_job_parameters(cls, params: dict[str, Any]) -> dict[str, Any]:
        """Return the parameters the schema names, with defaults; others are dropped.

        Raises:
            ValueError: a parameter is missing, of the wrong type or out of range.
            ContractError: the class asks for resource validators, which the team has to bring.
        """
        validated: dict[str, Any] = {}
        for name, schema in cls.parameters_schema.items():
            value = params.get(name, schema.get("default"))
            if value is not None:
                validated[name] = _check_against_schema(name, value, schema)
            elif schema.get("required", False):
                raise ValueError(f"Parameter '{name}' is required")
        if cls.resource_validators:
            _run_validators(cls, validated)
        return validated

    @classmethod
    def generate_job_id(cls, params: dict[str, Any]) -> str:
        """SHA-256 over job type and parameters together."""
        return hashlib.sha256(canonical_json({"job_type": cls.job_type, **params}).encode()).hexdigest()

    @classmethod
    def create_job_record(cls, job_id: str, params: dict[str, Any]) -> dict[str, Any]:
        """Return the record; the submission stores it."""
        return JobRecord(
            job_id=job_id,
            job_type=cls.job_type,
            parameters=params,
            total_stages=len(cls.stages),
            metadata={"description": cls.description, "created_by": cls.__name__},
        ).model_dump()

    @classmethod
    def queue_job(cls, job_id: str, params: dict[str, Any]) -> dict[str, Any]:
        """Return the queue's answer."""
        message = JobQueueMessage(job_id=job_id, job_type=cls.job_type, stage=1, parameters=params)
        return {
            "queued": True,
            "queue_type": "service_bus",
            "queue_name": JOBS_QUEUE,
            "message_id": ServiceBusRepository().send_message(JOBS_QUEUE, message),
            "job_id": job_id,
        }


def _run_validators(workflow: type[JobBaseMixin], validated: dict[str, Any]) -> None:
    try:
        module = importlib.import_module("infrastructure.validators")
    except ModuleNotFoundError:
        raise ContractError(
            f"{workflow.__name__} declares resource_validators, which are run by infrastructure.validators:"
            " put that module of yours on the Python path, or take the declaration out."
        ) from None
    answer = module.run_validators(workflow.resource_validators, validated)
    if not answer["valid"]:
        raise ValueError(f"Pre-flight validation failed: {answer['message']}")


# --- the stand-in modules and their finder ---------------------------------------------------------------


def _table(*members: Any, **named: Any) -> Mapping[str, Any]:
    return MappingProxyType({member.__name__: member for member in members} | named)


_QUEUE = _table(JobQueueMessage, TaskQueueMessage)
_ENUMS = _table(JobStatus, TaskStatus, StageStatus)
_REPOSITORIES = _table(JobRepository, TaskRepository, StageCompletionRepository)

STAND_INS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "config": _table(AppConfig, QueueNames, get_config),
        "core": _table(),
        "core.contracts": _table(JobData, TaskData),
        "core.models": _table(JobRecord, TaskRecord, TaskDefinition, TaskResult, JobExecutionContext, **_ENUMS),
        "core.models.context": _table(JobExecutionContext),
        "core.models.enums": _ENUMS,
        "core.models.job": _table(JobRecord),
        "core.models.results": _table(TaskResult),
        "core.models.task": _table(TaskRecord, TaskDefinition),
        "core.schema": _QUEUE,
        "core.schema.queue": _QUEUE,
        "core.task_id": _table(generate_deterministic_task_id, get_predecessor_task_id, get_successor_task_id),
        "core.utils": _table(generate_job_id),
        "exceptions": _table(
            ContractViolationError,
            BusinessLogicError,
            ServiceBusError,
            DatabaseError,
            TaskExecutionError,
            ResourceNotFoundError,
            ValidationError,
            ConfigurationError,
        ),
        "infrastructure": _table(RepositoryFactory, BlobRepository, **_REPOSITORIES),
        "infrastructure.blob": _table(BlobRepository),
        "infrastructure.factory": _table(RepositoryFactory),
        "infrastructure.jobs_tasks": _REPOSITORIES,
        "infrastructure.service_bus": _table(ServiceBusRepository),
        "jobs": _table(JobBase),
        "jobs.base": _table(JobBase),
        "jobs.mixins": _table(JobBaseMixin),
        "util_logger": _table(
            ComponentType,
            LogLevel,
            LogContext,
            LoggerFactory,
            log_exceptions,
            log_memory_checkpoint,
            clear_checkpoint_context,
            get_memory_stats,
        ),
    }
)
"""Module name → what it offers. Everything a class may import without bringing a module of its own."""


class _StandInFinder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Makes the modules of :data:`STAND_INS`, when nobody else has a module of that name."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        del path, target
        if fullname not in STAND_INS:
            return None
        is_package = any(name.startswith(f"{fullname}.") for name in STAND_INS)
        spec = importlib.util.spec_from_loader(fullname, self, origin=__file__, is_package=is_package)
        if spec is not None:
            spec.has_location = True  # so that "cannot import name …" says where it looked
        return spec

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> None:
        del spec

    def exec_module(self, module: ModuleType) -> None:
        members = STAND_INS[module.__name__]
        module.__doc__ = "A stand-in of geo_assets.coremachine.legacy."
        vars(module).update(members, __all__=sorted(members))


_FINDER = _StandInFinder()


def install() -> None:
    """Serve the stand-in modules from now on, behind everything else; calling it again changes nothing."""
    if not sys.meta_path or sys.meta_path[-1] is not _FINDER:
        if _FINDER in sys.meta_path:
            sys.meta_path.remove(_FINDER)
        sys.meta_path.append(_FINDER)


def _not_provided(what: str) -> str:
    top = what.partition(".")[0]
    return (
        f"{what} is not part of the compatibility layer (geo_assets.coremachine.legacy)."
        f" Put your own module on the Python path instead; a module of yours wins over the stand-in ({top})."
    )


# --- loading ---------------------------------------------------------------------------------------------


def configured_workflows(settings: Settings) -> list[tuple[type, dict[str, Handler]]]:
    """Load what the settings ``legacy_jobs`` and ``legacy_handlers`` name; nothing where neither is set.

    Raises:
        SettingsError: only one of the two is set.
        ContractError: as :func:`load_workflows`.
    """
    if settings.legacy_jobs is None and settings.legacy_handlers is None:
        return []
    if settings.legacy_jobs is None or settings.legacy_handlers is None:
        raise SettingsError(
            "GEO_ASSETS_LEGACY_JOBS and GEO_ASSETS_LEGACY_HANDLERS belong together: set both, or neither."
        )
    return load_workflows(settings.legacy_jobs, settings.legacy_handlers)


def load_workflows(jobs: str, handlers: str) -> list[tuple[type, dict[str, Handler]]]:
    """Import a team's registries and return each workflow class with the handlers its stages name.

    Args:
        jobs: ``module:NAME`` of a dict job type → class, for instance ``jobs:ALL_JOBS``.
        handlers: ``module:NAME`` of a dict task type → callable, for instance ``services:ALL_HANDLERS``.

    Raises:
        ContractError: a module or name is missing or cannot be imported, a class lacks an element, a key differs from
            its class's job type, or a stage has no handler. One sentence that says which and what to do.
    """
    install()
    table = _import_registry(jobs)
    registered = _handlers_of(_import_registry(handlers), handlers)
    workflows: list[tuple[type, dict[str, Handler]]] = []
    for job_type, workflow in table.items():
        if not isinstance(workflow, type):
            raise ContractError(f"{jobs} registers {workflow!r} as '{job_type}': it must be a class.")
        require_contract(workflow)
        own: str = workflow.job_type  # type: ignore[attr-defined]  # require_contract has looked
        if own != job_type:
            raise ContractError(
                f"{jobs} registers {workflow.__name__} as '{job_type}', but its job_type is '{own}': make them equal."
            )
        workflows.append((workflow, _handlers_for(workflow, registered, handlers)))
    return workflows


def _handlers_of(table: Mapping[Any, Any], reference: str) -> dict[str, Handler]:
    registered: dict[str, Handler] = {}
    for task_type, handler in table.items():
        if not isinstance(task_type, str) or not callable(handler):
            raise ContractError(
                f"{reference} registers {handler!r} as {task_type!r}: it must map a name to a function."
            )
        name = normalise_task_type(task_type)
        if name in registered:
            raise ContractError(f"{reference} registers the task type '{name}' twice: '-' and '_' and case are equal.")
        registered[name] = handler
    return registered


def _handlers_for(workflow: type, registered: Mapping[str, Handler], reference: str) -> dict[str, Handler]:
    # a class already ported to Workflow brings its handlers itself
    own = {normalise_task_type(name): handler for name, handler in getattr(workflow, "handlers", {}).items()}
    known = {**registered, **own}
    chosen: dict[str, Handler] = {}
    for stage in parse_stages(workflow):
        if stage.task_type not in known:
            raise ContractError(
                f"{workflow.__name__}: stage {stage.number} ('{stage.name}') wants a handler for the task type"
                f" '{stage.task_type}', and {reference} registers none; registered are:"
                f" {', '.join(sorted(known)) or 'none at all'}."
            )
        chosen[stage.task_type] = known[stage.task_type]
    return chosen


def _import_registry(reference: str) -> Mapping[Any, Any]:
    module_name, separator, attribute = reference.partition(":")
    if not (module_name and separator and attribute):
        raise ContractError(f"'{reference}' does not name a registry: write module:NAME, for instance jobs:ALL_JOBS.")
    try:
        module = importlib.import_module(module_name)
    except Exception as error:
        raise ContractError(_explain_import(module_name, error)) from error
    table = getattr(module, attribute, None)
    if table is None:
        raise ContractError(
            f"the module '{module_name}'{_origin_of(module)} has no '{attribute}':"
            " name the dict your module registers things in, and see that the module is on the Python path."
        )
    if not isinstance(table, Mapping):
        raise ContractError(f"{reference} is a {type(table).__name__}, not a dict.")
    return table


def _explain_import(module_name: str, error: Exception) -> str:
    if isinstance(error, ModuleNotFoundError) and error.name:
        if module_name == error.name or module_name.startswith(f"{error.name}."):
            return (
                f"there is no module '{error.name}': put the folder it lies in on the Python path (PYTHONPATH),"
                " or install its package."
            )
        return (
            f"the module '{module_name}' imports '{error.name}', which is neither on the Python path nor one of the"
            " stand-ins for the original's modules: bring it along, or import it inside the method that needs it."
        )
    hidden = ""
    if isinstance(error, ImportError) and error.name in STAND_INS and error.name in sys.modules:
        hidden = f" ('{error.name}'{_origin_of(sys.modules[error.name]).rstrip(',')})"
    return f"the module '{module_name}' cannot be imported: {type(error).__name__}: {redact(str(error))}{hidden}"


def _origin_of(module: ModuleType) -> str:
    """A relative clause for a module that is not what its name promises: a stand-in, or a folder that hides one."""
    if module.__name__ not in STAND_INS:
        return ""
    file = getattr(module, "__file__", None)
    if file == __file__:
        return ", which is the stand-in of geo_assets here,"
    if file is None:
        return f", which is a folder without __init__.py here ({', '.join(getattr(module, '__path__', []))}),"
    return ""
