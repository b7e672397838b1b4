"""Describe a model: as JSON, and as a table."""

from __future__ import annotations

import sys
from typing import Any

SHOWN_FEATURES = 6


def describe_model(model: Any) -> dict[str, Any]:
    """Describe a model and its fit as values for JSON."""
    mixture = model._mixture()
    components = mixture.components
    return {
        "class": type(model).__name__,
        "covariance_type": model.covariance_type,
        "n_components": mixture.n_components,
        "n_features": mixture.n_features,
        **_describe_learning(model),
        "components": [
            {"weight": weight, "mean": mean.tolist(), "standard_deviation": sigma.tolist()}
            for weight, mean, sigma in zip(
                mixture.weights.tolist(), components.means, components.variances**0.5, strict=True
            )
        ],
    }


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


def ended(described: dict[str, Any]) -> str:
    """Whether a fit converged, in words."""
    return "converged" if described["converged"] else "not converged"


def print_components(described: dict[str, Any]) -> None:
    """Print a table of the components: weights, means, standard deviations."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"{described['n_components']} components: mean ± standard deviation")
    shown = min(SHOWN_FEATURES, described["n_features"])
    for name in ("", "weight", *(f"x{d}" for d in range(shown))):
        table.add_column(name, justify="right")
    if shown < described["n_features"]:
        table.add_column(f"and {described['n_features'] - shown} more")
    for k, component in enumerate(described["components"]):
        values = zip(component["mean"], component["standard_deviation"], strict=True)
        cells = [f"{m:.4g} ± {s:.2g}" for m, s in list(values)[:shown]]
        table.add_row(str(k), f"{component['weight']:.4f}", *cells)
    Console(file=sys.stdout).print(table)
