"""A workbench for whole jobs: the real submission, ledger, engine, sandbox and stores, without Dagster.

What belongs here: taking jobs from parameters to their end in this process, and what was said of partitions on the
way.  What does not: runs, waves and events (``tests/integration``).
"""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from geo_assets.coremachine import engine
from geo_assets.coremachine.binding import bind, registry_of
from geo_assets.coremachine.contract import EndedTask, JobStatus, PartitionNews
from geo_assets.coremachine.ledger import Attempt, Job, Ledger, Settlement
from geo_assets.coremachine.machine import CoreMachine
from geo_assets.coremachine.sandbox import Sandbox
from geo_assets.coremachine.submission import prepare
from geo_assets.coremachine.task_runner import open_runner
from geo_assets.jobs import WORKFLOWS
from geo_assets.services import Services
from geo_assets.settings import Settings
from tests.raster.rasters import real

__all__ = ["Bench"]


class Bench:
    """Local containers, an embedded catalog and ledger below one folder, and a way to run jobs on them.

    Args:
        folder: where everything goes.
        sandbox: shared by the tests of a module, as starting one takes a second.
        services: replacements of services by name.
    """

    def __init__(
        self, folder: Path, sandbox: Sandbox, *, services: Mapping[str, Any] | None = None, **settings: Any
    ) -> None:
        chosen: dict[str, Any] = {"home": folder, "task_retry_base_delay": 0, "task_max_retries": 1, **settings}
        self.settings = Settings(**chosen)
        self.containers = self.settings.blob_root_path
        self.services = {**Services(self.settings), "sandbox": sandbox, **(services or {})}
        self.ledger = Ledger(f"sqlite:///{folder / 'ledger.db'}", patience_seconds=20)
        self.machine = CoreMachine(
            ledger=self.ledger,
            registry=registry_of([bind(workflow) for workflow in WORKFLOWS]),
            settings=self.settings,
            services=self.services,
        )
        self.news: list[PartitionNews] = []
        self.settled: list[tuple[Attempt, Settlement]] = []
        self._runs = 0

    def put(self, container: str, *names: str, **renamed: str) -> None:
        """Put real rasters into a container; ``new_name="real.tif"`` renames, ``__`` standing for a dot."""
        for new, name in (*((name, name) for name in names), *renamed.items()):
            target = self.containers / container / new.replace("__", ".")
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(real(name), target)

    def files(self, container: str) -> list[str]:
        """Names of the blobs of a container, sorted; none if it is not there."""
        folder = self.containers / container
        found = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
        return sorted(name for name in found if not name.startswith("."))

    def run(self, job_type: str, **params: Any) -> Job:
        """Take one job to its end, as *Materialize* does."""
        return self.run_many(job_type, [params])[0]

    def run_many(self, job_type: str, params_list: Sequence[Mapping[str, Any]]) -> list[Job]:
        """Take jobs of one type to their end, in one run."""
        self._runs += 1
        run_id = f"run-{self._runs}"
        self.news, self.settled = [], []
        binding = self.machine.registry[job_type]
        new = [prepare(self.machine, binding, params, force=True) for params in params_list]
        self.ledger.claim_now(new, run_id)
        scope = engine.RunScope(
            ledger=self.ledger,
            binding=binding,
            run_id=run_id,
            services=self.services,
            settings=self.settings,
            on_settled=self.settled.extend,
            log=lambda text: None,
            on_tasks=self._hear,
        )
        self._binding = binding
        runner = open_runner(binding.execution, settings=self.settings, limits=binding.limits, preload=[])
        try:
            self._work(scope, runner)
        finally:
            runner.close(kill=True)
        binding.finish_run([one.parameters for one in new], self.services)
        return [self.ledger.job(one.job_id, job_type) for one in new]

    def _hear(self, ended: Sequence[EndedTask]) -> None:
        self.news += [item for task in ended for item in self._binding.partition_news(task)]

    def _work(self, scope: engine.RunScope, runner: Any) -> None:
        segments = scope.binding.segments()
        for segment in segments:
            if segment.fans_out:
                engine.spread_tasks(scope, segment.first)
                for spans in engine.plan_spans(self.ledger, scope.run_id, segment.first, 100):
                    engine.run_tasks(scope, runner, spans, segment.first)
                engine.end_fan_out(scope, segment.first)
            else:
                at_work = self.ledger.attempts_of_run(scope.run_id, statuses=[JobStatus.PROCESSING])
                engine.run_jobs(scope, runner, at_work, segment)
