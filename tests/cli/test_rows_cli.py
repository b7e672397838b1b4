"""How data are rows, said on the command line."""

import json

import numpy as np
import pytest
import zarr

from streamgmm.cli import main


@pytest.fixture
def group(tmp_path):
    rng = np.random.default_rng(0)
    temp = rng.normal(size=(4, 20, 30))
    temp[2:] += 8
    land = np.zeros((20, 30), np.int8)
    land[:, :5] = 1
    values = {"temp": temp, "salt": rng.normal(size=(4, 20, 30)), "land": land}
    values["salt"][0, 0, 9] = np.nan
    store = zarr.open_group(str(tmp_path / "ocean.zarr"), mode="w")
    for name, each in values.items():
        dims = ("time", "y", "x")[-each.ndim :]
        store.create_array(name, data=each, dimension_names=dims)
    bands = np.stack([temp, np.nan_to_num(values["salt"])])
    store.create_array("bands", data=bands, chunks=(1, 2, 20, 30))
    return tmp_path


def run(*args):
    return main([str(each) for each in args])


def test_a_group_from_fit_to_labels(group, capsys):
    data = group / "ocean.zarr"
    how = ["--features", "temp,salt", "--mask", "land", "--missing", "omit", "--quiet"]
    model = group / "model.zarr"
    assert run("fit", data, "-k", 2, "--out", model, "--seed", 0, *how) == 0
    assert "401 rows were left out" in capsys.readouterr().out
    out = group / "labels.zarr"
    assert run("predict", model, data, "--out", out, "--json", *how) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["shape"] == [4, 20, 30]
    assert said["rows"] == 2400 - 401
    labels = zarr.open_array(str(out), mode="r")
    assert labels.metadata.dimension_names == ("time", "y", "x")
    assert (labels[:][..., :5] == -1).all()
    other = ["--features", "salt,temp", *how[2:]]  # in another order, by name
    assert run("predict", model, data, "--out", group / "again.zarr", *other) == 0
    assert np.array_equal(zarr.open_array(str(group / "again.zarr"), mode="r")[:], labels[:])
    assert run("select", data, "-k", "1:3", "--covariance", "full", "--seed", 0, *how) == 0


def test_rows_with_gaps_from_fit_to_labels(group, capsys):
    """Of the row with a gap something was observed; masked ones are left out all the same."""
    data, model, out = group / "ocean.zarr", group / "model.zarr", group / "labels.zarr"
    rows = ["--features", "temp,salt", "--mask", "land", "--quiet"]
    how = [*rows, "--missing", "marginalize"]
    assert run("fit", data, "-k", 2, "--out", model, "--seed", 0, *how) == 0
    assert "400 rows were left out" in capsys.readouterr().out
    assert run("predict", model, data, "--out", out, "--json", *rows) == 0  # as it was fitted
    assert json.loads(capsys.readouterr().out)["rows"] == 2000
    labels = zarr.open_array(str(out), mode="r")[:]
    assert (labels[..., :5] == -1).all()
    assert (labels[..., 5:] >= 0).all()
    assert run("select", data, "-k", "1:3", "--covariance", "full", "--seed", 0, *how) == 0


def test_a_cube_by_its_axis(group, capsys):
    data = group / "ocean.zarr" / "bands"
    how = ["--feature-axis", 0, "--features", 1]
    assert run("fit", data, "-k", 1, "--out", group / "m.zarr", *how, "--json", "-q") == 0
    capsys.readouterr()
    assert run("plan", data, "-k", 2, "--workers", 2, "--json", *how) == 0
    assert json.loads(capsys.readouterr().out)["n_rows"] == 2400


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--features", "tmp"], "did you mean 'temp'"),
        (["--features", "temp", "--sample-dims", "tim,y,x"], "did you mean 'time'"),
        (["--features", "temp", "--mask", "lnd.zarr"], "there is nothing at 'lnd.zarr'"),
        ([], "Say which are features"),
    ],
)
def test_mistakes_end_with_one_line(group, capsys, options, said):
    status = run("fit", group / "ocean.zarr", "-k", 2, "--out", group / "m.zarr", *options)
    lines = capsys.readouterr().err.strip().splitlines()
    assert (status, len(lines)) == (2, 1)
    assert said in lines[0]
