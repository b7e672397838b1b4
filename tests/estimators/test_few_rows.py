"""Few rows take a short way through the checks: to the same values, and the same errors."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from streamgmm import GaussianMixture
from streamgmm.errors import DataError, NonFiniteError
from streamgmm.estimators import rowwise
from streamgmm.estimators.rows import FEW_ROWS, few_rows
from streamgmm.sources import open_source

X = np.random.default_rng(0).normal(size=(3_000, 3)) + 1e3


@pytest.mark.parametrize("kind", ["full", "tied", "diag", "spherical"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("n", [1, 7, FEW_ROWS])
def test_few_rows_are_told_what_many_are(
    kind: str, dtype: type, n: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = X.astype(dtype)
    model = GaussianMixture(3, covariance_type=kind, random_state=0).fit(rows)
    for method in ("predict", "predict_proba", "score_samples"):
        ask = getattr(model, method)
        short, whole = ask(rows[:n]), ask(rows)
        assert short.dtype == whole.dtype
        assert short.flags.c_contiguous
        np.testing.assert_array_equal(short, whole[:n])
        for other in (np.asfortranarray(rows)[:n], rows[::2][: n // 2 + 1]):
            np.testing.assert_array_equal(ask(other), ask(np.ascontiguousarray(other)))
    short_score, bic = model.score(rows[:n]), model.bic(rows[:n])
    monkeypatch.setattr(rowwise, "few_rows", lambda *given: None)
    assert model.score(rows[:n]) == pytest.approx(short_score, rel=1e-14)
    assert model.bic(rows[:n]) == pytest.approx(bic, rel=1e-14)


def test_the_short_way_is_for_plain_arrays_alone() -> None:
    model = GaussianMixture(2, random_state=0).fit(X)
    assert few_rows(model, X[:2], 3) is not None
    for other in (
        X[:2].tolist(), X, X[:0], X[0], X[:2].astype(int), X[:2].astype(">f8"), X[:2, :2],
        open_source(X[:2]), pd.DataFrame(X[:2]),
    ):  # fmt: skip
        assert few_rows(model, other, 3) is None
    frame = pd.DataFrame(X, columns=["a", "b", "c"])
    model.fit(frame)
    with pytest.warns(UserWarning, match="does not have valid feature names"):
        model.predict(X[:1])


def test_errors_are_those_of_many_rows() -> None:
    model = GaussianMixture(2, random_state=0).fit(X)
    bad = X[:4].copy()
    bad[2, 1] = np.nan
    for ask in (model.predict, model.score_samples, model.score):
        with pytest.raises(NonFiniteError, match="in row 2, column 1"):
            ask(bad)
        with pytest.raises(DataError, match=r"X has 2 features.*is expecting 3"):
            ask(X[:1, :2])


def test_a_parameter_that_is_set_is_used_at_once() -> None:
    model = GaussianMixture(2, random_state=0).fit(X)
    before = model.score_samples(X[:1])
    model.means_[:] += 1.0
    assert model.score_samples(X[:1]) != before
