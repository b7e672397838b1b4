"""The three overlapping problems on which convergence is stated, and rows drawn from them.

Two Gaussians are c-separated when ‖μ_i - μ_j‖ ≥ c √(D max(λ_max(Σ_i), λ_max(Σ_j)))
(Dasgupta 1999, "Learning mixtures of Gaussians"): below c = 1 they overlap. The means are packed
as densely as that allows, so that every component has near neighbours.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Problem:
    """A kind of mixture: features, components, separation, and rows that are asked for."""

    n_features: int
    n_components: int
    separation: float
    n_samples: int

    @property
    def name(self) -> str:
        """As tables print it."""
        return f"D{self.n_features} K{self.n_components} c={self.separation:g}"


PROBLEMS = (Problem(4, 8, 0.7, 60_000), Problem(6, 10, 0.6, 50_000), Problem(6, 12, 1.0, 50_000))


@dataclass(frozen=True)
class Truth:
    """The mixture that rows are drawn from: weights (K,), means (K, D), covariances (K, D, D)."""

    weights: Floats
    means: Floats
    covariances: Floats

    def draw(self, n: int, rng: np.random.Generator) -> Floats:
        """`n` rows (n, D), components in random order."""
        labels = rng.choice(len(self.weights), size=n, p=self.weights)
        roots = np.linalg.cholesky(self.covariances)
        rows = rng.standard_normal((n, self.means.shape[1]))
        for k, (mean, root) in enumerate(zip(self.means, roots, strict=True)):
            rows[labels == k] = rows[labels == k] @ root.T + mean
        return rows


def make_truth(problem: Problem, seed: int, *, eccentricity: float = 4.0) -> Truth:
    """Draw a mixture that is c-separated, and nowhere sparser than it must be.

    Standard deviations along random axes are uniform in [1, `eccentricity`]; weights are a
    draw from a Dirichlet distribution of parameter 4.
    """
    rng = np.random.default_rng([seed, problem.n_features, problem.n_components])
    k, d = problem.n_components, problem.n_features
    scale = rng.uniform(1.0, eccentricity, (k, d)) / eccentricity
    axes = np.linalg.qr(rng.standard_normal((k, d, d)))[0]
    covariances = np.einsum("kde,ke,kfe->kdf", axes, scale**2, axes)
    reach = problem.separation * np.sqrt(d) * scale.max(axis=1)
    return Truth(rng.dirichlet(np.full(k, 4.0)), _pack(reach, d, rng), covariances)


def _pack(reach: Floats, d: int, rng: np.random.Generator) -> Floats:
    """Means in a cube that grows only when a mean finds no place in it."""
    side = float(reach.min())
    means: list[Floats] = []
    while len(means) < len(reach):
        k = len(means)
        for _ in range(200):
            mean = rng.uniform(-side, side, d)
            apart = [
                np.linalg.norm(mean - m) - max(reach[k], reach[j]) for j, m in enumerate(means)
            ]
            if not apart or min(apart) >= 0:
                means.append(mean)
                break
        else:
            side *= 1.05
    return np.array(means)


def draw_problem(
    problem: Problem, seed: int, *, n_samples: int | None = None, n_held_out: int = 50_000
) -> tuple[Truth, Floats, Floats]:
    """The truth, rows to fit and rows held out."""
    truth = make_truth(problem, seed)
    rng = np.random.default_rng([seed, 1])
    rows = truth.draw(problem.n_samples if n_samples is None else n_samples, rng)
    return truth, rows, truth.draw(n_held_out, np.random.default_rng([seed, 2]))
