"""Rows that a model is not certain of, and rows that it finds unlikely: how many, and where."""

from __future__ import annotations

from typing import Any

import numpy as np

from streamgmm.pages.charts import Chart
from streamgmm.pages.markup import Markup, number, percent, tag
from streamgmm.pages.subject import Subject
from streamgmm.pages.tables import Cell, facts, num, table
from streamgmm.summaries.cells import DOUBTFUL
from streamgmm.summaries.findings import UNLIKELY

MORE = 3.0  # times what the model expects, from which a report warns


def doubt_section(subject: Subject) -> list[Markup]:
    """Doubtful and unlikely rows, their places in the data, and the least likely of all."""
    portrait = subject.portrait
    found = portrait.findings
    if found is None:
        return [tag("p", "There were no rows to look at: give DATA to see them.")]
    doubtful, unlikely = found.doubtful / found.weight, found.unlikely / found.weight
    out = [
        facts(
            [
                ("rows", number(found.n_rows)),
                ("log p, nats a row", number(found.log_likelihood / found.weight, 5)),
                ("doubtful rows", f"{number(found.doubtful)} ({percent(doubtful)})"),
                ("unlikely rows", f"{number(found.unlikely)} ({percent(unlikely)})"),
            ]
        ),
        tag(
            "p",
            f"A row is doubtful where its likeliest component has a probability under {DOUBTFUL}. "
            f"It is unlikely where its log-density is under {number(portrait.expected.limit, 4)}, "
            f"which {percent(UNLIKELY)} of the model's own rows do not reach.",
        ),
    ]
    if unlikely > MORE * UNLIKELY:
        out.append(
            tag("p", f"That is {number(unlikely / UNLIKELY, 2)} times as many unlikely rows as "
                "the model expects: it does not describe some of the rows.", class_="warn")
        )  # fmt: skip
    charts = [_densities(subject), _certainties(subject)]
    if portrait.cells is not None and portrait.n_samples > 1:
        charts += [_along(subject), _labels_along(subject)]
    out.append(tag("div", charts, class_="charts"))
    rows = [[f"{int(i):,}", num(float(p), 4), Cell(int(k), k)] for p, i, k in found.least]
    out.append(table("The least likely rows", ["row", "log p, nats", "component"], rows))
    return out + _worst_runs(subject)


def _densities(subject: Subject) -> Markup:
    portrait, found = subject.portrait, subject.portrait.findings
    assert found is not None
    edges = portrait.expected.edges
    seen = found.density[1:-1] / found.weight
    own = portrait.expected.shares[1:-1]
    top = max(float(seen.max(initial=0)), float(own.max(initial=0)), 1e-9)
    chart = Chart((edges[0], edges[-1]), (0, 1.1 * top), "log p of a row, nats", "share of rows")
    chart.bars(edges, seen, "grey")
    middle = (edges[1:] + edges[:-1]) / 2
    chart.line(middle, own, "c1 dash1")
    chart.upright(portrait.expected.limit, "c0 thin dash2")
    below = found.density[0] / found.weight
    beyond = f" {percent(float(below))} of rows are less likely still." if below > 0 else ""
    words = "Shares of rows by their log-density, beside what the model expects of its own rows."
    caption = (
        "How likely rows are (grey), what the model expects (dashed), and the limit of unlikely "
        "rows (dotted)." + beyond
    )
    return tag(
        "figure",
        chart.render("densities", "Log-density of rows", words),
        tag("figcaption", caption),
    )


def _certainties(subject: Subject) -> Markup:
    found = subject.portrait.findings
    assert found is not None
    share = found.certainty / found.weight
    edges = np.linspace(0, 1, len(share) + 1)
    chart = Chart((0, 1), (0, 1), "probability of the likeliest component", "share of rows")
    chart.bars(edges, share, "f0")
    chart.upright(DOUBTFUL, "thin total dash2")
    words = "; ".join(
        f"{edges[i]:.2f} to {edges[i + 1]:.2f}: {percent(float(share[i]))}"
        for i in np.flatnonzero(share > 0.0005)
    )
    return tag(
        "figure",
        chart.render("certainties", "Certainty of labels", words),
        tag(
            "figcaption", "How certain the labels are; doubtful rows lie left of the dotted line."
        ),
    )


