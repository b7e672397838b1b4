"""`ProfileDisplay`: quantiles of each feature in each class, of all rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from streamgmm.fitting.quantiles import new_digest
from streamgmm.model.moments import Floats
from streamgmm.report.display import (
    COLOURS,
    divide,
    find_features,
    heaviest,
    look_at,
    model_of,
    names_of,
    open_for,
    plain,
    pyplot,
    say_components,
    say_gaps,
    text,
)
from streamgmm.summaries.moments import moments_of, separation
from streamgmm.summaries.quantiles import QuantileRequest

QUANTILES = (0.05, 0.5, 0.95)
MOST_COMPONENTS = 8
MOST_FEATURES = 12


class ProfileDisplay:
    """The 5, 50 and 95 % quantiles of every feature in every class.

    A class is the rows whose likeliest component is the same. All rows are read once; quantiles
    come of t-digests that merge, whose ranks are within 0.01. Make one with `from_estimator`.

    Parameters
    ----------
    quantiles : ndarray of shape (n_classes, n_features, 3)
    rows : ndarray of shape (n_classes,)
        Rows of each class.
    components : ndarray of shape (n_classes,)
        Their numbers.
    feature_names : sequence of str
    ordered : bool
        Whether the features follow one another (a depth, a wavelength), and are joined by lines.
    notes : sequence of str

    Attributes
    ----------
    ax_ : ndarray of matplotlib Axes
        One a feature; of ordered features one a class.
    figure_ : matplotlib Figure

    Examples
    --------
    >>> import numpy as np
    >>> from streamgmm import GaussianMixture, ProfileDisplay
    >>> X = np.random.default_rng(0).normal(size=(500, 2)) + [[0, 5]]
    >>> display = ProfileDisplay.from_estimator(GaussianMixture(random_state=0).fit(X), X)
    >>> display.quantiles.shape
    (1, 2, 3)
    """

    ax_: NDArray[Any]
    figure_: Any

    def __init__(
        self,
        *,
        quantiles: Floats,
        rows: NDArray[np.int64],
        components: NDArray[np.intp],
        feature_names: Sequence[str],
        ordered: bool = False,
        notes: Sequence[str] = (),
    ) -> None:
        self.quantiles = quantiles
        self.rows = rows
        self.components = components
        self.feature_names = feature_names
        self.ordered = ordered
        self.notes = notes

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        X: Any,
        *,
        features: Any = None,
        feature_names: Sequence[str] | None = None,
        ordered: bool = False,
        ax: Any = None,
    ) -> Self:
        """Take quantiles of all rows in one pass, and draw them.

        Parameters
        ----------
        estimator : GaussianMixture, MixtureModel, OnlineGaussianMixture or KMeans
            Fitted.
        X : array-like, zarr.Array, str or path, dask.array.Array, or Source
            Of shape (n_samples, n_features). Rows count by number, not by weight.
        features : int, str, or sequence of these, optional
            By default all up to twelve, else the twelve that separate the components most; of
            ordered features up to 100.
        feature_names : sequence of str, optional
        ordered : bool, default=False
            Whether features follow one another, and are drawn as profiles.
        ax : matplotlib Axes, optional
            Which the panels divide; by default a new figure.

        Returns
        -------
        display : ProfileDisplay

        Raises
        ------
        ParameterError
            If there is no such feature (the nearest is suggested); MissingExtraError without
            matplotlib or crick.
        sklearn.exceptions.NotFittedError, DataError, SourceError
            As `predict`.
        """
        pyplot()
        new_digest()
        mixture = model_of(estimator)
        names = names_of(estimator, mixture.n_features, feature_names)
        most = 100 if ordered else MOST_FEATURES
        notes = []
        columns = list(range(len(names))) if features is None else find_features(features, names)
        if len(columns) > most and ordered:
            step = -(-len(columns) // most)
            notes.append(f"Every {step}th of {len(columns)} features.")
            columns = columns[::step]
        elif len(columns) > most:
            apart = separation(mixture, moments_of(mixture))[columns]
            kept = np.sort(np.argsort(-apart, kind="stable")[:most])
            notes.append(
                f"{most} of {len(columns)} features: those that separate the components most."
            )
            columns = [columns[i] for i in kept]
        shown = heaviest(mixture.weights, MOST_COMPONENTS)
        source = open_for(estimator, mixture, X)
        request = QuantileRequest(np.array(columns, np.intp), shown)
        (found,) = look_at(estimator, source, [request])
        said = ["5, 50 and 95 % of the rows of each class.", *say_gaps(estimator, source)]
        return cls(
            quantiles=found.at(np.array(QUANTILES)),
            rows=found.rows,
            components=shown,
            feature_names=[names[c] for c in columns],
            ordered=ordered,
            notes=said + say_components(mixture.weights, shown) + notes,
        ).plot(ax)

    def plot(self, ax: Any = None) -> Self:
        """Draw.

        Parameters
        ----------
        ax : matplotlib Axes, optional
            Which the panels divide; by default a new figure.

        Returns
        -------
        self : ProfileDisplay
        """
        plt = pyplot()
        n = len(self.components) if self.ordered else len(self.feature_names)
        across = min(4, n)
        down = -(-n // across)
        if ax is None:
            each = 2.4 if self.ordered else 0.6 + 0.3 * len(self.components)
            size = (max(4.8, 2.4 * across), max(1.4, each) * down + 0.9)
            _, ax = plt.subplots(figsize=size, layout="constrained")
        self.figure_ = ax.figure.figure
        inner, places = divide(ax, down, across, self.notes)
        axes: list[Any] = []
        for i in range(n):
            share: Any = {"sharey": axes[0]} if axes else {}
            own = inner.add_subplot(places[i], **share)
            if self.ordered:
                self._profile(own, i)
            else:
                self._feature(own, i)
            if i % across:
                own.tick_params(labelleft=False)
            plain(own)
            axes.append(own)
        self.ax_ = np.array(axes, dtype=object)
        return self

    def _feature(self, ax: Any, j: int) -> None:
        """A bar from 5 to 95 % for each class, and a dot at its median."""
        at = np.arange(len(self.components))
        low, middle, high = self.quantiles[:, j].T
        for s in at:
            colour = COLOURS[s % len(COLOURS)]
            ax.plot(
                [low[s], high[s]], [s, s], color=colour, lw=4, alpha=0.45, solid_capstyle="butt"
            )
            ax.plot(middle[s], s, "o", color=colour, mec="white", ms=6)
        ax.set_yticks(at, [str(k) for k in self.components])
        ax.set_ylim(len(at) - 0.5, -0.5)
        ax.set_title(text(self.feature_names[j]), fontsize="small")
        ax.tick_params(labelsize="small")
        ax.grid(axis="x", color="0.9")

    def _profile(self, ax: Any, s: int) -> None:
        """The quantiles of one class along the features."""
        at = np.arange(len(self.feature_names))
        low, middle, high = self.quantiles[s].T
        colour = COLOURS[s % len(COLOURS)]
        ax.fill_between(at, low, high, color=colour, alpha=0.3, lw=0)
        ax.plot(at, middle, color=colour, lw=1.6)
        ax.set_title(f"{self.components[s]}: {self.rows[s]:,} rows", fontsize="small")
        ends = [0, len(at) - 1] if len(at) > 1 else [0]
        ax.set_xticks(ends, [text(self.feature_names[i], 12) for i in ends], fontsize="small")
