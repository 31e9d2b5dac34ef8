"""What an asset's partition shows in the Dagster UI: the job's outcome as metadata, and its check.

What belongs here: turning a settled attempt into a materialization and a check evaluation.  What does not:
writing them (``events``) and pictures of data, which workflows add through ``materialization_metadata``.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import dagster as dg

from geo_assets.coremachine.binding import Binding
from geo_assets.coremachine.contract import PICTURES, CheckResult, JobStatus, Markdown, OutcomeKind, PartitionNews
from geo_assets.coremachine.identity import encode_partition_key
from geo_assets.coremachine.ledger import Attempt
from geo_assets.redaction import redact

CHECK_NAME = "all_tasks_succeeded"
"""Name of the partitioned check on every workflow asset."""

_COLUMN_SCHEMA = "dagster/column_schema"
"""Dagster's own key for columns: a list of ``name``, ``type`` and perhaps ``description``."""
_ROW_COUNT, _PARTITION_ROW_COUNT = "dagster/row_count", "dagster/partition_row_count"
_RESULT_LIMIT = 8000
"""Most characters of the result shown in the event; all of it is in the ledger."""


def materialization_of(binding: Binding, attempt: Attempt) -> dg.AssetMaterialization:
    """The materialization of a finished attempt, with the job id, outcome, counts and result."""
    result = attempt.result_data or {}
    metadata: dict[str, Any] = {"geo/outcome": attempt.outcome.value if attempt.outcome else ""}
    if attempt.reason:
        metadata["geo/reason"] = attempt.reason
    # what people came for, then how it came about
    metadata.update(_own_metadata(binding, result))
    metadata |= {
        "geo/status": attempt.status.value,
        "geo/job_type": attempt.job_type,
        "geo/job_id": attempt.job_id,
        "geo/attempt": attempt.number,
    }
    if attempt.source_version:
        metadata["geo/source_version"] = attempt.source_version
    if attempt.started_at and attempt.ended_at:
        metadata["geo/duration_seconds"] = round((attempt.ended_at - attempt.started_at).total_seconds(), 3)
    if attempt.stage_results:
        metadata["geo/stages"] = _stages_table(attempt.stage_results)
    metadata["geo/result"] = _result_value(result, attempt.job_id)
    tags = {"geo_assets/job_type": attempt.job_type}
    if attempt.source_version:
        tags["dagster/data_version"] = attempt.source_version
    return dg.AssetMaterialization(
        asset_key=dg.AssetKey.from_user_string(binding.asset),
        partition=attempt.partition_key,
        description=_sentence(attempt),
        metadata=metadata,
        tags=tags,
    )


def _own_metadata(binding: Binding, result: dict[str, Any]) -> dict[str, Any]:
    """What the workflow shows of its result; a value that cannot be shown is named, as it must not lose the result."""
    try:
        return _named_values(binding.materialization_metadata(result))
    except Exception as error:  # noqa: BLE001 - whatever a workflow raises here
        return {"geo/metadata_problem": redact(f"{type(error).__name__}: {error}")}


def _named_values(values: Mapping[str, Any]) -> dict[str, Any]:
    if _ROW_COUNT in values:  # Dagster has a name for rows of an asset and one for those of a partition; both are read
        values = {_PARTITION_ROW_COUNT: values[_ROW_COUNT], **values}
    return {name if "/" in name else f"geo/{name}": _value_of(name, value) for name, value in values.items()}


def _value_of(name: str, value: Any) -> Any:
    if name != _COLUMN_SCHEMA:
        return metadata_value(value)
    columns = [dg.TableColumn(one["name"], type=one["type"], description=one.get("description")) for one in value]
    return dg.MetadataValue.table_schema(dg.TableSchema(columns=columns))


def materialization_of_news(news: PartitionNews, job_type: str) -> dg.AssetMaterialization:
    """The materialization that a task of another workflow brought about."""
    tags = {} if news.source_version is None else {"dagster/data_version": news.source_version}
    metadata = {
        "geo/outcome": news.outcome.value,
        **({"geo/reason": news.reason} if news.reason else {}),
        **_named_values(news.metadata),
        "geo/job_type": job_type,
    }
    return dg.AssetMaterialization(
        asset_key=dg.AssetKey.from_user_string(news.asset),
        partition=encode_partition_key(news.name),
        description=f"{news.outcome.value} by {job_type}",
        metadata=metadata,
        tags=tags,
    )


def failure_of_news(news: PartitionNews, job_type: str) -> dg.AssetObservation:
    """What a partition shows that a task of another workflow could not materialize."""
    return dg.AssetObservation(
        asset_key=dg.AssetKey.from_user_string(news.asset),
        partition=encode_partition_key(news.name),
        description=f"{job_type} {news.outcome.value}",
        metadata={
            "geo/outcome": news.outcome.value,
            "geo/reason": news.reason or "no reason was given",
            **_named_values(news.metadata),
        },
    )


