"""One iteration of EM on a few rows, for what it compiles."""

from __future__ import annotations

from typing import Any

import numpy as np

from streamgmm.model.components import Family
from streamgmm.model.mixture import Mixture, Statistics, e_step, m_step

N_ROWS = 64
MOST_FEATURES = 16  # what is compiled does not depend on their number


def rehearse(family: Family, dtype: np.dtype[Any], n_features: int) -> tuple[Mixture, Statistics]:
    """Compile EM with a family for rows of a dtype; give a mixture and its statistics."""
    X = some_rows(dtype, n_features)
    resp = np.ones((N_ROWS, 1))
    mixture = Mixture(np.ones(1), family.start(family.begin(X, None, resp, 1), {}))
    statistics = e_step(mixture, X)
    statistics = statistics.merge(statistics)
    return m_step(mixture, statistics), statistics


def some_rows(dtype: np.dtype[Any], n_features: int) -> Any:
    """Rows (64, D) between 0 and 1, of 16 features at most."""
    n_features = min(n_features, MOST_FEATURES)
    return np.random.default_rng(0).random((N_ROWS, n_features)).astype(dtype)
