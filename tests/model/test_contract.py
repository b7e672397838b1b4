"""Our own families keep the contract that `streamgmm.testing` has for everybody's."""

from dataclasses import dataclass

import numpy as np
import pytest

from streamgmm.model.families import Poisson
from streamgmm.model.mixture import Mixture
from streamgmm.model.tiles import Sums
from streamgmm.testing import ComponentsTests
from tests.mixtures import random_mixture
from tests.model.numpy_poisson import Poisson as NumpyPoisson
from tests.model.numpy_poisson import PoissonComponents


class GaussianTests(ComponentsTests):
    kind: str
    free = 2  # means and covariances; Cholesky factors follow from these

    def mixture(self, rng, k, d):
        return random_mixture(self.kind, k, d, int(rng.integers(1 << 30)))


class TestFull(GaussianTests):
    kind = "full"
    sizes = ((1, 1, 4), (2, 1, 60), (2, 3, 300), (3, 5, 900))


class TestTied(GaussianTests):
    kind = "tied"


class TestDiag(GaussianTests):
    kind = "diag"


class TestSpherical(GaussianTests):
    kind = "spherical"


def counts(family, rng, k, d):
    """Poisson components whose rates are a few units apart."""
    return Mixture.of(family, rng.dirichlet(np.full(k, 5.0)), rng.uniform(1, 12, size=(k, d)))


class TestPoisson(ComponentsTests):
    def mixture(self, rng, k, d):
        return counts(Poisson(), rng, k, d)


class TestCentroids(ComponentsTests):
    """By soft assignments; by hard ones the family is k-means."""

    def mixture(self, rng, k, d):
        means, variance = 2 * rng.normal(size=(k, d)), rng.uniform(0.5, 2.0, size=1)
        return Mixture.of("centroids", np.full(k, 1 / k), means, variance)


class TestPoissonInNumpy(ComponentsTests):
    def mixture(self, rng, k, d):
        return counts(NumpyPoisson(), rng, k, d)


# Families that are wrong, each in one thing, and what is said of them.


@dataclass(frozen=True, eq=False)
class WrongComponents(PoissonComponents):
    def expected_log_density(self, statistics):
        right = super().expected_log_density(statistics)
        return right + statistics["base"].sum() if self.family.wrong == "energy" else right

    def coordinates(self, weights, statistics):
        right = super().coordinates(weights, statistics)
        return right * np.sqrt(self.rates.ravel()) if self.family.wrong == "units" else right

    def draw(self, k, n, random_state):
        rows = super().draw(k, n, random_state)
        return rows + (self.family.wrong == "sample")

    def take(self, components):
        chosen = components[::-1] * 0 if self.family.wrong == "take" else components
        return super().take(chosen)


class WrongSums(Sums):
    def merge(self, other):
        return type(self)(self.kind, self.weight + other.weight, dict(other.sums))


@dataclass(frozen=True)
class Wrong(NumpyPoisson):
    wrong: str = ""

    name = "wrong"

    def components(self, **arrays):
        return WrongComponents(self, **arrays)

    def summarize(self, X, resp):
        right = super().summarize(X, resp)
        kind = WrongSums if self.wrong == "merge" else Sums
        scale = 2.0 if self.wrong == "weights" else 1.0
        return kind("wrong", right.weight, {n: v * scale for n, v in right.sums.items()})

    def estimate(self, statistics):
        rates = statistics["total"] / statistics.weight[:, None]
        return WrongComponents(self, rates * (1.05 if self.wrong == "maximum" else 1.0))


@pytest.mark.parametrize(
    ("wrong", "law", "said"),
    [
        ("merge", "statistics_merge_in_any_grouping", "chunks do not matter; but not in total"),
        ("energy", "free_energy_plus_kl_is_the_log_likelihood", "F of an E-step at its own param"),
        ("maximum", "the_m_step_is_a_maximum", "The M-step maximises the expected log-likelihood"),
        ("weights", "the_likelihood_never_falls", "The log-likelihood never falls"),
        ("units", "jumps", "Coordinates are in the Fisher metric"),
        ("sample", "samples_are_of_the_density", "A sample is of the density"),
        ("take", "components_that_are_taken_are_as_they_were", r"take\(j\) is component j alone"),
    ],
)
def test_what_is_wrong_is_said_with_the_smallest_case(wrong, law, said):
    class Suite(ComponentsTests):
        def mixture(self, rng, k, d):
            return counts(Wrong(wrong=wrong), rng, k, d)

    with pytest.raises(pytest.fail.Exception, match=said) as caught:
        getattr(Suite(), f"test_{law}")()
    assert "The smallest case that shows it is K = " in str(caught.value)


def test_a_family_that_is_right_but_not_ours_passes():
    class Suite(ComponentsTests):
        def mixture(self, rng, k, d):
            return counts(Wrong(), rng, k, d)

    suite = Suite()
    for name in dir(suite):
        if name.startswith("test_"):
            getattr(suite, name)()


def test_a_case_of_few_rows_is_shown():
    class Suite(ComponentsTests):
        def mixture(self, rng, k, d):
            return counts(Wrong(wrong="merge"), rng, k, d)

    with pytest.raises(pytest.fail.Exception, match=r"K = 1, 4 rows of D = 1, \[\["):
        Suite().test_statistics_merge_in_any_grouping()