def failure_of(binding: Binding, attempt: Attempt) -> dg.AssetObservation:
    """What a partition shows that was not materialized: why, and the job to look at.

    An observation, because Dagster has no event of its own for it; the partition stays red.
    """
    reason = attempt.error_details or attempt.reason or "no reason was given"
    return dg.AssetObservation(
        asset_key=dg.AssetKey.from_user_string(binding.asset),
        partition=attempt.partition_key,
        description=f"{attempt.job_type} {attempt.outcome.value if attempt.outcome else attempt.status.value}",
        metadata={
            "geo/outcome": attempt.outcome.value if attempt.outcome else attempt.status.value,
            "geo/reason": reason,
            "geo/job_id": attempt.job_id,
            "geo/attempt": attempt.number,
            "geo/what_to_do": f"mend the cause, then materialize this partition, run the job retry_failed, or:"
            f" geo-assets retry {attempt.job_id[:12]}",
        },
    )


def check_of(binding: Binding, attempt: Attempt) -> dg.AssetCheckEvaluation:
    """The check evaluation of a finished attempt: a warning where some of its tasks failed."""
    failed = sum(int(summary.get("failed", 0)) for summary in attempt.stage_results.values())
    total = sum(int(summary.get("tasks", 0)) for summary in attempt.stage_results.values())
    passed = attempt.status is JobStatus.COMPLETED
    return dg.AssetCheckEvaluation(
        asset_key=dg.AssetKey.from_user_string(binding.asset),
        check_name=CHECK_NAME,
        passed=passed,
        severity=dg.AssetCheckSeverity.WARN
        if attempt.status is JobStatus.COMPLETED_WITH_ERRORS
        else dg.AssetCheckSeverity.ERROR,
        description=None if passed else (attempt.error_details or attempt.reason),
        metadata={
            "geo/tasks": dg.MetadataValue.int(total),
            "geo/failed": dg.MetadataValue.int(failed),
            "geo/job_id": dg.MetadataValue.text(attempt.job_id),
        },
        partition=attempt.partition_key,
    )


def evaluation_of(asset: str, partition_key: str, result: CheckResult) -> dg.AssetCheckEvaluation:
    """The evaluation of a check of one partition."""
    return dg.AssetCheckEvaluation(
        asset_key=dg.AssetKey.from_user_string(asset),
        check_name=result.check,
        passed=result.passed,
        severity=dg.AssetCheckSeverity.WARN if result.warning else dg.AssetCheckSeverity.ERROR,
        description=result.description,
        metadata=_named_values(result.metadata),
        partition=partition_key,
    )


def metadata_value(value: Any) -> Any:
    """Dagster's form of a plain value: a list of flat dicts becomes a table, other structures JSON, the rest text."""
    if value is None or isinstance(value, dg.MetadataValue | bool | int | float):
        return value
    if isinstance(value, Markdown):
        return dg.MetadataValue.md(value)
    if isinstance(value, Mapping):
        return dg.MetadataValue.json(json.loads(json.dumps(value)))
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        if value and all(isinstance(row, Mapping) for row in value):
            return _table(value)
        return dg.MetadataValue.json(json.loads(json.dumps(value)))
    return str(value)


def outcome_table(outcomes: Mapping[str, int]) -> str:
    """Markdown table of a run's outcomes with their sum."""
    lines = ["| outcome | jobs |", "|---|---:|"]
    lines += [f"| {kind.value} | {outcomes[kind.value]} |" for kind in OutcomeKind if outcomes.get(kind.value)]
    lines += [f"| {name} | {count} |" for name, count in sorted(outcomes.items()) if name not in set(OutcomeKind)]
    lines.append(f"| **all** | **{sum(outcomes.values())}** |")
    return "\n".join(lines)


def _sentence(attempt: Attempt) -> str:
    what = f"{attempt.job_type} {attempt.outcome.value if attempt.outcome else attempt.status.value}"
    if attempt.status is JobStatus.COMPLETED_WITH_ERRORS:
        failed = sum(int(summary.get("failed", 0)) for summary in attempt.stage_results.values())
        total = sum(int(summary.get("tasks", 0)) for summary in attempt.stage_results.values())
        return f"{what}: {failed} of {total} tasks failed"
    return what


def _stages_table(stage_results: Mapping[str, Any]) -> dg.TableMetadataValue:
    rows = [
        {
            "stage": int(number),
            "tasks": summary["tasks"],
            "completed": summary["completed"],
            "failed": summary["failed"],
        }
        for number, summary in sorted(stage_results.items(), key=lambda item: int(item[0]))
    ]
    return _table(rows)


def _table(rows: Sequence[Mapping[str, Any]]) -> dg.TableMetadataValue:
    flat = [
        {
            str(name): value if isinstance(value, str | int | float | bool) or value is None else json.dumps(value)
            for name, value in row.items()
        }
        for row in rows
    ]
    columns = list(dict.fromkeys(name for row in flat for name in row))
    kinds = {bool: "bool", int: "int", float: "float"}
    schema = dg.TableSchema(
        columns=[
            dg.TableColumn(
                name,
                type=kinds.get(type(next((row[name] for row in flat if row.get(name) is not None), "")), "string"),
            )
            for name in columns
        ]
    )
    return dg.MetadataValue.table([dg.TableRecord({name: row.get(name) for name in columns}) for row in flat], schema)


def _result_value(result: Mapping[str, Any], job_id: str) -> dg.MetadataValue[Any]:
    shown = {name: value for name, value in result.items() if name != PICTURES}
    text = json.dumps(shown)
    if len(text) > _RESULT_LIMIT:
        return dg.MetadataValue.text(f"{len(text):,} characters; see: geo-assets status {job_id[:12]} --json")
    return dg.MetadataValue.json(shown)
