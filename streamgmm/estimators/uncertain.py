"""Rows with errors, in every estimator: the noise beside the rows, and models that know it."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamgmm.errors import DataError
from streamgmm.fitting.settings import FitSettings
from streamgmm.model.components import Family, takes_gaps
from streamgmm.model.families.uncertain import (
    Uncertain,
    UncertainComponents,
    uncertain,
    uncertain_family,
)
from streamgmm.model.families.uncertain_density import UncertainSums
from streamgmm.model.mixture import Mixture, Statistics
from streamgmm.model.moments import Floats
from streamgmm.predict.values import RowFunction
from streamgmm.sources import Source
from streamgmm.sources.uncertain import with_noise


def noisy(source: Source, noise_variance: Any, model: Mixture) -> tuple[Source, Mixture]:
    """Rows with the noise beside them, and the model of their true values as one of such rows.

    Raises
    ------
    DataError, SourceError
        If the noise does not fit the rows: see `with_noise`.
    ParameterError
        If the components are no Gaussians.
    """
    found = with_noise(source, noise_variance)
    components = uncertain(model.components, found.matrices)
    return found.source, Mixture(model.weights, components)


def with_errors(
    source: Source, noise_variance: Any, settings: FitSettings
) -> tuple[Source, FitSettings]:
    """Rows with the noise beside them, and settings of a fit to such rows; raises as `noisy`."""
    found = with_noise(source, noise_variance)
    family = uncertain_family(settings.family, found.matrices)
    return found.source, replace(settings, family=family)


def alike(mixture: Mixture, family: Family) -> Mixture:
    """The mixture from which a fit of a family goes on: of rows with errors, if that is of them.

    >>> from streamgmm.model.families import Uncertain
    >>> m = Mixture.of("diag", np.ones(1), np.zeros((1, 2)), np.ones((1, 2)))
    >>> alike(m, Uncertain("diag")).n_features
    4
    """
    if not isinstance(family, Uncertain):
        return mixture
    return Mixture(mixture.weights, uncertain(mixture.components, family.matrices))


def plain(mixture: Mixture) -> Mixture:
    """The mixture of the true values."""
    components: Any = mixture.components
    if isinstance(components, UncertainComponents):
        return Mixture(mixture.weights, components.inner)
    return mixture


def plain_statistics(statistics: Statistics) -> Statistics:
    """The statistics of the true values."""
    components = statistics.components
    if isinstance(components, UncertainSums):
        return replace(statistics, components=components.moments)
    return statistics


def statistics_alike(statistics: Statistics, family: Family) -> Statistics:
    """Statistics from which a family goes on, of true values where rows have errors."""
    if not isinstance(family, Uncertain):
        return statistics
    moments = statistics.components
    return replace(statistics, components=UncertainSums(moments, np.zeros_like(moments.weight)))


def denoising(mixture: Mixture, spread: bool) -> RowFunction:
    """What tells the mean, or the standard deviation, of the true values of rows with noise."""
    components: Any = mixture.components
    width = components.inner.n_features
    func = partial(_denoised, mixture, spread)
    return RowFunction(mixture.n_features, width, func, takes_gaps(mixture.family))


def _denoised(
    mixture: Mixture, spread: bool, X: NDArray[Any], numbers: NDArray[np.int64]
) -> Floats:
    density: Any = mixture.density
    bad = mixture.family.unsuitable(X)  # NaN would be told else
    if bad is not None:
        raise DataError(f"the rows to denoise, row {numbers[bad[0]]}: {bad[1]}")
    mean, variance = density.denoised(X, spread)
    return np.asarray(np.sqrt(variance) if spread else mean)
