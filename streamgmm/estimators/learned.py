"""What `OnlineGaussianMixture` shows of what it has learned, and where it keeps it."""

from __future__ import annotations

import os
from typing import Any

from sklearn.base import BaseEstimator, DensityMixin

from streamgmm.errors import StreamGMMError
from streamgmm.estimators.attributes import squared
from streamgmm.estimators.fitted import FittedMixture
from streamgmm.estimators.gaussian import GaussianMixture
from streamgmm.estimators.learning import LearningMixture
from streamgmm.estimators.rows import missing_of
from streamgmm.estimators.uncertain import plain
from streamgmm.model.families.gaussian import Gaussian, gaussians
from streamgmm.model.mixture import Mixture
from streamgmm.model.moments import Floats
from streamgmm.places import Place, ZarrStore


class LearnedMixture(LearningMixture, FittedMixture, DensityMixin, BaseEstimator):
    """An estimator whose model is a `Learner`, in ``learner_`` once rows have been seen."""

    covariance_type: str
    reg_covar: float

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

    def _known_mixture(self) -> Mixture:
        """The model, for an attribute; raises AttributeError where there is none."""
        try:
            return self._mixture()
        except StreamGMMError as error:  # hasattr(), dir() and tab completion ask in vain
            raise AttributeError(str(error)) from error

    def _mixture(self) -> Mixture:
        """The model as it is now, made when it is first asked for."""
        learner = self._known()
        learner.adopt(self._learning_settings(learner.n_features))
        return plain(learner.mixture())

    def to_mixture(self) -> GaussianMixture:
        """Give the model as it is now as a `GaussianMixture`, of its own."""
        learner, mixture = self._known(), self._mixture()
        model = GaussianMixture(
            mixture.n_components,
            covariance_type=self.covariance_type,
            reg_covar=self.reg_covar,
            random_state=self.random_state,
            missing=missing_of(self),
        )
        model._set_parameters(mixture)
        model.n_features_in_ = mixture.n_features
        model.converged_, model.n_iter_ = True, 0
        model.lower_bound_, model.lower_bounds_ = learner.level, [learner.level]
        return model

    def save(
        self,
        path: str | os.PathLike[str] | ZarrStore,
        overwrite: bool = False,
        storage_options: dict[str, Any] | None = None,
    ) -> None:
        """Save the whole state as a Zarr group, without pickle, in one atomic step.

        `streamgmm.load` reads it back; learning then goes on as if it had never stopped.

        Raises
        ------
        sklearn.exceptions.NotFittedError
            If nothing has been learned.
        OutputExistsError, OutputError, ParameterError
            As `GaussianMixture.save`; ParameterError also if `step_size` is a function.
        """
        self.save_with(Place.parse(path, storage_options), {}, overwrite)

    def _family(self) -> Gaussian:
        gaps = missing_of(self) == "marginalize"
        return Gaussian(self.covariance_type, float(self.reg_covar), gaps)
