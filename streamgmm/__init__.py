"""Gaussian mixtures by exact EM for data larger than memory.

Everything is imported when it is first used.
"""

from __future__ import annotations

import sys
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
    from streamgmm.estimators.pca import PCA
    from streamgmm.estimators.pipelines import plan
    from streamgmm.estimators.quantiles import quantiles
    from streamgmm.estimators.regressor import MixtureRegressor
    from streamgmm.estimators.robust import RobustScaler
    from streamgmm.estimators.standard import StandardScaler
    from streamgmm.estimators.storing import save
    from streamgmm.progress import ProgressBar
    from streamgmm.report.bound import trace_bound
    from streamgmm.report.convergence import ConvergenceDisplay
    from streamgmm.report.maps import MapDisplay
    from streamgmm.report.mixture import MixtureDisplay
    from streamgmm.report.profiles import ProfileDisplay
    from streamgmm.report.selecting import SelectionDisplay
    from streamgmm.report.stream import StreamDisplay
    from streamgmm.sources import rows

__all__ = [
    "PCA",
    "ClusterSelection",
    "ConvergenceDisplay",
    "GaussianMixture",
    "KMeans",
    "MapDisplay",
    "MixtureDisplay",
    "MixtureModel",
    "MixtureRegressor",
    "OnlineGaussianMixture",
    "ProfileDisplay",
    "ProgressBar",
    "RobustScaler",
    "Selection",
    "SelectionDisplay",
    "StandardScaler",
    "StreamDisplay",
    "__version__",
    "errors",
    "families",
    "follow",
    "load",
    "plan",
    "quantiles",
    "rows",
    "save",
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
    "PCA": "streamgmm.estimators.pca",
    "RobustScaler": "streamgmm.estimators.robust",
    "StandardScaler": "streamgmm.estimators.standard",
    "follow": "streamgmm.estimators.following",
    "ProgressBar": "streamgmm.progress",
    "Selection": "streamgmm.estimators",
    "select": "streamgmm.estimators",
    "select_clusters": "streamgmm.estimators.clusters",
    "plan": "streamgmm.estimators.pipelines",
    "quantiles": "streamgmm.estimators.quantiles",
    "save": "streamgmm.estimators.storing",
    "load": "streamgmm.estimators.loading",
    "trace_bound": "streamgmm.report.bound",
    "ConvergenceDisplay": "streamgmm.report.convergence",
    "MapDisplay": "streamgmm.report.maps",
    "MixtureDisplay": "streamgmm.report.mixture",
    "ProfileDisplay": "streamgmm.report.profiles",
    "SelectionDisplay": "streamgmm.report.selecting",
    "StreamDisplay": "streamgmm.report.stream",
    "rows": "streamgmm.sources",
}


if not TYPE_CHECKING:  # or a type checker would take any name for a public one

    def __getattr__(name: str) -> Any:
        """Import a public name from where it is defined."""
        if name in ("errors", "families"):
            return import_module(f"streamgmm.{name}")
        if name in _HOMES:
            if "xarray" in sys.modules:
                import_module("streamgmm.xarray")
            return getattr(import_module(_HOMES[name]), name)
        raise AttributeError(f"module 'streamgmm' has no attribute '{name}'")


def __dir__() -> list[str]:
    """Name what is public."""
    return sorted(__all__)
