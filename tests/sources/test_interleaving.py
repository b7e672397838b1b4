"""Features that lie apart are put beside one another: the same values, however they lie."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamgmm.sources import interleaving
from streamgmm.sources.interleaving import interleaved

rng = np.random.default_rng(0)
LAYOUTS = ("columns", "rows", "one", "lacks", "picked", "other dtype", "sliced")


def variable(layout, extent, width, dtype):
    values = rng.normal(size=(*extent, width)).astype(dtype)
    values.reshape(-1)[:1] = np.nan
    if layout == "columns":
        return np.moveaxis(np.moveaxis(values, -1, 0).copy(), 0, -1)
    if layout == "one":
        return values[..., :1].copy()
    if layout == "lacks":
        return values[:1]
    if layout == "picked":
        return np.moveaxis(np.moveaxis(values, -1, 0).copy(), 0, -1)[..., list(range(width))[::-1]]
    if layout == "other dtype":
        return values.astype(
            "f4" if dtype == "f8" else "i2" if np.isfinite(values).all() else "f4"
        )
    if layout == "sliced":
        return np.repeat(values, 2, axis=1)[:, ::2]
    return values


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(LAYOUTS), st.integers(1, 11)), min_size=1, max_size=12),
    st.tuples(st.integers(1, 4), st.integers(1, 40), st.integers(1, 9)),
    st.sampled_from(["f4", "f8"]),
    st.booleans(),
)
def test_the_values_are_those_of_each_variable(parts, extent, dtype, compiled):
    values = [variable(layout, extent, width, dtype) for layout, width in parts]
    wide = [np.broadcast_to(each, (*extent, each.shape[-1])) for each in values]
    expected = np.concatenate(wide, axis=-1).astype(dtype)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(interleaving, "COMPILED_VALUES", 0 if compiled else 1 << 60)
        n = expected.shape[-1]
        found = interleaved(values, extent, n, np.dtype(dtype))
    np.testing.assert_array_equal(found, expected.reshape(-1, n))
    assert found.flags.c_contiguous
