"""The bound that EM climbs: every half-step in numbers, and as a staircase."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from streamgmm.errors import ParameterError
from streamgmm.estimators.kmeans import KMeans
from streamgmm.estimators.rows import open_rows
from streamgmm.fitting.fit import fit
from streamgmm.fitting.settings import FitSettings
from streamgmm.fitting.tracing import trace
from streamgmm.model.mixture import Mixture
from streamgmm.sources import Source


def trace_bound(
    model: Any, X: Any, n_iter: int = 10, *, sample_weight: Any = None
) -> dict[str, NDArray[Any]]:
    """Show what EM does: the lower bound and the log-likelihood after each of its half-steps.

    For any distribution q over the latent components z of the rows,

        log p(X | θ) = F(q, θ) + KL(q ‖ p(z | X, θ)),
        F(q, θ) = Σ_z q(z) log p(X, z | θ) - Σ_z q(z) log q(z),

    and KL ≥ 0, so F is a lower bound (Neal & Hinton 1998, "A view of the EM algorithm that
    justifies incremental, sparse, and other variants", eq. 7; Bishop 2006, "Pattern Recognition
    and Machine Learning", section 9.4, eqs. 9.70-9.72). The E-step raises F over q: it sets q to
    the posterior, so KL = 0 and F = log p. The M-step raises F over θ: log p rises by at least as
    much, and KL > 0 again.

    F is a bound for other q too. With hard assignments q is one-hot, its entropy is zero, and
    after the E-step KL = -Σ log max_k r_k. Incremental EM (``algorithm="incremental"``) renews q
    for one group of blocks at a time, and KL is what the other groups lag behind.

    Parameters
    ----------
    model : GaussianMixture, KMeans, or another mixture of this package
        One that is fitted goes on from its parameters. Another starts as its `fit` would: the
        first of its starts. It is not changed.
    X : array-like, zarr.Array, str or path, dask.array.Array, or Source
        Of shape (n_samples, n_features).
    n_iter : int, default=10
        Iterations; of incremental EM, sweeps over all groups of blocks. Steps are plain: none
        is extrapolated, and none is left out because EM has converged.
    sample_weight : array-like, zarr.Array, path or dask.array of shape (n_samples,), optional

    Returns
    -------
    dict of str to ndarray
        Of equal length, a value a half-step: ``half_step``, ``"E"`` or ``"M"``; and
        ``free_energy`` F, ``log_likelihood`` and their difference ``kl``, nats summed over rows.
        Batch EM has one of each for an iteration. Incremental EM has, after the first, one of
        each for every group of blocks.

    Raises
    ------
    ParameterError
        If `n_iter` is less than one, or `model` is no mixture, or one without a `fit` that has
        not learned yet.
    DataError, SourceError, SingularCovarianceError
        As `GaussianMixture.fit`.

    Examples
    --------
    >>> from streamgmm import GaussianMixture, trace_bound
    >>> X = [[0.0], [1.0], [2.0], [2.5], [3.0], [4.5], [5.0]]
    >>> found = trace_bound(GaussianMixture(2, random_state=0), X, n_iter=2)
    >>> found["half_step"].tolist()
    ['E', 'M', 'E', 'M']
    >>> bool(np.allclose(found["kl"][::2], 0)), bool(found["kl"][1] > 0)
    (True, True)
    """
    if n_iter < 1:
        raise ParameterError(f"n_iter={n_iter} must be 1 or more")
    if not hasattr(model, "_mixture") or not hasattr(model, "_n_threads"):
        raise ParameterError(f"{type(model).__name__} is no mixture whose bound can be traced")
    source, mixture, settings = _begin(model, X, sample_weight)
    return trace(
        source,
        mixture,
        n_iter,
        hard=settings is not None and settings.assignment == "hard",
        incremental=settings is not None and settings.algorithm == "incremental",
        block_size=model.block_size,
        n_threads=model._n_threads(),
    )


def _begin(model: Any, X: Any, sample_weight: Any) -> tuple[Source, Mixture, FitSettings | None]:
    """The rows, the mixture to start from, and how a fit would climb; None: in batches."""
    try:
        check_is_fitted(model)
    except NotFittedError:
        own = clone(model)
        source = open_rows(own, X, sample_weight)
        settings = _settings(own, source)
        if settings is None:
            raise ParameterError(
                f"this {type(model).__name__} has not learned yet: fit it first"
            ) from None
        if isinstance(own, KMeans):
            return source, own._start(source), settings
        random_state = check_random_state(own.random_state)
        given = own._start(source, settings).mixture
        none = replace(settings, max_iter=0)
        found = fit(source, none, random_state, start=given, n_threads=own._n_threads())
        return source, found.mixture, settings
    mixture: Mixture = model._mixture()
    source = open_rows(model, X, sample_weight, n_features=mixture.n_features)
    return source, mixture, _settings(model, source)


def _settings(model: Any, source: Source) -> FitSettings | None:
    """How a fit of the model would climb; None for one that learns otherwise."""
    found = model._settings(source.n_features) if hasattr(model, "_settings") else None
    return found if isinstance(found, FitSettings) else None


def save_staircase(
    path: str | os.PathLike[str], traced: Mapping[str, NDArray[Any]], *, title: str = ""
) -> None:
    """Draw what `trace_bound` has found: F as a staircase under the log-likelihood.

    E-steps lift F over q, up to the log-likelihood where q is exact; M-steps lift it over θ. What
    is between the two curves is KL.

    Parameters
    ----------
    path : str or path-like
        Of an image file that matplotlib writes, such as PNG, SVG or PDF.
    traced : mapping
        From `trace_bound`.
    title : str
        Over the picture.

    Raises
    ------
    ParameterError
        If matplotlib is not installed, or there is no half-step.
    """
    try:
        from matplotlib.figure import Figure
        from matplotlib.ticker import NullFormatter
    except ImportError as error:
        raise ParameterError("pictures need matplotlib: pip install 'streamgmm[plot]'") from error
    kinds, energy = traced["half_step"], traced["free_energy"]
    above = traced["log_likelihood"]
    if not len(energy):
        raise ParameterError("there is no half-step to draw")
    figure = Figure(figsize=(8, 6), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    at = np.arange(len(energy) + 1)  # each half-step lasts until the next
    f, p = (np.append(values, values[-1]) for values in (energy, above))
    upper.fill_between(at, f, p, step="post", color="C0", alpha=0.2, label="KL", lw=0)
    upper.step(at, p, where="post", color="0.35", label="log p(X | θ)")
    upper.step(at, f, where="post", color="C0", label="F(q, θ)")
    for kind, colour, what in (("E", "C0", "E-step, over q"), ("M", "C1", "M-step, over θ")):
        chosen = np.flatnonzero(kinds == kind)
        size = 5 if len(energy) <= 40 else 2.5
        upper.plot(chosen, energy[chosen], "o", color=colour, ms=size, label=what)
    upper.set_ylim(*_range(energy, above))
    upper.set_ylabel("nats, summed over rows")
    upper.set_title(title)
    upper.legend(loc="best", frameon=False)
    kl = np.where(traced["kl"] > 1e-12 * np.abs(above), traced["kl"], 0.0)
    wide = kl.max() > 100 * kl.min(where=kl > 0, initial=np.inf)
    shown = np.where(kl > 0, kl, np.nan) if wide else kl
    lower.step(at, np.append(shown, shown[-1]), where="post", color="C0")
    lower.set_yscale("log" if wide else "linear")
    lower.yaxis.set_minor_formatter(NullFormatter())
    lower.set_ylabel("KL, nats (gap: 0)" if wide else "KL, nats")
    if len(energy) <= 24:
        lower.set_xticks(at[:-1], [str(kind) for kind in kinds])
    lower.set_xlabel("half-steps")
    for axes in (upper, lower):
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=150)


def _range(energy: NDArray[Any], above: NDArray[Any]) -> tuple[float, float]:
    """Limits that show the steps: a first rise that dwarfs all others is cut off."""
    low, high = float(energy[0]), float(above.max())
    if len(energy) > 2:
        low = max(low, 1.15 * float(energy[1]) - 0.15 * high)
    margin = 0.06 * max(high - low, 1e-9 * abs(high), 1e-300)
    return low - margin, high + margin
