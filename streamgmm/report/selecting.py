"""`SelectionDisplay`: criteria over the number of components, and what each would choose."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from streamgmm.errors import ParameterError
from streamgmm.report.display import COLOURS, MARKERS, STYLES, divide, plain, pyplot, text


class Criterion(NamedTuple):
    """A column of a selection's table: its name and unit, whether more is better, what it is."""

    column: str
    title: str
    unit: str
    greater: bool
    what: str
    error: str = ""


CRITERIA = (
    Criterion("bic", "BIC", "nats a row", False, "−2 log p, and log N for each parameter"),
    Criterion("aic", "AIC", "nats a row", False, "−2 log p, and 2 for each parameter"),
    Criterion("icl", "ICL", "nats a row", False, "BIC, and twice the doubt about labels"),
    Criterion(
        "holdout_log_likelihood", "held-out density", "log p, nats a row", True,
        "density of rows that were not fitted", "holdout_error",
    ),
    Criterion(
        "stability", "stability", "agreement", True, "the same labels from other starts",
        "stability_error",
    ),
    Criterion(
        "neighbours", "agreement with the next K", "agreement", True,
        "labels that fewer and more components share",
    ),
    Criterion("silhouette", "silhouette", "", True, "rows nearer to their cluster than the next"),
    Criterion("elbow", "the elbow", "below the chord", True, "where more clusters gain little"),
    Criterion("inertia", "inertia", "a row", False, "it always falls, and chooses nothing"),
)  # fmt: skip
"""In the order of the panels; those that a table has not are left out."""

SILENT = ("inertia", "neighbours")  # they choose nothing
SUMMED = ("bic", "aic", "icl", "inertia")  # over rows
MOST_KINDS = 8


