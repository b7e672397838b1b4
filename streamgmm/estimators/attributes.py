"""The attributes that scikit-learn gives a Gaussian mixture, and the model that they are."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from sklearn.utils.validation import check_is_fitted

from streamgmm.errors import ParameterError
from streamgmm.model.covariances import COVARIANCES
from streamgmm.model.families.factor import FactorAnalyzer, FactorComponents
from streamgmm.model.families.gaussian import Gaussian, GaussianComponents, gaussians
from streamgmm.model.mixture import Mixture
from streamgmm.model.moments import Floats

MANY = 200  # components, from which ``truncation="auto"`` has rows look at `AUTO_SETS` of them
AUTO_SETS = 8

FACTORS = {"factor": "diag", "ppca": "isotropic"}
"""Types of covariances that have factors, and the noise beside these."""


class GaussianAttributes:
    """``weights_, means_, covariances_, precisions_cholesky_`` as the model.

    What a person sets there is what is used.
    """

    covariance_type: str
    n_factors: int | None
    reg_covar: float
    weights_: Floats
    means_: Floats
    covariances_: Floats
    precisions_: Floats
    precisions_cholesky_: Floats

    def get_covariance(self) -> Floats:
        """Covariances of all components (K, D, D), whatever their type.

        For ``"factor"`` and ``"ppca"``, Λ Λᵀ + Ψ: as scikit-learn's `FactorAnalysis` has it.

        Raises
        ------
        sklearn.exceptions.NotFittedError
            If there is no model yet.
        """
        check_is_fitted(self)
        components = self._mixture().components
        if isinstance(components, FactorComponents):
            return components.covariances
        return gaussians(components).full_covariances

    def _mixture(self) -> Mixture:
        """The model that the attributes are; raises ParameterError where they do not fit."""
        if self.covariance_type in FACTORS:
            return self._factors()
        family = self._gaussian()
        covariance = family.covariance
        means = np.ascontiguousarray(self.means_, dtype=np.float64)
        weights = np.ascontiguousarray(self.weights_, dtype=np.float64)
        chol = np.ascontiguousarray(self.precisions_cholesky_, dtype=np.float64)
        if means.ndim != 2 or weights.shape != means.shape[:1]:
            raise ParameterError(
                f"weights_ has shape {weights.shape} but means_ {means.shape}; give one weight a "
                "component, and a row of means for each"
            )
        shape = covariance.covariance_shape(*means.shape)
        if chol.shape != shape:
            raise ParameterError(
                f"precisions_cholesky_ has shape {chol.shape}; {family.name} covariances of "
                f"{means.shape[0]} components and {means.shape[1]} features have {shape}"
            )
        covariances: Any = getattr(self, "covariances_", None)
        if covariances is None or np.shape(covariances) != shape:
            precisions = squared(self.covariance_type, chol)
            matrices = covariance.matrices
            covariances = np.linalg.inv(precisions) if matrices else 1.0 / precisions
        covariances = np.ascontiguousarray(covariances, dtype=np.float64)
        return Mixture(weights, GaussianComponents(family, means, covariances, chol))

    def _gaussian(self) -> Gaussian:
        """The family."""
        gaps = getattr(self, "missing", "raise") == "marginalize"
        few = parse_truncation(getattr(self, "truncation", None), self)
        return Gaussian(self.covariance_type, float(self.reg_covar), gaps, few)

    def _analyzer(self) -> FactorAnalyzer:
        """The family, where it has factors."""
        few = parse_truncation(getattr(self, "truncation", None), self)
        found = factor_family(self.covariance_type, self.n_factors, self.reg_covar)
        return replace(found, truncation=few)

    def _set_parameters(self, mixture: Mixture) -> None:
        """Set the attributes: weights, means, covariances and Cholesky factors of precisions."""
        if isinstance(mixture.components, FactorComponents):
            self.weights_ = mixture.weights
            for name, value in mixture.components.arrays().items():
                setattr(self, f"{name}_", value)
            return
        components = gaussians(mixture.components)
        self.weights_, self.means_ = mixture.weights, components.means
        self.covariances_ = components.covariances
        self.precisions_cholesky_ = components.precisions_cholesky
        self.precisions_ = squared(self.covariance_type, self.precisions_cholesky_)

    def _factors(self) -> Mixture:
        """The model of factor analysers that the attributes are; raises ParameterError."""
        family = self._analyzer()
        weights = np.ascontiguousarray(self.weights_, dtype=np.float64)
        shapes = family.parameter_shapes(*np.shape(self.means_))
        arrays = {}
        for name, shape in shapes.items():
            arrays[name] = np.ascontiguousarray(getattr(self, f"{name}_"), dtype=np.float64)
            if arrays[name].shape != shape or weights.shape != shape[:1]:
                raise ParameterError(
                    f"{name}_ has shape {arrays[name].shape}, and weights_ {weights.shape}; "
                    f"{shape} and {shape[:1]} fit n_factors={family.n_factors}"
                )
        return Mixture(weights, family.components(**arrays))


def parse_truncation(truncation: Any, estimator: Any) -> int | None:
    """How many components a row looks at; None where that is all; raises ParameterError."""
    k = int(estimator.n_components)
    if truncation is None or truncation == "auto":
        return AUTO_SETS if truncation == "auto" and k >= MANY else None
    if truncation > k:
        raise ParameterError(
            f"truncation={truncation} is more than n_components={k}; pass None, and each row "
            "looks at all components"
        )
    return int(truncation)


def factor_family(covariance_type: str, n_factors: Any, reg_covar: float) -> FactorAnalyzer:
    """The family of factor analysers that an estimator's parameters ask for."""
    if n_factors is None:
        raise ParameterError(f"covariance_type='{covariance_type}' needs n_factors: how many")
    return FactorAnalyzer(int(n_factors), FACTORS[covariance_type], float(reg_covar))


def squared(covariance_type: str, chol: Floats) -> Floats:
    """Precisions A Aᵀ from their Cholesky factors."""
    if COVARIANCES[covariance_type].matrices:
        return np.asarray(chol @ np.swapaxes(chol, -1, -2))
    return np.asarray(chol**2)
