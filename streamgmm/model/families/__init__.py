"""Families of components. A new family is one file, and one line here."""

from __future__ import annotations

from streamgmm.model.covariances import COVARIANCES
from streamgmm.model.families.bernoulli import Bernoulli
from streamgmm.model.families.categorical import Categorical
from streamgmm.model.families.centroids import Centroids
from streamgmm.model.families.exponential import Exponential
from streamgmm.model.families.factor import FactorAnalyzer
from streamgmm.model.families.gamma import Gamma
from streamgmm.model.families.gaussian import Gaussian
from streamgmm.model.families.known import (
    FAMILIES,
    parse_family,
    settings_of,
    with_settings,
)
from streamgmm.model.families.lognormal import LogNormal
from streamgmm.model.families.multinomial import Multinomial
from streamgmm.model.families.noise import WithNoise
from streamgmm.model.families.poisson import Poisson
from streamgmm.model.families.product import Product
from streamgmm.model.families.student_t import StudentT
from streamgmm.model.families.uncertain import Uncertain
from streamgmm.model.families.vonmisesfisher import VonMisesFisher

FAMILIES.update(
    {
        **{name: Gaussian(name) for name in COVARIANCES},
        "bernoulli": Bernoulli(),
        "categorical": Categorical(),
        "multinomial": Multinomial(),
        "poisson": Poisson(),
        "exponential": Exponential(),
        "gamma": Gamma(),
        "lognormal": LogNormal(),
        "vonmisesfisher": VonMisesFisher(),
        "student_t": StudentT(),
        "factor": FactorAnalyzer(),
        "ppca": FactorAnalyzer(noise="isotropic"),
        "product": Product(),
        "centroids": Centroids(),
        "uncertain": Uncertain(),
    }
)
FAMILIES["with_noise"] = WithNoise("full")

__all__ = [
    "FAMILIES",
    "Bernoulli",
    "Categorical",
    "Centroids",
    "Exponential",
    "FactorAnalyzer",
    "Gamma",
    "Gaussian",
    "LogNormal",
    "Multinomial",
    "Poisson",
    "Product",
    "StudentT",
    "Uncertain",
    "VonMisesFisher",
    "WithNoise",
    "parse_family",
    "settings_of",
    "with_settings",
]