class SelectionDisplay:
    """Every criterion over the number of components, with standard errors where there are any.

    A star marks what each would choose. Make one with `from_estimator`.

    Parameters
    ----------
    table : mapping of str to ndarray
        As ``table`` of a `streamgmm.Selection` or `streamgmm.ClusterSelection`.
    n_rows : float
        By which criteria that are summed over rows are divided.
    choices : mapping of str to int, optional
        The row of the table that each criterion would choose, as ``choices`` of a selection; by
        default the one with the best value.
    notes : sequence of str

    Attributes
    ----------
    ax_ : ndarray of matplotlib Axes
        One a criterion.
    figure_ : matplotlib Figure

    Examples
    --------
    >>> import numpy as np
    >>> from streamgmm import SelectionDisplay, select
    >>> rng = np.random.default_rng(0)
    >>> X = rng.normal(size=(900, 2)) + 8 * rng.integers(3, size=900)[:, None]
    >>> display = SelectionDisplay.from_estimator(select(X, range(1, 6), random_state=0))
    >>> len(display.ax_)
    4
    """

    ax_: NDArray[Any]
    figure_: Any

    def __init__(
        self,
        *,
        table: Mapping[str, NDArray[Any]],
        n_rows: float = 1.0,
        choices: Mapping[str, int] | None = None,
        notes: Sequence[str] = (),
    ) -> None:
        self.table = table
        self.choices = choices or {}
        self.n_rows = n_rows
        self.notes = notes

    @classmethod
    def from_estimator(cls, selection: Any, *, ax: Any = None) -> Self:
        """Draw what `streamgmm.select` or `streamgmm.select_clusters` found.

        Parameters
        ----------
        selection : Selection, ClusterSelection, or the model that came out best
        ax : matplotlib Axes, optional
            Which the panels divide; by default a new figure.

        Returns
        -------
        display : SelectionDisplay

        Raises
        ------
        ParameterError
            If nothing was selected; MissingExtraError without matplotlib.
        """
        pyplot()
        table = getattr(selection, "table", None)
        model = getattr(selection, "best", selection)
        if table is None:
            table = getattr(selection, "selection_", None)
        if not isinstance(table, Mapping):
            raise ParameterError(
                f"{type(selection).__name__} is no selection; give what streamgmm.select returned"
            )
        choices = getattr(selection, "choices", None) or table.get("choices")
        return cls(table=table, n_rows=rows_of(model), choices=choices).plot(ax)

    def plot(self, ax: Any = None) -> Self:
        """Draw.

        Parameters
        ----------
        ax : matplotlib Axes, optional
            Which the panels divide; by default a new figure.

        Returns
        -------
        self : SelectionDisplay
        """
        plt = pyplot()
        shown = [each for each in CRITERIA if has(self.table, each.column)]
        if not shown:
            raise ParameterError("the table has no criterion that could be drawn")
        across = min(2, len(shown))
        down = -(-len(shown) // across)
        if ax is None:
            size = (4.4 * across, 3.1 * down + 0.5)
            _, ax = plt.subplots(figsize=size, layout="constrained")
        self.figure_ = ax.figure.figure
        inner, places = divide(ax, down, across, self.notes)
        axes = []
        for i, each in enumerate(shown):
            own = inner.add_subplot(places[i])
            self._draw(own, each)
            axes.append(own)
        self.ax_ = np.array(axes, dtype=object)
        if len(kinds_of(self.table)) > 1:
            axes[0].legend(frameon=False, fontsize="small")
        return self

    def _error_of(self, criterion: Criterion, i: int) -> float:
        """The standard error of a candidate, 0 where it is not known."""
        if not criterion.error or not has(self.table, criterion.error):
            return 0.0
        return float(np.nan_to_num(self.table[criterion.error][i]))

    def _draw(self, ax: Any, criterion: Criterion) -> None:
        """A line for each kind of components, a star at the best of all."""
        from matplotlib.ticker import MaxNLocator

        ks = sizes_of(self.table)
        scale = self.n_rows if criterion.column in SUMMED else 1.0
        values = np.asarray(self.table[criterion.column], np.float64) / scale
        left = ~np.asarray(self.table.get("converged", np.ones(len(ks), np.bool_)), np.bool_)
        kinds = kinds_of(self.table)
        for i, (kind, chosen) in enumerate(list(kinds.items())[:MOST_KINDS]):
            style = {"color": COLOURS[i % len(COLOURS)], "marker": MARKERS[i % len(MARKERS)]}
            order = chosen[np.argsort(ks[chosen], kind="stable")]
            order = order[np.isfinite(values[order])]
            ax.plot(
                ks[order], values[order], ms=4.5, lw=1.4, ls=STYLES[i % len(STYLES)],
                label=text(kind), **style,
            )  # fmt: skip
            out = order[left[order]]
            ax.plot(ks[out], values[out], ls="", ms=4.5, mfc="white", **style, zorder=3)
            if criterion.error and has(self.table, criterion.error):
                error = np.nan_to_num(np.asarray(self.table[criterion.error], np.float64))
                ax.errorbar(
                    ks[order], values[order], error[order], ls="", capsize=2.5, lw=1,
                    color=style["color"], alpha=0.7,
                )  # fmt: skip
        best, choice = best_of(self.table, criterion, self.choices), ""
        if best is not None:
            ax.plot(ks[best], values[best], "*", ms=15, mfc="#F0E442", mec="0.1", mew=1, zorder=4)
            kind = next(name for name, at in kinds.items() if best in at)
            choice = f" chooses K = {ks[best]}" + (f", {text(kind)}" if len(kinds) > 1 else "")
        title = f"{criterion.title}{choice}\n{criterion.what}"
        ax.set_title(title, loc="left", fontsize="small")
        ax.set_ylabel(criterion.unit, fontsize="small")
        spread = 0.0 if best is None else self._error_of(criterion, best)
        _show_best(ax, values, criterion, spread)
        ax.set_xlabel("K, components")
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        ax.ticklabel_format(axis="y", useOffset=False)
        plain(ax)
        if (left & np.isfinite(values)).any():
            ax.annotate(
                "hollow: left before the end", (1, 0), xycoords="axes fraction", ha="right",
                va="bottom", fontsize="x-small", color="0.35",
            )  # fmt: skip


def _show_best(ax: Any, values: NDArray[Any], criterion: Criterion, error: float) -> None:
    """Cut off what is so far from the best that the good ones would look alike."""
    order = np.sort(values[np.isfinite(values)])
    if criterion.column == "inertia" or len(order) < 4:
        return
    order = order[::-1] if criterion.greater else order
    good = order[len(order) // (4 if len(order) >= 8 else 2)]
    near, far = abs(good - order[0]), abs(order[-1] - order[0])
    near = max(near, 1.5 * error)
    if far > 6 * near > 0:
        sign = -1 if criterion.greater else 1
        ax.set_ylim(*sorted((order[0] - sign * 0.8 * near, order[0] + sign * 3 * near)))


def has(table: Mapping[str, Any], column: str) -> bool:
    """Whether a table has numbers in a column."""
    if column not in table:
        return False
    values = np.asarray(table[column])
    return values.dtype.kind in "fiu" and bool(np.isfinite(values.astype(np.float64)).any())


def sizes_of(table: Mapping[str, Any]) -> NDArray[np.int64]:
    """K of each candidate."""
    name = "n_components" if "n_components" in table else "n_clusters"
    return np.asarray(table[name], np.int64)


def kinds_of(table: Mapping[str, Any]) -> dict[str, NDArray[np.intp]]:
    """Candidates of each covariance type or family, by its name."""
    name = next((n for n in ("covariance_type", "family") if n in table), None)
    if name is None:
        return {"": np.arange(len(sizes_of(table)))}
    kinds = [str(each) for each in table[name]]
    return {
        kind: np.flatnonzero(np.array([each == kind for each in kinds]))
        for kind in dict.fromkeys(kinds)
    }


def best_of(
    table: Mapping[str, Any], criterion: Criterion, choices: Mapping[str, int] | None = None
) -> int | None:
    """The candidate that a criterion chooses; None for one that chooses nothing."""
    if criterion.column in SILENT:
        return None
    known = (choices or {}).get(criterion.column.removesuffix("_log_likelihood"))
    if known is not None:
        return int(known)
    values = np.asarray(table[criterion.column], np.float64)
    return int(np.nanargmax(values if criterion.greater else -values))


def rows_of(model: Any) -> float:
    """Rows that a model was fitted to, as its history counts them; 1 where it has none."""
    history = getattr(model, "history_", None)
    if not isinstance(history, Mapping) or not len(history.get("rows", ())):
        return 1.0
    return float(history["rows"][-1] / history["passes"][-1])
