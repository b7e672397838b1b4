"""Quantiles of rows by component: how the rows of each are spread, in their own units."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from streamgmm.errors import ParameterError
from streamgmm.estimators.pipelines import apart, map_of
from streamgmm.estimators.rows import open_rows
from streamgmm.estimators.rowwise import count_rows
from streamgmm.fitting.quantiles import Digests, digest_rows, new_digest
from streamgmm.model.affine import Affine
from streamgmm.model.mixture import Mixture
from streamgmm.model.moments import Floats
from streamgmm.passes import open_executor
from streamgmm.sources import Block, check_finite, parse_block_size


@dataclass(frozen=True, eq=False)
class _ByComponent:
    """Digests of the rows of each component."""

    each: tuple[Digests, ...]

    def merge(self, other: _ByComponent) -> _ByComponent:
        """Of both sets of rows."""
        pairs = zip(self.each, other.each, strict=True)
        return _ByComponent(tuple(a.merge(b) for a, b in pairs))


def quantiles(model: Any, X: Any, q: Sequence[float] = (0.05, 0.5, 0.95)) -> Floats:
    """Quantiles of every feature over the rows of each component, in one read.

    Of a pipeline, components are those of its last step, and features are those of X, in their
    own units: profiles by depth, though the mixture is one of scaled and projected rows.

    Parameters
    ----------
    model : fitted mixture, KMeans or sklearn.pipeline.Pipeline that ends with one
    X : array-like, zarr.Array, str or path, dask.array.Array, or Source
        Of shape (n_samples, n_features). Weights count; rows that are left out are not looked at.
    q : sequence of float, default=(0.05, 0.5, 0.95)
        From 0 to 1.

    Returns
    -------
    ndarray of shape (n_components, len(q), n_features)
        NaN for a component without rows. By t-digests (the extra ``quantiles``): the rank of a
        quantile may be off by 0.2% of the component's rows, and mostly is by about 0.01%.

    Raises
    ------
    sklearn.exceptions.NotFittedError
        If there is no model yet.
    ParameterError
        If `q` is out of range, or a step of the pipeline is none of ours.
    MissingExtraError
        If crick is not installed.
    DataError, SourceError
        As `predict`.

    Examples
    --------
    >>> import numpy as np
    >>> from streamgmm import GaussianMixture, quantiles
    >>> X = np.concatenate([np.zeros((99, 1)), np.linspace(8.0, 10.0, 101)[:, None]])
    >>> model = GaussianMixture(2, random_state=0).fit(X)
    >>> np.sort(quantiles(model, X, [0.5]).ravel()).tolist()
    [0.0, 9.0]
    """
    if not len(q) or not all(0.0 <= each <= 1.0 for each in q):
        raise ParameterError(f"q={tuple(q)} must be probabilities, from 0 to 1")
    new_digest()
    steps, last = apart(model)
    first = steps[0][1] if steps else last
    mixture, by = last._model(), map_of(steps)
    source = open_rows(first, X, n_features=first.n_features_in_)
    blocks = source.blocks(parse_block_size(last.block_size, source))
    with open_executor(blocks, n_threads=last._n_threads()) as executor:
        found: _ByComponent = executor.run(
            _by_component,
            (source.name, source.n_features, mixture, by),
            on_block=count_rows("quantiles", source.n_samples),
        )
    nothing = np.full((len(q), source.n_features), np.nan)
    return np.stack([each.quantiles(q) if each.n_rows else nothing for each in found.each])


def _by_component(context: tuple[str, int, Mixture, Affine | None], block: Block) -> _ByComponent:
    name, d, mixture, by = context
    k = mixture.n_components
    each = [[new_digest() for _ in range(d)] for _ in range(k)]
    n_rows = [0] * k
    for piece in block.pieces():
        check_finite(piece, name)
        rows = piece.rows if by is None else by.apply(piece.rows)
        labels = mixture.posterior(rows, labels=True).labels
        for j in range(k):
            mine = labels == j
            weight = None if piece.sample_weight is None else piece.sample_weight[mine]
            n_rows[j] += digest_rows(each[j], piece.rows[mine], weight)
    return _ByComponent(
        tuple(Digests(n, tuple(digests), None) for n, digests in zip(n_rows, each, strict=True))
    )
