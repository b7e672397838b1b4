"""The picture of docs/errors_on_rows.md: ``python docs/errors_on_rows.py``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np

from streamgmm import GaussianMixture

mpl.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.patches import Ellipse


def draw(n: int) -> tuple[Any, Any, Any]:
    """True values, values with errors, and the variances of these."""
    rng = np.random.default_rng(0)
    turn = np.array([[0.8, 0.6], [-0.6, 0.8]])
    first = rng.random(n) < 0.6
    true = np.where(first[:, None], rng.normal(size=(n, 2)) * [2.0, 0.3] @ turn, 0.0)
    true += np.where(first[:, None], 0.0, [0.0, 3.0] + rng.normal(size=(n, 2)) * [0.4, 0.4])
    variances = rng.gamma(1.0, 0.8, size=(n, 2))
    return true, true + rng.normal(size=(n, 2)) * np.sqrt(variances), variances


def ellipses(axes: Any, model: GaussianMixture, colour: str) -> None:
    """Two standard deviations of each component."""
    for mean, covariance in zip(model.means_, model.covariances_, strict=True):
        values, vectors = np.linalg.eigh(covariance)
        angle = np.degrees(np.arctan2(vectors[1, 1], vectors[0, 1]))
        width, height = 4 * np.sqrt(values[::-1])
        shape = Ellipse(mean, width, height, angle=angle, fill=False, color=colour, lw=2)
        axes.add_patch(shape)


def main() -> None:
    """Draw the picture beside this file."""
    true, X, variances = draw(20_000)
    model = GaussianMixture(2, random_state=0, tol=1e-5).fit(X, noise_variance=variances)
    blurred = GaussianMixture(2, random_state=0).fit(X)
    mean = model.denoise(X, variances)
    figure, panels = plt.subplots(1, 3, figsize=(12, 4.2), sharex=True, sharey=True)
    panes = (
        ("values with errors, an ordinary fit", X, blurred, "tab:red"),
        ("the same values, noise_variance given", X, model, "tab:blue"),
        ("denoised: posterior means", mean, model, "tab:blue"),
    )
    for axes, (title, rows, fitted, colour) in zip(panels, panes, strict=True):
        axes.scatter(*rows[:4000].T, s=2, alpha=0.35, color="0.35", linewidths=0)
        ellipses(axes, fitted, colour)
        axes.set_title(title, fontsize=11)
        axes.set_aspect("equal")
        axes.set_xlim(-6, 6)
        axes.set_ylim(-5, 6)
    panels[2].text(
        -5.7, -4.6, f"error {np.sqrt(np.mean((X - true) ** 2)):.2f} before, "
        f"{np.sqrt(np.mean((mean - true) ** 2)):.2f} after"
    )  # fmt: skip
    figure.tight_layout()
    figure.savefig(Path(__file__).with_suffix(".png"), dpi=110)


if __name__ == "__main__":
    main()
