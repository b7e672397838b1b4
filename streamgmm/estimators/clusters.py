"""`select_clusters`: numbers of clusters of k-means, compared in shared reads."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import silhouette_score
from sklearn.utils import check_random_state

from streamgmm.errors import ParameterError
from streamgmm.estimators.kmeans import KMeans
from streamgmm.estimators.rows import open_rows
from streamgmm.fitting.centres import inertia
from streamgmm.fitting.clusters import compare_centres
from streamgmm.fitting.stability import doubt, most_stable
from streamgmm.model.moments import Floats
from streamgmm.pages.shown import Text, position, table_of
from streamgmm.places import ZarrStore
from streamgmm.predict.centres import NearestCentres
from streamgmm.progress import listener

CRITERIA = ("silhouette", "elbow", "stability")


@dataclass(frozen=True, eq=False)
class ClusterSelection:
    """What `select_clusters` found.

    Attributes
    ----------
    table : dict of str to ndarray
        A value a candidate: ``n_clusters``; ``inertia``, of all rows; ``silhouette``, the mean
        over sampled rows, NaN for one cluster; ``elbow``, how far the inertia lies below the
        straight line between the first and the last candidate, both axes scaled to one; and
        ``n_iter``. With ``criterion="stability"`` also the columns that `Selection` has for it.
    best : KMeans
    passes : float
        Reads of the data in all.
    timings : dict
        As ``timings_`` of `GaussianMixture`.
    """

    table: dict[str, NDArray[Any]]
    best: KMeans
    passes: float
    timings: dict[str, Any]

    def _shown(self) -> Text:
        title = f"best: {self.best.n_clusters} clusters; {self.passes:.1f} reads of the data"
        return table_of(self.table, position(self.table, self.best.n_clusters), title)

    def __repr__(self) -> str:
        """The table of the candidates, the best marked."""
        return str(self._shown())

    def _repr_html_(self) -> str:
        return self._shown().html


def select_clusters(
    X: Any,
    n_clusters: Iterable[int] = range(2, 13),
    *,
    criterion: str = "silhouette",
    silhouette_rows: int = 5000,
    init: str = "k-means++",
    n_init: int | None = None,
    max_iter: int = 300,
    tol: float = 1e-4,
    sample_weight: Any = None,
    random_state: Any = None,
    block_size: int | str = "auto",
    n_jobs: int | None = None,
    checkpoint: str | os.PathLike[str] | ZarrStore | None = None,
    on_bad_chunk: str = "raise",
    cache: str | None = "auto",
    missing: str = "raise",
) -> ClusterSelection:
    """Fit k-means with every number of clusters, and take the best. All share every read.

    Parameters
    ----------
    X : array-like, zarr.Array, str or path, dask.array.Array, or Source
        Of shape (n_samples, n_features).
    n_clusters : iterable of int, default=range(2, 13)
    criterion : {"silhouette", "elbow", "stability"}, default="silhouette"
        The greatest mean silhouette (Rousseeuw 1987), from two clusters up; or the elbow of the
        inertia (Satopää et al. 2011, "Finding a kneedle in a haystack"), for three candidates
        or more; or the stability of restarts, as `select` has it. K-means has no likelihood to
        compare numbers of clusters by; `select` does that for mixtures.
    silhouette_rows : int, default=5000
        Sampled rows whose silhouettes are taken, which costs the square of their number.
    n_init : int, optional
        Starts for each number of clusters, by default three; five restarts for stability.
    init, max_iter, tol, random_state, block_size, n_jobs, checkpoint, on_bad_chunk, cache, missing
        As for `KMeans`; `init` is ``"k-means++"`` or ``"random"``.
    sample_weight : array-like, zarr.Array, path or dask.array of shape (n_samples,), optional
        Silhouettes are of sampled rows that weigh the same.

    Returns
    -------
    ClusterSelection

    Raises
    ------
    ParameterError
        If there are no candidates, or too few for the criterion, or a setting is out of range.
    DataError, SourceError, CheckpointError, OutputError
        As `KMeans.fit`.

    Examples
    --------
    >>> import numpy as np
    >>> from streamgmm import select_clusters
    >>> rng = np.random.default_rng(0)
    >>> X = rng.normal(size=(900, 2)) + 8 * rng.integers(3, size=900)[:, None]
    >>> select_clusters(X, range(2, 7), random_state=0).best.n_clusters
    3
    """
    ks = [int(k) for k in n_clusters]
    if criterion not in CRITERIA:
        raise ParameterError(f"criterion={criterion!r}: one of {', '.join(CRITERIA)}")
    if not ks or min(ks) < 1 or len(set(ks)) < len(ks):
        raise ParameterError(f"n_clusters={ks}: different whole numbers from 1 up")
    if criterion == "silhouette" and max(ks) < 2:
        raise ParameterError("a silhouette needs two clusters or more: raise n_clusters")
    if criterion == "elbow" and len(ks) < 3:
        raise ParameterError("an elbow needs three numbers of clusters or more to lie between")
    stable = criterion == "stability"
    if n_init is None:
        n_init = 5 if stable else 3
    if stable and (n_init < 2 or max(ks) < 2):
        raise ParameterError(
            "criterion='stability' compares restarts: it needs n_init and n_clusters of 2 or more"
        )
    if init not in ("k-means++", "random"):
        raise ParameterError(f"init={init!r}: centres are drawn for each number of clusters")
    model = KMeans(
        max(ks), init=init, n_init=n_init, max_iter=max_iter, tol=tol, random_state=random_state,
        block_size=block_size, n_jobs=n_jobs, on_bad_chunk=on_bad_chunk, cache=cache,
        missing=missing,
    )  # fmt: skip
    model._validate_params()
    source = open_rows(model, X, sample_weight)
    each = [model.set_params(n_clusters=k)._settings(source.n_features) for k in ks]
    found = compare_centres(
        source, each, check_random_state(random_state), silhouette_rows,
        n_threads=model._n_threads(), on_progress=listener(), checkpoint=checkpoint,
        restarts=stable,
    )  # fmt: skip
    table = {
        "n_clusters": np.array(ks),
        "inertia": np.array([inertia(result) for result in found.results]),
        "silhouette": np.array(
            [
                _silhouette(found.rows, r.mixture.components.arrays()["means"])
                for r in found.results
            ]
        ),
        "n_iter": np.array([result.n_iter for result in found.results]),
    }
    table["elbow"] = _elbow(table["n_clusters"], table["inertia"])
    table |= found.columns
    if not np.isfinite(table[criterion]).any():
        raise ParameterError(f"no candidate has a {criterion}: all rows are in one cluster")
    if stable:
        if said := doubt(table["stability"]):
            warnings.warn(said, UserWarning, stacklevel=2)
        best = most_stable(table["stability"], table["stability_error"], table["n_clusters"])
    else:
        best = int(np.nanargmax(table[criterion]))
    model.set_params(n_clusters=ks[best])
    model._set_result(found.results[best], source.n_features)
    return ClusterSelection(table, model, found.passes, found.timings)


def _silhouette(rows: NDArray[Any], centres: Floats) -> float:
    """Mean silhouette of rows (m, D); NaN where all are in one cluster, or each in its own."""
    labels = NearestCentres.at(centres).posterior(np.ascontiguousarray(rows), labels=True).labels
    if not 1 < len(np.unique(labels)) < len(rows):
        return float("nan")
    return float(silhouette_score(rows, labels))


def _elbow(ks: NDArray[Any], inertias: Floats) -> Floats:
    """How far each inertia lies below the chord; NaN for less than three candidates.

    >>> _elbow(np.array([1, 2, 3]), np.array([10.0, 1.0, 0.0])).round(2).tolist()
    [0.0, 0.4, 0.0]
    """
    if len(ks) < 3:
        return np.full(len(ks), np.nan)
    x = (ks - ks.min()) / np.ptp(ks)
    y = (inertias - inertias.min()) / max(float(np.ptp(inertias)), 1e-300)
    first, last = y[ks.argmin()], y[ks.argmax()]
    return np.asarray(first + (last - first) * x - y)
