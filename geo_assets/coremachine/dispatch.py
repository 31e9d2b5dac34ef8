"""The way from the queue to runs: recovery of what dead runs left, waves, run requests.

What belongs here: one *tick*, called by the queued-jobs sensor and by ``geo-assets submit --wait`` alike.  What
does not: doing the work (``asset_job``).

A tick may die after any line and be repeated, by this process or another: partition keys are added before a wave
is assigned, a wave stays open until its run has been seen to end, and a run that asks twice for a wave is given
its attempts once.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import dagster as dg

from geo_assets.coremachine import events
from geo_assets.coremachine.binding import Binding
from geo_assets.coremachine.contract import JobStatus, OutcomeKind, PartitionNews
from geo_assets.coremachine.identity import encode_partition_key
from geo_assets.coremachine.ledger import BULK_PRIORITY, Attempt, Job, Wave
from geo_assets.coremachine.machine import CoreMachine
from geo_assets.coremachine.materialization import (
    check_of,
    evaluation_of,
    failure_of,
    failure_of_news,
    materialization_of,
    materialization_of_news,
)
from geo_assets.coremachine.partition_wipe import unmaterialize
from geo_assets.redaction import redact

WAVE_TAG = "geo_assets/wave"
"""Run tag with the wave id; also the sensor's run key."""
BULK_TAG = "geo_assets/bulk"
"""Run tag of waves nobody waits for; ``dagster.yaml`` lets fewer of these run at once than runs in all."""

_PARTITIONS_A_CALL = 5000
_FINISHED = (JobStatus.COMPLETED, JobStatus.COMPLETED_WITH_ERRORS)
_ENDED = frozenset({dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED})


@dataclass(frozen=True, kw_only=True)
class RunAsked:
    """One run the queue asks for."""

    job_name: str
    run_key: str
    tags: Mapping[str, str]


@dataclass(kw_only=True)
class Tick:
    """What one tick did."""

    runs: list[RunAsked] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    """A sentence for each thing that was recovered."""
    waves_open: int = 0


def tick(machine: CoreMachine, instance: dg.DagsterInstance, *, only_jobs: Sequence[Job] = ()) -> Tick:
    """Recover what dead runs left, put queued jobs into waves, and name the runs to start.

    ``only_jobs`` restricts the new waves to these jobs (for a command line that waits for its own).
    """
    done = Tick()
    _recover(machine, instance, done)
    _emit_missing(machine, instance, done)
    _add_partitions(machine, instance)
    machine.ledger.assign_waves(
        wave_size=machine.settings.wave_size, waves_at_once=machine.settings.waves_at_once, only_jobs=only_jobs
    )
    for wave in machine.ledger.open_waves():
        done.waves_open += 1
        if wave.job_type not in machine.registry:
            done.notes.append(f"wave {wave.wave_id} waits: no workflow '{wave.job_type}' is loaded here")
        elif not _runs_of(instance, wave):
            done.runs.append(asked_run(wave))
    return done


def asked_run(wave: Wave) -> RunAsked:
    """The run request of a wave."""
    tags = {WAVE_TAG: wave.wave_id, "geo_assets/jobs": str(wave.size), "dagster/priority": str(wave.priority)}
    if wave.priority <= BULK_PRIORITY:
        tags[BULK_TAG] = "true"
    return RunAsked(job_name=wave.job_type, run_key=wave.wave_id, tags=tags)


def _runs_of(instance: dg.DagsterInstance, wave: Wave) -> list[dg.DagsterRun]:
    # a re-execution carries its parent's tags; only the run that was asked for counts
    runs = instance.get_runs(dg.RunsFilter(tags={WAVE_TAG: wave.wave_id}))
    return [run for run in runs if run.parent_run_id is None]


def _recover(machine: CoreMachine, instance: dg.DagsterInstance, done: Tick) -> None:
    _take_back_jobs(machine, instance, done)
    _close_waves(machine, instance, done)


