"""Statistics as plain weighted sums over rows, and as moments beside such sums."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from streamgmm.model.moments import Floats, Moments


@dataclass(frozen=True, eq=False)
class Sums:
    """Weighted sums over rows: `weight` Σ r (K,), and others by name, each (K, ...).

    `kind` is the name of the family.

    >>> one = Sums("mine", np.ones(1), {"x": np.full((1, 1), 3.0)})
    >>> one.merge(one).sums["x"].item()
    6.0
    """

    kind: str
    weight: Floats
    sums: Mapping[str, Floats]

    def __getitem__(self, name: str) -> Floats:
        """One of the sums."""
        return self.sums[name]

    def merge(self, other: Sums) -> Sums:
        """Sums over both sets of rows."""
        return Sums(
            self.kind,
            self.weight + other.weight,
            {name: value + other.sums[name] for name, value in self.sums.items()},
        )

    def scale(self, factor: float) -> Sums:
        """The same rows with every weight multiplied by `factor`."""
        sums = {name: value * factor for name, value in self.sums.items()}
        return Sums(self.kind, self.weight * factor, sums)

    def combine(self, parts: Sequence[Sums], alphas: Floats) -> Sums | None:
        """Σ_i α_i parts_i; None where a component's weight is not positive, but was in any."""
        scaled = [part.scale(float(a)) for part, a in zip(parts, alphas, strict=True)]
        total = scaled[0]
        for each in scaled[1:]:
            total = total.merge(each)
        known = np.any([part.weight > 0 for part in parts], axis=0)
        return total if np.all(total.weight[known] > 0) else None

    def arrays(self) -> dict[str, Floats]:
        """What is stored."""
        return {"weight": self.weight, **self.sums}


@dataclass(frozen=True, eq=False)
class CentredSums:
    """Moments (mean and scatter of rows) beside the weight Σ r (K,), and other sums (K, ...).

    `moments` may be under other weights than the rows' own.
    """

    kind: str
    weight: Floats
    moments: Moments
    sums: Mapping[str, Floats]

    def __getitem__(self, name: str) -> Floats:
        """One of the sums."""
        return self.sums[name]

    def merge(self, other: CentredSums) -> CentredSums:
        """Of both sets of rows."""
        sums = {name: value + other.sums[name] for name, value in self.sums.items()}
        moments = self.moments.merge(other.moments)
        return CentredSums(self.kind, self.weight + other.weight, moments, sums)

    def scale(self, factor: float) -> CentredSums:
        """The same rows with every weight multiplied by `factor`."""
        sums = {name: value * factor for name, value in self.sums.items()}
        moments = self.moments.scale(factor)
        return CentredSums(self.kind, self.weight * factor, moments, sums)

    def combine(self, parts: Sequence[CentredSums], alphas: Floats) -> CentredSums | None:
        """Σ_i α_i parts_i; None where a component's weight is not positive."""
        moments = self.moments.combine([part.moments for part in parts], alphas)
        plain = [Sums(part.kind, part.weight, part.sums) for part in parts]
        total = plain[-1].combine(plain, alphas)
        if moments is None or total is None:
            return None
        return CentredSums(self.kind, total.weight, moments, total.sums)

    def arrays(self) -> dict[str, Floats]:
        """What is stored; ``mass`` is the weight of the moments."""
        moments = self.moments.arrays()
        moments = {"mass": moments.pop("weight"), **moments}
        return {"weight": self.weight, **moments, **self.sums}
