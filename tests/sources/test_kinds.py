"""The table of docs/rows.md: every kind of rows, and what works for each."""

import dask.array as da
import dask.dataframe as dd
import h5py
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import scipy.sparse
import zarr

import streamgmm
from streamgmm import GaussianMixture, OnlineGaussianMixture, follow, select
from streamgmm.errors import ParameterError

SHAPE = (8, 10, 25)
DIMS = ("time", "y", "x")
KINDS = ["numpy", "npy", "zarr", "dask", "group", "xarray", "parquet", "arrow", "pandas"]
KINDS += ["dask.dataframe", "hdf5", "anndata", "sparse", "h5ad"]
FOLLOWED = ["zarr", "group", "anndata"]  # tests/online/ does
LAZY = ["zarr", "dask", "group", "xarray", "parquet", "hdf5", "anndata", "sparse", "h5ad"]
LAZY += ["dask.dataframe"]


@pytest.fixture
def values():
    values = np.random.default_rng(0).normal(size=(*SHAPE, 2))
    values[::2] += 7
    return values


def write_cells(group, table):
    """AnnData as it is specified, with the same table in ``obsm`` and, sparse, in ``X``."""
    sparse = scipy.sparse.csr_matrix(table)
    group.attrs["encoding-type"] = "anndata"
    for part, n in (("obs", len(table)), ("var", table.shape[1])):
        frame = group.create_group(part)
        frame.attrs.update({"encoding-type": "dataframe", "_index": "i", "column-order": []})
        frame["i"] = np.arange(n)
    obsm = group.create_group("obsm")
    obsm["X_pca"] = table
    X = group.create_group("X")
    X.attrs.update({"encoding-type": "csr_matrix", "shape": [*table.shape]})
    for part in ("data", "indices", "indptr"):
        X[part] = getattr(sparse, part)


def open_kind(kind, values, tmp_path):
    columns = {name: values[..., j] for j, name in enumerate("ab")}
    flat = {name: each.ravel() for name, each in columns.items()}
    if kind == "numpy":
        return streamgmm.rows(values)
    if kind == "npy":
        np.save(tmp_path / "x.npy", values)
        return streamgmm.rows(tmp_path / "x.npy")
    if kind == "zarr":
        zarr.create_array(str(tmp_path / "x.zarr"), data=values, chunks=(3, 10, 10, 2))
        return streamgmm.rows(str(tmp_path / "x.zarr"))
    if kind == "dask":
        return streamgmm.rows(da.from_array(values, chunks=(4, 10, 10, 1)))
    if kind == "group":
        group = zarr.open_group(str(tmp_path / "g.zarr"), mode="w")
        for name, each in columns.items():
            group.create_array(name, data=each, chunks=(2, 10, 25), dimension_names=DIMS)
        return streamgmm.rows(str(tmp_path / "g.zarr"), features=["a", "b"])
    if kind == "xarray":
        xarray = pytest.importorskip("xarray")
        return streamgmm.rows(xarray.Dataset({n: (DIMS, e) for n, e in columns.items()}))
    if kind == "parquet":
        pq.write_table(pa.table(flat), tmp_path / "x.parquet", row_group_size=300)
        return streamgmm.rows(tmp_path / "x.parquet")
    if kind == "hdf5":
        with h5py.File(tmp_path / "x.h5", "w") as file:
            file.create_dataset("x", data=values, chunks=(3, 10, 10, 2))
        return streamgmm.rows(tmp_path / "x.h5" / "x")
    if kind in ("anndata", "sparse"):
        write_cells(zarr.open_group(str(tmp_path / "x.zarr"), mode="w"), values.reshape(-1, 2))
        part = "obsm/X_pca" if kind == "anndata" else "X"
        return streamgmm.rows(tmp_path / "x.zarr", features=part)
    if kind == "h5ad":
        with h5py.File(tmp_path / "x.h5ad", "w") as file:
            write_cells(file, values.reshape(-1, 2))
        return streamgmm.rows(tmp_path / "x.h5ad", features="obsm/X_pca")
    if kind == "dask.dataframe":
        return streamgmm.rows(dd.from_pandas(pd.DataFrame(flat), npartitions=5))
    if kind == "arrow":
        return streamgmm.rows(pa.table(flat))
    return streamgmm.rows(pd.DataFrame(flat))


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind(kind, values, tmp_path):
    source = open_kind(kind, values, tmp_path)
    table = values.reshape(-1, 2)
    settings = {"n_components": 2, "random_state": 0}
    plain = GaussianMixture(**settings).fit(table)
    checkpoint = str(tmp_path / "run.zarr")
    model = GaussianMixture(**settings, checkpoint=checkpoint).fit(source)
    assert np.allclose(model.means_, plain.means_)
    again = GaussianMixture(**settings, checkpoint=checkpoint).fit(source)  # it is finished
    assert np.array_equal(again.means_, model.means_)

    labels = np.asarray(model.predict(source))
    assert labels.shape == getattr(source, "sample_shape", (2000,))
    assert np.array_equal(labels.ravel(), plain.predict(table))
    out = model.predict(source, out=str(tmp_path / "labels.zarr"))
    assert np.array_equal(out[:], labels)

    best = select(source, range(1, 4), "full", random_state=0).best
    assert best.n_components == 2
    assert model.plan(source, workers=2, worker_memory="1GiB").n_rows == 2000
    learned = OnlineGaussianMixture(2, random_state=0).partial_fit(source)
    assert learned.n_samples_seen_ == 2000
    if kind in FOLLOWED:
        return
    with pytest.raises(ParameterError, match="cannot be followed"):
        follow(source, state=str(tmp_path / "state.zarr"), model=learned)


@pytest.mark.parametrize("kind", LAZY)
def test_on_a_cluster_the_bits_are_the_same(client, kind, values, tmp_path):
    source = open_kind(kind, values, tmp_path)
    settings = {"n_components": 2, "random_state": 0, "block_size": 6000}
    here = GaussianMixture(**settings, n_jobs=1).fit(source)
    there = GaussianMixture(**settings).fit(source)
    assert np.array_equal(here.means_, there.means_)
    labels = there.predict(source, out=str(tmp_path / "labels.zarr"))
    assert np.array_equal(labels[:], np.asarray(here.predict(source)))
