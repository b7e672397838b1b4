"""Lloyd's k-means on rows in memory, with scikit-learn's rules for when it ends."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from streamgmm.clustering.rows import Floats, Model, Rows, Team, parse_rows, prepare, sums_of
from streamgmm.clustering.seeds import kmeans_plusplus
from streamgmm.errors import DataError, ParameterError
from streamgmm.kernels import centres as moving
from streamgmm.kernels import kmeans

EMPTY = -1  # a centre has no rows: none has moved


class Clusters(NamedTuple):
    """What k-means ends with.

    Centres (K, D), the label (n,) int32 of the nearest one for each row, the inertia
    Σ w |x - c|², and the number of iterations.
    """

    centres: Floats
    labels: NDArray[np.int32]
    inertia: float
    n_iter: int


def lloyd(
    X: ArrayLike | Rows,
    centres: ArrayLike,
    sample_weight: ArrayLike | None = None,
    max_iter: int = 300,
    tol: float = 1e-4,
    n_threads: int = 1,
) -> Clusters:
    """Lloyd's iterations from given centres (Lloyd 1982, "Least squares quantization in PCM").

    It ends as ``sklearn.cluster.KMeans`` does: when no label changes, when the squared shifts of
    all centres together are at most `tol` times the mean variance of the features, or after
    `max_iter` iterations. A centre that is nearest to no row of positive weight goes to the row
    that is farthest from its own centre. The variance is that of weighted rows, so a row of
    weight 2 is two rows, and one of weight 0 is not there.

    Labels are those of the centres that are returned. Each is the nearest centre by Σ (x - c)²
    in float64, ties to the lowest label, whatever the dtype of X (see `kernels.kmeans`). Results
    have the same bits on any number of threads.

    Parameters
    ----------
    X : array-like of shape (n, D), or Rows
        Finite rows, float32 or float64; with `Rows`, `sample_weight` is not looked at.
    centres : array-like of shape (K, D)
        Where to start.
    sample_weight : array-like of shape (n,), optional
        Not negative, and not all zero.
    max_iter : int
        Most iterations, at least 1.
    tol : float
        Relative tolerance, at least 0.
    n_threads : int
        Threads that share out each iteration.

    Raises
    ------
    DataError
        If `X`, `centres` and `sample_weight` do not fit together.
    ParameterError
        If a setting is outside its range.

    Examples
    --------
    >>> lloyd([[0.0], [1.0], [9.0], [10.0]], [[0.0], [1.0]]).centres.ravel()
    array([0.5, 9.5])
    """
    rows = parse_rows(X, sample_weight)
    start = _parse_centres(rows, centres)
    if max_iter < 1:
        raise ParameterError(f"max_iter must be at least 1, and is {max_iter}")
    if not tol >= 0:
        raise ParameterError(f"tol must be at least 0, and is {tol}")
    return _climb(rows, start, max_iter, tol * rows.variance, n_threads)


def nearest(X: ArrayLike | Rows, centres: ArrayLike, n_threads: int = 1) -> NDArray[np.int32]:
    """Label (n,) of the nearest of the centres (K, D) for each row; ties go to the lowest.

    By Σ (x - c)² in float64, whatever the dtype of X.

    Raises
    ------
    DataError
        If `X` and `centres` do not fit together.

    Examples
    --------
    >>> nearest([[0.0], [1.0], [9.0]], [[0.0], [2.0], [10.0]])
    array([0, 0, 2], dtype=int32)
    """
    rows = parse_rows(X)
    with _Run(rows, _parse_centres(rows, centres), n_threads) as run:
        run.assign(exact=True)
    return run.labels


def k_means(
    X: ArrayLike | Rows,
    k: int,
    random_state: Any = None,
    sample_weight: ArrayLike | None = None,
    max_iter: int = 300,
    tol: float = 1e-4,
    n_threads: int = 1,
) -> Clusters:
    """`lloyd` from the centres that `kmeans_plusplus` draws.

    Examples
    --------
    >>> k_means([[0.0], [1.0], [9.0], [10.0]], 2, random_state=0).inertia
    1.0
    """
    rows = parse_rows(X, sample_weight)
    centres, _ = kmeans_plusplus(rows, k, random_state, n_threads=n_threads)
    return lloyd(rows, centres, max_iter=max_iter, tol=tol, n_threads=n_threads)


def _parse_centres(rows: Rows, centres: ArrayLike) -> Floats:
    given = np.asarray(centres, np.float64)
    d = rows.X.shape[1]
    if given.ndim != 2 or len(given) == 0 or given.shape[1] != d:
        raise DataError(
            f"centres must be of shape (K, {d}), as X has features, and are {given.shape}"
        )
    return given


class _Run:
    """Rows, centres, and what the kernels know of both (see `kernels.kmeans`)."""

    def __init__(self, rows: Rows, start: Floats, n_threads: int) -> None:
        n, (k, d) = len(rows.X), start.shape
        self.n_blocks, self._block = rows.blocks(k)
        self._rows = rows
        self._model = Model.of(start - rows.ref).arrays
        self.centres = self._model[0].reshape(k, -1)[:, :d]  # less the reference, as they move
        self.labels = np.full(n, -1, np.int32)
        self._until = np.empty(n, np.float32)
        self.sums = sums_of(self.n_blocks, k, d)
        self.merged = self.sums if self.n_blocks == 1 else sums_of(1, k, d)
        self._team = Team(min(n_threads, self.n_blocks), lambda: rows.scratch(k))
        prepare(self._model)

    def __enter__(self) -> _Run:
        return self

    def __exit__(self, *error: object) -> None:
        self._team.__exit__(*error)

    def assign(self, *, exact: bool) -> None:
        """Find the nearest centres, and the sums of the blocks."""
        known = self.labels, self._until
        self._team.run(
            lambda own, i, j: kmeans.assign(
                self._rows.arrays, self._model, known, self.sums, own, self._block, exact, i, j
            ),
            self.n_blocks,
        )

    def move(self, limit: float, *, exact: bool = False) -> int:
        """Merge the blocks' sums in their order and move the centres, unless one has no rows."""
        if self.n_blocks > 1:
            for merged, sums in zip(self.merged, self.sums, strict=True):
                np.add.reduce(sums.reshape(self.n_blocks, -1), axis=0, out=merged)
        return self.follow(limit, exact=exact) if self.merged[1].all() else EMPTY

    def follow(self, limit: float, *, exact: bool = False) -> int:
        """Move the centres as the merged sums say."""
        return int(moving.move(self._model, self.merged, limit, exact))


