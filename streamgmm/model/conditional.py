"""The mixture of some features given the others: regression by a mixture, and its spread.

Of x = (x_o, x_m), the features that are given and the rest, under Σ_k π_k N(μ_k, Σ_k):

    p(x_m | x_o) = Σ_k w_k(x_o) N(x_m | μ_m + Σ_mo Σ_oo⁻¹ (x_o - μ_o), Σ_mm - Σ_mo Σ_oo⁻¹ Σ_om)
    w_k(x_o) ∝ π_k N(x_o | μ_o, Σ_oo)

with μ and Σ of component k (Ghahramani & Jordan 1994). Weights are taken from log-densities, so
that a row far from every component has weights, too. Within a component of a `Product` its parts
are independent: each part whose features are all given weighs the components, of whatever family
it is, and the features that are told of must be Gaussian.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import logsumexp

from streamgmm.errors import ParameterError, SingularCovarianceError
from streamgmm.model.families.factor import FactorComponents
from streamgmm.model.families.gaussian import LOG_2PI, Gaussian, GaussianComponents
from streamgmm.model.families.product import ProductComponents
from streamgmm.model.mixture import Mixture
from streamgmm.model.moments import Floats
from streamgmm.model.responsibilities import across, normalized
from streamgmm.model.tiles import tiles

Columns = tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Linear:
    """Gaussian features given others of the same components, for each of K.

    `mean` (K, m) where those given, o of them, are at `centre` (K, o); `gain` Σ_mo Σ_oo⁻¹
    (K, m, o); `covariance` (K, m, m) of what is left, and `root`, its lower Cholesky factor.
    """

    mean: Floats
    centre: Floats
    gain: Floats
    covariance: Floats
    root: Floats

    def residual(self, k: int, X: Floats, Y: Floats) -> Floats:
        """Features (n, m) less what component k expects of them, given (n, o)."""
        return np.asarray((Y - self.mean[k]) - (X - self.centre[k]) @ self.gain[k].T)

    def expected(self, k: int, X: Floats) -> Floats:
        """What component k expects, (n, m), given (n, o)."""
        return np.asarray(self.mean[k] + (X - self.centre[k]) @ self.gain[k].T)


@dataclass(frozen=True, eq=False)
class Conditional:
    """The mixture of the features `targets` given the features `given`.

    Numbers are of the mixture's features, in the order in which rows have them. `weighing` are
    the components of what is given, with the columns of each among the given ones.
    """

    mixture: Mixture
    given: Columns
    targets: Columns
    log_weights: Floats
    weighing: tuple[tuple[Columns, Any], ...]
    linear: Linear

    @property
    def n_components(self) -> int:
        """K."""
        return len(self.log_weights)

    def observing(self, given: Sequence[int], targets: Sequence[int]) -> Conditional:
        """The same of some of `targets`, given some of `given`, by their places there."""
        seen, told = (
            tuple(names[i] for i in places)
            for names, places in ((self.given, given), (self.targets, targets))
        )
        return _conditional(self.mixture, seen, told)

    def joint(self, X: Floats) -> Floats:
        """log π_k p(x_o | θ_k) of a tile (n, K)."""
        total = np.tile(self.log_weights, (len(X), 1))
        for columns, components in self.weighing:
            total += components.log_density(np.ascontiguousarray(X[:, columns]))
        return total

    def weights(self, X: NDArray[Any]) -> Floats:
        """The weights w_k(x_o) of rows (n, o), as (n, K)."""
        return self._by_tile(X, self.n_components, lambda rows: normalized(self.joint(rows))[0])

    def mean(self, X: NDArray[Any]) -> Floats:
        """The conditional mean E[x_m | x_o] of rows (n, o), as (n, m)."""
        return self._by_tile(X, len(self.targets), lambda rows: self._moments(rows)[0])

    def variance(self, X: NDArray[Any]) -> Floats:
        """The conditional variance of each feature, of rows (n, o), as (n, m)."""
        return self._by_tile(X, len(self.targets), self._variance)

    def covariance(self, X: NDArray[Any]) -> Floats:
        """The conditional covariance matrices of rows (n, o), as (n, m, m)."""
        m = len(self.targets)
        return self._by_tile(X, m * m, self._covariance).reshape(-1, m, m)

    def log_density(self, X: NDArray[Any], Y: NDArray[Any]) -> Floats:
        """log p(x_m | x_o) in nats (n,), of rows (n, o) and (n, m).

        Never as the difference of two log-densities, which far from all components has no digits.
        """
        out = np.empty(len(X))
        for a, b, rows in tiles(X, self._width):
            joint = self.joint(rows)
            beyond = self._beyond(rows, np.asarray(Y[a:b], np.float64))
            top = across(np.maximum, joint)[:, None]
            gap = joint - np.where(np.isfinite(top), top, 0.0)
            out[a:b] = logsumexp(gap + beyond, axis=1) - logsumexp(gap, axis=1)
        return out

    def draw(self, X: NDArray[Any], choices: Floats, normals: Floats) -> Floats:
        """One draw of the features for each row (n, o), from numbers that are random.

        `choices` (n,) uniform in (0, 1), `normals` (n, m) standard normal.
        """
        out = np.empty((len(X), len(self.targets)))
        for a, b, rows in tiles(X, self._width):
            below = np.cumsum(normalized(self.joint(rows))[0], axis=1)
            chosen = (choices[a:b, None] * below[:, -1:] >= below).sum(axis=1)
            for k in np.unique(chosen):
                at = np.flatnonzero(chosen == k)
                noise = normals[a:b][at] @ self.linear.root[k].T
                out[a + at] = self.linear.expected(k, rows[at]) + noise
        return out

    @property
    def _width(self) -> int:
        """Values of a row that are held at a time."""
        return max(self.n_components, len(self.targets) ** 2)

    def _by_tile(self, X: NDArray[Any], width: int, func: Any) -> Floats:
        out = np.empty((len(X), width))
        for a, b, rows in tiles(X, self._width):
            out[a:b] = func(rows)
        return out

    def _moments(self, X: Floats) -> tuple[Floats, Floats]:
        """The mean of a tile (n, m), and the weights (n, K)."""
        resp = normalized(self.joint(X))[0]
        mean = np.zeros((len(X), len(self.targets)))
        for k in range(self.n_components):
            mean += resp[:, k, None] * self.linear.expected(k, X)
        return mean, resp

    def _deviations(self, X: Floats) -> Iterator[tuple[int, Floats, Floats]]:
        """(k, weights (n,), its mean less that of all (n, m)) for each component."""
        mean, resp = self._moments(X)
        for k in range(self.n_components):
            yield k, resp[:, k], self.linear.expected(k, X) - mean

    def _variance(self, X: Floats) -> Floats:
        out = np.zeros((len(X), len(self.targets)))
        for k, share, off in self._deviations(X):
            out += share[:, None] * (np.diagonal(self.linear.covariance[k]) + off**2)
        return out

    def _covariance(self, X: Floats) -> Floats:
        m = len(self.targets)
        out = np.zeros((len(X), m, m))
        for k, share, off in self._deviations(X):
            own = self.linear.covariance[k] + off[:, :, None] * off[:, None, :]
            out += share[:, None, None] * own
        return out.reshape(len(X), m * m)

    def _beyond(self, X: Floats, Y: Floats) -> Floats:
        """log N(x_m | x_o, k) of a tile (n, K)."""
        m = len(self.targets)
        out = np.empty((len(X), self.n_components))
        for k, root in enumerate(self.linear.root):
            white = np.linalg.solve(root, self.linear.residual(k, X, Y).T)
            log_det = np.log(np.diagonal(root)).sum()
            out[:, k] = -0.5 * (np.einsum("mn,mn->n", white, white) + m * LOG_2PI) - log_det
        return out


def condition(mixture: Mixture, given: Sequence[int]) -> Conditional:
    """The mixture of the other features given some of them, in this order.

    Parameters
    ----------
    mixture : Mixture
        Of Gaussians, or of a `Product` that separates.
    given : sequence of int
        Numbers of features.

    Raises
    ------
    ParameterError
        If a feature is not there, is named twice, or none or all are named; or if the family
        tells of no conditional distribution (names it).

    Examples
    --------
    >>> covariance = np.array([[[1.0, 0.5], [0.5, 1.0]]])
    >>> mixture = Mixture.of("full", np.ones(1), np.zeros((1, 2)), covariance)
    >>> found = condition(mixture, [0])
    >>> found.mean(np.array([[2.0]])).tolist(), found.variance(np.array([[2.0]])).tolist()
    ([[1.0]], [[0.75]])
    """
    d = mixture.n_features
    seen = parse_given(given, d)
    return _conditional(mixture, seen, tuple(i for i in range(d) if i not in seen))


def _conditional(mixture: Mixture, seen: Columns, targets: Columns) -> Conditional:
    """Features that are neither seen nor told of are left out of the mixture."""
    at = {feature: i for i, feature in enumerate(seen)}
    with np.errstate(divide="ignore"):
        log_weights = np.log(mixture.weights)
    parts = _parts(mixture.components)
    weighing, linear = [], _nothing(mixture.n_components, len(targets), len(seen))
    for columns, components in parts:
        own = [i for i, c in enumerate(columns) if c in at]
        rest = [i for i, c in enumerate(columns) if c in targets]
        apart = isinstance(components, GaussianComponents) or not (own or rest)
        if not apart and len(own) < len(columns):
            named = ", ".join(str(c) for c in columns if c not in at)
            raise ParameterError(
                f"features {named} are of {components.family.name} components, of which there is "
                "no conditional distribution here; give them too"
            )
        places = tuple(at[columns[i]] for i in own)
        if own:
            whole = own == list(range(len(columns)))
            weighing.append((places, components if whole else marginal(components, own)))
        if rest:
            told = np.array([targets.index(columns[i]) for i in rest])
            _fill(linear, components, own, rest, np.array(places, int), told)
    try:
        linear.root[:] = np.linalg.cholesky(linear.covariance)
    except np.linalg.LinAlgError as error:
        raise SingularCovarianceError(
            f"features {list(targets)} are determined by features {list(seen)} to rounding, so "
            "their conditional covariance is not positive definite; give fewer features, or fit "
            "with a larger reg_covar"
        ) from error
    return Conditional(mixture, seen, targets, log_weights, tuple(weighing), linear)


def parse_given(given: Sequence[int], d: int) -> Columns:
    """Check numbers of features of D; raises ParameterError.

    >>> parse_given([2, 0], 3)
    (2, 0)
    """
    found = tuple(int(each) for each in given)
    bad = [each for each in found if not 0 <= each < d]
    if bad:
        raise ParameterError(f"there is no feature {bad[0]}; the model has {d}, counted from 0")
    if len(set(found)) < len(found):
        raise ParameterError(f"features={list(found)}: a feature is there twice")
    if not found or len(found) == d:
        which = "all are" if found else "none is"
        raise ParameterError(
            f"features={list(found)}: {which} given; of the model's {d} features give at least "
            "one, and leave at least one to be told of"
        )
    return found


def marginal(components: GaussianComponents, features: Sequence[int]) -> GaussianComponents:
    """The same Gaussians of some of their features, in this order."""
    at = np.array(features)
    covariances = components.covariances
    kind = components.family.covariance_type
    if kind in ("full", "tied"):
        covariances = covariances[..., at[:, None], at]
    elif kind == "diag":
        covariances = covariances[:, at]
    covariances = np.ascontiguousarray(covariances)
    chol = components.covariance.precisions_cholesky(covariances)
    means = np.ascontiguousarray(components.means[:, at])
    return GaussianComponents(components.family, means, covariances, chol)


def _parts(components: Any) -> list[tuple[Columns, Any]]:
    """Independent parts of the features: (columns, components); raises ParameterError."""
    if isinstance(components, FactorComponents):
        components = Gaussian("full").of_parameters(components.means, components.covariances)
    if isinstance(components, GaussianComponents):
        return [(tuple(range(components.n_features)), components)]
    if isinstance(components, ProductComponents):
        return [
            (tuple(part.columns[i] for i in columns), own)
            for part, each in zip(components.family.parts, components.parts, strict=True)
            for columns, own in _within(each, len(part.columns))
        ]
    raise ParameterError(
        f"the components are {components.family.name}, and a conditional distribution is told of "
        "Gaussians and of a Product with Gaussian parts"
    )


def _within(components: Any, d: int) -> list[tuple[Columns, Any]]:
    """Parts of a part: a Product in a Product has some, any other family is one."""
    if isinstance(components, ProductComponents):
        return _parts(components)
    return [(tuple(range(d)), components)]


def _nothing(k: int, m: int, o: int) -> Linear:
    return Linear(
        np.zeros((k, m)),
        np.zeros((k, o)),
        np.zeros((k, m, o)),
        np.zeros((k, m, m)),
        np.zeros((k, m, m)),
    )


def _fill(
    linear: Linear,
    components: GaussianComponents,
    own: list[int],
    rest: list[int],
    places: NDArray[np.intp],
    told: NDArray[np.intp],
) -> None:
    """Put one part's share in: its features `rest` given its features `own`.

    Σ_oo⁻¹ = A Aᵀ, so that with W = Σ_mo A the gain is W Aᵀ and what is left Σ_mm - W Wᵀ.
    """
    means, covariances = components.means, components.full_covariances
    linear.mean[:, told] = means[:, rest]
    left = covariances[:, np.array(rest)[:, None], rest]
    if own:
        chol = _as_matrices(marginal(components, own), len(own))
        white = covariances[:, np.array(rest)[:, None], own] @ chol
        linear.centre[:, places] = means[:, own]
        linear.gain[:, told[:, None], places] = white @ chol.swapaxes(1, 2)
        left = left - white @ white.swapaxes(1, 2)
    linear.covariance[:, told[:, None], told] = left


def _as_matrices(components: GaussianComponents, d: int) -> Floats:
    """Cholesky factors of the precisions as (K, D, D)."""
    chol = components.precisions_cholesky
    kind, k = components.family.covariance_type, components.n_components
    if kind == "tied":
        return np.broadcast_to(chol, (k, d, d))
    if kind in ("diag", "spherical"):
        return np.asarray(np.broadcast_to(chol.reshape(k, -1), (k, d))[:, :, None] * np.eye(d))
    return chol
