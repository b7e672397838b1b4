"""What a person passes as X, opened and checked against what the estimator has seen."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.utils.validation import _check_feature_names, check_array

from streamgmm.errors import DataError, ParameterError
from streamgmm.sources import Piece, Source, check_finite, omitting, open_source, underlying
from streamgmm.sources.accessor import register
from streamgmm.sources.array import ArraySource
from streamgmm.sources.named import check_names
from streamgmm.sources.opening import is_lazy
from streamgmm.sources.regions import RegionSource

FEW_ROWS = 256  # up to which a call costs less than opening a source, and threads, would


def few_rows(estimator: Any, X: object, n_features: int) -> NDArray[Any] | None:
    """Give the rows of a small NumPy array, checked; None for whatever is to be opened.

    One row at a time is how services ask. Raises NonFiniteError.
    """
    if (
        type(X) is not np.ndarray
        or X.ndim != 2
        or X.dtype.char not in "fd"
        or not X.dtype.isnative
        or not 0 < X.shape[0] <= FEW_ROWS
        or X.shape[1] != n_features
        or hasattr(estimator, "feature_names_in_")
        or missing_of(estimator) != "raise"
    ):
        return None
    rows = np.ascontiguousarray(X)
    check_finite(Piece(0, rows, None), "X")
    return rows


MISSING = ("raise", "omit", "marginalize")


def missing_of(estimator: Any) -> str:
    """What the estimator does about rows with gaps; raises ParameterError."""
    missing: str = getattr(estimator, "missing", "raise")
    if missing not in MISSING:
        raise ParameterError(f"missing={missing!r} must be 'raise', 'omit' or 'marginalize'")
    return missing


def in_memory(source: Source) -> bool:
    """Whether results for these rows are given in memory, too."""
    beneath = underlying(source)
    return isinstance(beneath, ArraySource) or (
        isinstance(beneath, RegionSource) and beneath.in_memory
    )


def open_rows(
    estimator: Any, X: object, sample_weight: object = None, *, n_features: int | None = None
) -> Source:
    """Open X, and check its names and `n_features`, or set the estimator's where that is None.

    Lists and tables are converted by scikit-learn; Zarr arrays, paths, dask arrays and sources
    are left where they are. Values are looked at where they are read. Rows with gaps are left
    out where the estimator says so; where it marginalizes, only those without any value.

    Raises
    ------
    DataError, DataTypeError, SourceError
        As `open_source`; DataError also if the number of features is another than in `fit`.
    """
    register()
    lazy = is_lazy(X)
    if not lazy:
        _check_feature_names(estimator, X, reset=n_features is None)
    if not lazy and type(X) not in (np.ndarray, np.memmap):
        X = check_array(
            X,
            dtype=[np.float64, np.float32],
            ensure_all_finite=False,
            estimator=estimator,
            input_name="X",
        )
    source = open_source(X, sample_weight=sample_weight)
    if (missing := missing_of(estimator)) != "raise":
        names = None if lazy else getattr(estimator, "feature_names_in_", None)
        named = None if names is None else tuple(map(str, names))
        source = omitting(source, missing == "marginalize", named)
    names = getattr(source, "feature_names", None)
    if n_features is None:
        if names is not None:
            estimator.feature_names_in_ = np.array(names, dtype=object)
        elif lazy and hasattr(estimator, "feature_names_in_"):
            del estimator.feature_names_in_
        estimator.n_features_in_ = source.n_features
        return source
    known = getattr(estimator, "feature_names_in_", None)
    if names is not None and known is not None and list(names) != list(known):
        check_names(list(known), list(names), f"a feature of {source.name}")
        source = source.reordered([str(each) for each in known])  # type: ignore[attr-defined]
    if source.n_features != n_features:
        raise DataError(
            f"{source.name} has {source.n_features} features, but {type(estimator).__name__} "
            f"is expecting {n_features} features as input."
        )
    return source