def _climb(rows: Rows, start: Floats, max_iter: int, limit: float, n_threads: int) -> Clusters:
    """Iterate until centres move by at most `limit`, the sum of their squared shifts."""
    with _Run(rows, start, n_threads) as run:
        n_iter, stands = 0, False
        while n_iter < max_iter and not stands:
            n_iter += 1
            run.assign(exact=False)
            end = run.move(limit)
            if end == EMPTY:
                _relocate(rows, run.centres, run.labels, run.merged)
                end = run.follow(limit)
                end = moving.SETTLED if end == moving.STANDS else end  # labels may yet change
            if end == moving.SETTLED:
                break
            if end == moving.STANDS:
                run.assign(exact=True)
                stands = run.move(limit, exact=True) == moving.STANDS
        if stands:
            inertia = run.merged[3][0]
        else:
            run.assign(exact=True)
            inertia = run.sums[3][::4].sum()
    return Clusters(run.centres + rows.ref, run.labels, float(inertia), n_iter)


def _relocate(
    rows: Rows, centres: Floats, labels: NDArray[np.int32], merged: tuple[Floats, ...]
) -> None:
    """Give each cluster without weight the row that is farthest from its own centre.

    The farthest row goes to the first such cluster, of equally far ones the first; the row no
    longer counts where it was. Nothing is done where every row lies on its centre. `merged`
    holds the sums about `centres` (K, D), which are less the reference, and is changed.
    """
    mass, counts = merged[:2]
    first = merged[2].reshape(len(centres), -1)[:, : centres.shape[1]]
    empty = np.flatnonzero(counts == 0)
    far = _squared_distances(rows, centres, labels)
    if not far.max() > 0:
        return
    m = min(len(empty), len(far))
    candidates = np.flatnonzero(far >= np.partition(far, -m)[-m])
    order = candidates[np.argsort(-far[candidates], kind="stable")]
    for cluster, row in zip(empty, order, strict=False):
        if far[row] < 0:  # no weight
            return
        old, w = labels[row], rows.weight[row] if rows.weight.size else 1.0
        x = rows.X[row] - rows.ref
        counts[old] -= 1
        alone = counts[old] == 0
        mass[old] = 0.0 if alone else mass[old] - w
        first[old] = 0.0 if alone else first[old] - w * x
        mass[cluster], first[cluster] = w, w * x


def _squared_distances(rows: Rows, centres: Floats, labels: NDArray[np.int32]) -> Floats:
    """Squared distance of each row from its centre (n,); -1 for rows without weight."""
    far = np.empty(len(labels))
    _, size = rows.blocks(1)
    for start in range(0, len(far), size):
        at = slice(start, start + size)
        off = (rows.X[at] - rows.ref) - centres[labels[at]]
        far[at] = np.einsum("nd,nd->n", off, off)
    if rows.weight.size:
        far[~(rows.weight > 0)] = -1.0
    return far
