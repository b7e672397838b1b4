"""Initial parameters as a person gives them, turned into float64 arrays once."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.utils.validation import check_array

from streamgmm.errors import ParameterError
from streamgmm.model.moments import Floats


def parse_weights(weights: object, n_components: int) -> Floats:
    """Initial weights (K,): in [0, 1], of sum one.

    Raises
    ------
    ParameterError
        Worded as scikit-learn words it.

    Examples
    --------
    >>> parse_weights([0.25, 0.75], 2)
    array([0.25, 0.75])
    """
    array = _parse(weights, "weights", (n_components,))
    if np.any(array < 0.0) or np.any(array > 1.0):
        raise ParameterError(
            "The parameter 'weights' should be in the range [0, 1], but got "
            f"max value {array.min():.5f}, min value {array.max():.5f}"
        )
    tolerance = 1e-6 if array.dtype == np.float32 else 1e-8
    if not abs(1.0 - float(array.sum())) <= tolerance:
        raise ParameterError(
            "The parameter 'weights' should be normalized, but got "
            f"sum(weights) = {array.sum():.5f}"
        )
    return array.astype(np.float64)


def parse_means(means: object, n_components: int, n_features: int) -> Floats:
    """Initial means (K, D).

    Raises
    ------
    ParameterError
        If the shape is another.
    """
    return _parse(means, "means", (n_components, n_features)).astype(np.float64)


def parse_precisions(
    precisions: object, family: Any, n_components: int, n_features: int
) -> Floats:
    """Initial precisions, of the shape that covariances of a Gaussian family have.

    Raises
    ------
    ParameterError
        If the family takes none, the shape is another, or one is not symmetric and positive
        definite.
    """
    if "precisions" not in family.initial:
        raise ParameterError(f"{family.name} components have no precisions to start from")
    covariance = family.covariance
    name = f"{covariance.name} precision"
    shape = covariance.covariance_shape(n_components, n_features)
    array = _parse(precisions, name, shape)
    if covariance.matrices:
        stacked = array.reshape(-1, n_features, n_features)
        symmetric = np.allclose(stacked, stacked.transpose(0, 2, 1))
        if not (symmetric and np.all(np.linalg.eigvalsh(stacked) > 0.0)):
            raise ParameterError(f"'{name}' should be symmetric, positive-definite")
    elif np.any(array <= 0.0):
        raise ParameterError(f"'{name}' should be positive")
    return array.astype(np.float64)


def parse_responsibilities(resp: object, n_samples: int, n_components: int) -> Floats:
    """Initial responsibilities (n, K): not negative, of sum one in each row.

    Raises
    ------
    ParameterError
        If the shape is another, a row is no distribution, or a component has no part in any.

    Examples
    --------
    >>> parse_responsibilities([[1, 0], [0.5, 0.5]], 2, 2)
    array([[1. , 0. ],
           [0.5, 0.5]])
    """
    array = _parse(resp, "resp_init", (n_samples, n_components)).astype(np.float64)
    tolerance = 1e-6
    bad = (array < 0).any(axis=1) | (np.abs(array.sum(axis=1) - 1) > tolerance)
    if bad.any():
        row = int(bad.argmax())
        raise ParameterError(
            f"resp_init, row {row}: {array[row].tolist()} must not be negative, and sum to one"
        )
    empty = np.flatnonzero(array.sum(axis=0) == 0)
    if len(empty):
        raise ParameterError(
            f"resp_init gives no row to components {', '.join(map(str, empty))}; ask for fewer "
            "components"
        )
    return np.ascontiguousarray(array)


def _parse(values: object, name: str, shape: tuple[int, ...]) -> NDArray[Any]:
    dtypes = [np.float64, np.float32]
    array = check_array(values, dtype=dtypes, ensure_2d=False, allow_nd=True, input_name=name)
    if array.shape != shape:
        raise ParameterError(
            f"The parameter '{name}' should have the shape of {shape}, but got {array.shape}"
        )
    return np.asarray(array)
