"""A family as a person gives it: a name, an instance, or a class of one's own."""

from __future__ import annotations

from dataclasses import is_dataclass, replace
from typing import Any

from streamgmm.errors import ParameterError
from streamgmm.model.components import Family
from streamgmm.model.families import FAMILIES, parse_family, settings_of


def family_of(given: object) -> Family:
    """The family of a name, of a class, or as it is; known by its name from then on.

    Raises
    ------
    ParameterError
        If none is known by that name (says which is nearest), or it is no family.

    Examples
    --------
    >>> family_of("diag")
    Gaussian(covariance_type='diag', reg_covar=1e-06)
    >>> family_of("poison")
    Traceback (most recent call last):
    ...
    streamgmm.errors.ParameterError: family='poison' is not known...did you mean 'poisson'?...
    """
    if isinstance(given, str):
        return parse_family(given)
    family: Any = given
    if isinstance(given, type) and is_family(given):
        try:
            family = given()
        except TypeError as error:
            raise ParameterError(
                f"family={given.__name__} cannot be made without settings ({error}); give an "
                "instance of it"
            ) from error
    if isinstance(family, type) or not is_family(family):
        raise ParameterError(
            f"family={given!r} is no family of components: give a name ({', '.join(FAMILIES)}), "
            "or a frozen dataclass that follows streamgmm.model.components.Family"
        )
    register_family(family)
    return family  # type: ignore[no-any-return]


def is_family(value: object) -> bool:
    """Whether a value, or a class, follows `Family`, as far as its names tell.

    >>> is_family(FAMILIES["poisson"]), is_family("poisson")
    (True, False)
    """
    names = ("name", "n_parameters", "statistic_shapes", "components", "estimate", "begin")
    return is_dataclass(value) and all(hasattr(value, name) for name in names)


def register_family(family: Any) -> None:
    """Make a family known by its name in this process, for models and checkpoints that have it.

    `streamgmm.MixtureModel` does that with a family that it is given. A class that takes the
    place of one of the same name, as in a notebook, is known from then on.

    Parameters
    ----------
    family : Family

    Raises
    ------
    ParameterError
        If one of the package's own families has that name.
    """
    known = FAMILIES.get(family.name)
    if type(known) is type(family):
        return
    if known is not None and type(known).__module__.startswith("streamgmm."):
        raise ParameterError(
            f"{type(family).__name__} is called '{family.name}', as a family of streamgmm is; "
            "give it another name"
        )
    FAMILIES[family.name] = family


def for_columns(family: Any, names: Any) -> Family:
    """The family with the numbers of columns that it has by name, where rows have `names`."""
    if names is None or not hasattr(family, "with_columns"):
        return family  # type: ignore[no-any-return]
    return family.with_columns(list(names))  # type: ignore[no-any-return]


def with_setting(family: Any, name: str, value: Any, default: Any) -> Family:
    """The family with a setting, where it has it.

    Raises
    ------
    ParameterError
        If it has no such setting, and the value is not the default.

    Examples
    --------
    >>> with_setting(family_of("diag"), "reg_covar", 0.1, 1e-6)
    Gaussian(covariance_type='diag', reg_covar=0.1)
    """
    if name in settings_of(family):
        return replace(family, **{name: value})  # type: ignore[no-any-return]
    if value != default:
        raise ParameterError(f"family='{family.name}' has no setting '{name}'")
    return family  # type: ignore[no-any-return]
