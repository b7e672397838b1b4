"""Truncated E-steps of factor analysers: each row looks at few components (`model.truncation`)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamgmm.kernels.truncated_factors import add_factor_sums, evaluate_factors
from streamgmm.model.covariances.base import scratch
from streamgmm.model.moments import Floats
from streamgmm.model.truncation.guide import Ids
from streamgmm.model.truncation.search import STRIP, Found, Search
from streamgmm.model.truncation.steps import SetAccumulator

LOG_2PI = float(np.log(2 * np.pi))
_PRODUCTS = 1 << 22  # of loadings that are held at a time
_FLOAT = np.dtype(np.float64)


@dataclass(frozen=True, eq=False)
class FactorSearch(Search):
    """A search among factor analysers: `model` is a `FactorDensity`."""

    model: Any

    @property
    def n_factors(self) -> int:
        """How many there are, padded to a multiple of 4."""
        return -(-int(self.model.components.loadings.shape[2]) // 4) * 4

    @cached_property
    def tables(self) -> tuple[Floats, ...]:  # type: ignore[override]
        """Of the kernels: see `kernels.truncated_factors`."""
        components, layout = self.model.components, self.layout
        chol, projected, log_det = components.projections
        k, d, q = projected.shape
        eye = np.broadcast_to(np.eye(q), chol.shape)
        with np.errstate(divide="ignore"):
            const = np.log(self.model.weights) - 0.5 * (d * LOG_2PI + log_det)
        D, Q = layout.D, self.n_factors
        return (
            _padded(components.means, (k, D)),
            _padded(1.0 / components.noise_variances, (k, D)),
            _padded(projected, (k, D, Q)),
            _padded(np.linalg.solve(chol, eye), (k, Q, Q)),
            _padded(np.swapaxes(components.loadings, 1, 2), (k, Q, D)),
            const,
        )

    def _evaluate(self, X: NDArray[Any], ids: Ids, begin: int, values: Floats) -> None:
        room = self._room(ids.size)[:3]
        evaluate_factors(X, ids, begin, self.tables, STRIP, room, self._tiles(), values)

    def add_sums(self, X: NDArray[Any], found: Found, about: Floats, sums: Any) -> None:
        """Add the rows' sums about the means, of the rows and of their factors."""
        ids = np.ascontiguousarray(found.ids)
        add_factor_sums(
            X, ids, found.resp.ravel(), self.tables, STRIP, self._room(ids.size)[:3],
            self._tiles(), sums,
        )  # fmt: skip

    def _tiles(self) -> tuple[Floats, ...]:
        D, Q = self.layout.D, self.n_factors
        sizes = {"xt": D, "t": D, "e": D, "w": Q, "z": Q, "s": 1}
        return tuple(scratch(f"factors {n}", m * STRIP, _FLOAT) for n, m in sizes.items())


class FactorSetAccumulator(SetAccumulator):
    """An E-step of factor analysers over sets of components: see `Accumulator`."""

    def __init__(self, density: Any, hard: bool = False) -> None:
        search = density.search
        k, D, Q = search.layout.k, search.layout.D, search.n_factors
        sums = tuple(np.zeros(k * n) for n in (1, D, D, D * Q, Q, Q * Q))
        super().__init__(density, hard, search.tables[0], sums)
        self._components, self._padded = density.components, (D, Q)

    def statistics(self) -> Any:
        """Statistics of the rows and their factors, as `FactorComponents.sums` has them."""
        components, (D, Q) = self._components, self._padded
        k, d, q = components.loadings.shape
        n, first, second, cross, w_first, w_second = self._sums
        first, second = (s.reshape(k, D)[:, :d] for s in (first, second))
        cross, w_first = cross.reshape(k, D, Q)[:, :d, :q], w_first.reshape(k, Q)[:, :q]
        w_second = w_second.reshape(k, Q, Q)[:, :q, :q]
        with np.errstate(invalid="ignore"):  # rows that are not finite show in the likelihood
            shift = first / np.where(n > 0, n, 1.0)[:, None]
            return components.gathered(
                n,
                components.means + shift,
                w_first,
                np.maximum(second - n[:, None] * shift**2, 0.0),
                cross - np.einsum("kd,kq->kdq", shift, w_first),
                w_second,
            ).with_sample(self._sampled)


