"""Rows of any kind, written to a Zarr array that is good to read: in chunks of whole rows.

The rows are read once, in order, a bounded piece at a time. The array exists only once it is
whole. What an interrupted run has written is used by the next.
"""

from __future__ import annotations

import hashlib
import math
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import groupby
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from streamgmm.errors import OutputError, ParameterError
from streamgmm.places import Place
from streamgmm.sources import Piece, Source, on_top, parse_block_size, underlying
from streamgmm.sources.grid import Grid, Region, put_together
from streamgmm.sources.regions import RegionSource
from streamgmm.storage.output import Output, create_output, taken_up

if TYPE_CHECKING:
    import zarr

CHUNK_BYTES = 16 << 20
"""Bytes of rows in a chunk; where the regions of a cube are larger, one of those."""

SHARD_BYTES = 512 << 20
"""Bytes of rows in a shard; Zarr holds 3 to 4 times as much while it is put together."""

MANY_CHUNKS = 1000
"""Where there were more files, chunks are put together to shards."""

_SAVE_BYTES = 256 << 20
"""Bytes of rows after which it is noted how far the run is."""

_SPARE = 64 << 20
"""Bytes that must stay free on the disk."""

Box = tuple[slice, ...]


def convert(
    source: Source,
    out: str | Place,
    *,
    dtype: Any = None,
    shards: str | int | None = "auto",
    overwrite: bool = False,
    storage_options: dict[str, Any] | None = None,
    on_rows: Callable[[int], object] | None = None,
) -> zarr.Array[Any]:
    """Write rows to a Zarr array, in chunks of about 16 MiB of whole rows, in one read.

    Rows of a cube keep the samples' shape; the features are the last axis. Rows that are masked
    are NaN. Names of features are kept, in the attribute ``streamgmm`` as ``feature_names``. A
    run that was interrupted goes on where it was if it is asked for the same again.

    Parameters
    ----------
    source : Source
    out : str or Place
        A path or URL.
    dtype : dtype, optional
        float32 or float64; that of the source by default.
    shards : "auto", int, str or None
        Bytes in a shard, an int or such as ``"512MiB"``: a file with as many chunks as fit. To
        write one takes 3 to 4 times its memory. ``"auto"`` is 512 MiB where there are more than
        1000 chunks, and None, chunks that are files, where there are not.
    overwrite : bool
        Whether an array at `out` may be replaced.
    storage_options : dict, optional
        For the fsspec file system of a URL.
    on_rows : callable, optional
        Called with the number of rows that have been written since the last call.

    Returns
    -------
    zarr.Array
        Of shape (…, n_features).

    Raises
    ------
    OutputExistsError, OutputError
        If there is something at `out`, or it cannot be written, or the disk has no room for all
        rows uncompressed.
    ParameterError
        If `dtype` is neither float32 nor float64, or `shards` is no size.

    Examples
    --------
    >>> import tempfile
    >>> from streamgmm.sources import rows
    >>> bands = np.arange(24.0).reshape(2, 3, 4)  # band, y, x
    >>> array = convert(rows(bands, feature_axis=0), tempfile.mkdtemp() + "/rows.zarr")
    >>> array.shape, array[1, 2].tolist()
    ((3, 4, 2), [6.0, 18.0])
    """
    kind = np.dtype(source.dtype if dtype is None else dtype)
    if kind not in (np.float32, np.float64):
        raise ParameterError(f"dtype={dtype!r} must be float32 or float64")
    source, shape, chunks = _layout(source, kind.itemsize)
    together = _shards(source, shape, chunks, kind.itemsize, shards)
    place = Place.parse(out, storage_options)
    names = getattr(source, "feature_names", None)
    told: dict[str, Any] = {
        "source": source.name, "shape": list(shape), "dtype": kind.name, "chunks": list(chunks),
        "shards": None if together is None else list(together),
        "features": None if names is None else list(names), "first": _first(source),
    }  # fmt: skip
    dims = getattr(source, "dims", None)
    known = {} if names is None else {"feature_names": list(names)}
    form: dict[str, Any] = {
        "shape": shape, "dtype": kind, "chunks": chunks, "fill_value": math.nan,
        "attributes": {"streamgmm": {"converted": told} | known}, "shards": together,
        "dims": None if dims is None else (*dims, "feature"),
    }  # fmt: skip
    output, done = (None, 0) if overwrite else taken_up(place, told, **form)
    _check_room(place, math.prod(shape) * kind.itemsize, done / max(1, math.prod(shape[:-1])))
    if output is None:
        output = create_output(place, **form, overwrite=overwrite)
    if on_rows is not None and done:
        on_rows(done)
    _write(source, output, kind, told, done, on_rows)
    return output.commit()


