"""A workflow as Dagster shows it: a graph-backed, partitioned asset and the asset job that materializes it.

What belongs here: the ops (plan, work, spread, settle), how a run learns which jobs it has, and what it says at
its end.  What does not: the work (``engine``), the queue (``dispatch``), the submit and retry jobs
(``queue_jobs``), lineage and checks (``geo_assets.assets``).

What passes between steps is nothing but order: a chunk's bounds are in its mapping key, tasks are in the ledger,
data in the stores.  So every executor that supports dynamic outputs will do, without shared storage.
"""

import atexit
import contextlib
import functools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import dagster as dg
from dagster._core.errors import DagsterExecutionInterruptedError

from geo_assets.coremachine import dispatch, engine, events
from geo_assets.coremachine.binding import Binding, Segment
from geo_assets.coremachine.contract import EndedTask, JobStatus, OutcomeKind
from geo_assets.coremachine.dispatch import WAVE_TAG
from geo_assets.coremachine.ledger import Attempt, NewJob, Settlement
from geo_assets.coremachine.machine import CoreMachine
from geo_assets.coremachine.materialization import metadata_value, outcome_table
from geo_assets.coremachine.progress import RunProgress, Standing, run_started
from geo_assets.coremachine.reasons import group_of
from geo_assets.coremachine.run_summary import Asked, RunSummary, failure_rows, stage_rows
from geo_assets.coremachine.submission import prepare, source_version_or_none
from geo_assets.coremachine.task_runner import TaskRunner, open_runner
from geo_assets.errors import GeoAssetsError, ParameterError
from geo_assets.redaction import redact
from geo_assets.settings import Settings

MACHINE = "core_machine"
"""Key of the resource that gives ops the :class:`CoreMachine`."""

JOB_TAGS = {
    # the ledger alone recovers work; Dagster's own retries would run it twice
    "dagster/max_retries": "0",
    "dagster/retry_on_asset_or_op_failure": "false",
}

RETRY_OP = "retry_failed__queue"
"""The op of the job ``retry_failed``, whose config chooses what is queued again."""

OUTCOME_TAG = "geo_assets/outcome"
"""Run tag with the counts by outcome, shown in the list of runs."""

PROGRESS_TAG = "geo_assets/progress"
"""Run tag that says how the run stands, and when it said so; of a run that was over soon, there is none."""

_ASKED_TAG = "geo_assets/jobs"
_SAID_AT = re.compile(r" \(at (.+) UTC\)$")

_JOB_CHUNK = re.compile(r"jobs_(\d+)_(\d+)")
_TASK_CHUNK = re.compile(r"tasks_(\d+)_(\d+)_(\d+)_(\d+)")


def build_asset(
    binding: Binding,
    *,
    partitions: Mapping[str, dg.DynamicPartitionsDefinition],
    sets_by_asset: Mapping[str, str],
) -> dg.AssetsDefinition:
    """The asset of a workflow.

    Args:
        binding: the workflow.
        partitions: partition set → definition; assets of one set share one, so that identity mapping is right.
        sets_by_asset: asset → partition set of every workflow asset; what is not in it has no partitions.
    """
    mine = partitions[binding.partition_set]
    spec = dg.AssetSpec(
        key=dg.AssetKey.from_user_string(binding.asset),
        deps=[_dep(upstream, binding.partition_set, sets_by_asset) for upstream in binding.asset_deps],
        description=_description(binding),
        group_name=binding.group,
        kinds=set(binding.kinds),
        owners=list(binding.owners),
        tags={"geo_assets/job_type": binding.job_type, **binding.tags},
        partitions_def=mine,
    )
    return dg.AssetsDefinition(
        node_def=_graph(binding),
        keys_by_input_name={},
        keys_by_output_name={"result": spec.key},
        specs=[spec],
        # a UI selection of neighbouring keys is one run; scattered keys go through the ledger
        backfill_policy=dg.BackfillPolicy.single_run(),
    )