def _take_back_jobs(machine: CoreMachine, instance: dg.DagsterInstance, done: Tick) -> None:
    """Take from ended runs the jobs they had claimed and not finished."""
    limit = machine.settings.max_releases
    for run_id in machine.ledger.active_run_ids():
        run = instance.get_run_by_id(run_id)
        if run is not None and run.status not in _ENDED:
            continue
        if run is not None and run.status is dg.DagsterRunStatus.CANCELED:
            if cancelled := cancel_unfinished(machine, instance, run_id):
                done.notes.append(f"run {run_id} was terminated: {cancelled} unfinished jobs are cancelled")
            continue
        again, given_up = machine.ledger.release_run(run_id, max_releases=limit)
        what = "is unknown to Dagster" if run is None else "ended"
        if again or given_up:  # otherwise it ended its last job just now
            done.notes.append(f"run {run_id} {what} before its jobs did: {again} queued again, {given_up} given up")


def _close_waves(machine: CoreMachine, instance: dg.DagsterInstance, done: Tick) -> None:
    """Close the waves whose runs have ended, and free the jobs that these never claimed."""
    limit = machine.settings.max_releases
    for wave in machine.ledger.open_waves():
        runs = _runs_of(instance, wave)
        if runs and all(run.status in _ENDED for run in runs):
            cancelled_run = all(run.status is dg.DagsterRunStatus.CANCELED for run in runs)
            failed_run = any(run.status is dg.DagsterRunStatus.FAILURE for run in runs)
            if failed_run:
                _finish_runs(machine, wave, runs, done)
            freed = machine.ledger.close_wave(
                wave.wave_id, cancelled=cancelled_run, count_release=failed_run, max_releases=limit
            )
            if freed:
                fate = "are cancelled" if cancelled_run else "wait again or are given up"
                done.notes.append(f"wave {wave.wave_id}: {freed} jobs that no run had claimed {fate}")
        elif not runs and machine.ledger.waiting_in_wave(wave.wave_id) == 0:
            machine.ledger.close_wave(wave.wave_id, max_releases=limit)  # everything in it was cancelled


def _finish_runs(machine: CoreMachine, wave: Wave, runs: Sequence[dg.DagsterRun], done: Tick) -> None:
    """Do what a workflow does once a run; one that died may not have come to it, and twice does no harm."""
    binding = machine.registry.get(wave.job_type)
    if binding is None:
        return
    jobs = [attempt.parameters for run in runs for attempt in machine.ledger.attempts_of_run(run.run_id)]
    try:
        machine.finish_run(binding, jobs)
    except Exception as error:  # noqa: BLE001 - whatever a workflow raises must not stop the queue
        done.notes.append(redact(f"wave {wave.wave_id}: what is done once a run failed: {error}"))


def cancel_unfinished(machine: CoreMachine, instance: dg.DagsterInstance, run_id: str) -> int:
    """Cancel what a terminated run has not finished, and say so on the partitions; returns how many jobs that were."""
    cancelled = set(machine.ledger.cancel_run(run_id, "the run was terminated"))
    attempts = [a for a in machine.ledger.attempts_of_run(run_id) if a.attempt_id in cancelled]
    for binding, mine in _by_binding(machine, attempts):
        emit_failures(instance, binding, mine, run_id=run_id, step_key="")
    return len(cancelled)


def _by_binding(machine: CoreMachine, attempts: Sequence[Attempt]) -> Iterator[tuple[Binding, list[Attempt]]]:
    """A run's attempts by workflow, of which it has several where several assets were materialized together.

    Not by the run's job: Dagster has another name for it where partitions are materialized from the UI.
    """
    for job_type in dict.fromkeys(attempt.job_type for attempt in attempts):
        if job_type in machine.registry:
            yield machine.registry[job_type], [attempt for attempt in attempts if attempt.job_type == job_type]


