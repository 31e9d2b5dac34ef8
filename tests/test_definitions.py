"""Every asset of the code location says what a person needs to find and trust it."""

import dagster as dg
import pytest

from geo_assets.definitions import defs

SPECS = defs.resolve_all_asset_specs()


@pytest.mark.parametrize("spec", SPECS, ids=[spec.key.to_user_string() for spec in SPECS])
def test_an_asset_names_its_group_kinds_owners_and_purpose(spec: dg.AssetSpec) -> None:
    assert spec.group_name not in (None, "default")
    assert spec.kinds
    assert spec.owners
    assert len(spec.description or "") > 20


def test_every_workflow_asset_has_a_job_a_submit_job_and_a_check() -> None:
    repository = defs.get_repository_def()
    jobs = set(repository.job_names)
    checks = {key.asset_key.to_user_string() for key in repository.asset_graph.asset_check_keys}
    workflows = {spec.tags["geo_assets/job_type"]: spec for spec in SPECS if "geo_assets/job_type" in spec.tags}
    assert len(workflows) >= 4
    for job_type, spec in workflows.items():
        assert {job_type, f"submit_{job_type}"} <= jobs
        assert spec.key.to_user_string() in checks
        assert spec.tags["geo_assets/domain"]
