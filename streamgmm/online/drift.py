"""Watching a stream for what arrives to change from what was usual.

Kinds of change are told apart, each tested over the latest 1,024 and 4,096 rows against all rows
before them: the *likelihood* (what no component explains; also by a CUSUM, Page 1954, of recent
against usual), the *occupancy* of the components (a swap of weights between components that are
alike leaves the likelihood where it is), their *means* and *covariances*. The scores are those of
a two-sample test with the variance that the rows themselves have, not that of a multinomial: the
responsibilities of components that overlap vary much less, and a G-test is blind there.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamgmm.kernels import changes
from streamgmm.model.covariances.base import Layout
from streamgmm.model.moments import Floats

KINDS = ("likelihood", "occupancy", "means", "covariances", "cusum")
BLOCK = 512  # rows from one look to the next
FALSE_ALARM = 1e-6  # bound on the probability of one at each test
CUSUM_LIMIT = 20.0  # standard deviations of a block
OUTLIER = 8.0  # standard deviations of log p, about √(D/2), below which a row is an outlier


@dataclass(frozen=True)
class Alarm:
    """A change that was detected: the row, its kind, and the test statistic.

    Kinds are ``"likelihood"``, ``"occupancy"``, ``"means"`` and ``"covariances"``, whose statistic
    is a squared standard score, and ``"cusum"``, whose statistic is in standard deviations of the
    likelihood of 512 rows.
    """

    row: int
    kind: str
    statistic: float


@dataclass(frozen=True, eq=False)
class Monitor:
    """Sums of features of the rows since row `start`, under a frozen mixture.

    `means`, `chol` and `const` are the mixture's as its kernels take them, `origin` about its
    log-density in nats, and `bound` (F,) how large each feature can be. `usual` (2, F) and `ring`
    (8, 2, F) are sums and sums of squares of the F = 1 + 2·K + 2·K·D features, of the usual rows
    and of the recent blocks; `block` (n, D) holds the rows of the one that is not full.
    """

    start: int
    wide: bool
    n_features: int
    means: Floats
    chol: Floats
    const: Floats
    bound: Floats
    origin: float
    usual: Floats
    ring: Floats
    block: Floats
    tally: Floats

    @classmethod
    def open(
        cls, start: int, mixture: tuple[Floats, Floats, Floats], variances: Floats, origin: float
    ) -> Monitor:
        """A monitor that starts at row `start`, with an empty reference of usual rows.

        `mixture` is means, Cholesky factors and constants as kernels take them; `variances`
        (K, D).
        """
        means, chol, const = mixture
        k, d = variances.shape
        reach = np.zeros((k, len(means) // k))
        reach[:, :d] = 3 * np.sqrt(variances)
        bound = [np.full(1, 6 * np.sqrt(d / 2)), np.ones(k), reach.ravel(), reach.ravel() ** 2]
        bound.append(np.full(k, d + 6 * np.sqrt(2 * d)))
        f = 1 + 2 * k + 2 * len(means)
        tally = np.zeros(changes.TALLY)
        tally[changes.SPREAD : changes.LATEST] = 1.0
        return cls(
            start, len(chol) > len(means), d, means, chol, const, np.concatenate(bound), origin,
            np.zeros((2, f)), np.zeros((changes.WINDOW, 2, f)),
            np.zeros((BLOCK // stride_of(len(means)), d)), tally,
        )  # fmt: skip

    @property
    def statistics(self) -> tuple[float, ...]:
        """The latest statistics, in the order of `KINDS`."""
        up, down = self.tally[[changes.UP, changes.DOWN]].tolist()
        return (*self.tally[changes.LATEST :].tolist(), max(up, down))


def stride_of(n_means: int) -> int:
    """One row in so many is tested; fewer rows where components and features are many.

    >>> stride_of(8 * 8), stride_of(16 * 16)
    (1, 4)
    """
    return 1 if n_means <= 128 else 4


@lru_cache
def limits_of(k: int, d: int) -> Floats:
    """Squared standard scores of a false alarm's probability, shared among those of a kind."""
    counts = np.array([1.0, k, k * d, k * d + k])
    return np.asarray(2 * np.log(2 * counts / FALSE_ALARM))


def watch(
    monitor: Monitor, X: NDArray[Any], row: int, layout: Layout, limits: Floats
) -> tuple[Monitor, list[Alarm]]:
    """Test the rows X (n, D), the first of which is number `row`, and return the alarms.

    After an alarm the reference of usual rows is empty.
    """
    usual, ring = monitor.usual.copy(), monitor.ring.copy()
    block, tally = monitor.block.copy(), monitor.tally.copy()
    stride = stride_of(len(monitor.means))
    alarms = np.empty((X.shape[0] // BLOCK + 1, len(KINDS) + 1))
    floor = monitor.origin - 4.0 - OUTLIER * np.sqrt(monitor.n_features / 2)
    n_alarms = changes.observe(
        X, row - monitor.start, stride, monitor.wide,
        monitor.means, monitor.chol, monitor.const, monitor.bound, monitor.origin, floor,
        limits, CUSUM_LIMIT,
        layout.far, layout.D, min(128, layout.T), layout.W, layout.work, layout.rows,
        usual[0], usual[1], ring, block, tally, alarms,
    )  # fmt: skip
    sounded = []
    every = [*limits.tolist(), CUSUM_LIMIT]
    for at, *found in alarms[:n_alarms].tolist():
        sounded += [
            Alarm(monitor.start + int(at), kind, statistic)
            for kind, statistic, limit in zip(KINDS, found, every, strict=True)
            if statistic > limit
        ]
    return replace(monitor, usual=usual, ring=ring, block=block, tally=tally), sounded
