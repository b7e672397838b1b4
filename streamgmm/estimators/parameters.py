"""The attributes of a mixture of any family, and the model that they are."""

from __future__ import annotations

from typing import Any

import numpy as np

from streamgmm.errors import ParameterError, StreamGMMError
from streamgmm.estimators.rows import missing_of
from streamgmm.estimators.uncertain import plain
from streamgmm.model.components import Family
from streamgmm.model.families.known import with_gaps
from streamgmm.model.mixture import Mixture
from streamgmm.model.moments import Floats


class MixtureAttributes:
    """``weights_, components_, family_``: what was fitted, set by hand, or learned so far.

    What a person sets there is what is used. While a model is learned batch by batch they are
    made when they are asked for.
    """

    learner_: Any
    statistics_: dict[str, Any]

    @property
    def weights_(self) -> Floats:
        """Weights (K,)."""
        weights: Floats = self._shown("weights_")
        return weights

    @weights_.setter
    def weights_(self, weights: Floats) -> None:
        self._put("weights_", weights)

    @property
    def components_(self) -> dict[str, Floats]:
        """Parameters of the components, by name."""
        arrays: dict[str, Floats] = self._shown("components_")
        return arrays

    @components_.setter
    def components_(self, arrays: dict[str, Floats]) -> None:
        self._put("components_", arrays)

    @property
    def family_(self) -> Family:
        """The family of the components."""
        family: Family = self._shown("family_")
        return family

    @family_.setter
    def family_(self, family: Family) -> None:
        self._put("family_", family)

    def _family(self) -> Family:
        """The family that was asked for."""
        raise NotImplementedError

    def _learning_settings(self, n_features: int) -> Any:
        """Settings of the learner."""
        raise NotImplementedError

    def _shown(self, name: str) -> Any:
        """An attribute; raises AttributeError where there is none yet."""
        values = vars(self)
        if "learner_" in values:
            try:
                values = _values_of(self._mixture())
            except StreamGMMError as error:  # hasattr(), dir() and tab completion ask in vain
                raise AttributeError(str(error)) from error
        if name not in values:
            raise AttributeError(f"'{type(self).__name__}' object has no attribute '{name}'")
        return values[name]

    def _put(self, name: str, value: Any) -> None:
        """Set an attribute by hand, and forget the rows that were learned or summed before."""
        if "learner_" in vars(self):
            self._set_parameters(self._mixture())
        self.__dict__.pop("statistics_", None)
        self.__dict__[name] = value

    def _set_parameters(self, mixture: Mixture) -> None:
        """Set the attributes: weights, and the parameters of the components by name."""
        self.__dict__.pop("learner_", None)
        self.__dict__.update(_values_of(mixture))

    def _mixture(self) -> Mixture:
        """The model as it is now; raises ParameterError where the attributes do not fit."""
        if "learner_" in vars(self):
            learner = self.learner_
            learner.adopt(self._learning_settings(learner.n_features))
            return plain(learner.mixture())
        family = vars(self).get("family_") or self._family()
        family = with_gaps(family, missing_of(self) == "marginalize")
        weights = np.ascontiguousarray(self.weights_, dtype=np.float64)
        arrays = {
            name: np.ascontiguousarray(values, dtype=np.float64)
            for name, values in self.components_.items()
        }
        try:
            components = family.components(**arrays)
            shapes = dict(family.parameter_shapes(len(weights), components.n_features))
        except (TypeError, IndexError) as error:
            raise ParameterError(
                f"components_ has {', '.join(arrays)}, which are no {family.name} components "
                f"({error})"
            ) from error
        found = {name: values.shape for name, values in arrays.items()}
        if found != shapes or weights.ndim != 1:
            raise ParameterError(
                f"components_ has the shapes {found}, but {weights.size} {family.name} components "
                f"of {components.n_features} features have {shapes}"
            )
        return Mixture(weights, components)


def _values_of(mixture: Mixture) -> dict[str, Any]:
    """The attributes that a model is."""
    return {
        "weights_": mixture.weights,
        "components_": dict(mixture.components.arrays()),
        "family_": mixture.family,
    }
