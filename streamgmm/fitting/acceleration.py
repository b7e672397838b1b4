"""Anderson acceleration of EM in the space of its sufficient statistics.

EM maps statistics to statistics, s → E(M(s)), and converges linearly at a rate that overlap
between components brings close to one. Anderson's method (1965; Walker & Ni 2011) looks for
the combination of the last few images whose combined residual is smallest. Residuals are
measured in the Fisher information of the latest mixture, so neither the units of the features
nor the parametrisation matters; statistics of exponential families may be combined linearly.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import reduce

import numpy as np

from streamgmm.model.mixture import Mixture, Statistics
from streamgmm.model.moments import Floats

MEMORY = 5
_RIDGE = 1e-12  # relative: below it directions of the residuals count as dependent


def embed(reference: Mixture, statistics: Statistics) -> Floats | None:
    """Parameters that statistics stand for, as coordinates in the reference's Fisher metric.

    √π_k times π/π_k, and the components' own. None where the family has none.
    """
    own = reference.density.coordinates(statistics.components)
    if own is None:
        return None
    weight = statistics.components.weight
    root = np.sqrt(reference.weights)
    share = weight / weight.sum() / np.maximum(root, 1e-150)
    return np.concatenate([share, own])


def coefficients(inputs: Sequence[Floats], outputs: Sequence[Floats]) -> Floats:
    """Weights that sum to one and make the combined residual smallest, latest last.

    >>> x = [np.array([1.0]), np.array([0.5])]
    >>> a = coefficients(x, [v / 2 for v in x])
    >>> bool(np.isclose(a @ np.array([0.5, 0.25]), 0.0))
    True
    """
    residuals = np.array([g - s for s, g in zip(inputs, outputs, strict=True)])
    differences = (residuals[-1] - residuals[:-1]).T
    scale = np.linalg.norm(differences, axis=0)
    scale[scale == 0] = 1.0
    scaled = differences / scale
    gram = scaled.T @ scaled
    gram += _RIDGE * np.eye(len(gram))
    gamma = np.linalg.solve(gram, scaled.T @ residuals[-1]) / scale
    return np.append(gamma, 1 - gamma.sum())


def combine(statistics: Sequence[Statistics], alphas: Floats) -> Statistics | None:
    """Σ_i α_i s_i, where Σ α = 1; None where that is no set of statistics."""
    last = statistics[-1]
    components = last.components.combine([s.components for s in statistics], alphas)
    if components is None:
        return None
    entropy = sum(a * s.entropy for a, s in zip(alphas, statistics, strict=True))
    return Statistics(last.n_rows, last.weight, last.log_likelihood, float(entropy), components)


def merge_groups(groups: Sequence[Statistics]) -> Statistics:
    """All groups' statistics, merged in order."""
    return reduce(Statistics.merge, groups)


@dataclass
class AndersonHistory:
    """The last sweeps, and the safe state to return to from a jump.

    `inputs` and `outputs` are the statistics of all groups before and after each sweep. After
    each jump that led down, twice as many sweeps as before pass until the next: a jump makes for
    the nearest fixed point, and a climb that leaves a saddle has one behind it.
    """

    inputs: list[list[Statistics]] = field(default_factory=list)
    outputs: list[list[Statistics]] = field(default_factory=list)
    safe: tuple[Mixture, list[Statistics]] | None = None
    jumped: bool = False
    failures: int = 0
    rested: int = 0

    def forget(self) -> None:
        """Begin afresh."""
        self.inputs, self.outputs, self.safe, self.jumped = [], [], None, False

    def restore(self) -> tuple[Mixture, list[Statistics]]:
        """Give what was reached before the last jump, and forget how."""
        assert self.safe is not None
        mixture, groups = self.safe
        self.forget()
        self.failures += 1
        self.rested = 0
        return mixture, list(groups)

    def propose(
        self,
        mixture: Mixture,
        before: list[Statistics],
        after: list[Statistics],
        energies: Sequence[float],
    ) -> list[Statistics] | None:
        """Groups' statistics ahead of `after`, or None; `energies` are F of the last sweeps."""
        if self.jumped:
            self.failures = 0
        self.safe, self.jumped = None, False
        self.rested += 1
        if not before or not np.all(mixture.weights > 0):
            return None
        self.inputs = [*self.inputs, before][-MEMORY - 1 :]
        self.outputs = [*self.outputs, list(after)][-MEMORY - 1 :]
        if len(self.inputs) < 2 or not _steady(energies) or self.rested < 2**self.failures:
            return None
        every = [*self.inputs, *self.outputs]
        points = [p for groups in every if (p := embed(mixture, merge_groups(groups))) is not None]
        if len(points) < len(every):
            return None
        alphas = coefficients(points[: len(self.inputs)], points[len(self.inputs) :])
        if not np.all(np.isfinite(alphas)):
            return None
        jumped = [combine(each, alphas) for each in zip(*self.outputs, strict=True)]
        if any(statistics is None for statistics in jumped):
            return None
        self.safe = mixture, list(after)
        self.jumped = True
        return [statistics for statistics in jumped if statistics is not None]


def _steady(energies: Sequence[float]) -> bool:
    """Whether gains shrink, slowly enough for a jump to pay, and regularly."""
    gains = np.diff(energies)
    if len(gains) < 2 or np.any(gains <= 0):
        return False
    ratios = gains[1:] / gains[:-1]
    return bool(np.all(ratios > 0.3) & np.all(ratios < 1.0))
