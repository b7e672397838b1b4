"""The README's two commands, and that continuous integration runs the second."""

from __future__ import annotations

import re
import shutil
import subprocess
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
    assert script.rstrip().endswith('bash -euo pipefail -c "$test_command"')


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
