"""Component families: how the covariance of a component is shaped.

A new family is one file and one line in `FAMILIES`.
"""

from streamgmm.model.families.base import BlockSums, Family, Posterior, singular
from streamgmm.model.families.diag import Diag
from streamgmm.model.families.full import Full
from streamgmm.model.families.spherical import Spherical
from streamgmm.model.families.tied import Tied

FAMILIES: dict[str, Family] = {f.name: f for f in (Full(), Tied(), Diag(), Spherical())}

__all__ = [
    "FAMILIES",
    "BlockSums",
    "Diag",
    "Family",
    "Full",
    "Posterior",
    "Spherical",
    "Tied",
    "singular",
]
