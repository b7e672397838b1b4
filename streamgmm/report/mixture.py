"""`MixtureDisplay`: the components of a mixture over the density of all rows."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from streamgmm.model.mixture import Mixture
from streamgmm.model.moments import Floats
from streamgmm.report.display import (
    divide,
    find_features,
    heaviest,
    look_at,
    model_of,
    names_of,
    open_for,
    percent,
    pyplot,
    say_components,
    say_gaps,
    text,
    write_notes,
)
from streamgmm.report.layers import SHARES, draw_curves, draw_density, draw_ellipses
from streamgmm.summaries.histograms import BINS, Grid, Histograms, lay_grid
from streamgmm.summaries.look import check_weight
from streamgmm.summaries.marginals import Marginal, marginal
from streamgmm.summaries.moments import covariances_of, draws_of, moments_of, separation

MOST_COMPONENTS = 12
MOST_DOTS = 5000  # means of the other components
MOST_FEATURES = 6  # of a pair plot
CHOSEN_FEATURES = 4  # where none are named


class MixtureDisplay:
    """Components of a mixture over the density of all rows.

    One feature gives a one-dimensional mixture: its parts, and their sum. Two give ellipses, and
    more a plot of every pair. The density is that of all rows, counted in one pass; it is never a
    sample. Make one with `from_estimator`.

    Parameters
    ----------
    grid : Grid
        The bins of the features.
    histograms : Histograms or None
        Counts of all rows.
    feature_names : sequence of str
        Of the features that are shown.
    components : ndarray of shape (n_shown,)
        Numbers of the components that are shown.
    means : ndarray of shape (n_shown, n_features)
    covariances : ndarray of shape (n_shown, n_features, n_features)
    marginals : sequence of Marginal
        The one-dimensional mixture along each feature.
    others : ndarray of shape (n_others, n_features), optional
        Means of components that are shown as a dot.
    notes : sequence of str
        What the picture says of what it shows, and leaves out.

    Attributes
    ----------
    ax_ : matplotlib Axes, or ndarray of Axes
        Of a pair plot those below the diagonal and on it; None above it.
    figure_ : matplotlib Figure

    Examples
    --------
    >>> import numpy as np
    >>> from streamgmm import GaussianMixture, MixtureDisplay
    >>> X = np.random.default_rng(0).normal(size=(500, 3))
    >>> model = GaussianMixture(2, random_state=0).fit(X)
    >>> display = MixtureDisplay.from_estimator(model, X, features=[0, 2])
    >>> display.ax_.get_xlabel(), display.ax_.get_ylabel()
    ('x0', 'x2')
    """

    ax_: Any
    figure_: Any

    def __init__(
        self,
        *,
        grid: Grid,
        histograms: Histograms | None,
        feature_names: Sequence[str],
        components: NDArray[np.intp],
        means: Floats,
        covariances: Floats,
        marginals: Sequence[Marginal],
        others: Floats | None = None,
        notes: Sequence[str] = (),
    ) -> None:
        self.grid = grid
        self.histograms = histograms
        self.feature_names = feature_names
        self.components = components
        self.means = means
        self.covariances = covariances
        self.marginals = marginals
        self.others = others
        self.notes = notes

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        X: Any = None,
        *,
        features: Any = None,
        feature_names: Sequence[str] | None = None,
        sample_weight: Any = None,
        bins: int = BINS,
        ax: Any = None,
    ) -> Self:
        """Count all rows in one pass, and draw the components over their density.

        Parameters
        ----------
        estimator : GaussianMixture, MixtureModel, OnlineGaussianMixture or KMeans
            Fitted.
        X : array-like, zarr.Array, str or path, dask.array.Array, or Source, optional
            Of shape (n_samples, n_features). Without it the components alone are drawn.
        features : int, str, or sequence of these, optional
            Numbers or names. By default all where there are up to four, else the four that
            separate the components most. Of more than six the first six are shown.
        feature_names : sequence of str, optional
            Names of all features; by default those seen in `fit`.
        sample_weight : array-like, zarr.Array, path or dask.array of shape (n_samples,), optional
        bins : int, default=64
            Of a feature.
        ax : matplotlib Axes, optional
            Where to draw; by default in a new figure. A pair plot divides it.

        Returns
        -------
        display : MixtureDisplay

        Raises
        ------
        ParameterError
            If there is no such feature (the nearest is suggested), or no such model;
            MissingExtraError without matplotlib.
        sklearn.exceptions.NotFittedError, DataError, SourceError
            As `predict`.
        """
        pyplot()
        mixture = model_of(estimator)
        names = names_of(estimator, mixture.n_features, feature_names)
        columns, notes = _choose(mixture, features, names)
        shown = heaviest(mixture.weights, MOST_COMPONENTS)
        grid = lay_grid(mixture, columns, bins=bins)
        found, gaps = None, []
        if X is not None:
            source = open_for(estimator, mixture, X, sample_weight)
            (found,) = look_at(estimator, source, [grid])
            gaps = say_gaps(estimator, source)
            check_weight(found.weight, "X")
        marginals = [] if len(columns) == 2 else [
            marginal(mixture, grid, j, shown) for j in range(len(columns))
        ]  # fmt: skip
        moments = moments_of(mixture)
        rest = np.setdiff1d(np.flatnonzero(mixture.weights > 0), shown)[:MOST_DOTS]
        notes = [
            *_say_rows(found, [names[c] for c in columns]),
            *gaps,
            *say_components(
                mixture.weights, shown, ", the others as dots" if len(columns) > 1 else ""
            ),
            *notes,
            *_say_ellipses(mixture, moments.draws, len(columns)),
        ]
        display = cls(
            grid=grid,
            histograms=found,
            feature_names=[names[c] for c in columns],
            components=shown,
            means=moments.means[shown][:, columns],
            covariances=covariances_of(mixture, np.array(columns))[shown],
            marginals=marginals,
            others=moments.means[rest][:, columns],
            notes=notes,
        )
        return display.plot(ax)

    def plot(self, ax: Any = None) -> Self:
        """Draw.

        Parameters
        ----------
        ax : matplotlib Axes, optional
            By default of a new figure.

        Returns
        -------
        self : MixtureDisplay
        """
        plt = pyplot()
        m = len(self.feature_names)
        if ax is None:
            size = (6.4, 5.2) if m <= 2 else (2.3 * m + 1, 2.3 * m + 0.6)
            _, ax = plt.subplots(figsize=size, layout="constrained")
        self.figure_ = ax.figure.figure
        if m == 1:
            self.ax_ = ax
            self._draw_line(ax, 0)
            ax.set_xlabel(text(self.feature_names[0]))
            ax.set_ylabel("density")
            write_notes(ax, self.notes)
        elif m == 2:
            self.ax_ = ax
            self._draw_pair(ax, 0, [0, 1])
            ax.set_xlabel(text(self.feature_names[0]))
            ax.set_ylabel(text(self.feature_names[1]))
            write_notes(ax, self.notes)
        else:
            self.ax_ = self._draw_pairs(ax)
        return self

    def _draw_pairs(self, ax: Any) -> NDArray[Any]:
        """Every pair below the diagonal, single features on it, and notes above it."""
        m = len(self.feature_names)
        inner, cells = divide(ax, m, m)
        axes = np.full((m, m), None, dtype=object)
        places = {(int(a), int(b)): q for q, (a, b) in enumerate(self.grid.pairs)}
        for row in range(m):
            for column in range(row + 1):
                own = axes[row, column] = inner.add_subplot(cells[row, column])
                if row == column:
                    self._draw_line(own, row, small=True)
                    own.set_yticks([])
                else:
                    self._draw_pair(own, places[column, row], [column, row], small=True)
                    if column:
                        own.set_yticklabels([])
                if row == m - 1:
                    own.set_xlabel(text(self.feature_names[column], 18))
                else:
                    own.set_xticklabels([])
                if column == 0 and row:
                    own.set_ylabel(text(self.feature_names[row], 18))
        corner = inner.add_subplot(cells[0, 1:])
        corner.set_axis_off()
        lines = "\n".join(_wrapped(self.notes, 20 * (m - 1)))
        corner.text(0.03, 1, lines, va="top", ha="left", fontsize="small", color="0.25")
        corner.set_in_layout(False)
        return axes

    def _draw_line(self, ax: Any, j: int, small: bool = False) -> None:
        """The j-th feature alone."""
        rows = None
        if self.histograms is not None:
            rows = self.histograms.single(j) / self.histograms.weight / self.grid.width[j]
        draw_curves(ax, self.grid.edges(j), rows, self.marginals[j], self.components, small)

    def _draw_pair(self, ax: Any, q: int, at: list[int], small: bool = False) -> None:
        """Two features, the first across: the q-th pair of the grid."""
        counts = None if self.histograms is None else self.histograms.joint(q)
        draw_density(ax, self.grid.edges(at[0]), self.grid.edges(at[1]), counts, bar=not small)
        if self.others is not None and len(self.others):
            ax.plot(*self.others[:, at].T, "o", ms=2.2, mfc="white", mec="0.1", mew=0.5)
        covariances = self.covariances[:, at][:, :, at]
        draw_ellipses(ax, self.components, self.means[:, at], covariances, small)


def _choose(mixture: Mixture, features: Any, names: Sequence[str]) -> tuple[list[int], list[str]]:
    """The features that are shown, and what is said of it."""
    if features is not None:
        columns = find_features(features, names)
        if len(columns) > MOST_FEATURES:
            said = f"The first {MOST_FEATURES} of {len(columns)} features that were asked for."
            return columns[:MOST_FEATURES], [said]
        return columns, []
    d = mixture.n_features
    if d <= CHOSEN_FEATURES:
        return list(range(d)), []
    order = np.argsort(-separation(mixture, moments_of(mixture)), kind="stable")
    said = f"{CHOSEN_FEATURES} of {d} features: those that separate the components most."
    return sorted(order[:CHOSEN_FEATURES].tolist()), [said]


def _say_rows(found: Histograms | None, names: Sequence[str]) -> list[str]:
    """How many rows are counted, and how many lie beyond the picture."""
    if found is None:
        return ["The model alone, without rows."]
    said = [f"All {found.n_rows:,} rows." if found.n_rows > 1 else "One row."]
    beyond = found.outside()
    worst = int(beyond.argmax())
    if beyond[worst] > 1e-12:
        said.append(
            f"{percent(float(beyond[worst]))} lie beyond the range of {text(names[worst])}."
        )
    return said


def _say_ellipses(mixture: Mixture, draws: int, m: int) -> list[str]:
    if m == 1:
        return []
    if draws:
        return [f"Ellipses: moments of {draws_of(mixture):,} draws of each component."]
    return [f"Ellipses hold {' and '.join(percent(s) for s in SHARES)} of a component."]


def _wrapped(notes: Sequence[str], width: int) -> list[str]:
    return [line for note in notes for line in textwrap.wrap(note, width)]
