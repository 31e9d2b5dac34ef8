"""What handlers return and raise, as outcomes: no threads, no processes."""

import asyncio
import errno
import functools
import json
import socket
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from geo_assets.coremachine.contract import OutcomeKind, TaskContext, TaskResult, TaskStatus
from geo_assets.coremachine.task_outcome import execute, outcome_from_json, outcome_to_json, takes_context
from geo_assets.coremachine.task_runner import TaskOutcome, classify, interpret
from geo_assets.errors import BlobNotFoundError, ParameterError, ThrottledError
from tests.coremachine import handlers_for_tests as handlers

SECRET = "https://account.blob.example/c/b?sv=1&sig=canaryCANARYcanary"


def check_invariants(outcome: TaskOutcome) -> None:
    """What holds for every outcome, whatever it came from."""
    assert isinstance(outcome.kind, OutcomeKind)
    assert json.loads(json.dumps(outcome.result_data, allow_nan=False)) == outcome.result_data
    json.dumps(outcome.result_data, ensure_ascii=False).encode()  # no lone surrogate anywhere
    if outcome.kind is OutcomeKind.FAILED:
        assert outcome.error
    if outcome.kind in (OutcomeKind.INVALID, OutcomeKind.SKIPPED) and "success" in outcome.result_data:
        assert outcome.reason or outcome.result_data["success"]
    if outcome.transient:
        assert outcome.kind is OutcomeKind.FAILED
    for text in (outcome.error, outcome.reason, outcome.traceback):
        assert text is None or ("\0" not in text and len(text) <= 8_000)
        if text is not None:
            text.encode()
    assert outcome_from_json(json.loads(json.dumps(outcome_to_json(outcome)))) == outcome


# --- returns ---------------------------------------------------------------------------------------------


def test_success_is_created_and_the_data_is_kept() -> None:
    outcome = interpret({"success": True, "result": {"rows": 3}})
    assert outcome.kind is OutcomeKind.CREATED
    assert outcome.result_data == {"success": True, "result": {"rows": 3}}
    assert (outcome.error, outcome.reason, outcome.transient) == (None, None, False)


@pytest.mark.parametrize("kind", ["created", "updated", "unchanged", "skipped"])
def test_success_may_name_its_outcome_and_reason(kind: str) -> None:
    outcome = interpret({"success": True, "outcome": kind, "reason": "same ETag"})
    assert (outcome.kind, outcome.reason) == (OutcomeKind(kind), "same ETag")


def test_success_may_call_the_input_invalid() -> None:
    outcome = interpret({"success": True, "outcome": "invalid", "reason": "no georeference"})
    assert (outcome.kind, outcome.reason, outcome.transient) == (OutcomeKind.INVALID, "no georeference", False)


@pytest.mark.parametrize("named", ["done", "", 7, None, {"a": 1}])
def test_an_unknown_outcome_fails_and_names_the_known_ones(named: object) -> None:
    outcome = interpret({"success": True, "outcome": named})
    assert outcome.kind is OutcomeKind.FAILED
    assert not outcome.transient
    assert "unchanged" in (outcome.error or "")


def test_a_returned_failure_is_retried_and_keeps_its_data() -> None:
    outcome = interpret({"success": False, "error": "service down", "blob": "a.tif"})
    assert (outcome.kind, outcome.error, outcome.transient) == (OutcomeKind.FAILED, "service down", True)
    assert outcome.result_data["blob"] == "a.tif"


@pytest.mark.parametrize(
    ("extra", "transient"),
    [
        ({"transient": True}, True),
        ({"transient": False}, False),
        ({"retryable": False}, False),
        ({"retryable": True, "error_type": "ValueError"}, True),
        ({"transient": "no"}, True),  # not a bool: no answer
        ({"error_type": "ValueError"}, False),
        ({"error_type": "builtins.KeyError"}, False),
        ({"error_type": "BlobNotFoundError"}, False),
        ({"error_type": "geo_assets.errors.ParameterError"}, False),
        ({"error_type": "ThrottledError"}, True),
        ({"error_type": "ConnectionResetError"}, True),
        ({"error_type": "RuntimeError"}, True),
        ({"error_type": "business_logic"}, True),
        ({"error_type": 5}, True),
        ({}, True),
    ],
)
def test_whether_a_returned_failure_is_transient(extra: dict[str, Any], *, transient: bool) -> None:
    assert interpret({"success": False, "error": "e", **extra}).transient is transient


