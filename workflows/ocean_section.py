"""Water masses along an ocean section: profiles scaled, projected, told apart, and drawn.

python workflows/ocean_section.py section --times 500 -k 6

Profiles of temperature and salinity by depth lie in a Zarr group, (time, latitude, depth), with
land and shelves masked. Each level is a feature: 2 × 70 of them. The pipeline scales them,
projects them on the components that explain 99.5% of their variance, and fits a mixture, all from
where they lie; scaler and projection take one read together, and nothing is written but the
model, the labels and their certainty. Then one more read gives the quantiles of the profiles of
each class, in degrees and in grams a kilogram. The steps are those of pyXpcm (Maze et al. 2017),
without profiles in memory. The section is made up, of five regimes between moving fronts.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import click
import numpy as np
import zarr
from sklearn.pipeline import make_pipeline

import streamgmm
from streamgmm import PCA, GaussianMixture, ProgressBar, StandardScaler

LATITUDE = np.arange(-60.0, 66.0, 0.5)
DEPTH = np.arange(0.0, 1400.0, 20.0)  # metres
DIMS = ("time", "latitude", "depth")
NAMES = ("temperature", "salinity")
CHUNK_TIMES = 50

# Surface and deep water, the depth of the thermocline (m) and the thickness of mode water (m).
REGIMES = {
    "polar": ((0.5, 33.9), (1.5, 34.7), 300.0, 0.0),
    "subpolar": ((8.0, 34.3), (3.0, 34.6), 350.0, 250.0),
    "subtropical": ((22.0, 36.2), (5.0, 34.8), 500.0, 300.0),
    "tropical": ((28.0, 35.0), (5.5, 34.6), 180.0, 0.0),
    "northern": ((11.0, 35.4), (5.0, 35.0), 700.0, 400.0),
}
ORDER = ("polar", "subpolar", "subtropical", "tropical", "subtropical", "northern")
FRONTS = (-50.0, -38.0, -12.0, 14.0, 42.0)
ISLAND = (30.0, 33.0)  # degrees north: land
SHELF = 58.0  # north of it, the bottom lies at 300 m


def column(regime: str, depth: np.ndarray) -> np.ndarray:
    """Temperature and salinity (2, ...) of a regime at depths."""
    surface, deep, scale, mode = REGIMES[regime]
    below = np.maximum(depth - mode, 0.0)  # mode water is much the same as the surface
    share = np.exp(-((below / scale) ** 1.2))
    return np.stack([low + (high - low) * share for high, low in zip(surface, deep, strict=True)])


def make_times(start: int, n: int) -> np.ndarray:
    """The section at some times (2, n, latitude, depth), NaN where there is no water."""
    random = np.random.default_rng([0, start])
    when = np.arange(start, start + n)
    lat = LATITUDE[None, :, None]
    heave = random.normal(0, 25, (n, len(LATITUDE), 1))  # metres up or down, by eddies
    depth = np.maximum(DEPTH + heave, 0.0)
    found = column(ORDER[0], depth)
    for i, (front, regime) in enumerate(zip(FRONTS, ORDER[1:], strict=True)):
        wave = 2.5 * np.sin(2 * np.pi * (when / (60 + 17 * i) + i / 5))
        at = front + wave[:, None, None] + random.normal(0, 0.8, (n, len(LATITUDE), 1))
        share = 1 / (1 + np.exp(-(lat - at) / 0.8))
        found = (1 - share) * found + share * column(regime, depth)
    year = 2 * np.pi * when[:, None, None] / 73  # 73 times of five days
    season = np.cos(year) * np.sign(LATITUDE)[:, None]
    found[0] += 1.5 * season * np.exp(-DEPTH / 60)
    found += random.normal(size=found.shape) * np.array([0.15, 0.02])[:, None, None, None]
    found[:, :, (ISLAND[0] <= LATITUDE) & (ISLAND[1] >= LATITUDE)] = np.nan
    found[:, :, LATITUDE > SHELF, 15:] = np.nan
    return found.astype(np.float32)


def write_section(path: Path, n_times: int) -> str:
    """Write the group, some times after the other; give its path."""
    group = zarr.open_group(str(path), mode="w")
    shape = (n_times, len(LATITUDE), len(DEPTH))
    arrays = [
        group.create_array(
            name,
            shape=shape,
            chunks=(min(CHUNK_TIMES, n_times), *shape[1:]),
            dtype="f4",
            fill_value=float("nan"),
            dimension_names=DIMS,
        )
        for name in NAMES
    ]
    for start in range(0, n_times, CHUNK_TIMES):
        part = make_times(start, min(CHUNK_TIMES, n_times - start))
        for array, values in zip(arrays, part, strict=True):
            array[start : start + len(values)] = values
    return str(path)


def draw(path: Path, folder: Path, found: Any, k: int) -> None:
    """The section, its classes, how certain they are, and the quantiles of each class."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.colors import ListedColormap
    from matplotlib.figure import Figure

    labels = zarr.open_array(str(folder / "labels.zarr"))[:120].astype(float)
    certain = zarr.open_array(str(folder / "proba.zarr"))[:120].max(axis=-1)
    labels[labels < 0] = np.nan
    section = zarr.open_group(str(folder / "section.zarr"))["temperature"][0]
    colours = np.array(
        ["#4477aa", "#66ccee", "#228833", "#ccbb44", "#ee6677", "#aa3377", "#bbbbbb", "#000000"]
    )[np.arange(k) % 8]

    figure = Figure(figsize=(13, 8), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subfigures(1, 2, width_ratios=(1, 1.1))
    top, middle, bottom = left.subplots(3, 1, sharex=True)
    image = top.pcolormesh(LATITUDE, DEPTH, section.T, cmap="RdYlBu_r", rasterized=True)
    top.invert_yaxis()
    top.set_ylabel("depth (m)")
    top.set_title("temperature at the first time (°C)", fontsize=10)
    left.colorbar(image, ax=top)
    times = np.arange(len(labels))
    image = middle.pcolormesh(
        LATITUDE, times, labels, cmap=ListedColormap(colours), vmin=-0.5, vmax=k - 0.5
    )
    middle.set_ylabel("time")
    middle.set_title("class of each profile; land and shelf have none", fontsize=10)
    left.colorbar(image, ax=middle, ticks=range(k))
    image = bottom.pcolormesh(LATITUDE, times, certain, cmap="viridis", vmin=0.5, vmax=1)
    bottom.set_ylabel("time")
    bottom.set_xlabel("latitude (°N)")
    bottom.set_title("probability of that class", fontsize=10)
    left.colorbar(image, ax=bottom)
    for each in (top, middle, bottom):
        each.set_facecolor("0.75")

    axes = right.subplots(2, k, sharey=True, sharex="row", squeeze=False)
    profiles = found.reshape(k, 3, 2, len(DEPTH))
    order = np.argsort(-profiles[:, 1, 0, 0])  # the warmest surface first
    for row, (name, unit) in enumerate((("temperature", "°C"), ("salinity", "g/kg"))):
        for place, j in enumerate(order):
            axis, (low, median, high) = axes[row, place], profiles[j, :, row]
            axis.fill_betweenx(DEPTH, low, high, color=colours[j], alpha=0.35, lw=0)
            axis.plot(median, DEPTH, color=colours[j])
            axis.set_title(f"class {j}" if row == 0 else "", fontsize=9)
            axis.tick_params(labelsize=8)
        axes[row, 0].set_ylabel("depth (m)")
        axes[row, k // 2].set_xlabel(f"{name} ({unit}): median, 5% to 95%")
    axes[0, 0].set_ylim(DEPTH[-1], 0)
    figure.savefig(path, dpi=90)


@click.command(help=__doc__)
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--times", type=click.IntRange(10), default=500, show_default=True)
@click.option("-k", "--n-components", type=click.IntRange(1), default=6, show_default=True)
@click.option("--seed", type=int, default=0, show_default=True)
def main(folder: Path, times: int, n_components: int, seed: int) -> None:
    folder.mkdir(exist_ok=True, parents=True)
    data = write_section(folder / "section.zarr", times)
    profiles = streamgmm.rows(data, features=NAMES, sample_dims=DIMS[:2])
    print(f"{profiles.n_samples:,} profiles of {profiles.n_features} values in {data}")

    pipe = make_pipeline(
        StandardScaler(missing="omit"),
        PCA(0.995),
        GaussianMixture(n_components, random_state=seed),
    )
    began = time.perf_counter()
    with ProgressBar():
        pipe.fit(profiles)
        streamgmm.save(pipe, folder / "model.zarr", overwrite=True)
        pipe.predict(profiles, out=folder / "labels.zarr", overwrite=True)
        pipe.predict_proba(profiles, out=folder / "proba.zarr", overwrite=True)
        found = streamgmm.quantiles(pipe, profiles, (0.05, 0.5, 0.95))
    scaler, pca, mixture = (step for _, step in pipe.steps)
    print(
        f"{scaler.n_samples_seen_:,} of them whole; {pca.n_components_} components explain "
        f"{pca.explained_variance_ratio_.sum():.2%}; {mixture.n_iter_} iterations; "
        f"{time.perf_counter() - began:.1f} s in all"
    )
    surface, deepest = (found[:, 1, level] for level in (0, len(DEPTH) - 1))
    for k in np.argsort(-mixture.weights_):
        print(f"{mixture.weights_[k]:6.1%}  {surface[k]:5.1f} °C to {deepest[k]:4.1f} °C at depth")
    draw(folder / "section.png", folder, found, n_components)
    print(f"drawn: {folder / 'section.png'}")


if __name__ == "__main__":
    main()
