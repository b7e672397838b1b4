"""Every example of the README and of the site runs as it stands.

A page's Python blocks share a namespace, and its shell blocks run where they stand, command by
command, in an empty folder. What is not to be run is a block of another language, such as text.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import sys
import types
import warnings
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zarr

from streamgmm import cli
from tests.forked import forking

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
BLOCK = re.compile(r"^```([^\n]*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
RUN = ("python", "sh")
README = "README.md"


def pages():
    """Every page, by its path from the root, but what a build has written."""
    found = [ROOT / README, *DOCS.rglob("*.md")]
    built = (DOCS / "_build", DOCS / "reference" / "generated")
    return [
        path.relative_to(ROOT).as_posix()
        for path in sorted(found)
        if not any(folder in path.parents for folder in built)
    ]


def blocks(page):
    return [(kind, body) for kind, body in BLOCK.findall((ROOT / page).read_text()) if kind in RUN]


PAGES = [page for page in pages() if blocks(page)]


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """An empty folder but for the data that ship with the workflows."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(DOCS)  # a page may import the file that it writes out
    shutil.copy(ROOT / "workflows" / "old_faithful.txt", tmp_path)
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)  # the command line's own
    with forking():
        yield


@pytest.fixture
def store(request):
    """A store that speaks S3, where a page names one."""
    if "s3://bucket" in (ROOT / request.node.callspec.params["page"]).read_text():
        request.getfixturevalue("make_bucket")("bucket")


def write_data_of_the_readme():
    """Write the data that the README takes for granted: it has no room to make them."""
    rng = np.random.default_rng(0)
    kind = rng.integers(3, size=6000)
    rows = 6.0 * kind[:, None] + rng.normal(size=(6000, 3))
    zarr.create_array("data.zarr", data=rows, chunks=(1000, 3))
    zarr.create_array("telemetry.zarr", data=rows, chunks=(1000, 3))
    zarr.create_array("errors.zarr", data=rng.uniform(0.1, 0.3, rows.shape), chunks=(1000, 3))
    zarr.create_array("counts.zarr", data=rng.poisson(1 + 4 * kind[:, None], (6000, 3)))
    flights = np.column_stack([kind, rows[:, :2], kind == 1])
    zarr.create_array("flights.zarr", data=flights)
    pq.write_table(pa.table({"delay": rows[:, 0], "distance": rows[:, 1]}), "flights.parquet")
    zarr.create_array("cube.zarr", data=rng.normal(size=(3, 40, 50)))
    zarr.create_array("land.zarr", data=rng.random((40, 50)) < 0.1)
    ocean = zarr.open_group("ocean.zarr", mode="w")
    for name in ("temp", "salt"):
        values = rng.normal(size=(4, 20, 30))
        values[0, 0] = np.nan
        ocean.create_array(name, data=values, dimension_names=("time", "y", "x"))


@pytest.mark.filterwarnings("ignore:.*zarr v[23]:UserWarning")  # AnnData's, of its own writing
@pytest.mark.parametrize("page", PAGES)
@pytest.mark.usefixtures("store")
def test_every_example_runs(page, capsys):
    if page == README:
        write_data_of_the_readme()
    here = types.ModuleType("__main__")
    for number, (kind, body) in enumerate(blocks(page)):
        if kind == "python":
            code = compile(body, f"{page}, block {number}", "exec")
            exec(code, vars(here))
        else:
            run_commands(body, capsys)


def run_commands(body, capsys):
    """Run each line that is a command of ours; a block is ours, or sets up an environment."""
    if "venv" in body:  # the README's two commands; continuous integration runs them
        return
    for line in body.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        settings = {}
        while words and "=" in words[0]:
            name, _, value = words.pop(0).partition("=")
            settings[name] = value
        if not words:
            continue
        assert words[0] == "streamgmm", f"not a command that is run here: {line}"
        with pytest.MonkeyPatch.context() as patch:
            for name, value in settings.items():
                patch.setenv(name, value)
            status = cli.main(words[1:])
        assert status == 0, f"{line}: {capsys.readouterr().err}"


def test_blocks_that_are_not_run_are_of_other_languages():
    """A fence without a language, or with a new one, is looked at before it is let in."""
    known = {*RUN, "text", "toml", "yaml", "json", "bash"}
    for page in pages():
        found = BLOCK.findall((ROOT / page).read_text())
        kinds = {kind for kind, _ in found if not kind.startswith("{")}  # those are directives
        assert kinds <= known, (page, kinds - known)


def test_pages_are_run_where_the_interpreter_is():
    assert PAGES
    assert README in PAGES
    assert os.path.isabs(sys.executable)
