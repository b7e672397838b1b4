"""Quantiles of each feature in each class, by t-digests that merge.

Ted Dunning & Otmar Ertl 2019, "Computing extremely accurate quantiles using t-digests". They draw
no random numbers, so the same blocks give the same bits.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamgmm.fitting.quantiles import digest_rows, new_digest
from streamgmm.model.components import Posterior
from streamgmm.model.moments import Floats
from streamgmm.sources import Piece


@dataclass(frozen=True, eq=False)
class QuantileRequest:
    """Features (m,), and the components (S,) whose rows are told apart by their labels.

    Rows count by their weight; those of weight zero are left out.
    """

    columns: NDArray[np.intp]
    shown: NDArray[np.intp]

    posterior = True

    def open(self) -> QuantileCounter:
        """What takes the rows in; raises MissingExtraError."""
        return QuantileCounter(self)


@dataclass(frozen=True, eq=False)
class Quantiles:
    """A digest of each feature in each class, S * m of them: a value that merges.

    `rows` (S,) are the rows of each class.
    """

    request: QuantileRequest
    digests: tuple[Any, ...]
    rows: NDArray[np.int64]

    def merge(self, other: Quantiles) -> Quantiles:
        """Digests of both sets of rows."""
        both = []
        for mine, theirs in zip(self.digests, other.digests, strict=True):
            digest = new_digest()
            digest.merge(mine, theirs)
            both.append(digest)
        return Quantiles(self.request, tuple(both), self.rows + other.rows)

    def at(self, shares: Floats) -> Floats:
        """Quantiles (S, m, q); NaN of a class without rows."""
        s, m = len(self.request.shown), len(self.request.columns)
        out = np.full((s * m, len(shares)), np.nan)
        for i, digest in enumerate(self.digests):
            if digest.size() > 0:
                out[i] = [digest.quantile(float(q)) for q in shares]
        return out.reshape(s, m, len(shares))


class QuantileCounter:
    """Takes pieces of rows in, then gives `Quantiles`."""

    def __init__(self, request: QuantileRequest) -> None:
        self._request = request
        n = len(request.shown) * len(request.columns)
        self._digests = [new_digest() for _ in range(n)]
        self._rows = np.zeros(len(request.shown), np.int64)

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
                rows = piece.rows[chosen[:, None], request.columns]
                weight = None if piece.sample_weight is None else piece.sample_weight[chosen]
                self._rows[s] += digest_rows(self._digests[s * m : (s + 1) * m], rows, weight)

    def result(self) -> Quantiles:
        """The digests of all rows added."""
        return Quantiles(self._request, tuple(self._digests), self._rows)
