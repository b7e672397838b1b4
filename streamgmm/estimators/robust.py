"""`RobustScaler`: scikit-learn's, for data of any size."""

from __future__ import annotations

from typing import Any, ClassVar, Self

import numpy as np
from scipy.special import ndtri
from sklearn.base import OneToOneFeatureMixin, _fit_context

from streamgmm.errors import DataError, ParameterError
from streamgmm.estimators.exchange import Exchanged
from streamgmm.estimators.rows import open_rows
from streamgmm.estimators.rowwise import count_rows
from streamgmm.estimators.transforming import (
    CONSTRAINTS,
    PASSES_GAPS,
    RowTransformer,
    shares,
    weighted,
)
from streamgmm.fitting.moments import RowMoments
from streamgmm.fitting.quantiles import digests_of
from streamgmm.fitting.sample import WHOLE_BYTES
from streamgmm.model.affine import Affine
from streamgmm.model.moments import Floats
from streamgmm.predict.transformed import read_rows
from streamgmm.sources import Source
from streamgmm.sources.opening import is_lazy


class RobustScaler(OneToOneFeatureMixin, Exchanged, RowTransformer):
    """Take the median from every feature and divide it by a range of quantiles.

    Parameters, attributes and methods are those of `sklearn.preprocessing.RobustScaler`.
    Quantiles are exact for rows in memory, and for up to 16 MiB of others. Of more rows, and of
    weighted ones, they come from a t-digest of each feature (the extra ``quantiles``), in one
    read: the rank of a quantile may be off by 0.2% of the rows, and mostly is by about 0.01%.

    Parameters
    ----------
    with_centering : bool, default=True
    with_scaling : bool, default=True
    quantile_range : tuple (q_min, q_max), 0.0 < q_min < q_max < 100.0, default=(25.0, 75.0)
    copy : bool, default=True
        Of no meaning here: rows are never changed.
    unit_variance : bool, default=False
        Whether normally distributed features are given variance 1.
    block_size, n_jobs
        As for `GaussianMixture`.
    missing : {"raise", "omit", "marginalize"}, default="raise"
        What to do about gaps (NaN). ``"marginalize"``, as scikit-learn does: quantiles are of the
        values that a feature has, and gaps stay in their place, for a mixture after it.

    Attributes
    ----------
    center_ : ndarray of shape (n_features,) or None
        Medians; None where `with_centering` is false.
    scale_ : ndarray of shape (n_features,) or None
        Ranges; 1 where they are zero. None where `with_scaling` is false.
    n_features_in_ : int
    feature_names_in_ : ndarray of shape (n_features,)
        If X had names that are all strings.

    Examples
    --------
    >>> from streamgmm import RobustScaler
    >>> X = [[1.0, -2.0, 2.0], [-2.0, 1.0, 3.0], [4.0, 1.0, -2.0]]
    >>> RobustScaler().fit(X).transform(X).tolist()
    [[0.0, -2.0, 0.0], [-1.0, 0.0, 0.4], [1.0, 0.0, -1.6]]
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "with_centering": ["boolean"],
        "with_scaling": ["boolean"],
        "quantile_range": [tuple],
        "copy": ["boolean"],
        "unit_variance": ["boolean"],
        **CONSTRAINTS,
        **PASSES_GAPS,
    }

    exchanged = ("sklearn.preprocessing.RobustScaler",)
    shared = ("center_", "scale_")

    center_: Floats | None
    scale_: Floats | None

    def __init__(
        self,
        *,
        with_centering: bool = True,
        with_scaling: bool = True,
        quantile_range: tuple[float, float] = (25.0, 75.0),
        copy: bool = True,
        unit_variance: bool = False,
        block_size: int | str = "auto",
        n_jobs: int | None = None,
        missing: str = "raise",
    ) -> None:
        self.with_centering = with_centering
        self.with_scaling = with_scaling
        self.quantile_range = quantile_range
        self.copy = copy
        self.unit_variance = unit_variance
        self.block_size = block_size
        self.n_jobs = n_jobs
        self.missing = missing

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X: Any, y: Any = None) -> Self:
        """Find the quantiles of every feature, in one read.

        Parameters
        ----------
        X : array-like, zarr.Array, str or path, dask.array.Array, or Source
            Of shape (n_samples, n_features). Weights of `streamgmm.rows` count.
        y : Ignored

        Returns
        -------
        self : RobustScaler

        Raises
        ------
        DataError
            If X cannot be used: NaN or infinity (names the array and the rows), no rows or
            columns of real numbers.
        ParameterError
            If `quantile_range` is no range.
        MissingExtraError
            If rows are many and crick is not installed.
        SourceError
            If a path is no Zarr array.
        """
        self._learn(open_rows(self, X), here=not is_lazy(X), scatter=False)
        return self

    @_fit_context(prefer_skip_nested_validation=True)
    def fit_transform(self, X: Any, y: Any = None) -> Any:
        """Find the quantiles, and scale the rows: ``fit(X).transform(X)``.

        Parameters
        ----------
        X, y
            As for `fit`.

        Returns
        -------
        ndarray of shape (n_samples, n_features), or Source
            As `transform` gives them. A Source keeps the scatter of its rows, as they are now,
            for a `PCA` that is fitted to it.

        Raises
        ------
        DataError, ParameterError, SourceError
            As `fit`.
        """
        source = open_rows(self, X)
        here = not is_lazy(X)
        found = self._learn(source, here=here, scatter=shares(X, source))
        affine = self._affine()
        return self._mapped(source, affine, here, None if found is None else found.by(affine))

    def _learn(self, source: Source, *, here: bool, scatter: bool) -> RowMoments | None:
        """Set the attributes; gives the scatter, where it was asked for and summed."""
        low, high = self.quantile_range
        if not 0 <= low <= high <= 100:
            raise ParameterError(f"Invalid quantile range: {self.quantile_range}")
        gaps = self.missing == "marginalize"
        wanted = [0.5, low / 100.0, high / 100.0]
        moments = None
        if not weighted(source) and (here or source.nbytes <= WHOLE_BYTES):
            threads = self._n_threads()
            rows = read_rows(source, gaps=gaps, block_size=self.block_size, n_threads=threads)
            if (missing := np.isnan(rows).all(axis=0)).any():
                raise DataError(f"{source.name}: column {missing.argmax()} has no value")
            found = _exact(rows if gaps else rows[~np.isnan(rows).any(axis=1)], wanted)
        else:
            digests = digests_of(
                source,
                scatter=scatter and not gaps,
                gaps=gaps,
                block_size=self.block_size,
                n_threads=self._n_threads(),
                on_block=count_rows("fit", source.n_samples),
            )
            found, moments = digests.quantiles(wanted), digests.moments
        self.center_ = found[0] if self.with_centering else None
        self.scale_ = None
        if self.with_scaling:
            spread = found[2] - found[1]
            least = 10 * np.finfo(np.float64).eps
            spread = np.where(spread < least, 1.0, spread)
            if self.unit_variance:
                spread = spread / (ndtri(high / 100.0) - ndtri(low / 100.0))
            self.scale_ = spread
        return moments

    def _affine(self) -> Affine:
        if self.center_ is None and self.scale_ is None:
            return Affine.nothing(self.n_features_in_)
        return Affine.columns(self.center_, self.scale_)


def _exact(rows: Any, wanted: list[float]) -> Floats:
    """Quantiles (P, D) of the values of each column of rows (n, D)."""
    percents = [100 * p for p in wanted[1:]]
    found = [np.nanmedian(rows, axis=0), *np.nanpercentile(rows, percents, axis=0)]
    return np.stack(found).astype(np.float64)
