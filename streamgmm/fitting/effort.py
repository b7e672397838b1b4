"""What the starts of a fit may cost.

It is counted in work, never in seconds, so that the same data, settings and seed give the same
model on every machine. A unit is one feature of one row under one component; an iteration of EM
is worth a little more, by the number of parameters that it estimates.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from streamgmm.fitting.settings import FitSettings

WAVE = 8  # starts that are drawn together
ROWS_A_COMPONENT = 200  # that a start is drawn from, at least
SMALL_ROWS = 8192  # up to which starts are scikit-learn's own
MOST_WAVES = 3
SHARE = 8  # of all rows, one in so many is the most that starts are compared on
PASSES = 3  # over all rows, whose work the starts may cost beside that of one wave
_OVERHEAD = 1 << 18  # units that an iteration costs whatever the rows
_KMEANS = 10  # iterations of k-means, which cost a tenth of an M-step's products each


@dataclass(frozen=True)
class Effort:
    """How much a contest may do: rows of the first round, and waves of so many starts.

    No fewer than `least` starts are tried, and no round has more rows than `limit`.
    """

    n_rows: int
    wave: int = WAVE
    waves: int = 1
    least: int = 1
    limit: int = 1 << 62

    @property
    def rounds(self) -> int:
        """Rounds of a wave, until one start is left."""
        return max(1, (self.wave - 1).bit_length())

    @property
    def most_rows(self) -> int:
        """Rows of the last round."""
        return min(self.limit, self.n_rows << (self.rounds - 1))

    @property
    def n_starts(self) -> int:
        """Starts that are tried at most."""
        return self.wave * self.waves


def rows_of_start(settings: FitSettings, n_features: int) -> int:
    """Rows that a start is drawn from and first climbs on.

    200 a component, and more where a component has many parameters p: 8 √2p, which is eight a
    feature for full covariances.

    >>> rows_of_start(FitSettings(16), 16), rows_of_start(FitSettings(16, "diag"), 16)
    (3200, 3200)
    >>> rows_of_start(FitSettings(16), 32)
    4272
    """
    k = settings.n_components
    parameters = count_parameters(settings, n_features) / k
    return k * max(ROWS_A_COMPONENT, int(8 * math.sqrt(2 * parameters)))


def is_small(settings: FitSettings, n_samples: int, n_features: int) -> bool:
    """Whether data are so few that starts are scikit-learn's own, with its random numbers."""
    return n_samples <= max(SMALL_ROWS, 2 * rows_of_start(settings, n_features))


def plan_effort(
    settings: FitSettings, n_samples: int, n_features: int, n_sampled: int, most: int = WAVE
) -> Effort:
    """What the starts may do: one wave, and up to three where the work of three passes allows.

    Three in any case where incremental EM was asked for, by those to whom a read is costly.

    Where there is room for three waves on more rows, as in data that do not fit in memory, each
    start is drawn from more: twice and twice again, up to an eighth of the sample. Starts are
    not compared on more than an eighth of all rows: the climb itself costs little more there.

    >>> effort = plan_effort(FitSettings(16), 500_000, 16, 125_000)
    >>> effort.n_rows, effort.n_starts
    (3200, 16)
    >>> effort = plan_effort(FitSettings(16), 10**9, 16, 400_000)
    >>> effort.n_rows, effort.n_starts
    (25600, 24)
    """
    k = settings.n_components
    n_rows = min(n_sampled, rows_of_start(settings, n_features))
    if k == 1:
        return Effort(n_rows, 1)
    row = k * n_features + count_parameters(settings, n_features) / 6
    budget = PASSES * n_samples * row

    def cost(n_rows: int) -> float:
        drawing = _KMEANS * n_rows * k * n_features + 4 * _OVERHEAD
        climbing = 3 * (n_rows * row + _OVERHEAD)
        return most * (drawing + 5 * climbing)  # three rounds on twice the rows cost five firsts

    while 2 * n_rows <= n_sampled // 8 and MOST_WAVES * cost(2 * n_rows) <= budget:
        n_rows *= 2
    waves = int(min(MOST_WAVES, max(1, budget // cost(n_rows))))
    if settings.algorithm == "incremental":
        waves = MOST_WAVES
    limit = max(n_rows, n_samples // SHARE)
    return Effort(n_rows, most, max(waves, -(-settings.n_init // most)), settings.n_init, limit)


def count_parameters(settings: FitSettings, n_features: int) -> int:
    """Free parameters of a mixture."""
    return settings.family.n_parameters(settings.n_components, n_features)