@pytest.mark.parametrize("kind", ["invalid", "skipped"])
def test_invalid_and_skipped_are_never_transient(kind: str) -> None:
    outcome = interpret({"success": False, "outcome": kind, "error": "not a TIFF", "transient": True})
    assert (outcome.kind, outcome.reason, outcome.transient) == (OutcomeKind(kind), "not a TIFF", False)


def test_a_failure_without_an_error_says_so() -> None:
    assert "without an 'error'" in (interpret({"success": False}).error or "")


def test_an_error_that_is_no_text_is_shown_as_json() -> None:
    assert interpret({"success": False, "error": {"code": 5}}).error == '{"code": 5}'


def test_a_missing_success_fails_and_names_what_came() -> None:
    outcome = interpret({"rows": 3, "table": "t"})
    assert (outcome.kind, outcome.transient) == (OutcomeKind.FAILED, False)
    assert "rows, table" in (outcome.error or "")
    assert outcome.result_data == {"rows": 3, "table": "t"}


@pytest.mark.parametrize("success", [1, 0, "true", None, [True]])
def test_a_success_that_is_no_bool_fails(success: object) -> None:
    outcome = interpret({"success": success})
    assert (outcome.kind, outcome.transient) == (OutcomeKind.FAILED, False)
    assert "must be True or False" in (outcome.error or "")


@pytest.mark.parametrize("returned", [None, "text", 3, [{"success": True}], object(), (True, None)])
def test_what_is_no_dict_breaks_the_contract(returned: object) -> None:
    outcome = interpret(returned)
    assert (outcome.kind, outcome.transient, outcome.result_data) == (OutcomeKind.FAILED, False, {})
    assert "contract violation" in (outcome.error or "")


def test_a_coroutine_breaks_the_contract_without_a_warning() -> None:
    outcome = interpret(asyncio.sleep(0))
    assert "coroutine" in (outcome.error or "")


@pytest.mark.parametrize(
    ("value", "place", "what"),
    [
        ({"bands": [{"mean": float("nan")}]}, "result.bands[0].mean", "nan (type float)"),
        ({"x": float("-inf")}, "result.x", "-inf (type float)"),
        ({"when": datetime(2025, 1, 1, tzinfo=UTC)}, "result.when", "type datetime"),
        ({"names": {"a", "b"}}, "result.names", "type set"),
        ({"data": b"bytes"}, "result.data", "type bytes"),
        ({(1, 2): "x"}, "a key of result", "type tuple"),
        ({float("inf"): "x"}, "a key of result", "type float"),
        ({"n": 10**5000}, "result.n", "type int"),
    ],
)
def test_what_is_not_json_is_named_by_path_and_type(value: object, place: str, what: str) -> None:
    outcome = interpret({"success": True, "result": value})
    assert (outcome.kind, outcome.transient, outcome.result_data) == (OutcomeKind.FAILED, False, {})
    assert place in (outcome.error or "")
    assert what in (outcome.error or "")


def test_a_dict_that_holds_itself() -> None:
    loop: dict[str, Any] = {"success": True}
    loop["inner"] = {"again": loop}
    assert "inner.again holds itself" in (interpret(loop).error or "")


def test_a_dict_nested_too_deeply() -> None:
    deep: dict[str, Any] = {"success": True}
    for _ in range(100_000):
        deep = {"success": True, "inner": deep}
    outcome = interpret(deep)
    assert (outcome.kind, outcome.transient) == (OutcomeKind.FAILED, False)
    while "inner" in deep:  # or the interpreter takes it apart by recursion
        deep = deep["inner"]


def test_the_data_is_what_json_makes_of_it() -> None:
    outcome = interpret({"success": True, "pair": (1, 2), 5: "five", "kind": OutcomeKind.CREATED})
    assert outcome.result_data == {"success": True, "pair": [1, 2], "5": "five", "kind": "created"}


def test_what_databases_refuse_is_replaced() -> None:
    outcome = interpret({"success": True, "tag": "a\0b", "na\udcffme": ["\ud800", "🗺", "\\u0000"]})
    assert outcome.result_data == {"success": True, "tag": "a\ufffdb", "na\ufffdme": ["\ufffd", "🗺", "\\u0000"]}