def _emit_missing(machine: CoreMachine, instance: dg.DagsterInstance, done: Tick) -> None:
    for run_id in machine.ledger.unemitted_runs():
        run = instance.get_run_by_id(run_id)
        if run is not None and run.status not in _ENDED:
            continue  # its own settle step does it
        if run is None:  # deleted with its history: there is nothing to link to
            machine.ledger.mark_emitted([a.attempt_id for a in machine.ledger.attempts_of_run(run_id)])
            continue
        sent = 0
        for binding, owing in _by_binding(machine, machine.ledger.attempts_of_run(run_id, statuses=_FINISHED)):
            # the run may have died after it wrote events and before the ledger knew
            written = events.materialized_in_run(instance, run_id, binding.asset)
            done_before = [attempt for attempt in owing if attempt.partition_key in written]
            # within one run an evaluation replaces the one before it, so those that were written, too, do no harm
            _emit_checks(instance, binding, done_before, run_id=run_id, step_key="")
            machine.ledger.mark_emitted([attempt.attempt_id for attempt in done_before])
            sent += emit_due(
                machine,
                instance,
                binding,
                run_id=run_id,
                step_key="",
                include_unchanged=run.status is not dg.DagsterRunStatus.SUCCESS,
            )
        if sent:
            done.notes.append(f"run {run_id}: {sent} materializations were still to be written")


def emit_due(
    machine: CoreMachine,
    instance: dg.DagsterInstance,
    binding: Binding,
    *,
    run_id: str,
    step_key: str,
    include_unchanged: bool,
) -> int:
    """Write the materializations a run still owes; returns how many.

    A partition whose job found nothing to do is materialized only if it never was, or if ``include_unchanged``:
    in a run that fails it would turn red otherwise, because it was planned.
    """
    ended = machine.ledger.attempts_of_run(run_id, job_type=binding.job_type, statuses=_FINISHED)
    owed = [attempt for attempt in ended if not attempt.event_emitted]
    nothing_done = [a for a in owed if a.outcome in (OutcomeKind.UNCHANGED, OutcomeKind.SKIPPED)]
    before: set[str] = set()
    if nothing_done and not include_unchanged:
        before = machine.ledger.was_materialized(binding.asset, [a.partition_key for a in nothing_done])
    quiet = {a.attempt_id for a in nothing_done if a.partition_key in before}
    loud = [a for a in owed if a.attempt_id not in quiet]
    emit(machine, instance, binding, loud, run_id=run_id, step_key=step_key)
    machine.ledger.mark_emitted(sorted(quiet))
    return len(loud)


def emit(
    machine: CoreMachine,
    instance: dg.DagsterInstance,
    binding: Binding,
    attempts: Sequence[Attempt],
    *,
    run_id: str,
    step_key: str,
) -> None:
    """Write materializations and checks of finished attempts, then record in the ledger that they are out."""
    if not attempts:
        return
    where = {"run_id": run_id, "job_name": binding.job_type, "step_key": step_key}
    events.report_materializations(
        instance, **where, materializations=[materialization_of(binding, attempt) for attempt in attempts]
    )
    _emit_checks(instance, binding, attempts, run_id=run_id, step_key=step_key)
    machine.ledger.mark_emitted([attempt.attempt_id for attempt in attempts])


def _emit_checks(
    instance: dg.DagsterInstance, binding: Binding, attempts: Sequence[Attempt], *, run_id: str, step_key: str
) -> None:
    """Write whether all tasks went well, where that is in question, and what jobs proved on their way."""
    # where a warning can be, a good attempt takes back the one of a time before
    checked = [a for a in attempts if binding.tolerates_partial_failure or a.status is JobStatus.COMPLETED_WITH_ERRORS]
    proven = [
        evaluation_of(binding.asset, attempt.partition_key, result)
        for attempt in attempts
        for result in binding.check_results(attempt.result_data or {})
    ]
    events.report_checks(
        instance,
        run_id=run_id,
        job_name=binding.job_type,
        step_key=step_key,
        evaluations=[*(check_of(binding, attempt) for attempt in checked), *proven],
    )


