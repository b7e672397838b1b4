"""Gaussian mixtures by exact EM for data larger than memory.

Everything is imported when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from streamgmm import errors
    from streamgmm.estimators import GaussianMixture
    from streamgmm.persist import load
    from streamgmm.progress import ProgressBar

__version__ = "0.1.0"

__all__ = ["GaussianMixture", "ProgressBar", "__version__", "errors", "load"]

_HOMES = {
    "GaussianMixture": "streamgmm.estimators",
    "ProgressBar": "streamgmm.progress",
    "load": "streamgmm.persist",
}


def __getattr__(name: str) -> Any:
    """Import a public name from where it is defined."""
    if name == "errors":
        return import_module("streamgmm.errors")
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'streamgmm' has no attribute '{name}'")


def __dir__() -> list[str]:
    """Name what is public."""
    return sorted(__all__)
