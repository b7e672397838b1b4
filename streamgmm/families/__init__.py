"""Component families: how the covariance of a component is shaped.

A new family is one file and one line in `FAMILIES`.
"""

from streamgmm.families.base import BlockSums, Family, Posterior, singular
from streamgmm.families.diag import Diag
from streamgmm.families.full import Full
from streamgmm.families.spherical import Spherical
from streamgmm.families.tied import Tied

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
