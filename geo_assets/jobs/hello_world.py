"""The ``hello_world`` workflow: greetings, then replies to them, to see the whole machine move without any data.

What belongs here: its parameters, stages, tasks and handlers.  What does not: anything reusable.

The job id leaves ``failure_rate`` out, as the original's formula has it: a job submitted again with another failure
rate is the *same* job.  While the first one's answer counts, that answer is returned; ``--force`` runs it anew.
"""

import hashlib
import math
import random
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, ClassVar

from pydantic import Field, field_validator

from geo_assets.coremachine.contract import Handler, Workflow, WorkflowParameters, canonical_json
from geo_assets.errors import TransientError

_MOST_GREETINGS = 1000


class HelloWorldParameters(WorkflowParameters):
    """Parameters of ``hello_world``; all have a default."""

    n: int = Field(3, description="How many greetings, and as many replies: 1 to 1000.")
    message: str = Field("Hello World", description="What each greeting says.")
    failure_rate: float = Field(
        0.0,
        description="Chance, 0.0 to 1.0, that a greeting fails; drawn anew on every try. Not part of the job id.",
    )

    # mode "plain": these rules stand alone, so that what they let through and say is what the original did

    @field_validator("n", mode="plain")
    @classmethod
    def _check_n(cls, value: Any) -> int:
        if not isinstance(value, int):
            try:
                value = int(value)
            except (ValueError, TypeError, OverflowError):
                raise ValueError(f"Parameter 'n' must be an integer, got {type(value).__name__}") from None
        number: int = value
        if not 1 <= number <= _MOST_GREETINGS:
            raise ValueError(f"Parameter 'n' must be between 1 and {_MOST_GREETINGS}, got {number}")
        return number

    @field_validator("message", mode="plain")
    @classmethod
    def _check_message(cls, value: Any) -> str:
        if not isinstance(value, str):
            raise ValueError(f"Parameter 'message' must be a string, got {type(value).__name__}")  # noqa: TRY004
        return value

    @field_validator("failure_rate", mode="plain")
    @classmethod
    def _check_failure_rate(cls, value: Any) -> float:
        if not isinstance(value, int | float):
            raise ValueError(f"Parameter 'failure_rate' must be a number, got {type(value).__name__}")  # noqa: TRY004
        # Infinity and NaN are floats, too; a huge integer is not
        rate = float(value) if abs(value) <= 1 else math.nan
        if not 0.0 <= rate <= 1.0:
            raise ValueError(f"Parameter 'failure_rate' must be between 0.0 and 1.0, got {value}")
        return rate


def greet(params: dict[str, Any], context: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Make one greeting.

    Raises:
        TransientError: the draw against ``failure_rate`` was lost; the next try draws again.
    """
    del context
    index = params.get("index", 0)
    failure_rate = params.get("failure_rate", 0.0)
    if random.random() < failure_rate:  # noqa: S311 - a game of chance, not cryptography
        raise TransientError(f"greeting {index} failed on purpose (failure_rate {failure_rate:g}); nothing to repair")
    return {
        "success": True,
        "greeting": f"{params.get('message', 'Hello World')} from task {index}!",
        "timestamp": datetime.now(UTC).isoformat(),
        "task_index": index,
        "failure_rate_tested": failure_rate,
    }


def reply(params: dict[str, Any], context: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Reply to the greeting of equal index, or to "unknown" where it did not complete."""
    greeting = (context or {}).get("predecessor_result")
    return {
        "success": True,
        "reply": f"Replying to: {(greeting or {}).get('greeting', 'unknown')}",
        "timestamp": datetime.now(UTC).isoformat(),
        "task_index": params.get("index", 0),
        "predecessor_accessed": greeting is not None,
    }


class HelloWorld(Workflow):
    """Greetings and replies. Its result is the fallback aggregation, as it always was."""

    job_type = "hello_world"
    description = "Greets n times, then replies to each greeting"
    Parameters = HelloWorldParameters
    stages: ClassVar[list[dict[str, Any]]] = [
        {
            "number": 1,
            "name": "greeting",
            "task_type": "hello_world_greeting",
            "parallelism": "dynamic",
            "count_param": "n",
        },
        {
            "number": 2,
            "name": "reply",
            "task_type": "hello_world_reply",
            "parallelism": "match_previous",
            "depends_on": 1,
            "uses_lineage": True,
        },
    ]
    handlers: ClassVar[Mapping[str, Handler]] = {"hello_world_greeting": greet, "hello_world_reply": reply}

    asset = "hello_world"
    partition_set = "greetings"
    group = "examples"
    owners = ("team:geo-archive",)
    tags: ClassVar[Mapping[str, str]] = {"geo_assets/domain": "example"}
    kinds = frozenset({"python"})

    @classmethod
    def generate_job_id(cls, params: dict[str, Any]) -> str:
        """SHA-256 over job type, message and n; ``failure_rate`` is left out."""
        identity = {
            "job_type": cls.job_type,
            "message": params.get("message", "Hello World"),
            "n": params.get("n", 3),
        }
        return hashlib.sha256(canonical_json(identity).encode()).hexdigest()

    @classmethod
    def create_tasks_for_stage(
        cls,
        stage: int,
        job_params: dict[str, Any],
        job_id: str,
        previous_results: list[dict[str, Any]] | None = None,
    ) -> list[dict[str, Any]]:
        """As many tasks in either stage as the parameters say, whatever became of the stage before."""
        del previous_results
        if not 1 <= stage <= len(cls.stages):
            return []
        shared: dict[str, Any] = {}
        if stage == 1:
            shared = {
                "message": job_params.get("message", "Hello World"),
                "failure_rate": job_params.get("failure_rate", 0.0),
            }
        return [
            {
                "task_id": f"{job_id[:8]}-s{stage}-{index}",
                "task_type": cls.stages[stage - 1]["task_type"],
                "parameters": {"index": index, **shared},
            }
            for index in range(job_params.get("n", 3))
        ]
