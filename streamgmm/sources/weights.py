"""What all kinds of weights share: the contract, and the checks of values."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from streamgmm.errors import DataError

Values = NDArray[np.float64]
Reader = Callable[[int, int], Values]


class WeightPart(Protocol):
    """The weights of one block.

    Attributes
    ----------
    resident : bool
        Whether its pickle contains the weights.
    futures : mapping
        Results on a cluster that it waits for, by key.
    """

    @property
    def resident(self) -> bool: ...  # noqa: D102

    @property
    def futures(self) -> Mapping[Any, Any]: ...  # noqa: D102

    def fill(self, values: Mapping[Any, Any]) -> WeightPart:
        """Give this part with the values of its futures in their place."""

    def reader(self) -> Reader:
        """Give a function of ``(start, stop)``, rows of the source, to be called in order."""


class Weights(Protocol):
    """The weights of a whole source."""

    def part(self, start: int, stop: int) -> WeightPart:
        """Give the weights of the rows ``start:stop``."""


def check_weights(values: NDArray[Any], start: int, name: str = "sample_weight") -> Values:
    """Check that weights are finite and not negative; give them as float64.

    Raises
    ------
    DataError
        Names the rows.
    """
    try:
        values = np.ascontiguousarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise DataError(f"{name} holds values that are not numbers: {error}") from error
    # One pass where all is well: NaN fails every comparison.
    if values.size and not (values.min() >= 0.0 and values.max() < np.inf):
        finite = np.isfinite(values)
        bad, what = (~finite, "non-finite") if not finite.all() else (values < 0, "negative")
        count = int(np.count_nonzero(bad))
        raise DataError(
            f"{name}, rows {start}:{start + len(values)}: {count} {what} "
            f"weight{'s' if count > 1 else ''}, the first in row {start + int(np.argmax(bad))}; "
            "weights must be finite and 0 or more"
        )
    return values


def check_length(shape: tuple[int, ...], n_samples: int, name: str) -> None:
    """Check that there is one weight for each row.

    Raises
    ------
    DataError
    """
    if len(shape) != 1:
        raise DataError(
            f"Sample weights must be 1D array or scalar; {name} has shape {shape}, give one "
            "weight per row"
        )
    if shape[0] != n_samples:
        raise DataError(
            f"sample_weight has {shape[0]} weights but {name_of_rows(n_samples)}; "
            "give one weight per row"
        )


def name_of_rows(n_samples: int) -> str:
    """Say how many rows the data has."""
    return f"the data has {n_samples} row{'s' if n_samples != 1 else ''}"
