"""Mending what a reconciliation found, as far as that is without a doubt; on record in the audit.

What belongs here: what each action does.  What does not: which action belongs to a finding (``judge``, ``wording``).

Each step may be done twice, so that a repair that was killed is finished by reconciling and repairing once more: a job
that waits already is not queued again, an item that is gone stays gone, a partition that is shown is shown once more.
"""

import contextlib
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from geo_assets.coremachine.ledger import Decision, Job
from geo_assets.coremachine.machine import CoreMachine
from geo_assets.coremachine.submission import retry_jobs
from geo_assets.errors import BlobNotFoundError, ContainerNotFoundError, GeoAssetsError, JobNotFoundError
from geo_assets.jobs.vector_staging import sweep
from geo_assets.reconciliation.findings import Action, Finding
from geo_assets.reconciliation.looks import blob_of_href, root_of
from geo_assets.redaction import redact
from geo_assets.stores.catalog import CatalogStore, ItemReferences, present_item, references_of
from geo_assets.unpublish import Wipe

__all__ = ["ACTION", "Mended", "Show", "repair"]

ACTION = "reconcile"
"""The action in the audit."""
_BATCH = 500

Show = Callable[[Sequence[Finding]], None]
"""Lets Dagster show the partitions of findings again; may be done twice."""


@dataclass(frozen=True, kw_only=True)
class Mended:
    """What became of one finding."""

    finding: Finding
    outcome: str
    """``planned``, ``queued``, ``waits already``, ``removed``, ``shown``, ``swept``, ``left`` or ``failed``."""
    detail: str = ""

    def as_dict(self) -> dict[str, Any]:
        """What the audit and ``--json`` say of it."""
        return {**self.finding.as_dict(), "outcome": self.outcome, "detail": self.detail}


def repair(
    machine: CoreMachine,
    findings: Sequence[Finding],
    *,
    who: str,
    execute: bool = False,
    show: Show | None = None,
    wipe: Wipe | None = None,
) -> list[Mended]:
    """Mend; without ``execute`` only say what would be done.

    Args:
        machine: as for ``reconcile``.
        findings: of a reconciliation.
        who: for the audit.
        execute: do it.
        show: lets Dagster show partitions again; ``None``: those are left.
        wipe: lets Dagster show nothing of partitions whose item is removed.

    Returns:
        One a finding, in order; what has no action, or cannot be done here, is ``left``.

    Raises:
        LedgerUnavailableError: nothing more can be done without the ledger; repeat it.
    """
    able = [one.action is not None and (one.action is not Action.SHOW or show is not None) for one in findings]
    if not execute:
        return [
            Mended(finding=one, outcome="planned" if can else "left") for one, can in zip(findings, able, strict=True)
        ]
    done: dict[int, Mended] = {}
    todo = [position for position, can in enumerate(able) if can]
    for start in range(0, len(todo), _BATCH):
        positions = todo[start : start + _BATCH]
        done.update(
            zip(positions, _repair_some(machine, [findings[at] for at in positions], who, show, wipe), strict=True)
        )
    return [done.get(position, Mended(finding=one, outcome="left")) for position, one in enumerate(findings)]


def _repair_some(
    machine: CoreMachine, findings: Sequence[Finding], who: str, show: Show | None, wipe: Wipe | None
) -> list[Mended]:
    audits = _begun(machine, findings, who)
    ended: dict[int, Mended] = {}
    try:
        for action, mend in (
            (Action.REMOVE_ITEM, lambda machine, some: _remove_items(machine, some, wipe)),
            (Action.QUEUE, _queue),
            (Action.SHOW, lambda _, some: _shown(show, some)),
            (Action.SWEEP, _sweep),
        ):
            positions = [at for at, finding in enumerate(findings) if finding.action is action]
            if positions:
                ended.update(zip(positions, mend(machine, [findings[at] for at in positions]), strict=True))
    finally:
        # what was done is on record whatever stopped the rest
        mended = [
            ended.get(at, Mended(finding=finding, outcome="failed", detail="it was broken off"))
            for at, finding in enumerate(findings)
        ]
        _ended(machine, audits, mended)
    return mended


def _begun(
    machine: CoreMachine, findings: Sequence[Finding], who: str
) -> dict[tuple[str, str], str]:  # fmt: skip
    inventories: defaultdict[str, dict[str, list[dict[str, Any]]]] = defaultdict(dict)
    for finding in findings:
        asset, key = _owner(finding)
        inventories[asset].setdefault(key, []).append(Mended(finding=finding, outcome="planned").as_dict())
    audits: dict[tuple[str, str], str] = {}
    for asset, by_key in inventories.items():
        ids = machine.ledger.audit(ACTION, who=who, asset=asset, inventories=by_key)
        audits.update({(asset, key): audit_id for key, audit_id in ids.items()})
    return audits


