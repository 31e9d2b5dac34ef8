"""A real Dagster: webserver, daemon and code location as processes, spoken to over GraphQL as the UI does.

What belongs here: starting, asking, stopping.  What does not: tests.
"""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dagster as dg
import psutil

ROOT = Path(__file__).parents[2]
REPOSITORY = "__repository__"


class DagsterUp:
    """``dagster dev`` on a free port, in a session of its own."""

    def __init__(self, module: str, home: Path, **environment: str) -> None:
        self.module = module
        self.home = home
        self.dagster_home = home / "dagster"
        self.dagster_home.mkdir(parents=True, exist_ok=True)
        text = (ROOT / "dagster.yaml").read_text()
        # the production interval is a minute, which is long in a test
        text = re.sub(r"poll_interval_seconds: \d+", "poll_interval_seconds: 2", text)
        (self.dagster_home / "dagster.yaml").write_text(text)
        self.environment = {
            **os.environ,
            "GEO_ASSETS_HOME": str(home),
            "DAGSTER_HOME": str(self.dagster_home),
            "GEO_ASSETS_SENSOR_SECONDS": "1",
            "GEO_ASSETS_TASK_RETRY_BASE_DELAY": "0.05",
            "PYTHONPATH": str(ROOT) + os.pathsep + os.environ.get("PYTHONPATH", ""),
            **environment,
        }
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = home / "dagster-dev.log"
        command = [
            *("env", "--default-signal=INT,TERM"),
            *(str(Path(sys.executable).with_name("dagster")), "dev", "-m", module),
            *("-h", "127.0.0.1", "-p", str(self.port)),
        ]
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                command, cwd=ROOT, env=self.environment, stdout=log, stderr=log, start_new_session=True
            )
        try:
            self.wait_for("the webserver", self._answers, seconds=90)
            self.wait_for("the code location", self._loaded, seconds=60)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Stop everything; nothing is left of the session."""
        family = [self.process.pid, *(child.pid for child in psutil.Process(self.process.pid).children(recursive=True))]
        self.process.send_signal(signal.SIGINT)
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
        for pid in family:
            try:
                psutil.Process(pid).kill()
            except psutil.NoSuchProcess:
                continue

    def _answers(self) -> bool:
        if self.process.poll() is not None:
            raise AssertionError(f"dagster dev ended: {self.log.read_text()[-3000:]}")
        try:
            with urllib.request.urlopen(f"{self.url}/server_info", timeout=5):
                return True
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            return False

    def _loaded(self) -> bool:
        query = """{ workspaceOrError { ... on Workspace { locationEntries {
            locationOrLoadError { __typename ... on PythonError { message } } } } } }"""
        entries = self.graphql(query)["workspaceOrError"]["locationEntries"]
        states = [entry["locationOrLoadError"] for entry in entries]
        if any(state and state["__typename"] == "PythonError" for state in states):
            raise AssertionError(states)
        return bool(states) and all(state and state["__typename"] == "RepositoryLocation" for state in states)

    def wait_for(self, what: str, condition: Callable[[], Any], *, seconds: float = 60) -> Any:
        """Wait until ``condition`` gives something true, and return it."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if found := condition():
                return found
            time.sleep(0.25)
        raise AssertionError(f"{what} did not come within {seconds} s:\n{self.log.read_text()[-4000:]}")

    def graphql(self, query: str, **variables: Any) -> dict[str, Any]:
        """Ask as the UI asks."""
        body = json.dumps({"query": query, "variables": variables}).encode()
        request = urllib.request.Request(f"{self.url}/graphql", data=body, headers={"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=60) as answer:
            decoded: dict[str, Any] = json.load(answer)
        assert "errors" not in decoded, decoded["errors"]
        data: dict[str, Any] = decoded["data"]
        return data

    def _selector(self, job: str) -> dict[str, Any]:
        return {"repositoryLocationName": self.module, "repositoryName": REPOSITORY, "jobName": job}

    def launch(
        self, job: str, *, tags: dict[str, str] | None = None, config: dict[str, Any] | None = None, asset: str = ""
    ) -> str:
        """Launch a run as the launchpad or the Materialize button does; returns its id."""
        selector: dict[str, Any] = self._selector(job)
        if asset:
            selector |= {"assetSelection": [{"path": [asset]}], "assetCheckSelection": []}
        answer = self.graphql(
            """mutation ($params: ExecutionParams!) { launchRun(executionParams: $params) {
                 __typename ... on LaunchRunSuccess { run { runId } } ... on PythonError { message }
                 ... on RunConfigValidationInvalid { errors { message } } } }""",
            params={
                "selector": selector,
                "runConfigData": config or {},
                "executionMetadata": {"tags": [{"key": k, "value": v} for k, v in (tags or {}).items()]},
            },
        )["launchRun"]
        assert answer["__typename"] == "LaunchRunSuccess", answer
        run_id: str = answer["run"]["runId"]
        return run_id

    def reexecute(self, run_id: str, strategy: str) -> str:
        """Press *Re-execute*: ``ALL_STEPS`` or ``FROM_FAILURE``; returns the new run's id."""
        answer = self.graphql(
            """mutation ($p: ReexecutionParams!) { launchRunReexecution(reexecutionParams: $p) {
                 __typename ... on LaunchRunSuccess { run { runId } } ... on PythonError { message } } }""",
            p={"parentRunId": run_id, "strategy": strategy},
        )["launchRunReexecution"]
        assert answer["__typename"] == "LaunchRunSuccess", answer
        new: str = answer["run"]["runId"]
        return new

    def terminate(self, run_id: str) -> None:
        """Press *Terminate*."""
        answer = self.graphql(
            "mutation ($id: String!) { terminateRun(runId: $id) { __typename ... on PythonError { message } } }",
            id=run_id,
        )["terminateRun"]
        assert answer["__typename"] == "TerminateRunSuccess", answer

    def status(self, run_id: str) -> str:
        """Status of a run."""
        answer = self.graphql("query ($id: ID!) { runOrError(runId: $id) { ... on Run { status } } }", id=run_id)[
            "runOrError"
        ]
        status: str = answer["status"]
        return status

    def finished(self, run_id: str, *, seconds: float = 60) -> str:
        """Wait for the end of a run; returns its status."""
        ends = {"SUCCESS", "FAILURE", "CANCELED"}
        self.wait_for(f"the end of run {run_id}", lambda: self.status(run_id) in ends, seconds=seconds)
        return self.status(run_id)

    def partitions(self, asset: str) -> dict[str, int]:
        """What the partitions page counts: materialized, failed, materializing, total."""
        stats = self.graphql(
            """query ($k: AssetKeyInput!) { assetNodeOrError(assetKey: $k) { ... on AssetNode { partitionStats {
                 numMaterialized numFailed numMaterializing numPartitions } } } }""",
            k={"path": [asset]},
        )["assetNodeOrError"]["partitionStats"]
        return {
            "materialized": stats["numMaterialized"],
            "failed": stats["numFailed"],
            "materializing": stats["numMaterializing"],
            "all": stats["numPartitions"],
        }

    def instance(self) -> dg.DagsterInstance:
        """The instance the processes share."""
        return dg.DagsterInstance.from_config(str(self.dagster_home))
