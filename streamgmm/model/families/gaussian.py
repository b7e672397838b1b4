"""Gaussian components: means, and covariances of one of four shapes; compiled kernels.

A long file, since family, components and density make one another: apart they would import in a
circle.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamgmm.errors import ParameterError, SingularCovarianceError
from streamgmm.kernels.drivers import posterior
from streamgmm.model.components import Accumulator, Components, Posterior, Shapes
from streamgmm.model.covariances import COVARIANCES, Covariance
from streamgmm.model.covariances.base import KernelAccumulator, Layout, Recipe, reach
from streamgmm.model.covariances.pruning import ENOUGH
from streamgmm.model.families.moments_under import moments_under
from streamgmm.model.gaps.moments import GapMoments, complete_moments, entropy_of, together
from streamgmm.model.gaps.patterns import has_gaps
from streamgmm.model.gaps.starting import begin_with_gaps, filled_seeds
from streamgmm.model.gaps.steps import GapAccumulator, Marginals, fill_gaps, gap_posterior
from streamgmm.model.gaps.tables import Tables
from streamgmm.model.labelled import LabelAccumulator, label_moments, resp_moments
from streamgmm.model.moments import Floats, Moments
from streamgmm.model.truncation.guide import Guide
from streamgmm.model.truncation.moments import N_SAMPLED, TruncatedMoments
from streamgmm.model.truncation.search import Search
from streamgmm.model.truncation.steps import TruncatedAccumulator, truncated_posterior

LOG_2PI = float(np.log(2 * np.pi))
FLOAT32_TOLERANCE = 1e-2  # nats: the error of a log-density up to which float32 tiles are used
SCATTER_TOLERANCE = 1e-9  # relative error of a covariance up to which a scatter is accepted
LEAST_ENTRIES = 16  # components that a search follows at a time
_TINY = 10 * np.finfo(np.float64).eps  # scikit-learn adds it to the weight of each component


@dataclass(frozen=True)
class Gaussian:
    """Gaussians with covariances of one type; `reg_covar` is added to their diagonals.

    With `gaps`, NaN is a value that was not observed, and densities are of what was. With
    `truncation` each row looks at so many components only, where there are more: its log-density
    is a lower bound (see `model.truncation`).

    >>> Gaussian("diag").n_parameters(3, 5)
    32
    """

    covariance_type: str = "full"
    reg_covar: float = 1e-6
    gaps: bool = field(default=False, repr=False)
    truncation: int | None = field(default=None, repr=False)

    initial = ("means", "precisions")
    equal_weights = False
    surveys = False
    degenerate = SingularCovarianceError

    def __post_init__(self) -> None:
        """Check the type."""
        if self.covariance_type not in COVARIANCES:
            raise ParameterError(
                f"covariance_type={self.covariance_type!r} must be one of {', '.join(COVARIANCES)}"
            )
        if self.truncation is not None and (self.gaps or self.truncation < 1):
            raise ParameterError(
                "truncation is for rows without gaps: fit without it, or pass missing='omit'"
                if self.gaps
                else f"truncation={self.truncation} must be at least 1"
            )

    @property
    def name(self) -> str:
        """That of the covariances."""
        return self.covariance_type

    @property
    def covariance(self) -> Covariance:
        """The shape of the covariances."""
        return COVARIANCES[self.covariance_type]

    @property
    def set_size(self) -> int:
        """How many numbers are kept of a row from one read to the next."""
        return self.truncation or 0

    @property
    def without_gaps(self) -> Gaussian:
        """The same for rows that are whole."""
        return replace(self, gaps=False)

    @property
    def tells_mean(self) -> bool:
        """Whether statistics do: not where rows were completed."""
        return not self.gaps

    @property
    def lighter(self) -> str:
        """Variances alone, where covariances are matrices."""
        return "covariance_type='diag'" if self.covariance.matrices else ""

    def n_parameters(self, k: int, d: int) -> int:
        return self.covariance.n_parameters(k, d)

    def least_rows(self, d: int) -> int:
        return d + 2

    def parameter_shapes(self, k: int, d: int) -> Shapes:
        shape = self.covariance.covariance_shape(k, d)
        return {"means": (k, d), "covariances": shape, "precisions_cholesky": shape}

    def statistic_shapes(self, k: int, d: int) -> Shapes:
        shape = self.covariance.covariance_shape(k, d)
        shapes: Shapes = {"weight": (k,), "mean": (k, d), "scatter": shape}
        if self.truncation is not None and self.truncation < k:
            shapes["sampled"] = (N_SAMPLED,)
        return {**shapes, "gap_entropy": (k,)} if self.gaps else shapes

    def components(self, **arrays: Floats) -> GaussianComponents:
        return GaussianComponents(self, **arrays)

    def of_parameters(self, *parameters: Floats) -> GaussianComponents:
        means, covariances = parameters
        chol = self.covariance.precisions_cholesky(covariances)
        return GaussianComponents(self, means, covariances, chol)

    def statistics(self, **arrays: Floats) -> Moments:
        if "sampled" in arrays:
            return TruncatedMoments(self.covariance.name, **arrays)
        kind = GapMoments if "gap_entropy" in arrays else Moments
        return kind(self.covariance.name, **arrays)

    def summarize(self, X: NDArray[Any], resp: Floats) -> Moments:
        """Moments of a tile of whole rows under responsibilities, for a part of a product."""
        found = moments_under(self.covariance.name, X, resp)
        return complete_moments(found, entropy_of(found)) if self.gaps else found

    def unsuitable(self, X: NDArray[Any]) -> None:
        return None

    def measure(self, d: int) -> tuple[str, ...]:
        return ("lebesgue",) * d

    def survey(self, X: NDArray[Any]) -> None:
        return None

    def informed(self, survey: Any) -> Gaussian:
        return self

    def clustered(self, X: NDArray[Any]) -> NDArray[Any]:
        return X

    def n_clusters(self, k: int) -> int:
        return k

    def begin(self, X: NDArray[Any], weight: Floats | None, resp: NDArray[Any], k: int) -> Moments:
        """Two-pass moments of rows under given responsibilities or labels."""
        kind = self.covariance.name
        if self.gaps and has_gaps(X):
            return begin_with_gaps(kind, X, weight, resp, k)
        if resp.ndim == 1:
            return label_moments(kind, X, resp, k, weight)
        return resp_moments(kind, X, resp, weight)

    def estimate(self, statistics: Moments) -> GaussianComponents:
        """μ_k the mean, Σ_k the scatter over N_k, plus `reg_covar` on its diagonal."""
        return self.start(statistics, {})

    def start(self, statistics: Moments | None, given: Mapping[str, Floats]) -> GaussianComponents:
        """As `estimate`, where ``means`` or ``precisions`` are not given."""
        means = given.get("means")
        if means is None:
            assert statistics is not None
            means = statistics.mean
        if "precisions" in given:
            covariances, chol = self._inverted(given["precisions"])
        else:
            assert statistics is not None
            covariances = self.covariance.maximize(statistics, self.reg_covar)
            chol = self.covariance.precisions_cholesky(covariances)
        return GaussianComponents(self, means, covariances, chol)

    def _inverted(self, precisions: Floats) -> tuple[Floats, Floats]:
        """Covariances and upper triangular Cholesky factors of given precisions.

        Reversing rows and columns turns the lower factor that LAPACK gives into the upper one.
        """
        if not self.covariance.matrices:
            return np.asarray(1.0 / precisions), np.asarray(np.sqrt(precisions))
        stacked = precisions.reshape(-1, *precisions.shape[-2:])
        flipped = np.linalg.cholesky(stacked[:, ::-1, ::-1])[:, ::-1, ::-1]
        inverse = np.linalg.inv(flipped)
        covariances = inverse.transpose(0, 2, 1) @ inverse
        flat = np.asarray(covariances.reshape(precisions.shape))
        return flat, np.array(flipped.reshape(precisions.shape))


@dataclass(frozen=True, eq=False)
class GaussianComponents:
    """Means (K, D), and covariances of the family's shape; float64.

    `precisions_cholesky` holds the upper triangular A_k with A_k A_kᵀ the precision.
    """

    family: Gaussian
    means: Floats
    covariances: Floats
    precisions_cholesky: Floats

    @property
    def covariance(self) -> Covariance:
        """The shape of the covariances."""
        return self.family.covariance

    @property
    def n_components(self) -> int:
        """K."""
        return int(self.means.shape[0])

    @property
    def n_features(self) -> int:
        """D."""
        return int(self.means.shape[1])

    @property
    def full_covariances(self) -> Floats:
        """Covariances as (K, D, D)."""
        return self.covariance.expand(self.covariances, *self.means.shape)

    @property
    def variances(self) -> Floats:
        """Diagonals of the covariances (K, D)."""
        return self.covariance.variances(self.covariances, *self.means.shape)

    def arrays(self) -> dict[str, Floats]:
        """Means, covariances and Cholesky factors of the precisions."""
        return {
            "means": self.means,
            "covariances": self.covariances,
            "precisions_cholesky": self.precisions_cholesky,
        }

    def density(self, weights: Floats) -> GaussianDensity:
        """As the kernels take them."""
        return GaussianDensity(weights, self)

    def log_density(self, X: NDArray[Any]) -> Floats:
        """log N(x | μ_k, Σ_k) of a tile of rows (n, K), for a part of a product."""
        return np.stack([one.posterior(X).log_density for one in self._alone], axis=1)

    @cached_property
    def _alone(self) -> list[GaussianDensity]:
        """Each component by itself."""
        return [self.take(np.array([k])).density(np.ones(1)) for k in range(self.n_components)]

    def summarize(self, X: NDArray[Any], resp: Floats) -> Moments:
        """As the family has it; rows with gaps are completed, component by component."""
        if not (self.family.gaps and has_gaps(X)):
            return self.family.summarize(X, resp)
        each = []
        for one, r in zip(self._alone, resp.T, strict=True):
            sums = one.accumulator(X, True)
            sums.add(X, np.ascontiguousarray(r))
            each.append(sums.result().statistics)
        return together(each, self.covariance.shared)

    def expected_log_density(self, statistics: Moments) -> float:
        """Σ r log N(x | μ_k, Σ_k) in nats, over the rows of statistics."""
        return self.density(np.ones(self.n_components)).expected_log_likelihood(statistics)

    def coordinates(self, weights: Floats, statistics: Moments) -> Floats:
        """As of `GaussianDensity`."""
        return self.density(weights).coordinates(statistics)

    def maximize(self, statistics: Moments) -> GaussianComponents:
        """As `Gaussian.estimate`; a component without weight keeps its mean and covariance."""
        shape = self.covariance
        empty = statistics.weight <= 0
        with np.errstate(divide="ignore", invalid="ignore"):
            covariances = shape.maximize(statistics, self.family.reg_covar)
        if not shape.shared:
            covariances[empty] = self.covariances[empty]
        means = np.where(empty[:, None], self.means, statistics.mean)
        return GaussianComponents(
            self.family, means, covariances, shape.precisions_cholesky(covariances)
        )

    def take(self, components: NDArray[np.intp]) -> GaussianComponents:
        """Some of the components."""
        covariances, chol = self.covariances, self.precisions_cholesky
        if not self.covariance.shared:
            covariances, chol = covariances[components], chol[components]
        return GaussianComponents(self.family, self.means[components], covariances, chol)

    def reseed(
        self, components: NDArray[np.intp], rows: NDArray[Any], weights: Floats
    ) -> GaussianComponents:
        """Means at the rows, with the average covariance of the others."""
        means, covariances = self.means.copy(), self.covariances.copy()
        if self.family.gaps:
            rows = filled_seeds(rows, means, weights)
        means[components] = rows
        if not self.covariance.shared:
            others = np.setdiff1d(np.arange(self.n_components), components)
            share = weights[others] / weights[others].sum()
            covariances[components] = np.tensordot(share, self.covariances[others], 1)
        chol = self.covariance.precisions_cholesky(covariances)
        return GaussianComponents(self.family, means, covariances, chol)

    def sample(
        self, counts: NDArray[np.int64], random_state: np.random.RandomState
    ) -> NDArray[Any]:
        """Draw as scikit-learn draws."""
        parts = []
        matrices = self.full_covariances if self.covariance.matrices else None
        for j, (mean, n) in enumerate(zip(self.means, counts, strict=True)):
            if matrices is not None:
                parts.append(random_state.multivariate_normal(mean, matrices[j], int(n)))
            else:
                noise = random_state.standard_normal(size=(n, self.n_features))
                parts.append(mean + noise * np.sqrt(self.variances[j]))
        return np.vstack(parts)


@dataclass(frozen=True, eq=False)
class GaussianDensity:
    """Components and weights, and the tables of the kernels: the `Parameters` that they take."""

    weights: Floats
    components: GaussianComponents

    @property
    def means(self) -> Floats:
        """Means (K, D)."""
        return self.components.means

    @property
    def covariances(self) -> Floats:
        """Covariances, of the family's shape."""
        return self.components.covariances

    @property
    def precisions_cholesky(self) -> Floats:
        """Cholesky factors of the precisions, of the same shape."""
        return self.components.precisions_cholesky

    @cached_property
    def log_constants(self) -> Floats:
        """log π_k - D/2 log 2π + log |A_k| (K,)."""
        k, d = self.means.shape
        with np.errstate(divide="ignore"):
            log_weights = np.log(self.weights)
        log_det = self.components.covariance.log_det(self.precisions_cholesky, k, d)
        return np.asarray(log_weights - 0.5 * d * LOG_2PI + log_det)

    @cached_property
    def centre(self) -> Floats:
        """Mean of the mixture (D,), taken about the first component's so that no digit is lost."""
        first = self.means[0]
        return np.asarray(first + self.weights @ (self.means - first) / self.weights.sum())

    @cached_property
    def reach(self) -> Floats:
        """Whitened distance of each mean from the mixture's own (K,), each by its own factor."""
        return reach(self, self.precisions_cholesky)

    @cached_property
    def float32_error(self) -> float:
        """Error, in nats, that float32 tiles may leave in the log-density of a typical row.

        Rounding moves a coordinate by about u(|μ - centre| + 3σ), the product with the
        Cholesky factor adds √D roundings, and a row typically lies √D + 3 from its mean.
        """
        d = self.means.shape[1]
        sigma = np.sqrt(self.components.variances)
        reach = np.abs(self.means - self.centre) + 3 * sigma
        moved = self.components.covariance.whiten(np.abs(self.precisions_cholesky), reach)
        norm = np.sqrt(np.einsum("kd,kd->k", moved, moved).max())
        return float(2.0**-24 * (4 + np.sqrt(d)) * norm * (np.sqrt(d) + 3))

    def tile_dtype(self, X: NDArray[Any], weighted: bool = False) -> np.dtype[Any]:
        """Precision of the tiles: float32 only for unweighted float32 rows, error permitting."""
        narrow = X.dtype == np.float32 and not weighted
        return np.dtype(
            np.float32 if narrow and self.float32_error <= FLOAT32_TOLERANCE else np.float64
        )

    def accumulator(
        self, like: NDArray[Any], weighted: bool = False, centres: Floats | None = None
    ) -> Accumulator:
        """Sums about the means, or about `centres` (K, D): see `refine`."""
        if self.truncated:
            return TruncatedAccumulator(self, self.components.covariance.name, centres)
        if self.components.family.gaps:
            return GapAccumulator(
                self, lambda density, about: density.whole_rows(like, weighted, about), centres
            )
        return self.whole_rows(like, weighted, centres)

    def whole_rows(
        self, like: NDArray[Any], weighted: bool, centres: Floats | None
    ) -> KernelAccumulator:
        """As `accumulator`, of rows without gaps."""
        dtype = self.tile_dtype(like, weighted)
        covariance = self.components.covariance
        if centres is not None:
            return KernelAccumulator(covariance.recipe(self, dtype, centres))
        many = len(like) * len(self.weights) >= ENOUGH
        if (dtype, many) not in self._recipes:
            self._recipes[dtype, many] = covariance.recipe(self, dtype, None, many)
        return KernelAccumulator(self._recipes[dtype, many])

    def hard_accumulator(self, centres: Floats | None = None) -> Accumulator:
        """Sums about their own means; about the means, or `centres`, where rows look at few."""
        if self.truncated:
            return TruncatedAccumulator(self, self.components.covariance.name, centres, hard=True)

        def of_labels(density: GaussianDensity, about: Floats | None) -> LabelAccumulator:
            shape = density.components.covariance
            return LabelAccumulator(density, shape.name, density.means.shape)

        if self.components.family.gaps:
            return GapAccumulator(self, of_labels, hard=True)
        return of_labels(self, None)

    def fill(
        self,
        X: Floats,
        variance: Floats | None = None,
        choices: Floats | None = None,
        normals: Floats | None = None,
    ) -> None:
        """Put conditional means, or draws, in the place of the gaps of rows (n, D), float64.

        Their variances go to `variance` (n, D), where it is given. A draw takes `choices` (n,),
        uniform in (0, 1), and `normals` (n, D).
        """
        fill_gaps(self.tables, X, variance, choices, normals)

    @cached_property
    def tables(self) -> Tables:
        """Of the kernels that take rows with gaps one after the other."""
        return Tables.of(self)

    @cached_property
    def marginals(self) -> Marginals:
        """Models of some of the features, for patterns of gaps that many rows have."""
        return Marginals(self)

    @property
    def truncated(self) -> bool:
        """Whether a row looks at some of the components only."""
        size = self.components.family.truncation
        return size is not None and size < self.components.n_components

    @cached_property
    def guide(self) -> Guide:
        """What a search for components goes by; sent to others, since it takes K² products."""
        size = self.components.family.truncation or 1
        return Guide.of(self, self.components.covariance.matrices, max(size, LEAST_ENTRIES))

    @cached_property
    def search(self) -> Search:
        """What finds the components of rows."""
        size = self.components.family.truncation or 1
        return Search(self, self.components.covariance.matrices, self.guide, size)

    @cached_property
    def exact(self) -> GaussianDensity:
        """The same, where each row looks at all components."""
        family = replace(self.components.family, truncation=None)
        return GaussianDensity(self.weights, replace(self.components, family=family))

    def prepare(self) -> None:
        """Make what a pass takes long to make, once for all of its blocks."""
        if self.truncated:
            _ = self.guide

    @cached_property
    def _recipes(self) -> dict[tuple[np.dtype[Any], bool], Recipe]:
        """By the dtype of the tiles, and for many rows or few: blocks are many, and tables few."""
        return {}

    def __getstate__(self) -> dict[str, Any]:
        """What is sent to others: not the tables, which are larger than what they come from."""
        tables = ("_recipes", "tables", "marginals", "search", "exact")
        return {name: value for name, value in self.__dict__.items() if name not in tables}

    def posterior(self, X: NDArray[Any], *, labels: bool = False, resp: bool = False) -> Posterior:
        """Log-densities of rows (n, D), always computed in float64."""
        n, k = X.shape[0], self.components.n_components
        layout = Layout(k, self.components.n_features, np.dtype(np.float64))
        out = Posterior(
            np.empty(n),
            np.empty(n if labels else 0, np.int32),
            np.empty((n if resp else 0, k)),
        )
        if self.components.family.gaps and has_gaps(X):
            return gap_posterior(self, X, out, self.posterior)
        if self.truncated:
            return truncated_posterior(self, X, out)
        kind, *model = self.components.covariance.posterior_args(self, layout)
        posterior(
            kind, X, *model, layout.far, layout.D, layout.T, layout.W, layout.work, layout.rows,
            out.log_density, out.labels, out.resp,
        )  # fmt: skip
        return out

    def expected_log_likelihood(self, statistics: Moments) -> float:
        """Nats over the rows of the statistics; with the entropy of their missing values.

        Σ_k n_k (log π_k - ½ log|2πΣ_k|) - ½ tr Σ_k⁻¹ [S_k + n_k (m_k-μ_k)(m_k-μ_k)ᵀ]
        """
        covariance, used = self.components.covariance, statistics.weight > 0
        shift = covariance.whiten(self.precisions_cholesky, statistics.mean - self.means)
        linear = (
            statistics.weight @ self.log_constants
            if used.all()
            else statistics.weight[used] @ self.log_constants[used]
        )
        offset = statistics.weight @ np.einsum("kd,kd->k", shift, shift)
        spread = covariance.trace(self.precisions_cholesky, statistics.scatter)
        latent = entropy_of(statistics).sum()  # of the missing values, as latent variables
        return float(linear - 0.5 * (spread + offset) + latent)

    def coordinates(self, statistics: Moments) -> Floats:
        """√π_k times the whitened shift of the mean, and the whitened covariance over √2."""
        covariance = self.components.covariance
        k, d = self.means.shape
        root = np.sqrt(self.weights)[:, None]
        shift = root * covariance.whiten(self.precisions_cholesky, statistics.mean - self.means)
        spread = covariance.whiten_covariances(
            self.precisions_cholesky, covariance.maximize(statistics, 0.0), k, d
        )
        scale: Any = 1 / np.sqrt(2)
        if not covariance.shared:
            spread, scale = spread.reshape(k, -1), root / np.sqrt(2)
        return np.concatenate([shift.ravel(), (scale * spread).ravel()])

    def refine(self, updated: Components) -> Floats | None:
        """The new means, where sums about these left too large an error in a covariance."""
        new = gaussians(updated)
        about = self.means if self.truncated else None
        return new.means if scatter_error(self, new, about) > SCATTER_TOLERANCE else None


def scatter_error(
    model: GaussianDensity, updated: GaussianComponents, centres: Floats | None = None
) -> float:
    """Relative error that rounding may have left in the covariances of `updated`.

    Its scatters were summed about `centres` (by default those that the shape of covariance
    prefers); what is lost is u times the squared Mahalanobis distance between the two. When the
    error exceeds `SCATTER_TOLERANCE` the rows are read once more, about the new means.
    """
    covariance = updated.covariance
    about = covariance.scatter_centres(model) if centres is None else centres
    shift = covariance.whiten(updated.precisions_cholesky, updated.means - about)
    return float(2.0**-53 * np.einsum("kd,kd->k", shift, shift).max())


def gaussians(components: Components) -> GaussianComponents:
    """The same components, which must be Gaussians; raises TypeError."""
    if not isinstance(components, GaussianComponents):
        raise TypeError(f"components of {components.family.name} where Gaussians are wanted")
    return components
