"""scikit-learn's face of the library: estimators for data of any size."""

from streamgmm.estimators.gaussian import GaussianMixture
from streamgmm.estimators.mixture import MixtureModel
from streamgmm.estimators.selection import Selection, select

__all__ = ["GaussianMixture", "MixtureModel", "Selection", "select"]
