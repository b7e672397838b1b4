"""What all commands share: help, settings from elsewhere, completion, the manual page."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import click
import numpy as np
import pytest
import zarr

import streamgmm
from streamgmm import cli
from streamgmm.cli.main import commands
from streamgmm.cli.manual import manual

ROOT = Path(__file__).parents[2]
NAMES = sorted(commands.commands)


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with rows and a model of them, and no settings of the person who runs the tests."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "settings"))
    for name in [name for name in os.environ if name.startswith("STREAMGMM_")]:
        monkeypatch.delenv(name)
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(3000, 3)) + 7 * rng.integers(2, size=(3000, 1))
    zarr.create_array("data.zarr", data=rows, chunks=(1000, 3))
    streamgmm.GaussianMixture(2, random_state=0).fit("data.zarr").save("model.zarr")
    return tmp_path


@pytest.fixture
def run(here, capsys, monkeypatch):
    import warnings

    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)

    def run(*args):
        status = cli.main([str(arg) for arg in args])
        done = capsys.readouterr()
        return status, done.out, done.err

    return run


def help_of(name, **settings):
    command = commands.commands[name]
    context = click.Context(command, info_name=name, parent=click.Context(commands), **settings)
    return command.get_help(context)


@pytest.mark.parametrize("name", NAMES)
def test_help_has_examples_that_parse_and_lines_of_80(name):
    text = help_of(name, terminal_width=80)
    assert max(map(len, text.splitlines())) <= 80
    examples = [line.strip() for line in text.splitlines() if f"streamgmm {name} " in f"{line} "]
    assert [line for line in examples if not line.startswith("Usage")]
    command = commands.commands[name]
    for line in getattr(command, "examples", ()):
        words = shlex.split(line.rpartition("| ")[2])
        assert words[:2] == ["streamgmm", name]
        command.make_context(name, words[2:], default_map={})


@pytest.mark.parametrize("name", NAMES)
def test_every_option_is_explained_once_and_alike(name):
    options = [each for each in commands.commands[name].params if isinstance(each, click.Option)]
    assert not [each.opts for each in options if not each.help]
    known = {"quiet": ["--quiet", "-q"], "as_json": ["--json"], "seed": ["--seed"]}
    for each in options:
        assert sorted(each.opts) == sorted(known.get(each.name, each.opts))


def test_the_first_help_is_whole_at_80_columns():
    context = click.Context(commands, info_name="streamgmm", terminal_width=80)
    text = commands.get_help(context)
    assert "..." not in text.partition("Commands:")[2]


def test_score_is_what_the_model_says(run):
    model = streamgmm.load("model.zarr")
    status, out, _ = run("score", "model.zarr", "data.zarr", "--json")
    assert status == 0
    told = json.loads(out)
    assert told["log_likelihood_per_row"] == pytest.approx(model.score("data.zarr"), rel=1e-12)
    assert told["bic"] == pytest.approx(model.bic("data.zarr"), rel=1e-12)
    assert told["aic"] == pytest.approx(model.aic("data.zarr"), rel=1e-12)
    assert told["rows"] == 3000
    zarr.create_array("w.zarr", data=np.arange(3000) % 2)
    told = json.loads(
        run("score", "model.zarr", "data.zarr", "--sample-weight", "w.zarr", "--json")[1]
    )
    weighted = model.score("data.zarr", sample_weight=np.arange(3000) % 2)
    assert told["log_likelihood_per_row"] == pytest.approx(weighted, rel=1e-12)
    assert "nats a row, over 3,000 rows" in run("score", "model.zarr", "data.zarr", "-q")[1]


def test_a_sample_is_of_the_model_and_repeatable(run, monkeypatch):
    monkeypatch.setattr("streamgmm.predict.drawing.CHUNK_BYTES", 24 * 5_000)
    sampling = ("sample", "model.zarr", "-n", 12_345, "--seed", 3)
    status, out, err = run(*sampling, "--out", "drawn.zarr", "--labels", "of.zarr")
    assert status == 0, err
    assert "12,345 rows of 3 features" in out
    model = streamgmm.load("model.zarr")
    drawn, of = zarr.open_array("drawn.zarr")[:], zarr.open_array("of.zarr")[:]
    assert drawn.shape == (12_345, 3)
    assert zarr.open_array("drawn.zarr").chunks == (5_000, 3)
    np.testing.assert_allclose(np.bincount(of) / len(of), model.weights_, atol=0.02)
    for k in range(2):
        np.testing.assert_allclose(drawn[of == k].mean(axis=0), model.means_[k], atol=0.1)
        np.testing.assert_allclose(np.cov(drawn[of == k].T), model.covariances_[k], atol=0.15)
    assert len(np.unique(of[:100])) == 2  # in random order
    assert run(*sampling, "--out", "again.zarr")[0] == 0
    np.testing.assert_array_equal(zarr.open_array("again.zarr")[:], drawn)
    fewer = ("sample", "model.zarr", "-n", 5_000, "--seed", 3, "--out", "fewer.zarr")
    assert run(*fewer)[0] == 0
    np.testing.assert_array_equal(zarr.open_array("fewer.zarr")[:], drawn[:5_000])
    status, _, err = run(*sampling, "--out", "new.zarr", "--labels", "of.zarr")
    assert (status, "of.zarr" in err) == (2, True)
    assert not Path("new.zarr").exists()


def test_k_means_has_no_density_and_is_described(run):
    streamgmm.KMeans(2, random_state=0).fit("data.zarr").save("centres.zarr")
    for args in (
        ("score", "centres.zarr", "data.zarr"),
        ("sample", "centres.zarr", "-n", 5, "--out", "x"),
    ):
        status, out, err = run(*args)
        assert (status, out) == (2, "")
        assert "'centres.zarr' is a KMeans, which has no density" in err
    status, out, _ = run("info", "centres.zarr")
    assert status == 0
    assert "inertia" in out


def test_a_pipeline_is_scored_as_it_scores_and_not_sampled(run):
    from sklearn.pipeline import make_pipeline

    model = make_pipeline(
        streamgmm.StandardScaler(), streamgmm.GaussianMixture(2, random_state=0)
    ).fit("data.zarr")
    streamgmm.save(model, "pipeline.zarr")
    told = json.loads(run("score", "pipeline.zarr", "data.zarr", "--json")[1])
    wanted = model.score(zarr.open_array("data.zarr")[:])
    assert told["log_likelihood_per_row"] == pytest.approx(wanted, rel=1e-9)
    status, out, err = run("sample", "pipeline.zarr", "-n", 5, "--out", "x.zarr")
    assert (status, out) == (2, "")
    assert "is a pipeline" in err


@pytest.mark.parametrize(
    ("k", "d", "offset"), [(3, 2, 0), (3, 30, 1e6), (12, 30, 1e6), (40, 7, 0), (2, 120, 0)]
)
def test_no_cell_of_info_wraps_at_80_columns(run, monkeypatch, k, d, offset):
    monkeypatch.setenv("COLUMNS", "80")
    rng = np.random.default_rng(0)
    model = streamgmm.GaussianMixture(k, covariance_type="diag", random_state=0)
    rows = offset + 1e3 * rng.normal(size=(4 * k, d)) + 1e5 * np.arange(4 * k)[:, None]
    model.fit(rows).save("wide.zarr")
    out = run("info", "wide.zarr")[1]
    lines = out.splitlines()
    assert max(map(len, lines)) <= 80
    cells = [line for line in lines if line.startswith("│")]
    assert all(line.split("│")[1].strip() for line in cells), "a wrapped cell leaves a head empty"
    assert "…" not in out
    shown = len(cells)
    assert shown == k or shown == min(d + 1, 60)
    assert out.count("±") >= 2 * min(k, d, 2)


def test_settings_come_from_a_file_the_environment_and_what_is_typed(run, here, monkeypatch):
    def covariance(*more):
        status, out, err = run(
            *more, "fit", "data.zarr", "-k", 2, "--out", "m.zarr", "--overwrite", "-q", "--json"
        )
        assert status == 0, err
        return json.loads(out)["covariance_type"]

    assert covariance() == "full"
    (here / "settings" / "streamgmm").mkdir(parents=True)
    (here / "settings" / "streamgmm" / "streamgmm.toml").write_text('[fit]\ncovariance = "tied"\n')
    assert covariance() == "tied"
    (here / "streamgmm.toml").write_text('seed = 0\n[fit]\ncovariance = "diag"\ncache = false\n')
    assert covariance() == "diag"
    assert streamgmm.load("m.zarr").cache is None
    assert streamgmm.load("m.zarr").random_state == 0
    (here / "other.toml").write_text('[fit]\ncovariance = "spherical"\n')
    assert covariance("--config", "other.toml") == "spherical"
    monkeypatch.setenv("STREAMGMM_CONFIG", "other.toml")
    assert covariance() == "spherical"
    monkeypatch.setenv("STREAMGMM_FIT_COVARIANCE", "full")
    assert covariance() == "full"
    _, out, _ = run(
        "fit", "data.zarr", "-k", 2, "--out", "t.zarr", "--covariance", "tied", "--json", "-q"
    )
    assert json.loads(out)["covariance_type"] == "tied"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            '[fit]\ncovarianse = "diag"',
            "no option 'covarianse' of 'fit'; did you mean 'covariance'?",
        ),
        ("[fitt]\nseed = 1", "no command 'fitt'; did you mean 'fit'?"),
        ("seeds = 1", "no option 'seeds' of any command; did you mean 'seed'?"),
        ("[fit\n", "cannot be read"),
        ('[info]\njson = "perhaps"', "'perhaps' is not a valid boolean"),
    ],
)
def test_a_mistake_in_the_file_is_one_line(run, here, text, said):
    (here / "streamgmm.toml").write_text(text)
    status, out, err = run("info", "data.zarr")
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert said in err


def complete(shell, words, **more):
    """What a shell would be told; run as it does."""
    environment = os.environ | {
        "_STREAMGMM_COMPLETE": f"{shell}_complete",
        "COMP_WORDS": " ".join(words),
        "COMP_CWORD": str(len(words) - 1),
        **more,
    }
    code = "import sys; from streamgmm.cli import main; sys.exit(main())"
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    return done.stdout.splitlines()


def test_shells_complete():
    said = complete("bash", ["streamgmm", "s"])
    assert {"plain,sample", "plain,score", "plain,select"} <= set(said)
    assert "plain,--covariance" in complete("bash", ["streamgmm", "fit", "--cov"])
    kinds = complete("bash", ["streamgmm", "fit", "--covariance", ""])
    known = ("full", "tied", "diag", "spherical", "factor", "ppca")
    assert kinds == [f"plain,{kind}" for kind in known]
    (path,) = complete("bash", ["streamgmm", "info", "mod"])
    assert path.startswith("file,")
    (path,) = complete("zsh", ["streamgmm", "fit", "data.zarr", "--out", "m"])[:1]
    assert path == "file"
    for shell in ("bash", "zsh", "fish"):
        environment = os.environ | {"_STREAMGMM_COMPLETE": f"{shell}_source"}
        code = "import sys; from streamgmm.cli import main; sys.exit(main())"
        done = subprocess.run(
            [sys.executable, "-c", code], env=environment, capture_output=True, text=True
        )
        assert "_STREAMGMM_COMPLETE" in done.stdout
    guide = (ROOT / "docs/guides/command_line.md").read_text()
    assert 'eval "$(_STREAMGMM_COMPLETE=bash_source streamgmm)"' in guide


def test_the_manual_page_is_of_these_commands():
    page = (ROOT / "docs" / "streamgmm.1").read_text()
    assert page == manual(), "run: python -m streamgmm.cli.manual > docs/streamgmm.1"
    for name in NAMES:
        assert f".SS {name}\n" in page
    for status in ("0", "1", "2", "130"):
        assert f".B {status}\n" in page


def test_exit_statuses_are_documented():
    guide = (ROOT / "docs/guides/command_line.md").read_text()
    for status in (0, 1, cli.main(["no-such-command"]), 130):
        assert f"\n| {status} | " in guide
