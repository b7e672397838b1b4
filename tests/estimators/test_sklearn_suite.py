"""scikit-learn's own tests of its mixture, run against ours, and its checks of estimators."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import sklearn.mixture
import sklearn.mixture.tests
from sklearn.utils.estimator_checks import parametrize_with_checks

from streamgmm import GaussianMixture, MixtureModel

# scikit-learn runs these with its warning shown, not raised.
pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

PRIVATE = "tests private functions of scikit-learn and no estimator"
ARRAY_API = "arrays of other libraries (PyTorch, CuPy) are not taken"
NOT_OURS = {
    "test_suffstat_sk_full": PRIVATE,
    "test_suffstat_sk_tied": PRIVATE,
    "test_suffstat_sk_diag": PRIVATE,
    "test_gaussian_suffstat_sk_spherical": PRIVATE,
    "test_compute_log_det_cholesky": PRIVATE,
    "test_gaussian_mixture_log_probabilities": PRIVATE,
    "test_gaussian_mixture_all_init_does_not_estimate_gaussian_parameters": (
        "counts calls of a private function of scikit-learn"
    ),
    "test_gaussian_mixture_precisions_init": (
        "calls the private method _initialize with responsibilities, which nothing here holds"
    ),
    "test_gaussian_mixture_array_api_compliance": ARRAY_API,
    "test_gaussian_mixture_raises_where_array_api_not_implemented": ARRAY_API,
}
EXPECTED_FAILURES = {
    "test_gaussian_mixture_setting_best_params": (
        "with reg_covar=0 a component collapses on one row: scikit-learn goes on as it adds 10 "
        "machine epsilons to each weight, which leaves a variance of 1e-15 of the square of the "
        "row; here the variance is zero, and that is an error"
    ),
}


def load_suite(name: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Import one of scikit-learn's test modules with our class in the place of its own."""
    (folder,) = sklearn.mixture.tests.__path__
    spec = importlib.util.spec_from_file_location(f"suite_{name}", Path(folder) / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    monkeypatch.setattr(sklearn.mixture, "GaussianMixture", GaussianMixture)
    spec.loader.exec_module(module)
    return module


with pytest.MonkeyPatch.context() as patch:
    for suite in ("test_gaussian_mixture", "test_mixture"):
        for key, value in vars(load_suite(suite, patch)).items():
            if key.startswith("test_") and key not in NOT_OURS:
                if key in EXPECTED_FAILURES:
                    value = pytest.mark.xfail(reason=EXPECTED_FAILURES[key])(value)
                globals()[key] = value


@pytest.fixture
def global_dtype():
    return np.float64


@pytest.fixture
def global_random_seed():
    return 42


def test_table_names_what_there_is():
    named = set(NOT_OURS)
    if tuple(map(int, sklearn.__version__.split(".")[:2])) < (1, 8):
        named -= {name for name, why in NOT_OURS.items() if why == ARRAY_API}  # came with 1.8
    with pytest.MonkeyPatch.context() as patch:
        assert named <= set(vars(load_suite("test_gaussian_mixture", patch)))


def expected_failures(estimator):
    if estimator.n_components == 1:
        return {}
    return {
        "check_sample_weight_equivalence_on_dense_data": (
            "a start is drawn from the rows, as in KMeans: repeated rows draw another start. "
            "From the same start, weights equal repeats: see test_estimators.py"
        )
    }


@parametrize_with_checks(
    [
        GaussianMixture(),
        GaussianMixture(2, covariance_type="diag"),
        MixtureModel(),
        MixtureModel(2, "diag"),
    ],
    expected_failed_checks=expected_failures,
)
def test_estimator_checks(estimator, check):
    check(estimator)
