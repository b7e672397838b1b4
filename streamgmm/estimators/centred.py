"""K-means of a stream: what `follow` teaches, batch by batch."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamgmm.errors import DataError
from streamgmm.estimators.saving import fitted_of, params_of
from streamgmm.model.mixture import Mixture
from streamgmm.model.moments import Floats
from streamgmm.online.drift import Alarm
from streamgmm.places import Place
from streamgmm.storage import is_numeric, save_model

WARM_UP_ROWS = 200  # a centre, that the first centres are found from, and 2,000 at least


class CentresLearner:
    """Centres that learn batches of rows, as a `streamgmm.online.learner.Learner` learns.

    The first rows are kept until there are enough, and fitted as by `KMeans.fit`. Later ones are
    learned by `KMeans.partial_fit`, each once. `random_state=None` means 0, so that a stream that
    is learned again gives the same centres.

    Attributes
    ----------
    n_features : int
    n_rows : int
        Rows taken in.
    waiting : list of ndarray
        Rows (n, D) of the warm-up.
    """

    busy = False
    most_rows = 10_000

    def __init__(
        self,
        model: Any,
        n_features: int,
        n_rows: int = 0,
        waiting: Sequence[NDArray[Any]] = (),
    ) -> None:
        self._model, self.n_features, self.n_rows = model, n_features, n_rows
        self.waiting = [*waiting]

    @property
    def warm_up(self) -> int:
        """Rows that the first centres are found from."""
        return max(2_000, WARM_UP_ROWS * int(self._model.n_clusters))

    @property
    def state(self) -> Any:
        """The model; None during the warm-up."""
        return self._model if hasattr(self._model, "cluster_centers_") else None

    def mixture(self) -> Mixture:
        """The mixture of which k-means is the hard EM, as it is now."""
        found: Mixture = self._model._mixture()
        return found

    def learn(self, batches: Iterable[tuple[NDArray[Any], Floats]]) -> list[Alarm]:
        """Learn batches in order; nothing is watched for drift."""
        for X, _ in list(batches):
            if self.state is not None:
                self._model.partial_fit(X)
            else:
                self.waiting = [*self.waiting, np.array(X)]
                if sum(map(len, self.waiting)) >= self.warm_up:
                    self._begin()
            self.n_rows += len(X)
        return []

    def go_on(self) -> list[Alarm]:
        """Nothing is ever left to do."""
        return []

    def _begin(self) -> None:
        """Find the first centres."""
        model = self._model
        seed = 0 if model.random_state is None else model.random_state
        params = model.get_params(deep=False) | {"random_state": seed, "checkpoint": None}
        first = type(model)(**params).partial_fit(np.concatenate(self.waiting))
        vars(model).update({n: v for n, v in vars(first).items() if n.endswith("_")})
        self.waiting = []


class LearningCentres:
    """What `follow` needs of `KMeans`."""

    n_features_in_: int
    get_params: Any
    _learner: CentresLearner

    def begin(self, n_features: int) -> CentresLearner:
        """Begin to learn rows of so many features, or go on from the centres that are there.

        Raises
        ------
        DataError
            If the centres that are there have other features.
        """
        if getattr(self, "n_features_in_", n_features) != n_features:
            raise DataError(
                f"the rows to learn have {n_features} features, but {type(self).__name__} is "
                f"expecting {self.n_features_in_} features as input."
            )
        self._learner = CentresLearner(self, n_features)
        return self._learner

    def taught(self) -> CentresLearner | None:
        """What learns; None before there are rows."""
        return getattr(self, "_learner", None)

    def save_with(
        self, path: str | os.PathLike[str] | Place, more: dict[str, Any], overwrite: bool = False
    ) -> None:
        """As `save`, with more values in the same atomic step."""
        fitted = fitted_of(self) | more
        learner = self._learner
        fitted["online_"] = {
            "n_features": learner.n_features,
            "n_rows": learner.n_rows,
            "waiting": learner.waiting,
        }
        arrays = {name: value for name, value in fitted.items() if is_numeric(value)}
        attrs = {name: value for name, value in fitted.items() if name not in arrays}
        save_model(path, type(self).__name__, params_of(self), arrays, attrs, overwrite)

    def _restore(self, values: dict[str, Any]) -> None:
        """Take up what `save_with` wrote."""
        self._learner = CentresLearner(self, **values)
