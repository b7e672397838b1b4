"""k-means in tiles: scikit-learn as the oracle, laws, and rows that are hard on rounding."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.cluster import KMeans
from sklearn.cluster import kmeans_plusplus as sklearn_plusplus

from streamgmm.clustering import (
    k_means,
    kmeans_plusplus,
    lloyd,
    nearest,
    parse_rows,
)
from streamgmm.clustering import rows as rows_module
from streamgmm.clustering import seeds as seeds_module
from streamgmm.errors import DataError, ParameterError
from streamgmm.kernels import kmeans
from streamgmm.model.labelled import label_moments, resp_moments

SHAPES = [(300, 1, 3), (500, 2, 7), (700, 7, 5), (1000, 8, 16), (999, 17, 30), (4800, 16, 16),
          (600, 33, 4), (1500, 100, 21), (3000, 3, 300)]  # fmt: skip


def blobs(n, d, k, seed=0, apart=3.0):
    rng = np.random.default_rng([seed, n, d, k])
    centres = apart * rng.normal(size=(k, d))
    return centres[rng.integers(k, size=n)] + rng.normal(size=(n, d))


def start(X, k, seed=1):
    return X[np.random.default_rng(seed).choice(len(X), k, replace=False)].copy()


def exact_labels(X, centres):
    """Nearest centres by differences, as exactly as NumPy has numbers."""
    wide = np.longdouble
    squares = ((X[:, None].astype(wide) - centres.astype(wide)) ** 2).sum(axis=2)
    return squares.argmin(axis=1), np.sort(squares, axis=1)


def same(a, b):
    """Equal to the last bit."""
    assert_array_equal(a.centres, b.centres)
    assert_array_equal(a.labels, b.labels)
    assert (a.inertia, a.n_iter) == (b.inertia, b.n_iter)


@pytest.mark.parametrize(("n", "d", "k"), SHAPES)
@pytest.mark.parametrize("apart", [0.5, 3.0])
def test_lloyd_is_that_of_scikit_learn(n, d, k, apart):
    X = blobs(n, d, k, apart=apart)
    first = start(X, k)
    ours = lloyd(X, first)
    theirs = KMeans(k, init=first, n_init=1, algorithm="lloyd").fit(X)
    assert_array_equal(ours.labels, theirs.labels_)
    assert_allclose(ours.inertia, theirs.inertia_, rtol=1e-10)
    assert_allclose(ours.centres, theirs.cluster_centers_, rtol=1e-10, atol=1e-10)
    assert ours.n_iter == theirs.n_iter_


@pytest.mark.parametrize("max_iter", [1, 2, 5])
def test_iterations_that_are_cut_short_have_labels_of_their_centres(max_iter):
    X = blobs(2000, 5, 8, apart=0.5)
    first = start(X, 8)
    ours = lloyd(X, first, max_iter=max_iter)
    theirs = KMeans(8, init=first, n_init=1, max_iter=max_iter).fit(X)
    assert_array_equal(ours.labels, theirs.labels_)
    assert_array_equal(ours.labels, exact_labels(X, ours.centres)[0])
    assert_allclose(ours.inertia, theirs.inertia_, rtol=1e-10)
    assert ours.n_iter == max_iter


@pytest.mark.parametrize("tol", [0.0, 1e-2, 1.0])
def test_tolerance_is_that_of_scikit_learn(tol):
    X = blobs(2000, 5, 8, apart=0.5)
    first = start(X, 8)
    ours = lloyd(X, first, tol=tol)
    theirs = KMeans(8, init=first, n_init=1, tol=tol).fit(X)
    assert ours.n_iter == theirs.n_iter_
    assert_allclose(ours.inertia, theirs.inertia_, rtol=1e-10)


@pytest.mark.parametrize(("n", "d", "k"), SHAPES)
def test_float32_rows_have_the_labels_and_sums_of_the_same_rows_in_float64(n, d, k):
    X = blobs(n, d, k).astype(np.float32)
    first = start(X, k)
    same(lloyd(X, first), lloyd(X.astype(np.float64), first))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("d", [2, 16])
def test_rows_far_from_the_origin(dtype, d):
    """Whole numbers of a grid, so that the offset costs the rows themselves nothing."""
    rng = np.random.default_rng(d)
    X = np.round(8 * blobs(3000, d, 6)) / 8
    offset = (2.0**26 if dtype == np.float64 else 2.0**13) * rng.choice([-1, 1], d)
    near, there = X.astype(dtype), (X + offset).astype(dtype)
    assert_array_equal(there - offset.astype(dtype), near)
    first = start(near, 6)
    ours, moved = lloyd(near, first), lloyd(there, first + offset)
    assert_array_equal(moved.labels, ours.labels)
    assert_allclose(moved.inertia, ours.inertia, rtol=1e-12)
    assert_allclose(moved.centres - offset, ours.centres, atol=1e-7)
    assert_array_equal(kmeans_plusplus(near, 6, 0)[1], kmeans_plusplus(there, 6, 0)[1])


def test_clusters_so_far_apart_that_float32_sees_points():
    """Float32 cannot tell rows of one cluster from each other: all are compared in float64."""
    rng = np.random.default_rng(0)
    homes = 1e9 * rng.normal(size=(3, 4))
    X = homes[rng.integers(3, size=2000)] + rng.normal(size=(2000, 4))
    first = start(X, 9)
    ours = lloyd(X, first)
    labels, _ = exact_labels(X, ours.centres)
    # Centres are rounded to the spacing of numbers near 1e9, which moves few of the labels.
    assert np.mean(labels != ours.labels) < 1e-3
    relative = X - X.mean(axis=0)
    assert_array_equal(lloyd(relative, first - X.mean(axis=0)).labels, ours.labels)
    assert_allclose(np.bincount(ours.labels).sum(), 2000)
    spread = ((X - ours.centres[ours.labels]) ** 2).sum()
    assert_allclose(ours.inertia, spread, rtol=1e-6)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("d", [1, 2, 9])
@pytest.mark.parametrize("offset", [0, 12345])
def test_ties_go_to_the_first_centre(dtype, d, offset):
    """Whole numbers, many of them as far from one centre as from another."""
    rng = np.random.default_rng(d)
    X = rng.integers(-3, 4, size=(4000, d)) + offset
    X[0] = offset  # about which the mean of all has all of its digits, where that is 0
    centres = np.unique(rng.integers(-3, 4, size=(12, d)), axis=0) + offset
    squares = ((X[:, None] - centres) ** 2).sum(axis=2)
    two = np.sort(squares, axis=1)
    assert np.mean(two[:, 0] == two[:, 1]) > 0.03
    labels = nearest(X.astype(dtype), centres)
    assert labels.dtype == np.int32
    assert_array_equal(labels, squares.argmin(axis=1))
    assert_array_equal(labels, nearest(X.astype(dtype), centres, n_threads=2))


@settings(max_examples=40, deadline=None)
@given(
    n=st.integers(1, 400),
    d=st.integers(1, 20),
    k=st.integers(1, 12),
    seed=st.integers(0, 2**31),
    narrow=st.booleans(),
)
def test_labels_are_those_of_exact_arithmetic(n, d, k, seed, narrow):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, d)).astype(np.float32 if narrow else np.float64)
    ours = lloyd(X, rng.normal(size=(k, d)), max_iter=1 + seed % 20)
    labels, squares = exact_labels(X, ours.centres)
    sure = np.ones(n, bool) if k == 1 else squares[:, 1] - squares[:, 0] > 1e-13
    assert_array_equal(ours.labels[sure], labels[sure])
    spread = ((X - ours.centres[ours.labels]) ** 2).sum()
    assert_allclose(ours.inertia, spread, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("weighted", [False, True])
def test_any_number_of_threads_gives_the_same_bits(dtype, weighted):
    X = blobs(40_000, 5, 12, apart=1.0).astype(dtype)
    weight = np.random.default_rng(3).random(len(X)) if weighted else None
    rows = parse_rows(X, weight)
    assert rows.blocks(12)[0] == 4
    one = k_means(X, 12, 7, weight)
    for n_threads in (2, 3, 8):
        same(k_means(X, 12, 7, weight, n_threads=n_threads), one)


def test_rows_that_are_skipped_cost_no_accuracy(monkeypatch):
    """Forgetting how far centres may move makes every row ranked again, to the same bits."""
    X = blobs(20_000, 6, 20, apart=1.0)
    first = start(X, 20)
    kernel, ranked = rows_module.kmeans.assign, [[], []]

    def counted(forget):
        def assign(rows, model, known, sums, scratch, block, exact, begin, end):
            if forget and model[5].size > 1:
                known[1][:] = -1
            kernel(rows, model, known, sums, scratch, block, exact, begin, end)
            ranked[forget].append(sums[3][3::4].sum())

        return assign

    results = []
    for forget in (False, True):
        monkeypatch.setattr(rows_module.kmeans, "assign", counted(forget))
        results.append(lloyd(X, first))
    same(*results)
    assert set(ranked[True][1:]) == {len(X)}
    assert min(ranked[False][1:]) < len(X) / 4


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**31), d=st.integers(1, 12))
def test_a_row_of_weight_two_is_two_rows_and_one_of_weight_zero_is_none(seed, d):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(200, d))
    weight = rng.integers(0, 4, size=200).astype(float)
    weight[rng.integers(200)] = 1.0
    first = X[weight > 0][:5]  # no centre is without rows: it would take one of two equal ones
    repeated = np.repeat(X, weight.astype(int), axis=0)
    ours, theirs = lloyd(X, first, weight), lloyd(repeated, first)
    assert_allclose(ours.centres, theirs.centres, rtol=1e-9, atol=1e-9)
    assert_allclose(ours.inertia, theirs.inertia, rtol=1e-9, atol=1e-12)
    assert_array_equal(np.repeat(ours.labels, weight.astype(int)), theirs.labels)
    assert ours.n_iter == theirs.n_iter


def plain_lloyd(X, weight, centres, n_iter):
    """Textbook iterations, every sum anew and in long double; no centre may lose its rows."""
    wide, w = X.astype(np.longdouble), weight.astype(np.longdouble)
    for _ in range(n_iter):
        squares = [((X - centre) ** 2).sum(axis=1) for centre in centres]
        members = [np.argmin(squares, axis=0) == k for k in range(len(centres))]
        means = [w[rows] @ wide[rows] / w[rows].sum() for rows in members]
        centres = np.array(means).astype(float)
    return centres


@pytest.mark.parametrize("spread", [0.0, 9.0])
@pytest.mark.parametrize("seed", range(3))
def test_rows_that_move_leave_sums_as_if_taken_afresh(seed, spread):
    """Also where one row has nearly all the weight of its cluster in its block."""
    rng = np.random.default_rng(seed)
    X = blobs(20_000, 2, 8, seed, apart=1.0)
    weight = 10 ** rng.uniform(-spread, spread, len(X))
    first = start(X, 8)
    ours = lloyd(X, first, weight, max_iter=30, tol=0)
    centres = plain_lloyd(X, weight, first, ours.n_iter)
    assert_allclose(ours.centres, centres, rtol=1e-11, atol=1e-11)
    assert_array_equal(ours.labels, exact_labels(X, ours.centres)[0])


@pytest.mark.parametrize("d", [2, 9])
def test_clusters_come_to_blocks_and_leave_them(d):
    """Sorted rows, and starts all at one end: most blocks lose most of what they had."""
    X = blobs(26_000, d, 30, apart=2.0)
    X = X[np.argsort(X[:, 0])]
    first = X[:6000:200]
    assert parse_rows(X).blocks(30)[0] == 3
    for max_iter in (2, 3, 15):
        ours = lloyd(X, first, max_iter=max_iter, tol=0)
        centres = plain_lloyd(X, np.ones(len(X)), first, max_iter)
        assert_allclose(ours.centres, centres, rtol=1e-11, atol=1e-11)
        nearest = np.argmin([((X - c) ** 2).sum(axis=1) for c in ours.centres], axis=0)
        assert_array_equal(ours.labels, nearest)


def test_a_row_that_had_nearly_all_the_weight_leaves_no_rounding_behind():
    """In one block, a row of weight 1e18 moves from the first cluster to the second."""
    X = np.concatenate([np.linspace(-1, 0, 40), [0.5], np.linspace(1, 2, 23)])[:, None]
    weight = np.ones(64)
    weight[40] = 1e18
    rows = parse_rows(X, weight)
    model = rows_module.Model.of(np.array([[-0.4], [1.5]]) - rows.ref).arrays
    known = np.full(64, -1, np.int32), np.empty(64, np.float32)
    sums = rows_module.sums_of(1, 2, 1)

    def assign():
        rows_module.prepare(model)
        known[1][:] = -1
        scratch = rows.scratch(2)
        kmeans.assign(rows.arrays, model, known, sums, scratch, 64, False, 0, 1)
        return sums[3][1]

    assert [assign(), assign()] == [64, 0]
    assert known[0][40] == 0
    model[0][0] -= 0.3
    assert assign() == 1
    assert known[0][40] == 1
    first = known[0] == 0
    assert_array_equal(sums[0], [40, 1e18])
    assert_array_equal(sums[1], [40, 24])
    assert_allclose(sums[2][0], (X[first] - rows.ref).sum(), rtol=1e-14)


def test_sums_that_rounding_has_spoilt_are_noticed_in_the_end(monkeypatch):
    X = blobs(3000, 3, 5, apart=1.0)
    first = start(X, 5)
    clean = lloyd(X, first, tol=0)
    kernel, spoilt = kmeans.assign, []

    def assign(rows, model, known, sums, scratch, block, exact, begin, end):
        kernel(rows, model, known, sums, scratch, block, exact, begin, end)
        if not exact and sums[3][1] <= 3 and len(spoilt) < 2:
            sums[2][:3] += 1.0  # of the first centre
            spoilt.append(sums[3][1])

    monkeypatch.setattr(kmeans, "assign", assign)
    ours = lloyd(X, first, tol=0)
    assert spoilt
    assert ours.n_iter > clean.n_iter
    assert_array_equal(ours.labels, clean.labels)
    assert_allclose(ours.centres, clean.centres, rtol=1e-13, atol=1e-13)
    assert_allclose(ours.inertia, clean.inertia, rtol=1e-13)


def test_an_outlier_that_changes_its_cluster_leaves_nothing_behind():
    X = blobs(9000, 3, 5, apart=2.0)
    X[17] = 1e11
    first = np.concatenate([X[:4], [X[16] + 3]])
    ours = lloyd(X, first, tol=0)
    assert ours.n_iter < 300
    assert_array_equal(ours.labels == ours.labels[17], np.arange(9000) == 17)
    assert_array_equal(ours.labels, exact_labels(X, ours.centres)[0])
    for k in range(5):  # what is left of 1e11 are the last bits of its distance from the mean
        mean = X[ours.labels == k].mean(axis=0)
        assert_allclose(ours.centres[k], mean, rtol=1e-15, atol=1e-8)
    assert_allclose(ours.inertia, ((X - ours.centres[ours.labels]) ** 2).sum(), rtol=1e-9)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**31), k=st.integers(1, 30))
def test_permuted_centres_permute_labels(seed, k):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(500, 3))
    first, order = X[:k], rng.permutation(k)  # none is without rows: the first would move first
    ours, theirs = lloyd(X, first, max_iter=3), lloyd(X, first[order], max_iter=3)
    assert_array_equal(order[theirs.labels], ours.labels)
    assert_allclose(theirs.centres, ours.centres[order], rtol=1e-12, atol=1e-14)


def test_weights_are_those_of_scikit_learn():
    X = blobs(3000, 4, 6, apart=1.0)
    weight = np.random.default_rng(0).random(3000)
    first = start(X, 6)
    ours = lloyd(X, first, weight, tol=0)
    theirs = KMeans(6, init=first, n_init=1, tol=0).fit(X, sample_weight=weight)
    assert_array_equal(ours.labels, theirs.labels_)
    assert_allclose(ours.inertia, theirs.inertia_, rtol=1e-10)


@pytest.mark.parametrize("d", [2, 10])
def test_centres_without_rows_go_to_the_farthest_ones(d):
    X = blobs(1000, d, 6)
    first = np.concatenate([start(X, 4), 1e3 + start(X, 3)])
    ours = lloyd(X, first)
    theirs = KMeans(7, init=first, n_init=1).fit(X)
    assert len(np.unique(ours.labels)) == 7
    assert_array_equal(ours.labels, theirs.labels_)
    assert_allclose(ours.inertia, theirs.inertia_, rtol=1e-10)
    assert ours.n_iter == theirs.n_iter_


def test_rows_without_weight_are_nowhere_to_go():
    X = np.array([[0.0], [1.0], [10.0], [11.0], [500.0]])
    ours = lloyd(X, [[0.5], [1e4], [2e4]], [1, 1, 1, 1, 0])
    there = lloyd(X[:4], [[0.5], [1e4], [2e4]])
    assert_array_equal(ours.labels[:4], there.labels)
    assert_allclose(ours.centres, there.centres)


def test_fewer_distinct_rows_than_centres():
    X = np.repeat([[0.0, 1.0], [4.0, 4.0], [9.0, 2.0]], 5, axis=0)
    centres, taken = kmeans_plusplus(X, 6, 0)
    assert len(set(taken.tolist())) == 6
    assert len(np.unique(centres, axis=0)) == 3
    ours = lloyd(X, centres)
    assert ours.inertia == 0.0
    assert_array_equal(X, ours.centres[ours.labels])


@pytest.mark.parametrize(("n", "d", "k"), SHAPES)
@pytest.mark.parametrize("weighted", [False, True])
def test_seeds_are_those_of_scikit_learn(n, d, k, weighted):
    """The same random numbers in the same order."""
    X = blobs(n, d, k)
    weight = np.random.default_rng(0).random(n) if weighted else None
    for seed in range(3):
        centres, taken = kmeans_plusplus(X, k, seed, weight)
        _, theirs = sklearn_plusplus(X, k, sample_weight=weight, random_state=seed)
        assert_array_equal(taken, theirs)
        assert_array_equal(centres, X[taken])


def test_k_means_is_that_of_scikit_learn():
    X = blobs(4800, 16, 16, apart=1.0)
    for seed in range(3):
        ours = k_means(X, 16, seed)
        theirs = KMeans(16, n_init=1, random_state=seed).fit(X)
        assert_array_equal(ours.labels, theirs.labels_)
        assert_allclose(ours.inertia, theirs.inertia_, rtol=1e-10)
        assert ours.n_iter == theirs.n_iter_


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_seeds_do_not_depend_on_threads_nor_on_what_is_held(dtype, monkeypatch):
    X = blobs(30_000, 9, 20).astype(dtype)
    weight = np.random.default_rng(0).random(len(X))
    held = kmeans_plusplus(X, 20, 5, weight)[1]
    monkeypatch.setattr(seeds_module, "HELD_BYTES", 0)
    for n_threads in (1, 2, 5):
        assert_array_equal(kmeans_plusplus(X, 20, 5, weight, n_threads)[1], held)


@settings(max_examples=40, deadline=None)
@given(n=st.integers(1, 200), d=st.integers(1, 10), seed=st.integers(0, 2**31))
def test_seeds_of_hard_rows(n, d, seed):
    rng = np.random.default_rng(seed)
    k = int(rng.integers(1, n + 1))
    X = rng.integers(0, 2, size=(n, d)).astype(np.float32 if seed % 2 else np.float64)
    weight = rng.integers(0, 2, size=n).astype(float)
    weight[rng.integers(n)] = 1.0
    centres, taken = kmeans_plusplus(X, k, seed, weight)
    assert_array_equal(centres, X[taken])
    assert (weight[taken] > 0).all()
    differ = len(np.unique(X[weight > 0], axis=0))
    assert len(np.unique(centres, axis=0)) == min(k, differ)
    assert len(set(taken.tolist())) == min(k, int((weight > 0).sum()))
    assert_array_equal(kmeans_plusplus(X, k, seed, weight)[1], taken)


def test_equal_rows_one_centre_and_as_many_centres_as_rows():
    same_rows = np.ones((50, 3))
    assert_array_equal(np.sort(kmeans_plusplus(same_rows, 50, 0)[1]), np.arange(50))
    ours = k_means(same_rows, 4, 0)
    assert ours.inertia == 0.0
    assert_array_equal(ours.centres, np.ones((4, 3)))
    X = blobs(70, 5, 3)
    assert_array_equal(np.sort(kmeans_plusplus(X, 70, 0)[1]), np.arange(70))
    assert k_means(X, 70, 0).inertia == 0.0
    alone = k_means(X, 1, 0)
    assert alone.n_iter == KMeans(1, n_init=1, random_state=0).fit(X).n_iter_
    assert_allclose(alone.centres[0], X.mean(axis=0), rtol=1e-13)
    assert_allclose(alone.inertia, X.var(axis=0).sum() * 70, rtol=1e-13)


@pytest.mark.parametrize("scale", [1e-30, 1e-18, 1e25])
def test_rows_beyond_the_range_of_float32_squares(scale):
    """Float32 sees zero or infinity there: such rows are compared in float64."""
    X = blobs(500, 4, 3)
    first = start(X, 3)
    ours, scaled = lloyd(X, first), lloyd(scale * X, scale * first)
    assert_array_equal(scaled.labels, ours.labels)
    assert_allclose(scaled.inertia, scale**2 * ours.inertia, rtol=1e-12)


def test_what_the_rows_have_in_common():
    X = blobs(5000, 6, 3) + np.arange(6) * 100
    weight = np.random.default_rng(0).random(5000)
    rows = parse_rows(X, weight)
    mean = np.average(X, axis=0, weights=weight)
    assert (np.abs(rows.ref - mean) < 0.02 * np.ptp(X, axis=0)).all()
    assert_allclose(rows.variance, np.average((X - mean) ** 2, axis=0, weights=weight).mean())
    assert parse_rows(rows) is rows
    outlier = np.concatenate([[np.full(6, 1e12)], X])
    heavy = np.concatenate([[1e-20], weight])
    mean = np.average(outlier, axis=0, weights=heavy)
    exact = np.average((outlier - mean) ** 2, axis=0, weights=heavy).mean()
    assert_allclose(parse_rows(outlier, heavy).variance, exact)


def two_passes(kind, X, r):
    """Weights, means and scatters under r (n, K), in long double."""
    X, r = X.astype(np.longdouble), r.astype(np.longdouble)
    mass = r.sum(axis=0)
    share = np.divide(r, mass, out=np.zeros_like(r), where=mass > 0)
    mean = share.T @ (X - X[0]) + np.where(mass > 0, 1, 0)[:, None] * X[0]
    off = X[:, None] - mean
    full = np.einsum("nk,nki,nkj->kij", r, off, off)
    scatter = {
        "full": full,
        "tied": full.sum(axis=0),
        "diag": np.einsum("kii->ki", full),
        "spherical": np.einsum("kii->k", full),
    }
    return mass, mean, scatter[kind]


def assert_moments(moments, kind, X, r):
    mass, mean, scatter = two_passes(kind, X, r)
    assert moments.kind == kind
    assert_allclose(moments.weight, mass.astype(float), rtol=1e-12, atol=1e-14)
    assert_allclose(moments.mean, mean.astype(float), rtol=1e-12, atol=1e-12)
    largest = float(np.abs(scatter).max())
    assert_allclose(moments.scatter, scatter.astype(float), rtol=1e-12, atol=1e-13 * largest)


@pytest.mark.parametrize("kind", ["full", "tied", "diag", "spherical"])
@pytest.mark.parametrize("d", [1, 3, 8, 13])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("weighted", [False, True])
def test_moments_are_those_of_two_passes(kind, d, dtype, weighted):
    n, k = 1000, 6
    rng = np.random.default_rng(d)
    X = blobs(n, d, k).astype(dtype)
    weight = rng.random(n) if weighted else None
    w = np.ones(n) if weight is None else weight
    labels = rng.integers(-1, k - 1, n)  # the last one has no rows
    hard = (labels[:, None] == np.arange(k)) * w[:, None]
    assert_moments(label_moments(kind, X, labels, k, weight), kind, X, hard)
    resp = rng.dirichlet(np.ones(k), n) * rng.integers(0, 2, (n, k))
    resp[:, 1] = 0.0
    assert_moments(resp_moments(kind, X, resp, weight), kind, X, resp * w[:, None])


@pytest.mark.parametrize("kind", ["full", "tied", "diag", "spherical"])
def test_moments_of_rows_far_from_the_origin_and_from_each_other(kind):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 700)
    X = 1e8 * np.array([[1.0, -1], [2, 5], [-9, 3]])[labels] + rng.normal(size=(700, 2))
    hard = (labels[:, None] == np.arange(3)).astype(float)
    _, mean, scatter = two_passes(kind, X, hard)
    for moments in (label_moments(kind, X, labels, 3), resp_moments(kind, X, hard)):
        assert_allclose(moments.mean, mean.astype(float), rtol=1e-15)
        assert_allclose(moments.scatter, scatter.astype(float), rtol=1e-11)


def test_moments_of_no_rows_at_all():
    moments = label_moments("full", np.ones((5, 2)), np.full(5, -1), 3)
    assert (moments.weight > 0).all()
    assert (moments.weight < 1e-14).all()
    assert not moments.mean.any()
    assert not moments.scatter.any()


@pytest.mark.parametrize(
    ("call", "error", "match"),
    [
        (lambda: lloyd(np.zeros(3), [[0.0]]), DataError, "rows of features"),
        (lambda: lloyd(np.zeros((3, 2)), [[0.0]]), DataError, r"\(K, 2\)"),
        (lambda: nearest(np.zeros((3, 2)), [0.0]), DataError, r"\(K, 2\)"),
        (lambda: lloyd(np.zeros((3, 1)), [[0.0]], [1, 1]), DataError, r"shape \(3,\)"),
        (lambda: lloyd(np.zeros((3, 1)), [[0.0]], [1, 1, -1]), DataError, "negative"),
        (lambda: lloyd(np.zeros((3, 1)), [[0.0]], [0, 0, 0]), DataError, "zero for all"),
        (lambda: lloyd(np.zeros((3, 1)), [[0.0]], max_iter=0), ParameterError, "max_iter"),
        (lambda: lloyd(np.zeros((3, 1)), [[0.0]], tol=-1), ParameterError, "tol"),
        (lambda: kmeans_plusplus(np.zeros((3, 1)), 4, 0), ParameterError, "between 1 and 3"),
        (lambda: kmeans_plusplus(np.zeros((3, 1)), 0, 0), ParameterError, "between 1 and 3"),
        (lambda: label_moments("full", np.zeros((3, 1)), [0, 1], 2), DataError, r"\(3,\)"),
        (lambda: resp_moments("full", np.zeros((3, 1)), [[1.0]]), DataError, r"\(3, K\)"),
    ],
)
def test_what_does_not_fit_is_refused(call, error, match):
    with pytest.raises(error, match=match):
        call()
