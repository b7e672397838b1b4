"""Moments of truncated E-steps, and what a sample of their rows says of all components."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from streamgmm.model.moments import Floats, Moments

N_SAMPLED = 5


@dataclass(frozen=True, eq=False)
class TruncatedMoments(Moments):
    """Moments of rows under q over their sets.

    `sampled` (5,) are sums over some rows that were compared with all components: how many, Σ w,
    Σ w KL, Σ w KL² in nats, and Σ w of those whose likeliest component is in both the same.

    >>> a = TruncatedMoments(
    ...     "diag", np.ones(1), np.zeros((1, 1)), np.zeros((1, 1)), np.array([2, 2, 0.5, 0.2, 1])
    ... )
    >>> a.merge(a).sampled
    array([4. , 4. , 1. , 0.4, 2. ])
    """

    sampled: Floats

    def merge(self, other: Moments) -> TruncatedMoments:
        """Of both sets of rows."""
        return with_sample(super().merge(other), self.sampled + sampled_of(other))

    def scale(self, factor: float) -> TruncatedMoments:
        """The same rows with every weight multiplied by `factor`."""
        return with_sample(super().scale(factor), self.sampled * factor)

    def combine(self, parts: Sequence[Moments], alphas: Floats) -> TruncatedMoments | None:
        """Σ_i α_i parts_i as sums about this one's means; None where that is no set of moments."""
        total = super().combine(parts, alphas)
        if total is None:
            return None
        sampled = np.sum([a * sampled_of(p) for a, p in zip(alphas, parts, strict=True)], axis=0)
        return with_sample(total, sampled)

    def arrays(self) -> dict[str, Floats]:
        """What is stored."""
        return {**super().arrays(), "sampled": self.sampled}


def with_sample(moments: Moments, sampled: Floats) -> TruncatedMoments:
    """The same moments with what a sample of the rows says."""
    return TruncatedMoments(
        moments.kind, moments.weight, moments.mean, moments.scatter, np.asarray(sampled)
    )


def sampled_of(moments: Any) -> Floats:
    """What a sample of the rows says; zeros where none was looked at."""
    sampled: Floats | None = getattr(moments, "sampled", None)
    return np.zeros(N_SAMPLED) if sampled is None else sampled
