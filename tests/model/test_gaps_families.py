"""Families of independent columns leave a column out where it was not observed."""

import numpy as np
import pytest
from scipy import stats

from streamgmm import MixtureModel, families, load
from streamgmm.errors import DataError, ParameterError
from streamgmm.model.families.known import with_gaps
from streamgmm.model.mixture import Mixture, e_step, free_energy, m_step

RNG = np.random.default_rng(0)
LABELS = RNG.integers(2, size=900)
COLUMNS = {
    "bernoulli": (RNG.random((900, 3)) < np.array([[0.2, 0.5, 0.9], [0.7, 0.6, 0.1]])[LABELS])
    * 1.0,
    "poisson": RNG.poisson(np.array([[1.0, 5.0, 9.0], [8.0, 2.0, 3.0]])[LABELS]) * 1.0,
    "exponential": RNG.exponential(np.array([[1.0, 5.0, 9.0], [8.0, 2.0, 1.0]])[LABELS]),
    "gamma": RNG.gamma(np.array([[2.0, 5.0, 9.0], [8.0, 2.0, 1.5]])[LABELS]),
    "lognormal": RNG.lognormal(np.array([[0.0, 1.0, 2.0], [2.0, 0.0, 1.0]])[LABELS], 0.5),
    "categorical": RNG.integers(3, size=(900, 3)) * 1.0 + LABELS[:, None],
}
GAPS = RNG.random((900, 3)) < 0.3
GAPS[GAPS.all(axis=1), 0] = False


def with_missing(name):
    rows = COLUMNS[name].copy()
    rows[GAPS] = np.nan
    return rows


def log_densities(name, p):
    """log p(x | k) of every value alone (n, K, D)."""
    X = COLUMNS[name][:, None]
    if name == "bernoulli":
        return stats.bernoulli(p["probabilities"]).logpmf(X)
    if name == "poisson":
        return stats.poisson(p["rates"]).logpmf(X)
    if name == "exponential":
        return stats.expon(scale=1 / p["rates"]).logpdf(X)
    if name == "gamma":
        return stats.gamma(p["shapes"], scale=p["scales"]).logpdf(X)
    if name == "lognormal":
        return stats.lognorm(p["scales"], scale=np.exp(p["means"])).logpdf(X)
    tables = np.log(np.maximum(p["probabilities"], 1e-300))
    codes = COLUMNS[name].astype(int)
    return np.stack([tables[:, d, codes[:, d]].T for d in range(3)], axis=2)


@pytest.mark.parametrize("name", COLUMNS)
def test_a_gap_is_left_out(name, tmp_path):
    X = with_missing(name)
    model = MixtureModel(2, name, missing="marginalize", random_state=0, tol=1e-9, max_iter=2000)
    model.fit(X)
    joint = np.log(model.weights_) + np.where(
        GAPS[:, None], 0.0, log_densities(name, model.components_)
    ).sum(axis=2)
    density = np.logaddexp.reduce(joint, axis=1)
    assert np.allclose(model.score_samples(X), density, rtol=1e-10)
    assert np.allclose(model.predict_proba(X), np.exp(joint - density[:, None]), atol=1e-10)
    assert model.lower_bound_ == pytest.approx(density.mean(), abs=1e-6)
    model.save(str(tmp_path / "model.zarr"))
    again = load(str(tmp_path / "model.zarr"))
    assert np.array_equal(again.predict(X), model.predict(X))
    known = model.history_["kl"][~np.isnan(model.history_["kl"])]
    assert (known >= -1e-7).all()


@pytest.mark.parametrize("name", ["bernoulli", "poisson", "exponential"])
def test_one_component_has_the_means_of_what_was_observed(name):
    X = with_missing(name)
    model = MixtureModel(1, name, missing="marginalize").fit(X)
    (values,) = model.components_.values()
    means = 1 / values[0] if name == "exponential" else values[0]
    assert np.allclose(means, np.nanmean(X, axis=0), rtol=1e-12)
    filled = model.impute(X)
    assert np.array_equal(filled[~GAPS], X[~GAPS])
    assert np.allclose(filled[GAPS], np.broadcast_to(np.nanmean(X, axis=0), X.shape)[GAPS])
    with pytest.raises(ParameterError, match=name):
        model.impute(X, return_std=True)


@pytest.mark.parametrize("name", COLUMNS)
@pytest.mark.parametrize("hard", [False, True])
def test_free_energy_never_falls_and_is_the_likelihood(name, hard):
    X = with_missing(name)
    start = MixtureModel(3, name, missing="marginalize", max_iter=0, random_state=1).fit(X)
    mixture, before = start._mixture(), -np.inf
    for _ in range(15):
        statistics = e_step(mixture, X, hard=hard)
        reached = free_energy(mixture, statistics)
        assert reached >= before - 1e-9 * abs(reached)
        if not hard:
            assert reached == pytest.approx(statistics.log_likelihood, rel=1e-11)
            assert reached == pytest.approx(mixture.posterior(X).log_density.sum(), rel=1e-11)
        mixture = m_step(mixture, statistics)
        before = free_energy(mixture, statistics)
        assert before >= reached - 1e-9 * abs(reached)
        halves = [e_step(mixture, part, hard=hard) for part in np.split(X, [300])]
        whole, merged = e_step(mixture, X, hard=hard), halves[0].merge(halves[1])
        for each, value in whole.components.arrays().items():
            assert np.allclose(merged.components.arrays()[each], value)


