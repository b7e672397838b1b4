"""Families of components. A new family is one file, and one line in `FAMILIES`."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

from streamgmm.errors import ParameterError
from streamgmm.model.components import Family
from streamgmm.model.covariances import COVARIANCES
from streamgmm.model.families.centroids import Centroids
from streamgmm.model.families.gaussian import Gaussian
from streamgmm.model.families.poisson import Poisson

FAMILIES: dict[str, Family] = {
    **{name: Gaussian(name) for name in COVARIANCES},
    "poisson": Poisson(),
    "centroids": Centroids(),
}
"""Every family that this installation knows, by the name in stored models."""

__all__ = ["FAMILIES", "Centroids", "Gaussian", "Poisson", "parse_family", "settings_of"]


def parse_family(family: Family | str, settings: dict[str, Any] | None = None) -> Family:
    """The family of a name, with settings that are not its own; a family as it is.

    Raises
    ------
    ParameterError
        If none is known by that name, or it has no such setting.

    Examples
    --------
    >>> parse_family("diag", {"reg_covar": 0.1})
    Gaussian(covariance_type='diag', reg_covar=0.1)
    """
    if not isinstance(family, str):
        return family
    if family not in FAMILIES:
        raise ParameterError(
            f"family='{family}' is not known to this installation of streamgmm, which has "
            f"{', '.join(FAMILIES)}; import what defines it and add it to "
            "streamgmm.model.families.FAMILIES"
        )
    known: Any = FAMILIES[family]
    unknown = set(settings or {}) - set(settings_of(known))
    if unknown:
        raise ParameterError(f"family='{family}' has no setting '{min(unknown)}'")
    return replace(known, **settings or {})  # type: ignore[no-any-return]


def settings_of(family: Any) -> dict[str, Any]:
    """The settings of a family, by name.

    >>> settings_of(Gaussian("diag"))
    {'covariance_type': 'diag', 'reg_covar': 1e-06}
    """
    return {field.name: getattr(family, field.name) for field in fields(family)}
