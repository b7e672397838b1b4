"""The order of the rooms, and what every room owes the others (docs/design.md)."""

from __future__ import annotations

import ast
import importlib.metadata
import pickle
import re
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import streamgmm
from streamgmm import errors

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "streamgmm"

# A room imports from rooms on floors below its own, and from its own floor without going round.
FLOORS = [
    {"errors"},
    {"kernels", "sources", "progress"},
    {"moments"},
    {"families"},
    {"mixture"},
    {"passes"},
    {
        "acceleration",
        "adapt",
        "ascent",
        "calibrate",
        "candidates",
        "checkpoint",
        "clustering",
        "drift",
        "fit",
        "initialize",
        "online",
        "online_state",
        "output",
        "parameters",
        "plan",
        "persist",
        "predict",
        "ranking",
        "run",
        "settings",
        "simulate",
        "starts",
    },
    {"estimators", "online_estimator", "following"},
    {
        "command",
        "follow_command",
        "plan_command",
        "select_command",
        "report",
        "cli",
        "__main__",
        "__init__",
    },
]
ONLY = {"sources": {"errors"}, "kernels": set(), "progress": set()}
RUN_DASK = ("passes/", "sources/dask.py")


def modules():
    return sorted(PACKAGE.rglob("*.py"))


def room_of(path):
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def part_of_face(name):
    """The room that ``from streamgmm import name`` uses."""
    if name == "__version__" or name in {room_of(path) for path in modules()}:
        return name
    return "__init__"


def imports(tree):
    """Names of all modules that are imported, also inside functions."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            if node.module == "streamgmm":
                yield from (f"streamgmm.{part_of_face(alias.name)}" for alias in node.names)
            else:
                yield node.module


def rooms_used(path):
    tree = ast.parse(path.read_text())
    found = {name.split(".")[1] for name in imports(tree) if name.startswith("streamgmm.")}
    return found - {"__version__", room_of(path)}


def test_every_room_has_its_floor():
    floor = {room for rooms in FLOORS for room in rooms}
    assert {room_of(path) for path in modules()} <= floor, "a new room: give it a floor here"


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_point_one_way(path):
    room = room_of(path)
    here = next(i for i, rooms in enumerate(FLOORS) if room in rooms)
    reachable = set().union(*FLOORS[: here + 1])
    assert rooms_used(path) <= ONLY.get(room, reachable)


def test_imports_do_not_go_round():
    graph = {}
    for path in modules():
        if path != PACKAGE / "__init__.py":
            graph.setdefault(room_of(path), set()).update(rooms_used(path))
    TopologicalSorter(graph).prepare()  # raises CycleError


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_dask_is_run_in_one_room(path):
    where = path.relative_to(PACKAGE).as_posix()
    if not where.startswith(RUN_DASK):
        top = ast.Module(ast.parse(path.read_text()).body, [])
        names = [
            name
            for node in top.body
            if isinstance(node, (ast.Import, ast.ImportFrom))
            for name in imports(ast.Module([node], []))
        ]
        assert not [name for name in names if re.match(r"(dask|distributed)\b", name)]


def test_import_is_light():
    code = "import sys, streamgmm; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    heavy = {"distributed", "dask.array", "pandas", "rich", "click", "PIL", "matplotlib", "zarr"}
    assert not heavy & set(done.stdout.split())


def test_one_version():
    changelog = (ROOT / "CHANGELOG.md").read_text()
    latest = re.search(r"^## \[?(\d[\w.]*)", changelog, re.MULTILINE)[1]
    assert streamgmm.__version__ == latest == importlib.metadata.version("streamgmm")


@pytest.mark.parametrize("name", [n for n, v in vars(errors).items() if isinstance(v, type)])
def test_errors_are_of_two_kinds_and_pickle(name):
    kind = getattr(errors, name)
    if issubclass(kind, Warning):
        assert issubclass(kind, errors.StreamGMMWarning)
        return
    assert issubclass(kind, errors.StreamGMMError)
    if kind is not errors.StreamGMMError:
        builtin = [base for base in kind.__mro__ if base.__module__ == "builtins"]
        assert set(builtin) - {Exception, BaseException, object}
    again = pickle.loads(pickle.dumps(kind("what, where, what to do")))
    assert type(again) is kind
    assert str(again) == "what, where, what to do"
