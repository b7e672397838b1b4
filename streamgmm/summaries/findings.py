"""What a model says of all rows: how many of each component, how certain, how likely."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy.sparse import csr_array

from streamgmm.model.components import Posterior
from streamgmm.model.mixture import Mixture
from streamgmm.model.moments import Floats
from streamgmm.predict.rows import SLICE_BYTES
from streamgmm.sources import Piece
from streamgmm.summaries.cells import DOUBTFUL, certainty_of
from streamgmm.summaries.histograms import weights_of

BINS = 20  # of the probability of the likeliest component
DENSITY_BINS = 60
UNLIKELY = 0.001  # of the rows that the model expects are less likely than the limit
DRAWN = 20_000  # rows of the model that show what it expects
MOST_DRAWN_VALUES = 5_000_000
LEAST = 10  # rows that are named


@dataclass(frozen=True, eq=False)
class Expected:
    """What a model expects of its own rows, from draws of a fixed seed.

    `limit` is the log-density (nats) that a share of `UNLIKELY` of them does not reach; `edges`
    (b + 1,) are bins of log-density, and `shares` (b + 2,) the draws in them, below and above.
    """

    limit: float
    edges: Floats
    shares: Floats
    draws: int


def expect(mixture: Mixture) -> Expected:
    """Draw rows of a model, and see how likely they are.

    >>> m = Mixture.of("diag", np.ones(1), np.zeros((1, 1)), np.ones((1, 1)))
    >>> -6.6 < expect(m).limit < -6.0  # about 3.3 standard deviations off
    True
    """
    rows = _draws(mixture)
    n = len(rows)
    density = mixture.posterior(rows).log_density
    density = np.sort(density[np.isfinite(density)])
    limit, low, high = np.quantile(density, [UNLIKELY, 0.0005, 1.0])
    pad = 0.35 * max(high - low, 1e-9 * abs(high), 1e-9)
    edges = np.linspace(low - pad, high + 0.1 * pad, DENSITY_BINS + 1)
    return Expected(float(limit), edges, _binned(density, edges) / len(density), n)


@dataclass(frozen=True, eq=False)
class FindingsRequest:
    """K components, and what the model expects."""

    n_components: int
    expected: Expected

    posterior = True

    def open(self) -> FindingsCounter:
        """What counts the rows."""
        return FindingsCounter(self)


@dataclass(frozen=True, eq=False)
class Findings:
    """What a model says of rows: a value that merges. Rows count by weight.

    `confusion` (K, K): Σ r_l over the rows whose likeliest component is k. `certainty` (20,)
    counts rows by the probability of theirs; `density` (b + 2,) by log-density, below and above
    the bins too; `log_likelihood` is its sum, nats. `doubtful` and `unlikely` rows are those
    under `DOUBTFUL` and under the limit. `least` names the rows of the least density: (log
    p, number, label) each.
    """

    n_rows: int
    weight: float
    log_likelihood: float
    doubtful: float
    unlikely: float
    confusion: Floats
    certainty: Floats
    density: Floats
    least: Floats

    def merge(self, other: Findings) -> Findings:
        """Findings for both sets of rows."""
        return Findings(
            self.n_rows + other.n_rows,
            self.weight + other.weight,
            self.log_likelihood + other.log_likelihood,
            self.doubtful + other.doubtful,
            self.unlikely + other.unlikely,
            self.confusion + other.confusion,
            self.certainty + other.certainty,
            self.density + other.density,
            _least(np.concatenate([self.least, other.least])),
        )

    @property
    def labelled(self) -> Floats:
        """Weight of the rows whose likeliest component is each (K,)."""
        return np.asarray(self.confusion.sum(axis=1))

    def overlap(self) -> Floats:
        """The share of the rows of two components (K, K) that the model expects to be mislabelled.

        Of all rows labelled k or l, Σ r_l over those labelled k and Σ r_k over those labelled l.
        """
        n = self.labelled
        both = n[:, None] + n
        wrong = self.confusion + self.confusion.T
        found = np.divide(wrong, both, out=np.zeros_like(wrong), where=both > 0)
        np.fill_diagonal(found, 0.0)
        return np.asarray(found)


class FindingsCounter:
    """Counts pieces of rows, then gives `Findings`."""

    def __init__(self, request: FindingsRequest) -> None:
        k, edges = request.n_components, request.expected.edges
        self._expected = request.expected
        self._found = Findings(
            0, 0.0, 0.0, 0.0, 0.0, np.zeros((k, k)), np.zeros(BINS), np.zeros(len(edges) + 1),
            np.empty((0, 3)),
        )  # fmt: skip

    def add(self, piece: Piece, posterior: Posterior | None) -> None:
        """Add rows."""
        assert posterior is not None
        n, weight = len(piece.rows), weights_of(piece)
        w = weight if len(weight) else np.ones(n)
        labels, density = posterior.labels, posterior.log_density
        one_hot = csr_array((w, labels, np.arange(n + 1)), (n, posterior.resp.shape[1]))
        certainty = certainty_of(posterior)
        low = density < self._expected.limit
        used = w > 0  # 0 times minus infinity would be NaN
        counted = np.minimum((certainty * BINS).astype(np.int64), BINS - 1)
        named = np.flatnonzero(used)
        if len(named) > LEAST:
            named = named[np.argpartition(density[named], LEAST - 1)[:LEAST]]
        numbers = piece.numbers()[named]
        own = Findings(
            n,
            float(w.sum()),
            float(w[used] @ density[used]),
            float(w[certainty < DOUBTFUL].sum()),
            float(w[low].sum()),
            np.asarray(one_hot.T @ posterior.resp),
            np.bincount(counted, w, BINS).astype(np.float64),
            _binned(density, self._expected.edges, w),
            np.stack([density[named], numbers, labels[named]], axis=1).astype(np.float64),
        )
        self._found = self._found.merge(own)

    def result(self) -> Findings:
        """The findings of all rows added."""
        return replace(self._found, least=_least(self._found.least))


def findings_of_draws(mixture: Mixture, expected: Expected) -> Findings:
    """What a model says of rows that are drawn of it: what it expects to find."""
    counter = FindingsRequest(mixture.n_components, expected).open()
    rows = _draws(mixture)
    most = max(256, SLICE_BYTES // (8 * mixture.n_components))
    for a in range(0, len(rows), most):
        part = rows[a : a + most]
        counter.add(Piece(a, part, None), mixture.posterior(part, labels=True, resp=True))
    return counter.result()


def _draws(mixture: Mixture) -> Floats:
    n = int(np.clip(MOST_DRAWN_VALUES // mixture.n_features, 2000, DRAWN))
    rows, _ = mixture.sample(n, np.random.RandomState(0))
    return np.ascontiguousarray(rows, np.float64)


def _binned(values: Floats, edges: Floats, weight: Any = None) -> Floats:
    """Weight of values in bins, below them and above them."""
    scale = (len(edges) - 1) / (edges[-1] - edges[0])
    place = np.clip((values - edges[0]) * scale, -1, len(edges) - 1)
    return np.bincount((np.floor(place) + 1).astype(np.int64), weight, len(edges) + 1).astype(
        np.float64
    )


def _least(rows: Floats) -> Floats:
    """The rows of the least density, ties by number."""
    return rows[np.lexsort((rows[:, 1], rows[:, 0]))[:LEAST]]
