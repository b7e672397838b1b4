"""An audit of the rows as they are read: ranges, gaps, constant columns and duplicated ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamgmm.kernels.audits import SUMS, audit_columns
from streamgmm.model.components import Posterior
from streamgmm.model.moments import Floats
from streamgmm.sources import Piece


@dataclass(frozen=True)
class AuditRequest:
    """Every row as it is read, with those that have gaps; `n_features` columns."""

    n_features: int

    posterior = False
    raw = True

    def open(self) -> AuditCounter:
        """What looks at the rows."""
        return AuditCounter(self.n_features)


@dataclass(frozen=True, eq=False)
class Audit:
    """What all columns (D,) are: a value that merges.

    `n_rows` were read, of which `with_gaps` have a value that is not finite. `finite`, `nan` and
    `infinite` count values; `low`, `high`, `mean` and `scatter` Σ (x - mean)² are of the finite
    ones. `checks` are sums of hashes of each value with the number of its row, so columns that
    are equal have equal ones, whatever the blocks; others have with a probability of 2⁻⁶⁴.
    """

    n_rows: int
    with_gaps: int
    finite: Floats
    nan: Floats
    infinite: Floats
    low: Floats
    high: Floats
    mean: Floats
    scatter: Floats
    checks: NDArray[np.uint64]

    def merge(self, other: Audit) -> Audit:
        """The audit of both sets of rows (Chan, Golub & LeVeque 1983)."""
        finite = self.finite + other.finite
        share = np.divide(other.finite, finite, out=np.zeros_like(finite), where=finite > 0)
        shift = other.mean - self.mean
        return Audit(
            self.n_rows + other.n_rows,
            self.with_gaps + other.with_gaps,
            finite,
            self.nan + other.nan,
            self.infinite + other.infinite,
            np.minimum(self.low, other.low),
            np.maximum(self.high, other.high),
            np.where(self.finite == 0, other.mean, self.mean + share * shift),
            self.scatter + other.scatter + self.finite * share * shift**2,
            self.checks + other.checks,  # modulo 2⁶⁴
        )

    @property
    def deviation(self) -> Floats:
        """Standard deviations (D,); NaN of a column without finite values."""
        out = np.full(len(self.finite), np.nan)
        np.divide(self.scatter, self.finite, out=out, where=self.finite > 0)
        return np.asarray(np.sqrt(out))

    @property
    def constant(self) -> NDArray[np.intp]:
        """Columns in which all finite values are the same one."""
        return np.flatnonzero((self.finite > 0) & (self.low == self.high))

    @property
    def duplicates(self) -> list[list[int]]:
        """Groups of columns that are equal in every row; constant ones are not among them."""
        groups: dict[int, list[int]] = {}
        constant = {int(d) for d in self.constant}
        for d, check in enumerate(self.checks.tolist()):
            if d not in constant and self.finite[d] > 0:
                groups.setdefault(check, []).append(d)
        return [group for group in groups.values() if len(group) > 1]


class AuditCounter:
    """Looks at pieces of rows, then gives an `Audit`."""

    def __init__(self, n_features: int) -> None:
        self._ref: Floats | None = None
        self._sums = np.zeros((SUMS, n_features))
        self._sums[3], self._sums[4] = np.inf, -np.inf
        self._second = np.zeros(n_features)
        self._checks = np.zeros(n_features, np.uint64)
        self._n_rows = self._with_gaps = 0

    def add(self, piece: Piece, posterior: Posterior | None) -> None:
        """Add rows, finite or not."""
        X = piece.rows
        if not len(X):
            return
        if self._ref is None:
            self._ref = np.where(np.isfinite(X[0]), X[0], 0.0).astype(np.float64)
        bits = (X.astype(np.float64) + 0.0).view(np.uint64)  # minus zero is zero
        numbers = piece.numbers().astype(np.uint64)
        self._with_gaps += audit_columns(
            X, bits, numbers, self._ref, self._sums, self._second, self._checks
        )
        self._n_rows += len(X)

    def result(self) -> Audit:
        """The audit of all rows added."""
        finite, nan, infinite, low, high, first = self._sums
        ref: Any = np.zeros(len(finite)) if self._ref is None else self._ref
        shift = np.divide(first, finite, out=np.zeros_like(first), where=finite > 0)
        scatter = np.maximum(self._second - finite * shift**2, 0.0)
        return Audit(
            self._n_rows, self._with_gaps, finite, nan, infinite, low, high, ref + shift, scatter,
            self._checks,
        )  # fmt: skip
