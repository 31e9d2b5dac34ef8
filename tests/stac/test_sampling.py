"""Statistics of one band against numpy's own, whatever its type and size."""

import numpy as np
import pytest

from geo_assets.stac.sampling import band_statistics


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int32", "float32", "float64"])
@pytest.mark.parametrize("shape", [(3, 5), (128, 128), (129, 128), (211, 307)])
def test_statistics_are_numpys(shape: tuple[int, int], dtype: str) -> None:
    values = np.random.default_rng(sum(shape)).normal(120, 20, shape).clip(0, 255).astype(dtype)
    mask = np.arange(values.size).reshape(shape) % 7 > 0
    found, valid = band_statistics(values, mask), values[mask].astype("float64")
    assert found["count"] == values.size
    assert found["valid_percent"] == pytest.approx(100 * valid.size / values.size, abs=1e-4)
    assert (found["minimum"], found["maximum"]) == (valid.min(), valid.max())
    assert found["mean"] == pytest.approx(valid.mean(), rel=1e-12)
    assert found["stddev"] == pytest.approx(valid.std(), rel=1e-9)
    histogram = found["histogram"]
    buckets, edges = np.histogram(
        valid, bins=histogram["count"], range=(0, 256) if dtype == "uint8" else (valid.min(), valid.max())
    )
    assert sum(histogram["buckets"]) == valid.size
    # on an edge rounding decides
    on_edge = np.isclose(valid[:, None], edges[None], rtol=1e-9).any(axis=1).sum()
    assert np.abs(np.array(histogram["buckets"]) - buckets).sum() <= 2 * on_edge