def build_job(binding: Binding, *, executor: dg.ExecutorDefinition) -> Any:
    """The asset job of a workflow; it has the workflow's name."""
    return dg.define_asset_job(
        binding.job_type,
        selection=dg.AssetSelection.assets(dg.AssetKey.from_user_string(binding.asset)).without_checks(),
        description=_description(binding),
        executor_def=executor,
        tags=JOB_TAGS,
    )


def _dep(upstream: str, mine: str, sets_by_asset: Mapping[str, str]) -> dg.AssetDep:
    key = dg.AssetKey.from_user_string(upstream)
    if sets_by_asset.get(upstream, mine) == mine:
        return dg.AssetDep(key)  # the same partitions, or none: Dagster's own mapping is right
    # two dynamic definitions would get an identity mapping, which names partitions that do not exist
    return dg.AssetDep(key, partition_mapping=dg.AllPartitionMapping())


def _description(binding: Binding) -> str:
    stages = " → ".join(stage.name for stage in binding.stages)
    return f"{binding.description or binding.job_type}\n\nStages: {stages}. Submit with `submit_{binding.job_type}`."


# --- the graph -----------------------------------------------------------------------------------------------


def _graph(binding: Binding) -> dg.GraphDefinition:
    """Plan → (chunks → work, once a segment) → settle."""
    segments = binding.segments()
    plan = _plan_op(binding, segments[0])
    steps: list[tuple[dg.OpDefinition | None, dg.OpDefinition]] = []
    for number, segment in enumerate(segments):
        after = None if number == 0 and not segment.fans_out else _chunks_op(binding, segments, number)
        steps.append((after, _work_op(binding, segment)))
    settle = _settle_op(binding, segments)

    @dg.graph(name=f"{binding.job_type}_workflow", out=dg.GraphOut())
    def workflow() -> Any:
        chunks: Any = plan()
        done: Any = None
        for chunks_op, work in steps:
            if chunks_op is not None:
                chunks = chunks_op(start=done if done is not None else chunks)
            done = chunks.map(lambda chunk, work=work: work(start=chunk)).collect()
        return settle(start=done)

    return workflow


_START = {"start": dg.In(dg.Nothing)}


def _plan_op(binding: Binding, first: Segment) -> dg.OpDefinition:
    """Take the run's jobs from the ledger and cut them into chunks."""
    dynamic = not first.fans_out

    @dg.op(
        name=f"{binding.job_type}__plan",
        description="Take this run's jobs from the ledger and plan their partitions.",
        out=dg.DynamicOut(dg.Nothing) if dynamic else dg.Out(dg.Nothing),
        required_resource_keys={MACHINE},
        tags={"kind": "ledger"},
    )
    def plan(context: dg.OpExecutionContext) -> Iterator[Any]:
        machine = machine_of(context)
        claim_jobs(context, machine, binding)
        if dynamic:
            yield from _job_chunks(scope_of(context, machine, binding))
        else:
            yield dg.Output(None)

    return plan


def _chunks_op(binding: Binding, segments: Sequence[Segment], number: int) -> dg.OpDefinition:
    """Judge the segment before, create the tasks of a stage that fans out, cut what is next into chunks."""
    segment = segments[number]
    before = segments[number - 1] if number else None
    verb = "spread" if segment.fans_out else "gather"

    @dg.op(
        name=f"{binding.job_type}__{verb}_{binding.stages[segment.first - 1].name}",
        description="Judge the stage before and cut the next one into chunks.",
        ins=_START,
        out=dg.DynamicOut(dg.Nothing),
        required_resource_keys={MACHINE},
        tags={"kind": "ledger"},
    )
    def chunks(context: dg.OpExecutionContext) -> Iterator[Any]:
        machine = machine_of(context)
        scope = scope_of(context, machine, binding)
        if before is not None and before.fans_out:
            engine.end_fan_out(scope, before.last)
        if not segment.fans_out:
            yield from _job_chunks(scope_of(context, machine, binding))
            return
        engine.spread_tasks(scope, segment.first)
        size = machine.settings.task_chunk_size
        for spans in engine.plan_spans(machine.ledger, context.run_id, segment.first, size, job_type=binding.job_type):
            head, tail = spans[0], spans[-1]
            key = f"tasks_{head.position:06d}_{head.first:06d}_{tail.position:06d}_{tail.last:06d}"
            yield dg.DynamicOutput(None, mapping_key=key)

    return chunks


