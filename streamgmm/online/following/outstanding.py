"""Samples whose labels are still to come: rows that are there, and gaps between them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass
class Outstanding:
    """Runs of samples that are there, and of gaps, in turn; the first is of what is there.

    Examples
    --------
    >>> waiting = Outstanding()
    >>> waiting.add(np.array([False, True, True, False, True]))
    >>> waiting.gaps(), waiting.runs
    (1, [2, 1, 1, 0])
    >>> waiting.take(np.array([7, 8]), -1).tolist(), waiting.runs
    ([7, 8, -1], [1, 0])
    """

    runs: list[int] = field(default_factory=list)

    def add(self, kept: NDArray[np.bool_]) -> None:
        """Add samples, of which some are there."""
        edges = np.flatnonzero(np.diff(kept.astype(np.int8))) + 1
        for run in np.split(kept, edges):
            if len(run) == 0:
                continue
            odd = not run[0]
            if not self.runs:
                self.runs = [0, 0]
            if not odd and self.runs[-1]:
                self.runs += [0, 0]
            self.runs[-1 if odd else -2] += len(run)

    def gaps(self) -> int:
        """Drop gaps before which nothing is outstanding; give how many."""
        if self.runs and self.runs[0] == 0:
            found = self.runs[1]
            del self.runs[:2]
            return found
        return 0

    def take(self, values: NDArray[Any], fill: float) -> NDArray[Any]:
        """Give values of the next samples that are there, with `fill` for the gaps after each."""
        parts: list[NDArray[Any]] = []
        at = 0
        while at < len(values):
            n = min(self.runs[0], len(values) - at)
            parts.append(values[at : at + n])
            self.runs[0] -= n
            at += n
            parts.append(np.full(self.gaps(), fill, values.dtype))
        return np.concatenate(parts) if parts else values
