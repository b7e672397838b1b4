"""A photograph as a cube (y, x, band): a labelled picture, and how certain each label is.

python workflows/photo_cube.py photo -k 6

The photograph is one of scikit-learn's. It is stored as images are, in square chunks, and is
never made into a table: labels and probabilities come back as pictures.
"""

from __future__ import annotations

from pathlib import Path

import click
import matplotlib
import numpy as np
import zarr
from sklearn.datasets import load_sample_image

import streamgmm

matplotlib.use("agg")


def store(path: str, name: str, step: int) -> np.ndarray:
    """Write every `step`-th pixel of a photograph to Zarr, (y, x, band), bands from 0 to 1."""
    photo = load_sample_image(name)[::step, ::step].astype(np.float32) / 255
    zarr.create_array(path, data=photo, chunks=(128, 128, 3), overwrite=True)
    return photo


def draw(path: Path, photo: np.ndarray, labels: np.ndarray, colours: np.ndarray,
         certainty: np.ndarray) -> None:  # fmt: skip
    """The photograph, the labels in the mean colours of their components, and the certainty."""
    from matplotlib import pyplot as plt

    height = 10 * 0.9 * photo.shape[0] / photo.shape[1] / 3
    figure, axes = plt.subplots(1, 3, figsize=(10, height + 0.6), layout="constrained")
    axes[0].imshow(photo)
    axes[0].set_title("photograph")
    axes[1].imshow(colours.clip(0, 1)[labels])
    axes[1].set_title(f"{len(colours)} components")
    shown = axes[2].imshow(certainty, cmap="magma", vmin=0.5, vmax=1)
    axes[2].set_title("probability of the label")
    figure.colorbar(shown, ax=axes[2], shrink=0.7)
    for axis in axes:
        axis.axis("off")
    figure.savefig(path, dpi=150)
    plt.close(figure)


@click.command(help=__doc__)
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--photo", type=click.Choice(["china.jpg", "flower.jpg"]), default="china.jpg")
@click.option("-k", "--n-components", type=click.IntRange(1), default=6, show_default=True)
@click.option("--step", type=click.IntRange(1), default=1, help="Take every STEP-th pixel.")
@click.option("--seed", type=int, default=0, show_default=True)
def main(folder: Path, photo: str, n_components: int, step: int, seed: int) -> None:
    folder.mkdir(exist_ok=True)
    path = str(folder / "photo.zarr")
    picture = store(path, photo, step)

    cube = streamgmm.rows(path)
    model = streamgmm.GaussianMixture(n_components, random_state=seed).fit(cube)
    labels = model.predict(cube, out=str(folder / "labels.zarr"), overwrite=True)
    certainty = model.predict_proba(cube).max(axis=-1).compute()  # lazy until here

    draw(folder / "photo.png", picture, labels[:], model.means_, certainty)
    print(f"{labels.shape} labels in {folder / 'labels.zarr'}; look at {folder / 'photo.png'}")
    for k in np.argsort(-model.weights_):
        here = labels[:] == k
        mean = certainty[here].mean() if here.any() else np.nan
        print(f"{model.weights_[k]:6.1%}  colour {model.means_[k].round(2)}, certainty {mean:.3f}")


if __name__ == "__main__":
    main()
