"""What a person gets who installs it: types, docstrings, metadata, files beside the code."""

from __future__ import annotations

import importlib
import inspect
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from numpydoc.validate import validate

import streamgmm

ROOT = Path(__file__).parents[1]
SETTINGS = tomllib.loads((ROOT / "pyproject.toml").read_text())

# Codes of numpydoc that docstrings here need not follow.
NOT_ASKED = {
    "ES01",  # an extended summary, where one line says it
    "SA01",  # a section See Also
    "EX01",  # an example of every method; classes and functions have one
    "GL01",  # the summary beside the quotes, which numpydoc 1.10 does not take yet
    "GL07",  # the order of sections
    "PR01",  # every parameter: methods that follow scikit-learn's say what is their own
    "PR03",  # the order of parameters: those that go together stand together
    "PR04",  # a type for several parameters that are "as for fit"
    "PR07",  # a description of what scikit-learn describes
    "RT01",  # Returns of a method of one line
    "RT02",  # a name for what is returned
    "RT03",  # a description of `self`
    "RT04",  # a capital letter: descriptions may begin with a dtype
    "SS05",  # an infinitive: a noun phrase says what a value is
}


def public_names():
    """Every public class and function, and methods of estimators, by their dotted names."""
    modules = ["streamgmm", "streamgmm.families", "streamgmm.errors", "streamgmm.report"]
    for module_name in [*modules, "streamgmm.testing"]:
        module = importlib.import_module(module_name)
        listed = getattr(module, "__all__", None) or [
            name for name, value in vars(module).items() if isinstance(value, type)
        ]
        for name in listed:
            value = getattr(module, name)
            if not (inspect.isclass(value) or inspect.isfunction(value)):
                continue
            yield f"{module_name}.{name}"
            if module_name != "streamgmm" or not inspect.isclass(value):
                continue  # methods of families are those of the protocols in model/components.py
            for method, held in inspect.getmembers(value):
                function = getattr(held, "fget", held)
                ours = (getattr(function, "__module__", None) or "").startswith("streamgmm")
                if not method.startswith("_") and ours and inspect.isfunction(function):
                    yield f"{module_name}.{name}.{method}"


@pytest.mark.parametrize("name", sorted(set(public_names())))
def test_docstrings_are_numpydocs(name):
    found = validate(name)
    wrong = [(code, said) for code, said in found["errors"] if code not in NOT_ASKED]
    assert not wrong


@pytest.mark.parametrize("name", [name for name in streamgmm.__all__ if name[0] != "_"])
def test_public_names_have_an_example_and_raise_what_they_say(name):
    value = getattr(streamgmm, name)
    if inspect.isfunction(value):
        assert ">>>" in value.__doc__
        assert "Raises" in value.__doc__


USER = """
import numpy as np
from numpy.typing import NDArray

import streamgmm
from streamgmm import GaussianMixture, KMeans, MixtureModel, OnlineGaussianMixture, Selection
from streamgmm import follow, load, rows, select
from streamgmm.errors import DataError, StreamGMMError
from streamgmm.families import Product, WithNoise


def fit(X: NDArray[np.float64]) -> GaussianMixture:
    model = GaussianMixture(2, covariance_type="diag", random_state=0).fit(X)
    likelihood: float = model.score(X)
    print(likelihood, model.n_iter_, model.converged_)
    model.save("model.zarr", overwrite=True)
    return model


def compare(path: str) -> Selection:
    found = select(path, range(1, 4), ("full", "diag"), criterion="bic")
    table: dict[str, NDArray[np.generic]] = dict(found.table)
    print(sorted(table), found.passes + 1.0)
    return found


def others(path: str) -> None:
    family = WithNoise(Product(a=("poisson", [0]), b=("full", [1, 2])))
    MixtureModel(3, family).fit(rows(path, features=["a", "b"]))
    KMeans(3).fit(path).predict(path)
    online = OnlineGaussianMixture(2, half_life=100.0)
    follow(path, "state.zarr", online, once=True)
    try:
        load(path)
    except (DataError, StreamGMMError) as error:
        print(error)
    reveal_type(GaussianMixture(2).fit(path))
"""
WRONG = {
    "GaussianMixture(2, tol='small')": "arg-type",
    "GaussianMixture(2, no_such=1)": "call-arg",
    "streamgmm.no_such": "attr-defined",
}


def test_a_users_mypy_accepts_the_public_types_and_sees_mistakes(tmp_path):
    assert (ROOT / "streamgmm" / "py.typed").is_file()
    lines = ["import streamgmm", "from streamgmm import GaussianMixture", *WRONG]
    (tmp_path / "program.py").write_text(USER)
    (tmp_path / "mistaken.py").write_text("\n".join(lines) + "\n")
    # the lowest cryptography has a stub that no mypy of today can read
    config = "[mypy-cryptography.*]\nfollow_imports = skip\nfollow_imports_for_stubs = True\n"
    (tmp_path / "mypy.ini").write_text(config)
    command = [sys.executable, "-m", "mypy", "--strict", "--config-file", "mypy.ini"]
    folder = ["--cache-dir", str(tmp_path / "cache"), "program.py", "mistaken.py"]
    done = subprocess.run(
        [*command, *folder], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    said = done.stdout + done.stderr
    assert "program.py" not in "".join(re.findall(r".*error:.*", said)), said
    assert 'Revealed type is "streamgmm.estimators.gaussian.GaussianMixture"' in said
    for number, code in enumerate(WRONG.values(), start=3):
        assert re.search(rf"mistaken.py:{number}: error: .*\[{code}\]", said), said


def test_import_takes_little_beyond_its_dependencies():
    """No module of ours but the face is loaded before it is used."""
    code = (
        "import sys, streamgmm; "
        "print(*sorted(name for name in sys.modules if name.startswith('streamgmm')))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["streamgmm", "streamgmm._version"]


def test_the_citation_is_of_this_version():
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert cited["version"] == streamgmm.__version__
    assert cited["license"] == SETTINGS["project"]["license"]
    assert cited["cff-version"] == "1.2.0"
    assert {"message", "title", "authors", "type"} <= set(cited)


def test_the_recipe_has_the_dependencies_of_the_package():
    recipe = yaml.safe_load((ROOT / "conda-recipe" / "recipe.yaml").read_text())
    assert recipe["context"]["version"] == streamgmm.__version__
    run = {line.replace(" ", "") for line in recipe["requirements"]["run"]}
    wanted = {line.replace("dask>", "dask-core>") for line in SETTINGS["project"]["dependencies"]}
    assert wanted | {"python>=${{python_min}}"} == run
    assert SETTINGS["project"]["requires-python"] == f">={recipe['context']['python_min']}"


@pytest.mark.skipif(not (ROOT / ".ci").is_dir(), reason="not part of a source distribution")
def test_hooks_are_those_of_continuous_integration():
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())
    entries = {hook["entry"] for repo in hooks["repos"] for hook in repo["hooks"]}
    assert entries == {"ruff check --fix", "ruff format", "mypy"}
    script = (ROOT / ".ci/run").read_text()
    assert all(entry.partition(" --")[0] in script for entry in entries)
