"""`MapDisplay`: the labels of a cube's samples and how certain they are, as maps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from streamgmm.errors import DataError
from streamgmm.report.display import (
    COLOURS,
    divide,
    heaviest,
    look_at,
    model_of,
    open_for,
    pyplot,
    say_components,
    text,
)
from streamgmm.summaries.cells import CellCounts, CellRequest, map_of

MOST_COMPONENTS = 12
LIGHTER = 0.55  # of the colours after the first six: two shades of each
OTHERS = "#bdbdbd"


class MapDisplay:
    """Maps of the labels, and of the posterior certainty, of data that came as a cube.

    The maps are of the last two dimensions of the samples. Where more samples than one lie in a
    cell (a time before them, or a picture of more pixels than are drawn) it has their most
    frequent label, and the mean of their certainty, of all of them. Make one with
    `from_estimator`.

    Parameters
    ----------
    cells : CellCounts
        Of all cells.
    dims : sequence of str
        Names of the two dimensions.
    notes : sequence of str

    Attributes
    ----------
    ax_ : ndarray of matplotlib Axes
        Of the labels, and of the certainty.
    figure_ : matplotlib Figure

    Examples
    --------
    >>> import numpy as np
    >>> from streamgmm import GaussianMixture, MapDisplay, rows
    >>> cube = rows(np.random.default_rng(0).normal(size=(20, 30, 2)))
    >>> model = GaussianMixture(2, random_state=0).fit(cube)
    >>> MapDisplay.from_estimator(model, cube).labels.shape
    (20, 30)
    """

    ax_: NDArray[Any]
    figure_: Any

    def __init__(
        self, *, cells: CellCounts, dims: Sequence[str], notes: Sequence[str] = ()
    ) -> None:
        self.cells = cells
        self.dims = dims
        self.notes = notes

    @classmethod
    def from_estimator(cls, estimator: Any, X: Any, *, ax: Any = None) -> Self:
        """Look at all samples in one pass, and draw the maps.

        Parameters
        ----------
        estimator : GaussianMixture, MixtureModel, OnlineGaussianMixture or KMeans
            Fitted.
        X : Source from `streamgmm.rows`, or xarray.Dataset or DataArray
            Samples of two dimensions or more.
        ax : matplotlib Axes, optional
            Which the maps divide; by default a new figure.

        Returns
        -------
        display : MapDisplay

        Raises
        ------
        DataError
            If the samples are rows of a table; if they do not fit the model.
        MissingExtraError
            If matplotlib is not installed.
        sklearn.exceptions.NotFittedError, SourceError
            As `predict`.
        """
        pyplot()
        mixture = model_of(estimator)
        source: Any = open_for(estimator, mixture, X)
        shape: tuple[int, ...] = getattr(source, "sample_shape", (source.n_samples,))
        if len(shape) < 2:
            raise DataError(
                f"{source.name}: its samples are rows of a table, of which there is no map; open "
                "a cube with streamgmm.rows(array, feature_axis=...)"
            )
        dims = getattr(source, "dims", None) or [f"axis {i}" for i in range(len(shape))]
        cells = map_of(shape)
        shown = heaviest(mixture.weights, MOST_COMPONENTS)
        (found,) = look_at(estimator, source, [CellRequest(cells, shown, mixture.n_components)])
        return cls(
            cells=found.whole(),
            dims=[str(dim) for dim in dims[-2:]],
            notes=_say_cells(shape, cells.shape, [str(dim) for dim in dims])
            + say_components(mixture.weights, shown, ", the others in one grey"),
        ).plot(ax)

    @property
    def labels(self) -> NDArray[np.int64]:
        """The most frequent component of each cell, of the map's shape.

        -1 where there are no samples, and -2 for a component that is not told apart.
        """
        request, counts = self.cells.request, self.cells.labels
        names = np.append(request.shown, -2)
        found = np.where(self.cells.weight > 0, names[counts.argmax(axis=1)], -1)
        return np.asarray(found.reshape(request.cells.shape), np.int64)

    @property
    def certainty(self) -> NDArray[np.float64]:
        """Mean probability of the likeliest component, of the map's shape; NaN without samples."""
        return self.cells.certainty.reshape(self.cells.request.cells.shape)

    def plot(self, ax: Any = None) -> Self:
        """Draw.

        Parameters
        ----------
        ax : matplotlib Axes, optional
            Which the maps divide; by default a new figure.

        Returns
        -------
        self : MapDisplay
        """
        plt = pyplot()
        height, width = self.cells.request.cells.sample_shape[-2:]
        beside = width < 2.5 * height
        if ax is None:
            tall = float(np.clip(4.2 * height / width, 1.6, 6)) + 0.9
            size = (10.4, tall) if beside else (7.2, float(np.clip(14 * height / width, 3, 8)))
            _, ax = plt.subplots(figsize=size, layout="constrained")
        self.figure_ = ax.figure.figure
        inner, places = divide(ax, *((1, 2) if beside else (2, 1)), self.notes)
        axes = [inner.add_subplot(places[i]) for i in range(2)]
        self._draw_labels(axes[0], (height, width))
        self._draw_certainty(axes[1], (height, width))
        for own in axes:
            own.set_xlabel(text(self.dims[1]))
        axes[0].set_ylabel(text(self.dims[0]))
        self.ax_ = np.array(axes, dtype=object)
        return self

    def _draw_labels(self, ax: Any, shape: tuple[int, int]) -> None:
        from matplotlib.colors import ListedColormap
        from matplotlib.patches import Patch

        shown = [int(k) for k in self.cells.request.shown]
        labels = self.labels
        used = [k for k in shown if (labels == k).any()]
        colours = {k: _colour(place) for place, k in enumerate(shown)} | {-2: OTHERS}
        names = [*used, *([-2] if (labels == -2).any() else [])]
        places = np.full(labels.shape, np.nan)
        for i, k in enumerate(names):
            places[labels == k] = i
        ax.imshow(
            places, cmap=ListedColormap([colours[k] for k in names] or ["white"]),
            vmin=-0.5, vmax=max(len(names), 1) - 0.5, interpolation="nearest",
            extent=(0, shape[1], shape[0], 0), aspect="auto",
        )  # fmt: skip
        patches = [Patch(color=colours[k], label="others" if k < 0 else str(k)) for k in names]
        ax.legend(
            handles=patches, title="component", fontsize="small", title_fontsize="small",
            frameon=False, loc="center left", bbox_to_anchor=(1, 0.5), handlelength=1,
        )  # fmt: skip
        ax.set_title("likeliest component", fontsize="medium")

    def _draw_certainty(self, ax: Any, shape: tuple[int, int]) -> None:
        least = 1 / max(2, self.cells.request.n_components)
        image = ax.imshow(
            self.certainty, cmap="cividis", vmin=least, vmax=1, interpolation="nearest",
            extent=(0, shape[1], shape[0], 0), aspect="auto",
        )  # fmt: skip
        bar = ax.figure.colorbar(image, ax=ax, pad=0.02)
        bar.outline.set_visible(False)
        ax.set_title("its probability", fontsize="medium")


def _colour(place: int) -> Any:
    """The first six as they are, the next six lighter."""
    from matplotlib.colors import to_rgb

    own = np.array(to_rgb(COLOURS[place % len(COLOURS)]))
    return tuple(own if place < len(COLOURS) else own + LIGHTER * (1 - own))


def _say_cells(shape: tuple[int, ...], cells: tuple[int, ...], dims: Sequence[str]) -> list[str]:
    """What a cell holds, where it is not one sample."""
    said = []
    if len(shape) > 2:
        over = " × ".join(
            f"{n} {text(dim, 16)}" for n, dim in zip(shape[:-2], dims[:-2], strict=True)
        )
        said.append(f"The most frequent label, and the mean probability, over {over}.")
    if cells != shape[-2:]:
        said.append(
            f"{shape[-2]:,} × {shape[-1]:,} samples in {cells[0]} × {cells[1]} cells, each of "
            "which shows the most frequent label of its samples."
        )
    return said
