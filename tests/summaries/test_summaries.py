"""Summaries of all rows against NumPy on the same rows, whatever the blocks."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import norm

from streamgmm import GaussianMixture, KMeans, MixtureModel, rows
from streamgmm.errors import DataError, NonFiniteError
from streamgmm.model.components import Posterior
from streamgmm.model.mixture import Mixture
from streamgmm.sources import Piece, open_source
from streamgmm.summaries.audit import AuditRequest
from streamgmm.summaries.cells import CellRequest, Cells, map_of, rows_in_cells
from streamgmm.summaries.findings import FindingsRequest, expect
from streamgmm.summaries.histograms import lay_grid
from streamgmm.summaries.look import look
from streamgmm.summaries.marginals import marginal
from streamgmm.summaries.moments import contrasts, covariances_of, moments_of, separation
from streamgmm.summaries.portrait import portray
from streamgmm.summaries.quantiles import QuantileRequest


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(6000, 3)) + 5 * rng.integers(0, 3, size=(6000, 1)) * [1, 0.5, 0]
    return X, GaussianMixture(3, random_state=0).fit(X)


def seen(X, model, wanted, **how):
    return look(open_source(X), model._mixture(), wanted, **how)


def test_histograms_are_numpys(data):
    X, model = data
    grid = lay_grid(model._mixture(), [2, 0, 1], bins=20)
    (found,) = seen(X, model, [grid], block_size=20_000)
    assert found.n_rows == found.weight == len(X)
    for j, column in enumerate(grid.columns):
        expected, _ = np.histogram(X[:, column], grid.edges(j))
        np.testing.assert_allclose(found.single(j), expected, atol=1)  # an edge is a rounding
        assert found.singles[j].sum() == len(X)
    for q, (a, b) in enumerate(grid.pairs):
        edges = (grid.edges(a), grid.edges(b))
        expected, *_ = np.histogram2d(X[:, grid.columns[a]], X[:, grid.columns[b]], edges)
        assert np.abs(found.joint(q) - expected).sum() <= 2
        assert found.joints[q].sum() == len(X)
    beyond = [np.mean((X[:, c] < grid.edges(j)[0]) | (X[:, c] > grid.edges(j)[-1]))
              for j, c in enumerate(grid.columns)]  # fmt: skip
    np.testing.assert_allclose(found.outside(), beyond, atol=1e-12)


def test_histograms_count_weight_and_float32(data):
    X, model = data
    w = np.random.default_rng(1).integers(0, 3, len(X)).astype(float)
    grid = lay_grid(model._mixture(), [0, 1, 2], pairs=[(0, 1)], bins=16)
    source = open_source(X.astype(np.float32), sample_weight=w)
    (found,) = look(source, model._mixture(), [grid], block_size=10_000)
    repeated = np.repeat(X.astype(np.float32), w.astype(int), axis=0)
    (expected,) = seen(repeated, model, [grid])
    np.testing.assert_array_equal(found.singles, expected.singles)
    np.testing.assert_array_equal(found.joints, expected.joints)


@pytest.mark.parametrize("offset", [0.0, 1e9])
def test_same_bits_on_any_number_of_threads(data, offset):
    X, _ = data
    X = X + offset
    model = GaussianMixture(3, random_state=0).fit(X)
    shown = np.arange(3)
    wanted = [
        lay_grid(model._mixture(), [0, 1]),
        CellRequest(rows_in_cells(len(X)), shown, 3),
        QuantileRequest(np.arange(3), shown),
    ]
    one, two = (seen(X, model, wanted, block_size=9_000, n_threads=n) for n in (1, 2))
    for a, b in zip(one[:2], two[:2], strict=True):
        for name in ("singles", "joints", "labels", "sums"):
            if hasattr(a, name):
                assert getattr(a, name).tobytes() == getattr(b, name).tobytes()
    shares = np.linspace(0, 1, 201)
    assert one[2].at(shares).tobytes() == two[2].at(shares).tobytes()


def test_cells_say_where(data):
    X, model = data
    cells = rows_in_cells(len(X), 7)
    request = CellRequest(cells, np.array([0, 2]), 3, unlikely=-8.0)
    (found,) = seen(X, model, [request], block_size=10_000)
    found = found.whole()
    labels, proba, density = model.predict(X), model.predict_proba(X), model.score_samples(X)
    at = np.arange(len(X)) * 7 // len(X)
    for c in range(7):
        mine = at == c
        counts = [np.sum(labels[mine] == k) for k in (0, 2, 1)]
        assert found.labels[c].tolist() == counts
        np.testing.assert_allclose(found.certainty[c], proba[mine].max(axis=1).mean())
        np.testing.assert_allclose(found.log_density[c], density[mine].mean())
        assert found.doubtful[c] == np.sum(proba[mine].max(axis=1) < 0.8)
        assert found.unlikely[c] == np.sum(density[mine] < -8)


def test_cells_of_a_cube_are_those_of_its_last_dimensions():
    rng = np.random.default_rng(0)
    z = rng.normal(size=(3, 10, 14, 2)) + 6 * rng.integers(0, 2, size=(1, 10, 14, 1))
    cube = rows(z, mask=rng.random((3, 10, 14)) < 0.2)
    model = GaussianMixture(2, random_state=0).fit(cube)
    request = CellRequest(map_of((3, 10, 14), 7), np.arange(2), 2)
    assert request.cells == Cells((3, 10, 14), (7, 7))
    (found,) = look(cube, model._mixture(), [request], block_size=1000)
    labels = np.asarray(model.predict(cube))
    expected = np.zeros((7, 7, 2))
    for t, y, x in np.ndindex(3, 10, 14):
        if labels[t, y, x] >= 0:
            expected[y * 7 // 10, x * 7 // 14, labels[t, y, x]] += 1
    np.testing.assert_array_equal(found.whole().labels[:, :2].reshape(7, 7, 2), expected)


def test_quantiles_of_classes(data):
    X, model = data
    request = QuantileRequest(np.array([0, 2]), np.arange(3))
    (found,) = seen(X, model, [request], block_size=10_000)
    labels = model.predict(X)
    shares = np.array([0.05, 0.5, 0.95])
    assert found.rows.tolist() == np.bincount(labels).tolist()
    for s in range(3):
        for j, column in enumerate((0, 2)):
            own = X[labels == s, column]
            ranks = np.array([np.mean(own <= q) for q in found.at(shares)[s, j]])
            np.testing.assert_allclose(ranks, shares, atol=0.01)


@pytest.mark.parametrize("weighed", [False, True])
def test_quantiles_of_many_rows_are_of_groups_of_them(weighed):
    rng = np.random.default_rng(3)
    X = np.sort(rng.normal(size=(150_000, 2)) * [1, 1e-3] + [0, 1e6])
    labels = rng.integers(0, 3, len(X)).astype(np.int32)
    w = rng.integers(0, 4, len(X)).astype(float) if weighed else None
    request = QuantileRequest(np.array([1, 0]), np.array([0, 2]))
    digests = []
    for size in (7_001, 150_000):  # whatever the pieces
        counter = request.open()
        counter._most = 60_000
        for a in range(0, len(X), size):
            part = slice(a, a + size)
            weight = None if w is None else w[part]
            counter.add(Piece(a, X[part], weight), Posterior(w, labels[part], w))
        digests.append(counter.result())
    shares = np.array([0.0, 0.001, 0.05, 0.5, 0.95, 1.0])
    one, two = (each.at(shares) for each in digests)
    assert one.tobytes() == two.tobytes()
    for s, k in enumerate((0, 2)):
        mine = labels == k
        weight = np.ones(mine.sum()) if w is None else w[mine]
        assert digests[0].rows[s] == np.count_nonzero(weight)
        for j, column in enumerate((1, 0)):
            own = X[mine, column]
            ranks = [weight[own <= q].sum() / weight.sum() for q in one[s, j]]
            np.testing.assert_allclose(ranks, shares, atol=2e-3)


def test_rows_that_cannot_be_used(data):
    X, model = data
    bad = X.copy()
    bad[77, 1] = np.nan
    grid = lay_grid(model._mixture(), [0])
    with pytest.raises(NonFiniteError, match="row 77"):
        seen(bad, model, [grid])
    (found,) = seen(bad, model, [grid], omit=True)
    assert found.n_rows == len(X) - 1
    with pytest.raises(DataError, match="2 features"):
        seen(X[:, :2], model, [grid])


@pytest.mark.parametrize("kind", ["full", "tied", "diag", "spherical"])
def test_marginals_of_gaussians(data, kind):
    X, _ = data
    model = GaussianMixture(3, covariance_type=kind, random_state=0).fit(X)
    mixture = model._mixture()
    grid = lay_grid(mixture, [1])
    found = marginal(mixture, grid, 0, np.arange(3))
    deviations = np.sqrt(moments_of(mixture).variances[:, 1])
    exact = sum(
        w * norm.pdf(found.points, m[1], s)
        for w, m, s in zip(model.weights_, model.means_, deviations, strict=True)
    )
    np.testing.assert_allclose(found.total, exact, atol=2e-3 * exact.max())
    np.testing.assert_allclose(found.parts.sum(axis=0), found.total, rtol=1e-12)
    covariances = covariances_of(mixture, np.array([2, 0]))
    given = model.covariances_
    expected = {
        "full": lambda: given,
        "tied": lambda: np.broadcast_to(given, (3, 3, 3)),
        "diag": lambda: given[:, :, None] * np.eye(3),
        "spherical": lambda: given[:, None, None] * np.eye(3),
    }[kind]()
    np.testing.assert_array_equal(covariances, expected[:, [2, 0]][:, :, [2, 0]])


def test_marginals_of_counts_add_up():
    rng = np.random.default_rng(0)
    X = rng.poisson(rng.choice([3.0, 200.0], size=(2000, 1)))
    model = MixtureModel(2, "poisson", random_state=0).fit(X)
    mixture = model._mixture()
    grid = lay_grid(mixture, [0], bins=32)
    found = marginal(mixture, grid, 0, np.arange(2))
    assert found.draws == 0
    assert (found.total * grid.width[0]).sum() == pytest.approx(1, abs=0.01)
    np.testing.assert_allclose(found.parts.sum(axis=0), found.total, rtol=1e-9)
    (counted,) = seen(X, model, [grid])
    assert counted.outside()[0] < 0.01


def test_moments_of_families_without_a_formula():
    X = np.random.default_rng(0).poisson([3.0, 40.0], size=(2000, 2))
    mixture = MixtureModel(1, "poisson").fit(X)._mixture()
    found = moments_of(mixture)
    assert found.draws > 0
    np.testing.assert_allclose(found.means[0], [3, 40], rtol=0.1)
    np.testing.assert_allclose(found.variances[0], [3, 40], rtol=0.2)


def test_separation_and_contrasts():
    means = np.array([[0.0, 0.0], [10.0, 0.0], [0.0, 0.0]])
    mixture = Mixture.of("diag", np.array([0.25, 0.5, 0.25]), means, np.ones((3, 2)))
    moments = moments_of(mixture)
    np.testing.assert_allclose(separation(mixture, moments), [25 / 26, 0])
    found = contrasts(mixture, moments)
    assert found[1, 0] == pytest.approx(10)
    rest = 0.5 / 0.75 * 10
    spread = 1 + 100 * (2 / 3) * (1 / 3)
    assert found[0, 0] == pytest.approx(-rest / np.sqrt((1 + spread) / 2))
    np.testing.assert_allclose(found[:, 1], 0, atol=1e-12)
    alone = mixture.take(np.array([0]))
    assert np.isnan(contrasts(alone, moments_of(alone))).all()


def test_centres_have_cells_too(data):
    X, _ = data
    model = KMeans(3, random_state=0).fit(X)
    (found,) = seen(X, model, [CellRequest(rows_in_cells(len(X), 4), np.arange(3), 3)])
    labels = model.predict(X)
    assert found.whole().labels[:, :3].sum(axis=0).tolist() == np.bincount(labels).tolist()


def test_an_audit_of_columns():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(3000, 6)) + 1e8
    X[:, 1] = 4.0
    X[:, 3] = X[:, 0]
    X[5, 2], X[6, 2], X[6, 4] = np.nan, np.inf, -np.inf
    model = GaussianMixture().fit(rng.normal(size=(50, 6)))
    (found,) = seen(X, model, [AuditRequest(6)], block_size=20_000, omit=True)
    assert (found.n_rows, found.with_gaps) == (3000, 2)
    assert found.nan.tolist() == [0, 0, 1, 0, 0, 0]
    assert found.infinite.tolist() == [0, 0, 1, 0, 1, 0]
    assert found.constant.tolist() == [1]
    assert found.duplicates == [[0, 3]]
    for d in range(6):
        own = X[np.isfinite(X[:, d]), d]
        assert (found.low[d], found.high[d]) == (own.min(), own.max())
        np.testing.assert_allclose(found.mean[d], own.mean(), rtol=1e-15)
        np.testing.assert_allclose(found.deviation[d], own.std(), rtol=1e-9, atol=1e-12)


def test_columns_with_the_same_values_in_another_order_are_no_duplicates():
    X = np.arange(100.0).reshape(-1, 1) @ [[1.0, 1.0, -0.0]]
    X[:, 1] = X[::-1, 1]
    X[::2, 2] = 0.0
    model = GaussianMixture().fit(np.random.default_rng(0).normal(size=(50, 3)))
    (found,) = seen(X, model, [AuditRequest(3)])
    assert found.duplicates == []
    assert found.constant.tolist() == [2]


def test_findings_of_all_rows(data):
    X, model = data
    w = np.random.default_rng(1).random(len(X))
    w[:10] = 0.0
    mixture = model._mixture()
    request = FindingsRequest(3, expect(mixture))
    source = open_source(X, sample_weight=w)
    (found,) = look(source, mixture, [request], block_size=20_000)
    labels, proba, density = model.predict(X), model.predict_proba(X), model.score_samples(X)
    for k in range(3):
        np.testing.assert_allclose(found.confusion[k], (w * (labels == k)) @ proba)
    np.testing.assert_allclose(found.log_likelihood, w @ density)
    np.testing.assert_allclose(found.doubtful, w[proba.max(axis=1) < 0.8].sum())
    np.testing.assert_allclose(found.unlikely, w[density < request.expected.limit].sum())
    np.testing.assert_allclose([found.certainty.sum(), found.density.sum()], w.sum())
    order = [i for i in np.argsort(density, kind="stable") if w[i] > 0][:10]
    assert found.least[:, 1].tolist() == order
    assert found.least[:, 2].tolist() == labels[order].tolist()
    overlap = found.overlap()
    k, l = 0, 1
    both = (labels == k) | (labels == l)
    wrong = (w * (labels == k)) @ proba[:, l] + (w * (labels == l)) @ proba[:, k]
    assert overlap[k, l] == overlap[l, k] == pytest.approx(wrong / w[both].sum())


def test_unlikely_rows_are_as_many_as_the_model_expects():
    start = np.random.default_rng(0).normal(size=(500, 2))
    X, _ = GaussianMixture(2, random_state=0).fit(start).sample(40_000)
    model = GaussianMixture(2, random_state=0).fit(X)
    (found,) = seen(X, model, [FindingsRequest(2, expect(model._mixture()))])
    assert 0.0004 < found.unlikely / len(X) < 0.002


@pytest.mark.parametrize("k", [1, 4])
def test_a_portrait_takes_one_read(data, k, monkeypatch):
    X, _ = data
    X = X.copy()
    X[3, 0] = np.nan
    model = GaussianMixture(k, random_state=0, missing="omit").fit(X)
    source = open_source(X)
    reads = []
    blocks = type(source).blocks
    monkeypatch.setattr(
        type(source), "blocks", lambda self, *how: reads.append(1) or blocks(self, *how)
    )
    found = portray(model._mixture(), source)
    assert len(reads) == 1
    assert found.findings.n_rows == found.histograms.n_rows == len(X) - 1
    assert found.audit.n_rows == len(X)
    assert found.cells.weight.sum() == len(X) - 1
    alone = portray(model._mixture())
    assert alone.findings is None
    np.testing.assert_array_equal(alone.contrasts, found.contrasts)
