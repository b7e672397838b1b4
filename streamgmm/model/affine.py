"""Affine maps of rows: what scalers and projections do, as one value that composes exactly."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamgmm.model.moments import Floats, Moments

TILE_BYTES = 256 << 10
"""Bytes of rows that are mapped at a time, so that they stay in the processor's cache."""

Rows = NDArray[Any]


@dataclass(frozen=True, eq=False)
class Affine:
    """The map x → (x − centre) / scale · matrix + shift.

    Rows are centred before anything else, so their offset costs no digits: an error is some
    roundings of x − centre, not of x.

    Attributes
    ----------
    centre : ndarray of shape (D,)
    scale : ndarray of shape (D,) or None
        None for ones. Where there is a matrix it is None.
    matrix : ndarray of shape (D, F) or None
        None where every column is mapped by itself.
    shift : ndarray of shape (F,)

    Examples
    --------
    >>> scaled = Affine.columns(np.array([1.0, 0.0]), np.array([2.0, 1.0]))
    >>> summed = Affine(np.zeros(2), None, np.ones((2, 1)), np.zeros(1))
    >>> scaled.then(summed).apply(np.array([[5.0, 3.0]])).tolist()
    [[5.0]]
    """

    centre: Floats
    scale: Floats | None
    matrix: Floats | None
    shift: Floats

    @classmethod
    def columns(
        cls, centre: Floats | None, scale: Floats | None, shift: Floats | None = None
    ) -> Affine:
        """(x − centre) / scale + shift, column by column; None for nothing to do."""
        given = [each for each in (centre, scale, shift) if each is not None]
        zeros = np.zeros(len(given[0]))
        return cls(
            zeros if centre is None else centre, scale, None, zeros if shift is None else shift
        )

    @classmethod
    def nothing(cls, n_features: int) -> Affine:
        """The map that changes nothing."""
        return cls(np.zeros(n_features), None, None, np.zeros(n_features))

    @property
    def n_features(self) -> int:
        """Columns that it gives."""
        return len(self.shift)

    @property
    def mixes(self) -> bool:
        """Whether a column that it gives depends on several, so that a gap spreads."""
        return self.matrix is not None

    @property
    def digest(self) -> str:
        """SHA-256 of its numbers."""
        found = hashlib.sha256()
        for each in (self.centre, self.scale, self.matrix, self.shift):
            found.update(b"none" if each is None else np.ascontiguousarray(each).tobytes())
        return found.hexdigest()

    def then(self, other: Affine) -> Affine:
        """Give this map and then another, as one.

        Where this one maps columns, the centre of the other is taken back through it, so that
        rows are centred once, by the sum of both.
        """
        if self.matrix is None:
            scale = self.scale
            back = other.centre - self.shift
            centre = self.centre + (back if scale is None else back * scale)
            if other.matrix is None:
                if scale is None:
                    scale = other.scale
                elif other.scale is not None:
                    scale = scale * other.scale
                return Affine(centre, scale, None, other.shift)
            matrix = other.matrix if scale is None else other.matrix / scale[:, None]
            return Affine(centre, None, matrix, other.shift)
        matrix = other._linear(self.matrix)
        shift = other._linear((self.shift - other.centre)[None])[0] + other.shift
        return Affine(self.centre, None, matrix, shift)

    def inverse(self) -> Affine:
        """The map back, of one that maps columns."""
        assert self.matrix is None
        scale = None if self.scale is None else 1.0 / self.scale
        return Affine(self.shift, scale, None, self.centre)

    def moments(self, moments: Moments) -> Moments:
        """Moments of mapped rows, from those of the rows (kind ``"full"``, or of columns).

        Exact algebra: mean' = (mean − centre) L + shift, scatter' = Lᵀ scatter L.
        """
        mean = self._linear(moments.mean - self.centre) + self.shift
        if moments.kind == "full":
            half = self._linear(moments.scatter)
            scatter = self._linear(np.swapaxes(half, -1, -2))
            scatter = (scatter + np.swapaxes(scatter, -1, -2)) / 2
        else:
            assert self.matrix is None
            assert moments.kind == "diag"
            scatter = self._linear(self._linear(moments.scatter))
        return Moments(moments.kind, moments.weight, mean, scatter)

    def apply(self, rows: Rows) -> Rows:
        """Map rows (n, D) to a new array (n, F) of their dtype."""
        return self.ready(rows.dtype)(rows)

    def ready(self, dtype: np.dtype[Any]) -> Callable[[Rows], Rows]:
        """Give the map for rows of float32 or float64, with its numbers in that precision.

        A centre in float64 is subtracted from float32 rows in two parts, so that its own
        rounding does not move them.
        """
        near = self.centre.astype(dtype)
        rest = self.centre - near
        if self.matrix is None:
            return _Columns(
                near if near.any() else None,
                rest.astype(dtype) if rest.any() else None,
                None if self.scale is None else self.scale.astype(dtype),
                self.shift.astype(dtype) if self.shift.any() else None,
            )
        shift = self.shift - rest @ self.matrix
        return _Product(
            near if near.any() else None,
            np.ascontiguousarray(self.matrix, dtype),
            shift.astype(dtype) if shift.any() else None,
        )

    def _linear(self, values: Floats) -> Floats:
        """Values (..., D) without centre and shift."""
        if self.matrix is not None:
            return np.asarray(values @ self.matrix)
        return values if self.scale is None else values / self.scale


@dataclass(frozen=True, eq=False)
class _Columns:
    """Columns mapped one by one, a tile of rows at a time."""

    near: Rows | None
    rest: Rows | None
    scale: Rows | None
    shift: Rows | None

    def __call__(self, rows: Rows) -> Rows:
        out = np.empty_like(rows, order="C")
        for part in tiles(rows):
            x, y = rows[part], out[part]
            if self.near is None:
                y[...] = x
            else:
                np.subtract(x, self.near, out=y)
            if self.rest is not None:
                y -= self.rest
            if self.scale is not None:
                y /= self.scale
            if self.shift is not None:
                y += self.shift
        return out


@dataclass(frozen=True, eq=False)
class _Product:
    """Centred rows times a matrix, a tile of rows at a time."""

    near: Rows | None
    matrix: Rows
    shift: Rows | None

    def __call__(self, rows: Rows) -> Rows:
        out = np.empty((len(rows), self.matrix.shape[1]), rows.dtype)
        parts = tiles(rows)
        near = self.near
        held = None if near is None or not parts else np.empty_like(rows[parts[0]], order="C")
        for part in parts:
            x, y = rows[part], out[part]
            if near is not None and held is not None:
                x = np.subtract(x, near, out=held[: len(x)])
            np.matmul(x, self.matrix, out=y)
            if self.shift is not None:
                y += self.shift
        return out


def tiles(rows: Rows, n_bytes: int = TILE_BYTES) -> list[slice]:
    """Cut rows into runs that stay in the processor's cache.

    >>> [part.stop for part in tiles(np.zeros((5, 4)), 64)]
    [2, 4, 5]
    """
    step = max(1, n_bytes // max(1, rows.shape[1] * rows.itemsize))
    return [slice(a, min(a + step, len(rows))) for a in range(0, len(rows), step)]
