"""Quantiles of each feature in each class, by t-digests that merge.

Ted Dunning & Otmar Ertl 2019, "Computing extremely accurate quantiles using t-digests", as
Apache DataSketches has it. It draws no random numbers, so the same blocks give the same bits.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamgmm.errors import MissingExtraError
from streamgmm.model.components import Posterior
from streamgmm.model.moments import Floats
from streamgmm.sources import Piece

SIZE = 500  # compression: about as many centroids; ranks are within 0.01, and closer at the ends


@dataclass(frozen=True, eq=False)
class QuantileRequest:
    """Features (m,), and the components (S,) whose rows are told apart by their labels.

    Rows count by their number, not by weight; those of weight zero are left out.
    """

    columns: NDArray[np.intp]
    shown: NDArray[np.intp]

    posterior = True

    def open(self) -> QuantileCounter:
        """What takes the rows in; raises MissingExtraError."""
        return QuantileCounter(self)


@dataclass(frozen=True, eq=False)
class Quantiles:
    """A digest of each feature in each class, S * m of them, in bytes: a value that merges."""

    request: QuantileRequest
    digests: tuple[bytes, ...]

    def merge(self, other: Quantiles) -> Quantiles:
        """Digests of both sets of rows."""
        both = []
        for mine, theirs in zip(self.digests, other.digests, strict=True):
            digest = _restored(mine)
            digest.merge(_restored(theirs))
            both.append(digest.serialize())
        return Quantiles(self.request, tuple(both))

    def at(self, shares: Floats) -> Floats:
        """Quantiles (S, m, q); NaN of a class without rows."""
        s, m = len(self.request.shown), len(self.request.columns)
        out = np.full((s * m, len(shares)), np.nan)
        for i, each in enumerate(self.digests):
            digest = _restored(each)
            if not digest.is_empty():
                out[i] = [digest.get_quantile(float(q)) for q in shares]
        return out.reshape(s, m, len(shares))

    @property
    def rows(self) -> NDArray[np.int64]:
        """Rows of each class (S,)."""
        m = len(self.request.columns)
        return np.array([_restored(d).get_total_weight() for d in self.digests[::m]], np.int64)


class QuantileCounter:
    """Takes pieces of rows in, then gives `Quantiles`."""

    def __init__(self, request: QuantileRequest) -> None:
        self._request = request
        kind = sketches().tdigest_double
        n = len(request.shown) * len(request.columns)
        self._digests = [kind(SIZE) for _ in range(n)]

    def add(self, piece: Piece, posterior: Posterior | None) -> None:
        """Add rows."""
        assert posterior is not None
        request, m = self._request, len(self._request.columns)
        labels = posterior.labels
        if piece.sample_weight is not None:
            labels = np.where(piece.sample_weight > 0, labels, -1)
        for s, k in enumerate(request.shown):
            chosen = np.flatnonzero(labels == k)
            if len(chosen):
                rows = piece.rows[chosen[:, None], request.columns].astype(np.float64)
                for j in range(m):
                    self._digests[s * m + j].update(np.ascontiguousarray(rows[:, j]))

    def result(self) -> Quantiles:
        """The digests of all rows added."""
        return Quantiles(self._request, tuple(digest.serialize() for digest in self._digests))


def sketches() -> Any:
    """The package of the digests; raises MissingExtraError, in one line."""
    try:
        import datasketches
    except ImportError as error:
        raise MissingExtraError(
            "quantiles of classes need datasketches: pip install 'streamgmm[plot]'"
        ) from error
    return datasketches


def _restored(stored: bytes) -> Any:
    return sketches().tdigest_double.deserialize(stored)
