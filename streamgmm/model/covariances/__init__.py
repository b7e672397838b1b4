"""Shapes of a Gaussian's covariance: a file each, and one line in `COVARIANCES`."""

from streamgmm.model.covariances.base import Covariance, singular
from streamgmm.model.covariances.diag import Diag
from streamgmm.model.covariances.full import Full
from streamgmm.model.covariances.spherical import Spherical
from streamgmm.model.covariances.tied import Tied

COVARIANCES: dict[str, Covariance] = {c.name: c for c in (Full(), Tied(), Diag(), Spherical())}

__all__ = ["COVARIANCES", "Covariance", "Diag", "Full", "Spherical", "Tied", "singular"]
