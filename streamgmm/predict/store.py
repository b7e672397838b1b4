"""Prediction for every row, written to a Zarr array chunk by chunk."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from streamgmm.model.components import Posterior
from streamgmm.model.mixture import Mixture
from streamgmm.passes import default_threads, open_executor
from streamgmm.passes.base import OnBlock
from streamgmm.predict.rows import (
    KINDS,
    check_features,
    result_dtype,
    result_shape,
    runs_of_values,
)
from streamgmm.sources import (
    Block,
    Piece,
    Source,
    on_top,
    parse_block_size,
    underlying,
    unwrapped,
)
from streamgmm.sources.regions import RegionBlock, RegionSource
from streamgmm.sources.variables import InZarr
from streamgmm.sources.zarr import ZarrSource
from streamgmm.storage.output import Output, create_output

if TYPE_CHECKING:
    import zarr

CHUNK_BYTES = 4 << 20  # of an output, where blocks are large enough


@dataclass(frozen=True, eq=False)
class Tally:
    """A summary of predicted rows: `n_rows`, `counts` (K,) by component, the least likely row.

    `lowest` is its log-density in nats, `lowest_row` its index.
    """

    n_rows: int
    counts: NDArray[np.int64]
    lowest: float
    lowest_row: int

    @classmethod
    def none(cls, n_components: int) -> Tally:
        """Tally of no rows."""
        return cls(0, np.zeros(n_components, np.int64), math.inf, -1)

    @classmethod
    def of(cls, posterior: Posterior, piece: Piece, n_components: int) -> Tally:
        """Tally of the rows of a piece."""
        row = int(np.argmin(posterior.log_density))
        return cls(
            len(posterior.log_density),
            np.bincount(posterior.labels, minlength=n_components),
            float(posterior.log_density[row]),
            int(piece.part(row, row + 1).numbers()[0]),
        )

    def merge(self, other: Tally) -> Tally:
        """Tally of both sets of rows."""
        least = min(self, other, key=lambda tally: (tally.lowest, tally.lowest_row))
        return Tally(
            self.n_rows + other.n_rows,
            self.counts + other.counts,
            least.lowest,
            least.lowest_row,
        )


def predict_to(
    source: Source,
    mixture: Mixture,
    out: object,
    *,
    what: str = "labels",
    dtype: Any = None,
    overwrite: bool = False,
    storage_options: dict[str, Any] | None = None,
    block_size: int | str = "auto",
    n_threads: int | None = None,
    client: Any = None,
    on_block: OnBlock | None = None,
) -> tuple[zarr.Array[Any], Tally]:
    """Write the prediction for every row to a Zarr array, chunk by chunk, in one pass.

    Each chunk is written whole, by the task that read its rows. So a retry of a task writes the
    same bytes to the same place. The array exists only after a commit at the end.

    Parameters
    ----------
    source : Source
        N rows.
    mixture : Mixture
    out : str, path-like, URL, zarr store or zarr.storage.StorePath
        Where the array is to be.
    what : {"labels", "proba", "log_density"}
        int32 labels (N,), responsibilities (N, K), or log-densities (N,) in nats. Of a cube
        they have the samples' shape in the place of N, and are chunked as the samples are read.
        Rows that are left out have label −1 and NaN.
    dtype : {"float32", "float64"}, optional
        Of what are no labels; by default that of the rows.
    overwrite : bool
        Whether an array that is there may be replaced.
    storage_options : dict, optional
        For the fsspec file system of a URL.
    block_size, n_threads, client
        See `parse_block_size` and `open_executor`.
    on_block : callable, optional
        Called with the rows of each block as it finishes.

    Returns
    -------
    array : zarr.Array
    tally : Tally

    Raises
    ------
    OutputExistsError
        If there is something at `out`, and `overwrite` is false or it is no array.
    OutputError
        If the array could not be written; nothing is left that looks like an array.
    DataError
        If the source has another number of features than the model, or rows that are not
        finite.

    Examples
    --------
    >>> import tempfile
    >>> from streamgmm.sources import open_source
    >>> mixture = Mixture.of("spherical", np.full(2, 0.5), np.array([[0.0], [9.0]]), np.ones(2))
    >>> source = open_source([[0.5], [8.5], [30.0]])
    >>> labels, tally = predict_to(source, mixture, tempfile.mkdtemp() + "/labels.zarr")
    >>> labels[:].tolist(), tally.counts.tolist(), tally.lowest_row
    ([0, 1, 1], [1, 2], 2)
    """
    check_features(source, mixture)
    cube = underlying(source)
    by_region = isinstance(cube, RegionSource) and len(cube.sample_shape) > 1
    if by_region and not cube.grid.regular:
        cube = cube.regular()
        source = on_top(source, cube)
    shape = result_shape(source, mixture, what)
    fill_value = KINDS[what].fill_value
    dtype = result_dtype(what, source.dtype, dtype, stored=True)
    blocks = source.blocks(parse_block_size(block_size, source))
    chunks: tuple[int, ...]
    dims = getattr(cube, "dims", None)
    if dims is not None and KINDS[what].wide:
        dims = (*dims, "feature" if what == "values" else "component")
    read = []
    if isinstance(cube, RegionSource):
        read = [v.stored.ref.array for v in cube.all_variables if isinstance(v.stored, InZarr)]
    elif isinstance(cube, ZarrSource):
        read = [cube.ref.array]
    if by_region:
        chunks = (*cube.grid.largest, *shape[len(cube.sample_shape) :])
    else:
        row_bytes = dtype.itemsize * math.prod(shape[1:])
        rows = chunk_rows([block.start for block in blocks], source.n_samples, row_bytes)
        chunks = (rows, *shape[1:])
    output = create_output(
        out,
        shape,
        dtype,
        chunks,
        fill_value=fill_value,
        attributes={"streamgmm": {"what": what, "n_components": mixture.n_components}},
        overwrite=overwrite,
        storage_options=storage_options,
        beside=read,
        dims=dims,
    )
    try:
        if output.resident:  # no other process can write there
            n_threads, client = n_threads or default_threads(), None
        with open_executor(blocks, n_threads=n_threads, client=client) as executor:
            context = (mixture, source.name, what, output)
            if by_region:
                tally: Tally = executor.run(_write_regions, context, on_block=on_block)
            else:
                tally = executor.run(_write_block, context, on_block=on_block).tally
        return output.commit(), tally
    except BaseException:
        output.discard()
        raise


def chunk_rows(starts: Sequence[int], n_rows: int, row_bytes: int) -> int:
    """Choose the rows in a chunk of an output that blocks starting at `starts` will write.

    A chunk has at most ``CHUNK_BYTES``, and at most the rows of a block. So nearly all chunks
    are written by the task that read their rows. The rows of a chunk are a divisor or a multiple
    of the greatest common divisor of the starts, so that blocks share few chunks or none.

    Examples
    --------
    >>> chunk_rows([0, 30_000, 60_000], 100_000, 4)  # blocks of 30,000 rows
    30000
    >>> chunk_rows([0, 30_000_000], 60_000_000, 4)
    1000000
    >>> chunk_rows([0, 301, 702], 1000, 4)  # nothing in common: some chunks are shared
    301
    """
    common = math.gcd(*starts) or n_rows
    block = min((b - a for a, b in pairwise(starts)), default=n_rows)
    most = max(1, min(CHUNK_BYTES // row_bytes, block, n_rows))
    if most >= common:
        return most - most % common
    parts = -(-common // most)
    return next((common // p for p in range(parts, 4 * parts) if common % p == 0), most)


@dataclass(frozen=True, eq=False)
class _Written:
    """The result of writing a run of rows.

    `loose` are the parts (first row, values) of chunks that it shares with its neighbours. Such
    a chunk is written by the merge that has all parts of it.
    """

    output: Output
    tally: Tally
    loose: tuple[tuple[int, NDArray[Any]], ...]

    def merge(self, other: _Written) -> _Written:
        """Both runs, `other` the one that follows."""
        loose = _write_chunks(self.output, [*self.loose, *other.loose])
        return _Written(self.output, self.tally.merge(other.tally), loose)


def _write_chunks(
    output: Output, parts: Sequence[tuple[int, NDArray[Any]]]
) -> tuple[tuple[int, NDArray[Any]], ...]:
    """Write the chunks that consecutive parts fill, each part within a chunk; give the rest."""
    size = output.chunk_rows
    chunks: dict[int, list[tuple[int, NDArray[Any]]]] = {}
    for part in parts:
        chunks.setdefault(part[0] // size, []).append(part)
    loose: list[tuple[int, NDArray[Any]]] = []
    for index, held in chunks.items():
        first, last = index * size, min((index + 1) * size, output.n_rows)
        if sum(len(values) for _, values in held) < last - first:
            loose += held
        else:
            output.write(first, np.concatenate([values for _, values in held]))
    return tuple(loose)


def _write_block(context: tuple[Mixture, str, str, Output], block: Block) -> _Written:
    mixture, name, what, output = context
    size = output.chunk_rows
    tally = Tally.none(mixture.n_components)
    loose: tuple[tuple[int, NDArray[Any]], ...] = ()
    dtype = output.array.dtype
    for start, values, piece, posterior in runs_of_values(mixture, block, name, what, dtype):
        if piece is not None and posterior is not None:
            tally = tally.merge(Tally.of(posterior, piece, mixture.n_components))
        stop = start + len(values)
        edges = [start, *range((start // size + 1) * size, stop, size), stop]
        parts = [(a, values[a - start : b - start]) for a, b in pairwise(edges)]
        loose = _write_chunks(output, [*loose, *parts])
    return _Written(output, tally, loose)


def _write_regions(context: tuple[Mixture, str, str, Output], block: Block) -> Tally:
    """Write the regions of a block, each a chunk of the output."""
    mixture, name, what, output = context
    tally = Tally.none(mixture.n_components)
    dtype = output.array.dtype
    cube: RegionBlock = unwrapped(block)
    regions = iter(cube.regions)
    region = next(regions, None)
    held: list[NDArray[Any]] = []
    for _, values, piece, posterior in runs_of_values(mixture, block, name, what, dtype):
        if piece is not None and posterior is not None:
            tally = tally.merge(Tally.of(posterior, piece, mixture.n_components))
        held.append(values)
        # A piece is of one region; a run of missing rows may go over several.
        while region is not None and sum(map(len, held)) >= region.n_rows:
            rows = np.concatenate(held)
            whole = rows[: region.n_rows].reshape(*region.extent, *rows.shape[1:])
            output.write_box(region.box, whole)
            held = [rows[region.n_rows :]]
            region = next(regions, None)
    return tally
