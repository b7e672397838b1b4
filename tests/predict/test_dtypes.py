"""Results follow the rows' dtype, wherever they are asked for; what is inside stays float64."""

from __future__ import annotations

import dask.array as da
import numpy as np
import pytest
import xarray
import zarr
from sklearn.cluster import KMeans as ReferenceKMeans

import streamgmm
from streamgmm.cli import main
from streamgmm.errors import ParameterError
from tests.mixtures import draw, random_mixture

X = draw(random_mixture("full", 3, 2, seed=2), 1200)
SINGLE = X.astype(np.float32)
FLOATS = (np.float32, np.float64)


@pytest.fixture(scope="module")
def models():
    online = streamgmm.OnlineGaussianMixture(3, random_state=0, warm_up=500)
    return {
        "gaussian": streamgmm.GaussianMixture(3, random_state=0).fit(SINGLE),
        "mixture": streamgmm.MixtureModel(3, "student_t", random_state=0).fit(SINGLE),
        "online": online.partial_fit(SINGLE),
        "kmeans": streamgmm.KMeans(3, random_state=0).fit(SINGLE),
    }


WAYS = [
    ("gaussian", "predict_proba"),
    ("gaussian", "score_samples"),
    ("mixture", "predict_proba"),
    ("mixture", "score_samples"),
    ("online", "predict_proba"),
    ("online", "score_samples"),
    ("kmeans", "transform"),
]


def layouts(rows, folder):
    """The same rows as everything that a person may pass."""
    path = folder / f"{rows.dtype}.zarr"
    zarr.create_array(str(path), data=rows, chunks=(500, 2))
    group = zarr.create_group(str(folder / f"{rows.dtype}-group.zarr"))
    for j, name in enumerate("ab"):
        group.create_array(name, data=rows[:, j].reshape(40, 30), dimension_names=("y", "x"))
    return {
        "few": rows[:100],
        "memory": rows,
        "zarr": path,
        "dask": da.from_array(rows, chunks=(300, 1)),
        "cube": streamgmm.rows(rows.reshape(40, 30, 2)),
        "group": streamgmm.rows(group, features=["a", "b"]),
        "xarray": xarray.DataArray(rows.reshape(40, 30, 2), dims=("y", "x", "band")),
        "lazy xarray": xarray.DataArray(
            da.from_array(rows.reshape(40, 30, 2), chunks=(10, 30, 2)), dims=("y", "x", "band")
        ),
    }


@pytest.mark.parametrize(("name", "method"), WAYS)
def test_results_are_of_the_rows_dtype_or_the_one_chosen(name, method, models, tmp_path):
    ask = getattr(models[name], method)
    for rows in (SINGLE, SINGLE.astype(np.float64)):
        whole = ask(rows, dtype="float64")  # the rows' dtype says with which kernels
        for kind, data in layouts(rows, tmp_path).items():
            expected = whole[: 100 if kind == "few" else None]
            for dtype in (None, *FLOATS):
                then = rows.dtype if dtype is None else np.dtype(dtype)
                found = ask(data, dtype=dtype)
                assert found.dtype == then, kind
                values = np.asarray(found)
                assert values.dtype == then, kind
                np.testing.assert_array_equal(
                    values.reshape(expected.shape), expected.astype(then), err_msg=kind
                )
                stored = ask(data, out=tmp_path / "out.zarr", overwrite=True, dtype=dtype)
                assert stored.dtype == then, kind
                np.testing.assert_array_equal(
                    stored[:].reshape(expected.shape), expected.astype(then), err_msg=kind
                )


def test_what_is_fitted_stays_float64(models):
    for name, model in models.items():
        fitted = {k: v for k, v in vars(model).items() if k.endswith("_")}
        kinds = {
            v.dtype for v in fitted.values() if getattr(v, "dtype", np.dtype("i8")).kind == "f"
        }
        assert kinds <= {np.dtype(np.float64)}, name
    assert models["gaussian"].means_.dtype == np.float64
    assert models["kmeans"].cluster_centers_.dtype == np.float64


def test_distances_have_the_dtype_of_scikit_learns():
    for rows in (X, SINGLE):
        theirs = ReferenceKMeans(2, n_init=1, random_state=0).fit(rows).transform(rows)
        mine = streamgmm.KMeans(2, random_state=0).fit(rows).transform(rows)
        assert mine.dtype == theirs.dtype == rows.dtype


def test_integers_give_float64(models):
    assert models["gaussian"].score_samples((X * 9).astype(np.int16)).dtype == np.float64


def test_labels_do_not_change(models):
    model = models["gaussian"]
    assert model.predict(SINGLE).dtype == np.int64
    np.testing.assert_array_equal(model.predict(SINGLE), model.predict_proba(SINGLE).argmax(1))


def test_beyond_the_range_is_infinite(models):
    far = np.full((1000, 2), 1e25, np.float32)
    for rows in (far, far[:3]):
        assert (models["gaussian"].score_samples(rows) == -np.inf).all()
        assert np.isfinite(models["gaussian"].score_samples(rows, dtype="float64")).all()


@pytest.mark.parametrize("dtype", ["float16", "int32", "text", 5])
def test_another_dtype_is_refused(dtype, models, tmp_path):
    for rows in (X, X[:3]):
        with pytest.raises(ParameterError, match="must be float32 or float64, or None"):
            models["gaussian"].score_samples(rows, dtype=dtype)
        with pytest.raises(ParameterError, match="must be float32 or float64, or None"):
            models["kmeans"].transform(rows, dtype=dtype, out=tmp_path / "out.zarr")
    assert not (tmp_path / "out.zarr").exists()


def test_gaps_are_nan(models):
    rows = SINGLE.copy()
    rows[7] = np.nan
    model = streamgmm.GaussianMixture(2, random_state=0, missing="omit").fit(rows)
    found = model.score_samples(rows)
    assert found.dtype == np.float32
    assert np.flatnonzero(np.isnan(found)).tolist() == [7]


def test_on_the_command_line(models, tmp_path, capsys):
    models["gaussian"].save(tmp_path / "model.zarr")
    zarr.create_array(str(tmp_path / "x.zarr"), data=SINGLE, chunks=(500, 2))
    command = [
        "predict",
        str(tmp_path / "model.zarr"),
        str(tmp_path / "x.zarr"),
        "--quiet",
        "--out",
    ]
    for more, dtype in (([], "float32"), (["--dtype", "float64"], "float64")):
        out = str(tmp_path / f"{dtype}.zarr")
        assert main([*command, out, "--what", "log-density", *more]) == 0
        assert zarr.open_array(out).dtype == dtype
    assert main([*command, str(tmp_path / "y.zarr"), "--dtype", "float32"]) == 2
    assert "labels are always int32; leave dtype out" in capsys.readouterr().err


def test_following_writes_the_rows_dtype(tmp_path):
    for rows in (X, SINGLE):
        out = tmp_path / f"density-{rows.dtype}.zarr"
        model = streamgmm.OnlineGaussianMixture(2, random_state=0, warm_up=200)
        streamgmm.follow(
            [rows[:600], rows[600:]], tmp_path / f"state-{rows.dtype}.zarr", model, log_density=out
        )
        found = zarr.open_array(str(out), mode="r")
        assert found.dtype == rows.dtype
        assert found.shape == (1200,)
        assert np.isfinite(found[:]).all()
