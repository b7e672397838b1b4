"""Predictions written chunk by chunk: right, whole, once, or not there at all."""

from __future__ import annotations

import math
import resource
import subprocess
import sys
from pathlib import Path

import dask.array as da
import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from streamgmm.errors import (
    DataError,
    NonFiniteError,
    OutputError,
    OutputExistsError,
    ParameterError,
)
from streamgmm.predict import WHAT, predict_lazily, predict_rows, predict_to, score_rows
from streamgmm.predict.rows import posteriors
from streamgmm.predict.store import CHUNK_BYTES, chunk_rows
from streamgmm.sources import open_source
from streamgmm.storage.output import Output, is_unfinished
from tests.mixtures import draw, random_mixture
from tests.predict_work import DyingSource

MIXTURE = random_mixture("full", 3, 2, seed=1)
X = draw(MIXTURE, 5000)
BLOCK = 16 * 700


@pytest.fixture(scope="module")
def said():
    posterior = MIXTURE.posterior(X, labels=True, resp=True)
    return dict(zip(WHAT, (posterior.labels, posterior.resp, posterior.log_density), strict=True))


def stored(folder, chunks=(250, 2), name="x.zarr"):
    path = folder / name
    zarr.create_array(str(path), data=X, chunks=chunks)
    return path


def make(kind, folder):
    if kind == "numpy":
        return open_source(X)
    if kind == "zarr":
        return open_source(stored(folder))
    if kind == "odd chunks":
        return open_source(stored(folder, (70, 1)))
    if kind == "one chunk":
        return open_source(stored(folder, (5000, 2)))
    assert kind == "dask"
    chunks = (1, 699, 0, 300, 2000, 1999, 1)
    return open_source(da.from_array(X, chunks=(chunks, (1, 1))))


KINDS = ["numpy", "zarr", "odd chunks", "one chunk", "dask"]


@pytest.mark.parametrize("what", WHAT)
@pytest.mark.parametrize("kind", KINDS)
def test_every_way_out_says_the_same(kind, what, said, tmp_path):
    source = make(kind, tmp_path)
    array, tally = predict_to(source, MIXTURE, tmp_path / "out.zarr", what=what, block_size=BLOCK)
    assert array.dtype == (WHAT[what].stored or source.dtype)
    assert not is_unfinished(tmp_path / "out.zarr")
    assert not is_unfinished(tmp_path / "nothing.zarr")
    assert not (tmp_path / "nothing.zarr").exists()
    np.testing.assert_array_equal(zarr.open_array(tmp_path / "out.zarr", mode="r")[:], said[what])
    assert tally.n_rows == len(X)
    np.testing.assert_array_equal(tally.counts, np.bincount(said["labels"], minlength=3))
    assert tally.lowest_row == np.argmin(said["log_density"])
    assert tally.lowest == said["log_density"].min()

    lazy = predict_lazily(source, MIXTURE, what, block_size=BLOCK)
    assert lazy.dtype == (WHAT[what].dtype or source.dtype)
    assert lazy.shape == said[what].shape
    computed = lazy.compute(scheduler="threads")
    assert computed.dtype == lazy.dtype == lazy._meta.dtype
    np.testing.assert_array_equal(computed, said[what])
    np.testing.assert_array_equal(lazy[4900:].compute(), said[what][4900:])

    np.testing.assert_array_equal(
        predict_rows(source, MIXTURE, what, block_size=BLOCK), said[what]
    )


def test_score_in_one_read_with_weights(said):
    weight = np.arange(len(X)) % 3
    source = open_source(X, sample_weight=weight)
    score = score_rows(source, MIXTURE, block_size=BLOCK, n_threads=2)
    assert score.n_rows == len(X)
    expected = np.average(said["log_density"], weights=weight)
    np.testing.assert_allclose(score.mean, expected, rtol=1e-12)


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(1, 60), min_size=1, max_size=12), st.integers(1, 64))
def test_each_chunk_is_written_once_and_whole(sizes, per_block):
    n = sum(sizes)
    rows = da.from_array(X[:n], chunks=(tuple(sizes), 2))
    written = []

    def note(self, start, values):
        written.append((start, len(values)))
        self.array[start : start + len(values)] = values

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Output, "write", note)
        store = zarr.storage.MemoryStore()
        source = open_source(rows)
        array, _ = predict_to(source, MIXTURE, store, what="proba", block_size=16 * per_block)
    size = array.chunks[0]
    whole = [(a, min(size, n - a)) for a in range(0, n, size)]
    assert sorted(written) == whole
    np.testing.assert_array_equal(array[:], MIXTURE.posterior(X[:n], resp=True).resp)