def test_texts_are_redacted_and_bounded() -> None:
    outcome = interpret({"success": False, "error": f"GET {SECRET}: 403", "log": [SECRET], "traceback": SECRET})
    assert "canary" not in json.dumps(outcome_to_json(outcome))
    assert "403" in (outcome.error or "")
    assert len(interpret({"success": False, "error": "x" * 10**6}).error or "") == 4_000


@pytest.mark.parametrize(
    ("status", "kind", "transient"),
    [
        (TaskStatus.COMPLETED, OutcomeKind.CREATED, False),
        (TaskStatus.FAILED, OutcomeKind.FAILED, True),
        (TaskStatus.CANCELLED, OutcomeKind.CANCELLED, False),
        (TaskStatus.PROCESSING, OutcomeKind.FAILED, False),
    ],
)
def test_a_task_result_counts_by_its_status(status: TaskStatus, kind: OutcomeKind, *, transient: bool) -> None:
    result = TaskResult(
        task_id="t",
        task_type="x",
        status=status,
        result_data={"n": 1},
        error_details="why",
        timestamp=datetime.now(UTC),
    )
    outcome = interpret(result)
    assert (outcome.kind, outcome.transient) == (kind, transient)
    assert outcome.result_data["n"] == 1
    if status in (TaskStatus.FAILED, TaskStatus.CANCELLED):
        assert outcome.error == "why"


def test_a_task_result_with_data_that_is_not_json() -> None:
    result = TaskResult(
        task_id="t",
        task_type="x",
        status=TaskStatus.COMPLETED,
        result_data={"s": {1}},
        timestamp=datetime.now(UTC),
    )
    assert "s is not a JSON value (type set)" in (interpret(result).error or "")


def test_an_object_that_cannot_even_be_looked_at() -> None:
    class Hostile(dict[str, Any]):
        def items(self) -> Any:
            raise SystemError

    outcome = interpret(Hostile(success=True))
    check_invariants(outcome)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.characters(categories=["Cs", "Cc"]),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(max_size=5) | st.integers() | st.floats() | st.none(), inner, max_size=4)
    ),
    max_leaves=12,
)
odd_values = st.sampled_from([object(), {1}, b"x", 1j, datetime.now(UTC), Exception("x"), float("nan"), range(3), len])
dicts = st.dictionaries(st.text(max_size=5) | st.tuples(st.integers()), json_values | odd_values, max_size=4)
replies = st.fixed_dictionaries(
    {},
    optional={
        "success": st.booleans() | json_values,
        "outcome": st.sampled_from(list(OutcomeKind)) | json_values,
        "error": json_values,
        "reason": json_values,
        "transient": st.booleans() | json_values,
        "error_type": json_values,
        "traceback": json_values,
        "result": json_values | odd_values,
    },
)


@given(st.one_of(replies, dicts, json_values, odd_values))
def test_anything_becomes_exactly_one_outcome(returned: object) -> None:
    check_invariants(interpret(returned))


# --- exceptions ------------------------------------------------------------------------------------------


class LibraryError(Exception):
    pass


class LibraryOSError(OSError):
    pass


@pytest.mark.parametrize(
    "error",
    [
        ThrottledError("slow down"),
        ConnectionResetError(),
        TimeoutError(),
        InterruptedError(),
        BlockingIOError(),
        socket.gaierror(socket.EAI_AGAIN, "no name"),
        OSError(errno.ENOSPC, "disk full"),
        OSError(errno.EMFILE, "too many files"),
        OSError(errno.EIO, "io"),
        OSError(errno.ENETUNREACH, "net"),
        OSError("no number"),
        RuntimeError("library"),
        LibraryError(),
        LibraryOSError(1, "a library's own number"),
        ExceptionGroup("g", [TimeoutError()]),
    ],
)
def test_transient_errors(error: BaseException) -> None:
    assert classify(error) is True


@pytest.mark.parametrize(
    "error",
    [
        ParameterError("p"),
        BlobNotFoundError("b"),
        ValueError(),
        json.JSONDecodeError("x", "y", 0),
        UnicodeDecodeError("utf-8", b"", 0, 1, "x"),
        TypeError(),
        KeyError("k"),
        AttributeError(),
        NameError(),
        ZeroDivisionError(),
        AssertionError(),
        FileNotFoundError(errno.ENOENT, "x"),
        PermissionError(errno.EACCES, "x"),
        OSError(errno.EFBIG, "too large"),
        OSError(errno.ENAMETOOLONG, "name"),
        NotImplementedError(),
        ImportError(),
        MemoryError(),
        RecursionError(),
        SyntaxError(),
        SystemExit(1),
        KeyboardInterrupt(),
        ExceptionGroup("g", [TimeoutError(), ValueError()]),
    ],
)
def test_permanent_errors(error: BaseException) -> None:
    assert classify(error) is False


