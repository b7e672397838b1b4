"""scikit-learn's face of the library: estimators for data of any size."""

from streamgmm.estimators.gaussian import GaussianMixture

__all__ = ["GaussianMixture"]
