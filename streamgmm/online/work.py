"""The cost of the parts of a warm-up's fit, counted in units of work.

A unit is about 0.4 ns of one processor of 2023. Work is counted and never timed, so that a state
depends on the rows alone: a slower machine takes longer and reaches the same states. The
constants are upper bounds of measurements with 3 to 256 components of 2 to 128 features.
"""

from __future__ import annotations

from dataclasses import dataclass

from streamgmm.fitting.effort import count_parameters
from streamgmm.fitting.settings import FitSettings
from streamgmm.model.components import Family
from streamgmm.model.families import Gaussian, parse_family

QUOTA = 900_000_000
"""Units that a batch may cost additionally during the warm-up: less than half a second."""

SLICE = 1 << 26  # units of a slice of an E-step
KMEANS_ITERATIONS = 25  # most iterations of k-means in a start; EM follows it
LEAST_ITERATIONS = 12  # if there were fewer, k-means gets fewer rows instead
LEAST_ROWS = 50  # rows a component below which k-means is not worth its cost
_ALWAYS = 1 << 20  # fixed cost of an M-step or of a step


@dataclass(frozen=True)
class Costs:
    """Units of work of each kind of part, for one kind of mixture."""

    n_components: int
    n_features: int
    family: Family | str

    @property
    def _matrices(self) -> bool:
        """Whether components are Gaussians whose covariances are matrices."""
        family = parse_family(self.family)
        return isinstance(family, Gaussian) and family.covariance.matrices

    @property
    def row(self) -> int:
        """Units of the E-step of one row."""
        k, d = self.n_components, self.n_features
        settings = FitSettings(k, parse_family(self.family))
        return k * (d + 8) + count_parameters(settings, d) // 5

    @property
    def slice_rows(self) -> int:
        """Rows of a slice of an E-step."""
        return max(1, SLICE // self.row)

    @property
    def m_step(self) -> int:
        """Units of an M-step, with an Anderson jump."""
        k, d = self.n_components, self.n_features
        if self._matrices:
            return _ALWAYS + k * d * d * (100 + 6 * d)
        return _ALWAYS + 100 * k * d

    def draw(self, how: str, iterations: int, n_rows: int) -> int:
        """Units of a start that is drawn from so many rows, k-means with so many iterations."""
        return 2 * _ALWAYS + n_rows * (self._drawn_row(how) + iterations * self._assigned_row(how))

    def plan_draw(self, how: str, n_rows: int) -> tuple[str, int, int]:
        """How to draw a start within the quota: the method, iterations of k-means, and rows.

        Where the rows are too many for k-means, it gets some of them. Where these would be too
        few, each row is assigned to the nearest of K random rows instead.

        >>> Costs(16, 16, "full").plan_draw("kmeans", 3_200)
        ('kmeans', 25, 3200)
        >>> Costs(64, 64, "full").plan_draw("kmeans", 33_472)
        ('kmeans', 25, 33472)
        >>> Costs(300, 64, "full").plan_draw("kmeans", 115_200)
        ('kmeans', 12, 21155)
        >>> Costs(500, 64, "full").plan_draw("kmeans", 192_000)
        ('nearest', 1, 192000)
        """
        units = QUOTA - 2 * _ALWAYS
        least = LEAST_ITERATIONS if how == "kmeans" else 0
        drawn, assigned = self._drawn_row(how), self._assigned_row(how)
        n = min(n_rows, units // (drawn + least * assigned))
        if how == "kmeans" and n >= min(n_rows, LEAST_ROWS * self.n_components):
            return how, min(KMEANS_ITERATIONS, (units - n * drawn) // (n * assigned)), n
        if how == "kmeans":
            return self.plan_draw("nearest", n_rows)
        return how, 1, min(n_rows, units // (drawn + assigned))

    def _drawn_row(self, how: str) -> int:
        """Units a row of the seeding and of the moments, without assignments."""
        k, d = self.n_components, self.n_features
        moments = k + 5 * d + d * d // 16
        if how == "random":
            return moments + self.row
        return moments + (k * (12 + d) + 12 * d) * (how in ("kmeans", "k-means++"))

    def _assigned_row(self, how: str) -> int:
        """Units a row to find the nearest of K centres."""
        return self.n_components * (1 + self.n_features // 16) * (how in ("kmeans", "nearest"))

    def steps(self, n_rows: int, n_steps: int) -> int:
        """Units of stepwise EM over so many rows, watched for drift."""
        k, d = self.n_components, self.n_features
        each = k * d * d * (4 + d) if self._matrices else 20 * k * d
        return 2 * n_rows * self.row + n_steps * each + _ALWAYS
