"""The E-step of Gaussian components over rows with gaps, and what they say of such rows.

A piece without gaps goes to the ordinary kernels, and so do its rows without gaps. Rows of a
pattern that many have go there too, under the marginal model: their sums over the observed
features are completed by a linear map, once for a block. Rows of all other patterns are taken one
after the other, by a kernel for which each row may have a pattern of its own.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamgmm.model.components import NO_WEIGHT, Accumulator, BlockSums, Posterior
from streamgmm.model.gaps.marginal import Marginal, marginal_of
from streamgmm.model.gaps.moments import GapMoments, complete_moments, entropy_of
from streamgmm.model.gaps.patterns import has_gaps, patterns_of
from streamgmm.model.gaps.tables import GapSums, Tables
from streamgmm.model.moments import Floats

MANY = 256
"""Rows of a piece that have one pattern, from which on it may be worth a model of its own."""

WORTH = 2_500_000
"""The same times K·D², which is what a row costs: a pattern itself costs some 0.25 ms a block."""

MOST_PATTERNS = 64
"""Patterns that a block keeps sums for; rows of further ones are taken one after the other."""

HELD_BYTES = 64 << 20
"""Of marginal models that are held for all blocks; what was used longest ago goes first."""

Open = Callable[[Any, Floats | None], Accumulator]
_NO_LABELS = np.empty(0, np.int32)
_log = logging.getLogger("streamgmm")


class Marginals:
    """Marginal models of one mixture by pattern, of which a bounded number is held."""

    def __init__(self, density: Any) -> None:
        self._density = density
        k, d = density.means.shape
        self._most = max(1, HELD_BYTES // (64 * k * d * d))
        self._held: OrderedDict[bytes, Marginal] = OrderedDict()
        self._lock = Lock()

    def of(self, seen: NDArray[np.bool_]) -> Marginal:
        """The marginal of a pattern: held, or made."""
        key = seen.tobytes()
        with self._lock:
            if key in self._held:
                self._held.move_to_end(key)
                return self._held[key]
        made = marginal_of(self._density, seen)
        with self._lock:
            self._held[key] = made
            while len(self._held) > self._most:
                self._held.popitem(last=False)
        return made


class GapAccumulator:
    """An E-step over rows of which some have gaps: see `Accumulator`.

    Parameters
    ----------
    density : GaussianDensity
        Of a family with gaps.
    open_ : callable
        Opens the ordinary accumulator of a density, about centres or None.
    centres : ndarray of shape (K, D) or None
    hard : bool
    """

    def __init__(
        self, density: Any, open_: Open, centres: Floats | None = None, hard: bool = False
    ) -> None:
        self._density, self._open, self._centres, self._hard = density, open_, centres, hard
        self._whole = open_(density, centres)
        self._parts: dict[bytes, tuple[Marginal, Accumulator]] = {}
        self._rest: GapSums | None = None
        # Where features are independent, gaps are left out at little cost, of whatever pattern.
        k, d = density.means.shape
        worth = max(MANY, WORTH // (k * d * d))
        self._many = worth if density.components.covariance.matrices else np.inf

    def add(self, X: NDArray[Any], sample_weight: Floats = NO_WEIGHT) -> None:
        """Add rows (n, D), NaN where there is a gap; weights (n,) or none."""
        if not has_gaps(X):
            self._whole.add(X, sample_weight)
            return
        patterns = patterns_of(X)
        whole = patterns.whole
        left = patterns.seen.any(axis=1) & ~whole
        if whole.any():
            rows = patterns.take(whole).order
            self._whole.add(X[rows], _of(sample_weight, rows))
        frequent = left & (np.diff(patterns.starts) >= self._many)
        for r in np.flatnonzero(frequent).tolist():
            seen, rows = patterns.seen[r], patterns.run(r)
            if (part := self._part(seen)) is not None:
                observed = np.ascontiguousarray(X[rows][:, seen])
                part.add(observed, _of(sample_weight, rows))
                left[r] = False
        if left.any():
            if self._rest is None:
                self._rest = GapSums(self._density.tables, self._centres, self._hard)
            self._rest.add(X, sample_weight, patterns.take(left))

    def result(self) -> BlockSums:
        """The sums of all rows added."""
        whole = self._whole.result()
        found: Any = whole.statistics
        likelihood, entropy = whole.log_likelihood, whole.entropy
        moments: GapMoments = complete_moments(found, entropy_of(found))
        for key in sorted(self._parts):
            marginal, part = self._parts[key]
            sums = part.result()
            likelihood += sums.log_likelihood
            entropy += sums.entropy
            observed: Any = sums.statistics
            moments = moments.merge(marginal.complete(observed))
        if self._rest is not None:
            more, labels, rest = self._rest.result()
            likelihood += more
            entropy += labels
            moments = moments.merge(rest)
        return BlockSums(likelihood, entropy, moments)

    def _part(self, seen: NDArray[np.bool_]) -> Accumulator | None:
        """The sums of a pattern; None where there are too many already."""
        key = seen.tobytes()
        if key not in self._parts:
            if len(self._parts) >= MOST_PATTERNS:
                _log.debug("more than %d frequent patterns of gaps: row by row", MOST_PATTERNS)
                return None
            marginal = self._density.marginals.of(seen)
            centres = None if self._centres is None else self._centres[:, seen]
            self._parts[key] = marginal, self._open(marginal.density, centres)
        return self._parts[key][1]


def _of(weight: Floats, rows: NDArray[np.int64]) -> Floats:
    return weight[rows] if len(weight) else weight


def gap_posterior(
    density: Any, X: NDArray[Any], out: Posterior, ordinary: Callable[..., Posterior]
) -> Posterior:
    """Fill the posterior `out` of rows X (n, D), NaN where there is a gap.

    A row of which nothing was observed has the weights of the components for responsibilities,
    and a log-density of zero.
    """
    patterns = patterns_of(X)
    whole = patterns.whole
    if whole.any():
        rows = patterns.take(whole).order
        found = ordinary(X[rows], labels=bool(len(out.labels)), resp=bool(len(out.resp)))
        for mine, theirs in ((out.log_density, found.log_density), (out.labels, found.labels)):
            if len(mine):
                mine[rows] = theirs
        if len(out.resp):
            out.resp[rows] = found.resp
    density.tables.describe(X, patterns.take(~whole), out.log_density, out.labels, out.resp)
    return out


def fill_gaps(
    tables: Tables,
    X: Floats,
    variance: Floats | None = None,
    choices: Floats | None = None,
    normals: Floats | None = None,
) -> None:
    """Put E[x_m | x_o] in the place of the gaps of rows (n, D), in place; and Var[x_m | x_o].

    Of the mixture: Σ_k r_k m_k, and Σ_k r_k (C_k + (m_k - mean)²). With `choices` (n,) uniform in
    (0, 1) and `normals` (n, D) a draw of x_m given x_o. A row of which nothing was observed gets
    what the mixture has.
    """
    patterns = patterns_of(X)
    gaps = patterns.take(~patterns.whole)
    none = np.empty((0, 0))
    tables.describe(
        X, gaps, NO_WEIGHT, _NO_LABELS, none, X,
        none if variance is None else variance,
        NO_WEIGHT if choices is None else choices,
        none if normals is None else normals,
    )  # fmt: skip