def _ended(machine: CoreMachine, audits: dict[tuple[str, str], str], mended: Sequence[Mended]) -> None:
    by_owner: defaultdict[tuple[str, str], list[Mended]] = defaultdict(list)
    for one in mended:
        by_owner[_owner(one.finding)].append(one)
    for owner, some in by_owner.items():
        complete = all(one.outcome != "failed" for one in some)
        # an empty list withdraws nothing, and says that nothing remains
        machine.ledger.audit_ended(
            audits[owner], inventory=[one.as_dict() for one in some], withdraw=[] if complete else None
        )


def _owner(finding: Finding) -> tuple[str, str]:
    return finding.asset or "reconciliation", finding.partition_key or finding.thing


# --- actions -------------------------------------------------------------------------------------------------------


def _queue(machine: CoreMachine, findings: Sequence[Finding]) -> list[Mended]:
    """A job each, once, however many of its things are missing."""
    jobs: dict[tuple[str, str], Job] = {}
    problems: dict[tuple[str, str], str] = {}
    for key in {finding.job for finding in findings if finding.job is not None}:
        try:
            jobs[key] = machine.ledger.job(key[1], key[0])
        except JobNotFoundError as error:
            problems[key] = str(error)
    answers = retry_jobs(machine, list(jobs.values()), submitted_by=ACTION)
    decided = {
        key: "waits already" if answer.submitted.decision is Decision.IN_PROGRESS else "queued"
        for key, answer in zip(jobs, answers, strict=True)
    }
    return [
        Mended(finding=one, outcome=decided[one.job], detail=f"{one.job[0]} {one.job[1][:12]}")
        if one.job in decided and one.job is not None
        else Mended(finding=one, outcome="failed", detail=problems.get(one.job or ("", ""), "no job is known"))
        for one in findings
    ]


def _remove_items(machine: CoreMachine, findings: Sequence[Finding], wipe: Wipe | None) -> list[Mended]:
    """Items with their pictures, as when a job of their container prunes what vanished."""
    catalog: CatalogStore = machine.services["catalog"]
    # a collection is brought up to date once, however many of its items go
    ids: defaultdict[str, dict[str, None]] = defaultdict(dict)
    for finding in findings:
        ids[finding.collection][finding.name] = None
    problems: dict[str, str] = {}
    for collection, names in ids.items():
        try:
            items = [item for name in names if (item := present_item(catalog, collection, name)) is not None]
            catalog.delete_items(collection, list(names))
            _remove_pictures(machine, [references_of(item) for item in items])
        except GeoAssetsError as error:
            problems[collection] = redact(str(error))
    gone: defaultdict[str, list[str]] = defaultdict(list)
    for one in findings:
        if one.collection not in problems and one.stands_for is not None:
            gone[one.stands_for[0]].append(one.stands_for[1])
    if wipe is not None:
        for asset, keys in gone.items():
            wipe(asset, sorted(set(keys)))
    return [
        Mended(finding=one, outcome="failed", detail=problems[one.collection])
        if one.collection in problems
        else Mended(finding=one, outcome="removed")
        for one in findings
    ]


def _remove_pictures(machine: CoreMachine, removed: Sequence[ItemReferences]) -> None:
    """Pictures of removed items, unless another item describes the same blob."""
    blobs, container = machine.services["blobs"], machine.settings.thumbnail_container
    root = root_of(blobs, container)
    catalog: CatalogStore = machine.services["catalog"]
    described: dict[str, set[str]] = {}
    for item in removed:
        if item.blob is None:
            continue
        if item.blob[0] not in described:
            described[item.blob[0]] = {
                one.blob
                for collection in catalog.list_collections()
                for one in catalog.described_blobs(collection, container=item.blob[0]).values()
            }
        if item.blob[1] in described[item.blob[0]]:
            continue
        for place in (blob_of_href(href, root) for href in item.hrefs):
            if place is not None and place[0] == container:
                with contextlib.suppress(BlobNotFoundError, ContainerNotFoundError):
                    blobs.delete(*place)


def _shown(show: Show | None, findings: Sequence[Finding]) -> list[Mended]:
    if show is None:
        return [Mended(finding=one, outcome="left") for one in findings]
    show(findings)
    return [Mended(finding=one, outcome="shown") for one in findings]


def _sweep(machine: CoreMachine, findings: Sequence[Finding]) -> list[Mended]:
    swept = Mended(finding=findings[0], outcome="swept")
    try:
        sweep(machine.services)
    except GeoAssetsError as error:
        swept = replace(swept, outcome="failed", detail=redact(str(error)))
    return [replace(swept, finding=one) for one in findings]
