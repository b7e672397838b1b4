"""Every family keeps the contract that `streamgmm.testing` has."""

import numpy as np

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
