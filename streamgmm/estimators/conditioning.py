"""`model.condition(features)`: what a fitted mixture says of some features, given the others."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from streamgmm.errors import DataError, ParameterError
from streamgmm.estimators.rows import few_rows, open_rows
from streamgmm.estimators.rowwise import RowTeller
from streamgmm.model.components import takes_gaps
from streamgmm.model.conditional import Conditional
from streamgmm.model.moments import Floats
from streamgmm.predict import conditional as told
from streamgmm.predict.rows import result_dtype
from streamgmm.predict.values import RowFunction
from streamgmm.sources.joined import beside, columns_of
from streamgmm.sources.named import check_names


class Form(NamedTuple):
    """How results are wanted: where, of which dtype."""

    out: Any = None
    overwrite: bool = False
    storage_options: dict[str, Any] | None = None
    dtype: Any = None


class ConditionedMixture(RowTeller):
    """The mixture of some features given the others, as a model's ``condition`` makes it.

    X has the features that are given, in the order in which they were named. Results are as those
    of `GaussianMixture.predict`: NumPy arrays of rows in memory, lazy dask arrays of stored ones,
    and Zarr arrays that are written chunk by chunk with `out`. Of a model that was fitted with
    ``missing="marginalize"`` they are told given what was observed of each row.

    Attributes
    ----------
    features_, targets_ : list of int or of str
        The features that are given, and those that are told of, in order; names where the model
        was fitted to rows with names.
    n_features_in_ : int
        How many are given.
    """

    def __init__(self, conditional: Conditional, estimator: Any) -> None:
        self.conditional = conditional
        self.block_size = estimator.block_size
        self.n_jobs = estimator.n_jobs
        self.missing = getattr(estimator, "missing", "raise")
        self.n_features_in_ = len(conditional.given)
        names = getattr(estimator, "feature_names_in_", None)
        if names is None:
            self.features_: list[Any] = list(conditional.given)
            self.targets_: list[Any] = list(conditional.targets)
        else:
            self.features_ = [str(names[i]) for i in conditional.given]
            self.targets_ = [str(names[i]) for i in conditional.targets]
            self.feature_names_in_ = np.array(self.features_, dtype=object)

    def __repr__(self) -> str:
        """What is told of, given what."""
        given = ", ".join(map(str, self.features_))
        return f"<ConditionedMixture of {', '.join(map(str, self.targets_))} given {given}>"

    def predict(
        self,
        X: Any,
        *,
        return_std: bool = False,
        return_cov: bool = False,
        out: Any = None,
        overwrite: bool = False,
        storage_options: dict[str, Any] | None = None,
        dtype: Any = None,
    ) -> Any:
        """Conditional means of the other features, E[y | x], and their spread.

        Parameters
        ----------
        X : array-like, zarr.Array, str or path, dask.array.Array, or Source
            Of shape (n_samples, n_given).
        return_std, return_cov : bool, default=False
            Whether standard deviations, or covariance matrices, are given too: of the mixture
            Σ_k w_k N(m_k, C_k), so that the distance between components counts. One of both.
        out : str, path-like, URL or zarr store, or a pair of them, optional
            Where to write Zarr arrays; a pair where the spread is asked for.
        overwrite : bool, default=False
            Whether arrays at `out` may be replaced.
        storage_options : dict, optional
            For the file system of `out`, where that is a URL.
        dtype : {"float32", "float64"}, optional
            Of the results; by default that of the rows.

        Returns
        -------
        mean : ndarray, dask.array.Array or zarr.Array of shape (n_samples, n_targets)
        spread : of shape (n_samples, n_targets), or (n_samples, n_targets, n_targets)
            Where asked for. A Zarr array of covariances has (n_samples, n_targets²).

        Raises
        ------
        DataError
            If X has another number of features, or values that are not finite.
        ParameterError
            If both kinds of spread are asked for, or `out` is not as many places as results.
        OutputExistsError, OutputError
            As `streamgmm.GaussianMixture.predict`.

        Examples
        --------
        >>> from streamgmm import GaussianMixture
        >>> model = GaussianMixture().fit([[0.0, 0.0], [1.0, 2.0], [2.0, 4.0]])
        >>> model.condition([0]).predict([[3.0]]).round(2).tolist()
        [[6.0]]
        """
        form = Form(out, overwrite, storage_options, dtype)
        return predict(self, self.conditional, X, False, return_std, return_cov, form)

    def predict_proba(
        self,
        X: Any,
        *,
        out: Any = None,
        overwrite: bool = False,
        storage_options: dict[str, Any] | None = None,
        dtype: Any = None,
    ) -> Any:
        """Probabilities of the components given x.

        Parameters
        ----------
        X, out, overwrite, storage_options, dtype
            As for `predict`.

        Returns
        -------
        resp : of shape (n_samples, n_components)
            float64; rows sum to one.

        Raises
        ------
        DataError, OutputExistsError, OutputError
            As `predict`.
        """
        k = self.conditional.n_components
        form = Form(out, overwrite, storage_options, dtype)
        return say(self, self.conditional, X, told.weights, k, form)

    def score_samples(
        self,
        X: Any,
        Y: Any,
        *,
        out: Any = None,
        overwrite: bool = False,
        storage_options: dict[str, Any] | None = None,
        dtype: Any = None,
    ) -> Any:
        """Conditional log-density log p(y | x) of each row.

        Parameters
        ----------
        X, out, overwrite, storage_options, dtype
            As for `predict`.
        Y : array-like, zarr.Array, str or path, or dask.array.Array
            Of shape (n_samples, n_targets), or (n_samples,) where there is one target.

        Returns
        -------
        log_density : of shape (n_samples,)
            float64, nats.

        Raises
        ------
        DataError
            As `predict`, and if Y does not fit X or the targets.
        OutputExistsError, OutputError
            As `predict`.

        Examples
        --------
        >>> from streamgmm import GaussianMixture
        >>> model = GaussianMixture().fit([[0.0, 1.0], [1.0, -1.0], [2.0, 1.0], [1.0, -1.0]])
        >>> model.condition([0]).score_samples([[1.0]], [[0.0]]).round(3).tolist()
        [-0.919]
        """
        source = open_rows(self, X, n_features=self.n_features_in_)
        columns = columns_of(Y, source, "Y")
        check_targets(columns.n_columns, self.targets_, columns.name)
        joint = beside(source, [columns])
        func = partial(told.log_density, self.conditional)
        family = self.conditional.mixture.family
        function = RowFunction(joint.n_features, None, func, takes_gaps(family))
        return self._say(joint, function, "value", out, overwrite, storage_options, dtype)

    def sample(
        self,
        X: Any,
        random_state: Any = None,
        *,
        out: Any = None,
        overwrite: bool = False,
        storage_options: dict[str, Any] | None = None,
        dtype: Any = None,
    ) -> Any:
        """Draw the other features of each row from their conditional distribution.

        The draw of a row depends on `random_state` and the row's number alone, so that blocks and
        workers change nothing.

        Parameters
        ----------
        X, out, overwrite, storage_options, dtype
            As for `predict`.
        random_state : int, RandomState or None, default=None

        Returns
        -------
        Y : ndarray, dask.array.Array or zarr.Array of shape (n_samples, n_targets)

        Raises
        ------
        DataError, OutputExistsError, OutputError
            As `predict`.

        Examples
        --------
        >>> from streamgmm import GaussianMixture
        >>> model = GaussianMixture().fit([[0.0, 0.0], [1.0, 2.0], [2.0, 4.0]])
        >>> model.condition([0]).sample([[3.0], [5.0]], random_state=0).round(1).tolist()
        [[6.0], [10.0]]
        """
        from sklearn.utils import check_random_state

        seed = int(check_random_state(random_state).randint(2**31 - 1))
        draw = partial(told.draw, seed=seed)
        form = Form(out, overwrite, storage_options, dtype)
        return say(self, self.conditional, X, draw, len(self.targets_), form)


def predict(
    teller: Any,
    conditional: Conditional,
    X: Any,
    flat: bool,
    return_std: bool,
    return_cov: bool,
    form: Form,
) -> Any:
    """Conditional means, and their spread, for `ConditionedMixture.predict` and regressors.

    `teller` opens the rows; with `flat` there is one target, and results have one axis.
    """
    if return_std and return_cov:
        raise ParameterError("give one of return_std and return_cov: covariances have both")
    m = len(conditional.targets)
    width = None if flat else m
    if not (return_std or return_cov):
        return say(teller, conditional, X, told.mean, width, form)
    places = (None, None) if form.out is None else form.out
    if not isinstance(places, (tuple, list)) or len(places) != 2:
        raise ParameterError(
            "the mean and its spread are two arrays: give out=(where, where) for them"
        )
    first, second = (form._replace(out=place) for place in places)
    mean = say(teller, conditional, X, told.mean, width, first)
    if return_std:
        return mean, say(teller, conditional, X, told.std, width, second)
    spread = say(teller, conditional, X, told.cov, m * m, second)
    return mean, spread if second.out is not None else spread.reshape(*spread.shape[:-1], m, m)


def say(
    teller: Any,
    conditional: Conditional,
    X: Any,
    func: Any,
    width: int | None,
    form: Form,
) -> Any:
    """What a function of a conditional mixture and rows says, as the rows were given."""
    o = len(conditional.given)
    whole = partial(_call, func, conditional, width is None)
    gaps = takes_gaps(conditional.mixture.family)
    function = RowFunction(o, width, whole, gaps)
    what = "value" if width is None else "values"
    rows = None if form.out is not None else few_rows(teller, X, o)
    if rows is not None:
        dtype = result_dtype(what, rows.dtype, form.dtype)
        return function.func(rows, np.arange(len(rows))).astype(dtype, copy=False)
    source = open_rows(teller, X, n_features=o)
    return teller._say(source, function, what, *form)


def _call(
    func: Any,
    conditional: Conditional,
    flat: bool,
    X: NDArray[Any],
    numbers: NDArray[np.int64],
) -> Floats:
    found: Floats = func(conditional, X, numbers)
    return found[:, 0] if flat else found


def parse_features(features: Any, names: Any, d: int) -> list[int]:
    """Numbers of features that are given by number, or by name where there are names.

    Raises
    ------
    ParameterError
        If there is no such feature; says which is nearest.

    Examples
    --------
    >>> parse_features(["salt"], ["temp", "salt"], 2), parse_features([-1], None, 2)
    ([1], [1])
    """
    alone = isinstance(features, (str, int, np.integer))
    given: list[Any] = [features] if alone else list(features)
    found = []
    for each in given:
        if isinstance(each, str):
            if names is None:
                raise ParameterError(
                    f"feature '{each}' is given by its name, and the model was fitted to rows "
                    "without names; give its number"
                )
            there = [str(name) for name in names]
            check_names([each], there, "a feature of the model")
            found.append(there.index(each))
        elif isinstance(each, (int, np.integer)) and -d <= each < d:
            found.append(int(each) % d)
        else:
            raise ParameterError(
                f"features={features!r}: {each!r} is no feature; the model has {d}, given by "
                f"number, 0 to {d - 1}, or by name"
            )
    return found


def check_targets(n: int, targets: Sequence[Any], name: str) -> None:
    """Check that rows of targets are as wide as they must be; raises DataError."""
    if n != len(targets):
        raise DataError(
            f"{name} has {n} features, but {len(targets)} are told of: "
            f"{', '.join(map(str, targets))}"
        )