def _along(subject: Subject) -> Markup:
    """Shares of doubtful and of unlikely rows along the data."""
    cells, n = subject.portrait.cells, subject.portrait.n_samples
    assert cells is not None
    edges = np.arange(len(cells.weight) + 1) * n / len(cells.weight)
    weight = np.where(cells.weight > 0, cells.weight, np.nan)
    doubtful, unlikely = cells.doubtful / weight, cells.unlikely / weight
    top = max(float(np.nanmax(doubtful)), float(np.nanmax(unlikely)), 1e-6)
    chart = Chart((0, n), (0, 1.1 * min(1.0, top)), "row", "share of rows")
    chart.bars(edges, np.nan_to_num(doubtful), "grey")
    middle = (edges[1:] + edges[:-1]) / 2
    chart.line(middle, unlikely, "c1")
    worst = int(np.nanargmax(unlikely))
    words = (
        f"Unlikely rows are most frequent in rows {int(edges[worst]):,} to "
        f"{int(edges[worst + 1]):,}: {percent(float(unlikely[worst]))} of them."
    )
    caption = "Where they are: doubtful rows (grey) and unlikely ones (line) along the data."
    return tag(
        "figure",
        chart.render("along", "Doubtful and unlikely rows along the data", words),
        tag("figcaption", caption),
    )


def _labels_along(subject: Subject) -> Markup:
    """How many rows each of the heaviest components takes, along the data."""
    cells, n = subject.portrait.cells, subject.portrait.n_samples
    assert cells is not None
    weight = np.where(cells.weight > 0, cells.weight, np.nan)[:, None]
    share = cells.labels / weight
    edges = np.arange(len(share) + 1) * n / len(share)
    chart = Chart((0, n), (0, 1), "row", "share of rows")
    low: Any = np.zeros(len(share))
    names = [*map(str, cells.request.shown), "others"]
    for place in range(share.shape[1]):
        high = low + np.nan_to_num(share[:, place])
        chart.bars(edges, high, "grey" if names[place] == "others" else f"f{place}", low)
        low = high
    base = np.cumsum(np.nan_to_num(share), axis=1) - np.nan_to_num(share)
    for place, name in enumerate(names):
        widest = int(np.argmax(np.nan_to_num(share[:, place])))
        taken = float(np.nansum(cells.labels[:, place])) / max(float(cells.labels.sum()), 1e-300)
        if taken > 0.04 and np.nan_to_num(share[widest, place]) > 0.08:
            at = float(base[widest, place] + share[widest, place] / 2)
            inside = float(np.clip((edges[widest] + edges[widest + 1]) / 2, 0.04 * n, 0.96 * n))
            chart.write(inside, at, name)
    total = np.nansum(cells.labels, axis=0) / max(float(cells.labels.sum()), 1e-300)
    words = "; ".join(
        f"{name}: {percent(float(t))}" for name, t in zip(names, total, strict=True) if t > 0
    )
    return tag(
        "figure",
        chart.render("labels", "Components along the data", words),
        tag("figcaption", "Which components rows have, along the data."),
    )


def _worst_runs(subject: Subject) -> list[Markup]:
    """The runs of rows with the most unlikely rows."""
    cells, n = subject.portrait.cells, subject.portrait.n_samples
    if cells is None or not cells.unlikely.any():
        return []
    edges = np.arange(len(cells.weight) + 1) * n // len(cells.weight)
    order = np.argsort(-cells.unlikely, kind="stable")[:5]
    rows = [
        [f"{int(edges[c]):,} to {int(edges[c + 1]):,}", num(float(cells.unlikely[c])),
         num(float(cells.doubtful[c])), num(float(cells.log_density[c]), 4)]
        for c in order if cells.unlikely[c] > 0
    ]  # fmt: skip
    heads = ["rows", "unlikely", "doubtful", "mean log p, nats"]
    return [table("Where most unlikely rows are", heads, rows)]
