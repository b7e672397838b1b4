"""Rows that a mixture would give, drawn chunk by chunk to a Zarr array of any length."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from streamgmm.errors import ParameterError
from streamgmm.model.mixture import Mixture
from streamgmm.passes.base import OnBlock
from streamgmm.storage.output import Output, create_output

if TYPE_CHECKING:
    import zarr

CHUNK_BYTES = 16 << 20
"""Bytes of rows in a chunk, and what is held at a time."""


def draw_to(
    mixture: Mixture,
    n_rows: int,
    out: Any,
    *,
    labels: Any = None,
    seed: int | None = None,
    dtype: Any = np.float64,
    overwrite: bool = False,
    on_block: OnBlock | None = None,
) -> zarr.Array[Any]:
    """Write `n_rows` rows of a mixture, in random order, and the component that each is of.

    Each chunk has random numbers of its own, from the seed and its index, so a longer sample of
    the same seed begins with the whole chunks of a shorter one.

    Parameters
    ----------
    mixture : Mixture
    n_rows : int
    out : str, path-like or zarr store
        For the rows, of shape (n_rows, n_features).
    labels : str, path-like or zarr store, optional
        For the components, int32 of shape (n_rows,).
    seed : int, optional
        By default another one each time.
    dtype : dtype, default=float64
        float32 or float64.
    overwrite : bool, default=False
        Whether arrays at `out` and `labels` may be replaced.
    on_block : callable, optional
        Called with the number of rows of each chunk that is written.

    Returns
    -------
    zarr.Array
        The rows.

    Raises
    ------
    ParameterError
        If `n_rows` is less than one, or `dtype` is of another kind.
    OutputExistsError, OutputError
        If there is something at a place, or it cannot be written.

    Examples
    --------
    >>> import tempfile
    >>> mixture = Mixture.of("poisson", np.ones(1), np.full((1, 2), 3.0))
    >>> array = draw_to(mixture, 1000, tempfile.mkdtemp() + "/rows.zarr", seed=0)
    >>> array.shape, float(array[:].mean().round(1))
    ((1000, 2), 3.0)
    """
    kind = np.dtype(dtype)
    if n_rows < 1 or kind not in (np.float32, np.float64):
        raise ParameterError(f"{n_rows} rows of {kind}: at least one row, of float32 or float64")
    n_chunk = min(n_rows, max(1, CHUNK_BYTES // (8 * mixture.n_features)))
    told = {"streamgmm": {"what": "sample", "seed": seed}}
    begun: list[Output] = []

    def begin(place: Any, shape: tuple[int, ...], kind: Any, fill: float) -> Output:
        output = create_output(
            place, shape, np.dtype(kind), (n_chunk, *shape[1:]), fill_value=fill,
            attributes=told, overwrite=overwrite,
        )  # fmt: skip
        begun.append(output)
        return output

    try:
        rows = begin(out, (n_rows, mixture.n_features), kind, math.nan)
        of = None if labels is None else begin(labels, (n_rows,), np.int32, -1)
        root = np.random.SeedSequence(seed)
        for start in range(0, n_rows, n_chunk):
            (child,) = root.spawn(1)
            random = np.random.RandomState(np.random.MT19937(child))
            n = min(n_chunk, n_rows - start)
            drawn, component = mixture.sample(n, random)
            order = random.permutation(n)
            rows.write(start, drawn[order].astype(kind, copy=False))
            if of is not None:
                of.write(start, component[order].astype(np.int32))
            if on_block is not None:
                on_block(n)
        if of is not None:
            of.commit()
        return rows.commit()
    except BaseException:
        for output in begun:
            output.discard()
        raise