def emit_news(
    machine: CoreMachine,
    instance: dg.DagsterInstance,
    news: Sequence[PartitionNews],
    *,
    run_id: str,
    job_name: str,
    step_key: str,
) -> None:
    """Write what tasks said of partitions of other assets: materializations, or on red ones why they failed."""
    by_asset: dict[str, list[PartitionNews]] = {}
    for item in news:
        by_asset.setdefault(item.asset, []).append(item)
    where = {"run_id": run_id, "job_name": job_name, "step_key": step_key}
    for asset, said in by_asset.items():
        owner = next((binding for binding in machine.registry.values() if binding.asset == asset), None)
        if owner is None:
            continue  # a code location with only some of the workflows shows only their assets
        if removed := [encode_partition_key(item.name) for item in said if item.removed]:
            unmaterialize(instance, asset=asset, partition_keys=removed, who=job_name)
            said = [item for item in said if not item.removed]  # noqa: PLW2901
        good = _worth_writing(instance, asset, [item for item in said if item.outcome.is_good])
        bad = [item for item in said if not item.outcome.is_good]
        add_partitions(instance, owner, [encode_partition_key(item.name) for item in (*good, *bad)])
        if good:
            events.report_materializations(
                instance, **where, materializations=[materialization_of_news(item, job_name) for item in good]
            )
            events.report_checks(
                instance,
                **where,
                evaluations=[
                    evaluation_of(asset, encode_partition_key(item.name), result)
                    for item in good
                    for result in item.checks
                ],
            )
        if bad:
            # what was planned in a run that failed is shown red
            keys = [encode_partition_key(item.name) for item in bad]
            events.report_planned(instance, **where, asset=asset, partition_keys=keys)
            events.report_observations(
                instance, **where, observations=[failure_of_news(item, job_name) for item in bad]
            )


def _worth_writing(
    instance: dg.DagsterInstance, asset: str, news: Sequence[PartitionNews]
) -> list[PartitionNews]:  # fmt: skip
    """Without those for which nothing was done and whose partition is materialized already."""
    quiet = (OutcomeKind.UNCHANGED, OutcomeKind.SKIPPED)
    if all(item.outcome not in quiet for item in news):
        return list(news)
    shown = instance.get_materialized_partitions(dg.AssetKey.from_user_string(asset))
    return [item for item in news if item.outcome not in quiet or encode_partition_key(item.name) not in shown]


def emit_failures(
    instance: dg.DagsterInstance, binding: Binding, attempts: Sequence[Attempt], *, run_id: str, step_key: str
) -> None:
    """Write on the partitions of failed attempts why they failed."""
    if attempts:
        events.report_observations(
            instance,
            run_id=run_id,
            job_name=binding.job_type,
            step_key=step_key,
            observations=[failure_of(binding, attempt) for attempt in attempts],
        )


def _add_partitions(machine: CoreMachine, instance: dg.DagsterInstance) -> None:
    settings = machine.settings
    # more than the next waves take, so that a tick is short however long the queue is; a run adds its own as well
    limit = settings.wave_size * (settings.waves_at_once + 1)
    for (_, job_type), keys in machine.ledger.waiting_partitions(limit=limit).items():
        binding = machine.registry.get(job_type)
        if binding is not None:
            add_partitions(instance, binding, keys)


def add_partitions(instance: dg.DagsterInstance, binding: Binding, keys: Sequence[str]) -> None:
    """Add partition keys that are not there yet; at most 5,000 a call, SQLite's limit of variables in view."""
    unique = list(dict.fromkeys(keys))
    for start in range(0, len(unique), _PARTITIONS_A_CALL):
        instance.add_dynamic_partitions(binding.partition_set, unique[start : start + _PARTITIONS_A_CALL])