def _job_chunks(scope: engine.RunScope) -> Iterator[dg.DynamicOutput[None]]:
    attempts = scope.attempts_at_work()
    size = scope.settings.job_chunk_size
    for start in range(0, len(attempts), size):
        chunk = attempts[start : start + size]
        yield dg.DynamicOutput(None, mapping_key=f"jobs_{chunk[0].position:06d}_{chunk[-1].position:06d}")


def _work_op(binding: Binding, segment: Segment) -> dg.OpDefinition:
    """Work one chunk off; what becomes of a task or job is an outcome in the ledger, never an exception."""
    names = "_".join(stage.name for stage in binding.stages[segment.first - 1 : segment.last])

    @dg.op(
        name=f"{binding.job_type}__{names}",
        description=" → ".join(
            stage.description or stage.name for stage in binding.stages[segment.first - 1 : segment.last]
        ),
        ins=_START,
        out=dg.Out(dg.Nothing),
        required_resource_keys={MACHINE},
        tags={"kind": binding.execution},
    )
    def work(context: dg.OpExecutionContext) -> None:
        machine = machine_of(context)
        scope = scope_of(context, machine, binding)
        with _interruptible(context, machine):
            runner = _runner_for(context.run_id, binding, machine.settings)
            key = context.get_mapping_key() or ""
            if bounds := _JOB_CHUNK.fullmatch(key):
                first, last = (int(number) for number in bounds.groups())
                engine.run_jobs(scope, runner, scope.attempts_at_work(first=first, last=last), segment)
            elif bounds := _TASK_CHUNK.fullmatch(key):
                engine.run_tasks(scope, runner, _spans(scope, bounds), segment.first)

    return work


def _spans(scope: engine.RunScope, bounds: re.Match[str]) -> list[engine.TaskSpan]:
    first_position, first_index, last_position, last_index = (int(number) for number in bounds.groups())
    return [
        engine.TaskSpan(
            attempt_id=attempt.attempt_id,
            position=attempt.position or 0,
            first=first_index if attempt.position == first_position else 0,
            last=last_index if attempt.position == last_position else 2**31 - 1,
        )
        for attempt in scope.attempts_at_work(first=first_position, last=last_position)
    ]


def _settle_op(binding: Binding, segments: Sequence[Segment]) -> dg.OpDefinition:
    """Judge the last stage, write what is still owed, and say how the run ended."""

    @dg.op(
        name=f"{binding.job_type}__settle",
        description="Settle what is left, check that the counts add up, fail the run if any job failed.",
        ins=_START,
        # partitions are materialized one by one by the work, never by this output
        out=dg.Out(dg.Nothing, is_required=False),
        required_resource_keys={MACHINE},
        tags={"kind": "ledger"},
    )
    def settle(context: dg.OpExecutionContext) -> Iterator[dg.Output[None]]:
        machine = machine_of(context)
        scope = scope_of(context, machine, binding)
        try:
            if context.run.parent_run_id and not machine.ledger.attempts_of_run(
                context.run_id, job_type=binding.job_type
            ):
                # re-executed "from failure": the steps before this one were not repeated, so do their work here
                _whole_run(context, machine, scope, segments)
            if segments[-1].fans_out:
                engine.end_fan_out(scope, segments[-1].last)
        finally:
            close_runner(kill=False)
        _conclude(context, machine, binding)
        yield from ()

    return settle


