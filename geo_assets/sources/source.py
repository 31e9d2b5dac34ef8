"""What a source is: a container, a pattern, and what to do with what matches.

What belongs here: :class:`Source`, and reading sources from YAML.  What does not: looking at containers (``look``).
"""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

__all__ = ["Source"]


class Source(BaseModel):
    """One watched container, or a part of one, and what becomes of its blobs."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(
        description="Its name: lower-case letters, digits and underscores."
    )
    container: str = Field(description="Container that is watched.")
    prefix: str = Field("", description="What names start with: text, not a folder.")
    match: tuple[str, ...] = Field((), description="Globs of names, one is enough. Default: what the workflow reads.")
    exclude: tuple[str, ...] = Field((), description="Globs of names that do not count.")
    workflow: str = Field(description="Job type of what is done with each blob or dataset, or with the container.")
    parameters: dict[str, Any] = Field(
        default_factory=dict,
        description="Parameters of the jobs. In texts, {name}, {stem}, {folder}, {table} and the groups of `extract`"
        " are replaced.",
    )
    extract: str | None = Field(None, description="Regular expression on the name; its named groups fill parameters.")
    stable_seconds: float = Field(
        0.0, ge=0, description="How long a blob or dataset must have been seen unchanged before it becomes a job."
    )
    every_seconds: int = Field(60, ge=5, description="How often the container is looked at.")
    max_active: int = Field(5000, ge=1, description="Most jobs of this source that wait or are at work at a time.")
    per_minute: int | None = Field(None, ge=1, description="Most jobs of this source queued in a minute.")
    when_removed: Literal["keep", "unpublish"] = Field(
        "keep", description="What becomes of what was made of a blob that is gone, after `removed_days`."
    )
    removed_days: float = Field(30.0, ge=0, description="How long a blob must be gone before `when_removed` is done.")
    paused: bool = Field(default=False, description="Whether its sensor is off until somebody switches it on.")
