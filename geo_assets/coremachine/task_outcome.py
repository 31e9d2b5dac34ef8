"""What became of one task, as a value: a handler's return or its exception, interpreted.

What belongs here: :class:`TaskOutcome`, the reading of what handlers return (:func:`interpret`), the judgement of
exceptions (:func:`classify`) and the one call of a handler (:func:`execute`), the same in threads and in worker
processes.  What does not: where and under which limits a handler runs (``task_runner``, ``process_runner``), and
retries, which are the engine's.

Which errors may pass by waiting is decided here.  Bad data, bad parameters and bugs are permanent; outages and
whatever we do not know are transient, as the original retried everything.
"""

import builtins
import copy
import errno
import functools
import inspect
import json
import re
import time
import traceback
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from geo_assets import errors
from geo_assets.coremachine.contract import Handler, OutcomeKind, TaskContext, TaskResult, TaskStatus
from geo_assets.errors import GeoAssetsError, TransientError
from geo_assets.redaction import redact

__all__ = ["TaskOutcome", "classify", "execute", "failure", "interpret", "outcome_of_exception", "takes_context"]

MAX_ERROR_LENGTH = 4_000
"""Longest error or reason kept, in characters; the rest is cut."""
MAX_TRACEBACK_LENGTH = 8_000
"""Longest traceback kept, in characters; the end is kept, for that is where the error is."""
PROCESSING_PATH = "dagster"
"""Value of the injected task parameter ``_processing_path``; the original had ``service_bus`` there."""


@dataclass(frozen=True, kw_only=True)
class TaskOutcome:
    """How one execution of a task ended. Its texts are redacted, bounded and free of NUL and lone surrogates."""

    kind: OutcomeKind
    result_data: dict[str, Any]
    """What the handler returned, JSON-able; empty where nothing usable came back."""
    error: str | None = None
    """What failed, on which object, and why; set where the kind is not good."""
    reason: str | None = None
    """Why the input was skipped, is invalid, or is unchanged."""
    traceback: str | None = None
    """The end of the traceback, where there was one."""
    transient: bool = False
    """Whether the same task may succeed later."""
    execution_time_ms: int = 0


def failure(error: str, *, transient: bool = False, traceback_text: str | None = None) -> TaskOutcome:
    """Return an outcome ``failed`` with the given texts, made presentable."""
    return TaskOutcome(
        kind=OutcomeKind.FAILED,
        result_data={},
        error=_presentable(error),
        traceback=None if traceback_text is None else _presentable_traceback(traceback_text),
        transient=transient,
    )


# --- running one handler ---------------------------------------------------------------------------------


def execute(handler: Handler, params: Mapping[str, Any], context: Mapping[str, Any]) -> TaskOutcome:
    """Call ``handler`` on a copy of ``params`` and return exactly one outcome, whatever it does.

    The copy carries the two keys the original injected, ``_correlation_id`` (8 characters) and
    ``_processing_path``; the context goes to handlers that take a second positional argument.
    """
    started = time.monotonic()
    try:
        # deep, so that a handler that changes what it was given cannot change the next attempt's input
        own = copy.deepcopy(dict(params))
        own["_correlation_id"] = uuid.uuid4().hex[:8]
        own["_processing_path"] = PROCESSING_PATH
        returned = handler(own, context) if takes_context(handler) else handler(own)
        outcome = interpret(returned)
    except BaseException as error:  # noqa: BLE001 - SystemExit of a handler is the task's outcome, too
        outcome = outcome_of_exception(error)
    return replace(outcome, execution_time_ms=elapsed_ms(started))


def elapsed_ms(started: float) -> int:
    """Milliseconds since ``started``, a value of :func:`time.monotonic`."""
    return round((time.monotonic() - started) * 1000)


def takes_context(handler: Handler) -> bool:
    """Whether ``handler`` accepts a second positional argument (``*args`` included)."""
    try:
        return _takes_context(handler)
    except TypeError:  # an unhashable callable
        return _takes_context.__wrapped__(handler)


@functools.lru_cache(maxsize=1024)
def _takes_context(handler: Handler) -> bool:
    try:
        parameters = list(inspect.signature(handler).parameters.values())
    except (TypeError, ValueError):  # some builtins tell nothing about themselves
        return False
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    return len(positional) > 1 or any(p.kind is p.VAR_POSITIONAL for p in parameters)


# --- exceptions ------------------------------------------------------------------------------------------

