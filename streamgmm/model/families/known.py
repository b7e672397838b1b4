"""The families that this installation knows, by name; settings out, and families back."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

from streamgmm.errors import ParameterError
from streamgmm.model.components import Family, takes_gaps

FAMILIES: dict[str, Family] = {}
"""Every family that this installation knows, by the name in stored models."""


def parse_family(family: Family | str, settings: Mapping[str, Any] | None = None) -> Family:
    """The family of a name, with settings that are not its own; a family as it is.

    Settings are as `settings_of` gives them: a family among them is a dict of its name and its
    own settings.

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
        near = difflib.get_close_matches(family, FAMILIES, 1, 0.5)
        hint = f"did you mean '{near[0]}'? " if near else ""
        raise ParameterError(
            f"family='{family}' is not known to this installation of streamgmm, which has "
            f"{', '.join(FAMILIES)}; {hint}for one of your own, import what "
            "defines it and call streamgmm.families.register_family"
        )
    known: Any = FAMILIES[family]
    unknown = set(settings or {}) - {field.name for field in fields(known)}
    if unknown:
        raise ParameterError(f"family='{family}' has no setting '{min(unknown)}'")
    return with_settings(known, settings or {})


def with_settings(family: Any, settings: Mapping[str, Any]) -> Family:
    """The same family with other settings, as `settings_of` gives them."""
    given = {name: _parsed(value) for name, value in settings.items()}
    return replace(family, **given)  # type: ignore[no-any-return]


def settings_of(family: Any) -> dict[str, Any]:
    """The settings of a family, by name: numbers, strings, None, and lists and dicts of them.

    >>> from streamgmm.model.families import Gaussian
    >>> settings_of(Gaussian("diag"))
    {'covariance_type': 'diag', 'reg_covar': 1e-06}
    """
    found = {field.name: _plain(getattr(family, field.name)) for field in fields(family)}
    if found.get("gaps") is False:  # as models and checkpoints of earlier releases have it
        del found["gaps"]
    if "truncation" in found and found["truncation"] is None:
        del found["truncation"]
    return found


def _plain(value: Any) -> Any:
    """A setting as JSON has it: lists for tuples, which JSON does not tell from them."""
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    if hasattr(value, "parameter_shapes"):
        return {"family": value.name, "settings": settings_of(value)}
    return value


def _parsed(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return tuple(_parsed(item) for item in value)
    if isinstance(value, dict) and set(value) == {"family", "settings"}:
        return parse_family(value["family"], value["settings"])
    return value


def with_gaps(family: Any, gaps: bool = True) -> Family:
    """The family over rows with gaps, densities of what was observed; or over whole rows.

    Raises
    ------
    ParameterError
        If it cannot say how likely a part of a row is; names the family.

    Examples
    --------
    >>> with_gaps(parse_family("diag")).gaps
    True
    """
    if gaps == takes_gaps(family):
        return family  # type: ignore[no-any-return]
    if hasattr(family, "with_gaps"):
        return family.with_gaps(gaps)  # type: ignore[no-any-return]
    if any(field.name == "gaps" for field in fields(family)):
        return replace(family, gaps=gaps)  # type: ignore[no-any-return]
    known: list[Any] = list(FAMILIES.values())
    able = [f.name for f in known if any(each.name == "gaps" for each in fields(f))]
    raise ParameterError(
        f"missing='marginalize': family='{family.name}' has no density of a part of a row; pass "
        f"missing='omit', or choose one of {', '.join(able)}, or a product of these"
    )
