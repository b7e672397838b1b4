"""`ConvergenceDisplay`: the free energy and the log-likelihood of a fit, by iteration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.utils.validation import check_is_fitted

from streamgmm.errors import ParameterError
from streamgmm.report.display import COLOURS, last_of, plain, pyplot, write_notes


class ConvergenceDisplay:
    """The lower bound F that a fit climbs, by iteration, and the log-likelihood above it.

    KL = log p − F is the gap between the two, where a read at one model told it. Make one with
    `from_estimator`.

    Parameters
    ----------
    history : mapping of str to ndarray
        As ``history_`` of an estimator.
    n_rows : float
        Rows, or their weight, by which nats are divided.
    notes : sequence of str

    Attributes
    ----------
    ax_ : matplotlib Axes
    figure_ : matplotlib Figure

    Examples
    --------
    >>> import numpy as np
    >>> from streamgmm import ConvergenceDisplay, GaussianMixture
    >>> X = np.random.default_rng(0).normal(size=(500, 2))
    >>> display = ConvergenceDisplay.from_estimator(GaussianMixture(2, random_state=0).fit(X))
    >>> display.ax_.get_xlabel()
    'iteration'
    """

    ax_: Any
    figure_: Any

    def __init__(
        self, *, history: Mapping[str, NDArray[Any]], n_rows: float, notes: Sequence[str] = ()
    ) -> None:
        self.history = history
        self.n_rows = n_rows
        self.notes = notes

    @classmethod
    def from_estimator(cls, estimator: Any, *, ax: Any = None) -> Self:
        """Draw the history of a fit.

        Parameters
        ----------
        estimator : GaussianMixture, MixtureModel or KMeans
            Fitted, with ``history_``.
        ax : matplotlib Axes, optional

        Returns
        -------
        display : ConvergenceDisplay

        Raises
        ------
        ParameterError
            If it has no history, as what is learned from a stream; MissingExtraError without
            matplotlib.
        sklearn.exceptions.NotFittedError
        """
        pyplot()
        estimator = last_of(estimator)
        check_is_fitted(estimator)
        history = getattr(estimator, "history_", None)
        if not isinstance(history, Mapping) or "free_energy" not in history:
            raise ParameterError(
                f"this {type(estimator).__name__} has no history of iterations; fit it, or use "
                "StreamDisplay for what is learned from a stream"
            )
        n = len(history["free_energy"])
        rows = history["rows"][-1] / history["passes"][-1] if n else 1.0
        said = [
            f"{n} iterations, {float(history['passes'][-1]):.3g} reads." if n else "No iteration."
        ]
        if hasattr(estimator, "converged_"):
            said[0] = ("Converged: " if estimator.converged_ else "Not converged: ") + said[0]
        return cls(history=history, n_rows=float(max(rows, 1.0)), notes=said).plot(ax)

    def plot(self, ax: Any = None) -> Self:
        """Draw.

        Parameters
        ----------
        ax : matplotlib Axes, optional
            By default of a new figure.

        Returns
        -------
        self : ConvergenceDisplay
        """
        plt = pyplot()
        if ax is None:
            _, ax = plt.subplots(figsize=(6.4, 4.4), layout="constrained")
        self.ax_, self.figure_ = ax, ax.figure.figure
        at = np.asarray(self.history["iteration"])
        energy = np.asarray(self.history["free_energy"]) / self.n_rows
        above = np.asarray(self.history["log_likelihood"]) / self.n_rows
        marker = "o" if len(at) <= 60 else None
        ax.plot(at, energy, color=COLOURS[0], marker=marker, ms=4, label="F, the lower bound")
        known = np.isfinite(above) & np.isfinite(energy)
        if known.any():
            ax.vlines(at[known], energy[known], above[known], color=COLOURS[1], lw=2, alpha=0.6)
            ax.plot(
                at[known], above[known], ls="", marker="D", ms=5, mfc="none", color=COLOURS[1],
                label="log p, where it was read",
            )  # fmt: skip
        mended = np.asarray(self.history.get("mended", np.zeros(len(at), np.bool_)), np.bool_)
        for x in at[mended]:
            ax.axvline(x, color="0.5", ls=":", lw=1)
        if mended.any():
            ax.plot([], [], color="0.5", ls=":", label="components were mended")
        ax.set_xlabel("iteration")
        ax.set_ylabel("nats a row")
        ax.ticklabel_format(axis="y", useOffset=False)
        from matplotlib.ticker import MaxNLocator

        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        ax.legend(frameon=False, fontsize="small", loc="lower right")
        plain(ax)
        notes = list(self.notes)
        if known.any():
            kl = max(0.0, float((above - energy)[known][-1]))
            notes.append(f"KL = log p − F is {kl:.2g} nats a row at the end.")
        write_notes(ax, notes)
        return self
