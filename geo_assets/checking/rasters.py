"""Checks of rasters: the validation still holds, the COG is whole, and it is like its source.

What belongs here: judging versions, fetching files, sentences.  What does not: opening files (``raster_files``, in
worker processes), items (``items``).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from geo_assets.checking.finding import Evidence, Finding, failed, passed, warned
from geo_assets.coremachine.contract import OutcomeKind
from geo_assets.coremachine.sandbox import Sandbox
from geo_assets.errors import (
    BlobNotFoundError,
    ContainerNotFoundError,
    GeoAssetsError,
    RasterRefusedError,
    StoreUnavailableError,
)
from geo_assets.scratch import ScratchFolder
from geo_assets.settings import Settings
from geo_assets.stores.blobs import BlobProperties, BlobStore

__all__ = ["cog_matches_source", "cog_valid", "nothing_recorded", "properties_of", "raster_valid", "source_of"]

_REMAKE = "materialize this partition again"


def nothing_recorded(evidence: Evidence) -> Finding:
    """Of a partition that no job has made."""
    return warned(f"no finished job is on record for {evidence.name}: materialize this partition first")


def properties_of(evidence: Evidence, container: str, name: str) -> BlobProperties | None:
    """What the store says of a blob now; ``None``: it is not there."""
    blobs: BlobStore = evidence.services["blobs"]
    try:
        return blobs.head(container, name)
    except (BlobNotFoundError, ContainerNotFoundError):
        return None


def source_of(evidence: Evidence) -> tuple[str, str]:
    """Container and blob of the source of a raster's partition."""
    container, _, blob = evidence.name.partition("/")
    return container, blob


# --- the validation ----------------------------------------------------------------------------------------------


def raster_valid(evidence: Evidence) -> Finding:
    """The raster was found valid, and is still the version that was looked at."""
    validated = _validated(evidence)
    if validated is None:
        return nothing_recorded(evidence)
    verdict, etag = validated
    if not verdict:
        return failed(f"the raster was found invalid: replace {evidence.name}, or give input_crs where it has none")
    source = properties_of(evidence, *source_of(evidence))
    if source is None:
        return warned(f"{evidence.name} is gone, so nothing more can be made of it", validated_etag=etag)
    if source.etag != etag:
        return failed(
            f"{evidence.name} was replaced on {source.last_modified:%Y-%m-%d %H:%M:%S} UTC, after it was validated:"
            f" {_REMAKE}",
            validated_etag=etag,
            source_etag=source.etag,
        )
    return passed("valid, and the source is still the version that was validated", source_etag=etag)


def _validated(evidence: Evidence) -> tuple[bool, str | None] | None:
    """The newest verdict, and on which version of the source it was; ``None``: there is none."""
    for result in evidence.results("validate_raster_job", "process_raster"):
        own = result.get("validation_result")
        if own:
            return bool(own.get("valid")), own.get("source_etag")
        cog = result.get("cog")
        if cog:
            return bool((result.get("validation") or {}).get("valid")), cog.get("source_etag")
    return None


# --- the COG -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class _Tier:
    """One published COG, as its job recorded it."""

    name: str
    container: str
    blob: str
    etag: str
    size: int
    sha256: str
    facts: Mapping[str, Any]

    @property
    def where(self) -> str:
        return f"{self.container}/{self.blob}"


def _recorded(evidence: Evidence) -> tuple[dict[str, Any], list[_Tier]] | None:
    for result in evidence.results("process_raster"):
        cog = result.get("cog")
        if cog:
            return cog, [
                _Tier(
                    name=name, container=made["cog_container"], blob=made["cog_blob"], etag=made["etag"],
                    size=made["size"], sha256=made["sha256"], facts=made,
                )
                for name, made in cog["tiers"].items()
            ]  # fmt: skip
    return None


def cog_valid(evidence: Evidence) -> Finding:
    """Each published COG is the one that was proven, its structure is valid, and all of its blocks can be read."""
    recorded = _recorded(evidence)
    if recorded is None:
        return nothing_recorded(evidence)
    problems: list[str] = []
    blocks = levels = 0
    for tier in recorded[1]:
        wrong, found = _look_at(evidence, tier)
        problems += wrong
        blocks += found.get("blocks", 0)
        levels = max(levels, found.get("levels", 0))
    tiers = [tier.where for tier in recorded[1]]
    if problems:
        return failed(f"{'; '.join(problems)}: {_REMAKE}", cogs=tiers)
    return passed(
        f"valid, and all {blocks:,} blocks of {levels} levels were decoded", cogs=tiers, blocks=blocks, levels=levels
    )


