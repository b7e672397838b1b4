"""`StreamDisplay`: the occupancy of components along the data, and drift."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from streamgmm.errors import ParameterError
from streamgmm.report.display import (
    COLOURS,
    STYLES,
    divide,
    heaviest,
    last_of,
    look_at,
    model_of,
    open_for,
    plain,
    pyplot,
    say_components,
    say_gaps,
)
from streamgmm.summaries.cells import CellCounts, CellRequest, rows_in_cells

STATISTICS = ("likelihood", "occupancy", "means", "covariances", "cusum")
HATCHES = ("", "///", "...", "\\\\\\", "xxx", "---")
MOST_COMPONENTS = 6
MOST_POINTS = 2000


class StreamDisplay:
    """What a stream has been: log-density, drift with its alarms, and occupancy.

    From ``monitor_`` of a model that learns; with rows, also how many of them each component
    takes along the data, counted in one pass. Make one with `from_estimator`.

    Parameters
    ----------
    monitor : mapping or None
        As ``monitor_``.
    first : float
        Rows before the first that the monitor remembers.
    cells : CellCounts or None
        Rows of each component in even runs of the data.
    n_samples : int
        Of the data of the cells.
    notes : sequence of str

    Attributes
    ----------
    ax_ : ndarray of matplotlib Axes
        One a panel.
    figure_ : matplotlib Figure

    Examples
    --------
    >>> import numpy as np
    >>> from streamgmm import OnlineGaussianMixture, StreamDisplay
    >>> rng = np.random.default_rng(0)
    >>> model = OnlineGaussianMixture(2, warm_up=500)
    >>> for _ in range(20):
    ...     model = model.partial_fit(rng.normal(size=(100, 1)) + 9 * rng.integers(2))
    >>> [ax.get_ylabel() for ax in StreamDisplay.from_estimator(model).ax_]
    ['log p, nats a row', 'drift statistics']
    """

    ax_: NDArray[Any]
    figure_: Any

    def __init__(
        self,
        *,
        monitor: Mapping[str, Any] | None,
        first: float = 0.0,
        cells: CellCounts | None = None,
        n_samples: int = 0,
        notes: Sequence[str] = (),
    ) -> None:
        self.monitor = monitor
        self.first = first
        self.cells = cells
        self.n_samples = n_samples
        self.notes = notes

    @classmethod
    def from_estimator(
        cls, estimator: Any, X: Any = None, *, sample_weight: Any = None, ax: Any = None
    ) -> Self:
        """Draw what a model that learns has seen, and what a model says along the rows of X.

        Parameters
        ----------
        estimator : OnlineGaussianMixture, MixtureModel, GaussianMixture or KMeans
            Fitted; with ``monitor_``, or X is needed.
        X : array-like, zarr.Array, str or path, dask.array.Array, or Source, optional
            Of shape (n_samples, n_features); read once.
        sample_weight : array-like, zarr.Array, path or dask.array of shape (n_samples,), optional
        ax : matplotlib Axes, optional
            Which the panels divide; by default a new figure.

        Returns
        -------
        display : StreamDisplay

        Raises
        ------
        ParameterError
            If there is neither a monitor nor rows; MissingExtraError without matplotlib.
        sklearn.exceptions.NotFittedError, DataError, SourceError
            As `predict`.
        """
        pyplot()
        mixture = model_of(estimator)
        monitor = monitor_of(last_of(estimator))
        if monitor is None and X is None:
            raise ParameterError(
                f"this {type(estimator).__name__} has watched no stream; give X, whose rows are "
                "then looked at in order"
            )
        first = 0.0
        if monitor is not None:
            first = max(0.0, float(last_of(estimator).n_samples_seen_ - np.sum(monitor["rows"])))
        if X is None:
            return cls(monitor=monitor, first=first).plot(ax)
        source = open_for(estimator, mixture, X, sample_weight)
        shown = heaviest(mixture.weights, MOST_COMPONENTS)
        cells = rows_in_cells(source.n_samples)
        request = CellRequest(cells, shown, mixture.n_components)
        (found,) = look_at(estimator, source, [request])
        said = [f"All {source.n_samples:,} rows, in {cells.n_cells} runs."]
        return cls(
            monitor=monitor,
            first=first,
            cells=found.whole(),
            n_samples=source.n_samples,
            notes=said
            + say_gaps(estimator, source)
            + say_components(mixture.weights, shown, ", the others together"),
        ).plot(ax)

    def plot(self, ax: Any = None) -> Self:
        """Draw.

        Parameters
        ----------
        ax : matplotlib Axes, optional
            Which the panels divide; by default a new figure.

        Returns
        -------
        self : StreamDisplay
        """
        plt = pyplot()
        panels = [self._likelihood]
        if self.monitor is not None and watched(self.monitor):
            panels.append(self._drift)
        if self.cells is not None:
            panels.append(self._occupancy)
        n = len(panels)
        if ax is None:
            _, ax = plt.subplots(figsize=(7.2, 2.2 * n + 0.6), layout="constrained")
        self.figure_ = ax.figure.figure
        inner, places = divide(ax, n, 1, [*self.notes, *self._say_alarms()])
        axes: list[Any] = []
        for i, draw in enumerate(panels):
            own = inner.add_subplot(places[i], sharex=axes[0] if axes else None)
            draw(own)
            plain(own)
            if i < n - 1:
                own.tick_params(labelbottom=False)
            axes.append(own)
        axes[-1].set_xlabel("row")
        axes[-1].xaxis.set_major_formatter(lambda x, _: f"{x:,.0f}")
        self.ax_ = np.array(axes, dtype=object)
        return self

    def _ends(self) -> NDArray[np.float64]:
        """The last row of each cell."""
        assert self.cells is not None
        n = self.cells.request.cells.n_cells
        return np.asarray(np.arange(n + 1) * self.n_samples / n)

    def _likelihood(self, ax: Any) -> None:
        if self.monitor is not None:
            at, values = thinned(self.monitor, "log_likelihood")
            ax.plot(self.first + at, values, color=COLOURS[0], lw=1, label="when learned")
            self._mark(ax)
        if self.cells is not None:
            ax.stairs(
                self.cells.log_density, self._ends(), color=COLOURS[1], lw=1.4, baseline=None,
                label="by this model",
            )  # fmt: skip
        if self.monitor is not None and self.cells is not None:
            ax.legend(frameon=False, fontsize="x-small")
        ax.set_ylabel("log p, nats a row")

    def _drift(self, ax: Any) -> None:
        """Each statistic on a scale that shows small and large ones."""
        assert self.monitor is not None
        for i, name in enumerate(STATISTICS):
            if name not in watched(self.monitor):
                continue
            at, values = thinned(self.monitor, name)
            ax.plot(
                self.first + at, np.maximum(values, 0.1), lw=1.1, color=COLOURS[i],
                ls=STYLES[i % len(STYLES)], label=name,
            )  # fmt: skip
        ax.set_yscale("log")
        ax.legend(frameon=False, fontsize="x-small", ncols=5, loc="upper left")
        ax.set_ylim(top=ax.get_ylim()[1] * 4)
        self._mark(ax)
        ax.set_ylabel("drift statistics")

    def _occupancy(self, ax: Any) -> None:
        assert self.cells is not None
        weight = self.cells.weight
        share = np.divide(
            self.cells.labels, weight[:, None], out=np.zeros_like(self.cells.labels),
            where=weight[:, None] > 0,
        )  # fmt: skip
        top = np.cumsum(share, axis=1)
        ends, below = self._ends(), np.zeros(len(share))
        names = [str(k) for k in self.cells.request.shown]
        if self.cells.labels[:, -1].sum() > 0:
            names.append("others")
        for i, name in enumerate(names):
            colour = COLOURS[i % len(COLOURS)] if name != "others" else "0.8"
            ax.stairs(
                top[:, i], ends, baseline=below, fill=True, color=colour, label=name, alpha=0.75,
                hatch=HATCHES[i % len(HATCHES)], ec="white", lw=0.3,
            )  # fmt: skip
            below = top[:, i]
        ax.set_ylim(0, 1)
        ax.set_ylabel("share of rows")
        ax.legend(
            title="component", fontsize="x-small", title_fontsize="x-small", frameon=False,
            loc="center left", bbox_to_anchor=(1, 0.5),
        )  # fmt: skip

    def _mark(self, ax: Any) -> None:
        """A line at each alarm."""
        assert self.monitor is not None
        for alarm in self.monitor.get("alarms", ())[-40:]:
            ax.axvline(alarm["row"], color=COLOURS[1], lw=1, ls=":")
        for change in self.monitor.get("changes", ())[-40:]:
            ax.axvline(change["row"], color=COLOURS[2], lw=1, ls="--")

    def _say_alarms(self) -> list[str]:
        if self.monitor is None:
            return []
        alarms, changes = self.monitor.get("alarms", ()), self.monitor.get("changes", ())
        said = "No alarm." if not alarms else (
            f"{len(alarms)} alarm{'s' * (len(alarms) > 1)} (dotted), the last after row "
            f"{alarms[-1]['row']:,}: {alarms[-1]['kind']}."
        )  # fmt: skip
        return [said] + ([f"{len(changes)} changes of components (dashed)."] if changes else [])


def monitor_of(estimator: Any) -> Mapping[str, Any] | None:
    """What a stream has been, where the model has watched one."""
    monitor = getattr(estimator, "monitor_", None)
    if not isinstance(monitor, Mapping) or not len(monitor.get("rows", ())):
        return None
    return monitor


def watched(monitor: Mapping[str, Any]) -> list[str]:
    """The drift statistics that there are."""
    return [n for n in STATISTICS if n in monitor and np.isfinite(monitor[n]).any()]


def thinned(monitor: Mapping[str, Any], name: str) -> tuple[NDArray[Any], NDArray[Any]]:
    """The row after each batch, and a value of it; means of neighbours where they are many."""
    rows = np.cumsum(np.asarray(monitor["rows"], np.float64))
    values = np.asarray(monitor[name], np.float64)
    step = -(-len(rows) // MOST_POINTS)
    if step > 1:
        n = len(rows) // step * step
        rows, values = rows[step - 1 : n : step], values[:n].reshape(-1, step).mean(axis=1)
    return rows, values
