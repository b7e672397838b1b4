"""How the rows of each component are spread in each feature: quantiles, drawn and as a table."""

from __future__ import annotations

import numpy as np

from streamgmm.model.moments import Floats
from streamgmm.pages.charts import BOTTOM, COLOURS, TOP, Chart
from streamgmm.pages.markup import Markup, number, tag
from streamgmm.pages.subject import Subject
from streamgmm.pages.tables import Cell, table

SHARES = (0.05, 0.5, 0.95)
LANE = 22  # pixels of a component
LEAST = 72  # pixels of all lanes, however few


def profiles(subject: Subject) -> list[Markup]:
    """Quantiles of the features that separate most, in the heaviest components."""
    title = tag("h3", "How the rows are spread")
    portrait = subject.portrait
    if portrait.audit is None:
        return []
    if portrait.profiles is None:
        return [title, tag("p", "Quantiles need crick: pip install 'streamgmm[quantiles]'")]
    request, rows = portrait.profiles.request, portrait.profiles.rows
    found = portrait.profiles.at(np.array(SHARES))
    charts = [_chart(subject, found[:, j], j) for j in range(len(request.columns))]
    heads = ["feature", *(f"component {k}" for k in request.shown)]
    cells = [
        [subject.name(int(d)), *(Cell(_said(q), float(q[1])) for q in found[:, j])]
        for j, d in enumerate(request.columns)
    ]
    caption = "Median (5 % to 95 %) of the rows"
    return [
        title,
        tag("p", _told(subject, int(np.count_nonzero(rows)))),
        tag("div", charts, class_="charts"),
        table(caption, heads, cells, sortable=True),
    ]


def _told(subject: Subject, seen: int) -> str:
    assert subject.portrait.profiles is not None
    request = subject.portrait.profiles.request
    said = [
        "A bar runs from the 5 % to the 95 % quantile of the rows that are labelled with a "
        "component, and the dot is their median. They are of the rows, not of the model."
    ]
    left = []
    if len(request.columns) < subject.d:
        left.append(f"the {len(request.columns)} of {subject.d} features that separate most")
    if len(request.shown) < subject.k:
        left.append(f"the {len(request.shown)} heaviest of {subject.k} components")
    if left:
        said.append(f"Shown are {' and '.join(left)}.")
    none = len(request.shown) - seen
    if none:
        said.append(f"{none} of these components {'have' if none > 1 else 'has'} no rows.")
    return " ".join(said)


def _chart(subject: Subject, quantiles: Floats, j: int) -> Markup:
    """A lane for each component: its bar and its median."""
    assert subject.portrait.profiles is not None
    request = subject.portrait.profiles.request
    name = subject.name(int(request.columns[j]))
    known = quantiles[np.isfinite(quantiles).all(axis=1)]
    low, high = (known.min(), known.max()) if len(known) else (0.0, 1.0)
    pad = 0.04 * (high - low)
    height = TOP + BOTTOM + max(LEAST, LANE * len(request.shown))
    names = [str(k) for k in request.shown]
    chart = Chart((low - pad, high + pad), (0, 1), name, "component", height, names)
    lanes = np.arange(len(names), dtype=np.float64)
    for s, (a, middle, b) in enumerate(quantiles):
        chart.line(np.array([a, b]), lanes[[s, s]], f"thick c{s % COLOURS}")
        chart.dots(middle, lanes[s], f"dot f{s % COLOURS}", 5)
    words = "; ".join(f"component {k}: {_said(q)}" for k, q in zip(names, quantiles, strict=True))
    title = f"{name} by component"
    return tag("figure", chart.render(f"profile{j}", title, words), tag("figcaption", title))


def _said(quantiles: Floats) -> str:
    low, middle, high = (float(each) for each in quantiles)
    if not np.isfinite(middle):
        return "no rows"
    return f"{number(middle)} ({number(low)} to {number(high)})"