def test_chunks_are_of_a_reasonable_size_and_shared_by_few_blocks():
    for unit, runs, row_bytes in [(4096, 30, 4), (1000, 7, 8), (10_000_000, 1, 80), (1, 999, 4)]:
        starts = [i * runs * unit for i in range(5)]
        rows = chunk_rows(starts, 5 * runs * unit, row_bytes)
        assert rows * row_bytes <= CHUNK_BYTES
        assert rows * row_bytes > CHUNK_BYTES // 8 or rows == runs * unit
        assert (runs * unit) % rows == 0
    assert chunk_rows([0], 7, 4) == 7
    assert chunk_rows([0, 15_485_863], 20_000_000, 4) == CHUNK_BYTES // 4  # a prime


def test_memory_for_responsibilities_is_bounded(monkeypatch):
    monkeypatch.setattr("streamgmm.predict.rows.SLICE_BYTES", 3 * 8 * 300)
    (block,) = open_source(X).blocks(2 * X.nbytes)
    assert {len(p.resp) for _, p in posteriors(MIXTURE, block, "X", "proba")} == {300, 200}


def test_what_is_there_is_not_touched(tmp_path):
    source = open_source(stored(tmp_path))
    out = tmp_path / "out.zarr"
    predict_to(source, MIXTURE, out)
    with pytest.raises(OutputExistsError, match=r"out\.zarr' exists; pass overwrite=True"):
        predict_to(source, MIXTURE, out)
    array, _ = predict_to(source, MIXTURE, out, what="proba", overwrite=True)
    assert array.shape == (5000, 3)

    zarr.create_group(tmp_path / "group.zarr").create_array("a", shape=(3,), dtype="f4")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "precious.txt").write_text("!")
    (tmp_path / "file").write_text("!")
    for name, said in [("group.zarr", "a Zarr group"), ("folder", "no array"), ("file", "a file")]:
        with pytest.raises(OutputExistsError, match=said):
            predict_to(source, MIXTURE, tmp_path / name, overwrite=True)
    for path in (tmp_path / "x.zarr", tmp_path / "x.zarr" / "labels", tmp_path):
        with pytest.raises(ParameterError, match="where the data are"):
            predict_to(source, MIXTURE, path, overwrite=True)
    with pytest.raises(ParameterError, match="give a path"):
        predict_to(source, MIXTURE, 5)
    with pytest.raises(ParameterError, match="'labels', 'proba', 'log_density'"):
        predict_to(source, MIXTURE, tmp_path / "y.zarr", what="odds")
    assert not (tmp_path / "y.zarr").exists()
    np.testing.assert_array_equal(zarr.open_array(tmp_path / "x.zarr", mode="r")[:], X)
    (tmp_path / "empty").mkdir()
    predict_to(source, MIXTURE, tmp_path / "empty")


def test_an_array_in_a_group(tmp_path):
    root = zarr.create_group(tmp_path / "run.zarr")
    root.create_array("x", data=X, chunks=(500, 2))
    source = open_source(tmp_path / "run.zarr" / "x")
    predict_to(source, MIXTURE, tmp_path / "run.zarr" / "labels")
    assert set(root.array_keys()) == {"x", "labels"}
    place = zarr.storage.StorePath(root.store, "density")
    predict_to(source, MIXTURE, place, what="log_density")
    assert set(root.array_keys()) == {"x", "labels", "density"}


def test_bad_rows_leave_nothing(tmp_path):
    bad = X.copy()
    bad[4321, 1] = math.inf
    source = open_source(bad)
    with pytest.raises(NonFiniteError, match="row 4321, column 1"):
        predict_to(source, MIXTURE, tmp_path / "out.zarr", block_size=BLOCK)
    assert not (tmp_path / "out.zarr").exists()
    lazy = predict_lazily(open_source(da.from_array(bad, chunks=(999, 2))), MIXTURE, "labels")
    with pytest.raises(NonFiniteError, match="row 4321, column 1"):
        lazy.compute()
    with pytest.raises(DataError, match="X has 3 features, but the model is expecting 2"):
        predict_to(open_source(np.ones((4, 3))), MIXTURE, tmp_path / "out.zarr")


