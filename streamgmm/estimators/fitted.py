"""What every fitted mixture offers: what it says of rows, scores, samples."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from streamgmm.errors import ParameterError
from streamgmm.estimators.imputing import ImputingMixture
from streamgmm.estimators.reporting import Reporting
from streamgmm.model.moments import Floats


class FittedMixture(ImputingMixture, Reporting):
    """An estimator whose model is what `_mixture` gives, of whatever family."""

    random_state: Any

    def sample(self, n_samples: int = 1) -> tuple[Floats, NDArray[np.int64]]:
        """Draw rows from the model, as scikit-learn draws them from the same random state.

        Parameters
        ----------
        n_samples : int, default=1

        Returns
        -------
        X : ndarray of shape (n_samples, n_features)
        y : ndarray of shape (n_samples,)
            The component that made each row.

        Raises
        ------
        sklearn.exceptions.NotFittedError
            If there is no model yet.
        ParameterError
            If `n_samples` is less than one.

        Examples
        --------
        >>> from streamgmm import GaussianMixture
        >>> X, y = GaussianMixture(random_state=0).fit([[-1.0], [1.0]]).sample(3)
        >>> X.shape, y.tolist()
        ((3, 1), [0, 0, 0])
        """
        check_is_fitted(self)
        if n_samples < 1:
            raise ParameterError(
                f"Invalid value for 'n_samples': {n_samples} . The sampling requires at least "
                "one sample."
            )
        mixture = self._mixture()
        return mixture.sample(n_samples, check_random_state(self.random_state))

    def condition(self, features: Any) -> Any:
        """The mixture of the other features given some: regression by a mixture.

        Parameters
        ----------
        features : int, str, or sequence of them
            The features that will be given, in the order in which X will have them: numbers, or
            names where the model was fitted to rows with names.

        Returns
        -------
        streamgmm.estimators.conditioning.ConditionedMixture
            With ``predict(X)``, the conditional mean and its spread, ``score_samples(X, Y)`` and
            ``sample(X)``.

        Raises
        ------
        sklearn.exceptions.NotFittedError
            If there is no model yet.
        ParameterError
            If there is no such feature, none or all are given, or the components are not
            Gaussians, nor a Product whose features that are told of are.

        Examples
        --------
        >>> from streamgmm import GaussianMixture
        >>> model = GaussianMixture().fit([[0.0, 0.0], [1.0, 2.0], [2.0, 4.0]])
        >>> model.condition([0]).predict([[3.0]]).round(2).tolist()
        [[6.0]]
        """
        from streamgmm.estimators.conditioning import ConditionedMixture, parse_features
        from streamgmm.model.conditional import condition

        check_is_fitted(self)
        mixture = self._mixture()
        names = getattr(self, "feature_names_in_", None)
        given = parse_features(features, names, mixture.n_features)
        return ConditionedMixture(condition(mixture, given), self)