@pytest.mark.parametrize("name", COLUMNS)
def test_whole_rows_give_the_same_bits(name):
    one, two = (
        MixtureModel(2, name, missing=missing, random_state=0).fit(COLUMNS[name])
        for missing in ("raise", "marginalize")
    )
    assert one.lower_bounds_ == two.lower_bounds_
    for each, value in one.components_.items():
        assert np.array_equal(two.components_[each], value)


def test_a_product_of_what_was_observed(tmp_path):
    rng = np.random.default_rng(1)
    A = np.array([[1.0, 0.5], [0.0, 1.0]])
    numbers = rng.normal(size=(900, 2)) @ A + 4.0 * LABELS[:, None]
    table = np.hstack([numbers, COLUMNS["poisson"][:, :2], COLUMNS["categorical"][:, :1]])
    table[rng.random(table.shape) < 0.25] = np.nan
    table[3] = np.nan
    family = families.Product(x=("full", [0, 1]), n=("poisson", [2, 3]), c=("categorical", [4]))
    model = MixtureModel(2, family, missing="marginalize", random_state=0, tol=1e-7, max_iter=900)
    model.fit(table)
    assert model.n_missing_ == np.isnan(table).all(axis=1).sum()
    p = model.components_
    joint = np.tile(np.log(model.weights_), (900, 1))
    for i, row in enumerate(table):
        for k in range(2):
            o = ~np.isnan(row[:2])
            if o.any():
                inner = p["x__covariances"][k][np.ix_(o, o)]
                normal = stats.multivariate_normal(p["x__means"][k][o], inner)
                joint[i, k] += normal.logpdf(row[:2][o])
            for d in (2, 3):
                if not np.isnan(row[d]):
                    joint[i, k] += stats.poisson(p["n__rates"][k, d - 2]).logpmf(row[d])
            if not np.isnan(row[4]):
                joint[i, k] += np.log(p["c__probabilities"][k, 0, int(row[4])])
    some = ~np.isnan(table).all(axis=1)
    density = np.logaddexp.reduce(joint, axis=1)
    assert np.allclose(model.score_samples(table)[some], density[some], rtol=1e-10)
    assert model.lower_bound_ == pytest.approx(density[some].mean(), abs=1e-5)
    energy = model.history_["free_energy"]
    assert (np.diff(energy) >= -1e-8 * np.abs(energy[:-1])).all()
    known = model.history_["kl"][~np.isnan(model.history_["kl"])]
    assert (known >= -1e-6).all()
    model.save(str(tmp_path / "model.zarr"))
    again = load(str(tmp_path / "model.zarr"))
    assert np.array_equal(again.predict(table), model.predict(table))


def test_families_that_cannot_are_named():
    for name in ("multinomial", "vonmisesfisher", "student_t"):
        with pytest.raises(ParameterError, match=f"family='{name}'"):
            MixtureModel(2, name, missing="marginalize").fit(COLUMNS["gamma"])
    family = families.Product(a=("student_t", [0]), b=("poisson", [1, 2]))
    with pytest.raises(ParameterError, match="family='student_t'"):
        MixtureModel(2, family, missing="marginalize").fit(COLUMNS["poisson"])
    lost = with_missing("categorical")
    lost[:, 2] = np.nan
    with pytest.raises(DataError, match="nothing was observed of feature 2"):
        MixtureModel(2, "categorical", missing="marginalize").fit(lost)
    positive = MixtureModel(2, "lognormal", missing="marginalize", random_state=0)
    positive.fit(with_missing("lognormal"))
    with pytest.raises(DataError, match="not positive"):
        positive.predict(-with_missing("lognormal"))
    negative = with_missing("poisson")
    negative[np.argmax(~GAPS[:, 1]), 1] = -1
    with pytest.raises(DataError, match="a negative count"):
        MixtureModel(2, "poisson", missing="marginalize").fit(negative)


def test_a_family_says_whether_it_takes_gaps():
    family = with_gaps(families.Poisson())
    assert family.gaps
    assert not with_gaps(family, False).gaps
    mixture = Mixture.of(family, np.ones(1), np.full((1, 2), 3.0))
    found = mixture.posterior(np.array([[np.nan, np.nan], [3.0, np.nan]])).log_density
    assert found[0] == 0.0
    assert found[1] == pytest.approx(stats.poisson(3.0).logpmf(3))
