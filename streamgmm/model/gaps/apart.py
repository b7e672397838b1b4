"""An E-step whose rows without gaps go one way, and all others another."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamgmm.model.components import NO_WEIGHT, Accumulator, BlockSums
from streamgmm.model.gaps.patterns import has_gaps
from streamgmm.model.moments import Floats


class RowsApart:
    """Compiled sums of whole rows, and sums in NumPy of rows with gaps: see `Accumulator`.

    Parameters
    ----------
    whole, rest : Accumulator
    """

    def __init__(self, whole: Accumulator, rest: Accumulator) -> None:
        self._whole, self._rest = whole, rest
        self._any = False

    def add(self, X: NDArray[Any], sample_weight: Floats = NO_WEIGHT) -> None:
        """Add rows (n, D), NaN where there is a gap; weights (n,) or none."""
        if not has_gaps(X):
            self._whole.add(X, sample_weight)
            return
        self._any = True
        gone = np.isnan(X).any(axis=1)
        for rows, sums in ((~gone, self._whole), (gone, self._rest)):
            if rows.any():
                sums.add(X[rows], sample_weight[rows] if len(sample_weight) else sample_weight)

    def result(self) -> BlockSums:
        """The sums of all rows added."""
        whole = self._whole.result()
        if not self._any:
            return whole
        rest = self._rest.result()
        return BlockSums(
            whole.log_likelihood + rest.log_likelihood,
            whole.entropy + rest.entropy,
            whole.statistics.merge(rest.statistics),
        )
