"""Centres to the machinery of prediction: labels, distances, and the inertia."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import cdist

from streamgmm.model.components import NO_WEIGHT, Posterior
from streamgmm.model.families import Centroids
from streamgmm.model.families.centroids import CentroidComponents
from streamgmm.model.families.nearest import Table
from streamgmm.model.mixture import Mixture
from streamgmm.model.moments import Floats


@dataclass(frozen=True, eq=False)
class NearestCentres(Mixture):
    """A mixture that says of rows where their nearest centres are.

    In the place of the log-density of a row stands -|x - c|², c the nearest centre, so that a
    sum over rows is minus the inertia; in the place of responsibilities stand distances.

    >>> found = NearestCentres.at(np.array([[0.0], [9.0]])).posterior(np.ones((1, 1)), resp=True)
    >>> found.log_density, found.resp
    (array([-1.]), array([[1., 8.]]))
    """

    offers = ("labels", "distances", "log_density")

    @classmethod
    def at(cls, centres: Floats) -> NearestCentres:
        """The centres (K, D)."""
        components = CentroidComponents(Centroids(), centres, np.full(1, 0.5))
        return cls(np.full(len(centres), 1 / len(centres)), components)

    @cached_property
    def table(self) -> Table:
        """The centres as the kernels take them."""
        return Table.of(self.components.arrays()["means"])

    def posterior(self, X: NDArray[Any], *, labels: bool = False, resp: bool = False) -> Posterior:
        """Minus squared distances (n,), labels (n,), and distances (n, K), which are not squared.

        Of the nearest centres, ties to the lowest; by Σ (x - c)² in float64.
        """
        found, _ = self.table.assign(X, NO_WEIGHT)
        distances = np.empty((0, self.n_components))
        if resp:
            distances = np.asarray(cdist(X, self.table.centres), np.float64)
        return Posterior(-self.table.squares(X, found), found, distances)

    def __getstate__(self) -> dict[str, Any]:
        """What is sent to others: not the table."""
        return {name: value for name, value in self.__dict__.items() if name != "table"}
