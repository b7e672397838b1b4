"""Rows with errors: the variances of each row's noise, read beside its values.

A row of such a source is [x | s]: D values, and the D variances of their errors, or the D × D
covariance matrix, row by row. An infinite variance, of a value of which nothing is known, is
given as `UNKNOWN`, so that all numbers are finite.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamgmm.errors import DataError
from streamgmm.sources.base import Source, float_dtype
from streamgmm.sources.cubes import check_lengths, open_stored
from streamgmm.sources.decoding import Decoding, decoding_of
from streamgmm.sources.joined import as_regions, beside
from streamgmm.sources.variables import FEATURE, Box, Held, Variable

UNKNOWN = -1.0
"""Stands for an infinite variance."""


def checked_noise(values: NDArray[Any], d: int, name: str, start: Any = 0) -> NDArray[Any]:
    """Variances (..., D), or covariances flat (..., D·D), as rows have them.

    Raises
    ------
    DataError
        If one is negative or NaN, or a matrix is not symmetric; names the row.

    Examples
    --------
    >>> checked_noise(np.array([[0.5, np.inf]]), 2, "noise_variance").tolist()
    [[0.5, -1.0]]
    """
    wide = values.shape[-1] != d
    matrices = values.reshape(*values.shape[:-1], d, d) if wide else None
    variances = values if matrices is None else np.einsum("...dd->...d", matrices)
    with np.errstate(invalid="ignore"):
        least, most = variances.min(), values.max()
        fine = least >= 0 and most < np.inf and np.isfinite(values.sum())
    if not fine:
        _refuse(np.isnan(values), values, "NaN", "leave such rows out", name, start)
        _refuse(variances < 0, variances, "negative", "variances are 0 or more", name, start)
        unknown = np.isposinf(variances)
        if matrices is None:
            return np.where(unknown, UNKNOWN, values).astype(values.dtype)
        off = unknown[..., :, None] | unknown[..., None, :]
        matrices = np.where(off, 0.0, matrices).astype(values.dtype)
        np.einsum("...dd->...d", matrices)[unknown] = UNKNOWN
        _refuse(~np.isfinite(matrices), matrices, "infinite", "only variances may be", name, start)
    if matrices is None:
        return values
    scale = np.sqrt(np.abs(variances))
    allowed = 1e-6 * scale[..., :, None] * scale[..., None, :]
    skew = np.abs(matrices - np.swapaxes(matrices, -1, -2)) > allowed
    _refuse(skew, matrices, "not symmetric", "give covariance matrices", name, start)
    return matrices.reshape(values.shape)


def _refuse(
    bad: NDArray[np.bool_], values: NDArray[Any], what: str, hint: str, name: str, start: Any
) -> None:
    """Raise where there are bad values, of which it names the first."""
    if not bad.any():
        return
    at = np.unravel_index(int(np.argmax(bad)), bad.shape)
    n = np.size(start) or 1
    first = np.broadcast_to(start, n)
    sample = tuple(int(i + a) for i, a in zip(at[:n], first, strict=True))
    row = sample[0] if n == 1 else sample
    raise DataError(
        f"{name}, row {row}, feature {', '.join(str(int(i)) for i in at[n:])}: "
        f"{values[at]} is {what}; {hint}"
    )


@dataclass(frozen=True)
class NoisePart:
    """What one block carries of the noise."""

    stored: NoiseStored
    part: Any

    @property
    def futures(self) -> Mapping[Any, Any]:
        """Results on a cluster that it waits for."""
        return dict(self.part.futures)

    @property
    def ref(self) -> Any:
        """The array in Zarr, if it is one and need not be told which of its axes lie flat."""
        return None if self.stored.flat else getattr(self.part, "ref", None)

    def fill(self, values: Mapping[Any, Any]) -> NoisePart:
        """Replace the futures by their values."""
        return replace(self, part=self.part.fill(values))

    def read(self, i: int, box: Box) -> NDArray[Any]:
        """Read the variances of a box of samples, checked."""
        stored = self.stored
        raw = self.part.read(i, stored.inside(box))
        values = stored.variable.decoding.decode(raw)
        values = values.reshape(*values.shape[: stored.n_dims], -1)
        start = tuple(each.start or 0 for each in box[: stored.n_dims])
        return checked_noise(values, stored.d, stored.variable.name, start)

    def check_seen(self) -> None:
        """Check that this process sees the array."""
        self.part.check_seen()

    def __reduce__(self) -> tuple[Any, ...]:
        """Leave out an array that others cannot read."""
        stored = self.stored
        inner = stored.variable.stored
        if inner.resident:
            there = replace(stored.variable, stored=_Shape(inner.shape, inner.dtype))
            stored = replace(stored, variable=there)
        return NoisePart, (stored, self.part)


@dataclass(frozen=True)
class _Shape:
    """An array that stayed where it was."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    resident: bool = True
    in_memory: bool = True


