# mypy: ignore-errors
# ruff: noqa: ANN001, ANN205, BLE001, E402, G004, I001, PLC0415, RET505, RUF012, RUF013, TRY301, TRY400, UP006, UP035
"""Workflow classes as a team would bring them: plain classes of static methods that know nothing of geo_assets.

Nothing here imports geo_assets; every other import is one that the original CoreMachine answered.  Kept in the style
such classes have, untyped and unlinted, because that is what has to run.
"""

import hashlib
import json
from typing import Any, Dict, List


class ShelfInventoryWorkflow:
    """Two stages: list the items of a shelf, then weigh each of them."""

    job_type: str = "shelf_inventory"
    description: str = "Weigh every item of a shelf"

    stages: List[Dict[str, Any]] = [
        {
            "number": 1,
            "name": "list_items",
            "task_type": "list_shelf_items",
            "description": "List the items of the shelf",
            "parallelism": "single",
        },
        {
            "number": 2,
            "name": "weigh_items",
            "task_type": "weigh-shelf-item",
            "description": "Weigh each item",
            "parallelism": "fan_out",
        },
    ]

    parameters_schema: Dict[str, Any] = {
        "shelf": {"type": "str", "required": True},
        "items": {"type": "int", "min": 0, "max": 10000, "default": 3},
        "broken": {"type": "list", "default": []},
    }

    @staticmethod
    def validate_job_parameters(params: dict) -> dict:
        validated = {}
        if "shelf" not in params:
            raise ValueError("shelf is required")
        if not isinstance(params["shelf"], str) or not params["shelf"].strip():
            raise ValueError("shelf must be a non-empty string")
        validated["shelf"] = params["shelf"].strip()

        items = params.get("items", 3)
        if not isinstance(items, int) or not 0 <= items <= 10000:
            raise ValueError(f"items must be between 0 and 10000, got {items}")
        validated["items"] = items
        validated["broken"] = list(params.get("broken", []))
        return validated

    @staticmethod
    def generate_job_id(params: dict) -> str:
        return hashlib.sha256(json.dumps(params, sort_keys=True).encode()).hexdigest()

    @staticmethod
    def create_tasks_for_stage(stage: int, job_params: dict, job_id: str, previous_results: list = None) -> list[dict]:
        from core.task_id import generate_deterministic_task_id

        if stage == 1:
            return [
                {
                    "task_id": generate_deterministic_task_id(job_id, 1, "list"),
                    "task_type": "list_shelf_items",
                    "parameters": {"shelf": job_params["shelf"], "items": job_params["items"]},
                }
            ]
        elif stage == 2:
            if not previous_results:
                raise ValueError("Stage 2 requires the results of stage 1")
            listing = previous_results[0]
            if not listing.get("success"):
                raise ValueError(f"Stage 1 failed: {listing.get('error')}")
            return [
                {
                    "task_id": generate_deterministic_task_id(job_id, 2, name),
                    "task_type": "weigh_shelf_item",
                    "parameters": {"name": name, "broken": name in job_params.get("broken", [])},
                }
                for name in listing["result"]["names"]
            ]
        else:
            return []

    @staticmethod
    def create_job_record(job_id: str, params: dict) -> dict:
        from infrastructure import RepositoryFactory
        from core.models import JobRecord, JobStatus

        job_record = JobRecord(
            job_id=job_id,
            job_type="shelf_inventory",
            parameters=params,
            status=JobStatus.QUEUED,
            stage=1,
            total_stages=2,
            stage_results={},
            metadata={"description": "Weigh every item of a shelf", "created_by": "ShelfInventoryWorkflow"},
        )
        repos = RepositoryFactory.create_repositories()
        job_repo = repos["job_repo"]
        job_repo.create_job(job_record)
        return job_record.model_dump()

    @staticmethod
    def queue_job(job_id: str, params: dict) -> dict:
        from infrastructure.service_bus import ServiceBusRepository
        from core.schema.queue import JobQueueMessage
        from config import get_config
        from util_logger import LoggerFactory, ComponentType
        import uuid

        logger = LoggerFactory.create_logger(ComponentType.CONTROLLER, "ShelfInventoryWorkflow.queue_job")
        config = get_config()
        queue_name = config.service_bus_jobs_queue
        service_bus_repo = ServiceBusRepository()
        job_message = JobQueueMessage(
            job_id=job_id,
            job_type="shelf_inventory",
            stage=1,
            parameters=params,
            correlation_id=str(uuid.uuid4()),
        )
        message_id = service_bus_repo.send_message(queue_name, job_message)
        logger.info(f"Job queued: {message_id}")
        return {
            "queued": True,
            "queue_type": "service_bus",
            "queue_name": queue_name,
            "message_id": message_id,
            "job_id": job_id,
        }

    @staticmethod
    def aggregate_job_results(context) -> Dict[str, Any]:
        from core.models import TaskStatus

        weighings = [t for t in context.task_results if t.task_type == "weigh_shelf_item"]
        completed = [t for t in weighings if t.status == TaskStatus.COMPLETED]
        failed = [t for t in weighings if t.status == TaskStatus.FAILED]
        pending = sum(1 for t in weighings if t.status == TaskStatus.PENDING)
        return {
            "job_type": "shelf_inventory",
            "shelf": context.parameters.get("shelf"),
            "summary": {
                "items_weighed": len(completed),
                "items_failed": len(failed),
                "items_pending": pending,
                "total_grams": sum(t.result_data["result"]["grams"] for t in completed),
                "errors_sample": [t.error_details for t in failed[:5]],
            },
            "stages_completed": context.current_stage,
            "total_tasks_executed": len(context.task_results),
        }


from jobs.base import JobBase


