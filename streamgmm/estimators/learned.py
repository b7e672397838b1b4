"""What `OnlineGaussianMixture` shows of what it has learned, and where it keeps it."""

from __future__ import annotations

import os
from functools import cache
from typing import Any

from sklearn.base import BaseEstimator, DensityMixin
from sklearn.exceptions import NotFittedError

from streamgmm.errors import StreamGMMError
from streamgmm.estimators.attributes import squared
from streamgmm.estimators.fitted import FittedMixture
from streamgmm.estimators.gaussian import GaussianMixture
from streamgmm.model.families.gaussian import gaussians
from streamgmm.model.mixture import Mixture
from streamgmm.model.moments import Floats
from streamgmm.online.learner import Learner
from streamgmm.online.settings import OnlineSettings, parse_settings
from streamgmm.online.values import from_values, to_values
from streamgmm.places import Place
from streamgmm.storage import Packed, save_model


class LearnedMixture(FittedMixture, DensityMixin, BaseEstimator):
    """An estimator whose model is a `Learner`, in ``learner_`` once rows have been seen."""

    covariance_type: str
    learner_: Learner
    n_features_in_: int
    reg_covar: float

    @property
    def n_samples_seen_(self) -> int:
        """Rows learned, held out, or waiting to be learned."""
        return self._known().n_rows

    @property
    def monitor_(self) -> dict[str, Any]:
        """What was noticed, batch by batch."""
        return self._known().table()

    def __sklearn_is_fitted__(self) -> bool:
        """Whether there are rows; whether they are enough for a model shows when it is used."""
        return self._started()

    @property
    def weights_(self) -> Floats:
        """Weights (K,)."""
        return self._known_mixture().weights

    @property
    def means_(self) -> Floats:
        """Means (K, D)."""
        return gaussians(self._known_mixture().components).means

    @property
    def covariances_(self) -> Floats:
        """Covariances, of the shape of the covariance type."""
        return gaussians(self._known_mixture().components).covariances

    @property
    def precisions_cholesky_(self) -> Floats:
        """Cholesky factors of the precisions."""
        return gaussians(self._known_mixture().components).precisions_cholesky

    @property
    def precisions_(self) -> Floats:
        """Precisions, of the shape of the covariance type."""
        return squared(self.covariance_type, self.precisions_cholesky_)

    def begin(self, n_features: int) -> Learner:
        """Forget all, and give the learner of rows of so many features, for whoever teaches it."""
        settings = self._settings(n_features)
        self.learner_, self.n_features_in_ = Learner(settings, n_features), n_features
        return self.learner_

    def _known_mixture(self) -> Mixture:
        """The model, for an attribute; raises AttributeError where there is none."""
        try:
            return self._mixture()
        except StreamGMMError as error:  # hasattr(), dir() and tab completion ask in vain
            raise AttributeError(str(error)) from error

    def _mixture(self) -> Mixture:
        """The model as it is now, made when it is first asked for."""
        learner = self._known()
        learner.settings = self._settings(learner.n_features)
        return learner.mixture()

    def _started(self) -> bool:
        return "learner_" in vars(self)

    def _known(self) -> Learner:
        """What is known; raises NotFittedError before any rows have been seen."""
        if not self._started():
            raise NotFittedError(
                f"This {type(self).__name__} has not seen any rows yet; call 'partial_fit' or "
                "'fit' first."
            )
        return self.learner_

    def to_mixture(self) -> GaussianMixture:
        """Give the model as it is now as a `GaussianMixture`, of its own."""
        learner, mixture = self._known(), self._mixture()
        model = GaussianMixture(
            mixture.n_components,
            covariance_type=self.covariance_type,
            reg_covar=self.reg_covar,
            random_state=self.random_state,
        )
        model._set_parameters(mixture)
        model.n_features_in_ = mixture.n_features
        model.converged_, model.n_iter_ = True, 0
        model.lower_bound_, model.lower_bounds_ = learner.level, [learner.level]
        return model

    def save(self, path: str | os.PathLike[str], overwrite: bool = False) -> None:
        """Save the whole state as a Zarr group, without pickle, in one atomic step.

        `streamgmm.load` reads it back; learning then goes on as if it had never stopped.

        Raises
        ------
        sklearn.exceptions.NotFittedError
            If nothing has been learned.
        OutputExistsError, OutputError, ParameterError
            As `GaussianMixture.save`; ParameterError also if `step_size` is a function.
        """
        self.save_with(path, {}, overwrite)

    def save_with(
        self, path: str | os.PathLike[str] | Place, more: dict[str, Any], overwrite: bool = False
    ) -> None:
        """As `save`, with more values in the same atomic step."""
        fitted: dict[str, Any] = {
            "n_features_in_": self._known().n_features,
            "online_": Packed(to_values(self._known())),
        } | more
        params = self.get_params(deep=False)
        save_model(path, type(self).__name__, params, {}, fitted, overwrite)

    def _settings(self, n_features: int) -> OnlineSettings:
        """Parse what the constructor was given; again only when a parameter is another."""
        kind: Any = type(self)
        key = (n_features, *(vars(self)[name] for name in _parameters(kind)))
        held: tuple[Any, OnlineSettings] | None = vars(self).get("_parsed")
        if held is None or held[0] != key:
            self._validate_params()
            settings = parse_settings(self.get_params(deep=False), n_features)
            held = self._parsed = (key, settings)
        return held[1]

    def _restore(self, values: dict[str, Any]) -> None:
        """Take up what `save` wrote."""
        self.learner_ = from_values(values, self._settings(self.n_features_in_))


@cache
def _parameters(kind: Any) -> tuple[str, ...]:
    """Names of the parameters of the constructor."""
    return tuple(kind._get_param_names())
