"""Functions of rows to the machinery of prediction: conditional means, draws, true values."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamgmm.model.components import Posterior
from streamgmm.model.moments import Floats


@dataclass(frozen=True, eq=False)
class RowFunction:
    """What is said of each row, in the place of a mixture.

    Attributes
    ----------
    n_features : int
        Of the rows.
    width : int or None
        Values of each row, which are then told as ``"values"``; None where there is one, told
        as ``"value"``.
    func : callable
        ``func(X, numbers)`` of rows (n, n_features) and their numbers in the source (n,); gives
        (n, width), or (n,).
    gaps : bool
        Whether NaN is a value that was not observed.

    Examples
    --------
    >>> from streamgmm.sources import open_source
    >>> from streamgmm.predict import predict_rows
    >>> doubled = RowFunction(1, 1, lambda X, numbers: 2 * X)
    >>> predict_rows(open_source([[1.0], [3.0]]), doubled, "values").tolist()
    [[2.0], [6.0]]
    """

    n_features: int
    width: int | None
    func: Callable[[NDArray[Any], NDArray[np.int64]], Floats]
    gaps: bool = False

    @property
    def offers(self) -> tuple[str, ...]:
        """What is told."""
        return ("value",) if self.width is None else ("values",)

    @property
    def n_components(self) -> int:
        """How many values a row has."""
        return 1 if self.width is None else self.width

    def at(self, X: NDArray[Any], numbers: NDArray[np.int64]) -> Posterior:
        """Say it of rows, where a posterior has densities or responsibilities."""
        found = self.func(X, numbers)
        labels = np.zeros(len(X), np.int32)
        if self.width is None:
            return Posterior(found, labels, np.empty((0, 1)))
        return Posterior(np.zeros(len(X)), labels, found)
