"""Counts of rows in the bins of one column, and of two."""

from __future__ import annotations

from typing import Any

import numpy as np

from streamgmm.kernels.compiled import compiled

RUN = 256  # rows whose bins are found before they are counted


@compiled
def count_bins(
    X: Any,
    weight: Any,
    columns: Any,
    low: Any,
    scale: Any,
    size: Any,
    pairs: Any,
    alone: Any,
    singles: Any,
    joints: Any,
) -> None:
    """Add rows X (n, D) to `singles` (m, b + 2) and `joints` (p, b + 2, b + 2).

    Column ``columns[j]`` has ``size[j]`` bins from ``low[j]``, ``scale[j]`` of them in one unit.
    What is below is counted in bin 0, what is above in bin ``size[j] + 1``. `pairs` (p, 2) are
    places in `columns`, and so are `alone`, of which single counts are wanted. `weight` is (n,),
    or empty, where each row counts one.
    """
    n, m, p = X.shape[0], columns.shape[0], pairs.shape[0]
    weighted = weight.shape[0] > 0
    bins = np.empty((m, RUN), np.int32)
    for begin in range(0, n, RUN):
        count = min(RUN, n - begin)
        for j in range(m):
            column, at, factor, last = columns[j], low[j], scale[j], size[j] + 1.0
            row = bins[j]
            for i in range(count):
                y = (X[begin + i, column] - at) * factor + 1.0
                row[i] = np.int32(min(max(y, 0.0), last))
        for j in alone:
            row, counts = bins[j], singles[j]
            if weighted:
                for i in range(count):
                    counts[row[i]] += weight[begin + i]
            else:
                for i in range(count):
                    counts[row[i]] += 1.0
        for q in range(p):
            first, second = bins[pairs[q, 0]], bins[pairs[q, 1]]
            table = joints[q]
            if weighted:
                for i in range(count):
                    table[first[i], second[i]] += weight[begin + i]
            else:
                for i in range(count):
                    table[first[i], second[i]] += 1.0
