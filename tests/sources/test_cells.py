"""AnnData: stores in Zarr and HDF5, objects in memory, on disk and lazy; labels back into obs."""

import warnings
from itertools import pairwise

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import zarr

import streamgmm
from streamgmm import GaussianMixture
from streamgmm.errors import (
    ChunkError,
    DataError,
    DataTypeError,
    OutputExistsError,
    ParameterError,
    SourceError,
)
from streamgmm.sources import unreadable
from streamgmm.sources.csr import Csr
from streamgmm.testing import SourceTests

from .test_cubes import read

FORMS = ["memory", "zarr2", "zarr3", "h5ad", "backed", "lazy"]


def write(data, path, zarr_format=3):
    """Write AnnData as its package does, whatever that warns of."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # pandas 3 has text that may have gaps
        settings = {"zarr_write_format": zarr_format, "allow_write_nullable_strings": True}
        with anndata.settings.override(**settings):
            if str(path).endswith(".h5ad"):
                data.write_h5ad(path)
            else:
                data.write_zarr(path)
    return str(path)


def read_back(path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return anndata.read_zarr(path)


def cells_of(**more):
    n = next(iter(more.get("obsm", {"X": more.get("X")}).values())).shape[0]
    if not isinstance(more.get("obs"), pd.DataFrame):
        more["obs"] = pd.DataFrame(more.get("obs", {}), index=[f"cell{i}" for i in range(n)])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return anndata.AnnData(**more)


class TestObsm(SourceTests):
    def source(self, rows, sample_weight, tmp_path):
        obs = {} if sample_weight is None else {"weight": sample_weight}
        path = write(cells_of(obs=obs, obsm={"X_pca": rows}), tmp_path / "a.zarr")
        weight = None if sample_weight is None else "weight"
        return streamgmm.rows(path, features="obsm/X_pca", sample_weight=weight)


class TestSparseInZarr(SourceTests):
    def source(self, rows, sample_weight, tmp_path):
        path = write(cells_of(X=sp.csr_matrix(rows)), tmp_path / "a.zarr")
        return streamgmm.rows(path, features="X", sample_weight=sample_weight)


class TestSparseInHDF5(SourceTests):
    def source(self, rows, sample_weight, tmp_path):
        path = write(cells_of(X=sp.csr_matrix(rows)), tmp_path / "a.h5ad")
        return streamgmm.rows(path, features="X", sample_weight=sample_weight)


class TestSparseInMemory(SourceTests):
    def source(self, rows, sample_weight, tmp_path):
        data = cells_of(X=sp.csr_matrix(rows))
        return streamgmm.rows(data, features="X", sample_weight=sample_weight)


class TestColumnsOfObs(SourceTests):
    def source(self, rows, sample_weight, tmp_path):
        columns = {f"v{j}": column for j, column in enumerate(rows.T)}
        path = write(cells_of(X=np.zeros((len(rows), 1)), obs=columns), tmp_path / "a.h5ad")
        return streamgmm.rows(path, features=list(columns), sample_weight=sample_weight)


N = 1200


@pytest.fixture
def cells():
    rng = np.random.default_rng(0)
    space = rng.normal(size=(N, 4)).astype(np.float32)
    space[::2] += 6
    counts = sp.random(N, 30, 0.2, random_state=1, format="csr")
    index = [f"cell{i}" for i in range(N)]
    obs = pd.DataFrame(
        {
            "batch": pd.Categorical(list("ab") * (N // 2)),
            "depth": rng.random(N),
            "good": rng.random(N) < 0.9,
            "note": ["u"] * N,
            "age": pd.array([1, None] * (N // 2), dtype="Int32"),
            "when": pd.date_range("2024-01-01", periods=N),
        },
        index=index,
    )
    del obs["when"]  # AnnData writes no dates
    data = cells_of(
        X=counts,
        obs=obs,
        obsm={
            "X_pca": space,
            "place": pd.DataFrame({"u": space[:, 0], "v": space[:, 1]}, index=index),
        },
        layers={"dense": counts.toarray(), "by_columns": counts.tocsc()},
    )
    data.var_names = [f"gene{i}" for i in range(30)]
    return data


def form_of(form, cells, tmp_path):
    if form == "memory":
        return cells
    if form in ("h5ad", "backed"):
        path = write(cells, tmp_path / "a.h5ad")
        return path if form == "h5ad" else anndata.read_h5ad(path, backed="r")
    path = write(cells, tmp_path / "a.zarr", 2 if form == "zarr2" else 3)
    if form == "lazy":
        pytest.importorskip("xarray")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return anndata.experimental.read_lazy(path)
    return path


@pytest.mark.parametrize("form", FORMS)
def test_what_is_said_of_cells(form, cells, tmp_path):
    data = form_of(form, cells, tmp_path)
    space, genes = cells.obsm["X_pca"], cells.X.toarray()
    depth, pair = cells.obs["depth"].to_numpy(), [1, np.nan] * (N // 2)
    expected = {
        "obsm/X_pca": (space, ["X_pca_0", "X_pca_1", "X_pca_2", "X_pca_3"]),
        "X_pca": (space, None),
        "X": (genes, list(cells.var_names)),
        "layers/dense": (genes, list(cells.var_names)),
        "depth": (depth[:, None], ["depth"]),
        "obs/age": (np.array(pair)[:, None], ["age"]),
        ("gene3", "gene1"): (genes[:, [3, 1]], ["gene3", "gene1"]),
        ("gene29", "depth", "gene0", "X_pca"): (
            np.c_[genes[:, 29], depth, genes[:, 0], space],
            None,
        ),
    }
    for features, (values, names) in expected.items():
        wanted = features if isinstance(features, str) else list(features)
        source = streamgmm.rows(data, features=wanted)
        assert np.array_equal(read(source, 20_000), values, equal_nan=True), features
        assert names is None or list(source.feature_names) == names
        assert source.n_samples == N
    assert streamgmm.rows(data, features="obsm/X_pca").dtype == np.float32
    place = streamgmm.rows(data, features="obsm/place").reordered(["u", "v"])
    assert np.array_equal(read(place), space[:, :2])
    if form != "lazy":
        codes = streamgmm.rows(data, features="obs/batch/codes")
        assert np.array_equal(read(codes)[:, 0], [0, 1] * (N // 2))
        assert codes.feature_names == ("batch",)


@pytest.mark.parametrize("form", FORMS)
def test_a_fit_with_masks_and_weights_by_name(form, cells, tmp_path):
    data = form_of(form, cells, tmp_path)
    rows = streamgmm.rows(data, features="obsm/X_pca", mask="good", sample_weight="obs/depth")
    model = GaussianMixture(2, random_state=0).fit(rows)
    bad = ~cells.obs["good"].to_numpy()
    plain = GaussianMixture(2, random_state=0).fit(
        cells.obsm["X_pca"][bad], sample_weight=cells.obs["depth"].to_numpy()[bad]
    )
    assert np.allclose(np.sort(model.means_, 0), np.sort(plain.means_, 0), atol=1e-3)
    labels = model.predict(rows)
    assert isinstance(labels, np.ndarray) == (form in ("memory", "backed"))  # only X is on disk
    assert np.array_equal(np.asarray(labels) == -1, ~bad)


@pytest.mark.parametrize("form", FORMS)
def test_bad_input(form, cells, tmp_path):
    data = form_of(form, cells, tmp_path)
    with pytest.raises(ParameterError, match=r"say which are features.*'obsm/X_pca'"):
        streamgmm.rows(data)
    with pytest.raises((ParameterError, SourceError), match=r"features='?"):
        GaussianMixture(1).fit(data)
    with pytest.raises(ParameterError, match=r"'gene33' is not .*did you mean 'gene3'"):
        streamgmm.rows(data, features="gene33")
    with pytest.raises(ParameterError, match=r"did you mean 'obsm/X_pca'"):
        streamgmm.rows(data, features=["obsm/X_pac"])
    with pytest.raises(ParameterError, match=r"did you mean 'depth'"):
        streamgmm.rows(data, features="X_pca", sample_weight="deptj")
    with pytest.raises(DataError, match=r"'obs/batch' of .* no numbers"):
        streamgmm.rows(data, features=["batch"])
    with pytest.raises(DataError, match=r"'obs/note' of .* no numbers"):
        streamgmm.rows(data, features=["depth", "note"])
    with pytest.raises(ParameterError, match=r"two columns named 'X_pca_0'"):
        streamgmm.rows(data, features=["X_pca", "obsm/X_pca"])
    if form != "lazy":
        with pytest.raises(DataTypeError, match=r"sparse by columns \(CSC\).*tocsr"):
            streamgmm.rows(data, features="layers/by_columns")
    if form.startswith("zarr"):
        with pytest.raises(DataError, match=r"'var/_index' of .* is text"):
            streamgmm.rows(data, features="var/_index")
        with pytest.raises(DataError, match=r"has shape \(1201,\), and there are 1200 cells"):
            streamgmm.rows(data, features="X/indptr")


def test_no_cells(cells, tmp_path):
    for data in (cells[:0].copy(), write(cells[:0].copy(), tmp_path / "a.zarr")):
        with pytest.raises(DataError, match="dimension 'obs' has length zero"):
            streamgmm.rows(data, features="obsm/X_pca")


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_labels_go_into_the_store(cells, tmp_path, zarr_format):
    path = write(cells, tmp_path / "a.zarr", zarr_format)
    rows = streamgmm.rows(path, features="obsm/X_pca", mask="good")
    model = GaussianMixture(2, random_state=0).fit(rows)
    labels = np.asarray(model.predict(rows))
    out = model.predict(rows, out=f"{path}/obs/cluster")
    assert out.metadata.zarr_format == zarr_format
    model.score_samples(rows, out=f"{path}/obs/density")
    model.predict_proba(rows, out=f"{path}/obsm/X_gmm")
    there = read_back(path)
    assert there.obs["cluster"].dtype == np.int32
    assert np.array_equal(there.obs["cluster"], labels)
    assert np.array_equal(
        there.obs["density"], np.asarray(model.score_samples(rows)), equal_nan=True
    )
    assert there.obsm["X_gmm"].shape == (N, 2)
    assert [*there.obs.columns[-2:]] == ["cluster", "density"]
    assert np.array_equal(there.obs["depth"], cells.obs["depth"])
    assert np.array_equal(read(streamgmm.rows(path, features="cluster"))[:, 0], labels)

    with pytest.raises(OutputExistsError, match="overwrite=True"):
        model.predict(rows, out=f"{path}/obs/cluster")
    model.predict(rows, out=f"{path}/obs/cluster", overwrite=True)
    assert [*read_back(path).obs.columns].count("cluster") == 1


def test_a_column_that_is_not_whole_is_not_there(cells, tmp_path, monkeypatch):
    from streamgmm.storage.output import Output

    path = write(cells, tmp_path / "a.zarr")
    rows = streamgmm.rows(path, features="obsm/X_pca")
    model = GaussianMixture(2, random_state=0).fit(rows)
    model.predict(rows, out=f"{path}/obs/cluster")
    before = [*read_back(path).obs.columns]

    def fail(self, start, values):
        assert "cluster" not in read_back(path).obs.columns
        raise KeyboardInterrupt

    monkeypatch.setattr(Output, "write", fail)
    with pytest.raises(KeyboardInterrupt):
        model.predict(rows, out=f"{path}/obs/cluster", overwrite=True)
    assert [*read_back(path).obs.columns] == before[:-1]


def test_what_does_not_fit_a_store_is_refused(cells, tmp_path):
    path = write(cells, tmp_path / "a.zarr")
    rows = streamgmm.rows(path, features="obsm/X_pca")
    model = GaussianMixture(2, random_state=0).fit(rows)
    with pytest.raises(ParameterError, match=r"one value a cell.*obsm/p'"):
        model.predict_proba(rows, out=f"{path}/obs/p")
    with pytest.raises(ParameterError, match=r"obsm for several.*obs/p'"):
        model.predict(rows, out=f"{path}/obsm/p")
    with pytest.raises(ParameterError, match=r"names of the cells"):
        model.predict(rows, out=f"{path}/obs/_index", overwrite=True)
    with pytest.raises(OutputExistsError, match=r"is a Zarr group"):
        model.predict(rows, out=f"{path}/obs/batch", overwrite=True)
    few = streamgmm.rows(cells[:7].copy(), features="X_pca")
    with pytest.raises(DataError, match=r"7 rows, and there are 1200 cells"):
        model.predict(few, out=f"{path}/obs/p")
    assert [*read_back(path).obs.columns] == [*cells.obs.columns]


def test_labels_go_into_stores_that_are_no_directory(cells, tmp_path):
    import fsspec

    path = write(cells, tmp_path / "a.zarr")
    fsspec.filesystem("memory").put(path, "/cells.zarr", recursive=True)
    rows = streamgmm.rows("memory://cells.zarr", features="obsm/X_pca")
    model = GaussianMixture(2, random_state=0).fit(rows)
    model.predict(rows, out="memory://cells.zarr/obs/cluster")
    there = zarr.open_group("memory://cells.zarr", mode="r")
    assert there["obs"].attrs["column-order"][-1] == "cluster"
    assert np.array_equal(there["obs/cluster"][:], np.asarray(model.predict(rows)))

    store = zarr.storage.MemoryStore()
    write(cells, store)
    place = zarr.storage.StorePath(store, "obs/cluster")
    model.predict(streamgmm.rows(zarr.open_group(store), features="X_pca"), out=place)
    assert "cluster" in read_back(store).obs.columns


@pytest.mark.parametrize("step", [37, 100, 5000])
def test_sparse_chunks_are_read_once_in_a_block(cells, tmp_path, step, monkeypatch):
    monkeypatch.setattr(streamgmm.sources.csr, "DENSE_BYTES", 6000)
    group = zarr.open_group(str(tmp_path / "x.zarr"), mode="w", attributes={
        "encoding-type": "anndata"})  # fmt: skip
    counts = cells.X
    for part in ("obs", "var"):
        n = counts.shape[part == "var"]
        attributes = {"encoding-type": "dataframe", "column-order": [], "_index": "_index"}
        each = group.create_group(part, attributes=attributes)
        each.create_array("_index", data=np.arange(n))
    sparse = group.create_group(
        "X", attributes={"encoding-type": "csr_matrix", "shape": [*counts.shape]}
    )
    for name in ("data", "indices", "indptr"):
        each = getattr(counts, name)
        sparse.create_array(name, data=each, chunks=(step if name != "indptr" else len(each),))
    spans = []
    from streamgmm.sources.zarr_ref import ZarrRef

    whole = ZarrRef.read_box
    monkeypatch.setattr(
        ZarrRef,
        "read_box",
        lambda self, box: (spans.append((self.name, box[0].start, box[0].stop)), whole(self, box))[
            1
        ],
    )
    rows = streamgmm.rows(group, features="X")
    (block,) = rows.blocks(1 << 30)
    found = np.concatenate([piece.rows for piece in block.pieces()])
    assert np.array_equal(found, counts.toarray())
    for name in ("data", "indices"):
        runs = sorted((a, b) for n, a, b in spans if n.endswith(f"X/{name}'"))
        assert (runs[0][0], runs[-1][1]) == (0, counts.nnz)
        assert all(a[1] == b[0] for a, b in pairwise(runs))
        assert all(a % step == 0 for a, _ in runs)


def test_columns_that_are_not_there_are_an_error():
    stored = streamgmm.sources.variables.Held
    sparse = Csr("'X'", stored(np.ones(2)), stored(np.array([0, 9])), np.array([0, 1, 2]), 3)
    (part,) = sparse.parts([[(slice(0, 2), slice(None))]], ())
    with pytest.raises(DataError, match=r"'X', rows 0:2: no sparse rows"):
        part.read(0, (slice(0, 2), slice(None)))


def test_a_damaged_chunk_of_sparse_rows_is_skipped_if_asked_to(cells, tmp_path):
    path = tmp_path / "x.h5ad"
    write(cells, path)
    with h5py.File(path, "a") as file:
        del file["X/data"]
        data = file.create_dataset("X/data", data=cells.X.data, chunks=(1000,), compression="gzip")
        chunk = data.id.get_chunk_info_by_coord((3000,))
    content = bytearray(path.read_bytes())
    content[chunk.byte_offset : chunk.byte_offset + 100] = b"\xff" * 100
    path.write_bytes(bytes(content))
    rows = streamgmm.rows(path, features=["gene1", "gene2"])
    with pytest.raises(ChunkError, match=r"X/data': rows 3000:4000 cannot be read"):
        read(rows)
    rows = streamgmm.rows(path, features=["gene1", "gene2"])
    found = unreadable(rows.blocks(1 << 30)[0])
    assert found == ((0, N),)  # all are in one region here


def test_files_of_anndata_0_7(tmp_path):
    with h5py.File(tmp_path / "x.h5ad", "w") as file:
        for part, n in (("obs", 4), ("var", 2)):
            frame = file.create_group(part)
            frame.attrs.update({"encoding-type": "dataframe", "_index": "i"})
            frame.attrs["column-order"] = ["batch"]
            frame["i"] = np.arange(n)
            frame["batch"] = np.zeros(n, "i1")
            frame["batch"].attrs["categories"] = "__categories/batch"
        file["X"] = np.ones((4, 2))
    assert streamgmm.rows(tmp_path / "x.h5ad", features="X").feature_names == ("0", "1")
    with pytest.raises(DataError, match="is categories"):
        streamgmm.rows(tmp_path / "x.h5ad", features="batch")


def test_a_file_that_does_not_say_how_it_is_encoded(tmp_path):
    with h5py.File(tmp_path / "x.h5ad", "w") as file:
        file["X"] = np.ones((4, 2))
    rows = streamgmm.rows(tmp_path / "x.h5ad" / "X")
    assert rows.n_samples == 4
