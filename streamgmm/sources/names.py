"""Names that a person gives, checked against those that are there."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any

from streamgmm.errors import ParameterError

_LISTED = 12


def check_names(given: Sequence[Any], there: Sequence[str], what: str) -> None:
    """Check that all names are there; raises ParameterError, with the nearest that is.

    >>> try:
    ...     check_names(["tmp"], ["temp", "salt"], "a variable")
    ... except ParameterError as error:
    ...     print(error)
    'tmp' is not a variable; did you mean 'temp'? There are 'temp', 'salt'
    """
    for name in given:
        if name not in there:
            near = get_close_matches(str(name), there, 1)
            hint = f"did you mean '{near[0]}'? " if near else ""
            listed = ", ".join(f"'{each}'" for each in there[:_LISTED])
            more = " and more" if len(there) > _LISTED else ""
            raise ParameterError(
                f"{name!r} is not {what}; {hint}There are {listed or 'none'}{more}"
            )


def parse_names(features: Any) -> list[str]:
    """Give names of features as a list; raises ParameterError."""
    given = [features] if isinstance(features, str) else list(features)
    if not given or not all(isinstance(each, str) for each in given):
        raise ParameterError(f"features={features!r}: give names of variables")
    if len(set(given)) < len(given):
        raise ParameterError(f"features={features!r}: a name is there twice")
    return given