@dataclass(frozen=True)
class NoiseStored:
    """Variances that are read and checked a box at a time: see `streamgmm.sources.variables`.

    Attributes
    ----------
    variable : Variable
        The array as it lies: axes of samples, and one of features or two.
    n_dims, d : int
        How many axes of samples there are, and how many features.
    """

    variable: Variable
    n_dims: int
    d: int

    @property
    def flat(self) -> bool:
        """Whether it holds matrices."""
        return len(self.variable.stored.shape) == self.n_dims + 2

    @property
    def shape(self) -> tuple[int, ...]:
        """As rows have it: of the samples, and as many variances as there are."""
        return (*self.variable.stored.shape[: self.n_dims], self.d**2 if self.flat else self.d)

    @property
    def dtype(self) -> np.dtype[Any]:
        """As decoded."""
        dtype: np.dtype[Any] = self.variable.decoding.dtype(self.variable.stored.dtype)
        return dtype

    @property
    def resident(self) -> bool:
        """As that of the array."""
        return bool(self.variable.stored.resident)

    @property
    def in_memory(self) -> bool:
        """As that of the array."""
        return bool(self.variable.stored.in_memory)

    def edges(self, axis: int) -> Any:
        """As those of the array."""
        return self.variable.stored.edges(axis)

    def inside(self, box: Box) -> Box:
        """The box of the array."""
        return (*box[: self.n_dims], *(slice(0, self.d),) * (2 if self.flat else 1))

    def parts(self, runs: Sequence[Sequence[Box]], cuts: Sequence[Any]) -> list[NoisePart]:
        """Those of the array."""
        inner = [[self.inside(box) for box in run] for run in runs]
        more = ((0, self.d),) * (2 if self.flat else 1)
        found = self.variable.stored.parts(inner, [*cuts[: self.n_dims], *more])
        return [NoisePart(self, part) for part in found]


@dataclass(frozen=True)
class NoiseDecoding:
    """Decodes variances of variables that are rows by themselves, and checks them."""

    inner: Decoding
    name: str

    def dtype(self, stored: np.dtype[Any]) -> np.dtype[Any]:
        """As that of the variable."""
        return self.inner.dtype(stored)

    def decode(self, values: NDArray[Any]) -> NDArray[Any]:
        """Give variances as rows have them; raises DataError."""
        decoded = self.inner.decode(values)
        start = (0,) * (decoded.ndim - 1)
        return checked_noise(decoded, decoded.shape[-1], self.name, start)


@dataclass(frozen=True)
class Uncertain:
    """Rows with the variances of their errors; `matrices` says whether these are covariances."""

    source: Source
    matrices: bool = field(default=False)


def with_noise(source: Source, noise_variance: Any) -> Uncertain:
    """Put the variances of the rows' errors beside their values.

    Parameters
    ----------
    source : Source
        D features.
    noise_variance : array-like, zarr.Array, str or path, dask.array.Array, or Source
        Of shape (n_samples, D), variances of independent errors, or (n_samples, D, D), their
        covariance matrices; of a cube with the samples' shape in the place of n_samples. What is
        in memory is checked here, what is lazy when it is read.

    Raises
    ------
    DataError
        If it is of another shape (names both), or no real numbers, or a variance is negative or
        NaN (names the row).
    SourceNotFoundError, SourceError, DataTypeError
        As `open_source`.
    """
    what, d = "noise_variance", source.n_features
    shape: tuple[int, ...] = getattr(source, "sample_shape", (source.n_samples,))
    n = len(shape)
    if isinstance(noise_variance, Source):
        given = as_regions(noise_variance)
        if given.sample_shape != shape or given.n_features != d:
            raise DataError(
                f"{what} ({given.name}) has samples of shape {given.sample_shape} and "
                f"{given.n_features} features, but {source.name} has {shape} and {d}; give a "
                "variance for each value"
            )
        each = [
            replace(v, decoding=NoiseDecoding(v.decoding, f"{what} ({v.name})"))
            for v in given.variables
        ]
        return Uncertain(beside(source, each))
    label, stored, attributes = open_stored(noise_variance, what)
    if label != what:
        label = f"{what} ({label})"
    if tuple(stored.shape) not in ((*shape, d), (*shape, d, d)):
        raise DataError(
            f"{label} has shape {tuple(stored.shape)}, but {source.name} has rows of shape "
            f"{(*shape, d)}; give a variance for each value, {(*shape, d)}, or a covariance "
            f"matrix for each row, {(*shape, d, d)}"
        )
    check_lengths(stored.shape, label)
    float_dtype(decoding_of(attributes).dtype(stored.dtype), label)
    matrices = len(stored.shape) == n + 2
    if isinstance(stored, Held):
        values = np.asarray(stored.array)
        values = values if values.dtype.kind == "f" else values.astype(np.float64)
        flat = checked_noise(values.reshape(*shape, -1), d, label, (0,) * n)
        variable = Variable(label, Held(flat), (*range(n), FEATURE))
    else:
        raw = Variable(label, stored, (*range(n), FEATURE), decoding_of(attributes))
        variable = Variable(label, NoiseStored(raw, n, d), (*range(n), FEATURE))
    return Uncertain(beside(source, [variable]), matrices)
