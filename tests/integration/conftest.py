"""Order of the tests that share one running Dagster."""

import pytest


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep the tests of ``test_daemon`` in the order in which they are written: each looks at what the last one left."""
    places = [place for place, item in enumerate(items) if item.path.name == "test_daemon.py"]
    in_order = sorted((items[place] for place in places), key=lambda item: item.location[1] or 0)
    for place, item in zip(places, in_order, strict=True):
        items[place] = item
