"""scikit-learn's decorator of `fit`, with the type that it has: what it decorates stays as it is.

scikit-learn has no annotations, so a user's type checker would know nothing of `fit` otherwise.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from sklearn.base import _fit_context

Method = TypeVar("Method", bound=Callable[..., Any])


def fit_context(*, prefer_skip_nested_validation: bool) -> Callable[[Method], Method]:
    """Give the decorator that checks the parameters of an estimator before it is fitted."""
    decorate: Callable[[Method], Method] = _fit_context(
        prefer_skip_nested_validation=prefer_skip_nested_validation
    )
    return decorate
