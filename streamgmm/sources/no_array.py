"""Rows out of core, given to whoever wants an array of them all."""

from __future__ import annotations

import sys
from typing import Any, NoReturn

import numpy as np

from streamgmm.errors import DataTypeError

HERE = {
    "PCA": "PCA",
    "IncrementalPCA": "PCA",
    "TruncatedSVD": "PCA",
    "FactorAnalysis": "PCA",
    "StandardScaler": "StandardScaler",
    "RobustScaler": "RobustScaler",
    "MinMaxScaler": "StandardScaler or streamgmm.RobustScaler",
    "MaxAbsScaler": "StandardScaler or streamgmm.RobustScaler",
    "QuantileTransformer": "RobustScaler",
    "PowerTransformer": "RobustScaler",
    "KMeans": "KMeans",
    "MiniBatchKMeans": "KMeans",
    "GaussianMixture": "GaussianMixture",
    "BayesianGaussianMixture": "GaussianMixture",
}
"""What does the same, or nearly, out of core: for estimators of scikit-learn."""


class NotAnArray:
    """Rows that are read block by block, and are no array in memory."""

    def __array__(self, dtype: Any = None, copy: Any = None) -> NoReturn:
        """Refuse to be one; raises DataTypeError, which names the estimator that asked."""
        kind = _who_asks()
        name = getattr(self, "name", "the data")
        if kind is None:
            raise DataTypeError(
                f"{name} is read block by block and is no array in memory; give it to estimators "
                "of streamgmm, or pass an array of rows that fit in memory"
            )
        here = HERE.get(kind.__name__)
        use = (
            f"use streamgmm.{here} in its place"
            if here
            else "use streamgmm.StandardScaler, streamgmm.RobustScaler or streamgmm.PCA"
        )
        raise DataTypeError(
            f"{kind.__module__.partition('.')[0]}'s {kind.__name__} needs all rows of {name} in "
            f"memory, where they are read block by block; {use}, or fit it to an array of a "
            "sample of the rows"
        )


class SourceOver(NotAnArray):
    """A source over another one, `source`, as which it is but for what it says itself."""

    source: Any

    @property
    def name(self) -> str:
        """As the source's."""
        return str(self.source.name)

    @property
    def n_samples(self) -> int:
        """As the source's, with rows that are left out."""
        return int(self.source.n_samples)

    @property
    def n_features(self) -> int:
        """As the source's."""
        return int(self.source.n_features)

    @property
    def dtype(self) -> np.dtype[Any]:
        """As the source's."""
        dtype: np.dtype[Any] = self.source.dtype
        return dtype

    @property
    def nbytes(self) -> int:
        """As the source's."""
        return int(self.source.nbytes)

    def __getattr__(self, name: str) -> Any:
        """Whatever else the source has: its weights, the samples' shape, names of features."""
        if name == "source":  # while it is unpickled
            raise AttributeError(name)
        return getattr(self.source, name)


def _who_asks() -> type | None:
    """The class of the estimator nearest on the stack that is not of this package."""
    frame: Any = sys._getframe(2)
    while frame is not None:
        kind = type(frame.f_locals.get("self"))
        if hasattr(kind, "get_params") and hasattr(kind, "fit"):
            return None if kind.__module__.startswith("streamgmm") else kind
        frame = frame.f_back
    return None
