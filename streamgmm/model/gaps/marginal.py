"""Gaussian components of some of the features, and moments completed by the others."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamgmm.model.gaps.moments import GapMoments
from streamgmm.model.moments import Floats, Moments

LOG_2PI_E = float(np.log(2 * np.pi) + 1)


@dataclass(frozen=True, eq=False)
class Marginal:
    """What Gaussian components are over the features `seen` (D,), and how the rest follows.

    `density` is that of the marginal mixture. Of a missing value given the observed ones, in
    component k: its mean is μ_m + `slope` (x_o - μ_o), its covariance `spread`, and `entropy`
    (K,) that of all of them, in nats. `slope` is (K, M, O) and `spread` (K, M, M), of one
    component where all share a covariance; variances alone where features are independent, and
    slopes None.
    """

    seen: NDArray[np.bool_]
    means: Floats
    density: Any
    slope: Floats | None
    spread: Floats
    entropy: Floats

    def complete(self, moments: Moments) -> GapMoments:
        """Moments of whole rows from those of what was observed of them.

        x̂_m is linear in x_o, so the mean and the scatter of x̂ are those of x_o, carried over.
        """
        seen, gone = self.seen, ~self.seen
        n, kind = moments.weight, moments.kind
        k, d = self.means.shape
        mean = np.empty((k, d))
        mean[:, seen] = moments.mean
        mean[:, gone] = self.means[:, gone]
        if self.slope is None:
            if kind == "spherical":
                scatter: Any = moments.scatter + n * self.spread.sum(axis=1)
            else:
                scatter = np.empty((k, d))
                scatter[:, seen] = moments.scatter
                scatter[:, gone] = n[:, None] * self.spread
        else:
            shift = moments.mean - self.means[:, seen]
            mean[:, gone] += np.matvec(self.slope, shift)
            shared = kind == "tied"
            observed = moments.scatter[None] if shared else moments.scatter
            across = self.slope @ observed
            within = across @ self.slope.transpose(0, 2, 1)
            mass = n.sum() if shared else n[:, None, None]
            within = 0.5 * (within + within.transpose(0, 2, 1)) + mass * self.spread
            each = np.arange(len(observed))
            scatter = np.empty((len(observed), d, d))
            scatter[np.ix_(each, seen, seen)] = observed
            scatter[np.ix_(each, gone, seen)] = across
            scatter[np.ix_(each, seen, gone)] = across.transpose(0, 2, 1)
            scatter[np.ix_(each, gone, gone)] = within
            scatter = scatter[0] if shared else scatter
        return GapMoments(kind, n, mean, scatter, n * self.entropy)


def marginal_of(density: Any, seen: NDArray[np.bool_]) -> Marginal:
    """The marginal of a `GaussianDensity` over the features `seen` (D,), at least one.

    With Σ = L Lᵀ, observed features first, Σ_mo Σ_oo⁻¹ = L_mo L_oo⁻¹ and the conditional
    covariance is L_mm L_mmᵀ. Raises DegenerateComponentError.
    """
    components = density.components
    covariance, covariances = components.covariance, components.covariances
    gone = ~seen
    n_gone = int(gone.sum())
    k = components.n_components
    slope: Floats | None = None
    if not covariance.matrices:
        spread = components.variances[:, gone]
        entropy = 0.5 * (n_gone * LOG_2PI_E + np.log(spread).sum(axis=1))
        part = covariances[:, seen] if covariances.ndim == 2 else covariances
    else:
        stacked = covariances[None] if covariance.shared else covariances
        order = np.concatenate([np.flatnonzero(seen), np.flatnonzero(gone)])
        lower = np.linalg.cholesky(stacked[:, order[:, None], order])
        n_seen = len(order) - n_gone
        inner, cross = lower[:, :n_seen, :n_seen], lower[:, n_seen:, :n_seen]
        slope = np.linalg.solve(inner.transpose(0, 2, 1), cross.transpose(0, 2, 1))
        slope = slope.transpose(0, 2, 1)
        rest = lower[:, n_seen:, n_seen:]
        spread = rest @ rest.transpose(0, 2, 1)
        logs = np.log(np.einsum("kdd->kd", rest)).sum(axis=1)
        entropy = np.broadcast_to(0.5 * n_gone * LOG_2PI_E + logs, (k,))
        part = stacked[:, seen][:, :, seen]
        part = part[0] if covariance.shared else part
    family = components.family.without_gaps
    marginal = family.of_parameters(components.means[:, seen], np.ascontiguousarray(part))
    return Marginal(
        seen, components.means, marginal.density(density.weights), slope, spread, entropy
    )
