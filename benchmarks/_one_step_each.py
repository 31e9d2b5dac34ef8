"""``hello_world`` as Dagster alone would do it: one dynamic output, so one step, for each task.

What belongs here: the rival that ``orchestration`` measures.  What does not: measuring.

Every step imports this module in a process of its own, so it stays lean: the two handlers are loaded by path,
without the package that holds them, which would bring the libraries of all other workflows along.
"""

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import dagster as dg

import geo_assets

__all__ = ["one_step_each"]


def _handlers() -> ModuleType:
    path = Path(geo_assets.__file__).parent / "jobs" / "hello_world.py"
    spec = importlib.util.spec_from_file_location("hello_world_handlers", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


_HANDLERS = _handlers()


@dg.op(out=dg.DynamicOut(int), config_schema={"n": int})
def spread(context: dg.OpExecutionContext) -> Iterator[dg.DynamicOutput[int]]:
    """One dynamic output a greeting."""
    for index in range(context.op_config["n"]):
        yield dg.DynamicOutput(index, mapping_key=f"task_{index}")


@dg.op
def greeting(index: int) -> dict[str, Any]:
    """The first stage's task."""
    made: dict[str, Any] = _HANDLERS.greet({"index": index, "message": "Hello World", "failure_rate": 0.0})
    return made


@dg.op
def reply(greeted: dict[str, Any]) -> dict[str, Any]:
    """The second stage's task."""
    made: dict[str, Any] = _HANDLERS.reply({"index": greeted["task_index"]}, {"predecessor_result": greeted})
    return made


@dg.op
def gather(replies: list[dict[str, Any]]) -> list[str]:
    """What the replies say, in order."""
    return [one["reply"] for one in sorted(replies, key=lambda one: int(one["task_index"]))]


@dg.job(
    executor_def=dg.multiprocess_executor.configured(
        # no preload_modules: Dagster's own default
        {"max_concurrent": 2, "start_method": {"forkserver": {}}}
    )
)
def one_step_each() -> None:
    """Greetings and replies, a process each."""
    gather(spread().map(lambda index: reply(greeting(index))).collect())
