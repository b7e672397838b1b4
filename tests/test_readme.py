"""The README's two commands, and what continuous integration runs."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
DEMO = "python3 -m venv .venv && .venv/bin/pip install -q '.[demo]' && .venv/bin/streamgmm demo"
TEST = (
    "python3 -m venv .venv && .venv/bin/pip install -q -e '.[test]' && "
    ".venv/bin/python -m pytest -q -n 2"
)


def test_two_commands_need_nothing_but_python():
    blocks = re.findall(r"```sh\n(.*?)```", README, re.DOTALL)
    assert [b.strip() for b in blocks if "venv" in b] == [DEMO, TEST]


@pytest.mark.skipif(shutil.which("bash") is None, reason="the script is for bash")
def test_ci_runs_the_second_command():
    script = (ROOT / ".ci/run").read_text()
    line = next(line for line in script.splitlines() if line.startswith("test_command="))
    done = subprocess.run(
        ["bash", "-c", f'{line}; printf %s "$test_command"'],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == TEST
    assert 'bash -euo pipefail -c "$test_command"' in script.splitlines()


@pytest.mark.skipif(not (ROOT / ".ci").is_dir(), reason="not part of a source distribution")
def test_ci_tests_the_lowest_versions_too():
    """Each bound of pyproject.toml that the tests need is a constraint, and nothing else is."""
    done = subprocess.run(
        [sys.executable, ".ci/lowest", "test"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    lowest = done.stdout.split()
    assert len({line.partition("==")[0] for line in lowest}) == len(lowest)
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    project = settings["project"]
    extras = project["optional-dependencies"]
    tested = re.search(r"streamgmm\[(.*?)\]", " ".join(extras["test"]))[1].split(",")
    needed = settings["build-system"]["requires"] + project["dependencies"]
    needed += [requirement for extra in [*tested, "test"] for requirement in extras[extra]]
    bounds = {re.sub(r"\[.*\]", "", text).replace(">=", "==") for text in needed if ">=" in text}
    assert bounds == set(lowest)
    assert ".venv-lowest/bin/python -m pytest -q -n 2" in (ROOT / ".ci/run").read_text()


def test_what_the_readme_names_exists():
    for path in re.findall(r"\]\(([\w./]+)\)", README):
        assert (ROOT / path).exists(), path
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert set(re.findall(r"(?:streamgmm|\.)\[(\w+)\]", README)) <= set(
        extras["optional-dependencies"]
    )


def test_the_wheel_carries_the_demo():
    build = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]
    shipped = build["targets"]["wheel"]["force-include"]
    assert shipped == {"workflows/segment_photo.py": "streamgmm/workflows/segment_photo.py"}
    assert all((ROOT / path).is_file() for path in shipped)