def _whole_run(
    context: dg.OpExecutionContext, machine: CoreMachine, scope: engine.RunScope, segments: Sequence[Segment]
) -> None:
    claim_jobs(context, machine, scope.binding)
    with _interruptible(context, machine):
        for number, segment in enumerate(segments):
            runner = _runner_for(context.run_id, scope.binding, machine.settings)
            if segment.fans_out:
                engine.spread_tasks(scope, segment.first)
                for spans in engine.plan_spans(
                    machine.ledger,
                    context.run_id,
                    segment.first,
                    machine.settings.task_chunk_size,
                    job_type=scope.binding.job_type,
                ):
                    engine.run_tasks(scope, runner, spans, segment.first)
                if number < len(segments) - 1:
                    engine.end_fan_out(scope, segment.first)
            else:
                attempts = scope.attempts_at_work()
                engine.run_jobs(scope, runner, attempts, segment)


def _conclude(context: dg.OpExecutionContext, machine: CoreMachine, binding: Binding) -> None:
    problems = machine.ledger.attempts_of_run(context.run_id, job_type=binding.job_type, statuses=_ENDED_BADLY)
    outcomes = _run_outcomes(machine, context.run_id, binding, problems)
    refused = _tags(context).get(_REFUSED_TAG)
    unfinished = outcomes.get(JobStatus.PROCESSING.value, 0)
    left_undone = _finish_run(context, machine, binding)
    failing = bool(problems or refused or unfinished or left_undone)
    dispatch.emit_due(
        machine,
        context.instance,
        binding,
        run_id=context.run_id,
        step_key=_step_key(context),
        include_unchanged=failing,
    )
    summary = _summarize(context, machine, binding, outcomes, problems)
    if summary.problem:
        context.log.error("%s", summary.problem)
    if skipped := _tags(context).get(_SKIPPED_TAG):
        context.log.warning("skipped(busy): another run is at work on %s", skipped)
    if failing:
        raise dg.Failure(
            description=_what_failed(
                problems,
                total=sum(outcomes.values()),
                unfinished=unfinished,
                others=[text for text in (refused, left_undone) if text],
            ),
            metadata={
                "outcomes": dg.MetadataValue.md(outcome_table(outcomes)),
                "failures": dg.MetadataValue.md(_failures_table(problems)),
            },
            allow_retries=False,
        )


def _summarize(
    context: dg.OpExecutionContext,
    machine: CoreMachine,
    binding: Binding,
    outcomes: Mapping[str, int],
    problems: Sequence[Attempt],
) -> RunSummary:
    """Show the run's outcomes as a table on its page, and in a line in the list of runs."""
    tags = _tags(context)
    jobs = sum(outcomes.values())
    # of a run for several assets, the tag says what the last of them took
    alone = jobs == sum(machine.ledger.run_outcomes(context.run_id).values())
    started = run_started(machine.ledger, context.run_id)
    summary = RunSummary(
        outcomes=outcomes,
        asked=(Asked.parse(tags.get(_ASKED_TAG, "")) if alone else None) or Asked(jobs=jobs),
        seconds=(datetime.now(UTC) - started).total_seconds() if started is not None else 0.0,
    )
    news = {OUTCOME_TAG: ", ".join(f"{count} {name}" for name, count in sorted(outcomes.items())) or "nothing to do"}
    if PROGRESS_TAG in tags:
        news[PROGRESS_TAG] = summary.sentence  # tags can be replaced but not taken away
    context.instance.add_run_tags(context.run_id, news)
    context.log.info("%s: %d jobs\n\n%s", binding.job_type, jobs, outcome_table(outcomes))
    tables = {
        "outcomes": summary.rows,
        "failures": failure_rows(problems),
        "stages": stage_rows(
            machine.ledger.attempts_of_run(context.run_id, job_type=binding.job_type),
            [stage.name for stage in binding.stages],
        ),
    }
    # of all events that a good step can log, only this one's metadata is drawn as tables on the run's page
    context.log_event(
        dg.AssetObservation(
            asset_key=dg.AssetKey.from_user_string(binding.asset),
            description=summary.sentence,
            metadata={
                # the run's page leaves the description out
                "summary": summary.sentence,
                **{name: metadata_value(rows) for name, rows in tables.items() if rows},
            },
        )
    )
    return summary


