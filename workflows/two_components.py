"""The two-component mixture that EM is taught with, on Old Faithful's waiting times.

    python workflows/two_components.py [FOLDER]

The geyser makes one wait about 55 minutes after a short eruption, and about 80 after a long one.
Which kind it was is not in the data: a latent variable z, Bernoulli with parameter π. Given z the
waiting time is Gaussian:

    p(x) = (1 - π) N(x | μ₀, σ₀²) + π N(x | μ₁, σ₁²)

The job fits it, prints π and what goes with it, and draws two pictures: both densities, their sum,
the responsibility r(x) = p(z = 1 | x) as a curve, and the boundary where it is one half; and the
staircase that EM climbs, half-step by half-step. What they mean is in docs/em.md.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from streamgmm import GaussianMixture, trace_bound
from streamgmm.report import save_staircase

DATA = Path(__file__).with_name("old_faithful.txt")


def boundaries(model):
    """Where both components are as likely as each other: roots of a quadratic, ascending.

    log π₁ N₁(x) - log π₀ N₀(x) = a x² + b x + c; none, one or two are real.
    """
    pi, mean, variance = (np.ravel(a) for a in (model.weights_, model.means_, model.covariances_))
    a = -1 / (2 * variance)
    b = mean / variance
    c = np.log(pi) - mean**2 / (2 * variance) - np.log(variance) / 2
    roots = np.roots(np.trim_zeros([each[1] - each[0] for each in (a, b, c)], "f"))
    return np.sort(roots.real[np.abs(roots.imag) < 1e-9])


def densities(model, x):
    """π_k N(x | μ_k, σ_k²) of points (n,): (n, 2), which sum to the density."""
    rows = x[:, None]
    return np.exp(model.score_samples(rows))[:, None] * model.predict_proba(rows)


def save_picture(path, model, waiting):
    """Draw the mixture over the data, and the responsibility of the second component below."""
    x = np.linspace(waiting.min() - 8, waiting.max() + 8, 600)
    each = densities(model, x)
    between = [b for b in boundaries(model) if x[0] < b < x[-1]]
    figure = Figure(figsize=(8, 6), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(2, 1))
    bins = np.arange(waiting.min() - 0.5, waiting.max() + 3, 3)
    upper.hist(waiting, bins, density=True, color="0.85", label="272 waiting times")
    for k, name in enumerate(("(1 - π) N(x | μ₀, σ₀²)", "π N(x | μ₁, σ₁²)")):
        upper.plot(x, each[:, k], color=f"C{k}", label=name)
    upper.plot(x, each.sum(axis=1), "k--", lw=1, label="p(x), their sum")
    upper.set_ylabel("density, per minute")
    upper.legend(frameon=False, loc="upper left")
    lower.plot(x, model.predict_proba(x[:, None])[:, 1], color="C1")
    lower.set_ylabel("r(x) = p(z = 1 | x)")
    lower.set_xlabel("waiting time, minutes")
    for axes in (upper, lower):
        axes.spines[["top", "right"]].set_visible(False)
        for b in between:
            axes.axvline(b, color="0.4", ls=":", lw=1)
    lower.axhline(0.5, color="0.4", ls=":", lw=1)
    for b in between:
        lower.annotate(f" {b:.1f} min", (b, 0.5), va="bottom")
    figure.savefig(path, dpi=150)


def main(folder="."):
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    waiting = np.loadtxt(DATA).ravel()
    X = waiting[:, None]

    # The job itself.
    rules = {"tol": 1e-12, "max_iter": 500, "random_state": 0}
    model = GaussianMixture(2, means_init=[[55.0], [80.0]], **rules).fit(X)
    poor_start = GaussianMixture(2, means_init=[[50.0], [60.0]], random_state=0)
    traced = trace_bound(poor_start, X, n_iter=12)

    deviation = np.sqrt(model.covariances_.ravel())
    print(f"latent variable: Bernoulli, π = {model.weights_[1]:.4f}")
    for k in range(2):
        print(f"  waiting time given z = {k}: {model.means_[k, 0]:.2f} ± {deviation[k]:.2f} min")
    low, high = waiting.min(), waiting.max()
    crossed = [f"{b:.2f} min" for b in boundaries(model) if low < b < high]
    print(f"boundary, r(x) = 1/2: {', '.join(crossed)}")
    print(f"log-likelihood {len(X) * model.score(X):.3f} nats after {model.n_iter_} iterations")
    save_picture(folder / "two_components.png", model, waiting)
    save_staircase(folder / "staircase.png", traced, title="EM on Old Faithful's waiting times")


if __name__ == "__main__":
    main(*sys.argv[1:2])