_PERMANENT_TYPES: tuple[type[BaseException], ...] = (
    ValueError,  # UnicodeError and json.JSONDecodeError among them
    TypeError,
    LookupError,
    AttributeError,
    NameError,
    ArithmeticError,
    AssertionError,
    FileNotFoundError,
    FileExistsError,
    IsADirectoryError,
    NotADirectoryError,
    PermissionError,
    NotImplementedError,
    ImportError,
    MemoryError,
    RecursionError,
    SyntaxError,
    EOFError,
)
_TRANSIENT_OS_TYPES = (ConnectionError, TimeoutError, InterruptedError, BlockingIOError)
# ENOSPC, EDQUOT, EMFILE, ENFILE and ENOMEM are here because tasks beside this one give back what they hold when they
# end; EFBIG is not, because the file will be as big next time.
_TRANSIENT_ERRNOS = frozenset(
    {
        errno.EAGAIN,
        errno.EBUSY,
        errno.EDEADLK,
        errno.EDQUOT,
        errno.EHOSTDOWN,
        errno.EHOSTUNREACH,
        errno.EINTR,
        errno.EIO,
        errno.EMFILE,
        errno.ENETDOWN,
        errno.ENETRESET,
        errno.ENETUNREACH,
        errno.ENFILE,
        errno.ENOBUFS,
        errno.ENOLCK,
        errno.ENOMEM,
        errno.ENOSPC,
        errno.ESTALE,
        errno.ETIMEDOUT,
        errno.ETXTBSY,
    }
)


def classify(error: BaseException) -> bool:
    """Whether ``error`` is transient: the same task, unchanged, may succeed later.

    Our own errors say so themselves; builtin errors are judged by type and, where the operating system raised them, by
    number; library errors we do not know are transient, as every error was in the original.
    """
    if isinstance(error, GeoAssetsError):
        return isinstance(error, TransientError)
    # what is no Exception (SystemExit, KeyboardInterrupt) is the handler's own doing
    if not isinstance(error, Exception) or isinstance(error, _PERMANENT_TYPES):
        return False
    if isinstance(error, ExceptionGroup):
        return all(classify(member) for member in error.exceptions)
    if isinstance(error, OSError) and type(error).__module__ == "builtins" and error.errno is not None:
        return isinstance(error, _TRANSIENT_OS_TYPES) or error.errno in _TRANSIENT_ERRNOS
    return True


def outcome_of_exception(error: BaseException) -> TaskOutcome:
    """Return the outcome ``failed`` of a handler that raised; the error reads ``TypeName: message``."""
    name = type(error).__name__
    try:
        message = str(error)
    except Exception:  # noqa: BLE001 - a foreign __str__ may do anything
        message = "(its message cannot be shown)"
    return failure(
        f"{name}: {message}" if message else f"{name} (no message)",
        transient=classify(error),
        traceback_text=format_traceback(error),
    )


def format_traceback(error: BaseException) -> str:
    """Return the traceback of ``error`` as text; never raises. Not redacted."""
    try:
        return "".join(traceback.format_exception(error))
    except Exception:  # noqa: BLE001 - formatting calls foreign code and needs memory
        return f"{type(error).__name__} (its traceback cannot be shown)"


def _names_permanent_type(name: object) -> bool:
    """Whether ``name`` is that of a builtin or our own exception class that :func:`classify` calls permanent."""
    if not isinstance(name, str):
        return False
    return name.rpartition(".")[2] in _permanent_names()


@functools.cache
def _permanent_names() -> frozenset[str]:
    ours = {
        name
        for name, value in vars(errors).items()
        if isinstance(value, type) and issubclass(value, GeoAssetsError) and not issubclass(value, TransientError)
    }
    standard = {
        name
        for name, value in vars(builtins).items()
        if isinstance(value, type)
        and issubclass(value, BaseException)
        and (issubclass(value, _PERMANENT_TYPES) or value in (SystemExit, KeyboardInterrupt, GeneratorExit))
    }
    return frozenset(ours | standard)


# --- returns ---------------------------------------------------------------------------------------------


def interpret(returned: object) -> TaskOutcome:
    """Turn what a handler returned into one outcome; never raises.

    - ``success`` true: the kind is the optional ``outcome``, else ``created``; ``reason`` is kept.
    - ``success`` false: ``failed`` with the ``error``; transient as ``transient`` or ``retryable`` says, else unless
      ``error_type`` names a permanent exception class.  ``outcome`` may say ``invalid`` or ``skipped`` instead.
    - A :class:`~geo_assets.coremachine.contract.TaskResult` counts by its status.
    - Anything else, a dict without ``success``, and what JSON cannot hold are permanent failures that say so.

    ``result_data`` is what the dict looks like after a trip through JSON, NUL characters and lone surrogates (which
    databases refuse) replaced by U+FFFD.  Results of tasks that did not go well are redacted as a whole.
    """
    try:
        return _interpret(returned)
    except Exception as error:  # noqa: BLE001 - whatever a foreign object does when looked at is this task's failure
        return failure(f"the handler returned an object that cannot be read: {type(error).__name__}: {error}")


