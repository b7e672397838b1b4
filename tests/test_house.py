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

# In order: a room, or a file beside the rooms, imports only from those before it.
ROOMS = [
    "_version",
    "errors",
    "places",
    "progress",
    "kernels",
    "clustering",
    "model",
    "families",
    "sources",
    "passes",
    "storage",
    "fitting",
    "testing",
    "xarray",
    "predict",
    "summaries",
    "pages",
    "online",
    "planning",
    "estimators",
    "report",
    "cli",
    "__main__",
    "__init__",
]
# Rooms that import less than the order allows.
ONLY = {
    "places": {"errors"},
    "sources": {"errors", "places", "kernels"},
    "kernels": {"progress"},
    "progress": set(),
}
RUN_DASK = ("passes/", "sources/dask.py")


def modules():
    return sorted(PACKAGE.rglob("*.py"))


def name_of(path):
    """The dotted name of a module."""
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


NAMES = {name_of(path) for path in modules()}


def room_of(path):
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def imports(tree):
    """Names of all modules that are imported, also inside functions."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield inner if inner in NAMES else node.module


def modules_used(path):
    """Names of the modules of this package that a file imports."""
    found = set(imports(ast.parse(path.read_text())))
    return {name for name in found if name.split(".")[0] == "streamgmm"}


def rooms_used(path):
    """Rooms that a file imports from beside its own; ``__init__`` is the face of the package."""
    parts = {name.split(".")[1] if "." in name else "__init__" for name in modules_used(path)}
    return parts - {room_of(path)}


def test_every_room_has_its_place():
    assert {room_of(path) for path in modules()} == set(ROOMS), "a new room: give it a place here"


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_no_room_imports_upwards(path):
    room = room_of(path)
    allowed = ONLY.get(room, set(ROOMS[: ROOMS.index(room)]))
    assert rooms_used(path) <= allowed


@pytest.mark.parametrize("room", ROOMS)
def test_files_of_a_room_do_not_import_in_a_circle(room):
    paths = [path for path in modules() if room_of(path) == room]
    own = {name_of(path) for path in paths}
    graph = {name_of(path): modules_used(path) & own for path in paths}
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
