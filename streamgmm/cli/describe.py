"""Describe a model: as JSON, and as a table."""

from __future__ import annotations

import sys
from typing import Any

SHOWN_NUMBERS = 6


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


def _describe_components(components: Any) -> list[dict[str, Any]]:
    """Mean and standard deviation where there are both, else the parameters by name."""
    import numpy as np

    if hasattr(components, "means") and hasattr(components, "variances"):
        pairs = zip(components.means, components.variances**0.5, strict=True)
        return [{"mean": m.tolist(), "standard_deviation": s.tolist()} for m, s in pairs]
    arrays = components.arrays()
    return [
        {name: np.asarray(values[k]).tolist() for name, values in arrays.items()}
        for k in range(components.n_components)
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
    return {
        "converged": model.converged_,
        "n_iter": model.n_iter_,
        "passes": float(model.history_["passes"][-1]),
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


def print_components(described: dict[str, Any]) -> None:
    """Print a table of the components: weights, and the first of the parameters."""
    from rich.console import Console
    from rich.table import Table

    components = described["components"]
    names = [name for name in components[0] if name != "weight"]
    moments = names == ["mean", "standard_deviation"]
    what = "mean ± standard deviation" if moments else ", ".join(names)
    table = Table(title=f"{described['n_components']} components: {what}")
    rows = [_cells(component, names, moments) for component in components]
    shown = min(SHOWN_NUMBERS, len(rows[0]))
    heads = [f"x{d}" for d in range(shown)] if moments else _heads(components[0], names)[:shown]
    for name in ("", "weight", *heads):
        table.add_column(name, justify="right")
    if shown < len(rows[0]):
        table.add_column(f"and {len(rows[0]) - shown} more")
    for k, (component, cells) in enumerate(zip(components, rows, strict=True)):
        table.add_row(str(k), f"{component['weight']:.4f}", *cells[:shown])
    Console(file=sys.stdout).print(table)


def _cells(component: dict[str, Any], names: list[str], moments: bool) -> list[str]:
    """The numbers of a component, as text."""
    import numpy as np

    if moments:
        pairs = zip(component["mean"], component["standard_deviation"], strict=True)
        return [f"{m:.4g} ± {s:.2g}" for m, s in pairs]
    return [f"{value:.4g}" for name in names for value in np.ravel(component[name])]


def _heads(component: dict[str, Any], names: list[str]) -> list[str]:
    """A heading for each number: the parameter, and its place where it is an array."""
    import numpy as np

    found = []
    for name in names:
        values = np.asarray(component[name])
        found += [f"{name} {', '.join(map(str, at))}".rstrip() for at in np.ndindex(values.shape)]
    return found
