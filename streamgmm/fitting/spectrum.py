"""Principal components of moments, or of few rows in memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.linalg
from numpy.typing import NDArray

from streamgmm.errors import DataError, ParameterError
from streamgmm.fitting.moments import RowMoments
from streamgmm.model.moments import Floats


@dataclass(frozen=True, eq=False)
class Spectrum:
    """All variances of rows along their principal directions, the largest first.

    Attributes
    ----------
    n_rows : int
    weight : float
    mean : ndarray of shape (D,)
    variances : ndarray of shape (R,)
        With n − 1 in the denominator.
    directions : ndarray of shape (R, D)
    """

    n_rows: int
    weight: float
    mean: Floats
    variances: Floats
    directions: Floats

    @property
    def rank(self) -> int:
        """The lesser of rows and features."""
        return min(self.n_rows, len(self.mean))

    @property
    def ratios(self) -> Floats:
        """Shares of the whole variance; zero where there is none."""
        total = self.variances.sum()
        return self.variances / total if total > 0 else np.zeros_like(self.variances)

    def n_kept(self, n_components: Any, svd_solver: str = "auto") -> int:
        """How many components `n_components` means; raises ParameterError, as scikit-learn."""
        most, truncated = self.rank, svd_solver in ("arpack", "randomized")
        if n_components is None:
            return most - (svd_solver == "arpack")
        if isinstance(n_components, str):
            if truncated:
                raise ParameterError(
                    f"n_components={n_components!r} cannot be a string with "
                    f"svd_solver='{svd_solver}'"
                )
            if self.n_rows < len(self.mean):
                raise ParameterError(
                    "n_components='mle' is only supported if n_samples >= n_features"
                )
            from sklearn.decomposition._pca import _infer_dimension

            return int(_infer_dimension(self.variances, self.n_rows))
        if 0.0 < n_components < 1.0 and not truncated:
            reached = np.searchsorted(np.cumsum(self.ratios), n_components, side="right") + 1
            return min(int(reached), most)
        if not truncated <= n_components <= most:
            raise ParameterError(
                f"n_components={n_components} must be between {int(truncated)} and "
                f"min(n_samples, n_features)={most} with svd_solver='{svd_solver}'"
            )
        if svd_solver == "arpack" and n_components == most:
            raise ParameterError(
                f"n_components={n_components} must be strictly less than "
                f"min(n_samples, n_features)={most} with svd_solver='arpack'"
            )
        return int(n_components)


def solver_of(svd_solver: str, shape: tuple[int, int], n_components: Any) -> str:
    """What scikit-learn would take for ``"auto"``, by which it checks `n_components`.

    >>> solver_of("auto", (1000, 10), 3), solver_of("auto", (20, 10), 3)
    ('covariance_eigh', 'full')
    """
    if svd_solver != "auto":
        return svd_solver
    n_samples, n_features = shape
    if n_features <= 1000 and n_samples >= 10 * n_features:
        return "covariance_eigh"
    if max(shape) <= 500 or n_components in ("mle", None):
        return "full"
    return "randomized" if 1 <= n_components < 0.8 * min(shape) else "full"


def of_moments(found: RowMoments, name: str) -> Spectrum:
    """Eigenvalues and eigenvectors of the covariance; raises DataError.

    An eigenvalue is exact to some roundings of the largest one.
    """
    weight = _check_weight(found.weight, name)
    covariance = found.moments.scatter[0] / (weight - 1.0)
    values, vectors = scipy.linalg.eigh(covariance)
    n_rows = max(found.n_rows, int(weight))  # a row of weight 3 counts as three
    rank = min(n_rows, len(values))
    values = np.maximum(values[::-1], 0.0)[:rank]
    return Spectrum(
        n_rows, weight, found.mean.copy(), values,
        with_signs(vectors.T[::-1][:rank]),
    )  # fmt: skip


def of_rows(rows: NDArray[Any], name: str) -> Spectrum:
    """Singular values and vectors of rows themselves: small ones keep their digits."""
    weight = _check_weight(float(len(rows)), name)
    mean = rows.mean(axis=0, dtype=np.float64)
    _, singular, directions = scipy.linalg.svd(rows - mean, full_matrices=False)
    return Spectrum(len(rows), weight, mean, singular**2 / (weight - 1.0), with_signs(directions))


def with_signs(directions: Floats) -> Floats:
    """Directions (R, D) whose largest entries in absolute value are positive.

    >>> with_signs(np.array([[0.6, -0.8]])).tolist()
    [[-0.6, 0.8]]
    """
    largest = np.argmax(np.abs(directions), axis=1)
    signs = np.sign(directions[np.arange(len(directions)), largest])
    return np.ascontiguousarray(directions * signs[:, None])


def _check_weight(weight: float, name: str) -> float:
    if not weight > 1.0:
        raise DataError(
            f"{name}: n_samples={weight:g}, and a variance needs more rows than one (or weights "
            "that sum to more than 1)"
        )
    return weight
