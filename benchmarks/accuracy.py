"""Log-densities against extended precision, and the worst error over the stated bound.

``python -m benchmarks.accuracy --cases 10000`` (about ten minutes; ``--cases 300`` in a test).
A case is one row under one generated mixture: 1 to 200 features, condition numbers to 1e10,
features on scales a million apart, offsets to 1e8 standard deviations, components up to 1e6 of
their thinnest standard deviations apart, rows from typical to a hundred deviations away.
The oracle takes the same float64 parameters and rows as exact and works with 60 digits.
"""

from __future__ import annotations

from collections.abc import Iterator

import click
import mpmath
import numpy as np

from streamgmm.model.covariances.rounding import log_density_error
from streamgmm.model.mixture import Mixture

TYPES = ("full", "tied", "diag", "spherical")
ROWS = 20  # cases drawn of one mixture: factoring in extended precision is what takes time
DIGITS = 60


def covariance(
    rng: np.random.Generator, d: int, condition: float, scale: np.ndarray
) -> np.ndarray:
    """Random axes, eigenvalues spread over the condition number."""
    axes = np.linalg.qr(rng.normal(size=(d, d)))[0]
    values = condition ** -rng.random(d)
    values[rng.integers(d)] = 1.0
    if d > 1:
        values[values.argmin()] = 1.0 / condition
    matrix = scale[:, None] * (axes * values) @ axes.T * scale
    return 0.5 * (matrix + matrix.T)


def case(rng: np.random.Generator, most: int) -> tuple[Mixture, np.ndarray]:
    """A mixture and rows."""
    kind = TYPES[rng.choice(4, p=(0.5, 0.3, 0.1, 0.1))]
    d = int(np.exp(rng.uniform(0, np.log(most + 0.99))))
    k = int(rng.integers(1, 4))
    condition = 10.0 ** rng.uniform(0, 10)
    scale = 10.0 ** rng.uniform(-3, 3, size=d) if rng.random() < 0.5 else np.ones(d)
    full = np.stack([covariance(rng, d, condition, scale) for _ in range(k)])
    shapes = {
        "full": full,
        "tied": full[0],
        "diag": np.einsum("kdd->kd", full).copy(),
        "spherical": np.einsum("kdd->kd", full).mean(axis=1),
    }
    apart = 10.0 ** rng.uniform(0, 6)
    offset = 10.0 ** rng.uniform(0, 8)
    thin = scale / np.sqrt(condition) if rng.random() < 0.5 else scale
    means = offset * scale * rng.choice([-1, 1], size=d) + apart * thin * rng.normal(size=(k, d))
    mixture = Mixture.of(kind, rng.dirichlet(np.ones(k)), means, shapes[kind])
    expanded = mixture.components.full_covariances
    roots = np.linalg.cholesky(expanded)
    labels = rng.integers(k, size=ROWS)
    reach = rng.choice([1.0, 1.0, 5.0, 100.0], size=(ROWS, 1))
    noise = np.einsum("nij,nj->ni", roots[labels], rng.normal(size=(ROWS, d)))
    return mixture, means[labels] + reach * noise


def exactly(mixture: Mixture, X: np.ndarray) -> list[mpmath.mpf]:
    """Log-densities of rows in extended precision, from the parameters as they are."""
    k, d = mixture.components.means.shape
    full = mixture.components.full_covariances
    number = np.frompyfunc(mpmath.mpf, 1, 1)
    log_prob = []
    for j in range(k):
        matrix = number(full[j])
        gap = (number(X) - number(mixture.components.means[j])).T
        log_det, q = mpmath.mpf(0), 0
        for i in range(d):  # elimination of [Σ | gap], a row at a time
            pivot = matrix[i, i]
            log_det += mpmath.log(pivot)
            q = q + gap[i] * gap[i] / pivot
            below = np.nonzero(matrix[i + 1 :, i])[0] + i + 1
            if len(below):
                column = matrix[below, i] / pivot
                for row, factor in zip(below, column, strict=True):
                    matrix[row, i + 1 : row + 1] -= factor * matrix[i + 1 : row + 1, i]
                gap[below] -= column[:, None] * gap[i]
        base = mpmath.log(mpmath.mpf(float(mixture.weights[j])))
        base -= (d * mpmath.log(2 * mpmath.pi) + log_det) / 2
        log_prob.append(base - q / 2)
    tops = np.max(log_prob, axis=0)
    exp, log = np.frompyfunc(mpmath.exp, 1, 1), np.frompyfunc(mpmath.log, 1, 1)
    return list(tops + log(sum(exp(row - tops) for row in log_prob)))


def ratios(cases: int, seed: int, most: int) -> Iterator[tuple[Mixture, float, float]]:
    """For each mixture: the largest error in nats, and the largest error over its bound."""
    rng = np.random.default_rng(seed)
    with mpmath.workdps(DIGITS):
        for _ in range(-(-cases // ROWS)):
            mixture, X = case(rng, most)
            ours = mixture.posterior(X).log_density
            exact = exactly(mixture, X)
            error = np.array(
                [abs(float(mpmath.mpf(o) - e)) for o, e in zip(ours, exact, strict=True)]
            )
            bound = log_density_error(mixture.components.covariance, mixture.density, X)
            yield mixture, float(error.max()), float((error / bound).max())


@click.command(help=__doc__)
@click.option("--cases", default=10_000, show_default=True)
@click.option("--seed", default=0, show_default=True)
@click.option("--features", default=200, show_default=True, help="The most features.")
def main(cases: int, seed: int, features: int) -> None:
    worst = dict.fromkeys(TYPES, (0.0, 0.0))
    middle: list[float] = []
    for mixture, error, ratio in ratios(cases, seed, features):
        name = mixture.family.name
        worst[name] = max(worst[name][0], error), max(worst[name][1], ratio)
        middle.append(ratio)
    for name, (error, ratio) in worst.items():
        click.echo(f"{name:9s} largest error {error:.1e} nats, worst error over bound {ratio:.3f}")
    click.echo(f"median over mixtures of the worst error over bound {np.median(middle):.4f}")


if __name__ == "__main__":
    main()
