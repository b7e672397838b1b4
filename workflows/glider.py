"""Profiles of a glider that end early: every level that was measured counts, and the rest is told.

python workflows/glider.py --picture glider.png

Made profiles of temperature at levels from the surface to 1,000 m, from three water masses. A dive
ends at the sea floor or when the glider turns, so most profiles lack their deep levels, and now
and then a reading is lost. Deep water is nearly the same everywhere; where a dive ends depends on
the place, so gaps are at random given what was measured above. A mixture is fitted to what was
measured, and to the few profiles that are whole; then the missing levels are told, with their
spread.
"""

from __future__ import annotations

from pathlib import Path

import click
import numpy as np
import zarr

from streamgmm import GaussianMixture

DEPTHS = np.array([5, 15, 30, 50, 75, 100, 150, 200, 300, 400, 600, 800, 1000.0])
NAMES = ("subpolar", "front", "subtropical")
SURFACE, DEEP, SCALE = np.array([8.0, 14.0, 22.0]), 4.0, np.array([150.0, 220.0, 320.0])
COLOURS = ("#2a6f97", "#e09f3e", "#9b2226")


def make_up(n: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Profiles (n, levels) with gaps, the whole truth, and the water mass of each."""
    random = np.random.default_rng(seed)
    mass = random.choice(3, size=n, p=(0.3, 0.3, 0.4))
    surface = SURFACE[mass] + random.normal(0, 1.0, n)
    scale = SCALE[mass] * np.exp(random.normal(0, 0.12, n))
    truth = DEEP + (surface - DEEP)[:, None] * np.exp(-DEPTHS / scale[:, None])
    truth += random.normal(0, 0.15, truth.shape)
    floor = np.where(mass == 0, 350.0, 700.0) * np.exp(random.normal(0, 0.5, n))
    gaps = np.maximum(floor, 60.0)[:, None] < DEPTHS
    gaps |= random.random(truth.shape) < 0.02
    return np.where(gaps, np.nan, truth), truth, mass


def draw(
    X: np.ndarray, mass: np.ndarray, told: np.ndarray, spread: np.ndarray, truth: np.ndarray,
    models: dict[str, GaussianMixture], path: Path,
) -> None:  # fmt: skip
    """Two panels: shares of the classes, and dives with what is told of the rest."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, (left, right) = plt.subplots(
        1, 2, figsize=(10, 5), layout="constrained", width_ratios=(1, 1.6)
    )
    at = np.arange(len(NAMES))
    shares = {"truth": np.bincount(mass, minlength=3) / len(X)}
    for name, model in models.items():
        shares[name] = model.weights_[np.argsort(model.means_[:, 0])]
    for shift, (name, share) in zip((-0.27, 0.0, 0.27), shares.items(), strict=True):
        shade = {"truth": "#444444", "marginalize": "#2a6f97", "omit": "#d8863b"}[name]
        left.bar(at + shift, 100 * share, 0.25, label=name, color=shade)
    left.set_xticks(at, NAMES)
    left.set(ylabel="% of the profiles", title="Shares of the classes")
    left.legend(frameon=False)

    short = np.isnan(X).sum(axis=1) >= 5
    surface = np.where(short & ~np.isnan(X[:, 0]), X[:, 0], np.nan)
    for j, wanted in enumerate(SURFACE):
        i = int(np.nanargmin(np.abs(surface - wanted)))
        right.plot(told[i], DEPTHS, "--", color=COLOURS[j], linewidth=1.4)
        low, high = told[i] - 2 * spread[i], told[i] + 2 * spread[i]
        right.fill_betweenx(DEPTHS, low, high, color=COLOURS[j], alpha=0.2, linewidth=0)
        right.plot(X[i], DEPTHS, "o", color=COLOURS[j], markersize=5)
        gone = np.isnan(X[i])
        right.plot(truth[i, gone], DEPTHS[gone], "x", color=COLOURS[j], markersize=6)
    right.set(
        xlabel="temperature, °C",
        ylabel="depth, m",
        title="Three dives: measured (dots), told ± 2 sd, and the truth (crosses)",
    )
    right.title.set_fontsize(10)
    right.invert_yaxis()
    figure.savefig(path, dpi=110)


@click.command(help=__doc__)
@click.option("--rows", type=click.IntRange(500), default=200_000, show_default=True)
@click.option("--folder", type=click.Path(path_type=Path), default=Path("glider"))
@click.option("--picture", type=click.Path(path_type=Path), default=None)
@click.option("--seed", type=int, default=0, show_default=True)
def main(rows: int, folder: Path, picture: Path | None, seed: int) -> None:
    X, truth, mass = make_up(rows, seed)
    folder.mkdir(parents=True, exist_ok=True)
    data = str(folder / "profiles.zarr")
    zarr.create_array(data, data=X, chunks=(min(rows, 50_000), len(DEPTHS)), overwrite=True)
    gaps = np.isnan(X)
    print(
        f"{rows:,} profiles of {len(DEPTHS)} levels; {gaps.mean():.0%} of the values are missing, "
        f"and {np.mean(~gaps.any(axis=1)):.1%} of the profiles are whole"
    )
    settings = {"random_state": seed, "tol": 1e-4, "max_iter": 300}
    models = {
        missing: GaussianMixture(3, missing=missing, **settings).fit(data)
        for missing in ("marginalize", "omit")
    }
    for name, model in models.items():
        order = np.argsort(model.means_[:, 0])
        shares = ", ".join(f"{s:.1%}" for s in model.weights_[order])
        print(f"{name:12s} {rows - model.n_missing_:8,d} profiles: shares of the classes {shares}")
    print(f"{'truth':12s} {rows:8,d} profiles: shares of the classes "
          + ", ".join(f"{s:.1%}" for s in np.bincount(mass, minlength=3) / rows))  # fmt: skip
    model = models["marginalize"]
    out = str(folder / "told.zarr"), str(folder / "spread.zarr")
    told, spread = model.impute(data, out=out, return_std=True, overwrite=True)
    error = (told[:] - truth)[gaps]
    inside = np.mean(np.abs(error) < 2 * spread[:][gaps])
    print(
        f"missing levels are told within {np.sqrt(np.mean(error**2)):.2f} °C (root mean square); "
        f"{inside:.1%} lie within 2 standard deviations"
    )
    if picture is not None:
        draw(X, mass, told[:], spread[:], truth, models, picture)


if __name__ == "__main__":
    main()
