"""Prediction in memory: labels, responsibilities and log-densities of rows; and the score."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from streamgmm.errors import DataError, ParameterError
from streamgmm.fitting.sample import check_suitable
from streamgmm.model.components import Posterior, takes_gaps
from streamgmm.model.mixture import Mixture
from streamgmm.passes import default_threads, open_executor
from streamgmm.passes.base import OnBlock
from streamgmm.predict.values import RowFunction
from streamgmm.sources import Block, Piece, Source, check_finite, parse_block_size

SLICE_BYTES = 8 << 20  # of responsibilities in memory at a time


class What(NamedTuple):
    """A quantity that can be predicted.

    Its dtype in memory (scikit-learn's) and in Zarr, None for that of the rows; the fill value in
    Zarr; and whether it is `wide`: a row has a value for each component, and not one value.
    """

    dtype: np.dtype[Any] | None
    stored: np.dtype[Any] | None
    fill_value: float
    wide: bool


WHAT = {
    "labels": What(np.dtype(np.int64), np.dtype(np.int32), -1, False),
    "proba": What(None, None, math.nan, True),
    "log_density": What(None, None, math.nan, False),
}

"""What a mixture says of rows."""

KINDS = WHAT | {
    "distances": What(None, None, math.nan, True),
    "value": What(None, None, math.nan, False),
    "values": What(None, None, math.nan, True),
}
"""These, what centres say, and what functions of rows do: see `centres.py` and `values.py`."""


@dataclass(frozen=True)
class Score:
    """Rows, their total weight, and the sum of weighted log-densities in nats."""

    n_rows: int
    weight: float
    log_likelihood: float

    def merge(self, other: Score) -> Score:
        """Score of both sets of rows."""
        return Score(
            self.n_rows + other.n_rows,
            self.weight + other.weight,
            self.log_likelihood + other.log_likelihood,
        )

    @property
    def mean(self) -> float:
        """Weighted mean of the log-densities of rows, in nats."""
        return self.log_likelihood / self.weight


def score_rows(
    source: Source,
    mixture: Mixture,
    *,
    block_size: int | str = "auto",
    n_threads: int | None = None,
    client: Any = None,
    on_block: OnBlock | None = None,
) -> Score:
    """Log-likelihood of all rows, in one pass.

    Raises
    ------
    DataError
        If the source has another number of features than the model, or no weight at all.
    NonFiniteError
        Names the array and the rows.
    """
    check_features(source, mixture)
    blocks = source.blocks(parse_block_size(block_size, source))
    context = (mixture, source.name)
    with open_executor(blocks, n_threads=n_threads, client=client) as executor:
        score: Score = executor.run(_score_block, context, on_block=on_block)
    if score.weight <= 0:
        raise DataError("sample_weight is zero for every row; give some row weight")
    return score


def predict_rows(
    source: Source,
    mixture: Mixture,
    what: str,
    *,
    dtype: Any = None,
    block_size: int | str = "auto",
    n_threads: int | None = None,
) -> NDArray[Any]:
    """Labels (N,), responsibilities (N, K) or log-densities (N,), in this process's memory.

    Of a cube they have the samples' shape in the place of N. Rows that are left out have label
    −1 and NaN. Threads write into the array that is returned. Labels are int64, as scikit-learn's;
    what else is said of rows has their dtype, or `dtype`.
    """
    check_features(source, mixture)
    shape = result_shape(source, mixture, what)
    fill = KINDS[what].fill_value
    dtype = result_dtype(what, source.dtype, dtype)
    omits = getattr(source, "omits", False)
    out = np.full(shape, fill, dtype) if omits else np.empty(shape, dtype)
    flat = out.reshape(source.n_samples, *shape[len(sample_shape(source)) :])
    blocks = source.blocks(parse_block_size(block_size, source))
    threads = min(default_threads() if n_threads is None else n_threads, len(blocks))
    with open_executor(blocks, n_threads=threads) as executor:
        executor.run(_fill_block, (mixture, source.name, what, flat))
    return out


def predict_few(
    rows: NDArray[Any], mixture: Mixture, what: str, dtype: Any = None
) -> NDArray[Any]:
    """As `predict_rows`, of few rows in memory that have been checked, in this thread."""
    wide = KINDS[what].wide
    posterior = mixture.posterior(rows, labels=what == "labels", resp=wide)
    check_known(posterior.log_density, mixture, Piece(0, rows, None), "X")
    return values_of(posterior, what, result_dtype(what, rows.dtype, dtype))


def score_few(rows: NDArray[Any], mixture: Mixture) -> Score:
    """As `score_rows`, of few rows in memory that have been checked, in this thread."""
    density = mixture.posterior(rows).log_density
    check_known(density, mixture, Piece(0, rows, None), "X")
    return Score(len(density), float(len(density)), float(density.sum()))


def check_features(source: Source, mixture: Mixture) -> None:
    """Check that the rows are as wide as the model; raises DataError, which names both."""
    if source.n_features != mixture.n_features:
        raise DataError(
            f"{source.name} has {source.n_features} features, but the model is expecting "
            f"{mixture.n_features} features as input"
        )


def result_shape(source: Source, mixture: Mixture, what: str) -> tuple[int, ...]:
    """Give the shape of a prediction for all rows; raises ParameterError."""
    offered = getattr(mixture, "offers", tuple(WHAT))
    if what not in offered:
        raise ParameterError(f"what={what!r} is none of {', '.join(map(repr, offered))}")
    shape = sample_shape(source)
    return (*shape, mixture.n_components) if KINDS[what].wide else shape


def sample_shape(source: Source) -> tuple[int, ...]:
    """Give the lengths of the samples' dimensions: (N,) where they are rows of a table."""
    shape: tuple[int, ...] = getattr(source, "sample_shape", (source.n_samples,))
    return shape


def result_dtype(
    what: str, rows: np.dtype[Any], chosen: Any = None, *, stored: bool = False
) -> np.dtype[Any]:
    """Give the dtype of a prediction: that of the rows, or the one that is chosen.

    Parameters
    ----------
    what : str
    rows : numpy.dtype
        float32 or float64.
    chosen : dtype, optional
        float32 or float64.
    stored : bool
        Whether it is for Zarr, where labels are int32.

    Raises
    ------
    ParameterError
        If another dtype is chosen, or one for labels.

    Examples
    --------
    >>> result_dtype("proba", np.dtype(np.float32)), result_dtype("proba", np.dtype("f4"), "f8")
    (dtype('float32'), dtype('float64'))
    """
    own = KINDS[what].stored if stored else KINDS[what].dtype
    if chosen is None:
        return rows if own is None else own
    if own is not None:
        raise ParameterError(f"dtype={chosen!r}: {what} are always {own}; leave dtype out")
    for dtype in (np.dtype(np.float32), np.dtype(np.float64)):
        with suppress(TypeError):
            if dtype == np.dtype(chosen):
                return dtype
    raise ParameterError(f"dtype={chosen!r} must be float32 or float64, or None for the rows'")


def values_of(posterior: Posterior, what: str, dtype: np.dtype[Any]) -> NDArray[Any]:
    """Give the array of a posterior that `what` names; beyond the range of `dtype` is infinite."""
    if what == "labels":
        return posterior.labels.astype(dtype, copy=False)
    values = posterior.resp if KINDS[what].wide else posterior.log_density
    with np.errstate(over="ignore"):
        return values.astype(dtype, copy=False)


def posteriors(
    mixture: Mixture, block: Block, name: str, what: str
) -> Iterator[tuple[Piece, Posterior]]:
    """Give (rows, posterior) of a block, a bounded number of rows at a time."""
    wide = KINDS[what].wide
    most = max(256, SLICE_BYTES // (8 * (mixture.n_components if wide else 1)))
    for piece in block.pieces():
        gaps = takes_gaps(mixture if isinstance(mixture, RowFunction) else mixture.family)
        check_finite(piece, name, gaps)
        for a in range(0, len(piece.rows), most):
            part = piece.part(a, min(a + most, len(piece.rows)))
            if isinstance(mixture, RowFunction):
                yield part, mixture.at(part.rows, part.numbers())
                continue
            found = mixture.posterior(part.rows, labels=True, resp=wide)
            check_known(found.log_density, mixture, part, name)
            yield part, found


def runs_of_values(
    mixture: Mixture, block: Block, name: str, what: str, dtype: np.dtype[Any]
) -> Iterator[tuple[int, NDArray[Any], Piece | None, Posterior | None]]:
    """Give what is said of every row of a block, in order: (first row, values, rows, posterior).

    Rows that are left out are in the runs, with label −1 or NaN; a run of nothing else has no
    posterior.
    """
    fill = KINDS[what].fill_value
    tail = (mixture.n_components,) if KINDS[what].wide else ()
    at = block.start
    for piece, posterior in posteriors(mixture, block, name, what):
        if piece.start > at:
            yield at, np.full((piece.start - at, *tail), fill, dtype), None, None
        values = piece.spread(values_of(posterior, what, dtype), fill)
        yield piece.start, values, piece, posterior
        at = piece.start + len(values)
    stop = block.start + block.n_rows
    if at < stop:
        yield at, np.full((stop - at, *tail), fill, dtype), None, None


def check_known(log_density: NDArray[Any], mixture: Mixture, piece: Piece, name: str) -> None:
    """Check that rows of a piece have densities; raises DataError, which names one of no family.

    The log-density of a row that cannot be of the family is NaN.
    """
    if np.isnan(log_density).any():
        check_suitable(mixture.family, piece, name)


def _score_block(context: tuple[Mixture, str], block: Block) -> Score:
    mixture, name = context
    n_rows, weight, log_likelihood = 0, 0.0, 0.0
    for piece in block.pieces():
        check_finite(piece, name, takes_gaps(getattr(mixture, "family", None)))
        density = mixture.posterior(piece.rows).log_density
        check_known(density, mixture, piece, name)
        n_rows += len(density)
        if piece.sample_weight is None:
            weight += len(density)
            log_likelihood += float(density.sum())
        else:
            used = piece.sample_weight > 0  # 0 times a log-density of -inf would be NaN
            weight += float(piece.sample_weight.sum())
            log_likelihood += float(piece.sample_weight[used] @ density[used])
    return Score(n_rows, weight, log_likelihood)


class _Done:
    """Nothing to merge."""

    def merge(self, other: _Done) -> _Done:
        return self


def _fill_block(context: tuple[Mixture, str, str, NDArray[Any]], block: Block) -> _Done:
    mixture, name, what, out = context
    for piece, posterior in posteriors(mixture, block, name, what):
        out[piece.place()] = values_of(posterior, what, out.dtype)
    return _Done()
