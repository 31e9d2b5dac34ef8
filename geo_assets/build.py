"""The one place where workflows, assets, jobs, sensors, checks and resources meet.

What belongs here: assembly.  Production and tests call :func:`build_definitions` alike.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import dagster as dg

from geo_assets.assets.blob_events import build_blob_events
from geo_assets.assets.blob_source import component_sources, component_tree
from geo_assets.assets.checks import build_check_runs, build_checks
from geo_assets.assets.clean_up import build_clean_up
from geo_assets.assets.configured_sources import listed_sources
from geo_assets.assets.failure_webhook import build_failure_webhook
from geo_assets.assets.lineage import build_container_automation, with_lineage, with_page, with_sources
from geo_assets.assets.reconciliation import build_reconciliation
from geo_assets.assets.report import build_report
from geo_assets.assets.source_sensors import build_source_sensors
from geo_assets.assets.sources import build_source_assets, source_container
from geo_assets.coremachine.asset_job import MACHINE, build_asset, build_job
from geo_assets.coremachine.binding import Registry
from geo_assets.coremachine.queue_jobs import build_retry_job, build_sensor, build_submit_job
from geo_assets.errors import SettingsError
from geo_assets.jobs import load_registry
from geo_assets.local_run import fail_dead_runs
from geo_assets.resources.core_machine import core_machine_resource
from geo_assets.services import open_services
from geo_assets.settings import Settings, get_settings
from geo_assets.sources.listings import take_listings
from geo_assets.sources.rules import check_sources
from geo_assets.sources.source import Source

PRELOADED_MODULES = [
    # imported once by the fork server; without the storage modules each step would import them again (0.5 s)
    "dagster",
    "dagster._core.storage.event_log.sqlite",
    "dagster._core.storage.runs.sqlite",
    "dagster._core.storage.legacy_storage",
    "dagster._core.storage.sqlite_storage",
    "dagster_postgres",
    "geo_assets.definitions",
]


def build_definitions(
    *,
    settings: Settings | None = None,
    registry: Registry | None = None,
    sources: Sequence[Source] | None = None,
    components: dg.ComponentTree | None = None,
    resources: Mapping[str, Any] | None = None,
) -> dg.Definitions:
    """Assemble the code location.

    Args:
        settings: default: the environment's.
        registry: workflows to show; default: ours and the legacy ones the settings name.
        sources: containers to watch; default: those of the YAML that the settings name.
        components: what else to load, ``geo_assets.BlobSource`` above all; default: the folder that the settings name,
            where no sources are given.
        resources: replacements by key, for tests.

    Raises:
        ContractError: a workflow class cannot be run; names the class and the element.
        SettingsError: a setting or a source cannot be used; names it and says what to do.
    """
    settings = settings or get_settings()
    registry = registry if registry is not None else load_registry(settings)
    if components is None and sources is None:
        components = component_tree(settings)
    sources = sources if sources is not None else listed_sources(settings)
    watched = [*sources, *component_sources(components)]
    check_sources(watched, registry)
    machine = core_machine_resource(registry, open_services, listeners=[take_listings(watched)])
    sets = sorted({binding.partition_set for binding in registry.values()})
    partitions = {name: dg.DynamicPartitionsDefinition(name=name) for name in sets}
    executor = build_executor(settings)
    jobs = [build_job(binding, executor=executor) for binding in registry.values()]
    sets_by_asset = {binding.asset: binding.partition_set for binding in registry.values()}
    assets = [
        with_lineage(
            build_asset(with_sources(binding, watched), partitions=partitions, sets_by_asset=sets_by_asset),
            binding,
            settings,
        )
        for binding in registry.values()
    ]
    workflows = dg.Definitions(
        assets=[source_container(settings), *assets],
        asset_checks=build_checks(registry, partitions=partitions),
        jobs=[
            *jobs,
            *(build_submit_job(binding) for binding in registry.values()),
            build_retry_job(registry, sources=[source.name for source in watched]),
        ],
        sensors=[build_sensor(jobs, interval_seconds=settings.sensor_seconds, find_dead_runs=_dead_command_lines)],
        # Materialize in the UI runs in Dagster's own job, which takes this one
        executor=executor,
        resources={MACHINE: machine, **(resources or {})},
    )
    return dg.Definitions.merge(
        workflows,
        build_check_runs(registry),
        build_source_assets(sources, settings),
        build_container_automation(registry),
        build_source_sensors(settings, registry, sources),
        build_blob_events(settings, registry, watched),
        with_page(build_reconciliation(settings, registry), build_reconciliation, settings),
        with_page(build_report(settings, registry, watched), build_report, settings),
        build_clean_up(settings, registry, watched),
        build_failure_webhook(settings),
        *([components.build_defs()] if components is not None else []),
    )


def _dead_command_lines(settings: Settings, instance: dg.DagsterInstance) -> list[str]:
    return fail_dead_runs(settings.home_path, instance)


def build_executor(settings: Settings) -> dg.ExecutorDefinition:
    """The step executor the settings name.

    Raises:
        SettingsError: its package is not installed; says which.
    """
    match settings.executor:
        case "in_process":
            return dg.in_process_executor
        case "multiprocess":
            return dg.multiprocess_executor.configured(
                {
                    "max_concurrent": settings.executor_max_concurrent,
                    "start_method": {"forkserver": {"preload_modules": PRELOADED_MODULES}},
                }
            )
        case "celery" | "k8s":
            return _packaged_executor(settings.executor)


def _packaged_executor(name: str) -> dg.ExecutorDefinition:
    package, attribute = {
        "celery": ("dagster_celery", "celery_executor"),
        "k8s": ("dagster_k8s", "k8s_job_executor"),
    }[name]
    try:
        module = __import__(package)
    except ImportError:
        msg = f"GEO_ASSETS_EXECUTOR={name} needs the package {package.replace('_', '-')}: install it beside geo-assets"
        raise SettingsError(msg) from None
    executor: dg.ExecutorDefinition = getattr(module, attribute)
    return executor
