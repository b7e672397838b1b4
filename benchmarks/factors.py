"""Factor analysers on pictures of clothes: seconds an iteration, and likelihood of held-out rows.

Fashion-MNIST, 70,000 pictures of 28 × 28 pixels from 0 to 1, of Debian's package
``dataset-fashion-mnist``.
Run ``python -m benchmarks.factors``.
"""

from __future__ import annotations

import argparse
import gzip
import time
from pathlib import Path

import numpy as np

from streamgmm import GaussianMixture, KMeans
from streamgmm.passes import one_blas_thread

FOLDER = Path("/usr/share/datasets/fashion-mnist")


def pictures(name: str) -> np.ndarray:
    """Pixels from 0 to 1 (n, 784), float32."""
    with gzip.open(FOLDER / f"{name}-images-idx3-ubyte.gz") as file:
        raw = np.frombuffer(file.read(), np.uint8, offset=16)
    return (raw.reshape(-1, 784) / 255).astype(np.float32)


def run(train, held, label: str, k: int, n_iter: int, **how) -> tuple[float, GaussianMixture]:
    """Fit, print, and give the seconds of an iteration after the starts, and the model."""
    began = time.perf_counter()
    model = GaussianMixture(
        k, tol=0, max_iter=n_iter, random_state=0, acceleration=None, algorithm="em", **how
    ).fit(train)
    whole = time.perf_counter() - began
    seconds = np.diff(model.history_["seconds"])
    each = float(np.median(seconds)) if len(seconds) else float("nan")
    print(
        f"{label:24s} {each:8.2f} s an iteration, {whole:7.1f} s in all, "
        f"held out {model.score(held):10.2f} nats a row",
        flush=True,
    )
    return each, model


def of_clusters(train: np.ndarray, k: int, reg: float) -> dict[str, np.ndarray]:
    """A start of full covariances from k-means: a contest of starts would take hours."""
    labels = KMeans(k, random_state=0).fit_predict(train)
    weights = np.bincount(labels, minlength=k) / len(train)
    means = np.stack([train[labels == j].mean(axis=0, dtype=float) for j in range(k)])
    precisions = []
    for j in range(k):
        off = train[labels == j] - means[j]
        covariance = off.T @ off / len(off) + reg * np.eye(train.shape[1])
        precisions.append(np.linalg.inv(covariance))
    return {"weights_init": weights, "means_init": means, "precisions_init": np.stack(precisions)}


def draw(model: GaussianMixture, path: str) -> None:
    """Means of the heaviest components, and what their first two factors change."""
    from matplotlib.figure import Figure

    chosen = np.argsort(-model.weights_, kind="stable")[:10]
    figure = Figure(figsize=(8, 4.2), layout="constrained")
    axes = figure.subplots(5, len(chosen))
    for column, k in zip(axes.T, chosen, strict=True):
        size = model.loadings_[k]
        first = np.argsort(-np.square(size).sum(axis=0), kind="stable")[:2]
        pictures = [model.means_[k]]
        pictures += [model.means_[k] + 2 * sign * size[:, q] for q in first for sign in (-1, 1)]
        for place, picture in zip(column, pictures, strict=True):
            place.imshow(picture.reshape(28, 28), cmap="gray", vmin=0, vmax=1)
            place.set_axis_off()
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-k", type=int, default=50)
    parser.add_argument("-q", type=int, default=6)
    parser.add_argument("--iterations", type=int, default=20)
    parser.add_argument("--full-iterations", type=int, default=3)
    parser.add_argument("--rows", type=int, default=60_000)
    parser.add_argument("--plot")
    given = parser.parse_args()
    import warnings

    warnings.simplefilter("ignore")
    train, held = pictures("train")[: given.rows], pictures("t10k")
    reg = 1e-3  # a few pixels never vary
    with one_blas_thread():
        factor, model = run(
            train, held, f"factor, q={given.q}", given.k, given.iterations,
            covariance_type="factor", n_factors=given.q, reg_covar=reg,
        )  # fmt: skip
        if given.plot:
            draw(model, given.plot)
        run(train, held, "diag", given.k, given.iterations, covariance_type="diag", reg_covar=reg)
        full, _ = run(
            train, held, "full", given.k, given.full_iterations, covariance_type="full",
            reg_covar=reg, **of_clusters(train, given.k, reg),
        )  # fmt: skip
    print(f"full / factor, an iteration: {full / factor:.1f}")


if __name__ == "__main__":
    main()
