"""Gaps filled: conditional means, standard deviations, or draws, given what was observed."""

from __future__ import annotations

from functools import partial

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from streamgmm.errors import ParameterError
from streamgmm.fitting.sample import hash_rows
from streamgmm.model.families.known import with_gaps
from streamgmm.model.gaps.patterns import has_gaps
from streamgmm.model.mixture import Mixture
from streamgmm.model.moments import Floats
from streamgmm.predict.values import RowFunction


def imputing(mixture: Mixture, *, spread: bool = False, seed: int | None = None) -> RowFunction:
    """What fills the gaps of rows; or tells how uncertain it is of each value, zero where known.

    With a `seed` gaps are filled by draws. The draw of a row depends on the seed and the row's
    number alone.

    Raises
    ------
    ParameterError
        If the components cannot say; names the family.

    Examples
    --------
    >>> m = Mixture.of("diag", np.ones(1), np.array([[2.0, 3.0]]), np.array([[1.0, 4.0]]))
    >>> X, numbers = np.array([[5.0, np.nan]]), np.arange(1)
    >>> imputing(m).func(X, numbers), imputing(m, spread=True).func(X, numbers)
    (array([[5., 3.]]), array([[0., 2.]]))
    """
    family = with_gaps(mixture.family)
    components = family.components(**mixture.components.arrays())
    known = Mixture(mixture.weights, components)
    if not hasattr(known.density, "fill"):
        raise ParameterError(
            f"impute: components of family='{family.name}' do not say what is expected of a value "
            "that was not observed"
        )
    d = mixture.n_features
    return RowFunction(d, d, partial(_impute, known, spread, seed), gaps=True)


def _impute(
    mixture: Mixture,
    spread: bool,
    seed: int | None,
    X: NDArray[np.floating],
    numbers: NDArray[np.int64],
) -> Floats:
    filled = np.array(X, np.float64)
    variance = np.zeros(filled.shape) if spread else None
    if has_gaps(filled):
        density = mixture.density
        if seed is None:
            density.fill(filled, variance)  # type: ignore[attr-defined]
        else:
            uniform = uniforms(numbers, filled.shape[1] + 1, seed)
            density.fill(filled, variance, uniform[:, 0].copy(), ndtri(uniform[:, 1:]))  # type: ignore[attr-defined]
    return filled if variance is None else np.sqrt(variance)


def uniforms(numbers: NDArray[np.int64], n: int, seed: int) -> Floats:
    """Random numbers (rows, n) in (0, 1) that depend on the rows' numbers and the seed alone.

    >>> bool(np.all(uniforms(np.arange(4), 2, 0)[2:] == uniforms(np.array([2, 3]), 2, 0)))
    True
    """
    at = numbers[:, None] * n + np.arange(n)
    bits = (hash_rows(at, seed) >> np.uint64(11)).astype(np.float64)
    return np.asarray((bits + 0.5) * 2.0**-53)
