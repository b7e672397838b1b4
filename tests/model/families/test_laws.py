"""Every family keeps the contract that `streamgmm.testing` has."""

from dataclasses import replace

import numpy as np
from scipy.special import digamma, gammaln

from streamgmm.model.families import StudentT
from streamgmm.model.mixture import Mixture
from streamgmm.testing import ComponentsTests
from tests.model.families.cases import MIXTURES


class FamilyTests(ComponentsTests):
    kind: str

    def mixture(self, rng, k, d):
        return MIXTURES[self.kind](rng, k, d)


class TestBernoulli(FamilyTests):
    kind = "bernoulli"

    def near(self, components, rng):
        p = components.probabilities
        odds = p / (1 - p) * np.exp(rng.choice([0.1, 0.01]) * rng.normal(size=p.shape))
        return components.family.of_parameters(odds / (1 + odds))


class TestExponential(FamilyTests):
    kind = "exponential"


class TestPoisson(FamilyTests):
    kind = "poisson"


class TestMultinomial(FamilyTests):
    kind = "multinomial"
    sizes = ((1, 2, 4), (2, 2, 60), (2, 3, 300), (4, 6, 900))

    def near(self, components, rng):
        p = components.probabilities
        p = p * np.exp(rng.choice([0.1, 0.01]) * rng.normal(size=p.shape))
        return components.family.of_parameters(p / p.sum(axis=1, keepdims=True))


class TestGamma(FamilyTests):
    kind = "gamma"


class TestLogNormal(FamilyTests):
    kind = "lognormal"


class TestVonMisesFisher(FamilyTests):
    kind = "vonmisesfisher"
    sizes = ((1, 2, 4), (2, 2, 60), (2, 3, 300), (4, 6, 900))

    def near(self, components, rng):
        share = rng.choice([0.1, 0.01])
        mu, kappa = components.directions, components.concentrations
        mu = mu + share * rng.normal(size=mu.shape)
        mu = mu / np.linalg.norm(mu, axis=1, keepdims=True)
        return components.family.of_parameters(mu, kappa * np.exp(share * rng.normal()))


class TestStudentT(FamilyTests):
    kind = "student_t"
    sizes = ((1, 1, 8), (2, 1, 60), (2, 3, 300), (3, 4, 900))

    def latent_kl(self, case, updated):
        """Of the gamma variables that the scales are under q."""
        resp = case.mixture.posterior(case.rows, resp=True).resp
        shapes, rates = zip(
            *(scales(m.components, case.rows) for m in (case.mixture, updated)), strict=True
        )
        (a, c), (b, d) = shapes, rates
        kl = (a - c) * digamma(a) - gammaln(a) + gammaln(c) + c * np.log(b / d) + a * (d / b - 1)
        return float(np.sum(resp * kl))


def scales(components, rows):
    """Shape and rate of q(u) of each row and component."""
    nu = components.degrees_of_freedom
    return 0.5 * (nu + rows.shape[1]), 0.5 * (nu + components.distances(rows))


class TestStudentTWithTailsGiven(TestStudentT):
    def mixture(self, rng, k, d):
        return MIXTURES["student_t"](rng, k, d, StudentT(4.0, reg_covar=0.0))

    def near(self, components, rng):
        near = super().near(components, rng)
        if near is None:
            return None
        return components.family.of_parameters(
            near.means, near.scale_matrices, components.degrees_of_freedom
        )


class TestCategorical(FamilyTests):
    kind = "categorical"

    def near(self, components, rng):
        p = components.probabilities
        p = p * np.exp(rng.choice([0.1, 0.01]) * rng.normal(size=p.shape))
        return components.family.of_parameters(p / p.sum(axis=2, keepdims=True))


class TestCategoricalWithUnknownIgnored(TestCategorical):
    def mixture(self, rng, k, d):
        known = MIXTURES["categorical"](rng, k, d)
        family = replace(known.family, unknown="ignore")
        return Mixture.of(family, known.weights, known.components.probabilities)


class TestProduct(FamilyTests):
    kind = "product"
    gaussian = "full"

    def mixture(self, rng, k, d):
        return MIXTURES["product"](rng, k, d, self.gaussian)

    def near(self, components, rng):
        """Rates, and means of the Gaussians, a little off."""
        arrays = components.arrays()
        for name in ("calls__rates", "sizes__means"):
            if name in arrays:
                off = rng.choice([0.1, 0.01]) * rng.normal(size=arrays[name].shape)
                arrays[name] = arrays[name] * np.exp(off)
        return components.family.components(**arrays)


class TestProductWithATiedCovariance(TestProduct):
    gaussian = "tied"
    sizes = ((2, 3, 60), (2, 4, 300), (4, 6, 900))


class TestWithNoise(FamilyTests):
    kind = "with_noise"
    inner = "full"
    moved = "means"
    sizes = ((2, 1, 60), (2, 3, 300), (4, 5, 900))

    def mixture(self, rng, k, d):
        return MIXTURES["with_noise"](rng, k, d, self.inner)

    def near(self, components, rng):
        arrays = components.arrays()
        off = rng.choice([0.1, 0.01]) * rng.normal(size=arrays[self.moved].shape)
        arrays[self.moved] = arrays[self.moved] * np.exp(off)
        return components.family.components(**arrays)


class TestCountsWithNoise(TestWithNoise):
    inner = "poisson"
    moved = "rates"
