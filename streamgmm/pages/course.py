"""How a model came to be: its convergence, the selection, and the stream that it learned."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from streamgmm.pages.charts import COLOURS, Chart
from streamgmm.pages.markup import Markup, number, short, tag
from streamgmm.pages.subject import Subject
from streamgmm.pages.tables import Cell, num, table

CRITERIA = {
    "bic": ("BIC", False),
    "aic": ("AIC", False),
    "icl": ("ICL", False),
    "holdout_log_likelihood": ("held-out log p", True),
    "stability": ("stability", True),
}
"""Columns of a selection, their names, and whether more is better."""

STATISTICS = ("likelihood", "occupancy", "means", "covariances", "cusum")
MOST_POINTS = 400
MOST_ALARMS = 20


def convergence_section(subject: Subject) -> list[Markup]:
    """The bound by iteration, and how the fit ended."""
    history = subject.history
    if history is None or not len(history["free_energy"]):
        return [tag("p", "No history of iterations is kept with this model.")]
    n = max(1.0, float(history["rows"][-1] / history["passes"][-1]))
    at = np.asarray(history["iteration"], np.float64)
    energy = np.asarray(history["free_energy"], np.float64) / n
    above = np.asarray(history["log_likelihood"], np.float64) / n
    count = int(at[-1])
    reads = number(float(history["passes"][-1]), 3)
    said = f"{count} iteration{'s' if count > 1 else ''}, {reads} reads of the data"
    out = []
    if subject.converged is False:
        out.append(
            tag("p", f"Not converged after {said}: raise max_iter, or look for degenerate data.",
                class_="warn")
        )  # fmt: skip
    else:
        out.append(tag("p", f"Converged after {said}." if subject.converged else f"{said}."))
    known = np.isfinite(above)
    values = np.concatenate([energy[np.isfinite(energy)], above[known]])
    if len(at) > 1 and len(values):
        pad = 0.06 * max(float(np.ptp(values)), 1e-12)
        side = 0.04 * (at[-1] - at[0])
        chart = Chart(
            (at[0] - side, at[-1] + side), (values.min() - pad, values.max() + pad), "iteration",
            "nats a row",
        )  # fmt: skip
        chart.line(at, energy, "c0")
        if len(at) <= 60:
            chart.dots(at, energy, "f0", 2.5)
        chart.dots(at[known], above[known], "ring", 4)
        words = f"F rises from {number(energy[0], 6)} to {number(energy[-1], 6)} nats a row."
        caption = "The lower bound F by iteration (line), and log p where it was read (rings)."
        drawn = chart.render("bound", "Convergence", words)
        figure = tag("figure", drawn, tag("figcaption", caption))
        out.append(tag("div", figure, class_="charts"))
    last = slice(max(0, len(at) - 5), None)
    rows = [
        [number(i), num(f, 8), num(p, 8), num(q, 4)]
        for i, f, p, q in zip(at[last], energy[last], above[last], history["passes"][last],
                              strict=True)
    ]  # fmt: skip
    out.append(
        table(
            "The last iterations",
            ["iteration", "F, nats a row", "log p, nats a row", "reads"],
            rows,
        )
    )
    return out


def selection_section(subject: Subject) -> list[Markup]:
    """Every candidate, and what each criterion would choose."""
    found = subject.selection
    assert found is not None
    name = "n_components" if "n_components" in found else "n_clusters"
    ks = np.asarray(found[name], np.int64)
    kinds = found.get("covariance_type", found.get("family"))
    labels = [short(str(each), 30) for each in kinds] if kinds is not None else [""] * len(ks)
    used = [
        c for c in CRITERIA
        if c in found and np.isfinite(np.asarray(found[c], np.float64)).any()
    ]  # fmt: skip
    charts, choices = [], []
    for column in used:
        title, greater = CRITERIA[column]
        values = np.asarray(found[column], np.float64)
        best = int(np.nanargmax(values if greater else -values))
        best = int(found.get("choices", {}).get(column.removesuffix("_log_likelihood"), best))
        choices.append(
            f"{title} chooses K = {ks[best]}{', ' + labels[best] if labels[best] else ''}"
        )
        charts.append(_criterion(column, title, ks, values, labels, best))
    rows = [
        [number(ks[i]), labels[i], *(_value(found, c, i) for c in used)] for i in range(len(ks))
    ]
    heads = ["K", "components", *(CRITERIA[c][0] for c in used)]
    return [
        tag("p", "; ".join(choices) + "."),
        tag("div", charts, class_="charts"),
        table("Candidates", heads, rows, sortable=True),
    ]


def _value(found: Mapping[str, Any], column: str, i: int) -> Cell:
    """A value of a criterion, with its standard error where there is one."""
    value = float(found[column][i])
    error = found.get({"holdout_log_likelihood": "holdout_error"}.get(column, f"{column}_error"))
    if error is None or not np.isfinite(error[i]):
        return num(value, 7)
    return Cell(f"{number(value, 5)} ± {number(float(error[i]), 2)}", value)


def _criterion(
    column: str, title: str, ks: Any, values: Any, labels: list[str], best: int
) -> Markup:
    side = 0.05 * max(1.0, float(np.ptp(ks)))
    span, cut = _near_best(values, column)
    chart = Chart((ks.min() - side, ks.max() + side), span, "K, components", title)
    kinds = list(dict.fromkeys(labels))
    for i, kind in enumerate(kinds):
        chosen = np.array([label == kind for label in labels])
        order = np.argsort(ks[chosen], kind="stable")
        style = f"c{i % COLOURS} dash{i // COLOURS if len(kinds) > COLOURS else i % 4}"
        chart.line(ks[chosen][order].astype(float), values[chosen][order], style)
        chart.dots(ks[chosen], values[chosen], f"f{i % COLOURS}", 2.5)
    chart.dots(ks[best : best + 1], values[best : best + 1], "best", 7)
    words = (
        f"Best at K = {ks[best]} {labels[best]}".rstrip() + f": {number(float(values[best]), 7)}"
    )
    said = f"{title}; the ring is its choice." + cut
    if len(kinds) > 1:
        said += f" Lines: {', '.join(kinds[:8])}."
    return tag("figure", chart.render(f"by-{column}", title, words), tag("figcaption", said))


def _near_best(values: Any, column: str) -> tuple[tuple[float, float], str]:
    """The range of a picture: without what lies so far off that the good ones look alike."""
    order = np.sort(values[np.isfinite(values)])
    order = order[::-1] if CRITERIA[column][1] else order
    good = order[len(order) // (4 if len(order) >= 8 else 2)]
    near, far = abs(float(good - order[0])), abs(float(order[-1] - order[0]))
    if len(order) > 3 and far > 6 * near > 0:
        sign = -1 if CRITERIA[column][1] else 1
        ends = sorted((float(order[0]) - sign * 0.6 * near, float(order[0]) + sign * 3 * near))
        return (ends[0], ends[1]), " Poor candidates lie beyond it."
    pad = 0.08 * max(far, 1e-12)
    return (float(order.min()) - pad, float(order.max()) + pad), ""


def drift_section(subject: Subject) -> list[Markup]:
    """What was noticed of the stream: log-density, drift statistics, and alarms."""
    monitor = subject.monitor
    assert monitor is not None
    rows = np.cumsum(np.asarray(monitor["rows"], np.float64))
    start = max(0.0, subject.n_seen - float(rows[-1]))
    alarms, changes = monitor.get("alarms", ()), monitor.get("changes", ())
    said = f"{len(alarms)} alarm{'' if len(alarms) == 1 else 's'}"
    if changes:
        said += f", and {len(changes)} changes of components"
    out = [tag("p", f"{said} in {number(rows[-1])} rows.", class_="warn" if alarms else None)]
    charts = [_course(monitor, rows + start, ("log_likelihood",), "log p, nats a row", alarms)]
    known = [n for n in STATISTICS if n in monitor and np.isfinite(monitor[n]).any()]
    if known:
        charts.append(_course(monitor, rows + start, known, "drift, log10", alarms))
    out.append(tag("div", charts, class_="charts"))
    if alarms:
        cells = [
            [f"{a['row']:,}", str(a["kind"]), num(float(a["statistic"]), 4)]
            for a in alarms[-MOST_ALARMS:]
        ]
        out.append(table("Alarms, the latest last", ["after row", "kind", "statistic"], cells))
    if changes:
        cells = [
            [f"{c['row']:,}", str(c["kind"]), ", ".join(map(str, c.get("components", ())))]
            for c in changes[-MOST_ALARMS:]
        ]
        out.append(table("Changes of components", ["after row", "kind", "components"], cells))
    return out


def _course(monitor: Mapping[str, Any], at: Any, names: Any, title: str, alarms: Any) -> Markup:
    """Values along the stream, means of neighbours where they are many."""
    step = -(-len(at) // MOST_POINTS)
    n = max(1, len(at) // step) * step
    where = at[:n][step - 1 :: step]
    lines = []
    for name in names:
        values = np.asarray(monitor[name], np.float64)[:n].reshape(-1, step).mean(axis=1)
        lines.append(np.log10(np.maximum(values, 0.1)) if name in STATISTICS else values)
    finite = np.concatenate([line[np.isfinite(line)] for line in lines])
    if not len(finite):
        finite = np.zeros(1)
    pad = 0.06 * max(float(np.ptp(finite)), 1e-9)
    chart = Chart(
        (float(at[0]), float(at[-1])), (finite.min() - pad, finite.max() + pad), "row", title
    )
    for i, line in enumerate(lines):
        chart.line(where, line, f"c{i} dash{i % 4}")
    for alarm in alarms[-MOST_ALARMS:]:
        chart.upright(float(alarm["row"]), "thin c1 dash2")
    words = f"{title}: from {number(float(finite.min()))} to {number(float(finite.max()))}."
    caption = f"{title}; alarms are dotted." + (f" {', '.join(names)}." if len(names) > 1 else "")
    return tag("figure", chart.render(f"course-{names[0].replace('_', '-')}", title, words),
               tag("figcaption", caption))  # fmt: skip
