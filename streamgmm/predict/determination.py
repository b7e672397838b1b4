"""How much of targets a conditional mixture explains, in one read: R², as scikit-learn has it."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
from sklearn.exceptions import UndefinedMetricWarning

from streamgmm.model.conditional import Conditional
from streamgmm.model.moments import Floats, Moments
from streamgmm.sources import Block, check_finite


@dataclass(frozen=True, eq=False)
class Explained:
    """Rows, moments of the targets (one component, diagonal), and Σ w (y - ŷ)² of each (m,)."""

    n_rows: int
    moments: Moments
    residual: Floats

    def merge(self, other: Explained) -> Explained:
        """Of both sets of rows."""
        return Explained(
            self.n_rows + other.n_rows,
            self.moments.merge(other.moments),
            self.residual + other.residual,
        )

    @property
    def r2(self) -> float:
        """Mean over the targets of 1 - Σ w (y - ŷ)² / Σ w (y - ȳ)².

        Of a target that is constant, 1 where it is met and 0 elsewhere.
        """
        if self.n_rows < 2:
            warnings.warn(
                "R^2 score is not well-defined with less than two samples.",
                UndefinedMetricWarning,
                stacklevel=3,
            )
            return float("nan")
        spread = self.moments.scatter[0]
        constant = (self.residual > 0).astype(np.float64)
        lost = np.divide(self.residual, spread, out=constant, where=spread > 0)
        return float(np.mean(1 - lost))


def explain_block(context: tuple[Conditional, str], block: Block) -> Explained:
    """Sums over the rows of a block, features and then targets."""
    conditional, name = context
    o, m = len(conditional.given), len(conditional.targets)
    empty = Moments("diag", np.zeros(1), np.zeros((1, m)), np.zeros((1, m)))
    found = Explained(0, empty, np.zeros(m))
    for piece in block.pieces():
        check_finite(piece, name)
        y = np.asarray(piece.rows[:, o:], np.float64)
        weight = np.ones(len(y)) if piece.sample_weight is None else piece.sample_weight
        residual = weight @ (y - conditional.mean(piece.rows[:, :o])) ** 2
        shift = y - y[0]
        first, second = (weight @ shift)[None], (weight @ shift**2)[None]
        moments = Moments.about("diag", y[:1], np.array([weight.sum()]), first, second)
        found = found.merge(Explained(len(y), moments, residual))
    return found
