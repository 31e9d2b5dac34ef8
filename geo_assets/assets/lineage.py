"""What the lineage shows of a workflow's asset beyond the workflow itself: sources, code, docs, columns, automation.

What belongs here: adding it to finished assets, and the one sensor of automation conditions.  What does not: external
assets (``sources``), checks (``checks``), and what workflows say of themselves (``geo_assets.jobs``).

Conditions stand on assets whose partitions are containers only: on blobs and tables, each update would be a run of its
own.  Changes of those travel through the ledger (docs/assets.md).  None of them has a freshness policy: containers
that nobody lists, as their source looks within its ticks, would be overdue for ever.
"""

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import dagster as dg

import geo_assets
from geo_assets.assets.code_references import code_references
from geo_assets.assets.sources import source_key
from geo_assets.coremachine.binding import Binding, Registry
from geo_assets.settings import Settings
from geo_assets.sources.source import Source

__all__ = ["build_container_automation", "with_lineage", "with_page", "with_sources"]

CONTAINER_PARTITIONS = "containers"
_FOLLOWS = "container_contents"
"""The asset whose update is what the automated ones wait for."""
_AUTOMATED = ("container_summary", "container_stac_items")

_LISTING_COLUMNS = (
    ("name", "string", "Path in the container."),
    ("size", "int", "Bytes; of a dataset, of all its parts."),
    ("last_modified", "timestamp", "UTC; of a dataset, of its latest part."),
    ("etag", "string", "Version of the blob; empty for datasets."),
    ("file_count", "int", "Parts of a dataset (a .gdb folder); empty for single blobs."),
    ("problem", "string", "Why the name cannot be opened; empty where it can."),
)


_HOW_TO_MATERIALIZE = (
    "Materialize a partition here: its parameters are those of its latest job, or follow from its key; where neither"
    " says enough, the run says what to do."
)


def with_sources(binding: Binding, sources: Sequence[Source]) -> Binding:
    """The workflow with the external assets of the sources that feed it upstream of its asset.

    Every source is upstream of the listings, too, which are of any container; so all sources stand in one column.
    """
    lists = binding.asset == _FOLLOWS
    feeding = [source_key(source.name) for source in sources if lists or source.workflow == binding.job_type]
    return replace(binding, asset_deps=(*binding.asset_deps, *(key.to_user_string() for key in feeding)))


def with_lineage(asset: dg.AssetsDefinition, binding: Binding, settings: Settings) -> dg.AssetsDefinition:
    """The asset of a workflow with links to code and docs, columns, and conditions where they fit."""
    metadata: dict[str, Any] = {
        "dagster/code_references": code_references(binding.workflow, settings.code_url),
        "geo/docs": f"docs/assets.md#{binding.asset}" if _is_ours(binding.workflow) else "docs/bring-your-workflows.md",
    }
    if binding.asset == _FOLLOWS:
        columns = [dg.TableColumn(name, type=kind, description=text) for name, kind, text in _LISTING_COLUMNS]
        metadata["dagster/column_schema"] = dg.TableSchema(columns=columns)
    conditions = _conditions(binding)

    def dressed(spec: dg.AssetSpec) -> dg.AssetSpec:
        told = f"{spec.description}\n\n{_HOW_TO_MATERIALIZE} See {metadata['geo/docs']}."
        return spec.merge_attributes(metadata=metadata).replace_attributes(description=told, **conditions)

    return asset.map_asset_specs(dressed)


def with_page(reports: dg.Definitions, made_by: Callable[..., Any], settings: Settings) -> dg.Definitions:
    """Assets about everything with links to code and docs, as those of workflows have.

    Args:
        reports: the assets.
        made_by: what builds them.
        settings: say where the code has an address.
    """

    def dressed(spec: dg.AssetSpec) -> dg.AssetSpec:
        page = {
            "dagster/code_references": code_references(made_by, settings.code_url),
            "geo/docs": f"docs/assets.md#{spec.key.to_user_string()}",
        }
        return spec.merge_attributes(metadata=page, tags={"geo_assets/domain": "reports"})

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", dg.PreviewWarning)  # on Definitions, a preview in Dagster 1.13
        return reports.map_asset_specs(func=dressed)


def _is_ours(workflow: type) -> bool:
    return workflow.__module__.startswith(f"{geo_assets.__name__}.")


def _conditions(binding: Binding) -> Mapping[str, Any]:
    if binding.partition_set != CONTAINER_PARTITIONS:
        return {}
    if binding.asset not in _AUTOMATED or _FOLLOWS not in binding.asset_deps:
        return {}
    # of all upstreams only the listing: a catalogued container updates its blobs' items, which would start it again
    updated = dg.AutomationCondition.any_deps_updated().allow(dg.AssetSelection.assets(_FOLLOWS))
    return {"automation_condition": updated & ~dg.AutomationCondition.in_progress()}


def build_container_automation(registry: Registry) -> dg.Definitions:
    """The sensor ``container_automation``, which evaluates the conditions; off until somebody switches it on."""
    automated = [binding.asset for binding in registry.values() if "automation_condition" in _conditions(binding)]
    if not automated:
        return dg.Definitions()
    return dg.Definitions(
        sensors=[
            dg.AutomationConditionSensorDefinition(
                "container_automation",
                target=dg.AssetSelection.assets(*automated),
                default_status=dg.DefaultSensorStatus.STOPPED,
                minimum_interval_seconds=60,
                description=f"When a container has been listed anew, makes {' and '.join(automated)} of it, one run a"
                " container. Off until you switch it on; sources need it not, their sensors queue what they find.",
            )
        ]
    )