_ENDED_BADLY = (JobStatus.FAILED, JobStatus.COMPLETED_WITH_ERRORS, JobStatus.CANCELLED)


def _run_outcomes(machine: CoreMachine, run_id: str, binding: Binding, problems: Sequence[Attempt]) -> dict[str, int]:
    """Outcome → number of jobs, with the partly failed ones, whose partition is materialized, under their own name."""
    outcomes = dict(machine.ledger.run_outcomes(run_id, job_type=binding.job_type))
    for attempt in problems:
        if attempt.status is JobStatus.COMPLETED_WITH_ERRORS and attempt.outcome is not None:
            outcomes[attempt.outcome.value] -= 1
            outcomes[attempt.status.value] = outcomes.get(attempt.status.value, 0) + 1
    return {name: count for name, count in outcomes.items() if count}


def _finish_run(context: dg.OpExecutionContext, machine: CoreMachine, binding: Binding) -> str | None:
    """Do what the workflow does once a run; what is wrong with it, in words."""
    mine = machine.ledger.attempts_of_run(context.run_id, job_type=binding.job_type)
    jobs = [attempt.parameters for attempt in mine]
    try:
        machine.finish_run(binding, jobs)
    except Exception as error:  # noqa: BLE001 - the jobs are done, whatever a workflow raises here
        return redact(f"the jobs are done, but what is done once a run failed: {type(error).__name__}: {error}")
    return None


def _what_failed(problems: Sequence[Attempt], *, total: int, unfinished: int, others: Sequence[str]) -> str:
    """One sentence for the run's page: how many of how many, and the job that queues them again."""
    partly = [attempt for attempt in problems if attempt.status is JobStatus.COMPLETED_WITH_ERRORS]
    whole = len(problems) - len(partly)
    parts = [f"{whole} of {total} failed"] if whole else []
    if partly:
        summaries = [summary for attempt in partly for summary in attempt.stage_results.values() if summary["failed"]]
        failed, tasks = (sum(int(summary[name]) for summary in summaries) for name in ("failed", "tasks"))
        parts.append(f"{failed} of {tasks} tasks failed in {len(partly)} of {total} jobs that are otherwise complete")
    if unfinished:
        parts.append(f"{unfinished} did not finish; the queue takes them up again")
    parts += others
    if problems:
        parts += [_first_reasons(problems), _how_to_retry(problems[0].run_id)]
    return "; ".join(parts)


def _first_reasons(problems: Sequence[Attempt], limit: int = 3, most: int = 200) -> str:
    """Which, and why, of the first; all of them are in the table beside."""
    told = [f"{one.partition_key}: {(one.reason or 'no reason was given')[:most]}" for one in problems[:limit]]
    more = f" · and {len(problems) - limit} more, see the tables of this run" if len(problems) > limit else ""
    return " · ".join(told) + more


def _how_to_retry(run_id: str | None) -> str:
    config = f'{{ops: {{{RETRY_OP}: {{config: {{run_id: "{run_id}"}}}}}}}}'
    return (
        f"to queue just these again, run the job retry_failed with this in its launchpad: {config}"
        f" (or: geo-assets retry --failed --run {run_id})"
    )


def _tags(context: dg.OpExecutionContext) -> Mapping[str, str]:
    """The run's tags as they are now; the context keeps those the run began with."""
    run = context.instance.get_run_by_id(context.run_id)
    return run.tags if run is not None else {}


