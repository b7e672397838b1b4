"""Columns beside columns: more features of the same samples, from another array, read together.

Nothing is copied or read here. Rows of any kind become variables of a `RegionSource`, and more
variables take their places beside them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamgmm.errors import DataError, DataTypeError
from streamgmm.sources.array import ArraySource, ArrayWeights
from streamgmm.sources.base import Source, float_dtype
from streamgmm.sources.cubes import check_lengths, make_source, open_stored
from streamgmm.sources.dask import DaskSource, DaskWeights
from streamgmm.sources.dask_boxes import InDask
from streamgmm.sources.decoding import decoding_of
from streamgmm.sources.omitting import OmittingSource
from streamgmm.sources.regions import RegionSource
from streamgmm.sources.transforming import TransformedSource
from streamgmm.sources.variables import FEATURE, Held, InZarr, Variable
from streamgmm.sources.zarr import ZarrSource, ZarrWeights


def as_regions(source: Source) -> RegionSource:
    """The same rows as variables, whatever kind they are; those with gaps are left in.

    Raises
    ------
    DataTypeError
        If it is a kind of source that says nothing of how it is stored.

    Examples
    --------
    >>> from streamgmm.sources import open_source
    >>> found = as_regions(open_source([[1.0, 2.0]]))
    >>> found.n_samples, found.n_features, found.in_memory
    (1, 2, True)
    """
    if isinstance(source, OmittingSource):
        return as_regions(source.source)
    if isinstance(source, RegionSource):
        return source
    stored: Any
    if isinstance(source, ArraySource):
        stored = Held(source.rows)
    elif isinstance(source, ZarrSource):
        stored = InZarr(source.ref)
    elif isinstance(source, DaskSource):
        stored = InDask(source.array)
    else:
        raise DataTypeError(
            f"{source.name} is a {type(source).__name__}, beside whose rows nothing can be put; "
            "give an array, a Zarr array, a dask array, or streamgmm.rows of some"
        )
    variable = Variable(source.name, stored, (0, FEATURE))
    weight = None if source.weights is None else _weighing(source.weights)
    return make_source(source.name, (source.n_samples,), (variable,), None, weight)


def _weighing(weights: Any) -> Variable:
    if isinstance(weights, ArrayWeights):
        return Variable("sample_weight", Held(weights.values), (0,))
    if isinstance(weights, ZarrWeights):
        return Variable(weights.ref.name, InZarr(weights.ref), (0,))
    assert isinstance(weights, DaskWeights)
    return Variable("sample_weight", InDask(weights.array), (0,))


def beside(source: Source, others: Sequence[Variable]) -> Source:
    """The same samples with more features, after their own.

    Where the rows' own kind decides, as of whether results are given in memory, the others do
    not. Rows with a gap are left out where the source leaves them out, those of the others too;
    transforms are of the rows alone.

    Parameters
    ----------
    source : Source
    others : sequence of Variable
        Of the same samples.

    Raises
    ------
    DataTypeError
        As `as_regions`.
    """
    if isinstance(source, OmittingSource):
        return source.on(beside(source.source, others))
    if isinstance(source, TransformedSource):
        joint = beside(source.source, others)
        n = source.source.n_features
        return TransformedSource(joint, FirstColumns(source.transform, n, joint.n_features - n))
    first = as_regions(source)
    more = tuple(replace(each, accompanies=True) for each in others)
    kept = {"dims": first.dims, "labelled": first.labelled}
    return make_source(
        first.name, first.sample_shape, first.variables + more, first.mask, first.weight, **kept
    )


@dataclass(frozen=True)
class FirstColumns:
    """A transform of the first columns of rows, beside which others stay as they are.

    Attributes
    ----------
    transform : Transform
    n_given, n_more : int
        Columns that it takes, and columns after them.
    """

    transform: Any
    n_given: int
    n_more: int

    @property
    def n_features(self) -> int:
        """Columns that it gives, and the others."""
        return int(self.transform.n_features) + self.n_more

    @property
    def mixes(self) -> bool:
        """As the transform."""
        return bool(self.transform.mixes)

    @property
    def digest(self) -> str:
        """That of the transform, and of how many columns."""
        return f"{self.transform.digest} of the first {self.n_given}"

    def ready(self, dtype: np.dtype[Any]) -> Callable[[NDArray[Any]], NDArray[Any]]:
        """Give a function of rows."""
        apply, n = self.transform.ready(dtype), self.n_given

        def both(X: NDArray[Any]) -> NDArray[Any]:
            first = apply(np.ascontiguousarray(X[:, :n]))
            return np.concatenate([first, X[:, n:].astype(dtype, copy=False)], axis=1)

        return both

    def then(self, other: Any) -> Any:
        """None follows: what is put beside rows comes last."""
        raise NotImplementedError("transform the rows first, and put columns beside them then")


def columns_of(given: Any, source: Source, what: str) -> Variable:
    """Open columns for the samples of a source: an array of their shape, or with one axis more.

    Parameters
    ----------
    given : array-like, zarr.Array, str or path, or dask.array.Array
    source : Source
    what : str
        What messages call it: ``y``.

    Raises
    ------
    DataError
        If it is of another shape, which names both, or no real numbers.
    SourceNotFoundError, SourceError, DataTypeError
        As `open_source`.
    """
    shape: tuple[int, ...] = getattr(source, "sample_shape", (source.n_samples,))
    label, stored, attributes = open_stored(given, what)
    if label != what:
        label = f"{what} ({label})"
    n = len(shape)
    if stored.shape[:n] != shape or len(stored.shape) > n + 1:
        raise DataError(
            f"{label} has shape {tuple(stored.shape)}, but the samples of {source.name} have "
            f"shape {shape}; give a value, or a row of values, for each sample"
        )
    check_lengths(stored.shape, label)
    float_dtype(decoding_of(attributes).dtype(stored.dtype), label)
    axes = (*range(n), FEATURE)[: len(stored.shape)]
    return Variable(label, stored, axes, decoding_of(attributes))
