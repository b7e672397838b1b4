"""Cubes in Zarr that grow along the first dimension of their samples, opened again as they are."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

from streamgmm.errors import ParameterError, SourceError
from streamgmm.sources.grid import Edges, make_grid
from streamgmm.sources.regions import RegionSource
from streamgmm.sources.variables import FEATURE, Held, InZarr, Variable
from streamgmm.sources.zarr_open import open_ref
from streamgmm.sources.zarr_ref import ZarrRef


def check_growing(source: RegionSource) -> None:
    """Check that the samples may grow along their first dimension; raises ParameterError."""
    along = [each for each in source.all_variables if 0 in each.axes]
    fixed = [each.name for each in along if _ref(each) is None]
    if fixed or not along:
        raise ParameterError(
            f"{source.name} cannot be followed: {fixed[0] if fixed else 'it'} is not a Zarr "
            "array that may grow along the first dimension of the samples; give the path of a "
            "Zarr array or group, with a mask and weights that are stored too, or that lack that "
            "dimension"
        )


def chunk_step(source: RegionSource) -> int:
    """How far whole chunks, or shards, of every variable go along the first dimension."""
    steps = []
    for each in source.all_variables:
        ref = _ref(each)
        if 0 in each.axes and ref is not None:
            array = ref.array
            steps.append(int((array.shards or array.chunks)[each.axes.index(0)]))
    return math.lcm(*steps)


def chunk_sizes(source: RegionSource) -> tuple[int, ...]:
    """Give the least chunk of the features along each dimension of the samples."""
    sizes = list(source.grid.shape)
    for each in source.variables:
        ref = _ref(each)
        for dim, step in zip(each.axes, () if ref is None else ref.array.chunks, strict=False):
            if dim != FEATURE:
                sizes[dim] = min(sizes[dim], int(step))
    return tuple(sizes)


def grown(source: RegionSource) -> RegionSource:
    """Open the arrays again, and give the samples that all of them have by now.

    Raises
    ------
    SourceError
        If an array is gone, or has changed along another dimension than the first.
    """
    before = source.grid.shape
    variables = {id(each): _again(each) for each in source.all_variables}
    lengths = [
        each.stored.shape[each.axes.index(0)] for each in variables.values() if 0 in each.axes
    ]
    shape = (min(lengths), *before[1:])
    features = tuple(variables[id(each)] for each in source.variables)
    chunkings = [
        [None if edges is None else _cut(edges, n) for edges, n in zip(each, shape, strict=True)]
        for each in (variable.chunking(len(shape)) for variable in features)
    ]
    grid = make_grid(shape, chunkings, source.n_features * source.dtype.itemsize)
    return replace(
        source,
        grid=grid,
        variables=features,
        weight=None if source.weight is None else variables[id(source.weight)],
        mask=None if source.mask is None else variables[id(source.mask)],
    )


def _ref(variable: Variable) -> ZarrRef | None:
    """The array that a variable is, or was read from when it was opened."""
    stored = variable.stored
    return stored.ref if isinstance(stored, (InZarr, Held)) else None


def _again(variable: Variable) -> Variable:
    before = _ref(variable)
    if before is None or (isinstance(variable.stored, Held) and 0 not in variable.axes):
        return variable
    import zarr

    array = before.array
    store: Any = getattr(array.store, "_store", array.store)
    try:
        ref = open_ref(zarr.open_array(store, path=array.path, mode="r"))
    except FileNotFoundError as error:
        raise SourceError(f"{variable.name} is no longer there") from error
    for axis, dim in enumerate(variable.axes):
        size, known = ref.array.shape[axis], array.shape[axis]
        if size != known and dim != 0:
            raise SourceError(
                f"{variable.name} had length {known} along axis {axis} and has {size} now: it may "
                "grow along the first dimension of the samples only; follow it with another state"
            )
    return replace(variable, stored=InZarr(replace(ref, name=before.name)))


def _cut(edges: Edges, size: int) -> Edges:
    return (*(edge for edge in edges if edge < size), size)