def _look_at(evidence: Evidence, tier: _Tier) -> tuple[list[str], dict[str, Any]]:
    there = properties_of(evidence, tier.container, tier.blob)
    if there is None:
        return [f"{tier.where} is gone"], {}
    problems = []
    if there.etag != tier.etag:
        problems.append(f"{tier.where} was replaced on {there.last_modified:%Y-%m-%d %H:%M:%S} UTC by something else")
        if there.size > tier.size:
            return problems, {}  # whatever that is, it is not fetched
    # here and not above: GDAL is loaded where a raster is at work
    from geo_assets.checking.raster_files import read_cog_task  # noqa: PLC0415

    with _Files(evidence) as files:
        path, sha256 = files.fetch(tier.container, tier.blob)
        if path is None:
            return [*problems, sha256], {}
        if there.etag == tier.etag and sha256 != tier.sha256:
            problems.append(f"{tier.where} does not have the bytes that were published (its SHA-256 is another)")
        message, found = files.ask(read_cog_task, {"path": str(path), "name": tier.blob})
    return [*problems, *([f"{tier.where}: {message}"] if message else [])], found


def cog_matches_source(evidence: Evidence) -> Finding:
    """The source is still the version the COG was made of, and the COG has its place, its type and its pixels."""
    recorded = _recorded(evidence)
    if recorded is None:
        return nothing_recorded(evidence)
    cog, tiers = recorded
    main = next((tier for tier in tiers if tier.where == f"{cog['cog_container']}/{cog['cog_blob']}"), tiers[0])
    container, blob = source_of(evidence)
    source = properties_of(evidence, container, blob)
    if source is None:
        return warned(f"{evidence.name} is gone, so there is nothing to compare the COG with")
    if source.etag != cog["source_etag"]:
        return failed(
            f"{evidence.name} was replaced on {source.last_modified:%Y-%m-%d %H:%M:%S} UTC, after the COG was made of"
            f" it: {_REMAKE}",
            made_of_etag=cog["source_etag"],
            source_etag=source.etag,
        )
    if properties_of(evidence, main.container, main.blob) is None:
        return failed(f"{main.where} is gone: {_REMAKE}")
    return _compared(evidence, cog, main)


def _compared(evidence: Evidence, cog: Mapping[str, Any], main: _Tier) -> Finding:
    from geo_assets.checking.raster_files import compare_task  # noqa: PLC0415 - brings GDAL along

    container, blob = source_of(evidence)
    made_by = next(one for one in evidence.attempts if one.result_data and one.result_data.get("cog"))
    with _Files(evidence) as files:
        source_path, problem = files.fetch(container, blob)
        if source_path is None:
            return failed(problem)
        cog_path, problem = files.fetch(main.container, main.blob)
        if cog_path is None:
            return failed(f"{problem}: {_REMAKE}")
        message, found = files.ask(
            compare_task,
            {
                "source": str(source_path),
                "cog": str(cog_path),
                "name": blob,
                "input_crs": made_by.parameters.get("input_crs"),
                "target_crs": made_by.parameters.get("target_crs", "EPSG:4326"),
                "nodata": main.facts.get("nodata"),
                "quality": main.facts.get("quality"),
            },
        )
    if message:
        return failed(f"{main.where}: {message}: {_REMAKE}", cog=main.where)
    return passed(
        f"place, bands and type agree with the source, and so do {found['compared']}",
        cog=main.where, source_etag=cog["source_etag"], compared=found["count"],
    )  # fmt: skip


class _Files:
    """Private copies of blobs for a while, and the sandbox to look at them."""

    def __init__(self, evidence: Evidence) -> None:
        self._services = evidence.services
        self._settings: Settings = evidence.services["settings"]
        self._folders: list[ScratchFolder] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for folder in self._folders:
            folder.close()

    def fetch(self, container: str, name: str) -> tuple[Path | None, str]:
        """A copy with its SHA-256; or ``None``, and what is wrong with the blob."""
        from geo_assets.raster.local_copy import fetch  # noqa: PLC0415 - brings the formats along

        folder = ScratchFolder(self._settings.scratch_path)  # one each: the copies have neutral names
        self._folders.append(folder)
        try:
            copy = fetch(
                self._services["blobs"], container, name, folder=lambda: folder.path,
                reserve_bytes=self._settings.disk_reserve_mb << 20,
            )  # fmt: skip
        except (BlobNotFoundError, ContainerNotFoundError):
            return None, f"{container}/{name} is gone"
        except RasterRefusedError as error:
            return None, str(error)
        return copy.path, copy.sha256

    def ask(self, function: Callable[..., Any], params: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
        """What is wrong, in words, or nothing; and what was found.

        Raises:
            StoreUnavailableError: the worker process gave no answer, for reasons that may pass.
        """
        from geo_assets.raster.open import RasterBudget  # noqa: PLC0415 - brings GDAL along

        sandbox: Sandbox = self._services["sandbox"]
        budget = RasterBudget.from_settings(self._settings).as_dict()
        outcome = sandbox.call(function, {**params, "budget": budget})
        if outcome.kind is OutcomeKind.CREATED:
            found: dict[str, Any] = outcome.result_data["result"]
            return "", found
        message = outcome.result_data.get("message") or outcome.error or outcome.reason or "no answer"
        if outcome.transient:
            raise StoreUnavailableError(f"the file could not be looked at: {message}; check it again")
        if "error" not in outcome.result_data:
            raise GeoAssetsError(f"the file could not be looked at: {message}")
        return str(message), {}