class EchoJob(JobBase):
    """Two stages of equal width; the second hears what the first said. Ends in finalize_job."""

    job_type: str = "echo"
    description: str = "Say something n times and listen"

    stages: List[Dict[str, Any]] = [
        {"number": 1, "name": "say", "task_type": "echo_say", "parallelism": "dynamic"},
        {"number": 2, "name": "hear", "task_type": "echo_hear", "parallelism": "match_previous"},
    ]

    @staticmethod
    def validate_job_parameters(params: dict) -> dict:
        n = params.get("n", 2)
        if not isinstance(n, int) or n < 1:
            raise ValueError(f"n must be a positive integer, got {n}")
        return {"n": n, "words": str(params.get("words", "hello"))}

    @staticmethod
    def generate_job_id(params: dict) -> str:
        return hashlib.sha256(f"echo:{json.dumps(params, sort_keys=True)}".encode()).hexdigest()

    @staticmethod
    def create_job_record(job_id: str, params: dict) -> dict:
        from infrastructure import RepositoryFactory
        from core.models import JobRecord, JobStatus

        job_record = JobRecord(
            job_id=job_id,
            job_type="echo",
            parameters=params,
            status=JobStatus.QUEUED,
            stage=1,
            total_stages=2,
            metadata={"description": "Say something n times and listen", "created_by": "EchoJob"},
        )
        RepositoryFactory.create_repositories()["job_repo"].create_job(job_record)
        return {"job_id": job_id, "status": "queued"}

    @staticmethod
    def queue_job(job_id: str, params: dict) -> dict:
        from infrastructure.service_bus import ServiceBusRepository
        from core.schema.queue import JobQueueMessage
        from config import get_config

        queue_name = get_config().service_bus_jobs_queue
        message = JobQueueMessage(job_id=job_id, job_type="echo", stage=1, parameters=params)
        return {
            "queued": True,
            "queue_type": "service_bus",
            "queue_name": queue_name,
            "message_id": ServiceBusRepository().send_message(queue_name, message),
            "job_id": job_id,
        }

    @staticmethod
    def create_tasks_for_stage(stage, job_params, job_id, previous_results=None):
        from core.task_id import generate_deterministic_task_id, get_predecessor_task_id

        task_type = {1: "echo_say", 2: "echo_hear"}[stage]
        return [
            {
                "task_id": generate_deterministic_task_id(job_id, stage, f"voice_{i}"),
                "task_type": task_type,
                "parameters": {
                    "index": i,
                    "words": job_params["words"],
                    "after": get_predecessor_task_id(job_id, stage, f"voice_{i}"),
                },
                "metadata": {"voice": i},
            }
            for i in range(job_params["n"])
        ]

    @staticmethod
    def finalize_job(context=None) -> Dict[str, Any]:
        from util_logger import LoggerFactory, ComponentType

        logger = LoggerFactory.create_logger(ComponentType.CONTROLLER, "EchoJob.finalize_job")
        if context is None:
            return {"job_type": "echo"}
        heard = [t.result_data["heard"] for t in context.task_results if t.task_type == "echo_hear" and t.success]
        logger.info(f"Heard {len(heard)} voices")
        return {"job_type": "echo", "heard": heard, "total_tasks": len(context.task_results)}


from jobs.mixins import JobBaseMixin


class CountdownJob(JobBaseMixin, JobBase):
    """One stage, declared parameters, one of them named like a submit field; no aggregation at all."""

    job_type = "countdown"
    description = "Count down"
    stages = [{"number": 1, "name": "count", "task_type": "count_down", "parallelism": "single"}]
    parameters_schema = {
        "start": {"type": "int", "default": 3, "min": 1, "max": 10},
        "dataset_id": {"type": "str", "required": True},
    }

    @staticmethod
    def create_tasks_for_stage(stage, job_params, job_id, previous_results=None):
        return [{"task_id": f"{job_id[:8]}-s1-count", "task_type": "count_down", "parameters": dict(job_params)}]


def list_shelf_items(params: dict) -> dict[str, Any]:
    return {"success": True, "result": {"names": [f"item-{i}" for i in range(params["items"])]}}


def weigh_shelf_item(params: dict) -> dict[str, Any]:
    from util_logger import LoggerFactory, ComponentType

    logger = LoggerFactory.create_logger(ComponentType.SERVICE, "weigh_shelf_item")
    try:
        if params["broken"]:
            raise ValueError(f"{params['name']} fell off the shelf")
        return {"success": True, "result": {"name": params["name"], "grams": len(params["name"]) * 100}}
    except Exception as e:
        logger.error(f"Cannot weigh: {e}")
        return {"success": False, "error": str(e), "error_type": type(e).__name__}


def handle_say(params: Dict[str, Any], context: Dict[str, Any] = None) -> Dict[str, Any]:
    return {"success": True, "said": f"{params['words']} {params['index']}"}


def handle_hear(params: Dict[str, Any], context: Dict[str, Any] = None) -> Dict[str, Any]:
    heard = "nothing"
    if context and "predecessor_result" in context:
        heard = context["predecessor_result"].get("said", "nothing")
    return {"success": True, "heard": heard}


def count_down(params: dict) -> dict:
    return {"success": True, "result": {"numbers": list(range(params["start"], 0, -1))}}


ALL_JOBS = {
    "shelf_inventory": ShelfInventoryWorkflow,
    "echo": EchoJob,
    "countdown": CountdownJob,
}

ALL_HANDLERS = {
    "list_shelf_items": list_shelf_items,
    "weigh_shelf_item": weigh_shelf_item,
    "echo_say": handle_say,
    "echo_hear": handle_hear,
    "count_down": count_down,
}
