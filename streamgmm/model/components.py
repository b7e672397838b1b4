"""What a family of components is to the rest of the package.

    p(x) = Σ_k π_k p(x | θ_k)        `Mixture` = weights π (K,) + `Components` θ

Everything that fits, reads, stores, plans or predicts (the engine) sees the four protocols of
this file and nothing else, so a new family is one file, and one line where families are listed.

- A `Family` is a frozen dataclass without data: its name, and its settings as fields. It knows
  shapes, makes components and statistics of stored arrays, and estimates components (M-step).
- `Components` are the parameters of K components, immutable.
- A `Density` is components with their weights, made ready for a pass over rows. What is
  computed once for all rows of a pass lies there.
- `ComponentStatistics` are what an E-step leaves of rows: a value that merges. They determine
  the M-step, and the expected log-likelihood of the rows under any components of the family.

Three things follow for the engine. EM is ``density(weights).accumulator`` and then
``maximize``. F(q, θ) = ``expected_log_likelihood`` + the entropy of q. A jump (Anderson) is an
affine ``combine`` of statistics, measured in ``coordinates``; a family that gives none is
climbed without jumps.

A family that is written in NumPy alone derives from the classes of `streamgmm.model.tiles`,
which give all of this from the log-density of a tile of rows and from its sums. The Gaussians
have compiled kernels behind the same door. `streamgmm.testing` has the laws as tests to inherit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from streamgmm.errors import DegenerateComponentError
from streamgmm.model.moments import Floats

NO_WEIGHT: Floats = np.empty(0)

Shapes = dict[str, tuple[int, ...]]
"""Names of arrays, in the order in which they are stored, and their shapes."""


def takes_gaps(family: Any) -> bool:
    """Whether rows of a family may have gaps; a family that does not say so takes none."""
    return bool(getattr(family, "gaps", False))


class ComponentStatistics(Protocol):
    """Sufficient statistics of each component; an immutable value that merges."""

    @property
    def kind(self) -> str:
        """Name of the family whose `Family.statistics` makes them of their arrays."""

    @property
    def weight(self) -> Floats:
        """Σ r (K,): the weight of the rows that each component took."""

    def merge(self, other: Self) -> Self:
        """Statistics of both sets of rows."""

    def scale(self, factor: float) -> Self:
        """The same rows with every weight multiplied by `factor`."""

    def combine(self, parts: Sequence[Self], alphas: Floats) -> Self | None:
        """Σ_i α_i parts_i, where Σ α = 1 and these are the last of the parts.

        None where that is no set of statistics.
        """

    def arrays(self) -> dict[str, Floats]:
        """What is stored: as `Family.statistic_shapes` says, ``weight`` first."""


@dataclass(frozen=True, eq=False)
class BlockSums:
    """What an E-step leaves of a run of rows: nats (weighted sums over rows), and statistics."""

    log_likelihood: float
    entropy: float
    statistics: ComponentStatistics


@dataclass(frozen=True, eq=False)
class Posterior:
    """What a model says of each row: log-density (n,), labels (n,) int32, resp (n, K).

    Arrays that were not asked for have no rows.
    """

    log_density: Floats
    labels: NDArray[np.int32]
    resp: Floats


class Accumulator(Protocol):
    """Sums of one run of rows under one model: `add` pieces, then take the `result`."""

    def add(self, X: NDArray[Any], sample_weight: Floats = NO_WEIGHT) -> None:
        """Add rows (n, D), float32 or float64, C-contiguous; weights (n,) or none."""

    def result(self) -> BlockSums:
        """The sums of all rows added."""


class PlacedAccumulator(Accumulator, Protocol):
    """One that may remember rows from one read to the next, and wants to know which they are."""

    def place(self, start: int | None) -> None:
        """Say the number, in the source, of the first of the rows that are added next.

        None where they have no number.
        """


class Density(Protocol):
    """Components and their weights, ready for a pass over rows."""

    def accumulator(
        self, like: NDArray[Any], weighted: bool = False, centres: Floats | None = None
    ) -> Accumulator:
        """An E-step over rows of the dtype of `like`; `centres` is what `refine` asked for."""

    def hard_accumulator(self, centres: Floats | None = None) -> Accumulator:
        """A hard E-step: q gives each row to its likeliest component alone.

        Its entropy is zero, and F = Σ max_k log π_k p(x | θ_k). The log-likelihood is still that
        of the mixture, so that KL = log p - F can be told.
        """

    def posterior(self, X: NDArray[Any], *, labels: bool = False, resp: bool = False) -> Posterior:
        """Log-densities of rows (n, D), with labels and responsibilities where asked for."""

    def expected_log_likelihood(self, statistics: Any) -> float:
        """Σ r log(π_k p(x | θ_k)) in nats, over the rows of statistics of any E-step.

        Where components have latent variables u of their own, E[log π_k p(x, u | θ_k)] and the
        entropy of q(u): a lower bound that is tight at the parameters of the E-step.
        """

    def coordinates(self, statistics: Any) -> Floats | None:
        """The components that statistics stand for, as a vector in these ones' Fisher metric.

        So it is free of units and parametrisation. None where the family makes no jumps.
        """

    def refine(self, updated: Components) -> Floats | None:
        """Points about which sums must be taken again for `updated` to be exact; or None."""


class Components(Protocol):
    """Parameters of K components; frozen."""

    @property
    def family(self) -> Family:
        """What they are components of."""

    @property
    def n_components(self) -> int:
        """K."""

    @property
    def n_features(self) -> int:
        """D."""

    def arrays(self) -> dict[str, Floats]:
        """What is stored, as `Family.parameter_shapes` says."""

    def density(self, weights: Floats) -> Density:
        """These components with their weights (K,)."""

    def maximize(self, statistics: Any) -> Self:
        """M-step: the components that maximise the expected log-likelihood.

        One whose weight is zero stays as it is. Raises DegenerateComponentError where a
        component is degenerate.
        """

    def take(self, components: NDArray[np.intp]) -> Self:
        """Some of the components."""

    def reseed(self, components: NDArray[np.intp], rows: NDArray[Any], weights: Floats) -> Self:
        """Start components again at `rows`, one each; `weights` (K,) are those before.

        As wide as the others are in the mean.
        """

    def sample(
        self, counts: NDArray[np.int64], random_state: np.random.RandomState
    ) -> NDArray[Any]:
        """Draw so many rows of each component, in the order of the components."""


class Family(Protocol):
    """A kind of components: a frozen dataclass whose fields are its settings, and no data.

    Settings are numbers, strings, None, other families, and tuples of these: they are stored
    with a model, and compared when a fit goes on from a checkpoint.
    """

    @property
    def name(self) -> str:
        """What it is called in stored models: a key of `streamgmm.model.families.FAMILIES`."""

    @property
    def lighter(self) -> str:
        """What to ask for instead where memory is short; empty if there is nothing."""

    @property
    def degenerate(self) -> type[DegenerateComponentError]:
        """The error of components that their rows do not determine."""

    @property
    def tells_mean(self) -> bool:
        """Whether statistics have ``row_mean(about)``, the weighted mean of all rows.

        If not, the last read of a fit sums the rows itself, to notice data that changed.
        """

    @property
    def equal_weights(self) -> bool:
        """Whether all components with rows weigh the same, and weights are not estimated."""

    @property
    def initial(self) -> tuple[str, ...]:
        """Names of parameters that a person may give to start from."""

    @property
    def gaps(self) -> bool:
        """Whether NaN is a value that was not observed, and densities are of what was."""

    @property
    def surveys(self) -> bool:
        """Whether settings are still to be taken from the rows, in pass 0: see `survey`."""

    def measure(self, d: int) -> tuple[str, ...]:
        """What the density is with respect to, for each of D columns.

        ``"lebesgue"``, ``"counting"`` or ``"sphere"`` (the surface of the unit sphere).
        Likelihoods of families are comparable where this is the same.
        """

    def survey(self, X: NDArray[Any]) -> Any:
        """What settings depend on, of rows (n, D): a value with `merge`, as an E-step's.

        Raises DataError where the rows cannot be of the family.
        """

    def informed(self, survey: Any) -> Family:
        """The family with the settings that a survey of all rows gives."""

    def clustered(self, X: NDArray[Any]) -> NDArray[Any]:
        """Rows (n, D) as the clustering at the start sees them: (n, anything).

        Where distances between the rows themselves say little: counts of very different size,
        skewed values, categories.
        """

    def n_clusters(self, k: int) -> int:
        """How many clusters K components start from; the last ones may start without rows."""

    def n_parameters(self, k: int, d: int) -> int:
        """Free parameters of a mixture of K components of D features, weights included."""

    def least_rows(self, d: int) -> int:
        """Weight of rows below which a component is taken for lost."""

    def parameter_shapes(self, k: int, d: int) -> Shapes:
        """Arrays that components are stored as."""

    def statistic_shapes(self, k: int, d: int) -> Shapes:
        """Arrays that statistics are stored as, ``weight`` first."""

    def components(self, **arrays: Floats) -> Components:
        """Components of their arrays."""

    def of_parameters(self, *parameters: Floats) -> Components:
        """Components of parameters in their order, less those that follow from others."""

    def statistics(self, **arrays: Floats) -> ComponentStatistics:
        """Statistics of their arrays."""

    def begin(
        self, X: NDArray[Any], weight: Floats | None, resp: NDArray[Any], k: int
    ) -> ComponentStatistics:
        """Statistics of rows in memory (n, D), from which a fit starts.

        `resp` are responsibilities (n, K), or labels (n,), -1 for rows of no component. A
        component without rows has a tiny weight, as in scikit-learn.
        """

    def estimate(self, statistics: Any) -> Components:
        """M-step from statistics alone, of which no component is empty.

        Raises DegenerateComponentError.
        """

    def start(self, statistics: Any, given: Mapping[str, Floats]) -> Components:
        """As `estimate`, with the `initial` parameters that are given in their places.

        Where all are given there need be no statistics (None).
        """

    def unsuitable(self, X: NDArray[Any]) -> tuple[int, str] | None:
        """The first of finite rows (n, D) that cannot be of the family, and why; or None."""
