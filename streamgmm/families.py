"""Families of components, for `MixtureModel(family=...)`: by name, or made here with settings.

==================== ===================================== ==================================
name                 class                                 rows
==================== ===================================== ==================================
``"bernoulli"``      `Bernoulli`                           zeros and ones
``"categorical"``    `Categorical`                         values of any few levels a column
``"multinomial"``    `Multinomial`                         counts of D kinds, given their total
``"poisson"``        `Poisson`                             counts
``"exponential"``    `Exponential`                         numbers that are not negative
``"gamma"``          `Gamma`                               positive numbers
``"lognormal"``      `LogNormal`                           positive numbers
``"vonmisesfisher"`` `VonMisesFisher`                      vectors of length one
``"student_t"``      `StudentT`                            numbers, with heavy tails
``"full"``, ...      `Gaussian`                            numbers; four shapes of covariances
``"factor"``         `FactorAnalyzer`                      numbers of many features; ``"ppca"``
==================== ===================================== ==================================

`Product` has a family for each part of the columns, and `WithNoise` a uniform component beside
those of any family. A family of your own derives from `TiledFamily` and `TiledComponents`
(docs/own_family.md); `register_family` makes it known to models that were saved with it.

Examples
--------
>>> from streamgmm import families
>>> table = families.Product(
...     carrier=("categorical", [0]), times=("full", [1, 2, 3]), cancelled=("bernoulli", [4])
... )
>>> families.WithNoise(table).inner.parts[1].family
Gaussian(covariance_type='full', reg_covar=1e-06)
"""

from streamgmm.model.components import Components, Density, Family
from streamgmm.model.families import (
    FAMILIES,
    Bernoulli,
    Categorical,
    Exponential,
    FactorAnalyzer,
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
from streamgmm.model.families.own import register_family
from streamgmm.model.tiles import CentredSums, Sums, TiledComponents, TiledFamily

__all__ = [
    "FAMILIES",
    "Bernoulli",
    "Categorical",
    "CentredSums",
    "Components",
    "Density",
    "Exponential",
    "FactorAnalyzer",
    "Family",
    "Gamma",
    "Gaussian",
    "LogNormal",
    "Multinomial",
    "Poisson",
    "Product",
    "StudentT",
    "Sums",
    "TiledComponents",
    "TiledFamily",
    "VonMisesFisher",
    "WithNoise",
    "register_family",
]
