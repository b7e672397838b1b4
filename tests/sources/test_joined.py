"""Columns beside columns are a source like any other; and noise beside rows."""

from __future__ import annotations

import dask.array as da
import numpy as np
import pytest
import zarr

from streamgmm.errors import DataError, DataTypeError
from streamgmm.sources import open_source
from streamgmm.sources.joined import as_regions, beside, columns_of
from streamgmm.sources.uncertain import UNKNOWN, with_noise
from streamgmm.testing import SourceTests


def put(path, values, rows):
    array = zarr.create_array(
        path, shape=values.shape, chunks=(rows, *values.shape[1:]), dtype=values.dtype
    )
    array[:] = values
    return str(path)


class TestArrays(SourceTests):
    """An array and its last column."""

    sizes = ((1, 2), (9, 2), (1001, 3))

    def source(self, rows, sample_weight, tmp_path):
        first = open_source(rows[:, :-1], sample_weight=sample_weight)
        return beside(first, [columns_of(rows[:, -1], first, "y")])


class TestZarrAndDask(SourceTests):
    """Of other chunks each."""

    sizes = ((2, 2), (9, 2), (1001, 3))

    def source(self, rows, sample_weight, tmp_path):
        path = put(tmp_path / "x.zarr", rows[:, :1], 100)
        first = open_source(path, sample_weight=sample_weight)
        more = da.from_array(rows[:, 1:], chunks=(70, 1))
        return beside(first, [columns_of(more, first, "y")])


class TestNoise(SourceTests):
    """Rows, and half as many variances again, the absolute values of theirs."""

    sizes = ((1, 2), (9, 4), (1001, 6))

    def source(self, rows, sample_weight, tmp_path):
        half = rows.shape[1] // 2
        first = open_source(
            put(tmp_path / "x.zarr", rows[:, :half], 64), sample_weight=sample_weight
        )
        # What is not finite is refused where it is read, as in the rows.
        noise = put(tmp_path / "s.zarr", rows[:, half:], 100)
        return beside(first, [columns_of(noise, first, "noise")])


def rows_of(source):
    (block,) = source.blocks(1 << 30)
    return np.concatenate([piece.rows for piece in block.pieces()])


def test_infinite_variances_are_unknown(tmp_path):
    X = np.arange(6.0).reshape(3, 2)
    s = np.array([[0.5, np.inf], [np.inf, 1.0], [0.0, 2.0]])
    expected = np.hstack([X, np.where(np.isinf(s), UNKNOWN, s)])
    for noise in (s, put(tmp_path / "s.zarr", s, 2), da.from_array(s, chunks=(2, 1))):
        found = with_noise(open_source(X), noise)
        assert not found.matrices
        np.testing.assert_array_equal(rows_of(found.source), expected)
    matrices = np.zeros((3, 2, 2))
    np.einsum("ndd->nd", matrices)[...] = s
    matrices[2, 0, 1] = matrices[2, 1, 0] = 0.0
    for i, noise in enumerate((matrices, put(tmp_path / "m.zarr", matrices, 2))):
        found = with_noise(open_source(X), noise)
        assert found.matrices, i
        rows = rows_of(found.source)
        np.testing.assert_array_equal(rows[:, [2, 5]], expected[:, 2:])
        assert not rows[:, [3, 4]].any()


def test_whole_numbers_are_variances(tmp_path):
    X, s = np.ones((4, 2)), np.arange(8).reshape(4, 2)
    for noise in (s, put(tmp_path / "s.zarr", s, 3)):
        np.testing.assert_array_equal(rows_of(with_noise(open_source(X), noise).source)[:, 2:], s)


def test_where_results_are_given_is_up_to_the_rows(tmp_path):
    X = np.ones((4, 2))
    path = put(tmp_path / "x.zarr", X, 2)
    assert as_regions(with_noise(open_source(X), path).source).in_memory
    assert not as_regions(with_noise(open_source(path), X).source).in_memory


def test_what_is_no_source_of_ours():
    class Other:
        name, n_samples, n_features = "others", 2, 1
        dtype, nbytes = np.dtype(float), 16

        def blocks(self, target_bytes, start=0, stop=None):
            return []

    with pytest.raises(DataTypeError, match="others is a Other, beside whose rows"):
        as_regions(Other())


def test_targets_that_do_not_fit():
    source = open_source(np.ones((4, 2)))
    for y in (np.ones(3), np.ones((4, 2, 2)), 1.0):
        with pytest.raises(DataError, match=r"y has shape .*, but the samples of X"):
            columns_of(y, source, "y")
    with pytest.raises(DataError, match="not a number"):
        columns_of(np.array(list("abcd")), source, "y")
