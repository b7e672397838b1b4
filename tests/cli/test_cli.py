"""The command line, as a shell sees it: output, errors, exit status."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import warnings

import numpy as np
import pytest
import zarr
from distributed import LocalCluster

import streamgmm
from streamgmm import cli

CENTRES = np.array([[0.0, 0.0, 0.0], [8.0, 0.0, 4.0], [0.0, 8.0, -4.0]])


@pytest.fixture(scope="module")
def rows():
    random = np.random.default_rng(1)
    labels = random.integers(3, size=6000)
    return (CENTRES[labels] + random.normal(size=(6000, 3))).astype(np.float32)


@pytest.fixture
def here(tmp_path, monkeypatch, rows):
    """A folder with data.zarr and what is no data."""
    monkeypatch.chdir(tmp_path)
    zarr.create_array("data.zarr", data=rows, chunks=(1000, 3))
    bad = rows.copy()
    bad[1234, 1] = np.nan
    zarr.create_array("nan.zarr", data=bad, chunks=(1000, 3))
    zarr.create_array("wide.zarr", data=np.ones((10, 5)))
    zarr.create_group("group.zarr").create_array("inside", data=np.ones((10, 3)))
    (tmp_path / "file").write_text("text")
    return tmp_path


@pytest.fixture
def run(here, capsys):
    def run(*args):
        shown = warnings.showwarning
        try:
            status = cli.main([str(arg) for arg in args])
        finally:
            warnings.showwarning = shown
        done = capsys.readouterr()
        return status, done.out, done.err

    return run


@pytest.fixture
def model(here):
    found = streamgmm.GaussianMixture(3, random_state=0).fit("data.zarr")
    found.save("model.zarr")
    return found


def test_fit_predict_info(run, rows):
    status, out, err = run("fit", "data.zarr", "-k", 3, "--out", "m.zarr", "--seed", 0)
    assert status == 0, err
    assert "3 components" in out
    assert "streamgmm predict m.zarr data.zarr" in out
    assert "iteration 1: log-likelihood" in err
    fitted = streamgmm.load("m.zarr")
    same = streamgmm.GaussianMixture(3, random_state=0).fit("data.zarr")
    np.testing.assert_array_equal(fitted.means_, same.means_)

    for what, wanted in (
        ("labels", same.predict(rows)),
        ("proba", same.predict_proba(rows)),
        ("log-density", same.score_samples(rows)),
    ):
        status, out, err = run(
            "predict", "m.zarr", "data.zarr", "--out", f"{what}.zarr", "--what", what
        )
        assert status == 0, err
        assert f"written to {what}.zarr" in out
        assert err == "writing: 6,000 rows\n"
        np.testing.assert_array_equal(zarr.open_array(f"{what}.zarr")[:], wanted)

    assert "full covariances, 3 features; converged" in run("info", "m.zarr")[1]
    assert "(6000, 3), float32" in run("info", "data.zarr")[1]
    assert "(6000,), int32" in run("info", "labels.zarr")[1]


def test_json_is_one_object_and_nothing_else(run, model):
    status, out, err = run(
        "fit", "data.zarr", "-k", 3, "--out", "m.zarr", "--seed", 0, "--json", "--covariance",
        "tied", "--init", "k-means++", "--n-init", 2, "--tol", 1e-4, "--max-iter", 50,
        "--reg-covar", 1e-5, "--block-size", "64KiB", "--threads", 2,
    )  # fmt: skip
    assert status == 0, err
    told = json.loads(out)
    fitted = streamgmm.load("m.zarr")
    assert told["model"] == "m.zarr"
    assert told["converged"] is True
    assert told["n_iter"] == fitted.n_iter_
    assert told["log_likelihood"] == pytest.approx(fitted.score("data.zarr") * 6000, rel=1e-6)
    assert [c["mean"] for c in told["components"]] == fitted.means_.tolist()
    assert fitted.get_params() == streamgmm.GaussianMixture(
        3, covariance_type="tied", init_params="k-means++", n_init=2, tol=1e-4, max_iter=50,
        reg_covar=1e-5, random_state=0, block_size="64KiB", n_jobs=2,
    ).get_params()  # fmt: skip

    _, out, _ = run("predict", "model.zarr", "data.zarr", "--out", "l.zarr", "--json")
    told = json.loads(out)
    labels = zarr.open_array("l.zarr")[:]
    assert told["rows_by_component"] == np.bincount(labels, minlength=3).tolist()
    assert told["lowest_row"] == np.argmin(model.score_samples("data.zarr").compute())

    assert json.loads(run("info", "model.zarr", "--json")[1])["kind"] == "model"
    told = json.loads(run("info", "data.zarr", "--json")[1])
    assert (told["kind"], told["shape"], told["chunks"]) == ("array", [6000, 3], [1000, 3])


def test_weights(run, rows):
    weights = np.arange(6000) % 3
    zarr.create_array("w.zarr", data=weights)
    args = ("fit", "data.zarr", "-k", 2, "--seed", 0, "--out", "m.zarr", "-q")
    status, _, err = run(*args, "--sample-weight", "w.zarr")
    assert (status, err) == (0, "")
    same = streamgmm.GaussianMixture(2, random_state=0).fit(rows, sample_weight=weights)
    np.testing.assert_allclose(streamgmm.load("m.zarr").means_, same.means_, rtol=1e-9)


def test_a_running_cluster_gives_the_same_bits(run, model):
    with LocalCluster(n_workers=2, processes=False, dashboard_address=":0") as cluster:
        status, _, err = run(
            "fit", "data.zarr", "-k", 3, "--seed", 0, "--out", "m.zarr", "-q",
            "--scheduler", cluster.scheduler_address,
        )  # fmt: skip
    assert (status, err) == (0, "")
    np.testing.assert_array_equal(streamgmm.load("m.zarr").covariances_, model.covariances_)


FIT = ("--out", "m.zarr", "-k", 3)
MISTAKES = {
    "nothing": ((), "Missing command"),
    "no such command": (("fitt",), "No such command 'fitt'"),
    "no data": (("fit",), "Missing argument 'DATA'; see streamgmm fit --help"),
    "no k": (("fit", "data.zarr", "--out", "m.zarr"), "Missing option '-k'"),
    "k is zero": (("fit", "data.zarr", "--out", "m.zarr", "-k", 0), "0 is not in the range"),
    "bad choice": (("fit", "data.zarr", *FIT, "--covariance", "round"), "'round' is not one of"),
    "bad number": (("fit", "data.zarr", *FIT, "--tol", "-1"), "-1.0 is not in the range"),
    "bad block size": (("fit", "data.zarr", *FIT, "--block-size", "big"), "block_size='big'"),
    "two places": (("fit", "data.zarr", *FIT, "--workers", 1, "--threads", 1), "exclude one"),
    "nothing there": (("fit", "nowhere.zarr", *FIT), "there is nothing at 'nowhere.zarr'"),
    "a file": (("fit", "file", *FIT), "'file' is a file, not a Zarr array"),
    "a group": (("fit", "group.zarr", *FIT), "it holds 'inside'"),
    "nan": (("fit", "nan.zarr", *FIT), "'nan.zarr', rows"),
    "too few rows": (
        ("fit", "data.zarr", "--out", "m.zarr", "-k", 6001),
        "Expected n_samples >= n_components",
    ),
    "a model that exists": (("fit", "data.zarr", "--out", "model.zarr", "-k", 2), "--overwrite"),
    "data for a model": (
        ("fit", "data.zarr", "--out", "wide.zarr", "-k", 2, "--overwrite"),
        "not a model",
    ),
    "weights too short": (
        ("fit", "data.zarr", *FIT, "--sample-weight", "data.zarr"),
        "Sample weights must be 1D",
    ),
    "no model": (("predict", "m.zarr", "data.zarr", "--out", "l.zarr"), "no model at 'm.zarr'"),
    "data as model": (
        ("predict", "data.zarr", "data.zarr", "--out", "l.zarr"),
        "'data.zarr' is a Zarr array of shape (6000, 3), not a model",
    ),
    "other width": (
        ("predict", "model.zarr", "wide.zarr", "--out", "l.zarr"),
        "'wide.zarr' has 5 features, but GaussianMixture is expecting 3",
    ),
    "output exists": (
        ("predict", "model.zarr", "data.zarr", "--out", "wide.zarr"),
        "output 'wide.zarr' exists; pass --overwrite",
    ),
    "output is input": (
        ("predict", "model.zarr", "data.zarr", "--out", "data.zarr", "--overwrite"),
        "where the data are",
    ),
    "nothing to tell of": (("info", "nowhere"), "nothing at 'nowhere'"),
    "no scheduler": (
        ("fit", "data.zarr", *FIT, "--scheduler", "carrier-pigeon://roof"),
        "no scheduler answers at 'carrier-pigeon://roof'",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_ends_with_one_line(run, model, mistake):
    args, message = MISTAKES[mistake]
    before = sorted(os.listdir())
    status, out, err = run(*args, *(["-q"] if "--out" in args else []))
    assert (status, out) == (2, "")
    assert err.startswith("streamgmm: ")
    assert message in err
    assert err.count("\n") == 1
    assert sorted(os.listdir()) == before


def test_a_damaged_and_an_unfinished_thing(run, model):
    (chunk,) = (p for p in os.scandir("model.zarr/means_/c/0"))
    os.truncate(chunk, 5)
    status, _, err = run("info", "model.zarr")
    assert status == 2
    assert "'model.zarr' is damaged: its array 'means_'" in err


def test_a_warning_is_one_line(run):
    args = ("fit", "data.zarr", "-k", 5, "--max-iter", 1, "--tol", 0, "--out", "m.zarr", "-q")
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        status, out, err = run(*args)
    assert status == 0, err
    assert "not converged after 1 iterations" in out
    assert err.startswith("streamgmm: warning: Best performing initialization did not converge")
    assert err.count("\n") == 1


def test_as_a_module_and_help_is_light():
    command = [sys.executable, "-m", "streamgmm", "--version"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == f"streamgmm {streamgmm.__version__}\n"
    code = (
        "import sys; from streamgmm.cli import main; main(['fit', '--help']); "
        "assert not {'numpy', 'zarr', 'dask', 'sklearn', 'numba'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "--reg-covar" in done.stdout


@pytest.mark.skipif(os.name == "nt", reason="processes are interrupted in another way there")
@pytest.mark.parametrize("where", [(), ("--workers", "1")], ids=["threads", "workers"])
def test_ctrl_c(here, where):
    # Far from converged at any time: only the signal ends it.
    endless = ("--tol", "0", "--max-iter", "1000000", "-k", "40", "--algorithm", "em")
    command = [sys.executable, "-m", "streamgmm", "fit", "data.zarr", "--out", "m.zarr"]
    process = subprocess.Popen(
        [*command, *endless, *where],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    for line in process.stderr:  # until it is at work
        if line.startswith("iteration 3"):
            break
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to all processes
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in err
    assert err.endswith("streamgmm: interrupted\n")
    assert out == ""
    assert not (here / "m.zarr").exists()
    for _ in range(50):  # its workers are gone
        if not _group_lives(process.pid):
            break
        time.sleep(0.1)
    assert not _group_lives(process.pid)


def _group_lives(group):
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.fixture
def counts(here):
    """Counts of two kinds of rows, stored as counts.zarr."""
    rates = np.array([[1.0, 8.0, 3.0], [6.0, 2.0, 4.0]])
    random = np.random.default_rng(0)
    rows = random.poisson(rates[random.integers(2, size=6000)])
    zarr.create_array("counts.zarr", data=rows.astype(np.int16), chunks=(1000, 3))
    return rows


def test_a_family_by_its_name(run, counts):
    fitting = ("fit", "counts.zarr", "-k", 2, "--family", "poisson", "--out", "m.zarr")
    status, out, err = run(*fitting, "--seed", 0)
    assert status == 0, err
    assert "2 components: rates" in out
    same = streamgmm.MixtureModel(2, "poisson", random_state=0).fit("counts.zarr")
    assert run("predict", "m.zarr", "counts.zarr", "--out", "labels.zarr")[0] == 0
    np.testing.assert_array_equal(zarr.open_array("labels.zarr")[:], same.predict(counts))
    assert "poisson components, 3 features; converged" in run("info", "m.zarr")[1]
    described = json.loads(run("info", "m.zarr", "--json")[1])
    assert (described["family"], described["settings"]) == ("poisson", {"least_rate": 1e-10})
    rates = [component["rates"] for component in described["components"]]
    np.testing.assert_array_equal(rates, same.components_["rates"])
    planned = run("plan", "counts.zarr", "-k", 2, "--family", "poisson", "--json")[1]
    assert json.loads(planned)["covariance_type"] == "poisson"


def test_families_are_compared(run, counts):
    choosing = ("select", "counts.zarr", "-k", "1:3", "--family", "poisson", "--seed", 0)
    status, out, err = run(*choosing, "--out", "m.zarr")
    assert status == 0, err
    assert "best by bic: 2 components, poisson;" in out
    assert streamgmm.load("m.zarr").n_components == 2
    found = json.loads(run(*choosing, "--json")[1])
    assert found["best"] == {"n_components": 2, "family": "poisson"}
    assert found["table"]["family"] == ["poisson"] * 3


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("fit", "-k", 2, "--out", "m.zarr", "--family", "posson"), "did you mean 'poisson'?"),
        (("plan", "-k", 2, "--family", "posson"), "did you mean 'poisson'?"),
        (
            ("fit", "-k", 2, "--out", "m.zarr", "--family", "poisson", "--covariance", "diag"),
            "--family and --covariance exclude one another",
        ),
        (
            ("select", "-k", 2, "--family", "poisson", "--family", "diag"),
            "likelihoods of poisson components",
        ),
    ],
)
def test_families_that_cannot_be(run, counts, args, said):
    status, out, err = run(args[0], "counts.zarr", *args[1:])
    assert (status, out) == (2, "")
    assert said in err
    assert len(err.splitlines()) == 1