def _interpret(returned: object) -> TaskOutcome:
    if isinstance(returned, TaskResult):
        return _interpret_task_result(returned)
    if not isinstance(returned, dict):
        if inspect.iscoroutine(returned):
            returned.close()  # or Python warns that nobody awaited it
        return failure(
            f"contract violation: the handler returned {_named_type(returned)}, not a dict with 'success'; "
            "return {'success': True, …} or {'success': False, 'error': '…'}"
        )
    data, problem = _through_json(returned)
    if problem is not None:
        return failure(f"the handler returned something that is not JSON: {problem}")
    if "success" not in data:
        keys = ", ".join(sorted(data)) or "nothing"
        return replace(
            failure(f"the handler returned a dict without 'success' (it holds: {keys}); add 'success': True or False"),
            result_data=_redacted(data),
        )
    success = data["success"]
    if not isinstance(success, bool):
        return replace(
            failure(f"the handler returned 'success' as {type(success).__name__}; it must be True or False"),
            result_data=_redacted(data),
        )
    return _good_outcome(data) if success else _bad_outcome(data, OutcomeKind.FAILED)


def _interpret_task_result(result: TaskResult) -> TaskOutcome:
    data, problem = _through_json(result.result_data)
    if problem is not None:
        return failure(f"the handler returned a TaskResult whose result_data is not JSON: {problem}")
    if result.status is TaskStatus.COMPLETED:
        return _good_outcome(data)
    if result.error_details is not None:
        data = {**data, "error": result.error_details}
    if result.status is TaskStatus.FAILED:
        return _bad_outcome(data, OutcomeKind.FAILED)
    if result.status is TaskStatus.CANCELLED:
        return TaskOutcome(
            kind=OutcomeKind.CANCELLED, result_data=_redacted(data), error=_text_of(data.get("error")), transient=False
        )
    return replace(
        failure(
            f"contract violation: the handler returned a TaskResult in status '{result.status.value}'; it must end"
        ),
        result_data=_redacted(data),
    )


def _good_outcome(data: dict[str, Any]) -> TaskOutcome:
    named = data.get("outcome", OutcomeKind.CREATED.value)
    if not isinstance(named, str) or named not in list(OutcomeKind):
        kinds = ", ".join(OutcomeKind)
        shown = f"'{named}'" if isinstance(named, str) else type(named).__name__
        return replace(
            failure(f"the handler returned the outcome {shown}, which is none of: {kinds}"),
            result_data=_redacted(data),
        )
    kind = OutcomeKind(named)
    if not kind.is_good:
        return _bad_outcome(data, kind)
    return TaskOutcome(kind=kind, result_data=data, reason=_text_of(data.get("reason")))


def _bad_outcome(data: dict[str, Any], kind: OutcomeKind) -> TaskOutcome:
    if data.get("outcome") in (OutcomeKind.INVALID, OutcomeKind.SKIPPED, OutcomeKind.FAILED):
        kind = OutcomeKind(data["outcome"])
    error = _text_of(data.get("error"))
    reason = _text_of(data.get("reason"))
    if kind is OutcomeKind.FAILED:
        error = error or reason or "the handler returned success false without an 'error' that says why"
    elif kind is not OutcomeKind.CANCELLED:
        reason = reason or error or f"the handler said {kind.value} without a 'reason'"
    trace = data.get("traceback")
    return TaskOutcome(
        kind=kind,
        result_data=_redacted(data),
        error=error,
        reason=reason,
        traceback=_presentable_traceback(trace) if isinstance(trace, str) else None,
        transient=kind is OutcomeKind.FAILED and _says_transient(data),
    )


def _says_transient(data: Mapping[str, Any]) -> bool:
    for key in ("transient", "retryable"):
        if isinstance(data.get(key), bool):
            return bool(data[key])
    return not _names_permanent_type(data.get("error_type"))


def _text_of(value: object) -> str | None:
    if value is None or value == "":
        return None
    return _presentable(value if isinstance(value, str) else json.dumps(value))