def _failures_table(problems: Sequence[Attempt], limit: int = 200) -> str:
    """What failed, by reason and one by one; the counts of the reasons add up to all."""
    groups: dict[str, list[Attempt]] = {}
    for attempt in problems:
        groups.setdefault(group_of(attempt.reason), []).append(attempt)
    most_first = sorted(groups.items(), key=lambda item: (-len(item[1]), item[0]))
    lines = ["| jobs | reason | such as |", "|---:|---|---|"]
    for reason, group in most_first[:_GROUPS_SHOWN]:
        lines.append(f"| {len(group)} | {_cell(reason)} | {_cell(group[0].partition_key)} |")
    if rest := most_first[_GROUPS_SHOWN:]:
        lines.append(f"| {sum(len(group) for _, group in rest)} | {len(rest)} other reasons | |")
    lines += [f"| **{len(problems)}** | **all** | |", "", "| partition | outcome | reason |", "|---|---|---|"]
    shown = [attempt for _, group in most_first for attempt in group][:limit]
    for attempt in shown:
        lines.append(f"| {_cell(attempt.partition_key)} | {attempt.outcome} | {_cell(attempt.reason or '')} |")
    if len(problems) > limit:
        lines.append(f"| … | | and {len(problems) - limit} more: geo-assets failures --run {problems[0].run_id} |")
    return "\n".join(lines)


_GROUPS_SHOWN = 20


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")[:300]


# --- which jobs a run has ------------------------------------------------------------------------------------

_SKIPPED_TAG = "geo_assets/skipped_busy"
_REFUSED_TAG = "geo_assets/refused"


def claim_jobs(context: dg.OpExecutionContext, machine: CoreMachine, binding: Binding) -> list[Attempt]:
    """Take this run's jobs from the ledger: a wave's, a re-execution's, or those of the partitions it was given.

    Plans the partitions that Dagster itself did not plan when it created the run.
    """
    run = context.run
    wave_id = run.tags.get(WAVE_TAG)
    own_partitions = context.has_partition_key or context.has_partition_key_range
    if run.parent_run_id is not None:
        attempts = _claim_again(machine, binding, run.parent_run_id, context.run_id)
    elif own_partitions:
        attempts = _claim_partitions(context, machine, binding, list(context.partition_keys))
    elif wave_id is not None:
        attempts = machine.ledger.claim_wave(wave_id, context.run_id)
    else:
        msg = (
            f"this run names neither partitions nor a wave: materialize a partition of {binding.asset},"
            f" or submit jobs with submit_{binding.job_type} (or: geo-assets submit {binding.job_type})"
        )
        raise dg.Failure(msg, allow_retries=False)
    context.log.info("%d jobs claimed by this run", len(attempts))
    if not own_partitions or run.parent_run_id is not None:
        context.instance.add_run_tags(context.run_id, {_ASKED_TAG: str(Asked(jobs=len(attempts)))})
    if not own_partitions:
        _plan_partitions(context, machine, binding, attempts)
    return attempts


def _plan_partitions(
    context: dg.OpExecutionContext, machine: CoreMachine, binding: Binding, attempts: Sequence[Attempt]
) -> None:
    todo = [attempt for attempt in attempts if not attempt.planned]
    if not todo:
        return
    dispatch.add_partitions(context.instance, binding, [attempt.partition_key for attempt in todo])
    events.report_planned(
        context.instance,
        run_id=context.run_id,
        job_name=binding.job_type,
        step_key=_step_key(context),
        asset=binding.asset,
        partition_keys=[attempt.partition_key for attempt in todo],
    )
    machine.ledger.mark_planned([attempt.attempt_id for attempt in todo])