def test_ctrl_c_leaves_nothing(tmp_path):
    def interrupt(rows):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        predict_to(
            open_source(X), MIXTURE, tmp_path / "out.zarr", block_size=BLOCK, on_block=interrupt
        )
    assert not (tmp_path / "out.zarr").exists()


def test_a_disk_that_takes_no_more(tmp_path):
    """The kernel really refuses the write of a chunk, as on a full disk or over a quota."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    try:
        with pytest.raises(OutputError, match=r"out\.zarr': rows 0:5000 could not .*\(.*large"):
            predict_to(open_source(X), MIXTURE, tmp_path / "out.zarr", what="proba")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not (tmp_path / "out.zarr").exists()


def test_a_folder_that_may_not_be_written(tmp_path):
    (tmp_path / "file").write_text("!")
    with pytest.raises(OutputError, match=r"could not be written|cannot be looked at"):
        predict_to(open_source(X), MIXTURE, tmp_path / "file" / "out.zarr")


KILLED = """
import os, signal, sys
import numpy as np
from streamgmm.model.mixture import Mixture
from streamgmm.predict import predict_to
from streamgmm.sources import open_source
mixture = Mixture.of("spherical", np.ones(1), np.zeros((1, 1)), np.ones(1))
done = []
def on_block(rows):
    done.append(rows)
    if len(done) == 3:
        os.kill(os.getpid(), signal.SIGKILL)
predict_to(
    open_source(np.zeros((80_000, 1))), mixture, sys.argv[1], block_size=8 * 8192,
    n_threads=1, on_block=on_block,
)
"""


def test_a_killed_process_leaves_no_array(tmp_path):
    out = tmp_path / "out.zarr"
    done = subprocess.run([sys.executable, "-c", KILLED, str(out)], check=False)
    assert done.returncode == -9
    assert len(list((out / "c").iterdir())) >= 2
    assert is_unfinished(out)
    with pytest.raises((FileNotFoundError, ValueError, zarr.errors.NodeTypeValidationError)):
        zarr.open_array(out, mode="r")
    with pytest.raises(OutputExistsError, match=r"is unfinished.*overwrite=True"):
        predict_to(open_source(X), MIXTURE, out)
    array, _ = predict_to(open_source(X), MIXTURE, out, overwrite=True)
    assert array.shape == (5000,)


def files(folder: Path):
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_a_worker_killed_while_writing(client, tmp_path):
    source = open_source(stored(tmp_path))
    out, again = tmp_path / "out.zarr", tmp_path / "again.zarr"
    _, expected = predict_to(source, MIXTURE, out, what="proba", block_size=BLOCK, n_threads=1)
    flag = tmp_path / "killed"
    dying = DyingSource(source, str(flag))
    _, tally = predict_to(dying, MIXTURE, again, what="proba", block_size=BLOCK)
    assert flag.exists()
    assert files(again) == files(out)
    assert (tally.lowest, tally.lowest_row) == (expected.lowest, expected.lowest_row)
    np.testing.assert_array_equal(tally.counts, expected.counts)


def test_a_cluster_and_a_store_in_memory(client, said, tmp_path):
    source = open_source(stored(tmp_path))
    for out in (zarr.storage.MemoryStore(), "memory://labels.zarr"):
        array, _ = predict_to(source, MIXTURE, out, block_size=BLOCK)
        np.testing.assert_array_equal(array[:], said["labels"])
    lazy = predict_lazily(source, MIXTURE, "labels", block_size=BLOCK)
    np.testing.assert_array_equal(lazy.compute(), said["labels"])


def test_a_worker_that_does_not_see_the_place_says_so(tmp_path):
    array = zarr.create_array(tmp_path / "elsewhere.zarr", shape=(3,), dtype="i4")
    with pytest.raises(OutputError, match="not to be seen from this process"):
        Output(array, "output 'x'", "another token").write(0, np.zeros(3, np.int32))
