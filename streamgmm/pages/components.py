"""The components of a report: their table, pictures, what separates them, where they overlap."""

from __future__ import annotations

from typing import Any

import numpy as np

from streamgmm.pages.charts import COLOURS, Chart
from streamgmm.pages.markup import Markup, number, percent, tag
from streamgmm.pages.profiles import profiles
from streamgmm.pages.subject import Subject
from streamgmm.pages.tables import Cell, num, table
from streamgmm.summaries.marginals import marginal
from streamgmm.summaries.moments import covariances_of

MOST_ROWS = 500  # of a table of components
MOST_DRAWN = 12
TOLD = 3  # features that a component is described by
PLAIN = 0.5  # standard deviations, from which a difference is told
MATRIX = 12


def components_section(subject: Subject) -> list[Markup]:
    """A table of components, sortable by weight, in the order of weight."""
    weights, findings = subject.weights, subject.portrait.findings
    order = np.argsort(-weights, kind="stable")[:MOST_ROWS]
    heads = ["component", "weight"] + (["rows", "share of rows"] if findings else [])
    heads.append("what separates it from the rest")
    rows = []
    for k in order.tolist():
        share = max(0.0, float(weights[k]))
        bar = tag("span", class_="bar", style=f"width:{5 * share:.2f}rem", aria_hidden="true")
        row = [Cell(k, k), Cell([bar, percent(share)], share)]
        if findings is not None:
            n = float(findings.labelled[k])
            row += [num(n), Cell(percent(n / findings.weight), n / findings.weight)]
        rows.append([*row, describe(subject, k)])
    out = [table("Components, the heaviest first", heads, rows, sortable=True)]
    if len(order) < subject.k:
        out.insert(0, tag("p", f"The {len(order)} heaviest of {subject.k} components."))
    empty = int(np.count_nonzero(weights <= 0))
    if empty:
        said = f"{empty} component{'s have' if empty > 1 else ' has'} no weight: no row is theirs."
        out.insert(0, tag("p", said, class_="warn"))
    if subject.portrait.moments.draws:
        out.append(
            tag("p", f"Moments of this family are those of {subject.portrait.moments.draws:,} "
                "draws of each component.", class_="sub")
        )  # fmt: skip
    return out


def describe(subject: Subject, k: int, most: int = TOLD) -> str:
    """In which features a component lies apart from all others, in words.

    The difference is in pooled standard deviations (Cohen's d).
    """
    found, moments = subject.portrait.contrasts[k], subject.portrait.moments
    order = [d for d in np.argsort(-np.abs(np.nan_to_num(found))) if abs(found[d]) >= PLAIN][:most]
    if subject.k == 1:
        return "it is the only one"
    if not order:
        return "nothing by its mean alone"
    return "; ".join(
        f"{subject.name(d)} {'high' if found[d] > 0 else 'low'}: "
        f"{number(float(moments.means[k, d]))} ({number(float(found[d]), 2)} sd)"
        for d in order
    )


def pictures_section(subject: Subject) -> list[Markup]:
    """Components over the density of all rows: each chosen feature, and each pair of them."""
    portrait = subject.portrait
    shown = subject.heaviest(MOST_DRAWN)
    told = _say_shown(subject, len(shown))
    charts = [_pair(subject, q, shown) for q in range(len(portrait.grid.pairs))]
    charts += [_single(subject, j, shown) for j in range(len(portrait.columns))]
    return [tag("p", told), tag("div", charts, class_="charts")]


def _say_shown(subject: Subject, shown: int) -> str:
    portrait = subject.portrait
    said = []
    if portrait.histograms is not None:
        said.append(
            f"Grey is the density of all {portrait.histograms.n_rows:,} rows, darker where there "
            "are more, on a scale of logarithms."
        )
        beyond = portrait.histograms.outside()
        if beyond.max() > 1e-12:
            worst = int(beyond.argmax())
            said.append(
                f"Up to {percent(float(beyond.max()))} of them lie beyond the range of a picture "
                f"({subject.name(int(portrait.columns[worst]))})."
            )
    else:
        said.append("There were no rows: these are the components alone.")
    said.append("An ellipse holds 90 % of a component.")
    if shown < np.count_nonzero(subject.weights > 0):
        said.append(f"Of {subject.k} components the {shown} heaviest are drawn.")
    if len(portrait.columns) < subject.d:
        said.append(
            f"Of {subject.d} features these {len(portrait.columns)} separate the components most."
        )
    return " ".join(said)


def _pair(subject: Subject, q: int, shown: Any) -> Markup:
    portrait, grid = subject.portrait, subject.portrait.grid
    i, j = (int(each) for each in grid.pairs[q])
    x, y = grid.edges(i), grid.edges(j)
    columns = portrait.columns[[i, j]]
    a, b = (subject.name(int(c)) for c in columns)
    chart = Chart((x[0], x[-1]), (y[0], y[-1]), a, b, height=270)
    if portrait.histograms is not None:
        chart.shades(x, y, portrait.histograms.joint(q))
    means = portrait.moments.means[shown][:, columns]
    spread = covariances_of(portrait.mixture, columns)[shown]
    for place in range(len(shown)):
        chart.outline(means[place], spread[place], 0.9, _style(place))
    for place, (k, mean) in enumerate(zip(shown, means, strict=True)):
        chart.write(float(mean[0]), float(mean[1]), str(k), f"t{place % COLOURS}")
    words = "; ".join(
        f"component {k} about {number(float(m[0]))}, {number(float(m[1]))}"
        for k, m in zip(shown, means, strict=True)
    )
    title = f"{b} against {a}"
    return tag("figure", chart.render(f"pair{q}", title, words), tag("figcaption", title))


