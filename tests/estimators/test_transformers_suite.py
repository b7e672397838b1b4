"""scikit-learn's checks of estimators, for scalers and PCA."""

import pytest
from sklearn.utils.estimator_checks import parametrize_with_checks

from streamgmm import PCA, RobustScaler, StandardScaler

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


@parametrize_with_checks(
    [
        StandardScaler(),
        StandardScaler(with_mean=False, missing="omit"),
        RobustScaler(),
        PCA(),
        PCA(2, whiten=True),
    ]
)
def test_estimator_checks(estimator, check):
    check(estimator)
