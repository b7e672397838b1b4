"""Moments that were completed, and the entropy of the values that completed them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from streamgmm.model.moments import Floats, Moments


@dataclass(frozen=True, eq=False)
class GapMoments(Moments):
    """Moments of rows whose gaps were filled: expected ones, under q(missing | observed).

    `gap_entropy` (K,) is Σ r H(missing | observed, k) in nats. It is the part of F that the
    missing values have, as latent variables, beside their share of the moments.

    >>> a = GapMoments("diag", np.ones(1), np.zeros((1, 1)), np.zeros((1, 1)), np.ones(1))
    >>> a.merge(a).gap_entropy
    array([2.])
    """

    gap_entropy: Floats

    def merge(self, other: Moments) -> GapMoments:
        """Of both sets of rows."""
        return complete_moments(super().merge(other), self.gap_entropy + entropy_of(other))

    def scale(self, factor: float) -> GapMoments:
        """The same rows with every weight multiplied by `factor`."""
        return complete_moments(super().scale(factor), self.gap_entropy * factor)

    def combine(self, parts: Sequence[Moments], alphas: Floats) -> GapMoments | None:
        """Σ_i α_i parts_i as sums about this one's means; None where that is no set of moments."""
        total = super().combine(parts, alphas)
        if total is None:
            return None
        entropy = np.sum([a * entropy_of(p) for a, p in zip(alphas, parts, strict=True)], axis=0)
        return complete_moments(total, entropy)

    def arrays(self) -> dict[str, Floats]:
        """What is stored."""
        return {**super().arrays(), "gap_entropy": self.gap_entropy}


def complete_moments(moments: Moments, gap_entropy: Floats) -> GapMoments:
    """The same moments with an entropy of the missing values (K,)."""
    return GapMoments(
        moments.kind, moments.weight, moments.mean, moments.scatter, np.asarray(gap_entropy)
    )


def entropy_of(moments: Moments) -> Floats:
    """The entropy of the missing values (K,); zero of moments that were not completed."""
    if isinstance(moments, GapMoments):
        return moments.gap_entropy
    return np.zeros_like(moments.weight)


def together(each: Sequence[Any], shared: bool) -> GapMoments:
    """Moments of several components from those of each; scatters are summed where `shared`."""
    weight, mean, scatter, entropy = (
        [m.arrays()[name] for m in each] for name in ("weight", "mean", "scatter", "gap_entropy")
    )
    whole = np.sum(scatter, axis=0) if shared else np.concatenate(scatter)
    kind = each[0].kind
    return GapMoments(
        kind, np.concatenate(weight), np.concatenate(mean), whole, np.concatenate(entropy)
    )
