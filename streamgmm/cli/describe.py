"""Describe a model as values for JSON."""

from __future__ import annotations

from typing import Any


def describe_model(model: Any) -> dict[str, Any]:
    """Describe a model, or a pipeline, and its fit as values for JSON."""
    from streamgmm.estimators.pipelines import apart
    from streamgmm.estimators.transforming import RowTransformer

    steps, model = apart(model)
    if steps:
        names = [{"name": name, "class": type(step).__name__} for name, step in steps]
        return {"steps": names, **describe_model(model)}
    if isinstance(model, RowTransformer):
        return {
            "class": type(model).__name__,
            "n_features": model.n_features_in_,
            "n_features_out": model._affine().n_features,
        }
    mixture = model._mixture()
    return {
        "class": type(model).__name__,
        **_describe_family(model, mixture.family),
        "n_components": mixture.n_components,
        "n_features": mixture.n_features,
        **_describe_features(model),
        **_describe_learning(model),
        "components": [
            {"weight": weight, **component}
            for weight, component in zip(
                mixture.weights.tolist(), _describe_components(mixture.components), strict=True
            )
        ],
    }


def _describe_family(model: Any, family: Any) -> dict[str, Any]:
    """The covariance type of a Gaussian mixture; of other models the family and its settings."""
    from streamgmm.model.families import settings_of

    if hasattr(model, "covariance_type"):
        return {"covariance_type": model.covariance_type}
    return {"family": family.name, "settings": settings_of(family)}


def _describe_features(model: Any) -> dict[str, Any]:
    """Names of the features, where the rows had some."""
    names = getattr(model, "feature_names_in_", None)
    return {} if names is None else {"features": [str(name) for name in names]}


def _describe_components(components: Any) -> list[dict[str, Any]]:
    """Mean and standard deviation where there are both, else the parameters by name."""
    import numpy as np

    if hasattr(components, "means") and hasattr(components, "variances"):
        pairs = zip(components.means, components.variances**0.5, strict=True)
        return [{"mean": m.tolist(), "standard_deviation": s.tolist()} for m, s in pairs]
    n = components.n_components
    arrays = {name: values for name, values in components.arrays().items() if len(values) == n}
    return [
        {name: np.asarray(values[k]).tolist() for name, values in arrays.items()} for k in range(n)
    ]


def _describe_learning(model: Any) -> dict[str, Any]:
    """Describe the fit in passes, or the learning from a stream."""
    if not hasattr(model, "history_"):
        seen = model.monitor_
        last = seen["log_likelihood"].tolist()[-1:]
        return {
            "rows": model.n_samples_seen_,
            "log_likelihood_per_row": last[0] if last else None,
            "alarms": seen["alarms"],
            "changes": seen["changes"],
        }
    climbed = {"n_iter": model.n_iter_, "passes": float(model.history_["passes"][-1])}
    if hasattr(model, "inertia_"):
        return climbed | {"inertia": float(model.inertia_)}
    return {
        "converged": model.converged_,
        **climbed,
        "lower_bound": model.lower_bound_,
        "log_likelihood": float(model.history_["log_likelihood"][-1]),
    }


def said_of_map(described: dict[str, Any]) -> str:
    """Say what a scaler or a projection does."""
    there = described["n_features_out"]
    return f"{described['class']}: {described['n_features']} features to {there}"


def ended(described: dict[str, Any]) -> str:
    """Whether a fit converged, in words."""
    return "converged" if described["converged"] else "not converged"