@pytest.mark.parametrize(("name", "transient"), [("ValueError", False), ("RuntimeError", True), ("SystemExit", False)])
def test_a_handler_that_raises(name: str, *, transient: bool) -> None:
    outcome = execute(handlers.raise_named, {"type": name, "message": f"at {SECRET}"}, {})
    assert outcome.kind is OutcomeKind.FAILED
    assert outcome.transient is transient
    assert (outcome.error or "").startswith(f"{name}: at https://account.blob.example")
    assert "raise_named" in (outcome.traceback or "")
    assert "canary" not in f"{outcome}"


def test_a_handler_that_interrupts_costs_only_its_task() -> None:
    outcome = execute(handlers.raise_named, {"type": "KeyboardInterrupt"}, {})
    assert (outcome.error, outcome.transient) == ("KeyboardInterrupt (no message)", False)


def test_an_exception_whose_text_cannot_be_had() -> None:
    class Mute(Exception):  # noqa: N818
        def __str__(self) -> str:
            raise RuntimeError

    def handler(params: dict[str, Any]) -> None:
        raise Mute

    assert execute(handler, {}, {}).error == "Mute: (its message cannot be shown)"


def test_a_traceback_keeps_its_end() -> None:
    def handler(params: dict[str, Any]) -> None:
        raise ValueError("x" * 20_000 + " the end")

    trace = execute(handler, {}, {}).traceback or ""
    assert len(trace) == 8_000
    assert trace.rstrip().endswith("the end")


# --- the call --------------------------------------------------------------------------------------------


def test_the_handler_gets_a_copy_with_two_more_keys() -> None:
    params = {"blob": "a.tif", "nested": ["as given"]}
    outcome = execute(handlers.echo, params, {})
    given = outcome.result_data["params"]
    assert given.keys() - params.keys() == {"_correlation_id", "_processing_path"}
    assert given["_processing_path"] == "dagster"
    assert len(given["_correlation_id"]) == 8
    execute(handlers.change_params, params, {})
    assert params == {"blob": "a.tif", "nested": ["as given"]}
    assert outcome.execution_time_ms >= 0


def _wrapped(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return wrapper


class _Callable:
    __hash__ = None  # type: ignore[assignment]

    def __call__(self, params: dict[str, Any], context: Any) -> dict[str, Any]:
        return {"success": True}


@pytest.mark.parametrize(
    ("handler", "expected"),
    [
        (lambda params: None, False),
        (lambda params, context: None, True),
        (lambda params, context=None: None, True),
        (lambda params, /, context: None, True),
        (lambda *args: None, True),
        (lambda params, *rest: None, True),
        (lambda params, *, context=None: None, False),
        (lambda params, **more: None, False),
        (lambda: None, False),
        (_wrapped(handlers.echo), False),
        (_wrapped(handlers.echo_context), True),
        (functools.partial(handlers.echo_context, context=TaskContext()), False),
        (handlers.Handlers.greet, False),
        (_Callable(), True),
        (len, False),
        (dict, False),
        (isinstance, True),
        (min, False),  # tells nothing about itself
    ],
)
def test_who_gets_a_context(handler: Callable[..., Any], *, expected: bool) -> None:
    assert takes_context(handler) is expected


def test_the_context_is_passed_as_it_is() -> None:
    context = TaskContext(job_id="j", predecessor_result={"n": 1}, services={"store": object()})
    outcome = execute(handlers.echo_context, {}, context)
    assert outcome.result_data["type"] == "TaskContext"
    assert outcome.result_data["predecessor"] == {"n": 1}
    assert outcome.result_data["context"]["services"] == ["store"]


@pytest.mark.parametrize(
    "data",
    [
        {},
        {"kind": "great"},
        {"kind": "failed", "result_data": [], "error": None},
        {**outcome_to_json(interpret({"success": True})), "extra": 1},
        {**outcome_to_json(interpret({"success": True})), "error": 5},
    ],
)
def test_a_malformed_outcome_from_a_worker_is_refused(data: dict[str, Any]) -> None:
    with pytest.raises((KeyError, ValueError, TypeError)):
        outcome_from_json(data)