def _named_type(value: object) -> str:
    return "None" if value is None else f"an object of type {type(value).__qualname__}"


# --- JSON ------------------------------------------------------------------------------------------------

_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")


def _through_json(value: dict[Any, Any]) -> tuple[dict[str, Any], str | None]:
    """Return ``value`` after a trip through JSON and, where it cannot make it, one phrase that says what is wrong."""
    try:
        text = json.dumps(value, allow_nan=False)
        data = json.loads(text)
    except RecursionError:
        return {}, "it is nested too deeply, or holds itself"
    except (TypeError, ValueError, OverflowError):
        return {}, _find_offence(value, "", []) or "it cannot be encoded"
    # both show in the ASCII text as \u0000 and \ud…; a pair of surrogates has become one character again
    if "\\u0000" in text or "\\ud" in text:
        data = _map_strings(data, lambda string: _UNSTORABLE.sub("\ufffd", string))
    return data, None


def _find_offence(value: object, path: str, parents: list[int]) -> str | None:
    """Return a phrase naming the first place in ``value`` that JSON cannot hold, or ``None``."""
    here = path or "the top level"
    if id(value) in parents:
        return f"{here} holds itself"
    children: Iterator[tuple[str, object]]
    if isinstance(value, dict):
        bad_key = next((key for key in value if not _is_json_key(key)), None)
        if bad_key is not None:
            return f"a key of {here} is {_shown(bad_key)} (type {type(bad_key).__name__})"
        children = ((f"{path}.{key}" if path else str(key), child) for key, child in value.items())
    elif isinstance(value, list | tuple):
        children = ((f"{path}[{index}]", child) for index, child in enumerate(value))
    else:
        try:
            json.dumps(value, allow_nan=False)
        except (TypeError, ValueError, OverflowError):
            return f"{here} is {_shown(value)} (type {type(value).__name__})"
        return None
    parents = [*parents, id(value)]
    return next((found for name, child in children if (found := _find_offence(child, name, parents))), None)


def _is_json_key(key: object) -> bool:
    try:
        json.dumps({key: None}, allow_nan=False)
    except (TypeError, ValueError):
        return False
    return True


def _shown(value: object) -> str:
    # only numbers are shown by value: whatever else stands there may be large or secret
    return repr(value) if isinstance(value, float) else "not a JSON value"


def _redacted(data: dict[str, Any]) -> dict[str, Any]:
    redacted: dict[str, Any] = _map_strings(data, redact)
    return redacted


def _map_strings(value: Any, change: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return change(value)
    if isinstance(value, list):
        return [_map_strings(item, change) for item in value]
    if isinstance(value, dict):
        return {change(key): _map_strings(item, change) for key, item in value.items()}
    return value


def _presentable(text: str) -> str:
    # cut before redacting would let half a secret slip through a pattern
    text = _UNSTORABLE.sub("\ufffd", redact(text))
    return text if len(text) <= MAX_ERROR_LENGTH else f"{text[: MAX_ERROR_LENGTH - 1]}…"


def _presentable_traceback(text: str) -> str:
    text = _UNSTORABLE.sub("\ufffd", redact(text))
    return text if len(text) <= MAX_TRACEBACK_LENGTH else f"…{text[-MAX_TRACEBACK_LENGTH + 1 :]}"


# --- over the wire ---------------------------------------------------------------------------------------


def outcome_to_json(outcome: TaskOutcome) -> dict[str, Any]:
    """Return ``outcome`` as a JSON-able dict; :func:`outcome_from_json` reads it back."""
    return asdict(outcome)


def outcome_from_json(data: Mapping[str, Any]) -> TaskOutcome:
    """Return the outcome a worker process sent.

    Raises:
        TypeError, ValueError, KeyError: it is not one; a worker that opened a hostile file is not trusted.
    """
    expected = {"result_data": dict, "transient": bool, "execution_time_ms": int}
    texts = dict.fromkeys(("error", "reason", "traceback"), str | None)
    for name, kind in (expected | texts).items():
        if not isinstance(data[name], kind):
            raise TypeError(f"'{name}' of an outcome is {type(data[name]).__name__}")
    return TaskOutcome(**{**data, "kind": OutcomeKind(data["kind"])})


def bare_context(context: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``context`` as a plain dict without what never leaves the process that holds it."""
    return {name: value for name, value in context.items() if name not in ("scratch", "claims")} | {"services": {}}


def restored_context(data: Mapping[str, Any]) -> TaskContext:
    """Return the context a worker process was sent."""
    return TaskContext(data)
