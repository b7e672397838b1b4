"""`follow` with k-means: each row once, the same centres through any crash."""

from pathlib import Path

import numpy as np
import pytest
import zarr
from numpy.testing import assert_allclose, assert_array_equal

from streamgmm import KMeans, follow, load
from streamgmm.errors import DataError, ParameterError

MIDDLES = np.array([[0.0, 0.0], [9.0, 0.0], [0.0, 9.0]])


def made(n, seed=0):
    rng = np.random.default_rng(seed)
    return MIDDLES[rng.integers(3, size=n)] + rng.normal(size=(n, 2))


def grown(path, rows):
    array = zarr.create_array(str(path), shape=rows.shape, chunks=(500, 2), dtype="f8")
    array[:] = rows
    return array


def test_centres_of_a_stream(tmp_path: Path) -> None:
    rows = made(20_000)
    grown(tmp_path / "x", rows)
    labels = tmp_path / "labels"
    model = follow(
        tmp_path / "x", tmp_path / "state", KMeans(3, random_state=1), once=True, labels=labels
    )
    centres = model.cluster_centers_[np.lexsort(model.cluster_centers_.round().T)]
    assert_allclose(centres, MIDDLES[np.lexsort(MIDDLES.T)], atol=0.06)
    assert model.counts_.sum() == len(rows)
    written = zarr.open_array(labels)[:].ravel()
    assert np.mean(written == model.predict(rows)) > 0.999


def test_the_rows_of_the_warm_up_are_fitted_and_the_rest_learned(tmp_path: Path) -> None:
    rows = made(5000)
    model = follow([rows], tmp_path / "s", KMeans(3), once=True, batch_rows=500)
    other = KMeans(3, random_state=0).fit(rows[:2000])
    for first in range(2000, 5000, 500):
        other.partial_fit(rows[first : first + 500])
    assert_array_equal(model.cluster_centers_, other.cluster_centers_)
    assert model.inertia_ == other.inertia_


@pytest.mark.parametrize("stop", [1, 3, 6])
def test_ended_and_taken_up_again(tmp_path: Path, stop: int) -> None:
    rows = made(5000)
    pieces = [rows[first : first + 500] for first in range(0, 5000, 500)]
    how = {"once": True, "batch_rows": 500, "save_rows": 500}
    whole = follow(pieces, tmp_path / "whole", KMeans(3, random_state=3), **how)

    class EndedError(Exception):
        pass

    def end(model, n_rows):
        seen.append(n_rows)
        if len(seen) == stop:
            raise EndedError

    seen: list[int] = []
    with pytest.raises(EndedError):
        follow(pieces, tmp_path / "s", KMeans(3, random_state=3), on_batch=end, **how)
    again = follow(pieces, tmp_path / "s", **how)
    assert_array_equal(again.cluster_centers_, whole.cluster_centers_)
    assert_array_equal(again.counts_, whole.counts_)
    kept = load(tmp_path / "s")
    assert_array_equal(kept.cluster_centers_, whole.cluster_centers_)
    assert_array_equal(kept.predict(rows), whole.predict(rows))


def test_a_fitted_model_goes_on(tmp_path: Path) -> None:
    rows = made(4000)
    model = KMeans(3, random_state=0).fit(rows[:3000])
    follow([rows[3000:]], tmp_path / "s", model, once=True)
    assert model.counts_.sum() == 4000


def test_wrong_use(tmp_path: Path) -> None:
    rows = made(3000)
    follow([rows], tmp_path / "s", KMeans(3), once=True)
    with pytest.raises(ParameterError, match="n_clusters=3 there, 4 here"):
        follow([rows], tmp_path / "s", KMeans(4), once=True)
    with pytest.raises(DataError, match="expecting 2 features"):
        follow([rows[:, :1]], tmp_path / "t", KMeans(3).fit(rows), once=True)


def test_a_store_for_checkpoints_is_of_this_process_alone(tmp_path: Path) -> None:
    model = KMeans(3, checkpoint=zarr.storage.MemoryStore())
    follow([made(3000)], tmp_path / "s", model, once=True)
    assert load(tmp_path / "s").checkpoint is None