def _single(subject: Subject, j: int, shown: Any) -> Markup:
    portrait, grid = subject.portrait, subject.portrait.grid
    found = marginal(portrait.mixture, grid, j, shown)
    edges, name = grid.edges(j), subject.name(int(portrait.columns[j]))
    rows = None
    if portrait.histograms is not None:
        rows = portrait.histograms.single(j) / portrait.histograms.weight / grid.width[j]
    top = max(float(found.total.max()), 0.0 if rows is None else float(rows.max()))
    chart = Chart((edges[0], edges[-1]), (0.0, 1.1 * top), name, "density")
    if rows is not None:
        chart.bars(edges, rows, "grey")
    for place, part in enumerate(found.parts):
        chart.line(found.points, part, f"thin {_style(place)}")
    chart.line(found.points, found.total, "total")
    for place, (k, part) in enumerate(zip(shown, found.parts, strict=True)):
        peak = int(part.argmax())
        if part[peak] > 0.04 * top:
            chart.write(
                float(found.points[peak]), float(part[peak]), str(k), f"t{place % COLOURS}"
            )
    words = f"The mixture along {name}, the sum of its parts; most dense at " + number(
        float(found.points[int(found.total.argmax())])
    )
    caption = f"{name}: the mixture (dark) and its parts" + ("" if rows is None else ", over rows")
    return tag(
        "figure", chart.render(f"one{j}", f"{name} alone", words), tag("figcaption", caption)
    )


def _style(place: int) -> str:
    """Colour and dashes of a component's line."""
    return f"c{place % COLOURS} dash{place // COLOURS}"


def separation_section(subject: Subject) -> list[Markup]:
    """Which features separate the components, and how far each lies from the rest."""
    portrait = subject.portrait
    if subject.k == 1:
        one = tag("p", "There is one component, and nothing to separate.")
        return [one, *profiles(subject)]
    order = np.argsort(-portrait.separation, kind="stable")[:MATRIX].tolist()
    shown = subject.heaviest(MATRIX)
    heads = ["feature", "variance between", *(f"component {k}" for k in shown)]
    rows = [
        [subject.name(d), Cell(percent(float(portrait.separation[d])), portrait.separation[d]),
         *(num(float(portrait.contrasts[k, d]), 2) for k in shown)]
        for d in order
    ]  # fmt: skip
    said = (
        "“Variance between” is the share of a feature's variance that lies between components. "
        "Under each component is how far its mean lies above (or below) that of all others, in "
        "standard deviations."
    )
    left = []
    if len(order) < subject.d:
        left.append(f"the {len(order)} of {subject.d} features that separate most")
    if len(shown) < subject.k:
        left.append(f"the {len(shown)} heaviest of {subject.k} components")
    if left:
        said += f" Shown are {' and '.join(left)}."
    caption = "What separates each component from the rest"
    return [tag("p", said), table(caption, heads, rows, sortable=True), *profiles(subject)]


def overlap_section(subject: Subject) -> list[Markup]:
    """Which components share rows: pairs by how many rows are expected to be mislabelled."""
    if subject.k == 1:
        return [tag("p", "There is one component, and nothing to overlap with.")]
    portrait = subject.portrait
    overlap = (portrait.findings or portrait.own).overlap()
    upper = np.triu_indices(subject.k, 1)
    order = np.argsort(-overlap[upper], kind="stable")[:10]
    pairs = [(int(upper[0][i]), int(upper[1][i])) for i in order]
    pairs = [(a, b) for a, b in pairs if overlap[a, b] >= 5e-6]
    whose = "the rows" if portrait.findings else f"{portrait.own.n_rows:,} draws of the model"
    out = [
        tag("p", f"Of {whose} that are labelled with either of two components, the share whose "
            "label the model itself expects to be the wrong one of the two.")
    ]  # fmt: skip
    if not pairs:
        out.append(tag("p", "No two components share rows: all lie apart."))
        return out
    rows = [
        [f"{a} and {b}", Cell(percent(float(overlap[a, b])), float(overlap[a, b])),
         Cell(percent(float(subject.weights[[a, b]].sum())), float(subject.weights[[a, b]].sum())),
         _shared(subject, a, b)]
        for a, b in pairs
    ]  # fmt: skip
    heads = ["components", "mislabelled", "their weight", "what separates the two"]
    out.append(table("Pairs that overlap most", heads, rows, sortable=True))
    if 2 < subject.k <= MATRIX:
        heads = ["component", *(str(k) for k in range(subject.k))]
        cells = [
            [
                k,
                *(
                    Cell(percent(v), v) if i != k else ""
                    for i, v in enumerate(overlap[k].tolist())
                ),
            ]
            for k in range(subject.k)
        ]
        out.append(table("Expected share of mislabelled rows of every pair", heads, cells))
    return out


def _shared(subject: Subject, a: int, b: int) -> str:
    """The features in which two components differ most, in pooled standard deviations."""
    moments = subject.portrait.moments
    pooled = np.sqrt((moments.variances[a] + moments.variances[b]) / 2)
    shift = moments.means[a] - moments.means[b]
    apart = np.divide(shift, pooled, out=np.zeros_like(shift), where=pooled > 0)
    order = np.argsort(-np.abs(apart), kind="stable")[:2].tolist()
    return "; ".join(f"{subject.name(d)} ({number(float(abs(apart[d])), 2)} sd)" for d in order)
