"""Fitted models to scikit-learn's own, and back: the same parameters, the same attributes."""

from __future__ import annotations

import copy
import importlib
from typing import Any, ClassVar, Self

import numpy as np
from sklearn.utils.validation import check_is_fitted

from streamgmm.errors import ParameterError


class Exchanged:
    """An estimator that scikit-learn has too, whose fitted attributes mean the same there."""

    exchanged: ClassVar[tuple[str, ...]]
    """Where scikit-learn's are: a module and a class in it, the first of them what is given."""

    shared: ClassVar[tuple[str, ...]]
    """The attributes of both."""

    def to_sklearn(self) -> Any:
        """Give the same fitted model as scikit-learn's estimator: its predictions are equal.

        Returns
        -------
        sklearn.base.BaseEstimator
            With copies of the attributes. Parameters that scikit-learn has not are left out.

        Raises
        ------
        sklearn.exceptions.NotFittedError
            If there is no model yet.

        Examples
        --------
        >>> from streamgmm import StandardScaler
        >>> theirs = StandardScaler().fit([[0.0], [2.0]]).to_sklearn()
        >>> type(theirs).__module__.split(".")[0], theirs.transform([[4.0]]).item()
        ('sklearn', 3.0)
        """
        check_is_fitted(self)
        theirs = _class_of(self.exchanged[0])
        mine: Any = self
        model = theirs(**_common(mine.get_params(deep=False), theirs))
        _copy(mine, model, self.shared)
        self._complete(model)
        return model

    @classmethod
    def from_sklearn(cls, model: Any) -> Self:
        """Take up a model that scikit-learn has fitted: predictions are equal.

        Parameters
        ----------
        model : sklearn.base.BaseEstimator
            Fitted.

        Returns
        -------
        estimator
            With copies of the attributes. What a fit leaves here and not there (``history_``)
            is not there.

        Raises
        ------
        sklearn.exceptions.NotFittedError
            If it has not been fitted.
        ParameterError
            If it is another kind of estimator, or of sparse or missing parts; says what is taken.

        Examples
        --------
        >>> import sklearn.preprocessing
        >>> from streamgmm import StandardScaler
        >>> theirs = sklearn.preprocessing.StandardScaler().fit([[0.0], [2.0]])
        >>> StandardScaler.from_sklearn(theirs).transform([[4.0]]).item()
        3.0
        """
        taken = tuple(_class_of(name) for name in cls.exchanged)
        if type(model) not in taken:
            kind = type(model)
            names = " or ".join(each.__name__ for each in taken)
            raise ParameterError(
                f"{kind.__module__.partition('.')[0]}'s {kind.__name__} cannot be made a "
                f"streamgmm.{cls.__name__}; give scikit-learn's {names}"
            )
        check_is_fitted(model)
        found = cls(**_common(model.get_params(deep=False), cls))
        _copy(model, found, cls.shared)
        found._taken_from(model)
        return found

    def _complete(self, model: Any) -> None:
        """Set what else scikit-learn's estimator has."""

    def _taken_from(self, model: Any) -> None:
        """Set what else this one has."""


ALWAYS = ("n_features_in_", "feature_names_in_")


def _class_of(name: str) -> Any:
    module, _, kind = name.rpartition(".")
    return getattr(importlib.import_module(module), kind)


def _common(params: dict[str, Any], kind: Any) -> dict[str, Any]:
    """Those of some parameters that a class has too."""
    known = kind._get_param_names()
    return {name: copy.deepcopy(value) for name, value in params.items() if name in known}


def _copy(one: Any, other: Any, names: tuple[str, ...]) -> None:
    """Copy the attributes that are there; fitted numbers are float64 in either."""
    for name in (*names, *ALWAYS):
        if hasattr(one, name):
            value = copy.deepcopy(getattr(one, name))
            if isinstance(value, np.ndarray) and value.dtype == np.float32:
                value = value.astype(np.float64)
            setattr(other, name, value)