def _claim_again(machine: CoreMachine, binding: Binding, parent_run_id: str, run_id: str) -> list[Attempt]:
    """A re-executed run takes up the parent's jobs that did not end well and that nobody else has run since."""
    again = [
        NewJob(
            job_type=attempt.job_type,
            job_id=attempt.job_id,
            asset=attempt.asset,
            partition_key=attempt.partition_key,
            parameters=attempt.parameters,
            total_stages=binding.total_stages,
            metadata=attempt.job_metadata,
            source_version=source_version_or_none(machine, binding, attempt.parameters),
            submitted_by="re-execution",
        )
        for attempt in machine.ledger.attempts_of_run(parent_run_id, job_type=binding.job_type)
        if attempt.status not in (JobStatus.COMPLETED, JobStatus.QUEUED)
        and machine.ledger.job(attempt.job_id, attempt.job_type).latest_attempt == attempt.attempt_id
    ]
    attempts, _ = machine.ledger.claim_now(again, run_id)
    return attempts


def _claim_partitions(
    context: dg.OpExecutionContext, machine: CoreMachine, binding: Binding, keys: Sequence[str]
) -> list[Attempt]:
    """Materialize from the UI: no typing where the parameters are known or follow from the key."""
    new_jobs: list[NewJob] = []
    refused: list[str] = []
    for key in keys:
        try:
            new_jobs.append(_job_for_partition(machine, binding, key))
        except GeoAssetsError as error:
            refused.append(f"{key}: {error}")
    attempts, busy = machine.ledger.claim_now(new_jobs, context.run_id)
    tags = {_ASKED_TAG: str(Asked(jobs=len(attempts), busy=len(busy), refused=len(refused)))}
    if busy:
        tags[_SKIPPED_TAG] = _some([new.partition_key for new in busy])
    if refused:
        tags[_REFUSED_TAG] = _some(refused)
    context.instance.add_run_tags(context.run_id, tags)
    if refused and not attempts:
        raise dg.Failure(_some(refused), allow_retries=False)
    return attempts


def _some(items: Sequence[str], limit: int = 5) -> str:
    more = f"; and {len(items) - limit} more" if len(items) > limit else ""
    return "; ".join(items[:limit]) + more


def _job_for_partition(machine: CoreMachine, binding: Binding, key: str) -> NewJob:
    latest = machine.ledger.latest_job(binding.asset, key, binding.job_type)
    params = latest.parameters if latest is not None else binding.parameters_for(key)
    if params is None:
        msg = (
            f"the parameters of {binding.job_type} do not follow from a partition key and no job was submitted for"
            f" this one yet: run the job submit_{binding.job_type}"
        )
        raise ParameterError(msg)
    return prepare(machine, binding, params, force=True, submitted_by="materialize")


# --- plumbing ------------------------------------------------------------------------------------------------


def machine_of(context: Any) -> CoreMachine:
    """The machine from the context's resource."""
    machine: CoreMachine = getattr(context.resources, MACHINE).machine()
    return machine


def scope_of(context: dg.OpExecutionContext, machine: CoreMachine, binding: Binding) -> engine.RunScope:
    """What the engine needs to work for this step."""
    step_key = _step_key(context)
    to_log = _LOGGED_FAILURES

    def on_settled(settled: engine.Settled) -> None:
        nonlocal to_log
        ended = [_ended(attempt, settlement) for attempt, settlement in settled]
        where = {"run_id": context.run_id, "step_key": step_key}
        # what found nothing to do is decided on at the end of the run
        nothing_done = (OutcomeKind.UNCHANGED, OutcomeKind.SKIPPED)
        good = [attempt for attempt in ended if attempt.status in _GOOD and attempt.outcome not in nothing_done]
        bad = [attempt for attempt in ended if attempt.status not in _GOOD]
        dispatch.emit(machine, context.instance, binding, good, **where)
        dispatch.emit_failures(context.instance, binding, bad, **where)
        for attempt in bad[:to_log]:
            context.log.error("%s: %s: %s", attempt.partition_key, attempt.outcome, attempt.reason)
        to_log = max(0, to_log - len(bad))

    def on_tasks(ended: Sequence[EndedTask]) -> None:
        news = [item for task in ended for item in binding.partition_news(task)]
        dispatch.emit_news(
            machine, context.instance, news, run_id=context.run_id, job_name=binding.job_type, step_key=step_key
        )

    return engine.RunScope(
        ledger=machine.ledger,
        binding=binding,
        run_id=context.run_id,
        services=machine.services,
        settings=machine.settings,
        on_settled=on_settled,
        log=context.log.info,
        on_tasks=on_tasks,
        progress=_progress_of(context, machine),
        on_progress=functools.partial(_show_progress, context),
    )


