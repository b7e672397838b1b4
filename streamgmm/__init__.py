"""Gaussian mixtures by exact EM for data larger than memory.

Everything is imported when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from streamgmm._version import __version__

if TYPE_CHECKING:
    from streamgmm import errors, families
    from streamgmm.estimators import GaussianMixture, MixtureModel, Selection, select
    from streamgmm.estimators.clusters import ClusterSelection, select_clusters
    from streamgmm.estimators.following import follow
    from streamgmm.estimators.kmeans import KMeans
    from streamgmm.estimators.loading import load
    from streamgmm.estimators.online import OnlineGaussianMixture
    from streamgmm.estimators.regressor import MixtureRegressor
    from streamgmm.progress import ProgressBar
    from streamgmm.report.bound import trace_bound
    from streamgmm.sources import rows

__all__ = [
    "ClusterSelection",
    "GaussianMixture",
    "KMeans",
    "MixtureModel",
    "MixtureRegressor",
    "OnlineGaussianMixture",
    "ProgressBar",
    "Selection",
    "__version__",
    "errors",
    "families",
    "follow",
    "load",
    "rows",
    "select",
    "select_clusters",
    "trace_bound",
]

_HOMES = {
    "GaussianMixture": "streamgmm.estimators",
    "ClusterSelection": "streamgmm.estimators.clusters",
    "KMeans": "streamgmm.estimators.kmeans",
    "MixtureModel": "streamgmm.estimators",
    "MixtureRegressor": "streamgmm.estimators.regressor",
    "OnlineGaussianMixture": "streamgmm.estimators.online",
    "follow": "streamgmm.estimators.following",
    "ProgressBar": "streamgmm.progress",
    "Selection": "streamgmm.estimators",
    "select": "streamgmm.estimators",
    "select_clusters": "streamgmm.estimators.clusters",
    "load": "streamgmm.estimators.loading",
    "trace_bound": "streamgmm.report.bound",
    "rows": "streamgmm.sources",
}


def __getattr__(name: str) -> Any:
    """Import a public name from where it is defined."""
    if name in ("errors", "families"):
        return import_module(f"streamgmm.{name}")
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'streamgmm' has no attribute '{name}'")


def __dir__() -> list[str]:
    """Name what is public."""
    return sorted(__all__)
