"""Gaps filled by a fitted mixture."""

from __future__ import annotations

from typing import Any

from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from streamgmm.errors import ParameterError
from streamgmm.estimators.rows import open_rows
from streamgmm.estimators.scoring import ScoringMixture
from streamgmm.predict.imputing import imputing
from streamgmm.sources import underlying


class ImputingMixture(ScoringMixture):
    """Methods of an estimator that fills gaps."""

    def impute(
        self,
        X: Any,
        out: Any = None,
        return_std: bool = False,
        random_state: Any = None,
        *,
        overwrite: bool = False,
    ) -> Any:
        """Fill gaps with their conditional means given what was observed, or with draws.

        The mean of a missing value is Σ_k r_k (μ_m + Σ_mo Σ_oo⁻¹ (x_o - μ_o)), with r_k the
        probability of component k given what was observed (Ghahramani & Jordan 1994). It is the
        best guess of one value, and too smooth to be data: means, covariances and fits are to be
        taken by ``missing="marginalize"``, or of draws. Observed values stay as they are.

        Parameters
        ----------
        X : array-like, zarr.Array, str or path, dask.array.Array, or Source
            Of shape (n_samples, n_features); NaN, or a fill value, where nothing was observed.
        out : str, path-like, URL or zarr store, or a pair of them, optional
            Where to write Zarr arrays, chunk by chunk; a pair with `return_std`.
        return_std : bool, default=False
            Whether conditional standard deviations are given too: zero where a value is known.
        random_state : int, RandomState or None, default=None
            If given, gaps are filled with draws of p(x_m | x_o). The draw of a row depends on
            it and the row's number alone, so that blocks and workers change nothing.
        overwrite : bool, default=False
            Whether arrays at `out` may be replaced.

        Returns
        -------
        filled : ndarray, dask.array.Array or zarr.Array of shape (n_samples, n_features)
            float64; of a cube with the samples' shape in the place of n_samples. A row of which
            nothing was observed gets the mixture's mean, or a draw of it.
        std : of the same shape
            Where asked for.

        Raises
        ------
        sklearn.exceptions.NotFittedError
            If there is no model yet.
        DataError
            If X has another number of features, or infinite values.
        ParameterError
            If the components cannot say (names the family), or `out` is not as many places as
            results.
        OutputExistsError, OutputError
            If there is something at `out`, or it could not be written whole.

        Examples
        --------
        >>> from streamgmm import GaussianMixture
        >>> model = GaussianMixture().fit([[0.0, 0.0], [1.0, 2.0], [2.0, 4.0]])
        >>> gap = float("nan")
        >>> model.impute([[1.5, gap], [gap, gap]]).round(2).tolist()
        [[1.5, 3.0], [1.0, 2.0]]
        """
        check_is_fitted(self)
        model = self._mixture()
        seed = None
        if random_state is not None:
            seed = int(check_random_state(random_state).randint(2**31 - 1))
        filled = imputing(model, seed=seed)
        places = [out]
        if return_std:
            places = [None, None] if out is None else out
            if not isinstance(places, (tuple, list)) or len(places) != 2:
                raise ParameterError(
                    "values and standard deviations are two arrays: give out=(where, where)"
                )
        source = underlying(open_rows(self, X, n_features=model.n_features))
        told = [filled, imputing(model, spread=True)][: len(places)]
        found = tuple(
            self._say(source, each, "values", place, overwrite)
            for each, place in zip(told, places, strict=True)
        )
        return found if return_std else found[0]
