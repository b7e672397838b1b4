"""Where k-means moves its centres, when it ends, and what `kmeans.assign` needs of new centres."""

from __future__ import annotations

import math
from typing import Any

from streamgmm.kernels.compiled import compiled, inner
from streamgmm.kernels.kmeans import RUN

GOES_ON, SETTLED, STANDS = 0, 1, 2
SAME = 1e-24  # squared shifts that rounding brings about, in parts of squared distances


@inner
def prepare(model: Any) -> None:
    """What ranking needs of the centres, and the bound on its rounding.

    With u the rounding unit of float32, |c|² - 2 x·c, summed in D / 64 runs of m features and
    then run by run, errs by at most u (m + D/64 + 4) (|c|² + 2 |x| |c|), inputs that are rounded
    included (Higham 2002, "Accuracy and stability of numerical algorithms", §4.2), which is at
    most u (m + D/64 + 4) (2 |c|² + |x|²); two of them err by twice that. As much again is for
    the few operations with the results.
    """
    centres, packed, norms, across, bound, drift, origin = model
    K = drift.shape[0]
    D8 = origin.shape[0]
    D = packed.shape[0] // norms.shape[0]
    K8 = across.shape[0] // D
    most = 0.0
    for k in range(norms.shape[0]):
        square = 0.0
        for d in range(D):
            c = centres[k * D8 + d] if k < K else 0.0
            square += c * c
            packed[(k // 4 * D + d) * 4 + k % 4] = -2.0 * c
            across[d * K8 + k] = c
        norms[k] = square if k < K else math.inf
        most = max(most, square)
    unit = 4 * (min(D, RUN) + D // RUN + 6) * 2.0**-24
    bound[0] = unit
    bound[1] = (unit * 2.0 * most + D * 2.0**-120) * (1 + 1e-6)  # and where products underflow
    bound[2] = unit + 2 * D * 2.0**-24  # of |x|² itself


@compiled
def move(model: Any, merged: Any, tol: float, exact: bool) -> Any:
    """Move each centre to the mean of its rows, and say whether that was the last time.

    A centre without rows goes where the heaviest is. `exact` sums are about the centres: then
    the inertia in ``totals[0]`` becomes that about the new ones, and the centres stand only
    where all they did was to be rounded otherwise. `merged` has then been used.
    """
    centres, _, _, _, _, drift, origin = model
    mass, _, first, totals = merged
    K = drift.shape[0]
    D8 = origin.shape[0]
    heaviest, weight = 0, 0.0
    for k in range(K):
        weight += mass[k]
        heaviest = k if mass[k] > mass[heaviest] else heaviest
    moved, norms, fastest, other = 0.0, 0.0, 0.0, 0.0
    for turn in range(2):
        for k in range(K):
            if (mass[k] > 0.0) != (turn == 0):
                continue
            square = 0.0
            for d in range(D8):
                at = k * D8 + d
                old = centres[at]
                new = first[at] / mass[k] if turn == 0 else centres[heaviest * D8 + d]
                if exact:
                    totals[0] -= new * first[at]
                    new += old
                centres[at] = new
                square += (new - old) ** 2
                norms += new * new
            moved += square
            shift = math.sqrt(square)
            first[k * D8] = shift  # the sums have been used
            other = max(other, min(shift, fastest))
            fastest = max(fastest, shift)
    totals[0] = max(totals[0], 0.0)
    for k in range(K):
        shift = first[k * D8]
        drift[k] += (shift + (other if shift == fastest else fastest)) * (1 + 1e-9)
    prepare(model)
    if exact:
        return STANDS if moved <= (norms + totals[0] / weight) * SAME else GOES_ON
    if totals[1] == 0.0:
        return STANDS
    return SETTLED if moved <= tol else GOES_ON