_progress: dict[str, RunProgress] = {}
"""That of the run at work in this process, by run id: kept across its steps."""


def _progress_of(context: dg.OpExecutionContext, machine: CoreMachine) -> RunProgress:
    if context.run_id not in _progress:
        _progress.clear()
        _progress[context.run_id] = RunProgress(
            machine.ledger, context.run_id, last_told=functools.partial(_last_told, context)
        )
    return _progress[context.run_id]


def _show_progress(context: dg.OpExecutionContext, standing: Standing) -> None:
    # the list of runs shows the beginning of a tag
    said = f"{standing.gist} · {standing.line} (at {datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC)"
    # what is only said must not end the work, where Dagster's storage is away for a moment
    with contextlib.suppress(Exception):
        context.log.info("%s", standing.line)
        context.instance.add_run_tags(context.run_id, {PROGRESS_TAG: said})


def _last_told(context: dg.OpExecutionContext) -> datetime | None:
    with contextlib.suppress(Exception):
        return _said_at(_tags(context))
    return None


def _said_at(tags: Mapping[str, str]) -> datetime | None:
    found = _SAID_AT.search(tags.get(PROGRESS_TAG, ""))
    return datetime.fromisoformat(f"{found[1]}+00:00") if found else None


_GOOD = (JobStatus.COMPLETED, JobStatus.COMPLETED_WITH_ERRORS)

_LOGGED_FAILURES = 20
"""Most failures a step writes to Dagster's log; all of them are in the ledger and in the run's failure table."""


def _ended(attempt: Attempt, settlement: Settlement) -> Attempt:
    """The attempt as the ledger has it after the settlement."""
    return replace(
        attempt,
        status=settlement.status,
        outcome=settlement.outcome,
        reason=settlement.reason,
        error_details=settlement.error_details,
        result_data=dict(settlement.result_data or {}),
        stage_results=dict(settlement.stage_results),
        ended_at=datetime.now(UTC),
    )


def _step_key(context: dg.OpExecutionContext) -> str:
    key: str = context.get_step_execution_context().step.key
    return key


class _interruptible:  # noqa: N801 - reads as a clause
    """When the run is terminated: cancel its unfinished jobs and end its worker processes."""

    def __init__(self, context: dg.OpExecutionContext, machine: CoreMachine) -> None:
        self._context = context
        self._machine = machine

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if error is None:
            return
        close_runner(kill=True)
        if isinstance(error, DagsterExecutionInterruptedError | KeyboardInterrupt):
            run = self._context.instance.get_run_by_id(self._context.run_id)
            terminated = run is None or run.status in (
                dg.DagsterRunStatus.CANCELING,
                dg.DagsterRunStatus.CANCELED,
            )
            if terminated:  # otherwise the machine is going down: the queue takes the jobs up again
                dispatch.cancel_unfinished(self._machine, self._context.instance, self._context.run_id)


_runner: dict[str, TaskRunner] = {}
"""The one warm pool of this process, by run id and job type."""


def _runner_for(run_id: str, binding: Binding, settings: Settings) -> TaskRunner:
    name = f"{run_id} {binding.job_type}"
    if name not in _runner:
        close_runner(kill=True)
        _runner[name] = open_runner(
            binding.execution,
            settings=settings,
            limits=binding.limits,
            preload=sorted({handler.__module__ for handler in binding.handlers.values()}),
        )
    return _runner[name]


def close_runner(*, kill: bool) -> None:
    """Close this process's pool of workers, if there is one."""
    while _runner:
        _runner.popitem()[1].close(kill=kill)


atexit.register(close_runner, kill=True)
