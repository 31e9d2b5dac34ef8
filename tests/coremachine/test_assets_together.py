"""Several assets materialized in one run, as a selection in the UI does: each works off its own jobs and no others."""

from typing import ClassVar

import dagster as dg
import pytest

from geo_assets.build import build_definitions
from geo_assets.coremachine.asset_job import MACHINE
from geo_assets.coremachine.binding import bind, registry_of
from geo_assets.coremachine.contract import JobStatus
from geo_assets.coremachine.machine import CoreMachine
from geo_assets.coremachine.submission import submit_many
from tests.integration.workflows import DigestBlob, executions, sources

pytestmark = pytest.mark.filterwarnings("ignore:datetime.datetime.utcfromtimestamp:DeprecationWarning")  # Dagster's own


class CheckBlob(DigestBlob):
    """The same work for another asset of the same partitions."""

    job_type: ClassVar[str] = "check_blob"
    asset: ClassVar[str | None] = "blob_check"
    asset_deps: ClassVar[tuple[str, ...]] = ("blob_digest",)


def test_each_asset_of_a_run_has_its_own_jobs() -> None:
    sources().mkdir(parents=True)
    for name in ("a.bin", "bad.bin"):
        (sources() / name).write_text(name)
    location = build_definitions(registry=registry_of([bind(DigestBlob), bind(CheckBlob)]), sources=[])
    machine: CoreMachine = location.resources[MACHINE].machine()  # type: ignore[index]
    assets = {"digest_blob": "blob_digest", "check_blob": "blob_check"}
    with dg.DagsterInstance.ephemeral() as instance:
        for job_type in assets:
            submit_many(machine, job_type, [{"blob_name": "bad.bin"}])  # waits meanwhile
        instance.add_dynamic_partitions("blobs", ["a.bin"])
        run = location.resolve_implicit_global_asset_job_def().execute_in_process(
            instance=instance,
            asset_selection=[dg.AssetKey(asset) for asset in assets.values()],
            partition_key="a.bin",
            raise_on_error=False,
        )
        assert run.success
        for asset in assets.values():
            records = instance.fetch_materializations(dg.AssetKey(asset), limit=10).records
            assert [record.partition_key for record in records] == ["a.bin"]
            metadata = records[0].asset_materialization
            assert metadata is not None
            made_by = metadata.metadata["geo/job_type"].value
            assert assets[str(made_by)] == asset
    for job_type in assets:
        (attempt,) = machine.ledger.attempts_of_run(run.run_id, job_type=job_type)
        assert attempt.status is JobStatus.COMPLETED
    assert sorted(executions()) == ["digest a.bin"] * 2 + ["inspect a.bin"] * 2
