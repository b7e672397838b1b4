"""k-means++ on rows in memory: where Lloyd's iterations start."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from streamgmm.clustering.rows import Floats, Rows, Team, multiple, parse_rows
from streamgmm.errors import ParameterError
from streamgmm.kernels import kmeans, seeding
from streamgmm.kernels.vectors import lanes

HELD_BYTES = 32 << 20  # rows of up to this many bytes are held turned from draw to draw
_STRIPS_A_TASK = 128


def kmeans_plusplus(
    X: ArrayLike | Rows,
    k: int,
    random_state: Any = None,
    sample_weight: ArrayLike | None = None,
    n_threads: int = 1,
) -> tuple[Floats, NDArray[np.int64]]:
    """Draw k rows, each next one in proportion to its squared distance from those before.

    Of 2 + ⌊log k⌋ rows drawn for each next centre the one is taken that leaves the smallest sum
    of squared distances (Arthur & Vassilvitskii 2007, "k-means++: the advantages of careful
    seeding"). Random numbers are drawn first and all at once: one for the first row, then those
    of each next one in turn, as ``sklearn.cluster.kmeans_plusplus`` draws them. Rows of weight 0
    are not drawn. Where fewer than k rows differ, rows that equal others follow in the order of
    the data, and then the first one again and again. Any number of threads gives the same rows.

    Returns
    -------
    centres : ndarray of shape (k, D)
        The rows, float64.
    indices : ndarray of shape (k,)
        Their numbers, int64.

    Raises
    ------
    DataError
        If `X` and `sample_weight` do not fit together.
    ParameterError
        If k is not between 1 and the number of rows.

    Examples
    --------
    >>> centres, _ = kmeans_plusplus([[0.0], [0.0], [5.0]], 2, random_state=0)
    >>> sorted(centres.ravel().tolist())
    [0.0, 5.0]
    """
    from sklearn.utils import check_random_state  # a second to import, and only for starts

    rows = parse_rows(X, sample_weight)
    n, d = rows.X.shape
    if not 1 <= k <= n:
        raise ParameterError(f"the number of centres must be between 1 and {n} rows, and is {k}")
    n_rivals = 2 + int(np.log(k))
    uniforms = check_random_state(random_state).random_sample(1 + (k - 1) * n_rivals)
    padded, n_strips = multiple(n_rivals, 4), -(-n // kmeans.STRIP)
    dtype = rows.X.dtype
    distances = np.empty((n_rivals + 2) * n_strips * kmeans.STRIP, dtype)
    distances[: n_strips * kmeans.STRIP] = np.inf
    lines = np.minimum(np.arange(padded + 1), n_rivals + 1)
    state = np.zeros(padded * d, dtype), distances, lines, np.empty(n_strips * padded)
    taken = np.zeros(k, np.int64)
    draws = np.zeros(n_rivals, np.int64), np.empty(n_strips), taken, np.zeros(1, np.int64)
    here = rows.arrays
    strip = (multiple(d, 8) + 1) * kmeans.STRIP
    held = n_strips * strip * dtype.itemsize <= HELD_BYTES
    turned = np.empty(strip * n_strips, dtype) if held else None

    def scratch() -> tuple[NDArray[Any], NDArray[np.int64]]:
        own = np.empty(strip, dtype) if turned is None else turned
        return own, np.empty(kmeans.STRIP, np.int64)

    def measure(own: tuple[NDArray[Any], NDArray[np.int64]], first: int, last: int) -> None:
        seeding.measure(
            here, own, strip if held else 0, held and c > 0, state, lanes(dtype), first, last
        )

    n_tasks = -(-n_strips // _STRIPS_A_TASK)
    with Team(min(n_threads, n_tasks), scratch) as team:
        for c in range(k):
            seeding.draw(here, state, draws, uniforms, c)
            team.run(measure, n_strips, _STRIPS_A_TASK)
    seeding.draw(here, state, draws, uniforms, k)
    return rows.X[taken].astype(np.float64), taken
