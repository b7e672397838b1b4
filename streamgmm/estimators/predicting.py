"""What a fitted mixture says of rows: labels, responsibilities, log-densities."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from sklearn.utils.validation import check_is_fitted

from streamgmm.estimators.rows import few_rows, in_memory, open_rows
from streamgmm.model.mixture import Mixture
from streamgmm.passes import default_threads
from streamgmm.passes.base import OnBlock
from streamgmm.predict import predict_few, predict_lazily, predict_rows, predict_to
from streamgmm.progress import listener


class PredictingMixture:
    """Methods of an estimator whose model is what `_mixture` gives.

    Data in memory (arrays, lists, tables) give NumPy arrays. A Zarr array, a path or URL of
    one, a dask array or a source give a lazy dask array; or, with `out`, a Zarr array that is
    written chunk by chunk and returned. Data of xarray give its arrays, in memory or lazy. What
    is said of cubes (`streamgmm.rows`) has the samples' shape.
    """

    block_size: int | str
    n_jobs: int | None

    def predict(self, X: Any, *, out: Any = None, overwrite: bool = False) -> Any:
        """Give each row the component that most likely made it.

        Parameters
        ----------
        X : array-like, zarr.Array, str or path, dask.array.Array, or Source
            Of shape (n_samples, n_features).
        out : str, path-like, URL or zarr store, optional
            Where to write a Zarr array of the labels, chunk by chunk.
        overwrite : bool, default=False
            Whether an array at `out` may be replaced.

        Returns
        -------
        labels : ndarray, dask.array.Array or zarr.Array of shape (n_samples,)
            int64; int32 in a Zarr array.

        Raises
        ------
        sklearn.exceptions.NotFittedError
            If there is no model yet.
        DataError
            If X has another number of features, or values that are not finite.
        OutputExistsError, OutputError
            If there is something at `out`, or it could not be written whole.

        Examples
        --------
        >>> from streamgmm import GaussianMixture
        >>> model = GaussianMixture(2, random_state=0).fit([[0.0], [1.0], [9.0], [10.0]])
        >>> labels = model.predict([[0.5], [9.5], [0.6]])
        >>> (labels == labels[0]).tolist()
        [True, False, True]
        """
        return self._predict(X, "labels", out, overwrite)

    def predict_proba(self, X: Any, *, out: Any = None, overwrite: bool = False) -> Any:
        """Give the posterior probability of each component for each row.

        Parameters
        ----------
        X, out, overwrite
            As for `predict`.

        Returns
        -------
        resp : ndarray, dask.array.Array or zarr.Array of shape (n_samples, n_components)
            float64; rows sum to one.

        Raises
        ------
        sklearn.exceptions.NotFittedError, DataError, OutputExistsError, OutputError
            As `predict`.

        Examples
        --------
        >>> from streamgmm import GaussianMixture
        >>> model = GaussianMixture(2, random_state=0).fit([[0.0], [1.0], [9.0], [10.0]])
        >>> model.predict_proba([[5.0]]).round(3).tolist()
        [[0.5, 0.5]]
        """
        return self._predict(X, "proba", out, overwrite)

    def score_samples(self, X: Any, *, out: Any = None, overwrite: bool = False) -> Any:
        """Give the log-density of each row.

        Parameters
        ----------
        X, out, overwrite
            As for `predict`.

        Returns
        -------
        log_density : ndarray, dask.array.Array or zarr.Array of shape (n_samples,)
            float64, nats.

        Raises
        ------
        sklearn.exceptions.NotFittedError, DataError, OutputExistsError, OutputError
            As `predict`.

        Examples
        --------
        >>> from streamgmm import GaussianMixture
        >>> model = GaussianMixture().fit([[-1.0], [1.0]])
        >>> model.score_samples([[0.0], [3.0]]).round(3).tolist()
        [-0.919, -5.419]
        """
        return self._predict(X, "log_density", out, overwrite)

    def _mixture(self) -> Mixture:
        """The model; raises ParameterError where its attributes do not fit one another."""
        raise NotImplementedError

    def _predict(self, X: Any, what: str, out: Any, overwrite: bool) -> Any:
        check_is_fitted(self)
        mixture = self._mixture()
        rows = None if out is not None else few_rows(self, X, mixture.n_features)
        if rows is not None:
            return predict_few(rows, mixture, what)
        source = open_rows(self, X, n_features=mixture.n_features)
        if out is not None:
            array, _ = predict_to(
                source,
                mixture,
                out,
                what=what,
                overwrite=overwrite,
                block_size=self.block_size,
                n_threads=self._n_threads(),
                on_block=count_rows("predict", source.n_samples),
            )
            return array
        if in_memory(source):
            threads = self._n_threads()
            found: Any = predict_rows(
                source, mixture, what, block_size=self.block_size, n_threads=threads
            )
        else:
            found = predict_lazily(source, mixture, what, block_size=self.block_size)
        labelled = getattr(source, "labelled", None)
        return found if labelled is None else labelled(found, what)

    def _n_threads(self) -> int | None:
        """Threads of the local executor; None leaves the choice, and a cluster, to Dask."""
        if self.n_jobs is None:
            return None
        return self.n_jobs if self.n_jobs >= 0 else max(1, default_threads() + 1 + self.n_jobs)


@dataclass(frozen=True)
class _Reading:
    """What is told of a pass that has no iterations: a `streamgmm.progress.Event`."""

    stage: str
    rows: int
    n_rows: int
    iteration: int = 0
    lower_bound: float = math.nan
    change: float = math.nan


def count_rows(stage: str, n_rows: int) -> OnBlock | None:
    """Give what counts rows for whoever listens to progress; None where nobody does."""
    tell = listener()
    if tell is None:
        return None
    done = 0

    def on_block(rows: int) -> None:
        nonlocal done
        done += rows
        tell(_Reading(stage, done, n_rows))

    return on_block