def _layout(source: Source, itemsize: int) -> tuple[Source, tuple[int, ...], tuple[int, ...]]:
    """The source, cut so that a chunk is a run of its rows; the shape; the chunks."""
    row_bytes = source.n_features * itemsize
    cube = underlying(source)
    if isinstance(cube, RegionSource) and len(cube.sample_shape) > 1:
        cube = cube.regular()
        edges = put_together(cube.sample_shape, cube.grid.edges, row_bytes, CHUNK_BYTES)
        cube = replace(cube, grid=Grid(edges))
        shape = (*cube.sample_shape, source.n_features)
        return on_top(source, cube), shape, (*cube.grid.largest, source.n_features)
    n_rows = max(1, min(CHUNK_BYTES // row_bytes, source.n_samples))
    return source, (source.n_samples, source.n_features), (n_rows, source.n_features)


def _shards(
    source: Source,
    shape: tuple[int, ...],
    chunks: tuple[int, ...],
    itemsize: int,
    asked: str | int | None,
) -> tuple[int, ...] | None:
    """Give the shape of a shard: chunks that follow one another; None where there are none."""
    n_chunks = math.prod(-(-n // step) for n, step in zip(shape, chunks, strict=True))
    if asked is None or (asked == "auto" and n_chunks <= MANY_CHUNKS):
        return None
    try:
        most = SHARD_BYTES if asked == "auto" else parse_block_size(asked, source)
    except ParameterError as error:
        raise ParameterError(str(error).replace("block_size", "shards")) from None
    row_bytes = shape[-1] * itemsize
    times: tuple[int, ...]
    if len(shape) == 2:
        times = (most // (chunks[0] * row_bytes), 1)
    else:
        assert isinstance(source, RegionSource)
        edges = put_together(shape[:-1], source.grid.edges, row_bytes, most)
        wide = zip(Grid(edges).largest, chunks[:-1], strict=True)
        times = (*(-(-n // step) for n, step in wide), 1)
    if math.prod(times) < 2:
        return None
    return tuple(step * n for step, n in zip(chunks, times, strict=True))


def _first(source: Source) -> str:
    """A digest of the first rows, by which a run knows the data of the one before."""
    for block in source.blocks(1)[:1]:
        for piece in block.pieces():
            return hashlib.sha256(piece.rows.tobytes()).hexdigest()
    return ""


def _check_room(place: Place, n_bytes: int, share: float) -> None:
    """Refuse what the disk has no room for; raises OutputError."""
    if place.directory is None:
        return
    folder = place.directory
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    needed = round(n_bytes * (1 - share))
    if needed + _SPARE > free:
        raise OutputError(
            f"'{place}' needs up to {needed / 1e9:.1f} GB, and {free / 1e9:.1f} GB are free "
            "there; give another path, fewer features, or dtype float32"
        )


def _write(
    source: Source,
    output: Output,
    kind: np.dtype[Any],
    told: dict[str, Any],
    done: int,
    on_rows: Callable[[int], object] | None,
) -> None:
    """Write from row `done` on, chunk by chunk or shard by shard, and note how far it is."""
    width = source.n_features
    rows = _Rows(_runs(source, kind, done))
    noted = done
    try:
        for regions in _targets(source, output, done):
            box = _around(regions)
            values = np.empty((*(each.stop - each.start for each in box), width), kind)
            for region in regions:
                if len(regions) == 1:
                    rows.fill(values.reshape(-1, width))
                    continue
                cell = np.empty((region.n_rows, width), kind)
                rows.fill(cell)
                each = zip(region.box, box, strict=True)
                inside = tuple(slice(a.start - b.start, a.stop - b.start) for a, b in each)
                values[inside] = cell.reshape(*region.extent, width)
            output.write_box(box, values)
            n = sum(region.n_rows for region in regions)
            done += n
            if on_rows is not None:
                on_rows(n)
            if (done - noted) * width * kind.itemsize >= _SAVE_BYTES:
                output.note({"converted": told, "done": done})
                noted = done
    except BaseException:
        with suppress(OutputError):
            output.note({"converted": told, "done": done})
        raise


class _Rows:
    """Rows that come in runs of any length, taken in order."""

    def __init__(self, runs: Iterator[NDArray[Any]]) -> None:
        self.runs = runs
        self.left: NDArray[Any] | None = None

    def fill(self, into: NDArray[Any]) -> None:
        """Take as many rows as `into` has."""
        at = 0
        while at < len(into):
            run = next(self.runs) if self.left is None else self.left
            n = min(len(run), len(into) - at)
            into[at : at + n] = run[:n]
            at += n
            self.left = run[n:] if n < len(run) else None


def _targets(source: Source, output: Output, done: int) -> Iterator[list[Region]]:
    """The regions of each chunk or shard that is still to be written, in the order of the rows."""
    n = source.n_samples
    unit = output.array.shards or output.array.chunks
    cube = underlying(source)
    if not isinstance(cube, RegionSource) or len(cube.sample_shape) == 1:
        for a in range(done, n, unit[0]):
            yield [Region(a, (a,), (min(unit[0], n - a),))]
        return

    def place(region: Region) -> tuple[int, ...]:
        return tuple(c // step for c, step in zip(region.corner, unit[:-1], strict=True))

    for _, regions in groupby(cube.grid.regions(done, n), place):
        yield list(regions)


def _around(regions: Sequence[Region]) -> Box:
    """The box that regions fill."""
    first, last = regions[0].box, regions[-1].box
    return tuple(slice(a.start, b.stop) for a, b in zip(first, last, strict=True))


def _runs(source: Source, kind: np.dtype[Any], start: int) -> Iterator[NDArray[Any]]:
    """All rows from `start` on, in order; NaN where they are left out."""
    for block in source.blocks(1 << 27, start, source.n_samples):
        at = block.start
        pieces: Iterator[Piece] = block.pieces()
        for piece in pieces:
            if piece.start > at:
                yield _gap(piece.start - at, source.n_features, kind)
            rows = piece.spread(piece.rows.astype(kind, copy=False), math.nan)
            yield rows
            at = piece.start + len(rows)
        if at < block.start + block.n_rows:
            yield _gap(block.start + block.n_rows - at, source.n_features, kind)


def _gap(n_rows: int, n_features: int, kind: np.dtype[Any]) -> NDArray[Any]:
    return np.broadcast_to(np.array(math.nan, kind), (n_rows, n_features))
