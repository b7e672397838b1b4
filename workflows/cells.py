"""A million made cells in an AnnData store: of how many kinds? K from 2 to 20, read together.

pip install 'streamgmm[anndata,plot]'
python workflows/cells.py cells

Ten starts for each of 19 numbers of kinds, in one job that reads the store as often as one fit
would. The kinds go into `obs` of the store, for scanpy and its friends; and scikit-learn is asked
the same of a sample of the cells.
"""

from __future__ import annotations

import time
import warnings
from pathlib import Path

import anndata
import click
import matplotlib
import numpy as np
import pandas as pd
import zarr
from sklearn.metrics import adjusted_rand_score
from sklearn.mixture import GaussianMixture
from threadpoolctl import threadpool_limits

import streamgmm

matplotlib.use("agg")

N_KINDS, N_AXES = 9, 10


def make_cells(path: str, n_cells: int, seed: int) -> np.ndarray:
    """Write cells of nine kinds, of different size and shape, by their axes; give their kinds."""
    rng = np.random.default_rng(seed)
    share = rng.dirichlet(np.full(N_KINDS, 4.0))
    kinds = rng.choice(N_KINDS, n_cells, p=share)
    spread = 0.75 ** np.arange(N_AXES)
    centres = 6 * rng.normal(size=(N_KINDS, N_AXES)) * spread
    shapes = 0.6 * rng.normal(size=(N_KINDS, N_AXES, N_AXES)) + np.eye(N_AXES)
    axes = np.empty((n_cells, N_AXES), np.float32)
    for k in range(N_KINDS):
        here = kinds == k
        axes[here] = centres[k] + (rng.normal(size=(here.sum(), N_AXES)) @ shapes[k]) * spread
    obs = pd.DataFrame(index=pd.Index([f"cell{i}" for i in range(n_cells)], dtype=object))
    with warnings.catch_warnings():  # of what will change in AnnData's format
        warnings.simplefilter("ignore")
        anndata.settings.zarr_write_format = 3
        anndata.AnnData(obs=obs, obsm={"X_pca": axes}).write_zarr(
            path, chunks=(min(n_cells, 100_000), N_AXES)
        )
    return kinds


def ask_sklearn(sample: np.ndarray, ks: range, seed: int) -> list[GaussianMixture]:
    """Fit scikit-learn's mixtures to a sample, ten starts each."""
    with warnings.catch_warnings(), threadpool_limits(1):  # small products, which threads slow
        warnings.simplefilter("ignore")  # that some have not converged
        return [GaussianMixture(k, n_init=10, random_state=seed).fit(sample) for k in ks]


def draw(path: Path, cells: np.ndarray, labels: np.ndarray, chosen: dict, others: dict) -> None:
    """Held-out likelihood by the number of kinds; and some cells in the colours of theirs."""
    from matplotlib import pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4.6), layout="constrained")
    left.errorbar(
        chosen["k"],
        chosen["score"],
        chosen["error"],
        marker="o",
        ms=4,
        label="all, streamed",
    )
    left.plot(others["k"], others["score"], "s--", ms=4, label=others["name"])
    left.axvline(chosen["best"], color="0.7", lw=1, zorder=0)
    left.set_xlabel("kinds of cells")
    left.set_ylabel("log-likelihood of other cells (nats a cell)")
    left.set_xticks(others["k"][::2])
    left.legend()
    right.scatter(cells[:, 0], cells[:, 1], 3, labels, cmap="tab20", alpha=0.5, linewidths=0)
    right.set_xlabel("X_pca 0")
    right.set_ylabel("X_pca 1")
    right.set_title(f"{chosen['best']} kinds, by BIC")
    figure.savefig(path, dpi=150)
    plt.close(figure)


@click.command(help=__doc__)
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--cells", type=click.IntRange(1000), default=1_000_000, show_default=True)
@click.option("--most", type=click.IntRange(2), default=20, show_default=True)
@click.option("--sample", type=click.IntRange(500), default=10_000, show_default=True)
@click.option("--seed", type=int, default=0, show_default=True)
def main(folder: Path, cells: int, most: int, sample: int, seed: int) -> None:
    folder.mkdir(exist_ok=True)
    store = str(folder / "cells.zarr")
    kinds = make_cells(store, cells, seed)
    ks = range(2, most + 1)

    began = time.perf_counter()
    rows = streamgmm.rows(store, features="obsm/X_pca")
    found = streamgmm.select(rows, ks, "full", n_init=10, random_state=seed)
    best = found.best
    labels = best.predict(rows, out=f"{store}/obs/kind", overwrite=True)
    best.predict_proba(rows, out=f"{store}/obsm/kind_probability", overwrite=True)
    seconds = time.perf_counter() - began

    axes = zarr.open_array(f"{store}/obsm/X_pca", mode="r")
    rng = np.random.default_rng(seed)
    some, other = np.sort(rng.permutation(cells)[: 2 * sample].reshape(2, -1))
    began = time.perf_counter()
    theirs = ask_sklearn(axes.oindex[some, :], ks, seed)
    scores = [model.score(axes.oindex[other, :]) for model in theirs]
    sample_seconds = time.perf_counter() - began
    bic = [model.bic(axes.oindex[some, :]) for model in theirs]

    table = found.table
    agree = adjusted_rand_score(kinds, labels[:])
    print(f"{cells:,} cells, K = 2 to {most}, ten starts each: {seconds:.1f} s, "
          f"{found.passes:.1f} reads; {best.n_components} kinds by BIC of {N_KINDS}, "
          f"agreement (ARI) with those made {agree:.3f}")  # fmt: skip
    chosen = theirs[int(np.argmin(bic))]
    agree = adjusted_rand_score(kinds, chosen.predict(axes[:]))
    print(f"scikit-learn on {sample:,} of them: {sample_seconds:.1f} s; "
          f"{chosen.n_components} kinds by BIC, ARI {agree:.3f}")  # fmt: skip
    both = pd.DataFrame(axes.oindex[other, :], columns=best.feature_names_in_)
    print(f"log-likelihood of {sample:,} other cells: {best.score(both):.4f} and "
          f"{chosen.score(both.to_numpy()):.4f} nats a cell")  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        there = anndata.read_zarr(store)
    print(there)
    draw(
        folder / "cells.png",
        axes.oindex[other, :][:20_000],
        there.obs["kind"].to_numpy()[other][:20_000],
        {
            "k": table["n_components"],
            "score": table["holdout_log_likelihood"],
            "error": table["holdout_error"],
            "best": best.n_components,
        },
        {"k": list(ks), "score": scores, "name": f"{sample:,} cells, scikit-learn"},
    )
    print(f"look at {folder / 'cells.png'}")


if __name__ == "__main__":
    main()
