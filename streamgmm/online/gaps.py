"""Steps of stepwise EM over rows with gaps, and such rows as a drift monitor sees them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from streamgmm.errors import DataError
from streamgmm.model.components import takes_gaps
from streamgmm.model.families.gaussian import Gaussian, GaussianDensity
from streamgmm.model.mixture import Mixture, e_step
from streamgmm.model.moments import Floats, Moments
from streamgmm.online.drift import Monitor
from streamgmm.online.settings import OnlineSettings
from streamgmm.online.state import RunningState
from streamgmm.predict.imputing import uniforms


def check_observed(settings: OnlineSettings, rows: NDArray[np.floating]) -> None:
    """Check that something was observed of each feature; raises DataError, which names those."""
    if not takes_gaps(settings.family):
        return
    lost = np.flatnonzero(np.isnan(rows).all(axis=0))
    if len(lost):
        listed = ", ".join(map(str, lost[:8])) + (", ..." if len(lost) > 8 else "")
        raise DataError(
            f"nothing was observed of feature {listed} in the {len(rows)} rows of the warm-up; "
            "leave it out, or give a longer warm_up"
        )


def mixture_of_running(settings: OnlineSettings, running: RunningState, d: int) -> Mixture:
    """The mixture of a running state, each component with a covariance of its own."""
    return _mixture(settings.apart, running.weight, running.means, running.chol, d)


def completed(
    settings: OnlineSettings, running: RunningState, X: NDArray[np.floating], weight: Floats
) -> tuple[Moments, float]:
    """Moments of rows with gaps, completed under a running state, and their log-likelihood."""
    mixture = mixture_of_running(settings, running, X.shape[1])
    found = e_step(mixture, X, weight if len(weight) else None)
    m = found.components
    return Moments(m.kind, m.weight, m.mean, m.scatter), found.log_likelihood


def blended(
    kind: str, old: tuple[Floats, Floats, Floats], new: Moments, share: float
) -> tuple[Floats, Floats, Floats]:
    """(1 - share) of the statistics `old`, and `share` of `new`, which has weight one."""
    before = Moments(kind, *old)  # type: ignore[arg-type]
    both = before.scale(1.0 - share).merge(new.scale(share))
    return both.weight, both.mean, both.scatter


def blend_running(running: RunningState, kind: str, new: Moments, gain: float) -> RunningState:
    """The running state with other statistics; its parameters are still the old ones."""
    old = running.weight, running.mean, running.scatter
    weight, mean, scatter = blended(kind, old, new, gain)
    return replace(running, weight=weight, mean=mean, scatter=np.ascontiguousarray(scatter))


def drawn(monitor: Monitor, X: NDArray[np.floating], row: int, seed: int) -> Floats:
    """Rows with their gaps filled by draws of the monitor's mixture given what was observed.

    As long as nothing changes, such rows have the distribution of whole ones, whatever is
    missing. Conditional means would be less spread out, and would tell of changes where only
    the share of gaps has changed.
    """
    d = monitor.n_features
    family = Gaussian("full" if monitor.wide else "diag", 0.0, gaps=True)
    k = len(monitor.const)
    mixture = _mixture(family, np.ones(k), monitor.means, monitor.chol, d)
    density = mixture.density
    assert isinstance(density, GaussianDensity)
    weights = np.exp(monitor.const - density.log_constants)
    density = GaussianDensity(weights / weights.sum(), density.components)
    filled = np.array(X, np.float64)
    uniform = uniforms(row + np.arange(len(X)), d + 1, seed)
    density.fill(filled, None, uniform[:, 0].copy(), ndtri(uniform[:, 1:]))
    return filled


def _mixture(family: Gaussian, weights: Floats, means: Floats, chol: Floats, d: int) -> Mixture:
    """A mixture from tables as the kernels take them."""
    k = len(weights)
    padded = len(means) // k
    own = means.reshape(k, padded)[:, :d].copy()
    if family.covariance.matrices:
        roots = chol.reshape(k, padded, padded)[:, :d, :d].copy()
        inverse = np.linalg.inv(roots)
        covariances = inverse.transpose(0, 2, 1) @ inverse
    else:
        roots = chol.reshape(k, padded)[:, :d].copy()
        covariances = 1.0 / roots**2
    components = family.components(means=own, covariances=covariances, precisions_cholesky=roots)
    with np.errstate(divide="ignore"):
        return Mixture(weights, components)
