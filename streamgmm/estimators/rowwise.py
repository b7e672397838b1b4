"""What every fitted model does with rows and files, be it a mixture or centres."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from typing import Any

from sklearn.utils.validation import check_is_fitted

from streamgmm.estimators.rows import few_rows, in_memory, open_rows
from streamgmm.estimators.uncertain import noisy
from streamgmm.model.mixture import Mixture
from streamgmm.passes import default_threads
from streamgmm.passes.base import OnBlock
from streamgmm.places import ZarrStore
from streamgmm.predict import (
    Score,
    predict_few,
    predict_lazily,
    predict_out,
    predict_rows,
    score_few,
    score_rows,
)
from streamgmm.progress import listener
from streamgmm.sources import Source


class RowTeller:
    """Whatever tells something of every row, in the form in which the rows were given.

    Data in memory (arrays, lists, tables) give NumPy arrays. A Zarr array, a path or URL of
    one, a dask array or a source give a lazy dask array; or, with `out`, a Zarr array that is
    written chunk by chunk and returned. Data of xarray give its arrays, in memory or lazy. What
    is said of cubes (`streamgmm.rows`) has the samples' shape.
    """

    block_size: int | str
    n_jobs: int | None

    def _say(
        self,
        source: Source,
        model: Any,
        what: str,
        out: Any,
        overwrite: bool,
        storage_options: dict[str, Any] | None = None,
        dtype: Any = None,
    ) -> Any:
        """What a model says of rows, given as the rows were: see the class."""
        if isinstance(model, Mixture):
            model.prepare()
        if out is not None:
            array, _ = predict_out(
                source,
                model,
                out,
                what=what,
                dtype=dtype,
                overwrite=overwrite,
                storage_options=storage_options,
                block_size=self.block_size,
                n_threads=self._n_threads(),
                on_block=count_rows("predict", source.n_samples),
            )
            return array
        if in_memory(source):
            threads = self._n_threads()
            found: Any = predict_rows(
                source, model, what, dtype=dtype, block_size=self.block_size, n_threads=threads
            )
        else:
            found = predict_lazily(source, model, what, dtype=dtype, block_size=self.block_size)
        labelled = getattr(source, "labelled", None)
        return found if labelled is None else labelled(found, what)

    def _n_threads(self) -> int | None:
        """Threads of the local executor; None leaves the choice, and a cluster, to Dask."""
        if self.n_jobs is None:
            return None
        return self.n_jobs if self.n_jobs >= 0 else max(1, default_threads() + 1 + self.n_jobs)


class RowwiseModel(RowTeller):
    """An estimator whose fitted model is what `_model` gives."""

    def save(
        self,
        path: str | os.PathLike[str] | ZarrStore,
        overwrite: bool = False,
        storage_options: dict[str, Any] | None = None,
    ) -> None:
        """Save the model as a Zarr group, without pickle; `streamgmm.load` reads it back.

        Parameters
        ----------
        path : str, path-like, URL or Zarr store
        overwrite : bool, default=False
            Whether a model at `path` may be replaced.
        storage_options : dict, optional
            For the file system of a URL.

        Raises
        ------
        sklearn.exceptions.NotFittedError
            If there is no model yet.
        OutputExistsError, OutputError, ParameterError
            As `streamgmm.storage.save_model`.

        Examples
        --------
        >>> import tempfile, streamgmm
        >>> path = tempfile.mkdtemp() + "/model.zarr"
        >>> model = streamgmm.GaussianMixture().fit([[-1.0], [1.0]])
        >>> model.save(path)
        >>> bool(streamgmm.load(path).means_ == model.means_)
        True
        """
        from streamgmm.estimators.saving import save

        check_is_fitted(self)
        save(self, path, overwrite, storage_options)

    def _model(self) -> Mixture:
        """What says something of rows; raises ParameterError where attributes do not fit."""
        raise NotImplementedError

    def _predict(
        self,
        X: Any,
        what: str,
        out: Any,
        overwrite: bool,
        storage_options: dict[str, Any] | None = None,
        dtype: Any = None,
        noise_variance: Any = None,
        exact: bool = False,
    ) -> Any:
        check_is_fitted(self)
        model = self._model()
        if exact:
            model = model.exact
        few = out is None and noise_variance is None
        rows = few_rows(self, X, model.n_features) if few else None
        if rows is not None:
            return predict_few(rows, model, what, dtype)
        source = open_rows(self, X, n_features=model.n_features)
        if noise_variance is not None:
            source, model = noisy(source, noise_variance, model)
        return self._say(source, model, what, out, overwrite, storage_options, dtype)

    def _score(self, X: Any, sample_weight: Any = None, noise_variance: Any = None) -> Score:
        check_is_fitted(self)
        model = self._model()
        few = sample_weight is None and noise_variance is None
        rows = few_rows(self, X, model.n_features) if few else None
        if rows is not None:
            return score_few(rows, model)
        source = open_rows(self, X, sample_weight, n_features=model.n_features)
        if noise_variance is not None:
            source, model = noisy(source, noise_variance, model)
        return score_rows(
            source,
            model,
            block_size=self.block_size,
            n_threads=self._n_threads(),
            on_block=count_rows("score", source.n_samples),
        )


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
