"""The layers of the house: who may import whom, checked on the files and in fresh processes.

``geo_assets.assets`` → ``coremachine``, ``jobs`` → domain packages → ``stores``; the domain packages are a plain
library without Dagster, and the CoreMachine layer knows nothing of geodata.
"""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import geo_assets
from tests.services.found import REPOSITORY

PACKAGE = Path(geo_assets.__file__).parent
DOMAIN = ("containers", "raster", "vector", "stac", "stores")
BESIDE_DAGSTER = (
    "checking",
    "clean_up",
    "notices",
    "reconcile",
    "reconciliation",
    "report",
    "report_server",
    "sources",
    "webhook",
)
"""They know the ledger and the stores, and leave Dagster to ``assets``."""
FOUNDATION = ("errors", "pictures", "redaction", "scratch", "settings")
"""What everything may use."""
ABOVE_DOMAIN = tuple(
    # derived, so that nothing new is forgotten
    sorted(
        {path.stem for path in PACKAGE.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
        - {"__init__", *FOUNDATION, *DOMAIN}
    )
)
ABOVE_COREMACHINE = tuple(part for part in ABOVE_DOMAIN if part != "coremachine")
GEODATA = frozenset(
    [
        "rasterio",
        "rio_cogeo",
        "rio_stac",
        "geopandas",
        "pyogrio",
        "fiona",
        "shapely",
        "pyproj",
        "pystac",
        "stac_geoparquet",
        "pypgstac",
        "antimeridian",
        "obstore",
        "adlfs",
        "azure",
        "polars",
        "pyarrow",
        "pandas",
        "osgeo",
        "PIL",
    ]
)


def _modules(*parts: str) -> list[str]:
    """Return the dotted names of our modules below (or at) ``geo_assets.<part>`` for each part."""
    files = [file for part in parts for file in ((PACKAGE / part).rglob("*.py"), [PACKAGE / f"{part}.py"])]
    found = (path.relative_to(PACKAGE.parent).with_suffix("") for some in files for path in some if path.exists())
    return sorted(".".join(path.parts).removesuffix(".__init__") for path in found)


def _source(module: str) -> Path:
    path = PACKAGE.parent / Path(*module.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def _imports(source: str) -> Iterator[str]:
    """Yield every dotted name that ``source`` imports, inside functions too; ``from a import b`` gives ``a.b``."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"a relative import of {node.module}: write it in full"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _forbidden(source: str, *, ours: tuple[str, ...], theirs: frozenset[str]) -> list[str]:
    """Return the imports of ``source`` that lie in one of our packages ``ours`` or the libraries ``theirs``."""
    refused = (*(f"geo_assets.{part}" for part in ours), *theirs)
    return [
        name for name in _imports(source) if name.startswith(tuple(f"{part}." for part in refused)) or name in refused
    ]


def _names(*parts: str) -> list[str]:
    # pytest fails on an empty list of parameters; a layer that is not built yet shows as a skip
    return _modules(*parts) or [pytest.param("", marks=pytest.mark.skip(f"no {', '.join(parts)} yet"))]  # type: ignore[list-item]


@pytest.mark.parametrize("module", _names(*DOMAIN))
def test_domain_imports_neither_dagster_nor_what_lies_above(module: str) -> None:
    source = _source(module).read_text()
    dagster = frozenset({"dagster", "dagster_azure", "dagster_postgres", "dagster_shared"})
    assert not _forbidden(source, ours=ABOVE_DOMAIN, theirs=dagster), f"{module} reaches up"


@pytest.mark.parametrize("package", DOMAIN)
def test_domain_package_loads_without_dagster(package: str) -> None:
    modules = _modules(package)
    if not modules:
        pytest.skip(f"no geo_assets.{package} yet")
    loaded = _loaded_after(modules)
    assert f"geo_assets.{package}" in loaded
    assert not {name for name in loaded if name.partition(".")[0].startswith("dagster")}


def test_what_stands_beside_dagster_loads_without_it() -> None:
    for module in _modules(*BESIDE_DAGSTER):
        above = ("assets", "build", "cli", "definitions", "resources")
        assert not _forbidden(_source(module).read_text(), ours=above, theirs=frozenset({"dagster"})), module
    loaded = _loaded_after(_modules(*BESIDE_DAGSTER))
    assert not {name for name in loaded if name.partition(".")[0].startswith("dagster")}


@pytest.mark.parametrize("module", _names("coremachine"))
def test_coremachine_knows_nothing_of_geodata(module: str) -> None:
    source = _source(module).read_text()
    assert not _forbidden(source, ours=(*ABOVE_COREMACHINE, *DOMAIN), theirs=GEODATA), f"{module} knows geodata"


def test_coremachine_loads_no_domain_package() -> None:
    # Dagster itself may load pandas and the like; what our own modules load is seen by name
    # (migrations are run by alembic, not imported)
    loaded = _loaded_after([name for name in _modules("coremachine") if ".migrations" not in name])
    above = {f"geo_assets.{part}" for part in (*ABOVE_COREMACHINE, *DOMAIN)}
    assert "geo_assets.coremachine" in loaded
    assert not above & loaded


@pytest.mark.parametrize("module", _names("jobs"))
def test_jobs_do_not_import_assets(module: str) -> None:
    assert not _forbidden(
        _source(module).read_text(), ours=("assets", "build", "cli", "definitions"), theirs=frozenset()
    )


@pytest.mark.parametrize("module", _names("sources"))
def test_sources_import_neither_dagster_nor_what_lies_above(module: str) -> None:
    above = ("assets", "build", "cli", "definitions", "jobs", "resources")
    dagster = frozenset({"dagster", "dagster_azure", "dagster_postgres", "dagster_shared"})
    assert not _forbidden(_source(module).read_text(), ours=above, theirs=dagster), f"{module} reaches up"


def test_sources_load_without_dagster() -> None:
    loaded = _loaded_after(_modules("sources"))
    assert "geo_assets.sources.look" in loaded
    assert not {name for name in loaded if name.partition(".")[0].startswith("dagster")}


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("import rasterio.io", ["rasterio.io"]),
        ("def f():\n    from geo_assets import stores", ["geo_assets.stores"]),
        ("from geo_assets.stores.blob import x", ["geo_assets.stores.blob.x"]),
        ("import storesque\nfrom geo_assets.errors import StoreUnavailableError\nimport rasteriox", []),
    ],
)
def test_the_check_sees_every_way_to_import(source: str, found: list[str]) -> None:
    assert _forbidden(source, ours=("stores",), theirs=frozenset({"rasterio"})) == found


def test_every_module_says_what_belongs_there() -> None:
    folders = (PACKAGE, REPOSITORY / "tests", REPOSITORY / "benchmarks")
    files = [path for folder in folders for path in folder.rglob("*.py")]
    assert files
    silent = [path for path in files if path.read_text().strip() and not ast.get_docstring(ast.parse(path.read_text()))]
    empty = [path for path in files if not path.read_text().strip() and path.name != "__init__.py"]
    assert not silent + empty


def test_nothing_is_called_utils_or_helpers() -> None:
    vague = {"utils", "util", "helpers", "helper", "common", "misc"}
    assert not [path for path in PACKAGE.rglob("*") if path.stem in vague]


def _loaded_after(modules: list[str]) -> set[str]:
    """Return ``sys.modules`` of a fresh process that has imported ``modules``."""
    program = f"import {', '.join(modules)}, sys; print(*sys.modules, sep='\\n')"
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=REPOSITORY, check=False)
    assert ran.returncode == 0, ran.stderr
    return set(ran.stdout.split())
