"""Tables of mixed columns, and noise beside components of any family."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

from streamgmm import families
from streamgmm.errors import DataError, ParameterError
from streamgmm.families import Gaussian, Poisson, Product, WithNoise
from streamgmm.fitting.fit import FitSettings, fit
from streamgmm.model.mixture import Mixture
from streamgmm.predict import predict_rows, score_rows
from streamgmm.sources import open_source
from streamgmm.storage import load_mixture, save_mixture
from tests.mixtures import parameters_of


def flights(n=12_000):
    """A carrier (any numbers), three times, a flag, and which of two kinds each row is of."""
    rng = np.random.default_rng(0)
    late = rng.random(n) < 0.35
    carrier = np.where(late, rng.choice([7.0, 40, 900], n, p=[0.7, 0.2, 0.1]),
                       rng.choice([7.0, 40], n, p=[0.2, 0.8]))  # fmt: skip
    spread = np.array([[4.0, 2, 0], [0, 3, 1], [0, 0, 2]])
    times = rng.normal(size=(n, 3)) @ spread + np.where(late[:, None], [60, 45, 300], [2, -3, 280])
    cancelled = rng.random(n) < np.where(late, 0.2, 0.02)
    return np.column_stack([carrier, times, cancelled]), late


TABLE = Product(
    carrier=("categorical", [0]), times=("full", [1, 2, 3]), cancelled=("bernoulli", [4])
)


def run(X, family=TABLE, k=2, **settings):
    chosen = FitSettings(k, family, **{"tol": 1e-8, "max_iter": 200} | settings)
    return fit(open_source(X), chosen, np.random.RandomState(0))


def test_a_mixed_table_is_told_apart_and_its_model_is_stored(tmp_path):
    X, late = flights()
    mixture = run(X).mixture
    labels = predict_rows(open_source(X), mixture, "labels")
    agreed = (labels == late).mean()
    assert max(agreed, 1 - agreed) > 0.999
    assert mixture.family.parts[0].family.levels == ((7.0, 40.0, 900.0),)
    order = np.argsort(mixture.weights)
    own = mixture.components.arrays()
    share = [[(X[at, 0] == v).mean() for v in (7, 40, 900)] for at in (late, ~late)]
    assert_allclose(own["carrier__probabilities"][order, 0], share, atol=2e-3)
    assert_allclose(own["times__means"][order], [X[at, 1:4].mean(axis=0) for at in (late, ~late)],
                    atol=0.05)  # fmt: skip
    assert_allclose(own["cancelled__probabilities"][order, 0],
                    [X[at, 4].mean() for at in (late, ~late)], atol=2e-3)  # fmt: skip
    save_mixture(tmp_path / "model.zarr", mixture)
    again = load_mixture(tmp_path / "model.zarr")
    assert again.family == mixture.family
    assert all(v.tobytes() == own[n].tobytes() for n, v in again.components.arrays().items())
    drawn = mixture.sample(4000, np.random.RandomState(0))[0]
    assert set(np.unique(drawn[:, 0])) == {7.0, 40.0, 900.0}
    assert set(np.unique(drawn[:, 4])) == {0.0, 1.0}


def test_a_product_is_the_sum_of_its_parts():
    X, _ = flights(500)
    mixture = run(flights()[0]).mixture
    columns = {"carrier": [0], "times": [1, 2, 3], "cancelled": [4]}
    for k in range(2):
        alone = mixture.take(np.array([k])).posterior(X).log_density
        total = np.zeros(len(X))
        for part, own in zip(mixture.family.parts, mixture.components.parts, strict=True):
            one = Mixture(np.ones(1), own.take(np.array([k])))
            rows = np.ascontiguousarray(X[:, columns[part.name]])
            total += one.posterior(rows).log_density
        assert_allclose(alone, total, rtol=1e-10)


def test_gaussians_in_two_parts_are_a_diagonal_one():
    X = flights()[0][:, 1:4].copy()
    apart = Product(("diag", [2, 0]), ("diag", [1]))
    how = {"algorithm": "em", "acceleration": None, "max_iter": 5, "tol": 0}
    joint = run(X, "diag", **how)
    start = Mixture.of(
        apart,
        joint.mixture.weights,
        *[(joint.mixture.components.means[:, c], joint.mixture.components.covariances[:, c])
          for c in ([2, 0], [1])],
    )  # fmt: skip
    assert_allclose(start.posterior(X).log_density, joint.mixture.posterior(X).log_density,
                    rtol=1e-10)  # fmt: skip
    assert start.n_parameters == joint.mixture.n_parameters
    assert apart.measure(3) == Gaussian().measure(3)


def test_far_offsets_cost_a_product_no_digits():
    """Moments of a part are centred, as those of Gaussians are."""
    X, _ = flights()
    moved = X + np.array([0, 1e9, -1e9, 1e9, 0])
    here, there = run(X).mixture, run(moved).mixture
    for name, value in parameters_of(here).items():
        if name.endswith("covariances"):
            assert_allclose(parameters_of(there)[name], value, rtol=1e-4)


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        ({"a": ("poisson", [0, 1]), "b": ("full", [1, 2])}, "column 1 is in 'a' and in 'b'"),
        ({"a": ("poisson", [0, 0])}, "column 0 is named twice in 'a'"),
        ({"a": ("poisson", ["x"]), "b": ("full", ["x"])}, "column 'x' is in 'a' and in 'b'"),
        ({"a": ("poisson", [])}, "part 'a' has no columns"),
        ({"a": ("poisson", [-1])}, "columns are counted from 0, -1 is none"),
        ({"a": "poisson"}, "give a family and its columns"),
        ({"a__b": ("poisson", [0])}, "'a__b' cannot be the name of a part"),
        ({"a": ("poison", [0])}, "did you mean 'poisson'"),
    ],
)
def test_parts_that_do_not_go_together(parts, said):
    with pytest.raises(ParameterError, match=said):
        Product(**parts)


@pytest.mark.parametrize(
    ("family", "said"),
    [
        (Product(a=("full", [0, 1, 3])), "columns 2, 4 are in no part"),
        (Product(a=("full", range(7))), "column 5 is beyond the rows, which have 5 columns"),
        (Product(a=("full", ["x", "y"])), "column 'x' is given by its name"),
        (Product(), "a Product needs parts"),
    ],
)
def test_parts_that_do_not_go_with_the_rows(family, said):
    with pytest.raises(ParameterError, match=said):
        run(flights(300)[0], family)


def test_columns_by_name():
    names = ["carrier", "departure", "arrival", "air", "cancelled"]
    given = Product(
        carrier=("categorical", "carrier"),
        times=("full", ["departure", "arrival", "air"]),
        cancelled=("bernoulli", ["cancelled"]),
    )
    assert given.with_columns(names) == TABLE
    with pytest.raises(ParameterError, match="there is no column 'departure'"):
        given.with_columns(["carrier", "cancelled"])


def test_a_value_is_named_with_its_part():
    X, _ = flights(500)
    X[123, 4] = 0.5
    with pytest.raises(DataError, match=r"row 123: 'cancelled': 0\.5 in column 4, which is nei"):
        run(X)
    few = Product(times=("full", [0, 2, 3, 4]), carrier=(families.Categorical(most_levels=9), [1]))
    with pytest.raises(DataError, match="'carrier': column 1 has more than 9 distinct values"):
        run(X, few)


def test_the_parts_decide_what_a_likelihood_is_with_respect_to():
    kinds = ("counting", "lebesgue", "lebesgue", "lebesgue", "counting")
    assert TABLE.measure(5) == WithNoise(TABLE).measure(5) == kinds
    assert families.VonMisesFisher().measure(3) == ("sphere",) * 3


# Noise


def spread(n=6000, share=0.15):
    """Two Gaussians, and rows that lie anywhere in a box around them."""
    rng = np.random.default_rng(1)
    clean = np.where(
        rng.random((n, 1)) < 0.5, rng.normal([0, 0], 0.5, (n, 2)), rng.normal([6, 4], 0.7, (n, 2))
    )
    noise = rng.random(n) < share
    clean[noise] = rng.uniform([-20, -30], [25, 30], (noise.sum(), 2))
    return clean, noise


def test_noise_takes_the_rows_of_no_cluster():
    X, noise = spread()
    mixture = run(X, WithNoise("full"), k=3, n_init=10).mixture
    family, components = mixture.family, mixture.components
    assert_allclose(family.low, X.min(axis=0), rtol=0)
    assert_allclose(family.high, X.max(axis=0), rtol=0)
    assert components.noise.tolist() == [0, 0, 1]
    assert_allclose(mixture.weights[2], noise.mean(), atol=0.01)
    order = np.argsort(components.inner.means[:2, 0])
    assert_allclose(components.inner.means[order], [[0, 0], [6, 4]], atol=0.05)
    assert_allclose(
        np.sqrt(components.inner.variances[order]), [[0.5, 0.5], [0.7, 0.7]], rtol=0.05
    )
    plain = run(X, "full", k=2, n_init=10).mixture
    ours, theirs = (score_rows(open_source(X), m).mean for m in (mixture, plain))
    assert ours > theirs + 0.2


def test_outside_of_the_box_there_is_no_noise():
    family = WithNoise("poisson", [0, 0], [9, 4])
    mixture = Mixture.of(family, np.array([0.5, 0.5]), np.array([0.0, 1.0]), np.full((2, 2), 3.0))
    inside, outside = np.array([[9.0, 4.0]]), np.array([[10.0, 0.0]])
    noise = mixture.take(np.array([1])).posterior
    assert_allclose(noise(inside).log_density, -np.log(50))  # ten counts times five
    assert noise(outside).log_density[0] == -np.inf
    assert_allclose(
        mixture.posterior(outside).log_density,
        np.log(0.5) + mixture.take(np.array([0])).posterior(outside).log_density,
    )


def test_noise_beside_a_mixed_table():
    X, _ = flights()
    X[::9, 1:4] = np.random.default_rng(2).uniform(-200, 600, (len(X[::9]), 3))
    mixture = run(X, WithNoise(TABLE), k=3, n_init=10).mixture
    assert mixture.weights[2] == pytest.approx(1 / 9, abs=0.01)
    box = mixture.family.box()
    assert [side.columns for side in box] == [(0,), (1,), (2,), (3,), (4,)]
    assert box[0].levels == (7.0, 40.0, 900.0)
    volume = sum(side.log_volume for side in box)
    assert_allclose(volume, np.log(3) + np.log(np.ptp(X[:, 1:4], axis=0)).sum() + np.log(2))
    drawn, labels = mixture.sample(3000, np.random.RandomState(0))
    noise = drawn[labels == 2]
    assert set(np.unique(noise[:, 0])) == {7.0, 40.0, 900.0}
    assert set(np.unique(noise[:, 4])) == {0.0, 1.0}


def test_noise_on_a_sphere_is_the_same_everywhere():
    X = np.random.default_rng(0).normal(size=(4000, 3))
    X /= np.linalg.norm(X, axis=1, keepdims=True)
    mixture = run(X, WithNoise("vonmisesfisher"), k=2).mixture
    noise = mixture.take(np.array([1])).posterior(X[:5]).log_density
    assert_allclose(noise, -np.log(4 * np.pi))
    assert_allclose(np.linalg.norm(mixture.sample(100, np.random.RandomState(0))[0], axis=1), 1)


def test_a_column_of_one_value_has_no_noise():
    X, _ = spread(500)
    with pytest.raises(DataError, match=r"column 2 has the value 3\.0 alone"):
        run(np.column_stack([X, np.full(500, 3.0)]), WithNoise("full"), k=2)
    with pytest.raises(ParameterError, match="low and high"):
        WithNoise(Poisson(), [0, 1], [3])


def test_a_lost_component_is_started_again_and_noise_stays():
    X, _ = spread()
    start = Mixture.of(
        WithNoise("full", [-20, -30], [25, 30]), np.full(3, 1 / 3), np.array([0.0, 0, 1]),
        np.array([[0.0, 0], [1e6, 1e6], [0, 0]]), np.tile(np.eye(2), (3, 1, 1)),
    )  # fmt: skip
    settings = FitSettings(3, start.family, empty_components="reseed", max_iter=200, tol=1e-6)
    with pytest.warns(UserWarning, match="components 1 lost their rows and were reseeded"):
        result = fit(open_source(X), settings, np.random.RandomState(0), start=start)
    assert result.mixture.components.noise.tolist() == [0, 0, 1]
    assert (result.mixture.weights > 0.01).all()
