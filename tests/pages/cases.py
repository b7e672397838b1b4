"""Models and rows of every kind that a report must show."""

from __future__ import annotations

import numpy as np
import pandas as pd

from streamgmm import GaussianMixture, KMeans, MixtureModel, OnlineGaussianMixture, select

HOSTILE = [
    "<script>window.hacked = 1</script>",
    '"><img src=x onerror="window.hacked=1">',
    "a" * 10_000,
    "line\nbreak\x00\u202eright to left",
    "]]></title><svg onload=window.hacked=1>",
]


def blobs(n, k, d, seed=0, apart=5.0):
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(k, d)) * apart
    return centres[rng.integers(0, k, n)] + rng.normal(size=(n, d))


def hostile():
    X = pd.DataFrame(blobs(2000, 3, 5), columns=HOSTILE)
    return GaussianMixture(3, random_state=0).fit(X), X


def selected():
    X = np.c_[blobs(3000, 4, 3), np.zeros(3000)]
    X = np.c_[X, X[:, 0]]
    X[:, 3] = 2.0
    X[7, 1], X[8, 2] = np.nan, np.inf
    model = select(X[10:], range(2, 6), random_state=0).best
    return model, X


def streamed():
    X = blobs(6000, 3, 2)
    model = OnlineGaussianMixture(3, warm_up=1000).fit(X)
    for _ in range(4):
        model.partial_fit(X[:1000] + 9)
    return model, X


def many():
    X = blobs(3000, 40, 2, apart=30.0)
    model = GaussianMixture(500, covariance_type="diag", max_iter=0, random_state=0).fit(X)
    model.weights_[:3] = 0.0
    model.weights_ /= model.weights_.sum()
    return model, X


def wide():
    X = blobs(600, 3, 500)
    return GaussianMixture(3, covariance_type="diag", random_state=0).fit(X), X


def single():
    X = blobs(500, 1, 1)
    return GaussianMixture().fit(X), X


def counts():
    X = np.random.default_rng(0).poisson([[2.0, 9.0]], size=(800, 2))
    return MixtureModel(2, "poisson", random_state=0).fit(X), X


def centres():
    X = blobs(2000, 3, 2)
    return KMeans(3, random_state=0).fit(X), X


def alone():
    model, _ = counts()
    return model, None


CASES = {
    "hostile": hostile,
    "selected": selected,
    "streamed": streamed,
    "many": many,
    "wide": wide,
    "single": single,
    "counts": counts,
    "centres": centres,
    "alone": alone,
}
