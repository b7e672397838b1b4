"""Random mixtures of every family, by name: the table that laws and oracles run over."""

import numpy as np

from streamgmm.model.families import (
    Bernoulli,
    Categorical,
    Exponential,
    Gamma,
    Gaussian,
    LogNormal,
    Multinomial,
    Poisson,
    Product,
    StudentT,
    VonMisesFisher,
    WithNoise,
)
from streamgmm.model.mixture import Mixture
from tests.mixtures import random_mixture


def shares(rng, k):
    return rng.dirichlet(np.full(k, 5.0))


def bernoulli(rng, k, d, family=None):
    family = family or Bernoulli()
    return Mixture.of(family, shares(rng, k), rng.uniform(0.1, 0.9, (k, d)))


def exponential(rng, k, d, family=None):
    family = family or Exponential()
    return Mixture.of(family, shares(rng, k), np.exp(rng.normal(0, 1.5, (k, d))))


def poisson(rng, k, d, family=None):
    family = family or Poisson()
    return Mixture.of(family, shares(rng, k), rng.uniform(1, 12, (k, d)))


def multinomial(rng, k, d, family=None):
    family = family or Multinomial(trials=20)
    p = rng.dirichlet(np.full(d, 2.0), k)
    return Mixture.of(family, shares(rng, k), (p + 0.02) / (1 + 0.02 * d))


def gamma(rng, k, d, family=None):
    family = family or Gamma()
    shapes, scales = rng.uniform(0.7, 12, (k, d)), np.exp(rng.normal(0, 0.7, (k, d)))
    return Mixture.of(family, shares(rng, k), shapes, scales)


def lognormal(rng, k, d, family=None):
    family = family or LogNormal()
    means, scales = rng.normal(2, 1, (k, d)), rng.uniform(0.2, 1, (k, d))
    return Mixture.of(family, shares(rng, k), means, scales)


def vonmisesfisher(rng, k, d, family=None):
    family = family or VonMisesFisher()
    directions = rng.normal(size=(k, d))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    return Mixture.of(family, shares(rng, k), directions, rng.uniform(1, 20, k))


def student_t(rng, k, d, family=None):
    family = family or StudentT(reg_covar=0.0)
    a = rng.normal(size=(k, d, d)) / np.sqrt(d)
    scales = a @ a.transpose(0, 2, 1) + 0.3 * np.eye(d)
    nu = rng.uniform(2, 12, k)
    if family.degrees_of_freedom is not None:
        nu = np.full(k, family.degrees_of_freedom)
    return Mixture.of(family, shares(rng, k), 3 * rng.normal(size=(k, d)), scales, nu)


def categorical(rng, k, d, family=None):
    sizes = 2 + np.arange(d) % 4
    if family is None:
        levels = [np.arange(n) if i % 2 else 1.5 * np.arange(n) - 3 for i, n in enumerate(sizes)]
        family = Categorical(levels=tuple(map(tuple, levels)))
    p = np.zeros((k, d, sizes.max()))
    for i, n in enumerate(sizes):
        p[:, i, :n] = (rng.dirichlet(np.ones(n), k) + 0.05) / (1 + 0.05 * n)
    return Mixture.of(family, shares(rng, k), p)


def product(rng, k, d, gaussian="full"):
    """Counts in column 0, and where there are more, flags in 1 and Gaussians in the others."""
    parts = {"calls": ("poisson", [0])}
    parameters = [(rng.uniform(1, 12, (k, 1)),)]
    if d > 1:
        parts["flag"] = ("bernoulli", [1])
        parameters.append((rng.uniform(0.1, 0.9, (k, 1)),))
    if d > 2:
        parts["sizes"] = (Gaussian(gaussian, 0.0), range(2, d))
        of = random_mixture(gaussian, k, d - 2, int(rng.integers(1 << 30)))
        parameters.append((of.components.means, of.components.covariances))
    return Mixture.of(Product(**parts), shares(rng, k), *parameters)


def with_noise(rng, k, d, inner="full"):
    """K components, of which the last is noise over the box of Gaussians or counts."""
    a = 0.3 * rng.normal(size=(k, d, d)) + np.eye(d)
    parameters = 2 * rng.normal(size=(k, d)), a @ a.transpose(0, 2, 1) + 0.2 * np.eye(d)
    family = WithNoise(Gaussian("full", 0.0), [-20.0] * d, [20.0] * d)
    if inner == "poisson":
        family, parameters = WithNoise("poisson", [0] * d, [30] * d), (rng.uniform(1, 12, (k, d)),)
    noise = np.zeros(k)
    noise[-1] = 1
    weights = np.append(0.8 * shares(rng, k - 1), 0.2)
    return Mixture.of(family, weights, noise, *parameters)


MIXTURES = {
    "bernoulli": bernoulli,
    "categorical": categorical,
    "exponential": exponential,
    "poisson": poisson,
    "multinomial": multinomial,
    "gamma": gamma,
    "lognormal": lognormal,
    "vonmisesfisher": vonmisesfisher,
    "student_t": student_t,
    "product": product,
    "with_noise": with_noise,
}