@dataclass(frozen=True, eq=False)
class FactorScores:
    """E_j[log π_k N_k(x)], x of component j, without a matrix of D × D (Woodbury).

    With P = Ψ⁻¹ Λ L⁻ᵀ, Σ⁻¹ = Ψ⁻¹ - P Pᵀ, and tr P_kᵀ Σ_j P_k = |P_kᵀ Λ_j|² + tr P_kᵀ Ψ_j P_k: so a
    pair costs D q². `about` (D,) is near the means.
    """

    components: Any
    weights: Floats
    about: Floats

    @cached_property
    def variances(self) -> Floats:
        """Diagonals of the covariances (K, D)."""
        loadings = self.components.loadings
        own = np.einsum("kdq,kdq->kd", loadings, loadings)
        return np.asarray(own + self.components.noise_variances)

    @cached_property
    def _sides(self) -> tuple[Floats, ...]:
        """What each component is as j, and as k."""
        components = self.components
        _, projected, log_det = components.projections
        k, d, q = projected.shape
        means, noise = components.means - self.about, components.noise_variances
        with np.errstate(divide="ignore"):
            const = np.maximum(np.log(self.weights), -1e30) - 0.5 * log_det
        const = const - 0.5 * np.einsum("kd,kd->k", means**2, 1.0 / noise)
        rows = np.concatenate([self.variances + means**2, means, noise, np.ones((k, 1))], axis=1)
        squares = np.einsum("kdq,kdq->kd", projected, projected)
        columns = [-0.5 / noise, means / noise, 0.5 * squares, const[:, None]]
        flat = projected.transpose(1, 0, 2).reshape(d, k * q)
        offsets = np.einsum("kd,kdq->kq", means, projected).ravel()
        wide = np.concatenate([np.swapaxes(components.loadings, 1, 2), means[:, None]], axis=1)
        return rows, np.concatenate(columns, axis=1).T, wide, flat, offsets

    @property
    def step(self) -> int:
        """Components j that are looked at together."""
        k, _, q = self.components.loadings.shape
        return max(1, int(_PRODUCTS // (k * q * (q + 1))))

    def of(self, a: int, b: int) -> NDArray[np.float32]:
        """Those of components a to b as j (b - a, K)."""
        rows, columns, wide, flat, offsets = self._sides
        q, d = wide.shape[1] - 1, wide.shape[2]
        made = (wide[a:b].reshape(-1, d) @ flat).reshape(b - a, q + 1, -1)
        made[:, q] -= offsets
        square = np.einsum("jpc,jpc->jc", made, made).reshape(b - a, -1, q).sum(axis=2)
        return np.asarray(rows[a:b] @ columns + 0.5 * square, np.float32)

    def of_groups(self, labels: NDArray[Any], n_groups: int) -> NDArray[np.float32]:
        """Means over the components j of each group (n_groups, K)."""
        sums = np.zeros((n_groups, len(labels)), np.float32)
        for a in range(0, len(labels), self.step):
            b = min(a + self.step, len(labels))
            np.add.at(sums, labels[a:b], self.of(a, b))
        size = np.bincount(labels, minlength=n_groups)
        return np.asarray(sums / np.maximum(size, 1)[:, None], np.float32)


def _padded(values: Floats, shape: tuple[int, ...]) -> Floats:
    """Values in the corner of zeros of a shape, flat."""
    out = np.zeros(shape)
    out[tuple(slice(n) for n in values.shape)] = values
    return out.ravel()
