"""Lazy prediction: a dask array that is computed when it is used."""

from __future__ import annotations

import math
import pickle
import uuid
from collections.abc import Sequence
from itertools import pairwise, product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamgmm.errors import DataError
from streamgmm.model.mixture import Mixture
from streamgmm.predict.rows import (
    KINDS,
    check_features,
    result_dtype,
    result_shape,
    runs_of_values,
)
from streamgmm.sources import (
    Block,
    Source,
    capable,
    open_source,
    parse_block_size,
    underlying,
    unwrapped,
)
from streamgmm.sources.array import ArrayBlock
from streamgmm.sources.dask import DaskSource
from streamgmm.sources.grid import Edges
from streamgmm.sources.regions import RegionBlock, RegionSource

LAZY_BYTES = 128 << 20  # at most, in a chunk of a lazy result


def predict_lazily(
    source: Source,
    mixture: Mixture,
    what: str,
    *,
    dtype: Any = None,
    block_size: int | str = "auto",
) -> Any:
    """Give the prediction for every row as a dask array, with a task for each block.

    The rows of a Zarr array are read when the result is computed, a bounded piece at a time. A
    dask array is mapped chunk by chunk.
    """
    import dask.array as da
    from dask._task_spec import Task, TaskRef
    from dask.highlevelgraph import HighLevelGraph

    check_features(source, mixture)
    shape = result_shape(source, mixture, what)
    dtype = result_dtype(what, source.dtype, dtype)
    width = math.prod(shape[1:])
    if isinstance(source, DaskSource):
        array = source.array.rechunk({1: -1})
        kept = {"drop_axis": 1} if len(shape) == 1 else {"chunks": (array.chunks[0], (width,))}
        meta = np.empty((0,) * len(shape), dtype)
        return array.map_blocks(
            _predict_chunk, mixture, source.name, what, into=dtype, dtype=dtype, meta=meta, **kept
        )
    cube = underlying(source)
    if isinstance(cube, RegionSource):
        return _predict_regions(source, cube.grid.edges, mixture, what, dtype)
    in_bytes = source.n_features * source.dtype.itemsize
    most = LAZY_BYTES * in_bytes // (width * dtype.itemsize)
    blocks = source.blocks(max(1, min(parse_block_size(block_size, source), most)))
    name = f"streamgmm-{what}-{uuid.uuid4().hex}"
    model = f"streamgmm-model-{name[-32:]}"
    graph: dict[Any, Any] = {model: Task(model, pickle.loads, pickle.dumps(mixture))}
    columns = (0,) * (len(shape) - 1)
    for i, block in enumerate(blocks):
        key = (name, i, *columns)
        _check_here(block, source.name)
        graph[key] = Task(key, _predict_block, TaskRef(model), block, source.name, what, dtype)
    chunks = (tuple(block.n_rows for block in blocks), *((size,) for size in shape[1:]))
    layers = HighLevelGraph.from_collections(name, graph, dependencies=[])
    return da.Array(layers, name, chunks, dtype=dtype)  # type: ignore[no-untyped-call]


def _predict_regions(
    source: Source, edges: Sequence[Edges], mixture: Mixture, what: str, dtype: np.dtype[Any]
) -> Any:
    """A task for each region of a cube."""
    import dask.array as da
    from dask._task_spec import Task, TaskRef
    from dask.highlevelgraph import HighLevelGraph

    name = f"streamgmm-{what}-{uuid.uuid4().hex}"
    model = f"streamgmm-model-{name[-32:]}"
    graph: dict[Any, Any] = {model: Task(model, pickle.loads, pickle.dumps(mixture))}
    columns = (0,) * KINDS[what].wide
    places = product(*(range(len(each) - 1) for each in edges))
    for place, block in zip(places, source.blocks(1), strict=True):
        _check_here(block, source.name)
        key = (name, *place, *columns)
        graph[key] = Task(key, _predict_region, TaskRef(model), block, source.name, what, dtype)
    chunks = tuple(tuple(b - a for a, b in pairwise(each)) for each in edges)
    chunks += ((mixture.n_components,),) * KINDS[what].wide
    layers = HighLevelGraph.from_collections(name, graph, dependencies=[])
    return da.Array(layers, name, chunks, dtype=dtype)  # type: ignore[no-untyped-call]


def _check_here(block: Block, name: str) -> None:
    """Check that a block needs no results on a cluster; raises DataError."""
    if capable(block).futures:
        raise DataError(
            f"{name} is persisted on a cluster, and has more axes than two or rows that are left "
            "out: there is no lazy prediction of that; pass out=, or what was persisted"
        )


def _predict_region(
    mixture: Mixture, block: Block, name: str, what: str, dtype: np.dtype[Any]
) -> NDArray[Any]:
    values = _predict_block(mixture, block, name, what, dtype)
    cube: RegionBlock = unwrapped(block)
    return values.reshape(*cube.regions[0].extent, *values.shape[1:])


def _predict_block(
    mixture: Mixture, block: Block, name: str, what: str, dtype: np.dtype[Any]
) -> NDArray[Any]:
    runs = runs_of_values(mixture, block, name, what, dtype)
    return np.concatenate([values for _, values, _, _ in runs])


def _predict_chunk(
    rows: Any,
    mixture: Mixture,
    name: str,
    what: str,
    *,
    into: np.dtype[Any],
    block_info: Any = None,
) -> NDArray[Any]:
    start = block_info[0]["array-location"][0][0] if block_info else 0
    if not len(rows):
        shape = (0, mixture.n_components) if KINDS[what].wide else (0,)
        return np.empty(shape, into)
    source = open_source(np.asarray(rows), name=name)
    (block,) = source.blocks(2 * source.nbytes + 1)
    assert isinstance(block, ArrayBlock)
    moved = ArrayBlock(start, block.rows, block.dtype, None)
    return _predict_block(mixture, moved, name, what, into)
