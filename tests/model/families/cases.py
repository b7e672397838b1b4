"""Random mixtures of every family, by name: the table that laws and oracles run over."""

import numpy as np

from streamgmm.model.families import (
    Bernoulli,
    Categorical,
    Exponential,
    Gamma,
    LogNormal,
    Multinomial,
    Poisson,
    StudentT,
    VonMisesFisher,
)
from streamgmm.model.mixture import Mixture


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
}
